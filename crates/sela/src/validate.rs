//! Checks that a user can run: are the vectors right, the batches invariant, the search exact,
//! does the disk give back what it was given, and does the GPU say what the CPU says?

mod gpu;
mod search;
mod store;
mod vectors;

use std::time::{Duration, Instant};

use sela_compute::Isa;
use sela_compute::inventory::{Bf16Unit, Int8Unit};
use serde::Serialize;

use crate::engine::Engine;
use crate::error::Result;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// As it must be.
    Pass {
        /// What was found, with figures.
        found: String,
    },
    /// Not as it must be.
    Fail {
        /// What was found instead.
        found: String,
    },
    /// It cannot be run here.
    Skipped {
        /// What this machine lacks for it.
        lacks: String,
    },
}

/// One line of a validation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took.
    #[serde(skip)]
    pub took: Duration,
}

impl Check {
    /// Whether it ended as it must not.
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Fail { .. })
    }
}

/// Collects checks and tells of each as it ends.
struct Checks<'a> {
    done: Vec<Check>,
    sink: &'a mut dyn FnMut(&Check),
}

impl Checks<'_> {
    /// Runs a check; an error of the engine is a failure of the check.
    fn run(&mut self, name: impl Into<String>, check: impl FnOnce() -> Result<Outcome>) {
        let began = Instant::now();
        let outcome = check().unwrap_or_else(|error| Outcome::Fail {
            found: error.to_string(),
        });
        self.note(Check {
            name: name.into(),
            outcome,
            took: began.elapsed(),
        });
    }

    /// Tells of a check that was run.
    fn note(&mut self, check: Check) {
        (self.sink)(&check);
        self.done.push(check);
    }
}

/// `Pass` or `Fail` by a condition.
fn verdict(passed: bool, found: impl Into<String>) -> Outcome {
    let found = found.into();
    if passed {
        Outcome::Pass { found }
    } else {
        Outcome::Fail { found }
    }
}

fn skipped(lacks: impl Into<String>) -> Result<Outcome> {
    Ok(Outcome::Skipped {
        lacks: lacks.into(),
    })
}

/// Instruction sets that a CPU of this architecture may have and the kernels can use, the preferred
/// one first.
pub fn instruction_sets() -> &'static [Isa] {
    match std::env::consts::ARCH {
        "x86_64" => &[Isa::Avx512, Isa::Avx2, Isa::Plain],
        "aarch64" => &[Isa::Neon, Isa::Plain],
        _ => &[Isa::Plain],
    }
}

/// Units for bf16 products that a CPU of this architecture may have and the kernels can use, the
/// preferred one first.
pub fn bf16_units() -> &'static [Bf16Unit] {
    match std::env::consts::ARCH {
        "x86_64" => &[Bf16Unit::Amx, Bf16Unit::Avx512Bf16],
        _ => &[],
    }
}

/// The same for int8 products.
pub fn int8_units() -> &'static [Int8Unit] {
    match std::env::consts::ARCH {
        "x86_64" => &[Int8Unit::Amx, Int8Unit::Avx512Vnni, Int8Unit::AvxVnni],
        _ => &[],
    }
}

/// Runs all checks with the engine's model and threads.
pub fn run(engine: &Engine, sink: &mut dyn FnMut(&Check)) -> Result<Vec<Check>> {
    let mut checks = Checks {
        done: Vec::new(),
        sink,
    };
    gpu::kernels(engine, &mut checks)?;
    vectors::run(engine, &mut checks)?;
    search::run(engine, &mut checks);
    store::run(engine, &mut checks);
    gpu::run(engine, &mut checks)?;
    Ok(checks.done)
}
