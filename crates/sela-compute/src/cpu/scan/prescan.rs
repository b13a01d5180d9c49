//! A search by codes: every row is looked at in int8, those that may be among the nearest are
//! scored canonically.
//!
//! For each query a thread keeps the `k` best of the ranks that rows have at least; the k-th of them
//! is a rank that `k` rows reach, so a row that cannot reach it is not among the nearest. Threads
//! tell each other the highest of it. Rows that can reach it are collected, and at the end scored
//! from their stored numbers, the most promising first. An answer has the bits of a full scan.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::bound::{Look, Query, Range};
use super::codes::{Codes, STRIP, lines_of};
use super::dots::{BLOCK, Dots, Plane, Products};
use super::work::Packed;
use crate::scan::Block;

/// Bytes of codes in a piece of work.
const PIECE_BYTES: usize = 384 << 10;
/// Queries that pass over a strip together: their products stay in a first-level cache.
pub(super) const GROUP_QUERIES: usize = 2 * BLOCK;
/// Candidates of a query that are kept for the end.
const CANDIDATES_MAX: usize = 4_096;
/// Rows for each one asked for below which codes tell little.
const ROWS_A_HIT: usize = 16;

/// What all threads of a search by codes share.
pub(super) struct Prescan {
    pub(super) dots: Dots,
    pub(super) plane: Plane,
    queries: Vec<Query>,
    /// For each query a rank that `k` rows reach, by [`ordered`].
    reached: Vec<AtomicU32>,
    /// The blocks' codes.
    pub(super) codes: Vec<Option<Arc<Codes>>>,
}

/// Bits that are ordered as the ranks are.
fn ordered(rank: f32) -> u32 {
    let bits = rank.to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

fn rank_of(ordered: u32) -> f32 {
    let bits = if ordered >> 31 == 1 {
        ordered & !(1 << 31)
    } else {
        !ordered
    };
    f32::from_bits(bits)
}

impl Prescan {
    /// Codes the queries; `None` if a full scan serves them better or no block has codes.
    pub(super) fn new(
        dots: Dots,
        packed: &Packed,
        blocks: &[Block<'_>],
        codes: Vec<Option<Arc<Codes>>>,
    ) -> Option<Self> {
        let with = blocks
            .iter()
            .zip(&codes)
            .filter(|(_, codes)| codes.is_some());
        let rows: usize = with.map(|(block, _)| block.len as usize).sum();
        if rows == 0 || rows / ROWS_A_HIT < packed.k {
            return None;
        }
        let count = packed.norms.len();
        let mut prescan = Self {
            dots,
            plane: Plane::new(packed.dim, count),
            queries: Vec::with_capacity(count),
            reached: (0..count)
                .map(|_| AtomicU32::new(ordered(f32::NEG_INFINITY)))
                .collect(),
            codes,
        };
        let mut coded = vec![0; packed.dim];
        for query in 0..count {
            let numbers = &packed.queries.get(query)[..packed.dim];
            let known = Query::new(packed.metric, numbers, &mut coded)?;
            prescan.plane.set(query, &coded);
            prescan.queries.push(known);
        }
        Some(prescan)
    }
}

/// Rows of a piece of coded work.
pub(super) fn piece_rows(dim: usize) -> usize {
    (PIECE_BYTES / (lines_of(dim) * 4)).next_multiple_of(STRIP)
}

/// A row that may be among the nearest.
#[derive(Clone, Copy)]
pub(super) struct Maybe {
    /// Its rank is at most this.
    pub(super) most: f32,
    pub(super) block: u32,
    pub(super) row: u32,
}

/// What a thread has seen of one query.
struct Seen {
    /// The best of the ranks that rows have at least, `k` of them at most, the least on top.
    least: BinaryHeap<Reverse<u32>>,
    maybes: Vec<Maybe>,
    threshold: f32,
    look: Look,
    range: Range,
}

/// A thread's part in a search by codes.
pub(super) struct Looker<'s> {
    prescan: &'s Prescan,
    k: usize,
    seen: Vec<Seen>,
    products: Box<[Products; GROUP_QUERIES]>,
    /// Queries times rows that were looked at, and those of them that were scored.
    pub(super) looked: u64,
    pub(super) scored: u64,
}

impl<'s> Looker<'s> {
    pub(super) fn new(prescan: &'s Prescan, k: usize) -> Self {
        let seen = |query: &Query| Seen {
            least: BinaryHeap::with_capacity(k.min(STRIP)),
            maybes: Vec::with_capacity(2 * STRIP),
            threshold: f32::NEG_INFINITY,
            look: query.look(f32::NEG_INFINITY),
            range: query.range(),
        };
        Self {
            prescan,
            k,
            seen: prescan.queries.iter().map(seen).collect(),
            products: Box::new([[0; STRIP]; GROUP_QUERIES]),
            looked: 0,
            scored: 0,
        }
    }

    /// Raises a query's threshold to a rank that `k` rows reach.
    pub(super) fn raise(&mut self, query: usize, rank: f32) {
        let reached = &self.prescan.reached[query];
        let mine = ordered(rank);
        let mut all = reached.load(Ordering::Relaxed);
        if mine > all {
            // Not without need: it takes the line from the others' caches.
            all = reached.fetch_max(mine, Ordering::Relaxed).max(mine);
        }
        let seen = &mut self.seen[query];
        if rank_of(all) > seen.threshold {
            seen.threshold = rank_of(all);
            seen.look = self.prescan.queries[query].look(seen.threshold);
        }
    }

    /// A rank that `k` rows reach.
    pub(super) fn threshold(&self, query: usize) -> f32 {
        self.seen[query].threshold
    }

    /// Looks at the rows of a strip that are set in `live`; whether some query has more candidates
    /// than are kept.
    pub(super) fn strip(&mut self, block: usize, codes: &Codes, strip: usize, live: u64) -> bool {
        let (lines, side) = (codes.lines(strip), codes.side(strip));
        let count = self.seen.len();
        self.looked += u64::from(live.count_ones()) * count as u64;
        let mut full = false;
        for first in (0..count).step_by(GROUP_QUERIES) {
            let here = (count - first).min(GROUP_QUERIES);
            let (dots, plane) = (self.prescan.dots, &self.prescan.plane);
            let room = dots.room(here);
            // SAFETY: the kernels were chosen for this CPU.
            unsafe { dots.strip(lines, side, plane, first, &mut self.products[..room]) };
            for i in 0..here {
                let seen = &self.seen[first + i];
                // SAFETY: the same.
                let pass = unsafe { dots.pass(side, &self.products[i], &seen.look) } & live;
                if pass != 0 {
                    full |= self.collect(first + i, i, block, (codes, strip), pass);
                }
            }
        }
        full
    }

    /// Collects the rows of a strip that have passed for a query; `at` is the place of its products.
    fn collect(
        &mut self,
        query: usize,
        at: usize,
        block: usize,
        (codes, strip): (&Codes, usize),
        pass: u64,
    ) -> bool {
        self.raise(query, f32::NEG_INFINITY);
        let (side, products) = (codes.side(strip), &self.products[at]);
        let seen = &mut self.seen[query];
        let before = seen.threshold;
        let (mut threshold, mut left) = (before, pass);
        while left != 0 {
            let row = left.trailing_zeros() as usize;
            left &= left - 1;
            let (scale, residual, norm) = (side.scale[row], side.residual[row], side.norm[row]);
            let [least, most] = seen.range.of(products[row], scale, residual, norm);
            if most < threshold {
                continue;
            }
            seen.maybes.push(Maybe {
                most,
                block: block as u32,
                row: (strip * STRIP + row) as u32,
            });
            let least = ordered(least);
            if seen.least.len() < self.k {
                seen.least.push(Reverse(least));
            } else if let Some(mut worst) = seen.least.peek_mut()
                && least > worst.0
            {
                *worst = Reverse(least);
            }
            if seen.least.len() == self.k
                && let Some(worst) = seen.least.peek()
            {
                threshold = threshold.max(rank_of(worst.0));
            }
        }
        if threshold > before {
            self.raise(query, threshold);
        }
        let seen = &mut self.seen[query];
        if seen.maybes.len() < CANDIDATES_MAX.max(2 * self.k) {
            return false;
        }
        let threshold = seen.threshold;
        seen.maybes.retain(|maybe| maybe.most >= threshold);
        seen.maybes.len() >= CANDIDATES_MAX.max(2 * self.k) / 2
    }

    /// Queries that have more candidates than are kept.
    pub(super) fn full(&self) -> Vec<usize> {
        let most = CANDIDATES_MAX.max(2 * self.k) / 2;
        let is_full = |query: &usize| self.seen[*query].maybes.len() >= most;
        (0..self.seen.len()).filter(is_full).collect()
    }

    /// Takes a query's candidates, the most promising first.
    pub(super) fn take(&mut self, query: usize) -> Vec<Maybe> {
        self.raise(query, f32::NEG_INFINITY);
        let seen = &mut self.seen[query];
        let mut maybes = std::mem::take(&mut seen.maybes);
        maybes.retain(|maybe| maybe.most >= seen.threshold);
        maybes.sort_unstable_by(|a, b| b.most.total_cmp(&a.most));
        maybes
    }
}
