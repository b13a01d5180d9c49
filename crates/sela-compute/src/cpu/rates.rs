//! How fast this CPU's registers multiply: what `CPUID` does not tell.
//!
//! `VDPBF16PS` does twice the work of a fused multiply-add. A Zen 5 starts as many of either a cycle, an
//! Emerald Rapids a quarter as many, so that it is half as fast as plain f32 there.

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
    /// Instructions of a chain in a run: a run takes one to six microseconds.
    const LENGTH: usize = 512;
    /// The best of so many counts: what else ran meanwhile only made others slower.
    const RUNS: usize = 12;
    /// What bf16 must be ahead by, having less to promise. The rates stand in a ratio of powers of two.
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
                    of_f32 = of_f32.min(time(|| multiply_f32(black_box([1.0; CHAINS]))));
                    of_bf16 = of_bf16.min(time(|| multiply_bf16(black_box([1.0; CHAINS]))));
                }
            }
            outpaces(of_bf16, of_f32)
        })
    }

    /// Whether as many instructions of bf16 multiply enough more than those of f32, in these times.
    fn outpaces(of_bf16: Duration, of_f32: Duration) -> bool {
        2.0 * of_f32.as_secs_f64() >= AHEAD * of_bf16.as_secs_f64()
    }

    #[cfg(test)]
    #[test]
    fn bf16_has_to_be_ahead_by_more_than_a_count_is_off() {
        let ns = Duration::from_nanos;
        // Zen 5, also with a tick of 100 ns more; equal work; Emerald Rapids.
        assert!(outpaces(ns(2000), ns(2000)) && outpaces(ns(2100), ns(2000)));
        assert!(!outpaces(ns(4000), ns(2000)) && !outpaces(ns(5600), ns(1400)));
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
    unsafe fn multiply_f32(start: [f32; CHAINS]) -> f32 {
        let x = _mm512_set1_ps(start[0]);
        // Not alike for the compiler, which might make one of them.
        let mut sums = start.map(|x| _mm512_set1_ps(x));
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
    unsafe fn multiply_bf16(start: [f32; CHAINS]) -> f32 {
        let x = _mm512_set1_ps(start[0]);
        // SAFETY: both are 512 bits.
        let pairs = unsafe { std::mem::transmute::<__m512, __m512bh>(x) };
        // Not alike for the compiler, which might make one of them.
        let mut sums = start.map(|x| _mm512_set1_ps(x));
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
