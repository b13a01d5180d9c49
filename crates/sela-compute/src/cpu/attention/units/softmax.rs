//! Weights from scores.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::kind::{WEIGHT_MOST, with_codes};
use super::{DEPTH, Kind, TILE, store};
use crate::cpu::blocks::Twice;
use crate::cpu::lanes::x86::Avx512;
use crate::cpu::lanes::{INTEGER, Lanes};
use crate::cpu::math::exp;

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

/// What a score is multiplied by to be an exponent: of 2 or, split, of e.
pub(super) fn score_factor<K: Kind>(dim: usize) -> f32 {
    let scale = 1.0 / (dim as f32).sqrt();
    match K::SPLIT {
        true => scale,
        false => scale * std::f32::consts::LOG2_E,
    }
}

/// The largest of a row of scores.
///
/// # Safety
///
/// As for [`run`], inside which it is; there is a score.
#[inline(always)]
pub(super) unsafe fn largest(scores: *const f32, len: usize) -> f32 {
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
        let [a, b, c, d] = most;
        _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)))
    }
}

/// Writes `exp((score - largest) / sqrt(dim))` of a row of scores as lines of weights, a tile apart,
/// zeros behind the last, and returns their sum; of codes, whose scores are multiplied by [`score_factor`],
/// the sum of the codes.
///
/// # Safety
///
/// As for [`run`], inside which it is.
#[inline(always)]
pub(super) unsafe fn weigh<K: Kind>(
    scores: *const f32,
    largest: f32,
    len: usize,
    dim: usize,
    weights: Twice,
) -> f32 {
    // SAFETY: the caller's promise; scores are there up to the next multiple of 32.
    unsafe {
        let largest = _mm512_set1_ps(largest);
        let factor = _mm512_set1_ps(score_factor::<K>(dim));
        let most = _mm512_set1_ps(WEIGHT_MOST);
        let mut sums = [_mm512_setzero_ps(); 2];
        // Of sixteen scores from `at` on those weights that `here` names, which are added up: of codes what
        // is multiplied, so that however many small ones are rounded, they are parts of a whole. No closure,
        // as above.
        macro_rules! weights_at {
            ($at:expr, $here:expr, $chain:literal) => {{
                // Not multiplied first: the largest, rounded, might be left above zero.
                let x = _mm512_sub_ps(_mm512_load_ps(scores.add($at)), largest);
                // Those of codes are multiplied already, by what a code stands for.
                let x = if K::CODES {
                    x
                } else {
                    _mm512_mul_ps(x, factor)
                };
                let e = if K::SPLIT { exp(Avx512(x)).0 } else { exp2(x) };
                let e = match $here {
                    u16::MAX => e,
                    here => _mm512_maskz_mov_ps(here, e),
                };
                let e = if K::CODES { with_codes(e, most) } else { e };
                let part = match K::CODES {
                    true => _mm512_sub_ps(e, _mm512_set1_ps(INTEGER)),
                    false => e,
                };
                sums[$chain] = _mm512_add_ps(sums[$chain], part);
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
        Avx512(_mm512_add_ps(sums[0], sums[1])).sum()
    }
}
