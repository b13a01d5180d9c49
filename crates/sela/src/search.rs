//! From a view of the store to the search, and back to places.

use sela_index::{BoxError, Metric, SearchOptions, Source};
use sela_store::{Place, View};

use crate::error::{Error, Result};

/// A row that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Near {
    pub(crate) place: Place,
    pub(crate) score: f32,
}

/// A picture of a collection as the search sees it.
pub(crate) struct Stored<'a> {
    pub(crate) view: &'a View,
    /// For each part, the rows that answer; without it all live ones.
    pub(crate) chosen: Option<&'a [Vec<u64>]>,
}

impl Source for Stored<'_> {
    fn parts(&self) -> usize {
        self.view.parts().len()
    }

    fn part(&self, part: usize) -> Result<sela_index::Part<'_>, BoxError> {
        let stored = &self.view.parts()[part];
        Ok(sela_index::Part {
            identity: stored.identity(),
            rows: stored.rows(),
            rows_per_block: stored.rows_per_block(),
            record: match stored.record() {
                sela_store::Record::F16 => sela_index::Record::F16,
                _ => sela_index::Record::F32,
            },
            // A mapped table is read while a block is scored, and `block` has looked right before
            // that whether the file is still whole.
            seqs: match stored.seqs()? {
                sela_store::Seqs::Run(first) => sela_index::Seqs::Run(first),
                sela_store::Seqs::Table(table) => sela_index::Seqs::Bytes(table),
            },
            // What a filter chose is live as well. Where every row is, no bitmap is worth sending
            // anywhere.
            live: match self.chosen {
                Some(chosen) => Some(&chosen[part]),
                None if stored.live_rows() == stored.rows() => None,
                None => Some(stored.live()),
            },
            filter: None,
        })
    }

    fn block(&self, part: usize, block: usize) -> Result<&[u8], BoxError> {
        Ok(self.view.parts()[part].block(block as u32)?.records)
    }
}

/// The `k` rows of a source nearest to one query.
pub(crate) fn nearest(
    searcher: &sela_index::Searcher,
    source: &Stored<'_>,
    query: &[f32],
    k: usize,
    metric: Metric,
) -> Result<Vec<Near>> {
    let options = SearchOptions {
        dim: query.len(),
        metric,
        k,
    };
    let mut answers = searcher
        .search(source, query, options)
        .map_err(from_index)?;
    let near = |hit: sela_index::Hit| Near {
        place: Place {
            part: hit.part,
            row: hit.row,
        },
        score: hit.score,
    };
    Ok(answers
        .pop()
        .unwrap_or_default()
        .into_iter()
        .map(near)
        .collect())
}

/// The store's own error where a search failed for one.
pub(crate) fn from_index(error: sela_index::Error) -> Error {
    match error {
        sela_index::Error::Part { part, source } => match source.downcast::<sela_store::Error>() {
            Ok(stored) => (*stored).into(),
            Err(source) => sela_index::Error::Part { part, source }.into(),
        },
        sela_index::Error::Block {
            part,
            block,
            source,
        } => match source.downcast::<sela_store::Error>() {
            Ok(stored) => (*stored).into(),
            Err(source) => sela_index::Error::Block {
                part,
                block,
                source,
            }
            .into(),
        },
        other => other.into(),
    }
}
