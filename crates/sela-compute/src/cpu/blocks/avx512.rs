//! Products by `VDPBF16PS` of AVX-512 BF16, and of int8 by `VPDPBUSD` of AVX-512 VNNI.

// Loops over registers run over several arrays at once and must unroll.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::{
    BLOCK, Form, GROUP, Job, Kernel, STEP_LINES, Sending, TILE_LINES, Term, Tile, first_line,
    run as run_kernel,
};
use crate::cpu::lanes::x86::Avx512;
use crate::isa::Isa;

/// Whether this CPU has it.
pub(super) fn is_available(form: Form) -> bool {
    let has = match form {
        Form::Bf16 | Form::Bf16x3 => is_x86_feature_detected!("avx512bf16"),
        Form::Int8 => is_x86_feature_detected!("avx512vnni"),
    };
    has && Isa::Avx512.is_available()
}

/// Of int8 or of bf16.
struct Registers<const INT8: bool>;

/// Adds to sixteen sums the products of sixteen words, two numbers of bf16 or four of int8 each.
///
/// # Safety
///
/// The CPU has AVX-512 VNNI or BF16, and the caller enables it.
#[inline(always)]
unsafe fn add_products<const INT8: bool>(sums: __m512i, x: __m512i, weights: __m512i) -> __m512i {
    // SAFETY: the caller's promise; all are 512 bits.
    unsafe {
        match INT8 {
            true => _mm512_dpbusd_epi32(sums, x, weights),
            false => {
                let bf16 = |x| std::mem::transmute::<__m512i, __m512bh>(x);
                let sums = _mm512_castsi512_ps(sums);
                _mm512_castps_si512(_mm512_dpbf16_ps(sums, bf16(x), bf16(weights)))
            }
        }
    }
}

/// The sums of `MR` rows of a block from row `row` on, all of one group.
///
/// # Safety
///
/// As for [`Kernel::block`].
#[inline(always)]
unsafe fn tile<const INT8: bool, const MR: usize>(
    row: usize,
    steps: usize,
    terms: &[Term],
    out: &mut Tile,
) {
    // SAFETY: the caller's promise; a line is one register, a word is 32 bits.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); 2]; MR];
        for term in terms {
            let left = term.left.add(first_line(row, steps)).cast::<i32>();
            for step in 0..steps {
                let lines = term.panel.add(step * STEP_LINES);
                for word in 0..TILE_LINES {
                    let weights = [0, TILE_LINES]
                        .map(|tile| _mm512_load_si512(lines.add(tile + word).cast()));
                    for r in 0..MR {
                        let x = *left.add((step * GROUP + r) * 16 + word);
                        let x = _mm512_set1_epi32(x);
                        for j in 0..2 {
                            sums[r][j] = add_products::<INT8>(sums[r][j], x, weights[j]);
                        }
                    }
                }
            }
        }
        for r in 0..MR {
            for j in 0..2 {
                _mm512_store_si512(out.0[row + r].as_mut_ptr().add(j * 16).cast(), sums[r][j]);
            }
        }
    }
}

impl<const INT8: bool> Kernel for Registers<INT8> {
    const INT8: bool = INT8;
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
            unsafe { meanwhile.send::<Avx512, INT8>(r) };
        }
        let mut row = 0;
        while row < rows {
            // SAFETY: the caller's promise; no row behind the last is read.
            row += unsafe {
                match rows - row {
                    8.. => (tile::<INT8, 8>(row, steps, terms, sums), 8).1,
                    4.. => (tile::<INT8, 4>(row, steps, terms, sums), 4).1,
                    2.. => (tile::<INT8, 2>(row, steps, terms, sums), 2).1,
                    _ => (tile::<INT8, 1>(row, steps, terms, sums), 1).1,
                }
            };
        }
    }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX-512 BF16, and the job is about bf16.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run_bf16(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Registers<false>>(job) }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AVX-512 VNNI, and the job is about int8.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run_int8(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Registers<true>>(job) }
}
