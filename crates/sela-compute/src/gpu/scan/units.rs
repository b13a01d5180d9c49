//! From blocks to units, the portions of rows that a device holds and scans.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::kernels::TILE_ROWS;
use super::pages::{Form, Name};
use crate::error::{BoxError, Error};
use crate::scan::{Block, Record, Rows};

/// How rows lie on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) dim: usize,
    pub(super) record: Record,
}

impl Layout {
    /// Bytes of a row as it comes.
    pub(super) fn row_bytes(self) -> usize {
        self.dim * self.record.bytes()
    }

    /// Bytes of a row on the device: whole vectors of 16 bytes, of f16 two of them, so that a
    /// matrix of 16 numbers never reaches into the next row.
    pub(super) fn stride(self) -> usize {
        match self.record {
            Record::F32 => self.row_bytes().next_multiple_of(16),
            Record::F16 => self.row_bytes().next_multiple_of(32),
        }
    }

    /// A row on the device in pieces of 16 bytes.
    pub(super) fn chunks(self) -> u32 {
        (self.stride() / 16) as u32
    }

    /// Bytes of so many rows, padded to whole tiles.
    pub(super) fn padded(self, rows: u32) -> usize {
        rows.next_multiple_of(TILE_ROWS) as usize * self.stride()
    }

    /// Bytes of a unit: its padded rows, a vector for the largest squared norm, the squared norms.
    pub(super) fn unit_bytes(self, rows: u32) -> u64 {
        self.padded(rows) as u64 + 16 + u64::from(rows.next_multiple_of(TILE_ROWS)) * 4
    }

    /// Most rows of a unit of so many bytes: whole tiles, 0 if there is no room for one.
    pub(super) fn rows_max(self, bytes: u64) -> u32 {
        let tile = self.unit_bytes(TILE_ROWS) - 16;
        let tiles = bytes.saturating_sub(16) / tile;
        (tiles * u64::from(TILE_ROWS)).min(1 << 30) as u32
    }
}

/// Rows of a block that are one unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) block: u32,
    /// The first row, a multiple of 128.
    pub(super) first: u32,
    pub(super) rows: u32,
    pub(super) name: Option<Name>,
    /// Whether dead rows are among them.
    pub(super) masked: bool,
}

impl Unit {
    pub(super) fn form(&self, layout: Layout) -> Form {
        Form {
            rows: self.rows,
            dim: layout.dim as u32,
            record: layout.record,
        }
    }

    /// Groups of `size` rows.
    pub(super) fn groups(&self, size: u32) -> u32 {
        self.rows.div_ceil(size)
    }

    /// The words of the bitmap for its rows, as far as the rows go.
    pub(super) fn words<'a>(&self, block: &Block<'a>) -> Option<&'a [u64]> {
        let (first, rows) = (self.first as usize, self.rows as usize);
        block
            .live
            .map(|words| &words[first / 64..(first + rows).div_ceil(64)])
    }
}

/// Cuts a block into units of at most `rows_max` rows; those without a live row are left out.
pub(super) fn cut(number: usize, block: &Block<'_>, rows_max: u32, units: &mut Vec<Unit>) {
    let mut first = 0;
    while first < block.len {
        let rows = rows_max.min(block.len - first);
        let mut unit = Unit {
            block: number as u32,
            first,
            rows,
            name: block.page.map(|page| (page, first)),
            masked: false,
        };
        first += rows;
        if let Some(words) = unit.words(block) {
            // Bits beyond the last row mean nothing.
            let last = !0u64 >> ((64 - rows % 64) % 64);
            let (end, whole) = words
                .split_last()
                .map_or((0, words), |(end, whole)| (*end, whole));
            unit.masked = end & last != last || whole.iter().any(|word| *word != !0);
            if end & last == 0 && whole.iter().all(|word| *word == 0) {
                continue;
            }
        }
        units.push(unit);
    }
}

/// The bytes of a chunk, once somebody has asked for it.
type Cell<'a> = Arc<Mutex<Option<&'a [u8]>>>;

/// Chunks of one search that have been asked for. A caller is asked for each once.
#[derive(Default)]
pub(super) struct Asked<'a>(Mutex<HashMap<(u32, u32), Cell<'a>>>);

/// A block whose chunks are asked for once, by whoever needs them first.
pub(super) struct Once<'s, 'a> {
    pub(super) block: Block<'a>,
    pub(super) number: u32,
    pub(super) asked: &'s Asked<'a>,
}

impl<'a> Once<'_, 'a> {
    /// The bytes of a chunk.
    pub(super) fn bytes(&self, chunk: u32) -> Result<&'a [u8], BoxError> {
        let key = (self.number, chunk);
        let asked = self.asked.0.lock();
        let cell = asked
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .clone();
        // Whoever comes second for this chunk waits here, the others do not.
        let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        match *cell {
            Some(bytes) => Ok(bytes),
            None => Ok(*cell.insert(self.block.rows.chunk(chunk)?)),
        }
    }

    /// The block, asking through this.
    pub(super) fn view(&self) -> Block<'_> {
        Block {
            rows: self,
            ..self.block
        }
    }

    /// The bytes of a chunk, as long as they should be.
    pub(super) fn read(&self, dim: usize, chunk: u32) -> Result<&[u8], Error> {
        self.view().read(dim, self.number as usize, chunk)
    }
}

impl Rows for Once<'_, '_> {
    fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
        self.bytes(chunk)
    }
}
