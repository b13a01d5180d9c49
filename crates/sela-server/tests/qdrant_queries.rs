//! Qdrant's routes: the nearest points, filters, texts.

mod common;

use common::{Answer, Server, cases, model, refused, run};
use serde_json::{Value, json};

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// Ids, and the filter that chooses them.
const FILTERS: &str = r#"
[1] | {"must": [{"key": "city", "match": {"value": "Rome"}}]}
[2] | {"must": [{"key": "people", "match": {"value": 7}}]}
[3] | {"must": [{"key": "open", "match": {"value": true}}]}
[1, 2] | {"must": [{"key": "tags", "match": {"value": "sea"}}]}
[1, 3] | {"must": [{"key": "city", "match": {"any": ["Rome", "Bern"]}}]}
[] | {"must": [{"key": "people", "match": {"any": []}}]}
[2] | {"must": [{"key": "city", "match": {"except": ["Rome", "Bern"]}}]}
["$UUID"] | {"must": [{"key": "line", "match": {"text": "CLOCK hills"}}]}
[] | {"must": [{"key": "line", "match": {"text": "clock sky"}}]}
["$UUID"] | {"must": [{"key": "line", "match": {"text_any": "clock sky"}}]}
["$UUID"] | {"must": [{"key": "line", "match": {"phrase": "clock tower"}}]}
[] | {"must": [{"key": "line", "match": {"phrase": "tower clock"}}]}
["$UUID"] | {"must": [{"key": "line", "match": {"prefix": "Hill"}}]}
["$UUID"] | {"must": [{"key": "line", "match": {"substring": "lock tow"}}]}
[2] | {"must": [{"key": "people", "range": {"gte": 7, "lt": 28}}]}
["$UUID"] | {"must": [{"key": "size", "range": {"gt": 127.4, "lte": 127.5, "lt": null}}]}
[2] | {"must": [{"key": "at", "range": {"gt": "2024-03-01"}}]}
[1, 2] | {"must": [{"key": "at", "range": {"lte": "2024-04-01T10:00:00Z"}}]}
[1] | {"must": [{"key": "tags", "values_count": {"gte": 2}}]}
[3, "$UUID", "five"] | {"must": [{"key": "tags", "values_count": {"lt": 1}}]}
[3, "$UUID", "five"] | {"must": [{"key": "tags", "is_empty": true}]}
[1, 2] | {"must": [{"key": "tags", "is_empty": false}]}
[3] | {"must": [{"key": "none", "is_null": true}]}
[1, 2, "$UUID", "five"] | {"must": [{"key": "none", "is_null": false}]}
["$UUID"] | {"must": [{"key": "sights[].seen", "match": {"value": true}}]}
["$UUID", "five"] | {"must": {"is_empty": {"key": "city"}}}
[3] | {"must": [{"is_null": {"key": "none"}}]}
[1, "$UUID"] | {"must": [{"has_id": [1, "$UUID", 404]}]}
[1, 2, 3, "$UUID", "five"] | {"must": [{"has_vector": ""}]}
["$UUID"] | {"must": [{"nested": {"key": "sights", "filter": {"must": [{"key": "name", "match": {"value": "abbey"}}, {"key": "seen", "match": {"value": false}}]}}}]}
[] | {"must": [{"nested": {"key": "sights[]", "filter": {"must": [{"key": "name", "match": {"value": "abbey"}}, {"key": "seen", "match": {"value": true}}]}}}]}
[3, "$UUID", "five"] | {"must_not": [{"key": "tags", "match": {"value": "sea"}}]}
[2] | {"must": [{"key": "tags", "match": {"value": "sea"}}], "must_not": [{"key": "people", "range": {"gt": 10}}]}
[1, 3] | {"should": [{"key": "city", "match": {"value": "Bern"}}, {"key": "people", "range": {"gt": 10}}]}
[1] | {"should": [{"key": "city", "match": {"value": "Bern"}}, {"key": "people", "range": {"gt": 10}}], "must": [{"key": "tags", "match": {"value": "sea"}}]}
[1] | {"min_should": {"conditions": [{"key": "city", "match": {"value": "Bern"}}, {"key": "people", "range": {"gt": 10}}, {"key": "tags", "match": {"value": "sea"}}], "min_count": 2}}
[3, "$UUID", "five"] | {"must": [{"should": [{"key": "city", "match": {"value": "Bern"}}, {"must_not": [{"key": "tags", "match": {"value": "sea"}}]}]}]}
[1, 2, 3, "$UUID", "five"] | {"should": [], "min_should": {"conditions": [], "min_count": 1}}
[1, 2, 3, "$UUID", "five"] | {"must": null}
[1, 2, 3, "$UUID", "five"] | {}
"#;

/// Filters that are refused: status, what is said, and the filter.
const NO_FILTERS: &str = r#"
400 | `filter` wants an object | []
400 | `most` is no clause | {"most": []}
400 | `must` wants a list | {"must": 1}
400 | an object | {"must": [1]}
400 | one test | {"must": [{"key": "a"}]}
400 | one test | {"must": [{"key": "a", "match": {"value": 1}, "range": {"gt": 1}}]}
400 | `a[` | {"must": [{"key": "a[", "match": {"value": 1}}]}
400 | `key` | {"must": [{"key": 1, "match": {"value": 1}}]}
400 | one condition | {"must": [{"has_id": [1], "is_null": {"key": "a"}}]}
400 | `has_id` | {"must": [{"has_id": [-1]}]}
400 | has_vector | {"must": [{"has_vector": "title"}]}
400 | slice | {"must": [{"slice": {"total": 2, "index": 0}}]}
400 | `magic` | {"must": [{"magic": 1}]}
400 | `nested` | {"must": [{"nested": {"key": "a"}}]}
400 | ids | {"must": [{"nested": {"key": "a", "filter": {"must": [{"has_id": [1]}]}}}]}
400 | min_count | {"min_should": {"conditions": []}}
400 | min_count | {"min_should": {"conditions": [], "min_count": -1}}
400 | geo_radius | {"must": [{"key": "a", "geo_radius": {"center": {"lon": 1, "lat": 1}, "radius": 1}}]}
400 | geo_bounding_box | {"must": [{"key": "a", "geo_bounding_box": {}}]}
400 | geo_polygon | {"must": [{"key": "a", "geo_polygon": {}}]}
400 | `magic` | {"must": [{"key": "a", "magic": 1}]}
400 | whole numbers | {"must": [{"key": "a", "match": {"value": 1.5}}]}
400 | `value` | {"must": [{"key": "a", "match": {"value": [1]}}]}
400 | `any` | {"must": [{"key": "a", "match": {"any": 1}}]}
400 | `text` | {"must": [{"key": "a", "match": {"text": 1}}]}
400 | `like` | {"must": [{"key": "a", "match": {"like": "a"}}]}
400 | one way | {"must": [{"key": "a", "match": {}}]}
400 | gt, gte | {"must": [{"key": "a", "range": {"above": 1}}]}
400 | at least one | {"must": [{"key": "a", "range": {}}]}
400 | times | {"must": [{"key": "a", "range": {"gt": "now"}}]}
400 | times | {"must": [{"key": "a", "range": {"gt": 1, "lt": "2024-01-01"}}]}
400 | bounds | {"must": [{"key": "a", "range": {"gt": true}}]}
400 | numbers | {"must": [{"key": "a", "values_count": {"gt": "a"}}]}
400 | true or false | {"must": [{"key": "a", "is_empty": "yes"}]}
"#;

/// Queries that are refused: status, what is said, and the query.
const NO_QUERIES: &str = r#"
400 | 1 | {"query": [1]}
400 | 0 | {"query": []}
400 | 32-bit | {"query": [1e39, 0]}
404 | 404 | {"query": 404}
400 | query | {"query": -1}
400 | a vector | {"query": true}
400 | multivectors | {"query": [[1, 0]]}
400 | sparse vectors | {"query": {"indices": [1], "values": [1]}}
400 | mmr | {"query": {"nearest": [1, 0], "mmr": {"spread": 0.5}}}
400 | magic | {"query": {"nearest": [1, 0], "magic": 1}}
400 | recommend | {"query": {"recommend": {"positive": [1]}}}
400 | discover | {"query": {"discover": {"target": 1, "context": []}}}
400 | context | {"query": {"context": []}}
400 | order_by | {"query": {"order_by": "a"}}
400 | fusion | {"query": {"fusion": "rrf"}}
400 | rrf | {"query": {"rrf": {"k": 2}}}
400 | formula | {"query": {"formula": {}}}
400 | sample | {"query": {"sample": "random"}}
400 | relevance_feedback | {"query": {"relevance_feedback": {}}}
400 | a `model` | {"query": {"text": "a"}}
409 | elsewhere | {"query": {"text": "a", "model": "other"}}
400 | prefetch | {"query": [1, 0], "prefetch": [{"query": [1, 0]}]}
400 | lookup_from | {"query": 1, "lookup_from": {"collection": "d"}}
400 | title | {"query": [1, 0], "using": "title"}
400 | shard_key | {"query": [1, 0], "shard_key": "a"}
400 | idf | {"query": [1, 0], "params": {"idf": {"a": 1}}}
400 | magic | {"query": [1, 0], "params": {"magic": 1}}
422 | limit is 0 | {"query": [1, 0], "limit": 0}
422 | points_max | {"query": [1, 0], "limit": 10001}
422 |  | {"query": [1, 0], "offset": 20000}
400 | score_threshold | {"query": [1, 0], "score_threshold": "high"}
"#;

async fn points(server: &Server, path: &str, body: Value) -> Answer {
    server
        .post(&format!("/collections/c/points/{path}"), body)
        .await
}

/// A server with a collection `c` of five points.
async fn server(distance: &str) -> Server {
    let server = Server::new();
    let body = json!({"vectors": {"size": 2, "distance": distance}});
    server
        .ask("PUT", "/collections/c", Some(body))
        .await
        .is(200);
    let body = json!({"points": [
        {"id": 1, "vector": [1, 0], "payload": {"city": "Rome", "people": 28, "tags": ["old", "sea"],
            "at": "2024-03-01T00:00:00Z"}},
        {"id": 2, "vector": [2, 2], "payload": {"city": "Oslo", "people": 7, "tags": ["sea"],
            "at": "2024-04-01T12:00:00+02:00"}},
        {"id": 3, "vector": [0, 3], "payload": {"city": "Bern", "tags": [], "open": true, "none": null}},
        {"id": UUID, "vector": [-1, 0], "payload": {"size": 127.5, "line": "Hills and a clock tower",
            "sights": [{"name": "bridge", "seen": true}, {"name": "abbey", "seen": false}]}},
        {"id": "five", "vector": [0, -1]},
    ]});
    server
        .ask("PUT", "/collections/c/points", Some(body))
        .await
        .is(200);
    server
}

#[track_caller]
fn ids(answer: &Answer) -> Value {
    let result = &answer.is(200)["result"];
    let points = result.get("points").unwrap_or(result);
    let points = points.as_array().unwrap().iter();
    points.map(|point| point["id"].clone()).collect()
}

#[test]
fn every_filter_chooses_its_points() {
    run(async {
        let server = server("Cosine").await;
        for line in FILTERS.replace("$UUID", UUID).trim().lines() {
            let (expected, filter) = line.split_once(" | ").unwrap();
            let expected: Value = serde_json::from_str(expected).unwrap();
            let filter: Value = serde_json::from_str(filter).unwrap();
            let scrolled = points(&server, "scroll", json!({"filter": filter})).await;
            assert_eq!(ids(&scrolled), expected, "{filter}");
            let counted = points(&server, "count", json!({"filter": filter, "exact": true})).await;
            let expected_count = expected.as_array().unwrap().len();
            assert_eq!(
                counted.is(200)["result"]["count"],
                expected_count,
                "{filter}"
            );
            let body = json!({"query": [1, 1], "filter": filter});
            let found = ids(&points(&server, "query", body).await);
            let sorted = |ids: &Value| {
                let mut ids: Vec<String> = ids
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(Value::to_string)
                    .collect();
                ids.sort();
                ids
            };
            assert_eq!(sorted(&found), sorted(&expected), "{filter}");
        }
    });
}

#[test]
fn filters_that_cannot_be_are_refused_by_name() {
    run(async {
        let server = server("Cosine").await;
        let deep = (0..40).fold(json!({}), |inner, _| json!({"must_not": [inner]}));
        let deep = format!("400 | levels | {deep}");
        for (_, said, filter) in cases(NO_FILTERS).chain(cases(&deep)) {
            for path in ["scroll", "count", "query"] {
                let answer = points(&server, path, json!({"filter": filter})).await;
                refused(&answer, 400, said);
            }
        }
    });
}

#[test]
fn the_nearest_come_as_the_distance_says() {
    run(async {
        for (distance, order, best, threshold, within) in [
            ("Cosine", json!([1, 2, 3]), 1.0, 0.5, json!([1, 2])),
            ("Dot", json!([2, 1, 3]), 2.0, 0.5, json!([2, 1])),
            (
                "Euclid",
                json!([1, "five", UUID]),
                0.0,
                1.5,
                json!([1, "five"]),
            ),
        ] {
            let server = server(distance).await;
            let body = json!({"query": [1, 0], "limit": 3});
            let found = points(&server, "query", body.clone()).await;
            assert_eq!(ids(&found), order, "{distance}");
            let first = &found.json()["result"]["points"][0];
            assert_eq!(first["score"], best, "{distance}");
            assert!(first["version"].is_u64() && first.get("payload").is_none());
            let body = json!({"query": [1, 0], "limit": 2, "offset": 1});
            let rest = ids(&points(&server, "query", body).await);
            assert_eq!(rest, json!([order[1], order[2]]), "{distance}");
            let body = json!({"query": [1, 0], "score_threshold": threshold});
            assert_eq!(
                ids(&points(&server, "query", body).await),
                within,
                "{distance}"
            );
        }
    });
}

#[test]
fn queries_of_all_forms_are_answered() {
    run(async {
        let server = server("Dot").await;
        for (query, expected) in [
            (json!([0, 1]), json!([3, 2])),
            (json!({"": [0, 1]}), json!([3, 2])),
            (json!({"nearest": [0, 1]}), json!([3, 2])),
            (json!({"nearest": [0, 1], "mmr": null}), json!([3, 2])),
            (json!(3), json!([2, 1])),
            (json!({"nearest": 3}), json!([2, 1])),
            (json!("five"), json!([1, UUID])),
            (Value::Null, json!([1, 2])),
        ] {
            let body = json!({"query": query, "limit": 2, "using": ""});
            assert_eq!(
                ids(&points(&server, "query", body).await),
                expected,
                "{query}"
            );
        }
        let body = json!({"limit": 2, "offset": 3, "with_payload": true, "with_vector": true});
        let page = points(&server, "query", body).await;
        assert_eq!(
            page.is(200)["result"]["points"][1],
            json!({"id": "five", "version": 0, "score": 0.0, "payload": {}, "vector": [0.0, -1.0]})
        );
        let past = json!({"limit": 2, "offset": 50});
        assert_eq!(ids(&points(&server, "query", past).await), json!([]));
        let body = json!({"query": [0, 1], "limit": 1, "with_vector": true, "params": {"exact": true, "hnsw_ef": 64},
            "with_payload": {"exclude": ["tags", "none"]}});
        let found = points(&server, "query?timeout=5&consistency=all", body).await;
        assert_eq!(
            found.is(200)["result"]["points"],
            json!([
            {"id": 3, "version": 0, "score": 3.0, "payload": {"city": "Bern", "open": true}, "vector": [0.0, 3.0]}])
        );
        let batch = json!({"searches": [{"query": [0, 1], "limit": 1}, {"query": 3, "limit": 1, "with_payload": ["city"]}]});
        let both = points(&server, "query/batch", batch).await.is(200)["result"].clone();
        assert_eq!(both[0]["points"][0]["id"], 3);
        assert_eq!(both[1]["points"][0]["payload"], json!({"city": "Oslo"}));
        let none = json!({"searches": []});
        assert_eq!(
            points(&server, "query/batch", none.clone()).await.is(200)["result"],
            json!([])
        );
        assert_eq!(
            points(&server, "search/batch", none).await.is(200)["result"],
            json!([])
        );
        for vector in [json!([0, 1]), json!({"name": "", "vector": [0, 1]})] {
            let body = json!({"vector": vector, "limit": 1, "offset": 1, "with_payload": true});
            let found = points(&server, "search", body.clone()).await;
            assert_eq!(found.is(200)["result"][0]["payload"]["city"], "Oslo");
            let two = json!({"searches": [body, {"vector": vector, "limit": 2}]});
            let found = points(&server, "search/batch", two).await.is(200)["result"].clone();
            assert_eq!(
                (&found[0][0]["id"], &found[1][1]["id"]),
                (&json!(2), &json!(2))
            );
        }
    });
}

#[test]
fn answers_differ_from_one_another_where_that_is_asked_for() {
    run(async {
        let server = Server::new();
        let body = json!({"vectors": {"size": 2, "distance": "Cosine"}});
        server
            .ask("PUT", "/collections/c", Some(body))
            .await
            .is(200);
        // Two that are nearly the same, and one that is not.
        let body = json!({"points": [
            {"id": 1, "vector": [1.0, 0.1]}, {"id": 2, "vector": [1.0, 0.11]}, {"id": 3, "vector": [0.8, -0.6]},
            {"id": 4, "vector": [-1.0, 0.0]},
        ]});
        server
            .ask("PUT", "/collections/c/points", Some(body))
            .await
            .is(200);
        for (mmr, expected) in [
            (
                json!({"diversity": 0.0, "candidates_limit": 4}),
                json!([1, 2, 3]),
            ),
            (
                json!({"diversity": 0.6, "candidates_limit": 4}),
                json!([1, 4, 3]),
            ),
            (
                json!({"diversity": 0.45, "candidates_limit": 3}),
                json!([1, 3, 2]),
            ),
            (json!({}), json!([1, 3, 2])),
        ] {
            let body = json!({"query": {"nearest": [1, 0], "mmr": mmr}, "limit": 3});
            let found = points(&server, "query", body).await;
            assert_eq!(ids(&found), expected, "{mmr}");
            let first = &found.json()["result"]["points"][0];
            assert!(first["score"].as_f64().unwrap() > 0.99 && first.get("vector").is_none());
        }
        let body = json!({"query": {"nearest": [1, 0], "mmr": {"diversity": 0.45, "candidates_limit": 3}},
            "limit": 1, "offset": 1, "with_vector": true});
        let second = points(&server, "query", body).await.is(200)["result"]["points"][0].clone();
        assert_eq!(
            (&second["id"], second["vector"].is_array()),
            (&json!(3), true)
        );
        for (mmr, status, said) in [
            (json!({"diversity": 1.5}), 422, "diversity is 1.5"),
            (json!({"diversity": "much"}), 400, "`mmr`"),
            (json!({"candidates_limit": 1001}), 422, "1001 points"),
            (json!(1), 400, "`mmr`"),
        ] {
            let body = json!({"query": {"nearest": [1, 0], "mmr": mmr}});
            refused(&points(&server, "query", body).await, status, said);
        }
        let body = json!({"vectors": {"size": 2, "distance": "Euclid"}});
        server
            .ask("PUT", "/collections/d", Some(body))
            .await
            .is(200);
        let body = json!({"query": {"nearest": [1, 0], "mmr": {}}});
        refused(
            &server.post("/collections/d/points/query", body).await,
            400,
            "Euclid",
        );
    });
}

#[test]
fn queries_that_cannot_be_are_refused_by_name() {
    run(async {
        let server = server("Dot").await;
        for (status, said, body) in cases(NO_QUERIES) {
            let status = status.parse().unwrap();
            refused(&points(&server, "query", body.clone()).await, status, said);
            let batch = json!({"searches": [{"query": [1, 0]}, body]});
            refused(&points(&server, "query/batch", batch).await, status, said);
        }
        for (body, said) in [
            (
                json!({"vector": {"name": "title", "vector": [1, 0]}}),
                "named vectors: `title`",
            ),
            (json!({"vector": [1, 0, 0]}), "3"),
            (json!({"limit": 1}), "vector"),
            (json!({"vector": "a"}), "vector"),
        ] {
            refused(&points(&server, "search", body).await, 400, said);
        }
        let many: Vec<Value> = (0..3)
            .map(|_| json!({"query": [1, 0], "limit": 5000}))
            .collect();
        refused(
            &points(&server, "query/batch", json!({"searches": many})).await,
            413,
            "15000 points",
        );
        let elsewhere = server
            .post("/collections/none/points/query", json!({"query": [1, 0]}))
            .await;
        refused(&elsewhere, 404, "none");
    });
}

#[test]
fn texts_go_through_the_model_and_documents_see_them() {
    run(async {
        let server = Server::new();
        let text = |text: &str| json!({"text": text, "model": model::NAME});
        let body = json!({"vectors": {"size": model::DIM, "distance": "Cosine"},
            "metadata": {"sela_model": model::NAME, "mine": 1}});
        server
            .ask("PUT", "/collections/c", Some(body))
            .await
            .is(200);
        let info = server.get("/collections/c").await.is(200);
        assert_eq!(
            info["result"]["config"]["metadata"],
            json!({"sela_model": model::NAME, "mine": 1})
        );
        let embedding = server
            .post(
                "/v1/embeddings",
                json!({"input": "stone", "model": model::NAME}),
            )
            .await;
        let vector = embedding.is(200)["data"][0]["embedding"].clone();
        let body = json!({"points": [
            {"id": 1, "vector": text("river light"), "payload": {"n": 1}},
            {"id": 2, "vector": vector},
            {"id": 3, "vector": {"object": "walk", "model": format!("sentence-transformers/{}", model::NAME)}},
        ]});
        server
            .ask("PUT", "/collections/c/points", Some(body))
            .await
            .is(200);
        // A text finds what the same text or its vector was stored as.
        for (asked, id) in [("river light", 1), ("stone", 2), ("walk", 3)] {
            let body = json!({"query": {"nearest": text(asked)}, "limit": 1});
            let found = points(&server, "query", body).await.is(200)["result"]["points"][0].clone();
            assert_eq!(found["id"], id, "{asked}");
            assert!(found["score"].as_f64().unwrap() > 0.999_99, "{found}");
        }
        let batch =
            json!({"searches": [{"query": text("walk"), "limit": 1}, {"query": [], "limit": 1}]});
        refused(&points(&server, "query/batch", batch).await, 400, "0");
        let batch = json!({"searches": [{"query": text("walk"), "limit": 1}, {"query": 3, "limit": 1},
            {"query": text("stone"), "limit": 1}]});
        let both = points(&server, "query/batch", batch).await.is(200)["result"].clone();
        assert_eq!(
            (&both[0]["points"][0]["id"], &both[2]["points"][0]["id"]),
            (&json!(3), &json!(2))
        );
        let documents = "/v1/collections/c/documents";
        let hits = server
            .post(
                &format!("{documents}/search"),
                json!({"query": "river light", "k": 1}),
            )
            .await
            .is(200);
        assert_eq!(hits["hits"][0]["text"], "river light");
        let more = json!({"documents": [{"id": 4, "text": "query", "payload": {"n": 4}}]});
        server.post(documents, more).await.is(200);
        let filter = json!({"must": [{"key": "n", "range": {"gte": 4}}]});
        let found = points(
            &server,
            "query",
            json!({"query": text("query"), "filter": filter}),
        )
        .await;
        assert_eq!(ids(&found), json!([4]));
    });
}

#[test]
fn texts_for_other_models_and_other_things_than_texts_are_refused() {
    run(async {
        let server = Server::new();
        let one = json!({"documents": [{"id": 1, "text": "river"}]});
        server
            .post("/v1/collections/c/documents", one)
            .await
            .is(200);
        for (query, said) in [
            (json!({"text": "a", "model": "other"}), "`other`"),
            (
                json!({"text": "a", "model": model::NAME, "options": {"k": 1}}),
                "options",
            ),
            (json!({"image": "a", "model": model::NAME}), "images"),
            (json!({"object": {"a": 1}, "model": model::NAME}), "object"),
        ] {
            refused(
                &points(&server, "query", json!({"query": query})).await,
                400,
                said,
            );
        }
    });
}

#[test]
fn a_collection_of_documents_takes_texts_and_no_vectors_of_unknown_origin() {
    run(async {
        let server = Server::new();
        let one = json!({"documents": [{"id": 1, "text": "river"}]});
        server
            .post("/v1/collections/c/documents", one)
            .await
            .is(200);
        let info = server.get("/collections/c").await.is(200);
        assert_eq!(
            info["result"]["config"]["params"]["vectors"]["size"],
            model::DIM
        );
        assert_eq!(
            info["result"]["config"]["metadata"]["sela_model"],
            model::NAME
        );
        let text = json!({"text": "stone", "model": model::NAME});
        let body = json!({"points": [{"id": 2, "vector": text}]});
        server
            .ask("PUT", "/collections/c/points", Some(body))
            .await
            .is(200);
        let found = points(&server, "query", json!({"query": text, "limit": 1})).await;
        assert_eq!(ids(&found), json!([2]));
        let foreign = json!([{"id": 3, "vector": vec![0.5; model::DIM]}]);
        let body = json!({"points": foreign});
        let path = "/collections/c/points";
        refused(
            &server.ask("PUT", path, Some(body.clone())).await,
            409,
            "declared",
        );
        let path = "/collections/c/points/vectors";
        refused(&server.ask("PUT", path, Some(body)).await, 409, "declared");
        let mixed = json!({"points": [{"id": 4, "vector": text}, foreign[0]]});
        refused(
            &server
                .ask("PUT", "/collections/c/points", Some(mixed))
                .await,
            409,
            "declared",
        );
        let body = json!({"payload": {"a": 1}, "points": [1]});
        points(&server, "payload", body).await.is(200);
        let counted = points(&server, "count", json!({})).await.is(200);
        assert_eq!(counted["result"]["count"], 2);
    });
}
