//! The tiles of Intel's AMX: whether they can be used, and how they are laid out.
//!
//! There are eight tile registers of 16 rows of 64 bytes. The compiler knows no tiles: it neither uses
//! nor keeps them, so what a piece of assembly leaves in them the next one finds. See Intel's
//! "Architecture Instruction Set Extensions Programming Reference", chapter 3.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use crate::isa::Isa;

/// What multiplies tiles: its bit of `CPUID` leaf 7 and that of tiles.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Product {
    /// bf16 with sums in f32.
    Bf16 = 1 << 22 | 1 << 24,
    /// int8 with sums in i32.
    Int8 = 1 << 24 | 1 << 25,
}

impl Product {
    /// Whether this CPU has it and the system lets this process use it.
    pub(crate) fn is_available(self) -> bool {
        Isa::Avx512.is_available() && cpu_has(self as u32) && is_allowed()
    }
}

/// Whether the system lets this process use tiles. Asked once, since the asking is what allows it.
fn is_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(system_allows_it)
}

/// Tiles and what else `bits` ask for, and a system that keeps tiles when it switches threads.
fn cpu_has(bits: u32) -> bool {
    const SAVED: u64 = 1 << 17 | 1 << 18;
    // SAFETY: every 64-bit x86 has CPUID.
    #[allow(unused_unsafe, reason = "safe to call since Rust 1.94")]
    let has_tiles = unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & bits == bits };
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

/// Tiles that are laid out; given back when it is dropped, also by a panic.
pub(crate) struct Tiles(());

impl Tiles {
    /// Lays all tiles out.
    ///
    /// # Safety
    ///
    /// A [`Product`] is available.
    #[inline(always)]
    pub(crate) unsafe fn lay_out() -> Self {
        // SAFETY: the caller's promise: there are tiles, and the process may use them.
        unsafe {
            asm!(
                "ldtilecfg [{0}]",
                in(reg) &raw const CONFIG,
                options(nostack, readonly, preserves_flags)
            );
        }
        Self(())
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: only `lay_out` makes one, where there are tiles.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}
