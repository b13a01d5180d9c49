//! As Qdrant's clients ask and read: collections, points, filters, snapshots.

pub(crate) mod collections;
pub(crate) mod filter;
pub(crate) mod points;
pub(crate) mod queries;
pub(crate) mod vectors;

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// What every answer is wrapped in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answered<T> {
    pub(crate) result: T,
    #[schema(example = "ok")]
    pub(crate) status: &'static str,
    /// Seconds the request took.
    pub(crate) time: f64,
}

/// A field of a feature that is not there: it may be left away, null or empty, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unsupported;

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::Null => Ok(Self),
            Value::Array(items) if items.is_empty() => Ok(Self),
            Value::Object(fields) if fields.is_empty() => Ok(Self),
            _ => Err(D::Error::custom("this server does not support this")),
        }
    }
}

/// How a change is to be done. All of it is accepted and none has an effect: an answer means that
/// the change is on stable storage and that reads see it.
#[derive(Debug, DeriveDeserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read so that what cannot be meant is refused")]
pub(crate) struct WriteParams {
    /// Without effect: every change is waited for.
    pub(crate) wait: Option<bool>,
    /// Without effect: changes are applied in the order they come.
    pub(crate) ordering: Option<Ordering>,
    /// Without effect: the setting `limits.request_ms` limits requests.
    pub(crate) timeout: Option<u64>,
}

/// In which order changes are applied.
#[derive(Debug, DeriveDeserialize, ToSchema)]
#[schema(as = WriteOrdering)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ordering {
    Weak,
    Medium,
    Strong,
}

/// How a reading is to be done. All of it is accepted and none has an effect.
#[derive(Debug, DeriveDeserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "read so that what cannot be meant is refused")]
pub(crate) struct ReadParams {
    /// Without effect: there is one copy of everything.
    pub(crate) consistency: Option<String>,
    /// Without effect: the setting `limits.request_ms` limits requests.
    pub(crate) timeout: Option<u64>,
}

/// What a change did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UpdateResult {
    /// Rises with every change; 0 when there was nothing to change.
    pub(crate) operation_id: u64,
    #[schema(example = "completed")]
    pub(crate) status: &'static str,
}

/// A snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotDescription {
    pub(crate) name: String,
    /// In UTC.
    #[schema(example = "2026-03-01T12:30:05")]
    pub(crate) creation_time: String,
    /// Bytes of all its files.
    pub(crate) size: u64,
    /// None is kept: the files have checksums of their own.
    pub(crate) checksum: Option<String>,
}
