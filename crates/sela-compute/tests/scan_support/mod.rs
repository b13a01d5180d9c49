//! Rows in memory and the search by brute force that fast searches are held against.

// Each test file uses a part of it.
#![allow(dead_code, clippy::print_stdout)]

use std::cmp::Ordering;

use sela_compute::error::BoxError;
use sela_compute::scan::{
    Block, Found, Metric, PageId, Queries, Record, Rows, Scan, Scanning, Seqs,
};
use sela_compute::{Error, Isa, reference};

pub(crate) const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];
pub(crate) const RECORDS: [Record; 2] = [Record::F32, Record::F16];

/// A block that owns its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    pub(crate) len: usize,
    /// Rows of a chunk: `len` for one chunk.
    pub(crate) chunk_rows: usize,
    pub(crate) page: Option<PageId>,
    pub(crate) live: Option<Vec<u64>>,
    /// `None` for a run from `first_seq`.
    pub(crate) seqs: Option<Vec<u64>>,
    pub(crate) first_seq: u64,
}

impl Rows for Held {
    fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
        if self.chunk_rows >= self.len {
            return Ok(&self.bytes);
        }
        let size = self.bytes.len() / self.len * self.chunk_rows;
        let start = chunk as usize * size;
        Ok(&self.bytes[start..(start + size).min(self.bytes.len())])
    }
}

impl Held {
    /// All rows live, numbered from `first_seq`.
    pub(crate) fn new(rows: &[f32], dim: usize, record: Record, first_seq: u64) -> Self {
        let bytes = match record {
            Record::F32 => rows.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Record::F16 => rows
                .iter()
                .flat_map(|x| half::f16::from_f32(*x).to_le_bytes())
                .collect(),
        };
        Self {
            bytes,
            len: rows.len() / dim,
            chunk_rows: rows.len() / dim,
            page: None,
            live: None,
            seqs: None,
            first_seq,
        }
    }

    /// The same rows in chunks of `rows`.
    pub(crate) fn with_chunks(mut self, rows: usize) -> Self {
        self.chunk_rows = rows;
        self
    }

    pub(crate) fn with_live(mut self, live: impl Fn(usize) -> bool) -> Self {
        let mut words = vec![0u64; self.len.div_ceil(64)];
        for row in (0..self.len).filter(|row| live(*row)) {
            words[row / 64] |= 1 << (row % 64);
        }
        self.live = Some(words);
        self
    }

    pub(crate) fn block(&self, record: Record) -> Block<'_> {
        let seqs = match &self.seqs {
            Some(table) => Seqs::Table(table),
            None => Seqs::Run(self.first_seq),
        };
        Block {
            rows: self,
            len: self.len as u32,
            chunk_rows: self.chunk_rows as u32,
            record,
            page: self.page,
            live: self.live.as_deref(),
            seqs,
        }
    }

    fn is_live(&self, row: usize) -> bool {
        self.live
            .as_ref()
            .is_none_or(|words| words[row / 64] >> (row % 64) & 1 == 1)
    }

    fn row(&self, row: usize, dim: usize, record: Record) -> Vec<f32> {
        let size = dim * record.bytes();
        let bytes = &self.bytes[row * size..][..size];
        match record {
            Record::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            Record::F16 => {
                let bits = bytes.as_chunks().0.iter();
                bits.map(|b| half::f16::from_le_bytes(*b).to_f32())
                    .collect()
            }
        }
    }
}

/// Every live row scored by the reference for each query, all of them in the order of an answer.
pub(crate) fn ranked(blocks: &[Held], record: Record, queries: Queries<'_>) -> Vec<Vec<Found>> {
    let Queries {
        vectors,
        dim,
        metric,
        ..
    } = queries;
    let mut all = vec![Vec::new(); vectors.len() / dim];
    for (number, held) in blocks.iter().enumerate() {
        for row in (0..held.len).filter(|row| held.is_live(*row)) {
            let numbers = held.row(row, dim, record);
            let seq = held.block(record).seqs.get(row);
            for (query, found) in vectors.chunks_exact(dim).zip(&mut all) {
                let score = match metric {
                    Metric::Cosine => reference::cosine(query, &numbers),
                    Metric::Dot => reference::dot(query, &numbers),
                    Metric::L2 => reference::l2(query, &numbers),
                };
                assert!(score.is_finite(), "the reference itself: {score}");
                found.push(Found {
                    score,
                    seq,
                    block: number as u32,
                    row: row as u32,
                });
            }
        }
    }
    for found in &mut all {
        found.sort_by(|a, b| {
            // `partial_cmp` has -0 equal to +0, as an answer has.
            let ascending = a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal);
            let score = if metric.descends() {
                ascending.reverse()
            } else {
                ascending
            };
            score.then(a.seq.cmp(&b.seq))
        });
    }
    all
}

/// Runs a search.
pub(crate) fn search(
    scan: &impl Scan,
    blocks: &[Held],
    record: Record,
    queries: Queries<'_>,
) -> Result<Vec<Vec<Found>>, Error> {
    let mut scanning = scan.begin(queries)?;
    for held in blocks {
        scanning.scan(held.block(record))?;
    }
    scanning.submit()
}

/// Asserts equality to the bit, the sign of a zero score included: kernels and reference do the
/// same operations on it.
pub(crate) fn assert_same(fast: &[Vec<Found>], ranked: &[Vec<Found>], k: usize, what: &str) {
    assert_eq!(fast.len(), ranked.len(), "{what}: one answer a query");
    let key = |f: &Found| (f.score.to_bits(), f.seq, f.block, f.row);
    for (q, (fast, ranked)) in fast.iter().zip(ranked).enumerate() {
        let expected = &ranked[..k.min(ranked.len())];
        assert_eq!(fast.len(), expected.len(), "{what}: length of answer {q}");
        for (i, (a, b)) in fast.iter().zip(expected).enumerate() {
            assert_eq!(
                key(a),
                key(b),
                "{what}: answer {q}, place {i}: {a:?}, not {b:?}"
            );
        }
    }
}

/// The instruction sets of this CPU; prints what ran and what could not.
pub(crate) fn instruction_sets() -> Vec<Isa> {
    let available = Isa::available();
    let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
    println!("ran: {}", names.join(", "));
    for isa in [Isa::Plain, Isa::Avx2, Isa::Avx512, Isa::Neon] {
        if !isa.is_available() {
            println!("skipped: {isa} (this CPU lacks it)");
        }
    }
    available
}

/// Numbers from a seed, the same everywhere (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In -1..1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.number()).collect()
    }
}
