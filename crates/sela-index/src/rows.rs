//! The simplest source: rows in memory.

use std::sync::atomic::{AtomicU64, Ordering};

use sela_compute::scan::Record;

use crate::error::BoxError;
use crate::source::{Part, Seqs, Source};

/// Rows in memory, all live, in one part and one block; sequence numbers count from 0.
///
/// For tests, examples and collections that need no store.
#[derive(Clone, Debug)]
pub struct Rows {
    bytes: Vec<u8>,
    rows: u32,
    identity: u64,
}

/// The identity of the next rows: counted down from the top, out of the way of sources that
/// count up.
static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);

impl Rows {
    /// Takes vectors of `dim` numbers, one after another.
    ///
    /// # Panics
    ///
    /// When `numbers` are no whole vectors, or more than `u32::MAX` of them.
    pub fn from_f32(numbers: &[f32], dim: usize) -> Self {
        assert!(
            dim > 0 && numbers.len().is_multiple_of(dim),
            "whole vectors of {dim} numbers"
        );
        let rows = u32::try_from(numbers.len() / dim).expect("fewer than 2^32 rows");
        Self {
            bytes: numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            rows,
            identity: NEXT.fetch_sub(1, Ordering::Relaxed),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

impl Source for Rows {
    fn parts(&self) -> usize {
        1
    }

    fn part(&self, _: usize) -> Result<Part<'_>, BoxError> {
        Ok(Part {
            identity: Some(self.identity),
            rows: self.rows,
            rows_per_block: self.rows.max(1),
            record: Record::F32,
            seqs: Seqs::Run(0),
            live: None,
            filter: None,
        })
    }

    fn block(&self, _: usize, _: usize) -> Result<&[u8], BoxError> {
        Ok(&self.bytes)
    }
}
