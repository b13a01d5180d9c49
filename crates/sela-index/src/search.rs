//! The searcher.

pub use sela_compute::scan::{DIM_MAX, K_MAX, NORM_MAX};
use sela_compute::scan::{FOUND_MAX, Metric, Queries, Scan, Scanning};
use sela_compute::{CpuScan, Isa, scan_self_test};

use crate::error::Error;
use crate::plan::{Opened, Planned};
use crate::source::Source;

/// Most hits that the queries of one search can ask for together: queries times `k`.
pub const HITS_MAX: usize = FOUND_MAX;

/// How a searcher runs. The defaults suit a machine that has nothing else to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct SearcherOptions {
    /// The instruction set. `None`: the best this CPU has. Answers do not depend on it; choose
    /// one to test it.
    pub isa: Option<Isa>,
    /// Threads that a search may use, the caller's counted. 0: one for each core. Choose fewer to
    /// leave cores to others; answers do not depend on it.
    pub threads: usize,
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

/// Finds the nearest rows. Made once, shared by all threads; it holds a pool of threads.
pub struct Searcher {
    backend: Backend,
}

/// What a search runs on.
enum Backend {
    Cpu(CpuScan),
}

impl Searcher {
    /// A searcher with threads of its own, with the first instruction set that passes its self-test.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] for an instruction set that this CPU lacks, [`Error::Kernel`] when none
    /// that may be chosen gives right answers.
    pub fn new(options: SearcherOptions) -> Result<Self, Error> {
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut vetoed = None;
        for isa in options.isa.map_or_else(Isa::available, |isa| vec![isa]) {
            match scan_self_test(isa) {
                Ok(()) => return Ok(Self::over(CpuScan::new(isa, threads)?)),
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

    /// A searcher over a scan that exists.
    pub fn over(scan: CpuScan) -> Self {
        Self {
            backend: Backend::Cpu(scan),
        }
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
        let SearchOptions { dim, metric, k } = options;
        if dim != 0 && !queries.len().is_multiple_of(dim) {
            return Err(Error::Queries {
                dim,
                found: queries.len(),
            });
        }
        let queries = Queries {
            vectors: queries,
            dim,
            metric,
            k,
        };
        match &self.backend {
            Backend::Cpu(scan) => run(scan, source, queries),
        }
    }
}

/// A search on one kind of silicon.
fn run(
    scan: &impl Scan,
    source: &dyn Source,
    queries: Queries<'_>,
) -> Result<Vec<Vec<Hit>>, Error> {
    let opened = (0..source.parts())
        .map(|part| Opened::open(source, part))
        .collect::<Result<Vec<_>, _>>()?;
    let planned: Vec<Planned<'_>> = opened
        .iter()
        .flat_map(|part| part.blocks(source, queries.dim))
        .collect();
    let mut scanning = scan.begin(queries)?;
    for planned in &planned {
        scanning.scan(planned.block())?;
    }
    let found = scanning.submit().map_err(|error| match error {
        sela_compute::Error::Rows { block, source } => {
            let planned = &planned[block];
            Error::Block {
                part: planned.part(),
                block: planned.block,
                source,
            }
        }
        other => other.into(),
    })?;
    let hit = |found: sela_compute::scan::Found| {
        let planned = &planned[found.block as usize];
        Hit {
            part: planned.part() as u32,
            row: planned.first_row() as u32 + found.row,
            score: found.score,
            seq: found.seq,
        }
    };
    Ok(found
        .into_iter()
        .map(|best| best.into_iter().map(hit).collect())
        .collect())
}
