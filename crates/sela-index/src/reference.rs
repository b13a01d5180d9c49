//! The slow twin of a search: every row scored, all of them sorted.

use std::cmp::Ordering;

use sela_compute::reference;
use sela_compute::scan::{Metric, Record};

use crate::error::{BlockLength, Error};
use crate::search::{Hit, SearchOptions};
use crate::source::{Part, Source};

/// What [`Searcher::search`](crate::Searcher::search) returns, computed the obvious way, for
/// validation: canonical scores of all rows, a full sort. It checks nothing of the request.
///
/// ```
/// use sela_index::{Metric, Rows, SearchOptions, Searcher, SearcherOptions, reference_search};
///
/// let rows = Rows::from_f32(&[3.0, 4.0, -1.0, 2.0, 0.0, 5.0], 2);
/// let options = SearchOptions { dim: 2, metric: Metric::L2, k: 3 };
/// let searcher = Searcher::new(SearcherOptions::default())?;
/// let fast = searcher.search(&rows, &[3.0, 5.0], options)?;
/// assert_eq!(fast, reference_search(&rows, &[3.0, 5.0], options)?);
/// # Ok::<(), sela_index::Error>(())
/// ```
pub fn reference_search(
    source: &dyn Source,
    queries: &[f32],
    options: SearchOptions,
) -> Result<Vec<Vec<Hit>>, Error> {
    let SearchOptions { dim, metric, k } = options;
    let mut answers = vec![Vec::new(); queries.len() / dim];
    for number in 0..source.parts() {
        let part = source.part(number).map_err(|source| Error::Part {
            part: number,
            source,
        })?;
        for row in (0..part.rows).filter(|row| part.takes_part(*row)) {
            let vector = read_row(source, number, &part, row, dim)?;
            for (query, hits) in queries.chunks_exact(dim).zip(&mut answers) {
                let score = score(metric, query, &vector);
                hits.push(Hit {
                    part: number as u32,
                    row,
                    score,
                    seq: part.seqs.get(row),
                });
            }
        }
    }
    for hits in &mut answers {
        hits.sort_by(|a, b| nearer(metric, a, b));
        hits.truncate(k);
    }
    Ok(answers)
}

/// One row, widened to f32.
fn read_row(
    source: &dyn Source,
    number: usize,
    part: &Part<'_>,
    row: u32,
    dim: usize,
) -> Result<Vec<f32>, Error> {
    let block = (row / part.rows_per_block) as usize;
    let failed = |source| Error::Block {
        part: number,
        block,
        source,
    };
    let bytes = source.block(number, block).map_err(failed)?;
    let size = dim * part.record.bytes();
    let start = (row % part.rows_per_block) as usize * size;
    let Some(bytes) = bytes.get(start..start + size) else {
        let (expected, found) = (start + size, bytes.len());
        return Err(failed(Box::new(BlockLength { expected, found })));
    };
    Ok(match part.record {
        Record::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Record::F16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| half::f16::from_le_bytes(*b).to_f32())
            .collect(),
    })
}

fn score(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    match metric {
        Metric::Cosine => reference::cosine(query, row),
        Metric::Dot => reference::dot(query, row),
        Metric::L2 => reference::l2(query, row),
    }
}

/// The order of an answer: by score, where -0 equals +0, then by sequence, then by place.
fn nearer(metric: Metric, a: &Hit, b: &Hit) -> Ordering {
    let ascending = a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal);
    let score = if metric.descends() {
        ascending.reverse()
    } else {
        ascending
    };
    score.then_with(|| (a.seq, a.part, a.row).cmp(&(b.seq, b.part, b.row)))
}
