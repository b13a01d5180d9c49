//! Fresh rows in memory: what the catalog's pending rows look like to a search.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::bits;
use crate::id::Id;
use crate::shape::{ALIGN, Shape, align_up};

const PART_ROWS: u32 = 4096;

/// Sixty-four bytes, aligned so that records may be read as numbers and by vector instructions.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

const EMPTY: Line = Line([0; 64]);

/// A stretch of fresh rows. It grows at its end and its rows die; a view keeps the stretch as it
/// was, and then only the block and the small tables that change are copied.
#[derive(Clone, Debug)]
pub(crate) struct Fresh {
    shape: Shape,
    chunks: Vec<Arc<Chunk>>,
    seqs: Vec<[u8; 8]>,
    live: Vec<u64>,
    live_rows: u32,
}

/// The rows of one block.
#[derive(Clone, Debug, Default)]
struct Chunk {
    lines: Vec<Line>,
    ids: Vec<Id>,
    docs: Vec<u64>,
}

impl Fresh {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            shape,
            chunks: Vec::new(),
            seqs: Vec::new(),
            live: Vec::new(),
            live_rows: 0,
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether another row goes into the next stretch.
    pub(crate) fn is_full(&self) -> bool {
        self.rows() >= PART_ROWS.next_multiple_of(self.shape.rows_per_block)
    }

    pub(crate) fn rows(&self) -> u32 {
        self.seqs.len() as u32
    }

    pub(crate) fn live_rows(&self) -> u32 {
        self.live_rows
    }

    pub(crate) fn live(&self) -> &[u64] {
        &self.live
    }

    pub(crate) fn seqs(&self) -> &[[u8; 8]] {
        &self.seqs
    }

    pub(crate) fn id(&self, row: u32) -> &Id {
        let (chunk, row) = self.chunk_of(row);
        &chunk.ids[row]
    }

    pub(crate) fn doc(&self, row: u32) -> u64 {
        let (chunk, row) = self.chunk_of(row);
        chunk.docs[row]
    }

    /// The bytes of a block with their padding.
    pub(crate) fn block(&self, block: u32) -> &[u8] {
        let chunk = &self.chunks[block as usize];
        let bytes: &[u8] = bytemuck::cast_slice(&chunk.lines);
        let rows = self.shape.rows_in(block, self.rows());
        &bytes[..align_up(rows as u64 * self.shape.row_bytes as u64) as usize]
    }

    /// The record of a row.
    pub(crate) fn record(&self, row: u32) -> &[u8] {
        let (chunk, row) = self.chunk_of(row);
        let bytes: &[u8] = bytemuck::cast_slice(&chunk.lines);
        &bytes[row * self.shape.row_bytes..][..self.shape.row_bytes]
    }

    fn chunk_of(&self, row: u32) -> (&Chunk, usize) {
        let per_block = self.shape.rows_per_block;
        (
            &self.chunks[(row / per_block) as usize],
            (row % per_block) as usize,
        )
    }

    /// Appends a live row.
    pub(crate) fn push(&mut self, seq: u64, id: Id, record: &[u8], doc: u64) {
        let row = self.rows();
        let slot = (row % self.shape.rows_per_block) as usize;
        if slot == 0 {
            self.chunks.push(Arc::default());
        }
        if let Some(chunk) = self.chunks.last_mut() {
            let chunk = Arc::make_mut(chunk);
            let start = slot * self.shape.row_bytes;
            let lines = align_up((start + record.len()) as u64) as usize / size_of::<Line>();
            if chunk.lines.len() < lines {
                chunk.lines.resize(lines, EMPTY);
            }
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut chunk.lines);
            bytes[start..start + record.len()].copy_from_slice(record);
            chunk.ids.push(id);
            chunk.docs.push(doc);
        }
        self.seqs.push(seq.to_le_bytes());
        if row.is_multiple_of(64) {
            self.live.push(0);
        }
        bits::set(&mut self.live, row);
        self.live_rows += 1;
    }

    /// Marks a row dead.
    pub(crate) fn kill(&mut self, row: u32) {
        if bits::clear(&mut self.live, row) {
            self.live_rows -= 1;
        }
    }
}

const _: () = assert!(ALIGN.is_multiple_of(size_of::<Line>() as u64));
