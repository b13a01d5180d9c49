//! Exact search on the CPU: every live row is scored canonically, the best are kept.

#[cfg(target_endian = "big")]
compile_error!("stored rows are little-endian and are read as they are");

mod best;
mod kernels;
mod padded;
mod sums;
mod tile;
mod work;

use std::sync::Arc;

use self::kernels::Kernels;
use self::padded::Padded;
use self::work::Packed;
use crate::cpu::pool::Pool;
use crate::error::Error;
use crate::isa::Isa;
use crate::scan::{Block, Found, Queries, Record, Scan, Scanning, Seqs};

/// Exact search on the CPU.
///
/// Scores are those of [`crate::reference`] to the bit, so an answer is the same for every
/// instruction set and number of threads.
///
/// ```
/// use sela_compute::error::BoxError;
/// use sela_compute::scan::{Block, Metric, Queries, Record, Rows, Scan, Scanning, Seqs};
/// use sela_compute::{CpuScan, Isa};
///
/// struct Memory(Vec<u8>);
///
/// impl Rows for Memory {
///     fn bytes(&self) -> Result<&[u8], BoxError> {
///         Ok(&self.0)
///     }
/// }
///
/// let numbers = [1.0f32, 0.0, 0.0, 1.0, 0.6, 0.8];
/// let rows = Memory(numbers.iter().flat_map(|x| x.to_le_bytes()).collect());
/// let block = Block { rows: &rows, len: 3, live: None, seqs: Seqs::Run(1) };
///
/// let scan = CpuScan::new(Isa::available()[0], 2)?;
/// let queries = Queries { vectors: &[0.0, 1.0], dim: 2, metric: Metric::Cosine, k: 2 };
/// let mut scanning = scan.begin(queries)?;
/// scanning.scan(scan.load(block, 2, Record::F32)?)?;
/// let best: Vec<u64> = scanning.submit()?[0].iter().map(|found| found.seq).collect();
/// assert_eq!(best, [2, 3]);
/// # Ok::<(), sela_compute::Error>(())
/// ```
pub struct CpuScan {
    isa: Isa,
    kernels: Kernels,
    pool: Arc<Pool>,
}

impl CpuScan {
    /// Most rows that a query can ask for.
    pub const K_MAX: usize = 16_384;
    /// Most numbers in a vector.
    pub const DIM_MAX: usize = 65_536;
    /// Most rows that the queries of one search can ask for together: queries times `k`.
    pub const FOUND_MAX: usize = 1 << 24;
    /// Longest query, as a Euclidean norm: its square is 5e37. Scores of two vectors within this
    /// limit are finite; for rows the caller answers.
    pub const NORM_MAX: f64 = 7.071_067_811_865_475e18;

    /// Search with an instruction set on up to `threads` threads, the caller's counted.
    ///
    /// An instruction set that this CPU lacks is refused.
    pub fn new(isa: Isa, threads: usize) -> Result<Self, Error> {
        Self::over(isa, Arc::new(Pool::new(threads)))
    }

    /// Search on the threads of a pool that others use too.
    pub(crate) fn over(isa: Isa, pool: Arc<Pool>) -> Result<Self, Error> {
        match Kernels::of(isa) {
            Some(kernels) if isa.is_available() => Ok(Self { isa, kernels, pool }),
            _ => Err(Error::Missing(format!("instruction set {isa}"))),
        }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads that a search may use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Scan for CpuScan {
    type Buf<'a> = CpuBlock<'a>;
    type Scanning<'a> = CpuScanning<'a>;

    fn load<'a>(
        &self,
        block: Block<'a>,
        dim: usize,
        record: Record,
    ) -> Result<CpuBlock<'a>, Error> {
        let rows = block.len as usize;
        let check = |what: &str, expected: usize, found: usize| match found < expected {
            true => Err(Error::Shape {
                what: what.into(),
                expected,
                found,
            }),
            false => Ok(()),
        };
        if let Some(live) = block.live {
            check(
                "words of a block's live bitmap",
                rows.div_ceil(64),
                live.len(),
            )?;
        }
        if let Seqs::Table(table) = block.seqs {
            check("sequence numbers of a block", rows, table.len())?;
        }
        Ok(CpuBlock { block, dim, record })
    }

    fn begin<'a>(&'a self, queries: Queries<'a>) -> Result<CpuScanning<'a>, Error> {
        Ok(CpuScanning {
            scan: self,
            packed: pack(&self.kernels, queries)?,
            blocks: Vec::new(),
        })
    }
}

/// A block to be scanned where it is.
pub struct CpuBlock<'a> {
    block: Block<'a>,
    dim: usize,
    record: Record,
}

impl CpuBlock<'_> {
    fn row_bytes(&self) -> usize {
        self.dim * self.record.bytes()
    }
}

/// A search on the CPU being recorded; it runs when it is submitted.
pub struct CpuScanning<'a> {
    scan: &'a CpuScan,
    packed: Packed,
    blocks: Vec<CpuBlock<'a>>,
}

impl<'a> Scanning<'a> for CpuScanning<'a> {
    type Buf = CpuBlock<'a>;

    fn scan(&mut self, block: CpuBlock<'a>) -> Result<(), Error> {
        if block.dim != self.packed.dim {
            return Err(Error::Shape {
                what: format!("a row of block {}", self.blocks.len()),
                expected: self.packed.dim,
                found: block.dim,
            });
        }
        limit("blocks", self.blocks.len(), u32::MAX as usize)?;
        self.blocks.push(block);
        Ok(())
    }

    fn submit(self) -> Result<Vec<Vec<Found>>, Error> {
        work::run(
            self.scan.kernels,
            &self.scan.pool,
            &self.packed,
            &self.blocks,
        )
    }
}

fn limit(what: &'static str, value: usize, limit: usize) -> Result<(), Error> {
    if value > limit {
        Err(Error::Limit { what, value, limit })
    } else {
        Ok(())
    }
}

/// Checks queries and lays them out for the kernels.
fn pack(kernels: &Kernels, queries: Queries<'_>) -> Result<Packed, Error> {
    let Queries {
        vectors,
        dim,
        metric,
        k,
    } = queries;
    for (what, value, most) in [
        ("numbers in a vector (at least 1)", dim, CpuScan::DIM_MAX),
        ("k (at least 1)", k, CpuScan::K_MAX),
    ] {
        if value == 0 {
            return Err(Error::Limit {
                what,
                value,
                limit: most,
            });
        }
        limit(what, value, most)?;
    }
    let count = vectors.len().div_ceil(dim);
    if vectors.len() != count * dim {
        let (expected, found) = (count * dim, vectors.len());
        return Err(Error::Shape {
            what: "queries".into(),
            expected,
            found,
        });
    }
    limit(
        "queries times k",
        count.saturating_mul(k),
        CpuScan::FOUND_MAX,
    )?;
    let mut packed = Packed {
        dim,
        metric,
        k,
        queries: Padded::new(dim, count),
        norms: Vec::new(),
    };
    for (q, vector) in vectors.chunks_exact(dim).enumerate() {
        packed.queries.get_mut(q)[..dim].copy_from_slice(vector);
        // SAFETY: `CpuScan` was made for an instruction set that this CPU has.
        let norm = unsafe { kernels.norm(packed.queries.get(q)) };
        check_norm(q, vector, norm)?;
        packed.norms.push(norm);
    }
    Ok(packed)
}

/// Refuses a query whose norm is beyond the limit or, by what it holds, no number at all.
fn check_norm(query: usize, vector: &[f32], norm: f32) -> Result<(), Error> {
    if f64::from(norm) <= CpuScan::NORM_MAX {
        return Ok(());
    }
    if let Some(position) = vector.iter().position(|x| !x.is_finite()) {
        let (what, value) = (format!("query {query}"), vector[position]);
        return Err(Error::NotFinite {
            what,
            position,
            value,
        });
    }
    let norm = vector
        .iter()
        .map(|x| f64::from(*x).powi(2))
        .sum::<f64>()
        .sqrt();
    let (what, value) = ("the norm of a query", norm as usize);
    Err(Error::Limit {
        what,
        value,
        limit: CpuScan::NORM_MAX as usize,
    })
}
