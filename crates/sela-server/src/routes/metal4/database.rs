//! Vectors to search: loaded into memory, or stored for good.

use std::sync::PoisonError;
use std::time::Instant;

use crate::json::Json;
use axum::extract::{Request, State};
use sela::{Database, Fields, Id, Item, Query};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ms;
use crate::auth::{Role, at_least};
use crate::dto::error::Problem;
use crate::dto::metal4::{
    LoadDatabaseRequest, LoadDatabaseResponse, RetrieveResponse, SearchRequest, SearchResponse,
    StoreRequest, StoreResponse,
};
use crate::error::ApiError;
use crate::extract::{self, JsonBody, PathOf};
use crate::npy;
use crate::state::{AppState, STORED};
use crate::work;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    let read = OpenApiRouter::default()
        .routes(routes!(search))
        .routes(routes!(retrieve_embedding));
    let write = OpenApiRouter::default()
        .routes(routes!(load_database))
        .routes(routes!(store_embedding));
    at_least(Role::Read, read).merge(at_least(Role::Write, write))
}

impl AppState {
    /// The database that is searched now, if one is loaded.
    pub(crate) fn database(&self) -> Option<Database> {
        self.database
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Loads vectors to search, in place of those loaded before
///
/// Searches under way still see the old ones whole. Nothing of this is kept on disk.
#[utoipa::path(
    post,
    path = "/api/v1/metal4/load_database",
    tag = "metal4",
    request_body(content(
        (LoadDatabaseRequest = "application/json"),
        (Vec<u8> = "application/x-npy")
    )),
    responses((status = 200, description = "What was loaded", body = LoadDatabaseResponse))
)]
async fn load_database(
    State(app): State<AppState>,
    request: Request,
) -> Result<Json<LoadDatabaseResponse>, ApiError> {
    let kind = extract::content_type(request.headers());
    let is_npy = kind.as_deref() == Some(npy::CONTENT_TYPE);
    if !is_npy {
        extract::check_json(request.headers())?;
    }
    let limit = app.settings.limits.database_bytes_max.0;
    let body = extract::read(&app, request, limit, "database_bytes_max").await?;
    let made = work::blocking(&app, move || {
        let rows = match is_npy {
            true => npy::read(&body.bytes)?,
            false => extract::parse_json::<LoadDatabaseRequest>(&body.bytes)?.embeddings,
        };
        if rows.len() == 0 {
            return Err(ApiError::invalid("embeddings", "there are no rows"));
        }
        Ok(Database::new(&rows.numbers, rows.dim)?)
    });
    let made = made.await?;
    let (rows, dim) = (made.len(), made.dim());
    *app.database.write().unwrap_or_else(PoisonError::into_inner) = Some(made);
    Ok(Json(LoadDatabaseResponse {
        message: format!("{rows} vectors of {dim} numbers are loaded"),
        num_vectors: rows,
        embed_dim: dim,
        backend: app.backends().search.clone(),
    }))
}

/// Finds the vectors nearest to a text
///
/// Among the loaded database, or among the stored embeddings when none is loaded.
#[utoipa::path(
    post,
    path = "/api/v1/metal4/search",
    tag = "metal4",
    request_body = SearchRequest,
    responses(
        (status = 200, description = "The nearest, the nearest first", body = SearchResponse),
        (status = 409, description = "Nothing is loaded or stored, or it is of another length", body = Problem)
    )
)]
async fn search(
    State(app): State<AppState>,
    JsonBody(request): JsonBody<SearchRequest>,
) -> Result<Json<SearchResponse>, ApiError> {
    let began = Instant::now();
    let (k, metric) = (request.k, sela::Metric::from(request.metric));
    work::check_k(&app, k)?;
    if let Some(database) = app.database() {
        let dim = app.model()?.dim;
        if database.dim() != dim {
            let found = database.dim();
            let detail =
                format!("the loaded vectors have {found} numbers, and those of the model {dim}");
            return Err(ApiError::conflict("dimension_mismatch", detail));
        }
        let embedded = work::embed_one(&app, request.query).await?;
        let engine = app.engine.clone();
        let found = work::blocking(&app, move || {
            Ok(engine.search_database(&database, &embedded.vectors, k, metric)?)
        });
        let found = found
            .await?
            .into_iter()
            .map(|found| (u64::from(found.row), found.score));
        return Ok(Json(answer(&app, found.collect(), began)));
    }
    let stored = app.clone();
    let stored = work::blocking(&app, move || {
        let stored = stored.stored()?;
        // A collection that holds nothing is as good as none.
        let rows = stored.as_ref().map(|s| s.count(None)).transpose()?;
        Ok(stored.filter(|_| rows.is_some_and(|rows| rows > 0)))
    });
    let Some(stored) = stored.await? else {
        return Err(ApiError::conflict(
            "nothing_to_search",
            "no database is loaded, and no embeddings are stored",
        )
        .hint("load one with /load_database, or store texts with /store_embedding"));
    };
    let embedded = work::embed_one(&app, request.query).await?;
    let hits = work::blocking(&app, move || {
        let mut query = Query::vector(embedded.vectors).k(k).metric(metric);
        query.with_document = false;
        Ok(stored.declare_vectors()?.query(&query)?)
    });
    let found = hits.await?.into_iter().map(|hit| match hit.id {
        Id::Num(id) => Ok((id, hit.score)),
        // Another route has stored it. To leave it out would answer with fewer than there are.
        other => Err(other_name(&other)),
    });
    let found = found.collect::<Result<_, _>>()?;
    Ok(Json(answer(&app, found, began)))
}

fn other_name(id: &Id) -> ApiError {
    let detail = format!("among the nearest is a row called `{id}`, which is no vector_id");
    ApiError::conflict("not_a_vector_id", detail).hint(format!(
        "another route has stored it in the collection `{STORED}`; delete it there"
    ))
}

fn answer(app: &AppState, found: Vec<(u64, f32)>, began: Instant) -> SearchResponse {
    let (indices, scores): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    SearchResponse {
        count: indices.len(),
        indices,
        scores,
        backend: app.backends().search.clone(),
        time_ms: ms(began),
    }
}

/// Embeds a text and keeps its vector
///
/// It is on stable storage when this answers. A vector of the same id is replaced.
#[utoipa::path(
    post,
    path = "/api/v1/metal4/store_embedding",
    tag = "metal4",
    request_body = StoreRequest,
    responses(
        (status = 200, description = "It is stored", body = StoreResponse),
        (status = 409, description = "Vectors of another model are stored", body = Problem),
        (status = 507, description = "The disk is full", body = Problem)
    )
)]
async fn store_embedding(
    State(app): State<AppState>,
    JsonBody(request): JsonBody<StoreRequest>,
) -> Result<Json<StoreResponse>, ApiError> {
    let StoreRequest { vector_id, text } = request;
    let embedded = work::embed_one(&app, text.clone()).await?;
    let info = embedded.info.first().copied();
    let state = app.clone();
    let write = work::blocking(&app, move || {
        let stored = state.collection_or_new(STORED)?.declare_vectors()?;
        let item = Item {
            text: Some(text),
            ..Item::vector(vector_id, embedded.vectors)
        };
        Ok(stored.upsert(&[item])?)
    });
    write.await?;
    Ok(Json(StoreResponse {
        message: format!("embedding {vector_id} is stored"),
        vector_id,
        tokens: info.map_or(0, |info| info.tokens),
        truncated: info.is_some_and(|info| info.truncated),
    }))
}

/// A stored vector
#[utoipa::path(
    get,
    path = "/api/v1/metal4/retrieve_embedding/{id}",
    tag = "metal4",
    params(("id" = u64, Path, description = "Its id")),
    responses((status = 200, description = "The vector", body = RetrieveResponse))
)]
async fn retrieve_embedding(
    State(app): State<AppState>,
    PathOf(id): PathOf<String>,
) -> Result<Json<RetrieveResponse>, ApiError> {
    app.ready()?;
    let Ok(vector_id) = id.parse::<u64>() else {
        let shown: String = id.chars().take(40).collect();
        return Err(ApiError::malformed(
            "malformed_path",
            format!("`{shown}` is no id: ids are whole numbers from 0"),
        ));
    };
    let state = app.clone();
    let found = work::blocking(&app, move || {
        let Some(stored) = state.stored()? else {
            return Ok(None);
        };
        let fields = Fields {
            vector: true,
            payload: false,
            text: false,
        };
        Ok(stored.get(&[Id::Num(vector_id)], fields)?.pop().flatten())
    });
    let Some(row) = found.await? else {
        let detail = format!("no embedding {vector_id} is stored");
        return Err(ApiError::not_found("no_embedding", detail));
    };
    Ok(Json(RetrieveResponse {
        vector_id,
        dimension: row.vector.len(),
        embedding: row.vector,
    }))
}
