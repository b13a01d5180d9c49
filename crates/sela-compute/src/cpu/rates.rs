//! How fast this CPU's registers multiply: what `CPUID` does not tell.
//!
//! `VDPBF16PS` does twice the work of a fused multiply-add. AMD's cores start as many of either a
//! cycle, Intel's with AMX beside it a quarter as many, so that it is half as fast as plain f32 there.

/// Whether `VDPBF16PS` multiplies more numbers than f32 multiply-adds do in the same time. Measured once,
/// within some 100 microseconds; where there is no AVX-512 BF16 it does not.
pub(crate) fn bf16_outpaces_f32() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::bf16_outpaces_f32();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use crate::isa::Isa;

    /// Sums that do not wait for each other: more than either instruction's latency times its rate.
    const CHAINS: usize = 16;
    /// Instructions of a chain in a run: a run takes a few microseconds at most.
    const LENGTH: usize = 128;
    /// The best of so many counts: what else ran meanwhile only made others slower.
    const RUNS: usize = 24;
    /// What a unit must be ahead by. The two rates stand in a ratio of whole numbers, so that nothing is
    /// near.
    const AHEAD: f64 = 1.4;

    pub(super) fn bf16_outpaces_f32() -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            if !Isa::Avx512.is_available() || !is_x86_feature_detected!("avx512bf16") {
                return false;
            }
            let (mut of_f32, mut of_bf16) = (Duration::MAX, Duration::MAX);
            for _ in 0..RUNS {
                // SAFETY: the CPU has both, as was asked above.
                unsafe {
                    of_f32 = of_f32.min(time(|| multiply_f32(black_box(1.0))));
                    of_bf16 = of_bf16.min(time(|| multiply_bf16(black_box(1.0))));
                }
            }
            2.0 * of_f32.as_secs_f64() >= AHEAD * of_bf16.as_secs_f64()
        })
    }

    fn time(run: impl FnOnce() -> f32) -> Duration {
        let began = Instant::now();
        black_box(run());
        began.elapsed()
    }

    /// # Safety
    ///
    /// The CPU has AVX-512.
    #[target_feature(enable = "avx512f")]
    unsafe fn multiply_f32(x: f32) -> f32 {
        let x = _mm512_set1_ps(x);
        let mut sums = [x; CHAINS];
        for _ in 0..LENGTH {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(x, x, *sum);
            }
        }
        total(sums)
    }

    /// # Safety
    ///
    /// The CPU has AVX-512 BF16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn multiply_bf16(x: f32) -> f32 {
        let x = _mm512_set1_ps(x);
        // SAFETY: both are 512 bits.
        let pairs = unsafe { std::mem::transmute::<__m512, __m512bh>(x) };
        let mut sums = [x; CHAINS];
        for _ in 0..LENGTH {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
            }
        }
        total(sums)
    }

    /// # Safety
    ///
    /// The CPU has AVX-512.
    #[target_feature(enable = "avx512f")]
    fn total(sums: [__m512; CHAINS]) -> f32 {
        let mut all = _mm512_setzero_ps();
        for sum in sums {
            all = _mm512_add_ps(all, sum);
        }
        _mm512_reduce_add_ps(all)
    }
}
