//! Which blocks have codes: kept by name within a budget.
//!
//! A block gets codes when it is scanned for the second time. When the budget is full, what was not
//! used for longest goes, but only if it was not used since the newcomer was first missed: searches
//! over more rows than fit leave alone what is there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::codes::{Codes, bytes_of};
use crate::scan::{Block, PageId};

/// Names that were missed of which note is kept.
const GHOSTS_MAX: usize = 1 << 16;

/// What the codes of rows have come to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeStats {
    /// Blocks whose codes a search found.
    pub hits: u64,
    /// Named blocks that a search scanned without codes, for there were none.
    pub misses: u64,
    /// Blocks that were given codes.
    pub made: u64,
    /// Blocks whose codes had to go for others.
    pub dropped: u64,
    /// Bytes of codes in memory.
    pub bytes: u64,
    /// Most bytes that may be there; 0: no codes are made.
    pub budget: u64,
    /// Rows of blocks scanned by codes that were scored canonically, once for each query.
    pub rescored: u64,
    /// Times that codes were there and rows were scanned in full nevertheless: a piece of which too
    /// many might have been among the nearest, or a whole search, for too many rows or by queries
    /// that codes are not for.
    pub overflows: u64,
}

struct Entry {
    codes: Arc<Codes>,
    used: u64,
}

#[derive(Default)]
struct State {
    entries: HashMap<PageId, Entry>,
    /// When a name was first missed.
    missed: HashMap<PageId, u64>,
    clock: u64,
    stats: CodeStats,
}

/// Codes by name.
pub(super) struct Cache {
    budget: u64,
    state: Mutex<State>,
    pub(super) rescored: AtomicU64,
    pub(super) overflows: AtomicU64,
}

/// What the cache says of a block.
pub(super) enum Asked {
    /// Its codes.
    There(Arc<Codes>),
    /// It has none and shall have them.
    Wanted,
    /// It has none.
    Absent,
}

impl Cache {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            budget,
            state: Mutex::default(),
            rescored: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.budget == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blocks' codes, and which of the others shall have some after this search.
    pub(super) fn ask(&self, blocks: &[Block<'_>], dim: usize) -> Vec<Asked> {
        if self.is_off() {
            return blocks.iter().map(|_| Asked::Absent).collect();
        }
        let state = &mut *self.state();
        state.clock += 1;
        let mut free = self.budget.saturating_sub(state.stats.bytes);
        blocks
            .iter()
            .map(|block| match block.page {
                Some(page) => self.ask_one(state, &mut free, page, block, dim),
                None => Asked::Absent,
            })
            .collect()
    }

    fn ask_one(
        &self,
        state: &mut State,
        free: &mut u64,
        page: PageId,
        block: &Block<'_>,
        dim: usize,
    ) -> Asked {
        let clock = state.clock;
        if let Some(entry) = state.entries.get_mut(&page)
            && entry.codes.fit(block, dim)
        {
            entry.used = clock;
            state.stats.hits += 1;
            return Asked::There(Arc::clone(&entry.codes));
        }
        state.stats.misses += 1;
        if state.missed.len() >= GHOSTS_MAX {
            state.missed.clear();
        }
        let first = *state.missed.entry(page).or_insert(clock);
        let bytes = bytes_of(block.len, dim);
        if first == clock || bytes == 0 {
            return Asked::Absent;
        }
        let idle = state.entries.values().filter(|entry| entry.used < first);
        let idle: u64 = idle.map(|entry| entry.codes.bytes()).sum();
        if *free + idle < bytes {
            return Asked::Absent;
        }
        *free = free.saturating_sub(bytes);
        Asked::Wanted
    }

    /// Keeps a block's codes if there is room for them.
    pub(super) fn put(&self, page: PageId, codes: Codes) {
        let state = &mut *self.state();
        let bytes = codes.bytes();
        if let Some(old) = state.entries.remove(&page) {
            state.stats.bytes -= old.codes.bytes();
        }
        let first = state.missed.get(&page).copied().unwrap_or(state.clock);
        while state.stats.bytes + bytes > self.budget {
            let oldest = state.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some((oldest, _)) = oldest.filter(|(_, entry)| entry.used < first) else {
                return;
            };
            let oldest = *oldest;
            if let Some(gone) = state.entries.remove(&oldest) {
                state.stats.bytes -= gone.codes.bytes();
                state.stats.dropped += 1;
            }
        }
        state.missed.remove(&page);
        state.stats.bytes += bytes;
        state.stats.made += 1;
        let (codes, used) = (Arc::new(codes), state.clock);
        state.entries.insert(page, Entry { codes, used });
    }

    /// Gives up the codes of an owner's blocks.
    pub(super) fn forget(&self, owner: u64) {
        let state = &mut *self.state();
        let stats = &mut state.stats;
        state.entries.retain(|page, entry| {
            let stays = page.owner != owner;
            if !stays {
                stats.bytes -= entry.codes.bytes();
            }
            stays
        });
        state.missed.retain(|page, _| page.owner != owner);
    }

    pub(super) fn stats(&self) -> CodeStats {
        CodeStats {
            budget: self.budget,
            rescored: self.rescored.load(Ordering::Relaxed),
            overflows: self.overflows.load(Ordering::Relaxed),
            ..self.state().stats
        }
    }
}
