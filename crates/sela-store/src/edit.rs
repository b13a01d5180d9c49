//! Changes of rows that are there, whoever else writes meanwhile.

use std::sync::Arc;

use crate::collection::{Collection, Writer};
use crate::error::{Error, Result};
use crate::field::{FieldPath, merge};
use crate::filter::Filter;
use crate::id::Id;
use crate::limits::{BATCH_OPS_MAX, DELETE_ROWS_MAX, EDIT_BYTES_MAX};
use crate::model::{Fields, Payload, Row};
use crate::write::{Change, Job, Ready};

/// The rows that [`Collection::edit`] changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Which {
    /// Those of these ids, as far as they are there.
    Ids(Vec<Id>),
    /// All that meet the condition.
    Filter(Filter),
}

/// What [`Collection::edit`] does to each row.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Edit {
    /// Removes it.
    Delete,
    /// Sets fields of its payload and leaves the others; a field given as null is removed.
    Merge {
        /// The object the fields are of; `None` for the payload itself. It is made where there is
        /// none.
        at: Option<FieldPath>,
        /// The fields.
        values: Payload,
    },
    /// Gives it another payload, or none.
    Replace(Option<Payload>),
    /// Removes fields of its payload; those that are not there are passed over.
    Remove(Vec<FieldPath>),
}

/// What an edit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edited {
    /// Rows that were changed or removed.
    pub count: u64,
    /// The first id that was asked for and is of no row.
    pub missing: Option<Id>,
    /// The newest sequence of the collection; 0 when nothing was written.
    pub last_seq: u64,
}

impl Collection {
    /// Changes rows as they stand: no write of another caller comes between reading a row and
    /// storing it changed. Vectors and texts stay as they are. On stable storage when it returns.
    ///
    /// All rows change or none does; but only up to 100,000 rows or 128 MiB of them, and when
    /// deleting up to four million. What is beyond is done in several such steps, with readers
    /// seeing each, and an error leaves the steps before it done.
    ///
    /// # Errors
    /// As [`Collection::write`]; [`Error::Limit`] for too many ids, or a payload that grew too
    /// large; [`Error::Filter`]; [`Error::Damaged`] for rows that cannot be read.
    pub fn edit(&self, which: &Which, edit: &Edit) -> Result<Edited> {
        if let Edit::Merge { values, .. } | Edit::Replace(Some(values)) = edit {
            // Said before the rows are looked for, and for all of them alike.
            crate::limits::check_depth(
                || "the depth of the payload, in levels,".to_owned(),
                1,
                values.values(),
            )?;
        }
        let mut writer = self.writer()?;
        let ids = match which {
            Which::Ids(ids) => distinct(ids)?,
            Which::Filter(filter) => self.ids_where(filter)?,
        };
        if *edit == Edit::Delete {
            return self.delete_in_steps(&mut writer, ids);
        }
        self.edit_in_steps(&mut writer, &ids, &mut |row| {
            apply(edit, &mut row.payload);
        })
    }

    /// Gives rows other vectors, as [`Collection::edit`] does payloads.
    ///
    /// # Errors
    /// As [`Collection::edit`], and [`Error::Vector`].
    pub fn replace_vectors(&self, vectors: &[(Id, Vec<f32>)]) -> Result<Edited> {
        let mut given: std::collections::HashMap<&Id, &[f32]> = std::collections::HashMap::new();
        for (id, vector) in vectors {
            given.insert(id, vector);
        }
        let ids: Vec<Id> = vectors.iter().map(|(id, _)| id.clone()).collect();
        let mut writer = self.writer()?;
        self.edit_in_steps(&mut writer, &distinct(&ids)?, &mut |row| {
            if let Some(vector) = given.get(&row.id) {
                row.vector = vector.to_vec();
            }
        })
    }

    fn delete_in_steps(&self, writer: &mut Writer, ids: Vec<Id>) -> Result<Edited> {
        let mut done = Edited::default();
        for step in ids.chunks(DELETE_ROWS_MAX) {
            let weight = step.iter().map(|id| id.weight() as u64).sum();
            let changes = step.iter().cloned().map(Change::Delete).collect();
            done.count += self.commit_changes(writer, changes, weight, &mut done.last_seq)?;
        }
        Ok(done)
    }

    fn edit_in_steps(
        &self,
        writer: &mut Writer,
        ids: &[Id],
        change: &mut dyn FnMut(&mut Row),
    ) -> Result<Edited> {
        // Few at a time, as payload and text of each may be large.
        const READ_AT_ONCE: usize = 64;
        let mut done = Edited::default();
        let (mut changes, mut weight) = (Vec::new(), 0);
        for group in ids.chunks(READ_AT_ONCE) {
            for (id, row) in group.iter().zip(self.get(group, Fields::ALL)?) {
                let Some(mut row) = row else {
                    done.missing.get_or_insert_with(|| id.clone());
                    continue;
                };
                change(&mut row);
                let (payload, text) = (row.payload.as_ref(), row.text.as_deref());
                let ready = Ready::new(&self.schema, &row.id, &row.vector, payload, text)?;
                weight += ready.weight();
                changes.push(Change::Upsert(ready));
            }
            if changes.len() + READ_AT_ONCE > BATCH_OPS_MAX || weight >= EDIT_BYTES_MAX {
                let (changes, weight) = (std::mem::take(&mut changes), std::mem::take(&mut weight));
                done.count +=
                    self.commit_changes(writer, changes, weight as u64, &mut done.last_seq)?;
            }
        }
        done.count += self.commit_changes(writer, changes, weight as u64, &mut done.last_seq)?;
        Ok(done)
    }

    /// Commits changes in one transaction; how many rows they replaced or removed.
    fn commit_changes(
        &self,
        writer: &mut Writer,
        changes: Vec<Change>,
        weight: u64,
        last_seq: &mut u64,
    ) -> Result<u64> {
        if changes.is_empty() {
            return Ok(0);
        }
        let job = Arc::new(Job::new(changes, weight));
        let written = self.commit_together(writer, &[job])?;
        self.maintain_if_due(writer);
        let written = written.first().copied().unwrap_or_default();
        *last_seq = written.last_seq;
        Ok(written.replaced)
    }

    /// The ids of all rows that meet a condition, by ascending sequence: rows that are stored anew
    /// keep their order.
    fn ids_where(&self, filter: &Filter) -> Result<Vec<Id>> {
        let view = self.view()?;
        let selected = self.select(&view, filter)?;
        let rows = view.picture.by_seq(selected.iter().map(Vec::as_slice), 0)?;
        rows.map(|met| {
            let met = met?;
            met.access.id(met.place.row)
        })
        .collect()
    }
}

/// Each id once, in the order given.
fn distinct(ids: &[Id]) -> Result<Vec<Id>> {
    if ids.len() > BATCH_OPS_MAX {
        return Err(Error::limit("the number of ids", ids.len(), BATCH_OPS_MAX));
    }
    ids.iter().try_for_each(Id::check)?;
    let mut seen = std::collections::HashSet::new();
    Ok(ids.iter().filter(|id| seen.insert(*id)).cloned().collect())
}

fn apply(edit: &Edit, payload: &mut Option<Payload>) {
    match edit {
        Edit::Delete => {}
        Edit::Merge { at: None, values } => merge(payload.get_or_insert_default(), values),
        Edit::Merge {
            at: Some(path),
            values,
        } => path.merge(payload.get_or_insert_default(), values),
        Edit::Replace(new) => payload.clone_from(new),
        Edit::Remove(paths) => {
            if let Some(payload) = payload {
                paths.iter().for_each(|path| path.remove(payload));
            }
        }
    }
}
