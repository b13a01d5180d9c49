//! Exact search on the CPU: every live row is scored canonically, the best are kept.

#[cfg(target_endian = "big")]
compile_error!("stored rows are little-endian and are read as they are");

mod best;
mod bound;
mod cache;
mod coded;
mod codes;
mod dots;
mod kernels;
mod padded;
mod pick;
mod prescan;
mod sums;
mod tile;
mod work;

use std::sync::Arc;

use self::cache::Cache;
use self::dots::Dots;
use self::kernels::Kernels;
use self::padded::Padded;
use self::work::{On, Packed};
use crate::cpu::pool::Pool;
use crate::error::Error;
use crate::isa::Isa;
use crate::scan::{Block, Found, Queries, Scan, Scanning};

#[cfg_attr(not(feature = "gpu"), allow(unused_imports))]
pub(crate) use self::pick::Pick;

pub use self::cache::CodeStats;

/// Exact search on the CPU.
///
/// Scores are those of [`crate::reference`] to the bit, so an answer is the same for every
/// instruction set and number of threads.
///
/// ```
/// use sela_compute::scan::{Block, Metric, Queries, Record, Scan, Scanning, Seqs};
/// use sela_compute::{CpuScan, Isa};
///
/// let numbers = [1.0f32, 0.0, 0.0, 1.0, 0.6, 0.8];
/// let rows: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
/// let block = Block {
///     rows: &rows,
///     len: 3,
///     chunk_rows: 3,
///     record: Record::F32,
///     page: None,
///     live: None,
///     seqs: Seqs::Run(1),
/// };
///
/// let scan = CpuScan::new(Isa::available()[0], 2)?;
/// let queries = Queries { vectors: &[0.0, 1.0], dim: 2, metric: Metric::Cosine, k: 2 };
/// let mut scanning = scan.begin(queries)?;
/// scanning.scan(block)?;
/// let best: Vec<u64> = scanning.submit()?[0].iter().map(|found| found.seq).collect();
/// assert_eq!(best, [2, 3]);
/// # Ok::<(), sela_compute::Error>(())
/// ```
pub struct CpuScan {
    isa: Isa,
    kernels: Kernels,
    pool: Arc<Pool>,
    dots: Dots,
    cache: Cache,
}

impl CpuScan {
    /// Search with an instruction set on up to `threads` threads, the caller's counted.
    ///
    /// An instruction set that this CPU lacks is refused.
    pub fn new(isa: Isa, threads: usize) -> Result<Self, Error> {
        Self::over(isa, Arc::new(Pool::new(threads)))
    }

    /// Search on the threads of a pool that others use too.
    pub(crate) fn over(isa: Isa, pool: Arc<Pool>) -> Result<Self, Error> {
        match Kernels::of(isa) {
            Some(kernels) if isa.is_available() => Ok(Self {
                isa,
                kernels,
                pool,
                dots: Dots::choose(isa),
                cache: Cache::new(0),
            }),
            _ => Err(Error::Missing(format!("instruction set {isa}"))),
        }
    }

    /// The same with room for int8 codes of rows, in bytes; 0, the default, for none. Blocks that
    /// have a name are coded when they are scanned for the second time, and searched by a quarter of
    /// the bytes from then on. Answers do not depend on it.
    #[must_use]
    pub fn with_codes(mut self, bytes: u64) -> Self {
        self.cache = Cache::new(bytes);
        self
    }

    /// What the codes of rows have come to so far.
    pub fn code_stats(&self) -> CodeStats {
        self.cache.stats()
    }

    /// The kind of kernels that multiply codes.
    pub fn code_kernels(&self) -> &'static str {
        self.dots.name
    }

    /// Gives up the codes of the blocks of that owner: they will not be scanned again.
    pub fn forget(&self, owner: u64) {
        self.cache.forget(owner);
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Checks queries and lays them out, for [`Self::rescore`].
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))]
    pub(crate) fn prepare(&self, queries: Queries<'_>) -> Result<Prepared, Error> {
        pack(&self.kernels, queries).map(Prepared)
    }

    /// The threads it runs on.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))]
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Threads that a search may use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Scan for CpuScan {
    type Scanning<'a> = CpuScanning<'a>;

    fn begin<'a>(&'a self, queries: Queries<'a>) -> Result<CpuScanning<'a>, Error> {
        Ok(CpuScanning {
            scan: self,
            packed: pack(&self.kernels, queries)?,
            blocks: Vec::new(),
        })
    }
}

/// Queries in order, for the kernels.
pub(crate) struct Prepared(Packed);

impl Prepared {
    /// The queries' canonical norms.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))]
    pub(crate) fn norms(&self) -> &[f32] {
        &self.0.norms
    }
}

/// A search on the CPU being recorded; it runs when it is submitted.
pub struct CpuScanning<'a> {
    scan: &'a CpuScan,
    packed: Packed,
    blocks: Vec<Block<'a>>,
}

impl<'a> Scanning<'a> for CpuScanning<'a> {
    fn scan(&mut self, block: Block<'a>) -> Result<(), Error> {
        block.record_in(&mut self.blocks)
    }

    fn submit(self) -> Result<Vec<Vec<Found>>, Error> {
        let on = On {
            kernels: self.scan.kernels,
            dots: self.scan.dots,
            pool: &self.scan.pool,
            cache: &self.scan.cache,
        };
        work::run(on, &self.packed, &self.blocks)
    }
}

/// Checks queries and lays them out for the kernels.
fn pack(kernels: &Kernels, queries: Queries<'_>) -> Result<Packed, Error> {
    queries.check()?;
    let Queries {
        vectors,
        dim,
        metric,
        k,
    } = queries;
    let mut packed = Packed {
        dim,
        metric,
        k,
        queries: Padded::new(dim, vectors.len() / dim),
        norms: Vec::new(),
    };
    for (q, vector) in vectors.chunks_exact(dim).enumerate() {
        packed.queries.get_mut(q)[..dim].copy_from_slice(vector);
        // SAFETY: `CpuScan` was made for an instruction set that this CPU has.
        let norm = unsafe { kernels.norm(packed.queries.get(q)) };
        queries.check_norm(q, norm)?;
        packed.norms.push(norm);
    }
    Ok(packed)
}
