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

/// What this machine has and what was chosen.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CapabilitiesResponse {
    /// 0 where there is no Metal, 3, or 4 on macOS 26 and later with a GPU of the Metal 4 family.
    pub(crate) metal_version: u32,
    /// What embeds: `metal4`, `metal3`, `gpu` or `cpu`.
    pub(crate) embedder_backend: String,
    /// What searches: `gpu`, where small searches stay on the CPU, or `cpu`.
    pub(crate) vector_search_backend: String,
    /// Whether pages of vectors are kept in the GPU's memory under a budget.
    pub(crate) sparse_resources: bool,
    /// Whether the GPU shares the CPU's memory.
    pub(crate) unified_memory: bool,
    /// The path through the code.
    pub(crate) tier: String,
    /// The name of the device.
    pub(crate) device: String,
    /// Its driver, if it is a GPU.
    pub(crate) driver: Option<String>,
    pub(crate) model: String,
    /// Numbers in a vector.
    pub(crate) dimension: usize,
    /// The precision that was asked for.
    pub(crate) dtype: String,
    /// The arithmetic that was chosen for it.
    pub(crate) arithmetic: String,
    pub(crate) limits: LimitsTold,
    /// Self-tests that were run when the model was read.
    pub(crate) self_test: Vec<SelfTest>,
    /// Times that a GPU failed and the CPU did the work.
    pub(crate) fallbacks: u64,
    /// Why it was chosen so, and nothing faster.
    pub(crate) reasons: Vec<String>,
}

/// A self-test.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SelfTest {
    pub(crate) what: String,
    pub(crate) passed: bool,
    /// `passed`, `failed`, or `remembered`: passed earlier on this GPU with this driver and not run
    /// again.
    pub(crate) outcome: String,
    /// Why not, if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) veto: Option<String>,
    /// How long it took, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ms: Option<f64>,
}

/// What is too much: bytes, milliseconds, counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsTold {
    pub(crate) body_bytes_max: u64,
    pub(crate) database_bytes_max: u64,
    pub(crate) bodies_bytes_max: u64,
    pub(crate) texts_max: usize,
    pub(crate) text_bytes_max: u64,
    /// Tokens of a text that are read; what is longer is cut, and the answer tells so.
    pub(crate) tokens_max: usize,
    pub(crate) k_max: usize,
    pub(crate) points_max: usize,
    pub(crate) queue_texts_max: usize,
    pub(crate) queue_bytes_max: u64,
    pub(crate) blocking_max: usize,
    pub(crate) blocking_queue_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) head_ms: u64,
    pub(crate) body_ms: u64,
    pub(crate) request_ms: u64,
    pub(crate) drain_ms: u64,
}

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsResponse {
    pub(crate) capabilities: StatsCapabilities,
    pub(crate) embedder: StatsEmbedder,
    pub(crate) vector_search: StatsSearch,
    pub(crate) sparse_storage: StatsStorage,
    /// The benchmark or validation under way.
    pub(crate) benchmark: Option<BenchProgress>,
    pub(crate) uptime_s: u64,
}

/// What does the work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsCapabilities {
    pub(crate) tier: Option<String>,
    pub(crate) device: Option<String>,
    /// The kind of its kernels, where a device has several.
    pub(crate) variant: Option<String>,
    /// Once it is read.
    pub(crate) model: Option<String>,
}

/// What was embedded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsEmbedder {
    /// Requests and calls that embedded.
    pub(crate) calls: u64,
    pub(crate) texts: u64,
    pub(crate) tokens: u64,
    /// Texts cut to the model's length.
    pub(crate) truncated: u64,
    /// Texts computed again, because a number was not finite or the GPU failed.
    pub(crate) degraded: u64,
    /// Batches that the GPU failed and the CPU computed.
    pub(crate) fallbacks: u64,
    pub(crate) last_fallback: Option<String>,
    /// Share of the texts that the GPU embedded.
    pub(crate) gpu_share: f64,
    pub(crate) cpu_share: f64,
    /// Seconds in all and by percentiles.
    #[schema(value_type = Object)]
    pub(crate) times: sela::Times,
    /// Each lane of the queue: what waits there, its batches, how long requests took.
    #[schema(value_type = Vec<Object>)]
    pub(crate) lanes: Vec<sela::LaneStats>,
}

/// What was searched.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsSearch {
    pub(crate) queries: u64,
    /// Seconds in all and by percentiles, embedding apart.
    #[schema(value_type = Object)]
    pub(crate) times: sela::Times,
    pub(crate) on_gpu: u64,
    pub(crate) on_cpu: u64,
    pub(crate) gpu_share: f64,
    pub(crate) cpu_share: f64,
    pub(crate) fallbacks: u64,
    pub(crate) last_fallback: Option<String>,
    /// Where the last search was done, and why there.
    pub(crate) last: Option<String>,
    /// Rows of the loaded database.
    pub(crate) database_rows: usize,
    /// Its bytes.
    pub(crate) database_bytes: usize,
}

/// Pages of vectors in the GPU's memory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsStorage {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) page_ins: u64,
    pub(crate) page_outs: u64,
    /// Pages that passed through and did not stay.
    pub(crate) streamed: u64,
    pub(crate) bytes: u64,
    /// Most bytes that may be there.
    pub(crate) budget: u64,
    pub(crate) collections: usize,
    /// What the GPU's memory is taken for; nothing without a GPU.
    pub(crate) gpu_memory: Option<StatsGpuMemory>,
}

/// Bytes of the GPU's memory that this process has taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatsGpuMemory {
    pub(crate) weights: u64,
    /// Work space of the encoder.
    pub(crate) work: u64,
    /// Pages of vectors, the free ones included.
    pub(crate) rows: u64,
    /// Work space of searches.
    pub(crate) search: u64,
    /// On their way to the GPU and back.
    pub(crate) transfer: u64,
    pub(crate) other: u64,
    pub(crate) total: u64,
    /// The most that they were so far.
    pub(crate) peak: u64,
}

/// How far a benchmark or a validation is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct BenchProgress {
    /// `benchmark` or `validation`.
    pub(crate) what: String,
    /// What is being measured, or was checked last.
    pub(crate) step: Option<String>,
    /// Figures or checks that are done.
    pub(crate) done: u64,
}

/// What the checks found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidateResponse {
    /// Each check that could be run here, and whether it passed.
    pub(crate) validation_results: std::collections::BTreeMap<String, bool>,
    pub(crate) all_tests_passed: bool,
    /// What each found.
    pub(crate) found: std::collections::BTreeMap<String, String>,
    /// Checks that cannot be run here, and what is lacking.
    pub(crate) skipped: std::collections::BTreeMap<String, String>,
}

/// How to measure.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct BenchmarkRequest {
    /// A few seconds instead of some minutes.
    #[serde(default)]
    #[schema(example = true)]
    pub(crate) quick: bool,
}

/// What was measured.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BenchmarkResponse {
    /// A figure each: its name, its unit, its percentiles or rates.
    #[schema(value_type = Vec<Object>)]
    pub(crate) benchmark_results: Vec<serde_json::Value>,
    pub(crate) message: String,
}
