//! Attention of one head over one sequence on the tiles of Intel's AMX, beside products of bf16.
//!
//! Queries, keys, values and weights are rounded to bf16, scores and sums are f32. Sixteen queries
//! at a time meet all keys, sixteen or 32 a step; the result goes as bf16 into the left side of the
//! next product. Keys lie transposed and values in pairs, as a tile reads its right side.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::asm;
use std::arch::x86_64::*;

use crate::cpu::amx::{Product, Tiles};
use crate::cpu::bf16::{Left, Line};
use crate::cpu::lanes::Lanes;
use crate::cpu::lanes::x86::Avx512;
use crate::cpu::math::exp2_coarse;

/// Rows of a tile.
const TILE: usize = 16;
/// Numbers of bf16 in a tile's row, and in a line.
const DEPTH: usize = super::TILE_DEPTH;

/// One head of one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// Queries, keys and values of the head: first rows; all three share a stride.
    pub(crate) query: *const f32,
    pub(crate) key: *const f32,
    pub(crate) value: *const f32,
    pub(crate) stride: usize,
    /// Tokens of the sequence.
    pub(crate) len: usize,
    /// Numbers of a head, for which [`fits_tiles`](super::fits_tiles).
    pub(crate) dim: usize,
    /// The left side that the result becomes part of, the sequence's first row there and the head's
    /// first line of a row.
    pub(crate) out: Left,
    pub(crate) row: usize,
    pub(crate) step: usize,
}

/// Whether this CPU can.
pub(crate) fn is_available() -> bool {
    Product::Bf16.is_available() && is_x86_feature_detected!("avx512bf16")
}

/// Lines of a head's row.
pub(crate) fn lines(dim: usize) -> usize {
    dim / DEPTH
}

/// Lines of scratch that [`attention`] needs for sequences of up to `len` tokens.
pub(crate) fn scratch_lines(len: usize, dim: usize) -> usize {
    Parts::of(len, dim).end
}

/// Where the parts of the scratch begin, in lines.
struct Parts {
    /// For each 16 keys and each line of a head, a tile.
    keys: usize,
    /// For each 32 keys and 16 numbers of a head, a tile.
    values: usize,
    /// A tile for each line of a head.
    query: usize,
    /// Sixteen rows of f32.
    scores: usize,
    /// For each 32 keys, a tile.
    weights: usize,
    /// Sixteen rows of f32.
    out: usize,
    end: usize,
}

impl Parts {
    fn of(len: usize, dim: usize) -> Self {
        let padded = len.next_multiple_of(DEPTH);
        let values = padded / TILE * dim / DEPTH * TILE;
        let query = 2 * values;
        let scores = query + dim / DEPTH * TILE;
        let weights = scores + padded;
        let out = weights + padded / DEPTH * TILE;
        Self {
            keys: 0,
            values,
            query,
            scores,
            weights,
            out,
            end: out + dim,
        }
    }
}

/// `softmax(q k^T / sqrt(dim)) v` into the lines of the head.
///
/// # Safety
///
/// [`is_available`] and [`fits_tiles`](super::fits_tiles); `tiles` are laid out. `head` describes readable rows and lines that
/// nothing else touches; `scratch` holds [`scratch_lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
pub(crate) unsafe fn attention(_tiles: &Tiles, head: &Head, scratch: *mut Line) {
    let Head { len, dim, .. } = *head;
    let padded = len.next_multiple_of(DEPTH);
    let (lines, columns) = (lines(dim), dim / TILE);
    let parts = Parts::of(len, dim);
    // SAFETY: the caller's promise; the parts are as `Parts` has them.
    unsafe {
        let keys = scratch.add(parts.keys);
        let values = scratch.add(parts.values);
        let query = scratch.add(parts.query);
        let scores = scratch.add(parts.scores);
        let weights = scratch.add(parts.weights);
        let out = scratch.add(parts.out);
        transpose_keys(head, keys);
        pair_values(head, values);
        for first in (0..len).step_by(TILE) {
            let rows = TILE.min(len - first);
            for line in 0..lines {
                for r in 0..TILE {
                    let row = row_of(head.query, head, first + r, line);
                    store(query.add(line * TILE + r), row);
                }
            }
            for tile in (0..padded / TILE).step_by(2) {
                let to = Product16 {
                    left: query,
                    left_stride: TILE,
                    right: [0, 1].map(|j| keys.add((tile + j) * lines * TILE).cast_const()),
                    right_stride: TILE,
                    steps: lines,
                };
                to.store(scores.add(tile), padded);
            }
            let mut factors = [0.0; TILE];
            for r in 0..rows {
                let scores = scores.cast::<f32>().add(r * padded);
                factors[r] = softmax(scores, len, dim, weights.add(r));
            }
            for column in (0..columns).step_by(2) {
                let to = Product16 {
                    left: weights,
                    left_stride: TILE,
                    right: [0, 1].map(|j| values.add((column + j) * TILE).cast_const()),
                    right_stride: columns * TILE,
                    steps: padded / DEPTH,
                };
                to.store(out.add(column), dim);
            }
            for r in 0..rows {
                let factor = _mm512_set1_ps(factors[r]);
                for line in 0..lines {
                    let at = out.cast::<f32>().add(r * dim + line * DEPTH);
                    let half = |i: usize| _mm512_mul_ps(_mm512_loadu_ps(at.add(i)), factor);
                    let both = _mm512_cvtne2ps_pbh(half(TILE), half(0));
                    let to = head.out.line(head.row + first + r, head.step + line);
                    store(to, std::mem::transmute::<__m512bh, __m512i>(both));
                }
            }
        }
    }
}

/// 16 rows times two right sides of 16 columns each.
struct Product16 {
    /// A tile a step.
    left: *const Line,
    left_stride: usize,
    right: [*const Line; 2],
    right_stride: usize,
    steps: usize,
}

impl Product16 {
    /// Stores the sums, the two right sides' beside each other, in rows of `stride` f32 numbers.
    ///
    /// # Safety
    ///
    /// The tiles are laid out; there are as many lines as this says, and room for the sums.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
    unsafe fn store(&self, to: *mut Line, stride: usize) {
        let [one, two] = self.right;
        // SAFETY: the caller's promise; nothing but these pieces of assembly touches tiles between
        // them.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                options(nostack, nomem, preserves_flags)
            );
            for step in 0..self.steps {
                asm!(
                    "tileloadd tmm4, [{left} + {line}*1]",
                    "tileloadd tmm6, [{one} + {line}*1]",
                    "tileloadd tmm7, [{two} + {line}*1]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    left = in(reg) self.left.add(step * self.left_stride),
                    one = in(reg) one.add(step * self.right_stride),
                    two = in(reg) two.add(step * self.right_stride),
                    line = in(reg) size_of::<Line>(),
                    options(nostack, readonly, preserves_flags)
                );
            }
            asm!(
                "tilestored [{to} + {row}*1], tmm0",
                "tilestored [{to} + {row}*1 + 64], tmm1",
                to = in(reg) to,
                row = in(reg) stride * size_of::<f32>(),
                options(nostack, preserves_flags)
            );
        }
    }
}

/// # Safety
///
/// There is such a line.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn store(to: *mut Line, numbers: __m512i) {
    // SAFETY: the caller's promise; lines are aligned.
    unsafe { _mm512_store_si512(to.cast(), numbers) };
}

/// A line of a row of queries or keys; zeros behind the last row.
///
/// # Safety
///
/// As for [`attention`], inside which it is.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn row_of(of: *const f32, head: &Head, row: usize, line: usize) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        if row >= head.len {
            return _mm512_setzero_si512();
        }
        let at = of.add(row * head.stride + line * DEPTH);
        let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(at.add(TILE)), _mm512_loadu_ps(at));
        std::mem::transmute::<__m512bh, __m512i>(both)
    }
}

/// Writes sixteen keys a tile, pairs of a head's numbers below each other.
///
/// # Safety
///
/// As for [`attention`], inside which it is.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn transpose_keys(head: &Head, to: *mut Line) {
    let lines = head.dim / DEPTH;
    for tile in 0..head.len.next_multiple_of(DEPTH) / TILE {
        for line in 0..lines {
            // SAFETY: the caller's promise.
            unsafe {
                let mut rows = [_mm512_setzero_si512(); TILE];
                for r in 0..TILE {
                    rows[r] = row_of(head.key, head, tile * TILE + r, line);
                }
                let columns = transposed(rows);
                for r in 0..TILE {
                    store(to.add((tile * lines + line) * TILE + r), columns[r]);
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
unsafe fn pair_values(head: &Head, to: *mut Line) {
    let columns = head.dim / TILE;
    // SAFETY: the caller's promise.
    unsafe {
        // Numbers 0 and 16, 1 and 17, and so on.
        let first = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        let order = _mm512_or_si512(
            first,
            _mm512_slli_epi32::<16>(_mm512_add_epi32(first, _mm512_set1_epi32(TILE as i32))),
        );
        for pair in 0..head.len.next_multiple_of(DEPTH) / 2 {
            let (step, line) = (pair / TILE, pair % TILE);
            for column in 0..columns {
                let number = |key: usize| match key < head.len {
                    true => _mm512_loadu_ps(head.value.add(key * head.stride + column * TILE)),
                    false => _mm512_setzero_ps(),
                };
                let both = _mm512_cvtne2ps_pbh(number(2 * pair + 1), number(2 * pair));
                let both = std::mem::transmute::<__m512bh, __m512i>(both);
                let at = (step * columns + column) * TILE + line;
                store(to.add(at), _mm512_permutexvar_epi16(order, both));
            }
        }
    }
}

/// Writes `exp((score - largest) / sqrt(dim))` of a row of scores as lines of weights, a tile apart,
/// zeros behind the last, and returns 1 over their sum.
///
/// # Safety
///
/// As for [`attention`], inside which it is.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
unsafe fn softmax(scores: *const f32, len: usize, dim: usize, weights: *mut Line) -> f32 {
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
        let factor = std::f32::consts::LOG2_E / (dim as f32).sqrt();
        let offset = _mm512_set1_ps(-factor * _mm512_reduce_max_ps(largest));
        let factor = _mm512_set1_ps(factor);
        let mut sum = _mm512_setzero_ps();
        for step in 0..len.div_ceil(DEPTH) {
            let mut half = |at: usize| {
                let here = match at / TILE {
                    i if i < full => u16::MAX,
                    i if i == full => rest,
                    _ => return _mm512_setzero_ps(),
                };
                let x = _mm512_fmadd_ps(_mm512_load_ps(scores.add(at)), factor, offset);
                let Avx512(e) = exp2_coarse(Avx512(x));
                let e = _mm512_maskz_mov_ps(here, e);
                sum = _mm512_add_ps(sum, e);
                e
            };
            let (low, high) = (half(step * DEPTH), half(step * DEPTH + TILE));
            let both = _mm512_cvtne2ps_pbh(high, low);
            let to = weights.add(step * TILE);
            store(to, std::mem::transmute::<__m512bh, __m512i>(both));
        }
        1.0 / Avx512(sum).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::print_stdout)] // It says what this CPU lacks.

    use super::*;
    use crate::cpu::bf16::{Room, Split};

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state as f32 / 2f32.powi(31) - 1.0) * 2.0
        };
        (0..n).map(step).collect()
    }

    /// Two heads of a sequence that begins in the third row, as numbers.
    fn on_tiles(projected: &[f32], len: usize, dim: usize) -> Vec<f32> {
        const BEFORE: usize = 3;
        let (heads, stride) = (2, 6 * dim);
        let mut room = Room::default();
        room.fit(BEFORE + len, heads * dim, Split::One);
        let left = room.left(heads * dim);
        // What an earlier call left there must not matter.
        let mut scratch = vec![Line::NAN; scratch_lines(len, dim)];
        let mut found = Vec::new();
        // SAFETY: the caller has asked whether there are tiles; all rows and lines are there.
        unsafe {
            let tiles = Tiles::lay_out();
            for head in 0..heads {
                let query = projected.as_ptr().add(head * dim);
                let head = Head {
                    query,
                    key: query.add(heads * dim),
                    value: query.add(2 * heads * dim),
                    stride,
                    len,
                    dim,
                    out: left,
                    row: BEFORE,
                    step: head * lines(dim),
                };
                attention(&tiles, &head, scratch.as_mut_ptr());
            }
            drop(tiles);
            for row in 0..len {
                for step in 0..heads * lines(dim) {
                    let numbers = *left.line(BEFORE + row, step).cast::<[u16; DEPTH]>();
                    found.extend(numbers.map(|bits| f32::from_bits(u32::from(bits) << 16)));
                }
            }
        }
        found
    }

    /// The same in f64, of numbers rounded to bf16.
    fn expected(projected: &[f32], len: usize, dim: usize) -> Vec<f64> {
        let number = |row: usize, part: usize, at: usize| {
            let x = projected[row * 6 * dim + part * 2 * dim + at];
            half::bf16::from_f32(x).to_f64()
        };
        let mut found = vec![0.0; len * 2 * dim];
        for (head, row) in (0..2).flat_map(|head| (0..len).map(move |row| (head, row))) {
            let first = head * dim;
            let score = |key: usize| {
                let products =
                    (0..dim).map(|i| number(row, 0, first + i) * number(key, 1, first + i));
                products.sum::<f64>() / (dim as f64).sqrt()
            };
            let scores: Vec<f64> = (0..len).map(score).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for i in 0..dim {
                let values = (0..len).map(|key| weights[key] * number(key, 2, first + i));
                found[row * 2 * dim + first + i] = values.sum::<f64>() / sum;
            }
        }
        found
    }

    #[test]
    fn tiles_attend_as_f64_does_at_lengths_around_every_border() {
        if !is_available() {
            return println!("skipped: this CPU has no tiles for bf16");
        }
        for dim in [32, 64, 96] {
            for len in [1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 65, 200, 512] {
                let projected = noise(len * 6 * dim, (len * dim) as u32);
                let found = on_tiles(&projected, len, dim);
                let expected = expected(&projected, len, dim);
                assert_eq!(found.len(), expected.len());
                for (at, (x, y)) in found.iter().zip(expected).enumerate() {
                    // Weights and results are rounded by up to 2^-9; values are below 2.
                    let off = (f64::from(*x) - y).abs();
                    assert!(
                        off <= 8e-3,
                        "{len} tokens, {dim}: number {at} is {x}, not {y}"
                    );
                }
            }
        }
    }

    #[test]
    fn scores_beyond_what_an_exponential_holds_are_no_trouble() {
        if !is_available() {
            return println!("skipped: this CPU has no tiles for bf16");
        }
        let (len, dim) = (40, 32);
        let mut projected = noise(len * 6 * dim, 7);
        // Scores beyond what an exponential of f32 holds.
        projected.iter_mut().for_each(|x| *x *= 40.0);
        let found = on_tiles(&projected, len, dim);
        for (x, y) in found.iter().zip(expected(&projected, len, dim)) {
            let off = (f64::from(*x) - y).abs();
            assert!(off <= 80.0 * 2e-2, "{x}, not {y}");
        }
        assert!(found.iter().all(|x| x.is_finite()));
    }
}
