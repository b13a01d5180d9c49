//! What the engine has, chose and did.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sela_compute::Inventory;
use sela_encoder::{Dtype, Report};

/// What this machine has and what the engine chose for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The machine.
    pub inventory: Inventory,
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
    /// What was chosen, and why nothing faster.
    pub report: Report,
}

/// What has been done since the engine was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that embedded.
    pub embed_calls: u64,
    /// Time spent in them.
    pub embed_time: Duration,
    /// Texts embedded.
    pub texts: u64,
    /// Tokens encoded.
    pub tokens: u64,
    /// Texts cut to the model's length.
    pub truncated: u64,
    /// Texts computed again because a number was not finite.
    pub degraded: u64,
    /// Queries answered.
    pub queries: u64,
    /// Time spent on them, embedding apart.
    pub query_time: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) embed: Timed,
    pub(crate) query: Timed,
}

#[derive(Debug, Default)]
pub(crate) struct Timed {
    calls: AtomicU64,
    nanos: AtomicU64,
}

impl Timed {
    pub(crate) fn add(&self, took: Duration) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.nanos
            .fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, Duration) {
        let nanos = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        (self.calls.load(Ordering::Relaxed), nanos)
    }
}

impl Stats {
    pub(crate) fn of(counters: &Counters, report: Option<Report>) -> Self {
        let (embed_calls, embed_time) = counters.embed.read();
        let (queries, query_time) = counters.query.read();
        let mut stats = Self {
            embed_calls,
            embed_time,
            queries,
            query_time,
            ..Self::default()
        };
        if let Some(report) = report {
            stats.texts = report.texts;
            stats.tokens = report.tokens;
            stats.truncated = report.truncated;
            stats.degraded = report.degraded;
        }
        stats
    }
}
