//! The Metal 4 routes: embed, search, store.

mod database;
mod state;

use std::time::Instant;

use crate::json::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Role, at_least};
use crate::dto::metal4::{EmbedBatchRequest, EmbedBatchResponse, EmbedRequest, EmbedResponse};
use crate::dto::rows::Rows;
use crate::error::ApiError;
use crate::extract::JsonBody;
use crate::state::AppState;
use crate::work;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    let read = OpenApiRouter::default()
        .routes(routes!(embed))
        .routes(routes!(embed_batch));
    at_least(Role::Read, read)
        .merge(database::router())
        .merge(state::router())
}

/// Embeds a text
#[utoipa::path(
    post,
    path = "/api/v1/metal4/embed",
    tag = "metal4",
    request_body = EmbedRequest,
    responses((status = 200, description = "Its vector", body = EmbedResponse))
)]
async fn embed(
    State(app): State<AppState>,
    JsonBody(request): JsonBody<EmbedRequest>,
) -> Result<Json<EmbedResponse>, ApiError> {
    let began = Instant::now();
    let embedded = work::embed_one(&app, request.text).await?;
    let info = embedded.info.first().copied();
    Ok(Json(EmbedResponse {
        dimension: embedded.dim,
        backend: app.backends().embedder.clone(),
        time_ms: ms(began),
        tokens: info.map_or(0, |info| info.tokens),
        truncated: info.is_some_and(|info| info.truncated),
        embedding: embedded.vectors,
    }))
}

/// Embeds texts
#[utoipa::path(
    post,
    path = "/api/v1/metal4/embed_batch",
    tag = "metal4",
    request_body = EmbedBatchRequest,
    responses((status = 200, description = "Their vectors, in order", body = EmbedBatchResponse))
)]
async fn embed_batch(
    State(app): State<AppState>,
    JsonBody(request): JsonBody<EmbedBatchRequest>,
) -> Result<Json<EmbedBatchResponse>, ApiError> {
    let began = Instant::now();
    if request.batch_size == Some(0) {
        return Err(ApiError::invalid("batch_size", "batch_size is 0"));
    }
    let count = request.texts.len();
    let embedded = work::embed(&app, request.texts).await?;
    let total = ms(began);
    Ok(Json(EmbedBatchResponse {
        count,
        dimension: embedded.dim,
        backend: app.backends().embedder.clone(),
        total_time_ms: total,
        avg_time_ms: total / count.max(1) as f64,
        tokens: embedded.info.iter().map(|info| info.tokens).collect(),
        truncated: embedded.info.iter().map(|info| info.truncated).collect(),
        embeddings: Rows {
            dim: embedded.dim,
            numbers: embedded.vectors,
        },
    }))
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
