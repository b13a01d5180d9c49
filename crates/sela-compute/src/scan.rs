//! The silicon border of search: queries and blocks of rows in, the best rows out.
//!
//! A backend scores blocks of rows against packed queries and keeps, for each query, the best `k`;
//! the matrix of all scores is never written. Where a block's rows are while they are scanned is
//! the backend's affair: in place, or in a page that it uploads, waits for and evicts. An answer
//! is ordered by the canonical score of [`crate::reference`] and, among equals, by the row's
//! sequence number, so it is the same on every backend, for every number of threads and every
//! layout of blocks.
//!
//! A block is long, some MiB, so that a search over millions of rows handles few of them; its
//! bytes come in **chunks**, which are as short as a checksum wants them.

use std::ops::Range;

use crate::error::{BoxError, Error};

/// Most rows that a query can ask for.
pub const K_MAX: usize = 16_384;
/// Most numbers in a vector.
pub const DIM_MAX: usize = 65_536;
/// Most rows that the queries of one search can ask for together: queries times `k`.
pub const FOUND_MAX: usize = 1 << 24;
/// Longest query, as a Euclidean norm: its square is 5e37. Scores of two vectors within this limit
/// are finite; for rows the caller answers.
pub const NORM_MAX: f64 = 7.071_067_811_865_475e18;

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

/// Where the bytes of a block come from. Called by the worker that scans a chunk, so that
/// checksums are verified (or pages read) by many threads at once.
pub trait Rows: Sync {
    /// The bytes of the rows of chunk `chunk`, row after row, `dim * record.bytes()` for each of
    /// the chunk's rows.
    fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError>;
}

/// Rows of one chunk.
impl Rows for Vec<u8> {
    fn chunk(&self, _: u32) -> Result<&[u8], BoxError> {
        Ok(self)
    }
}

/// The name of a block's rows. Equal names promise equal bytes for the life of the process, so
/// that a backend may keep a copy where it computes. Bitmaps and sequence numbers belong to a
/// search, not to the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId {
    /// Whose rows they are: a number that nothing else in the process has.
    pub owner: u64,
    /// Which of the owner's blocks.
    pub page: u32,
}

/// A run of stored rows to be scanned.
#[derive(Clone, Copy)]
pub struct Block<'a> {
    /// The rows' bytes, chunk by chunk.
    pub rows: &'a dyn Rows,
    /// Number of rows.
    pub len: u32,
    /// Rows in every chunk but the last: a multiple of 64, unless one chunk has all rows.
    pub chunk_rows: u32,
    /// How the rows' numbers are kept.
    pub record: Record,
    /// The name of the rows. `None`: they are never kept.
    pub page: Option<PageId>,
    /// A bit per row, the lowest bit of the first word for row 0: whether it takes part. `None`
    /// means all do.
    pub live: Option<&'a [u64]>,
    /// Sequence numbers, by which equal scores are ordered.
    pub seqs: Seqs<'a>,
}

impl<'a> Block<'a> {
    /// Adds the block to those of a search, if it is what it says and can be counted.
    pub(crate) fn record_in(self, blocks: &mut Vec<Self>) -> Result<(), Error> {
        self.check()?;
        let (value, limit) = (blocks.len(), u32::MAX as usize);
        if value > limit {
            let what = "blocks";
            return Err(Error::Limit { what, value, limit });
        }
        blocks.push(self);
        Ok(())
    }

    /// Refuses tables that are too short for the rows, and chunks that begin within a word of
    /// the bitmap.
    fn check(&self) -> Result<(), Error> {
        let rows = self.len as usize;
        if self.chunk_rows < self.len
            && (self.chunk_rows == 0 || !self.chunk_rows.is_multiple_of(64))
        {
            return Err(Error::Shape {
                what: "rows of a chunk (a multiple of 64)".into(),
                expected: (self.chunk_rows as usize).max(1).next_multiple_of(64),
                found: self.chunk_rows as usize,
            });
        }
        let long_enough = |what: &str, expected: usize, found: usize| match found < expected {
            true => Err(Error::Shape {
                what: what.into(),
                expected,
                found,
            }),
            false => Ok(()),
        };
        if let Some(live) = self.live {
            let words = rows.div_ceil(64);
            long_enough("words of a block's live bitmap", words, live.len())?;
        }
        if let Seqs::Table(table) = self.seqs {
            long_enough("sequence numbers of a block", rows, table.len())?;
        }
        Ok(())
    }

    /// Number of chunks.
    pub(crate) fn chunks(&self) -> u32 {
        self.len.div_ceil(self.chunk_rows.max(1))
    }

    /// The rows of a chunk.
    pub(crate) fn chunk_range(&self, chunk: u32) -> Range<usize> {
        let start = chunk as usize * self.chunk_rows as usize;
        start..(start + self.chunk_rows as usize).min(self.len as usize)
    }

    /// The bytes of a chunk of this block, the search's block number `block`.
    pub(crate) fn read(&self, dim: usize, block: usize, chunk: u32) -> Result<&'a [u8], Error> {
        let bytes = self.rows.chunk(chunk).map_err(|source| Error::Rows {
            block,
            chunk,
            source,
        })?;
        let number = self.record.bytes();
        let expected = self.chunk_range(chunk).len() * dim * number;
        if bytes.len() != expected {
            return Err(Error::Shape {
                what: format!("rows of chunk {chunk} of block {block}"),
                expected: expected / number,
                found: bytes.len() / number,
            });
        }
        Ok(bytes)
    }
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

impl Queries<'_> {
    /// Refuses what is beyond the limits of a search; the norms are checked one by one.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Queries {
            vectors, dim, k, ..
        } = *self;
        for (what, value, limit) in [
            ("numbers in a vector (at least 1)", dim, DIM_MAX),
            ("k (at least 1)", k, K_MAX),
        ] {
            if value == 0 || value > limit {
                return Err(Error::Limit { what, value, limit });
            }
        }
        let count = vectors.len().div_ceil(dim);
        if vectors.len() != count * dim {
            return Err(Error::Shape {
                what: "queries".into(),
                expected: count * dim,
                found: vectors.len(),
            });
        }
        let value = count.saturating_mul(k);
        if value > FOUND_MAX {
            return Err(Error::Limit {
                what: "queries times k",
                value,
                limit: FOUND_MAX,
            });
        }
        Ok(())
    }

    /// Refuses query `query`, of canonical norm `norm`, when that is beyond the limit or, by what
    /// the query holds, no number at all.
    pub(crate) fn check_norm(&self, query: usize, norm: f32) -> Result<(), Error> {
        if f64::from(norm) <= NORM_MAX {
            return Ok(());
        }
        let vector = &self.vectors[query * self.dim..][..self.dim];
        if let Some(position) = vector.iter().position(|x| !x.is_finite()) {
            return Err(Error::NotFinite {
                what: format!("query {query}"),
                position,
                value: vector[position],
            });
        }
        let squares = vector.iter().map(|x| f64::from(*x).powi(2));
        Err(Error::Limit {
            what: "the norm of a query",
            value: squares.sum::<f64>().sqrt() as usize,
            limit: NORM_MAX as usize,
        })
    }
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
    /// A search being recorded.
    type Scanning<'a>: Scanning<'a>
    where
        Self: 'a;

    /// Packs the queries and begins a search.
    fn begin<'a>(&'a self, queries: Queries<'a>) -> Result<Self::Scanning<'a>, Error>;
}

/// A search being recorded: one [`scan`](Self::scan) a block, then [`submit`](Self::submit).
pub trait Scanning<'a> {
    /// Scores a block's live rows against all queries and keeps the best of each. A chunk's bytes
    /// are asked for at most once, in this call or in [`submit`](Self::submit), on any thread:
    /// only if it has a live row, or when the backend takes a copy of the whole block.
    fn scan(&mut self, block: Block<'a>) -> Result<(), Error>;

    /// Runs what was recorded and merges: for each query its nearest rows, the nearest first,
    /// equals by ascending sequence number; `min(k, live rows)` of them.
    fn submit(self) -> Result<Vec<Vec<Found>>, Error>;
}
