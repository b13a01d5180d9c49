//! A search at work: its blocks cut into pieces, handed out to threads, the best rows merged.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::best::{Best, Candidate};
use super::cache::{Asked, Cache};
use super::codes;
use super::codes::{Codes, STRIP};
use super::dots::Dots;
use super::kernels::{Kernels, STRIP_ROOM, STRIP_ROWS, Strip};
use super::padded::Padded;
use super::prescan::{Looker, Prescan, piece_rows};
use super::tile::Tails;
use crate::cpu::pool::{Member, Pool, Width};
use crate::error::Error;
use crate::reference::LANES;
use crate::scan::{Block, Found, Metric};

/// Bytes of rows in a piece of work: small enough to share out evenly and to stay in a
/// second-level cache while groups of queries pass over it.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of queries that pass over a piece together; they stay in a second-level cache.
const GROUP_BYTES: usize = 192 << 10;
/// Work below which a search stays on the calling thread, in bytes of rows read; a query more
/// costs as much as a quarter of them.
const WIDE_BYTES: usize = 1 << 20;

/// Queries as the kernels read them.
pub(super) struct Packed {
    pub(super) dim: usize,
    pub(super) metric: Metric,
    pub(super) k: usize,
    pub(super) queries: Padded,
    /// Canonical norms.
    pub(super) norms: Vec<f32>,
}

impl Packed {
    /// Bytes of a row of a block.
    pub(super) fn row_bytes(&self, block: &Block<'_>) -> usize {
        self.dim * block.record.bytes()
    }
}

/// Rows `start..end` of a block, all in one chunk.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) block: usize,
    pub(super) chunk: u32,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// How a block is cut into pieces: each chunk into as many.
struct Cut {
    /// Number of the block's first piece among all of the search.
    first: usize,
    /// Pieces of a chunk.
    pieces: usize,
    /// Rows of a piece but the last of a chunk.
    rows: usize,
    /// Where the bytes of the first chunk are kept, when several pieces share them.
    kept: usize,
    /// Whether its chunks' bytes are kept.
    keeps: bool,
    /// Whether its pieces are of the whole block: it is looked at by its codes, and bytes are asked
    /// for where they are needed.
    coded: bool,
}

/// What a block's codes are to a search.
struct Use {
    /// It is looked at by them.
    coded: bool,
    /// They are made after it.
    wanted: bool,
}

/// What all threads of a search share.
pub(super) struct Search<'a> {
    kernels: Kernels,
    dots: Dots,
    pub(super) packed: &'a Packed,
    pub(super) blocks: &'a [Block<'a>],
    pub(super) prescan: Option<Prescan>,
    cuts: Vec<Cut>,
    /// Number of pieces.
    pieces: usize,
    /// The bytes of chunks of several pieces, asked for by the first thread that needs them.
    kept: Vec<OnceLock<Option<&'a [u8]>>>,
    next: AtomicUsize,
    pub(super) failed: AtomicBool,
    failure: Mutex<Option<((usize, u32), Error)>>,
    /// For each query what the threads have found.
    found: Vec<Mutex<Vec<Candidate>>>,
    pub(super) cache: &'a Cache,
}

/// What a search runs on.
#[derive(Clone, Copy)]
pub(super) struct On<'a> {
    pub(super) kernels: Kernels,
    pub(super) dots: Dots,
    pub(super) pool: &'a Pool,
    pub(super) cache: &'a Cache,
}

/// Runs a search to its end.
pub(super) fn run(
    on: On<'_>,
    packed: &Packed,
    blocks: &[Block<'_>],
) -> Result<Vec<Vec<Found>>, Error> {
    let On {
        kernels,
        dots,
        pool,
        cache,
    } = on;
    let queries = packed.norms.len();
    if queries == 0 {
        return Ok(Vec::new());
    }
    let asked = cache.ask(blocks, packed.dim);
    let wanted: Vec<bool> = asked.iter().map(|a| matches!(a, Asked::Wanted)).collect();
    let codes = asked.into_iter().map(|asked| match asked {
        Asked::There(codes) => Some(codes),
        _ => None,
    });
    let codes: Vec<_> = codes.collect();
    let any = codes.iter().any(Option::is_some);
    let prescan = Prescan::new(dots, packed, blocks, codes, pool.threads());
    if any && prescan.is_none() {
        cache.overflows.fetch_add(1, Ordering::Relaxed);
    }
    let strip = kernels.strip_rows(packed.dim, queries);
    let (cuts, pieces, kept) = cut(packed, strip, blocks, |block| Use {
        coded: prescan.as_ref().is_some_and(|p| p.codes[block].is_some()),
        wanted: wanted[block],
    });
    let search = Search {
        kernels,
        dots,
        packed,
        blocks,
        prescan,
        cuts,
        pieces,
        kept: (0..kept).map(|_| OnceLock::new()).collect(),
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        failure: Mutex::new(None),
        found: (0..queries).map(|_| Mutex::new(Vec::new())).collect(),
        cache,
    };
    let bytes: usize = blocks
        .iter()
        .map(|block| block.len as usize * packed.row_bytes(block))
        .sum();
    let wide = bytes.saturating_mul(3 + queries) / 4 >= WIDE_BYTES && search.pieces > 1;
    pool.run(Width::all_if(wide), |member| {
        Worker::new(&search).run(member);
    });
    if !search.failed.load(Ordering::Relaxed) {
        search.make_codes(pool, &wanted);
    }
    if let Some((_, error)) = search
        .failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Err(error);
    }
    Ok(merge(pool, packed, search.found))
}

/// Sorts what the threads have found for each query and keeps the best `k`.
pub(super) fn merge(
    pool: &Pool,
    packed: &Packed,
    found: Vec<Mutex<Vec<Candidate>>>,
) -> Vec<Vec<Found>> {
    let sort = |slot: &Mutex<Vec<Candidate>>| {
        let mut candidates = slot.lock().unwrap_or_else(PoisonError::into_inner);
        candidates.sort_unstable();
        candidates.truncate(packed.k);
    };
    let next = AtomicUsize::new(0);
    let wide = found.len() > 1 && found.len() * packed.k > WIDE_BYTES / size_of::<Candidate>();
    pool.run(Width::all_if(wide), |_| {
        while let Some(slot) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
            sort(slot);
        }
    });
    let sign = if packed.metric.descends() { 1.0 } else { -1.0 };
    let answer = |c: Candidate| Found {
        score: sign * c.rank,
        seq: c.seq,
        block: c.block,
        row: c.row,
    };
    found
        .into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner))
        .map(|candidates| candidates.into_iter().map(answer).collect())
        .collect()
}

/// Cuts the chunks of the blocks, in their order, into even pieces of whole strips. Also how many
/// pieces there are, and how many chunks are of several.
fn cut(
    packed: &Packed,
    strip: usize,
    blocks: &[Block<'_>],
    of: impl Fn(usize) -> Use,
) -> (Vec<Cut>, usize, usize) {
    let (mut first, mut kept) = (0, 0);
    let one = |(number, block): (usize, &Block<'_>)| {
        let Use { coded, wanted } = of(number);
        let rows = match coded {
            true => block.len,
            false => block.len.min(block.chunk_rows),
        } as usize;
        let count = (rows * packed.row_bytes(block) + PIECE_BYTES / 2) / PIECE_BYTES;
        let size = match coded {
            true => piece_rows(packed.dim, packed.norms.len()),
            false => rows.div_ceil(count.max(1)).max(1).next_multiple_of(strip),
        };
        let cut = Cut {
            first,
            pieces: rows.div_ceil(size),
            rows: size,
            kept,
            coded,
            keeps: coded || wanted || rows > size,
        };
        let chunks = block.chunks() as usize;
        first += if coded {
            cut.pieces
        } else {
            chunks * cut.pieces
        };
        kept += if cut.keeps { chunks } else { 0 };
        cut
    };
    let cuts = blocks.iter().enumerate().map(one).collect();
    (cuts, first, kept)
}

impl<'a> Search<'a> {
    /// A piece by its number; it may be empty, beyond the end of a block's last chunk.
    fn piece(&self, number: usize) -> Piece {
        // The last of the cuts that begin here: those before it are empty.
        let block = self.cuts.partition_point(|cut| cut.first <= number) - 1;
        let cut = &self.cuts[block];
        let number = number - cut.first;
        if cut.coded {
            let start = number * cut.rows;
            let end = (start + cut.rows).min(self.blocks[block].len as usize);
            return Piece {
                block,
                chunk: 0,
                start,
                end,
            };
        }
        let chunk = (number / cut.pieces) as u32;
        let rows = self.blocks[block].chunk_range(chunk);
        let start = rows.start + number % cut.pieces * cut.rows;
        Piece {
            block,
            chunk,
            start,
            end: (start + cut.rows).min(rows.end),
        }
    }

    /// The bytes of a piece's chunk, or `None` when they cannot be had (which is noted as the
    /// failure).
    pub(super) fn bytes(&self, piece: Piece) -> Option<&'a [u8]> {
        let Piece { block, chunk, .. } = piece;
        let read = || {
            let bytes = self.blocks[block].read(self.packed.dim, block, chunk);
            bytes.map_err(|error| self.fail(piece, error)).ok()
        };
        let cut = &self.cuts[block];
        match cut.keeps {
            false => read(),
            true => *self.kept[cut.kept + chunk as usize].get_or_init(read),
        }
    }

    /// Makes the codes of the blocks that want some, of the bytes that the search has read and
    /// those it had no need of. A block that cannot be read whole goes without.
    fn make_codes(&self, pool: &Pool, wanted: &[bool]) {
        for (block, from) in self.blocks.iter().enumerate().filter(|(i, _)| wanted[*i]) {
            let size = self.packed.row_bytes(from);
            let strips = (from.len as usize).div_ceil(STRIP);
            let (next, damaged) = (AtomicUsize::new(0), AtomicBool::new(false));
            let made: Vec<OnceLock<_>> = (0..strips).map(|_| OnceLock::new()).collect();
            pool.run(Width::all_if(strips > 1), |_| {
                loop {
                    let strip = next.fetch_add(1, Ordering::Relaxed);
                    let Some(slot) = made.get(strip) else {
                        return;
                    };
                    // A strip lies in one chunk.
                    let start = strip * STRIP;
                    let end = (start + STRIP).min(from.len as usize);
                    let chunk = start as u32 / from.chunk_rows;
                    let first = from.chunk_range(chunk).start;
                    let kept = &self.kept[self.cuts[block].kept + chunk as usize];
                    let read = || from.read(self.packed.dim, block, chunk).ok();
                    let Some(bytes) = *kept.get_or_init(read) else {
                        return damaged.store(true, Ordering::Relaxed);
                    };
                    let bytes = &bytes[(start - first) * size..(end - first) * size];
                    let strip = codes::encode(self.dots, bytes, self.packed.dim, from.record);
                    let _ = slot.set(strip);
                }
            });
            let strips: Option<Vec<_>> = made.into_iter().map(OnceLock::into_inner).collect();
            if let (Some(page), Some(strips)) = (from.page, strips)
                && !damaged.into_inner()
            {
                let codes = Codes::join(from, self.packed.dim, strips);
                self.cache.put(page, codes);
            }
        }
    }

    /// Notes a failure; that of the first chunk is told.
    fn fail(&self, piece: Piece, error: Error) {
        let at = (piece.block, piece.chunk);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|(first, _)| at < *first) {
            *failure = Some((at, error));
        }
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// One thread's part in a search.
pub(super) struct Worker<'s, 'a> {
    pub(super) search: &'s Search<'a>,
    pub(super) best: Vec<Best>,
    pub(super) thresholds: Vec<f32>,
    ranks: Vec<f32>,
    hits: Vec<bool>,
    tails: Tails<STRIP_ROOM>,
    pub(super) looker: Option<Looker<'s>>,
}

/// Live rows on their way to a kernel.
pub(super) struct Gathered {
    pub(super) rows: [*const u8; STRIP_ROOM],
    pub(super) numbers: [u32; STRIP_ROWS],
    pub(super) len: usize,
}

impl<'s, 'a> Worker<'s, 'a> {
    fn new(search: &'s Search<'a>) -> Self {
        let packed = search.packed;
        let queries = packed.norms.len();
        let group = group(packed);
        Self {
            search,
            best: (0..queries).map(|_| Best::new(packed.k)).collect(),
            thresholds: vec![f32::NEG_INFINITY; queries],
            ranks: vec![0.0; group * STRIP_ROOM],
            hits: vec![false; group],
            tails: Tails::new(),
            looker: search.prescan.as_ref().map(|p| Looker::new(p, packed.k)),
        }
    }

    /// Works off pieces until none is left, then hands over what was found.
    fn run(mut self, member: Member<'_>) {
        let search = self.search;
        while !search.failed.load(Ordering::Relaxed) {
            let number = search.next.fetch_add(1, Ordering::Relaxed);
            if number >= search.pieces {
                break;
            }
            let piece = search.piece(number);
            match search.cuts[piece.block].coded {
                true => self.coded_piece(piece),
                false => self.piece(piece),
            }
        }
        self.settle(member);
        for (best, found) in self.best.into_iter().zip(&search.found) {
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.append(&mut best.into_vec());
        }
    }

    /// Scans a piece, once for each group of queries. A piece without live rows is not read.
    pub(super) fn piece(&mut self, piece: Piece) {
        let search = self.search;
        let from = &search.blocks[piece.block];
        if next_live(from.live, piece.start, piece.end).is_none() {
            return;
        }
        let Some(bytes) = search.bytes(piece) else {
            return;
        };
        let queries = search.packed.norms.len();
        let group = group(search.packed);
        for first in (0..queries).step_by(group) {
            let group = first..(first + group).min(queries);
            self.group(piece, bytes, group);
        }
    }

    /// Gathers the live rows of a piece into strips and ranks them for a group of queries.
    fn group(&mut self, piece: Piece, bytes: &[u8], group: Range<usize>) {
        let search = self.search;
        let from = &search.blocks[piece.block];
        let size = search.packed.row_bytes(from);
        let chunk = from.chunk_range(piece.chunk).start;
        let full = search.kernels.strip_rows(search.packed.dim, group.len());
        let mut gathered = Gathered {
            rows: [std::ptr::null(); STRIP_ROOM],
            numbers: [0; STRIP_ROWS],
            len: 0,
        };
        let mut at = piece.start;
        while let Some(row) = next_live(from.live, at, piece.end) {
            at = row + 1;
            gathered.rows[gathered.len] = bytes[(row - chunk) * size..(at - chunk) * size].as_ptr();
            gathered.numbers[gathered.len] = row as u32;
            gathered.len += 1;
            if gathered.len == full {
                let end = (at + full).min(piece.end);
                let ahead = &bytes[(at - chunk) * size..(end - chunk) * size];
                self.strip(from, &mut gathered, ahead, group.clone());
                self.offer(piece.block, &gathered, group.clone());
                gathered.len = 0;
            }
        }
        if gathered.len > 0 {
            self.strip(from, &mut gathered, &[], group.clone());
            self.offer(piece.block, &gathered, group);
        }
    }

    /// Ranks gathered rows.
    pub(super) fn strip(
        &mut self,
        from: &Block<'_>,
        gathered: &mut Gathered,
        ahead: &[u8],
        group: Range<usize>,
    ) {
        let packed = self.search.packed;
        let len = gathered.len;
        let last = gathered.rows[len - 1];
        gathered.rows[len..len + 3].fill(last);
        let kernel = self.search.kernels.strip(from.record, packed.metric);
        // SAFETY: `CpuScan` was made for an instruction set that this CPU has; rows point into
        // the chunk's bytes, whose length was checked; the rest is as long as the group.
        unsafe {
            kernel(
                Strip {
                    rows: &gathered.rows,
                    len,
                    ahead,
                    dim: packed.dim,
                    queries: &packed.queries,
                    first: group.start,
                    norms: &packed.norms[group.clone()],
                    thresholds: &self.thresholds[group.clone()],
                    ranks: &mut self.ranks[..group.len() * STRIP_ROOM],
                    hits: &mut self.hits[..group.len()],
                },
                &mut self.tails,
            );
        }
    }

    /// Offers the rows whose ranks reach a query's threshold.
    pub(super) fn offer(&mut self, block: usize, gathered: &Gathered, group: Range<usize>) {
        let seqs = self.search.blocks[block].seqs;
        for (i, query) in group.enumerate().filter(|(i, _)| self.hits[*i]) {
            let best = &mut self.best[query];
            let threshold = &mut self.thresholds[query];
            let ranks = &self.ranks[i * STRIP_ROOM..][..gathered.len];
            for (rank, row) in ranks.iter().zip(gathered.numbers) {
                if *rank >= *threshold {
                    best.offer(Candidate {
                        rank: *rank,
                        seq: seqs.get(row as usize),
                        block: block as u32,
                        row,
                    });
                    *threshold = threshold.max(best.threshold());
                }
            }
        }
    }
}

/// Queries in a group.
fn group(packed: &Packed) -> usize {
    let query = packed.dim.next_multiple_of(LANES) * size_of::<f32>();
    (GROUP_BYTES / query).max(2)
}

/// The first live row in `from..end`.
#[inline]
pub(super) fn next_live(live: Option<&[u64]>, from: usize, end: usize) -> Option<usize> {
    let Some(words) = live else {
        return (from < end).then_some(from);
    };
    let mut at = from;
    while at < end {
        let word = words[at / 64] >> (at % 64);
        if word != 0 {
            let row = at + word.trailing_zeros() as usize;
            return (row < end).then_some(row);
        }
        at = (at / 64 + 1) * 64;
    }
    None
}
