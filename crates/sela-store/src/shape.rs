//! How records are cut into blocks.

use crate::model::{Record, Schema};

/// Everything in a segment starts at, and takes, a multiple of this many bytes.
pub(crate) const ALIGN: u64 = 16_384;
const SEGMENT_BLOCK_BYTES: usize = 256 << 10;
const FRESH_BLOCK_BYTES: usize = 64 << 10;

/// The sizes of records and their blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) dim: u32,
    pub(crate) record: Record,
    pub(crate) row_bytes: usize,
    pub(crate) rows_per_block: u32,
}

impl Shape {
    /// The shape of a schema's segments.
    pub(crate) fn of_segments(schema: &Schema) -> Self {
        Self::new(schema, SEGMENT_BLOCK_BYTES)
    }

    /// The shape of a schema's fresh rows in memory: smaller blocks, as one may be copied by a
    /// write.
    pub(crate) fn of_fresh(schema: &Schema) -> Self {
        Self::new(schema, FRESH_BLOCK_BYTES)
    }

    fn new(schema: &Schema, block_bytes: usize) -> Self {
        let row_bytes = schema.row_bytes();
        let rows = block_bytes.div_ceil(row_bytes * 64) * 64;
        Self {
            dim: schema.dim,
            record: schema.record,
            row_bytes,
            rows_per_block: u32::try_from(rows).unwrap_or(64),
        }
    }

    /// Bytes of a full block with its padding.
    pub(crate) fn block_bytes(&self) -> u64 {
        align_up(self.rows_per_block as u64 * self.row_bytes as u64)
    }

    /// Blocks that `rows` rows take.
    pub(crate) fn blocks(&self, rows: u32) -> u32 {
        rows.div_ceil(self.rows_per_block)
    }

    /// Rows in a block of a part with `rows` rows.
    pub(crate) fn rows_in(&self, block: u32, rows: u32) -> u32 {
        (rows - block * self.rows_per_block).min(self.rows_per_block)
    }

    /// Bytes of contents of `rows` rows: everything up to the end of the last record.
    pub(crate) fn contents(&self, rows: u32) -> u64 {
        match self.blocks(rows).checked_sub(1) {
            None => 0,
            Some(last) => {
                u64::from(last) * self.block_bytes()
                    + u64::from(self.rows_in(last, rows)) * self.row_bytes as u64
            }
        }
    }
}

/// The next multiple of [`ALIGN`].
pub(crate) fn align_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}
