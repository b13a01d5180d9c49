//! Search on a GPU: kernels find the rows that may be among the nearest, the CPU scores those.
//!
//! The device keeps copies of rows ([`pages`]) and ranks all of them for all queries, but gives
//! out only the best rank of each group of 32 or 64 rows; the matrix of ranks is never written. A
//! selection of the groups whose best comes near the k-th best of all ([`bound`] says how near)
//! goes back to the host, which scores every live row of them canonically. So an answer is the
//! CPU's to the bit, ties included, whatever kernel ranked the rows.
//!
//! What a device cannot do within a search, the CPU does: blocks too small to be worth a copy, a
//! large `k`, very long vectors, numbers beyond what ranks in f32 can bear, and queries that so
//! many rows come near to that the selection overflows. Each is counted in [`ScanStats`].

mod bound;
mod kernels;
mod pages;
mod probe;
mod route;
mod selftest;
mod space;
mod units;
mod upload;
mod work;

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::sync::{Arc, Mutex};

pub use self::kernels::{Variant, shaders};
pub use self::pages::PageStats;
pub use self::probe::Probe;
pub use self::route::{Request, Route, route};
pub use self::selftest::{Tested, self_tests};

use self::bound::DIM_MAX_GPU;
use self::kernels::Kernels;
use self::pages::Pages;
use self::space::{Packed, index, norm, suits};
use self::units::{Asked, Layout, Once, Unit, cut};
use self::work::{Engine, Job, Verdict};
use crate::cpu::scan::{CpuScan, Pick};
use crate::error::Error;
use crate::gpu::{Gpu, Proof};
use crate::scan::{Block, Found, Metric, Queries, Record, Scan, Scanning};

/// Most rows that a query gets by way of the device; more are the CPU's.
pub const GPU_K_MAX: usize = 1_024;
/// Queries that are ranked together; more go one batch after another.
const BATCH: usize = 256;

/// How a GPU searches. The defaults suit a collection of a few million rows.
#[derive(Clone, Copy, Debug)]
pub struct GpuScanOptions {
    /// Bytes of device memory for copies of rows, 2 GiB by default: as much as the collections
    /// that are searched often take, if there is that much to spare. Beyond it, rows are streamed.
    pub cache_bytes: u64,
    /// Blocks of fewer bytes are left to the CPU, 64 KiB by default.
    pub block_bytes_min: usize,
    /// The best variant of kernels to try; choose a lesser one to test it.
    pub variant: Variant,
    /// Most ranks of groups among which the CPU chooses, 4,096 by default: few are sooner looked
    /// through there than by more kernels. With 0 the device always chooses.
    pub ranks_on_cpu_max: u32,
}

impl Default for GpuScanOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 2 << 30,
            block_bytes_min: 64 << 10,
            variant: Variant::Matrix,
            ranks_on_cpu_max: 4_096,
        }
    }
}

/// What searches on a GPU have come to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Copies of rows on the device.
    pub pages: PageStats,
    /// Searches in which the device has answered at least one query.
    pub searches: u64,
    /// Searches in which it has answered none: the CPU did them whole.
    pub searches_left: u64,
    /// Queries that the device has answered, with the CPU's scores.
    pub queries: u64,
    /// Groups of rows whose scores the CPU computed for them.
    pub groups: u64,
    /// Queries that too many rows came near to for the matrix kernel; the device took them again.
    pub again: u64,
    /// Queries left to the CPU because too many rows came near to them.
    pub too_many: u64,
    /// Queries left to the CPU because numbers were too large or too small.
    pub unsound: u64,
    /// Queries left to the CPU because of a large `k` or long vectors.
    pub beyond: u64,
}

#[derive(Default)]
struct Counts {
    searches: AtomicU64,
    searches_left: AtomicU64,
    queries: AtomicU64,
    groups: AtomicU64,
    again: AtomicU64,
    too_many: AtomicU64,
    unsound: AtomicU64,
    beyond: AtomicU64,
}

/// Rows of a search, and how many bytes of them are on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of rows with copies on the device.
    pub resident_bytes: u64,
    /// Bytes of rows without.
    pub missing_bytes: u64,
}

/// Exact search on a GPU. Answers are those of [`CpuScan`] to the bit.
pub struct GpuScan {
    engine: Engine,
    cpu: Arc<CpuScan>,
    options: GpuScanOptions,
    /// Side of the matrices, if batches go over matrices.
    matrix: Option<u32>,
    subgroup: bool,
    vetoes: Vec<String>,
    proof: Proof,
    probe: Probe,
    counts: Counts,
}

impl GpuScan {
    /// Search on `gpu` with the best kernels that pass their self-test there, now or as is
    /// remembered; `cpu` scores what they find. Takes some tens of milliseconds, for compiling and measuring.
    ///
    /// # Errors
    ///
    /// [`Error::SelfTest`] when no kernels give right answers, [`Error::Device`] when the device
    /// fails.
    pub fn new(gpu: &Gpu, cpu: Arc<CpuScan>, options: GpuScanOptions) -> Result<Self, Error> {
        let mut engine = Engine {
            gpu: gpu.clone(),
            kernels: Kernels::new(gpu),
            turn: Mutex::default(),
            pages: Mutex::new(Pages::new(gpu, options.cache_bytes)),
            spaces: Mutex::default(),
            ranks_on_cpu_max: 0,
        };
        // The kernels that choose are tested too, so the CPU does not yet.
        let selftest::Passed {
            matrix,
            subgroup,
            vetoes,
            proof,
        } = selftest::best(&engine, &cpu, options.variant)?;
        engine.ranks_on_cpu_max = options.ranks_on_cpu_max;
        let probe = probe::measure(&engine, &cpu, subgroup)?;
        // What both have brought in is of no use any more.
        engine.pages = Mutex::new(Pages::new(gpu, options.cache_bytes));
        Ok(Self {
            engine,
            cpu,
            options,
            matrix,
            subgroup,
            vetoes,
            proof,
            probe,
            counts: Counts::default(),
        })
    }

    /// How fast the device and the CPU search, for [`route`].
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// The kernels in use.
    pub fn variant(&self) -> Variant {
        match (self.matrix, self.subgroup) {
            (Some(_), _) => Variant::Matrix,
            (None, true) => Variant::Subgroup,
            (None, false) => Variant::Plain,
        }
    }

    /// Kernels that this GPU should be able to run but whose self-test failed, and how.
    pub fn vetoes(&self) -> &[String] {
        &self.vetoes
    }

    /// How it is known that its kernels are right.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.engine.gpu
    }

    /// Gives up the copies of all blocks of an owner: they will not be asked for again.
    pub fn forget(&self, owner: u64) {
        self.engine.forget(owner);
    }

    /// What searches have come to so far.
    pub fn stats(&self) -> ScanStats {
        let load = |count: &AtomicU64| count.load(Atomic::Relaxed);
        ScanStats {
            pages: self.engine.lock().stats(),
            searches: load(&self.counts.searches),
            searches_left: load(&self.counts.searches_left),
            queries: load(&self.counts.queries),
            groups: load(&self.counts.groups),
            again: load(&self.counts.again),
            too_many: load(&self.counts.too_many),
            unsound: load(&self.counts.unsound),
            beyond: load(&self.counts.beyond),
        }
    }

    /// How much of some blocks of vectors of `dim` numbers is on the device. Takes microseconds.
    pub fn weigh<'a>(&self, blocks: impl Iterator<Item = Block<'a>>, dim: usize) -> Weight {
        let mut weight = Weight::default();
        let pages = self.engine.lock();
        for (number, block) in blocks.enumerate() {
            let layout = Layout {
                dim,
                record: block.record,
            };
            let rows_max = layout.rows_max(pages.unit_bytes);
            let all = block.len as usize * layout.row_bytes();
            if rows_max == 0 || all < self.options.block_bytes_min {
                weight.missing_bytes += all as u64;
                continue;
            }
            let mut first = 0;
            while first < block.len {
                let unit = Unit {
                    block: number as u32,
                    first,
                    rows: rows_max.min(block.len - first),
                    name: block.page.map(|page| (page, first)),
                    masked: false,
                };
                first += unit.rows;
                let bytes = unit.rows as u64 * layout.row_bytes() as u64;
                let there = unit
                    .name
                    .and_then(|name| pages.peek(name, unit.form(layout)));
                match there {
                    Some(_) => weight.resident_bytes += bytes,
                    None => weight.missing_bytes += bytes,
                }
            }
        }
        weight
    }
}

impl std::fmt::Debug for GpuScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuScan")
            .field("gpu", &self.engine.gpu)
            .field("variant", &self.variant())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Scan for GpuScan {
    type Scanning<'a> = GpuScanning<'a>;

    fn begin<'a>(&'a self, queries: Queries<'a>) -> Result<GpuScanning<'a>, Error> {
        Ok(GpuScanning {
            scan: self,
            prepared: self.cpu.prepare(queries)?,
            queries,
            blocks: Vec::new(),
        })
    }
}

/// A search on a GPU being recorded; it runs when it is submitted.
pub struct GpuScanning<'a> {
    scan: &'a GpuScan,
    prepared: crate::cpu::scan::Prepared,
    queries: Queries<'a>,
    blocks: Vec<Block<'a>>,
}

impl<'a> Scanning<'a> for GpuScanning<'a> {
    fn scan(&mut self, block: Block<'a>) -> Result<(), Error> {
        block.record_in(&mut self.blocks)
    }

    fn submit(self) -> Result<Vec<Vec<Found>>, Error> {
        let asked = Asked::default();
        let once = |(number, block): (usize, &Block<'a>)| Once {
            block: *block,
            number: number as u32,
            asked: &asked,
        };
        let blocks: Vec<Once<'_, 'a>> = self.blocks.iter().enumerate().map(once).collect();
        let search = Search {
            scan: self.scan,
            prepared: &self.prepared,
            queries: self.queries,
            blocks: &blocks,
        };
        let (found, ranked) = search.run()?;
        let counts = &self.scan.counts;
        let searches = match ranked {
            0 => &counts.searches_left,
            _ => &counts.searches,
        };
        searches.fetch_add(1, Atomic::Relaxed);
        Ok(found)
    }
}

/// A search that has all it needs.
struct Search<'s, 'a> {
    scan: &'s GpuScan,
    prepared: &'s crate::cpu::scan::Prepared,
    queries: Queries<'a>,
    blocks: &'s [Once<'s, 'a>],
}

impl Search<'_, '_> {
    /// The answers, and how many of the queries the device has found the candidates of.
    fn run(&self) -> Result<(Vec<Vec<Found>>, usize), Error> {
        let counts = &self.scan.counts;
        let queries = self.prepared.norms().len();
        let all: Vec<usize> = (0..queries).collect();
        let every: Vec<usize> = (0..self.blocks.len()).collect();
        if queries == 0 {
            return Ok((Vec::new(), 0));
        }
        if self.queries.k > GPU_K_MAX || self.queries.dim > DIM_MAX_GPU {
            counts.beyond.fetch_add(queries as u64, Atomic::Relaxed);
            return Ok((self.on_cpu(&all, &every)?, 0));
        }
        let (units, small) = self.units();
        if units.iter().all(Vec::is_empty) {
            return Ok((self.on_cpu(&all, &every)?, 0));
        }
        let mut picks: Vec<Vec<Pick>> = vec![Vec::new(); queries];
        // Queries by who answers them.
        let (mut ranked, mut left) = (Vec::new(), Vec::new());
        for query in all {
            let vector = &self.queries.vectors[query * self.queries.dim..][..self.queries.dim];
            match suits(self.queries.metric, norm(vector)) {
                true => ranked.push(query),
                false => left.push(query),
            }
        }
        counts.unsound.fetch_add(left.len() as u64, Atomic::Relaxed);
        for batch in ranked.chunks(BATCH) {
            self.rank(batch, &units, self.scan.matrix, &mut picks, &mut left)?;
        }
        left.sort_unstable();
        ranked.retain(|query| left.binary_search(query).is_err());
        let groups: usize = picks.iter().map(Vec::len).sum();
        counts
            .queries
            .fetch_add(ranked.len() as u64, Atomic::Relaxed);
        counts.groups.fetch_add(groups as u64, Atomic::Relaxed);
        let views: Vec<Block<'_>> = self.blocks.iter().map(Once::view).collect();
        let mut found = self.scan.cpu.rescore(self.prepared, &views, &picks)?;
        for (queries, blocks) in [(&ranked, &small), (&left, &every)] {
            if queries.is_empty() || blocks.is_empty() {
                continue;
            }
            for (query, more) in queries.iter().zip(self.on_cpu(queries, blocks)?) {
                let found = &mut found[*query];
                found.extend(more);
                found.sort_by(|a, b| nearer(self.queries.metric, a, b));
                found.truncate(self.queries.k);
            }
        }
        Ok((found, ranked.len()))
    }

    /// The units of each record, and the blocks that are the CPU's.
    fn units(&self) -> ([Vec<Unit>; 2], Vec<usize>) {
        let unit_bytes = self.scan.engine.lock().unit_bytes;
        let (mut units, mut small) = ([Vec::new(), Vec::new()], Vec::new());
        for (number, once) in self.blocks.iter().enumerate() {
            let block = &once.block;
            let layout = Layout {
                dim: self.queries.dim,
                record: block.record,
            };
            let rows_max = layout.rows_max(unit_bytes);
            let bytes = block.len as usize * layout.row_bytes();
            if rows_max == 0 || bytes < self.scan.options.block_bytes_min {
                small.push(number);
            } else {
                cut(number, block, rows_max, &mut units[index(block.record)]);
            }
        }
        (units, small)
    }

    /// Has the device rank all units for some queries, and again without matrices those that too
    /// many rows come near to; what it cannot tell goes to `left`.
    fn rank(
        &self,
        queries: &[usize],
        units: &[Vec<Unit>; 2],
        matrix: Option<u32>,
        picks: &mut [Vec<Pick>],
        left: &mut Vec<usize>,
    ) -> Result<(), Error> {
        let counts = &self.scan.counts;
        let packed = Packed::new(self.queries, queries);
        let matrix = matrix.filter(|_| packed.suits_matrix());
        let job = Job {
            blocks: self.blocks,
            units,
            packed: &packed,
            k: self.queries.k,
            matrix,
            subgroup: self.scan.subgroup,
            pool: self.scan.cpu.pool(),
        };
        let verdicts = self.scan.engine.search(&job)?;
        let mut again = Vec::new();
        for (query, verdict) in queries.iter().zip(verdicts) {
            match verdict {
                Verdict::Picks(found) => picks[*query] = found,
                Verdict::TooMany if job.side().is_some() => again.push(*query),
                Verdict::TooMany => {
                    counts.too_many.fetch_add(1, Atomic::Relaxed);
                    left.push(*query);
                }
                Verdict::Unsound => {
                    counts.unsound.fetch_add(1, Atomic::Relaxed);
                    left.push(*query);
                }
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        counts.again.fetch_add(again.len() as u64, Atomic::Relaxed);
        self.rank(&again, units, None, picks, left)
    }

    /// Searches some blocks for some queries on the CPU.
    fn on_cpu(&self, queries: &[usize], blocks: &[usize]) -> Result<Vec<Vec<Found>>, Error> {
        let dim = self.queries.dim;
        let vector = |query: &usize| &self.queries.vectors[query * dim..][..dim];
        let vectors: Vec<f32> = queries.iter().flat_map(vector).copied().collect();
        let views: Vec<Block<'_>> = blocks.iter().map(|b| self.blocks[*b].view()).collect();
        let mut scanning = self.scan.cpu.begin(Queries {
            vectors: &vectors,
            ..self.queries
        })?;
        for view in &views {
            scanning.scan(*view)?;
        }
        let mut found = scanning.submit().map_err(|error| match error {
            // Blocks are counted as the caller counts them.
            Error::Rows {
                block,
                chunk,
                source,
            } => Error::Rows {
                block: blocks[block],
                chunk,
                source,
            },
            other => other,
        })?;
        for found in found.iter_mut().flatten() {
            found.block = blocks[found.block as usize] as u32;
        }
        Ok(found)
    }
}

/// The order of an answer: by score, where -0 equals +0, then by sequence, then by place.
fn nearer(metric: Metric, a: &Found, b: &Found) -> Ordering {
    let ascending = a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal);
    let score = match metric.descends() {
        true => ascending.reverse(),
        false => ascending,
    };
    score.then_with(|| (a.seq, a.block, a.row).cmp(&(b.seq, b.block, b.row)))
}

/// All records, in the order of tables of them.
const RECORDS: [Record; 2] = [Record::F32, Record::F16];
