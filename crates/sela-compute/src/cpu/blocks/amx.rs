//! Products on the tiles of Intel's AMX: of bf16 with f32 sums, of int8 with i32 sums.
//!
//! Four of the eight tiles hold sums (32 rows by 32 outputs), two the left side, two weights. A step is
//! one piece of assembly, of split bf16 for all three products, and the sums stay in their tiles from one
//! to the next.

use std::arch::asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::marker::PhantomData;

use super::avx512::{narrow, round};
use super::number::{Bf16, Int8, Number};
use super::{
    BLOCK, Form, GROUP, Job, Kernel, Left, Line, PANELS, STEP_LINES, Sending, Shape, Term, Tile,
    WIDTH, run as run_kernel,
};
use crate::cpu::amx::Tiles;
use crate::cpu::lanes::x86::Avx512;

/// For a kind of numbers.
struct Amx<N>(PhantomData<N>);

/// What tiles multiply.
trait Tiled: Number {
    const BF16: bool;
}

impl Tiled for Bf16 {
    const BF16: bool = true;
}

impl Tiled for Int8 {
    const BF16: bool = false;
}

impl<N: Tiled> Kernel for Amx<N> {
    type Number = N;
    type Lanes = Avx512;
    type Ready = Tiles;

    #[inline(always)]
    unsafe fn ready() -> Tiles {
        // SAFETY: the caller's promise: the CPU has tiles.
        unsafe { Tiles::lay_out() }
    }

    #[inline(always)]
    unsafe fn round(numbers: &[f32; Form::Bf16.depth()], high: *mut Line, low: Option<*mut Line>) {
        // SAFETY: the caller's promise, who enables AVX-512 BF16.
        unsafe { round(numbers, high, low) }
    }

    #[inline(always)]
    unsafe fn narrow(codes: &[u32], step: f32, row: usize, to: Left) {
        // SAFETY: the caller's promise, who enables AVX-512 BW.
        unsafe { narrow(codes, step, row, to) }
    }

    #[inline(always)]
    unsafe fn block(
        Shape { rows, steps, .. }: Shape,
        terms: &[Term],
        [sums, _]: &mut [Tile; PANELS],
        meanwhile: &Sending<'_>,
    ) {
        const {
            assert!(BLOCK == 32 && WIDTH == 32 && STEP_LINES == 32 && GROUP == 16);
        }
        assert!(steps > 0, "a product has a depth");
        // Rows to send beside each step, until all are.
        let (mut row, due) = (0, BLOCK.div_ceil(steps));
        // Lines to bring near beside each step, where it is known what will be read.
        let lines = terms[0].ahead_lines.div_ceil(steps);
        // SAFETY: the caller's promise: the left side has two groups of 16 rows, `steps` tiles
        // each, a panel 32 lines a step. A block's rows can all be read, so tiles are always whole.
        // Nothing but this module touches tiles, so sums stay in them from step to step.
        unsafe {
            zero();
            for step in 0..steps {
                match *terms {
                    [term] => {
                        bring(rows, step, &term, lines);
                        let [upper, lower, panel] = tiles_of(&term, steps, step);
                        match rows > GROUP {
                            true => whole_step::<N>(upper, lower, panel),
                            false => half_step::<N>(upper, panel),
                        }
                    }
                    [small, other, _] => {
                        // The panel's upper part is the same in the first and in the last.
                        bring(rows, step, &small, lines);
                        bring(rows, step, &other, lines);
                        let low = tiles_of(&small, steps, step);
                        let high = tiles_of(&other, steps, step);
                        match rows > GROUP {
                            true => split_whole_step(low, high),
                            false => split_half_step(low, high),
                        }
                    }
                    _ => unreachable!("one product or three"),
                }
                for _ in 0..due.min(BLOCK - row) {
                    meanwhile.send::<Self>(row);
                    row += 1;
                }
            }
            match rows > GROUP {
                true => store_whole(sums),
                false => store_half(sums),
            }
        }
    }
}

/// A term's tiles of a step: of both groups of rows, and the panel's first.
///
/// # Safety
///
/// The term has such a step.
#[inline(always)]
unsafe fn tiles_of(term: &Term, steps: usize, step: usize) -> [*const Line; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let upper = term.left.add(step * GROUP);
        let lower = term.left.add((steps + step) * GROUP);
        [upper, lower, term.panel.add(step * STEP_LINES)]
    }
}

/// Brings near what a block of so many rows reads soon beside a step of a term: so many lines of what
/// is known to be read.
///
/// # Safety
///
/// The term has such a step.
#[inline(always)]
unsafe fn bring(rows: usize, step: usize, term: &Term, lines: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match rows > GROUP && !term.ahead.is_null() {
            true => near(term.ahead.wrapping_add(step * lines), lines),
            // Of what is read but once, some steps ahead.
            false => near(
                term.panel.add(step * STEP_LINES).wrapping_add(STREAM),
                STEP_LINES,
            ),
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
unsafe fn near(from: *const Line, lines: usize) {
    for line in 0..lines {
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

/// A step of 32 rows: each tile that is loaded takes part in two products. Loads stand between products:
/// all first, they would leave less of the queue to what is sent meanwhile.
///
/// # Safety
///
/// 16 lines each can be read, 32 of the panel.
#[inline(always)]
unsafe fn whole_step<N: Tiled>(upper: *const Line, lower: *const Line, panel: *const Line) {
    macro_rules! step {
        ($product:literal) => {
            asm!(
                "tileloadd tmm6, [{panel} + {line}*1]",
                "tileloadd tmm4, [{upper} + {line}*1]",
                concat!($product, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
                concat!($product, " tmm1, tmm4, tmm7"),
                "tileloadd tmm5, [{lower} + {line}*1]",
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
        match N::BF16 {
            true => step!("tdpbf16ps"),
            // Codes of the left side are unsigned, those of weights signed.
            false => step!("tdpbusd"),
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
unsafe fn half_step<N: Tiled>(upper: *const Line, panel: *const Line) {
    macro_rules! step {
        ($product:literal) => {
            asm!(
                "tileloadd tmm4, [{upper} + {line}*1]",
                "tileloadd tmm6, [{panel} + {line}*1]",
                concat!($product, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
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
        match N::BF16 {
            true => step!("tdpbf16ps"),
            false => step!("tdpbusd"),
        }
    }
}

/// A step of all three products of split bf16, the smallest first: eight tiles are loaded for twelve
/// products, where one product after another would load twelve. `low` is the left side's lower part
/// with the panel's upper one, `high` the other way round.
///
/// # Safety
///
/// As for [`whole_step`].
#[inline(always)]
unsafe fn split_whole_step(low: [*const Line; 3], high: [*const Line; 3]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tileloadd tmm6, [{panel} + {line}*1]",
            "tileloadd tmm4, [{low} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{low2} + {line}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{high} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{high2} + {line}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{rest} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{rest} + {line}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            low = in(reg) low[0],
            low2 = in(reg) low[1],
            high = in(reg) high[0],
            high2 = in(reg) high[1],
            panel = in(reg) low[2],
            rest = in(reg) high[2],
            line = in(reg) size_of::<Line>(),
            options(nostack, readonly, preserves_flags)
        );
    }
}

/// The same of 16 rows at most.
///
/// # Safety
///
/// As for [`half_step`].
#[inline(always)]
unsafe fn split_half_step(low: [*const Line; 3], high: [*const Line; 3]) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tileloadd tmm4, [{low} + {line}*1]",
            "tileloadd tmm6, [{panel} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{high} + {line}*1]",
            "tdpbf16ps tmm0, tmm5, tmm6",
            "tdpbf16ps tmm1, tmm5, tmm7",
            "tileloadd tmm2, [{rest} + {line}*1]",
            "tdpbf16ps tmm0, tmm5, tmm2",
            "tileloadd tmm3, [{rest} + {line}*1 + 1024]",
            "tdpbf16ps tmm1, tmm5, tmm3",
            low = in(reg) low[0],
            high = in(reg) high[0],
            panel = in(reg) low[2],
            rest = in(reg) high[2],
            line = in(reg) size_of::<Line>(),
            options(nostack, readonly, preserves_flags)
        );
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
/// As for [`run_kernel`]; the CPU has AMX for it and AVX-512 BF16, the system allows it, and the job is
/// about bf16.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run_bf16(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Amx<Bf16>>(job) }
}

/// # Safety
///
/// The same, and the job is about int8.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run_int8(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Amx<Int8>>(job) }
}
