//! How fast this CPU multiplies without reading anything: what `CPUID` does not tell.
//!
//! `VDPBF16PS` does twice the work of a fused multiply-add. A Zen 5 starts as many of either a cycle, an
//! Emerald Rapids a quarter as many, so that it is half as fast as plain f32 there. `VPMADDWD` of AVX2 does
//! twice the work as well, and then its sums have to be added: a Zen 3 starts as many of them as multiply-adds,
//! and the additions beside, a Haswell or a Zen 2 half as many.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::blocks::{Form, Unit};
use super::kernels::Kernels;
use super::lanes::Lanes;

/// Sums that do not wait for each other: more than any instruction's latency times its rate, and with
/// what they multiply no more than there are registers.
const CHAINS: usize = 12;
/// Instructions of a chain in a run: a run takes some microseconds, on tiles some 50.
const LENGTH: usize = 512;
/// The best of so many counts: what else ran meanwhile only made others slower.
const RUNS: usize = 12;

/// Whether `VDPBF16PS` multiplies more numbers than f32 multiply-adds do in the same time. Measured once,
/// within some 100 microseconds; where there is no AVX-512 BF16 it does not.
pub(crate) fn bf16_outpaces_f32() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::bf16_outpaces_f32();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether `VPMADDWD` of AVX2 and the addition after it multiply more numbers than f32 multiply-adds of 256
/// bits do in the same time. Measured once, within some 100 microseconds; without AVX2 they do not.
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "only x86 has it")
)]
pub(crate) fn int16_outpaces_f32() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::int16_outpaces_f32();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Multiply-adds a second of this thread, of products in blocks, or in f32 by those kernels; of split
/// bf16 a third of bf16's. `None` where a unit is emulated.
pub(crate) fn of(kernels: &Kernels, blocks: Option<(Unit, Form)>) -> Option<f64> {
    let Some((unit, form)) = blocks else {
        let mut numbers = [0.5; CHAINS * 16];
        // SAFETY: the kernels are those of an instruction set that this CPU has.
        let best = best(|| unsafe { (kernels.multiply)(&mut black_box(&mut numbers)[..]) });
        return Some((LENGTH * CHAINS * kernels.lanes) as f64 / best.as_secs_f64());
    };
    #[cfg(target_arch = "x86_64")]
    return x86::of(unit, form);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (unit, form);
        None
    }
}

/// As many chains of multiply-adds in f32 registers as [`of`] counts; `numbers` are a register each.
///
/// # Safety
///
/// As for [`Lanes`]; there are at least `CHAINS` registers' numbers.
#[inline(always)]
pub(super) unsafe fn multiply<V: Lanes>(numbers: &mut [f32]) {
    assert!(numbers.len() >= CHAINS * V::LANES, "a register a chain");
    let at = numbers.as_mut_ptr();
    // SAFETY: the caller's promise.
    unsafe {
        let x = V::load(at);
        let mut sums = [x; CHAINS];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(at.add(i * V::LANES));
        }
        for _ in 0..LENGTH {
            for sum in &mut sums {
                *sum = x.mla(x, *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            sum.store(at.add(i * V::LANES));
        }
    }
}

/// The shortest of some runs.
fn best(mut run: impl FnMut()) -> Duration {
    let times = (0..RUNS).map(|_| time(&mut run));
    times.min().unwrap_or(Duration::MAX)
}

fn time(run: impl FnOnce()) -> Duration {
    let began = Instant::now();
    run();
    began.elapsed()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::{CHAINS, LENGTH, RUNS, best, time};
    use crate::cpu::amx::Tiles;
    use crate::cpu::blocks::{Form, Unit};
    use crate::isa::Isa;

    /// What bf16 must be ahead by, having less to promise. The rates stand in a ratio of powers of two.
    const AHEAD: f64 = 1.4;
    /// The same of int16 by AVX2: 2, or 1.5 where three additions or multiplications start a cycle, or 1. A core that
    /// another guest's thread shares starts fewer instructions, of which f32 needs half as many: 1.5 becomes 1.15.
    /// Where they are equal, either will do.
    const AHEAD_INT16: f64 = 1.1;

    pub(super) fn bf16_outpaces_f32() -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            if !Isa::Avx512.is_available() || !is_x86_feature_detected!("avx512bf16") {
                return false;
            }
            // SAFETY: the CPU has both, as was asked above.
            let [of_bf16, of_f32] = unsafe { both(RUNS, multiply_bf16, multiply_f32) };
            outpaces(of_bf16, of_f32, AHEAD)
        })
    }

    pub(super) fn int16_outpaces_f32() -> bool {
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            if !Isa::Avx2.is_available() {
                return false;
            }
            // SAFETY: the CPU has AVX2 and FMA, as was asked above.
            let [of_int16, of_f32] =
                unsafe { both(4 * RUNS, multiply_int16_avx2, multiply_f32_avx2) };
            outpaces(of_int16, of_f32, AHEAD_INT16)
        })
    }

    /// The best of so many times of two.
    ///
    /// # Safety
    ///
    /// The CPU has what both need.
    unsafe fn both(runs: usize, one: unsafe fn(&Noise), two: unsafe fn(&Noise)) -> [Duration; 2] {
        let numbers = noise();
        let mut times = [Duration::MAX; 2];
        // In turn, so that a change of the clock meets both.
        for _ in 0..runs {
            for (best, multiply) in times.iter_mut().zip([one, two]) {
                // SAFETY: the caller's promise.
                *best = (*best).min(time(|| unsafe { multiply(black_box(&numbers)) }));
            }
        }
        times
    }

    /// Whether as many instructions that each do twice the work of f32's multiply more than those by a factor
    /// of `ahead` at least, in these times.
    fn outpaces(of_twice: Duration, of_f32: Duration, ahead: f64) -> bool {
        2.0 * of_f32.as_secs_f64() >= ahead * of_twice.as_secs_f64()
    }

    /// See [`super::of`].
    pub(super) fn of(unit: Unit, form: Form) -> Option<f64> {
        let numbers = noise();
        // Instructions of a run, multiply-adds of each.
        let (best, each) = match (unit, form) {
            // SAFETY: here and below a unit was found on this CPU.
            (Unit::Amx, Form::Bf16 | Form::Bf16x3) => unsafe {
                (best(|| multiply_tiles::<true>(&numbers)), 16 * 16 * 32)
            },
            // SAFETY: as above.
            (Unit::Amx, _) => unsafe { (best(|| multiply_tiles::<false>(&numbers)), 16 * 16 * 64) },
            // SAFETY: as above.
            (Unit::Avx512, Form::Bf16 | Form::Bf16x3) => unsafe {
                (best(|| multiply_bf16(black_box(&numbers))), 32)
            },
            // SAFETY: as above.
            (Unit::Avx512, Form::Int16) => unsafe {
                (best(|| multiply_int16(black_box(&numbers))), 32)
            },
            // SAFETY: as above.
            (Unit::Avx512, Form::Int8) => unsafe {
                (best(|| multiply_int8(black_box(&numbers))), 64)
            },
            // SAFETY: as above.
            (Unit::AvxVnni, Form::Int8) => unsafe {
                (best(|| multiply_int8_avx_vnni(black_box(&numbers))), 32)
            },
            // SAFETY: as above.
            (Unit::AvxVnni, _) => unsafe {
                (best(|| multiply_int16_avx_vnni(black_box(&numbers))), 16)
            },
            // SAFETY: as above.
            (Unit::Avx2, _) => unsafe { (best(|| multiply_int16_avx2(black_box(&numbers))), 16) },
            (Unit::Emulated(_), _) => return None,
        };
        let products = if form == Form::Bf16x3 { 3.0 } else { 1.0 };
        Some((CHAINS * LENGTH * each) as f64 / products / best.as_secs_f64())
    }

    /// A tile's numbers, of no pattern and, as bf16, of no great size.
    #[repr(C, align(64))]
    struct Noise([u32; 256]);

    fn noise() -> Noise {
        let mut state = 1_u32;
        Noise(std::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state & 0x807f_807f | 0x3f00_3f00
        }))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn bf16_has_to_be_ahead_by_more_than_a_count_is_off() {
            let ns = Duration::from_nanos;
            // Zen 5, also with a tick of 100 ns more; equal work; Emerald Rapids.
            let bf16 = |of_bf16, of_f32| outpaces(ns(of_bf16), ns(of_f32), AHEAD);
            assert!(bf16(2000, 2000) && bf16(2100, 2000));
            assert!(!bf16(4000, 2000) && !bf16(5600, 1400));
        }

        #[test]
        fn int16_has_to_do_more_than_as_much_as_f32() {
            let ns = Duration::from_nanos;
            let int16 = |of_int16, of_f32| outpaces(ns(of_int16), ns(of_f32), AHEAD_INT16);
            // Zen 3; Skylake, whose additions take turns with multiplications; Haswell, also with a tick less.
            assert!(int16(2000, 2000) && int16(2700, 2000));
            assert!(!int16(4000, 2000) && !int16(3900, 2000));
        }
    }

    /// Chains of an instruction, or two, on registers of noise.
    macro_rules! chains {
        ($name:ident, $features:literal, |$sum:ident, $x:ident| $multiply:expr) => {
            chains!($name, $features, __m512i, _mm512_xor_si512, |$sum, $x| {
                $multiply
            });
        };
        ($name:ident, $features:literal, $register:ty, $xor:ident,
         |$sum:ident, $x:ident| $multiply:expr) => {
            /// # Safety
            ///
            /// The CPU has the features.
            #[target_feature(enable = $features)]
            unsafe fn $name(numbers: &Noise) {
                // SAFETY: a tile has as many registers as there are chains, and is aligned as they are.
                unsafe {
                    let at = numbers.0.as_ptr().cast::<$register>();
                    let $x = *at;
                    // Not alike for the compiler, which might make one of them.
                    let mut sums: [$register; CHAINS] = [$x; CHAINS];
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = *at.add(i);
                    }
                    for _ in 0..LENGTH {
                        for sum in &mut sums {
                            let $sum = *sum;
                            *sum = $multiply;
                        }
                    }
                    let mut all = $x;
                    for sum in sums {
                        all = $xor(all, sum);
                    }
                    black_box(all);
                }
            }
        };
    }

    chains!(multiply_f32, "avx512f", |sum, x| {
        let x = _mm512_castsi512_ps(x);
        _mm512_castps_si512(_mm512_fmadd_ps(x, x, _mm512_castsi512_ps(sum)))
    });
    chains!(multiply_bf16, "avx512f,avx512bf16", |sum, x| {
        let x = std::mem::transmute::<__m512i, __m512bh>(x);
        _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), x, x))
    });
    chains!(multiply_int16, "avx512f,avx512vnni", |sum, x| {
        _mm512_dpwssd_epi32(sum, x, x)
    });
    chains!(multiply_int8, "avx512f,avx512vnni", |sum, x| {
        _mm512_dpbusd_epi32(sum, x, x)
    });
    chains!(
        multiply_f32_avx2,
        "avx2,fma",
        __m256,
        _mm256_xor_ps,
        |sum, x| _mm256_fmadd_ps(x, x, sum)
    );
    chains!(
        multiply_int16_avx2,
        "avx2",
        __m256i,
        _mm256_xor_si256,
        // Of what changes, or all products would be one.
        |sum, x| _mm256_add_epi32(sum, _mm256_madd_epi16(x, sum))
    );

    chains!(
        multiply_int16_avx_vnni,
        "avx2,avxvnni",
        __m256i,
        _mm256_xor_si256,
        |sum, x| _mm256_dpwssd_avx_epi32(sum, x, x)
    );
    chains!(
        multiply_int8_avx_vnni,
        "avx2,avxvnni",
        __m256i,
        _mm256_xor_si256,
        |sum, x| _mm256_dpbusd_avx_epi32(sum, x, x)
    );

    /// As many products of tiles of noise.
    ///
    /// # Safety
    ///
    /// The CPU has AMX for it and the system allows it.
    unsafe fn multiply_tiles<const BF16: bool>(numbers: &Noise) {
        macro_rules! turn {
            ($product:literal) => {
                asm!(
                    concat!($product, " tmm0, tmm4, tmm6"),
                    concat!($product, " tmm1, tmm4, tmm7"),
                    concat!($product, " tmm2, tmm5, tmm6"),
                    concat!($product, " tmm3, tmm5, tmm7"),
                    options(nostack, nomem, preserves_flags)
                )
            };
        }
        // SAFETY: the caller's promise; nothing else touches tiles meanwhile.
        unsafe {
            let tiles = Tiles::lay_out();
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tileloadd tmm4, [{at} + {line}*1]",
                "tileloadd tmm5, [{at} + {line}*1]",
                "tileloadd tmm6, [{at} + {line}*1]",
                "tileloadd tmm7, [{at} + {line}*1]",
                at = in(reg) numbers,
                line = in(reg) 64_usize,
                options(nostack, readonly, preserves_flags)
            );
            for _ in 0..CHAINS * LENGTH / 4 {
                match BF16 {
                    true => turn!("tdpbf16ps"),
                    false => turn!("tdpbusd"),
                }
            }
            drop(tiles);
        }
    }
}
