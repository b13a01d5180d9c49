//! bf16 products on the tiles of Intel's AMX.
//!
//! The eight tile registers hold 16 rows of 64 bytes each: four of sums (32 rows by 32 outputs), two
//! of the left side, two of weights. The compiler knows no tiles: it neither uses nor keeps them, so
//! what a piece of assembly leaves in them the next one finds. See Intel's "Architecture Instruction Set Extensions Programming Reference", chapter 3.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _MM_HINT_T0, _mm_prefetch, _xgetbv};
use std::sync::OnceLock;

use super::{
    BLOCK, GROUP, Job, Kernel, Line, STEP_LINES, Sending, Term, Tile, WIDTH, run as run_kernel,
};
use crate::cpu::lanes::x86::Avx512;
use crate::isa::Isa;

/// Whether this CPU has it and the system lets this process use it. Asked once a process, since the
/// asking is what allows it.
pub(super) fn is_available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| Isa::Avx512.is_available() && cpu_has_it() && system_allows_it())
}

/// Tiles and their bf16 product, and a system that keeps tiles when it switches threads.
fn cpu_has_it() -> bool {
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    const SAVED: u64 = 1 << 17 | 1 << 18;
    // SAFETY: every 64-bit x86 has CPUID.
    #[allow(unused_unsafe, reason = "safe to call since Rust 1.94")]
    let has_tiles = unsafe {
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES
    };
    if !has_tiles || !is_x86_feature_detected!("xsave") {
        return false;
    }
    // SAFETY: the CPU has XSAVE, and a system that offers AVX-512 has enabled it.
    unsafe { saved_state() & SAVED == SAVED }
}

/// # Safety
///
/// The CPU has XSAVE.
#[target_feature(enable = "xsave")]
unsafe fn saved_state() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the tiles' 8 KiB of state a thread, for all threads of the process.
#[cfg(target_os = "linux")]
fn system_allows_it() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call that takes two numbers and touches no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems would have to be asked in other ways, which nobody has tried yet.
#[cfg(not(target_os = "linux"))]
fn system_allows_it() -> bool {
    false
}

/// Eight tiles of 16 rows by 64 bytes, as `LDTILECFG` wants it said.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1; // the palette
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64; // bytes of a row, 16 bits
        bytes[48 + tile] = 16; // rows
        tile += 1;
    }
    Config(bytes)
};

struct Amx;

/// Tiles that are laid out; given back when it is dropped, also by a panic.
struct Tiles(());

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: only `Amx::ready` makes one, on a CPU that has tiles.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

impl Kernel for Amx {
    type Lanes = Avx512;
    type Ready = Tiles;

    #[inline(always)]
    unsafe fn ready() -> Tiles {
        // SAFETY: the caller's promise: the CPU has tiles.
        unsafe {
            asm!(
                "ldtilecfg [{0}]",
                in(reg) &raw const CONFIG,
                options(nostack, readonly, preserves_flags)
            );
        }
        Tiles(())
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
                            whole_step(upper, lower.add(at * GROUP), panel);
                        }
                        (true, true) => {
                            near::<32>(panel.wrapping_add(STREAM));
                            whole_step(upper, lower.add(at * GROUP), panel);
                        }
                        (false, _) => {
                            near::<32>(panel.wrapping_add(STREAM));
                            half_step(upper, panel);
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
unsafe fn whole_step(upper: *const Line, lower: *const Line, panel: *const Line) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tileloadd tmm6, [{panel} + {line}*1]",
            "tileloadd tmm4, [{upper} + {line}*1]",
            "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
            "tileloadd tmm5, [{lower} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            upper = in(reg) upper,
            lower = in(reg) lower,
            panel = in(reg) panel,
            line = in(reg) size_of::<Line>(),
            options(nostack, readonly, preserves_flags)
        );
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
unsafe fn half_step(upper: *const Line, panel: *const Line) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tileloadd tmm4, [{upper} + {line}*1]",
            "tileloadd tmm6, [{panel} + {line}*1]",
            "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            upper = in(reg) upper,
            panel = in(reg) panel,
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
/// As for [`run_kernel`]; the CPU has AMX and the system allows it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run(job: &Job<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Amx>(job) }
}
