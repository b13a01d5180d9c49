//! The best rows of one query: a heap of at most `k`, the worst kept row on top.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row that may be among the best. Its order is that of an answer: a nearer row is less.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    /// The score, negated where a smaller score is nearer: a larger rank is nearer. Never NaN.
    pub(super) rank: f32,
    pub(super) seq: u64,
    pub(super) block: u32,
    pub(super) row: u32,
}

impl Ord for Candidate {
    /// By rank, where -0 equals +0, then by sequence, then by place.
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = other
            .rank
            .partial_cmp(&self.rank)
            .unwrap_or(Ordering::Equal);
        let place = |c: &Self| (c.seq, c.block, c.row);
        rank.then_with(|| place(self).cmp(&place(other)))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

/// Keeps the best `k` of what it is offered.
pub(super) struct Best {
    k: usize,
    heap: BinaryHeap<Candidate>,
}

impl Best {
    /// Keeps `k` rows, at least one.
    pub(super) fn new(k: usize) -> Self {
        Self {
            k,
            heap: BinaryHeap::new(),
        }
    }

    /// Takes the candidate if it is among the best so far.
    pub(super) fn offer(&mut self, candidate: Candidate) {
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }

    /// A rank below this one will not be taken.
    pub(super) fn threshold(&self) -> f32 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() == self.k => worst.rank,
            _ => f32::NEG_INFINITY,
        }
    }

    /// What was kept, in no order.
    pub(super) fn into_vec(self) -> Vec<Candidate> {
        self.heap.into_vec()
    }
}
