//! bf16 products by `VDPBF16PS` of AVX-512 BF16.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::{
    BLOCK, GROUP, Job, Kernel, PAIRS, STEP_LINES, Sending, Term, Tile, first_line,
    run as run_kernel,
};
use crate::cpu::lanes::x86::Avx512;
use crate::isa::Isa;

/// Whether this CPU has it.
pub(super) fn is_available() -> bool {
    Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16")
}

struct Avx512Bf16;

/// The sums of `MR` rows of a block from row `row` on, all of one group.
///
/// # Safety
///
/// As for [`Kernel::block`].
#[inline(always)]
unsafe fn tile<const MR: usize>(row: usize, steps: usize, terms: &[Term], out: &mut Tile) {
    // SAFETY: the caller's promise; a line is one register, a pair is 32 bits.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        for term in terms {
            let left = term.left.add(first_line(row, steps)).cast::<i32>();
            for step in 0..steps {
                let lines = term.panel.add(step * STEP_LINES);
                for pair in 0..PAIRS {
                    let weights = [0, PAIRS].map(|tile| {
                        let line = _mm512_load_si512(lines.add(tile + pair).cast());
                        std::mem::transmute::<__m512i, __m512bh>(line)
                    });
                    for r in 0..MR {
                        let x = *left.add((step * GROUP + r) * PAIRS + pair);
                        let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x));
                        for j in 0..2 {
                            sums[r][j] = _mm512_dpbf16_ps(sums[r][j], x, weights[j]);
                        }
                    }
                }
            }
        }
        for r in 0..MR {
            for j in 0..2 {
                _mm512_store_ps(out.0[row + r].as_mut_ptr().add(j * 16), sums[r][j]);
            }
        }
    }
}

impl Kernel for Avx512Bf16 {
    type Lanes = Avx512;
    type Ready = ();

    #[inline(always)]
    unsafe fn ready() {}

    #[inline(always)]
    unsafe fn block(
        rows: usize,
        steps: usize,
        terms: &[Term],
        sums: &mut Tile,
        meanwhile: &Sending<'_>,
    ) {
        for r in 0..BLOCK {
            // SAFETY: the caller's promise.
            unsafe { meanwhile.send::<Avx512>(r) };
        }
        let mut row = 0;
        while row < rows {
            // SAFETY: the caller's promise; no row behind the last is read.
            row += unsafe {
                match rows - row {
                    8.. => (tile::<8>(row, steps, terms, sums), 8).1,
                    4.. => (tile::<4>(row, steps, terms, sums), 4).1,
                    2.. => (tile::<2>(row, steps, terms, sums), 2).1,
                    _ => (tile::<1>(row, steps, terms, sums), 1).1,
                }
            };
        }
    }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX-512 BF16.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Avx512Bf16>(job) }
}
