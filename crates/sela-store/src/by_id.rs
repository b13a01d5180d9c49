//! Rows by ascending id, a page at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::bits;
use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::id::Id;
use crate::limits::PAGE_ROWS_MAX;
use crate::model::{Fields, Place, Row};
use crate::view::{Access, Kind, Part, Picture};

/// One page of [`Collection::scroll_by_id`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdPage {
    /// The rows by ascending id: numbers, then UUIDs, then strings.
    pub rows: Vec<Row>,
    /// The id to go on from; `None` at the end.
    pub next: Option<Id>,
}

impl Collection {
    /// Rows by ascending id: at most `limit` of those from the id `from` on that meet the
    /// condition. A page reads about as many rows as it holds, unless a condition holds for few.
    ///
    /// # Errors
    /// As [`Collection::scroll`].
    pub fn scroll_by_id(
        &self,
        from: Option<&Id>,
        limit: usize,
        filter: Option<&Filter>,
        what: Fields,
    ) -> Result<IdPage> {
        // Rows whose payloads are looked at one by one before all are read in one sweep.
        const MISSES_MAX: usize = 4096;
        if limit > PAGE_ROWS_MAX {
            let what = "the number of rows of a page";
            return Err(Error::limit(what, limit, PAGE_ROWS_MAX));
        }
        if let Some(filter) = filter {
            filter.check()?;
        }
        let view = self.view()?;
        let mut walk = ById::new(&view.picture, from)?;
        let mut selected: Option<Vec<Vec<u64>>> = None;
        let mut misses = 0;
        self.with_reader(|catalog| {
            let mut page = IdPage::default();
            while let Some((id, place)) = walk.next()? {
                let part = &view.picture.parts[place.part as usize];
                let access = part.access()?;
                if let Some(filter) = filter {
                    if misses == MISSES_MAX && selected.is_none() {
                        selected = Some(self.select(&view, filter)?);
                    }
                    let chosen = match &selected {
                        Some(words) => bits::get(&words[place.part as usize], place.row),
                        None => {
                            let payload = Fields {
                                payload: true,
                                ..Fields::ID
                            };
                            let doc = self.read_doc(catalog, &view, access, place.row, payload)?;
                            filter.matches(&id, doc.0.as_ref())
                        }
                    };
                    if !chosen {
                        misses += usize::from(misses < MISSES_MAX);
                        continue;
                    }
                }
                if page.rows.len() == limit {
                    page.next = Some(id);
                    break;
                }
                page.rows
                    .push(self.read_row(Some(catalog), &view, access, place.row, what)?);
            }
            Ok(page)
        })
    }
}

/// The live rows of all parts by ascending id.
struct ById<'a> {
    picture: &'a Picture,
    /// The next row of each segment: its id, part and position in the sorted ids.
    heads: BinaryHeap<Reverse<(Id, u32, u32)>>,
    /// Fresh rows, the least id last.
    fresh: Vec<(&'a Id, Place)>,
}

impl<'a> ById<'a> {
    fn new(picture: &'a Picture, from: Option<&Id>) -> Result<Self> {
        let mut fresh = Vec::new();
        for (part, kind) in picture.parts.iter().enumerate() {
            let Kind::Fresh(rows) = &kind.0 else { continue };
            let part = part as u32;
            let live = bits::iter(rows.live(), 0).map(|row| (rows.id(row), Place { part, row }));
            fresh.extend(live.filter(|(id, _)| from.is_none_or(|from| *id >= from)));
        }
        fresh.sort_unstable_by(|a, b| b.0.cmp(a.0));
        let mut walk = Self {
            picture,
            heads: BinaryHeap::new(),
            fresh,
        };
        for part in 0..picture.sealed as u32 {
            let first = match from {
                Some(from) => walk.first_rank(part, from)?,
                None => 0,
            };
            walk.advance(part, first)?;
        }
        Ok(walk)
    }

    fn part(&self, part: u32) -> &'a Part {
        &self.picture.parts[part as usize]
    }

    /// The first position whose id is not less.
    fn first_rank(&self, part: u32, from: &Id) -> Result<u32> {
        let part = self.part(part);
        let Access::Sealed(reading, rows) = part.access()? else {
            return Ok(0);
        };
        let (mut low, mut high) = (0, if part.live_rows() == 0 { 0 } else { rows });
        while low < high {
            let middle = low + (high - low) / 2;
            if reading.id_at(middle)? < *from {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Puts the first live row from a position on among the heads.
    fn advance(&mut self, index: u32, rank: u32) -> Result<()> {
        let part = self.part(index);
        if part.live_rows() == 0 {
            return Ok(());
        }
        let Access::Sealed(reading, rows) = part.access()? else {
            return Ok(());
        };
        for rank in rank..rows {
            if bits::get(part.live(), reading.row_at(rank)?) {
                self.heads
                    .push(Reverse((reading.id_at(rank)?, index, rank)));
                break;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<(Id, Place)>> {
        let sealed = self.heads.peek().map(|Reverse((id, ..))| id);
        let fresh_first = match (self.fresh.last(), sealed) {
            (Some((fresh, _)), Some(sealed)) => *fresh < sealed,
            (fresh, _) => fresh.is_some(),
        };
        if fresh_first {
            return Ok(self.fresh.pop().map(|(id, place)| (id.clone(), place)));
        }
        let Some(Reverse((id, part, rank))) = self.heads.pop() else {
            return Ok(None);
        };
        let Access::Sealed(reading, _) = self.part(part).access()? else {
            return Ok(None);
        };
        let row = reading.row_at(rank)?;
        self.advance(part, rank + 1)?;
        Ok(Some((id, Place { part, row })))
    }
}
