//! Where the time of a forward goes, by the GPU's own clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::shaders::Kind;

/// Time spent in one kind of pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassTime {
    /// What the pass does.
    pub name: String,
    /// How often it ran.
    pub count: u32,
    /// Time of all runs.
    pub total: Duration,
}

/// Times so far, by kernel and width of its output.
#[derive(Default)]
pub(super) struct Profile(Mutex<HashMap<Mark, (u32, f64)>>);

/// A pass of a forward: its kernel, and the width of its output where kernels are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub(super) kind: Kind,
    pub(super) width: u32,
}

impl Profile {
    /// Adds the passes of a forward; `ticks` holds the start of the first and the end of each.
    pub(super) fn add(&self, marks: &[Mark], ticks: &[u64], nanoseconds: f64) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (mark, ends) in marks.iter().zip(ticks.windows(2)) {
            let (count, total) = times.entry(*mark).or_default();
            *count += 1;
            *total += ends[1].saturating_sub(ends[0]) as f64 * nanoseconds;
        }
    }

    /// The costliest first.
    pub(super) fn table(&self) -> Vec<PassTime> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table: Vec<PassTime> = times
            .iter()
            .map(|(mark, (count, total))| PassTime {
                name: match mark.kind {
                    Kind::Product(_) => format!("{}, {} columns", mark.kind, mark.width),
                    _ => mark.kind.to_string(),
                },
                count: *count,
                total: Duration::from_nanos(*total as u64),
            })
            .collect();
        table.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.name.cmp(&b.name)));
        table
    }
}
