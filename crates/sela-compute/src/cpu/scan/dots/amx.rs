//! Products by `TDPBSSD` of Intel's AMX: sixteen queries with a strip of rows at a time.
//!
//! Four tiles of sums, one of queries (16 of them by 64 numbers), three of rows in turn (16 lines: 16 rows by 64
//! numbers). The compiler knows no tiles, so a block is one piece of assembly. See Intel's
//! "Architecture Instruction Set Extensions Programming Reference", chapter 3.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use super::{BLOCK, GROUP, Line, Plane, Products, STRIP, Side};
use crate::isa::Isa;

/// Whether this CPU has it and the system lets this process use it. Asked once a process, since the
/// asking is what allows it.
pub(super) fn is_available() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| Isa::Avx512.is_available() && cpu_has_it() && system_allows_it())
}

/// Tiles and their int8 product, and a system that keeps tiles when it switches threads.
fn cpu_has_it() -> bool {
    const TILES_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const SAVED: u64 = 1 << 17 | 1 << 18;
    // SAFETY: every 64-bit x86 has CPUID.
    #[allow(unused_unsafe, reason = "safe to call since Rust 1.94")]
    let has_tiles = unsafe {
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_AND_INT8 == TILES_AND_INT8
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

/// # Safety
///
/// As for [`super::ManyFn`]; the CPU has AMX int8 and the system allows it.
pub(super) unsafe fn many(
    lines: &[Line],
    _: &Side,
    plane: &Plane,
    first: usize,
    out: &mut [Products],
) {
    const { assert!(BLOCK == 16 && GROUP == 16 && STRIP == 64) };
    let each = lines.len() / (STRIP / GROUP);
    // SAFETY: the caller's promise; nothing between the two can panic.
    unsafe {
        asm!(
            "ldtilecfg [{0}]",
            in(reg) &raw const CONFIG,
            options(nostack, readonly, preserves_flags)
        );
        for (block, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let queries = plane
                .signed
                .as_ptr()
                .add((first + block * BLOCK) * plane.stride);
            strip(lines.as_ptr(), each, queries, plane.stride, out);
        }
        asm!("tilerelease", options(nostack, nomem, preserves_flags));
    }
}

/// Sixteen queries and four groups of rows.
///
/// # Safety
///
/// Tiles are laid out; there are four groups of `each` lines, a positive multiple of sixteen, and
/// sixteen queries of `4 * each` bytes.
#[inline(always)]
unsafe fn strip(
    lines: *const Line,
    each: usize,
    queries: *const i8,
    stride: usize,
    out: &mut [Products; BLOCK],
) {
    let group = each * size_of::<Line>();
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:", // a step
            "tileloadd tmm4, [{queries} + {stride}*1]",
            "tileloadd tmm5, [{a} + {line}*1]",
            "tdpbssd tmm0, tmm4, tmm5",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tdpbssd tmm1, tmm4, tmm6",
            "tileloadd tmm7, [{c} + {line}*1]",
            "tdpbssd tmm2, tmm4, tmm7",
            "tileloadd tmm5, [{d} + {line}*1]",
            "tdpbssd tmm3, tmm4, tmm5",
            "add {queries}, 64",
            "add {a}, 1024",
            "add {b}, 1024",
            "add {c}, 1024",
            "add {d}, 1024",
            "dec {steps}",
            "jnz 2b",
            "shl {line}, 2", // from the bytes of a line to those of a query's products
            "tilestored [{out} + {line}*1], tmm0",
            "tilestored [{out} + {line}*1 + 64], tmm1",
            "tilestored [{out} + {line}*1 + 128], tmm2",
            "tilestored [{out} + {line}*1 + 192], tmm3",
            queries = inout(reg) queries => _,
            stride = in(reg) stride,
            a = inout(reg) lines.cast::<u8>() => _,
            b = inout(reg) lines.cast::<u8>().add(group) => _,
            c = inout(reg) lines.cast::<u8>().add(2 * group) => _,
            d = inout(reg) lines.cast::<u8>().add(3 * group) => _,
            steps = inout(reg) each / 16 => _,
            line = inout(reg) size_of::<Line>() => _,
            out = in(reg) out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
