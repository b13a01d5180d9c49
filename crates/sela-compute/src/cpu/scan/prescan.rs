//! A search by codes: every row is looked at in int8, those that may be among the nearest are
//! scored canonically.
//!
//! For each query a thread keeps the `k` best of the ranks that rows have at least; the k-th of them
//! is a rank that `k` rows reach, so a row that cannot reach it is not among the nearest. After each
//! piece of work threads tell each other the highest of it. Rows that can reach it are collected, and
//! at the end scored from their stored numbers, the most promising first: those of all threads put
//! together for each query, or where queries are fewer than threads each thread's for themselves. An
//! answer has the bits of a full scan.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::bound::{Look, Query, Range};
use super::codes::{Codes, STRIP, lines_of};
use super::dots::{BLOCK, Dots, Plane, Products};
use super::work::Packed;
use crate::scan::Block;

/// Bytes of codes in a piece of work.
const PIECE_BYTES: usize = 384 << 10;
/// A piece is for one query; for more, up to so many, it is as many times smaller: it takes longer, and the
/// last pieces are what threads wait for each other over.
const PIECE_QUERIES: usize = 4;
/// Queries that pass over a strip together: their products stay in a first-level cache.
pub(super) const GROUP_QUERIES: usize = 2 * BLOCK;
/// Candidates of a query that are kept for the end.
const CANDIDATES_MAX: usize = 4_096;
/// Rows of a strip from which on they are taken into the best all at once.
const MANY: usize = 16;
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
    pub(super) handed: Handed,
}

/// The candidates of all threads, to be scored query by query.
pub(super) struct Handed {
    /// What each thread has handed over: for each query its candidates.
    of_threads: Vec<OnceLock<Vec<Vec<Maybe>>>>,
    queries: usize,
    /// The next query to be scored.
    next: AtomicUsize,
}

impl Handed {
    fn new(threads: usize, queries: usize) -> Self {
        Self {
            of_threads: (0..threads).map(|_| OnceLock::new()).collect(),
            queries,
            next: AtomicUsize::new(0),
        }
    }

    /// Hands over what a thread has of each query, once.
    fn hand_over(&self, thread: usize, maybes: Vec<Vec<Maybe>>) {
        let first = self.of_threads[thread].set(maybes).is_ok();
        assert!(first, "a thread hands over once");
    }

    /// The next query to be scored, once all threads have handed theirs over. Each is told once.
    pub(super) fn next_query(&self) -> Option<usize> {
        let query = self.next.fetch_add(1, Ordering::Relaxed);
        (query < self.queries).then_some(query)
    }

    /// The candidates of a query.
    pub(super) fn candidates(&self, query: usize) -> Vec<Maybe> {
        let of_threads = self.of_threads.iter().filter_map(OnceLock::get);
        of_threads.flat_map(|of| &of[query]).copied().collect()
    }
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
        threads: usize,
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
            handed: Handed::new(threads, count),
        };
        let mut coded = vec![0; packed.dim];
        for query in 0..count {
            let numbers = &packed.queries.get(query)[..packed.dim];
            let of = dots.code(numbers, &mut coded);
            let known = Query::new(packed.metric, packed.dim, of)?;
            prescan.plane.set(query, &coded);
            prescan.queries.push(known);
        }
        Some(prescan)
    }
}

/// Rows of a piece of coded work.
pub(super) fn piece_rows(dim: usize, queries: usize) -> usize {
    let bytes = PIECE_BYTES / queries.clamp(1, PIECE_QUERIES);
    (bytes / (lines_of(dim) * 4)).next_multiple_of(STRIP)
}

/// A row that may be among the nearest.
#[derive(Clone, Copy)]
pub(super) struct Maybe {
    /// Its rank is at most this.
    pub(super) most: f32,
    pub(super) block: u32,
    pub(super) row: u32,
}

/// The `k` best of the ranks that rows have at least.
struct Reached {
    k: usize,
    /// The least on top.
    least: BinaryHeap<Reverse<u32>>,
}

impl Reached {
    fn new(k: usize) -> Self {
        Self {
            k,
            least: BinaryHeap::with_capacity(k.min(STRIP)),
        }
    }

    /// Takes in what some rows have at least.
    fn learn(&mut self, least: impl Iterator<Item = f32>) {
        for least in least.map(|rank| Reverse(ordered(rank))) {
            if self.least.len() < self.k {
                self.least.push(least);
            } else if let Some(mut worst) = self.least.peek_mut()
                && least < *worst
            {
                *worst = least;
            }
        }
    }

    /// The same for many rows.
    fn learn_many(&mut self, least: impl Iterator<Item = f32>) {
        let mut all = std::mem::take(&mut self.least).into_vec();
        all.extend(least.map(|rank| Reverse(ordered(rank))));
        if all.len() > self.k {
            // The largest ranks come first: they are reversed.
            all.select_nth_unstable(self.k - 1);
            all.truncate(self.k);
        }
        self.least = BinaryHeap::from(all);
    }

    /// A rank that `k` rows reach.
    fn rank(&self) -> Option<f32> {
        let worst = self.least.peek().filter(|_| self.least.len() == self.k)?;
        Some(rank_of(worst.0))
    }
}

/// What a thread has seen of one query.
struct Seen {
    reached: Reached,
    maybes: Vec<Maybe>,
    threshold: f32,
    range: Range,
}

/// The numbers of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        (word != 0).then(|| {
            word &= word - 1;
            bit
        })
    })
}

/// A thread's part in a search by codes.
pub(super) struct Looker<'s> {
    prescan: &'s Prescan,
    k: usize,
    seen: Vec<Seen>,
    /// For each query, what tells whether a row may reach the threshold.
    looks: Vec<Look>,
    products: Box<[Products; GROUP_QUERIES]>,
    /// The rows of a strip that pass, for each query of a group.
    pass: [u64; GROUP_QUERIES],
    /// Queries times rows that were looked at, and those of them that were scored.
    pub(super) looked: u64,
    pub(super) scored: u64,
}

impl<'s> Looker<'s> {
    pub(super) fn new(prescan: &'s Prescan, k: usize) -> Self {
        let seen = |query: &Query| Seen {
            reached: Reached::new(k),
            maybes: Vec::with_capacity(2 * STRIP),
            threshold: f32::NEG_INFINITY,
            range: query.range(),
        };
        let look = |query: &Query| query.look(f32::NEG_INFINITY);
        Self {
            prescan,
            k,
            seen: prescan.queries.iter().map(seen).collect(),
            looks: prescan.queries.iter().map(look).collect(),
            products: Box::new([[0; STRIP]; GROUP_QUERIES]),
            pass: [0; GROUP_QUERIES],
            looked: 0,
            scored: 0,
        }
    }

    /// Raises a query's threshold to a rank that `k` rows reach, here and for all threads.
    pub(super) fn raise(&mut self, query: usize, rank: f32) {
        self.raise_here(query, rank);
        self.exchange(query);
    }

    /// The same for this thread.
    fn raise_here(&mut self, query: usize, rank: f32) {
        let seen = &mut self.seen[query];
        if rank > seen.threshold {
            seen.threshold = rank;
            self.looks[query] = self.prescan.queries[query].look(rank);
        }
    }

    /// Tells the others of a query's threshold, and takes theirs if it is higher.
    fn exchange(&mut self, query: usize) {
        let reached = &self.prescan.reached[query];
        let mine = ordered(self.seen[query].threshold);
        let all = reached.load(Ordering::Relaxed);
        if mine > all {
            // Not without need: it takes the line from the others' caches.
            reached.fetch_max(mine, Ordering::Relaxed);
        } else if all > mine {
            self.raise_here(query, rank_of(all));
        }
    }

    /// Tells the others of all thresholds, and takes theirs where they are higher. Together, since
    /// the lines they lie in go from cache to cache.
    pub(super) fn exchange_all(&mut self) {
        (0..self.seen.len()).for_each(|query| self.exchange(query));
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
            let looks = &self.looks[first..first + here];
            // SAFETY: the kernels were chosen for this CPU.
            unsafe {
                dots.strip(lines, side, plane, first, &mut self.products[..room]);
                dots.pass(side, &self.products[..here], looks, &mut self.pass[..here]);
            }
            for i in 0..here {
                let pass = self.pass[i] & live;
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
        let (side, products) = (codes.side(strip), &self.products[at]);
        let seen = &mut self.seen[query];
        // SAFETY: the kernels were chosen for this CPU.
        let [least, most] = unsafe { self.prescan.dots.ranges(side, products, &seen.range) };
        let many = pass.count_ones() as usize >= MANY.max(self.k / 4);
        let of = bits(pass).map(|row| least[row]);
        match many {
            true => seen.reached.learn_many(of),
            false => seen.reached.learn(of),
        }
        if let Some(reached) = seen.reached.rank() {
            self.raise_here(query, reached);
        }
        let seen = &mut self.seen[query];
        let threshold = seen.threshold;
        for row in bits(pass).filter(|row| most[*row] >= threshold) {
            seen.maybes.push(Maybe {
                most: most[row],
                block: block as u32,
                row: (strip * STRIP + row) as u32,
            });
        }
        if seen.maybes.len() < self.most() {
            return false;
        }
        self.exchange(query);
        let seen = &mut self.seen[query];
        seen.maybes.retain(|maybe| maybe.most >= seen.threshold);
        seen.maybes.len() >= self.most() / 2
    }

    /// Candidates of a query that are kept.
    fn most(&self) -> usize {
        CANDIDATES_MAX.max(2 * self.k)
    }

    /// Takes the candidates of queries that have half as many as are kept, or more.
    pub(super) fn full(&mut self) -> Vec<(usize, Vec<Maybe>)> {
        let most = self.most() / 2;
        let queries = self.seen.iter_mut().enumerate();
        let full = queries.filter(|(_, seen)| seen.maybes.len() >= most);
        full.map(|(query, seen)| (query, std::mem::take(&mut seen.maybes)))
            .collect()
    }

    /// Hands over the candidates of all queries, as the thread of that number.
    pub(super) fn hand_over(&mut self, thread: usize) {
        let maybes = self.take();
        self.prescan.handed.hand_over(thread, maybes);
    }

    /// Takes the candidates of all queries.
    pub(super) fn take(&mut self) -> Vec<Vec<Maybe>> {
        self.exchange_all();
        let near = |seen: &mut Seen| {
            let mut maybes = std::mem::take(&mut seen.maybes);
            maybes.retain(|maybe| maybe.most >= seen.threshold);
            maybes
        };
        self.seen.iter_mut().map(near).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_learnt_as_one_by_one() {
        let mut state = 3u32;
        let mut rank = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Few different ones, so that there are ties; some below zero.
            (state >> 28) as f32 - 5.0
        };
        for k in [1, 2, 10, 63, 64, 65] {
            let [mut one, mut other] = [Reached::new(k), Reached::new(k)];
            for count in [1, k - 1, k, k + 1, 64, 5] {
                let ranks: Vec<f32> = (0..count).map(|_| rank()).collect();
                one.learn(ranks.iter().copied());
                other.learn_many(ranks.iter().copied());
                assert_eq!(one.rank(), other.rank(), "{k} best, {count} more");
            }
            assert!(one.rank().is_some());
        }
    }
}
