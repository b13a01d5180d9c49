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

/// Units of the CPU that multiply int8 numbers into i32 sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Int8Unit {
    /// Tile matrix products of Intel's AMX.
    Amx,
    /// `VPDPBUSD` of AVX-512 VNNI.
    Avx512Vnni,
    /// The same of AVX-VNNI, in registers of 256 bits.
    AvxVnni,
}

impl Int8Unit {
    /// Its name as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx-int8",
            Self::Avx512Vnni => "avx512-vnni",
            Self::AvxVnni => "avx-vnni",
        }
    }

    /// The instruction set whose kernels it goes with.
    pub fn isa(self) -> Isa {
        match self {
            Self::Amx | Self::Avx512Vnni => Isa::Avx512,
            Self::AvxVnni => Isa::Avx2,
        }
    }
}

impl fmt::Display for Int8Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Units of the CPU that multiply int16 numbers into i32 sums, faster than the registers of the instruction set
/// that they go with multiply f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Int16Unit {
    /// `VPDPWSSD` of AVX-512 VNNI.
    Avx512Vnni,
    /// The same of AVX-VNNI, in registers of 256 bits.
    AvxVnni,
    /// `VPMADDWD` of AVX2.
    Avx2,
}

impl Int16Unit {
    /// Its name as users see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512-vnni",
            Self::AvxVnni => "avx-vnni",
            Self::Avx2 => "avx2",
        }
    }

    /// The instruction set whose kernels it goes with.
    pub fn isa(self) -> Isa {
        match self {
            Self::Avx512Vnni => Isa::Avx512,
            Self::AvxVnni | Self::Avx2 => Isa::Avx2,
        }
    }
}

impl fmt::Display for Int16Unit {
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
    /// Whether it multiplies faster than f32 registers do: of those of AVX-512, some do and some do not,
    /// as a measurement of some 100 microseconds tells.
    pub bf16_outpaces_f32: bool,
    /// The int8 units, the fastest first. One is used beside the instruction set that it goes with only.
    pub int8: Vec<Int8Unit>,
    /// The int16 units, likewise. Of AVX2's, some multiply faster than its f32 does and some do not, as a
    /// measurement of some 100 microseconds tells.
    pub int16: Vec<Int16Unit>,
    /// Main memory in bytes, when the system tells.
    pub memory_bytes: Option<u64>,
}

/// The system's interface to a GPU, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GpuBackend {
    /// Apple's Metal.
    Metal,
    /// Vulkan.
    Vulkan,
    /// Microsoft's Direct3D 12.
    Dx12,
    /// Something else.
    Other,
}

impl fmt::Display for GpuBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metal => "Metal",
            Self::Vulkan => "Vulkan",
            Self::Dx12 => "DX12",
            Self::Other => "other",
        })
    }
}

/// What a GPU is made of, the preferred kind first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum GpuKind {
    /// A card with memory of its own.
    Discrete,
    /// A part of the processor, sharing its memory.
    Integrated,
    /// A share of a card, lent to a virtual machine.
    Virtual,
    /// Unknown.
    Other,
    /// The CPU playing a GPU: for tests, and used only when it is asked for.
    Software,
}

impl fmt::Display for GpuKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "unknown kind",
            Self::Software => "software",
        })
    }
}

/// Numbers that a matrix unit takes or sums up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatrixNumber {
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

/// A product that a GPU's matrix unit computes: `m` x `k` times `k` x `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixShape {
    /// Rows of the product.
    pub m: u32,
    /// Columns of the product.
    pub n: u32,
    /// Depth.
    pub k: u32,
    /// What is multiplied.
    pub operands: MatrixNumber,
    /// What is summed up in.
    pub sums: MatrixNumber,
}

/// What Apple's Metal tells of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetalFacts {
    /// Generation of Apple's own GPUs: 7 for M1, 8 for M2, 9 for M3 and M4, 10 for M5; 0 for others.
    pub apple_family: u32,
    /// Whether it has the features of Metal 3.
    pub metal3: bool,
    /// Whether the device and the system have the features of Metal 4.
    pub metal4: bool,
    /// Version of macOS: major and minor.
    pub macos: (u32, u32),
}

/// Facts about a GPU.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GpuFacts {
    /// Its number, as `gpu:N` asks for it.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The interface to it.
    pub backend: GpuBackend,
    /// What it is made of.
    pub kind: GpuKind,
    /// The driver with its version.
    pub driver: String,
    /// PCI number of the maker; 0 when unknown.
    pub vendor: u32,
    /// PCI number of the device; 0 when unknown.
    pub device: u32,
    /// Whether it shares the CPU's memory.
    pub unified_memory: bool,
    /// Whether shaders may use half precision.
    pub f16: bool,
    /// Least and greatest number of threads in a subgroup, if there are subgroup operations.
    pub subgroup: Option<(u32, u32)>,
    /// Products of its matrix units that shaders can reach.
    pub matrix: Vec<MatrixShape>,
    /// Bytes of immediate data a dispatch can be given.
    pub immediate_bytes: u32,
    /// Largest part of a buffer that a kernel can see, in bytes.
    pub binding_bytes: u64,
    /// Largest buffer in bytes.
    pub buffer_bytes: u64,
    /// Memory that the threads of a workgroup share, in bytes.
    pub workgroup_bytes: u32,
    /// Most threads of a workgroup.
    pub workgroup_threads: u32,
    /// Memory the system recommends to stay within, in bytes, when it tells.
    pub memory_bytes: Option<u64>,
    /// What Metal tells.
    pub metal: Option<MetalFacts>,
}

impl GpuFacts {
    /// Whether its matrix unit multiplies f16 squares of side `side` into f32 sums.
    pub fn has_matrix(&self, side: u32) -> bool {
        let wanted = MatrixShape {
            m: side,
            n: side,
            k: side,
            operands: MatrixNumber::F16,
            sums: MatrixNumber::F32,
        };
        self.f16 && self.matrix.contains(&wanted)
    }
}

/// Everything a plan is made from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inventory {
    /// The CPU.
    pub cpu: CpuFacts,
    /// The GPUs, the preferred one first.
    pub gpus: Vec<GpuFacts>,
}

impl Inventory {
    /// Asks the machine. The GPUs are asked for once a process, which takes tens of milliseconds
    /// where there is a driver; the rest takes well under a millisecond.
    pub fn probe() -> Self {
        Self {
            #[cfg(feature = "gpu")]
            gpus: crate::gpu::adapters(),
            ..Self::probe_cpu()
        }
    }

    /// Asks the machine for its CPU only, as if it had no GPU.
    pub fn probe_cpu() -> Self {
        let bf16 = crate::cpu::blocks::bf16_unit();
        let cpu = CpuFacts {
            name: cpu_name(),
            arch: std::env::consts::ARCH,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            isas: Isa::available(),
            bf16,
            bf16_outpaces_f32: bf16
                .is_some_and(|unit| unit.is_matrix() || crate::cpu::rates::bf16_outpaces_f32()),
            int8: crate::cpu::blocks::int8_units(),
            int16: crate::cpu::blocks::int16_units(),
            memory_bytes: memory_bytes(),
        };
        Self {
            cpu,
            gpus: Vec::new(),
        }
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
