//! Kinds of numbers that attention multiplies, as types.

use std::arch::x86_64::*;

use crate::cpu::blocks::Form;
use crate::cpu::lanes::x86::{bf16_left_over, bf16_line};

/// The largest code of a query, a key or a value on either side of zero.
pub(super) const MOST: f32 = 4095.0;
/// That of a weight. Many small ones add up, so they are rounded more finely.
pub(super) const WEIGHT_MOST: f32 = 8191.0;
/// Steps over which 32 bits hold the sums of scores, and of values, whatever the codes are; then they go
/// to f32.
pub(super) const SCORE_CHUNK: usize = 4;
pub(super) const VALUE_CHUNK: usize = 2;
const _: () = assert!(SCORE_CHUNK * super::DEPTH * 4095 * 4095 <= i32::MAX as usize);
const _: () = assert!(VALUE_CHUNK * super::DEPTH * 4095 * 8191 <= i32::MAX as usize);

/// A kind of numbers.
///
/// # Safety
///
/// All methods may only run on a CPU that has what the kind multiplies by, inside a function that
/// enables it: AVX-512 BF16 for bf16, AVX-512 VNNI for codes.
pub(crate) trait Kind {
    /// What it is called elsewhere.
    const FORM: Form;
    /// Whether there are two parts of each number.
    const SPLIT: bool = matches!(Self::FORM, Form::Bf16x3);
    /// Whether numbers are codes and sums are i32, of a few steps.
    const CODES: bool = matches!(Self::FORM, Form::Int16);

    /// 32 numbers as a line, and what that leaves of them, where that is asked for. `per` is of codes:
    /// as many as a unit has.
    unsafe fn line(low: __m512, high: __m512, per: __m512) -> [__m512i; 2];

    /// Adds to sixteen sums the products of sixteen pairs.
    unsafe fn add_products(sums: __m512i, x: __m512i, y: __m512i) -> __m512i;
}

/// bf16.
pub(crate) enum Whole {}

/// bf16 in two parts.
pub(crate) enum Split {}

/// Codes of 16 bits, as many to a unit as the largest of a head's queries, keys or values allows.
pub(crate) enum Codes {}

/// # Safety
///
/// As for [`Kind`].
#[inline(always)]
unsafe fn add_bf16(sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
    // SAFETY: the caller's promise; all are 512 bits.
    unsafe {
        // No closures here and below: what is not inlined lacks the instructions that its caller
        // has (`tests/inlined` finds it).
        let x = std::mem::transmute::<__m512i, __m512bh>(x);
        let y = std::mem::transmute::<__m512i, __m512bh>(y);
        _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sums), x, y))
    }
}

/// # Safety
///
/// As for [`Kind`].
#[inline(always)]
unsafe fn code(x: __m512, per: __m512) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(x, per))) }
}

impl Kind for Whole {
    const FORM: Form = Form::Bf16;

    #[inline(always)]
    unsafe fn line(low: __m512, high: __m512, _: __m512) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe { [bf16_line(low, high), _mm512_setzero_si512()] }
    }

    #[inline(always)]
    unsafe fn add_products(sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { add_bf16(sums, x, y) }
    }
}

impl Kind for Split {
    const FORM: Form = Form::Bf16x3;

    #[inline(always)]
    unsafe fn line(low: __m512, high: __m512, _: __m512) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let upper = bf16_line(low, high);
            [upper, bf16_left_over(upper, low, high)]
        }
    }

    #[inline(always)]
    unsafe fn add_products(sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { add_bf16(sums, x, y) }
    }
}

impl Kind for Codes {
    const FORM: Form = Form::Int16;

    #[inline(always)]
    unsafe fn line(low: __m512, high: __m512, per: __m512) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let both = _mm512_castsi256_si512(code(low, per));
            let both = _mm512_inserti64x4::<1>(both, code(high, per));
            [both, _mm512_setzero_si512()]
        }
    }

    #[inline(always)]
    unsafe fn add_products(sums: __m512i, x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_dpwssd_epi32(sums, x, y) }
    }
}
