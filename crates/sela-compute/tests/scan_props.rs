//! Random collections, bitmaps and requests: a search is what the reference says.

mod scan_support;

use proptest::prelude::*;
use scan_support::*;
use sela_compute::scan::{Metric, Queries, Record};
use sela_compute::{CpuScan, Isa};

/// What a proptest case is made of; vectors come from the seed.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    dim: usize,
    blocks: Vec<(usize, u8)>,
    queries: usize,
    k: usize,
    threads: usize,
    metric: Metric,
    record: Record,
    /// Numbers are drawn from so many values, so that equal scores are common.
    values: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (
        1usize..70,
        prop::collection::vec((0usize..150, 0u8..4), 0..5),
        1usize..9,
    );
    let request = (
        1usize..60,
        1usize..4,
        0usize..3,
        prop::bool::ANY,
        2usize..200,
    );
    (any::<u64>(), shape, request).prop_map(|(seed, shape, request)| Case {
        seed,
        dim: shape.0,
        blocks: shape.1,
        queries: shape.2,
        k: request.0,
        threads: request.1,
        metric: METRICS[request.2],
        record: RECORDS[usize::from(request.3)],
        values: request.4,
    })
}

impl Case {
    fn numbers(&self, dice: &mut Dice, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| dice.below(self.values) as f32 - self.values as f32 / 2.0)
            .collect()
    }

    fn blocks(&self, dice: &mut Dice) -> Vec<Held> {
        let mut next = 1;
        let mut blocks = Vec::new();
        for (rows, kind) in &self.blocks {
            let numbers = self.numbers(dice, rows * self.dim);
            let mut held = Held::new(&numbers, self.dim, self.record, next);
            if kind & 1 == 1 {
                let bits: Vec<bool> = (0..*rows).map(|_| dice.below(3) == 0).collect();
                held = held.with_live(|row| bits[row]);
            }
            if kind & 2 == 2 {
                let table = (0..*rows).map(|_| {
                    next += 1 + dice.below(5) as u64;
                    next
                });
                held.seqs = Some(table.collect());
            }
            next += 1 + *rows as u64;
            let chunk = [*rows, 64, 128][dice.below(3)];
            blocks.push(held.with_chunks(chunk));
        }
        // Sequences need not rise from block to block.
        blocks.reverse();
        blocks
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_search_is_the_references(case in case()) {
        let mut dice = Dice(case.seed);
        let blocks = case.blocks(&mut dice);
        let vectors = case.numbers(&mut dice, case.queries * case.dim);
        let queries = Queries { vectors: &vectors, dim: case.dim, metric: case.metric, k: case.k };
        let expected = ranked(&blocks, case.record, queries);
        for isa in Isa::available() {
            let scan = CpuScan::new(isa, case.threads).unwrap();
            let fast = search(&scan, &blocks, case.record, queries).unwrap();
            assert_same(&fast, &expected, case.k, isa.name());
        }
    }
}
