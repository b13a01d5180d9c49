//! Questions for the nearest points, and their answers.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Unsupported;
use super::filter::Filter;
use crate::dto::documents::DocumentId;

/// What to look for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct QueryPoints {
    /// A vector, the id of a point, or a text with the model that is to read it, each also as
    /// `{"nearest": ..}`. Without it: points by ascending id.
    #[schema(value_type = Option<Object>, example = json!({"nearest": [0.1, 0.2]}))]
    pub(crate) query: Option<Value>,
    /// `""`.
    #[schema(max_length = 0)]
    pub(crate) using: Option<String>,
    #[schema(value_type = Option<Filter>)]
    pub(crate) filter: Option<Value>,
    /// Without effect: searches are exact.
    pub(crate) params: Option<SearchParams>,
    /// The score that points must have: at least this, and for Euclid at most.
    #[schema(value_type = Option<f32>)]
    pub(crate) score_threshold: Option<f64>,
    /// How many points. Default: 10.
    #[schema(minimum = 1)]
    pub(crate) limit: Option<usize>,
    /// How many of the nearest to pass over.
    #[schema(minimum = 0)]
    pub(crate) offset: Option<usize>,
    /// As for points by id. Default: false.
    #[schema(value_type = Option<bool>)]
    pub(crate) with_payload: Option<Value>,
    /// Default: false.
    #[schema(value_type = Option<bool>)]
    pub(crate) with_vector: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    prefetch: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    lookup_from: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// How Qdrant is to search its index.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what has no effect is read to be known")]
pub(crate) struct SearchParams {
    #[schema(value_type = Option<u64>)]
    hnsw_ef: Option<Value>,
    #[schema(value_type = Option<bool>)]
    exact: Option<Value>,
    #[schema(value_type = Option<bool>)]
    indexed_only: Option<Value>,
    #[schema(value_type = Option<Object>)]
    quantization: Option<Value>,
    #[schema(value_type = Option<Object>)]
    acorn: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    idf: Unsupported,
}

/// Several questions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryBatch {
    pub(crate) searches: Vec<QueryPoints>,
}

/// What to look for, as older clients ask.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct SearchPoints {
    /// A vector, also as `{"name": "", "vector": [..]}`.
    #[schema(value_type = Vec<f32>)]
    pub(crate) vector: Value,
    #[schema(value_type = Option<Filter>)]
    pub(crate) filter: Option<Value>,
    /// Without effect: searches are exact.
    pub(crate) params: Option<SearchParams>,
    /// How many points. Default: 10.
    #[schema(minimum = 1)]
    pub(crate) limit: Option<usize>,
    /// How many of the nearest to pass over.
    #[schema(minimum = 0)]
    pub(crate) offset: Option<usize>,
    /// As for points by id. Default: false.
    #[schema(value_type = Option<bool>)]
    pub(crate) with_payload: Option<Value>,
    /// Default: false.
    #[schema(value_type = Option<bool>)]
    pub(crate) with_vector: Option<Value>,
    /// The score that points must have: at least this, and for Euclid at most.
    #[schema(value_type = Option<f32>)]
    pub(crate) score_threshold: Option<f64>,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// Several questions, as older clients ask.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchBatch {
    pub(crate) searches: Vec<SearchPoints>,
}

/// A point near to the query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScoredPoint {
    pub(crate) id: DocumentId,
    /// 0: versions of points are not told.
    pub(crate) version: u64,
    /// Nearness as the collection measures it; 0 without a query.
    pub(crate) score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) payload: Option<Map<String, Value>>,
    /// In collections of the distance Cosine it has length 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vector: Option<Vec<f32>>,
}

/// Points near to a query, the nearest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueryAnswer {
    pub(crate) points: Vec<ScoredPoint>,
}
