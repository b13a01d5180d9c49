//! How quick a lane's batches are, and how large the next may be.

use std::time::Duration;

/// Weight of the newest measurement.
const NEWEST: f64 = 0.25;
/// Tokens of a batch before anything was measured.
const TOKENS_FIRST: usize = 512;
/// Tokens a byte of text before anything was measured: English has about a quarter.
const TOKENS_PER_BYTE: f64 = 0.25;

/// Running estimates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Tokens a second.
    rate: Option<f64>,
    tokens_per_byte: Option<f64>,
}

fn blend(kept: &mut Option<f64>, newest: f64) {
    if newest.is_finite() {
        *kept = Some(kept.map_or(newest, |kept| kept + NEWEST * (newest - kept)));
    }
}

impl Pace {
    /// A batch that took so long.
    pub(super) fn ran(&mut self, tokens: usize, took: Duration) {
        blend(&mut self.rate, tokens as f64 / took.as_secs_f64().max(1e-9));
    }

    /// Texts that were tokenised.
    pub(super) fn tokenized(&mut self, bytes: usize, tokens: usize) {
        blend(
            &mut self.tokens_per_byte,
            tokens as f64 / bytes.max(1) as f64,
        );
    }

    /// Tokens that take so long.
    pub(super) fn tokens_in(&self, time: Duration) -> usize {
        self.rate
            .map_or(TOKENS_FIRST, |rate| (rate * time.as_secs_f64()) as usize)
    }

    /// About so many tokens are in so many bytes; never none.
    pub(super) fn tokens_of(&self, bytes: usize) -> usize {
        let each = self.tokens_per_byte.unwrap_or(TOKENS_PER_BYTE);
        ((bytes as f64 * each) as usize).max(1)
    }

    /// About so long takes text of so many bytes; `None` before anything was measured.
    pub(super) fn time_of(&self, bytes: usize) -> Option<Duration> {
        let seconds = self.tokens_of(bytes) as f64 / self.rate?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}
