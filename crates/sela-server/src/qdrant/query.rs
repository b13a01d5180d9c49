//! The nearest points: by a vector, by another point, by a text.

mod mmr;

use std::time::Instant;

use crate::json::Json;
use axum::extract::State;
use sela::{Collection, Fields, Filter, Id, Near, Query};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::mmr::Mmr;
use super::inference::{self, check_space};
use super::read::Shown;
use super::{LIMIT, answer, check_limit, filter, id_of, told, unsupported};
use crate::dto::qdrant::queries::{
    QueryAnswer, QueryBatch, QueryPoints, ScoredPoint, SearchBatch, SearchPoints,
};
use crate::dto::qdrant::vectors::{ModelText, PointVector};
use crate::dto::qdrant::{Answered, ReadParams};
use crate::error::ApiError;
use crate::extract::{JsonBody, PathOf, QueryOf};
use crate::state::AppState;
use crate::work;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(query))
        .routes(routes!(query_batch))
        .routes(routes!(search))
        .routes(routes!(search_batch))
}

/// A question, read.
#[derive(Debug)]
struct Asked {
    near: Wanted,
    mmr: Option<Mmr>,
    limit: usize,
    offset: usize,
    threshold: Option<f32>,
    filter: Option<Filter>,
    shown: Shown,
}

/// What to be near to.
#[derive(Debug)]
enum Wanted {
    Vector(Vec<f32>),
    Point(Id),
    Text(ModelText),
    /// Nothing: points by ascending id.
    Nothing,
}

/// Questions of Qdrant's that are not answered here.
const OTHER_QUERIES: [&str; 9] = [
    "recommend",
    "discover",
    "context",
    "order_by",
    "fusion",
    "rrf",
    "formula",
    "sample",
    "relevance_feedback",
];

impl Wanted {
    fn read(json: &Value) -> Result<Self, ApiError> {
        match json {
            Value::Null => Ok(Self::Nothing),
            Value::Number(_) | Value::String(_) => {
                Ok(Self::Point(id_of(json, || "query".to_owned())?))
            }
            Value::Object(fields) => {
                let given = |name: &&str| fields.get(*name).is_some_and(|value| !value.is_null());
                if let Some(other) = OTHER_QUERIES.iter().find(|name| given(name)) {
                    let feature = format!("queries of the kind `{other}`");
                    return Err(unsupported(&feature).field("query"));
                }
                match fields.get("nearest") {
                    None | Some(Value::Null) => Self::vector(json, "query"),
                    Some(nearest) if nearest.get("nearest").is_some() => {
                        Err(unsupported("`nearest` in `nearest`").field("query"))
                    }
                    Some(nearest) => Self::read(nearest),
                }
            }
            other => Self::vector(other, "query"),
        }
    }

    fn vector(json: &Value, field: &'static str) -> Result<Self, ApiError> {
        let read = <PointVector as serde::Deserialize>::deserialize(json);
        match read {
            Ok(PointVector::Dense(vector)) => Ok(Self::Vector(vector)),
            Ok(PointVector::Text(text)) => Ok(Self::Text(text)),
            Err(error) => {
                let detail = format!("`{field}`: {error}");
                Err(ApiError::malformed("invalid_field", detail).field(field))
            }
        }
    }
}

/// What stands beside `nearest`.
fn mmr(query: &Value) -> Result<Option<Mmr>, ApiError> {
    let Some(fields) = query
        .as_object()
        .filter(|fields| fields.contains_key("nearest"))
    else {
        return Ok(None);
    };
    let mut beside = fields.iter().filter(|(name, _)| *name != "nearest");
    match (beside.next(), beside.next()) {
        (None, _) => Ok(None),
        (Some((name, Value::Null)), None) if name == "mmr" => Ok(None),
        (Some((name, json)), None) if name == "mmr" => Mmr::read(json).map(Some),
        (Some((name, _)), _) => {
            let name: String = name.chars().take(100).collect();
            Err(unsupported(&format!("`{name}` beside `nearest`")).field("query"))
        }
    }
}

impl Asked {
    fn query(app: &AppState, request: QueryPoints) -> Result<Self, ApiError> {
        if let Some(name) = request.using.filter(|name| !name.is_empty()) {
            let name: String = name.chars().take(100).collect();
            return Err(unsupported(&format!("named vectors: `{name}`")).field("using"));
        }
        let query = request.query.unwrap_or_default();
        let (payload, vector) = (request.with_payload, request.with_vector);
        Ok(Self {
            mmr: mmr(&query)?,
            near: Wanted::read(&query)?,
            limit: check_limit(app, request.limit.unwrap_or(LIMIT))?,
            offset: request.offset.unwrap_or(0),
            threshold: request.score_threshold.map(|score| score as f32),
            filter: filter::optional(request.filter.as_ref())?,
            shown: Shown::new(payload.as_ref(), vector.as_ref(), false)?,
        })
    }

    fn search(app: &AppState, request: SearchPoints) -> Result<Self, ApiError> {
        let named = request.vector.get("name").and_then(Value::as_str);
        let near = match (named, request.vector.get("vector")) {
            (Some(""), Some(vector)) => Wanted::vector(vector, "vector")?,
            (Some(name), _) => {
                let name: String = name.chars().take(100).collect();
                return Err(unsupported(&format!("named vectors: `{name}`")).field("vector"));
            }
            _ => Wanted::vector(&request.vector, "vector")?,
        };
        let (payload, vector) = (request.with_payload, request.with_vector);
        Ok(Self {
            near,
            mmr: None,
            limit: check_limit(app, request.limit.unwrap_or(LIMIT))?,
            offset: request.offset.unwrap_or(0),
            threshold: request.score_threshold.map(|score| score as f32),
            filter: filter::optional(request.filter.as_ref())?,
            shown: Shown::new(payload.as_ref(), vector.as_ref(), false)?,
        })
    }

    /// Answers it over a collection. Blocks.
    fn over(self, collection: &Collection) -> Result<Vec<ScoredPoint>, ApiError> {
        let near = match self.near {
            Wanted::Nothing => return self.by_id(collection),
            Wanted::Vector(vector) => Near::Vector(vector),
            Wanted::Point(id) => Near::Row(id),
            Wanted::Text(text) => Near::Text(text.text),
        };
        let count = self.limit.saturating_add(self.offset);
        let mut query = match &self.mmr {
            None => Query::near(near).k(self.limit).offset(self.offset),
            Some(mmr) => Query::near(near).k(mmr.candidates(count)?),
        };
        query.threshold = self.threshold;
        query.filter = self.filter;
        query.with_document = self.shown.has_payload();
        query.with_vector = self.shown.vector || self.mmr.is_some();
        let mut hits = collection.query(&query)?;
        if let Some(mmr) = &self.mmr {
            hits = mmr.choose(hits, count, collection.metric())?;
            hits.drain(..self.offset.min(hits.len()));
        }
        let hits = hits.into_iter();
        let point = |hit: sela::Hit| ScoredPoint {
            id: told(hit.id),
            version: 0,
            score: hit.score,
            payload: self.shown.payload(hit.payload),
            vector: hit.vector.filter(|_| self.shown.vector),
        };
        Ok(hits.map(point).collect())
    }

    fn by_id(self, collection: &Collection) -> Result<Vec<ScoredPoint>, ApiError> {
        let filter = self.filter.as_ref();
        let mut from = None;
        if self.offset > 0 {
            from = collection
                .scroll_by_id(None, self.offset, filter, Fields::ID)?
                .next;
            if from.is_none() {
                return Ok(Vec::new());
            }
        }
        let fields = self.shown.fields();
        let page = collection.scroll_by_id(from.as_ref(), self.limit, filter, fields)?;
        let point = |row: sela::Row| ScoredPoint {
            id: told(row.id),
            version: 0,
            score: 0.0,
            payload: self.shown.payload(row.payload),
            vector: self.shown.vector.then_some(row.vector),
        };
        Ok(page.rows.into_iter().map(point).collect())
    }
}

/// Answers questions over one collection; their texts are embedded together.
async fn ask(
    app: &AppState,
    name: String,
    mut asked: Vec<Asked>,
) -> Result<Vec<Vec<ScoredPoint>>, ApiError> {
    let limits = asked.iter().map(|asked| asked.limit);
    let (all, max) = (limits.sum::<usize>(), app.settings.limits.points_max);
    if all > max {
        let detail = format!("the questions ask for {all} points together, and the limit is {max}");
        return Err(ApiError::too_large(detail, "points_max"));
    }
    let texts = asked.iter().filter_map(|asked| match &asked.near {
        Wanted::Text(text) => Some(text.clone()),
        _ => None,
    });
    let texts: Vec<ModelText> = texts.collect();
    let (state, with_texts) = (app.clone(), !texts.is_empty());
    let open = work::blocking(app, move || {
        let collection = state.collection(&name)?;
        if with_texts {
            check_space(&collection)?;
        }
        Ok(collection)
    });
    let collection = open.await?;
    if let Some(embedded) = inference::embed(app, texts).await? {
        let mut vectors = embedded.vectors.chunks_exact(embedded.dim);
        for asked in &mut asked {
            if matches!(asked.near, Wanted::Text(_)) {
                let vector = vectors.next().unwrap_or_default();
                asked.near = Wanted::Vector(vector.to_vec());
            }
        }
    }
    work::blocking(app, move || {
        let answers = asked.into_iter().map(|asked| asked.over(&collection));
        answers.collect()
    })
    .await
}

/// Finds the points nearest to a vector, a point or a text
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/query",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), ReadParams),
    request_body = QueryPoints,
    responses((status = 200, description = "The nearest first", body = Answered<QueryAnswer>))
)]
async fn query(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<ReadParams>,
    JsonBody(request): JsonBody<QueryPoints>,
) -> Result<Json<Answered<QueryAnswer>>, ApiError> {
    let began = Instant::now();
    let asked = Asked::query(&app, request)?;
    let points = ask(&app, name, vec![asked]).await?.swap_remove(0);
    Ok(answer(began, QueryAnswer { points }))
}

/// Answers several questions
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/query/batch",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), ReadParams),
    request_body = QueryBatch,
    responses((status = 200, description = "An answer each", body = Answered<Vec<QueryAnswer>>))
)]
async fn query_batch(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<ReadParams>,
    JsonBody(request): JsonBody<QueryBatch>,
) -> Result<Json<Answered<Vec<QueryAnswer>>>, ApiError> {
    let began = Instant::now();
    let asked = request.searches.into_iter();
    let asked = asked.map(|request| Asked::query(&app, request));
    let answers = ask(&app, name, asked.collect::<Result<_, _>>()?).await?;
    let answers = answers.into_iter().map(|points| QueryAnswer { points });
    Ok(answer(began, answers.collect()))
}

/// Finds the points nearest to a vector, as older clients ask
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/search",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), ReadParams),
    request_body = SearchPoints,
    responses((status = 200, description = "The nearest first", body = Answered<Vec<ScoredPoint>>))
)]
async fn search(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<ReadParams>,
    JsonBody(request): JsonBody<SearchPoints>,
) -> Result<Json<Answered<Vec<ScoredPoint>>>, ApiError> {
    let began = Instant::now();
    let asked = Asked::search(&app, request)?;
    let points = ask(&app, name, vec![asked]).await?.swap_remove(0);
    Ok(answer(began, points))
}

/// Answers several questions, as older clients ask
#[utoipa::path(
    post,
    path = "/collections/{collection}/points/search/batch",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), ReadParams),
    request_body = SearchBatch,
    responses((status = 200, description = "A list each", body = Answered<Vec<Vec<ScoredPoint>>>))
)]
async fn search_batch(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<ReadParams>,
    JsonBody(request): JsonBody<SearchBatch>,
) -> Result<Json<Answered<Vec<Vec<ScoredPoint>>>>, ApiError> {
    let began = Instant::now();
    let asked = request.searches.into_iter();
    let asked = asked.map(|request| Asked::search(&app, request));
    let answers = ask(&app, name, asked.collect::<Result<_, _>>()?).await?;
    Ok(answer(began, answers))
}
