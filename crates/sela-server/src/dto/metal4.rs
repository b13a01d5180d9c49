//! The Metal 4 routes. Names and types of fields are those that callers read today.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rows::Rows;

/// A text to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbedRequest {
    #[schema(example = "The meeting is moved to Thursday.")]
    pub(crate) text: String,
}

/// The vector of a text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedResponse {
    pub(crate) embedding: Vec<f32>,
    /// Numbers in it.
    pub(crate) dimension: usize,
    /// What computed it: `cpu`, or a GPU's path.
    pub(crate) backend: String,
    pub(crate) time_ms: f64,
    /// Tokens that were read, special ones included.
    pub(crate) tokens: usize,
    /// Whether the text was longer than the model reads.
    pub(crate) truncated: bool,
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbedBatchRequest {
    #[schema(example = json!(["first", "second"]))]
    pub(crate) texts: Vec<String>,
    /// Taken for the sake of callers that send it; batches are cut by tokens here.
    #[schema(minimum = 1)]
    pub(crate) batch_size: Option<u32>,
}

/// The vectors of texts, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedBatchResponse {
    #[schema(value_type = Vec<Vec<f32>>)]
    pub(crate) embeddings: Rows,
    pub(crate) count: usize,
    /// Numbers in each.
    pub(crate) dimension: usize,
    pub(crate) backend: String,
    pub(crate) total_time_ms: f64,
    pub(crate) avg_time_ms: f64,
    /// For each text, tokens that were read, special ones included.
    pub(crate) tokens: Vec<usize>,
    /// For each text, whether it was longer than the model reads.
    pub(crate) truncated: Vec<bool>,
}

/// Vectors to search, in place of those loaded before.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct LoadDatabaseRequest {
    #[schema(value_type = Vec<Vec<f32>>, example = json!([[0.1, 0.2], [0.3, 0.4]]))]
    pub(crate) embeddings: Rows,
}

/// What was loaded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoadDatabaseResponse {
    pub(crate) message: String,
    pub(crate) num_vectors: usize,
    pub(crate) embed_dim: usize,
    pub(crate) backend: String,
}

/// How nearness is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Metric {
    /// The larger the nearer.
    #[default]
    Cosine,
    /// Euclidean distance: the smaller the nearer.
    L2,
    /// The larger the nearer.
    Dot,
}

impl From<Metric> for sela::Metric {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Cosine => Self::Cosine,
            Metric::L2 => Self::L2,
            Metric::Dot => Self::Dot,
        }
    }
}

/// A text to find the nearest vectors to.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct SearchRequest {
    #[schema(example = "When do we meet?")]
    pub(crate) query: String,
    /// How many.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 100)]
    pub(crate) k: usize,
    #[serde(default)]
    pub(crate) metric: Metric,
}

fn ten() -> usize {
    10
}

/// The nearest vectors, the nearest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResponse {
    /// Rows of the loaded database, or ids of stored embeddings.
    pub(crate) indices: Vec<u64>,
    pub(crate) scores: Vec<f32>,
    pub(crate) count: usize,
    pub(crate) backend: String,
    pub(crate) time_ms: f64,
}

/// A text to embed and to keep.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct StoreRequest {
    /// Its name; a vector of the same name is replaced.
    #[schema(example = 7)]
    pub(crate) vector_id: u64,
    #[schema(example = "The meeting is moved to Thursday.")]
    pub(crate) text: String,
}

/// What was stored, durably.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoreResponse {
    pub(crate) message: String,
    pub(crate) vector_id: u64,
    /// Tokens that were read, special ones included.
    pub(crate) tokens: usize,
    /// Whether the text was longer than the model reads.
    pub(crate) truncated: bool,
}

/// A stored vector.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RetrieveResponse {
    pub(crate) vector_id: u64,
    pub(crate) embedding: Vec<f32>,
    pub(crate) dimension: usize,
}
