//! Known-answer test of the search kernels: small searches, held against the reference bit for bit.

use super::Noise;
use crate::cpu::scan::CpuScan;
use crate::error::Error;
use crate::isa::Isa;
use crate::reference;
use crate::scan::{Block, Metric, Queries, Record, Scan, Scanning, Seqs};

/// Rows of a search: several strips and some more.
const ROWS: usize = 83;
/// Nearest rows asked for.
const K: usize = 7;
/// Numbers of a vector and queries: around the borders of lanes and tiles.
const SHAPES: [(usize, usize); 5] = [(1, 1), (15, 2), (16, 9), (49, 1), (67, 3)];

/// Holds the search kernels of `isa` against the canonical scores. An error is a veto.
///
/// Takes a few milliseconds, most of them for the reference: all metrics and records, one query and
/// several.
pub fn scan_self_test(isa: Isa) -> Result<(), Error> {
    let scan = CpuScan::new(isa, 1)?;
    for (dim, queries) in SHAPES {
        let mut noise = Noise(dim as u64);
        let mut numbers = noise.take(ROWS * dim, 1.0);
        // A copy, whose order only the sequence tells, and a row without a direction.
        numbers.copy_within(dim..2 * dim, 40 * dim);
        numbers[50 * dim..51 * dim].fill(0.0);
        let vectors = noise.take(queries * dim, 1.0);
        for record in [Record::F32, Record::F16] {
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                let queries = Queries {
                    vectors: &vectors,
                    dim,
                    metric,
                    k: K,
                };
                check(&scan, &numbers, record, queries)?;
            }
        }
    }
    Ok(())
}

/// One search against its slow twin.
fn check(scan: &CpuScan, rows: &[f32], record: Record, queries: Queries<'_>) -> Result<(), Error> {
    let f16 = |x: &f32| half::f16::from_f32(*x);
    let (bytes, stored): (Vec<u8>, Vec<f32>) = match record {
        Record::F32 => (
            rows.iter().flat_map(|x| x.to_le_bytes()).collect(),
            rows.to_vec(),
        ),
        Record::F16 => (
            rows.iter().flat_map(|x| f16(x).to_le_bytes()).collect(),
            rows.iter().map(|x| f16(x).to_f32()).collect(),
        ),
    };
    let mut scanning = scan.begin(queries)?;
    scanning.scan(Block {
        rows: &bytes,
        len: ROWS as u32,
        chunk_rows: ROWS as u32,
        record,
        page: None,
        live: None,
        seqs: Seqs::Run(0),
    })?;
    let found = scanning.submit()?;
    for (query, found) in queries.vectors.chunks_exact(queries.dim).zip(&found) {
        let expected = nearest(&stored, query, queries.metric);
        let same = |(seq, score): &(u64, f32), at: usize| {
            found[at].seq == *seq && found[at].score.to_bits() == score.to_bits()
        };
        let (dim, metric) = (queries.dim, queries.metric);
        let wrong = expected
            .iter()
            .enumerate()
            .position(|(at, e)| found.len() <= at || !same(e, at));
        if let Some(at) = wrong {
            return Err(Error::SelfTest(format!(
                "search with {isa}: hit {at} of {metric:?} over {record:?} rows of {dim} numbers is \
                 {:?}, not row {} with {}",
                found.get(at),
                expected[at].0,
                expected[at].1,
                isa = scan.isa(),
            )));
        }
    }
    Ok(())
}

/// The nearest rows by the canonical score, equals by their order.
fn nearest(rows: &[f32], query: &[f32], metric: Metric) -> Vec<(u64, f32)> {
    let score = match metric {
        Metric::Cosine => reference::cosine,
        Metric::Dot => reference::dot,
        Metric::L2 => reference::l2,
    };
    let rows = rows.chunks_exact(query.len());
    let mut all: Vec<(u64, f32)> = (0..).zip(rows.map(|row| score(query, row))).collect();
    all.sort_by(|a, b| match metric.descends() {
        true => b.1.total_cmp(&a.1),
        false => a.1.total_cmp(&b.1),
    });
    all.truncate(K);
    all
}
