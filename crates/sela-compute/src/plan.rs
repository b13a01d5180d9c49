//! From facts to choices: which tier, which kernels, in which order of preference, and why.
//!
//! [`plan`] is a pure function, so that every machine can be tested on any machine. Self-tests
//! may later veto a choice and fall to the next one; they never change the order.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::inventory::{Bf16Unit, GpuFacts, GpuKind, Int8Unit, Int16Unit, Inventory};
use crate::isa::Isa;

/// A path through the code, from the fastest silicon to the most common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tier {
    /// A GPU through the features of Metal 4.
    Metal4,
    /// A GPU through Metal 3.
    Metal3,
    /// Any other GPU: Vulkan, DX12, older Metal.
    Gpu,
    /// The CPU's own units.
    Cpu,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metal4 => "metal4",
            Self::Metal3 => "metal3",
            Self::Gpu => "gpu",
            Self::Cpu => "cpu",
        })
    }
}

impl Tier {
    /// The path that a GPU takes.
    ///
    /// A tier is a path through the code and no label: a GPU that could do Metal 4 is of the tier
    /// `Metal3` as long as it runs the kernels of Metal 3.
    pub fn of(gpu: &GpuFacts) -> Self {
        match &gpu.metal {
            Some(metal) if metal.metal3 => Self::Metal3,
            _ => Self::Gpu,
        }
    }
}

/// Where the caller wants work to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The best GPU if there is one, and the CPU if not.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The best GPU; an error if there is none.
    Gpu,
    /// The GPU of that number; an error if there is none. The only way to a software adapter.
    Number(usize),
}

impl DeviceChoice {
    /// Whether the caller insists on a GPU.
    pub fn insists(self) -> bool {
        matches!(self, Self::Gpu | Self::Number(_))
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::Number(number) => write!(f, "gpu:{number}"),
        }
    }
}

/// A device that is not `auto`, `cpu`, `gpu` or `gpu:N`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device: say auto, cpu, gpu, or gpu:N for GPU number N")]
pub struct UnknownDevice(String);

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    /// Reads what `Display` writes.
    ///
    /// ```
    /// use sela_compute::DeviceChoice;
    ///
    /// assert_eq!("gpu:1".parse(), Ok(DeviceChoice::Number(1)));
    /// assert!("cuda".parse::<DeviceChoice>().is_err());
    /// ```
    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        let lower = text.to_ascii_lowercase();
        let number = lower.strip_prefix("gpu:").map(str::parse);
        match (lower.as_str(), number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("gpu", _) => Ok(Self::Gpu),
            (_, Some(Ok(number))) => Ok(Self::Number(number)),
            _ => Err(UnknownDevice(text.to_owned())),
        }
    }
}

/// A promise about the vectors: how far they may be from those of f32 arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// The fastest arithmetic of this machine with mean cosine to f32 of at least 0.9999.
    #[default]
    Auto,
    /// At most 1e-5 from f32 in every number.
    F32,
    /// Cosine to f32 of at least 0.999, 0.9999 in the mean: bf16 on a CPU, f16 on a GPU.
    Bf16,
    /// Cosine to f32 of at least 0.99, 0.995 in the mean: int8 on a CPU that has a unit for it. What
    /// has none does what is fastest there and keeps more.
    Int8,
}

/// The arithmetic of the encoder's matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// f32 fused multiply-adds.
    F32,
    /// f32 numbers split into two bf16 parts, three bf16 products with f32 sums.
    Bf16x3,
    /// bf16 products with f32 sums.
    Bf16,
    /// f16 products with f32 sums, activations kept in f16.
    F16,
    /// int16 products with i32 sums, each row of activations and each output's weights with a scale of
    /// its own, of some 14 and 11 bits; attention in int16, bf16 or f32.
    Int16,
    /// int8 products with i32 sums, each row of activations and each output's weights with a scale of
    /// its own; attention in int16, bf16 or f32.
    Int8,
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16x3 => "bf16x3",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
        })
    }
}

/// What the caller wants; the defaults suit everyone who has no reason to differ.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Where to work.
    pub device: DeviceChoice,
    /// The promise about the vectors. `Auto` unless stored vectors must match another machine's.
    pub precision: Precision,
    /// An instruction set to insist on: for tests and comparisons.
    pub isa: Option<Isa>,
    /// An arithmetic to insist on: for tests and comparisons.
    pub arithmetic: Option<Arithmetic>,
    /// Threads a call may use; all that the system gives unless set.
    pub threads: Option<usize>,
}

/// A GPU to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuPlan {
    /// Its number.
    pub index: usize,
    /// The path through the code.
    pub tier: Tier,
    /// Arithmetics of the encoder to try, the preferred one first. Never empty.
    pub arithmetics: Vec<Arithmetic>,
}

/// The choice, its alternatives in order, and the reasons.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tier, if nothing is vetoed.
    pub tier: Tier,
    /// The GPU to try before the CPU.
    pub gpu: Option<GpuPlan>,
    /// Instruction sets to try, the preferred one first. Never empty.
    pub isas: Vec<Isa>,
    /// Arithmetics to try, the preferred one first. Never empty.
    pub arithmetics: Vec<Arithmetic>,
    /// Threads a call may use.
    pub threads: usize,
    /// Why it is so and nothing faster, in sentences.
    pub reasons: Vec<String>,
}

/// Threads beyond which a pool is refused.
pub const THREADS_MAX: usize = 1024;

/// Chooses for the machine `inventory` what `options` ask for.
///
/// ```
/// use sela_compute::{DeviceChoice, Inventory, PlanOptions, Tier, plan};
///
/// let options = PlanOptions { device: DeviceChoice::Cpu, ..PlanOptions::default() };
/// let plan = plan(&Inventory::probe_cpu(), &options)?;
/// assert_eq!(plan.tier, Tier::Cpu);
/// # Ok::<(), sela_compute::Error>(())
/// ```
pub fn plan(inventory: &Inventory, options: &PlanOptions) -> Result<Plan, Error> {
    let cpu = &inventory.cpu;
    let threads = options.threads.unwrap_or(cpu.threads);
    if threads == 0 || threads > THREADS_MAX {
        return Err(Error::Limit {
            what: "number of threads",
            value: threads,
            limit: THREADS_MAX,
        });
    }
    let mut reasons = Vec::new();
    let gpu = choose_gpu(&inventory.gpus, options, &mut reasons)?;
    if gpu.is_none() && options.arithmetic == Some(Arithmetic::F16) {
        return Err(Error::Missing("f16 arithmetic on the CPU".into()));
    }
    let isas = match options.isa {
        Some(isa) if !cpu.isas.contains(&isa) => {
            return Err(Error::Missing(format!("{isa} instructions")));
        }
        Some(isa) => {
            reasons.push(format!("{isa} instructions because they were asked for"));
            vec![isa]
        }
        None => {
            reasons.push(format!(
                "{} is the widest instruction set of this CPU",
                cpu.isas[0]
            ));
            cpu.isas.clone()
        }
    };
    let units = Units {
        // Those of bf16 are fed by AVX-512.
        bf16: cpu.bf16.filter(|_| isas[0] == Isa::Avx512),
        bf16_outpaces_f32: cpu.bf16_outpaces_f32,
        int8: cpu.int8.iter().copied().find(|unit| unit.isa() == isas[0]),
        int16: cpu.int16.iter().copied().find(|unit| unit.isa() == isas[0]),
    };
    let arithmetics = arithmetics(&units, options, &mut reasons);
    Ok(Plan {
        tier: gpu.as_ref().map_or(Tier::Cpu, |gpu| gpu.tier),
        gpu,
        isas,
        arithmetics,
        threads,
        reasons,
    })
}

/// The GPU to try first, if any.
fn choose_gpu(
    gpus: &[GpuFacts],
    options: &PlanOptions,
    reasons: &mut Vec<String>,
) -> Result<Option<GpuPlan>, Error> {
    let named = |gpu: &GpuFacts| {
        format!(
            "gpu:{} {} ({}, {})",
            gpu.index, gpu.name, gpu.backend, gpu.kind
        )
    };
    let list = || match gpus {
        [] if cfg!(feature = "gpu") => "there is none".to_owned(),
        [] => "this build has no GPU kernels".to_owned(),
        gpus => format!(
            "there is {}",
            gpus.iter().map(named).collect::<Vec<_>>().join(", ")
        ),
    };
    let hardware = || gpus.iter().find(|gpu| gpu.kind != GpuKind::Software);
    // An instruction set and some arithmetics are the CPU's alone.
    let of_cpu = matches!(
        options.arithmetic,
        Some(Arithmetic::Bf16 | Arithmetic::Bf16x3 | Arithmetic::Int8 | Arithmetic::Int16)
    );
    let cpu_only = (options.isa.is_some() || of_cpu) && !options.device.insists();
    let chosen = match options.device {
        DeviceChoice::Cpu => {
            reasons.push("the CPU because it was asked for".into());
            None
        }
        _ if cpu_only => None,
        DeviceChoice::Number(number) => match gpus.iter().find(|gpu| gpu.index == number) {
            Some(gpu) => Some(gpu),
            None => return Err(Error::Missing(format!("GPU number {number}: {}", list()))),
        },
        DeviceChoice::Gpu => match hardware() {
            Some(gpu) => Some(gpu),
            None => return Err(Error::Missing(format!("GPU of hardware: {}", list()))),
        },
        DeviceChoice::Auto => {
            let gpu = hardware();
            if gpu.is_none() {
                reasons.push(match gpus {
                    [] if cfg!(feature = "gpu") => "the CPU, the only device there is".to_owned(),
                    [] => "the CPU because this build has no GPU kernels".to_owned(),
                    _ => format!("the CPU because there are software GPUs only: {}", list()),
                });
            }
            gpu
        }
    };
    let Some(gpu) = chosen else { return Ok(None) };
    let tier = Tier::of(gpu);
    reasons.push(format!(
        "{} of the GPUs {}",
        named(gpu),
        match options.device {
            DeviceChoice::Number(_) => "because it was asked for",
            _ => "because it is the first that is hardware",
        }
    ));
    if gpu.metal.as_ref().is_some_and(|metal| metal.metal4) {
        reasons.push("Metal 4 capable, Metal 3 kernels".into());
    }
    let arithmetics = gpu_arithmetics(gpu, options, reasons)?;
    Ok(Some(GpuPlan {
        index: gpu.index,
        tier,
        arithmetics,
    }))
}

/// Arithmetics of the encoder on a GPU, the preferred one first.
fn gpu_arithmetics(
    gpu: &GpuFacts,
    options: &PlanOptions,
    reasons: &mut Vec<String>,
) -> Result<Vec<Arithmetic>, Error> {
    let has = |arithmetic| match arithmetic {
        Arithmetic::F16 => gpu.f16,
        Arithmetic::F32 => true,
        Arithmetic::Bf16 | Arithmetic::Bf16x3 | Arithmetic::Int8 | Arithmetic::Int16 => false,
    };
    if let Some(arithmetic) = options.arithmetic {
        return match has(arithmetic) {
            true => Ok(vec![arithmetic]),
            false => Err(Error::Missing(format!(
                "{arithmetic} arithmetic on {}",
                gpu.name
            ))),
        };
    }
    Ok(match options.precision {
        Precision::F32 => vec![Arithmetic::F32],
        Precision::Auto | Precision::Bf16 | Precision::Int8 if gpu.f16 => {
            reasons.push("f16 products with f32 sums on the GPU".into());
            vec![Arithmetic::F16, Arithmetic::F32]
        }
        Precision::Auto | Precision::Bf16 | Precision::Int8 => {
            reasons.push("f32 on the GPU, which has no f16".into());
            vec![Arithmetic::F32]
        }
    })
}

/// What multiplies on the CPU besides f32 registers.
struct Units {
    bf16: Option<Bf16Unit>,
    bf16_outpaces_f32: bool,
    int8: Option<Int8Unit>,
    int16: Option<Int16Unit>,
}

impl Units {
    /// What is fastest and keeps to the promise of [`Precision::Auto`]; none if that is f32.
    fn auto(&self) -> Option<Arithmetic> {
        match (self.bf16, self.int16) {
            (Some(_), _) if self.bf16_outpaces_f32 => Some(Arithmetic::Bf16),
            (_, Some(_)) => Some(Arithmetic::Int16),
            _ => None,
        }
    }

    /// Why it is that.
    fn why(&self) -> String {
        match (self.bf16, self.int16) {
            (Some(unit), _) if self.bf16_outpaces_f32 => format!("auto is bf16 by {unit}"),
            (Some(slow), Some(unit)) => {
                format!("auto is int16 by {unit}: {slow} is slower than f32 here")
            }
            (None, Some(unit)) => format!("auto is int16 by {unit}"),
            (Some(slow), None) => format!("auto is f32: {slow} is slower here"),
            (None, None) => "auto is f32: no unit for fewer bits is faster here".into(),
        }
    }
}

fn arithmetics(units: &Units, options: &PlanOptions, reasons: &mut Vec<String>) -> Vec<Arithmetic> {
    match options.arithmetic {
        // The GPU's; should it fail, the CPU does as it does best.
        None | Some(Arithmetic::F16) => {}
        Some(arithmetic) => {
            reasons.push(format!("{arithmetic} products because they were asked for"));
            return vec![arithmetic];
        }
    }
    let f32_grade = match units.bf16 {
        Some(unit) if unit.is_matrix() => {
            reasons.push(format!("f32 is computed as three bf16 products by {unit}"));
            vec![Arithmetic::Bf16x3, Arithmetic::F32]
        }
        _ => vec![Arithmetic::F32],
    };
    let auto = units.auto().into_iter();
    match (options.precision, units.bf16) {
        // What keeps more comes next, should int8 be vetoed.
        (Precision::Int8, _) => {
            let first = units.int8.map(|_| Arithmetic::Int8);
            reasons.push(match units.int8 {
                Some(unit) => format!("int8 by {unit}"),
                None => format!(
                    "not int8: there is no unit for it to use; as auto, and {}",
                    units.why()
                ),
            });
            first.into_iter().chain(auto).chain(f32_grade).collect()
        }
        (Precision::F32, _) => f32_grade,
        (Precision::Bf16, None) => {
            reasons
                .push("bf16 is emulated: there is no unit for it here, and f32 is faster".into());
            vec![Arithmetic::Bf16]
        }
        (Precision::Bf16, Some(unit)) => {
            let slow = match units.bf16_outpaces_f32 {
                true => "",
                false => ", which is slower than f32 here",
            };
            reasons.push(format!("bf16 by {unit}{slow}"));
            vec![Arithmetic::Bf16]
        }
        (Precision::Auto, _) => {
            reasons.push(units.why());
            auto.chain(f32_grade).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{CpuFacts, GpuBackend, MetalFacts};

    fn machine(isas: &[Isa], bf16: Option<Bf16Unit>) -> Inventory {
        let cpu = CpuFacts {
            name: None,
            arch: "any",
            threads: 8,
            isas: isas.to_vec(),
            bf16,
            bf16_outpaces_f32: bf16.is_some(),
            int8: Vec::new(),
            int16: Vec::new(),
            memory_bytes: None,
        };
        Inventory {
            cpu,
            gpus: Vec::new(),
        }
    }

    #[test]
    fn every_machine_gets_the_best_it_has() {
        use Arithmetic::{Bf16, Bf16x3, F32};
        let amx = Some(Bf16Unit::Amx);
        let avx512_bf16 = Some(Bf16Unit::Avx512Bf16);
        let cases: [(Option<Bf16Unit>, Precision, &[Arithmetic]); 9] = [
            (None, Precision::Auto, &[F32]),
            (None, Precision::F32, &[F32]),
            (None, Precision::Bf16, &[Bf16]),
            (amx, Precision::Auto, &[Bf16, Bf16x3, F32]),
            (amx, Precision::F32, &[Bf16x3, F32]),
            (amx, Precision::Bf16, &[Bf16]),
            (avx512_bf16, Precision::Auto, &[Bf16, F32]),
            (avx512_bf16, Precision::F32, &[F32]),
            (avx512_bf16, Precision::Bf16, &[Bf16]),
        ];
        for (unit, precision, expected) in cases {
            let inventory = machine(&[Isa::Avx512, Isa::Avx2], unit);
            let options = PlanOptions {
                precision,
                ..PlanOptions::default()
            };
            let plan = plan(&inventory, &options).unwrap();
            assert_eq!(plan.arithmetics, expected, "{unit:?} {precision:?}");
            assert_eq!((plan.isas[0], plan.threads), (Isa::Avx512, 8));
            assert!(!plan.reasons.is_empty());
        }
    }

    /// What VNNI has besides int8.
    fn with_vnni(int8: Option<Int8Unit>) -> Vec<Int16Unit> {
        let vnni = int8.filter(|&unit| unit == Int8Unit::Avx512Vnni);
        vnni.map(|_| Int16Unit::Avx512Vnni).into_iter().collect()
    }

    /// The plan of a CPU with these units, of which bf16 outpaces f32 or not.
    fn planned_with(
        (bf16, outpaces): (Option<Bf16Unit>, bool),
        int8: Option<Int8Unit>,
        precision: Precision,
    ) -> Plan {
        let mut inventory = machine(&[Isa::Avx512, Isa::Avx2], bf16);
        inventory.cpu.bf16_outpaces_f32 = outpaces;
        inventory.cpu.int8 = int8.into_iter().collect();
        inventory.cpu.int16 = with_vnni(int8);
        let options = PlanOptions {
            precision,
            ..PlanOptions::default()
        };
        plan(&inventory, &options).unwrap()
    }

    #[test]
    fn auto_is_int16_where_bf16_is_missing_or_slow_and_vnni_is_there() {
        use Arithmetic::{Bf16, Bf16x3, F32, Int8, Int16};
        let none = (None, false);
        let slow = (Some(Bf16Unit::Avx512Bf16), false);
        let fast = (Some(Bf16Unit::Avx512Bf16), true);
        let amx = (Some(Bf16Unit::Amx), true);
        let vnni = Some(Int8Unit::Avx512Vnni);
        let auto = |bf16, int8| planned_with(bf16, int8, Precision::Auto).arithmetics;
        assert_eq!(auto(none, vnni), [Int16, F32]);
        assert_eq!(auto(slow, vnni), [Int16, F32]);
        assert_eq!(auto(fast, vnni), [Bf16, F32]);
        assert_eq!(auto(slow, None), [F32]);
        assert_eq!(auto(amx, Some(Int8Unit::Amx)), [Bf16, Bf16x3, F32]);
        for bf16 in [none, slow] {
            let of = |precision| planned_with(bf16, vnni, precision).arithmetics;
            assert_eq!(of(Precision::Int8), [Int8, Int16, F32]);
            assert_eq!(of(Precision::F32), [F32]);
            assert_eq!(of(Precision::Bf16), [Bf16]);
        }
    }

    #[test]
    fn a_unit_that_is_slower_than_f32_is_named() {
        let slow = (Some(Bf16Unit::Avx512Bf16), false);
        let vnni = Some(Int8Unit::Avx512Vnni);
        for (int8, precision, why) in [
            (
                vnni,
                Precision::Auto,
                "int16 by avx512-vnni: avx512-bf16 is slower than f32",
            ),
            (None, Precision::Auto, "f32: avx512-bf16 is slower"),
            (vnni, Precision::Bf16, "slower than f32 here"),
        ] {
            let reasons = planned_with(slow, int8, precision).reasons;
            assert!(
                reasons.iter().any(|r| r.contains(why)),
                "{why}: {reasons:?}"
            );
        }
    }

    #[test]
    fn int8_is_done_where_there_is_a_unit_for_it_and_more_is_kept_elsewhere() {
        use Arithmetic::{Bf16, F32, Int8, Int16};
        let (vnni, bf16) = (Some(Int8Unit::Avx512Vnni), Some(Bf16Unit::Avx512Bf16));
        let cases: [(_, _, _, &[Arithmetic]); 5] = [
            (vnni, bf16, Isa::Avx512, &[Int8, Bf16, F32]),
            (vnni, None, Isa::Avx512, &[Int8, Int16, F32]),
            (None, bf16, Isa::Avx512, &[Bf16, F32]),
            (None, None, Isa::Avx512, &[F32]),
            // Units are fed by AVX-512.
            (vnni, bf16, Isa::Avx2, &[F32]),
        ];
        for (int8, bf16, isa, expected) in cases {
            let mut inventory = machine(&[Isa::Avx512, Isa::Avx2], bf16);
            inventory.cpu.int8 = int8.into_iter().collect();
            inventory.cpu.int16 = with_vnni(int8);
            let options = PlanOptions {
                precision: Precision::Int8,
                isa: Some(isa),
                ..PlanOptions::default()
            };
            let plan = plan(&inventory, &options).unwrap();
            assert_eq!(plan.arithmetics, expected, "{int8:?} {bf16:?} {isa}");
            let told = plan.reasons.iter().any(|why| why.contains("int8"));
            assert!(told, "{:?}", plan.reasons);
        }
    }

    #[test]
    fn auto_and_int8_are_int16_where_avx2_outpaces_its_f32() {
        use Arithmetic::{F32, Int16};
        let of = |isas: &[Isa], int16: &[Int16Unit], isa, precision| {
            let mut inventory = machine(isas, None);
            inventory.cpu.int16 = int16.to_vec();
            let options = PlanOptions {
                precision,
                isa,
                ..PlanOptions::default()
            };
            let plan = plan(&inventory, &options).unwrap();
            (plan.arithmetics, plan.reasons.join("; "))
        };
        let (avx2, both) = ([Isa::Avx2], [Isa::Avx512, Isa::Avx2]);
        let (slow, fast) = ([], [Int16Unit::Avx2]);
        for precision in [Precision::Auto, Precision::Int8] {
            let (found, why) = of(&avx2, &fast, None, precision);
            assert_eq!(found, [Int16, F32]);
            assert!(why.contains("int16 by avx2"), "{why}");
            let (found, why) = of(&avx2, &slow, None, precision);
            assert_eq!(found, [F32]);
            assert!(!why.contains("int16"), "{why}");
            // AVX-512 without VNNI multiplies f32 as fast.
            assert_eq!(of(&both, &fast, None, precision).0, [F32]);
            assert_eq!(of(&both, &fast, Some(Isa::Avx2), precision).0, [Int16, F32]);
            let all = [Int16Unit::Avx512Vnni, Int16Unit::AvxVnni];
            let (found, why) = of(&both, &all, None, precision);
            assert_eq!(found, [Int16, F32]);
            assert!(why.contains("int16 by avx512-vnni"), "{why}");
        }
        for precision in [Precision::F32, Precision::Bf16] {
            assert!(!of(&avx2, &fast, None, precision).0.contains(&Int16));
        }
    }

    #[test]
    fn avx_vnni_does_int8_where_avx2_is_used() {
        use Arithmetic::{F32, Int8, Int16};
        let mut inventory = machine(&[Isa::Avx512, Isa::Avx2], None);
        inventory.cpu.int8 = vec![Int8Unit::Amx, Int8Unit::Avx512Vnni, Int8Unit::AvxVnni];
        inventory.cpu.int16 = vec![Int16Unit::Avx512Vnni, Int16Unit::AvxVnni];
        for (isa, unit) in [(None, "amx-int8"), (Some(Isa::Avx2), "avx-vnni")] {
            let options = PlanOptions {
                precision: Precision::Int8,
                isa,
                ..PlanOptions::default()
            };
            let plan = plan(&inventory, &options).unwrap();
            assert_eq!(plan.arithmetics, [Int8, Int16, F32]);
            let told = format!("int8 by {unit}");
            assert!(plan.reasons.contains(&told), "{told}: {:?}", plan.reasons);
        }
    }

    #[test]
    fn a_unit_is_not_promised_to_an_instruction_set_that_cannot_feed_it() {
        let inventory = machine(&[Isa::Avx512, Isa::Avx2], Some(Bf16Unit::Amx));
        let options = PlanOptions {
            isa: Some(Isa::Avx2),
            ..PlanOptions::default()
        };
        let plan = plan(&inventory, &options).unwrap();
        assert_eq!(plan.arithmetics, [Arithmetic::F32]);
    }

    #[test]
    fn what_a_machine_lacks_is_refused_by_name() {
        let inventory = machine(&[Isa::Plain], None);
        let options = PlanOptions {
            isa: Some(Isa::Avx512),
            ..PlanOptions::default()
        };
        let error = plan(&inventory, &options).unwrap_err();
        assert_eq!(error.to_string(), "this machine has no avx512 instructions");
        let options = PlanOptions {
            threads: Some(0),
            ..PlanOptions::default()
        };
        assert!(plan(&inventory, &options).is_err());
    }

    fn gpu(index: usize, kind: GpuKind) -> GpuFacts {
        GpuFacts {
            index,
            name: format!("number {index}"),
            backend: GpuBackend::Vulkan,
            kind,
            driver: String::new(),
            vendor: 0,
            device: 0,
            unified_memory: false,
            f16: true,
            subgroup: None,
            matrix: Vec::new(),
            immediate_bytes: 128,
            binding_bytes: 1 << 27,
            buffer_bytes: 1 << 31,
            workgroup_bytes: 1 << 15,
            workgroup_threads: 1024,
            memory_bytes: None,
            metal: None,
        }
    }

    fn planned(gpus: &[GpuFacts], device: DeviceChoice) -> Result<Plan, Error> {
        let mut inventory = machine(&[Isa::Plain], None);
        inventory.gpus = gpus.to_vec();
        let options = PlanOptions {
            device,
            ..PlanOptions::default()
        };
        plan(&inventory, &options)
    }

    #[test]
    fn a_gpu_is_chosen_by_what_it_is_and_what_was_asked() {
        use DeviceChoice::{Auto, Cpu, Gpu, Number};
        let both = [gpu(0, GpuKind::Discrete), gpu(1, GpuKind::Software)];
        let software = [gpu(0, GpuKind::Software)];
        let index = |gpus: &[GpuFacts], device| {
            let plan = planned(gpus, device).unwrap();
            assert!(!plan.reasons.is_empty() && !plan.isas.is_empty());
            assert_eq!(plan.gpu.is_none(), plan.tier == Tier::Cpu);
            plan.gpu.map(|gpu| gpu.index)
        };
        assert_eq!(index(&both, Auto), Some(0));
        assert_eq!(index(&both, Gpu), Some(0));
        assert_eq!(index(&both, Number(1)), Some(1));
        assert_eq!(index(&both, Cpu), None);
        assert_eq!(index(&software, Auto), None);
        assert_eq!(index(&software, Number(0)), Some(0));
        assert_eq!(index(&[], Auto), None);
        for (gpus, device) in [(&software[..], Gpu), (&both[..], Number(2)), (&[], Gpu)] {
            let error = planned(gpus, device).unwrap_err().to_string();
            let named = gpus.iter().all(|gpu| error.contains(&gpu.name));
            assert!(
                named && error.starts_with("this machine has no GPU"),
                "{error}"
            );
        }
    }

    #[test]
    fn metal_4_is_told_and_not_claimed() {
        let mut mac = gpu(0, GpuKind::Integrated);
        mac.metal = Some(MetalFacts {
            apple_family: 10,
            metal3: true,
            metal4: true,
            macos: (26, 0),
        });
        let plan = planned(&[mac], DeviceChoice::Auto).unwrap();
        assert_eq!(plan.tier, Tier::Metal3);
        let told = "Metal 4 capable, Metal 3 kernels";
        assert!(plan.reasons.iter().any(|r| r == told), "{:?}", plan.reasons);
    }

    #[test]
    fn a_gpu_without_f16_computes_in_f32() {
        let mut plain = gpu(0, GpuKind::Discrete);
        plain.f16 = false;
        let plan = planned(&[plain], DeviceChoice::Auto).unwrap();
        assert_eq!(plan.gpu.unwrap().arithmetics, [Arithmetic::F32]);
        let plan = planned(&[gpu(0, GpuKind::Discrete)], DeviceChoice::Auto).unwrap();
        let expected = [Arithmetic::F16, Arithmetic::F32];
        assert_eq!(plan.gpu.unwrap().arithmetics, expected);
    }

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["auto", "cpu", "gpu", "gpu:0", "gpu:12"] {
            let choice: DeviceChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
        }
        for text in ["", "gpu:", "gpu:-1", "gpu:x", "metal", "cpu:0"] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
