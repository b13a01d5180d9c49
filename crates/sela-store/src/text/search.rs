//! The rows whose texts match best.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::TextQuery;
use crate::bits;
use crate::catalog::Catalog;
use crate::collection::{Collection, lock};
use crate::error::{Damage, DamagePlace, Error, Result};
use crate::limits::PAGE_ROWS_MAX;
use crate::model::Place;
use crate::view::View;

/// A row whose text was found.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TextHit {
    /// Where it is in the view.
    pub place: Place,
    /// Its sequence.
    pub seq: u64,
    /// How well its text matches, by BM25 (k1 = 1.2, b = 0.75); the larger the better.
    pub score: f64,
}

impl Collection {
    /// The `k` rows of a view whose texts match best, the best first; equals by their sequence.
    /// With `chosen`, as [`Collection::select`] gives it, only rows of those.
    ///
    /// Scores are those of the texts that the collection holds now. Rows that died since the view
    /// was taken are not found any more, and younger ones not yet.
    ///
    /// A damaged index answers with no row: where the collection is open for writing it is made
    /// anew first, which may take its time, else that is the error.
    ///
    /// # Errors
    /// [`Error::NoTextIndex`]; [`Error::Damaged`]; [`Error::Limit`] for too large a `k`.
    pub fn search_text(
        &self,
        view: &View,
        query: &TextQuery,
        k: usize,
        chosen: Option<&[Vec<u64>]>,
    ) -> Result<Vec<TextHit>> {
        if k > PAGE_ROWS_MAX {
            return Err(Error::limit("the number of rows", k, PAGE_ROWS_MAX));
        }
        let search = || self.with_reader(|catalog| self.search_in(catalog, view, query, k, chosen));
        match search() {
            Err(error) if is_of_index(&error) && !self.is_read_only() => {
                self.renew_text_index_if(|| search().is_err())?;
                search()
            }
            other => other,
        }
    }

    /// Whether any live row has a text.
    ///
    /// # Errors
    /// As [`Collection::search_text`].
    pub fn has_texts(&self) -> Result<bool> {
        self.with_reader(|catalog| self.reading_index(catalog, || catalog.has_words()))
    }

    fn search_in(
        &self,
        catalog: &Catalog,
        view: &View,
        query: &TextQuery,
        k: usize,
        chosen: Option<&[Vec<u64>]>,
    ) -> Result<Vec<TextHit>> {
        self.reading_index(catalog, || {
            let mut best = Best::new(k);
            let Some(expression) = query.expression() else {
                return Ok(Vec::new());
            };
            catalog.each_match(&expression, |seq, score| {
                if !best.wants(seq, score) || seq > view.last_seq() {
                    return Ok(());
                }
                let place = view.picture.place_of_seq(seq)?;
                let live = |place: &Place| {
                    let part = &view.parts()[place.part as usize];
                    bits::get(part.live(), place.row)
                };
                let Some(place) = place.filter(live) else {
                    // The index is never older than a view.
                    let detail = format!("it holds sequence {seq}, which no row has");
                    return Err(catalog.damaged_words(detail));
                };
                let is_chosen = chosen.is_none_or(|chosen| {
                    let words = chosen.get(place.part as usize);
                    words.is_some_and(|words| bits::get(words, place.row))
                });
                if is_chosen {
                    best.take(TextHit { place, seq, score });
                }
                Ok(())
            })?;
            Ok(best.in_order())
        })
    }

    /// Runs `read` in one transaction, in which the index is whole; refuses where it is not, or is
    /// known to be damaged.
    fn reading_index<T>(&self, catalog: &Catalog, read: impl FnOnce() -> Result<T>) -> Result<T> {
        catalog.begin_read()?;
        let result = catalog.state().and_then(|state| {
            let Some(index) = state.known_index().filter(|_| state.is_indexed()) else {
                return Err(self.no_text_index(&state));
            };
            match &*lock(&self.text_fault) {
                Some((damage, made)) if *made == index.made => {
                    return Err(Error::Damaged(damage.clone()));
                }
                _ => {}
            }
            read().inspect_err(|error| {
                if let Error::Damaged(damage) = error
                    && is_of_index(error)
                {
                    self.doubt_text_index(damage, index.made);
                }
            })
        });
        catalog.end_read();
        result
    }

    /// Answers from this index are not given any more.
    pub(crate) fn doubt_text_index(&self, damage: &Damage, made: u64) {
        tracing::error!(%damage, "texts are not searched until their index is made anew");
        *lock(&self.text_fault) = Some((damage.clone(), made));
    }
}

/// Whether an error is damage of the index, which costs no row.
pub(crate) fn is_of_index(error: &Error) -> bool {
    matches!(error, Error::Damaged(damage) if matches!(damage.place, DamagePlace::TextIndex { .. }))
}

/// The best hits so far, the worst of them on top.
struct Best {
    k: usize,
    heap: BinaryHeap<Ranked>,
}

struct Ranked(TextHit);

impl Best {
    fn new(k: usize) -> Self {
        Self {
            k,
            heap: BinaryHeap::new(),
        }
    }

    fn wants(&self, seq: u64, score: f64) -> bool {
        if self.heap.len() < self.k {
            return true;
        }
        let worst = self.heap.peek();
        worst.is_some_and(|Ranked(worst)| by_rank((score, seq), (worst.score, worst.seq)).is_lt())
    }

    fn take(&mut self, hit: TextHit) {
        self.heap.push(Ranked(hit));
        if self.heap.len() > self.k {
            self.heap.pop();
        }
    }

    fn in_order(self) -> Vec<TextHit> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|Ranked(hit)| hit).collect()
    }
}

/// The better first: the larger score, then the older row.
fn by_rank(a: (f64, u64), b: (f64, u64)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        by_rank((self.0.score, self.0.seq), (other.0.score, other.0.seq))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}
