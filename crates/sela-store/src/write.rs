//! Writing batches: checked by their callers, committed together by whoever comes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use crate::bits;
use crate::catalog::{Catalog, Doc, SegmentRow, TOMBSTONE_CHUNK_ROWS, is_failed_sync};
use crate::collection::{Collection, Shown, Writer, lock};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX, check_depth,
};
use crate::model::{Op, Payload, Place, Schema, Written};
use crate::open::FreshParts;
use crate::records;
use crate::shape::Shape;
use crate::sum::doc_sum;
use crate::text::Docs;
use crate::view::{Kind, Picture};

/// A batch that waits to be committed, and then its result.
#[derive(Debug)]
pub(crate) struct Job {
    changes: Vec<Change>,
    weight: u64,
    result: Mutex<Option<Result<Written>>>,
}

impl Job {
    pub(crate) fn new(changes: Vec<Change>, weight: u64) -> Self {
        Self {
            changes,
            weight,
            result: Mutex::default(),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Change {
    Upsert(Ready),
    Delete(Id),
}

/// A row that was checked and is ready to be stored.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) id: Id,
    pub(crate) record: Vec<u8>,
    pub(crate) doc: Doc,
    pub(crate) doc_sum: u64,
}

impl Ready {
    /// The bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        self.record.len() + self.doc.weight() + self.id.weight()
    }

    /// Checks a row against the schema and the limits.
    pub(crate) fn new(
        schema: &Schema,
        id: &Id,
        vector: &[f32],
        payload: Option<&Payload>,
        text: Option<&str>,
    ) -> Result<Self> {
        id.check()?;
        let mut record = Vec::with_capacity(schema.row_bytes());
        records::encode(schema, id, vector, &mut record)?;
        if let Some(payload) = payload {
            let what = || format!("the depth of the payload of row `{id}`, in levels,");
            check_depth(what, 1, payload.values())?;
        }
        let payload = payload
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| Error::Schema(format!("the payload of row `{id}`: {error}")))?;
        for (what, bytes, max) in [
            (
                "payload",
                payload.as_ref().map_or(0, String::len),
                PAYLOAD_BYTES_MAX,
            ),
            ("text", text.map_or(0, str::len), TEXT_BYTES_MAX),
        ] {
            if bytes > max {
                return Err(Error::limit(
                    format!("the {what} of row `{id}`, in bytes,"),
                    bytes,
                    max,
                ));
            }
        }
        let doc = Doc {
            payload,
            text: text.map(str::to_owned),
        };
        let doc_sum = doc_sum(doc.payload.as_deref(), doc.text.as_deref());
        Ok(Self {
            id: id.clone(),
            record,
            doc,
            doc_sum,
        })
    }
}

/// What a transaction will change, worked out before the catalog is touched.
#[derive(Default)]
struct Stage<'a> {
    fresh: Vec<Option<&'a Ready>>,
    deaths: Deaths,
    written: Vec<Written>,
}

/// Rows that die, by part.
#[derive(Debug, Default)]
pub(crate) struct Deaths(BTreeMap<u32, Vec<u32>>);

impl Collection {
    /// Applies a batch: all of it or nothing, in its order; on stable storage when it returns.
    ///
    /// Callers in several threads share one sync. When so many fresh rows have gathered that
    /// they are due to be sealed into a segment, or so many dead ones that a segment is due to be
    /// rewritten, that is done before the call returns.
    ///
    /// # Errors
    /// [`Error::Vector`], [`Error::Id`] and [`Error::Limit`] for what cannot be stored;
    /// [`Error::DiskFull`], after which the batch can be tried again; [`Error::ReadOnly`];
    /// [`Error::Poisoned`]; [`Error::Damaged`] when a table of ids is, so that it cannot be told
    /// which row is replaced. In every case nothing of the batch is visible; after a failed
    /// sync it may be there once the collection is reopened.
    pub fn write(&self, ops: &[Op]) -> Result<Written> {
        self.check_writable()?;
        self.check_poison()?;
        let job = Arc::new(self.prepare(ops)?);
        lock(&self.queue).push(Arc::clone(&job));
        let writer = self.writer();
        if let Some(result) = lock(&job.result).take() {
            // Someone else committed it while we waited for our turn.
            return result;
        }
        let mut writer = match writer {
            Ok(writer) => writer,
            Err(error) => {
                lock(&self.queue).retain(|queued| !Arc::ptr_eq(queued, &job));
                return Err(error);
            }
        };
        let jobs = std::mem::take(&mut *lock(&self.queue));
        self.commit_jobs(&mut writer, &jobs);
        self.maintain_if_due(&mut writer);
        drop(writer);
        lock(&job.result)
            .take()
            .unwrap_or_else(|| Err(self.abandoned()))
    }

    fn prepare(&self, ops: &[Op]) -> Result<Job> {
        if ops.len() > BATCH_OPS_MAX {
            return Err(Error::limit(
                "the number of operations of a batch",
                ops.len(),
                BATCH_OPS_MAX,
            ));
        }
        let mut changes = Vec::with_capacity(ops.len());
        let mut weight = 0;
        for op in ops {
            changes.push(match op {
                Op::Upsert(row) => {
                    let (payload, text) = (row.payload.as_ref(), row.text.as_deref());
                    let ready = Ready::new(&self.schema, &row.id, &row.vector, payload, text)?;
                    weight += ready.weight();
                    Change::Upsert(ready)
                }
                Op::Delete(id) => {
                    id.check()?;
                    weight += id.weight();
                    Change::Delete(id.clone())
                }
            });
            if weight > BATCH_BYTES_MAX {
                return Err(Error::limit(
                    "the size of a batch in bytes",
                    weight,
                    BATCH_BYTES_MAX,
                ));
            }
        }
        Ok(Job::new(changes, weight as u64))
    }

    /// Commits all jobs in one transaction; should that fail, each in its own, so that a bad one
    /// fails alone.
    fn commit_jobs(&self, writer: &mut Writer, jobs: &[Arc<Job>]) {
        let settle = |job: &Job, result| *lock(&job.result) = Some(result);
        match self.commit_together(writer, jobs) {
            Ok(written) => {
                jobs.iter()
                    .zip(written)
                    .for_each(|(job, written)| settle(job, Ok(written)));
            }
            Err(error) if jobs.len() == 1 => settle(&jobs[0], Err(error)),
            Err(_) => {
                for job in jobs {
                    let result = self.commit_together(writer, std::slice::from_ref(job));
                    settle(job, result.map(|written| written[0]));
                }
            }
        }
    }

    pub(crate) fn commit_together(
        &self,
        writer: &mut Writer,
        jobs: &[Arc<Job>],
    ) -> Result<Vec<Written>> {
        self.sparing_index(writer, |writer| self.commit_once(writer, jobs))
    }

    fn commit_once(&self, writer: &mut Writer, jobs: &[Arc<Job>]) -> Result<Vec<Written>> {
        self.check_poison()?;
        let stage = self.stage(jobs)?;
        let picture = Arc::clone(&self.shown().picture);
        let mut state = writer.state;
        let first_seq = state.last_seq + 1;
        self.transact(writer, |catalog| {
            let mut docs = Docs::begin(catalog, &state);
            let ready = stage.fresh.iter().flatten();
            for (row, seq) in ready.zip(first_seq..) {
                catalog.put_pending(seq, &row.id, row.doc_sum, &row.record)?;
                if row.doc_sum != 0 {
                    docs.put(seq, &row.doc)?;
                }
                state.last_seq = seq;
                state.pending += 1;
            }
            state.pending -= stage.deaths.write(&mut docs, &picture)?;
            docs.end(&mut state)?;
            catalog.put_state(&state)
        })?;
        drop(picture);
        writer.state = state;

        let mut shown = self.shown_mut();
        stage.deaths.apply(&mut shown);
        let shown = &mut *shown;
        let picture = Arc::make_mut(&mut shown.picture);
        picture.last_seq = state.last_seq;
        let shape = Shape::of_fresh(&self.schema);
        let mut fresh = FreshParts {
            parts: &mut picture.parts,
            sealed: picture.sealed,
            shape,
        };
        for (row, seq) in stage.fresh.iter().flatten().zip(first_seq..) {
            let place = fresh.push(seq, row.id.clone(), &row.record, row.doc_sum);
            shown.index.insert(row.id.clone(), place);
        }
        writer.log_bytes += jobs.iter().map(|job| 2 * job.weight + 16_384).sum::<u64>();
        self.checkpoint_if_due(writer);
        let last_seq = state.last_seq;
        Ok(stage
            .written
            .into_iter()
            .map(|written| Written {
                last_seq,
                ..written
            })
            .collect())
    }

    /// Works out which rows come and which die.
    fn stage<'a>(&self, jobs: &'a [Arc<Job>]) -> Result<Stage<'a>> {
        let mut places = self.locate_changed(jobs)?;
        let mut stage = Stage::default();
        // Where an id stands after the changes so far: a row of `stage.fresh`, or nowhere.
        let mut moved: HashMap<&Id, Option<usize>> = HashMap::new();
        for job in jobs {
            let mut written = Written {
                count: job.changes.len() as u64,
                ..Written::default()
            };
            for change in &job.changes {
                let (id, ready) = match change {
                    Change::Upsert(ready) => (&ready.id, Some(ready)),
                    Change::Delete(id) => (id, None),
                };
                let there = match moved.get(id) {
                    Some(Some(earlier)) => stage.fresh[*earlier].take().is_some(),
                    Some(None) => false,
                    None => places.remove(id).is_some_and(|place| {
                        stage.deaths.add(place);
                        true
                    }),
                };
                written.replaced += u64::from(there);
                moved.insert(id, ready.map(|_| stage.fresh.len()));
                stage.fresh.extend(ready.map(Some));
            }
            stage.written.push(written);
        }
        Ok(stage)
    }

    /// The places of all live rows whose ids the jobs name.
    fn locate_changed<'a>(&self, jobs: &'a [Arc<Job>]) -> Result<HashMap<&'a Id, Place>> {
        let shown = self.shown();
        let picture = Arc::clone(&shown.picture);
        let mut ids: Vec<&Id> = jobs
            .iter()
            .flat_map(|job| &job.changes)
            .map(|change| match change {
                Change::Upsert(ready) => &ready.id,
                Change::Delete(id) => id,
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let mut found: Vec<Option<Place>> = ids.iter().map(|id| shown.place_of_fresh(id)).collect();
        drop(shown);
        let wanted: Vec<(usize, &Id)> = ids.iter().copied().enumerate().collect();
        picture.locate_sealed(&wanted, &mut found)?;
        Ok(ids
            .into_iter()
            .zip(found)
            .filter_map(|(id, place)| Some((id, place?)))
            .collect())
    }

    /// Runs `change` in a transaction and commits it; poisons the collection when that leaves
    /// it unknown what is on disk.
    pub(crate) fn transact(
        &self,
        writer: &Writer,
        change: impl FnOnce(&Catalog) -> Result<()>,
    ) -> Result<()> {
        // One call may take several transactions, and an earlier one have poisoned it.
        self.check_poison()?;
        let catalog = &writer.catalog;
        catalog.begin()?;
        if let Err(error) = change(catalog) {
            if !catalog.rollback() || is_failed_sync(&error) {
                self.poison(writer, &error);
            }
            return Err(error);
        }
        catalog.commit().map_err(|failure| {
            if failure.poison {
                self.poison(writer, &failure.error);
            }
            failure.error
        })
    }

    /// Takes the log in when it has grown enough. A full disk only postpones that.
    pub(crate) fn checkpoint_if_due(&self, writer: &mut Writer) {
        const LOG_BYTES_MAX: u64 = 4 << 20;
        if writer.log_bytes < LOG_BYTES_MAX {
            return;
        }
        writer.log_bytes = 0;
        match writer.catalog.checkpoint() {
            Ok(()) => {}
            Err(error @ Error::DiskFull { .. }) => {
                tracing::warn!(%error, "the catalog's log stays as long as it is");
            }
            Err(error) => self.poison(writer, &error),
        }
    }
}

impl Shown {
    /// The place of a live fresh row.
    pub(crate) fn place_of_fresh(&self, id: &Id) -> Option<Place> {
        let (part, row) = *self.index.get(id)?;
        Some(Place {
            part: self.picture.sealed as u32 + part,
            row,
        })
    }
}

impl Deaths {
    pub(crate) fn add(&mut self, place: Place) {
        self.0.entry(place.part).or_default().push(place.row);
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.values().map(|rows| rows.len() as u64).sum()
    }

    /// Tells the catalog; how many pending rows that removed.
    pub(crate) fn write(&self, docs: &mut Docs<'_>, picture: &Picture) -> Result<u64> {
        let catalog = docs.catalog();
        let mut pending = 0;
        for (&part, rows) in &self.0 {
            let part = &picture.parts[part as usize];
            let access = part.access()?;
            for &row in rows {
                let seq = access.seq(row)?;
                if access.doc(row)? != 0 {
                    docs.bury(seq)?;
                }
                if let Kind::Fresh(_) = part.0 {
                    catalog.remove_pending(seq)?;
                    pending += 1;
                }
            }
            if let Kind::Sealed(sealed) = &part.0 {
                let mut dead = bits::ones(part.rows());
                dead.iter_mut()
                    .zip(&sealed.live)
                    .for_each(|(dead, live)| *dead &= !live);
                rows.iter().for_each(|&row| bits::set(&mut dead, row));
                write_dead(catalog, sealed.segment.row(), &dead, rows)?;
            }
        }
        Ok(pending)
    }

    /// Lets readers see it.
    pub(crate) fn apply(&self, shown: &mut Shown) {
        for (&part, rows) in &self.0 {
            let picture = Arc::make_mut(&mut shown.picture);
            for &row in rows {
                if let Kind::Fresh(fresh) = &picture.parts[part as usize].0 {
                    shown.index.remove(fresh.id(row));
                }
                picture.parts[part as usize].kill(row);
            }
        }
    }
}

/// Stores the dead rows of a segment, of which those in `rows` are new.
pub(crate) fn write_dead(
    catalog: &Catalog,
    segment: &SegmentRow,
    dead: &[u64],
    rows: &[u32],
) -> Result<()> {
    let mut chunks: Vec<u32> = rows.iter().map(|row| row / TOMBSTONE_CHUNK_ROWS).collect();
    chunks.sort_unstable();
    chunks.dedup();
    for chunk in chunks {
        catalog.put_tombstones(segment.number, chunk, dead)?;
    }
    catalog.put_segment(&SegmentRow {
        dead: bits::count(dead),
        ..*segment
    })
}
