//! From a source to the blocks that a scan takes: bitmaps intersected and cut at block borders.

use std::borrow::Cow;

use sela_compute::scan;

use crate::error::{BlockLength, BoxError, Error};
use crate::source::{Part, Source};

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
    /// Words of the whole part; blocks begin at whole words.
    Part(Cow<'a, [u64]>),
    /// Words of each block, all of one length; bits beyond a block's rows mean nothing.
    Blocks(Vec<u64>),
}

/// A block of a part that has rows to score.
pub(crate) struct Planned<'a> {
    source: &'a dyn Source,
    opened: &'a Opened<'a>,
    pub(crate) block: usize,
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

    /// The part's blocks, those without rows to score left out.
    pub(crate) fn blocks(
        &'a self,
        source: &'a dyn Source,
        dim: usize,
    ) -> impl Iterator<Item = Planned<'a>> {
        let row_bytes = dim * self.part.record.bytes();
        (0..self.part.blocks())
            .map(move |block| Planned {
                source,
                opened: self,
                block,
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

    /// The part's row that the block begins with.
    pub(crate) fn first_row(&self) -> usize {
        self.block * self.opened.part.rows_per_block as usize
    }

    fn rows(&self) -> usize {
        let part = &self.opened.part;
        (part.rows as usize - self.first_row()).min(part.rows_per_block as usize)
    }

    fn live(&self) -> Option<&'a [u64]> {
        let (first, rows) = (self.first_row(), self.rows());
        match &self.opened.live {
            Live::All => None,
            Live::Part(words) => Some(&words[first / 64..(first + rows).div_ceil(64)]),
            Live::Blocks(words) => {
                let each = (self.opened.part.rows_per_block as usize).div_ceil(64);
                Some(&words[self.block * each..][..each])
            }
        }
    }

    /// The block as a scan takes it.
    pub(crate) fn block(&'a self) -> scan::Block<'a> {
        let (first, rows) = (self.first_row(), self.rows());
        let seqs = match &self.opened.seqs {
            Ok(table) => scan::Seqs::Table(&table[first..first + rows]),
            Err(run) => scan::Seqs::Run(run + first as u64),
        };
        scan::Block {
            rows: self,
            len: rows as u32,
            record: self.opened.part.record,
            live: self.live(),
            seqs,
        }
    }
}

impl scan::Rows for Planned<'_> {
    fn bytes(&self) -> Result<&[u8], BoxError> {
        let bytes = self.source.block(self.opened.number, self.block)?;
        let expected = self.rows() * self.row_bytes;
        if bytes.len() != expected {
            return Err(Box::new(BlockLength {
                expected,
                found: bytes.len(),
            }));
        }
        Ok(bytes)
    }
}
