//! What no honest client sends: a documented status each, and the server goes on.

mod common;

use axum::body::Body;
use common::{Server, request, run};
use sela_server::config::Bytes;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const EMBED: &str = "/api/v1/metal4/embed";

#[test]
fn bodies_that_are_no_json_are_refused() {
    run(async {
        let server = Server::new();
        let deep = format!(
            "{{\"text\": {}1{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let cases: Vec<(Vec<u8>, u16, &str)> = vec![
            (b"".to_vec(), 400, "malformed_json"),
            (b"{".to_vec(), 400, "malformed_json"),
            (b"{\"text\": \"a\"} x".to_vec(), 400, "malformed_json"),
            (b"{\"text\": NaN}".to_vec(), 400, "malformed_json"),
            (b"{\"text\": Infinity}".to_vec(), 400, "malformed_json"),
            (b"{\"text\": \"\xff\xfe\"}".to_vec(), 400, "malformed_json"),
            (b"{\"text\": \"\\ud800\"}".to_vec(), 400, "malformed_json"),
            (b"{\"text\": \"a\x01\"}".to_vec(), 400, "malformed_json"),
            (deep.into_bytes(), 422, "invalid_field"),
            (b"[]".to_vec(), 422, "invalid_field"),
            (b" [\"a\"]".to_vec(), 422, "invalid_field"),
            (b"null".to_vec(), 422, "invalid_field"),
            (b"{\"text\": null}".to_vec(), 422, "invalid_field"),
            (b"{\"text\": [\"a\"]}".to_vec(), 422, "invalid_field"),
            (
                b"{\"text\": \"a\", \"text\": \"b\"}".to_vec(),
                422,
                "invalid_field",
            ),
        ];
        for (body, status, code) in cases {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let got = server.send_raw(EMBED, JSON, body).await;
            assert_eq!(got.status.as_u16(), status, "{shown}: {}", got.json());
            assert_eq!(got.json()["code"], code, "{shown}");
        }
        let deep = format!(
            "{{\"filter\": {}{}, \"query\": \"a\"}}",
            "[".repeat(5000),
            "]".repeat(5000)
        );
        let path = "/v1/collections/x/documents/search";
        server
            .send_raw(path, JSON, deep)
            .await
            .fails(400, "malformed_json");
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "",
        ] {
            let refused = server.send_raw(EMBED, kind, "{\"text\": \"a\"}").await;
            let error = refused.fails(400, "content_type");
            assert!(error["hint"].as_str().unwrap().contains(JSON), "{error}");
        }
        let charset = "application/json; charset=utf-8";
        server
            .send_raw(EMBED, charset, "{\"text\": \"a\"}")
            .await
            .is(200);
    });
}

#[test]
fn numbers_that_no_vector_holds_are_refused() {
    run(async {
        let server = Server::new();
        let path = "/api/v1/metal4/load_database";
        for (rows, status) in [
            ("[[1e39]]", 422),
            ("[[-1e39, 1]]", 422),
            ("[[1e400]]", 422),
            ("[[NaN]]", 400),
            ("[[null]]", 422),
            ("[[]]", 422),
            ("[1]", 422),
            ("[[[1]]]", 422),
            ("{}", 422),
        ] {
            let body = format!("{{\"embeddings\": {rows}}}");
            let got = server.send_raw(path, JSON, body).await;
            assert_eq!(got.status.as_u16(), status, "{rows}: {}", got.json());
        }
    });
}

#[test]
fn everything_has_a_limit() {
    run(async {
        let server = Server::with(|settings| {
            settings.limits.body_bytes_max = Bytes(1000);
            settings.limits.database_bytes_max = Bytes(2000);
            settings.limits.texts_max = 3;
            settings.limits.text_bytes_max = Bytes(50);
        });
        let batch = "/api/v1/metal4/embed_batch";
        let over = server
            .post(batch, json!({"texts": ["a", "b", "c", "d"]}))
            .await;
        let error = over.fails(413, "too_large");
        assert!(
            error["hint"].as_str().unwrap().contains("limits.texts_max"),
            "{error}"
        );
        let long = json!({"texts": ["a", "b".repeat(51)]});
        let error = server.post(batch, long).await.fails(413, "too_large");
        assert!(
            error["detail"]
                .as_str()
                .unwrap()
                .starts_with("text 1 has 51 bytes"),
            "{error}"
        );
        let openai = json!({"input": ["a", "b", "c", "d"], "model": "tiny"});
        let error = server.post("/v1/embeddings", openai).await.is(413);
        assert!(error["error"]["message"].is_string());
        let big = format!("{{\"text\": \"{}\"}}", "x".repeat(1000));
        server
            .send_raw(EMBED, JSON, big.clone())
            .await
            .fails(413, "too_large");
        // Without a length said before, the body is cut off where it goes over.
        let stream = Body::new(common::Endless(100));
        server
            .send_raw(EMBED, JSON, stream)
            .await
            .fails(413, "too_large");
        let rows: Vec<Vec<f32>> = vec![vec![0.5; 100]; 10];
        let load = "/api/v1/metal4/load_database";
        server
            .post(load, json!({"embeddings": rows}))
            .await
            .fails(413, "too_large");
        let lie = request("POST", EMBED)
            .header("authorization", format!("Bearer {}", server.admin))
            .header("content-type", JSON)
            .header("content-length", "99999999999999")
            .body(Body::empty())
            .unwrap();
        server.send(lie).await.fails(413, "too_large");
        server.post(EMBED, json!({"text": "a"})).await.is(200);
    });
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    run(async {
        let server = Server::with(|settings| settings.limits.body_ms = 50);
        let stalled = Body::new(common::Stalled);
        server
            .send_raw(EMBED, JSON, stalled)
            .await
            .fails(408, "slow_body");
        let lines = Body::new(common::Stalled);
        let path = "/v1/collections/slow/documents";
        server
            .send_raw(path, "application/x-ndjson", lines)
            .await
            .fails(408, "slow_body");
    });
}

/// A body whose beginning comes and whose rest does not.
struct Begun(Option<axum::body::Bytes>);

impl axum::body::HttpBody for Begun {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        match self.0.take() {
            Some(bytes) => std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes)))),
            None => std::task::Poll::Pending,
        }
    }
}

#[test]
fn bodies_together_have_a_limit() {
    run(async {
        let server = Server::with(|settings| {
            settings.limits.bodies_bytes_max = Bytes(200 << 10);
            settings.limits.body_bytes_max = Bytes(150 << 10);
        });
        let begun = Begun(Some(vec![b' '; 90 << 10].into()));
        let first = server.send_raw(EMBED, JSON, Body::new(begun));
        let mut first = std::pin::pin!(first);
        let pending = std::future::poll_fn(|context| {
            std::task::Poll::Ready(first.as_mut().poll(context).is_pending())
        });
        assert!(pending.await);
        let second = Body::from(vec![b' '; 140 << 10]);
        let second = server.send_raw(EMBED, JSON, second).await;
        second.fails(429, "busy");
        assert_eq!(second.headers["retry-after"], "1");
        // One that tells its length is refused before any of it has come.
        let told = request("POST", EMBED)
            .header("authorization", format!("Bearer {}", server.admin))
            .header("content-type", JSON)
            .header("content-length", 150 << 10);
        let told = told.body(Body::new(common::Stalled)).unwrap();
        server.send(told).await.fails(429, "busy");
        server.post(EMBED, json!({"text": "a"})).await.is(200);
    });
}

#[test]
fn a_full_queue_is_told_at_once_and_nothing_else_fails() {
    run(async {
        let server = std::sync::Arc::new(Server::with(|settings| {
            settings.limits.queue_texts_max = 40;
            settings.limits.texts_max = 40;
        }));
        let texts: Vec<String> = (0..40).map(|n| format!("walk {n}")).collect();
        let body = json!({ "texts": texts });
        let asks: Vec<_> = (0..100)
            .map(|_| {
                let (server, body) = (server.clone(), body.clone());
                tokio::spawn(async move {
                    let got = server.post("/api/v1/metal4/embed_batch", body).await;
                    (got.status.as_u16(), got.headers.contains_key("retry-after"))
                })
            })
            .collect();
        let mut statuses = std::collections::BTreeMap::<(u16, bool), usize>::new();
        for ask in asks {
            *statuses.entry(ask.await.unwrap()).or_default() += 1;
        }
        let (done, refused) = (statuses.get(&(200, false)), statuses.get(&(429, true)));
        assert!(done.is_some_and(|&n| n > 0), "{statuses:?}");
        let all = done.unwrap_or(&0) + refused.unwrap_or(&0);
        assert_eq!(all, 100, "{statuses:?}");
    });
}

#[test]
fn ids_and_names_from_outside_are_never_paths() {
    run(async {
        let server = Server::new();
        let outside = server.home.path().join("data").join("escaped");
        for name in [
            "..%2Fescaped",
            "%2e%2e%2f%2e%2e%2fescaped",
            "a%2Fb",
            "%00",
            "con%0a",
        ] {
            let path = format!("/v1/collections/{name}/documents");
            let body = json!({"documents": [{"id": 1, "text": "a"}]});
            let got = server.post(&path, body).await;
            assert_eq!(got.status, 422, "{name}: {}", got.json());
        }
        assert!(!outside.exists());
        for id in [
            json!(-1),
            json!(1.5),
            json!(null),
            json!({}),
            json!(""),
            json!("x".repeat(600)),
        ] {
            let body = json!({"documents": [{"id": id, "text": "a"}]});
            let got = server.post("/v1/collections/ids/documents", body).await;
            assert_eq!(got.status, 422, "{id}: {}", got.json());
        }
        let huge: Value = json!({"documents": []});
        server
            .post("/v1/collections/ids/documents", huge)
            .await
            .is(200);
    });
}

#[test]
fn a_client_that_goes_away_takes_its_queued_work_back() {
    run(async {
        let server = std::sync::Arc::new(Server::with(|settings| {
            settings.limits.queue_texts_max = 100_000;
        }));
        let texts: Vec<String> = (0..4096).map(|n| format!("walk river stone {n}")).collect();
        let body = json!({ "texts": texts });
        let asks: Vec<_> = (0..20)
            .map(|_| {
                let (server, body) = (server.clone(), body.clone());
                tokio::spawn(async move {
                    server.post("/api/v1/metal4/embed_batch", body).await;
                })
            })
            .collect();
        let bulk = async || {
            let stats = server.get("/api/v1/metal4/stats").await.is(200);
            stats["embedder"]["lanes"][1].clone()
        };
        let count = |lane: &Value, what: &str| lane[what].as_u64().unwrap_or_default();
        while count(&bulk().await, "queued_texts") == 0 {}
        for ask in &asks {
            ask.abort();
        }
        loop {
            let lane = bulk().await;
            if count(&lane, "queued_texts") == 0 && count(&lane, "running") == 0 {
                assert!(count(&lane, "cancelled") > 0, "{lane}");
                assert!(count(&lane, "texts") < 20 * 4096, "{lane}");
                break;
            }
        }
    });
}
