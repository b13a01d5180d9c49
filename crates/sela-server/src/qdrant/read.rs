//! Points given back: by id, page by page, counted.

use std::time::Instant;

use crate::json::Json;
use axum::extract::State;
use sela::{FieldPath, Fields, Id, Payload, Row, keep_fields, leave_fields};
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{LIMIT, answer, check_limit, filter, id_of, ids_of, told, unsupported};
use crate::dto::qdrant::points::{
    CountPoints, Counted, Record, RetrievePoints, ScrollPoints, Scrolled,
};
use crate::dto::qdrant::{Answered, ReadParams};
use crate::error::ApiError;
use crate::extract::{JsonBody, PathOf, QueryOf};
use crate::state::AppState;
use crate::work;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(retrieve))
        .routes(routes!(get_one))
        .routes(routes!(scroll))
        .routes(routes!(count))
}

/// What of a point an answer carries besides its id.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    payload: ShownPayload,
    pub(super) vector: bool,
}

#[derive(Clone, Debug)]
enum ShownPayload {
    None,
    All,
    Keep(Vec<FieldPath>),
    Leave(Vec<FieldPath>),
}

impl Shown {
    /// Reads both wishes; payloads are given by default or not.
    pub(super) fn new(
        payload: Option<&Value>,
        vector: Option<&Value>,
        payload_by_default: bool,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            payload: match payload {
                None | Some(Value::Null) => ShownPayload::of(payload_by_default),
                Some(wish) => shown_payload(wish)?,
            },
            vector: shown_vector(vector)?,
        })
    }

    /// Whether payloads have to be read.
    pub(super) fn has_payload(&self) -> bool {
        !matches!(self.payload, ShownPayload::None)
    }

    pub(super) fn fields(&self) -> Fields {
        Fields {
            vector: self.vector,
            payload: self.has_payload(),
            text: false,
        }
    }

    /// The payload as it is shown; where it is shown and there is none, an empty one.
    pub(super) fn payload(&self, payload: Option<Payload>) -> Option<Map<String, Value>> {
        let payload = payload.unwrap_or_default();
        match &self.payload {
            ShownPayload::None => None,
            ShownPayload::All => Some(payload),
            ShownPayload::Keep(paths) => Some(keep_fields(&payload, paths)),
            ShownPayload::Leave(paths) => Some(leave_fields(&payload, paths)),
        }
    }

    fn record(&self, row: Row) -> Record {
        Record {
            id: told(row.id),
            payload: self.payload(row.payload),
            vector: self.vector.then_some(row.vector),
        }
    }
}

impl ShownPayload {
    fn of(shown: bool) -> Self {
        if shown { Self::All } else { Self::None }
    }
}

fn shown_payload(wish: &Value) -> Result<ShownPayload, ApiError> {
    let refused = || {
        let detail = "`with_payload` is true, false, a list of fields, or an object of a list of \
                      fields to `include` or to `exclude`";
        ApiError::malformed("invalid_field", detail).field("with_payload")
    };
    let paths = |list: &Value| {
        let fields = list.as_array().ok_or_else(refused)?.iter();
        let path = |field: &Value| {
            let path = field.as_str().ok_or_else(refused)?.parse::<FieldPath>();
            path.map_err(|error| {
                ApiError::malformed("field_refused", error.to_string()).field("with_payload")
            })
        };
        fields.map(path).collect::<Result<Vec<_>, _>>()
    };
    match wish {
        Value::Bool(shown) => Ok(ShownPayload::of(*shown)),
        Value::Array(_) => Ok(ShownPayload::Keep(paths(wish)?)),
        Value::Object(fields) => {
            let mut given = fields.iter().filter(|(_, value)| !value.is_null());
            match (given.next(), given.next()) {
                (Some((name, list)), None) if name == "include" => {
                    Ok(ShownPayload::Keep(paths(list)?))
                }
                (Some((name, list)), None) if name == "exclude" => {
                    Ok(ShownPayload::Leave(paths(list)?))
                }
                _ => Err(refused()),
            }
        }
        _ => Err(refused()),
    }
}

fn shown_vector(wish: Option<&Value>) -> Result<bool, ApiError> {
    match wish {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(shown)) => Ok(*shown),
        Some(Value::Array(names)) => match names.iter().find(|name| *name != "") {
            None => Ok(!names.is_empty()),
            Some(_) => Err(unsupported("named vectors: `with_vector`").field("with_vector")),
        },
        Some(_) => Err(
            ApiError::malformed("invalid_field", "`with_vector` is true or false")
                .field("with_vector"),
        ),
    }
}

/// Points by id; those that are not there are left away
#[utoipa::path(
    post,
    path = "/collections/{collection}/points",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), ReadParams),
    request_body = RetrievePoints,
    responses((status = 200, description = "Those there are", body = Answered<Vec<Record>>))
)]
async fn retrieve(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<ReadParams>,
    JsonBody(request): JsonBody<RetrievePoints>,
) -> Result<Json<Answered<Vec<Record>>>, ApiError> {
    let began = Instant::now();
    let (found, max) = (request.ids.len(), app.settings.limits.points_max);
    if found > max {
        let detail = format!("the request has {found} ids, and the limit is {max}");
        return Err(ApiError::too_large(detail, "points_max"));
    }
    let ids = ids_of(&request.ids, "ids")?;
    let (payload, vector) = (request.with_payload, request.with_vector);
    let shown = Shown::new(payload.as_ref(), vector.as_ref(), true)?;
    let rows = rows(&app, name, ids, shown.fields()).await?;
    let there = rows.into_iter().flatten();
    Ok(answer(began, there.map(|row| shown.record(row)).collect()))
}

/// A point with its payload and vector
#[utoipa::path(
    get,
    path = "/collections/{collection}/points/{id}",
    tag = "qdrant",
    params(
        ("collection" = String, Path, description = "Its name"),
        ("id" = String, Path, description = "The point's id: digits are a number"),
        ReadParams
    ),
    responses((status = 200, description = "The point", body = Answered<Record>))
)]
async fn get_one(
    State(app): State<AppState>,
    PathOf((name, id)): PathOf<(String, String)>,
    QueryOf(_): QueryOf<ReadParams>,
) -> Result<Json<Answered<Record>>, ApiError> {
    let began = Instant::now();
    let id = id.parse::<Id>();
    let id = id.map_err(|error| ApiError::malformed("id_refused", error.to_string()))?;
    let shown = Shown {
        payload: ShownPayload::All,
        vector: true,
    };
    let found = rows(&app, name.clone(), vec![id.clone()], shown.fields()).await?;
    match found.into_iter().next().flatten() {
        Some(row) => Ok(answer(began, shown.record(row))),
        None => {
            let detail = format!("the collection `{name}` has no point `{id}`");
            Err(ApiError::not_found("no_point", detail))
        }
    }
}

async fn rows(
    app: &AppState,
    name: String,
    ids: Vec<Id>,
    fields: Fields,
) -> Result<Vec<Option<Row>>, ApiError> {
    let state = app.clone();
    work::blocking(app, move || {
        Ok(state.collection(&name)?.get(&ids, fields)?)
    })
    .await
}

/// A page of points by ascending id: numbers, then UUIDs, then other strings
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/scroll",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), ReadParams),
    request_body = ScrollPoints,
    responses((status = 200, description = "The page", body = Answered<Scrolled>))
)]
async fn scroll(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<ReadParams>,
    JsonBody(request): JsonBody<ScrollPoints>,
) -> Result<Json<Answered<Scrolled>>, ApiError> {
    let began = Instant::now();
    let limit = check_limit(&app, request.limit.unwrap_or(LIMIT))?;
    let from = request.offset.filter(|offset| !offset.is_null());
    let from = from.map(|id| id_of(&id, || "offset".to_owned()));
    let from = from.transpose()?;
    let filter = filter::optional(request.filter.as_ref())?;
    let (payload, vector) = (request.with_payload, request.with_vector);
    let shown = Shown::new(payload.as_ref(), vector.as_ref(), true)?;
    let (state, fields) = (app.clone(), shown.fields());
    let page = work::blocking(&app, move || {
        let collection = state.collection(&name)?;
        Ok(collection.scroll_by_id(from.as_ref(), limit, filter.as_ref(), fields)?)
    });
    let page = page.await?;
    let points = page.rows.into_iter().map(|row| shown.record(row));
    Ok(answer(
        began,
        Scrolled {
            points: points.collect(),
            next_page_offset: page.next.map(told),
        },
    ))
}

/// How many points there are, or meet a filter
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/count",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), ReadParams),
    request_body = CountPoints,
    responses((status = 200, description = "So many", body = Answered<Counted>))
)]
async fn count(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<ReadParams>,
    JsonBody(request): JsonBody<CountPoints>,
) -> Result<Json<Answered<Counted>>, ApiError> {
    let began = Instant::now();
    let filter = filter::optional(request.filter.as_ref())?;
    let state = app.clone();
    let count = work::blocking(&app, move || {
        Ok(state.collection(&name)?.count(filter.as_ref())?)
    });
    let count = count.await?;
    Ok(answer(began, Counted { count }))
}
