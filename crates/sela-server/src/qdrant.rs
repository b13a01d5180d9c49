//! Qdrant's routes: collections, points and snapshots as Qdrant's own clients ask for them.
//!
//! What is not supported is answered with 400 and the name of the feature, never with a result
//! that means something else. `docs/decisions/0006-server.md` says what was chosen.

mod collections;
mod filter;
mod inference;
mod info;
mod query;
mod read;
mod refused;
mod snapshots;
mod tar;
mod write;

use std::time::Instant;

use crate::json::Json;
use sela::Id;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;

use crate::auth::{Role, at_least};
use crate::dto::documents::DocumentId;
use crate::dto::qdrant::Answered;
use crate::error::ApiError;
use crate::openapi;
use crate::state::AppState;

/// What any of these routes may answer besides.
const ALSO: [(&str, &str); 1] = [(
    "409",
    "It exists already, is in use elsewhere, is being deleted, or holds vectors of another origin",
)];
/// What those that write may answer besides.
const ALSO_WRITING: [(&str, &str); 1] = [("507", "The disk is full, and nothing was written")];

/// The routes of Qdrant's clients.
pub(crate) fn router() -> OpenApiRouter<AppState> {
    let mut read = OpenApiRouter::default()
        .merge(collections::reading())
        .merge(read::router())
        .merge(query::router())
        .merge(snapshots::reading())
        .merge(refused::router());
    openapi::also(read.get_openapi_mut(), &ALSO);
    let mut write = OpenApiRouter::default()
        .merge(collections::writing())
        .merge(write::router())
        .merge(snapshots::writing());
    openapi::also(write.get_openapi_mut(), &ALSO);
    openapi::also(write.get_openapi_mut(), &ALSO_WRITING);
    let mut whole = snapshots::whole();
    openapi::also(whole.get_openapi_mut(), &ALSO);
    at_least(Role::Read, read)
        .merge(at_least(Role::Write, write))
        .merge(at_least(Role::Admin, whole))
}

/// An answer as these clients read it.
fn answer<T>(began: Instant, result: T) -> Json<Answered<T>> {
    Json(Answered {
        result,
        status: "ok",
        time: began.elapsed().as_secs_f64(),
    })
}

/// 400: a feature that is not there.
fn unsupported(feature: &str) -> ApiError {
    ApiError::malformed(
        "not_supported",
        format!("this server does not support {feature}"),
    )
}

/// The id of a point; `field` says where it stands.
fn id_of(id: &Value, field: impl FnOnce() -> String) -> Result<Id, ApiError> {
    Id::from_json(id).map_err(|error| {
        let field = field();
        ApiError::malformed("id_refused", format!("`{field}`: {error}")).field(field)
    })
}

fn ids_of(ids: &[Value], field: &str) -> Result<Vec<Id>, ApiError> {
    let ids = ids.iter().enumerate();
    ids.map(|(at, id)| id_of(id, || format!("{field}[{at}]")))
        .collect()
}

fn told(id: Id) -> DocumentId {
    match id {
        Id::Num(number) => DocumentId::Number(number),
        other => DocumentId::Text(other.to_string()),
    }
}

/// Refuses answers of no points, or of more than the limit allows.
fn check_limit(app: &AppState, limit: usize) -> Result<usize, ApiError> {
    let max = app.settings.limits.points_max;
    match (1..=max).contains(&limit) {
        true => Ok(limit),
        false => Err(ApiError::invalid(
            "limit",
            format!("limit is {limit}, and it may be 1 to {max}"),
        )
        .hint("the setting `limits.points_max` sets this")),
    }
}

/// Points of an answer unless the caller says otherwise.
const LIMIT: usize = 10;
