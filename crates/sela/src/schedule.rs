//! Many callers, one device: texts of concurrent requests are encoded together.
//!
//! A request waits in one of two lanes. A lane's thread takes what has queued up while it was busy,
//! up to a budget of tokens, and encodes it as one batch; a request that finds the lane idle starts
//! at once. Bulk batches begin when no interactive work is there, or when bulk has waited long
//! enough; they are short while interactive requests come in.

mod lane;
mod pace;
mod queue;
mod request;
#[cfg(test)]
mod tests;
mod ticket;
mod works;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::stats::LaneStats;
use lane::Shared;
use request::Request;
pub use ticket::Ticket;
pub(crate) use works::Works;

/// Bytes of a request up to which its texts are tokenised by the caller: some hundred microseconds.
const TOKENIZE_HERE: usize = 1 << 10;

/// The queue in which a request waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Somebody waits for the answer: it overtakes bulk work.
    #[default]
    Interactive,
    /// Much text, whose time does not matter by the millisecond. It goes on, slowly, however much
    /// interactive work there is.
    Bulk,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Bulk];

    /// Its name: `interactive` or `bulk`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}

/// How a request to embed is done; the defaults suit a person who waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// Where it waits; default: interactive. Bulk for more than some dozens of texts.
    pub lane: Lane,
    /// When its answer is of no more use: what has not begun by then is not done. Default: never.
    pub deadline: Option<Instant>,
    /// The name of the model's prompt to put before each text; default: the model's own default.
    pub prompt: Option<String>,
}

/// How much may wait. Each lane has this much room of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Texts that may wait in a lane, and the most of one request; default: 32768.
    pub texts_max: usize,
    /// Bytes of text that may wait in a lane, and the most of one request; default: 64 MiB.
    pub bytes_max: usize,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            texts_max: 32_768,
            bytes_max: 64 << 20,
        }
    }
}

/// The lanes of an engine with their threads, which end when it is dropped.
pub(crate) struct Scheduler<W: Works> {
    shared: Arc<Shared<W>>,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Works> Scheduler<W> {
    pub(crate) fn new(works: Arc<W>, options: QueueOptions) -> Result<Self> {
        let shared = Arc::new(Shared::new(works, options));
        let mut scheduler = Self {
            shared: shared.clone(),
            threads: Vec::new(),
        };
        for lane in Lane::ALL {
            let shared = shared.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("sela-{}", lane.name()))
                .spawn(move || lane::run(&shared, lane));
            // Those that were begun end with `scheduler`.
            let thread = spawned.map_err(|source| Error::Thread { source })?;
            scheduler.threads.push(thread);
        }
        Ok(scheduler)
    }

    /// Puts a request into its lane, or says at once why not.
    pub(crate) fn submit(&self, texts: Vec<String>, options: &EmbedOptions) -> Result<Ticket> {
        let shared = &self.shared;
        let bytes: usize = texts.iter().map(String::len).sum();
        shared.admit(options, texts.len(), bytes)?;
        shared.works.check(options.prompt.as_deref(), &texts)?;
        if texts.is_empty() {
            let request = Arc::new(Request::done(options, shared.works.dim()));
            return Ok(Ticket::new(shared.clone(), request));
        }
        let request = if bytes <= TOKENIZE_HERE {
            let tokens = shared.works.tokenize(options.prompt.as_deref(), &texts)?;
            Request::tokenized(options, texts, tokens)
        } else {
            Request::new(options, texts)
        };
        let request = Arc::new(request);
        shared.push(&request)?;
        Ok(Ticket::new(shared.clone(), request))
    }

    /// Somebody waits for work that is done past the queue.
    pub(crate) fn see_interactive(&self) {
        self.shared.see_interactive();
    }

    pub(crate) fn stats(&self) -> Vec<LaneStats> {
        Lane::ALL.map(|lane| self.shared.stats(lane)).into()
    }
}

impl<W: Works> Drop for Scheduler<W> {
    fn drop(&mut self) {
        self.shared.stop();
        let me = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // Whoever is woken by a lane may let go of the last engine there.
            if thread.thread().id() != me {
                // A lane catches the panics of its batches, so it ends in order.
                let _ = thread.join();
            }
        }
    }
}

/// Longest and shortest time after which a refused caller is asked to come again.
const RETRY_MAX: Duration = Duration::from_secs(60);
const RETRY_MIN: Duration = Duration::from_secs(1);
