//! Search against its slow twin, bit for bit, under every instruction set of the CPU.

use sela_index::{
    Hit, Isa, Metric, Rows, SearchOptions, Searcher, SearcherOptions, reference_search,
};

use super::{Checks, Outcome, skipped, verdict};
use crate::engine::Engine;
use crate::error::Result;
use crate::query::metric_name;
use crate::random::Random;

const DIMS: [usize; 6] = [1, 3, 127, 384, 768, 1025];
const ROWS: usize = 400;
const QUERIES: usize = 5;

pub(super) fn run(engine: &Engine, checks: &mut Checks<'_>) {
    for &isa in super::instruction_sets() {
        checks.run(
            format!("search by {isa} gives the reference's answers"),
            || match isa.is_available() {
                true => exactness(isa, engine.options().threads),
                false => skipped(format!("{isa} instructions")),
            },
        );
    }
}

fn exactness(isa: Isa, threads: Option<usize>) -> Result<Outcome> {
    let mut compared = 0;
    let many = threads.unwrap_or(0);
    for threads in [1, many] {
        let searcher = Searcher::new(SearcherOptions {
            isa: Some(isa),
            threads,
            ..SearcherOptions::default()
        })?;
        for dim in DIMS {
            let numbers = rows(dim);
            let source = Rows::from_f32(&numbers, dim);
            let queries = Random::new(dim as u64 + 7).numbers(QUERIES * dim);
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                for k in [1, 10, ROWS + 5] {
                    let options = SearchOptions { dim, metric, k };
                    let found = searcher.search(&source, &queries, options)?;
                    let expected = reference_search(&source, &queries, options)?;
                    if !is_same(&found, &expected) {
                        let metric = metric_name(metric);
                        let found = format!("another answer for {metric}, {dim} numbers, k {k}");
                        return Ok(Outcome::Fail { found });
                    }
                    compared += found.iter().map(Vec::len).sum::<usize>();
                }
            }
        }
    }
    Ok(verdict(
        compared > 0,
        format!("{compared} hits compared bit for bit"),
    ))
}

/// Whether all hits are the same to the last bit: `==` would take one zero for the other.
fn is_same(found: &[Vec<Hit>], expected: &[Vec<Hit>]) -> bool {
    let bits = |hits: &[Vec<Hit>]| -> Vec<Vec<_>> {
        let bits = |hit: &Hit| (hit.part, hit.row, hit.seq, hit.score.to_bits());
        hits.iter()
            .map(|hits| hits.iter().map(bits).collect())
            .collect()
    };
    bits(found) == bits(expected)
}

/// Rows with zeros, duplicates, opposites and near duplicates among them.
fn rows(dim: usize) -> Vec<f32> {
    let mut random = Random::new(dim as u64);
    let mut numbers = random.numbers(ROWS * dim);
    numbers[..dim].fill(0.0);
    for at in (7..ROWS).step_by(7) {
        let (before, row) = numbers.split_at_mut(at * dim);
        let copy = &before[(at - 7) * dim..][..dim];
        for (x, y) in row[..dim].iter_mut().zip(copy) {
            *x = match at % 3 {
                0 => *y,
                1 => -*y,
                _ => f32::from_bits(y.to_bits() ^ 1),
            };
        }
    }
    numbers
}
