//! The making of a full-text index is killed, or loses its power, after every operation, or finds
//! the disk full: a collection of a version without one is never worse off for it.

// The counts are printed for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

mod sim;

use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};
use sela_store::{Collection, Error, TextQuery};
use sim::history::{Act, FOLDER, Run, State, options, row, short_life};
use sim::{Cut, Depth, Fault, Mount, Plan, Replay, SimDisk, Tree, VFS, fault_of_image};
use xxhash_rust::xxh3::Xxh3;

/// Brings the catalog of a collection to what a version without an index would have left.
fn take_index_away(mount: &Mount) {
    let path = mount.path(FOLDER).join("catalog.sqlite");
    let db = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), VFS).expect("opens");
    let json: String = db
        .query_row("SELECT value FROM meta WHERE name = 'state'", [], |row| {
            row.get(0)
        })
        .expect("has a state");
    let mut state: serde_json::Value = serde_json::from_str(&json).expect("is JSON");
    let fields = state.as_object_mut().expect("is an object");
    fields.remove("text_index").expect("has an index");
    let json = state.to_string();
    let mut sum = Xxh3::new();
    sum.update(b"meta\0");
    for text in ["state", &json] {
        sum.update(&(text.len() as u64).to_le_bytes());
        sum.update(text.as_bytes());
    }
    db.execute(
        "UPDATE meta SET value = ?, sum = ? WHERE name = 'state'",
        (json, sum.digest() as i64),
    )
    .expect("is written");
    db.execute_batch("DROP TABLE fts").expect("is dropped");
}

/// A collection without an index, with texts for several steps and dead ones among them, and
/// what it holds.
fn without_index() -> (Tree, State) {
    let mut run = Run::as_production(SimDisk::recording());
    run.all(&short_life());
    let rows = (200..300).map(|number| row(number, 1)).collect();
    run.act(&Act::Bulk(rows)).expect("loads");
    let deletes = (200..220).map(|number| sela_store::Op::Delete(row(number, 0).id));
    run.act(&Act::Write(deletes.collect())).expect("writes");
    let model = run.model();
    run.collection = None;
    take_index_away(&run.mount);
    let state = State {
        what: "a version without an index".to_owned(),
        begun: 0,
        acknowledged: Some(0),
        model,
    };
    (run.disk.tree(), state)
}

#[test]
fn an_index_is_made_whatever_interrupts_it() {
    let (before, state) = without_index();
    let disk = SimDisk::recording_from(before.clone());
    let mount = Mount::claiming_powersafe_overwrite(Arc::new(disk.clone()));
    drop(Collection::open(&mount.path(FOLDER), &options(&disk)).expect("opens"));
    drop(mount);
    let log = disk.log();
    assert!(log.len() > 30, "{} operations are no work", log.len());
    let mut replay = Replay::new(before, &log);
    let mut images = 0;
    for at in 0..=log.len() {
        replay.walk_to(at);
        let pending = replay.pending();
        let mut cuts = vec![Cut::Kill, Cut::Synced, Cut::Some(1), Cut::Some(2)];
        cuts.extend((0..pending).flat_map(|index| [Cut::Only(index), Cut::AllBut(index)]));
        for cut in cuts {
            images += 1;
            let states = std::slice::from_ref(&state);
            let fault = fault_of_image(replay.image(cut), states, &[], at, Depth::default());
            if let Some(fault) = fault {
                panic!("{fault}\n{}", replay.describe(cut));
            }
        }
    }
    println!("{images} images of {} operations", log.len());
}

/// The collection opens although its index cannot be made, is read and written, and has its
/// index once there is room.
#[test]
fn a_full_disk_puts_the_index_off() {
    let (before, state) = without_index();
    let seen = |nth| {
        let disk = SimDisk::of(before.clone());
        disk.set_plan(Some(Plan {
            fault: Fault::NoSpace { short: false },
            nth,
            on: true,
        }));
        let mount = Mount::claiming_powersafe_overwrite(Arc::new(disk.clone()));
        let opened = Collection::open(&mount.path(FOLDER), &options(&disk));
        (disk, mount, opened)
    };
    let (disk, ..) = seen(u64::MAX);
    let operations = disk.seen();
    let mut put_off = 0;
    for nth in 0..operations {
        let (disk, mount, opened) = seen(nth);
        if let Ok(collection) = opened {
            let view = collection.view().expect("a view");
            let query = TextQuery::parse("w5").expect("is a word");
            match collection.search_text(&view, &query, 10, None) {
                Err(error @ Error::NoTextIndex { .. }) => {
                    put_off += 1;
                    assert!(error.to_string().contains("is full"), "{error}");
                }
                other => drop(other.expect("is whole")),
            }
            disk.set_plan(None);
            for number in 400..406 {
                let op = sela_store::Op::Upsert(row(number, 1));
                collection.write(&[op]).expect("writes");
            }
            let report = collection.verify().expect("verifies");
            assert!(report.is_sound(), "{nth}: {:?}", report.faults);
            continue;
        }
        drop(mount);
        disk.set_plan(None);
        let states = std::slice::from_ref(&state);
        let fault = fault_of_image(disk.tree(), states, &[], 0, Depth::default());
        assert_eq!(fault, None, "operation {nth}");
    }
    println!("{put_off} of {operations} operations put the index off");
    assert!(put_off > 3, "{put_off} of {operations}");
}
