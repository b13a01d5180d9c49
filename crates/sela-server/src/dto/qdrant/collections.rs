//! Collections: how they are made and how they stand.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Unsupported;

/// Who answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Root {
    /// The server's name and version.
    pub(crate) title: String,
    /// The version of Qdrant whose clients this server is made for.
    pub(crate) version: &'static str,
}

/// The names of all collections.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectionNames {
    pub(crate) collections: Vec<CollectionName>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectionName {
    pub(crate) name: String,
}

/// Whether there is such a collection.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectionExists {
    pub(crate) exists: bool,
}

/// Other names of collections; there are none.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Aliases {
    #[schema(value_type = Vec<Object>)]
    pub(crate) aliases: [(); 0],
}

/// A collection to be made.
///
/// What says how Qdrant is to lay out and index its files is accepted and has no effect: searches
/// here are exact without any of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what has no effect is read to be known")]
pub(crate) struct CreateCollection {
    /// Size and distance, or an object of these under the name `""`.
    #[schema(value_type = VectorParams)]
    pub(crate) vectors: Option<Value>,
    /// An object of yours, which comes back with the collection. `sela_model` in it declares that
    /// all vectors are those of the server's model, which it names: then texts can be stored and
    /// asked for.
    #[schema(value_type = Option<Object>)]
    pub(crate) metadata: Option<Map<String, Value>>,
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    pub(crate) shard_number: Option<u64>,
    /// `auto`.
    #[schema(value_type = Option<String>, pattern = "^auto$")]
    pub(crate) sharding_method: Option<String>,
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    pub(crate) replication_factor: Option<u64>,
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    pub(crate) write_consistency_factor: Option<u64>,
    #[schema(value_type = Option<bool>)]
    on_disk_payload: Option<Value>,
    #[schema(value_type = Option<Object>)]
    payload: Option<Value>,
    #[schema(value_type = Option<Object>)]
    id_tracker: Option<Value>,
    #[schema(value_type = Option<Object>)]
    hnsw_config: Option<Value>,
    #[schema(value_type = Option<Object>)]
    wal_config: Option<Value>,
    #[schema(value_type = Option<Object>)]
    optimizers_config: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    quantization_config: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    sparse_vectors: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    strict_mode_config: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    init_from: Unsupported,
}

/// What vectors a collection is for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what has no effect is read to be known")]
pub(crate) struct VectorParams {
    /// Numbers in each.
    #[schema(minimum = 1, maximum = 65536)]
    pub(crate) size: u64,
    pub(crate) distance: Distance,
    /// `float32`, or `float16`, which halves the space and rounds.
    pub(crate) datatype: Option<Datatype>,
    #[schema(value_type = Option<bool>)]
    on_disk: Option<Value>,
    #[schema(value_type = Option<String>)]
    memory: Option<Value>,
    #[schema(value_type = Option<Object>)]
    hnsw_config: Option<Value>,
    #[serde(default)]
    #[schema(ignore)]
    quantization_config: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    multivector_config: Unsupported,
}

/// How nearness is measured.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) enum Distance {
    Cosine,
    Dot,
    Euclid,
}

/// How numbers are kept.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Datatype {
    Float32,
    Float16,
}

/// Other settings for a collection: all are accepted and have no effect.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what has no effect is read to be known")]
pub(crate) struct UpdateCollection {
    #[schema(value_type = Option<Object>)]
    optimizers_config: Option<Value>,
    #[schema(value_type = Option<Object>)]
    hnsw_config: Option<Value>,
    #[serde(default)]
    pub(crate) params: Option<CollectionParamsDiff>,
    #[serde(default)]
    #[schema(ignore)]
    vectors: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    quantization_config: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    sparse_vectors: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    strict_mode_config: Unsupported,
    #[serde(default)]
    #[schema(ignore)]
    metadata: Unsupported,
}

/// Where payloads are kept.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what has no effect is read to be known")]
pub(crate) struct CollectionParamsDiff {
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    pub(crate) replication_factor: Option<u64>,
    /// 1.
    #[schema(minimum = 1, maximum = 1)]
    pub(crate) write_consistency_factor: Option<u64>,
    #[schema(value_type = Option<bool>)]
    on_disk_payload: Option<Value>,
    #[schema(value_type = Option<Object>)]
    payload: Option<Value>,
    #[schema(value_type = Option<Object>)]
    id_tracker: Option<Value>,
    #[schema(value_type = Option<u64>)]
    read_fan_out_factor: Option<Value>,
    #[schema(value_type = Option<u64>)]
    read_fan_out_delay_ms: Option<Value>,
}

/// How a collection stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectionInfo {
    /// `green`, or `red` where writes are refused until the server starts again.
    #[schema(example = "green")]
    pub(crate) status: &'static str,
    #[schema(example = "ok")]
    pub(crate) optimizer_status: &'static str,
    /// None is in an approximate index: searches are exact.
    pub(crate) indexed_vectors_count: u64,
    pub(crate) points_count: u64,
    pub(crate) segments_count: u64,
    pub(crate) config: CollectionConfig,
    /// Empty: filters need no index, and none is kept.
    #[schema(value_type = Object)]
    pub(crate) payload_schema: Map<String, Value>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectionConfig {
    pub(crate) params: CollectionParams,
    pub(crate) hnsw_config: HnswConfig,
    pub(crate) optimizer_config: OptimizersConfig,
    /// What its creator gave, and in `sela_model` the model its vectors are of.
    #[schema(value_type = Option<Object>)]
    pub(crate) metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CollectionParams {
    pub(crate) vectors: VectorsTold,
    pub(crate) shard_number: u64,
    pub(crate) replication_factor: u64,
    pub(crate) write_consistency_factor: u64,
    pub(crate) on_disk_payload: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VectorsTold {
    pub(crate) size: u64,
    pub(crate) distance: Distance,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) datatype: Option<Datatype>,
}

/// There is no graph: `m` is 0, as where Qdrant has none.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct HnswConfig {
    pub(crate) m: u64,
    pub(crate) ef_construct: u64,
    pub(crate) full_scan_threshold: u64,
}

/// Nothing of this is done here as Qdrant does it: all is 0.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct OptimizersConfig {
    pub(crate) default_segment_number: u64,
    pub(crate) flush_interval_sec: u64,
}

/// An index on a field: accepted and not made, as filters need none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read to be known")]
pub(crate) struct CreateIndex {
    pub(crate) field_name: String,
    /// The kind of index, or an object that says more of it.
    #[schema(value_type = Option<Object>)]
    field_schema: Option<Value>,
}
