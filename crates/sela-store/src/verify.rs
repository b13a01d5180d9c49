//! Reads everything and names every fault.

mod words;

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::bits;
use crate::catalog::{CATALOG, Catalog, SegmentRow, State, TABLES};
use crate::collection::Collection;
use crate::error::{Damage, DamagePlace, Error, Result};
use crate::id::Id;
use crate::model::{Options, Report, Schema};
use crate::open::{connect, refuse_absent};
use crate::segment::{self, Segment};
use crate::view::Picture;

/// Reads everything in a collection's folder and names every fault; also when the collection is
/// too damaged to open. It may be open for writing elsewhere meanwhile.
///
/// # Errors
/// [`Error::NotACollection`], and what the file system brings; damage is in the report.
pub fn verify(dir: &Path, options: &Options) -> Result<Report> {
    verify_beside(dir, options, None)
}

/// The same; segments that are open here learn what was found bad.
fn verify_beside(dir: &Path, options: &Options, serving: Option<&Picture>) -> Result<Report> {
    refuse_absent(&options.disk, dir)?;
    let mut options = options.clamped();
    options.read_only = true;
    let mut report = Report::default();
    let checked = connect(dir, &options).and_then(|(catalog, _)| {
        catalog.begin_read()?;
        let checked = Named::open(&catalog, dir, &options)
            .and_then(|named| Verifier::new(&catalog, dir, serving, &mut report).run(named));
        catalog.end_read();
        checked
    });
    match checked {
        // A fault that leaves nothing more to be read behind it.
        Err(Error::Damaged(damage)) => report.faults.push(damage),
        other => other?,
    }
    Ok(report)
}

impl Collection {
    /// Reads everything and names every fault: every block of every segment, every row of the
    /// catalog, SQLite's own trees, that ids are there once, and the counts. Writers wait
    /// meanwhile. A block that is named is not served any more, even if it was sound at its
    /// first use. A full-text index that is named is not either; opened for writing, it is made
    /// anew before this returns.
    ///
    /// # Errors
    /// What the file system brings; damage is in the report.
    pub fn verify(&self) -> Result<Report> {
        let pause = self.writer.as_ref().map(crate::collection::lock);
        let picture = Arc::clone(&self.shown().picture);
        let report = verify_beside(&self.dir, &self.options, Some(&picture))?;
        self.act_on_index(pause, &report);
        Ok(report)
    }
}

/// The segments that the catalog names in the transaction that everything is read in.
struct Named {
    schema: Result<Schema>,
    rows: Vec<Result<SegmentRow>>,
    /// Whether all rows could be walked.
    walked: Result<()>,
    /// Of the sound rows, when the schema is known.
    open: HashMap<u64, Result<Segment>>,
}

impl Named {
    /// Opens all files at once: a writer elsewhere may remove one as soon as it has forgotten it,
    /// and what is open stays readable. A file that is missing is looked for in a new
    /// transaction, and is at fault only if that still names it.
    fn open(catalog: &Catalog, dir: &Path, options: &Options) -> Result<Self> {
        let mut missing = HashSet::new();
        loop {
            let named = Self::open_once(catalog, dir, options);
            let gone: HashSet<u64> = named
                .open
                .iter()
                .filter(|(number, opened)| {
                    let path = segment::path(dir, **number);
                    opened.is_err() && matches!(options.disk.exists(&path), Ok(false))
                })
                .map(|(number, _)| *number)
                .collect();
            if gone.is_subset(&missing) {
                return Ok(named);
            }
            missing = gone;
            catalog.end_read();
            catalog.begin_read()?;
        }
    }

    fn open_once(catalog: &Catalog, dir: &Path, options: &Options) -> Self {
        let mut rows = Vec::new();
        let walked = catalog.each_segment(|row| {
            rows.push(row);
            Ok(())
        });
        let schema = catalog.schema();
        let mut open = HashMap::new();
        if let Ok(schema) = &schema {
            for row in rows.iter().flatten() {
                let path = segment::path(dir, row.number);
                let opened = Segment::open(&options.disk, &path, row, schema);
                open.insert(row.number, opened);
            }
        }
        Self {
            schema,
            rows,
            walked,
            open,
        }
    }
}

struct Verifier<'a> {
    catalog: &'a Catalog,
    dir: &'a Path,
    serving: Option<&'a Picture>,
    report: &'a mut Report,
    /// Document sums of the rows that have one, live or dead, by sequence. Rows of dead
    /// documents may be gone from `docs`; those of live ones may not.
    docs: HashMap<u64, (u64, bool)>,
}

/// Rows that are read before it is asked again whether the file is still whole.
const READING_ROWS: u32 = 1024;

/// A sound segment and its live rows.
struct Sound {
    segment: Segment,
    live: Vec<u64>,
}

impl<'a> Verifier<'a> {
    fn new(
        catalog: &'a Catalog,
        dir: &'a Path,
        serving: Option<&'a Picture>,
        report: &'a mut Report,
    ) -> Self {
        Self {
            catalog,
            dir,
            serving,
            report,
            docs: HashMap::new(),
        }
    }

    fn run(mut self, mut named: Named) -> Result<()> {
        self.check_database()?;
        let schema = self.note(named.schema)?;
        let state = self.note(self.catalog.state())?;
        self.report.catalog_rows += 2;
        let segments = self.check_segment_rows(named.rows, named.walked, state.as_ref())?;
        let mut sound = Vec::new();
        for row in &segments {
            if let Some(opened) = named.open.remove(&row.number)
                && let Some(found) = self.check_segment(row, opened)?
            {
                sound.push(found);
            }
        }
        let row_bytes = schema.as_ref().map(Schema::row_bytes);
        let pending = self.check_pending(row_bytes, state.as_ref())?;
        let all_sound = sound.len() == segments.len();
        self.check_ids(&sound, pending)?;
        self.check_docs(all_sound)?;
        self.check_graves()?;
        self.check_index(state.as_ref())
    }

    /// Notes damage; passes other errors on.
    fn note<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Damaged(damage)) => {
                if !self.report.faults.contains(&damage) {
                    self.report.faults.push(damage);
                }
                Ok(None)
            }
            Err(error @ Error::NewerFormat { .. }) => {
                self.fault_catalog(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn fault_catalog(&mut self, detail: String) {
        let place = DamagePlace::Catalog {
            path: self.dir.join(CATALOG),
        };
        self.report.faults.push(Damage { place, detail });
    }

    fn check_database(&mut self) -> Result<()> {
        for words in self.note(self.catalog.integrity())?.unwrap_or_default() {
            if words.to_lowercase().contains("fts5") {
                self.note::<()>(Err(self.catalog.damaged_words(words)))?;
            } else {
                self.fault_catalog(words);
            }
        }
        let found = self.note(self.catalog.definitions())?.unwrap_or_default();
        for (table, definition) in TABLES {
            let same = |(name, sql): &&(String, Option<String>)| {
                name == table && sql.as_deref() == Some(definition)
            };
            if found.iter().find(same).is_none() {
                self.fault_catalog(format!("table `{table}` is not defined as it should be"));
            }
        }
        Ok(())
    }

    fn check_segment_rows(
        &mut self,
        found: Vec<Result<SegmentRow>>,
        walked: Result<()>,
        state: Option<&State>,
    ) -> Result<Vec<SegmentRow>> {
        let count = found.len() as u64;
        self.report.catalog_rows += count;
        let mut rows = Vec::new();
        for row in found {
            rows.extend(self.note(row)?);
        }
        self.note(walked)?;
        if let Some(state) = state
            && state.segments != count
        {
            let detail = format!(
                "it counts {} segments, and there are {count}",
                state.segments
            );
            self.note::<()>(Err(Error::row("meta", "state", detail)))?;
        }
        let tombstones = self.note(self.catalog.count("tombstones"))?;
        self.report.catalog_rows += tombstones.unwrap_or(0);
        Ok(rows)
    }

    /// Reads a segment to the last byte; the segment if it is sound.
    fn check_segment(
        &mut self,
        row: &SegmentRow,
        opened: Result<Segment>,
    ) -> Result<Option<Sound>> {
        self.report.segments += 1;
        let serving = self.serving.into_iter().flat_map(Picture::segments);
        let serving = serving
            .map(|(_, sealed)| &sealed.segment)
            .find(|segment| segment.is_same(row));
        let dead = self.note(self.catalog.tombstones(row))?;
        let Some(segment) = self.note(opened)? else {
            if let Some(serving) = serving {
                serving.doubt();
            }
            return Ok(None);
        };
        let Some((faults, blocks)) = self.note(segment.verify_blocks())? else {
            return Ok(None);
        };
        if let Some(serving) = serving {
            serving.learn(&segment);
        }
        self.report.blocks += blocks;
        let broken = !faults.is_empty();
        self.report.faults.extend(faults);
        let Some(dead) = dead.filter(|_| !broken) else {
            return Ok(None);
        };
        let mut live = bits::ones(row.rows);
        live.iter_mut()
            .zip(dead)
            .for_each(|(live, dead)| *live &= !dead);
        let checked = self.check_rows(&segment, &live);
        Ok(self.note(checked)?.map(|()| Sound { segment, live }))
    }

    /// Checks that sequences ascend, and that ids and rows point at one another.
    fn check_rows(&mut self, segment: &Segment, live: &[u64]) -> Result<()> {
        let mut reading = segment.read()?;
        let fault = |detail: &str| Err(Error::segment(segment.path(), detail));
        let mut previous = 0;
        for row in 0..segment.rows() {
            if row % READING_ROWS == 0 {
                reading = segment.read()?;
            }
            let seq = reading.seq(row)?;
            if seq <= previous {
                return fault("its sequences do not ascend");
            }
            previous = seq;
            let doc = reading.doc(row)?;
            if doc != 0 {
                self.docs.insert(seq, (doc, bits::get(live, row)));
            }
        }
        let ends = (reading.seq(0)?, previous);
        if ends != segment.seq_ends() {
            return fault("its sequences are not those its header names");
        }
        let mut last: Option<(Id, u32)> = None;
        for rank in 0..segment.rows() {
            if rank % READING_ROWS == 0 {
                reading = segment.read()?;
            }
            let entry = (reading.id_at(rank)?, reading.row_at(rank)?);
            if reading.id(entry.1)? != entry.0 {
                return fault("its ids and rows do not point at one another");
            }
            if last.is_some_and(|last| last >= entry) {
                return fault("its ids are not sorted");
            }
            last = Some(entry);
        }
        self.report.rows += u64::from(bits::count(live));
        Ok(())
    }

    fn check_pending(
        &mut self,
        row_bytes: Option<usize>,
        state: Option<&State>,
    ) -> Result<Vec<Id>> {
        let catalog = self.catalog;
        let mut ids = Vec::new();
        let mut count = 0;
        let walked = catalog.each_pending(row_bytes.unwrap_or(0), |row| {
            count += 1;
            self.report.catalog_rows += 1;
            let Some(row) = self.note(row)? else {
                return Ok(());
            };
            if state.is_some_and(|state| row.seq > state.last_seq) {
                let detail = "its sequence was never given";
                self.note::<()>(Err(Error::row("pending", row.seq, detail)))?;
            }
            if row.doc != 0 {
                self.docs.insert(row.seq, (row.doc, true));
            }
            self.report.rows += 1;
            ids.push(row.id);
            Ok(())
        });
        self.note(walked)?;
        if let Some(state) = state
            && state.pending != count
        {
            let detail = format!(
                "it counts {} pending rows, and there are {count}",
                state.pending
            );
            self.note::<()>(Err(Error::row("meta", "state", detail)))?;
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Checks that no id is live twice: all sorted tables of ids are walked together.
    fn check_ids(&mut self, segments: &[Sound], pending: Vec<Id>) -> Result<()> {
        type Ids<'a> = Box<dyn Iterator<Item = Result<Id>> + 'a>;
        let mut walks: Vec<Ids<'_>> = vec![Box::new(pending.into_iter().map(Ok))];
        for sound in segments {
            // Each step looks whether the file is still whole: others may come between two.
            let live_id = |rank| -> Result<Option<Id>> {
                let reading = sound.segment.read()?;
                match bits::get(&sound.live, reading.row_at(rank)?) {
                    true => reading.id_at(rank).map(Some),
                    false => Ok(None),
                }
            };
            let ranks = 0..sound.segment.rows();
            walks.push(Box::new(
                ranks.filter_map(move |rank| live_id(rank).transpose()),
            ));
        }
        let mut heap = BinaryHeap::new();
        for (index, walk) in walks.iter_mut().enumerate() {
            if let Some(id) = walk.next() {
                heap.push(std::cmp::Reverse((id?, index)));
            }
        }
        let mut previous: Option<Arc<Id>> = None;
        while let Some(std::cmp::Reverse((id, index))) = heap.pop() {
            if previous.as_deref() == Some(&id) {
                self.fault_catalog(format!("row `{id}` is there twice"));
            }
            if let Some(next) = walks[index].next() {
                heap.push(std::cmp::Reverse((next?, index)));
            }
            previous = Some(Arc::new(id));
        }
        Ok(())
    }

    /// Checks every document, and that every live row that should have one does.
    fn check_docs(&mut self, all_sound: bool) -> Result<()> {
        let catalog = self.catalog;
        let walked = catalog.each_doc(0, u64::MAX, true, |seq, doc| {
            self.report.catalog_rows += 1;
            let expected = self.docs.remove(&seq);
            let Some(doc) = self.note(doc)? else {
                return Ok(());
            };
            match expected {
                Some((sum, _)) if sum != doc.sum => {
                    let detail = "it is not the document its row was stored with";
                    self.note::<()>(Err(Error::row("docs", seq, detail)))?;
                }
                // A document whose row is gone waits in a grave; see `check_graves`.
                _ => {}
            }
            Ok(())
        });
        self.note(walked)?;
        let mut missing: Vec<u64> = self
            .docs
            .iter()
            .filter(|(_, (_, live))| *live)
            .map(|(seq, _)| *seq)
            .collect();
        missing.sort_unstable();
        for seq in missing.into_iter().filter(|_| all_sound) {
            self.note::<()>(Err(Error::row("docs", seq, "it is missing")))?;
        }
        Ok(())
    }

    fn check_graves(&mut self) -> Result<()> {
        let catalog = self.catalog;
        let walked = catalog.each_grave(|_, grave| {
            self.report.catalog_rows += 1;
            self.note(grave).map(|_| ())
        });
        self.note(walked).map(|_| ())
    }
}
