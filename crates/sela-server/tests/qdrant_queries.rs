//! Qdrant's routes: the nearest points, filters, texts.

mod common;

use common::{Answer, Server, model, refused, run};
use serde_json::{Value, json};

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

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
        let on = |key: &str, test: &str, value: Value| {
            let mut condition = json!({"key": key});
            condition[test] = value;
            json!({"must": [condition]})
        };
        let sea = json!({"key": "tags", "match": {"value": "sea"}});
        let crowd = json!({"key": "people", "range": {"gt": 10}});
        let bern = json!({"key": "city", "match": {"value": "Bern"}});
        let abbey = json!({"key": "name", "match": {"value": "abbey"}});
        let seen = |flag: bool| json!({"key": "seen", "match": {"value": flag}});
        let all = json!([1, 2, 3, UUID, "five"]);
        for (filter, expected) in [
            (on("city", "match", json!({"value": "Rome"})), json!([1])),
            (on("people", "match", json!({"value": 7})), json!([2])),
            (on("open", "match", json!({"value": true})), json!([3])),
            (on("tags", "match", json!({"value": "sea"})), json!([1, 2])),
            (
                on("city", "match", json!({"any": ["Rome", "Bern"]})),
                json!([1, 3]),
            ),
            (on("people", "match", json!({"any": []})), json!([])),
            (
                on("city", "match", json!({"except": ["Rome", "Bern"]})),
                json!([2]),
            ),
            (
                on("line", "match", json!({"text": "CLOCK hills"})),
                json!([UUID]),
            ),
            (on("line", "match", json!({"text": "clock sky"})), json!([])),
            (
                on("line", "match", json!({"text_any": "clock sky"})),
                json!([UUID]),
            ),
            (
                on("line", "match", json!({"phrase": "clock tower"})),
                json!([UUID]),
            ),
            (
                on("line", "match", json!({"phrase": "tower clock"})),
                json!([]),
            ),
            (
                on("line", "match", json!({"prefix": "Hill"})),
                json!([UUID]),
            ),
            (
                on("line", "match", json!({"substring": "lock tow"})),
                json!([UUID]),
            ),
            (
                on("people", "range", json!({"gte": 7, "lt": 28})),
                json!([2]),
            ),
            (
                on(
                    "size",
                    "range",
                    json!({"gt": 127.4, "lte": 127.5, "lt": null}),
                ),
                json!([UUID]),
            ),
            (on("at", "range", json!({"gt": "2024-03-01"})), json!([2])),
            (
                on("at", "range", json!({"lte": "2024-04-01T10:00:00Z"})),
                json!([1, 2]),
            ),
            (on("tags", "values_count", json!({"gte": 2})), json!([1])),
            (
                on("tags", "values_count", json!({"lt": 1})),
                json!([3, UUID, "five"]),
            ),
            (
                on("tags", "is_empty", json!(true)),
                json!([3, UUID, "five"]),
            ),
            (on("tags", "is_empty", json!(false)), json!([1, 2])),
            (on("none", "is_null", json!(true)), json!([3])),
            (
                on("none", "is_null", json!(false)),
                json!([1, 2, UUID, "five"]),
            ),
            (
                on("sights[].seen", "match", json!({"value": true})),
                json!([UUID]),
            ),
            (
                json!({"must": {"is_empty": {"key": "city"}}}),
                json!([UUID, "five"]),
            ),
            (json!({"must": [{"is_null": {"key": "none"}}]}), json!([3])),
            (
                json!({"must": [{"has_id": [1, UUID, 404]}]}),
                json!([1, UUID]),
            ),
            (json!({"must": [{"has_vector": ""}]}), all.clone()),
            (
                json!({"must": [{"nested": {"key": "sights", "filter": {"must": [abbey, seen(false)]}}}]}),
                json!([UUID]),
            ),
            (
                json!({"must": [{"nested": {"key": "sights[]", "filter": {"must": [abbey, seen(true)]}}}]}),
                json!([]),
            ),
            (json!({"must_not": [sea]}), json!([3, UUID, "five"])),
            (json!({"must": [sea], "must_not": [crowd]}), json!([2])),
            (json!({"should": [bern, crowd]}), json!([1, 3])),
            (json!({"should": [bern, crowd], "must": [sea]}), json!([1])),
            (
                json!({"min_should": {"conditions": [bern, crowd, sea], "min_count": 2}}),
                json!([1]),
            ),
            (
                json!({"must": [{"should": [bern, {"must_not": [sea]}]}]}),
                json!([3, UUID, "five"]),
            ),
            (
                json!({"should": [], "min_should": {"conditions": [], "min_count": 1}}),
                all.clone(),
            ),
            (json!({"must": null}), all.clone()),
            (json!({}), all.clone()),
        ] {
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
        let on = |test: &str, value: Value| {
            let mut condition = json!({"key": "a"});
            condition[test] = value;
            json!({"must": [condition]})
        };
        let deep = (0..40).fold(json!({}), |inner, _| json!({"must_not": [inner]}));
        for (filter, said) in [
            (json!([]), "`filter` wants an object"),
            (json!({"most": []}), "`most` is no clause"),
            (json!({"must": 1}), "`must` wants a list"),
            (json!({"must": [1]}), "an object"),
            (json!({"must": [{"key": "a"}]}), "one test"),
            (
                json!({"must": [{"key": "a", "match": {"value": 1}, "range": {"gt": 1}}]}),
                "one test",
            ),
            (
                json!({"must": [{"key": "a[", "match": {"value": 1}}]}),
                "`a[`",
            ),
            (
                json!({"must": [{"key": 1, "match": {"value": 1}}]}),
                "`key`",
            ),
            (
                json!({"must": [{"has_id": [1], "is_null": {"key": "a"}}]}),
                "one condition",
            ),
            (json!({"must": [{"has_id": [-1]}]}), "`has_id`"),
            (json!({"must": [{"has_vector": "title"}]}), "has_vector"),
            (
                json!({"must": [{"slice": {"total": 2, "index": 0}}]}),
                "slice",
            ),
            (json!({"must": [{"magic": 1}]}), "`magic`"),
            (json!({"must": [{"nested": {"key": "a"}}]}), "`nested`"),
            (
                json!({"must": [{"nested": {"key": "a", "filter": {"must": [{"has_id": [1]}]}}}]}),
                "ids",
            ),
            (json!({"min_should": {"conditions": []}}), "min_count"),
            (
                json!({"min_should": {"conditions": [], "min_count": -1}}),
                "min_count",
            ),
            (
                on(
                    "geo_radius",
                    json!({"center": {"lon": 1, "lat": 1}, "radius": 1}),
                ),
                "geo_radius",
            ),
            (on("geo_bounding_box", json!({})), "geo_bounding_box"),
            (on("geo_polygon", json!({})), "geo_polygon"),
            (on("magic", json!(1)), "`magic`"),
            (on("match", json!({"value": 1.5})), "whole numbers"),
            (on("match", json!({"value": [1]})), "`value`"),
            (on("match", json!({"any": 1})), "`any`"),
            (on("match", json!({"text": 1})), "`text`"),
            (on("match", json!({"like": "a"})), "`like`"),
            (on("match", json!({})), "one way"),
            (on("range", json!({"above": 1})), "gt, gte"),
            (on("range", json!({})), "at least one"),
            (on("range", json!({"gt": "now"})), "times"),
            (on("range", json!({"gt": 1, "lt": "2024-01-01"})), "times"),
            (on("range", json!({"gt": true})), "bounds"),
            (on("values_count", json!({"gt": "a"})), "numbers"),
            (on("is_empty", json!("yes")), "true or false"),
            (deep, "levels"),
        ] {
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
        for (body, status, said) in [
            (json!({"query": [1]}), 400, "1"),
            (json!({"query": []}), 400, "0"),
            (json!({"query": [1e39, 0]}), 400, "32-bit"),
            (json!({"query": 404}), 404, "404"),
            (json!({"query": -1}), 400, "query"),
            (json!({"query": true}), 400, "a vector"),
            (json!({"query": [[1, 0]]}), 400, "multivectors"),
            (
                json!({"query": {"indices": [1], "values": [1]}}),
                400,
                "sparse vectors",
            ),
            (
                json!({"query": {"nearest": [1, 0], "mmr": {"spread": 0.5}}}),
                400,
                "mmr",
            ),
            (
                json!({"query": {"nearest": [1, 0], "magic": 1}}),
                400,
                "magic",
            ),
            (
                json!({"query": {"recommend": {"positive": [1]}}}),
                400,
                "recommend",
            ),
            (
                json!({"query": {"discover": {"target": 1, "context": []}}}),
                400,
                "discover",
            ),
            (json!({"query": {"context": []}}), 400, "context"),
            (json!({"query": {"order_by": "a"}}), 400, "order_by"),
            (json!({"query": {"fusion": "rrf"}}), 400, "fusion"),
            (json!({"query": {"rrf": {"k": 2}}}), 400, "rrf"),
            (json!({"query": {"formula": {}}}), 400, "formula"),
            (json!({"query": {"sample": "random"}}), 400, "sample"),
            (
                json!({"query": {"relevance_feedback": {}}}),
                400,
                "relevance_feedback",
            ),
            (json!({"query": {"text": "a"}}), 400, "a `model`"),
            (
                json!({"query": {"text": "a", "model": "other"}}),
                409,
                "elsewhere",
            ),
            (
                json!({"query": [1, 0], "prefetch": [{"query": [1, 0]}]}),
                400,
                "prefetch",
            ),
            (
                json!({"query": 1, "lookup_from": {"collection": "d"}}),
                400,
                "lookup_from",
            ),
            (json!({"query": [1, 0], "using": "title"}), 400, "title"),
            (json!({"query": [1, 0], "shard_key": "a"}), 400, "shard_key"),
            (
                json!({"query": [1, 0], "params": {"idf": {"a": 1}}}),
                400,
                "idf",
            ),
            (
                json!({"query": [1, 0], "params": {"magic": 1}}),
                400,
                "magic",
            ),
            (json!({"query": [1, 0], "limit": 0}), 422, "limit is 0"),
            (json!({"query": [1, 0], "limit": 10_001}), 422, "points_max"),
            (json!({"query": [1, 0], "offset": 20_000}), 422, ""),
            (
                json!({"query": [1, 0], "score_threshold": "high"}),
                400,
                "score_threshold",
            ),
        ] {
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
