//! Collections: listed, made, looked at and deleted.

use std::time::Instant;

use crate::json::Json;
use axum::extract::State;
use sela::{CollectionOptions, Metric, Vectors};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::inference::{MODEL_KEY, check_model};
use super::{answer, info, unsupported};
use crate::dto::qdrant::collections::{
    Aliases, CollectionExists, CollectionInfo, CollectionName, CollectionNames, CreateCollection,
    CreateIndex, Datatype, Distance, Root, UpdateCollection, VectorParams,
};
use crate::dto::qdrant::{Answered, UpdateResult, WriteParams};
use crate::error::ApiError;
use crate::extract::{JsonBody, PathOf, QueryOf};
use crate::state::AppState;
use crate::work;

/// The version of Qdrant whose clients this is made for and tried with: they warn when it is far
/// from their own.
const VERSION: &str = "1.20.0";

/// Most numbers of a vector.
const SIZE_MAX: u64 = 65_536;

pub(super) fn reading() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(root))
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(exists))
        .routes(routes!(aliases_of))
        .routes(routes!(aliases))
}

pub(super) fn writing() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(create, update, delete))
        .routes(routes!(create_index))
        .routes(routes!(delete_index))
}

/// Who answers
#[utoipa::path(
    get,
    path = "/",
    tag = "qdrant",
    responses((status = 200, description = "Its name and version", body = Root))
)]
async fn root() -> Json<Root> {
    Json(Root {
        title: format!("Sela {}", env!("CARGO_PKG_VERSION")),
        version: VERSION,
    })
}

/// All collections
#[utoipa::path(
    get,
    path = "/collections",
    tag = "qdrant",
    responses((status = 200, description = "Their names", body = Answered<CollectionNames>))
)]
async fn list(State(app): State<AppState>) -> Result<Json<Answered<CollectionNames>>, ApiError> {
    let began = Instant::now();
    let state = app.clone();
    let names = work::blocking(&app, move || Ok(state.engine.collections()?)).await?;
    let collections = names.into_iter().map(|name| CollectionName { name });
    let collections = collections.collect();
    Ok(answer(began, CollectionNames { collections }))
}

/// Creates a collection
///
/// One unnamed vector a point. `metadata: {"sela_model": NAME}` declares that its vectors are
/// those of the server's model; then it takes texts too, and so do the routes of documents.
#[utoipa::path(
    put,
    path = "/collections/{collection}",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = CreateCollection,
    responses((status = 200, description = "It is there", body = Answered<bool>))
)]
async fn create(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<CreateCollection>,
) -> Result<Json<Answered<bool>>, ApiError> {
    let began = Instant::now();
    let options = options(&app, request)?;
    let state = app.clone();
    work::blocking(&app, move || state.create(&name, &options)).await?;
    Ok(answer(began, true))
}

fn options(app: &AppState, request: CreateCollection) -> Result<CollectionOptions, ApiError> {
    one("shard_number", "sharding", request.shard_number)?;
    one(
        "replication_factor",
        "replication",
        request.replication_factor,
    )?;
    one(
        "write_consistency_factor",
        "replication",
        request.write_consistency_factor,
    )?;
    if request.sharding_method.is_some_and(|how| how != "auto") {
        return Err(
            unsupported("sharding of one's own: `sharding_method`").field("sharding_method")
        );
    }
    let vectors = vectors(request.vectors)?;
    let metric = match vectors.distance {
        Distance::Cosine => Metric::Cosine,
        Distance::Dot => Metric::Dot,
        Distance::Euclid => Metric::L2,
    };
    let metadata = request.metadata.unwrap_or_default();
    let declared = match metadata.get(MODEL_KEY) {
        None => false,
        Some(Value::String(model)) => {
            check_model(app, model)?;
            let dim = app.model()?.dim as u64;
            if dim != vectors.size {
                let size = vectors.size;
                let detail =
                    format!("the model `{model}` makes vectors of {dim} numbers, not {size}");
                return Err(ApiError::malformed("dimension_mismatch", detail).field("vectors.size"));
            }
            true
        }
        Some(_) => {
            let detail = format!("`{MODEL_KEY}` is the name of the server's model, a string");
            return Err(ApiError::malformed("invalid_field", detail).field("metadata"));
        }
    };
    Ok(CollectionOptions {
        vectors: match declared {
            true => Vectors::Model,
            false => Vectors::External {
                dim: vectors.size as usize,
            },
        },
        metric,
        record: match vectors.datatype {
            Some(Datatype::Float16) => sela::Record::F16,
            _ => sela::Record::F32,
        },
        notes: json!({"declared": declared, "metadata": metadata}),
    })
}

/// Refuses to do more than once what is done once here.
fn one(field: &'static str, feature: &str, number: Option<u64>) -> Result<(), ApiError> {
    match number {
        None | Some(1) => Ok(()),
        Some(other) => Err(unsupported(&format!("{feature}: `{field}` is {other}")).field(field)),
    }
}

/// The one vector of each point, unnamed or named `""`.
fn vectors(json: Option<Value>) -> Result<VectorParams, ApiError> {
    let wanted = || {
        let detail = "`vectors` is an object of a size and a distance";
        ApiError::malformed("invalid_field", detail).field("vectors")
    };
    let Some(Value::Object(mut fields)) = json else {
        return Err(wanted());
    };
    let params = if fields.contains_key("size") || fields.contains_key("distance") {
        Value::Object(fields)
    } else if let Some(name) = fields.keys().find(|name| !name.is_empty()) {
        let name: String = name.chars().take(100).collect();
        return Err(unsupported(&format!("named vectors: `{name}`"))
            .field("vectors")
            .hint("leave the name away: a point has one vector"));
    } else {
        fields.remove("").ok_or_else(wanted)?
    };
    let params: VectorParams = serde_path_to_error::deserialize(params).map_err(|error| {
        let (field, error) = (format!("vectors.{}", error.path()), error.inner());
        ApiError::malformed("invalid_field", format!("`{field}`: {error}")).field(field)
    })?;
    match (1..=SIZE_MAX).contains(&params.size) {
        true => Ok(params),
        false => Err(ApiError::invalid(
            "vectors.size",
            format!("size is {}, and it may be 1 to {SIZE_MAX}", params.size),
        )),
    }
}

/// How a collection stands
#[utoipa::path(
    get,
    path = "/collections/{collection}",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name")),
    responses((status = 200, description = "It", body = Answered<CollectionInfo>))
)]
async fn get(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Answered<CollectionInfo>>, ApiError> {
    let began = Instant::now();
    let state = app.clone();
    let told = work::blocking(&app, move || info::of(&state.collection(&name)?));
    Ok(answer(began, told.await?))
}

/// Whether there is such a collection
#[utoipa::path(
    get,
    path = "/collections/{collection}/exists",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name")),
    responses((status = 200, description = "Whether", body = Answered<CollectionExists>))
)]
async fn exists(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Answered<CollectionExists>>, ApiError> {
    let began = Instant::now();
    let state = app.clone();
    let names = work::blocking(&app, move || Ok(state.engine.collections()?)).await?;
    let exists = names.contains(&name);
    Ok(answer(began, CollectionExists { exists }))
}

/// Changes settings of a collection, of which none has an effect here
#[utoipa::path(
    patch,
    path = "/collections/{collection}",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = UpdateCollection,
    responses((status = 200, description = "They are accepted", body = Answered<bool>))
)]
async fn update(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<UpdateCollection>,
) -> Result<Json<Answered<bool>>, ApiError> {
    let began = Instant::now();
    if let Some(params) = request.params {
        one(
            "replication_factor",
            "replication",
            params.replication_factor,
        )?;
        one(
            "write_consistency_factor",
            "replication",
            params.write_consistency_factor,
        )?;
    }
    there(&app, name).await?;
    Ok(answer(began, true))
}

/// Deletes a collection with everything in it but its snapshots
#[utoipa::path(
    delete,
    path = "/collections/{collection}",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    responses((status = 200, description = "Whether there was one", body = Answered<bool>))
)]
async fn delete(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
) -> Result<Json<Answered<bool>>, ApiError> {
    let began = Instant::now();
    let state = app.clone();
    match work::blocking(&app, move || state.delete(&name)).await {
        Ok(()) => Ok(answer(began, true)),
        Err(error) if error.code == "no_collection" => Ok(answer(began, false)),
        Err(error) => Err(error),
    }
}

/// Accepts an index on a field and makes none
///
/// Filters look at the payloads themselves: they need no index and give the same answers without.
#[utoipa::path(
    put,
    path = "/collections/{collection}/index",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    request_body = CreateIndex,
    responses((status = 200, description = "It is not needed", body = Answered<UpdateResult>))
)]
async fn create_index(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
    JsonBody(request): JsonBody<CreateIndex>,
) -> Result<Json<Answered<UpdateResult>>, ApiError> {
    check_field(&request.field_name)?;
    no_index(&app, name).await
}

/// Accepts that an index on a field goes
#[utoipa::path(
    delete,
    path = "/collections/{collection}/index/{field}",
    tag = "qdrant",
    params(
        ("collection" = String, Path, description = "Its name"),
        ("field" = String, Path, description = "The field's path"),
        WriteParams
    ),
    responses((status = 200, description = "There is none", body = Answered<UpdateResult>))
)]
async fn delete_index(
    State(app): State<AppState>,
    PathOf((name, field)): PathOf<(String, String)>,
    QueryOf(_): QueryOf<WriteParams>,
) -> Result<Json<Answered<UpdateResult>>, ApiError> {
    check_field(&field)?;
    no_index(&app, name).await
}

async fn no_index(app: &AppState, name: String) -> Result<Json<Answered<UpdateResult>>, ApiError> {
    let began = Instant::now();
    there(app, name).await?;
    Ok(answer(
        began,
        UpdateResult {
            operation_id: 0,
            status: "completed",
        },
    ))
}

fn check_field(field: &str) -> Result<(), ApiError> {
    let path = field.parse::<sela::FieldPath>();
    path.map(|_| ())
        .map_err(|error| ApiError::malformed("field_refused", error.to_string()))
}

/// Other names of a collection, of which there are none
#[utoipa::path(
    get,
    path = "/collections/{collection}/aliases",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name")),
    responses((status = 200, description = "None", body = Answered<Aliases>))
)]
async fn aliases_of(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Answered<Aliases>>, ApiError> {
    let began = Instant::now();
    there(&app, name).await?;
    Ok(answer(began, Aliases::default()))
}

/// Other names of collections, of which there are none
#[utoipa::path(
    get,
    path = "/aliases",
    tag = "qdrant",
    responses((status = 200, description = "None", body = Answered<Aliases>))
)]
async fn aliases() -> Json<Answered<Aliases>> {
    answer(Instant::now(), Aliases::default())
}

/// Refuses to speak of a collection that is not there.
async fn there(app: &AppState, name: String) -> Result<(), ApiError> {
    let state = app.clone();
    work::blocking(app, move || state.collection(&name).map(|_| ())).await
}
