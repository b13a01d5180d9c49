//! Products on the tiles of Intel's AMX: of bf16 with f32 sums, of int8 with i32 sums.
//!
//! Four of the eight tiles hold sums (32 rows by 32 outputs), two the left side, two weights. A step is
//! one piece of assembly, and the sums stay in their tiles from one to the next.

use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::{
    BLOCK, Form, GROUP, Job, Kernel, Line, STEP_LINES, Sending, Term, Tile, WIDTH,
    run as run_kernel,
};
use crate::cpu::amx::Tiles;
use crate::cpu::lanes::x86::Avx512;

/// Of int8 or of bf16.
struct Amx<const INT8: bool>;

impl<const INT8: bool> Kernel for Amx<INT8> {
    type Lanes = Avx512;
    type Ready = Tiles;

    #[inline(always)]
    unsafe fn ready() -> Tiles {
        // SAFETY: the caller's promise: the CPU has tiles.
        unsafe { Tiles::lay_out() }
    }

    #[inline(always)]
    unsafe fn block(
        rows: usize,
        steps: usize,
        terms: &[Term],
        sums: &mut Tile,
        meanwhile: &Sending<'_>,
    ) {
        const {
            assert!(BLOCK == 32 && WIDTH == 32 && STEP_LINES == 32 && GROUP == 16);
        }
        let all = steps * terms.len();
        assert!(all > 0, "a product has a depth");
        let (mut step, mut row) = (0, 0);
        // SAFETY: the caller's promise: the left side has two groups of 16 rows, `steps` tiles
        // each, a panel 32 lines a step. A block's rows can all be read, so tiles are always whole.
        // Nothing but this module touches tiles, so sums stay in them from step to step.
        unsafe {
            zero();
            for term in terms {
                let lower = term.left.add(GROUP * steps);
                for at in 0..steps {
                    let upper = term.left.add(at * GROUP);
                    let panel = term.panel.add(at * STEP_LINES);
                    match (rows > GROUP, term.ahead.is_null()) {
                        (true, false) => {
                            let ahead = term.ahead.wrapping_add(at * 4);
                            near::<4>(ahead);
                            whole_step::<INT8>(upper, lower.add(at * GROUP), panel);
                        }
                        (true, true) => {
                            near::<32>(panel.wrapping_add(STREAM));
                            whole_step::<INT8>(upper, lower.add(at * GROUP), panel);
                        }
                        (false, _) => {
                            near::<32>(panel.wrapping_add(STREAM));
                            half_step::<INT8>(upper, panel);
                        }
                    }
                    step += 1;
                    // The share of the rows that are due by now.
                    let due = step * BLOCK / all;
                    while row < due {
                        meanwhile.send::<Avx512>(row);
                        row += 1;
                    }
                }
            }
            match rows > GROUP {
                true => store_whole(sums),
                false => store_half(sums),
            }
        }
    }
}

/// How many lines ahead of where it is read a panel is brought near.
const STREAM: usize = 96;

/// Brings lines near. Any address will do: it is no access.
///
/// # Safety
///
/// None, but that intrinsics are unsafe to call here.
#[inline(always)]
unsafe fn near<const LINES: usize>(from: *const Line) {
    for line in 0..LINES {
        let line = from.wrapping_add(line).cast();
        // SAFETY: every 64-bit x86 has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
}

/// # Safety
///
/// The tiles are laid out, as for all below.
#[inline(always)]
unsafe fn zero() {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem, preserves_flags)
        );
    }
}

/// A step of 32 rows: each tile that is loaded takes part in two products.
///
/// # Safety
///
/// 16 lines each can be read, 32 of the panel.
#[inline(always)]
unsafe fn whole_step<const INT8: bool>(upper: *const Line, lower: *const Line, panel: *const Line) {
    macro_rules! step {
        ($product:literal) => {
            asm!(
                "tileloadd tmm6, [{panel} + {line}*1]",
                "tileloadd tmm4, [{upper} + {line}*1]",
                "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
                "tileloadd tmm5, [{lower} + {line}*1]",
                concat!($product, " tmm0, tmm4, tmm6"),
                concat!($product, " tmm1, tmm4, tmm7"),
                concat!($product, " tmm2, tmm5, tmm6"),
                concat!($product, " tmm3, tmm5, tmm7"),
                upper = in(reg) upper,
                lower = in(reg) lower,
                panel = in(reg) panel,
                line = in(reg) size_of::<Line>(),
                options(nostack, readonly, preserves_flags)
            )
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match INT8 {
            // Codes of the left side are unsigned, those of weights signed.
            true => step!("tdpbusd"),
            false => step!("tdpbf16ps"),
        }
    }
}

/// A step of 16 rows at most: the lower half of the sums is left alone. Two chains of sums a half, so
/// that a product need not wait for the one before it, would change the order of the sums: a text
/// alone would get other bits.
///
/// # Safety
///
/// 16 lines can be read, 32 of the panel.
#[inline(always)]
unsafe fn half_step<const INT8: bool>(upper: *const Line, panel: *const Line) {
    macro_rules! step {
        ($product:literal) => {
            asm!(
                "tileloadd tmm4, [{upper} + {line}*1]",
                "tileloadd tmm6, [{panel} + {line}*1]",
                "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
                concat!($product, " tmm0, tmm4, tmm6"),
                concat!($product, " tmm1, tmm4, tmm7"),
                upper = in(reg) upper,
                panel = in(reg) panel,
                line = in(reg) size_of::<Line>(),
                options(nostack, readonly, preserves_flags)
            )
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match INT8 {
            true => step!("tdpbusd"),
            false => step!("tdpbf16ps"),
        }
    }
}

/// # Safety
///
/// See [`zero`].
#[inline(always)]
unsafe fn store_whole(sums: &mut Tile) {
    // SAFETY: the caller's promise; 32 rows of 128 bytes.
    unsafe {
        asm!(
            "tilestored [{sums} + {row}*1], tmm0",
            "tilestored [{sums} + {row}*1 + 64], tmm1",
            "tilestored [{sums} + {row}*1 + 2048], tmm2",
            "tilestored [{sums} + {row}*1 + 2112], tmm3",
            sums = in(reg) sums,
            row = in(reg) size_of::<[f32; WIDTH]>(),
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
///
/// See [`zero`].
#[inline(always)]
unsafe fn store_half(sums: &mut Tile) {
    // SAFETY: the caller's promise; 16 rows of 128 bytes.
    unsafe {
        asm!(
            "tilestored [{sums} + {row}*1], tmm0",
            "tilestored [{sums} + {row}*1 + 64], tmm1",
            sums = in(reg) sums,
            row = in(reg) size_of::<[f32; WIDTH]>(),
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AMX and the system allows it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.form() {
            Form::Int8 => run_kernel::<Amx<true>>(job),
            Form::Bf16 | Form::Bf16x3 => run_kernel::<Amx<false>>(job),
        }
    }
}
