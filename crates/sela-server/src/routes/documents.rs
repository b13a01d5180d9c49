//! Texts in collections, stored, searched and deleted in one call each.

mod lines;

use std::time::Instant;

use crate::json::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use sela::{Collection, Fields, Filter, Hit, Id, Item, Query, Row, StoreError, TextQuery};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Role, at_least};
use crate::dto::documents::{
    DeleteDocuments, DeletedDocuments, Document, DocumentId, DocumentsPage, FoundDocument,
    FoundDocuments, GivenDocument, ListDocuments, SearchDocuments, SearchMode, StoreDocuments,
    StoredDocuments,
};
use crate::dto::error::Problem;
use crate::error::ApiError;
use crate::extract::{self, JsonBody, PathOf, QueryOf};
use crate::state::AppState;
use crate::work;

/// Documents of a page unless the caller says otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

pub(crate) fn router() -> OpenApiRouter<AppState> {
    let read = OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(search))
        .routes(routes!(get_one));
    let write = OpenApiRouter::default()
        .routes(routes!(store))
        .routes(routes!(delete))
        .routes(routes!(delete_one));
    at_least(Role::Read, read).merge(at_least(Role::Write, write))
}

/// Stores texts
///
/// Makes the collection if there is none. A JSON body is stored whole or not at all. Of NDJSON, a
/// document a line, what came before an error is stored; the error tells how much.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/documents",
    tag = "documents",
    params(("collection" = String, Path, description = "Its name")),
    request_body(content(
        (StoreDocuments = "application/json"),
        (String = "application/x-ndjson")
    )),
    responses(
        (status = 200, description = "They are stored", body = StoredDocuments),
        (status = 409, description = "The collection holds vectors of another origin", body = Problem),
        (status = 507, description = "The disk is full", body = Problem)
    )
)]
async fn store(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    request: Request,
) -> Result<Json<StoredDocuments>, ApiError> {
    app.ready()?;
    let kind = extract::content_type(request.headers());
    if kind.as_deref() == Some(lines::CONTENT_TYPE) {
        return Ok(Json(lines::store(&app, name, request).await?));
    }
    extract::check_json(request.headers())?;
    let limit = app.settings.limits.body_bytes_max.0;
    let body = extract::read(&app, request, limit, "body_bytes_max").await?;
    let request: StoreDocuments = extract::parse(body).await?;
    Ok(Json(keep(&app, name, request.documents).await?))
}

/// Embeds and stores documents, all or none.
async fn keep(
    app: &AppState,
    name: String,
    documents: Vec<Document>,
) -> Result<StoredDocuments, ApiError> {
    let mut ids = Vec::with_capacity(documents.len());
    let mut texts = Vec::with_capacity(documents.len());
    let mut payloads = Vec::with_capacity(documents.len());
    for (at, document) in documents.into_iter().enumerate() {
        let id = id_of(&document.id).map_err(|error| error.field(format!("documents[{at}].id")))?;
        ids.push(id);
        texts.push(document.text);
        payloads.push(document.payload);
    }
    if texts.is_empty() {
        return Ok(StoredDocuments::default());
    }
    // Refused before any text is embedded.
    let state = app.clone();
    let open = work::blocking(app, move || {
        Ok(state.collection_or_new(&name)?.declare_vectors()?)
    });
    let collection = open.await?;
    let embedded = work::embed(app, texts.clone()).await?;
    let truncated = embedded.info.iter().filter(|info| info.truncated).count() as u64;
    let write = work::blocking(app, move || {
        let vectors = embedded.vectors.chunks_exact(embedded.dim);
        let rows = ids.into_iter().zip(texts).zip(payloads).zip(vectors);
        let items = rows.map(|(((id, text), payload), vector)| Item {
            text: Some(text),
            payload,
            ..Item::vector(id, vector)
        });
        Ok(collection.upsert(&items.collect::<Vec<_>>())?)
    });
    let written = write.await?.written;
    Ok(StoredDocuments {
        stored: written.count,
        replaced: written.replaced,
        truncated,
    })
}

/// Finds the documents nearest to a text, or with its words
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/documents/search",
    tag = "documents",
    params(("collection" = String, Path, description = "Its name")),
    request_body = SearchDocuments,
    responses(
        (status = 200, description = "The best first", body = FoundDocuments),
        (status = 400, description = "The mode is none of those there are", body = Problem),
        (
            status = 409,
            description = "The collection holds vectors of another origin (`vector`, `hybrid`), \
                           or no texts (`text`, `hybrid`)",
            body = Problem
        ),
        (
            status = 422,
            description = "The query has too many words, or only such as keep texts out \
                           (`text`, `hybrid`)",
            body = Problem
        ),
        (
            status = 503,
            description = "The texts cannot be searched for words now (`text`, `hybrid`)",
            body = Problem
        )
    )
)]
async fn search(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    JsonBody(request): JsonBody<SearchDocuments>,
) -> Result<Json<FoundDocuments>, ApiError> {
    let began = Instant::now();
    work::check_k(&app, request.k)?;
    let mode = mode_of(&request)?;
    let filter = match &request.filter {
        None => None,
        Some(json) => Some(Filter::from_json(json).map_err(|error| {
            ApiError::malformed("filter_refused", error.to_string()).field("filter")
        })?),
    };
    let state = app.clone();
    let open = work::blocking(&app, move || {
        let collection = state.collection(&name)?;
        Ok(match mode {
            SearchMode::Text => collection,
            _ => collection.declare_vectors()?,
        })
    });
    let collection = open.await?;
    let (mut query, info) = match mode {
        SearchMode::Text => (Query::words(request.query), None),
        _ => {
            let embedded = work::embed_one(&app, request.query.clone()).await?;
            let info = embedded.info.first().copied();
            let query = Query::vector(embedded.vectors);
            match mode {
                SearchMode::Hybrid => (query.and_words(request.query), info),
                _ => (query, info),
            }
        }
    };
    query = query.k(request.k);
    query.filter = filter;
    query.with_vector = request.with_vector;
    let hits = work::blocking(&app, move || Ok(collection.query(&query)?));
    Ok(Json(FoundDocuments {
        hits: hits.await?.into_iter().map(found).collect(),
        time_ms: began.elapsed().as_secs_f64() * 1e3,
        tokens: info.map_or(0, |info| info.tokens),
        truncated: info.is_some_and(|info| info.truncated),
    }))
}

/// How to search. Words that cannot be looked for are refused before anything is embedded.
fn mode_of(request: &SearchDocuments) -> Result<SearchMode, ApiError> {
    let name = request.mode.as_deref().unwrap_or("vector");
    let Some(mode) = SearchMode::named(name) else {
        let shown: String = name.chars().take(40).collect();
        let detail = format!("the mode `{shown}` is not supported");
        return Err(ApiError::malformed("not_supported", detail)
            .hint("modes are `vector`, `text` and `hybrid`")
            .field("mode"));
    };
    if mode != SearchMode::Vector {
        TextQuery::parse(&request.query)
            .map_err(|error| ApiError::from(StoreError::from(error)).field("query"))?;
    }
    Ok(mode)
}

fn found(hit: Hit) -> FoundDocument {
    FoundDocument {
        document: GivenDocument {
            id: told(hit.id),
            text: hit.text,
            payload: hit.payload,
            vector: hit.vector,
        },
        score: hit.score,
        vector_score: hit.vector_score,
        vector_rank: hit.vector_rank,
        text_score: hit.text_score,
        text_rank: hit.text_rank,
    }
}

/// Documents in the order they were stored
///
/// A page of JSON, or with `accept: application/x-ndjson` all of them, one a line.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/documents",
    tag = "documents",
    params(("collection" = String, Path, description = "Its name"), ListDocuments),
    responses((
        status = 200,
        description = "Documents",
        content((DocumentsPage = "application/json"), (String = "application/x-ndjson"))
    ))
)]
async fn list(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(asked): QueryOf<ListDocuments>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let limit = asked.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        let detail = format!("limit is {limit}, and it may be 1 to {PAGE_MAX}");
        return Err(ApiError::invalid("limit", detail));
    }
    let state = app.clone();
    let collection = work::blocking(&app, move || state.collection(&name)).await?;
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    if accept.is_some_and(|accept| accept.contains(lines::CONTENT_TYPE)) {
        return Ok(lines::give(&app, collection, &asked));
    }
    let page = page(&app, collection, &asked, limit).await?;
    Ok(Json(page).into_response())
}

async fn page(
    app: &AppState,
    collection: Collection,
    asked: &ListDocuments,
    limit: usize,
) -> Result<DocumentsPage, ApiError> {
    let (after, fields) = (asked.after, fields(asked.with_vector));
    let page = work::blocking(app, move || {
        Ok(collection.scroll(after, limit, None, fields)?)
    });
    let page = page.await?;
    let rows = page.rows.into_iter();
    Ok(DocumentsPage {
        documents: rows.map(|(_, row)| given(row, fields.vector)).collect(),
        next: page.next,
    })
}

/// A document
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/documents/{id}",
    tag = "documents",
    params(
        ("collection" = String, Path, description = "Its name"),
        ("id" = String, Path, description = "The document's name")
    ),
    responses((status = 200, description = "The document with its vector", body = GivenDocument))
)]
async fn get_one(
    State(app): State<AppState>,
    PathOf((name, id)): PathOf<(String, String)>,
) -> Result<Json<GivenDocument>, ApiError> {
    let id = id_typed(&id)?;
    let state = app.clone();
    let found = work::blocking(&app, move || {
        let collection = state.collection(&name)?;
        let row = collection
            .get(std::slice::from_ref(&id), Fields::ALL)?
            .pop()
            .flatten();
        row.ok_or_else(|| no_document(&name, &id))
    });
    Ok(Json(given(found.await?, true)))
}

/// Deletes documents; those that are not there are passed over
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/documents/delete",
    tag = "documents",
    params(("collection" = String, Path, description = "Its name")),
    request_body = DeleteDocuments,
    responses(
        (status = 200, description = "They are gone", body = DeletedDocuments),
        (status = 507, description = "The disk is full", body = Problem)
    )
)]
async fn delete(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    JsonBody(request): JsonBody<DeleteDocuments>,
) -> Result<Json<DeletedDocuments>, ApiError> {
    let ids = request
        .ids
        .iter()
        .enumerate()
        .map(|(at, id)| id_of(id).map_err(|error| error.field(format!("ids[{at}]"))));
    let ids = ids.collect::<Result<Vec<Id>, _>>()?;
    let deleted = remove(&app, name, ids).await?;
    Ok(Json(DeletedDocuments { deleted }))
}

/// Deletes a document
#[utoipa::path(
    delete,
    path = "/v1/collections/{collection}/documents/{id}",
    tag = "documents",
    params(
        ("collection" = String, Path, description = "Its name"),
        ("id" = String, Path, description = "The document's name")
    ),
    responses(
        (status = 200, description = "It is gone", body = DeletedDocuments),
        (status = 507, description = "The disk is full", body = Problem)
    )
)]
async fn delete_one(
    State(app): State<AppState>,
    PathOf((name, id)): PathOf<(String, String)>,
) -> Result<Json<DeletedDocuments>, ApiError> {
    let id = id_typed(&id)?;
    match remove(&app, name.clone(), vec![id.clone()]).await? {
        0 => Err(no_document(&name, &id)),
        deleted => Ok(Json(DeletedDocuments { deleted })),
    }
}

async fn remove(app: &AppState, name: String, ids: Vec<Id>) -> Result<u64, ApiError> {
    let state = app.clone();
    let removed = work::blocking(app, move || Ok(state.collection(&name)?.delete(&ids)?));
    Ok(removed.await?.replaced)
}

fn no_document(name: &str, id: &Id) -> ApiError {
    let detail = format!("the collection `{name}` has no document `{id}`");
    ApiError::not_found("no_document", detail)
}

fn fields(with_vector: bool) -> Fields {
    Fields {
        vector: with_vector,
        ..Fields::ALL
    }
}

fn given(row: Row, with_vector: bool) -> GivenDocument {
    GivenDocument {
        id: told(row.id),
        text: row.text,
        payload: row.payload,
        vector: with_vector.then_some(row.vector),
    }
}

fn told(id: Id) -> DocumentId {
    match id {
        Id::Num(number) => DocumentId::Number(number),
        other => DocumentId::Text(other.to_string()),
    }
}

fn id_of(id: &Value) -> Result<Id, ApiError> {
    let id = Id::from_json(id);
    id.map_err(|error| ApiError::invalid("id", error.to_string()))
}

/// An id in an address: digits are a number.
fn id_typed(id: &str) -> Result<Id, ApiError> {
    let id = id.parse::<Id>();
    id.map_err(|error| ApiError::invalid("id", error.to_string()))
}
