//! Searches by codes give the bits of a full scan, for any data.

mod scan_support;

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use scan_support::{Dice, Held, METRICS, RECORDS, assert_same, ranked, search};
use sela_compute::error::BoxError;
use sela_compute::scan::{Block, Metric, PageId, Queries, Record, Rows, Scan, Scanning};
use sela_compute::{CpuScan, Error, Isa};

/// Names the blocks, as a store does.
fn named(mut blocks: Vec<Held>, owner: u64) -> Vec<Held> {
    for (page, held) in (0..).zip(&mut blocks) {
        held.page = Some(PageId { owner, page });
    }
    blocks
}

/// Searches until the codes are there, on all instruction sets, and holds every answer against the
/// reference. Returns how many rows were scored by searches by codes.
fn check(blocks: &[Held], record: Record, queries: Queries<'_>, what: &str) -> u64 {
    let expected = ranked(blocks, record, queries);
    let mut rescored = 0;
    for isa in Isa::available() {
        for threads in [1, 3] {
            let scan = CpuScan::new(isa, threads).unwrap().with_codes(1 << 30);
            for round in 0..4 {
                let found = search(&scan, blocks, record, queries).unwrap();
                let what = format!("{what} {isa} x{threads} round {round} {:?}", queries.metric);
                assert_same(&found, &expected, queries.k, &what);
            }
            let stats = scan.code_stats();
            let full = blocks.iter().filter(|held| held.len > 0).count() as u64;
            assert_eq!(
                (stats.made, stats.hits),
                (full, 2 * full),
                "{what}: {stats:?}"
            );
            rescored = stats.rescored;
        }
    }
    rescored
}

/// Rows that lie around a query as near to each other as numbers can: duplicates, one bit apart,
/// scaled by little.
fn near_ties(dice: &mut Dice, query: &[f32], rows: usize) -> Vec<f32> {
    let mut all = Vec::new();
    for _ in 0..rows {
        let mut row = query.to_vec();
        match dice.below(4) {
            0 => {}
            1 => {
                let x = &mut row[dice.below(query.len())];
                *x = f32::from_bits(x.to_bits() ^ 1);
            }
            2 => row.iter_mut().for_each(|x| *x *= 1.0 + f32::EPSILON),
            _ => {
                for x in &mut row {
                    *x = f32::from_bits(x.to_bits() ^ (dice.below(2) as u32));
                }
            }
        }
        all.extend(row);
    }
    all
}

/// Rows that the codes know and nobody can read any more: the search fails by name, with as many threads as
/// there are, and the next one answers when they are back.
#[test]
fn rows_lost_after_their_codes_were_made_are_named() {
    struct Lost<'a>(&'a Held, AtomicBool);
    impl Rows for Lost<'_> {
        fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
            match self.1.load(Ordering::Relaxed) {
                true => Err("the disk is gone".into()),
                false => self.0.chunk(chunk),
            }
        }
    }
    let dim = 65;
    let mut dice = Dice(8);
    let blocks = named(
        vec![Held::new(&dice.numbers(2_000 * dim), dim, Record::F32, 0)],
        4,
    );
    let vectors = dice.numbers(40 * dim);
    for (threads, batch) in [(1, 1), (1, 40), (2, 1), (2, 40), (3, 2)] {
        let queries = Queries {
            vectors: &vectors[..batch * dim],
            dim,
            metric: Metric::Cosine,
            k: 5,
        };
        let expected = ranked(&blocks, Record::F32, queries);
        let isa = Isa::available()[0];
        let scan = CpuScan::new(isa, threads).unwrap().with_codes(1 << 30);
        let lost = Lost(&blocks[0], AtomicBool::new(false));
        for gone in [false, false, false, true, true, false] {
            lost.1.store(gone, Ordering::Relaxed);
            let mut scanning = scan.begin(queries).unwrap();
            let rows = &lost;
            scanning
                .scan(Block {
                    rows,
                    ..blocks[0].block(Record::F32)
                })
                .unwrap();
            let what = format!("{threads} threads, {batch} queries");
            match scanning.submit() {
                Ok(found) => {
                    assert!(!gone, "{what}");
                    assert_same(&found, &expected, queries.k, &what);
                }
                Err(Error::Rows { source, .. }) => {
                    assert!(
                        gone && source.to_string() == "the disk is gone",
                        "{what}: {source}"
                    );
                }
                Err(other) => panic!("{what}: {other}"),
            }
        }
        assert_eq!(scan.code_stats().hits, 4);
    }
}

/// All metrics, both records, batches around the blocks of kernels, several blocks, dead rows.
#[test]
fn answers_are_those_of_a_full_scan() {
    let mut dice = Dice(3);
    for dim in [1, 5, 63, 64, 65, 130] {
        for record in RECORDS {
            let blocks = named(
                vec![
                    Held::new(&dice.numbers(777 * dim), dim, record, 5_000),
                    Held::new(&dice.numbers(300 * dim), dim, record, 0)
                        .with_live(|row| row % 7 != 0)
                        .with_chunks(128),
                    Held::new(&dice.numbers(dim), dim, record, 9_000),
                    Held::new(&[], dim, record, 9_500),
                ],
                1,
            );
            let vectors = dice.numbers(35 * dim);
            for metric in METRICS {
                for (batch, k) in [(1, 10), (2, 1), (16, 3), (35, 20), (1, 500)] {
                    let vectors = &vectors[..batch * dim];
                    let queries = Queries {
                        vectors,
                        dim,
                        metric,
                        k,
                    };
                    check(
                        &blocks,
                        record,
                        queries,
                        &format!("{dim} {record:?} {batch}"),
                    );
                }
            }
        }
    }
}

/// Nothing but ties: the codes tell nothing, and the answer is right all the same.
#[test]
fn near_ties_and_duplicates() {
    let mut dice = Dice(4);
    for dim in [3, 48, 384] {
        let query = dice.numbers(dim);
        let mut rows = near_ties(&mut dice, &query, 700);
        rows.extend(dice.numbers(300 * dim));
        rows.extend(near_ties(&mut dice, &query, 100));
        let blocks = named(vec![Held::new(&rows, dim, Record::F32, 7)], 2);
        let mut vectors = query.clone();
        vectors.extend(dice.numbers(4 * dim));
        for metric in METRICS {
            for count in [1, 5] {
                let vectors = &vectors[..count * dim];
                let queries = Queries {
                    vectors,
                    dim,
                    metric,
                    k: 10,
                };
                let scored = check(&blocks, Record::F32, queries, "ties");
                assert!(scored > 100, "ties must be scored: {scored}");
            }
        }
    }
}

/// More ties than candidates are kept: the search goes over to full scans, and counts it.
#[test]
fn overflows_are_counted() {
    let (dim, rows) = (16, 30_000);
    let mut dice = Dice(5);
    let query = dice.numbers(dim);
    let blocks = named(
        vec![Held::new(
            &near_ties(&mut dice, &query, rows),
            dim,
            Record::F32,
            0,
        )],
        3,
    );
    let queries = Queries {
        vectors: &query,
        dim,
        metric: Metric::Cosine,
        k: 10,
    };
    let expected = ranked(&blocks, Record::F32, queries);
    let scan = CpuScan::new(Isa::available()[0], 2)
        .unwrap()
        .with_codes(1 << 30);
    for _ in 0..3 {
        let found = search(&scan, &blocks, Record::F32, queries).unwrap();
        assert_same(&found, &expected, 10, "overflow");
    }
    let stats = scan.code_stats();
    assert!(stats.overflows > 0 && stats.hits == 1, "{stats:?}");
}

/// Queries that codes are not for, and more rows than codes help to find: searched in full, counted.
#[test]
fn full_scans_in_spite_of_codes_are_counted() {
    let (dim, rows) = (16, 3_000);
    let mut dice = Dice(15);
    let numbers = dice.numbers(rows * dim);
    let blocks = named(vec![Held::new(&numbers, dim, Record::F32, 0)], 9);
    let near = dice.numbers(dim);
    let far: Vec<f32> = near.iter().map(|x| x * 1e15).collect();
    let scan = CpuScan::new(Isa::available()[0], 2)
        .unwrap()
        .with_codes(1 << 30);
    let mut counted = Vec::new();
    for (vectors, k) in [
        (&near, 10),
        (&near, 10),
        (&near, 10),
        (&far, 10),
        (&near, 1_000),
    ] {
        let queries = Queries {
            vectors,
            dim,
            metric: Metric::Dot,
            k,
        };
        let found = search(&scan, &blocks, Record::F32, queries).unwrap();
        let expected = ranked(&blocks, Record::F32, queries);
        assert_same(&found, &expected, k, "in full");
        counted.push(scan.code_stats().overflows);
    }
    assert_eq!(counted, [0, 0, 0, 1, 2]);
}

/// Norms from the smallest to the largest numbers, zeros, rows of one large number.
#[test]
fn extreme_rows() {
    let dim = 33;
    let mut dice = Dice(6);
    let mut rows = dice.numbers(1_200 * dim);
    for row in rows.chunks_exact_mut(dim) {
        match dice.below(6) {
            0 => row.fill(0.0),
            1 => {
                let factor = 10f32.powi(dice.below(52) as i32 - 40);
                row.iter_mut().for_each(|x| *x *= factor);
            }
            2 => row[dice.below(dim)] = 1e6,
            3 => row.fill(f32::from_bits(dice.below(9) as u32)),
            _ => {}
        }
    }
    let blocks = named(vec![Held::new(&rows, dim, Record::F32, 0)], 4);
    for scale in [1.0, 1e-6, 1e6, 1e-20, 0.0] {
        let vectors: Vec<f32> = dice.numbers(3 * dim).iter().map(|x| x * scale).collect();
        for metric in METRICS {
            let queries = Queries {
                vectors: &vectors,
                dim,
                metric,
                k: 25,
            };
            let expected = ranked(&blocks, Record::F32, queries);
            for isa in Isa::available() {
                let scan = CpuScan::new(isa, 2).unwrap().with_codes(1 << 30);
                for _ in 0..3 {
                    let found = search(&scan, &blocks, Record::F32, queries).unwrap();
                    assert_same(&found, &expected, 25, &format!("{scale} {metric:?} {isa}"));
                }
            }
        }
    }
}

/// Codes for a part of the blocks; what is used stays, what is gone is forgotten.
#[test]
fn a_budget_holds() {
    let (dim, rows) = (64, 640);
    let mut dice = Dice(7);
    let held = |dice: &mut Dice| Held::new(&dice.numbers(rows * dim), dim, Record::F32, 0);
    let blocks = named((0..4).map(|_| held(&mut dice)).collect(), 5);
    let vectors = dice.numbers(3 * dim);
    let queries = Queries {
        vectors: &vectors,
        dim,
        metric: Metric::Dot,
        k: 5,
    };
    let expected = ranked(&blocks, Record::F32, queries);
    // Two blocks' codes and a little.
    let budget = (rows * (dim + 16) * 5 / 2) as u64;
    let scan = CpuScan::new(Isa::available()[0], 2)
        .unwrap()
        .with_codes(budget);
    for _ in 0..6 {
        let found = search(&scan, &blocks, Record::F32, queries).unwrap();
        assert_same(&found, &expected, 5, "budget");
    }
    let stats = scan.code_stats();
    assert_eq!(
        (stats.made, stats.hits, stats.dropped),
        (2, 8, 0),
        "{stats:?}"
    );
    assert!(stats.bytes > 0 && stats.bytes <= budget);
    // Others that are searched alone take their place.
    let others = named((0..2).map(|_| held(&mut dice)).collect(), 6);
    for _ in 0..3 {
        search(&scan, &others, Record::F32, queries).unwrap();
    }
    assert_eq!(scan.code_stats().dropped, 2);
    scan.forget(6);
    assert_eq!(scan.code_stats().bytes, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Any mixture of rows.
    #[test]
    fn mixtures(seed in any::<u64>(), dim in 1usize..140, rows in 200usize..900, count in 1usize..20,
        k in 1usize..12, scale in -9i32..9) {
        let mut dice = Dice(seed);
        let mut vectors = dice.numbers(count * dim);
        let mut all = dice.numbers(rows * dim);
        let ties = near_ties(&mut dice, &vectors[..dim], 40);
        all[..40 * dim].copy_from_slice(&ties);
        let factor = 10f32.powi(scale);
        all.iter_mut().for_each(|x| *x *= factor);
        vectors.iter_mut().for_each(|x| *x *= factor);
        let blocks = named(vec![Held::new(&all, dim, Record::F32, 0)], 8);
        for metric in METRICS {
            check(&blocks, Record::F32, Queries { vectors: &vectors, dim, metric, k }, "mixture");
        }
    }
}
