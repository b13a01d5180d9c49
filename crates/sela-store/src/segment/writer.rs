//! Writes a segment file: records as they come, everything else at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::ids::IdColumn;
use super::layout::{HEADER_BYTES, Header, IdForm, META_BLOCK_BYTES, Section, digest, kind};
use crate::catalog::SegmentRow;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::shape::{ALIGN, Shape, align_up};

/// A segment file under way; dropped before [`SegmentWriter::seal`] succeeds, it removes the
/// file.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    number: u64,
    shape: Shape,
    rows: u32,
    ids: IdColumn,
    docs: Vec<u64>,
    /// The block of the section under way.
    block: Vec<u8>,
    offset: u64,
    sections: Vec<Section>,
    sums: Vec<u64>,
    body_done: bool,
    sealed: bool,
}

/// A segment that could not be written.
pub(crate) struct WriteFailure {
    pub(crate) error: Error,
    /// Whether a sync failed, so that the disk is not to be trusted.
    pub(crate) poison: bool,
}

impl From<Error> for WriteFailure {
    fn from(error: Error) -> Self {
        Self {
            error,
            poison: false,
        }
    }
}

impl SegmentWriter {
    pub(crate) fn create(
        disk: &Arc<dyn Disk>,
        path: &Path,
        number: u64,
        shape: Shape,
    ) -> Result<Self> {
        let file = disk
            .open(path, OpenMode::CreateNew)
            .map_err(|error| Error::io("create", path, error))?;
        let mut writer = Self {
            disk: Arc::clone(disk),
            file,
            path: path.to_owned(),
            number,
            shape,
            rows: 0,
            ids: IdColumn::new(),
            docs: Vec::new(),
            block: Vec::new(),
            offset: HEADER_BYTES as u64,
            sections: Vec::new(),
            sums: Vec::new(),
            body_done: false,
            sealed: false,
        };
        writer.begin(kind::RECORDS, shape.block_bytes());
        Ok(writer)
    }

    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// Adds a row; `doc` is its document sum.
    pub(crate) fn push(&mut self, id: &Id, record: &[u8], doc: u64) -> Result<()> {
        self.block.extend_from_slice(record);
        self.ids.push(id);
        self.docs.push(doc);
        self.rows += 1;
        if self.rows.is_multiple_of(self.shape.rows_per_block) {
            let contents = self.block.len() as u64;
            self.flush_block(contents)?;
        }
        Ok(())
    }

    /// Writes what is known before the sequences are, and syncs it, so that little is left to
    /// [`SegmentWriter::seal`].
    pub(crate) fn finish_body(&mut self) -> Result<(), WriteFailure> {
        if self.body_done {
            return Ok(());
        }
        self.end()?;
        self.write_ids()?;
        self.body_done = true;
        self.sync()
    }

    fn write_ids(&mut self) -> Result<()> {
        let order = self.ids.order();
        self.begin(kind::IDS, META_BLOCK_BYTES);
        let mut bytes = Vec::new();
        for &row in &order {
            bytes.clear();
            self.ids.write(row, &mut bytes);
            self.put(&bytes)?;
        }
        self.end()?;
        if self.ids.form() == IdForm::Key {
            self.begin(kind::ID_STARTS, META_BLOCK_BYTES);
            let mut start = 0_u32;
            for &row in &order {
                self.put(&start.to_le_bytes())?;
                start += self.ids.width(row);
            }
            self.put(&start.to_le_bytes())?;
            self.end()?;
        }
        if order
            .iter()
            .enumerate()
            .any(|(rank, &row)| rank as u32 != row)
        {
            let mut ranks = vec![0_u32; order.len()];
            for (rank, &row) in order.iter().enumerate() {
                ranks[row as usize] = rank as u32;
            }
            self.put_section(kind::ROWS, order.iter().map(|row| row.to_le_bytes()))?;
            self.put_section(kind::RANKS, ranks.iter().map(|rank| rank.to_le_bytes()))?;
        }
        Ok(())
    }

    /// Writes the rest, syncs file and folder, and says what the catalog must know. The file is
    /// the caller's from then on.
    pub(crate) fn seal(mut self, seqs: &SeqColumn) -> Result<SegmentRow, WriteFailure> {
        self.finish_body()?;
        if let SeqColumn::Table(table) = seqs {
            self.put_section(kind::SEQS, table.iter().map(|seq| seq.to_le_bytes()))?;
        }
        if self.docs.iter().any(|&doc| doc != 0) {
            let docs = std::mem::take(&mut self.docs);
            self.put_section(kind::DOCS, docs.iter().map(|doc| doc.to_le_bytes()))?;
        }
        self.write_sums()?;
        let (first_seq, last_seq) = seqs.ends(self.rows);
        let header = Header {
            file_bytes: self.offset,
            rows: self.rows,
            shape: self.shape,
            id_form: self.ids.form(),
            first_seq,
            last_seq,
            sections: std::mem::take(&mut self.sections),
        };
        let page = header.encode();
        self.write(&page, 0)?;
        self.sync()?;
        let folder = self.path.parent().unwrap_or(&self.path).to_owned();
        self.disk.sync_dir(&folder).map_err(|error| WriteFailure {
            error: Error::io("sync", &folder, error),
            poison: true,
        })?;
        self.sealed = true;
        Ok(SegmentRow {
            number: self.number,
            rows: self.rows,
            bytes: header.file_bytes,
            dead: 0,
            digest: digest(&page),
        })
    }

    /// Writes the checksum section and completes the section table.
    fn write_sums(&mut self) -> Result<()> {
        let bytes: Vec<u8> = self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        for section in &mut self.sections {
            let first = section.first_sum as usize * 8;
            let last = first + section.blocks() as usize * 8;
            section.checksum = xxh3_64(&bytes[first..last]);
        }
        let mut stored = bytes;
        let contents = stored.len() as u64;
        stored.resize(align_up(contents) as usize, 0);
        self.sections.push(Section {
            kind: kind::CHECKSUMS,
            offset: self.offset,
            bytes: contents,
            stored: stored.len() as u64,
            block_bytes: META_BLOCK_BYTES,
            first_sum: 0,
            checksum: xxh3_64(&stored),
        });
        self.write(&stored, self.offset)?;
        self.offset += stored.len() as u64;
        Ok(())
    }

    fn put_section<const N: usize>(
        &mut self,
        kind: u32,
        items: impl Iterator<Item = [u8; N]>,
    ) -> Result<()> {
        self.begin(kind, META_BLOCK_BYTES);
        for item in items {
            self.put(&item)?;
        }
        self.end()
    }

    fn begin(&mut self, kind: u32, block_bytes: u64) {
        self.block.clear();
        self.sections.push(Section {
            kind,
            offset: self.offset,
            bytes: 0,
            stored: 0,
            block_bytes,
            first_sum: self.sums.len() as u64,
            checksum: 0,
        });
    }

    /// Adds contents to a section whose blocks are filled to the last byte.
    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = META_BLOCK_BYTES as usize - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == META_BLOCK_BYTES as usize {
                self.flush_block(META_BLOCK_BYTES)?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let contents = self.block.len() as u64;
        if contents > 0 {
            self.flush_block(contents)
        } else {
            Ok(())
        }
    }

    /// Pads, sums and writes the block under way.
    fn flush_block(&mut self, contents: u64) -> Result<()> {
        let mut block = std::mem::take(&mut self.block);
        block.resize(align_up(contents) as usize, 0);
        let stored = block.len() as u64;
        if let Some(section) = self.sections.last_mut() {
            // Full blocks of records count with their padding: contents end at the last record.
            section.bytes = section.stored + contents;
            section.stored += stored;
            let index = self.sums.len() as u64 - section.first_sum;
            self.sums.push(block_sum(section.kind, index, &block));
        }
        self.write(&block, self.offset)?;
        self.offset += stored;
        block.clear();
        self.block = block;
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_at(bytes, offset)
            .map_err(|error| Error::io("write", &self.path, error))
    }

    fn sync(&self) -> Result<(), WriteFailure> {
        self.file.sync().map_err(|error| WriteFailure {
            error: Error::io("sync", &self.path, error),
            poison: true,
        })
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if !self.sealed {
            // What stays behind is swept when the collection is next opened for writing.
            let _ = self.disk.remove_file(&self.path);
        }
    }
}

/// The checksum of a block, bound to its place.
pub(super) fn block_sum(kind: u32, index: u64, block: &[u8]) -> u64 {
    xxh3_64_with_seed(block, u64::from(kind) << 32 | index)
}

/// The sequences of a segment's rows.
#[derive(Debug)]
pub(crate) enum SeqColumn {
    /// From this number on, one more for each row.
    Run(u64),
    /// One for each row, ascending.
    Table(Vec<u64>),
}

impl SeqColumn {
    /// The shorter form of a table.
    pub(crate) fn from_table(table: Vec<u64>) -> Self {
        let Some(&first) = table.first() else {
            return Self::Run(0);
        };
        if table.iter().zip(first..).all(|(&seq, run)| seq == run) {
            Self::Run(first)
        } else {
            Self::Table(table)
        }
    }

    fn ends(&self, rows: u32) -> (u64, u64) {
        match self {
            Self::Run(first) => (*first, first + u64::from(rows).saturating_sub(1)),
            Self::Table(table) => (
                table.first().copied().unwrap_or(0),
                table.last().copied().unwrap_or(0),
            ),
        }
    }
}

const _: () = assert!(META_BLOCK_BYTES.is_multiple_of(ALIGN));
