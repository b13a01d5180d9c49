//! A thread's work on blocks that have codes.

use std::sync::atomic::Ordering;

use super::codes::STRIP;
use super::kernels::{STRIP_ROOM, STRIP_ROWS};
use super::prescan::Maybe;
use super::work::{Gathered, Piece, Worker, next_live};
use crate::cpu::pool::Member;

/// Candidates that are scored between two looks at the threshold.
const FEW: usize = 8;
/// Candidates among the pairs looked at, one in so many, from which on codes are a detour.
const DETOUR: u64 = 8;

impl Worker<'_, '_> {
    /// Looks at the rows of a piece by their codes.
    pub(super) fn coded_piece(&mut self, piece: Piece) {
        let search = self.search;
        let block = &search.blocks[piece.block];
        let Some(looker) = &mut self.looker else {
            return;
        };
        let codes = search
            .prescan
            .as_ref()
            .and_then(|p| p.codes[piece.block].as_ref());
        let detour = looker.scored * DETOUR > looker.looked;
        let Some(codes) = codes.filter(|_| !detour) else {
            search.cache.overflows.fetch_add(1, Ordering::Relaxed);
            return self.whole_piece(piece);
        };
        for start in (piece.start..piece.end).step_by(STRIP) {
            let rows = (piece.end - start).min(STRIP);
            let live = block.live.map_or(u64::MAX, |words| words[start / 64]);
            let live = live & (u64::MAX >> (STRIP - rows));
            let Some(looker) = &mut self.looker else {
                return;
            };
            if live != 0 && looker.strip(piece.block, codes, start / STRIP, live) {
                search.cache.overflows.fetch_add(1, Ordering::Relaxed);
                for (query, maybes) in looker.full() {
                    self.score(query, maybes);
                }
            }
        }
        if let Some(looker) = &mut self.looker {
            looker.exchange_all();
        }
    }

    /// Scans a piece that may be of several chunks without its codes.
    fn whole_piece(&mut self, piece: Piece) {
        let block = &self.search.blocks[piece.block];
        let mut start = piece.start;
        while start < piece.end && !self.search.failed.load(Ordering::Relaxed) {
            let chunk = start as u32 / block.chunk_rows;
            let end = block.chunk_range(chunk).end.min(piece.end);
            self.piece(Piece {
                block: piece.block,
                chunk,
                start,
                end,
            });
            start = end;
        }
    }

    /// Scores what is left to be scored, at the end. Of several queries each is scored by one thread, with the
    /// candidates of all; of fewer than there are threads, each thread scores its own: putting them
    /// together would take longer.
    pub(super) fn settle(&mut self, member: Member<'_>) {
        let (Some(prescan), Some(looker)) = (&self.search.prescan, &mut self.looker) else {
            return;
        };
        if self.best.len() < member.size {
            for (query, maybes) in looker.take().into_iter().enumerate() {
                self.score(query, maybes);
            }
        } else {
            looker.hand_over(member.index);
            member.wait();
            while let Some(query) = prescan.handed.next_query()
                && !self.search.failed.load(Ordering::Relaxed)
            {
                self.score(query, prescan.handed.candidates(query));
            }
        }
        if let Some(looker) = &self.looker {
            let cache = self.search.cache;
            cache.rescored.fetch_add(looker.scored, Ordering::Relaxed);
        }
    }

    /// Scores a query's candidates, the most promising first, until none can be among the nearest.
    fn score(&mut self, query: usize, mut maybes: Vec<Maybe>) {
        let threshold = self.raise(query);
        maybes.retain(|maybe| maybe.most >= threshold);
        maybes.sort_unstable_by(|a, b| b.most.total_cmp(&a.most));
        for few in maybes.chunks_mut(FEW) {
            let threshold = self.raise(query);
            let reach = few.iter().take_while(|maybe| maybe.most >= threshold);
            let reach = reach.count();
            let few = &mut few[..reach];
            if few.is_empty() || self.search.failed.load(Ordering::Relaxed) {
                break;
            }
            // A strip is of one block.
            few.sort_unstable_by_key(|maybe| (maybe.block, maybe.row));
            for same in few.chunk_by(|a, b| a.block == b.block) {
                self.score_few(query, same);
            }
        }
        self.raise(query);
    }

    /// The highest rank that `k` rows are known to reach.
    fn raise(&mut self, query: usize) -> f32 {
        let mine = self.best[query].threshold();
        if let Some(looker) = &mut self.looker {
            looker.raise(query, mine);
            let known = looker.threshold(query);
            self.thresholds[query] = self.thresholds[query].max(known);
        }
        self.thresholds[query]
    }

    /// Scores some rows of a block for one query.
    fn score_few(&mut self, query: usize, few: &[Maybe]) {
        const { assert!(FEW <= STRIP_ROWS) };
        let search = self.search;
        let number = few[0].block as usize;
        let block = &search.blocks[number];
        let size = search.packed.row_bytes(block);
        let mut gathered = Gathered {
            rows: [std::ptr::null(); STRIP_ROOM],
            numbers: [0; STRIP_ROWS],
            len: few.len(),
        };
        for (i, maybe) in few.iter().enumerate() {
            let (row, chunk) = (maybe.row as usize, maybe.row / block.chunk_rows);
            let piece = Piece {
                block: number,
                chunk,
                start: row,
                end: row + 1,
            };
            let Some(bytes) = search.bytes(piece) else {
                return;
            };
            debug_assert!(next_live(block.live, row, row + 1).is_some());
            let at = (row - block.chunk_range(chunk).start) * size;
            gathered.rows[i] = bytes[at..at + size].as_ptr();
            gathered.numbers[i] = maybe.row;
        }
        if let Some(looker) = &mut self.looker {
            looker.scored += few.len() as u64;
        }
        self.strip(block, &mut gathered, &[], query..query + 1);
        self.offer(number, &gathered, query..query + 1);
    }
}
