//! Bringing a unit's rows to the device.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use wgpu::{Buffer, BufferSize, WriteOnly};

use super::units::{Layout, Once, Unit};
use crate::cpu::pool::{Pool, Width};
use crate::error::Error;
use crate::gpu::Gpu;

/// Bytes that a thread takes at a time.
const SHARE_BYTES: usize = 2 << 20;

/// A unit on its way.
struct Upload<'u, 'a> {
    gpu: &'u Gpu,
    block: &'u Once<'u, 'a>,
    layout: Layout,
    slab: &'u Buffer,
    /// Whether some chunk could not be read, whose rows do not take part.
    spoiled: AtomicBool,
}

/// Writes a unit's rows, padded, to a place in a slab; they are there for submissions to come.
///
/// True when a chunk could not be read: a failure, unless none of its rows takes part, as the CPU
/// would not have asked for it then. Zeros stand for its rows, and the unit must not stay.
pub(super) fn unit(
    gpu: &Gpu,
    pool: &Pool,
    block: &Once<'_, '_>,
    unit: &Unit,
    layout: Layout,
    (slab, offset): (&Buffer, u64),
) -> Result<bool, Error> {
    let upload = Upload {
        gpu,
        block,
        layout,
        slab,
        spoiled: AtomicBool::new(false),
    };
    let rows = unit.rows as usize;
    let share = (SHARE_BYTES / layout.stride()).max(1);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let next = AtomicUsize::new(0);
    pool.run(Width::all_if(rows > share), |_| {
        loop {
            let start = next.fetch_add(share, Ordering::Relaxed);
            if start >= rows {
                return;
            }
            let first = unit.first as usize;
            let range = first + start..first + (start + share).min(rows);
            let to = offset + (start * layout.stride()) as u64;
            if let Err(error) = upload.rows(range, to) {
                next.store(rows, Ordering::Relaxed);
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    // Rows of padding, and the vector for the largest squared norm: all zero.
    let start = rows * layout.stride();
    let bytes = layout.padded(unit.rows) - start + 16;
    upload.write(offset + start as u64, bytes, |mut to| {
        to.fill(0);
        Ok(())
    })?;
    Ok(upload.spoiled.into_inner())
}

impl Upload<'_, '_> {
    /// Writes some rows of the block to a place in the slab.
    fn rows(&self, rows: Range<usize>, to: u64) -> Result<(), Error> {
        let (size, stride) = (self.layout.row_bytes(), self.layout.stride());
        let chunk_rows = self.block.block.chunk_rows.max(1) as usize;
        self.write(to, rows.len() * stride, |mut to| {
            let mut row = rows.start;
            while row < rows.end {
                let (chunk, start) = (row / chunk_rows, row % chunk_rows);
                let count = (chunk_rows - start).min(rows.end - row);
                let (mut this, rest) = to.split_at(count * stride);
                match self.block.read(self.layout.dim, chunk as u32) {
                    Ok(bytes) => copy(&bytes[start * size..][..count * size], size, stride, this),
                    Err(_) if !self.takes_part(chunk * chunk_rows, chunk_rows) => {
                        self.spoiled.store(true, Ordering::Relaxed);
                        this.fill(0);
                    }
                    Err(error) => return Err(error),
                }
                (to, row) = (rest, row + count);
            }
            Ok(())
        })
    }

    /// Whether any of some rows takes part in the search.
    fn takes_part(&self, first: usize, rows: usize) -> bool {
        let block = &self.block.block;
        let end = (first + rows).min(block.len as usize);
        let live = |row: usize, words: &[u64]| words[row / 64] >> (row % 64) & 1 == 1;
        block
            .live
            .is_none_or(|words| (first..end).any(|row| live(row, words)))
    }

    /// Has `fill` fill so many bytes at a place in the slab. After a failure they hold anything.
    fn write(
        &self,
        to: u64,
        bytes: usize,
        fill: impl FnOnce(WriteOnly<'_, [u8]>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let written = self.gpu.caught(|| {
            let size = BufferSize::new(bytes as u64)?;
            let mut view = self.gpu.queue().write_buffer_with(self.slab, to, size)?;
            Some(fill(view.slice(..)))
        })?;
        match written {
            Some(result) => {
                self.gpu.staged(bytes as u64);
                result
            }
            None => {
                let reason = format!("no memory to bring {bytes} bytes of rows in");
                Err(self.gpu.error(reason))
            }
        }
    }
}

/// Copies rows of `size` bytes, `stride` bytes apart with zeros between.
fn copy(rows: &[u8], size: usize, stride: usize, mut to: WriteOnly<'_, [u8]>) {
    if size == stride {
        to.copy_from_slice(rows);
        return;
    }
    for row in rows.chunks_exact(size) {
        let (mut this, rest) = to.split_at(stride);
        this.slice(..size).copy_from_slice(row);
        this.slice(size..).fill(0);
        to = rest;
    }
}
