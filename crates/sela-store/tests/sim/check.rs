//! What must hold of a disk that a crash left behind.

use std::sync::Arc;

use sela_store::disk::Disk;
use sela_store::{Collection, Error, Fields, Options, Row, TextQuery};
use xxhash_rust::xxh3::Xxh3;

use super::disk::SimDisk;
use super::files::Mount;
use super::history::{FOLDER, Model, State, in_full, options, row, rows_of, schema};
use super::tree::Tree;

/// How much is asked of an image, beyond opening it and comparing what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Depth {
    /// First look at it with a reader that changes nothing.
    pub(crate) reader: bool,
    /// Seal, compact and reopen it in the end.
    pub(crate) maintain: bool,
}

/// What a crash at `at` may leave: the indices of the first and the last state allowed; none for
/// the first when the creation was not yet acknowledged.
fn allowed(states: &[State], at: usize) -> (Option<usize>, usize) {
    let acknowledged = |state: &State| state.acknowledged.is_some_and(|position| position <= at);
    let first = states.iter().rposition(acknowledged);
    let last = states
        .iter()
        .rposition(|state| state.begun <= at)
        .unwrap_or(0);
    (first, last.max(first.unwrap_or(0)))
}

/// A number that two disks share only when they hold the same and must show the same: opening
/// both would tell no more than opening one.
pub(crate) fn question_of(
    tree: &Tree,
    states: &[State],
    snapshots: &[(&'static str, usize, Model)],
    at: usize,
) -> u128 {
    let mut hash = Xxh3::new();
    let (first, last) = allowed(states, at);
    let copies = snapshots.iter().filter(|(_, done, _)| *done <= at).count();
    for number in [first.map_or(0, |first| first + 1), last, copies] {
        hash.update(&(number as u64).to_le_bytes());
    }
    tree.digest_into(&mut hash);
    hash.digest128()
}

/// Opens a disk that a crash at position `at` left; what is wrong with it, if anything.
pub(crate) fn fault_of_image(
    tree: Tree,
    states: &[State],
    snapshots: &[(&'static str, usize, Model)],
    at: usize,
    depth: Depth,
) -> Option<String> {
    let disk = SimDisk::of(tree);
    fault_of_disk(&disk, states, snapshots, at, depth).err()
}

/// The same for a disk that the caller keeps.
pub(crate) fn fault_of_disk(
    disk: &SimDisk,
    states: &[State],
    snapshots: &[(&'static str, usize, Model)],
    at: usize,
    depth: Depth,
) -> Result<(), String> {
    let mount = Mount::new(Arc::new(disk.clone()));
    let (first, last) = allowed(states, at);
    if depth.reader
        && let Some(first) = first
    {
        let options = Options {
            read_only: true,
            ..options(disk)
        };
        let reader = Collection::open(&mount.path(FOLDER), &options).map_err(told("a reader"))?;
        compare(&reader, &states[first..=last])?;
    }
    let collection = open_or_create(disk, &mount, first.is_some())?;
    let found = compare(&collection, &states[first.unwrap_or(0)..=last])?;
    let report = collection.verify().map_err(told("verify"))?;
    if !report.is_sound() {
        return Err(format!("verify finds {:?}", report.faults));
    }
    nothing_left_over(disk, &mount, &collection)?;
    write_on(&collection, found)?;
    if depth.maintain {
        maintain(disk, &mount, collection, found)?;
    }
    for (name, acknowledged, model) in snapshots {
        if *acknowledged <= at {
            check_snapshot(disk, &mount, name, model)?;
        }
    }
    Ok(())
}

fn told(what: &'static str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {}", in_full(&error))
}

/// Opens the collection; where its creation may have been cut short, creates it again.
fn open_or_create(disk: &SimDisk, mount: &Mount, created: bool) -> Result<Collection, String> {
    let folder = mount.path(FOLDER);
    match Collection::open(&folder, &options(disk)) {
        Ok(collection) => Ok(collection),
        Err(error) if created => Err(told("open")(error)),
        Err(Error::NotACollection { .. }) => {
            Collection::create(&folder, &schema(), &options(disk)).map_err(told("create again"))
        }
        Err(error) => Err(format!(
            "unclear error before creation: {}",
            in_full(&error)
        )),
    }
}

/// Finds the one of `states` that the collection shows; answers with its number of rows.
fn compare(collection: &Collection, states: &[State]) -> Result<usize, String> {
    let rows = rows_of(collection).map_err(told("scroll"))?;
    let mut differences = Vec::new();
    for state in states.iter().rev() {
        let Some(difference) = state.model.difference(&rows) else {
            return same_by_other_ways(collection, &state.model).map(|()| rows.len());
        };
        differences.push(format!("after {}: {difference}", state.what));
    }
    Err(format!(
        "shows none of the allowed states:\n{}",
        differences.join("\n")
    ))
}

/// Counts and gets must agree with the scroll.
fn same_by_other_ways(collection: &Collection, model: &Model) -> Result<(), String> {
    let count = collection.count(None).map_err(told("count"))?;
    let live = collection.view().map_err(told("view"))?.live_rows();
    let rows = model.rows.len() as u64;
    if (count, live) != (rows, rows) {
        return Err(format!(
            "{rows} rows, but count says {count} and the view {live}"
        ));
    }
    found_by_words(collection, model)?;
    let ids: Vec<_> = model.rows.keys().cloned().collect();
    let got = collection.get(&ids, Fields::ALL).map_err(told("get"))?;
    for (row, (_, expected)) in got.iter().zip(model.rows.values()) {
        if row.as_ref() != Some(expected) {
            return Err(format!("get gives {row:?} instead of {expected:?}"));
        }
    }
    Ok(())
}

/// The full-text index must find the rows whose texts have a word, and no others.
fn found_by_words(collection: &Collection, model: &Model) -> Result<(), String> {
    let view = collection.view().map_err(told("view"))?;
    for word in ["w5", "w23", "w71"] {
        let query = TextQuery::parse(word).map_err(|error| error.to_string())?;
        let hits = collection.search_text(&view, &query, 1000, None);
        let places: Vec<_> = hits
            .map_err(told("a search for words"))?
            .iter()
            .map(|hit| hit.place)
            .collect();
        let found = collection.fetch(&view, &places, Fields::ID);
        let mut found: Vec<_> = found
            .map_err(told("fetch"))?
            .into_iter()
            .map(|row| row.id)
            .collect();
        found.sort_unstable();
        let has_word = |row: &Row| {
            let text = row.text.as_deref().unwrap_or_default();
            text.split(' ').any(|other| other == word)
        };
        let rows = model.rows.values().filter(|(_, row)| has_word(row));
        let expected: Vec<_> = rows.map(|(_, row)| row.id.clone()).collect();
        if found != expected {
            return Err(format!(
                "`{word}` is found in {found:?} instead of {expected:?}"
            ));
        }
    }
    Ok(())
}

/// Segments that no transaction names are gone.
fn nothing_left_over(disk: &SimDisk, mount: &Mount, collection: &Collection) -> Result<(), String> {
    let folder = mount.path(FOLDER).join("segments");
    let files = disk.list(&folder).map_err(|error| error.to_string())?;
    let segments = collection.info().map_err(told("info"))?.segments;
    match files.len() as u64 == segments {
        true => Ok(()),
        false => Err(format!("{segments} segments, but files {files:?}")),
    }
}

/// A further write is taken and seen.
fn write_on(collection: &Collection, rows: usize) -> Result<(), String> {
    let fresh = row(7_777, 1);
    let op = sela_store::Op::Upsert(fresh.clone());
    collection.write(&[op]).map_err(told("a further write"))?;
    let got = collection
        .get(std::slice::from_ref(&fresh.id), Fields::ALL)
        .map_err(told("get"))?;
    let count = collection.count(None).map_err(told("count"))?;
    match got == [Some(fresh)] && count == rows as u64 + 1 {
        true => Ok(()),
        false => Err(format!(
            "a further write leaves {count} rows of {rows} + 1, and {got:?}"
        )),
    }
}

/// Seals, compacts and reopens; the rows must stay.
fn maintain(
    disk: &SimDisk,
    mount: &Mount,
    collection: Collection,
    rows: usize,
) -> Result<(), String> {
    let before = rows_of(&collection).map_err(told("scroll"))?;
    collection.seal().map_err(told("seal"))?;
    collection.compact().map_err(told("compact"))?;
    drop(collection);
    let again = Collection::open(&mount.path(FOLDER), &options(disk)).map_err(told("reopen"))?;
    let after = rows_of(&again).map_err(told("scroll"))?;
    let report = again.verify().map_err(told("verify"))?;
    match before == after && after.len() == rows + 1 && report.is_sound() {
        true => Ok(()),
        false => Err(format!(
            "maintenance turns {} rows into {}",
            before.len(),
            after.len()
        )),
    }
}

fn check_snapshot(disk: &SimDisk, mount: &Mount, name: &str, model: &Model) -> Result<(), String> {
    let copy = Collection::open(&mount.path(name), &options(disk)).map_err(told("snapshot"))?;
    let rows = rows_of(&copy).map_err(told("scroll of the snapshot"))?;
    if let Some(difference) = model.difference(&rows) {
        return Err(format!("the snapshot differs: {difference}"));
    }
    let report = copy.verify().map_err(told("verify of the snapshot"))?;
    match report.is_sound() {
        true => Ok(()),
        false => Err(format!("verify of the snapshot finds {:?}", report.faults)),
    }
}
