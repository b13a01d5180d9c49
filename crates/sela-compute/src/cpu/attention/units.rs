//! Attention of one head over one sequence by what multiplies the numbers of blocks: in bf16 on the tiles
//! of Intel's AMX or by AVX-512 BF16, in int16 by AVX-512 VNNI.
//!
//! Queries, keys, values and weights are rounded to bf16 (or split in two parts, of which three
//! products are summed, see [`Form`]) or become codes; scores and sums are f32. Sixteen queries at a
//! time meet all keys, sixteen or 32 a step; the result goes as bf16 into the left side of the next
//! product, or to rows of f32. Keys lie transposed and values in pairs, as a tile reads its right
//! side, and a register does.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

mod kind;
#[cfg(test)]
mod tests;

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

pub(crate) use kind::Rounded;
use kind::{Bf16, Coded, Codes, Kind, SCORE_CHUNK, VALUE_CHUNK, WEIGHT_MOST};

use super::Head;
use crate::cpu::amx::Tiles;
use crate::cpu::blocks::{Form, Left, Line, Twice};
use crate::cpu::gemm::Rows;
use crate::cpu::lanes::Lanes;
use crate::cpu::lanes::x86::Avx512;
use crate::cpu::math::exp;

/// Rows of a tile.
const TILE: usize = 16;
/// Numbers of bf16 in a tile's row, and in a line.
const DEPTH: usize = super::TILE_DEPTH;

/// Where the result goes.
#[derive(Clone, Copy)]
pub(crate) enum To {
    /// Rounded, into a left side.
    Lines {
        /// The left side that it becomes part of, of bf16.
        left: Left,
        /// The sequence's first row there.
        row: usize,
        /// The head's first line of a row.
        step: usize,
    },
    /// As it is, into as many rows as the sequence has tokens.
    Rows(Rows<*mut f32>),
}

/// Lines of a head's row.
pub(crate) fn lines(dim: usize) -> usize {
    dim / DEPTH
}

/// Lines of scratch that attention needs for sequences of up to `len` tokens.
pub(crate) fn scratch_lines(len: usize, dim: usize, form: Form) -> usize {
    Parts::of(len, dim, form).end
}

/// Where the parts of the scratch begin, in lines. What is multiplied is there once or, split, twice:
/// first all upper parts, then all lower ones.
struct Parts {
    /// For each 16 keys and each line of a head, a tile.
    keys: usize,
    /// For each 32 keys and 16 numbers of a head, a tile.
    values: usize,
    /// Of codes, a tile for each line of a head; rows of bf16 are read where they are.
    query: usize,
    /// For each 32 keys, a tile.
    weights: usize,
    /// Sixteen rows of f32.
    scores: usize,
    /// Sixteen rows of f32.
    out: usize,
    end: usize,
}

impl Parts {
    fn of(len: usize, dim: usize, form: Form) -> Self {
        let copies = match form {
            Form::Bf16 | Form::Int8 | Form::Int16 => 1,
            Form::Bf16x3 => 2,
        };
        let padded = len.next_multiple_of(DEPTH);
        let mut end = 0;
        let mut part = |lines: usize| {
            end += lines;
            end - lines
        };
        let of_keys = padded / TILE * lines(dim) * TILE;
        Self {
            keys: part(copies * of_keys),
            values: part(copies * of_keys),
            query: part(match form {
                Form::Int16 => lines(dim) * TILE,
                _ => 0,
            }),
            weights: part(copies * padded / DEPTH * TILE),
            scores: part(padded),
            out: part(dim),
            end,
        }
    }
}

/// One head of one sequence: its queries, keys and values, of `len` tokens, as they are before they are
/// multiplied, and how many numbers each has.
pub(crate) struct Of<R> {
    pub(crate) query: R,
    pub(crate) key: R,
    pub(crate) value: R,
    pub(crate) len: usize,
    pub(crate) dim: usize,
}

/// `softmax(q k^T / sqrt(dim)) v` to its place, in numbers of bf16.
///
/// # Safety
///
/// The CPU has AVX-512 BF16; for the rest as for [`run`], whose `tiles` are those of AMX for bf16 if
/// there are any.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
pub(crate) unsafe fn attention_in_bf16<const SPLIT: bool>(
    tiles: Option<&Tiles>,
    head: &Of<Rounded>,
    to: To,
    scratch: *mut Line,
) {
    // SAFETY: the caller's promise.
    unsafe { run::<Bf16<SPLIT>>(tiles, head, to, scratch) }
}

/// The same in codes of int16.
///
/// # Safety
///
/// The CPU has AVX-512 VNNI; for the rest as for [`run`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
pub(crate) unsafe fn attention_in_codes(head: &Head, to: Rows<*mut f32>, scratch: *mut Line) {
    let Head {
        stride, len, dim, ..
    } = *head;
    // SAFETY: the caller's promise.
    unsafe {
        // No closure, nor one that is long below: what is not inlined lacks the instructions that its
        // caller has (`tests/inlined` finds it).
        let head = Of {
            query: Coded::new(
                Rows {
                    at: head.query,
                    stride,
                },
                len,
                dim,
            ),
            key: Coded::new(
                Rows {
                    at: head.key,
                    stride,
                },
                len,
                dim,
            ),
            value: Coded::new(
                Rows {
                    at: head.value,
                    stride,
                },
                len,
                dim,
            ),
            len,
            dim,
        };
        run::<Codes>(None, &head, To::Rows(to), scratch);
    }
}

/// `softmax(q k^T / sqrt(dim)) v` to its place.
///
/// # Safety
///
/// As for [`Kind`], and the CPU has AVX-512 F, BW, VL and DQ. Heads [fit](super::fits_tiles). Products
/// are on tiles if there are any. `head` describes readable rows, `to` a place that nothing else touches,
/// whose lines are of the kind, and rows where that is codes; `scratch` holds [`scratch_lines`].
#[inline(always)]
unsafe fn run<K: Kind>(tiles: Option<&Tiles>, head: &Of<K::Rows>, to: To, scratch: *mut Line) {
    let Of { len, dim, .. } = *head;
    let padded = len.next_multiple_of(DEPTH);
    let (lines, columns) = (lines(dim), dim / TILE);
    let parts = Parts::of(len, dim, K::FORM);
    // SAFETY: the caller's promise; the parts are as `Parts` has them.
    unsafe {
        let twice = |at: usize, low: usize| Twice {
            at: scratch.add(at),
            low,
        };
        let of_keys = padded / TILE * lines * TILE;
        let (keys, values) = (twice(parts.keys, of_keys), twice(parts.values, of_keys));
        let query = twice(parts.query, lines * TILE);
        let weights = twice(parts.weights, padded / DEPTH * TILE);
        let (scores, out) = (scratch.add(parts.scores), scratch.add(parts.out));
        transpose_keys::<K>(head, keys);
        pair_values::<K>(head, values);
        for first in (0..len).step_by(TILE) {
            let rows = TILE.min(len - first);
            let (left, left_stride) = K::rows(head.query, first, rows, lines, query);
            match tiles {
                // A tile of queries in all: it stays.
                Some(tiles) if lines == 1 && !K::SPLIT => {
                    store_scores(tiles, left.at, keys.at, scores, padded);
                }
                _ => {
                    for tile in (0..padded / TILE).step_by(2) {
                        let product = Product16 {
                            rows,
                            left,
                            left_stride,
                            right: [0, 1].map(|j| keys.add((tile + j) * lines * TILE)),
                            right_stride: TILE,
                            steps: lines,
                            chunk: SCORE_CHUNK,
                            step: K::step(head.query) * K::step(head.key),
                        };
                        product.store::<K>(tiles, scores.add(tile), padded);
                    }
                }
            }
            let mut factors = [0.0; TILE];
            for r in 0..rows {
                let scores = scores.cast::<f32>().add(r * padded);
                factors[r] = softmax::<K>(scores, len, dim, weights.add(r));
            }
            for column in (0..columns).step_by(2) {
                let product = Product16 {
                    rows,
                    left: weights,
                    left_stride: TILE,
                    right: [0, 1].map(|j| values.add((column + j) * TILE)),
                    right_stride: columns * TILE,
                    steps: padded / DEPTH,
                    chunk: VALUE_CHUNK,
                    // What a weight's code stands for is in the sum of the codes too.
                    step: K::step(head.value),
                };
                product.store::<K>(tiles, out.add(column), dim);
            }
            for r in 0..rows {
                let row = out.cast::<f32>().add(r * dim);
                send::<K>(row, dim, _mm512_set1_ps(factors[r]), to, first + r);
            }
        }
    }
}

/// Writes row `r` of the result, times a factor, where it belongs.
///
/// # Safety
///
/// As for [`run`], inside which it is.
#[inline(always)]
unsafe fn send<K: Kind>(from: *const f32, dim: usize, factor: __m512, to: To, r: usize) {
    for line in 0..lines(dim) {
        // SAFETY: the caller's promise.
        unsafe {
            let at = from.add(line * DEPTH);
            let low = _mm512_mul_ps(_mm512_load_ps(at), factor);
            let high = _mm512_mul_ps(_mm512_load_ps(at.add(TILE)), factor);
            match to {
                To::Lines { left, row, step } => {
                    assert!(!K::CODES, "a row becomes codes as a whole");
                    let both = K::line(low, high);
                    let [upper, lower] = left.line(row + r, step + line);
                    _mm512_store_si512(upper.cast(), both[0]);
                    if K::SPLIT {
                        _mm512_store_si512(lower.cast(), both[1]);
                    }
                }
                To::Rows(rows) => {
                    let at = rows.at.add(r * rows.stride + line * DEPTH);
                    _mm512_storeu_ps(at, low);
                    _mm512_storeu_ps(at.add(TILE), high);
                }
            }
        }
    }
}

/// Up to 16 rows times two right sides of 16 columns each.
struct Product16 {
    rows: usize,
    /// A tile a step.
    left: Twice,
    left_stride: usize,
    right: [Twice; 2],
    right_stride: usize,
    steps: usize,
    /// Steps over which sums of codes are integers, and what they stand for.
    chunk: usize,
    step: f32,
}

impl Product16 {
    /// Stores the sums, the two right sides' beside each other, in rows of `stride` f32 numbers;
    /// behind the last row there may be anything.
    ///
    /// # Safety
    ///
    /// There are as many lines as this says, of 16 rows, and room for the sums of 16.
    #[inline(always)]
    unsafe fn store<K: Kind>(&self, tiles: Option<&Tiles>, to: *mut Line, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match tiles {
                Some(tiles) => self.store_tiles::<K>(tiles, to, stride),
                None => self.store_registers::<K>(to.cast(), stride),
            }
        }
    }

    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn store_registers<K: Kind>(&self, to: *mut f32, stride: usize) {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: the caller's promise; no more rows than there are.
            unsafe {
                let to = to.add(row * stride);
                row += match self.rows - row {
                    8.. => (self.sum_rows::<K, 8>(row, to, stride), 8).1,
                    4.. => (self.sum_rows::<K, 4>(row, to, stride), 4).1,
                    2.. => (self.sum_rows::<K, 2>(row, to, stride), 2).1,
                    _ => (self.sum_rows::<K, 1>(row, to, stride), 1).1,
                };
            }
        }
    }

    /// Stores the sums of `MR` rows from row `row` on.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn sum_rows<K: Kind, const MR: usize>(&self, row: usize, to: *mut f32, stride: usize) {
        let [one, two] = self.right;
        // SAFETY: the caller's promise.
        unsafe {
            if K::CODES {
                return self.sum_codes::<K, MR>(row, to, stride);
            }
            let mut sums = [[_mm512_setzero_si512(); 2]; MR];
            let all = 0..self.steps;
            // The small ones first.
            if K::SPLIT {
                let right = [one.at, two.at];
                sums = self.sum_in::<K, MR>(sums, row, self.left.lower(), right, all.clone());
                let right = [one.lower(), two.lower()];
                sums = self.sum_in::<K, MR>(sums, row, self.left.at, right, all.clone());
            }
            sums = self.sum_in::<K, MR>(sums, row, self.left.at, [one.at, two.at], all);
            for r in 0..MR {
                for j in 0..2 {
                    _mm512_store_si512(to.add(r * stride + j * TILE).cast(), sums[r][j]);
                }
            }
        }
    }

    /// The same of codes, a chunk at a time.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn sum_codes<K: Kind, const MR: usize>(&self, row: usize, to: *mut f32, stride: usize) {
        let right = self.right.map(|right| right.at);
        // SAFETY: the caller's promise.
        unsafe {
            let step = _mm512_set1_ps(self.step);
            let mut sums = [[_mm512_setzero_ps(); 2]; MR];
            for first in (0..self.steps).step_by(self.chunk) {
                let chunk = first..self.steps.min(first + self.chunk);
                let zeros = [[_mm512_setzero_si512(); 2]; MR];
                let found = self.sum_in::<K, MR>(zeros, row, self.left.at, right, chunk);
                for r in 0..MR {
                    for j in 0..2 {
                        let found = _mm512_cvtepi32_ps(found[r][j]);
                        sums[r][j] = _mm512_fmadd_ps(found, step, sums[r][j]);
                    }
                }
            }
            for r in 0..MR {
                for j in 0..2 {
                    _mm512_store_ps(to.add(r * stride + j * TILE), sums[r][j]);
                }
            }
        }
    }

    /// Adds a product of `MR` rows from row `row` on to sums in registers, over some steps.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn sum_in<K: Kind, const MR: usize>(
        &self,
        mut sums: [[__m512i; 2]; MR],
        row: usize,
        left: *const Line,
        right: [*mut Line; 2],
        steps: Range<usize>,
    ) -> [[__m512i; 2]; MR] {
        for step in steps {
            for word in 0..TILE {
                // SAFETY: the caller's promise; a line is a register of sixteen words.
                unsafe {
                    let right = right.map(|at| at.add(step * self.right_stride + word));
                    let right = right.map(|line| _mm512_load_si512(line.cast()));
                    for r in 0..MR {
                        let line = left.add(step * self.left_stride + row + r).cast::<i32>();
                        let x = _mm512_set1_epi32(*line.add(word));
                        for j in 0..2 {
                            sums[r][j] = K::add_products(sums[r][j], x, right[j]);
                        }
                    }
                }
            }
        }
        sums
    }

    /// The same on tiles.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline(always)]
    unsafe fn store_tiles<K: Kind>(&self, _: &Tiles, to: *mut Line, stride: usize) {
        let [one, two] = self.right;
        // SAFETY: the caller's promise; nothing but these pieces of assembly touches tiles between
        // them.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                options(nostack, nomem, preserves_flags)
            );
            // The small ones first.
            if K::SPLIT {
                self.sum(self.left.lower(), [one.at, two.at]);
                self.sum(self.left.at, [one.lower(), two.lower()]);
            }
            self.sum(self.left.at, [one.at, two.at]);
            asm!(
                "tilestored [{to} + {row}*1], tmm0",
                "tilestored [{to} + {row}*1 + 64], tmm1",
                to = in(reg) to,
                row = in(reg) stride * size_of::<f32>(),
                options(nostack, preserves_flags)
            );
        }
    }

    /// Adds a product to the sums in tiles.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store), and tiles are laid out.
    #[inline(always)]
    unsafe fn sum(&self, left: *const Line, [one, two]: [*mut Line; 2]) {
        for step in 0..self.steps {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    "tileloadd tmm4, [{left} + {line}*1]",
                    "tileloadd tmm6, [{one} + {line}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{two} + {line}*1]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    left = in(reg) left.add(step * self.left_stride),
                    one = in(reg) one.add(step * self.right_stride),
                    two = in(reg) two.add(step * self.right_stride),
                    line = in(reg) size_of::<Line>(),
                    options(nostack, readonly, preserves_flags)
                );
            }
        }
    }
}

/// Stores the scores of a tile of queries and `padded` keys, a tile for each sixteen, in rows of as many
/// numbers. The same sums as by [`Product16`], but queries are loaded once.
///
/// # Safety
///
/// There are as many lines, and room for sixteen rows; tiles are laid out.
#[inline(always)]
unsafe fn store_scores(
    _: &Tiles,
    queries: *const Line,
    keys: *const Line,
    to: *mut Line,
    padded: usize,
) {
    // SAFETY: the caller's promise; nothing but these pieces of assembly touches tiles between them.
    unsafe {
        asm!(
            "tileloadd tmm4, [{queries} + {line}*1]",
            queries = in(reg) queries,
            line = in(reg) size_of::<Line>(),
            options(nostack, readonly, preserves_flags)
        );
        for tile in (0..padded / TILE).step_by(2) {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm6, [{keys} + {line}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tilezero tmm1",
                "tileloadd tmm7, [{keys} + {line}*1 + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tilestored [{to} + {row}*1], tmm0",
                "tilestored [{to} + {row}*1 + 64], tmm1",
                keys = in(reg) keys.add(tile * TILE),
                to = in(reg) to.add(tile),
                line = in(reg) size_of::<Line>(),
                row = in(reg) padded * size_of::<f32>(),
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Writes a line, and the lower parts if there are any.
///
/// # Safety
///
/// There is such a line, in both.
#[inline(always)]
unsafe fn store<K: Kind>(to: Twice, [upper, lower]: [__m512i; 2]) {
    // SAFETY: the caller's promise; lines are aligned.
    unsafe {
        _mm512_store_si512(to.at.cast(), upper);
        if K::SPLIT {
            _mm512_store_si512(to.lower().cast(), lower);
        }
    }
}

/// Writes sixteen keys a tile, pairs of a head's numbers below each other.
///
/// # Safety
///
/// As for [`run`], inside which it is.
#[inline(always)]
unsafe fn transpose_keys<K: Kind>(head: &Of<K::Rows>, to: Twice) {
    let lines = lines(head.dim);
    for tile in 0..head.len.next_multiple_of(DEPTH) / TILE {
        for line in 0..lines {
            // SAFETY: the caller's promise.
            unsafe {
                let mut rows = [[_mm512_setzero_si512(); TILE]; 2];
                // Zeros behind the last. All sixteen, so that they stay in registers.
                for r in 0..TILE {
                    if tile * TILE + r < head.len {
                        [rows[0][r], rows[1][r]] = K::row(head.key, tile * TILE + r, line);
                    }
                }
                let upper = transposed(rows[0]);
                let lower = if K::SPLIT { transposed(rows[1]) } else { upper };
                for r in 0..TILE {
                    let to = to.add((tile * lines + line) * TILE + r);
                    store::<K>(to, [upper[r], lower[r]]);
                }
            }
        }
    }
}

/// A matrix of 32-bit elements with rows and columns swapped: first inside its blocks of four by
/// four, then the blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
fn transposed(rows: [__m512i; TILE]) -> [__m512i; TILE] {
    let mut quads = rows;
    for i in (0..TILE).step_by(4) {
        let [a, b, c, d] = [rows[i], rows[i + 1], rows[i + 2], rows[i + 3]];
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        quads[i] = _mm512_unpacklo_epi64(low, low2);
        quads[i + 1] = _mm512_unpackhi_epi64(low, low2);
        quads[i + 2] = _mm512_unpacklo_epi64(high, high2);
        quads[i + 3] = _mm512_unpackhi_epi64(high, high2);
    }
    let mut columns = rows;
    for i in 0..4 {
        let [a, b, c, d] = [quads[i], quads[4 + i], quads[8 + i], quads[12 + i]];
        // Blocks 0 and 2 of each, then 1 and 3.
        let (even, odd) = (
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0xdd>(a, b),
        );
        let (even2, odd2) = (
            _mm512_shuffle_i32x4::<0x88>(c, d),
            _mm512_shuffle_i32x4::<0xdd>(c, d),
        );
        columns[i] = _mm512_shuffle_i32x4::<0x88>(even, even2);
        columns[4 + i] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
        columns[8 + i] = _mm512_shuffle_i32x4::<0xdd>(even, even2);
        columns[12 + i] = _mm512_shuffle_i32x4::<0xdd>(odd, odd2);
    }
    columns
}

/// Writes the values, those of two keys side by side; zeros behind the last.
///
/// # Safety
///
/// As for [`run`], inside which it is.
#[inline(always)]
unsafe fn pair_values<K: Kind>(head: &Of<K::Rows>, to: Twice) {
    let columns = head.dim / TILE;
    for pair in 0..head.len.next_multiple_of(DEPTH) / 2 {
        let (step, line) = (pair / TILE, pair % TILE);
        for column in 0..columns {
            // SAFETY: the caller's promise.
            unsafe {
                let both = K::pair(head.value, 2 * pair, head.len, column);
                store::<K>(to.add((step * columns + column) * TILE + line), both);
            }
        }
    }
}

/// `2^x` as a polynomial, fitted for the least relative error on `0 <= x <= 1`.
const EXP2_FIT: [f32; 4] = [0.999_925_2, 0.695_833_56, 0.226_067_16, 0.078_024_52];

/// `2^x` for `x <= 0`, to 8e-5 relative: a twentieth of what rounding to bf16 takes. What is too small
/// becomes zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
fn exp2(x: __m512) -> __m512 {
    // What is above the next lower integer, to which scaling rounds by itself.
    let rest = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF }>(x);
    let mut sum = _mm512_set1_ps(EXP2_FIT[3]);
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(EXP2_FIT[2]));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(EXP2_FIT[1]));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(EXP2_FIT[0]));
    _mm512_scalef_ps(sum, x)
}

/// Writes `exp((score - largest) / sqrt(dim))` of a row of scores as lines of weights, a tile apart,
/// zeros behind the last, and returns 1 over their sum; of codes over the sum of the codes.
///
/// # Safety
///
/// As for [`run`], inside which it is.
#[inline(always)]
unsafe fn softmax<K: Kind>(scores: *const f32, len: usize, dim: usize, weights: Twice) -> f32 {
    // SAFETY: the caller's promise; scores are there up to the next multiple of 32.
    unsafe {
        let full = len / TILE;
        let rest = (1_u16 << (len % TILE)) - 1;
        let lowest = _mm512_set1_ps(f32::MIN);
        // Chains that do not wait for each other.
        let mut most = [lowest; 4];
        for i in (0..full / 4 * 4).step_by(4) {
            for j in 0..4 {
                let x = _mm512_load_ps(scores.add((i + j) * TILE));
                most[j] = _mm512_max_ps(most[j], x);
            }
        }
        for i in full / 4 * 4..full {
            most[0] = _mm512_max_ps(most[0], _mm512_load_ps(scores.add(i * TILE)));
        }
        if rest != 0 {
            let last = _mm512_mask_load_ps(lowest, rest, scores.add(full * TILE));
            most[1] = _mm512_max_ps(most[1], last);
        }
        let largest = _mm512_max_ps(
            _mm512_max_ps(most[0], most[1]),
            _mm512_max_ps(most[2], most[3]),
        );
        let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
        let scale = 1.0 / (dim as f32).sqrt();
        let factor = match K::SPLIT {
            true => _mm512_set1_ps(scale),
            false => _mm512_set1_ps(scale * std::f32::consts::LOG2_E),
        };
        let most = _mm512_set1_ps(WEIGHT_MOST);
        let less = _mm512_mul_ps(largest, factor);
        let mut sums = [_mm512_setzero_ps(); 2];
        // Of sixteen scores from `at` on those weights that `here` names, which are added up: of codes what
        // is multiplied, so that however many small ones are rounded, they are parts of a whole. No closure,
        // as above.
        macro_rules! weights_at {
            ($at:expr, $here:expr, $chain:literal) => {{
                let x = _mm512_load_ps(scores.add($at));
                let e = match K::SPLIT {
                    true => {
                        let x = _mm512_mul_ps(_mm512_sub_ps(x, largest), factor);
                        exp(Avx512(x)).0
                    }
                    false => exp2(_mm512_fmsub_ps(x, factor, less)),
                };
                let e = match $here {
                    u16::MAX => e,
                    here => _mm512_maskz_mov_ps(here, e),
                };
                let e = match K::CODES {
                    true => _mm512_roundscale_ps::<0>(_mm512_mul_ps(e, most)),
                    false => e,
                };
                sums[$chain] = _mm512_add_ps(sums[$chain], e);
                e
            }};
        }
        let whole = len / DEPTH;
        for step in 0..whole {
            let low = weights_at!(step * DEPTH, u16::MAX, 0);
            let high = weights_at!(step * DEPTH + TILE, u16::MAX, 1);
            store::<K>(weights.add(step * TILE), K::line(low, high));
        }
        if !len.is_multiple_of(DEPTH) {
            let here = (1_u32 << (len % DEPTH)) - 1;
            let low = weights_at!(whole * DEPTH, here as u16, 0);
            let high = weights_at!(whole * DEPTH + TILE, (here >> TILE) as u16, 1);
            store::<K>(weights.add(whole * TILE), K::line(low, high));
        }
        1.0 / Avx512(_mm512_add_ps(sums[0], sums[1])).sum()
    }
}
