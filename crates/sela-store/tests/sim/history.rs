//! A run of the store on a simulated disk, beside a plain map that holds what it should hold.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sela_store::{
    Collection, Edit, Error, Fields, Filter, Id, Op, Options, Result, Row, Schema, Which,
};

use super::disk::SimDisk;
use super::files::Mount;
use super::rng::Rng;
use super::vfs::VFS;

/// The numbers in every vector of these tests.
pub(crate) const DIM: u32 = 8;

/// What a collection should hold: every row, with a number that grows with every write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) rows: BTreeMap<Id, (u64, Row)>,
    order: u64,
}

impl Model {
    pub(crate) fn apply(&mut self, op: &Op) {
        self.order += 1;
        match op {
            Op::Upsert(row) => {
                self.rows.insert(row.id.clone(), (self.order, row.clone()));
            }
            Op::Delete(id) => {
                self.rows.remove(id);
            }
            _ => panic!("an operation that this model does not know"),
        }
    }

    /// Merging and deleting, which is all these lives do, written apart from the store.
    pub(crate) fn edit(&mut self, which: &Which, edit: &Edit) {
        let mut rows: Vec<(u64, Row)> = self.rows.values().cloned().collect();
        rows.sort_by_key(|(order, _)| *order);
        let named: Vec<Row> = match which {
            Which::Ids(ids) => ids
                .iter()
                .filter_map(|id| self.rows.get(id).map(|(_, row)| row.clone()))
                .collect(),
            Which::Filter(filter) => rows
                .into_iter()
                .map(|(_, row)| row)
                .filter(|row| filter.matches(&row.id, row.payload.as_ref()))
                .collect(),
        };
        for mut row in named {
            match edit {
                Edit::Delete => self.apply(&Op::Delete(row.id)),
                Edit::Merge { at: None, values } => {
                    row.payload.get_or_insert_default().extend(values.clone());
                    self.apply(&Op::Upsert(row));
                }
                _ => panic!("an edit that this model does not know"),
            }
        }
    }

    /// What differs between this and the rows a collection gave, ordered by sequence.
    pub(crate) fn difference(&self, found: &[Row]) -> Option<String> {
        let mut expected: Vec<&(u64, Row)> = self.rows.values().collect();
        expected.sort_by_key(|(order, _)| *order);
        if let Some(at) =
            (0..expected.len().min(found.len())).find(|at| expected[*at].1 != found[*at])
        {
            return Some(format!(
                "row {at} is {:?} instead of {:?}",
                found[at], expected[at].1
            ));
        }
        (expected.len() != found.len())
            .then(|| format!("{} rows instead of {}", found.len(), expected.len()))
    }
}

/// Contents that a collection may show, from which position of the log, and must show at least.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) what: String,
    /// The log when the call began that leads here.
    pub(crate) begun: usize,
    /// The log when that call was answered; none if it failed.
    pub(crate) acknowledged: Option<usize>,
    pub(crate) model: Model,
}

/// One thing done to a collection.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Write(Vec<Op>),
    Edit(Which, Edit),
    Bulk(Vec<Row>),
    Seal,
    Compact,
    Snapshot(&'static str),
    Reopen,
}

/// A collection at work, with everything it acknowledged.
#[derive(Debug)]
pub(crate) struct Run {
    /// Before the mount, so that it is closed while its disk is there.
    pub(crate) collection: Option<Collection>,
    pub(crate) disk: SimDisk,
    pub(crate) mount: Mount,
    pub(crate) states: Vec<State>,
    /// Snapshots: name, when acknowledged, contents.
    pub(crate) snapshots: Vec<(&'static str, usize, Model)>,
}

/// Where the collection of a run is on its mount.
pub(crate) const FOLDER: &str = "notes";

pub(crate) fn schema() -> Schema {
    Schema::new(DIM, "external:8")
}

/// Options that seal early and make small segments, so that a short run meets everything.
pub(crate) fn options(disk: &SimDisk) -> Options {
    Options {
        disk: Arc::new(disk.clone()),
        vfs: Some(VFS.to_owned()),
        seal_rows: 24,
        segment_rows: 32,
        ..Options::default()
    }
}

impl Run {
    /// A run that has not yet created its collection, with SQLite trusting the disk less than
    /// its own Unix files would.
    pub(crate) fn new(disk: SimDisk) -> Run {
        let mount = Mount::new(Arc::new(disk.clone()));
        Run::on(disk, mount)
    }

    /// The same with SQLite writing what it writes in production: it then ends a commit with the
    /// commit itself, not with padding that may find the disk full after the fact.
    pub(crate) fn as_production(disk: SimDisk) -> Run {
        let mount = Mount::claiming_powersafe_overwrite(Arc::new(disk.clone()));
        Run::on(disk, mount)
    }

    fn on(disk: SimDisk, mount: Mount) -> Run {
        Run {
            disk,
            mount,
            collection: None,
            states: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.mount.path(FOLDER)
    }

    pub(crate) fn collection(&self) -> &Collection {
        self.collection.as_ref().expect("the collection is open")
    }

    /// What the collection should hold now.
    pub(crate) fn model(&self) -> Model {
        self.states
            .last()
            .map(|state| state.model.clone())
            .unwrap_or_default()
    }

    pub(crate) fn create(&mut self) -> Result<()> {
        let begun = self.disk.log_len();
        let made = self
            .sparing_names(|run| Collection::create(&run.folder(), &schema(), &options(&run.disk)));
        let acknowledged = made.is_ok().then(|| self.disk.log_len());
        self.states.push(State {
            what: "create".to_owned(),
            begun,
            acknowledged,
            model: Model::default(),
        });
        self.collection = Some(made?);
        Ok(())
    }

    pub(crate) fn open(&mut self) -> Result<()> {
        self.collection = None;
        let opened = self.sparing_names(|run| Collection::open(&run.folder(), &options(&run.disk)));
        self.collection = Some(opened?);
        Ok(())
    }

    /// Does what makes or opens a catalog. When the folder cannot be synced there, the next try
    /// finds the names and takes them for synced, or SQLite has passed over the failure: a disk
    /// that lost those names for good, and then syncs the folder without a word, loses rows.
    fn sparing_names<T>(&self, work: impl FnOnce(&Run) -> T) -> T {
        self.disk.spare_names(true);
        let result = work(self);
        self.disk.spare_names(false);
        result
    }

    /// Does one thing; whatever it acknowledged is noted even when it fails later on.
    pub(crate) fn act(&mut self, act: &Act) -> Result<()> {
        match act {
            Act::Write(ops) => {
                let begun = self.disk.log_len();
                let result = self.collection().write(ops);
                self.note("write", begun, result.is_ok(), ops.iter().cloned());
                result.map(drop)
            }
            Act::Edit(which, edit) => {
                let begun = self.disk.log_len();
                let result = self.collection().edit(which, edit);
                let mut model = self.model();
                model.edit(which, edit);
                self.note_model("edit", begun, result.is_ok(), model);
                result.map(drop)
            }
            Act::Bulk(rows) => self.bulk(rows),
            Act::Seal => self.collection().seal().map(drop),
            Act::Compact => self.collection().compact().map(drop),
            Act::Reopen => self.open(),
            Act::Snapshot(name) => {
                let path = self.mount.path(name);
                self.sparing_names(|run| run.collection().snapshot(&path))?;
                self.snapshots
                    .push((name, self.disk.log_len(), self.model()));
                Ok(())
            }
        }
    }

    /// Loads rows; each commit on the way is a state of its own.
    fn bulk(&mut self, rows: &[Row]) -> Result<()> {
        let collection = self.collection.take().expect("the collection is open");
        let result = self.bulk_into(&collection, rows);
        self.collection = Some(collection);
        result
    }

    fn bulk_into(&mut self, collection: &Collection, rows: &[Row]) -> Result<()> {
        let mut bulk = collection.bulk()?;
        let mut waiting = Vec::new();
        for row in rows {
            waiting.push(Op::Upsert(row.clone()));
            let begun = self.disk.log_len();
            let pushed = bulk.push(row.clone());
            if !matches!(pushed, Ok(None)) {
                self.note("bulk segment", begun, pushed.is_ok(), waiting.drain(..));
            }
            pushed?;
        }
        let begun = self.disk.log_len();
        let committed = bulk.commit();
        self.note("bulk commit", begun, committed.is_ok(), waiting.drain(..));
        committed.map(drop)
    }

    fn note(&mut self, what: &str, begun: usize, ok: bool, ops: impl Iterator<Item = Op>) {
        let mut model = self.model();
        ops.for_each(|op| model.apply(&op));
        self.note_model(what, begun, ok, model);
    }

    fn note_model(&mut self, what: &str, begun: usize, ok: bool, model: Model) {
        let what = format!("{what} {}", self.states.len());
        let acknowledged = ok.then(|| self.disk.log_len());
        self.states.push(State {
            what,
            begun,
            acknowledged,
            model,
        });
    }

    /// Does all of it; panics when anything fails.
    pub(crate) fn all(&mut self, acts: &[Act]) {
        self.create()
            .unwrap_or_else(|error| panic!("create: {}", in_full(&error)));
        for (at, act) in acts.iter().enumerate() {
            self.act(act)
                .unwrap_or_else(|error| panic!("act {at}: {}", in_full(&error)));
        }
    }
}

/// All rows of a collection in the order of their sequences.
pub(crate) fn rows_of(collection: &Collection) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut after = None;
    let mut last = 0;
    loop {
        let page = collection.scroll(after, 50, None, Fields::ALL)?;
        for (seq, row) in page.rows {
            assert!(seq > last, "sequence {seq} comes after {last}");
            last = seq;
            rows.push(row);
        }
        after = page.next;
        if after.is_none() {
            return Ok(rows);
        }
    }
}

/// An error with its causes and its advice.
pub(crate) fn in_full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    format!("{text} ({error:?})")
}

/// Row `number` in its `version`: its id, vector, payload and text follow from the two.
pub(crate) fn row(number: u64, version: u64) -> Row {
    let mut rng = Rng::new(number << 20 | version);
    let vector = (0..DIM).map(|_| rng.unit()).collect();
    let id = match number % 5 {
        0 => Id::Str(format!("verse {number}")),
        1 => Id::Uuid(
            u128::from(number)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .to_le_bytes(),
        ),
        _ => Id::Num(number),
    };
    let mut row = Row::new(id, vector);
    if !number.is_multiple_of(3) {
        let payload = serde_json::json!({ "number": number, "version": version, "even": number.is_multiple_of(2) });
        row.payload = payload.as_object().cloned();
    }
    if !number.is_multiple_of(4) {
        // One row in a while is larger than a page of the catalog.
        let words = if number.is_multiple_of(17) { 1500 } else { 6 };
        let text: Vec<String> = (0..words)
            .map(|word| format!("w{}", (number + word * version) % 90))
            .collect();
        row.text = Some(text.join(" "));
    }
    row
}

fn upserts(numbers: std::ops::Range<u64>, version: u64) -> Vec<Op> {
    numbers
        .map(|number| Op::Upsert(row(number, version)))
        .collect()
}

fn deletes(numbers: impl Iterator<Item = u64>) -> Vec<Op> {
    numbers
        .map(|number| Op::Delete(row(number, 0).id))
        .collect()
}

/// Sets a field of rows, and so makes documents where there were none.
fn mark(which: Which, version: u64) -> Act {
    let values = serde_json::json!({ "version": version, "marked": true });
    let values = values.as_object().cloned().unwrap_or_default();
    Act::Edit(which, Edit::Merge { at: None, values })
}

/// A shorter life, for tests that live it very often.
pub(crate) fn short_life() -> Vec<Act> {
    vec![
        Act::Write(upserts(0..4, 1)),
        Act::Write(vec![
            Op::Delete(row(1, 0).id),
            Op::Upsert(row(2, 2)),
            Op::Upsert(row(17, 1)),
        ]),
        Act::Seal,
        mark(
            Which::Ids(vec![row(0, 0).id, row(2, 0).id, row(99, 0).id]),
            5,
        ),
        Act::Write(deletes([0, 3].into_iter())),
        Act::Bulk((20..60).map(|number| row(number, 1)).collect()),
        Act::Compact,
        Act::Write(upserts(21..24, 2)),
        Act::Edit(Which::Filter(Filter::eq("even", true)), Edit::Delete),
        Act::Snapshot("copy"),
        Act::Reopen,
        Act::Write(upserts(24..26, 3)),
    ]
}

/// A short life of a collection that meets every kind of change.
pub(crate) fn life() -> Vec<Act> {
    let mut mixed = upserts(3..8, 2);
    mixed.push(Op::Delete(row(1, 0).id));
    mixed.push(Op::Upsert(row(4, 3)));
    vec![
        Act::Write(upserts(0..5, 1)),
        Act::Write(mixed),
        Act::Write(deletes([2, 99].into_iter())),
        // Enough fresh rows for the store to seal by itself.
        Act::Write(upserts(10..32, 1)),
        Act::Write(deletes(11..14)),
        Act::Write(upserts(15..19, 2)),
        Act::Seal,
        Act::Bulk(
            (40..115)
                .map(|number| row(number, 1))
                .chain([row(16, 3), row(50, 2)])
                .collect(),
        ),
        Act::Write(upserts(60..63, 2)),
        mark(Which::Filter(Filter::eq("number", 62)), 6),
        mark(Which::Filter(Filter::And(vec![])), 7),
        Act::Snapshot("copy"),
        Act::Write(deletes(
            (40..115).filter(|number: &u64| number.is_multiple_of(2)),
        )),
        Act::Compact,
        Act::Edit(Which::Filter(Filter::eq("even", false)), Edit::Delete),
        Act::Reopen,
        Act::Write(upserts(100..103, 4)),
        Act::Bulk((200..210).map(|number| row(number, 1)).collect()),
        Act::Write(deletes(200..208)),
        Act::Seal,
        Act::Compact,
        Act::Write(upserts(5..7, 9)),
    ]
}
