//! All routes.

mod documents;
mod health;
mod metal4;
mod openai;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;

use crate::error::ApiError;
use crate::frame::frame;
use crate::metrics;
use crate::openapi;
use crate::qdrant;
use crate::state::AppState;

/// Every route with its place in the document.
pub(crate) fn all() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(health::router())
        .merge(metrics::router())
        .merge(metal4::router())
        .merge(openai::router())
        .merge(documents::router())
        .merge(qdrant::router())
}

/// A server without sockets: everything between a request's head and its answer.
pub fn router(app: AppState) -> Router {
    let (router, _) = all().split_for_parts();
    router
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(app.clone(), frame))
        .with_state(app)
}

async fn no_route(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::not_found("no_route", format!("there is nothing at `{path}`"))
        .hint("/docs lists what there is")
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "no_method",
        format!("`{path}` does not answer to {method}"),
    )
}
