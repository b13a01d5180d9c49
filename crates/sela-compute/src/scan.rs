//! The silicon border of search: queries and blocks of rows in, the best rows out.
//!
//! A backend loads blocks of rows, scores them against packed queries and keeps, for each query,
//! the best `k`; the matrix of all scores is never written. An answer is ordered by the canonical
//! score of [`crate::reference`] and, among equals, by the row's sequence number, so it is the
//! same on every backend, for every number of threads and every layout of blocks.

use crate::error::{BoxError, Error};

/// How two vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Cosine of the angle; larger is nearer; 0 against a zero vector.
    Cosine,
    /// Inner product; larger is nearer.
    Dot,
    /// Euclidean distance; smaller is nearer.
    L2,
}

impl Metric {
    /// Whether a larger score is a nearer row.
    pub fn descends(self) -> bool {
        !matches!(self, Self::L2)
    }
}

/// How the numbers of a stored row are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// IEEE single precision, little-endian.
    F32,
    /// IEEE half precision, little-endian; widened exactly before scoring.
    F16,
}

impl Record {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// The sequence numbers of the rows of a block, ascending.
#[derive(Clone, Copy, Debug)]
pub enum Seqs<'a> {
    /// Row `i` has the number `first + i`.
    Run(u64),
    /// Row `i` has the number `table[i]`.
    Table(&'a [u64]),
}

impl Seqs<'_> {
    /// The sequence number of row `row`.
    pub fn get(&self, row: usize) -> u64 {
        match self {
            Self::Run(first) => first + row as u64,
            Self::Table(table) => table[row],
        }
    }
}

/// Where the bytes of a block come from. Called by the worker that scans the block, so that a
/// checksum is verified (or a page read) by many threads at once.
pub trait Rows: Sync {
    /// The rows' bytes, `rows * dim * record.bytes()` of them, row after row.
    fn bytes(&self) -> Result<&[u8], BoxError>;
}

impl Rows for [u8] {
    fn bytes(&self) -> Result<&[u8], BoxError> {
        Ok(self)
    }
}

/// A run of stored rows to be scanned.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// The rows' bytes.
    pub rows: &'a dyn Rows,
    /// Number of rows.
    pub len: u32,
    /// A bit per row, the lowest bit of the first word for row 0: whether it takes part. `None`
    /// means all do.
    pub live: Option<&'a [u64]>,
    /// Sequence numbers, by which equal scores are ordered.
    pub seqs: Seqs<'a>,
}

/// A set of queries with one metric, as the caller has them.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// Query vectors, row after row, `n * dim` finite numbers.
    pub vectors: &'a [f32],
    /// Numbers in a vector.
    pub dim: usize,
    /// The metric.
    pub metric: Metric,
    /// How many of the nearest rows to keep for each query.
    pub k: usize,
}

/// A row found near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The canonical score.
    pub score: f32,
    /// The row's sequence number.
    pub seq: u64,
    /// Number of the block in the order of [`Scanning::scan`] calls.
    pub block: u32,
    /// Row within the block.
    pub row: u32,
}

/// A backend that can search.
pub trait Scan: Send + Sync {
    /// A block's rows where the backend scans them: borrowed on the CPU, a page on a GPU.
    type Buf<'a>: Send + Sync;
    /// A search being recorded.
    type Scanning<'a>: Scanning<'a, Buf = Self::Buf<'a>>
    where
        Self: 'a;

    /// Makes a block's rows available to this backend.
    fn load<'a>(
        &self,
        block: Block<'a>,
        dim: usize,
        record: Record,
    ) -> Result<Self::Buf<'a>, Error>;

    /// Packs the queries and begins a search.
    fn begin<'a>(&'a self, queries: Queries<'a>) -> Result<Self::Scanning<'a>, Error>;
}

/// A search being recorded: one [`scan`](Self::scan) a block, then [`submit`](Self::submit).
pub trait Scanning<'a> {
    /// A loaded block.
    type Buf;

    /// Scores a block's live rows against all queries and keeps the best of each.
    fn scan(&mut self, block: Self::Buf) -> Result<(), Error>;

    /// Runs what was recorded and merges: for each query its nearest rows, the nearest first,
    /// equals by ascending sequence number; `min(k, live rows)` of them.
    fn submit(self) -> Result<Vec<Vec<Found>>, Error>;
}
