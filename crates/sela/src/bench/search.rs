//! Exact search over rows in memory: one query, and all of them in one call.

use std::time::{Duration, Instant};

use sela_index::{Metric, Rows, SearchOptions};

use super::sides::Uses;
use super::{Bench, BenchOptions, Figure, Matrix, median, millis, percentile, timed};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::random::Random;

const DIM: usize = 384;
const QUERIES: usize = 100;
const CALLS_MAX: usize = 200;
const CALLS_MIN: usize = 5;
/// A measurement goes on for as long as this, if calls are quick.
const TIME: Duration = Duration::from_secs(3);

pub(super) fn search(bench: &Bench<'_>, found: &mut dyn FnMut(Figure)) -> Result<()> {
    let options = bench.options;
    let mut all = |rows: &Rows, dim: usize, queries: &Matrix| -> Result<()> {
        for side in &bench.sides {
            let figures = side.proven("search", Uses::Searcher, |engine| {
                measure(engine, rows, dim, queries, options)
            })?;
            figures.into_iter().for_each(&mut *found);
        }
        Ok(())
    };
    if let Some((rows, queries)) = &options.vectors {
        not_empty("the rows to search", rows)?;
        not_empty("the queries to search for", queries)?;
        let source = Rows::from_f32(&rows.numbers, rows.dim.max(1));
        return all(&source, rows.dim, queries);
    }
    for &size in &options.sizes {
        let mut random = Random::new(size as u64);
        let rows = Rows::from_f32(&random.unit_rows(size, DIM), DIM);
        let queries = Matrix {
            dim: DIM,
            numbers: random.unit_rows(QUERIES, DIM),
        };
        all(&rows, DIM, &queries)?;
    }
    Ok(())
}

/// There is nothing to measure without a row.
fn not_empty(what: &str, matrix: &Matrix) -> Result<()> {
    match matrix.rows() {
        0 => Err(Error::Input {
            source_name: what.to_owned(),
            place: format!("shape (0, {})", matrix.dim),
            reason: "a measurement needs one row at least".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn measure(
    engine: &Engine,
    rows: &Rows,
    dim: usize,
    queries: &Matrix,
    options: &BenchOptions,
) -> Result<Vec<Figure>> {
    let k = options.k;
    if queries.dim != dim {
        let (name, expected, found) = ("bench".to_owned(), dim, queries.dim);
        return Err(Error::QueryDim {
            name,
            expected,
            found,
        });
    }
    let size = Some(rows.len());
    // The inner product, as the rows have length 1 and other programs are asked for that too.
    let search = SearchOptions {
        dim,
        metric: Metric::Dot,
        k,
    };
    let searcher = engine.searcher()?;
    let find = |queries: &[f32]| Ok(searcher.search(rows, queries, search)?);
    let all = repeat(options, |_| find(&queries.numbers))?;
    let one = repeat(options, |call| {
        let at = call % queries.rows().max(1);
        find(&queries.numbers[at * queries.dim..][..queries.dim])
    })?;
    let unit = Some("ms");
    let (mut one, mut all) = (one, all);
    let p50 = Some(percentile(&mut one, 0.5));
    let p99 = Some(percentile(&mut one, 0.99));
    let median = Some(median(&mut all));
    Ok(vec![
        Figure {
            name: "search1",
            unit,
            rows: size,
            p50,
            p99,
            ..Figure::default()
        },
        Figure {
            name: "search100",
            unit,
            rows: size,
            median,
            ..Figure::default()
        },
    ])
}

/// Milliseconds of one call after another, until there are enough; the first is a rehearsal.
fn repeat<T>(options: &BenchOptions, mut call: impl FnMut(usize) -> Result<T>) -> Result<Vec<f64>> {
    call(0)?;
    let mut taken = Vec::new();
    let began = Instant::now();
    let time = TIME * options.repeat.max(1) as u32;
    while taken.len() < CALLS_MAX && (taken.len() < CALLS_MIN || began.elapsed() < time) {
        taken.push(millis(timed(|| call(taken.len()))?.0));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Options;

    #[test]
    fn a_file_without_rows_is_refused_by_its_shape() {
        let home = tempfile::tempdir().unwrap();
        let engine = Engine::open(Options::new(home.path())).unwrap();
        let matrix = |rows: usize| Matrix {
            dim: 3,
            numbers: vec![0.5; rows * 3],
        };
        for (rows, queries, what) in [(4, 0, "queries"), (0, 4, "rows")] {
            let options = BenchOptions {
                only: vec![crate::bench::Workload::Search],
                devices: vec![sela_compute::DeviceChoice::Cpu],
                vectors: Some((matrix(rows), matrix(queries))),
                ..BenchOptions::default()
            };
            let said = crate::bench::run(&engine, &options, &mut |_, _| {});
            let said = said.unwrap_err().to_string();
            assert!(said.contains(what) && said.contains("(0, 3)"), "{said}");
        }
    }
}
