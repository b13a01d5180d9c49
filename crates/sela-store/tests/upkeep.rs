//! Dead rows, small segments and dead documents go without anybody asking, and what goes wrong
//! meanwhile is not the write's fault.

mod common;
mod sim;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use common::{Fixture, id, row, schema};
use sela_store::{Collection, Error, Fields, Op, Options, Record, Row, Schema};
use sim::{Fault, Mount, Plan, SimDisk};

/// Options that make small segments of few rows.
fn tiny() -> Options {
    Options {
        seal_rows: 500,
        segment_rows: 4000,
        ..Options::default()
    }
}

fn create(fixture: &Fixture) -> Collection {
    Collection::create(&fixture.dir, &schema(Record::F32), &tiny()).unwrap()
}

fn files(fixture: &Fixture) -> u64 {
    let files = fs::read_dir(fixture.dir.join("segments")).unwrap();
    files.count() as u64
}

fn documents(fixture: &Fixture) -> i64 {
    let catalog = rusqlite::Connection::open(fixture.dir.join("catalog.sqlite")).unwrap();
    let count = "SELECT count(*) FROM docs";
    catalog.query_row(count, [], |row| row.get(0)).unwrap()
}

fn deletes(numbers: std::ops::Range<u64>) -> Vec<Op> {
    numbers.map(|n| Op::Delete(id(n))).collect()
}

/// The ids in the order of their sequences.
fn in_order(collection: &Collection) -> Vec<sela_store::Id> {
    let page = collection.scroll(None, 100_000, None, Fields::ID).unwrap();
    assert!(page.rows.is_sorted_by(|a, b| a.0 < b.0));
    page.rows.into_iter().map(|(_, row)| row.id).collect()
}

#[test]
fn the_same_rows_over_and_over_take_no_more_room() {
    let fixture = Fixture::new();
    let collection = create(&fixture);
    let rows = 2000;
    let mut most = (0, 0, 0, 0);
    for round in 0..30_u64 {
        for batch in 0..10 {
            // Another order every time, so that the dead are spread over segments.
            let numbers = (0..200).map(|n| (n * 10 + batch) * (2 * round + 1) % rows);
            let ops: Vec<Op> = numbers.map(|n| Op::Upsert(row(n))).collect();
            collection.write(&ops).unwrap();
        }
        let info = collection.info().unwrap();
        most.0 = most.0.max(info.segments);
        most.1 = most.1.max(info.rows_dead);
        most.2 = most.2.max(info.segment_bytes);
        most.3 = most.3.max(documents(&fixture));
        assert_eq!(files(&fixture), info.segments);
    }
    let (segments, dead, bytes, documents) = most;
    assert!(segments <= 32, "{segments} segments");
    assert!(dead <= rows, "{dead} dead rows of {rows}");
    assert!(bytes <= 32 * 8 * 16_384, "{bytes} bytes of segments");
    assert!(documents <= 2 * rows as i64, "{documents} documents");
    // The order is that of the last writes.
    let last: Vec<_> = (0..10)
        .flat_map(|batch| (0..200).map(move |n| id((n * 10 + batch) * 59 % 2000)))
        .collect();
    let expected: Vec<_> = distinct_last(&last);
    assert_eq!(in_order(&collection), expected);
    let report = collection.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.faults);
}

/// Each id at its last place.
fn distinct_last(ids: &[sela_store::Id]) -> Vec<sela_store::Id> {
    let mut seen = std::collections::HashSet::new();
    let mut left: Vec<_> = ids.iter().rev().filter(|id| seen.insert(*id)).collect();
    left.reverse();
    left.into_iter().cloned().collect()
}

#[test]
fn loads_of_the_same_rows_take_no_more_room() {
    let fixture = Fixture::new();
    let collection = create(&fixture);
    for round in 0..6 {
        let mut bulk = collection.bulk().unwrap();
        for n in 0..9000 {
            bulk.push(row((n * 7 + round) % 9000)).unwrap();
        }
        bulk.commit().unwrap();
        let info = collection.info().unwrap();
        assert!(info.segments <= 8, "{} segments", info.segments);
        assert!(info.rows_dead <= 9000, "{} dead rows", info.rows_dead);
        assert_eq!(files(&fixture), info.segments);
    }
    assert_eq!(collection.count(None).unwrap(), 9000);
    assert!(collection.verify().unwrap().is_sound());
}

#[test]
fn small_loads_are_joined() {
    let fixture = Fixture::new();
    let collection = create(&fixture);
    for load in 0..200 {
        let mut bulk = collection.bulk().unwrap();
        for n in load * 10..load * 10 + 10 {
            bulk.push(row(n)).unwrap();
        }
        bulk.commit().unwrap();
        assert!(collection.info().unwrap().segments <= 28);
    }
    assert_eq!(in_order(&collection), (0..2000).map(id).collect::<Vec<_>>());
    assert!(collection.verify().unwrap().is_sound());
}

#[test]
fn large_deletes_give_back_rows_and_documents() {
    let fixture = Fixture::new();
    let collection = create(&fixture);
    let mut bulk = collection.bulk().unwrap();
    for n in 0..8000 {
        bulk.push(row(n)).unwrap();
    }
    bulk.commit().unwrap();
    let before = (collection.info().unwrap(), documents(&fixture));
    for first in (0..7000).step_by(1000) {
        collection.write(&deletes(first..first + 1000)).unwrap();
    }
    let info = collection.info().unwrap();
    assert!(info.rows_dead <= 1000, "{} dead rows", info.rows_dead);
    assert!(info.segment_bytes < before.0.segment_bytes / 2);
    assert!(
        documents(&fixture) < before.1 / 4,
        "{}",
        documents(&fixture)
    );
    // A few single deletes are not worth a new file.
    let segments = fs::read_dir(fixture.dir.join("segments")).unwrap();
    let names: Vec<_> = segments.map(|file| file.unwrap().file_name()).collect();
    collection.write(&deletes(7000..7010)).unwrap();
    assert!(
        names
            .iter()
            .all(|name| fixture.dir.join("segments").join(name).exists())
    );
    assert_eq!(
        in_order(&collection),
        (7010..8000).map(id).collect::<Vec<_>>()
    );
}

#[test]
fn a_damaged_segment_is_left_alone_and_writes_go_on() {
    let fixture = Fixture::new();
    let mut schema = Schema::new(384, "tests");
    schema.record = Record::F32;
    let collection = Collection::create(&fixture.dir, &schema, &tiny()).unwrap();
    let numbered = |n: u64| Row {
        vector: vec![n as f32; 384],
        ..row(n)
    };
    let mut bulk = collection.bulk().unwrap();
    for n in 0..600 {
        bulk.push(numbered(n)).unwrap();
    }
    bulk.commit().unwrap();
    let path = fixture.dir.join("segments/0000000000000001.seg");
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(16_384 + 500 * 1536)).unwrap();
    file.write_all(&[7; 9]).unwrap();
    for first in (0..400).step_by(50) {
        collection.write(&deletes(first..first + 50)).unwrap();
    }
    assert!(path.exists(), "rows that can be restored are dropped");
    assert!(collection.info().unwrap().poisoned.is_none());
    assert_eq!(collection.count(None).unwrap(), 200);
    assert!(matches!(collection.compact(), Err(Error::Damaged(_))));
    collection.write(&deletes(400..600)).unwrap();
    assert!(!path.exists(), "nothing of it is wanted any more");
}

/// A collection on a simulated disk, of 20 sealed rows of which 5 are dead.
fn simulated(disk: &SimDisk, mount: &Mount, seal_rows: usize) -> Collection {
    let options = Options {
        seal_rows,
        ..sim::history::options(disk)
    };
    let path = mount.path("notes");
    let collection = Collection::create(&path, &sim::history::schema(), &options).unwrap();
    let upsert = |n| Op::Upsert(sim::history::row(n, 1));
    collection
        .write(&(0..20).map(upsert).collect::<Vec<_>>())
        .unwrap();
    collection.seal().unwrap();
    collection.write(&simulated_deletes(0..5)).unwrap();
    collection
}

fn simulated_deletes(numbers: std::ops::Range<u64>) -> Vec<Op> {
    numbers
        .map(|n| Op::Delete(sim::history::row(n, 1).id))
        .collect()
}

/// A delete makes compaction due; each thing that it asks of a disk fails once.
#[test]
fn a_write_is_not_refused_because_compaction_failed() {
    for fault in [Fault::NoSpace { short: true }, Fault::Io, Fault::Sync] {
        let mut after_the_write = 0;
        for nth in 0.. {
            let disk = SimDisk::recording();
            let mount = Mount::claiming_powersafe_overwrite(Arc::new(disk.clone()));
            let collection = simulated(&disk, &mount, 24);
            disk.set_plan(Some(Plan {
                fault,
                nth,
                on: false,
            }));
            let written = collection.write(&simulated_deletes(5..7));
            let fired = disk.fired() > 0;
            disk.set_plan(None);
            let poisoned = collection.info().unwrap().poisoned.is_some();
            let count = collection.count(None).unwrap();
            assert_eq!(
                count,
                if written.is_ok() { 13 } else { 15 },
                "{fault:?} {nth}"
            );
            if fired && written.is_ok() {
                after_the_write += 1;
            }
            if !poisoned {
                collection.write(&simulated_deletes(7..8)).unwrap();
                assert!(collection.verify().unwrap().is_sound());
            }
            if !fired {
                assert_eq!(collection.info().unwrap().rows_dead, 1);
                break;
            }
        }
        assert!(
            after_the_write > 3,
            "{fault:?} struck compaction {after_the_write} times"
        );
    }
}

/// Once a sync has failed, compaction begins nothing new: no file is made, none removed.
#[test]
fn compaction_stops_when_the_collection_is_poisoned() {
    let mut struck = 0;
    for nth in 0.. {
        let disk = SimDisk::recording();
        let mount = Mount::claiming_powersafe_overwrite(Arc::new(disk.clone()));
        let collection = simulated(&disk, &mount, 1000);
        collection.write(&simulated_deletes(5..10)).unwrap();
        let fresh = (30..36).map(|n| Op::Upsert(sim::history::row(n, 1)));
        collection.write(&fresh.collect::<Vec<_>>()).unwrap();
        disk.set_plan(Some(Plan {
            fault: Fault::Sync,
            nth,
            on: false,
        }));
        let begun = disk.log_len();
        let compacted = collection.compact();
        if disk.fired() == 0 {
            assert_eq!(compacted.unwrap().segments_removed, 1);
            break;
        }
        struck += 1;
        let error = compacted.unwrap_err();
        assert!(
            collection.info().unwrap().poisoned.is_some(),
            "{nth}: {error}"
        );
        let log = disk.log().split_off(begun);
        let failed = |op: &sim::Op| {
            matches!(
                op,
                sim::Op::SyncFailed { .. } | sim::Op::SyncDirFailed { .. }
            )
        };
        let at = log.iter().position(failed).unwrap();
        for op in &log[at..] {
            match op {
                sim::Op::Write { .. } => panic!("written after failure {nth}"),
                // A segment under way is taken back; no other name changes.
                sim::Op::Names(names) => assert!(
                    names.what == "remove" && names.edits[0].name != "0000000000000001.seg",
                    "{} of {} after failure {nth}",
                    names.what,
                    names.edits[0].name
                ),
                _ => {}
            }
        }
    }
    assert!(struck >= 6, "{struck} syncs");
}
