//! Where rows come from.

use std::borrow::Cow;

use sela_compute::scan::Record;

use crate::error::BoxError;

/// Rows to be searched, in parts. Nothing is copied: a search borrows what a source lends it.
///
/// [`block`](Self::block) is called by the threads of a search at once, at most once for each
/// block that has rows to score, or that a GPU takes a copy of together with others that have; it
/// is the place to verify a checksum. A search that a GPU fails starts anew on the CPU.
/// Everything else is asked for before the search, on the calling thread.
pub trait Source: Sync {
    /// Number of parts.
    fn parts(&self) -> usize;

    /// Describes a part.
    fn part(&self, part: usize) -> Result<Part<'_>, BoxError>;

    /// The bytes of a block's rows: `rows * dim * record.bytes()` of them, row after row,
    /// little-endian. They need no alignment.
    ///
    /// Every number is finite and a row's squared norm is at most the square of
    /// [`NORM_MAX`](crate::NORM_MAX); a row that is not so may be missing from an answer.
    fn block(&self, part: usize, block: usize) -> Result<&[u8], BoxError>;
}

/// A run of rows of one kind. Rows of a part are numbered from 0.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// A number that no other rows in the process have, if the bytes of these never change: a GPU
    /// may then keep a copy from search to search. Bitmaps and sequence numbers may change under
    /// it. `None`: nothing is kept.
    pub identity: Option<u64>,
    /// Number of rows, dead ones included.
    pub rows: u32,
    /// Rows in every block but the last, at least one.
    ///
    /// With a multiple of 64, bitmaps are used where they are; otherwise they are copied.
    pub rows_per_block: u32,
    /// How the rows' numbers are kept.
    pub record: Record,
    /// The rows' sequence numbers, by which equal scores are ordered.
    pub seqs: Seqs<'a>,
    /// A bit per row, the lowest bit of the first word for row 0: whether it answers. `None`
    /// means all do.
    pub live: Option<&'a [u64]>,
    /// A bit per row in the same order: whether a filter lets it through. Rows take part that are
    /// live and let through.
    pub filter: Option<&'a [u64]>,
}

impl Part<'_> {
    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.rows.div_ceil(self.rows_per_block.max(1)) as usize
    }

    /// Whether a row is live and let through.
    pub(crate) fn takes_part(&self, row: u32) -> bool {
        let set = |words: Option<&[u64]>| {
            words.is_none_or(|words| words[row as usize / 64] >> (row % 64) & 1 == 1)
        };
        set(self.live) && set(self.filter)
    }
}

/// The sequence numbers of a part's rows, ascending.
#[derive(Clone, Copy, Debug)]
pub enum Seqs<'a> {
    /// Row `i` has the number `first + i`.
    Run(u64),
    /// Row `i` has the number `table[i]`.
    Table(&'a [u64]),
    /// Row `i` has the little-endian number `table[i]`, as files hold it. Used where it is when
    /// it stands at a multiple of 8 bytes, as it does at the start of a page; else it is copied.
    Bytes(&'a [[u8; 8]]),
}

impl<'a> Seqs<'a> {
    /// Rows it is long enough for.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Run(_) => usize::MAX,
            Self::Table(table) => table.len(),
            Self::Bytes(table) => table.len(),
        }
    }

    /// The numbers, or the first one of a run.
    pub(crate) fn numbers(&self) -> Result<Cow<'a, [u64]>, u64> {
        let bytes = match *self {
            Self::Run(first) => return Err(first),
            Self::Table(table) => return Ok(Cow::Borrowed(table)),
            Self::Bytes(bytes) => bytes,
        };
        Ok(match bytemuck::try_cast_slice(bytes) {
            Ok(table) if cfg!(target_endian = "little") => Cow::Borrowed(table),
            _ => Cow::Owned(bytes.iter().map(|b| u64::from_le_bytes(*b)).collect()),
        })
    }

    /// The sequence number of a row.
    pub(crate) fn get(&self, row: u32) -> u64 {
        match self {
            Self::Run(first) => first + u64::from(row),
            Self::Table(table) => table[row as usize],
            Self::Bytes(table) => u64::from_le_bytes(table[row as usize]),
        }
    }
}
