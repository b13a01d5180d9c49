//! A server over a small model, asked without sockets.
#![allow(dead_code, unreachable_pub)] // Each test file uses some of it.

pub mod model;

use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use sela::{DeviceChoice, Engine, Options};
use sela_server::{AppState, KeyFile, Role, Settings, router};
use serde_json::Value;
use tower::ServiceExt;

/// A server in a home of its own, with a key of each role.
pub struct Server {
    pub home: tempfile::TempDir,
    pub app: AppState,
    pub router: Router,
    pub read: String,
    pub write: String,
    pub admin: String,
}

impl Server {
    /// With the defaults, ready.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With changed settings, ready.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let server = Self::starting(change);
        server.app.warm_up().unwrap();
        server
    }

    /// With changed settings, its model not yet read.
    pub fn starting(change: impl FnOnce(&mut Settings)) -> Self {
        let home = tempfile::tempdir().unwrap();
        // Before the server reads them: it looks at the file only once a second.
        let keys = KeyFile::new(home.path().join(KeyFile::NAME));
        let key = |role: Role| keys.create(role.name(), role).unwrap().secret;
        let (read, write, admin) = (key(Role::Read), key(Role::Write), key(Role::Admin));
        let app = state(home.path(), change);
        Self {
            router: router(app.clone()),
            home,
            app,
            read,
            write,
            admin,
        }
    }

    /// Asks with the admin's key.
    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.ask_as(&self.admin, method, path, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, Some(body)).await
    }

    pub async fn ask_as(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mut request = request(method, path);
        if !key.is_empty() {
            let bearer = format!("Bearer {key}");
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let body = match body {
            Some(json) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    /// Sends a body as it is, with the admin's key.
    pub async fn send_raw(&self, path: &str, kind: &str, body: impl Into<Body>) -> Answer {
        let request = request("POST", path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.admin))
            .header(header::CONTENT_TYPE, kind);
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        answer(&self.router, request).await
    }
}

/// The state of a server over the small model.
pub fn state(home: &Path, change: impl FnOnce(&mut Settings)) -> AppState {
    let folder = home.join(model::NAME);
    if !folder.exists() {
        model::write(&folder);
    }
    let mut settings = Settings::default();
    settings.engine.model = folder.to_str().unwrap().to_owned();
    settings.engine.device = "cpu".to_owned();
    settings.engine.threads = Some(1);
    change(&mut settings);
    let mut options = Options::new(home);
    settings.apply(&mut options).unwrap();
    options.device = DeviceChoice::Cpu;
    AppState::new(Engine::open(options).unwrap(), settings).unwrap()
}

pub fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path)
}

pub async fn answer(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    assert!(
        parts.headers.contains_key("x-request-id"),
        "an answer without x-request-id"
    );
    Answer {
        status: parts.status,
        headers: parts.headers,
        bytes: bytes.to_vec(),
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    /// The JSON of an answer that must have this status.
    #[track_caller]
    pub fn is(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status.as_u16(), status, "{text}");
        if self.bytes.is_empty() {
            return Value::Null;
        }
        self.json()
    }

    /// Holds status and code of an error in the server's own shape.
    #[track_caller]
    pub fn fails(&self, status: u16, code: &str) -> Value {
        let json = self.is(status);
        assert_eq!(json["code"], code, "{json}");
        assert!(json["detail"].as_str().is_some_and(|d| !d.is_empty()));
        json
    }
}

/// Holds the status of an error in Qdrant's shape and what it says.
#[track_caller]
pub fn refused(answer: &Answer, status: u16, said: &str) {
    let json = answer.is(status);
    let error = json["status"]["error"].as_str().unwrap_or_default();
    assert!(error.contains(said), "`{said}` is not in: {json}");
    assert!(json["time"].is_number(), "{json}");
}

/// Lines of `a | b | JSON`, `$MODEL` in them being the small model.
pub fn cases(table: &str) -> impl Iterator<Item = (&str, &str, Value)> {
    table.trim().lines().map(|line| {
        let mut parts = line.splitn(3, " | ");
        let mut part = || parts.next().expect(line);
        let (first, second) = (part(), part());
        let json = part().replace("$MODEL", model::NAME);
        let json = serde_json::from_str(&json).expect(line);
        (first, second, json)
    })
}

/// A runtime for one test.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test)
}

/// A body of so many parts of a hundred bytes, whose length nobody says.
pub struct Endless(pub usize);

impl axum::body::HttpBody for Endless {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        if self.0 == 0 {
            return std::task::Poll::Ready(None);
        }
        self.0 -= 1;
        let part = "x".repeat(100).into();
        std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(part))))
    }
}

/// A body that never comes.
pub struct Stalled;

impl axum::body::HttpBody for Stalled {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        std::task::Poll::Pending
    }
}
