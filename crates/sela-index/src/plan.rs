//! From a source to what a scan takes: pages, each a run of a part's blocks, with the bitmaps
//! intersected and cut at their borders.
//!
//! A block of a source is as short as its checksum wants it, and there may be tens of thousands;
//! a page is some MiB of them, so that planning a search costs microseconds.

use std::borrow::Cow;

use sela_compute::scan;

use crate::error::{BlockLength, BoxError, Error};
use crate::source::{Part, Source};

/// Most bytes of rows in a page, unless a single block has more.
const PAGE_BYTES: usize = 32 << 20;

/// A part opened for one search.
pub(crate) struct Opened<'a> {
    number: usize,
    part: Part<'a>,
    seqs: Result<Cow<'a, [u64]>, u64>,
    live: Live<'a>,
}

/// Which rows of a part take part.
enum Live<'a> {
    All,
    /// Words of the whole part; pages begin at whole words.
    Part(Cow<'a, [u64]>),
    /// Words of each block, all of one length, where a page is one block; bits beyond a block's
    /// rows mean nothing.
    Blocks(Vec<u64>),
}

/// A page of a part that has rows to score.
pub(crate) struct Planned<'a> {
    source: &'a dyn Source,
    opened: &'a Opened<'a>,
    page: u32,
    first_block: usize,
    blocks: usize,
    row_bytes: usize,
}

impl<'a> Opened<'a> {
    /// Asks for a part and checks that its tables are long enough.
    pub(crate) fn open(source: &'a dyn Source, number: usize) -> Result<Self, Error> {
        let part = source.part(number).map_err(|source| Error::Part {
            part: number,
            source,
        })?;
        let rows = part.rows as usize;
        let check = |what, found| match found < rows {
            true => Err(Error::PartShape {
                part: number,
                rows,
                what,
                found,
            }),
            false => Ok(()),
        };
        check("sequence numbers", part.seqs.rows())?;
        for (what, words) in [
            ("a live bitmap", part.live),
            ("a filter bitmap", part.filter),
        ] {
            check(
                what,
                words.map_or(usize::MAX, |words| words.len().saturating_mul(64)),
            )?;
        }
        if part.rows_per_block == 0 {
            check("blocks", 0)?;
        }
        Ok(Self {
            number,
            part,
            seqs: part.seqs.numbers(),
            live: live(&part),
        })
    }

    /// The part's pages, those without rows to score left out.
    pub(crate) fn pages(
        &'a self,
        source: &'a dyn Source,
        dim: usize,
    ) -> impl Iterator<Item = Planned<'a>> {
        let row_bytes = dim * self.part.record.bytes();
        let per_block = self.part.rows_per_block as usize;
        let blocks = match per_block.is_multiple_of(64) {
            true => (PAGE_BYTES / (per_block * row_bytes).max(1)).max(1),
            false => 1,
        };
        let all = self.part.blocks();
        (0..all.div_ceil(blocks))
            .map(move |page| Planned {
                source,
                opened: self,
                page: page as u32,
                first_block: page * blocks,
                blocks: blocks.min(all - page * blocks),
                row_bytes,
            })
            .filter(|planned| {
                planned
                    .live()
                    .is_none_or(|words| words.iter().any(|w| *w != 0))
            })
    }
}

/// The bitmaps of a part intersected, and cut where its blocks do not begin at whole words.
fn live<'a>(part: &Part<'a>) -> Live<'a> {
    let words = match (part.live, part.filter) {
        (None, None) => return Live::All,
        (Some(words), None) | (None, Some(words)) => Cow::Borrowed(words),
        (Some(live), Some(filter)) => {
            Cow::Owned(live.iter().zip(filter).map(|(a, b)| a & b).collect())
        }
    };
    let per_block = part.rows_per_block as usize;
    if per_block.is_multiple_of(64) || part.blocks() <= 1 {
        return Live::Part(words);
    }
    let mut cut = Vec::with_capacity(part.blocks() * per_block.div_ceil(64));
    for block in 0..part.blocks() {
        let first = block * per_block;
        for at in (first..first + per_block).step_by(64) {
            let low = words.get(at / 64).map_or(0, |w| w >> (at % 64));
            let high = words
                .get(at / 64 + 1)
                .map_or(0, |w| (w << 1) << (63 - at % 64));
            cut.push(low | high);
        }
    }
    Live::Blocks(cut)
}

impl<'a> Planned<'a> {
    /// Number of the part.
    pub(crate) fn part(&self) -> usize {
        self.opened.number
    }

    /// The block of the part that the page's chunk `chunk` is.
    pub(crate) fn block_of(&self, chunk: u32) -> usize {
        self.first_block + chunk as usize
    }

    /// The part's row that the page begins with.
    pub(crate) fn first_row(&self) -> usize {
        self.first_block * self.opened.part.rows_per_block as usize
    }

    fn rows(&self) -> usize {
        let part = &self.opened.part;
        let most = self.blocks * part.rows_per_block as usize;
        (part.rows as usize - self.first_row()).min(most)
    }

    fn live(&self) -> Option<&'a [u64]> {
        let (first, rows) = (self.first_row(), self.rows());
        match &self.opened.live {
            Live::All => None,
            Live::Part(words) => Some(&words[first / 64..(first + rows).div_ceil(64)]),
            Live::Blocks(words) => {
                let each = (self.opened.part.rows_per_block as usize).div_ceil(64);
                Some(&words[self.first_block * each..][..each])
            }
        }
    }

    /// The page as a scan takes it.
    pub(crate) fn block(&'a self) -> scan::Block<'a> {
        let (first, rows) = (self.first_row(), self.rows());
        let seqs = match &self.opened.seqs {
            Ok(table) => scan::Seqs::Table(&table[first..first + rows]),
            Err(run) => scan::Seqs::Run(run + first as u64),
        };
        let part = &self.opened.part;
        scan::Block {
            rows: self,
            len: rows as u32,
            chunk_rows: part.rows_per_block,
            record: part.record,
            page: part.identity.map(|owner| scan::PageId {
                owner,
                page: self.page,
            }),
            live: self.live(),
            seqs,
        }
    }
}

impl scan::Rows for Planned<'_> {
    fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
        let per_block = self.opened.part.rows_per_block as usize;
        let bytes = self
            .source
            .block(self.opened.number, self.block_of(chunk))?;
        let before = chunk as usize * per_block;
        let expected = (self.rows() - before).min(per_block) * self.row_bytes;
        if bytes.len() != expected {
            return Err(Box::new(BlockLength {
                expected,
                found: bytes.len(),
            }));
        }
        Ok(bytes)
    }
}
