//! How the server is, and what it can be asked.

use std::sync::LazyLock;

use crate::json::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::docs;
use crate::dto::health::{Live, Readiness};
use crate::openapi;
use crate::state::{AppState, Phase};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    let mut router = OpenApiRouter::default()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(page))
        .routes(routes!(document));
    openapi::open(router.get_openapi_mut());
    router
}

/// The document of all routes, OpenAPI 3.1
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    responses((status = 200, description = "The document", body = serde_json::Value))
)]
async fn document() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        // It is always JSON; a test reads it.
        let text = openapi::document().to_json().unwrap_or_default();
        text.into()
    });
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

/// Whether the process lives
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "server",
    responses((status = 200, description = "It does", body = Live))
)]
async fn live() -> Json<Live> {
    Json(Live {
        status: "live",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Whether requests can be answered
///
/// Not while the model is being read, and not any more once the server stops.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "server",
    responses(
        (status = 200, description = "They can", body = Readiness),
        (status = 503, description = "Not yet, or not any more", body = Readiness)
    )
)]
async fn ready(State(app): State<AppState>) -> Response {
    let (status, word) = match app.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Ready => (StatusCode::OK, "ready"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    let body = Readiness {
        status: word,
        uptime_s: app.started.elapsed().as_secs(),
    };
    (status, Json(body)).into_response()
}

/// A page about all routes
#[utoipa::path(
    get,
    path = "/docs",
    tag = "server",
    responses((status = 200, description = "A page that needs no network", body = String, content_type = "text/html"))
)]
async fn page() -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, docs::POLICY)];
    (policy, Html(docs::PAGE)).into_response()
}
