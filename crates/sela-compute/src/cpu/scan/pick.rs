//! Rescoring: the canonical scores of a few rows that another backend has picked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::best::{Best, Candidate};
use super::kernels::{STRIP_ROOM, STRIP_ROWS, Strip};
use super::tile::Tails;
use super::work::{merge, next_live};
use super::{CpuScan, Prepared};
use crate::cpu::pool::Width;
use crate::error::Error;
use crate::scan::{Block, Found};

/// Rows that a thread takes at a time, in picks.
const SHARE: usize = 16;
/// Picks below which a rescoring stays on the calling thread: about the price of waking others.
const WIDE_PICKS: usize = 64;

/// A run of a block's rows in one chunk, at most 64 of them; its live rows may be among the
/// nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) block: u32,
    pub(crate) first: u32,
    pub(crate) len: u32,
}

#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
impl CpuScan {
    /// For each query the `k` nearest of the live rows that were picked for it.
    pub(crate) fn rescore(
        &self,
        prepared: &Prepared,
        blocks: &[Block<'_>],
        picks: &[Vec<Pick>],
    ) -> Result<Vec<Vec<Found>>, Error> {
        let packed = &prepared.0;
        // Shares of picks, each of one query.
        let share = |(query, picks): (usize, &'_ Vec<Pick>)| {
            let starts = (0..picks.len()).step_by(SHARE);
            starts.map(move |start| (query, start)).collect::<Vec<_>>()
        };
        let shares: Vec<(usize, usize)> = picks.iter().enumerate().flat_map(share).collect();
        let found: Vec<Mutex<Vec<Candidate>>> = picks.iter().map(|_| Mutex::default()).collect();
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let next = AtomicUsize::new(0);
        let wide = picks.iter().map(Vec::len).sum::<usize>() > WIDE_PICKS;
        self.pool.run(Width::all_if(wide), |_| {
            let mut worker = Worker {
                scan: self,
                prepared,
                tails: Tails::new(),
                ranks: [0.0; STRIP_ROOM],
            };
            while let Some(&(query, start)) = shares.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut best = Best::new(packed.k);
                let end = (start + SHARE).min(picks[query].len());
                for pick in &picks[query][start..end] {
                    let block = &blocks[pick.block as usize];
                    if let Err(error) = worker.pick(block, *pick, query, &mut best) {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return;
                    }
                }
                let mut found = found[query].lock().unwrap_or_else(PoisonError::into_inner);
                found.append(&mut best.into_vec());
            }
        });
        let failure = failure.into_inner();
        match failure.unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(merge(&self.pool, packed, found)),
        }
    }
}

/// One thread's part.
struct Worker<'s> {
    scan: &'s CpuScan,
    prepared: &'s Prepared,
    tails: Tails<STRIP_ROOM>,
    ranks: [f32; STRIP_ROOM],
}

impl Worker<'_> {
    /// Scores the live rows of a pick.
    fn pick(
        &mut self,
        block: &Block<'_>,
        pick: Pick,
        query: usize,
        best: &mut Best,
    ) -> Result<(), Error> {
        let packed = &self.prepared.0;
        let (first, end) = (pick.first as usize, (pick.first + pick.len) as usize);
        let chunk = pick.first / block.chunk_rows.max(1);
        let range = block.chunk_range(chunk);
        assert!(
            end <= range.end && pick.len as usize <= STRIP_ROWS,
            "a pick lies in one chunk"
        );
        let size = packed.dim * block.record.bytes();
        let mut rows = [std::ptr::null(); STRIP_ROOM];
        let (mut numbers, mut len) = ([0u32; STRIP_ROWS], 0);
        let mut at = first;
        if next_live(block.live, first, end).is_none() {
            return Ok(());
        }
        let bytes = block.read(packed.dim, pick.block as usize, chunk)?;
        while let Some(row) = next_live(block.live, at, end) {
            at = row + 1;
            let start = (row - range.start) * size;
            rows[len] = bytes[start..start + size].as_ptr();
            numbers[len] = row as u32;
            len += 1;
        }
        let last = rows[len - 1];
        rows[len..len + 3].fill(last);
        let mut hits = [false];
        let threshold = best.threshold();
        let kernel = self.scan.kernels.strip(block.record, packed.metric);
        // SAFETY: `CpuScan` was made for an instruction set that this CPU has; rows point into
        // the chunk's bytes, whose length was checked; the rest is for one query.
        unsafe {
            kernel(
                Strip {
                    rows: &rows,
                    len,
                    ahead: &[],
                    dim: packed.dim,
                    queries: &packed.queries,
                    first: query,
                    norms: &packed.norms[query..=query],
                    thresholds: &[threshold],
                    ranks: &mut self.ranks,
                    hits: &mut hits,
                },
                &mut self.tails,
            );
        }
        for (rank, row) in self.ranks[..len].iter().zip(numbers) {
            if *rank >= best.threshold() {
                best.offer(Candidate {
                    rank: *rank,
                    seq: block.seqs.get(row as usize),
                    block: pick.block,
                    row,
                });
            }
        }
        Ok(())
    }
}
