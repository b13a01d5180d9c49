//! Bulk loading: rows stream into a segment file, which one transaction then names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::bits;
use crate::catalog::{Doc, SegmentRow};
use crate::collection::{Collection, Writer};
use crate::error::{Error, Result};
use crate::model::{Place, Row, Written};
use crate::segment::{self, Segment, SegmentWriter, SeqColumn, WriteFailure};
use crate::shape::Shape;
use crate::text::Docs;
use crate::view::{Kind, Part, Picture};
use crate::write::{Deaths, Ready, write_dead};

/// A bulk load under way.
///
/// Rows go to the disk as they come; whenever a segment is full it is committed, so a load that
/// is cut short keeps its full segments and can be taken up again after the last row that
/// [`Bulk::written`] told. Rows not committed when it is dropped are lost, cleanly. Other
/// threads may write meanwhile; a row of the load replaces what has its id when its segment is
/// committed.
///
/// ```
/// use sela_store::{Collection, Options, Row, Schema};
///
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("numbers");
/// let numbers = Collection::create(&dir, &Schema::new(2, "example"), &Options::default())?;
/// let mut bulk = numbers.bulk()?;
/// for number in 0..1000_u64 {
///     bulk.push(Row::new(number, vec![number as f32, 1.0]))?;
/// }
/// assert_eq!(bulk.commit()?.count, 1000);
/// assert_eq!(numbers.count(None)?, 1000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Bulk<'a> {
    collection: &'a Collection,
    segment: Option<SegmentWriter>,
    /// Documents of rows of the segment under way.
    docs: Vec<(u32, Doc)>,
    /// Bytes of ids and documents held in memory.
    weight: usize,
    written: Written,
    failed: Option<Error>,
}

impl Collection {
    /// Starts a bulk load; for many rows at once it is far quicker than [`Collection::write`].
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Poisoned`].
    pub fn bulk(&self) -> Result<Bulk<'_>> {
        drop(self.writer()?);
        Ok(Bulk {
            collection: self,
            segment: None,
            docs: Vec::new(),
            weight: 0,
            written: Written::default(),
            failed: None,
        })
    }

    /// Starts a new segment file.
    pub(crate) fn new_segment(&self, shape: Shape) -> Result<SegmentWriter> {
        let number = self.next_segment.fetch_add(1, Ordering::Relaxed);
        let path = segment::path(&self.dir, number);
        SegmentWriter::create(&self.options.disk, &path, number, shape)
    }

    /// Passes a failure to write a segment on, poisoning the collection when a sync failed.
    pub(crate) fn settle(&self, writer: &Writer, failure: WriteFailure) -> Error {
        if failure.poison {
            self.poison(writer, &failure.error);
        }
        failure.error
    }
}

impl Bulk<'_> {
    /// Adds a row. When that fills the segment under way, the segment is committed, and what was
    /// written since the load began is returned.
    ///
    /// # Errors
    /// [`Error::Vector`], [`Error::Id`] and [`Error::Limit`] for a row that cannot be stored,
    /// after which the load goes on without it; for all others see [`Bulk::commit`].
    pub fn push(&mut self, row: Row) -> Result<Option<Written>> {
        self.check()?;
        let collection = self.collection;
        let (payload, text) = (row.payload.as_ref(), row.text.as_deref());
        let ready = Ready::new(&collection.schema, &row.id, &row.vector, payload, text)?;
        let pushed = self.push_ready(ready);
        pushed.inspect_err(|error| self.fail(error))
    }

    /// Commits what is left, and returns what the whole load has written.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Io`], [`Error::Poisoned`] and [`Error::Damaged`] (of a
    /// table of ids, so that it cannot be told which rows are replaced): rows since the last
    /// committed segment are lost, and the load takes no more.
    pub fn commit(mut self) -> Result<Written> {
        self.check()?;
        self.seal()?;
        if self.written.last_seq == 0 {
            self.written.last_seq = self.collection.shown().picture.last_seq;
        }
        Ok(self.written)
    }

    /// What is committed so far: after `count` rows a load cut short can be taken up again.
    pub fn written(&self) -> Written {
        self.written
    }

    fn check(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn fail(&mut self, error: &Error) {
        self.failed = Some(error.clone());
        self.segment = None;
        self.docs = Vec::new();
    }

    fn push_ready(&mut self, ready: Ready) -> Result<Option<Written>> {
        let collection = self.collection;
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => none.insert(collection.new_segment(collection.shape_of_segments())?),
        };
        let row = segment.rows();
        segment.push(&ready.id, &ready.record, ready.doc_sum)?;
        self.weight += ready.id.weight() + ready.doc.weight();
        if ready.doc_sum != 0 {
            self.docs.push((row, ready.doc));
        }
        let rows = segment.rows() as usize;
        let options = &collection.options;
        if rows >= options.segment_rows || self.weight >= options.bulk_bytes_max {
            self.seal()?;
            return Ok(Some(self.written));
        }
        Ok(None)
    }

    /// Commits the segment under way.
    fn seal(&mut self) -> Result<()> {
        let Some(mut segment) = self.segment.take() else {
            return Ok(());
        };
        let docs = std::mem::take(&mut self.docs);
        self.weight = 0;
        let collection = self.collection;
        let rows = segment.rows();
        // Most of the syncing is done before other writers have to wait.
        if let Err(failure) = segment.finish_body() {
            return Err(collection.settle(&*collection.writer()?, failure));
        }
        let mut writer = collection.writer()?;
        let first_seq = writer.state.last_seq + 1;
        let sealed = segment
            .seal(&SeqColumn::Run(first_seq))
            .map_err(|failure| collection.settle(&writer, failure))?;
        let committed = collection.sparing_index(&mut writer, |writer| {
            collection.commit_segment(writer, &sealed, &docs)
        });
        if committed.is_err() && collection.poison.get().is_none() {
            // It is not named, and nobody will name it now.
            let _ = collection
                .options
                .disk
                .remove_file(&segment::path(&collection.dir, sealed.number));
        }
        let replaced = committed?;
        self.written.count += u64::from(rows);
        self.written.replaced += replaced;
        self.written.last_seq = writer.state.last_seq;
        collection.maintain_if_due(&mut writer);
        Ok(())
    }
}

impl Collection {
    /// Names a bulk-loaded segment in the catalog, with its documents and what it replaces; how
    /// many rows that were.
    fn commit_segment(
        &self,
        writer: &mut Writer,
        row: &SegmentRow,
        docs: &[(u32, Doc)],
    ) -> Result<u64> {
        let path = segment::path(&self.dir, row.number);
        let segment = Arc::new(Segment::open(&self.options.disk, &path, row, &self.schema)?);
        let (deaths, doubles) = self.find_replaced(&segment)?;
        let mut live = bits::ones(row.rows);
        for &row in &doubles {
            bits::clear(&mut live, row);
        }

        let picture = Arc::clone(&self.shown().picture);
        let mut state = writer.state;
        let first_seq = state.last_seq + 1;
        state.last_seq += u64::from(row.rows);
        state.next_segment = self.next_segment.load(Ordering::Relaxed);
        state.segments += 1;
        self.transact(writer, |catalog| {
            catalog.put_segment(row)?;
            if !doubles.is_empty() {
                let mut dead = bits::ones(row.rows);
                dead.iter_mut()
                    .zip(&live)
                    .for_each(|(dead, live)| *dead &= !live);
                write_dead(catalog, row, &dead, &doubles)?;
            }
            let mut stored = Docs::begin(catalog, &writer.state);
            for (row, doc) in docs {
                if bits::get(&live, *row) {
                    stored.put(first_seq + u64::from(*row), doc)?;
                }
            }
            state.pending -= deaths.write(&mut stored, &picture)?;
            stored.end(&mut state)?;
            catalog.put_state(&state)
        })?;
        drop(picture);
        writer.state = state;

        let mut shown = self.shown_mut();
        deaths.apply(&mut shown);
        let picture = Arc::make_mut(&mut shown.picture);
        picture
            .parts
            .insert(picture.sealed, Part::sealed(segment, live));
        picture.sealed += 1;
        picture.last_seq = state.last_seq;
        drop(shown);
        writer.log_bytes += docs
            .iter()
            .map(|(_, doc)| doc.weight() as u64 + 64)
            .sum::<u64>();
        self.checkpoint_if_due(writer);
        Ok(deaths.len() + doubles.len() as u64)
    }

    /// The rows that a new segment's ids replace, and the rows of its own that are replaced by
    /// later ones of the same id.
    fn find_replaced(&self, segment: &Segment) -> Result<(Deaths, Vec<u32>)> {
        let shown = self.shown();
        let picture = Arc::clone(&shown.picture);
        let reading = segment.read()?;
        let mut deaths = Deaths::default();
        let mut doubles = Vec::new();
        let mut previous = None;
        for rank in 0..segment.rows() {
            let id = reading.id_at(rank)?;
            if let Some(place) = shown.place_of_fresh(&id)
                && previous.as_ref() != Some(&id)
            {
                deaths.add(place);
            }
            if previous.as_ref() == Some(&id) {
                doubles.push(reading.row_at(rank - 1)?);
            }
            previous = Some(id);
        }
        drop(shown);
        for part in 0..picture.sealed {
            find_replaced_in(&picture, part, segment, &mut deaths)?;
        }
        Ok((deaths, doubles))
    }
}

/// Walks the sorted ids of a new segment and of an old one together.
fn find_replaced_in(
    picture: &Picture,
    part: usize,
    new: &Segment,
    deaths: &mut Deaths,
) -> Result<()> {
    let Kind::Sealed(old) = &picture.parts[part].0 else {
        return Ok(());
    };
    let (new, new_rows) = (new.read()?, new.rows());
    let (reading, old_rows) = (old.segment.read()?, old.segment.rows());
    let (old_min, old_max) = (reading.id_at(0)?, reading.id_at(old_rows - 1)?);
    if new.id_at(0)? > old_max || new.id_at(new_rows - 1)? < old_min {
        return Ok(());
    }
    let (mut from, mut previous) = (0, None);
    for rank in 0..new_rows {
        let id = new.id_at(rank)?;
        if id < old_min || previous.as_ref() == Some(&id) {
            continue;
        }
        if id > old_max {
            break;
        }
        if let Some(probe) = reading.probe(&id) {
            let (row, next) = reading.find(&probe, from)?;
            from = next;
            if let Some(row) = row.filter(|row| bits::get(&old.live, *row)) {
                deaths.add(Place {
                    part: part as u32,
                    row,
                });
            }
        }
        previous = Some(id);
    }
    Ok(())
}
