//! What silicon this machine has: asked once, at start.

use std::fmt;

use crate::isa::Isa;

/// Units of the CPU that multiply bf16 numbers into f32 sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bf16Unit {
    /// Tile matrix products of Intel's AMX.
    Amx,
    /// `VDPBF16PS` of AVX-512 BF16.
    Avx512Bf16,
}

impl Bf16Unit {
    /// Its name as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx-bf16",
            Self::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// Whether it is a matrix unit, some ten times as fast as the vector registers; then even
    /// three bf16 products are faster than one in f32.
    pub fn is_matrix(self) -> bool {
        matches!(self, Self::Amx)
    }
}

impl fmt::Display for Bf16Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Facts about the CPU and its memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CpuFacts {
    /// The maker's name for it, when the system tells.
    pub name: Option<String>,
    /// Architecture, as Rust calls it.
    pub arch: &'static str,
    /// Threads the system lets this process run at once.
    pub threads: usize,
    /// Instruction sets the f32 kernels can use, the preferred one first.
    pub isas: Vec<Isa>,
    /// The bf16 unit that would be used.
    pub bf16: Option<Bf16Unit>,
    /// Main memory in bytes, when the system tells.
    pub memory_bytes: Option<u64>,
}

/// Everything a plan is made from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inventory {
    /// The CPU.
    pub cpu: CpuFacts,
}

impl Inventory {
    /// Asks the machine. Takes well under a millisecond.
    pub fn probe() -> Self {
        let cpu = CpuFacts {
            name: cpu_name(),
            arch: std::env::consts::ARCH,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            isas: Isa::available(),
            bf16: crate::cpu::bf16::unit(),
            memory_bytes: memory_bytes(),
        };
        Self { cpu }
    }
}

/// The value of a `key : value` line of a file below `/proc`; `None` on other systems.
fn proc_line(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn cpu_name() -> Option<String> {
    proc_line("/proc/cpuinfo", "model name")
}

fn memory_bytes() -> Option<u64> {
    let line = proc_line("/proc/meminfo", "MemTotal")?;
    line.strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
