//! Measurements on this machine: embedding, search, cold start, memory.

mod embed;
mod process;
mod search;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sela_compute::Inventory;
use serde::Serialize;

use crate::engine::Engine;
use crate::error::Result;

/// Something to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// One short text, again and again.
    Single,
    /// A hundred texts in one call.
    Batch,
    /// Many texts in one call.
    Bulk,
    /// Texts that fill the model's length.
    Long,
    /// Exact search, one query and a hundred at once.
    Search,
    /// A process that starts, embeds one text and ends.
    Coldstart,
    /// Peak memory of a process that loads texts and does nothing else.
    Memory,
}

impl Workload {
    /// All of them, in the order they are measured.
    pub const ALL: [Self; 7] = [
        Self::Single,
        Self::Batch,
        Self::Bulk,
        Self::Long,
        Self::Search,
        Self::Coldstart,
        Self::Memory,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Batch => "batch",
            Self::Bulk => "bulk",
            Self::Long => "long",
            Self::Search => "search",
            Self::Coldstart => "coldstart",
            Self::Memory => "memory",
        }
    }
}

/// The name of no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no measurement `{0}`; there are single, batch, bulk, long, search, coldstart, memory"
)]
pub struct NoWorkload(String);

impl FromStr for Workload {
    type Err = NoWorkload;

    fn from_str(name: &str) -> Result<Self, NoWorkload> {
        let found = Self::ALL.into_iter().find(|w| w.name() == name);
        found.ok_or_else(|| NoWorkload(name.to_owned()))
    }
}

/// Rows of numbers.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// Numbers in a row.
    pub dim: usize,
    /// All rows, one after another.
    pub numbers: Vec<f32>,
}

impl Matrix {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.numbers.len() / self.dim.max(1)
    }
}

/// What is measured and on what; what is not given comes from the demo corpus or from seeded
/// random numbers.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The measurements; default: all.
    pub only: Vec<Workload>,
    /// Runs of each; figures are medians over them. Default: 1.
    pub repeat: usize,
    /// Texts of the bulk run.
    pub texts: Option<Vec<String>>,
    /// Texts of the batch.
    pub batch_texts: Option<Vec<String>>,
    /// Texts that fill the model's length.
    pub long_texts: Option<Vec<String>>,
    /// Rows to search, and the queries to search for.
    pub vectors: Option<(Matrix, Matrix)>,
    /// Sizes of the random row sets where none are given; default: 10,000, 100,000, 1,000,000.
    pub sizes: Vec<usize>,
    /// Rows to find for each query; default: 10.
    pub k: usize,
    /// The `sela` program, for the cold start and the memory; without it both are left out.
    pub program: Option<PathBuf>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            only: Workload::ALL.to_vec(),
            repeat: 1,
            texts: None,
            batch_texts: None,
            long_texts: None,
            vectors: None,
            sizes: vec![10_000, 100_000, 1_000_000],
            k: 10,
            program: None,
        }
    }
}

/// A measured line; what does not apply is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured: `single`, `batch100`, `search1`.
    pub name: &'static str,
    /// The unit of the numbers without one in their name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// Texts or rows it was measured on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    /// Half of the calls took at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// All but one in a hundred took at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// The median of the runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// The most there was at any moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<f64>,
    /// Texts in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub texts_per_s: Option<f64>,
    /// Tokens, special ones included, in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_s: Option<f64>,
}

/// The machine a bench ran on, and what was chosen for it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The version of this program.
    pub sela: &'static str,
    /// The maker's name of the CPU.
    pub cpu: Option<String>,
    /// Threads the system has.
    pub cpu_threads: usize,
    /// Threads that were used.
    pub threads: usize,
    /// Instruction set of the kernels.
    pub isa: String,
    /// The bf16 unit of the CPU, if it has one.
    pub bf16_unit: Option<String>,
    /// The precision asked for.
    pub dtype: String,
    /// The arithmetic of the encoder, if it was needed.
    pub arithmetic: Option<String>,
    /// The operating system and architecture.
    pub system: String,
}

/// Everything a bench found.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Where.
    pub machine: Machine,
    /// What.
    pub results: Vec<Figure>,
}

/// Runs the measurements, telling of each when it begins (`None`) and of each figure found.
pub fn run(
    engine: &Engine,
    options: &BenchOptions,
    sink: &mut dyn FnMut(Workload, Option<&Figure>),
) -> Result<BenchReport> {
    let machine = machine(engine, needs_model(&options.only))?;
    let mut results = Vec::new();
    for workload in Workload::ALL
        .into_iter()
        .filter(|w| options.only.contains(w))
    {
        sink(workload, None);
        let figures = match workload {
            Workload::Single => embed::single(engine, options)?,
            Workload::Batch => embed::batch(engine, options)?,
            Workload::Bulk => embed::bulk(engine, options)?,
            Workload::Long => embed::long(engine, options)?,
            Workload::Search => search::search(engine, options)?,
            Workload::Coldstart => process::coldstart(engine, options)?,
            Workload::Memory => process::memory(engine, options)?,
        };
        for figure in figures {
            sink(workload, Some(&figure));
            results.push(figure);
        }
    }
    Ok(BenchReport { machine, results })
}

/// Whether any of the measurements embeds text.
pub fn needs_model(workloads: &[Workload]) -> bool {
    workloads.iter().any(|w| *w != Workload::Search)
}

fn machine(engine: &Engine, with_model: bool) -> Result<Machine> {
    let cpu = Inventory::probe().cpu;
    let report = match with_model {
        true => Some(engine.capabilities()?.report),
        false => None,
    };
    let options = engine.options();
    let isa = report.as_ref().map_or(cpu.isas[0], |r| r.isa);
    Ok(Machine {
        sela: env!("CARGO_PKG_VERSION"),
        cpu: cpu.name,
        cpu_threads: cpu.threads,
        threads: options.threads.unwrap_or(cpu.threads),
        isa: isa.to_string(),
        bf16_unit: cpu.bf16.map(|unit| unit.to_string()),
        dtype: format!("{:?}", options.dtype).to_lowercase(),
        arithmetic: report.map(|r| r.arithmetic.to_string()),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// How long a call takes.
fn timed<T>(call: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let began = Instant::now();
    let result = call()?;
    Ok((began.elapsed(), result))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The value that `share` of all values do not exceed.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((share * last as f64).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}
