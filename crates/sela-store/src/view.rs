//! What a reader sees: a consistent picture of the collection, in parts.

use crate::error::Result;
use crate::id::Id;
use crate::model::{Place, Record};

/// A consistent picture of a collection that later writes do not change; cheap to take.
#[derive(Clone, Debug)]
pub struct View {}

impl View {
    /// The parts: segments first, then fresh rows. Each has its own rows, from 0.
    pub fn parts(&self) -> &[Part] {
        unimplemented!()
    }
    /// Rows that answer.
    pub fn live_rows(&self) -> u64 {
        unimplemented!()
    }
    /// The newest sequence of the collection when the view was taken.
    pub fn last_seq(&self) -> u64 {
        unimplemented!()
    }
    /// Where the row of this id is, if it is live.
    pub fn find(&self, _id: &Id) -> Result<Option<Place>> {
        unimplemented!()
    }
}

/// A stretch of rows: one segment, or a stretch of fresh rows in memory.
#[derive(Clone, Debug)]
pub struct Part {}

impl Part {
    /// Rows, dead ones included.
    pub fn rows(&self) -> u32 {
        unimplemented!()
    }
    /// Rows that answer.
    pub fn live_rows(&self) -> u32 {
        unimplemented!()
    }
    /// Blocks of records.
    pub fn blocks(&self) -> u32 {
        unimplemented!()
    }
    /// Rows in each block but the last: a multiple of 64.
    pub fn rows_per_block(&self) -> u32 {
        unimplemented!()
    }
    /// Bytes of one record.
    pub fn row_bytes(&self) -> usize {
        unimplemented!()
    }
    /// How the records are written.
    pub fn record(&self) -> Record {
        unimplemented!()
    }
    /// The number of the segment, the same for as long as the file lives and never used again;
    /// `None` for fresh rows.
    pub fn segment(&self) -> Option<u64> {
        unimplemented!()
    }
    /// A block of records; its checksum is verified at the first touch after the collection
    /// was opened, and a block that fails is never handed out.
    pub fn block(&self, _block: u32) -> Result<Block<'_>> {
        unimplemented!()
    }
    /// One bit per row, lowest first: whether it answers. Bits beyond the last row are 0.
    pub fn live(&self) -> &[u64] {
        unimplemented!()
    }
    /// The rows' sequences, ascending.
    pub fn seqs(&self) -> Result<Seqs<'_>> {
        unimplemented!()
    }
    /// The id of a row, dead or alive.
    pub fn id(&self, _row: u32) -> Result<Id> {
        unimplemented!()
    }
}

/// One block of records, row after row.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The records: little-endian numbers, `rows * row_bytes` bytes.
    pub records: &'a [u8],
    /// The same bytes with the zeros after them, up to a multiple of 16 KiB; for a segment both
    /// start at a multiple of 16 KiB in the file.
    pub padded: &'a [u8],
    /// The part's row that the first record belongs to.
    pub first_row: u32,
    /// Records.
    pub rows: u32,
}

/// The sequences of a part's rows.
#[derive(Clone, Copy, Debug)]
pub enum Seqs<'a> {
    /// Row `r` has this number plus `r`.
    Run(u64),
    /// Row `r` has the `r`-th of these little-endian numbers.
    Table(&'a [[u8; 8]]),
}

impl Seqs<'_> {
    /// The sequence of a row.
    pub fn get(&self, row: u32) -> u64 {
        match self {
            Self::Run(first) => first + u64::from(row),
            Self::Table(table) => u64::from_le_bytes(table[row as usize]),
        }
    }
}
