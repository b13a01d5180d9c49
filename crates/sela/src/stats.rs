//! What the engine has, chose and did.

use std::time::Duration;

use sela_compute::inventory::GpuFacts;
use sela_compute::{Inventory, Tier};
use sela_encoder::{Dtype, Report};
pub use sela_index::{Codes, Pages, SearchStats};
use serde::{Serialize, Serializer};

use crate::histogram::{Histogram, Sizes, Times};
use crate::schedule::Lane;

/// What this machine has and what the engine chose for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The machine.
    pub inventory: Inventory,
    /// The GPU that is in use; without one the CPU does everything.
    pub gpu: Option<GpuFacts>,
    /// The model's name.
    pub model: String,
    /// The identity of the vector space.
    pub space: String,
    /// Numbers in a vector.
    pub dim: usize,
    /// Most tokens of a text that are encoded.
    pub tokens_max: usize,
    /// The precision that was asked for.
    pub dtype: Dtype,
    /// What was chosen for the encoder, and why nothing faster: tier, device, variant of its
    /// kernels.
    pub report: Report,
    /// What was chosen for searches.
    pub searches: SearchStats,
    /// What the GPU's memory is taken for, weights and work space included.
    pub gpu_memory: Option<GpuMemory>,
}

/// Bytes of the GPU's memory by what this process has taken them for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GpuMemory {
    /// Weights of models.
    pub weights: u64,
    /// Work space of the encoder: 512 MiB are kept at most, or what one batch needs.
    pub work: u64,
    /// Rows that are searched, with what is free in their slabs: at most the budget of
    /// [`Options::gpu_cache`](crate::Options::gpu_cache).
    pub rows: u64,
    /// Work space of searches: 128 MiB are kept at most, or what one search needs.
    pub search: u64,
    /// Bytes on their way to the GPU and back; 64 MiB are kept at most.
    pub transfer: u64,
    /// What is left.
    pub other: u64,
    /// All of them.
    pub total: u64,
    /// The most that they were so far.
    pub peak: u64,
}

/// What has been done since the engine was opened.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// The path of the encoder, once the model is open.
    #[serde(serialize_with = "as_text")]
    pub tier: Option<Tier>,
    /// Its device: `cpu` or `gpu:N`.
    pub device: Option<String>,
    /// The GPU's name; nothing where that is the CPU.
    pub device_name: Option<String>,
    /// The kind of its kernels, where a device has several.
    pub variant: Option<String>,
    /// Calls that embedded.
    pub embed_calls: u64,
    /// Time spent in them; in seconds where it is written down.
    #[serde(rename = "embed_seconds", serialize_with = "as_seconds")]
    pub embed_time: Duration,
    /// How long a call took, the time in a queue apart: [`LaneStats`] tells that.
    pub embed_times: Times,
    /// Texts embedded.
    pub texts: u64,
    /// Tokens encoded.
    pub tokens: u64,
    /// Texts cut to the model's length.
    pub truncated: u64,
    /// Texts computed again, because a number was not finite or the GPU failed.
    pub degraded: u64,
    /// Queries answered.
    pub queries: u64,
    /// Time spent on them, embedding apart; in seconds where it is written down.
    #[serde(rename = "query_seconds", serialize_with = "as_seconds")]
    pub query_time: Duration,
    /// How long a query took, embedding apart.
    pub query_times: Times,
    /// Texts embedded by the GPU.
    pub texts_on_gpu: u64,
    /// Texts embedded by the CPU, those that the GPU failed among them.
    pub texts_on_cpu: u64,
    /// Times that a GPU failed and the CPU did the work: batches of texts, searches, and a device
    /// that did not open.
    pub fallbacks: u64,
    /// What the GPU said when it failed last.
    pub last_fallback: Option<String>,
    /// Searches by device, and what the GPU holds.
    pub searches: SearchStats,
    /// What the GPU's memory is taken for, once it is open.
    pub gpu_memory: Option<GpuMemory>,
    /// The lanes of [`Engine::submit`](crate::Engine::submit), once there was a request:
    /// interactive, bulk.
    pub lanes: Vec<LaneStats>,
}

/// What waits in a lane, and what it has done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaneStats {
    /// Which one.
    pub lane: Lane,
    /// Texts that wait now.
    pub queued_texts: u64,
    /// Bytes of these.
    pub queued_bytes: u64,
    /// Batches under way now.
    pub running: u64,
    /// How long the oldest request with texts that wait is there; in seconds where it is written
    /// down.
    #[serde(rename = "oldest_seconds", serialize_with = "as_seconds")]
    pub oldest: Duration,
    /// Requests that were accepted.
    pub requests: u64,
    /// Requests that there was no room for.
    pub refused: u64,
    /// Requests that nobody waited for any more.
    pub cancelled: u64,
    /// Requests whose time was over.
    pub expired: u64,
    /// Requests that failed, those whose time was over while they waited among them.
    pub failed: u64,
    /// Texts that were encoded.
    pub texts: u64,
    /// Tokens of its batches.
    pub batch_tokens: Sizes,
    /// Requests in its batches.
    pub batch_requests: Sizes,
    /// How long its batches held the device.
    pub held: Times,
    /// How long requests took from their coming to their answer.
    pub took: Times,
}

fn as_text<S: Serializer>(tier: &Option<Tier>, to: S) -> Result<S::Ok, S::Error> {
    match tier {
        Some(tier) => to.collect_str(tier),
        None => to.serialize_none(),
    }
}

pub(crate) fn as_seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) embed: Histogram,
    pub(crate) query: Histogram,
}

impl Stats {
    /// `unopened` tells of a GPU that was there and did not open.
    pub(crate) fn of(
        counters: &Counters,
        report: Option<Report>,
        searches: SearchStats,
        unopened: Option<String>,
    ) -> Self {
        let (embed_times, query_times) = (counters.embed.times(), counters.query.times());
        let mut stats = Self {
            embed_calls: embed_times.count,
            embed_time: embed_times.total,
            embed_times,
            queries: query_times.count,
            query_time: query_times.total,
            query_times,
            fallbacks: searches.fallbacks + u64::from(unopened.is_some()),
            last_fallback: searches.last_fallback.clone().or(unopened),
            searches,
            ..Self::default()
        };
        if let Some(report) = report {
            stats.tier = Some(report.tier);
            stats.device = Some(report.device);
            stats.device_name = report.device_name;
            stats.variant = report.variant;
            stats.texts = report.texts;
            // On a GPU, a text that was computed again was the CPU's.
            stats.texts_on_cpu = match report.tier {
                Tier::Cpu => report.texts,
                _ => report.degraded,
            };
            stats.texts_on_gpu = report.texts.saturating_sub(stats.texts_on_cpu);
            stats.tokens = report.tokens;
            stats.truncated = report.truncated;
            stats.degraded = report.degraded;
            stats.fallbacks += report.fallbacks;
            stats.last_fallback = report.last_fallback.or(stats.last_fallback);
        }
        stats
    }
}
