//! bf16 products on the tiles of Intel's AMX.
//!
//! The eight tile registers hold 16 rows of 64 bytes each: four of sums (32 rows by 32 outputs), two
//! of the left side, two of weights. The compiler knows no tiles, so a block is one piece of
//! assembly. See Intel's "Architecture Instruction Set Extensions Programming Reference", chapter 3.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::ops::Range;
use std::sync::OnceLock;

use super::{BLOCK, Kernel, Line, Packed, STEP_LINES, Term, Tile, WIDTH, run as run_kernel};
use crate::cpu::gemm::Rows;
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
    unsafe fn block(rows: usize, steps: usize, terms: &[Term], sums: &mut Tile) {
        const {
            assert!(BLOCK == 32 && WIDTH == 32 && STEP_LINES == 32 && size_of::<Term>() == 16);
        }
        assert!(steps > 0 && !terms.is_empty(), "a product has a depth");
        // SAFETY: the caller's promise. A block's rows can all be read, so tiles are always whole.
        unsafe {
            if rows <= 16 {
                half_block(steps, terms, sums);
            } else {
                whole_block(steps, terms, sums);
            }
        }
    }
}

/// 32 rows: each tile that is loaded takes part in two products.
///
/// # Safety
///
/// As for [`Kernel::block`]; with the tiles laid out.
#[inline(always)]
unsafe fn whole_block(steps: usize, terms: &[Term], sums: &mut Tile) {
    // SAFETY: the caller's promise: the left side has 32 rows of `steps` lines, a panel 32 lines a
    // step, the first 16 for the left half of the outputs.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:", // a term
            "mov {upper}, qword ptr [{terms}]",
            "mov {panel}, qword ptr [{terms} + 8]",
            "lea {lower}, [{upper} + {half}]",
            "mov {left}, {steps}",
            "3:", // a step
            "tileloadd tmm6, [{panel} + {line}*1]",
            "tileloadd tmm4, [{upper} + {row}*1]",
            "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
            "tileloadd tmm5, [{lower} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {panel}, 2048",
            "add {upper}, 64",
            "add {lower}, 64",
            "dec {left}",
            "jnz 3b",
            "add {terms}, 16",
            "dec {count}",
            "jnz 2b",
            "add {line}, {line}", // from the bytes of a line to those of a row of sums
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 64], tmm1",
            "tilestored [{sums} + {line}*1 + 2048], tmm2",
            "tilestored [{sums} + {line}*1 + 2112], tmm3",
            terms = inout(reg) terms.as_ptr() => _,
            count = inout(reg) terms.len() => _,
            steps = in(reg) steps,
            half = in(reg) 16 * steps * size_of::<Line>(),
            row = in(reg) steps * size_of::<Line>(),
            line = inout(reg) size_of::<Line>() => _,
            sums = in(reg) sums,
            upper = out(reg) _,
            lower = out(reg) _,
            panel = out(reg) _,
            left = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// 16 rows at most: the lower half of the sums is left alone.
///
/// # Safety
///
/// As for [`whole_block`].
#[inline(always)]
unsafe fn half_block(steps: usize, terms: &[Term], sums: &mut Tile) {
    // SAFETY: as for `whole_block`. Two chains of sums a half, so that a product need not wait for
    // the one before it, would change the order of the sums: a text alone would get other bits.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "2:", // a term
            "mov {upper}, qword ptr [{terms}]",
            "mov {panel}, qword ptr [{terms} + 8]",
            "mov {left}, {steps}",
            "3:", // a step
            "tileloadd tmm4, [{upper} + {row}*1]",
            "tileloadd tmm6, [{panel} + {line}*1]",
            "tileloadd tmm7, [{panel} + {line}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {panel}, 2048",
            "add {upper}, 64",
            "dec {left}",
            "jnz 3b",
            "add {terms}, 16",
            "dec {count}",
            "jnz 2b",
            "add {line}, {line}", // from the bytes of a line to those of a row of sums
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 64], tmm1",
            terms = inout(reg) terms.as_ptr() => _,
            count = inout(reg) terms.len() => _,
            steps = in(reg) steps,
            row = in(reg) steps * size_of::<Line>(),
            line = inout(reg) size_of::<Line>() => _,
            sums = in(reg) sums,
            upper = out(reg) _,
            panel = out(reg) _,
            left = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// # Safety
///
/// As for [`run_kernel`]; the CPU has AMX and the system allows it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
pub(super) unsafe fn run(
    packed: &Packed,
    rows: usize,
    a: Rows<*const f32>,
    units: Range<usize>,
    c: Rows<*mut f32>,
    keep: bool,
) {
    // SAFETY: the caller's promise.
    unsafe { run_kernel::<Amx>(packed, rows, a, units, c, keep) }
}
