//! What `/metrics` tells, and that the dashboard and the alerts ask for nothing else.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use axum::body::Body;
use axum::http::header;
use common::{Server, Stalled, request, run};
use sela::CollectionOptions;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn metrics(server: &Server) -> String {
    let got = server.get("/metrics").await;
    assert_eq!(got.status, 200);
    let kind = got.headers[header::CONTENT_TYPE].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    String::from_utf8(got.bytes).unwrap()
}

/// The value of a series, written as it is read.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {series} in\n{text}"));
    line.parse().unwrap()
}

/// Names of all series.
fn names(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|l| l.split(['{', ' ']).next().unwrap())
        .collect()
}

#[test]
fn requests_are_counted_by_route_and_made_up_paths_are_one() {
    run(async {
        let server = Server::new();
        for id in 1..=3 {
            let body = json!({"vector_id": id, "text": "river"});
            server
                .post("/api/v1/metal4/store_embedding", body)
                .await
                .is(200);
            let path = format!("/api/v1/metal4/retrieve_embedding/{id}");
            server.get(&path).await.is(200);
            assert_eq!(server.get(&format!("/made/up/{id}")).await.status, 404);
            let bare = server.ask_as("", "BREW", &format!("/tea/{id}"), None).await;
            assert_eq!(bare.status, 401);
        }
        let text = metrics(&server).await;
        let asked = |method: &str, route: &str, status: &str| {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            value(&text, &format!("sela_http_requests_total{{{labels}}}"))
        };
        let retrieve = "/api/v1/metal4/retrieve_embedding/{id}";
        assert_eq!(asked("GET", retrieve, "2xx"), 3.0);
        assert_eq!(asked("GET", "none", "4xx"), 3.0);
        assert_eq!(asked("other", "none", "4xx"), 3.0);
        assert!(!text.contains("made/up") && !text.contains("BREW"));
        let seconds = "sela_http_request_duration_seconds_count";
        assert_eq!(
            value(&text, &format!("{seconds}{{route=\"{retrieve}\"}}")),
            3.0
        );
        // The question for the metrics is under way itself.
        assert_eq!(value(&text, "sela_http_requests_in_flight"), 1.0);
        let refused = "sela_auth_refusals_total{code=\"no_key\"}";
        assert_eq!(value(&text, refused), 3.0);
        assert_eq!(value(&text, "sela_keys"), 3.0);
        assert_eq!(value(&text, "sela_ready"), 1.0);
        // One text is embedded to make ready.
        assert_eq!(value(&text, "sela_embed_texts_total"), 4.0);
        assert_eq!(value(&text, "sela_embed_padding_tokens_total"), 0.0);
        let rows = "sela_collection_rows{collection=\"embeddings\"}";
        assert_eq!(value(&text, rows), 3.0);
        let batches = "sela_batch_tokens_count{lane=\"interactive\"}";
        assert_eq!(value(&text, batches), 3.0);
    });
}

#[test]
fn every_line_is_one_that_prometheus_reads() {
    run(async {
        let server = Server::new();
        let body = json!({"text": "river"});
        server.post("/api/v1/metal4/embed", body).await.is(200);
        let text = metrics(&server).await;
        assert!(text.ends_with("# EOF\n"), "{text}");
        let mut told = BTreeSet::new();
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap();
                assert!(told.insert(family), "{family} is told twice");
                continue;
            }
            if line.starts_with('#') {
                continue;
            }
            let (series, number) = line.rsplit_once(' ').unwrap();
            assert!(number.parse::<f64>().is_ok(), "{line}");
            assert!(series.starts_with(family), "{line} stands under {family}");
            let name = series.split('{').next().unwrap();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(plain), "{name}");
        }
        assert!(told.len() > 40, "only {} metrics", told.len());
        let mut last = 0.0;
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("sela_batch_tokens_bucket{le=\"") else {
                continue;
            };
            if rest.contains("interactive") {
                let count: f64 = rest.rsplit_once(' ').unwrap().1.parse().unwrap();
                assert!(count >= last, "buckets must not fall: {line}");
                last = count;
            }
        }
        assert_eq!(last, 1.0);
    });
}

#[test]
fn they_need_a_key_unless_they_are_opened() {
    run(async {
        let server = Server::new();
        let bare = server.ask_as("", "GET", "/metrics", None).await;
        bare.fails(401, "no_key");
        let read = server.ask_as(&server.read, "GET", "/metrics", None).await;
        assert_eq!(read.status, 200);
        let open = Server::with(|settings| settings.telemetry.metrics_open = true);
        let bare = open.ask_as("", "GET", "/metrics", None).await;
        assert_eq!(bare.status, 200);
        let others = open.ask_as("", "GET", "/api/v1/metal4/stats", None).await;
        others.fails(401, "no_key");
    });
}

#[test]
fn a_caller_that_goes_away_is_counted() {
    run(async {
        let server = Server::new();
        let request = request("POST", "/api/v1/metal4/embed")
            .header(header::AUTHORIZATION, format!("Bearer {}", server.admin))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::new(Stalled))
            .unwrap();
        let mut asked = Box::pin(server.router.clone().oneshot(request));
        // Polled until it waits for its body.
        for _ in 0..10 {
            assert!(futures_poll(&mut asked).await, "there is no body yet");
        }
        let text = metrics(&server).await;
        assert_eq!(value(&text, "sela_http_requests_in_flight"), 2.0);
        drop(asked);
        let text = metrics(&server).await;
        assert_eq!(value(&text, "sela_http_requests_in_flight"), 1.0);
        assert_eq!(value(&text, "sela_http_requests_abandoned_total"), 1.0);
    });
}

/// Whether a future still waits after one look at it.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| {
        let waits = std::pin::Pin::new(&mut *future).poll(context).is_pending();
        std::task::Poll::Ready(waits)
    })
    .await
}

#[test]
fn collections_after_the_hundredth_are_told_together() {
    run(async {
        let home = tempfile::tempdir().unwrap();
        // Before the server reads them: it looks at the file only once a second.
        let keys = sela_server::KeyFile::new(home.path().join(sela_server::KeyFile::NAME));
        let key = keys.create("read", sela_server::Role::Read).unwrap().secret;
        let app = common::state(home.path(), |_| {});
        let options = sela::Options::new(home.path());
        let engine = sela::Engine::open(options).unwrap();
        for at in 0..103 {
            let external = CollectionOptions::external(2);
            let collection = engine.create(&format!("c{at:03}"), &external).unwrap();
            if at >= 99 {
                let item = sela::Item::vector(1, vec![1.0, 0.0]);
                collection.upsert(&[item]).unwrap();
            }
        }
        let router = sela_server::router(app);
        let asked = request("GET", "/metrics").header("api-key", key);
        let got = common::answer(&router, asked.body(Body::empty()).unwrap()).await;
        let text = String::from_utf8(got.bytes).unwrap();
        assert_eq!(value(&text, "sela_collections"), 103.0);
        let rows = |name: &str| {
            let series = format!("sela_collection_rows{{collection=\"{name}\"}}");
            value(&text, &series)
        };
        assert_eq!(
            (rows("c000"), rows("c099"), rows("_other")),
            (0.0, 1.0, 3.0)
        );
        let told = text
            .lines()
            .filter(|l| l.starts_with("sela_collection_rows{"));
        assert_eq!(told.count(), 101);
    });
}

/// Names of metrics in an expression of PromQL.
fn asked_for(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("sela_") || word.starts_with("process_"));
    ours.map(String::from).collect()
}

fn expressions(panels: &Value, found: &mut Vec<String>) {
    match panels {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "expr" || key == "query" => {
                        found.push(text.clone());
                    }
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let read = |name: &str| fs::read_to_string(deploy.join(name)).unwrap();
    let dashboard: Value = serde_json::from_str(&read("grafana/sela.json")).unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    let alerts = read("prometheus/alerts.yml");
    let rules = alerts
        .lines()
        .filter_map(|l| l.trim().strip_prefix("expr: "));
    asked.extend(rules.map(String::from));
    run(async {
        let server = Server::new();
        let body = json!({"vector_id": 1, "text": "river"});
        server
            .post("/api/v1/metal4/store_embedding", body)
            .await
            .is(200);
        server.ask_as("", "GET", "/x", None).await;
        let text = metrics(&server).await;
        let there = names(&text);
        let mut wanted = BTreeSet::new();
        for expression in &asked {
            wanted.append(&mut asked_for(expression));
        }
        assert!(wanted.len() > 25, "only {wanted:?}");
        let missing: Vec<_> = wanted
            .iter()
            .filter(|name| !there.contains(name.as_str()))
            .collect();
        assert!(missing.is_empty(), "asked for, but not there: {missing:?}");
    });
}
