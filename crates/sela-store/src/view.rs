//! What a reader sees: a consistent picture of the collection, in parts.

use std::sync::Arc;

use crate::bits;
use crate::error::{Error, Result};
use crate::fresh::Fresh;
use crate::id::Id;
use crate::model::{Place, Record};
use crate::segment::{Reading, Segment};
use crate::shape::Shape;

/// A consistent picture of a collection that later writes do not change; cheap to take.
///
/// While views are held, the documents of rows they show are kept.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) picture: Arc<Picture>,
    /// Held so that the collection knows who still looks; see `maintain`.
    pub(crate) _epoch: Arc<()>,
}

/// The parts of a collection and its counters at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// Segments first, then fresh rows.
    pub(crate) parts: Vec<Part>,
    /// How many of the parts are segments.
    pub(crate) sealed: usize,
    pub(crate) last_seq: u64,
    pub(crate) purges: u64,
}

/// A stretch of rows: one segment, or a stretch of fresh rows in memory.
#[derive(Clone, Debug)]
pub struct Part(pub(crate) Kind);

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Sealed(Arc<Sealed>),
    Fresh(Arc<Fresh>),
}

/// A segment and which of its rows answer.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) segment: Arc<Segment>,
    pub(crate) live: Vec<u64>,
    pub(crate) live_rows: u32,
}

/// One block of records, row after row.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The records: little-endian numbers, `rows * row_bytes` bytes.
    pub records: &'a [u8],
    /// The same bytes with the zeros after them, up to a multiple of 16 KiB; of a segment both
    /// ends stand at a multiple of 16 KiB in the file.
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

impl View {
    /// The parts: segments first, then fresh rows. Each has its own rows, from 0.
    pub fn parts(&self) -> &[Part] {
        &self.picture.parts
    }

    /// Rows that answer.
    pub fn live_rows(&self) -> u64 {
        self.picture.live_rows()
    }

    /// The newest sequence of the collection when the view was taken.
    pub fn last_seq(&self) -> u64 {
        self.picture.last_seq
    }

    /// Where the row of this id is, if it is live; looks through the fresh rows one by one.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a table of ids that may hold it is.
    pub fn find(&self, id: &Id) -> Result<Option<Place>> {
        let mut found = vec![None];
        self.picture.locate_sealed(&[(0, id)], &mut found)?;
        if found[0].is_none() {
            self.picture.each_fresh(|place, fresh_id| {
                if fresh_id == id {
                    found[0] = Some(place);
                }
            });
        }
        Ok(found[0])
    }
}

impl Picture {
    pub(crate) fn live_rows(&self) -> u64 {
        self.parts
            .iter()
            .map(|part| u64::from(part.live_rows()))
            .sum()
    }

    /// Rows of the fresh parts, dead ones included.
    pub(crate) fn fresh_rows(&self) -> u64 {
        self.parts[self.sealed..]
            .iter()
            .map(|part| u64::from(part.rows()))
            .sum()
    }

    /// The segments, with their index among the parts.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (usize, &Arc<Sealed>)> {
        self.parts
            .iter()
            .enumerate()
            .filter_map(|(index, part)| match &part.0 {
                Kind::Sealed(sealed) => Some((index, sealed)),
                Kind::Fresh(_) => None,
            })
    }

    /// Hands over the place and id of every live fresh row.
    pub(crate) fn each_fresh(&self, mut each: impl FnMut(Place, &Id)) {
        for (part, kind) in self.parts.iter().enumerate() {
            if let Kind::Fresh(fresh) = &kind.0 {
                for row in bits::iter(fresh.live(), 0) {
                    each(
                        Place {
                            part: part as u32,
                            row,
                        },
                        fresh.id(row),
                    );
                }
            }
        }
    }

    /// Finds the live rows of ids in segments. `wanted` is sorted by id; each entry's number is
    /// its index in `found`. Entries already found are passed over.
    pub(crate) fn locate_sealed(
        &self,
        wanted: &[(usize, &Id)],
        found: &mut [Option<Place>],
    ) -> Result<()> {
        let mut left = wanted
            .iter()
            .filter(|(index, _)| found[*index].is_none())
            .count();
        for (part, sealed) in self.parts[..self.sealed].iter().enumerate().rev() {
            let Kind::Sealed(sealed) = &sealed.0 else {
                continue;
            };
            if left == 0 {
                break;
            }
            let reading = sealed.segment.read()?;
            let rows = sealed.segment.rows();
            let (min, max) = (reading.id_at(0)?, reading.id_at(rows - 1)?);
            let mut from = 0;
            for (index, id) in wanted {
                if found[*index].is_some() || **id < min {
                    continue;
                }
                if **id > max {
                    break;
                }
                let Some(probe) = reading.probe(id) else {
                    continue;
                };
                let (row, next) = reading.find(&probe, from)?;
                from = next;
                if let Some(row) = row.filter(|row| bits::get(&sealed.live, *row)) {
                    found[*index] = Some(Place {
                        part: part as u32,
                        row,
                    });
                    left -= 1;
                }
            }
        }
        Ok(())
    }

    /// Where the row of a sequence is, dead or alive.
    pub(crate) fn place_of_seq(&self, seq: u64) -> Result<Option<Place>> {
        for (index, part) in self.parts.iter().enumerate() {
            if let Kind::Sealed(sealed) = &part.0 {
                let (first, last) = sealed.segment.seq_ends();
                if seq < first || seq > last {
                    continue;
                }
            }
            let access = part.access()?;
            let row = access.first_row_after(seq.saturating_sub(1))?;
            if row < access.rows() && access.seq(row)? == seq {
                let part = index as u32;
                return Ok(Some(Place { part, row }));
            }
        }
        Ok(None)
    }

    /// The rows set in `rows`, one bitmap for each part, by ascending sequence after `after`.
    pub(crate) fn by_seq<'a>(
        &'a self,
        rows: impl Iterator<Item = &'a [u64]>,
        after: u64,
    ) -> Result<BySeq<'a>> {
        let mut walk = BySeq {
            parts: &self.parts,
            walks: Vec::new(),
            heap: std::collections::BinaryHeap::new(),
            at: None,
        };
        // A part of which nothing is asked is not looked at: it may be damaged.
        for (part, words) in rows.enumerate().filter(|(_, words)| !words.is_empty()) {
            let access = self.parts[part].access()?;
            let first = match after {
                0 => 0,
                _ => access.first_row_after(after)?,
            };
            let mut rows = bits::iter(words, first);
            if let Some(row) = rows.next() {
                let seq = access.seq(row)?;
                walk.heap
                    .push(std::cmp::Reverse((seq, walk.walks.len(), row)));
            }
            walk.walks.push(Walk {
                part: part as u32,
                access,
                rows: Box::new(rows),
            });
        }
        Ok(walk)
    }
}

/// Rows of several parts by ascending sequence. A walk may last for minutes, so it looks anew
/// whether a file is still whole whenever it comes to another part or block.
pub(crate) struct BySeq<'a> {
    parts: &'a [Part],
    walks: Vec<Walk<'a>>,
    heap: std::collections::BinaryHeap<std::cmp::Reverse<(u64, usize, u32)>>,
    /// The part and block of the row before.
    at: Option<(u32, u32)>,
}

struct Walk<'a> {
    part: u32,
    access: Access<'a>,
    rows: Box<dyn Iterator<Item = u32> + 'a>,
}

/// A row met on the way.
#[derive(Clone, Copy)]
pub(crate) struct Met<'a> {
    pub(crate) seq: u64,
    pub(crate) place: Place,
    pub(crate) access: Access<'a>,
}

impl<'a> Iterator for BySeq<'a> {
    type Item = Result<Met<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let std::cmp::Reverse((seq, index, row)) = self.heap.pop()?;
        let walk = &mut self.walks[index];
        let part = &self.parts[walk.part as usize];
        let at = Some((walk.part, row / part.rows_per_block()));
        if self.at != at {
            match part.access() {
                Ok(access) => walk.access = access,
                Err(error) => return Some(Err(error)),
            }
            self.at = at;
        }
        if let Some(next) = walk.rows.next() {
            match walk.access.seq(next) {
                Ok(seq) => self.heap.push(std::cmp::Reverse((seq, index, next))),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(Met {
            seq,
            place: Place {
                part: walk.part,
                row,
            },
            access: walk.access,
        }))
    }
}

/// A part opened for reads that follow at once; see [`Segment::read`].
#[derive(Clone, Copy)]
pub(crate) enum Access<'a> {
    Sealed(Reading<'a>, u32),
    Fresh(&'a Fresh),
}

impl<'a> Access<'a> {
    pub(crate) fn seq(&self, row: u32) -> Result<u64> {
        match self {
            Self::Sealed(reading, _) => reading.seq(row),
            Self::Fresh(fresh) => Ok(u64::from_le_bytes(fresh.seqs()[row as usize])),
        }
    }

    pub(crate) fn id(&self, row: u32) -> Result<Id> {
        match self {
            Self::Sealed(reading, _) => reading.id(row),
            Self::Fresh(fresh) => Ok(fresh.id(row).clone()),
        }
    }

    /// The document sum: 0 for a row without payload and text.
    pub(crate) fn doc(&self, row: u32) -> Result<u64> {
        match self {
            Self::Sealed(reading, _) => reading.doc(row),
            Self::Fresh(fresh) => Ok(fresh.doc(row)),
        }
    }

    pub(crate) fn record(&self, row: u32) -> Result<&'a [u8]> {
        match self {
            Self::Sealed(reading, _) => reading.record(row),
            Self::Fresh(fresh) => Ok(fresh.record(row)),
        }
    }

    fn rows(&self) -> u32 {
        match self {
            Self::Sealed(_, rows) => *rows,
            Self::Fresh(fresh) => fresh.rows(),
        }
    }

    /// The first row whose sequence is greater.
    fn first_row_after(&self, after: u64) -> Result<u32> {
        let (mut low, mut high) = (0, self.rows());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.seq(middle)? > after {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }
}

impl Part {
    pub(crate) fn sealed(segment: Arc<Segment>, live: Vec<u64>) -> Self {
        let live_rows = bits::count(&live);
        Self(Kind::Sealed(Arc::new(Sealed {
            segment,
            live,
            live_rows,
        })))
    }

    pub(crate) fn access(&self) -> Result<Access<'_>> {
        Ok(match &self.0 {
            Kind::Sealed(sealed) => Access::Sealed(sealed.segment.read()?, sealed.segment.rows()),
            Kind::Fresh(fresh) => Access::Fresh(fresh),
        })
    }

    /// Marks a row dead.
    pub(crate) fn kill(&mut self, row: u32) {
        match &mut self.0 {
            Kind::Sealed(sealed) => {
                let sealed = Arc::make_mut(sealed);
                if bits::clear(&mut sealed.live, row) {
                    sealed.live_rows -= 1;
                }
            }
            Kind::Fresh(fresh) => Arc::make_mut(fresh).kill(row),
        }
    }

    /// Whether any row may have a payload or a text.
    pub(crate) fn has_docs(&self) -> bool {
        match &self.0 {
            Kind::Sealed(sealed) => sealed.segment.has_docs(),
            Kind::Fresh(_) => true,
        }
    }

    fn shape(&self) -> &Shape {
        match &self.0 {
            Kind::Sealed(sealed) => sealed.segment.shape(),
            Kind::Fresh(fresh) => fresh.shape(),
        }
    }

    /// Rows, dead ones included.
    pub fn rows(&self) -> u32 {
        match &self.0 {
            Kind::Sealed(sealed) => sealed.segment.rows(),
            Kind::Fresh(fresh) => fresh.rows(),
        }
    }

    /// Rows that answer.
    pub fn live_rows(&self) -> u32 {
        match &self.0 {
            Kind::Sealed(sealed) => sealed.live_rows,
            Kind::Fresh(fresh) => fresh.live_rows(),
        }
    }

    /// Blocks of records.
    pub fn blocks(&self) -> u32 {
        self.shape().blocks(self.rows())
    }

    /// Rows in each block but the last: a multiple of 64. It may differ between parts.
    pub fn rows_per_block(&self) -> u32 {
        self.shape().rows_per_block
    }

    /// Bytes of one record.
    pub fn row_bytes(&self) -> usize {
        self.shape().row_bytes
    }

    /// How the records are written.
    pub fn record(&self) -> Record {
        self.shape().record
    }

    /// The number of the segment: its rows and records never change; `None` for fresh rows.
    pub fn segment(&self) -> Option<u64> {
        match &self.0 {
            Kind::Sealed(sealed) => Some(sealed.segment.row().number),
            Kind::Fresh(_) => None,
        }
    }

    /// A number that no other rows in this process have: all views of an open collection tell the
    /// same for the same segment, whose records never change. Copies of them may be kept under
    /// it. Opened again, a segment has another. `None` for fresh rows.
    pub fn identity(&self) -> Option<u64> {
        match &self.0 {
            Kind::Sealed(sealed) => Some(sealed.segment.identity()),
            Kind::Fresh(_) => None,
        }
    }

    /// A block of records. Its checksum is verified at the first touch after the collection was
    /// opened, and a block that fails is never handed out.
    ///
    /// Records of segments start where the memory map does, at a page, and those of fresh rows
    /// at a multiple of 64 bytes, so that they may be cast to numbers.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a block that fails, or a file that was shortened;
    /// [`Error::NoSuchPlace`] for a block the part does not have.
    pub fn block(&self, block: u32) -> Result<Block<'_>> {
        let shape = self.shape();
        if block >= self.blocks() {
            let row = block.saturating_mul(shape.rows_per_block);
            return Err(Error::NoSuchPlace { part: 0, row });
        }
        let padded = match &self.0 {
            Kind::Sealed(sealed) => sealed.segment.read()?.records(block)?,
            Kind::Fresh(fresh) => fresh.block(block),
        };
        let rows = shape.rows_in(block, self.rows());
        let records = &padded[..rows as usize * shape.row_bytes];
        Ok(Block {
            records,
            padded,
            first_row: block * shape.rows_per_block,
            rows,
        })
    }

    /// One bit per row, lowest first: whether it answers. Bits beyond the last row are 0.
    pub fn live(&self) -> &[u64] {
        match &self.0 {
            Kind::Sealed(sealed) => &sealed.live,
            Kind::Fresh(fresh) => fresh.live(),
        }
    }

    /// The rows' sequences, ascending.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a stored table of them fails its checksum.
    pub fn seqs(&self) -> Result<Seqs<'_>> {
        Ok(match &self.0 {
            Kind::Sealed(sealed) => match sealed.segment.read()?.seqs()? {
                Some(table) => Seqs::Table(table),
                None => Seqs::Run(sealed.segment.seq_ends().0),
            },
            Kind::Fresh(fresh) => Seqs::Table(fresh.seqs()),
        })
    }

    /// The id of a row, dead or alive.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its block fails, [`Error::NoSuchPlace`] when there is no such row.
    pub fn id(&self, row: u32) -> Result<Id> {
        if row >= self.rows() {
            return Err(Error::NoSuchPlace { part: 0, row });
        }
        self.access()?.id(row)
    }
}
