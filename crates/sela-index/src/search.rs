//! The searcher.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "gpu")]
use sela_compute::gpu::{Gpu, scan::Probe};
pub use sela_compute::scan::{DIM_MAX, K_MAX, NORM_MAX};
use sela_compute::scan::{FOUND_MAX, Found, Metric, Queries, Scan, Scanning};
use sela_compute::{CodeStats, CpuScan, Isa, scan_self_test};
use serde::Serialize;

#[cfg(feature = "gpu")]
use crate::device::Device;
use crate::error::Error;
use crate::plan::{Opened, Planned};
use crate::source::Source;

/// Most hits that the queries of one search can ask for together: queries times `k`.
pub const HITS_MAX: usize = FOUND_MAX;

/// How a searcher runs. The defaults suit a machine that has nothing else to do.
#[derive(Clone, Debug)]
pub struct SearcherOptions {
    /// The instruction set. `None`: the best this CPU has. Answers do not depend on it; choose
    /// one to test it.
    pub isa: Option<Isa>,
    /// Threads that a search may use, the caller's counted. 0: one for each core. Choose fewer to
    /// leave cores to others; answers do not depend on it.
    pub threads: usize,
    /// A GPU that may search as well. Answers do not depend on it.
    #[cfg(feature = "gpu")]
    pub gpu: Option<Gpu>,
    /// Bytes of the GPU's memory for copies of rows, 2 GiB by default: raise it where collections
    /// are larger and the memory is there.
    pub gpu_cache: u64,
    /// Bytes of the CPU's memory for int8 codes of rows, 1 GiB by default: enough for 2.7 million
    /// rows of 384 numbers. A collection that is searched again and again is then searched by its
    /// codes, a quarter of the bytes, with the same answers. 0 turns it off.
    pub scan_cache: u64,
    /// Which searches go to the GPU.
    pub route: RouteChoice,
}

impl Default for SearcherOptions {
    fn default() -> Self {
        Self {
            isa: None,
            threads: 0,
            #[cfg(feature = "gpu")]
            gpu: None,
            gpu_cache: 2 << 30,
            scan_cache: 1 << 30,
            route: RouteChoice::Auto,
        }
    }
}

/// Which searches go to the GPU, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteChoice {
    /// Those that are done sooner there, as measured at start.
    #[default]
    Auto,
    /// None.
    Cpu,
    /// All that it can do. When it fails, the CPU does them.
    Gpu,
}

/// Where a search goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// To the GPU; else to the CPU.
    pub gpu: bool,
    /// Why, in a sentence.
    pub reason: String,
}

/// As people and files get to read it: `gpu: ...`, `cpu: ...`.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = if self.gpu { "gpu" } else { "cpu" };
        write!(f, "{on}: {}", self.reason)
    }
}

/// Searches by device, and what the GPU holds of the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SearchStats {
    /// The GPU, `gpu:N`, if searches may be done by one.
    pub device: Option<String>,
    /// Its name.
    pub device_name: Option<String>,
    /// The kind of its kernels.
    pub variant: Option<String>,
    /// How it is known that they are right: their self-test has `passed`, or is `remembered` from
    /// earlier.
    pub self_test: Option<String>,
    /// Kernels that this GPU should be able to run but whose self-test failed, and how.
    pub vetoes: Vec<String>,
    /// Searches in which the GPU found the candidates of at least one query. Scoring them is always
    /// the CPU's.
    pub on_gpu: u64,
    /// Queries that the GPU found the candidates of.
    pub gpu_queries: u64,
    /// Queries that were given to the GPU and left to the CPU: too many rows, or too few, are near to
    /// them, `k` is large, or numbers are extreme.
    pub gpu_left: u64,
    /// Searches that the CPU did: those that went to it, those that the GPU failed, and those that
    /// went to the GPU and were left to the CPU whole.
    pub on_cpu: u64,
    /// Times that the GPU failed: searches, and kernels that could not be made ready.
    pub fallbacks: u64,
    /// Why it did so last.
    pub last_fallback: Option<String>,
    /// Where the last search went, and why there: `gpu: ...`, `cpu: ...`.
    pub last: Option<String>,
    /// Copies of rows in the GPU's memory.
    pub pages: Pages,
    /// Codes of rows in the CPU's memory.
    pub codes: Codes,
}

/// int8 codes of rows in the CPU's memory, in portions of some thousand rows, by which searches on
/// the CPU find candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Codes {
    /// Portions whose codes a search found.
    pub hits: u64,
    /// Portions that a search scanned in full, for they had none.
    pub misses: u64,
    /// Portions that were given codes.
    pub made: u64,
    /// Portions whose codes were given up for others.
    pub dropped: u64,
    /// Rows of portions with codes that were scored from their numbers, once for each query.
    pub rescored: u64,
    /// Times that codes were there and rows were scanned in full nevertheless: a part of a portion
    /// whose rows they could not tell apart, or a whole search, for too many rows or by queries with
    /// norms beyond 1e-12..1e12.
    pub overflows: u64,
    /// Bytes there now.
    pub bytes: u64,
    /// Most bytes that may be there; 0: none are made.
    pub budget: u64,
}

impl From<CodeStats> for Codes {
    fn from(stats: CodeStats) -> Self {
        Self {
            hits: stats.hits,
            misses: stats.misses,
            made: stats.made,
            dropped: stats.dropped,
            rescored: stats.rescored,
            overflows: stats.overflows,
            bytes: stats.bytes,
            budget: stats.budget,
        }
    }
}

/// Copies of rows in the GPU's memory, in portions of some MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pages {
    /// Portions that a search needed and found there.
    pub hits: u64,
    /// Portions that a search needed and did not find there.
    pub misses: u64,
    /// Portions brought there to stay.
    pub page_ins: u64,
    /// Portions given up for others.
    pub page_outs: u64,
    /// Portions that passed through and did not stay.
    pub streamed: u64,
    /// Bytes there now.
    pub bytes: u64,
    /// Most bytes that may be there.
    pub budget: u64,
}

/// What is searched for.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions {
    /// Numbers in a vector, at most [`DIM_MAX`].
    pub dim: usize,
    /// How vectors are compared.
    pub metric: Metric,
    /// How many of the nearest rows each query gets, at most [`K_MAX`].
    pub k: usize,
}

/// A row near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The part it is in.
    pub part: u32,
    /// Its row in the part.
    pub row: u32,
    /// The canonical score.
    pub score: f32,
    /// Its sequence number.
    pub seq: u64,
}

/// Finds the nearest rows. Made once, shared by all threads; it holds a pool of threads and, with
/// a GPU, copies of rows there.
pub struct Searcher {
    cpu: Arc<CpuScan>,
    #[cfg(feature = "gpu")]
    device: Option<Device>,
    /// Why there is no device though one was given.
    no_device: Option<String>,
    on_cpu: AtomicU64,
    last: Mutex<Option<Decision>>,
}

impl Searcher {
    /// A searcher with threads of its own, with the first instruction set that passes its self-test
    /// and, if there is a GPU, with the first of its kernels that do; a GPU without any is not used.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] for an instruction set that this CPU lacks, [`Error::Kernel`] when none
    /// that may be chosen gives right answers.
    pub fn new(options: SearcherOptions) -> Result<Self, Error> {
        let searcher = Self::over(cpu(&options)?);
        #[cfg(feature = "gpu")]
        return Ok(searcher.with_gpu(&options));
        #[cfg(not(feature = "gpu"))]
        Ok(searcher)
    }

    /// A searcher over a scan that exists.
    pub fn over(scan: CpuScan) -> Self {
        Self {
            cpu: Arc::new(scan),
            #[cfg(feature = "gpu")]
            device: None,
            no_device: None,
            on_cpu: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    #[cfg(feature = "gpu")]
    fn with_gpu(mut self, options: &SearcherOptions) -> Self {
        let Some(gpu) = options
            .gpu
            .as_ref()
            .filter(|_| options.route != RouteChoice::Cpu)
        else {
            return self;
        };
        match Device::new(gpu, &self.cpu, options.gpu_cache, options.route) {
            Ok(device) => self.device = Some(device),
            Err(error) => {
                let gpu = &gpu.facts().name;
                tracing::warn!(%gpu, %error, "the GPU cannot search; the CPU does");
                self.no_device = Some(error.to_string());
            }
        }
        self
    }

    /// Gives up codes, and copies that a device holds, of a part of that identity: it will not be searched again.
    pub fn forget(&self, identity: u64) {
        self.cpu.forget(identity);
        #[cfg(feature = "gpu")]
        if let Some(device) = &self.device {
            device.scan().forget(identity);
        }
    }

    /// What the router goes by, as measured when the searcher was made; nothing where only the CPU
    /// searches.
    #[cfg(feature = "gpu")]
    pub fn gpu_probe(&self) -> Option<Probe> {
        self.device.as_ref().map(|device| *device.scan().probe())
    }

    /// What was done so far.
    pub fn stats(&self) -> SearchStats {
        #[cfg_attr(
            not(feature = "gpu"),
            expect(unused_mut, reason = "only a GPU adds to them")
        )]
        let mut stats = SearchStats {
            on_cpu: self.on_cpu.load(Ordering::Relaxed),
            fallbacks: u64::from(self.no_device.is_some()),
            last_fallback: self.no_device.clone(),
            last: self
                .last
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map(Decision::to_string),
            codes: self.cpu.code_stats().into(),
            ..SearchStats::default()
        };
        #[cfg(feature = "gpu")]
        if let Some(device) = &self.device {
            device.add_to(&mut stats);
        }
        stats
    }

    /// Where a search would go now, and why. Nothing is searched.
    ///
    /// # Errors
    ///
    /// As for [`Self::search`].
    pub fn explain(
        &self,
        source: &dyn Source,
        queries: &[f32],
        options: SearchOptions,
    ) -> Result<Decision, Error> {
        let queries = checked(queries, options)?;
        let opened = open(source)?;
        let planned = pages(source, &opened, queries.dim);
        Ok(self.decide(&planned, &queries))
    }

    fn decide(&self, planned: &[Planned<'_>], queries: &Queries<'_>) -> Decision {
        #[cfg(feature = "gpu")]
        if let Some(device) = &self.device {
            return device.decide(planned.iter().map(Planned::block), queries);
        }
        let _ = (planned, queries);
        let reason = match &self.no_device {
            Some(why) => format!("the GPU cannot search: {why}"),
            None => "no GPU is in use".into(),
        };
        Decision { gpu: false, reason }
    }

    /// For each query its `min(k, rows that take part)` nearest rows, the nearest first, equals by
    /// ascending sequence number.
    ///
    /// `queries` holds whole vectors, one after another. Cosine and dot scores descend; L2 scores
    /// are Euclidean distances and ascend.
    ///
    /// # Errors
    ///
    /// [`Error::Queries`], [`Error::NotFinite`] and [`Error::Limit`] for a request that cannot be
    /// answered; [`Error::Part`], [`Error::PartShape`] and [`Error::Block`] for a source that
    /// fails: there is no partial answer.
    pub fn search(
        &self,
        source: &dyn Source,
        queries: &[f32],
        options: SearchOptions,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let queries = checked(queries, options)?;
        let opened = open(source)?;
        let planned = pages(source, &opened, queries.dim);
        let decision = self.decide(&planned, &queries);
        let gpu = decision.gpu;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision);
        #[cfg(feature = "gpu")]
        if let Some(device) = self.device.as_ref().filter(|_| gpu) {
            match run(device.scan(), &planned, queries) {
                Err(error @ sela_compute::Error::Device { .. }) => device.failed(&error),
                found => {
                    if found.is_ok() {
                        device.worked();
                    }
                    return found
                        .map(|found| hits(&planned, found))
                        .map_err(|e| named(&planned, e));
                }
            }
        }
        let _ = gpu;
        self.on_cpu.fetch_add(1, Ordering::Relaxed);
        let found = run(&*self.cpu, &planned, queries).map_err(|e| named(&planned, e))?;
        Ok(hits(&planned, found))
    }
}

/// The first instruction set that passes its self-test, with threads.
fn cpu(options: &SearcherOptions) -> Result<CpuScan, Error> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let mut vetoed = None;
    for isa in options.isa.map_or_else(Isa::available, |isa| vec![isa]) {
        match scan_self_test(isa) {
            Ok(()) => return Ok(CpuScan::new(isa, threads)?.with_codes(options.scan_cache)),
            Err(veto @ sela_compute::Error::SelfTest(_)) => {
                tracing::warn!(%isa, %veto, "self-test of the search failed");
                vetoed = Some(veto);
            }
            Err(other) => return Err(other.into()),
        }
    }
    Err(vetoed.map_or_else(
        || Error::Missing("instruction set to search with".into()),
        Error::from,
    ))
}

/// A request whose queries are whole vectors.
fn checked(queries: &[f32], options: SearchOptions) -> Result<Queries<'_>, Error> {
    let SearchOptions { dim, metric, k } = options;
    if dim != 0 && !queries.len().is_multiple_of(dim) {
        return Err(Error::Queries {
            dim,
            found: queries.len(),
        });
    }
    Ok(Queries {
        vectors: queries,
        dim,
        metric,
        k,
    })
}

/// All parts of a source.
fn open(source: &dyn Source) -> Result<Vec<Opened<'_>>, Error> {
    (0..source.parts())
        .map(|part| Opened::open(source, part))
        .collect()
}

/// Their pages that have rows to score.
fn pages<'a>(source: &'a dyn Source, opened: &'a [Opened<'a>], dim: usize) -> Vec<Planned<'a>> {
    opened
        .iter()
        .flat_map(|part| part.pages(source, dim))
        .collect()
}

/// A search on one kind of silicon.
fn run(
    scan: &impl Scan,
    planned: &[Planned<'_>],
    queries: Queries<'_>,
) -> Result<Vec<Vec<Found>>, sela_compute::Error> {
    let mut scanning = scan.begin(queries)?;
    for planned in planned {
        scanning.scan(planned.block())?;
    }
    scanning.submit()
}

/// An error in the words of the source.
fn named(planned: &[Planned<'_>], error: sela_compute::Error) -> Error {
    match error {
        sela_compute::Error::Rows {
            block,
            chunk,
            source,
        } => {
            let planned = &planned[block];
            Error::Block {
                part: planned.part(),
                block: planned.block_of(chunk),
                source,
            }
        }
        other => other.into(),
    }
}

/// What was found, by part and row.
fn hits(planned: &[Planned<'_>], found: Vec<Vec<Found>>) -> Vec<Vec<Hit>> {
    let hit = |found: Found| {
        let planned = &planned[found.block as usize];
        Hit {
            part: planned.part() as u32,
            row: planned.first_row() as u32 + found.row,
            score: found.score,
            seq: found.seq,
        }
    };
    found
        .into_iter()
        .map(|best| best.into_iter().map(hit).collect())
        .collect()
}
