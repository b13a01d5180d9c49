//! Canonical sums of eight pairs of vectors at a time.
//!
//! Adding up the lanes of one register is a chain of shuffles and additions. Here eight chains
//! run in the lanes of one: each step halves two registers and puts the halves side by side, so
//! that every sum goes through the very additions of the canonical tree.

use crate::cpu::lanes::{Lanes, plain::Plain};

/// Lanes that can be added up for several pairs at once.
///
/// # Safety
///
/// As for [`Lanes`].
pub(super) trait Sums: Lanes {
    /// Eight lanes: what the first step of the tree leaves of sixteen.
    type Eight: Copy;

    /// The first step of the tree: lane `i` plus lane `i + 8` of `16 / LANES` registers.
    unsafe fn eight<const NV: usize>(lanes: [Self; NV]) -> Self::Eight;

    /// The rest of the tree: the sums of the first four to `low`, of the others to `high`, each
    /// with room for four numbers.
    unsafe fn sum8(of: [Self::Eight; 8], low: *mut f32, high: *mut f32);

    /// Asks for the cache line of a byte ahead of its use, where that can be said.
    fn prefetch(_: &u8) {}
}

impl Sums for Plain {
    type Eight = [f32; 8];

    #[inline(always)]
    unsafe fn eight<const NV: usize>(lanes: [Self; NV]) -> [f32; 8] {
        const { assert!(NV == 4) };
        let mut eight = [0.0; 8];
        // SAFETY: the array has room for two registers of four; safe on every CPU.
        unsafe {
            lanes[0].add(lanes[2]).store(eight.as_mut_ptr());
            lanes[1].add(lanes[3]).store(eight.as_mut_ptr().add(4));
        }
        eight
    }

    #[inline(always)]
    unsafe fn sum8(of: [[f32; 8]; 8], low: *mut f32, high: *mut f32) {
        for (i, x) in of.iter().enumerate() {
            let four: [f32; 4] = std::array::from_fn(|i| x[i] + x[i + 4]);
            let sum = (four[0] + four[2]) + (four[1] + four[3]);
            let to = if i < 4 { low } else { high };
            // SAFETY: the caller promises room for four at both.
            unsafe { to.add(i % 4).write(sum) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Sums;
    use crate::cpu::lanes::Lanes;
    use crate::cpu::lanes::x86::{Avx2, Avx512};
    use std::arch::x86_64::*;

    /// The register itself; the trip through memory is optimised away.
    ///
    /// # Safety
    ///
    /// As for [`Lanes`].
    #[inline(always)]
    unsafe fn raw(lanes: Avx2) -> __m256 {
        let mut numbers = [0.0; 8];
        // SAFETY: room for eight numbers; the caller promises AVX2.
        unsafe {
            lanes.store(numbers.as_mut_ptr());
            _mm256_loadu_ps(numbers.as_ptr())
        }
    }

    /// Lane `i` plus lane `i + 4`: of `a` in the lower half, of `b` in the upper.
    ///
    /// # Safety
    ///
    /// Needs AVX.
    #[inline(always)]
    unsafe fn fold4(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm256_permute2f128_ps::<0x20>(a, b);
            _mm256_add_ps(low, _mm256_permute2f128_ps::<0x31>(a, b))
        }
    }

    /// Lane `i` plus lane `i + 2` of `a`, then of `b`, in both halves.
    ///
    /// # Safety
    ///
    /// Needs AVX.
    #[inline(always)]
    unsafe fn fold2(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm256_shuffle_ps::<0b01_00_01_00>(a, b);
            _mm256_add_ps(low, _mm256_shuffle_ps::<0b11_10_11_10>(a, b))
        }
    }

    /// The sums of neighbours of `a`, then of `b`, in both halves.
    ///
    /// # Safety
    ///
    /// Needs AVX.
    #[inline(always)]
    unsafe fn fold1(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let even = _mm256_shuffle_ps::<0b10_00_10_00>(a, b);
            _mm256_add_ps(even, _mm256_shuffle_ps::<0b11_01_11_01>(a, b))
        }
    }

    #[inline(always)]
    fn prefetch(at: &u8) {
        // SAFETY: a hint that every x86-64 CPU has.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(at).cast()) };
    }

    /// The last three steps of the tree.
    ///
    /// # Safety
    ///
    /// Needs AVX; `low` and `high` have room for four numbers each.
    #[inline(always)]
    unsafe fn sum8(of: [__m256; 8], low: *mut f32, high: *mut f32) {
        let [a, b, c, d, e, f, g, h] = of;
        // SAFETY: the caller's promise.
        unsafe {
            let ab = fold2(fold4(a, e), fold4(b, f));
            let cd = fold2(fold4(c, g), fold4(d, h));
            let sums = fold1(ab, cd);
            _mm_storeu_ps(low, _mm256_castps256_ps128(sums));
            _mm_storeu_ps(high, _mm256_extractf128_ps::<1>(sums));
        }
    }

    impl Sums for Avx2 {
        type Eight = __m256;

        #[inline(always)]
        fn prefetch(at: &u8) {
            prefetch(at);
        }

        #[inline(always)]
        unsafe fn eight<const NV: usize>(lanes: [Self; NV]) -> __m256 {
            const { assert!(NV == 2) };
            // SAFETY: the caller's promise.
            unsafe { raw(lanes[0].add(lanes[1])) }
        }

        #[inline(always)]
        unsafe fn sum8(of: [__m256; 8], low: *mut f32, high: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { sum8(of, low, high) }
        }
    }

    impl Sums for Avx512 {
        type Eight = __m256;

        #[inline(always)]
        fn prefetch(at: &u8) {
            prefetch(at);
        }

        #[inline(always)]
        unsafe fn eight<const NV: usize>(lanes: [Self; NV]) -> __m256 {
            const { assert!(NV == 1) };
            let mut numbers = [0.0; 16];
            // SAFETY: room for sixteen numbers; the caller promises AVX-512. The trip through
            // memory is optimised away.
            unsafe {
                lanes[0].store(numbers.as_mut_ptr());
                let whole = _mm512_loadu_ps(numbers.as_ptr());
                _mm256_add_ps(
                    _mm512_castps512_ps256(whole),
                    _mm512_extractf32x8_ps::<1>(whole),
                )
            }
        }

        #[inline(always)]
        unsafe fn sum8(of: [__m256; 8], low: *mut f32, high: *mut f32) {
            // SAFETY: the caller's promise; AVX-512 implies AVX.
            unsafe { sum8(of, low, high) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::Sums;
    use crate::cpu::lanes::Lanes;
    use crate::cpu::lanes::neon::Neon;
    use std::arch::aarch64::*;

    /// The register itself; the trip through memory is optimised away.
    #[inline(always)]
    fn raw(lanes: Neon) -> float32x4_t {
        let mut numbers = [0.0; 4];
        // SAFETY: room for four numbers; NEON is part of the aarch64 baseline.
        unsafe {
            lanes.store(numbers.as_mut_ptr());
            vld1q_f32(numbers.as_ptr())
        }
    }

    impl Sums for Neon {
        type Eight = [Self; 2];

        #[inline(always)]
        unsafe fn eight<const NV: usize>(lanes: [Self; NV]) -> [Self; 2] {
            const { assert!(NV == 4) };
            // SAFETY: the caller's promise.
            unsafe { [lanes[0].add(lanes[2]), lanes[1].add(lanes[3])] }
        }

        #[inline(always)]
        unsafe fn sum8(of: [[Self; 2]; 8], low: *mut f32, high: *mut f32) {
            for (four, to) in [(&of[..4], low), (&of[4..], high)] {
                // SAFETY: NEON is part of the baseline; the caller promises room for four.
                unsafe {
                    // Lane i plus lane i + 4, then i + 2 for two pairs side by side, then 1.
                    let fold4 = |x: [Self; 2]| raw(x[0].add(x[1]));
                    let fold2 = |a, b| {
                        vaddq_f32(
                            vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
                            vcombine_f32(vget_high_f32(a), vget_high_f32(b)),
                        )
                    };
                    let ab = fold2(fold4(four[0]), fold4(four[1]));
                    let cd = fold2(fold4(four[2]), fold4(four[3]));
                    vst1q_f32(to, vpaddq_f32(ab, cd));
                }
            }
        }
    }
}
