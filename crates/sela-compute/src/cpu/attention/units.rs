//! Attention of one head over one sequence by what multiplies the numbers of blocks: in bf16 on the tiles
//! of Intel's AMX or by AVX-512 BF16, in int16 by AVX-512 VNNI.
//!
//! Queries, keys and values come rounded to bf16 (or split in two parts, of which three products are
//! summed, see [`Form`]) or become codes here, as weights do; scores and sums are f32. Sixteen queries at a
//! time meet all keys, 32 a step, while the sixteen before become weights, and 32 the values; the result goes
//! as bf16 into the left side of the next product, or to rows of f32 or of codes. Keys lie transposed and values in
//! pairs, as a tile reads its right side, and a register does.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

mod kind;
mod product;
mod softmax;
#[cfg(test)]
mod tests;

use std::arch::x86_64::*;

pub(crate) use kind::Rounded;
use kind::{Bf16, Coded, Codes, Kind, SCORE_CHUNK, VALUE_CHUNK, with_codes};
use product::{Product16, Scores};
use softmax::{largest, score_factor, weigh};

use super::Head;
use crate::cpu::amx::Tiles;
use crate::cpu::blocks::{Form, Left, Line, Midway, Twice};
use crate::cpu::gemm::Rows;
use crate::cpu::lanes::Lanes;
use crate::cpu::lanes::x86::Avx512;

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
    /// As codes of 16 bits, `per` to a unit, beyond which none goes, into such rows: two to a word, the numbers
    /// of a line that are sixteen apart.
    Codes { rows: Rows<*mut u32>, per: f32 },
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
    /// For each 32 keys, a tile; of two tiles of queries.
    weights: usize,
    /// Sixteen rows of f32 of each of the two.
    scores: usize,
    /// The same.
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
            weights: part(2 * copies * padded / DEPTH * TILE),
            scores: part(2 * padded),
            out: part(2 * dim),
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
pub(crate) unsafe fn attention_in_codes(head: &Head, to: To, scratch: *mut Line) {
    // SAFETY: the caller's promise.
    unsafe {
        // No closure, nor one that is long below: what is not inlined lacks the instructions that its
        // caller has (`tests/inlined` finds it).
        let head = Of {
            query: Coded::new(head.query, head),
            key: Coded::new(head.key, head),
            value: Coded::new(head.value, head),
            len: head.len,
            dim: head.dim,
        };
        run::<Codes>(None, &head, to, scratch);
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
        // Lines of a tile of queries' weights.
        let of_weights = padded / DEPTH * TILE;
        let weights = twice(parts.weights, 2 * of_weights);
        let (scores, out) = (scratch.add(parts.scores), scratch.add(parts.out));
        transpose_keys::<K>(head, keys);
        pair_values::<K>(head, values);
        let all = len.div_ceil(TILE);
        let mut factors = [[0.0; TILE]; 2];
        let mut ahead = begin::<K>(head, keys, query, scores, 0);
        ahead.go_on::<K>(tiles, padded);
        for tile in 0..all {
            let (here, rows) = (tile % 2, TILE.min(len - tile * TILE));
            let row = ahead.to.cast::<f32>().cast_const();
            let mut most = [0.0; TILE];
            // All first: no row's weights wait for its largest score then.
            for r in 0..rows {
                most[r] = largest(row.add(r * padded), len);
            }
            if tile + 1 < all {
                let to = scores.add((1 - here) * padded);
                ahead = begin::<K>(head, keys, query, to, tile + 1);
            }
            for r in 0..rows {
                // Meanwhile tiles multiply, if there are any.
                ahead.go_on::<K>(tiles, padded * (r + 1) / rows);
                let weights = weights.add(here * of_weights + r);
                factors[here][r] =
                    1.0 / weigh::<K>(row.add(r * padded), most[r], len, dim, weights);
            }
            // Two tiles of queries, so that values are loaded half as often.
            if here == 0 && tile + 1 < all {
                continue;
            }
            for column in (0..columns).step_by(2) {
                let product = Product16 {
                    rows: if here == 0 { rows } else { TILE },
                    left: weights,
                    left_stride: TILE,
                    right: [0, 1].map(|j| values.add((column + j) * TILE)),
                    right_stride: columns * TILE,
                    steps: padded / DEPTH,
                    chunk: VALUE_CHUNK,
                    // What a weight's code stands for is in the sum of the codes too.
                    step: K::step(head.value),
                };
                let second = (here == 1).then(|| (weights.add(of_weights), rows));
                product.store_both::<K>(tiles, second, out.add(column), dim);
            }
            let first = (tile - here) * TILE;
            for r in 0..here * TILE + rows {
                let row = out.cast::<f32>().add(r * dim);
                let factor = _mm512_set1_ps(factors[r / TILE][r % TILE]);
                send::<K>(row, dim, factor, to, first + r);
            }
        }
    }
}

/// Scores of a tile of queries, none there yet.
///
/// # Safety
///
/// As for [`run`], inside which it is; scores before are done.
#[inline(always)]
unsafe fn begin<K: Kind>(
    head: &Of<K::Rows>,
    keys: Twice,
    query: Twice,
    to: *mut Line,
    tile: usize,
) -> Scores {
    let (lines, first) = (lines(head.dim), tile * TILE);
    let rows = TILE.min(head.len - first);
    // SAFETY: the caller's promise.
    unsafe {
        let (left, left_stride) = K::rows(head.query, first, rows, lines, query);
        let product = Product16 {
            rows,
            left,
            left_stride,
            right: [keys, keys.add(lines * TILE)],
            right_stride: TILE,
            steps: lines,
            chunk: SCORE_CHUNK,
            step: match K::CODES {
                true => K::step(head.query) * K::step(head.key) * score_factor::<K>(head.dim),
                false => 1.0,
            },
        };
        Scores {
            product,
            to,
            padded: head.len.next_multiple_of(DEPTH),
            done: 0,
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
                To::Codes { rows, per } => {
                    let at = rows.at.add(r * rows.stride + line * TILE);
                    if _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(low, high) != 0 {
                        _mm512_storeu_si512(at.cast(), _mm512_set1_epi32(Midway::NONE as i32));
                        continue;
                    }
                    let per = _mm512_set1_ps(per);
                    let both = [Avx512(with_codes(low, per)), Avx512(with_codes(high, per))];
                    Avx512::store_low_halves(both, at);
                }
            }
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
