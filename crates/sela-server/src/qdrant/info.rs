//! A collection as Qdrant's clients see it.

use sela::{Collection, Metric, Record};
use serde_json::{Map, Value};

use super::inference::MODEL_KEY;
use crate::dto::qdrant::collections::{
    CollectionConfig, CollectionInfo, CollectionParams, Datatype, Distance, HnswConfig,
    OptimizersConfig, VectorsTold,
};
use crate::error::ApiError;

/// How it stands. Blocks.
pub(super) fn of(collection: &Collection) -> Result<CollectionInfo, ApiError> {
    let info = collection.info()?;
    let schema = collection.schema();
    let (distance, datatype) = (
        match collection.metric() {
            Metric::Cosine => Distance::Cosine,
            Metric::Dot => Distance::Dot,
            Metric::L2 => Distance::Euclid,
        },
        (schema.record == Record::F16).then_some(Datatype::Float16),
    );
    Ok(CollectionInfo {
        status: match info.poisoned {
            None => "green",
            Some(_) => "red",
        },
        optimizer_status: "ok",
        indexed_vectors_count: 0,
        points_count: info.rows_live,
        segments_count: info.segments,
        config: CollectionConfig {
            params: CollectionParams {
                vectors: VectorsTold {
                    size: u64::from(schema.dim),
                    distance,
                    datatype,
                },
                shard_number: 1,
                replication_factor: 1,
                write_consistency_factor: 1,
                on_disk_payload: true,
            },
            hnsw_config: HnswConfig::default(),
            optimizer_config: OptimizersConfig::default(),
            metadata: metadata(collection),
        },
        payload_schema: Map::new(),
    })
}

/// What the creator gave, and the model the vectors are of.
fn metadata(collection: &Collection) -> Option<Map<String, Value>> {
    let given = collection.notes().get("metadata");
    let mut metadata = given.and_then(Value::as_object).cloned();
    if let Some(model) = collection.schema().provenance.pointer("/made/model") {
        let metadata = metadata.get_or_insert_default();
        metadata.insert(MODEL_KEY.to_owned(), model.clone());
    }
    metadata.filter(|metadata| !metadata.is_empty())
}

/// Whether its creator said that the vectors given for it are the model's.
pub(super) fn is_declared(collection: &Collection) -> bool {
    collection.notes().get("declared") == Some(&Value::Bool(true))
}
