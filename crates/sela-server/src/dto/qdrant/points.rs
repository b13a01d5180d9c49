//! Points: what is stored, changed and given back.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Unsupported;
use super::filter::Filter;
use super::vectors::{AnyVector, BatchVectors, PointVector};
use crate::dto::documents::DocumentId;

/// Points to be stored: a list, or their parts in lists of equal length.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct UpsertPoints {
    pub(crate) points: Option<Vec<PointStruct>>,
    pub(crate) batch: Option<PointsBatch>,
    /// `upsert`.
    #[schema(pattern = "^upsert$")]
    pub(crate) update_mode: Option<String>,
    #[serde(default)]
    #[schema(ignore)]
    update_filter: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// A point.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PointStruct {
    /// A whole number from 0, a UUID, or any other string. A point of the same id is replaced.
    #[schema(value_type = DocumentId)]
    pub(crate) id: Value,
    #[schema(value_type = AnyVector)]
    pub(crate) vector: PointVector,
    #[schema(value_type = Option<Object>)]
    pub(crate) payload: Option<Map<String, Value>>,
}

/// The parts of points.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PointsBatch {
    #[schema(value_type = Vec<DocumentId>)]
    pub(crate) ids: Vec<Value>,
    #[schema(value_type = Vec<AnyVector>)]
    pub(crate) vectors: BatchVectors,
    #[schema(value_type = Option<Vec<Object>>)]
    pub(crate) payloads: Option<Vec<Option<Map<String, Value>>>>,
}

/// Points by ids or by a filter, one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct PointsSelector {
    #[schema(value_type = Option<Vec<DocumentId>>)]
    pub(crate) points: Option<Vec<Value>>,
    #[schema(value_type = Option<Filter>)]
    pub(crate) filter: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// Fields of a payload for points by ids or by a filter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct SetPayload {
    #[schema(value_type = Object)]
    pub(crate) payload: Map<String, Value>,
    #[schema(value_type = Option<Vec<DocumentId>>)]
    pub(crate) points: Option<Vec<Value>>,
    #[schema(value_type = Option<Filter>)]
    pub(crate) filter: Option<Value>,
    /// The path of the object whose fields are set; else the payload itself.
    pub(crate) key: Option<String>,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// Fields to be removed from payloads of points by ids or by a filter.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct DeletePayload {
    /// Paths of fields.
    pub(crate) keys: Vec<String>,
    #[schema(value_type = Option<Vec<DocumentId>>)]
    pub(crate) points: Option<Vec<Value>>,
    #[schema(value_type = Option<Filter>)]
    pub(crate) filter: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// Other vectors for points.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct UpdateVectors {
    pub(crate) points: Vec<PointVectors>,
    #[serde(default)]
    #[schema(ignore)]
    update_filter: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// Another vector for a point.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PointVectors {
    #[schema(value_type = DocumentId)]
    pub(crate) id: Value,
    /// A list of numbers: who has another text for a point stores the point anew.
    #[schema(value_type = Vec<f32>)]
    pub(crate) vector: PointVector,
}

/// Changes that are made one after another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateOperations {
    pub(crate) operations: Vec<UpdateOperation>,
}

/// A change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UpdateOperation {
    Upsert(UpsertPoints),
    Delete(PointsSelector),
    SetPayload(SetPayload),
    OverwritePayload(SetPayload),
    DeletePayload(DeletePayload),
    ClearPayload(PointsSelector),
    UpdateVectors(UpdateVectors),
    /// Answered with 400: a point without a vector cannot be.
    DeleteVectors(#[expect(dead_code, reason = "it is refused whatever it says")] DeleteVectors),
}

/// Vectors to be taken away from points.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "it is refused whatever it says")]
pub(crate) struct DeleteVectors {
    /// Their names.
    vector: Vec<String>,
}

/// Which points to give.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct RetrievePoints {
    #[schema(value_type = Vec<DocumentId>)]
    pub(crate) ids: Vec<Value>,
    /// Whether points carry their payload: a boolean, a list of fields, or an object of fields to
    /// `include` or to `exclude`. Default: true.
    #[schema(value_type = Option<bool>)]
    pub(crate) with_payload: Option<Value>,
    /// Whether points carry their vector. Default: false.
    #[schema(value_type = Option<bool>)]
    pub(crate) with_vector: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// A page of points by ascending id.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct ScrollPoints {
    /// The id to begin with: `next_page_offset` of the page before.
    #[schema(value_type = Option<DocumentId>)]
    pub(crate) offset: Option<Value>,
    /// How many points. Default: 10.
    #[schema(minimum = 1)]
    pub(crate) limit: Option<usize>,
    #[schema(value_type = Option<Filter>)]
    pub(crate) filter: Option<Value>,
    /// As for points by id. Default: true.
    #[schema(value_type = Option<bool>)]
    pub(crate) with_payload: Option<Value>,
    /// Default: false.
    #[schema(value_type = Option<bool>)]
    pub(crate) with_vector: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    order_by: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// Which points to count.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is not supported is read to be refused")]
pub(crate) struct CountPoints {
    #[schema(value_type = Option<Filter>)]
    pub(crate) filter: Option<Value>,
    /// Without effect: counts are always exact.
    exact: Option<bool>,
    #[serde(default)]
    #[schema(ignore)]
    shard_key: Unsupported,
}

/// How many there are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Counted {
    pub(crate) count: u64,
}

/// A point as it is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Record {
    pub(crate) id: DocumentId,
    #[schema(value_type = Option<Object>)]
    pub(crate) payload: Option<Map<String, Value>>,
    /// In collections of the distance Cosine it has length 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vector: Option<Vec<f32>>,
}

/// A page of points.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Scrolled {
    pub(crate) points: Vec<Record>,
    /// Where the next page begins; nothing at the end.
    pub(crate) next_page_offset: Option<DocumentId>,
}
