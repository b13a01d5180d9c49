//! Attention of one head over one sequence in bf16, on the tiles of Intel's AMX or by AVX-512 BF16, beside
//! products of bf16 or int8.
//!
//! Queries, keys, values and weights are rounded to bf16 (or split in two parts, of which three
//! products are summed, see [`Form`]), scores and sums are f32. Sixteen queries at a time meet all
//! keys, sixteen or 32 a step; the result goes as bf16 into the left side of the next product, or to
//! rows of f32. Keys lie transposed and values in pairs, as a tile reads its right side, and a register
//! does.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

#[cfg(test)]
mod tests;

use std::arch::asm;
use std::arch::x86_64::*;

use super::Head;
use crate::cpu::amx::Tiles;
use crate::cpu::blocks::{Form, Left, Line};
use crate::cpu::gemm::Rows;
use crate::cpu::lanes::Lanes;
use crate::cpu::lanes::x86::Avx512;
use crate::cpu::math::{EXP2_FIT, exp};

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

/// Lines of scratch that [`attention`] needs for sequences of up to `len` tokens.
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
    /// A tile for each line of a head.
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
            query: part(copies * lines(dim) * TILE),
            weights: part(copies * padded / DEPTH * TILE),
            scores: part(padded),
            out: part(dim),
            end,
        }
    }
}

/// Lines that are there once or, with a lower part of each so many lines behind it, twice.
#[derive(Clone, Copy)]
struct Twice {
    at: *mut Line,
    low: usize,
}

impl Twice {
    /// # Safety
    ///
    /// There is such a line.
    #[inline(always)]
    unsafe fn add(self, lines: usize) -> Self {
        // SAFETY: the caller's promise.
        let at = unsafe { self.at.add(lines) };
        Self { at, ..self }
    }

    /// # Safety
    ///
    /// There is a lower part.
    #[inline(always)]
    unsafe fn lower(self) -> *mut Line {
        // SAFETY: the caller's promise.
        unsafe { self.at.add(self.low) }
    }
}

/// `softmax(q k^T / sqrt(dim)) v` to its place; `THREE` is [`Form::Bf16x3`].
///
/// # Safety
///
/// The CPU has AVX-512 BF16, and heads [fit](super::fits_tiles). Products are on tiles if there are
/// any, which are those of AMX for bf16. `head` describes readable rows, `to` a place that nothing
/// else touches, whose lines are split if `THREE`; `scratch` holds [`scratch_lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
pub(crate) unsafe fn attention<const THREE: bool>(
    tiles: Option<&Tiles>,
    head: &Head,
    to: To,
    scratch: *mut Line,
) {
    let Head { len, dim, .. } = *head;
    let padded = len.next_multiple_of(DEPTH);
    let (lines, columns) = (lines(dim), dim / TILE);
    let parts = Parts::of(
        len,
        dim,
        match THREE {
            true => Form::Bf16x3,
            false => Form::Bf16,
        },
    );
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
        transpose_keys::<THREE>(head, keys);
        pair_values::<THREE>(head, values);
        for first in (0..len).step_by(TILE) {
            let rows = TILE.min(len - first);
            for line in 0..lines {
                for r in 0..TILE {
                    let row = row_of::<THREE>(head.query, head, first + r, line);
                    store::<THREE>(query.add(line * TILE + r), row);
                }
            }
            for tile in (0..padded / TILE).step_by(2) {
                let product = Product16 {
                    rows,
                    left: query,
                    right: [0, 1].map(|j| keys.add((tile + j) * lines * TILE)),
                    right_stride: TILE,
                    steps: lines,
                };
                product.store::<THREE>(tiles, scores.add(tile), padded);
            }
            let mut factors = [0.0; TILE];
            for r in 0..rows {
                let scores = scores.cast::<f32>().add(r * padded);
                factors[r] = softmax::<THREE>(scores, len, dim, weights.add(r));
            }
            for column in (0..columns).step_by(2) {
                let product = Product16 {
                    rows,
                    left: weights,
                    right: [0, 1].map(|j| values.add((column + j) * TILE)),
                    right_stride: columns * TILE,
                    steps: padded / DEPTH,
                };
                product.store::<THREE>(tiles, out.add(column), dim);
            }
            for r in 0..rows {
                let row = out.cast::<f32>().add(r * dim);
                send::<THREE>(row, dim, _mm512_set1_ps(factors[r]), to, first + r);
            }
        }
    }
}

/// Writes row `r` of the result, times a factor, where it belongs.
///
/// # Safety
///
/// As for [`attention`], inside which it is.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn send<const THREE: bool>(from: *const f32, dim: usize, factor: __m512, to: To, r: usize) {
    for line in 0..lines(dim) {
        // SAFETY: the caller's promise.
        unsafe {
            let at = from.add(line * DEPTH);
            let low = _mm512_mul_ps(_mm512_load_ps(at), factor);
            let high = _mm512_mul_ps(_mm512_load_ps(at.add(TILE)), factor);
            match to {
                To::Lines { left, row, step } => {
                    let both = split::<THREE>(low, high);
                    let [upper, lower] = left.line(row + r, step + line);
                    _mm512_store_si512(upper.cast(), both[0]);
                    if THREE {
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
    right: [Twice; 2],
    right_stride: usize,
    steps: usize,
}

impl Product16 {
    /// Stores the sums, the two right sides' beside each other, in rows of `stride` f32 numbers;
    /// behind the last row there may be anything.
    ///
    /// # Safety
    ///
    /// There are as many lines as this says, of 16 rows, and room for the sums of 16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn store<const THREE: bool>(&self, tiles: Option<&Tiles>, to: *mut Line, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match tiles {
                Some(tiles) => self.store_tiles::<THREE>(tiles, to, stride),
                None => self.store_registers::<THREE>(to.cast(), stride),
            }
        }
    }

    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn store_registers<const THREE: bool>(&self, to: *mut f32, stride: usize) {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: the caller's promise; no more rows than there are.
            unsafe {
                let to = to.add(row * stride);
                row += match self.rows - row {
                    8.. => (self.sum_rows::<THREE, 8>(row, to, stride), 8).1,
                    4.. => (self.sum_rows::<THREE, 4>(row, to, stride), 4).1,
                    2.. => (self.sum_rows::<THREE, 2>(row, to, stride), 2).1,
                    _ => (self.sum_rows::<THREE, 1>(row, to, stride), 1).1,
                };
            }
        }
    }

    /// Stores the sums of `MR` rows from row `row` on.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn sum_rows<const THREE: bool, const MR: usize>(
        &self,
        row: usize,
        to: *mut f32,
        stride: usize,
    ) {
        let [one, two] = self.right;
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        // SAFETY: the caller's promise.
        unsafe {
            // The small ones first.
            if THREE {
                sums = self.sum_in(sums, row, self.left.lower(), [one.at, two.at]);
                sums = self.sum_in(sums, row, self.left.at, [one.lower(), two.lower()]);
            }
            sums = self.sum_in(sums, row, self.left.at, [one.at, two.at]);
            for r in 0..MR {
                for j in 0..2 {
                    _mm512_store_ps(to.add(r * stride + j * TILE), sums[r][j]);
                }
            }
        }
    }

    /// Adds a product of `MR` rows from row `row` on to sums in registers.
    ///
    /// # Safety
    ///
    /// As for [`store`](Self::store).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn sum_in<const MR: usize>(
        &self,
        mut sums: [[__m512; 2]; MR],
        row: usize,
        left: *const Line,
        right: [*mut Line; 2],
    ) -> [[__m512; 2]; MR] {
        // SAFETY: both are 512 bits.
        let pairs = |x: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(x) };
        for step in 0..self.steps {
            for word in 0..TILE {
                // SAFETY: the caller's promise; a line is a register of sixteen words.
                unsafe {
                    let right = right.map(|at| at.add(step * self.right_stride + word));
                    let right = right.map(|line| pairs(_mm512_load_si512(line.cast())));
                    for r in 0..MR {
                        let line = left.add(step * TILE + row + r).cast::<i32>();
                        let x = pairs(_mm512_set1_epi32(*line.add(word)));
                        for j in 0..2 {
                            sums[r][j] = _mm512_dpbf16_ps(sums[r][j], x, right[j]);
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
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn store_tiles<const THREE: bool>(&self, _: &Tiles, to: *mut Line, stride: usize) {
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
            if THREE {
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
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn sum(&self, left: *const Line, [one, two]: [*mut Line; 2]) {
        for step in 0..self.steps {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(
                    "tileloadd tmm4, [{left} + {line}*1]",
                    "tileloadd tmm6, [{one} + {line}*1]",
                    "tileloadd tmm7, [{two} + {line}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    left = in(reg) left.add(step * TILE),
                    one = in(reg) one.add(step * self.right_stride),
                    two = in(reg) two.add(step * self.right_stride),
                    line = in(reg) size_of::<Line>(),
                    options(nostack, readonly, preserves_flags)
                );
            }
        }
    }
}

/// 32 numbers rounded to bf16, and what that leaves of them, rounded in turn; zeros where that is
/// not asked for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
fn split<const THREE: bool>(low: __m512, high: __m512) -> [__m512i; 2] {
    // SAFETY: both are 512 bits.
    let bits = |x: __m512bh| unsafe { std::mem::transmute::<__m512bh, __m512i>(x) };
    let upper = bits(_mm512_cvtne2ps_pbh(high, low));
    if !THREE {
        return [upper, _mm512_setzero_si512()];
    }
    let wide = |x: __m256i| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)));
    let low = _mm512_sub_ps(low, wide(_mm512_castsi512_si256(upper)));
    let high = _mm512_sub_ps(high, wide(_mm512_extracti64x4_epi64::<1>(upper)));
    [upper, bits(_mm512_cvtne2ps_pbh(high, low))]
}

/// # Safety
///
/// There is such a line, also of the lower parts if `THREE`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn store<const THREE: bool>(to: Twice, [upper, lower]: [__m512i; 2]) {
    // SAFETY: the caller's promise; lines are aligned.
    unsafe {
        _mm512_store_si512(to.at.cast(), upper);
        if THREE {
            _mm512_store_si512(to.lower().cast(), lower);
        }
    }
}

/// A line of a row of queries or keys; zeros behind the last row.
///
/// # Safety
///
/// As for [`attention`], inside which it is.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn row_of<const THREE: bool>(
    of: *const f32,
    head: &Head,
    row: usize,
    line: usize,
) -> [__m512i; 2] {
    if row >= head.len {
        return [_mm512_setzero_si512(); 2];
    }
    // SAFETY: the caller's promise.
    unsafe {
        let at = of.add(row * head.stride + line * DEPTH);
        split::<THREE>(_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(TILE)))
    }
}

/// Writes sixteen keys a tile, pairs of a head's numbers below each other.
///
/// # Safety
///
/// As for [`attention`], inside which it is.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn transpose_keys<const THREE: bool>(head: &Head, to: Twice) {
    let lines = lines(head.dim);
    for tile in 0..head.len.next_multiple_of(DEPTH) / TILE {
        for line in 0..lines {
            // SAFETY: the caller's promise.
            unsafe {
                let mut rows = [[_mm512_setzero_si512(); TILE]; 2];
                for r in 0..TILE {
                    [rows[0][r], rows[1][r]] =
                        row_of::<THREE>(head.key, head, tile * TILE + r, line);
                }
                let upper = transposed(rows[0]);
                let lower = if THREE { transposed(rows[1]) } else { upper };
                for r in 0..TILE {
                    let to = to.add((tile * lines + line) * TILE + r);
                    store::<THREE>(to, [upper[r], lower[r]]);
                }
            }
        }
    }
}

/// A matrix of 32-bit elements with rows and columns swapped: first inside its blocks of four by
/// four, then the blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
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
/// As for [`attention`], inside which it is.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn pair_values<const THREE: bool>(head: &Head, to: Twice) {
    let columns = head.dim / TILE;
    // Numbers 0 and 16, 1 and 17, and so on.
    let first = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let second = _mm512_add_epi32(first, _mm512_set1_epi32(TILE as i32));
    let order = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
    for pair in 0..head.len.next_multiple_of(DEPTH) / 2 {
        let (step, line) = (pair / TILE, pair % TILE);
        for column in 0..columns {
            // SAFETY: the caller's promise.
            unsafe {
                let number = |key: usize| match key < head.len {
                    true => _mm512_loadu_ps(head.value.add(key * head.stride + column * TILE)),
                    false => _mm512_setzero_ps(),
                };
                let both = split::<THREE>(number(2 * pair), number(2 * pair + 1));
                let both = both.map(|part| _mm512_permutexvar_epi16(order, part));
                store::<THREE>(to.add((step * columns + column) * TILE + line), both);
            }
        }
    }
}

/// `2^x` for `x <= 0` as [`exp2_coarse`](crate::cpu::math::exp2_coarse) has it, but that what is too
/// small becomes zero by itself.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
fn exp2(x: __m512) -> __m512 {
    let whole = _mm512_roundscale_ps::<0>(x);
    let rest = _mm512_sub_ps(x, whole);
    let [last, others @ ..] = {
        let mut fit = EXP2_FIT;
        fit.reverse();
        fit
    };
    let mut sum = _mm512_set1_ps(last);
    for factor in others {
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(factor));
    }
    _mm512_scalef_ps(sum, whole)
}

/// Writes `exp((score - largest) / sqrt(dim))` of a row of scores as lines of weights, a tile apart,
/// zeros behind the last, and returns 1 over their sum.
///
/// # Safety
///
/// As for [`attention`], inside which it is.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn softmax<const THREE: bool>(
    scores: *const f32,
    len: usize,
    dim: usize,
    weights: Twice,
) -> f32 {
    // SAFETY: the caller's promise; scores are there up to the next multiple of 32.
    unsafe {
        let full = len / TILE;
        let rest = (1_u16 << (len % TILE)) - 1;
        let lowest = _mm512_set1_ps(f32::MIN);
        let mut largest = lowest;
        for i in 0..full {
            largest = _mm512_max_ps(largest, _mm512_load_ps(scores.add(i * TILE)));
        }
        if rest != 0 {
            let last = _mm512_mask_load_ps(lowest, rest, scores.add(full * TILE));
            largest = _mm512_max_ps(largest, last);
        }
        let largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
        let scale = 1.0 / (dim as f32).sqrt();
        let factor = match THREE {
            true => _mm512_set1_ps(scale),
            false => _mm512_set1_ps(scale * std::f32::consts::LOG2_E),
        };
        let mut sum = _mm512_setzero_ps();
        for step in 0..len.div_ceil(DEPTH) {
            let mut half = |at: usize| {
                let here = match at / TILE {
                    i if i < full => u16::MAX,
                    i if i == full => rest,
                    _ => return _mm512_setzero_ps(),
                };
                let x = _mm512_sub_ps(_mm512_load_ps(scores.add(at)), largest);
                let x = Avx512(_mm512_mul_ps(x, factor));
                let e = if THREE { exp(x).0 } else { exp2(x.0) };
                let e = _mm512_maskz_mov_ps(here, e);
                sum = _mm512_add_ps(sum, e);
                e
            };
            let (low, high) = (half(step * DEPTH), half(step * DEPTH + TILE));
            store::<THREE>(weights.add(step * TILE), split::<THREE>(low, high));
        }
        1.0 / Avx512(sum).sum()
    }
}
