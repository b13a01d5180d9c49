//! A search over parts, blocks and filters is what the slow twin says, and failures have names.
#![allow(clippy::print_stdout)]

use proptest::prelude::*;
use sela_index::{
    BoxError, Error, Hit, Isa, Metric, Part, Record, Rows, SearchOptions, Searcher,
    SearcherOptions, Seqs, Source, reference_search,
};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];

/// How a part's sequence numbers are kept.
#[derive(Clone, Debug)]
enum Kept {
    Run(u64),
    Table(Vec<u64>),
    Bytes(Vec<[u8; 8]>),
}

/// A part in memory, block by block.
#[derive(Clone, Debug)]
struct Stored {
    blocks: Vec<Vec<u8>>,
    rows: u32,
    rows_per_block: u32,
    record: Record,
    seqs: Kept,
    live: Option<Vec<u64>>,
    filter: Option<Vec<u64>>,
}

impl Stored {
    fn new(numbers: &[f32], dim: usize, record: Record, rows_per_block: u32) -> Self {
        let bytes: Vec<u8> = match record {
            Record::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Record::F16 => {
                let halves = numbers.iter().map(|x| half::f16::from_f32(*x));
                halves.flat_map(half::f16::to_le_bytes).collect()
            }
        };
        let block = rows_per_block as usize * dim * record.bytes();
        Self {
            blocks: bytes.chunks(block).map(<[u8]>::to_vec).collect(),
            rows: (numbers.len() / dim) as u32,
            rows_per_block,
            record,
            seqs: Kept::Run(0),
            live: None,
            filter: None,
        }
    }
}

#[derive(Debug)]
struct Parts(Vec<Stored>);

impl Source for Parts {
    fn parts(&self) -> usize {
        self.0.len()
    }

    fn part(&self, part: usize) -> Result<Part<'_>, BoxError> {
        let stored = &self.0[part];
        Ok(Part {
            identity: None,
            rows: stored.rows,
            rows_per_block: stored.rows_per_block,
            record: stored.record,
            seqs: match &stored.seqs {
                Kept::Run(first) => Seqs::Run(*first),
                Kept::Table(table) => Seqs::Table(table),
                Kept::Bytes(table) => Seqs::Bytes(table),
            },
            live: stored.live.as_deref(),
            filter: stored.filter.as_deref(),
        })
    }

    fn block(&self, part: usize, block: usize) -> Result<&[u8], BoxError> {
        let blocks = &self.0[part].blocks;
        blocks
            .get(block)
            .map(Vec::as_slice)
            .ok_or_else(|| "no such block".into())
    }
}

fn searcher(threads: usize) -> Searcher {
    Searcher::new(SearcherOptions {
        threads,
        ..SearcherOptions::default()
    })
    .unwrap()
}

/// A whole case: parts, queries, options.
fn case() -> impl Strategy<Value = (Parts, Vec<f32>, SearchOptions)> {
    let shape = (1usize..40, 0usize..3, 1usize..5, 1usize..70);
    shape.prop_flat_map(|(dim, metric, queries, k)| {
        let parts = prop::collection::vec(part(dim), 0..4);
        let queries = prop::collection::vec(small(), queries * dim);
        let options = SearchOptions {
            dim,
            metric: METRICS[metric],
            k,
        };
        (parts, queries).prop_map(move |(mut parts, queries)| {
            // Sequences rise within a part and are nowhere the same.
            for (p, part) in parts.iter_mut().enumerate() {
                let first = ((p * 7 + 3) % 5 * 10_000) as u64;
                let table: Vec<u64> = (0..u64::from(part.rows)).map(|i| first + 3 * i).collect();
                part.seqs = match &part.seqs {
                    Kept::Run(_) => Kept::Run(first),
                    Kept::Table(_) => Kept::Table(table),
                    Kept::Bytes(_) => Kept::Bytes(table.iter().map(|s| s.to_le_bytes()).collect()),
                };
            }
            (Parts(parts), queries, options)
        })
    })
}

/// Few values, so that scores are often equal; exact in half precision too.
fn small() -> impl Strategy<Value = f32> {
    (-4i8..5).prop_map(|x| f32::from(x) / 4.0)
}

fn part(dim: usize) -> impl Strategy<Value = Stored> {
    // Blocks of whole words and of any other number of rows.
    let per_block = prop_oneof![Just(64u32), Just(128), 1u32..100];
    let words = || prop::option::of(prop::collection::vec(any::<u64>(), 4));
    (
        0usize..200,
        per_block,
        0u8..3,
        any::<bool>(),
        words(),
        words(),
    )
        .prop_flat_map(move |(rows, per_block, seqs, half, live, filter)| {
            prop::collection::vec(small(), rows * dim).prop_map(move |numbers| {
                let record = if half { Record::F16 } else { Record::F32 };
                let mut stored = Stored::new(&numbers, dim, record, per_block);
                stored.seqs = match seqs {
                    0 => Kept::Run(0),
                    1 => Kept::Table(Vec::new()),
                    _ => Kept::Bytes(Vec::new()),
                };
                stored.live = live.clone();
                stored.filter = filter.clone();
                stored
            })
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_search_is_the_slow_twins((source, queries, options) in case()) {
        let slow = reference_search(&source, &queries, options).unwrap();
        for isa in Isa::available() {
            let searcher = Searcher::new(SearcherOptions {
                isa: Some(isa),
                threads: 2,
                ..SearcherOptions::default()
            })
            .unwrap();
            let fast = searcher.search(&source, &queries, options).unwrap();
            let bits = |answers: &[Vec<Hit>]| -> Vec<Vec<_>> {
                let hit = |h: &Hit| (h.part, h.row, h.score.to_bits(), h.seq);
                answers.iter().map(|hits| hits.iter().map(hit).collect()).collect()
            };
            prop_assert_eq!(bits(&fast), bits(&slow), "{}", isa);
        }
    }
}

#[test]
fn filters_narrow_and_tombstones_hide() {
    let numbers: Vec<f32> = (0..300).map(|i| i as f32).collect();
    let mut stored = Stored::new(&numbers, 1, Record::F32, 100);
    // Even rows live; rows from 128 to 191 let through.
    stored.live = Some(vec![0x5555_5555_5555_5555; 5]);
    stored.filter = Some(vec![0, 0, u64::MAX, 0, 0]);
    let source = Parts(vec![stored]);
    let options = SearchOptions {
        dim: 1,
        metric: Metric::Dot,
        k: 50,
    };
    let hits = searcher(2)
        .search(&source, &[1.0], options)
        .unwrap()
        .remove(0);
    let rows: Vec<u32> = hits.iter().map(|hit| hit.row).collect();
    let expected: Vec<u32> = (128..192).rev().filter(|row| row % 2 == 0).collect();
    assert_eq!(rows, expected);
}

#[test]
fn a_block_without_rows_to_score_is_not_asked_for() {
    let mut stored = Stored::new(&[1.0; 256], 1, Record::F32, 64);
    stored.live = Some(vec![0, 1, 0, 0]);
    stored.blocks[0].clear();
    stored.blocks.truncate(2);
    let options = SearchOptions {
        dim: 1,
        metric: Metric::Dot,
        k: 9,
    };
    let hits = searcher(1)
        .search(&Parts(vec![stored]), &[1.0], options)
        .unwrap()
        .remove(0);
    assert_eq!(
        hits,
        [Hit {
            part: 0,
            row: 64,
            score: 1.0,
            seq: 64
        }]
    );
}

#[test]
fn failures_name_the_part_and_the_block() {
    let good = Stored::new(&[1.0; 512], 2, Record::F32, 64);
    let options = SearchOptions {
        dim: 2,
        metric: Metric::L2,
        k: 1,
    };
    let fails = |stored: Stored| {
        let source = Parts(vec![good.clone(), stored]);
        searcher(2)
            .search(&source, &[0.0, 0.0], options)
            .unwrap_err()
    };
    let mut missing = good.clone();
    missing.blocks.truncate(3);
    let error = fails(missing);
    assert!(
        matches!(
            error,
            Error::Block {
                part: 1,
                block: 3,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "block 3 of part 1 could not be read");
    assert!(error.hint().is_some());

    let mut short = good.clone();
    short.blocks[2].pop();
    match fails(short) {
        Error::Block {
            part: 1,
            block: 2,
            source,
        } => {
            assert_eq!(
                source.to_string(),
                "it should hold 512 bytes, but holds 511"
            );
        }
        other => panic!("{other:?}"),
    }

    let mut bits = good.clone();
    bits.filter = Some(vec![u64::MAX; 3]);
    assert!(matches!(
        fails(bits),
        Error::PartShape {
            part: 1,
            rows: 256,
            found: 192,
            ..
        }
    ));
    let mut seqs = good.clone();
    seqs.seqs = Kept::Bytes(vec![[0; 8]; 255]);
    assert!(matches!(
        fails(seqs),
        Error::PartShape {
            part: 1,
            rows: 256,
            found: 255,
            ..
        }
    ));
    let mut none = good.clone();
    none.rows_per_block = 0;
    assert!(matches!(fails(none), Error::PartShape { part: 1, .. }));
}

#[test]
fn requests_that_cannot_be_answered_are_refused() {
    let rows = Rows::from_f32(&[1.0, 2.0, 3.0, 4.0], 2);
    let searcher = searcher(1);
    let search = |queries: &[f32], dim, k| {
        let options = SearchOptions {
            dim,
            metric: Metric::Dot,
            k,
        };
        searcher.search(&rows, queries, options).unwrap_err()
    };
    assert!(matches!(
        search(&[1.0; 3], 2, 1),
        Error::Queries { dim: 2, found: 3 }
    ));
    assert!(matches!(
        search(&[1.0; 2], 2, 0),
        Error::Limit { value: 0, .. }
    ));
    assert!(matches!(
        search(&[1.0; 2], 0, 1),
        Error::Limit { value: 0, .. }
    ));
    assert!(matches!(
        search(&[1.0; 2], 2, 16_385),
        Error::Limit { value: 16_385, .. }
    ));
    assert!(matches!(
        search(&[1.0, f32::NAN], 2, 1),
        Error::NotFinite { position: 1, .. }
    ));
    assert!(matches!(search(&[1e19, 0.0], 2, 1), Error::Limit { .. }));
    // Vectors of another size than the queries show in the length of a block.
    assert!(matches!(search(&[1.0; 3], 3, 1), Error::Block { .. }));
}

#[test]
fn nothing_to_search_is_an_empty_answer() {
    let options = SearchOptions {
        dim: 2,
        metric: Metric::Cosine,
        k: 3,
    };
    let searcher = searcher(2);
    let nothing = Parts(Vec::new());
    assert_eq!(
        searcher.search(&nothing, &[1.0, 0.0], options).unwrap(),
        [vec![]]
    );
    let empty = Rows::from_f32(&[], 2);
    assert!(empty.is_empty());
    assert_eq!(
        searcher.search(&empty, &[1.0, 0.0], options).unwrap(),
        [vec![]]
    );
    assert!(searcher.search(&empty, &[], options).unwrap().is_empty());
}

#[test]
fn foreign_instruction_sets_are_refused() {
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Neon] {
        let made = Searcher::new(SearcherOptions {
            isa: Some(isa),
            threads: 1,
            ..SearcherOptions::default()
        });
        match made {
            Ok(_) => assert!(isa.is_available()),
            Err(error) => {
                println!("skipped: {isa} (this CPU lacks it)");
                assert!(matches!(error, Error::Missing(_)), "{error:?}");
            }
        }
    }
}
