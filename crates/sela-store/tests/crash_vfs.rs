//! The simulated disk and SQLite on it, before anything of ours is trusted to them.

// The counts are printed for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

mod sim;

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags};
use sela_store::disk::{Disk, OpenMode};
use sim::{Cut, Fault, Mount, Part, Plan, Replay, SimDisk, Tree, VFS};

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags_and_vfs(path, OpenFlags::default(), VFS)
}

fn integrity(db: &Connection) -> String {
    db.query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap_or_else(|error| error.to_string())
}

fn count(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
}

/// A file of `bytes` under `/m/a`, stable or not.
fn put(disk: &SimDisk, name: &str, bytes: &[u8], synced: bool) {
    let path = Path::new("/m").join(name);
    let file = disk.open(&path, OpenMode::ReadWrite).expect("opens");
    file.write_at(bytes, 0).expect("writes");
    if synced {
        file.sync().expect("syncs");
        disk.sync_dir(Path::new("/m")).expect("syncs the folder");
    }
}

fn read(tree: &Tree, name: &str) -> Option<Vec<u8>> {
    let ino = tree.find(&Path::new("/m").join(name)).ok()?;
    Some(tree.file(ino).ok()?.to_vec())
}

/// The disk that a crash at the end of the log leaves.
fn crash(disk: &SimDisk, cut: Cut) -> Tree {
    let log = disk.log();
    let mut replay = Replay::new(Tree::default(), &log);
    replay.walk_to(log.len());
    replay.image(cut)
}

#[test]
fn only_synced_bytes_and_names_survive() {
    let disk = SimDisk::recording();
    put(&disk, "stable", b"old", true);
    put(&disk, "stable", b"new", false);
    let file = disk
        .open(Path::new("/m/nameless"), OpenMode::CreateNew)
        .expect("creates");
    file.write_at(b"x", 0).expect("writes");
    file.sync().expect("syncs the data, not the name");

    let left = crash(&disk, Cut::Synced);
    assert_eq!(read(&left, "stable").as_deref(), Some(&b"old"[..]));
    assert_eq!(read(&left, "nameless"), None);
    let killed = crash(&disk, Cut::Kill);
    assert_eq!(read(&killed, "stable").as_deref(), Some(&b"new"[..]));
    assert_eq!(read(&killed, "nameless").as_deref(), Some(&b"x"[..]));
}

#[test]
fn a_rename_is_whole_or_absent() {
    let disk = SimDisk::recording();
    put(&disk, "a", b"one", true);
    put(&disk, "b", b"two", true);
    disk.rename(Path::new("/m/b"), Path::new("/m/a"))
        .expect("renames");
    let mut seen = [0, 0];
    for seed in 0..50 {
        let left = crash(&disk, Cut::Some(seed));
        let renamed = read(&left, "a").as_deref() == Some(b"two");
        assert_eq!(read(&left, "b").is_none(), renamed, "seed {seed}");
        seen[usize::from(renamed)] += 1;
    }
    assert!(seen[0] > 5 && seen[1] > 5, "both outcomes occur: {seen:?}");
}

#[test]
fn a_write_tears_at_sectors_only() {
    let disk = SimDisk::recording();
    put(&disk, "a", &[1; 2048], true);
    put(&disk, "a", &[2; 2048], false);
    let mut torn = 0;
    for seed in 0..200 {
        let bytes = read(&crash(&disk, Cut::Some(seed)), "a").expect("is there");
        assert_eq!(bytes.len(), 2048);
        torn += usize::from(bytes.contains(&1) && bytes.contains(&2));
    }
    assert!(torn > 20, "{torn} of 200 were torn");
}

#[test]
fn a_failed_sync_loses_its_data_for_good() {
    let disk = SimDisk::recording();
    put(&disk, "a", b"old", true);
    let file = disk
        .open(Path::new("/m/a"), OpenMode::ReadWrite)
        .expect("opens");
    file.write_at(b"new", 0).expect("writes");
    disk.set_plan(Some(Plan {
        fault: Fault::Sync,
        nth: 0,
        on: false,
    }));
    file.sync().expect_err("fails by the plan");
    file.sync()
        .expect("the second sync has nothing left to write");
    let log = disk.log();
    let mut replay = Replay::new(Tree::default(), &log).seeded(0);
    replay.walk_to(log.len());
    assert_eq!(
        read(&replay.image(Cut::Kill), "a").as_deref(),
        Some(&b"new"[..])
    );
    assert_eq!(
        read(&replay.image(Cut::AllBut(99)), "a").as_deref(),
        Some(&b"old"[..])
    );
}

#[test]
fn a_failed_sync_of_a_folder_loses_its_names_for_good() {
    let disk = SimDisk::recording();
    put(&disk, "before", b"x", true);
    let file = disk
        .open(Path::new("/m/lost"), OpenMode::CreateNew)
        .expect("creates");
    file.write_at(b"y", 0).expect("writes");
    file.sync().expect("syncs the data, not the name");
    disk.set_plan(Some(Plan {
        fault: Fault::Sync,
        nth: 0,
        on: false,
    }));
    let folder = Path::new("/m");
    disk.sync_dir(folder).expect_err("fails by the plan");
    disk.sync_dir(folder)
        .expect("the second sync has nothing left to write");
    put(&disk, "after", b"z", true);
    let log = disk.log();
    let mut replay = Replay::new(Tree::default(), &log).seeded(0);
    replay.walk_to(log.len());
    let (killed, cut) = (replay.image(Cut::Kill), replay.image(Cut::Synced));
    assert_eq!(read(&killed, "lost").as_deref(), Some(&b"y"[..]));
    assert_eq!(read(&cut, "lost"), None);
    for name in ["before", "after"] {
        assert!(read(&cut, name).is_some(), "{name}");
    }
}

#[test]
fn every_subset_of_whole_writes_is_another_disk() {
    let disk = SimDisk::recording();
    put(&disk, "a", &[0; 5], true);
    let file = disk
        .open(Path::new("/m/a"), OpenMode::ReadWrite)
        .expect("opens");
    for at in 0..5 {
        file.write_at(&[1], at).expect("writes");
    }
    for kept in 0..1 << 5 {
        let bytes = read(&crash(&disk, Cut::Subset(kept)), "a").expect("is there");
        let expected: Vec<u8> = (0..5).map(|bit| (kept >> bit & 1) as u8).collect();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn a_write_tears_at_each_border_and_inside() {
    let disk = SimDisk::recording();
    put(&disk, "a", &[1; 3000], true);
    let file = disk
        .open(Path::new("/m/a"), OpenMode::ReadWrite)
        .expect("opens");
    for value in 2..5 {
        file.write_at(&[value; 2000], 24).expect("writes");
    }
    let log = disk.log();
    let mut replay = Replay::new(Tree::default(), &log);
    replay.walk_to(log.len());
    assert_eq!(replay.tears(1), [488, 1000, 1512, 1001]);
    let torn = |part, rest| {
        let index = 1;
        let image = replay.image(Cut::Torn { index, part, rest });
        let bytes = read(&image, "a").expect("is there");
        assert_eq!((bytes[23], bytes[2024]), (1, 1), "its neighbours stay");
        (bytes[24 + 999], bytes[24 + 1000])
    };
    assert_eq!(torn(Part::Head(1000), false), (3, 2));
    assert_eq!(torn(Part::Tail(1000), false), (2, 3));
    assert_eq!(torn(Part::Head(1000), true), (4, 4));
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = SimDisk::recording();
    disk.set_capacity_bytes(Some(10));
    let file = disk
        .open(Path::new("/m/a"), OpenMode::CreateNew)
        .expect("creates");
    file.write_at(&[1; 8], 0).expect("fits");
    let error = file.write_at(&[2; 8], 8).expect_err("does not fit");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(file.len().expect("has a length"), 10);
    file.write_at(&[3; 8], 0)
        .expect("overwriting needs no room");
    disk.set_capacity_bytes(Some(16));
    file.write_at(&[2; 8], 8).expect("fits now");
}

#[test]
fn wal_with_two_connections() {
    let mount = Mount::new(Arc::new(SimDisk::recording()));
    let path = mount.path("db.sqlite");
    let one = connect(&path).expect("opens");
    let mode: String = one
        .query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))
        .expect("answers");
    assert_eq!(mode, "wal");
    one.execute_batch("PRAGMA synchronous=FULL; CREATE TABLE t(a INTEGER, b BLOB)")
        .expect("runs");
    let two = connect(&path).expect("opens");
    one.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, randomblob(9000))")
        .expect("runs");
    assert_eq!(count(&two).expect("reads"), 0, "not yet committed");
    let busy = two
        .execute("INSERT INTO t VALUES (2, null)", [])
        .expect_err("one writer");
    assert_eq!(
        busy.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy)
    );
    one.execute_batch("COMMIT").expect("commits");
    assert_eq!(count(&two).expect("reads"), 1);
    for _ in 0..300 {
        two.execute("INSERT INTO t VALUES (3, randomblob(500))", [])
            .expect("inserts");
    }
    let (busy, log, done): (i64, i64, i64) = one
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .expect("checkpoints");
    assert_eq!(
        (busy, log, done),
        (0, 0, 0),
        "everything went to the database file"
    );
    assert_eq!(count(&one).expect("reads"), 301);
    assert_eq!(integrity(&two), "ok");
    drop((one, two));
    let again = connect(&path).expect("opens");
    assert_eq!(count(&again).expect("reads"), 301);
    assert_eq!(integrity(&again), "ok");
}

#[test]
fn threads_share_one_wal() {
    let mount = Mount::new(Arc::new(SimDisk::recording()));
    let path = mount.path("db.sqlite");
    connect(&path)
        .expect("opens")
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(a)")
        .expect("runs");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let db = connect(&path).expect("opens");
                db.busy_timeout(std::time::Duration::from_secs(30))
                    .expect("sets");
                for _ in 0..50 {
                    db.execute("INSERT INTO t VALUES (1)", []).expect("inserts");
                    count(&db).expect("reads");
                }
            });
        }
    });
    let db = connect(&path).expect("opens");
    assert_eq!(count(&db).expect("reads"), 200);
    assert_eq!(integrity(&db), "ok");
}

#[test]
fn rollback_journal_and_its_locks() {
    let mount = Mount::new(Arc::new(SimDisk::recording()));
    let path = mount.path("db.sqlite");
    let one = connect(&path).expect("opens");
    one.execute_batch("CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2)")
        .expect("runs");
    let two = connect(&path).expect("opens");
    two.busy_timeout(std::time::Duration::ZERO).expect("sets");
    one.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES (3, 4)")
        .expect("runs");
    count(&two).expect_err("locked out");
    one.execute_batch("ROLLBACK").expect("rolls back");
    assert_eq!(count(&two).expect("reads"), 1);
    two.execute_batch("BEGIN; SELECT * FROM t").expect("reads");
    two.query_row("SELECT a FROM t", [], |_| Ok(()))
        .expect("reads");
    one.busy_timeout(std::time::Duration::ZERO).expect("sets");
    one.execute_batch("INSERT INTO t VALUES (5, 6)")
        .expect_err("a reader is there");
    two.execute_batch("COMMIT").expect("ends");
    one.execute_batch("INSERT INTO t VALUES (5, 6)")
        .expect("runs");
    assert_eq!(count(&two).expect("reads"), 2);
    assert_eq!(integrity(&two), "ok");
}

/// Runs inserts and checkpoints; answers with the length of the log after each step.
fn record_inserts(mode: &str, sync: &str, disk: &SimDisk, mount: &Mount) -> Vec<usize> {
    let db = connect(&mount.path("db.sqlite")).expect("opens");
    db.execute_batch(&format!(
        "PRAGMA journal_mode={mode}; PRAGMA synchronous={sync}"
    ))
    .expect("runs");
    db.execute_batch("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
        .expect("runs");
    let mut acknowledged = vec![disk.log_len()];
    for row in 0..12 {
        db.execute("INSERT INTO t VALUES (?1, randomblob(1700))", [row])
            .expect("inserts");
        acknowledged.push(disk.log_len());
        if row % 5 == 4 {
            db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
                .expect("checkpoints");
        }
    }
    acknowledged
}

/// What is wrong with a database of which `least` steps were acknowledged.
fn fault_of(path: &Path, least: usize) -> Option<String> {
    let db = connect(path).expect("opens");
    let integrity = integrity(&db);
    if integrity != "ok" {
        return Some(integrity);
    }
    match count(&db) {
        // The table itself was not acknowledged.
        _ if least == 0 => None,
        Ok(rows) if rows as usize + 1 == least || rows as usize == least => None,
        Ok(rows) => Some(format!("{rows} rows after {least} steps")),
        Err(error) => Some(error.to_string()),
    }
}

/// Crashes SQLite everywhere; the number of images opened, or the first that was not right.
fn crash_sqlite(mode: &str, sync: &str, powersafe: bool) -> Result<usize, String> {
    let mount_on = |disk: SimDisk| match powersafe {
        true => Mount::claiming_powersafe_overwrite(Arc::new(disk)),
        false => Mount::new(Arc::new(disk)),
    };
    let disk = SimDisk::recording();
    let mount = mount_on(disk.clone());
    let acknowledged = record_inserts(mode, sync, &disk, &mount);
    let log = disk.log();
    let mut replay = Replay::new(Tree::default(), &log);
    let mut images = 0;
    for at in 0..=log.len() {
        replay.walk_to(at);
        let mut cuts = vec![Cut::Kill, Cut::Synced];
        cuts.extend((0..6).map(Cut::Some));
        if replay.pending() <= 4 {
            cuts.extend((0..replay.pending()).flat_map(|i| [Cut::Only(i), Cut::AllBut(i)]));
        }
        let least = acknowledged
            .iter()
            .filter(|position| **position <= at)
            .count();
        for cut in cuts {
            images += 1;
            let mount = mount_on(SimDisk::of(replay.image(cut)));
            if let Some(fault) = fault_of(&mount.path("db.sqlite"), least) {
                return Err(format!("{fault}\n{}", replay.describe(cut)));
            }
        }
    }
    println!(
        "{mode}, {sync}, powersafe {powersafe}: {images} images, {} operations",
        log.len()
    );
    Ok(images)
}

#[test]
fn sqlite_survives_crashes_in_wal_mode() {
    for powersafe in [false, true] {
        crash_sqlite("WAL", "FULL", powersafe).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

#[test]
fn sqlite_survives_crashes_in_rollback_mode() {
    for powersafe in [false, true] {
        crash_sqlite("DELETE", "EXTRA", powersafe).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

#[test]
fn settings_that_promise_less_are_caught() {
    // A log that is not synced at commit, and a journal whose removal is not.
    crash_sqlite("WAL", "NORMAL", false).expect_err("loses acknowledged rows");
    crash_sqlite("DELETE", "FULL", false).expect_err("brings an old journal back");
    // Nothing synced at all: the database itself breaks.
    crash_sqlite("WAL", "OFF", false).expect_err("breaks");
}
