//! Exact search on the CPU gives the reference's answers to the bit.

mod scan_support;

use std::sync::atomic::{AtomicUsize, Ordering};

use scan_support::*;
use sela_compute::error::BoxError;
use sela_compute::scan::{Block, Metric, Queries, Record, Rows, Scan, Scanning, Seqs};
use sela_compute::{CpuScan, Error, Isa};

const DIMS: [usize; 14] = [1, 3, 15, 16, 17, 31, 32, 33, 127, 128, 129, 384, 768, 1025];
const BATCHES: [usize; 7] = [1, 2, 3, 5, 16, 17, 100];
const THREADS: [usize; 4] = [1, 2, 3, 8];

/// Rows that are hard to order: random ones, duplicates of some, duplicates but for one bit, zero
/// vectors, and multiples (whose cosine is the same but for rounding).
fn mixed_rows(dice: &mut Dice, rows: usize, dim: usize) -> Vec<f32> {
    let mut all = dice.numbers(rows * dim);
    for row in 1..rows {
        let from = dice.below(row);
        let (before, at) = all.split_at_mut(row * dim);
        let (from, at) = (&before[from * dim..][..dim], &mut at[..dim]);
        match dice.below(8) {
            0 => at.copy_from_slice(from),
            1 => {
                at.copy_from_slice(from);
                let x = &mut at[dice.below(dim)];
                *x = f32::from_bits(x.to_bits() ^ 1);
            }
            2 => at.fill(if dice.below(2) == 0 { 0.0 } else { -0.0 }),
            3 => at.iter_mut().zip(from).for_each(|(x, y)| *x = 3.0 * y),
            _ => {}
        }
    }
    all
}

/// Every dimension, batch, metric and record against the reference, on every instruction set,
/// with every number of threads in turn.
#[test]
fn answers_are_the_references() {
    let scans: Vec<Vec<CpuScan>> = instruction_sets()
        .into_iter()
        .map(|isa| {
            THREADS
                .map(|threads| CpuScan::new(isa, threads).unwrap())
                .into()
        })
        .collect();
    let mut dice = Dice(1);
    let mut turn = 0;
    for dim in DIMS {
        let counts: [usize; 3] = [70, 0, 133];
        for record in RECORDS {
            let mut first_seq = 100;
            let blocks: Vec<Held> = counts
                .map(|count| {
                    first_seq += 1_000;
                    Held::new(&mixed_rows(&mut dice, count, dim), dim, record, first_seq)
                })
                .into();
            let vectors = dice.numbers(100 * dim);
            for metric in METRICS {
                let whole = Queries {
                    vectors: &vectors,
                    dim,
                    metric,
                    k: 20,
                };
                let expected = ranked(&blocks, record, whole);
                for batch in BATCHES {
                    let queries = Queries {
                        vectors: &vectors[..batch * dim],
                        ..whole
                    };
                    for scans in &scans {
                        let scan = &scans[turn % scans.len()];
                        turn += 1;
                        let what = format!(
                            "{} x{}, {dim} {metric:?} {record:?}, {batch} queries",
                            scan.isa(),
                            scan.threads(),
                        );
                        let fast = search(scan, &blocks, record, queries).unwrap();
                        assert_same(&fast, &expected[..batch], 20, &what);
                    }
                }
            }
        }
    }
}

/// Enough rows for many pieces and all threads, one block cut into several, on every instruction
/// set and number of threads.
#[test]
fn threads_share_a_block() {
    let (dim, rows) = (96, 12_000);
    let mut dice = Dice(2);
    let numbers = mixed_rows(&mut dice, rows, dim);
    let vectors = dice.numbers(7 * dim);
    for record in RECORDS {
        let cut = 9_001 * dim;
        let blocks = [
            Held::new(&numbers[..cut], dim, record, 50_000),
            Held::new(&numbers[cut..], dim, record, 0)
                .with_live(|row| row % 3 != 0)
                .with_chunks(1_024),
        ];
        for metric in METRICS {
            for k in [1, 10, 5_000, 16_384] {
                let queries = Queries {
                    vectors: &vectors,
                    dim,
                    metric,
                    k,
                };
                let expected = ranked(&blocks, record, queries);
                for isa in Isa::available() {
                    for threads in THREADS {
                        let scan = CpuScan::new(isa, threads).unwrap();
                        let fast = search(&scan, &blocks, record, queries).unwrap();
                        let what = format!("{isa} x{threads}, {metric:?} {record:?}, k {k}");
                        assert_same(&fast, &expected, k, &what);
                        let single = Queries {
                            vectors: &vectors[..dim],
                            ..queries
                        };
                        let fast = search(&scan, &blocks, record, single).unwrap();
                        assert_same(&fast, &expected[..1], k, &what);
                    }
                }
            }
        }
    }
}

/// Numbers at the ends of what f32 holds: denormals, and norms up to the limit.
#[test]
fn extremes_keep_their_bits() {
    let dim = 37;
    let mut dice = Dice(3);
    // The squared norm of 37 numbers below 1e18 is below 5e37.
    let scales = [
        1e-45, 1e-41, 1e-38, 1e-30, 1e-22, 1e-19, 1.0, 1e9, 1e17, 1e18,
    ];
    let mut rows = Vec::new();
    for scale in scales {
        for _ in 0..12 {
            rows.extend(dice.numbers(dim).iter().map(|x| x * scale));
        }
    }
    let mut vectors = Vec::new();
    for scale in scales {
        vectors.extend(dice.numbers(dim).iter().map(|x| x * scale));
    }
    vectors.extend(vec![0.0; dim]);
    vectors.extend(&rows[..dim]);
    for record in RECORDS {
        // Halves end at 65504; what is larger is left out.
        let rows = match record {
            Record::F32 => &rows[..],
            Record::F16 => &rows[..7 * 12 * dim],
        };
        let blocks = [Held::new(rows, dim, record, 0)];
        for metric in METRICS {
            let queries = Queries {
                vectors: &vectors,
                dim,
                metric,
                k: 1_000,
            };
            let expected = ranked(&blocks, record, queries);
            for isa in Isa::available() {
                let scan = CpuScan::new(isa, 1).unwrap();
                let what = format!("{isa} {metric:?} {record:?}");
                let fast = search(&scan, &blocks, record, queries).unwrap();
                assert_same(&fast, &expected, 1_000, &what);
                for (vector, expected) in vectors.chunks_exact(dim).zip(&expected) {
                    let single = Queries {
                        vectors: vector,
                        ..queries
                    };
                    let fast = search(&scan, &blocks, record, single).unwrap();
                    assert_same(&fast, std::slice::from_ref(expected), 1_000, &what);
                }
            }
        }
    }
}

/// Equal scores, +0 and -0 among them, come in the order of their sequence numbers, whatever the
/// order of the blocks.
#[test]
fn ties_go_by_sequence() {
    let dim = 16;
    let mut rows = vec![0f32; 40 * dim];
    // Fused sums turn -0 into +0, so a score of -0 takes a product that underflows.
    for row in rows.chunks_exact_mut(dim).step_by(2) {
        row.fill(-1e-45);
    }
    let mut late = Held::new(&rows, dim, Record::F32, 0);
    late.seqs = Some((0..40).map(|i| 1_000 + 7 * i).collect());
    let early = Held::new(&rows, dim, Record::F32, 900);
    let blocks = [late, early];
    let vectors = vec![1e-45; 3 * dim];
    for metric in METRICS {
        for isa in Isa::available() {
            let queries = Queries {
                vectors: &vectors,
                dim,
                metric,
                k: 45,
            };
            let fast = search(
                &CpuScan::new(isa, 2).unwrap(),
                &blocks,
                Record::F32,
                queries,
            )
            .unwrap();
            assert_same(
                &fast,
                &ranked(&blocks, Record::F32, queries),
                45,
                &format!("{isa} {metric:?}"),
            );
        }
    }
    let queries = Queries {
        vectors: &vectors[..dim],
        dim,
        metric: Metric::Dot,
        k: 45,
    };
    let fast = search(
        &CpuScan::new(Isa::Plain, 1).unwrap(),
        &blocks,
        Record::F32,
        queries,
    )
    .unwrap();
    let seqs: Vec<u64> = fast[0].iter().map(|found| found.seq).collect();
    let expected: Vec<u64> = (900..940).chain((0..5).map(|i| 1_000 + 7 * i)).collect();
    assert_eq!(seqs, expected);
}

/// Dead rows, whole dead blocks, a live row here and there, and bits beyond the last row.
#[test]
fn only_live_rows_are_found() {
    let dim = 24;
    let mut dice = Dice(4);
    let rows = mixed_rows(&mut dice, 500, dim);
    let vectors = dice.numbers(3 * dim);
    let lives: [fn(usize) -> bool; 6] = [
        |_| false,
        |_| true,
        |row| row == 499,
        |row| row % 97 == 5,
        |row| (128..192).contains(&row),
        |row| row % 64 != 63,
    ];
    for live in lives {
        let mut held = Held::new(&rows, dim, Record::F32, 7).with_live(live);
        held.live.as_mut().unwrap()[7] |= !0 << (500 - 7 * 64);
        for metric in METRICS {
            for isa in Isa::available() {
                let queries = Queries {
                    vectors: &vectors,
                    dim,
                    metric,
                    k: 600,
                };
                let blocks = std::slice::from_ref(&held);
                let fast =
                    search(&CpuScan::new(isa, 2).unwrap(), blocks, Record::F32, queries).unwrap();
                assert_same(
                    &fast,
                    &ranked(blocks, Record::F32, queries),
                    600,
                    isa.name(),
                );
            }
        }
    }
}

/// Rows at odd addresses are read all the same.
#[test]
fn rows_need_no_alignment() {
    struct Shifted(Vec<u8>);
    impl Rows for Shifted {
        fn chunk(&self, _: u32) -> Result<&[u8], BoxError> {
            Ok(&self.0[1..])
        }
    }
    let dim = 33;
    let mut dice = Dice(5);
    let (numbers, vectors) = (dice.numbers(50 * dim), dice.numbers(4 * dim));
    for record in RECORDS {
        let held = Held::new(&numbers, dim, record, 0);
        let shifted = Shifted([&[0], &held.bytes[..]].concat());
        let queries = Queries {
            vectors: &vectors,
            dim,
            metric: Metric::Cosine,
            k: 9,
        };
        let expected = ranked(std::slice::from_ref(&held), record, queries);
        for isa in Isa::available() {
            let scan = CpuScan::new(isa, 1).unwrap();
            for n in [1, 4] {
                let queries = Queries {
                    vectors: &vectors[..n * dim],
                    ..queries
                };
                let mut scanning = scan.begin(queries).unwrap();
                let block = Block {
                    rows: &shifted,
                    ..held.block(record)
                };
                scanning.scan(block).unwrap();
                assert_same(&scanning.submit().unwrap(), &expected[..n], 9, isa.name());
            }
        }
    }
}

/// The bytes of a block are asked for once, however many threads share it, and not at all when
/// no row of it is live.
#[test]
fn bytes_are_asked_for_once() {
    struct Counted(Vec<u8>, AtomicUsize);
    impl Rows for Counted {
        fn chunk(&self, _: u32) -> Result<&[u8], BoxError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(&self.0)
        }
    }
    let (dim, len) = (64, 20_000);
    let counted = Counted(vec![0; len * dim * 4], AtomicUsize::new(0));
    let dead = Counted(Vec::new(), AtomicUsize::new(0));
    let words = vec![0; len.div_ceil(64)];
    let scan = CpuScan::new(Isa::available()[0], 4).unwrap();
    let queries = Queries {
        vectors: &vec![1.0; dim],
        dim,
        metric: Metric::Dot,
        k: 3,
    };
    let mut scanning = scan.begin(queries).unwrap();
    let block = Block {
        rows: &counted,
        len: len as u32,
        chunk_rows: len as u32,
        record: Record::F32,
        page: None,
        live: None,
        seqs: Seqs::Run(0),
    };
    let nobody = Block {
        rows: &dead,
        live: Some(&words),
        ..block
    };
    for block in [block, nobody] {
        scanning.scan(block).unwrap();
    }
    let answer = scanning.submit().unwrap();
    assert_eq!(
        answer[0].iter().map(|f| f.seq).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(counted.1.load(Ordering::Relaxed), 1);
    assert_eq!(dead.1.load(Ordering::Relaxed), 0);
}

/// Of a block in chunks, each with a live row is asked for once, the others never, whether a chunk
/// is less than a piece of work or several.
#[test]
fn chunks_without_live_rows_are_not_asked_for() {
    struct Counted(Vec<u8>, Vec<AtomicUsize>, usize);
    impl Rows for Counted {
        fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
            let chunk = chunk as usize;
            self.1[chunk].fetch_add(1, Ordering::Relaxed);
            let rest = &self.0[chunk * self.2..];
            Ok(&rest[..self.2.min(rest.len())])
        }
    }
    let (dim, len) = (64, 20_000);
    for (isa, chunk_rows) in [(0, 64), (0, 8_192), (1, 1_024)] {
        let isa = Isa::available()[isa % Isa::available().len()];
        let counted = Counted(
            vec![0; len * dim * 4],
            (0..len.div_ceil(chunk_rows)).map(|_| 0.into()).collect(),
            chunk_rows * dim * 4,
        );
        // Rows of the second chunk and of the last.
        let mut words = vec![0u64; len.div_ceil(64)];
        words[chunk_rows / 64] = 0b110;
        words[(len - 1) / 64] = 1;
        let block = Block {
            rows: &counted,
            len: len as u32,
            chunk_rows: chunk_rows as u32,
            record: Record::F32,
            page: None,
            live: Some(&words),
            seqs: Seqs::Run(0),
        };
        let scan = CpuScan::new(isa, 4).unwrap();
        let queries = Queries {
            vectors: &vec![1.0; dim],
            dim,
            metric: Metric::Dot,
            k: 5,
        };
        let mut scanning = scan.begin(queries).unwrap();
        scanning.scan(block).unwrap();
        let rows: Vec<u32> = scanning.submit().unwrap()[0]
            .iter()
            .map(|found| found.row)
            .collect();
        let second = chunk_rows as u32;
        assert_eq!(rows, [second + 1, second + 2, (len - 1) as u32 / 64 * 64]);
        for (chunk, count) in counted.1.iter().enumerate() {
            let live = chunk == 1 || chunk == counted.1.len() - 1;
            let count = count.load(Ordering::Relaxed);
            assert_eq!(count, usize::from(live), "chunk {chunk} of {chunk_rows}");
        }
    }
}

/// A block that cannot be read fails the search and is named, and so is the chunk.
#[test]
fn an_unreadable_block_is_named() {
    /// Its first chunk is whole.
    struct Torn(Vec<u8>);
    impl Rows for Torn {
        fn chunk(&self, chunk: u32) -> Result<&[u8], BoxError> {
            match chunk {
                0 => Ok(&self.0),
                _ => Err("checksum differs".into()),
            }
        }
    }
    let torn = Torn(vec![0; 64 * 8 * 4]);
    let dim = 8;
    let good = Held::new(&vec![1.0; 10 * dim], dim, Record::F32, 0);
    for threads in THREADS {
        let scan = CpuScan::new(Isa::available()[0], threads).unwrap();
        let queries = Queries {
            vectors: &vec![1.0; dim],
            dim,
            metric: Metric::L2,
            k: 3,
        };
        let mut scanning = scan.begin(queries).unwrap();
        let torn = Block {
            rows: &torn,
            len: 150,
            chunk_rows: 64,
            ..good.block(Record::F32)
        };
        for block in [good.block(Record::F32), torn, good.block(Record::F32)] {
            scanning.scan(block).unwrap();
        }
        match scanning.submit() {
            Err(Error::Rows {
                block: 1,
                chunk: 1,
                source,
            }) => {
                assert_eq!(source.to_string(), "checksum differs");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A search that is in order.
const ONE: Queries<'static> = Queries {
    vectors: &[1.0, 2.0],
    dim: 2,
    metric: Metric::Dot,
    k: 1,
};

/// Requests and blocks that are not what they say are refused.
#[test]
fn queries_beyond_a_limit_are_refused() {
    let scan = CpuScan::new(Isa::available()[0], 2).unwrap();
    let one = ONE;
    let begin = |queries: Queries<'_>| scan.begin(queries).err();
    assert!(matches!(
        begin(Queries { k: 0, ..one }),
        Some(Error::Limit { value: 0, .. })
    ));
    assert!(matches!(
        begin(Queries { dim: 0, ..one }),
        Some(Error::Limit { value: 0, .. })
    ));
    assert!(matches!(
        begin(Queries { k: 16_385, ..one }),
        Some(Error::Limit { .. })
    ));
    assert!(matches!(
        begin(Queries { dim: 3, ..one }),
        Some(Error::Shape { .. })
    ));
    let long = vec![0.0; 65_537];
    let queries = Queries {
        vectors: &long,
        dim: 65_537,
        ..one
    };
    assert!(matches!(begin(queries), Some(Error::Limit { .. })));
    let queries = Queries {
        vectors: &long[..65_536],
        dim: 32,
        k: 16_384,
        ..one
    };
    assert!(matches!(begin(queries), Some(Error::Limit { .. })));
}

#[test]
fn queries_that_are_not_finite_or_too_long_are_refused() {
    let scan = CpuScan::new(Isa::available()[0], 2).unwrap();
    let one = ONE;
    let begin = |queries: Queries<'_>| scan.begin(queries).err();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let vectors = [0.0, value];
        let queries = Queries {
            vectors: &vectors,
            ..one
        };
        assert!(matches!(
            begin(queries),
            Some(Error::NotFinite { position: 1, .. })
        ));
    }
    let queries = Queries {
        vectors: &[6e18, 6e18],
        ..one
    };
    assert!(matches!(
        begin(queries),
        Some(Error::Limit {
            what: "the norm of a query",
            ..
        })
    ));
    assert!(
        begin(Queries {
            vectors: &[5e18, 4.9e18],
            ..one
        })
        .is_none()
    );
    assert!(
        scan.begin(Queries {
            vectors: &[],
            ..one
        })
        .unwrap()
        .submit()
        .unwrap()
        .is_empty()
    );
}

#[test]
fn wrong_shapes_of_blocks_are_refused() {
    let scan = CpuScan::new(Isa::available()[0], 2).unwrap();
    let one = ONE;
    let held = Held::new(&[0.0; 130], 2, Record::F32, 0);
    let scan_one = |block| scan.begin(one).unwrap().scan(block).err();
    let block = Block {
        live: Some(&[1]),
        ..held.block(Record::F32)
    };
    assert!(matches!(
        scan_one(block),
        Some(Error::Shape {
            expected: 2,
            found: 1,
            ..
        })
    ));
    let block = Block {
        seqs: Seqs::Table(&[5, 6]),
        ..held.block(Record::F32)
    };
    assert!(matches!(
        scan_one(block),
        Some(Error::Shape {
            expected: 65,
            found: 2,
            ..
        })
    ));
    // Chunks begin at whole words of the bitmap.
    for chunk_rows in [0, 1, 63] {
        let block = Block {
            chunk_rows,
            ..held.block(Record::F32)
        };
        assert!(matches!(scan_one(block), Some(Error::Shape { .. })));
    }
    let mut scanning = scan.begin(one).unwrap();
    let mut short = held.clone();
    short.bytes.pop();
    scanning.scan(short.block(Record::F32)).unwrap();
    assert!(matches!(
        scanning.submit(),
        Err(Error::Shape {
            expected: 130,
            found: 129,
            ..
        })
    ));
}

/// An instruction set of another machine is refused, not run.
#[test]
fn foreign_instruction_sets_are_refused() {
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Neon] {
        match CpuScan::new(isa, 1) {
            Ok(scan) => assert!(isa.is_available() && scan.isa() == isa),
            Err(error) => {
                assert!(!isa.is_available());
                assert_eq!(
                    error.to_string(),
                    format!("this machine has no instruction set {isa}")
                );
            }
        }
    }
}

/// A large request (two million offers, the best 16,384 kept) takes no quadratic time.
#[test]
fn a_large_k_is_quick() {
    let (dim, rows) = (1, 2_000_000);
    // The worst order: every row is nearer than all before it.
    let numbers: Vec<f32> = (0..rows).map(|i| i as f32).collect();
    let blocks = [Held::new(&numbers, dim, Record::F32, 0)];
    let queries = Queries {
        vectors: &[1.0],
        dim,
        metric: Metric::Dot,
        k: 16_384,
    };
    let scan = CpuScan::new(Isa::available()[0], 1).unwrap();
    let begun = std::time::Instant::now();
    let answer = search(&scan, &blocks, Record::F32, queries).unwrap();
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    let seqs = answer[0].iter().map(|found| found.seq);
    assert!(seqs.eq((0..16_384).map(|i| rows as u64 - 1 - i)));
}
