//! Who gets in: keys, tokens, roles, and nobody else.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Server, request, run};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};
use ring::{hmac, rsa};
use sela_server::{AppState, ConfigError, Role, Settings, document};
use serde_json::{Value, json};

const PUBLIC: [&str; 4] = ["/health/live", "/health/ready", "/docs", "/openapi.json"];

/// Method and path of every documented operation, path parameters filled in.
fn operations() -> Vec<(String, String, Value)> {
    let document = serde_json::to_value(document()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut filled = path.clone();
            while let (Some(start), Some(end)) = (filled.find('{'), filled.find('}')) {
                filled.replace_range(start..=end, "1");
            }
            all.push((method.to_uppercase(), filled, operation.clone()));
        }
    }
    all
}

#[test]
fn without_a_key_every_route_answers_401_and_with_one_it_is_there() {
    run(async {
        let server = Server::starting(|_| {});
        let all = operations();
        assert!(all.len() > 15, "only {} operations", all.len());
        for (method, path, operation) in all {
            let open = PUBLIC.contains(&path.as_str());
            let bare = server
                .ask_as("", &method, &path, None)
                .await
                .status
                .as_u16();
            assert_eq!(bare == 401, !open, "{method} {path}: {bare}");
            assert_eq!(operation["security"].is_array(), !open, "{method} {path}");
            let wrong = server.ask_as("sela_wrong", &method, &path, None).await;
            assert_eq!(wrong.status == 401, !open, "{method} {path}");
            let known = server.ask(&method, &path, None).await;
            let text = String::from_utf8_lossy(&known.bytes).into_owned();
            assert!(
                !text.contains("there is nothing at"),
                "{method} {path}: {text}"
            );
            assert_ne!(known.status.as_u16(), 405, "{method} {path}");
            let status = known.status.as_str().to_owned();
            let told = operation["responses"].get(&status).is_some();
            assert!(
                told,
                "{method} {path} answers {status}, which is not documented"
            );
        }
    });
}

#[test]
fn refusals_of_names_and_methods_are_documented_too() {
    run(async {
        let server = Server::new();
        for (method, path, operation) in operations() {
            let other = server.ask("TRACE", &path, None).await;
            assert_eq!(other.status, 405, "TRACE {path}");
            assert!(other.headers.contains_key("allow"), "TRACE {path}");
            // No collection and no model has this name, and no id is like it.
            let odd = path.replace("/1", "/%15");
            if odd == path {
                assert!(operation["responses"]["405"].is_object(), "{method} {path}");
                continue;
            }
            let odd = server.ask(&method, &odd, Some(json!({"ids": []}))).await;
            for status in [other.status, odd.status] {
                let told = operation["responses"].get(status.as_str()).is_some();
                assert!(told, "{method} {path} answers {status}, undocumented");
            }
        }
    });
}

#[test]
fn whole_numbers_are_documented_as_large_as_they_may_be() {
    let document = serde_json::to_value(document()).unwrap();
    let id = "/components/schemas/StoreRequest/properties/vector_id";
    let id = document.pointer(id).unwrap();
    assert_eq!(
        (&id["format"], &id["minimum"]),
        (&json!("u-int64"), &json!(0))
    );
}

#[test]
fn everything_that_the_document_refers_to_is_in_it() {
    fn references<'a>(json: &'a Value, found: &mut Vec<&'a str>) {
        match json {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    run(async {
        let server = Server::starting(|_| {});
        let document = server
            .ask_as("", "GET", "/openapi.json", None)
            .await
            .is(200);
        assert_eq!(
            document,
            serde_json::to_value(sela_server::document()).unwrap()
        );
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "only {} references", found.len());
        for reference in found {
            let there = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(there.is_some(), "{reference} is nowhere");
        }
        let page = server.ask_as("", "GET", "/docs", None).await;
        let text = String::from_utf8(page.bytes).unwrap();
        assert!(
            !text.contains("http://") && !text.contains("https://"),
            "the page asks elsewhere"
        );
    });
}

#[test]
fn paths_that_do_not_exist_answer_401_first() {
    run(async {
        let server = Server::starting(|_| {});
        for path in [
            "/nothing",
            "/api/v1/metal4",
            "/api/v1/metal4/embed/",
            "/v1/embeddings/x",
            "/health",
            "/health/live/",
            "/docs/",
            "//docs",
            "/docs/../api/v1/metal4/stats",
            "/%64ocs",
            "/openapi.json/x",
            "/collections/x/y/z",
        ] {
            for method in ["GET", "POST", "DELETE", "PROPFIND"] {
                let bare = server.ask_as("", method, path, None).await;
                assert_eq!(bare.status, 401, "{method} {path}");
            }
            assert_eq!(server.get(path).await.status, 404, "{path}");
        }
        let wrong = server.get("/api/v1/metal4/embed").await;
        wrong.fails(405, "no_method");
        assert_eq!(wrong.headers["allow"], "POST");
        assert_eq!(server.ask_as("", "DELETE", "/docs", None).await.status, 405);
    });
}

#[test]
fn errors_have_the_shape_of_their_path() {
    run(async {
        let server = Server::starting(|_| {});
        let ours = server.ask_as("", "GET", "/x", None).await;
        ours.fails(401, "no_key");
        assert!(ours.headers.contains_key("www-authenticate"));
        let openai = server
            .ask_as("", "POST", "/v1/embeddings", None)
            .await
            .is(401);
        assert_eq!(openai["error"]["type"], "authentication_error");
        assert_eq!(openai["error"]["code"], "no_key");
        let qdrant = server.ask_as("", "GET", "/collections", None).await.is(401);
        assert!(qdrant["status"]["error"].is_string(), "{qdrant}");
    });
}

#[test]
fn keys_are_shown_in_either_header() {
    run(async {
        let server = Server::starting(|_| {});
        let key = server.read.clone();
        for (name, value, status) in [
            ("authorization", format!("Bearer {key}"), 200),
            ("authorization", format!("bearer  {key} "), 200),
            ("api-key", key.clone(), 200),
            ("authorization", key.clone(), 401),
            ("authorization", format!("Basic {key}"), 401),
            ("authorization", "Bearer ".to_owned(), 401),
            ("authorization", format!("Bearer {}", &key[..20]), 401),
            ("authorization", format!("Bearer {key}x"), 401),
            ("authorization", "Bearer a.b.c".to_owned(), 401),
            ("api-key", String::new(), 401),
            ("x-api-key", key.clone(), 401),
        ] {
            let request = request("GET", "/api/v1/metal4/stats").header(name, &value);
            let got = server.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(got.status.as_u16(), status, "{name}: {value}");
        }
        let bytes = b"Bearer \xff\xfe".to_vec();
        let value = axum::http::HeaderValue::from_bytes(&bytes).unwrap();
        let odd = request("GET", "/x").header("authorization", value);
        let odd = server.send(odd.body(Body::empty()).unwrap()).await;
        assert_eq!(odd.status, 401);
    });
}

#[test]
fn roles_are_held_and_refusals_are_told_to_the_audit_log() {
    run(async {
        let server = Server::new();
        let store = json!({"vector_id": 1, "text": "a"});
        let path = "/api/v1/metal4/store_embedding";
        let low = server
            .ask_as(&server.read, "POST", path, Some(store.clone()))
            .await;
        low.fails(403, "role_too_low");
        server
            .ask_as(&server.write, "POST", path, Some(store))
            .await
            .is(200);
        server
            .ask_as("", "GET", "/secret", None)
            .await
            .fails(401, "no_key");
        let log = fs::read_to_string(server.home.path().join("audit.jsonl")).unwrap();
        let lines: Vec<Value> = log
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{log}");
        assert_eq!(
            (&lines[0]["status"], &lines[0]["path"]),
            (&json!(403), &json!(path))
        );
        assert!(lines[0]["who"].is_string() && lines[1]["who"].is_null());
        assert!(!log.contains("sela_"), "a key in the log");
    });
}

#[test]
fn keys_come_and_go_without_a_restart() {
    run(async {
        let server = Server::starting(|_| {});
        let file = sela_server::KeyFile::new(server.home.path().join("keys.json"));
        let path = "/api/v1/metal4/stats";
        let made = file.create("new", Role::Read).unwrap();
        let until = async |key: &str, status: u16| {
            let began = Instant::now();
            while server.ask_as(key, "GET", path, None).await.status.as_u16() != status {
                assert!(
                    began.elapsed() < Duration::from_secs(10),
                    "{status} never came"
                );
                tokio::task::yield_now().await;
            }
        };
        until(&made.secret, 200).await;
        file.revoke("new").unwrap();
        until(&made.secret, 401).await;
        server
            .ask_as(&server.admin, "GET", path, None)
            .await
            .is(200);
        // A file that somebody has spoiled locks nobody out.
        fs::write(file.path(), "{").unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1200) {
            server
                .ask_as(&server.admin, "GET", path, None)
                .await
                .is(200);
        }
    });
}

#[test]
fn nobody_serves_without_keys_beyond_this_machine() {
    let home = tempfile::tempdir().unwrap();
    let engine = || sela::Engine::open(sela::Options::new(home.path())).unwrap();
    let mut settings = Settings::default();
    settings.server.no_auth = true;
    AppState::new(engine(), settings.clone()).unwrap();
    settings.server.bind = "0.0.0.0:8000".parse().unwrap();
    let refused = AppState::new(engine(), settings).unwrap_err();
    assert!(matches!(refused, ConfigError::NoAuthBeyondLoopback { .. }));
}

#[test]
fn with_no_auth_everybody_may_do_everything() {
    run(async {
        let server = Server::starting(|settings| settings.server.no_auth = true);
        server
            .ask_as("", "GET", "/api/v1/metal4/stats", None)
            .await
            .is(200);
        server
            .ask_as("", "GET", "/nothing", None)
            .await
            .fails(404, "no_route");
    });
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn token(head: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(head), part(claims));
    let signed = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signed}")
}

fn hs256(secret: &[u8], claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let sign = |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec();
    token(&json!({"alg": "HS256", "typ": "JWT"}), claims, sign)
}

fn status_of(server: &Server, token: &str) -> u16 {
    run(async {
        server
            .ask_as(token, "GET", "/api/v1/metal4/stats", None)
            .await
            .status
            .as_u16()
    })
}

#[test]
fn tokens_by_a_secret() {
    let server = Server::starting(|settings| {
        let jwt = &mut settings.auth.jwt;
        jwt.secret = Some(SECRET.to_owned());
        jwt.issuer = Some("here".to_owned());
        jwt.audience = Some("sela".to_owned());
        jwt.role_claim = "realm.roles".to_owned();
        jwt.leeway_s = 0;
        jwt.roles.insert("viewer".to_owned(), Role::Read);
    });
    let good = json!({
        "exp": now() + 600, "iss": "here", "aud": "sela", "sub": "me",
        "realm": {"roles": ["other", "viewer"]},
    });
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(key);
        claims
    };
    for (claims, status) in [
        (good.clone(), 200),
        (with("aud", json!(["x", "sela"])), 200),
        (with("realm", json!({"roles": "viewer other"})), 200),
        (with("realm", json!({"roles": "nobody"})), 403),
        (without("realm"), 403),
        (with("exp", json!(now() - 5)), 401),
        (with("exp", json!("never")), 401),
        (with("exp", json!(null)), 401),
        (without("exp"), 401),
        (with("nbf", json!(now() + 600)), 401),
        (with("nbf", json!("soon")), 401),
        (with("iss", json!("there")), 401),
        (without("iss"), 401),
        (with("aud", json!("other")), 401),
        (without("aud"), 401),
    ] {
        assert_eq!(
            status_of(&server, &hs256(SECRET.as_bytes(), &claims)),
            status,
            "{claims}"
        );
    }
    assert_eq!(
        status_of(&server, &hs256(b"another secret of 32 bytes......", &good)),
        401
    );
    let none = token(&json!({"alg": "none"}), &good, |_| Vec::new());
    assert_eq!(status_of(&server, &none), 401);
    let whole = hs256(SECRET.as_bytes(), &good);
    let (start, signed) = whole.rsplit_once('.').unwrap();
    assert_eq!(status_of(&server, &format!("{start}.")), 401);
    assert_eq!(
        status_of(&server, &format!("{start}.{}", &signed[1..])),
        401
    );
    // What a viewer may not do, a token that says so does not do either.
    let stored = run(async {
        let body = json!({"vector_id": 1, "text": "a"});
        server
            .ask_as(&whole, "POST", "/api/v1/metal4/store_embedding", Some(body))
            .await
            .status
    });
    assert_eq!(stored, 403);
}

#[test]
fn tokens_by_public_keys_and_no_confusion_of_algorithms() {
    let random = SystemRandom::new();
    let curve = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &random).unwrap();
    let rsa_key = RsaKeyPair::from_der(include_bytes!("data/rsa.der")).unwrap();
    let rsa_public = rsa::PublicKeyComponents::<Vec<u8>>::from(rsa_key.public());
    let point = ec.public_key().as_ref().to_vec();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let shared = b"a symmetric key of some 32 bytes";
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "e", "use": "sig", "alg": "ES256",
         "x": text(&point[1..33]), "y": text(&point[33..])},
        {"kty": "RSA", "kid": "r", "n": text(&rsa_public.n), "e": text(&rsa_public.e)},
        {"kty": "oct", "kid": "o", "k": text(shared)},
    ]});
    let dir = tempfile::tempdir().unwrap();
    let jwks = dir.path().join("jwks.json");
    fs::write(&jwks, set.to_string()).unwrap();
    let server = Server::starting(|settings| settings.auth.jwt.jwks = Some(jwks.clone()));
    let claims = json!({"exp": now() + 600, "role": "write"});
    let by_ec = |message: &[u8]| ec.sign(&random, message).unwrap().as_ref().to_vec();
    let by_rsa = |message: &[u8]| {
        let mut signed = vec![0; rsa_key.public().modulus_len()];
        let padding = &signature::RSA_PKCS1_SHA256;
        rsa_key
            .sign(padding, &random, message, &mut signed)
            .unwrap();
        signed
    };
    let by_hmac = |secret: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        move |message: &[u8]| hmac::sign(&key, message).as_ref().to_vec()
    };
    let es = json!({"alg": "ES256", "kid": "e"});
    let rs = json!({"alg": "RS256", "kid": "r"});
    assert_eq!(status_of(&server, &token(&es, &claims, by_ec)), 200);
    assert_eq!(
        status_of(&server, &token(&json!({"alg": "ES256"}), &claims, by_ec)),
        200
    );
    assert_eq!(status_of(&server, &token(&rs, &claims, by_rsa)), 200);
    let other = json!({"alg": "RS256", "kid": "x"});
    assert_eq!(status_of(&server, &token(&other, &claims, by_rsa)), 401);
    assert_eq!(status_of(&server, &token(&es, &claims, by_rsa)), 401);
    // Public keys, and shared keys in a set of public ones, are no secrets of HS256.
    for secret in [&point[..], &rsa_public.n, &fs::read(&jwks).unwrap(), shared] {
        for kid in ["e", "r", "o"] {
            let head = json!({"alg": "HS256", "kid": kid});
            assert_eq!(
                status_of(&server, &token(&head, &claims, by_hmac(secret))),
                401
            );
        }
    }
    let told = json!({"exp": now() + 600, "role": "write", "aud": "somebody else"});
    assert_eq!(status_of(&server, &token(&es, &told, by_ec)), 401);
}

#[test]
fn keys_of_tokens_that_cannot_be_used_are_told_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("x");
    let refused = |change: &dyn Fn(&mut sela_server::config::Jwt)| {
        let mut settings = Settings::default();
        change(&mut settings.auth.jwt);
        let engine = sela::Engine::open(sela::Options::new(home.path())).unwrap();
        AppState::new(engine, settings).unwrap_err().to_string()
    };
    let said = refused(&|jwt| jwt.secret = Some("short".to_owned()));
    assert!(
        said.contains("auth.jwt.secret") && said.contains("32"),
        "{said}"
    );
    let said = refused(&|jwt| jwt.jwks = Some(file.clone()));
    assert!(said.contains("auth.jwt.jwks"), "{said}");
    fs::write(&file, "{\"keys\": []}").unwrap();
    let said = refused(&|jwt| jwt.jwks = Some(file.clone()));
    assert!(said.contains("RS256 or ES256"), "{said}");
}
