//! Counts of values in buckets that grow with the value: percentiles at the price of an addition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::stats::as_seconds;

/// Buckets of each doubling: a percentile is told within a sixteenth.
const EACH: u64 = 16;
const EACH_BITS: u32 = EACH.trailing_zeros();
const BUCKETS: usize = (64 - EACH_BITS as usize + 1) * EACH as usize;

/// A histogram that threads may add to at once.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

/// How long something took, over all times that it was done. In seconds where it is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Times {
    /// Times that it was done.
    pub count: u64,
    /// Time it took altogether.
    #[serde(rename = "total_seconds", serialize_with = "as_seconds")]
    pub total: Duration,
    /// Half of the times it took at most this long; told, as all percentiles, to within 7 %.
    #[serde(rename = "p50_seconds", serialize_with = "as_seconds")]
    pub p50: Duration,
    /// Nine times of ten it took at most this long.
    #[serde(rename = "p90_seconds", serialize_with = "as_seconds")]
    pub p90: Duration,
    /// 99 times of 100 it took at most this long.
    #[serde(rename = "p99_seconds", serialize_with = "as_seconds")]
    pub p99: Duration,
    /// The longest it took.
    #[serde(rename = "max_seconds", serialize_with = "as_seconds")]
    pub max: Duration,
}

/// Sizes of something: how many there were of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sizes {
    /// How many there were.
    pub count: u64,
    /// All sizes together.
    pub sum: u64,
    /// The largest.
    pub max: u64,
    /// How many had at most a size, for 1, 3, 7, 15 and so on, up to the largest size.
    pub at_most: Vec<(u64, u64)>,
}

fn bucket(value: u64) -> usize {
    if value < EACH {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - EACH_BITS;
    (u64::from(shift + 1) * EACH + (value >> shift) - EACH) as usize
}

/// The largest value of a bucket.
fn top(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EACH {
        return bucket;
    }
    let shift = bucket / EACH - 1;
    let above = u128::from(bucket % EACH + EACH + 1) << shift;
    u64::try_from(above - 1).unwrap_or(u64::MAX)
}

impl Histogram {
    pub(crate) fn add(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.max.fetch_max(value, Ordering::Relaxed);
    }

    pub(crate) fn add_time(&self, took: Duration) {
        self.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    fn counts(&self) -> Vec<u64> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.buckets.iter().map(read).collect()
    }

    /// The values as nanoseconds.
    pub(crate) fn times(&self) -> Times {
        let counts = self.counts();
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Ordering::Relaxed);
        let share = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut below = 0;
            let at = counts.iter().position(|&n| {
                below += n;
                below >= rank
            });
            Duration::from_nanos(at.map_or(0, |at| top(at).min(max)))
        };
        Times {
            count,
            total: Duration::from_nanos(self.sum.load(Ordering::Relaxed)),
            p50: share(50),
            p90: share(90),
            p99: share(99),
            max: Duration::from_nanos(max),
        }
    }

    /// The values as sizes.
    pub(crate) fn sizes(&self) -> Sizes {
        let counts = self.counts();
        let max = self.max.load(Ordering::Relaxed);
        let mut sizes = Sizes {
            count: counts.iter().sum(),
            sum: self.sum.load(Ordering::Relaxed),
            max,
            at_most: Vec::new(),
        };
        for bits in 1..64 {
            if sizes.count == 0 {
                break;
            }
            let bound = (1 << bits) - 1;
            // A power of two begins a bucket, so that the counts below it are exact.
            let upto = counts[..bucket(bound + 1)].iter().sum();
            sizes.at_most.push((bound, upto));
            if bound >= max {
                break;
            }
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BUCKETS, Histogram, bucket, top};

    #[test]
    fn every_value_has_a_bucket_and_is_told_within_a_sixteenth() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain([u64::MAX, 1_000_003]) {
            let at = bucket(value);
            assert!(at < BUCKETS, "{value}");
            let told = top(at);
            assert!(told >= value, "{value} is told as {told}");
            assert!(told - value <= value / 16, "{value} is told as {told}");
            assert!(at == 0 || top(at - 1) < value, "{value}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let times = Histogram::default();
        assert_eq!(times.times().count, 0);
        assert_eq!(times.times().p99, Duration::ZERO);
        for micros in 1..=1_000 {
            times.add_time(Duration::from_micros(micros));
        }
        let told = times.times();
        assert_eq!(told.count, 1_000);
        assert_eq!(told.total, Duration::from_micros(500_500));
        assert_eq!(told.max, Duration::from_millis(1));
        for (told, micros) in [(told.p50, 500), (told.p90, 900), (told.p99, 990)] {
            let least = Duration::from_micros(micros);
            assert!(told >= least && told <= least + least / 16, "{told:?}");
        }
    }

    #[test]
    fn sizes_are_counted_up_to_the_largest() {
        let sizes = Histogram::default();
        assert!(sizes.sizes().at_most.is_empty());
        for size in [1, 1, 2, 3, 9] {
            sizes.add(size);
        }
        let told = sizes.sizes();
        assert_eq!((told.count, told.sum, told.max), (5, 16, 9));
        assert_eq!(told.at_most, [(1, 2), (3, 4), (7, 4), (15, 5)]);
    }
}
