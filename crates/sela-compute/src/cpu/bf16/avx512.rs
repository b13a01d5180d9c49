//! bf16 products by `VDPBF16PS` of AVX-512 BF16.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Kernel, PAIRS, Packed, STEP_LINES, Term, Tile, run as run_kernel};
use crate::cpu::gemm::Rows;
use crate::isa::Isa;

/// Whether this CPU has it.
pub(super) fn is_available() -> bool {
    Isa::Avx512.is_available() && is_x86_feature_detected!("avx512bf16")
}

struct Avx512Bf16;

/// The sums of `MR` rows of a block from row `row` on: 24 of the 32 registers at most.
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
            let left = term.left.add(row * steps).cast::<i32>();
            for step in 0..steps {
                let lines = term.panel.add(step * STEP_LINES);
                for pair in 0..PAIRS {
                    let weights = [0, PAIRS].map(|tile| {
                        let line = _mm512_load_si512(lines.add(tile + pair).cast());
                        std::mem::transmute::<__m512i, __m512bh>(line)
                    });
                    for r in 0..MR {
                        let x = *left.add((r * steps + step) * PAIRS + pair);
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
    type Ready = ();

    #[inline(always)]
    unsafe fn ready() {}

    #[inline(always)]
    unsafe fn block(rows: usize, steps: usize, terms: &[Term], sums: &mut Tile) {
        let mut row = 0;
        while row < rows {
            // SAFETY: the caller's promise; no row behind the last is read.
            row += unsafe {
                match rows - row {
                    12.. => (tile::<12>(row, steps, terms, sums), 12).1,
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
pub(super) unsafe fn run(
    packed: &Packed,
    rows: usize,
    a: Rows<*const f32>,
    units: Range<usize>,
    c: Rows<*mut f32>,
    keep: bool,
) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Avx512Bf16>(packed, rows, a, units, c, keep) }
}
