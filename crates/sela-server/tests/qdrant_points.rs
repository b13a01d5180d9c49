//! Qdrant's routes: points stored, changed, removed and given back.

mod common;

use common::{Answer, Server, cases, refused, run};
use serde_json::{Value, json};

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// Points that are not stored: status, what is said, and the point.
const NO_POINTS: &str = r#"
400 | 3 numbers | {"id": 2, "vector": [1, 0, 0]}
400 | 0 numbers | {"id": 2, "vector": []}
400 | 32-bit | {"id": 2, "vector": [1e39, 0]}
400 | a number | {"id": 2, "vector": ["1", 0]}
400 | a number | {"id": 2, "vector": [null, 0]}
400 | multivectors | {"id": 2, "vector": [[1, 0]]}
400 | named vectors: `title` | {"id": 2, "vector": {"title": [1, 0]}}
400 | sparse vectors | {"id": 2, "vector": {"indices": [1], "values": [1]}}
400 | images | {"id": 2, "vector": {"image": "x", "model": "m"}}
409 | elsewhere | {"id": 2, "vector": {"text": "a", "model": "$MODEL"}}
400 | points[1].id | {"id": -1, "vector": [1, 0]}
400 | points[1].id | {"id": 1.5, "vector": [1, 0]}
400 | points[1].id | {"id": "", "vector": [1, 0]}
400 | points[1].id | {"id": [2], "vector": [1, 0]}
400 | vector | {"id": 2}
400 | payload | {"id": 2, "vector": [1, 0], "payload": [1]}
400 | magic | {"id": 2, "vector": [1, 0], "magic": 1}
"#;

/// Requests to store that are refused: status, what is said, and the request.
const NO_UPSERTS: &str = r#"
400 | either as | {}
400 | either as | {"points": [{"id": 1, "vector": [1, 0]}], "batch": {"ids": [], "vectors": []}}
400 | 2 ids, 1 vectors | {"batch": {"ids": [1, 2], "vectors": [[1, 0]]}}
400 | 0 payloads | {"batch": {"ids": [1], "vectors": [[1, 0]], "payloads": []}}
400 | named vectors | {"batch": {"ids": [1], "vectors": {"title": [[1, 0]]}}}
400 | shard_key | {"points": [{"id": 1, "vector": [1, 0]}], "shard_key": "a"}
400 | update_filter | {"points": [{"id": 1, "vector": [1, 0]}], "update_filter": {"must": []}, "update_mode": "insert_only"}
400 | insert_only | {"points": [{"id": 1, "vector": [1, 0]}], "update_mode": "insert_only"}
"#;

/// Changes that are refused: where, what is said, and the request.
const NO_CHANGES: &str = r#"
POST /payload | either by | {"payload": {"a": 1}}
POST /payload | either by | {"payload": {"a": 1}, "points": [1], "filter": {}}
POST /payload | `b[` | {"payload": {"a": 1}, "points": [1], "key": "b["}
POST /payload | points[0] | {"payload": {"a": 1}, "points": [1.5]}
POST /payload | payload | {"points": [1]}
PUT /payload | overwritten | {"payload": {"a": 1}, "points": [1], "key": "b"}
POST /payload/delete | name a field | {"keys": [""], "points": [1]}
POST /payload/clear | `most` | {"filter": {"most": []}}
POST /delete | shard_key | {"points": [1], "shard_key": "a"}
PUT /vectors | 1 numbers | {"points": [{"id": 1, "vector": [1]}]}
PUT /vectors | another text | {"points": [{"id": 1, "vector": {"text": "a", "model": "m"}}]}
"#;

/// A server with a collection `c` of vectors of two numbers.
async fn server(distance: &str) -> Server {
    let server = Server::new();
    let body = json!({"vectors": {"size": 2, "distance": distance}});
    server
        .ask("PUT", "/collections/c", Some(body))
        .await
        .is(200);
    server
}

async fn points(server: &Server, method: &str, path: &str, body: Value) -> Answer {
    let path = format!("/collections/c/points{path}");
    server.ask(method, &path, Some(body)).await
}

async fn upsert(server: &Server, points_given: Value) {
    let body = json!({"points": points_given});
    let stored = points(server, "PUT", "?wait=true&ordering=strong", body)
        .await
        .is(200);
    assert_eq!(stored["result"]["status"], "completed");
    assert!(stored["result"]["operation_id"].as_u64().unwrap() > 0);
}

async fn count(server: &Server) -> u64 {
    let counted = points(server, "POST", "/count", json!({})).await.is(200);
    counted["result"]["count"].as_u64().unwrap()
}

async fn payload(server: &Server, id: &Value) -> Value {
    let body = json!({"ids": [id]});
    points(server, "POST", "", body).await.is(200)["result"][0]["payload"].clone()
}

#[test]
fn points_of_all_ids_are_stored_and_given_back() {
    run(async {
        let server = server("Dot").await;
        upsert(
            &server,
            json!([
                {"id": 0, "vector": [1, 2.5], "payload": {"a": {"b": [1, null]}}},
                {"id": u64::MAX, "vector": {"": [0.5, 0.5]}},
                {"id": UUID.to_uppercase(), "vector": [3.0, 4.0], "payload": null},
            ]),
        )
        .await;
        let batch = json!({"batch": {
            "ids": ["ein Name", 7], "vectors": {"": [[1, 1], [2, 2]]}, "payloads": [null, {"n": 7}],
        }});
        points(&server, "PUT", "", batch).await.is(200);
        let ids = json!([UUID, 404, "ein Name", 0, u64::MAX, 7]);
        let body = json!({"ids": ids, "with_vector": true});
        let got = points(&server, "POST", "", body).await.is(200);
        assert_eq!(
            got["result"],
            json!([
                {"id": UUID, "payload": {}, "vector": [3.0, 4.0]},
                {"id": "ein Name", "payload": {}, "vector": [1.0, 1.0]},
                {"id": 0, "payload": {"a": {"b": [1, null]}}, "vector": [1.0, 2.5]},
                {"id": u64::MAX, "payload": {}, "vector": [0.5, 0.5]},
                {"id": 7, "payload": {"n": 7}, "vector": [2.0, 2.0]},
            ])
        );
        let uuid = server
            .get(&format!("/collections/c/points/{UUID}"))
            .await
            .is(200);
        assert_eq!(uuid["result"]["vector"], json!([3.0, 4.0]));
        let text = server.get("/collections/c/points/ein%20Name").await.is(200);
        assert_eq!(text["result"]["id"], "ein Name");
        refused(&server.get("/collections/c/points/8").await, 404, "`8`");
        refused(
            &server.get("/collections/none/points/8").await,
            404,
            "`none`",
        );
        let long = format!("/collections/c/points/{}", "x".repeat(600));
        refused(&server.get(&long).await, 400, "too long");
        // Stored again, a point is another.
        upsert(&server, json!([{"id": 7, "vector": [9, 9]}])).await;
        assert_eq!(payload(&server, &json!(7)).await, json!({}));
        assert_eq!(count(&server).await, 5);
    });
}

#[test]
fn cosine_keeps_directions_and_other_distances_the_vectors() {
    run(async {
        for (distance, expected) in [
            ("Cosine", [0.6, 0.8]),
            ("Dot", [3.0, 4.0]),
            ("Euclid", [3.0, 4.0]),
        ] {
            let server = server(distance).await;
            upsert(
                &server,
                json!([{"id": 1, "vector": [3, 4]}, {"id": 2, "vector": [0, 0]}]),
            )
            .await;
            let body = json!({"points": [{"id": 2, "vector": [0, 7]}]});
            points(&server, "PUT", "/vectors", body).await.is(200);
            let body = json!({"ids": [1, 2], "with_vector": [""], "with_payload": false});
            let got = points(&server, "POST", "", body).await.is(200)["result"].clone();
            for (at, number) in expected.iter().enumerate() {
                let found = got[0]["vector"][at].as_f64().unwrap();
                assert!((found - number).abs() < 1e-7, "{distance}: {found}");
            }
            let length = if distance == "Cosine" { 1.0 } else { 7.0 };
            assert_eq!(got[1]["vector"], json!([0.0, length]));
            assert_eq!(got[0]["payload"], Value::Null);
        }
    });
}

#[test]
fn what_cannot_be_stored_leaves_nothing_behind() {
    run(async {
        let server = server("Cosine").await;
        let good = json!({"id": 1, "vector": [1, 0]});
        let deep = (0..80).fold(json!(1), |inner, _| json!([inner]));
        let deep = format!(
            "413 | levels | {}",
            json!({"id": 2, "vector": [1, 0], "payload": {"a": deep}})
        );
        for (status, said, bad) in cases(NO_POINTS).chain(cases(&deep)) {
            let body = json!({"points": [good, bad]});
            refused(
                &points(&server, "PUT", "", body).await,
                status.parse().unwrap(),
                said,
            );
            assert_eq!(count(&server).await, 0);
        }
        for (status, said, body) in cases(NO_UPSERTS) {
            refused(
                &points(&server, "PUT", "", body).await,
                status.parse().unwrap(),
                said,
            );
        }
        for number in ["NaN", "Infinity", "-1e999"] {
            let body = format!(r#"{{"points": [{{"id": 1, "vector": [{number}, 0]}}]}}"#);
            let request = common::request("PUT", "/collections/c/points")
                .header("api-key", &server.admin)
                .header("content-type", "application/json");
            let answer = server.send(request.body(body.into()).unwrap()).await;
            assert!(
                [400, 422].contains(&answer.status.as_u16()),
                "{number}: {}",
                answer.status
            );
        }
        refused(
            &points(&server, "PUT", "?wait=perhaps", json!({"points": []})).await,
            400,
            "wait",
        );
        let nowhere = json!({"points": [good]});
        let path = "/collections/none/points";
        refused(&server.ask("PUT", path, Some(nowhere)).await, 404, "none");
        assert_eq!(count(&server).await, 0);
        points(&server, "PUT", "", json!({"points": []}))
            .await
            .is(200);
    });
}

#[test]
fn payloads_are_set_overwritten_and_removed() {
    run(async {
        let server = server("Dot").await;
        upsert(
            &server,
            json!([
                {"id": 1, "vector": [1, 0], "payload": {"a": 1, "b": {"c": 2}}},
                {"id": 2, "vector": [0, 1], "payload": {"a": 2}},
                {"id": "t", "vector": [0, 1]},
            ]),
        )
        .await;
        let of = |id| payload(&server, id);
        let (one, two, text) = (json!(1), json!(2), json!("t"));
        let body = json!({"payload": {"d": 3, "a": null}, "points": [1, "t"]});
        points(&server, "POST", "/payload", body).await.is(200);
        assert_eq!(of(&one).await, json!({"b": {"c": 2}, "d": 3}));
        assert_eq!(of(&text).await, json!({"d": 3}));
        let body = json!({"payload": {"e": 4}, "points": [1], "key": "b"});
        points(&server, "POST", "/payload", body).await.is(200);
        assert_eq!(of(&one).await, json!({"b": {"c": 2, "e": 4}, "d": 3}));
        let by_d = json!({"must": [{"key": "d", "match": {"value": 3}}]});
        let body = json!({"payload": {"only": true}, "filter": by_d});
        points(&server, "PUT", "/payload", body).await.is(200);
        assert_eq!(
            (of(&one).await, of(&text).await),
            (json!({"only": true}), json!({"only": true}))
        );
        assert_eq!(of(&two).await, json!({"a": 2}));
        let body = json!({"payload": {"x": {"y": 1, "z": 2}}, "points": [2]});
        points(&server, "PUT", "/payload", body).await.is(200);
        let body = json!({"keys": ["x.y", "none"], "points": [2]});
        points(&server, "POST", "/payload/delete", body)
            .await
            .is(200);
        assert_eq!(of(&two).await, json!({"x": {"z": 2}}));
        points(&server, "POST", "/payload/clear", json!({"points": [2]}))
            .await
            .is(200);
        assert_eq!(of(&two).await, json!({}));
    });
}

#[test]
fn changes_tell_what_is_not_there_and_what_cannot_be() {
    run(async {
        let server = server("Dot").await;
        upsert(
            &server,
            json!([
                {"id": 1, "vector": [1, 0]}, {"id": 2, "vector": [0, 1]},
                {"id": "t", "vector": [0, 1], "payload": {"only": true}},
            ]),
        )
        .await;
        let of = |id| payload(&server, id);
        let (two, text) = (json!(2), json!("t"));
        // One that is not there is told, and the others are changed.
        let body = json!({"payload": {"n": 1}, "points": [2, 404, 1]});
        refused(
            &points(&server, "POST", "/payload", body).await,
            404,
            "`404`; 2 others",
        );
        assert_eq!(of(&two).await, json!({"n": 1}));
        let body = json!({"points": [{"id": 404, "vector": [1, 1]}]});
        refused(
            &points(&server, "PUT", "/vectors", body).await,
            404,
            "`404`",
        );
        for (route, said, body) in cases(NO_CHANGES) {
            let (method, path) = route.split_once(' ').unwrap();
            refused(&points(&server, method, path, body).await, 400, said);
        }
        points(&server, "POST", "/delete", json!({"points": [1, 404]}))
            .await
            .is(200);
        assert_eq!(count(&server).await, 2);
        let body = json!({"filter": {"must_not": [{"has_id": ["t"]}]}});
        points(&server, "POST", "/delete", body).await.is(200);
        assert_eq!(payload(&server, &text).await, json!({"only": true}));
        assert_eq!(count(&server).await, 1);
    });
}

#[test]
fn batches_of_changes_go_one_after_another() {
    run(async {
        let server = server("Dot").await;
        let body = json!({"operations": [
            {"upsert": {"points": [{"id": 1, "vector": [1, 0]}, {"id": 2, "vector": [1, 0]}]}},
            {"upsert": {"batch": {"ids": [3], "vectors": [[0, 1]]}}},
            {"set_payload": {"payload": {"a": 1, "b": 2}, "points": [1, 2, 3]}},
            {"overwrite_payload": {"payload": {"c": 1}, "points": [2]}},
            {"delete_payload": {"keys": ["a"], "points": [1]}},
            {"update_vectors": {"points": [{"id": 1, "vector": [0, 5]}]}},
            {"clear_payload": {"filter": {"must": [{"key": "c", "match": {"value": 1}}]}}},
            {"delete": {"points": [3]}},
        ]});
        let done = points(&server, "POST", "/batch", body).await.is(200);
        let ids: Vec<u64> = done["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["operation_id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids.len(), 8);
        assert!(ids.is_sorted(), "{ids:?}");
        let page = points(&server, "POST", "/scroll", json!({"with_vector": true}))
            .await
            .is(200);
        assert_eq!(
            page["result"]["points"],
            json!([
                {"id": 1, "payload": {"b": 2}, "vector": [0.0, 5.0]},
                {"id": 2, "payload": {}, "vector": [1.0, 0.0]},
            ])
        );
        // What can be known before is said before anything is done.
        for (bad, said) in [
            (
                json!({"upsert": {"points": [{"id": 9, "vector": [1]}]}}),
                "1 numbers",
            ),
            (json!({"delete": {"points": [-1]}}), "operation 1"),
            (
                json!({"delete_vectors": {"points": [1], "vector": [""]}}),
                "delete_vectors",
            ),
            (json!({"rename": {}}), "rename"),
        ] {
            let body = json!({"operations": [{"delete": {"points": [1]}}, bad]});
            refused(&points(&server, "POST", "/batch", body).await, 400, said);
            assert_eq!(count(&server).await, 2);
        }
    });
}

#[test]
fn pages_follow_one_another_by_id() {
    run(async {
        let server = server("Dot").await;
        let given: Vec<Value> = (0..25u64)
            .rev()
            .map(|id| json!({"id": id, "vector": [id, 0], "payload": {"even": id % 2 == 0}}))
            .chain([
                json!({"id": UUID, "vector": [0, 0]}),
                json!({"id": "z", "vector": [0, 0]}),
            ])
            .collect();
        upsert(&server, Value::from(given)).await;
        let walk = async |limit: usize, filter: Value| {
            let (mut seen, mut pages, mut offset) = (Vec::new(), Vec::new(), Value::Null);
            loop {
                let body = json!({"limit": limit, "offset": offset, "filter": filter, "with_payload": false});
                let page = points(&server, "POST", "/scroll", body).await.is(200)["result"].clone();
                let points = page["points"].as_array().unwrap();
                pages.push(points.len());
                seen.extend(points.iter().map(|point| point["id"].clone()));
                offset = page["next_page_offset"].clone();
                if offset.is_null() {
                    return (seen, pages);
                }
            }
        };
        let mut all: Vec<Value> = (0..25u64).map(Value::from).collect();
        all.extend([json!(UUID), json!("z")]);
        for (limit, sizes) in [
            (27, vec![27]),
            (26, vec![26, 1]),
            (9, vec![9, 9, 9]),
            (100, vec![27]),
        ] {
            assert_eq!(walk(limit, Value::Null).await, (all.clone(), sizes));
        }
        let even = json!({"must": [{"key": "even", "match": {"value": true}}]});
        let (seen, pages) = walk(5, even).await;
        assert_eq!(
            seen,
            (0..25u64).step_by(2).map(Value::from).collect::<Vec<_>>()
        );
        assert_eq!(pages, [5, 5, 3]);
        let page = points(&server, "POST", "/scroll", json!({"offset": "a"}))
            .await
            .is(200);
        assert_eq!(page["result"]["points"][0]["id"], "z");
        let page = points(&server, "POST", "/scroll", json!({})).await.is(200);
        assert_eq!(page["result"]["points"].as_array().unwrap().len(), 10);
        for (body, status, said) in [
            (json!({"limit": 0}), 422, "limit is 0"),
            (json!({"limit": 10_001}), 422, "10000"),
            (json!({"limit": -1}), 400, "limit"),
            (json!({"offset": -1}), 400, "offset"),
            (json!({"order_by": "even"}), 400, "order_by"),
            (json!({"with_payload": 1}), 400, "with_payload"),
            (
                json!({"with_payload": {"include": ["a"], "exclude": ["b"]}}),
                400,
                "with_payload",
            ),
            (json!({"with_payload": ["a["]}), 400, "a["),
            (json!({"with_vector": ["title"]}), 400, "named vectors"),
            (json!({"with_vector": "yes"}), 400, "with_vector"),
            (json!({"shard_key": "a"}), 400, "shard_key"),
        ] {
            refused(
                &points(&server, "POST", "/scroll", body).await,
                status,
                said,
            );
        }
        let many: Vec<u64> = (0..10_001).collect();
        refused(
            &points(&server, "POST", "", json!({"ids": many})).await,
            413,
            "10001 ids",
        );
    });
}
