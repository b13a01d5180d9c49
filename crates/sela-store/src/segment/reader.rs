//! Reads a mapped segment file; no byte is handed out before its block's checksum was verified.
//!
//! What is read through the map can fault: a foreign process that shortens the file, or a device
//! that cannot read a page, ends the process (`SIGBUS`) if it strikes between the check of the
//! length and the touch. The check is made for every [`Reading`], so whoever walks a segment
//! takes a new one at every block; the race within one block stays. `check.rs`, which reads
//! everything, reads the file and not the map.

mod check;

use std::cmp::Ordering as Order;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::layout::{HEADER_BYTES, Header, HeaderFault, IdForm, Section, digest, kind};
use super::writer::block_sum;
use crate::catalog::{SegmentRow, VERSION};
use crate::disk::{Disk, Mapped};
use crate::error::{Damage, DamagePlace, Error, Result};
use crate::id::Id;
use crate::model::Schema;
use crate::shape::Shape;

const UNKNOWN: u8 = 0;
const SOUND: u8 = 1;
const BAD: u8 = 2;
const MISMATCH: &str = "its checksum does not match its bytes";

/// The identity of the next segment that is opened.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    /// A number that no other open of any segment in this process has.
    identity: u64,
    path: PathBuf,
    map: Arc<dyn Mapped>,
    row: SegmentRow,
    header: Header,
    /// What is known of each block, in the order of the checksum section.
    blocks: Vec<AtomicU8>,
    /// What is known of each section's checksums, in the order of the section table.
    sums: Vec<AtomicU8>,
}

impl Segment {
    /// Maps a segment's file and checks its length and header against the catalog.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        row: &SegmentRow,
        schema: &Schema,
    ) -> Result<Self> {
        let map = disk.map(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::segment(path, "the file is missing"),
            _ => Error::io("open", path, error),
        })?;
        let bytes = map
            .bytes()
            .map_err(|error| Error::segment(path, error.to_string()))?;
        if bytes.len() as u64 != row.bytes {
            let detail = format!("it has {} bytes instead of {}", bytes.len(), row.bytes);
            return Err(Error::segment(path, detail));
        }
        let page = &bytes[..HEADER_BYTES.min(bytes.len())];
        let header = Header::decode(page, row.bytes).map_err(|fault| match fault {
            HeaderFault::Newer(found) => Error::NewerFormat {
                path: path.to_owned(),
                found,
                known: VERSION,
            },
            HeaderFault::Broken(detail) => Error::segment(path, detail),
        })?;
        if digest(page) != row.digest {
            return Err(Error::segment(
                path,
                "its header is not the one the catalog names",
            ));
        }
        if header.rows != row.rows
            || header.shape.dim != schema.dim
            || header.shape.record != schema.record
        {
            return Err(Error::segment(
                path,
                "its rows are not of the collection's kind",
            ));
        }
        let blocks = header
            .sections
            .iter()
            .filter(|section| section.kind != kind::CHECKSUMS)
            .map(Section::blocks)
            .sum::<u64>();
        Ok(Self {
            identity: NEXT.fetch_add(1, Ordering::Relaxed),
            path: path.to_owned(),
            blocks: (0..blocks).map(|_| AtomicU8::new(UNKNOWN)).collect(),
            sums: header
                .sections
                .iter()
                .map(|_| AtomicU8::new(UNKNOWN))
                .collect(),
            map,
            row: *row,
            header,
        })
    }

    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the catalog said of the segment when it was opened; `dead` may have grown since.
    pub(crate) fn row(&self) -> &SegmentRow {
        &self.row
    }

    pub(crate) fn rows(&self) -> u32 {
        self.header.rows
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.header.shape
    }

    /// The first and the last sequence.
    pub(crate) fn seq_ends(&self) -> (u64, u64) {
        (self.header.first_seq, self.header.last_seq)
    }

    /// Whether any row has a payload or a text.
    pub(crate) fn has_docs(&self) -> bool {
        self.header.section(kind::DOCS).is_some()
    }

    /// The file's bytes, for reads that follow at once; fails when the file has shrunk.
    pub(crate) fn read(&self) -> Result<Reading<'_>> {
        let bytes = self
            .map
            .bytes()
            .map_err(|error| Error::segment(&self.path, error.to_string()))?;
        Ok(Reading {
            segment: self,
            bytes,
        })
    }

    fn bad_sums(&self, section: &Section) -> Damage {
        let place = DamagePlace::Segment {
            path: self.path.clone(),
        };
        let detail = format!(
            "the checksums of its {} are damaged",
            kind::name(section.kind)
        );
        Damage { place, detail }
    }

    fn bad_block(&self, section: &Section, block: u64, detail: String) -> Damage {
        let rows = self.header.rows;
        let per_block = match section.kind {
            kind::RECORDS => u64::from(self.header.shape.rows_per_block),
            kind::SEQS | kind::DOCS => section.block_bytes / 8,
            kind::RANKS => section.block_bytes / 4,
            // Blocks of sorted ids bear on rows anywhere.
            _ => u64::MAX,
        };
        let row = |block: u64| block.saturating_mul(per_block).min(u64::from(rows)) as u32;
        let place = DamagePlace::Block {
            path: self.path.clone(),
            section: kind::name(section.kind),
            block: block as u32,
            first_row: if per_block == u64::MAX { 0 } else { row(block) },
            end_row: row(block.saturating_add(1)),
        };
        Damage { place, detail }
    }
}

/// A segment whose file was as long as it should be a moment ago; for reads that follow at once.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    segment: &'a Segment,
    bytes: &'a [u8],
}

impl<'a> Reading<'a> {
    fn header(&self) -> &'a Header {
        &self.segment.header
    }

    /// A block of records with its padding.
    pub(crate) fn records(&self, block: u32) -> Result<&'a [u8]> {
        let section = self.section(kind::RECORDS)?;
        let start = u64::from(block) * section.block_bytes;
        let end = (start + section.block_bytes).min(section.stored);
        self.range(section, start as usize..end as usize)
    }

    /// The record of a row.
    pub(crate) fn record(&self, row: u32) -> Result<&'a [u8]> {
        let shape = &self.header().shape;
        let block = self.records(row / shape.rows_per_block)?;
        let start = (row % shape.rows_per_block) as usize * shape.row_bytes;
        Ok(&block[start..start + shape.row_bytes])
    }

    /// The table of sequences, if they are no run.
    pub(crate) fn seqs(&self) -> Result<Option<&'a [[u8; 8]]>> {
        self.table(kind::SEQS)
    }

    /// The sequence of a row.
    pub(crate) fn seq(&self, row: u32) -> Result<u64> {
        match self.header().section(kind::SEQS) {
            None => Ok(self.header().first_seq + u64::from(row)),
            Some(section) => Ok(u64::from_le_bytes(self.item(section, row)?)),
        }
    }

    /// The document sum of a row.
    pub(crate) fn doc(&self, row: u32) -> Result<u64> {
        match self.header().section(kind::DOCS) {
            None => Ok(0),
            Some(section) => Ok(u64::from_le_bytes(self.item(section, row)?)),
        }
    }

    /// The id of a row.
    pub(crate) fn id(&self, row: u32) -> Result<Id> {
        let rank = match self.header().section(kind::RANKS) {
            None => row,
            Some(section) => u32::from_le_bytes(self.item(section, row)?),
        };
        self.id_at(rank)
    }

    /// The row of an id at a position in the sorted ids.
    pub(crate) fn row_at(&self, rank: u32) -> Result<u32> {
        let row = match self.header().section(kind::ROWS) {
            None => rank,
            Some(section) => u32::from_le_bytes(self.item(section, rank)?),
        };
        if row >= self.header().rows {
            return Err(Error::segment(
                &self.segment.path,
                "its order of ids names no row",
            ));
        }
        Ok(row)
    }

    /// The id at a position in the sorted ids.
    pub(crate) fn id_at(&self, rank: u32) -> Result<Id> {
        if rank >= self.header().rows {
            return Err(Error::segment(
                &self.segment.path,
                "its order of rows names no id",
            ));
        }
        let ids = self.section(kind::IDS)?;
        Ok(match self.header().id_form {
            IdForm::Num => Id::Num(u64::from_le_bytes(self.item(ids, rank)?)),
            IdForm::Uuid => Id::Uuid(self.item(ids, rank)?),
            IdForm::Key => Id::from_key(self.key_at(rank)?)
                .ok_or_else(|| Error::segment(&self.segment.path, "an id is none"))?,
        })
    }

    fn key_at(&self, rank: u32) -> Result<&'a [u8]> {
        let starts = self.section(kind::ID_STARTS)?;
        let start = u32::from_le_bytes(self.item(starts, rank)?) as usize;
        let end = u32::from_le_bytes(self.item(starts, rank + 1)?) as usize;
        let ids = self.section(kind::IDS)?;
        if start > end || end as u64 > ids.bytes {
            return Err(Error::segment(
                &self.segment.path,
                "its ids are out of bounds",
            ));
        }
        self.range(ids, start..end)
    }

    /// The last row of an id, and a position in the sorted ids that no greater id is before.
    /// `from` is such a position of an id that is not greater.
    pub(crate) fn find(&self, probe: &Probe, from: u32) -> Result<(Option<u32>, u32)> {
        let rows = self.header().rows;
        // Stride out until an id is greater, then halve: cheap when probes come in order.
        let (mut low, mut high, mut stride) = (from, from, 1_u32);
        while high < rows && self.compare(high, probe)? != Order::Greater {
            low = high + 1;
            high = high.saturating_add(stride).min(rows);
            stride = stride.saturating_mul(2);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.compare(middle, probe)? == Order::Greater {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        // All ids before `low` are not greater.
        let Some(rank) = low.checked_sub(1).filter(|rank| *rank >= from) else {
            return Ok((None, low));
        };
        if self.compare(rank, probe)? == Order::Equal {
            Ok((Some(self.row_at(rank)?), rank))
        } else {
            Ok((None, low))
        }
    }

    /// How the id at a position compares with the wanted one.
    fn compare(&self, rank: u32, probe: &Probe) -> Result<Order> {
        let ids = self.section(kind::IDS)?;
        Ok(match probe {
            Probe::Num(id) => u64::from_le_bytes(self.item(ids, rank)?).cmp(id),
            Probe::Uuid(id) => self.item::<16>(ids, rank)?.cmp(id),
            Probe::Key(key) => self.key_at(rank)?.cmp(key.as_slice()),
        })
    }

    /// What to look an id up by; `None` when the segment has no ids of its kind.
    pub(crate) fn probe(&self, id: &Id) -> Option<Probe> {
        match (self.header().id_form, id) {
            (IdForm::Num, Id::Num(id)) => Some(Probe::Num(*id)),
            (IdForm::Uuid, Id::Uuid(id)) => Some(Probe::Uuid(*id)),
            (IdForm::Key, id) => Some(Probe::Key(id.to_key())),
            _ => None,
        }
    }

    fn section(&self, kind: u32) -> Result<&'a Section> {
        self.header()
            .section(kind)
            .ok_or_else(|| Error::segment(&self.segment.path, "a section is missing"))
    }

    fn table<const N: usize>(&self, kind: u32) -> Result<Option<&'a [[u8; N]]>> {
        let Some(section) = self.header().section(kind) else {
            return Ok(None);
        };
        let bytes = self.range(section, 0..section.bytes as usize)?;
        Ok(Some(bytes.as_chunks().0))
    }

    fn item<const N: usize>(&self, section: &'a Section, index: u32) -> Result<[u8; N]> {
        let start = index as usize * N;
        let bytes = self.range(section, start..start + N)?;
        Ok(bytes.try_into().unwrap_or([0; N]))
    }

    /// Bytes of a section, after every block they touch was verified.
    fn range(&self, section: &'a Section, range: std::ops::Range<usize>) -> Result<&'a [u8]> {
        let start = section.offset as usize;
        let bytes = &self.bytes[start..start + section.stored as usize];
        if section.kind == kind::CHECKSUMS {
            self.check_sums(section)?;
        } else {
            let first = range.start as u64 / section.block_bytes;
            let end = (range.end as u64).div_ceil(section.block_bytes);
            for block in first..end {
                self.check_block(section, block)?;
            }
        }
        Ok(&bytes[range])
    }

    fn check_block(&self, section: &'a Section, block: u64) -> Result<()> {
        let index = section.first_sum + block;
        let state = &self.segment.blocks[index as usize];
        match state.load(Ordering::Acquire) {
            SOUND => return Ok(()),
            BAD => return Err(self.bad_block(section, block)),
            _ => {}
        }
        self.check_sums(section)?;
        let checksums = self.section(kind::CHECKSUMS)?;
        let at = checksums.offset as usize + index as usize * 8;
        let expected = &self.bytes[at..at + 8];
        let start = (section.offset + block * section.block_bytes) as usize;
        let end = (start as u64 + section.block_bytes).min(section.offset + section.stored);
        let found = block_sum(section.kind, block, &self.bytes[start..end as usize]);
        if found.to_le_bytes() != expected {
            state.store(BAD, Ordering::Release);
            return Err(self.bad_block(section, block));
        }
        // Whoever read the file meanwhile and found the block bad has the last word.
        match state.compare_exchange(UNKNOWN, SOUND, Ordering::AcqRel, Ordering::Acquire) {
            Err(BAD) => Err(self.bad_block(section, block)),
            _ => Ok(()),
        }
    }

    /// Checks the checksums of a section's blocks; of the checksum section, its own bytes.
    fn check_sums(&self, section: &'a Section) -> Result<()> {
        let checksums = self.section(kind::CHECKSUMS)?;
        let index = self
            .header()
            .sections
            .iter()
            .position(|s| s.kind == section.kind);
        let state = &self.segment.sums[index.unwrap_or(0)];
        match state.load(Ordering::Acquire) {
            SOUND => return Ok(()),
            BAD => return Err(self.bad_sums(section)),
            _ => {}
        }
        let base = checksums.offset as usize;
        let range = if section.kind == kind::CHECKSUMS {
            base..base + section.stored as usize
        } else {
            let first = base + section.first_sum as usize * 8;
            first..first + section.blocks() as usize * 8
        };
        if xxh3_64(&self.bytes[range]) != section.checksum {
            state.store(BAD, Ordering::Release);
            return Err(self.bad_sums(section));
        }
        match state.compare_exchange(UNKNOWN, SOUND, Ordering::AcqRel, Ordering::Acquire) {
            Err(BAD) => Err(self.bad_sums(section)),
            _ => Ok(()),
        }
    }

    fn bad_sums(&self, section: &Section) -> Error {
        Error::Damaged(self.segment.bad_sums(section))
    }

    fn bad_block(&self, section: &Section, block: u64) -> Error {
        Error::Damaged(self.segment.bad_block(section, block, MISMATCH.into()))
    }
}

/// An id in the form of a segment's table of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Num(u64),
    Uuid([u8; 16]),
    Key(Vec<u8>),
}
