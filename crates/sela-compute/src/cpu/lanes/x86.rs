//! AVX2 and AVX-512 lanes.

use super::Lanes;
use std::arch::x86_64::*;

/// Eight f32 values; needs AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

// SAFETY of every block below: the trait's contract, AVX2 + FMA + F16C are enabled by the caller
// and the pointers are valid for eight values.
impl Lanes for Avx2 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_i32(from: *const i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_cvtepi32_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, self.0) };
    }
    #[inline(always)]
    unsafe fn store_low_bytes([a, b, c, d]: [Self; 4], to: *mut u32) {
        // SAFETY: see above.
        unsafe {
            // What is above a number's byte leaves at the top.
            let a = _mm256_and_si256(_mm256_castps_si256(a.0), _mm256_set1_epi32(0xff));
            let b = _mm256_slli_epi32::<24>(_mm256_castps_si256(b.0));
            let c = _mm256_slli_epi32::<24>(_mm256_castps_si256(c.0));
            let d = _mm256_slli_epi32::<24>(_mm256_castps_si256(d.0));
            let ab = _mm256_or_si256(a, _mm256_srli_epi32::<16>(b));
            let cd = _mm256_or_si256(_mm256_srli_epi32::<8>(c), d);
            _mm256_storeu_si256(to.cast(), _mm256_or_si256(ab, cd));
        }
    }
    #[inline(always)]
    unsafe fn store_low_words(self, to: *mut u16) {
        // SAFETY: see above.
        unsafe {
            let words = _mm256_and_si256(_mm256_castps_si256(self.0), _mm256_set1_epi32(0xffff));
            let (low, high) = (
                _mm256_castsi256_si128(words),
                _mm256_extracti128_si256::<1>(words),
            );
            _mm_storeu_si128(to.cast(), _mm_packus_epi32(low, high));
        }
    }
    #[inline(always)]
    unsafe fn store_low_halves([one, two]: [Self; 2], to: *mut u32) {
        // SAFETY: see above.
        unsafe {
            let (one, two) = (_mm256_castps_si256(one.0), _mm256_castps_si256(two.0));
            // Of each word the upper half from the second.
            let both = _mm256_blend_epi16::<0xaa>(one, _mm256_slli_epi32::<16>(two));
            _mm256_storeu_si256(to.cast(), both);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)
        })
    }
    #[inline(always)]
    unsafe fn exp2_int(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = _mm_add_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = _mm_max_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// Sixteen f32 values; needs AVX-512 F, BW and DQ.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(in crate::cpu) __m512);

// SAFETY of every block below: the trait's contract, AVX-512 F, BW and DQ are enabled by the caller
// and the pointers are valid for sixteen values.
impl Lanes for Avx512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn load_i32(from: *const i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_loadu_si512(from.cast())) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) };
    }
    #[inline(always)]
    unsafe fn store_low_bytes([a, b, c, d]: [Self; 4], to: *mut u32) {
        // SAFETY: see above.
        unsafe {
            let (a, b) = (_mm512_castps_si512(a.0), _mm512_castps_si512(b.0));
            let (c, d) = (_mm512_castps_si512(c.0), _mm512_castps_si512(d.0));
            // Of each bit the second where the first, a mask, has it set, and the third elsewhere.
            const CHOOSE: i32 = 0xca;
            let ab = _mm512_slli_epi32::<8>(b);
            let ab = _mm512_ternarylogic_epi32::<CHOOSE>(_mm512_set1_epi32(0xff), a, ab);
            let cd = _mm512_slli_epi32::<8>(d);
            let cd = _mm512_ternarylogic_epi32::<CHOOSE>(_mm512_set1_epi32(0xff), c, cd);
            // The same with both halves of a word.
            let abcd = _mm512_slli_epi32::<16>(cd);
            let abcd = _mm512_ternarylogic_epi32::<CHOOSE>(_mm512_set1_epi32(0xffff), ab, abcd);
            _mm512_storeu_si512(to.cast(), abcd);
        }
    }
    #[inline(always)]
    unsafe fn store_low_words(self, to: *mut u16) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_si256(
                to.cast(),
                _mm512_cvtepi32_epi16(_mm512_castps_si512(self.0)),
            );
        }
    }
    #[inline(always)]
    unsafe fn store_low_halves([one, two]: [Self; 2], to: *mut u32) {
        // SAFETY: see above.
        unsafe {
            let (one, two) = (_mm512_castps_si512(one.0), _mm512_castps_si512(two.0));
            // Half 2i of the first beside half 2i of the second, which are numbered from 32 on.
            let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
            let order = _mm512_or_si512(
                even,
                _mm512_slli_epi32::<16>(_mm512_add_epi32(even, _mm512_set1_epi32(32))),
            );
            _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(one, order, two));
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn within(self, limit: Self) -> Self {
        // The smaller magnitude, with the sign of the first.
        // SAFETY: see above.
        Self(unsafe { _mm512_range_ps::<0b0010>(self.0, limit.0) })
    }
    #[inline(always)]
    unsafe fn fma(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)
        })
    }
    #[inline(always)]
    unsafe fn exp2_int(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
        }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above; AVX-512 implies AVX2.
        unsafe {
            let low = _mm512_castps512_ps256(self.0);
            Avx2(_mm256_add_ps(low, _mm512_extractf32x8_ps::<1>(self.0))).sum()
        }
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        // SAFETY: see above; AVX-512 implies AVX2.
        unsafe {
            let low = _mm512_castps512_ps256(self.0);
            Avx2(_mm256_max_ps(low, _mm512_extractf32x8_ps::<1>(self.0))).max_lane()
        }
    }
}

/// 32 numbers rounded to bf16, ties to even; numbers too small for a normal f32 become zero.
///
/// # Safety
///
/// The CPU has AVX-512 BF16, which the caller enables.
#[inline(always)]
pub(in crate::cpu) unsafe fn bf16_line(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the caller's promise; both are 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// What [`bf16_line`] leaves of the numbers that it made `upper` of, rounded in turn.
///
/// # Safety
///
/// As for [`bf16_line`].
#[inline(always)]
pub(in crate::cpu) unsafe fn bf16_left_over(upper: __m512i, low: __m512, high: __m512) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_sub_ps(low, bf16_widened(_mm512_castsi512_si256(upper)));
        let high = _mm512_sub_ps(high, bf16_widened(_mm512_extracti64x4_epi64::<1>(upper)));
        bf16_line(low, high)
    }
}

/// # Safety
///
/// As for [`bf16_line`].
#[inline(always)]
unsafe fn bf16_widened(x: __m256i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x))) }
}
