//! Reading rows: by id, by place, by sequence, by condition.

use crate::bits;
use crate::catalog::Catalog;
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::id::Id;
use crate::limits::PAGE_ROWS_MAX;
use crate::model::{Fields, Page, Payload, Place, Row};
use crate::records;
use crate::view::{Access, Met, Part, View};

impl Collection {
    /// The rows of some ids, in the same order; `None` where there is no such row.
    ///
    /// # Errors
    /// [`Error::Damaged`] when what is to be read is, [`Error::Limit`] for too many ids.
    pub fn get(&self, ids: &[Id], what: Fields) -> Result<Vec<Option<Row>>> {
        if ids.len() > PAGE_ROWS_MAX {
            return Err(Error::limit("the number of ids", ids.len(), PAGE_ROWS_MAX));
        }
        // The view first: opened for reading, taking it may load the catalog again.
        let mut view = self.view()?;
        let mut found: Vec<Option<Place>> = {
            let shown = self.shown();
            view.picture = std::sync::Arc::clone(&shown.picture);
            ids.iter().map(|id| shown.place_of_fresh(id)).collect()
        };
        let mut wanted: Vec<(usize, &Id)> = ids.iter().enumerate().collect();
        wanted.sort_unstable_by(|a, b| a.1.cmp(b.1));
        view.picture.locate_sealed(&wanted, &mut found)?;
        let places: Vec<Place> = found.iter().copied().flatten().collect();
        let mut rows = self.fetch(&view, &places, what)?.into_iter();
        Ok(found
            .into_iter()
            .map(|place| place.and_then(|_| rows.next()))
            .collect())
    }

    /// The rows at some places of a view, in the same order; rows that died since included.
    ///
    /// # Errors
    /// [`Error::NoSuchPlace`]; [`Error::Damaged`] when what is to be read is;
    /// [`Error::ViewExpired`] when a writer in another process has removed it.
    pub fn fetch(&self, view: &View, places: &[Place], what: Fields) -> Result<Vec<Row>> {
        for place in places {
            let part = view.parts().get(place.part as usize);
            if part.is_none_or(|part| place.row >= part.rows()) {
                return Err(Error::NoSuchPlace {
                    part: place.part,
                    row: place.row,
                });
            }
        }
        let read_all = |catalog: Option<&Catalog>| {
            places
                .iter()
                .map(|place| {
                    let access = view.parts()[place.part as usize].access()?;
                    self.read_row(catalog, view, access, place.row, what)
                })
                .collect()
        };
        if what.payload || what.text {
            self.with_reader(|catalog| read_all(Some(catalog)))
        } else {
            read_all(None)
        }
    }

    pub(crate) fn read_row(
        &self,
        catalog: Option<&Catalog>,
        view: &View,
        access: Access<'_>,
        row: u32,
        what: Fields,
    ) -> Result<Row> {
        let mut answer = Row {
            id: access.id(row)?,
            vector: Vec::new(),
            payload: None,
            text: None,
        };
        if what.vector {
            answer.vector = records::decode(self.schema.record, access.record(row)?);
        }
        if let Some(catalog) = catalog {
            let doc = self.read_doc(catalog, view, access, row, what)?;
            (answer.payload, answer.text) = doc;
        }
        Ok(answer)
    }

    /// The document of a row, as far as it is wanted.
    pub(crate) fn read_doc(
        &self,
        catalog: &Catalog,
        view: &View,
        access: Access<'_>,
        row: u32,
        what: Fields,
    ) -> Result<(Option<Payload>, Option<String>)> {
        let sum = access.doc(row)?;
        if sum == 0 {
            return Ok((None, None));
        }
        let seq = access.seq(row)?;
        match catalog.doc(seq, what.payload, what.text)? {
            None => Err(missing_doc(catalog, view, seq)),
            Some(doc) if doc.sum != sum => Err(foreign_doc(seq)),
            Some(doc) => Ok((doc.payload, doc.text)),
        }
    }

    /// How many rows there are, or how many meet the condition.
    ///
    /// # Errors
    /// Without a filter, those of [`Collection::view`]; with one, those of
    /// [`Collection::select`].
    pub fn count(&self, filter: Option<&Filter>) -> Result<u64> {
        let view = self.view()?;
        let Some(filter) = filter else {
            return Ok(view.live_rows());
        };
        let selected = self.select(&view, filter)?;
        Ok(selected
            .iter()
            .map(|words| u64::from(bits::count(words)))
            .sum())
    }

    /// Rows by ascending sequence: at most `limit` of those after the sequence `after` that meet
    /// the condition. A row replaced between two pages comes again under its new sequence.
    ///
    /// # Errors
    /// [`Error::Limit`] for too large a page, [`Error::Filter`], [`Error::Damaged`] and
    /// [`Error::ViewExpired`] as for [`Collection::fetch`].
    pub fn scroll(
        &self,
        after: Option<u64>,
        limit: usize,
        filter: Option<&Filter>,
        what: Fields,
    ) -> Result<Page> {
        if limit > PAGE_ROWS_MAX {
            return Err(Error::limit(
                "the number of rows of a page",
                limit,
                PAGE_ROWS_MAX,
            ));
        }
        if let Some(filter) = filter {
            filter.check()?;
        }
        let view = self.view()?;
        let live = view.parts().iter().map(Part::live);
        let mut rows = view.picture.by_seq(live, after.unwrap_or(0))?;
        self.with_reader(|catalog| {
            let mut page = Page::default();
            for met in &mut rows {
                let Met { seq, place, access } = met?;
                if page.rows.len() == limit {
                    page.next = page.rows.last().map(|(seq, _)| *seq);
                    break;
                }
                if let Some(filter) = filter {
                    let payload = Fields {
                        payload: true,
                        ..Fields::ID
                    };
                    let (payload, _) = self.read_doc(catalog, &view, access, place.row, payload)?;
                    if !filter.matches(&access.id(place.row)?, payload.as_ref()) {
                        continue;
                    }
                }
                let row = self.read_row(Some(catalog), &view, access, place.row, what)?;
                page.rows.push((seq, row));
            }
            Ok(page)
        })
    }

    /// For each part of a view, one bit per row: set where the row is live and meets the
    /// condition.
    ///
    /// Conditions on fields read all payloads of the view once.
    ///
    /// # Errors
    /// [`Error::Filter`], [`Error::Damaged`], and [`Error::ViewExpired`] as for
    /// [`Collection::fetch`].
    pub fn select(&self, view: &View, filter: &Filter) -> Result<Vec<Vec<u64>>> {
        filter.check()?;
        let mut leaves = Vec::new();
        collect_leaves(filter, &mut leaves);
        let mut marks: Vec<Marks<'_>> = leaves
            .into_iter()
            .map(|leaf| {
                // What holds where there is no payload is cleared where there is one.
                let word = if leaf.leaf_matches_nothing() {
                    u64::MAX
                } else {
                    0
                };
                let empty = |part: &Part| vec![word; part.live().len()];
                (leaf, view.parts().iter().map(empty).collect())
            })
            .collect();
        mark_ids(view, &mut marks)?;
        if marks
            .iter()
            .any(|(leaf, _)| !matches!(leaf, Filter::HasId(_)))
        {
            self.mark_payloads(view, &mut marks)?;
        }
        let mut leaf = 0;
        let mut selected = combine(filter, view, &marks, &mut leaf);
        for (words, part) in selected.iter_mut().zip(view.parts()) {
            words
                .iter_mut()
                .zip(part.live())
                .for_each(|(word, live)| *word &= live);
        }
        Ok(selected)
    }

    /// Sets the bits of the conditions on fields: one walk over rows and documents, both by
    /// sequence.
    fn mark_payloads(&self, view: &View, marks: &mut [Marks<'_>]) -> Result<()> {
        let with_docs = view
            .parts()
            .iter()
            .map(|part| if part.has_docs() { part.live() } else { &[] });
        let mut rows = view.picture.by_seq(with_docs, 0)?;
        let mut next = next_with_doc(&mut rows)?;
        let Some((first, ..)) = next else {
            return Ok(());
        };
        self.with_reader(|catalog| {
            catalog.each_doc(first, view.last_seq(), false, |seq, doc| {
                let Some((wanted, place, sum)) = next else {
                    return Ok(());
                };
                if seq < wanted {
                    return Ok(()); // A dead row's.
                }
                if seq > wanted {
                    return Err(missing_doc(catalog, view, wanted));
                }
                let doc = doc?;
                if doc.sum != sum {
                    return Err(foreign_doc(seq));
                }
                if let Some(payload) = &doc.payload {
                    for (leaf, words) in marks.iter_mut() {
                        let words = &mut words[place.part as usize];
                        match leaf {
                            Filter::HasId(_) => {}
                            leaf if leaf.leaf_matches(payload) => bits::set(words, place.row),
                            _ => drop(bits::clear(words, place.row)),
                        }
                    }
                }
                next = next_with_doc(&mut rows)?;
                Ok(())
            })?;
            match next {
                Some((seq, ..)) => Err(missing_doc(catalog, view, seq)),
                None => Ok(()),
            }
        })
    }
}

/// A condition without parts of its own, and for each part of the view the rows it holds for.
type Marks<'a> = (&'a Filter, Vec<Vec<u64>>);

/// The conditions without parts of their own, in the order [`combine`] meets them.
fn collect_leaves<'a>(filter: &'a Filter, leaves: &mut Vec<&'a Filter>) {
    match filter {
        Filter::And(filters) | Filter::Or(filters) => {
            filters
                .iter()
                .for_each(|filter| collect_leaves(filter, leaves));
        }
        Filter::AtLeast { of, .. } => {
            of.iter().for_each(|filter| collect_leaves(filter, leaves));
        }
        Filter::Not(filter) => collect_leaves(filter, leaves),
        leaf => leaves.push(leaf),
    }
}

fn mark_ids(view: &View, marks: &mut [Marks<'_>]) -> Result<()> {
    for (leaf, words) in marks {
        let Filter::HasId(ids) = leaf else { continue };
        let mut sorted: Vec<&Id> = ids.iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let wanted: Vec<(usize, &Id)> = sorted.iter().copied().enumerate().collect();
        let mut found = vec![None; sorted.len()];
        view.picture.locate_sealed(&wanted, &mut found)?;
        let mut mark = |place: Place| bits::set(&mut words[place.part as usize], place.row);
        found.into_iter().flatten().for_each(&mut mark);
        view.picture.each_fresh(|place, id| {
            if sorted.binary_search(&id).is_ok() {
                mark(place);
            }
        });
    }
    Ok(())
}

/// The next live row that has a document: its sequence, place and document sum.
fn next_with_doc<'a>(
    rows: &mut impl Iterator<Item = Result<Met<'a>>>,
) -> Result<Option<(u64, Place, u64)>> {
    for met in rows {
        let Met { seq, place, access } = met?;
        let sum = access.doc(place.row)?;
        if sum != 0 {
            return Ok(Some((seq, place, sum)));
        }
    }
    Ok(None)
}

/// Joins the leaves' bitmaps as the filter says.
fn combine(filter: &Filter, view: &View, marks: &[Marks<'_>], leaf: &mut usize) -> Vec<Vec<u64>> {
    let all = |word: u64| -> Vec<Vec<u64>> {
        view.parts()
            .iter()
            .map(|part| vec![word; part.live().len()])
            .collect()
    };
    let join = |into: &mut [Vec<u64>], other: &[Vec<u64>], join: fn(u64, u64) -> u64| {
        for (into, other) in into.iter_mut().zip(other) {
            into.iter_mut()
                .zip(other)
                .for_each(|(a, b)| *a = join(*a, *b));
        }
    };
    match filter {
        Filter::And(filters) => filters.iter().fold(all(u64::MAX), |mut held, filter| {
            join(&mut held, &combine(filter, view, marks, leaf), |a, b| a & b);
            held
        }),
        Filter::Or(filters) => filters.iter().fold(all(0), |mut held, filter| {
            join(&mut held, &combine(filter, view, marks, leaf), |a, b| a | b);
            held
        }),
        Filter::Not(filter) => {
            let mut held = combine(filter, view, marks, leaf);
            held.iter_mut().flatten().for_each(|word| *word = !*word);
            held
        }
        Filter::AtLeast { count, of } => {
            // Where at least none, one, two, ... of those seen so far hold.
            let count = (*count).min(of.len() + 1);
            let mut held = vec![all(0); count + 1];
            held[0] = all(u64::MAX);
            for filter in of {
                let met = combine(filter, view, marks, leaf);
                for more in (1..=count).rev() {
                    let (below, at) = held.split_at_mut(more);
                    let mut joined = below[more - 1].clone();
                    join(&mut joined, &met, |a, b| a & b);
                    join(&mut at[0], &joined, |a, b| a | b);
                }
            }
            held.swap_remove(count)
        }
        _ => {
            *leaf += 1;
            marks[*leaf - 1].1.clone()
        }
    }
}

/// A row's document is not there: removed by a writer elsewhere since the view, or lost.
fn missing_doc(catalog: &Catalog, view: &View, seq: u64) -> Error {
    match catalog.state() {
        Ok(state) if state.purges > view.picture.purges => Error::ViewExpired,
        Ok(_) => Error::row("docs", seq, "it is missing"),
        Err(error) => error,
    }
}

fn foreign_doc(seq: u64) -> Error {
    Error::row(
        "docs",
        seq,
        "it is not the document its row was stored with",
    )
}
