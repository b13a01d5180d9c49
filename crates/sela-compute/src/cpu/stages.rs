//! Where the time of forwards goes, stage by stage, when asked for.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::pool::Member;

/// A part of a forward on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rows of the embedding tables are gathered, added and normalised.
    Embed,
    /// The products for queries, keys and values, with bias and rounding.
    Project,
    /// Scores, their exponentials and sums of values.
    Attend,
    /// The product behind attention, with bias and residual.
    Output,
    /// The first product of a feed-forward block, with bias, GELU and rounding.
    Up,
    /// The second, with bias and residual.
    Down,
    /// Layer normalisation, and rounding for the next product.
    Norm,
    /// Pooling and normalisation of the vectors.
    Pool,
    /// Waiting for the other threads of a job.
    Wait,
}

impl Stage {
    /// All, in the order of a forward.
    pub const ALL: [Self; 9] = [
        Self::Embed,
        Self::Project,
        Self::Attend,
        Self::Output,
        Self::Up,
        Self::Down,
        Self::Norm,
        Self::Pool,
        Self::Wait,
    ];

    /// Whether it is a matrix product with what is done to its numbers on their way.
    pub fn is_product(self) -> bool {
        matches!(self, Self::Project | Self::Output | Self::Up | Self::Down)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Embed => "gather, add, norm",
            Self::Project => "query, key, value",
            Self::Attend => "attention",
            Self::Output => "attention output",
            Self::Up => "feed-forward up, GELU",
            Self::Down => "feed-forward down",
            Self::Norm => "norms, rounding",
            Self::Pool => "pooling",
            Self::Wait => "waiting",
        })
    }
}

/// The time of each stage, added up over threads. What a thread does before its first stage and after its
/// last, among it idling when no work is left, is in none.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageTimes([Duration; Stage::ALL.len()]);

impl StageTimes {
    /// That of a stage.
    pub fn of(&self, stage: Stage) -> Duration {
        self.0[stage as usize]
    }

    /// That of all stages.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }
}

/// Adds up what clocks say, while it is switched on.
#[derive(Default)]
pub(super) struct Stages {
    on: AtomicBool,
    nanoseconds: [AtomicU64; Stage::ALL.len()],
}

impl Stages {
    pub(super) fn record(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// What there is, which is counted from zero again.
    pub(super) fn take(&self) -> StageTimes {
        let each = &self.nanoseconds;
        StageTimes(std::array::from_fn(|i| {
            Duration::from_nanos(each[i].swap(0, Ordering::Relaxed))
        }))
    }

    /// A clock for one thread, from now on.
    pub(super) fn clock(&self) -> Clock<'_> {
        let on = self.on.load(Ordering::Relaxed);
        Clock(on.then(|| (self, Instant::now())))
    }
}

/// Tells stages apart on one thread; does nothing where nothing is recorded.
pub(super) struct Clock<'a>(Option<(&'a Stages, Instant)>);

impl Clock<'_> {
    /// What was done since the last time was this stage.
    pub(super) fn was(&mut self, stage: Stage) {
        if let Some((stages, since)) = &mut self.0 {
            let now = Instant::now();
            let took = now.duration_since(*since).as_nanos() as u64;
            stages.nanoseconds[stage as usize].fetch_add(took, Ordering::Relaxed);
            *since = now;
        }
    }

    /// The same, then waits for the other members of the job.
    pub(super) fn was_then_wait(&mut self, stage: Stage, member: Member<'_>) {
        self.was(stage);
        member.wait();
        self.was(Stage::Wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_belongs_to_the_stage_that_it_was_and_is_taken_once() {
        let stages = Stages::default();
        stages.clock().was(Stage::Up);
        assert_eq!(
            stages.take().total(),
            Duration::ZERO,
            "nothing was asked for"
        );
        stages.record(true);
        let mut clock = stages.clock();
        // Begun later, so that the clock has run for as long.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2) {}
        clock.was(Stage::Attend);
        clock.was(Stage::Norm);
        let times = stages.take();
        assert!(times.of(Stage::Attend) >= Duration::from_millis(2));
        assert_eq!(
            times.total(),
            times.of(Stage::Attend) + times.of(Stage::Norm)
        );
        assert_eq!(stages.take().total(), Duration::ZERO);
    }
}
