//! Measurements on this machine, the CPU and the GPU side by side: embedding, search, both together,
//! storage, cold start, memory.

mod compare;
mod embed;
mod page;
mod process;
mod rag;
mod saved;
mod search;
mod sides;
mod storage;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sela_compute::{DeviceChoice, Inventory};
use serde::Serialize;

use crate::engine::Engine;
use crate::error::Result;
use crate::scratch::Scratch;
use crate::stats::Stats;
pub use compare::{Comparison, Target};
pub use page::html;
pub use saved::{Change, Changes, Number, Saved, SavedFigure, changes};
use sides::Side;
pub use sides::Used;

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
    /// A question embedded, its nearest verses searched and their texts fetched.
    Rag,
    /// Vectors written to a collection and read from it.
    Storage,
    /// A process that starts, embeds one text and ends.
    Coldstart,
    /// Peak memory of a process that loads texts and does nothing else, and of those that load a
    /// million vectors and search them.
    Memory,
}

impl Workload {
    /// All of them, in the order they are measured.
    pub const ALL: [Self; 9] = [
        Self::Single,
        Self::Batch,
        Self::Bulk,
        Self::Long,
        Self::Search,
        Self::Rag,
        Self::Storage,
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
            Self::Rag => "rag",
            Self::Storage => "storage",
            Self::Coldstart => "coldstart",
            Self::Memory => "memory",
        }
    }
}

/// The name of no workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no measurement `{0}`; there are single, batch, bulk, long, search, rag, storage, \
     coldstart, memory"
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
    /// Devices to measure one after another; default: the CPU, and the best GPU if there is one.
    /// `Auto` is the best of them. A GPU does all that is measured on it: nothing is routed.
    pub devices: Vec<DeviceChoice>,
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
    /// Verses to ask questions of; default: all 31,102.
    pub verses: usize,
    /// Vectors of 384 numbers to write and read; default: 100,000.
    pub storage_rows: usize,
    /// Vectors of 384 numbers that the processes load and search whose memory is measured; default:
    /// 1,000,000.
    pub memory_rows: usize,
    /// The `sela` program, for the cold start and the memory; without it both are left out.
    pub program: Option<PathBuf>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            only: Workload::ALL.to_vec(),
            devices: Vec::new(),
            repeat: 1,
            texts: None,
            batch_texts: None,
            long_texts: None,
            vectors: None,
            sizes: vec![10_000, 100_000, 1_000_000],
            k: 10,
            verses: crate::demo::VERSES as usize,
            storage_rows: 100_000,
            memory_rows: 1_000_000,
            program: None,
        }
    }
}

/// A measured line; what does not apply is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured: `single`, `batch100`, `search1`.
    pub name: &'static str,
    /// Where it was measured: `cpu`, or `gpu:N`, and then that GPU did the work; nothing where
    /// the device has no part in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
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
    /// Rows in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_per_s: Option<f64>,
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
    /// Instruction set of the CPU's kernels.
    pub isa: String,
    /// The bf16 unit of the CPU, if it has one.
    pub bf16_unit: Option<String>,
    /// The int8 unit of the CPU, if it has one.
    #[serde(default)]
    pub int8_unit: Option<String>,
    /// The int16 units of the CPU that outpace f32, the fastest first.
    #[serde(default)]
    pub int16_units: Vec<String>,
    /// The precision asked for.
    pub dtype: String,
    /// The arithmetic of the encoder on the first device, if it was needed.
    pub arithmetic: Option<String>,
    /// The devices that were measured.
    pub devices: Vec<Used>,
    /// Most bytes of vectors in a GPU's memory.
    pub gpu_cache: u64,
    /// Most bytes of codes of vectors in memory.
    pub scan_cache: u64,
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
    /// How much faster GPUs are than the CPU, where both were measured.
    pub speedups: Vec<Comparison>,
    /// What Sela wants to reach, and whether it was.
    pub targets: Vec<Target>,
    /// What could not be measured, because the CPU did in a GPU's place what the GPU was to do, or
    /// because a GPU that nobody had named does not open.
    pub not_measured: Vec<String>,
}

/// What the measurements share.
struct Bench<'a> {
    options: &'a BenchOptions,
    sides: Vec<Side>,
    /// Where collections are made for the measurements; all sides have their data there.
    scratch: Scratch,
    /// The engine with the user's own collections.
    engine: &'a Engine,
}

/// Runs the measurements, telling of each when it begins (`None`) and of each figure found. What the
/// CPU did in a GPU's place is no figure; [`BenchReport::not_measured`] says so.
pub fn run(
    engine: &Engine,
    options: &BenchOptions,
    sink: &mut dyn FnMut(Workload, Option<&Figure>),
) -> Result<BenchReport> {
    let scratch = Scratch::new(&engine.options().home, "bench")?;
    let (sides, mut not_measured) = sides::open(engine, &options.devices, scratch.path())?;
    let bench = Bench {
        options,
        sides,
        scratch,
        engine,
    };
    let machine = machine(&bench)?;
    let mut results = Vec::new();
    for workload in Workload::ALL
        .into_iter()
        .filter(|w| options.only.contains(w))
    {
        sink(workload, None);
        let measured = bench.measure(workload, &mut |figure| {
            sink(workload, Some(&figure));
            results.push(figure);
        });
        match measured {
            Err(error @ crate::Error::NotMeasured { .. }) => not_measured.push(error.to_string()),
            other => other?,
        }
    }
    Ok(BenchReport {
        machine,
        speedups: compare::speedups(&results),
        targets: compare::targets(&results),
        results,
        not_measured,
    })
}

impl Bench<'_> {
    fn measure(&self, workload: Workload, found: &mut dyn FnMut(Figure)) -> Result<()> {
        match workload {
            Workload::Storage => storage::storage(self)?.into_iter().for_each(&mut *found),
            Workload::Memory => process::memory(self, found)?,
            Workload::Rag => rag::rag(self, found)?,
            Workload::Search => search::search(self, found)?,
            _ => {
                for side in &self.sides {
                    let figures = match workload {
                        Workload::Single => side.embedding("single", embed::single, self.options),
                        Workload::Batch => side.embedding("batch100", embed::batch, self.options),
                        Workload::Bulk => side.embedding("bulk", embed::bulk, self.options),
                        Workload::Long => side.embedding("long", embed::long, self.options),
                        _ => process::coldstart(self, side),
                    }?;
                    figures.into_iter().for_each(&mut *found);
                }
            }
        }
        Ok(())
    }
}

/// Whether the GPU embedded all texts between two looks at the counters; else what happened.
pub(crate) fn embedded_by_gpu(before: &Stats, after: &Stats) -> Result<(), String> {
    sides::did_the_work(before, after, sides::Uses::Encoder)
}

/// Whether any of the measurements embeds text.
pub fn needs_model(workloads: &[Workload]) -> bool {
    workloads
        .iter()
        .any(|w| !matches!(w, Workload::Search | Workload::Storage))
}

fn machine(bench: &Bench<'_>) -> Result<Machine> {
    let cpu = Inventory::probe_cpu().cpu;
    let with_model = needs_model(&bench.options.only);
    let used = bench.sides.iter().map(|side| side.used(with_model));
    let devices = used.collect::<Result<Vec<_>>>()?;
    let options = bench.engine.options();
    let isa = devices.iter().find_map(|used| used.isa.clone());
    Ok(Machine {
        sela: env!("CARGO_PKG_VERSION"),
        cpu: cpu.name,
        cpu_threads: cpu.threads,
        threads: options.threads.unwrap_or(cpu.threads),
        isa: isa.unwrap_or_else(|| cpu.isas[0].to_string()),
        bf16_unit: cpu.bf16.map(|unit| unit.to_string()),
        int8_unit: cpu.int8.first().map(ToString::to_string),
        int16_units: cpu.int16.iter().map(ToString::to_string).collect(),
        dtype: format!("{:?}", options.dtype).to_lowercase(),
        arithmetic: devices.first().and_then(|used| used.arithmetic.clone()),
        devices,
        gpu_cache: options.gpu_cache,
        scan_cache: options.scan_cache,
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
