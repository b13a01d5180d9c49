//! Every route in its good and its bad cases.

mod common;

use common::{Server, model, run};
use serde_json::{Value, json};

const METAL: &str = "/api/v1/metal4";

fn metal(route: &str) -> String {
    format!("{METAL}/{route}")
}

#[test]
fn a_starting_server_is_live_and_not_ready() {
    run(async {
        let server = Server::starting(|_| {});
        server.get("/health/live").await.is(200);
        assert_eq!(
            server.get("/health/ready").await.is(503)["status"],
            "starting"
        );
        let early = server.post(&metal("embed"), json!({"text": "a"})).await;
        early.fails(503, "not_ready");
        assert_eq!(early.headers["retry-after"], "1");
        server.app.warm_up().unwrap();
        assert_eq!(server.get("/health/ready").await.is(200)["status"], "ready");
        server
            .post(&metal("embed"), json!({"text": "a"}))
            .await
            .is(200);
    });
}

#[test]
fn texts_are_embedded_alone_and_together() {
    run(async {
        let server = Server::new();
        let one = server
            .post(&metal("embed"), json!({"text": "river stone"}))
            .await
            .is(200);
        assert_eq!(one["dimension"], model::DIM);
        assert_eq!(one["backend"], "cpu");
        assert_eq!(
            (&one["tokens"], &one["truncated"]),
            (&json!(4), &json!(false))
        );
        assert!(one["time_ms"].as_f64().unwrap() > 0.0);
        let texts = json!({"texts": ["light", "river stone", "a b c d e f g h i j k l"]});
        let many = server.post(&metal("embed_batch"), texts).await.is(200);
        assert_eq!(
            (&many["count"], &many["dimension"]),
            (&json!(3), &json!(model::DIM))
        );
        assert_eq!(
            many["embeddings"][1], one["embedding"],
            "a batch changes a vector"
        );
        assert_eq!(many["tokens"], json!([3, 4, model::TOKENS_MAX]));
        assert_eq!(many["truncated"], json!([false, false, true]));
        let none = server
            .post(&metal("embed_batch"), json!({"texts": []}))
            .await
            .is(200);
        assert_eq!(
            (&none["count"], &none["embeddings"]),
            (&json!(0), &json!([]))
        );
        let zero = json!({"texts": ["a"], "batch_size": 0});
        server
            .post(&metal("embed_batch"), zero)
            .await
            .fails(422, "invalid_value");
    });
}

#[test]
fn a_loaded_database_is_searched_before_what_is_stored() {
    run(async {
        let server = Server::new();
        let search = |k: usize, metric: &str| json!({"query": "river", "k": k, "metric": metric});
        let nothing = server.post(&metal("search"), search(1, "cosine")).await;
        nothing.fails(409, "nothing_to_search");
        for (id, text) in [(3, "stone"), (7, "river"), (9, "walk")] {
            let stored = json!({"vector_id": id, "text": text});
            let stored = server.post(&metal("store_embedding"), stored).await.is(200);
            assert_eq!(stored["vector_id"], id);
        }
        let found = server
            .post(&metal("search"), search(2, "cosine"))
            .await
            .is(200);
        assert_eq!(
            (&found["indices"][0], &found["count"]),
            (&json!(7), &json!(2))
        );
        assert!((found["scores"][0].as_f64().unwrap() - 1.0).abs() < 1e-5);
        let kept = server.get(&metal("retrieve_embedding/7")).await.is(200);
        let river = server
            .post(&metal("embed"), json!({"text": "river"}))
            .await
            .is(200);
        assert_eq!(kept["embedding"], river["embedding"]);
        let other = json!({"documents": [{"id": "river bank", "text": "river"}]});
        let documents = "/v1/collections/embeddings/documents";
        server.post(documents, other).await.is(200);
        let error = server
            .post(&metal("search"), search(10, "cosine"))
            .await
            .fails(409, "not_a_vector_id");
        assert!(error["detail"].as_str().unwrap().contains("`river bank`"));
        let gone = json!({"ids": ["river bank"]});
        let gone = server.post(&format!("{documents}/delete"), gone).await;
        gone.is(200);
        let (mut far, near) = (vec![0.0; model::DIM], river["embedding"].clone());
        far[0] = 5.0;
        let loaded = json!({"embeddings": [far, near]});
        let loaded = server.post(&metal("load_database"), loaded).await.is(200);
        assert_eq!(
            (&loaded["num_vectors"], &loaded["embed_dim"]),
            (&json!(2), &json!(model::DIM))
        );
        for metric in ["cosine", "dot", "l2"] {
            let found = server
                .post(&metal("search"), search(10, metric))
                .await
                .is(200);
            assert_eq!(found["count"], 2);
            let scores: Vec<f64> = serde_json::from_value(found["scores"].clone()).unwrap();
            match metric {
                "l2" => {
                    assert_eq!(found["indices"], json!([1, 0]));
                    // Euclidean, not squared: from a unit vector to one of length 5.
                    assert!(
                        scores[0] < 1e-3 && (4.0..6.0).contains(&scores[1]),
                        "{scores:?}"
                    );
                }
                _ => assert!(scores[0] >= scores[1], "{metric}: {scores:?}"),
            }
        }
        let other = json!({"embeddings": [[1.0, 2.0]]});
        server.post(&metal("load_database"), other).await.is(200);
        let differs = server.post(&metal("search"), search(1, "cosine")).await;
        differs.fails(409, "dimension_mismatch");
    });
}

#[test]
fn databases_come_as_numpy_files_too() {
    run(async {
        let server = Server::new();
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        let mut head = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 32), }".to_owned();
        while !(10 + head.len() + 1).is_multiple_of(64) {
            head.push(' ');
        }
        head.push('\n');
        file.extend((head.len() as u16).to_le_bytes());
        file.extend(head.as_bytes());
        file.extend((0..64).flat_map(|x| (x as f32).to_le_bytes()));
        let kind = "application/x-npy";
        let path = metal("load_database");
        let loaded = server.send_raw(&path, kind, file.clone()).await.is(200);
        assert_eq!(
            (&loaded["num_vectors"], &loaded["embed_dim"]),
            (&json!(2), &json!(32))
        );
        file.pop();
        server
            .send_raw(&path, kind, file)
            .await
            .fails(400, "malformed_npy");
        server
            .send_raw(&path, "image/png", "x")
            .await
            .fails(400, "content_type");
    });
}

#[test]
fn values_out_of_range_are_refused_by_field() {
    run(async {
        let server = Server::new();
        let cases = [
            (
                "search",
                json!({"query": "a", "k": 0}),
                422,
                "invalid_value",
                "k",
            ),
            (
                "search",
                json!({"query": "a", "k": 101}),
                422,
                "invalid_value",
                "k",
            ),
            (
                "search",
                json!({"query": "a", "k": -1}),
                422,
                "invalid_field",
                "k",
            ),
            (
                "search",
                json!({"query": "a", "metric": "near"}),
                422,
                "invalid_field",
                "metric",
            ),
            ("search", json!({"query": 5}), 422, "invalid_field", "query"),
            ("embed", json!({"texts": ["a"]}), 422, "invalid_field", ""),
            (
                "embed_batch",
                json!({"texts": ["a", 1]}),
                422,
                "invalid_field",
                "texts[1]",
            ),
            (
                "store_embedding",
                json!({"vector_id": -1, "text": "a"}),
                422,
                "invalid_field",
                "vector_id",
            ),
            (
                "load_database",
                json!({"embeddings": [[1.0], [1.0, 2.0]]}),
                422,
                "invalid_field",
                "embeddings",
            ),
            (
                "load_database",
                json!({"embeddings": []}),
                422,
                "invalid_value",
                "embeddings",
            ),
        ];
        for (route, body, status, code, field) in cases {
            let error = server
                .post(&metal(route), body.clone())
                .await
                .fails(status, code);
            let told = error["field"].as_str().unwrap_or_default();
            assert!(told.starts_with(field), "{route} {body}: {error}");
        }
    });
}

#[test]
fn embeddings_that_are_not_there_are_told_apart_from_no_ids() {
    run(async {
        let server = Server::new();
        server
            .get(&metal("retrieve_embedding/5"))
            .await
            .fails(404, "no_embedding");
        server
            .get(&metal("retrieve_embedding/x"))
            .await
            .fails(400, "malformed_path");
        server
            .get(&metal("retrieve_embedding/%ff"))
            .await
            .fails(400, "malformed_path");
    });
}

#[test]
fn capabilities_and_stats_tell_what_callers_read() {
    run(async {
        let server = Server::new();
        server
            .post(&metal("embed"), json!({"text": "a"}))
            .await
            .is(200);
        let has = server.get(&metal("capabilities")).await.is(200);
        assert!(has["metal_version"].is_u64());
        assert_eq!(
            (&has["embedder_backend"], &has["tier"]),
            (&json!("cpu"), &json!("cpu"))
        );
        assert_eq!(has["vector_search_backend"], "cpu");
        assert_eq!(
            (&has["sparse_resources"], &has["unified_memory"]),
            (&json!(false), &json!(false))
        );
        assert_eq!(has["model"], model::NAME);
        for limit in [
            "body_bytes_max",
            "texts_max",
            "tokens_max",
            "k_max",
            "queue_texts_max",
            "connections_max",
            "request_ms",
        ] {
            assert!(has["limits"][limit].as_u64().unwrap() > 0, "{limit}");
        }
        let stats = server.get(&metal("stats")).await.is(200);
        for part in [
            "capabilities",
            "embedder",
            "vector_search",
            "sparse_storage",
        ] {
            assert!(stats[part].is_object(), "{part}");
        }
        assert!(stats["embedder"]["texts"].as_u64().unwrap() >= 1);
        assert_eq!(stats["benchmark"], Value::Null);
    });
}

#[test]
fn the_server_checks_itself() {
    run(async {
        let server = Server::new();
        let checked = server.ask("POST", &metal("validate"), None).await.is(200);
        assert_eq!(checked["all_tests_passed"], true, "{checked}");
        assert!(
            checked["validation_results"].as_object().unwrap().len() >= 5,
            "{checked}"
        );
    });
}

#[test]
fn one_measurement_at_a_time_and_it_ends_with_its_caller() {
    run(async {
        let server = std::sync::Arc::new(Server::new());
        let first = tokio::spawn({
            let server = server.clone();
            async move { server.post(&metal("benchmark"), json!({})).await.status }
        });
        let progress = async || server.get(&metal("stats")).await.is(200)["benchmark"].clone();
        // It is under way once `/stats` tells of it.
        while progress().await["step"].is_null() {}
        let second = server
            .post(&metal("benchmark"), json!({"quick": true}))
            .await;
        second.fails(409, "under_way");
        server
            .ask("POST", &metal("validate"), None)
            .await
            .fails(409, "under_way");
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        // The whole would take minutes; what is left is at most the measurement under way.
        while !progress().await.is_null() {}
        let quick = server
            .post(&metal("benchmark"), json!({"quick": true}))
            .await
            .is(200);
        assert!(
            quick["benchmark_results"].as_array().unwrap().len() >= 2,
            "{quick}"
        );
    });
}

#[test]
fn openai_embeddings_are_as_its_clients_read_them() {
    run(async {
        let server = Server::with(|settings| {
            let alias = ("text-embedding-3-small".to_owned(), model::NAME.to_owned());
            settings.openai.aliases.extend([alias]);
        });
        let ask = |body: Value| server.ask("POST", "/v1/embeddings", Some(body));
        let metal_one = server
            .post(&metal("embed"), json!({"text": "river"}))
            .await
            .is(200);
        let one = ask(json!({"input": "river", "model": "tiny"}))
            .await
            .is(200);
        assert_eq!(one["data"][0]["embedding"], metal_one["embedding"]);
        assert_eq!(
            (&one["object"], &one["data"][0]["object"]),
            (&json!("list"), &json!("embedding"))
        );
        assert_eq!(one["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
        let alias = "text-embedding-3-small";
        let body =
            json!({"input": ["light", "river"], "model": alias, "encoding_format": "base64"});
        let two = ask(body).await.is(200);
        assert_eq!(
            (&two["model"], &two["data"][1]["index"]),
            (&json!(alias), &json!(1))
        );
        let text = two["data"][1]["embedding"].as_str().unwrap();
        let bytes =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
        let numbers = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let wanted: Vec<f32> = serde_json::from_value(metal_one["embedding"].clone()).unwrap();
        assert_eq!(numbers.collect::<Vec<_>>(), wanted);
        let short = ask(json!({"input": "river", "model": "tiny", "dimensions": 8}))
            .await
            .is(200);
        let short: Vec<f64> =
            serde_json::from_value(short["data"][0]["embedding"].clone()).unwrap();
        let length: f64 = short.iter().map(|x| x * x).sum();
        assert!(short.len() == 8 && (length - 1.0).abs() < 1e-5, "{short:?}");
        let models = server.get("/v1/models").await.is(200);
        let ids: Vec<_> = models["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["id"])
            .collect();
        assert_eq!(ids, [model::NAME, alias]);
        assert_eq!(
            server.get("/v1/models/tiny").await.is(200)["object"],
            "model"
        );
        server.get("/v1/models/other").await.is(404);
    });
}

#[test]
fn openai_clients_are_told_what_is_wrong_in_their_shape() {
    run(async {
        let server = Server::new();
        let ask = |body: Value| server.ask("POST", "/v1/embeddings", Some(body));
        for (body, status, param) in [
            (json!({"input": "a", "model": "gpt-9"}), 404, "model"),
            (json!({"input": [], "model": "tiny"}), 400, "input"),
            (json!({"input": [1, 2], "model": "tiny"}), 400, "input"),
            (
                json!({"input": "a", "model": "tiny", "dimensions": 33}),
                400,
                "dimensions",
            ),
            (
                json!({"input": "a", "model": "tiny", "dimensions": 0}),
                400,
                "dimensions",
            ),
            (
                json!({"input": "a", "model": "tiny", "encoding_format": "hex"}),
                400,
                "encoding_format",
            ),
            (json!({"input": {"a": 1}, "model": "tiny"}), 400, "input"),
        ] {
            let error = ask(body.clone()).await.is(status);
            assert_eq!(error["error"]["param"], param, "{body}: {error}");
            assert!(error["error"]["message"].is_string() && error["error"]["type"].is_string());
        }
        let tokens = ask(json!({"input": [[1]], "model": "tiny"})).await.is(400);
        let said = tokens["error"]["message"].as_str().unwrap();
        assert!(said.contains("check_embedding_ctx_length=False"), "{said}");
    });
}

#[test]
fn documents_are_stored_searched_and_deleted() {
    run(async {
        let server = Server::new();
        let path = "/v1/collections/notes/documents";
        let search = format!("{path}/search");
        let query = json!({"query": "river", "k": 2});
        server
            .post(&search, query.clone())
            .await
            .fails(404, "no_collection");
        let documents = json!({"documents": [
            {"id": 1, "text": "river", "payload": {"kind": "water"}},
            {"id": "two", "text": "stone", "payload": {"kind": "earth"}},
            {"id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "text": "light"},
        ]});
        let stored = server.post(path, documents.clone()).await.is(200);
        assert_eq!(stored, json!({"stored": 3, "replaced": 0, "truncated": 0}));
        assert_eq!(server.post(path, documents).await.is(200)["replaced"], 3);
        let found = server.post(&search, query).await.is(200);
        assert_eq!(found["hits"][0]["id"], 1);
        assert_eq!(found["hits"][0]["payload"]["kind"], "water");
        assert!(found["hits"][0].get("vector").is_none());
        let earth =
            json!({"query": "river", "filter": {"eq": {"kind": "earth"}}, "with_vector": true});
        let found = server.post(&search, earth).await.is(200);
        assert_eq!(
            (
                &found["hits"][0]["id"],
                found["hits"].as_array().unwrap().len()
            ),
            (&json!("two"), 1)
        );
        assert_eq!(
            found["hits"][0]["vector"].as_array().unwrap().len(),
            model::DIM
        );
        let page = server.get(&format!("{path}?limit=2")).await.is(200);
        let next = &page["next"];
        let rest = server
            .get(&format!("{path}?limit=2&after={next}"))
            .await
            .is(200);
        assert_eq!(
            (page["documents"].as_array().unwrap().len(), &rest["next"]),
            (2, &Value::Null)
        );
        assert_eq!(
            server.get(&format!("{path}/two")).await.is(200)["text"],
            "stone"
        );
        assert_eq!(
            server
                .ask("DELETE", &format!("{path}/two"), None)
                .await
                .is(200)["deleted"],
            1
        );
        server
            .ask("DELETE", &format!("{path}/two"), None)
            .await
            .fails(404, "no_document");
        let gone = server
            .post(&format!("{path}/delete"), json!({"ids": [1, 99]}))
            .await
            .is(200);
        assert_eq!(gone["deleted"], 1);
    });
}

#[test]
fn documents_are_found_by_words_and_by_both() {
    run(async {
        let server = Server::new();
        let path = "/v1/collections/notes/documents";
        let search = format!("{path}/search");
        let documents = json!({"documents": [
            {"id": 1, "text": "a walk along the river", "payload": {"kind": "water"}},
            {"id": 2, "text": "stone and river and light", "payload": {"kind": "earth"}},
            {"id": 3, "text": "light"},
        ]});
        server.post(path, documents).await.is(200);
        let ids = |found: &Value| -> Vec<u64> {
            let hits = found["hits"].as_array().unwrap();
            hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
        };
        let ask = |query: &str, mode: &str| json!({"query": query, "mode": mode});
        let found = server
            .post(&search, ask("light river", "text"))
            .await
            .is(200);
        assert_eq!(ids(&found), [2, 3, 1]);
        let first = &found["hits"][0];
        assert_eq!(
            (&first["text_rank"], &first["text_score"]),
            (&json!(1), &first["score"])
        );
        assert!(first.get("vector_score").is_none());
        assert_eq!(
            (&found["tokens"], &found["truncated"]),
            (&json!(0), &json!(false))
        );
        for (query, wanted) in [
            ("\"walk along\"", &[1][..]),
            ("riv* -stone", &[1]),
            ("(river) AND:*", &[1, 2]),
            ("?", &[]),
        ] {
            let found = server.post(&search, ask(query, "text")).await.is(200);
            let mut found = ids(&found);
            found.sort_unstable();
            assert_eq!(found, wanted, "{query}");
        }
        let found = server.post(&search, ask("light", "hybrid")).await.is(200);
        let first = &found["hits"][0];
        assert_eq!(
            (&first["id"], &first["vector_rank"], &first["text_rank"]),
            (&json!(3), &json!(1), &json!(1))
        );
        let score = first["score"].as_f64().unwrap();
        assert!((score - 2.0 / 61.0).abs() < 1e-6, "{score}");
        assert_eq!(ids(&found).len(), 3);
        let last = &found["hits"][2];
        assert!(last["vector_score"].is_f64() && last.get("text_score").is_none());
        assert!(found["tokens"].as_u64().unwrap() > 0);
        let mut earth = ask("river", "hybrid");
        earth["filter"] = json!({"eq": {"kind": "earth"}});
        assert_eq!(ids(&server.post(&search, earth).await.is(200)), [2]);
        server
            .post(&format!("{path}/delete"), json!({"ids": [3]}))
            .await
            .is(200);
        assert_eq!(
            ids(&server.post(&search, ask("light", "text")).await.is(200)),
            [2]
        );
        // The nearness of vectors is what there is unless asked otherwise.
        let found = server
            .post(&search, json!({"query": "river"}))
            .await
            .is(200);
        let first = &found["hits"][0];
        assert_eq!(
            (&first["vector_rank"], &first["vector_score"]),
            (&json!(1), &first["score"])
        );
    });
}

#[test]
fn documents_and_collections_that_cannot_be_are_refused() {
    run(async {
        let server = Server::new();
        let search = "/v1/collections/notes/documents/search";
        let bad = json!({"query": "a", "filter": {"like": 3}});
        server.post(search, bad).await.fails(400, "filter_refused");
        let other = json!({"query": "a", "mode": "sparse"});
        server.post(search, other).await.fails(400, "not_supported");
        let many: Vec<String> = (0..300).map(|n| format!("w{n}")).collect();
        for mode in ["text", "hybrid"] {
            for bad in ["-a", &many.join(" ")] {
                let bad = json!({"query": bad, "mode": mode});
                server.post(search, bad).await.fails(422, "query_refused");
            }
            let none = json!({"query": "a", "mode": mode});
            server.post(search, none).await.fails(404, "no_collection");
        }
        for bad in [
            "..%2F..%2Fetc",
            ".hidden",
            "a%20b",
            "a%00b",
            &"x".repeat(200),
        ] {
            let path = format!("/v1/collections/{bad}/documents");
            server.get(&path).await.fails(422, "collection_name");
            let one = json!({"documents": [{"id": 1, "text": "a"}]});
            server.post(&path, one).await.fails(422, "collection_name");
        }
    });
}

#[test]
fn documents_come_and_go_a_line_each() {
    run(async {
        let server = Server::new();
        let path = "/v1/collections/lines/documents";
        let kind = "application/x-ndjson";
        let line = |id: usize| format!("{{\"id\": {id}, \"text\": \"river {id}\"}}\r\n");
        let body: String = (0..1000).map(line).collect();
        let stored = server.send_raw(path, kind, body + "\n\n").await.is(200);
        assert_eq!(stored["stored"], 1000);
        let request = common::request("GET", path)
            .header("authorization", format!("Bearer {}", server.admin))
            .header("accept", kind)
            .body(axum::body::Body::empty())
            .unwrap();
        let all = server.send(request).await;
        assert_eq!(all.headers["content-type"], kind);
        let text = String::from_utf8(all.bytes).unwrap();
        let ids = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["id"].as_u64().unwrap() as usize
        });
        assert!(ids.eq(0..1000));
        let body: String = (1000..1300).map(line).collect();
        let broken = server.send_raw(path, kind, body + "{\"id\": 1}\n").await;
        let error = broken.fails(422, "invalid_field");
        assert!(
            error["detail"].as_str().unwrap().starts_with("line 301:"),
            "{error}"
        );
        assert!(
            error["hint"]
                .as_str()
                .unwrap()
                .contains("first 256 documents"),
            "{error}"
        );
        assert_eq!(
            server.get(&format!("{path}/1255")).await.is(200)["id"],
            1255
        );
        server
            .get(&format!("{path}/1256"))
            .await
            .fails(404, "no_document");
    });
}
