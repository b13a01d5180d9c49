//! From facts to choices: which tier, which kernels, in which order of preference, and why.
//!
//! [`plan`] is a pure function, so that every machine can be tested on any machine. Self-tests
//! may later veto a choice and fall to the next one; they never change the order.

use std::fmt;

use crate::error::Error;
use crate::inventory::{Bf16Unit, Inventory};
use crate::isa::Isa;

/// A path through the code, from the fastest silicon to the most common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// The CPU's own units.
    Cpu,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
        })
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
    /// Cosine to f32 of at least 0.999, 0.9999 in the mean.
    Bf16,
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
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16x3 => "bf16x3",
            Self::Bf16 => "bf16",
        })
    }
}

/// What the caller wants; the defaults suit everyone who has no reason to differ.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// The promise about the vectors. `Auto` unless stored vectors must match another machine's.
    pub precision: Precision,
    /// An instruction set to insist on: for tests and comparisons.
    pub isa: Option<Isa>,
    /// An arithmetic to insist on: for tests and comparisons.
    pub arithmetic: Option<Arithmetic>,
    /// Threads a call may use; all that the system gives unless set.
    pub threads: Option<usize>,
}

/// The choice, its alternatives in order, and the reasons.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tier.
    pub tier: Tier,
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
/// use sela_compute::{Inventory, PlanOptions, Tier, plan};
///
/// let plan = plan(&Inventory::probe(), &PlanOptions::default())?;
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
    let mut reasons = vec!["this build has no GPU kernels: everything runs on the CPU".to_owned()];
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
    // The units are fed by AVX-512.
    let unit = cpu.bf16.filter(|_| isas[0] == Isa::Avx512);
    let arithmetics = arithmetics(unit, options, &mut reasons);
    Ok(Plan {
        tier: Tier::Cpu,
        isas,
        arithmetics,
        threads,
        reasons,
    })
}

fn arithmetics(
    unit: Option<Bf16Unit>,
    options: &PlanOptions,
    reasons: &mut Vec<String>,
) -> Vec<Arithmetic> {
    if let Some(arithmetic) = options.arithmetic {
        reasons.push(format!("{arithmetic} products because they were asked for"));
        return vec![arithmetic];
    }
    let f32_grade = match unit {
        Some(unit) if unit.is_matrix() => {
            reasons.push(format!("f32 is computed as three bf16 products by {unit}"));
            vec![Arithmetic::Bf16x3, Arithmetic::F32]
        }
        _ => vec![Arithmetic::F32],
    };
    match (options.precision, unit) {
        (Precision::F32, _) => f32_grade,
        (Precision::Bf16, None) => {
            reasons
                .push("bf16 is emulated: there is no unit for it here, and f32 is faster".into());
            vec![Arithmetic::Bf16]
        }
        (Precision::Bf16, Some(unit)) => {
            reasons.push(format!("bf16 by {unit}"));
            vec![Arithmetic::Bf16]
        }
        (Precision::Auto, Some(unit)) => {
            reasons.push(format!("auto is bf16 by {unit}"));
            [vec![Arithmetic::Bf16], f32_grade].concat()
        }
        (Precision::Auto, None) => {
            reasons.push("auto is f32: there is no bf16 unit to use".into());
            f32_grade
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::CpuFacts;

    fn machine(isas: &[Isa], bf16: Option<Bf16Unit>) -> Inventory {
        let cpu = CpuFacts {
            name: None,
            arch: "any",
            threads: 8,
            isas: isas.to_vec(),
            bf16,
            memory_bytes: None,
        };
        Inventory { cpu }
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
}
