//! Points stored, changed and removed.

mod changes;

use std::time::Instant;

use crate::json::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::changes::Change;
use super::{answer, unsupported};
use crate::dto::qdrant::points::{
    DeletePayload, PointsSelector, SetPayload, UpdateOperation, UpdateOperations, UpdateVectors,
    UpsertPoints,
};
use crate::dto::qdrant::{Answered, UpdateResult, WriteParams};
use crate::error::ApiError;
use crate::extract::{JsonBody, PathOf, QueryOf};
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(upsert))
        .routes(routes!(delete))
        .routes(routes!(set_payload, overwrite_payload))
        .routes(routes!(delete_payload))
        .routes(routes!(clear_payload))
        .routes(routes!(update_vectors))
        .routes(routes!(delete_vectors))
        .routes(routes!(batch))
}

type Updated = Result<Json<Answered<UpdateResult>>, ApiError>;

/// Makes one change.
async fn change(app: &AppState, name: String, change: Change) -> Updated {
    let began = Instant::now();
    let mut done = changes::make(app, name, vec![change]).await?;
    Ok(answer(began, done.swap_remove(0)))
}

/// Stores points, all or none
///
/// In collections of the distance Cosine vectors are kept at length 1. A text in place of a vector
/// is embedded by the server's model and kept beside the payload, as the routes of documents do.
#[utoipa::path(
    put,
    path = "/collections/{collection}/points",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = UpsertPoints,
    responses((status = 200, description = "They are stored", body = Answered<UpdateResult>))
)]
async fn upsert(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<UpsertPoints>,
) -> Updated {
    change(&app, name, Change::store(request)?).await
}

/// Removes points by ids or by a filter; ids that are not there are passed over
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/delete",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = PointsSelector,
    responses((status = 200, description = "They are gone", body = Answered<UpdateResult>))
)]
async fn delete(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<PointsSelector>,
) -> Updated {
    change(&app, name, Change::delete(request)?).await
}

/// Sets fields of payloads and leaves the others
///
/// A field given as null is removed. Where an id is not there, the others are changed and the
/// answer is 404.
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/payload",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = SetPayload,
    responses((status = 200, description = "They are set", body = Answered<UpdateResult>))
)]
async fn set_payload(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<SetPayload>,
) -> Updated {
    change(&app, name, Change::set_payload(request)?).await
}

/// Gives points another payload
///
/// Where an id is not there, the others are changed and the answer is 404.
#[utoipa::path(
    put,
    path = "/collections/{collection}/points/payload",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = SetPayload,
    responses((status = 200, description = "They have it", body = Answered<UpdateResult>))
)]
async fn overwrite_payload(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<SetPayload>,
) -> Updated {
    change(&app, name, Change::overwrite_payload(request)?).await
}

/// Removes fields of payloads
///
/// Where an id is not there, the others are changed and the answer is 404.
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/payload/delete",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = DeletePayload,
    responses((status = 200, description = "They are gone", body = Answered<UpdateResult>))
)]
async fn delete_payload(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<DeletePayload>,
) -> Updated {
    change(&app, name, Change::delete_payload(request)?).await
}

/// Removes payloads
///
/// Where an id is not there, the others are changed and the answer is 404.
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/payload/clear",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = PointsSelector,
    responses((status = 200, description = "They are gone", body = Answered<UpdateResult>))
)]
async fn clear_payload(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<PointsSelector>,
) -> Updated {
    change(&app, name, Change::clear_payload(request)?).await
}

/// Gives points other vectors and leaves their payloads
///
/// Where an id is not there, the others are changed and the answer is 404.
#[utoipa::path(
    put,
    path = "/collections/{collection}/points/vectors",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = UpdateVectors,
    responses((status = 200, description = "They have them", body = Answered<UpdateResult>))
)]
async fn update_vectors(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<UpdateVectors>,
) -> Updated {
    change(&app, name, Change::vectors(request)?).await
}

/// Refuses to take a point's vector away: there are no points without one
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/vectors/delete",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name")),
    responses((status = 400, description = "Always", body = crate::dto::error::QdrantError))
)]
async fn delete_vectors() -> ApiError {
    no_vectorless()
}

fn no_vectorless() -> ApiError {
    unsupported("points without a vector: `delete_vectors`").hint("delete the points")
}

/// Makes changes one after another
///
/// All are read before the first is made; each is made whole or not at all. Where one fails, those
/// before it are done.
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/batch",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = UpdateOperations,
    responses((status = 200, description = "They are done", body = Answered<Vec<UpdateResult>>))
)]
async fn batch(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<UpdateOperations>,
) -> Result<Json<Answered<Vec<UpdateResult>>>, ApiError> {
    let began = Instant::now();
    let mut changes = Vec::with_capacity(request.operations.len());
    for (at, operation) in request.operations.into_iter().enumerate() {
        let read = read(operation).map_err(|mut error| {
            error.detail = format!("operation {at}: {}", error.detail);
            error
        });
        changes.push(read?);
    }
    let done = changes::make(&app, name, changes).await?;
    Ok(answer(began, done))
}

fn read(operation: UpdateOperation) -> Result<Change, ApiError> {
    match operation {
        UpdateOperation::Upsert(request) => Change::store(request),
        UpdateOperation::Delete(request) => Change::delete(request),
        UpdateOperation::SetPayload(request) => Change::set_payload(request),
        UpdateOperation::OverwritePayload(request) => Change::overwrite_payload(request),
        UpdateOperation::DeletePayload(request) => Change::delete_payload(request),
        UpdateOperation::ClearPayload(request) => Change::clear_payload(request),
        UpdateOperation::UpdateVectors(request) => Change::vectors(request),
        UpdateOperation::DeleteVectors(_) => Err(no_vectorless()),
    }
}
