//! Qdrant's routes: collections, roles, snapshots, and what is refused by name.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Server, cases, refused, run};
use serde_json::{Value, json};

/// What a key needs to be (1 read, 2 write, 3 admin), the route, and the request.
const ROLES: &str = r#"
1 | GET / | null
1 | GET /collections | null
1 | GET /collections/c | null
1 | POST /collections/c/points | {"ids": [1]}
1 | POST /collections/c/points/scroll | {}
1 | POST /collections/c/points/count | {}
1 | POST /collections/c/points/query | {}
1 | GET /collections/c/snapshots | null
2 | PUT /collections/d | {"vectors": {"size": 2, "distance": "Dot"}}
2 | PATCH /collections/c | {}
2 | PUT /collections/c/points | {"points": []}
2 | POST /collections/c/points/delete | {"points": [1]}
2 | POST /collections/c/points/payload | {"payload": {}, "points": []}
2 | PUT /collections/c/points/payload | {"payload": {}, "points": []}
2 | POST /collections/c/points/payload/delete | {"keys": ["a"], "points": []}
2 | POST /collections/c/points/payload/clear | {"points": []}
2 | PUT /collections/c/points/vectors | {"points": []}
2 | POST /collections/c/points/batch | {"operations": []}
2 | PUT /collections/c/index | {"field_name": "a"}
2 | DELETE /collections/c/index/a | null
2 | POST /collections/c/snapshots | null
2 | DELETE /collections/d | null
3 | GET /collections/c/snapshots/$SNAPSHOT | null
"#;

/// Collections that are not made: status, what is said, and what was asked for.
const NO_COLLECTIONS: &str = r#"
400 | vectors | {}
400 | vectors | {"vectors": {}}
400 | named vectors: `title` | {"vectors": {"title": {"size": 2, "distance": "Dot"}}}
422 | size is 0 | {"vectors": {"size": 0, "distance": "Dot"}}
422 | size is 65537 | {"vectors": {"size": 65537, "distance": "Dot"}}
400 | vectors.size | {"vectors": {"size": -1, "distance": "Dot"}}
400 | Manhattan | {"vectors": {"size": 2, "distance": "Manhattan"}}
400 | uint8 | {"vectors": {"size": 2, "distance": "Dot", "datatype": "uint8"}}
400 | multivector_config | {"vectors": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}}
400 | quantization_config | {"vectors": {"size": 2, "distance": "Dot", "quantization_config": {"binary": {}}}}
400 | magic | {"vectors": {"size": 2, "distance": "Dot", "magic": 1}}
400 | sparse_vectors | {"vectors": {"size": 2, "distance": "Dot"}, "sparse_vectors": {"words": {}}}
400 | quantization_config | {"vectors": {"size": 2, "distance": "Dot"}, "quantization_config": {"scalar": {}}}
400 | strict_mode_config | {"vectors": {"size": 2, "distance": "Dot"}, "strict_mode_config": {"enabled": true}}
400 | init_from | {"vectors": {"size": 2, "distance": "Dot"}, "init_from": {"collection": "a"}}
400 | shard_number | {"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 2}
400 | replication_factor | {"vectors": {"size": 2, "distance": "Dot"}, "replication_factor": 2}
400 | write_consistency_factor | {"vectors": {"size": 2, "distance": "Dot"}, "write_consistency_factor": 2}
400 | sharding_method | {"vectors": {"size": 2, "distance": "Dot"}, "sharding_method": "custom"}
400 | other | {"vectors": {"size": 2, "distance": "Dot"}, "metadata": {"sela_model": "other"}}
400 | sela_model | {"vectors": {"size": 2, "distance": "Dot"}, "metadata": {"sela_model": 1}}
400 | 32 numbers | {"vectors": {"size": 2, "distance": "Dot"}, "metadata": {"sela_model": "$MODEL"}}
400 | magic | {"vectors": {"size": 2, "distance": "Dot"}, "magic": 1}
"#;

async fn put(server: &Server, path: &str, body: Value) -> common::Answer {
    server.ask("PUT", path, Some(body)).await
}

/// A collection of vectors of two numbers.
async fn create(server: &Server, name: &str, distance: &str) {
    let body = json!({"vectors": {"size": 2, "distance": distance}});
    let made = put(server, &format!("/collections/{name}"), body).await;
    assert_eq!(made.is(200)["result"], true);
}

#[test]
fn collections_are_made_seen_and_deleted() {
    run(async {
        let server = Server::new();
        let root = server.get("/").await.is(200);
        assert!(root["title"].as_str().unwrap().starts_with("Sela"));
        assert_eq!(root["version"].as_str().unwrap().split('.').count(), 3);
        let none = server.get("/collections").await.is(200);
        assert_eq!(none["result"]["collections"], json!([]));
        assert_eq!(
            (&none["status"], none["time"].is_f64()),
            (&json!("ok"), true)
        );
        create(&server, "points", "Cosine").await;
        let hints = json!({
            "vectors": {"": {"size": 3, "distance": "Euclid", "datatype": "float16", "on_disk": true,
                "hnsw_config": {"m": 4}}},
            "hnsw_config": {"m": 16}, "optimizers_config": {"indexing_threshold": 1},
            "wal_config": null, "on_disk_payload": true, "shard_number": 1, "sparse_vectors": {},
            "sharding_method": "auto", "metadata": {"of": "mine"},
        });
        put(&server, "/collections/named?timeout=10", hints)
            .await
            .is(200);
        let all = server.get("/collections").await.is(200);
        assert_eq!(
            all["result"]["collections"],
            json!([{"name": "named"}, {"name": "points"}])
        );
        let info = server.get("/collections/named").await.is(200);
        let info = &info["result"];
        assert_eq!(
            (&info["status"], &info["points_count"]),
            (&json!("green"), &json!(0))
        );
        assert_eq!(info["config"]["params"]["vectors"]["distance"], "Euclid");
        assert_eq!(info["config"]["params"]["vectors"]["datatype"], "float16");
        assert_eq!(info["config"]["metadata"], json!({"of": "mine"}));
        for (name, there) in [("named", true), ("other", false), (".bad name", false)] {
            let path = format!("/collections/{}/exists", name.replace(' ', "%20"));
            let exists = server.get(&path).await.is(200);
            assert_eq!(exists["result"]["exists"], there);
        }
    });
}

#[test]
fn collections_are_changed_and_deleted() {
    run(async {
        let server = Server::new();
        create(&server, "named", "Euclid").await;
        let again = json!({"vectors": {"size": 3, "distance": "Dot"}});
        refused(
            &put(&server, "/collections/named", again).await,
            409,
            "already",
        );
        refused(&server.get("/collections/other").await, 404, "other");
        refused(&server.get("/collections/.bad").await, 400, ".bad");
        let patch = json!({"optimizers_config": {"indexing_threshold": 0}, "params": {}});
        let patched = server
            .ask("PATCH", "/collections/named", Some(patch.clone()))
            .await;
        assert_eq!(patched.is(200)["result"], true);
        refused(
            &server.ask("PATCH", "/collections/other", Some(patch)).await,
            404,
            "other",
        );
        for path in ["/collections/named/aliases", "/aliases"] {
            assert_eq!(
                server.get(path).await.is(200)["result"]["aliases"],
                json!([])
            );
        }
        let index = json!({"field_name": "a.b", "field_schema": "keyword"});
        let path = "/collections/named/index";
        let accepted = put(&server, path, index).await.is(200);
        assert_eq!(accepted["result"]["status"], "completed");
        refused(
            &put(&server, path, json!({"field_name": "a["})).await,
            400,
            "a[",
        );
        server
            .ask("DELETE", &format!("{path}/a.b"), None)
            .await
            .is(200);
        let info = server.get("/collections/named").await.is(200);
        assert_eq!(info["result"]["payload_schema"], json!({}));
        for gone in [true, false] {
            let deleted = server
                .ask("DELETE", "/collections/named", None)
                .await
                .is(200);
            assert_eq!(deleted["result"], gone);
        }
        refused(&server.get("/collections/named").await, 404, "named");
        // The name is free again.
        create(&server, "named", "Dot").await;
    });
}

#[test]
fn collections_that_cannot_be_are_refused_by_feature() {
    run(async {
        let server = Server::new();
        for (status, said, body) in cases(NO_COLLECTIONS) {
            let answer = put(&server, "/collections/c", body).await;
            refused(&answer, status.parse().unwrap(), said);
        }
        assert_eq!(
            server.get("/collections/c/exists").await.is(200)["result"]["exists"],
            false
        );
        let body = json!({"vectors": {"size": 2, "distance": "Dot"}});
        refused(
            &put(&server, "/collections/%20", body).await,
            400,
            "name of a collection",
        );
    });
}

#[test]
fn features_that_are_not_there_are_refused_by_name() {
    run(async {
        let server = Server::new();
        create(&server, "c", "Dot").await;
        for (patch, said) in [
            (
                json!({"quantization_config": {"scalar": {}}}),
                "quantization_config",
            ),
            (json!({"metadata": {"a": 1}}), "metadata"),
            (
                json!({"params": {"replication_factor": 2}}),
                "replication_factor",
            ),
        ] {
            refused(
                &server.ask("PATCH", "/collections/c", Some(patch)).await,
                400,
                said,
            );
        }
        for (method, path, said) in [
            ("POST", "points/query/groups", "groups"),
            ("POST", "points/search/groups", "groups"),
            ("POST", "points/recommend", "recommend"),
            ("POST", "points/recommend/batch", "recommend"),
            ("POST", "points/discover", "discover"),
            ("POST", "points/discover/batch", "discover"),
            ("POST", "points/search/matrix/pairs", "matrices"),
            ("POST", "points/search/matrix/offsets", "matrices"),
            ("POST", "facet", "facets"),
            ("PUT", "snapshots/recover", "recovery"),
            ("POST", "snapshots/upload", "recovery"),
            ("POST", "points/vectors/delete", "delete_vectors"),
        ] {
            let path = format!("/collections/c/{path}");
            refused(&server.ask(method, &path, Some(json!({}))).await, 400, said);
        }
    });
}

#[test]
fn keys_do_what_their_roles_allow() {
    run(async {
        let server = Server::new();
        create(&server, "c", "Dot").await;
        let made = server
            .ask("POST", "/collections/c/snapshots", None)
            .await
            .is(200);
        let snapshot = made["result"]["name"].as_str().unwrap().to_owned();
        for (needs, route, body) in cases(&ROLES.replace("$SNAPSHOT", &snapshot)) {
            let (method, path) = route.split_once(' ').unwrap();
            let needs: u8 = needs.parse().unwrap();
            let body = Some(body).filter(|body| !body.is_null());
            for (has, key) in [(1, &server.read), (2, &server.write), (3, &server.admin)] {
                if has > needs && method == "PUT" && path == "/collections/d" {
                    continue; // It is there by now.
                }
                let status = server
                    .ask_as(key, method, path, body.clone())
                    .await
                    .status
                    .as_u16();
                let expected = if has >= needs { 200 } else { 403 };
                assert_eq!(status, expected, "{method} {path} with role {has}");
            }
        }
        let mut request = common::request("GET", "/collections");
        request = request.header("api-key", &server.read);
        let answer = server
            .send(request.body(axum::body::Body::empty()).unwrap())
            .await;
        answer.is(200);
        refused(
            &server.ask_as("", "GET", "/collections", None).await,
            401,
            "key",
        );
    });
}

/// Files of a tar archive.
fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    };
    let (mut files, mut at) = (BTreeMap::new(), 0);
    while archive[at] != 0 {
        let header = &archive[at..at + 512];
        let size = usize::from_str_radix(&text(&header[124..136]), 8).unwrap();
        let data = &archive[at + 512..at + 512 + size];
        files.insert(text(&header[..100]), data.to_vec());
        at += 512 + size.next_multiple_of(512);
    }
    assert_eq!(archive[at..], [0; 1024]);
    files
}

#[test]
fn snapshots_are_made_listed_given_out_and_deleted() {
    run(async {
        let server = Server::new();
        create(&server, "points", "Dot").await;
        let points = json!({"points": [
            {"id": 1, "vector": [1.0, 0.0], "payload": {"a": 1}},
            {"id": "b", "vector": [0.0, 2.5]},
        ]});
        put(&server, "/collections/points/points", points)
            .await
            .is(200);
        let path = "/collections/points/snapshots";
        assert_eq!(server.get(path).await.is(200)["result"], json!([]));
        let first = server.ask("POST", path, None).await.is(200)["result"].clone();
        let second = server.ask("POST", path, None).await.is(200)["result"].clone();
        assert_eq!(
            server.get(path).await.is(200)["result"],
            json!([first, second])
        );
        let name = first["name"].as_str().unwrap();
        assert!(
            name.starts_with("points-") && name.ends_with(".snapshot"),
            "{name}"
        );
        let archive = server.get(&format!("{path}/{name}")).await;
        assert_eq!(archive.headers["content-type"], "application/x-tar");
        assert_eq!(
            archive.headers["content-length"],
            archive.bytes.len().to_string()
        );
        let files = unpack(&archive.bytes);
        let bytes: usize = files.values().map(Vec::len).sum();
        assert_eq!(first["size"], bytes);
        // Unpacked among the collections it is one.
        let folder = server
            .home
            .path()
            .join("data")
            .join("collections")
            .join("restored");
        for (file, bytes) in files {
            let file = folder.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        fs::create_dir_all(folder.join("segments")).unwrap();
        let scroll = json!({"with_vector": true});
        let restored = server
            .post("/collections/restored/points/scroll", scroll.clone())
            .await;
        let original = server
            .post("/collections/points/points/scroll", scroll)
            .await;
        assert_eq!(restored.is(200)["result"], original.is(200)["result"]);
    });
}

#[test]
fn snapshots_are_deleted_and_never_a_path() {
    run(async {
        let server = Server::new();
        create(&server, "points", "Dot").await;
        let path = "/collections/points/snapshots";
        let first = server.ask("POST", path, None).await.is(200)["result"].clone();
        let second = server.ask("POST", path, None).await.is(200)["result"].clone();
        let name = first["name"].as_str().unwrap();
        for bad in [
            "none.snapshot",
            "..",
            "%2e%2e%2fpoints",
            &format!(".{name}"),
            "catalog.sqlite",
        ] {
            refused(
                &server.ask("DELETE", &format!("{path}/{bad}"), None).await,
                404,
                "",
            );
            refused(&server.get(&format!("{path}/{bad}")).await, 404, "");
        }
        server
            .ask("DELETE", &format!("{path}/{name}"), None)
            .await
            .is(200);
        assert_eq!(server.get(path).await.is(200)["result"], json!([second]));
        refused(&server.get(&format!("{path}/{name}")).await, 404, name);
        for method in ["GET", "POST"] {
            refused(
                &server
                    .ask(method, "/collections/none/snapshots", None)
                    .await,
                404,
                "none",
            );
        }
    });
}

#[test]
fn a_collection_in_use_is_deleted_when_it_is_free() {
    run(async {
        let server = Server::new();
        create(&server, "points", "Dot").await;
        let many: Vec<Value> = (0..2000)
            .map(|id| json!({"id": id, "vector": [id, 1.0], "payload": {"n": id}}))
            .collect();
        let path = "/collections/points/points";
        put(&server, path, json!({"points": many})).await.is(200);
        // Readers and a deletion at once: each reader gets all or hears that it is gone.
        let scroll =
            json!({"limit": 2000, "filter": {"must": [{"key": "n", "range": {"gte": 0}}]}});
        let scroll_path = format!("{path}/scroll");
        let reading = || server.post(&scroll_path, scroll.clone());
        let deleting = server.ask("DELETE", "/collections/points", None);
        let (a, b, deleted, c) = tokio::join!(reading(), reading(), deleting, reading());
        assert_eq!(deleted.is(200)["result"], true);
        for answer in [a, b, c] {
            match answer.status.as_u16() {
                200 => {
                    let points = answer.json()["result"]["points"].as_array().unwrap().len();
                    assert_eq!(points, 2000);
                }
                status => assert!([404, 409].contains(&status), "{status}"),
            }
        }
        create(&server, "points", "Cosine").await;
        let count = server
            .post(&format!("{path}/count"), json!({}))
            .await
            .is(200);
        assert_eq!(count["result"]["count"], 0);
    });
}
