//! Tiles: the canonical sums of a few queries with a few rows, all in registers.
//!
//! A tile keeps the sixteen virtual lanes of every pair, so each number read takes part in
//! several pairs. Every pair has accumulators of its own and every sum the canonical tree: the
//! bits of a sum do not depend on the tile it was computed in.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use super::sums::Sums;
use crate::cpu::lanes::{CACHE_LINE, Lanes};
use crate::reference::LANES;

/// Most rows in a tile.
pub(super) const TILE_ROWS_MAX: usize = 4;
/// Bytes of a tail: sixteen numbers.
const TAIL_BYTES: usize = LANES * size_of::<f32>();

/// How stored numbers are read.
pub(super) trait Number: Copy {
    /// Loads a register of them, widened to f32.
    ///
    /// # Safety
    ///
    /// As for [`Lanes`].
    unsafe fn load<V: Lanes>(from: *const Self) -> V;
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(from) }
    }
}

/// The bits of half-precision numbers.
impl Number for u16 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(from) }
    }
}

/// What a metric sums up, and how a sum becomes a rank: the larger, the nearer.
pub(super) trait Rule {
    /// Whether ranks need the rows' norms.
    const NORM: bool = false;

    /// # Safety
    ///
    /// As for [`Lanes`].
    unsafe fn term<V: Lanes>(query: V, row: V, sum: V) -> V;

    fn rank(sum: f32, query_norm: f32, row_norm: f32) -> f32;
}

pub(super) struct Cosine;
pub(super) struct Dot;
pub(super) struct L2;

impl Rule for Cosine {
    const NORM: bool = true;

    #[inline(always)]
    unsafe fn term<V: Lanes>(query: V, row: V, sum: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { query.fma(row, sum) }
    }

    #[inline(always)]
    fn rank(sum: f32, query_norm: f32, row_norm: f32) -> f32 {
        let norms = query_norm * row_norm;
        if norms == 0.0 { 0.0 } else { sum / norms }
    }
}

impl Rule for Dot {
    #[inline(always)]
    unsafe fn term<V: Lanes>(query: V, row: V, sum: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { query.fma(row, sum) }
    }

    #[inline(always)]
    fn rank(sum: f32, _: f32, _: f32) -> f32 {
        sum
    }
}

impl Rule for L2 {
    #[inline(always)]
    unsafe fn term<V: Lanes>(query: V, row: V, sum: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let difference = query.sub(row);
            difference.fma(difference, sum)
        }
    }

    #[inline(always)]
    fn rank(sum: f32, _: f32, _: f32) -> f32 {
        -sum.sqrt()
    }
}

/// The last numbers of some rows, fewer than sixteen, filled up with zeros.
#[repr(C, align(64))]
pub(super) struct Tails<const N: usize>([[u8; TAIL_BYTES]; N]);

impl<const N: usize> Tails<N> {
    /// Empty ones.
    pub(super) fn new() -> Self {
        Self([[0; TAIL_BYTES]; N])
    }

    /// Copies the last `dim % 16` numbers of each row.
    ///
    /// # Safety
    ///
    /// Each row points to `dim` numbers.
    #[inline(always)]
    pub(super) unsafe fn copy<T: Number>(&mut self, rows: &[*const u8], dim: usize) {
        let whole = dim / LANES * LANES;
        if whole == dim {
            return;
        }
        for (row, tail) in rows.iter().zip(&mut self.0) {
            *tail = [0; TAIL_BYTES];
            // SAFETY: the caller's promise; fifteen numbers at most fit into a tail.
            unsafe {
                let from = row.cast::<T>().add(whole).cast();
                let bytes = (dim - whole) * size_of::<T>();
                std::ptr::copy_nonoverlapping(from, tail.as_mut_ptr(), bytes);
            }
        }
    }
}

/// Rows as a pass sees them: the first `len` count, `TILE_ROWS_MAX - 1` more may be read.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, const N: usize> {
    /// Their first bytes.
    pub(super) rows: &'a [*const u8; N],
    /// Their tails, if `dim` is no multiple of sixteen.
    pub(super) tails: &'a Tails<N>,
    pub(super) len: usize,
    pub(super) dim: usize,
}

/// What will be read next, asked for a little at a time so that it is near when its turn comes.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    bytes: &'a [u8],
    at: usize,
    step: usize,
}

impl<'a> Ahead<'a> {
    /// All of `bytes` in so many times.
    pub(super) fn over(bytes: &'a [u8], times: usize) -> Self {
        let step = bytes.len().div_ceil(times.max(1));
        Self { bytes, at: 0, step }
    }

    #[inline(always)]
    fn fetch<V: Sums>(&mut self) {
        let until = (self.at + self.step).min(self.bytes.len());
        while self.at < until {
            V::prefetch(&self.bytes[self.at]);
            self.at += CACHE_LINE;
        }
    }
}

/// Sixteen numbers of each query and row of a tile. With `NORM` the last set of sums is of the
/// rows with themselves, and the last query is not read.
///
/// # Safety
///
/// As for [`Lanes`]; the pointers have sixteen numbers each.
#[inline(always)]
unsafe fn step<
    V: Sums,
    T: Number,
    M: Rule,
    const NV: usize,
    const NA: usize,
    const NR: usize,
    const NORM: bool,
>(
    sums: &mut [[[V; NV]; NR]; NA],
    queries: [*const f32; NA],
    rows: [*const T; NR],
) {
    for h in 0..NV {
        // SAFETY: the caller's promise.
        unsafe {
            let mut numbers = [V::splat(0.0); NR];
            for r in 0..NR {
                numbers[r] = T::load(rows[r].add(h * V::LANES));
            }
            for a in 0..NA {
                if NORM && a == NA - 1 {
                    for r in 0..NR {
                        sums[a][r][h] = numbers[r].fma(numbers[r], sums[a][r][h]);
                    }
                } else {
                    let query = V::load(queries[a].add(h * V::LANES));
                    for r in 0..NR {
                        sums[a][r][h] = M::term(query, numbers[r], sums[a][r][h]);
                    }
                }
            }
        }
    }
}

/// The canonical sums of `NA` queries with `NR` rows from row `first` on; `out` has room for four
/// numbers for each query.
///
/// # Safety
///
/// As for [`Lanes`]; a query has `dim` numbers rounded up to sixteen, a row has `dim`, and its
/// tail was copied.
#[inline(always)]
unsafe fn tile<
    V: Sums,
    T: Number,
    M: Rule,
    const NV: usize,
    const NA: usize,
    const NR: usize,
    const NORM: bool,
    const N: usize,
>(
    queries: [*const f32; NA],
    rows: Rows<'_, N>,
    first: usize,
    out: [*mut f32; NA],
) {
    const { assert!(NV * V::LANES == LANES && NR <= TILE_ROWS_MAX) };
    let mut from = [std::ptr::null::<T>(); NR];
    for r in 0..NR {
        from[r] = rows.rows[first + r].cast();
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[[V::splat(0.0); NV]; NR]; NA];
        let whole = rows.dim / LANES * LANES;
        let mut at = 0;
        while at < whole {
            // The query of a `NORM` set is null.
            let queries = queries.map(|query| query.wrapping_add(at));
            let rows = from.map(|row| row.add(at));
            step::<V, T, M, NV, NA, NR, NORM>(&mut sums, queries, rows);
            at += LANES;
        }
        if whole < rows.dim {
            for r in 0..NR {
                from[r] = rows.tails.0[first + r].as_ptr().cast();
            }
            let queries = queries.map(|query| query.wrapping_add(whole));
            step::<V, T, M, NV, NA, NR, NORM>(&mut sums, queries, from);
        }
        let mut a = 0;
        while a < NA {
            // An odd last query goes twice, to the same place; so does a last row.
            let b = (a + 1).min(NA - 1);
            let r = |i: usize| i.min(NR - 1);
            V::sum8(
                [
                    V::eight(sums[a][r(0)]),
                    V::eight(sums[a][r(1)]),
                    V::eight(sums[a][r(2)]),
                    V::eight(sums[a][r(3)]),
                    V::eight(sums[b][r(0)]),
                    V::eight(sums[b][r(1)]),
                    V::eight(sums[b][r(2)]),
                    V::eight(sums[b][r(3)]),
                ],
                out[a],
                out[b],
            );
            a += 2;
        }
    }
}

/// A pass of `NA` sets of sums over all rows.
///
/// # Safety
///
/// As for a tile: [`Lanes`]; a query has `dim` numbers rounded up to sixteen, each of the first
/// `len + TILE_ROWS_MAX - 1` rows has `dim`, and its tail was copied. Each `out` has room for
/// `len + TILE_ROWS_MAX` numbers.
#[inline(always)]
pub(super) unsafe fn pass<
    V: Sums,
    T: Number,
    M: Rule,
    const NV: usize,
    const NA: usize,
    const NR: usize,
    const NORM: bool,
    const N: usize,
>(
    queries: [*const f32; NA],
    rows: Rows<'_, N>,
    out: [*mut f32; NA],
    ahead: &mut Ahead<'_>,
) {
    for first in (0..rows.len).step_by(NR) {
        ahead.fetch::<V>();
        // SAFETY: the caller's promise; what a tile writes too much, the next one overwrites.
        unsafe {
            let out = out.map(|to| to.add(first));
            tile::<V, T, M, NV, NA, NR, NORM, N>(queries, rows, first, out);
        }
    }
}
