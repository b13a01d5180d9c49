//! The system's own files: a file system that fills up or turns read-only, and a writer killed.
//!
//! The file systems are mounted in a temporary folder, which needs Linux and its root; where that
//! is lacking, the tests say so and end.

// What was lacking, and what was counted, is printed for whoever runs the tests.
#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use sela_store::{Collection, Error, Fields, Id, Op, Options, Row, Schema};

/// A small file system of its own in memory, unmounted when dropped.
struct Mounted {
    folder: tempfile::TempDir,
}

impl Mounted {
    /// Mounts one of `size`, or says why not.
    fn new(size: &str) -> Option<Mounted> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Mounted { folder }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                println!(
                    "not run: no small file system can be mounted here: {}",
                    why.trim()
                );
                None
            }
            Err(error) => {
                println!("not run: no `mount` here: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount
            .arg("-o")
            .arg(format!("remount,{options}"))
            .arg(self.path());
        assert!(
            mount.status().expect("`mount` runs").success(),
            "remounts with {options}"
        );
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, so that a failing test does not leave it behind.
        let _best_effort = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

const DIM: u32 = 64;

fn schema() -> Schema {
    Schema::new(DIM, "external:64")
}

fn options() -> Options {
    Options {
        seal_rows: 500,
        segment_rows: 500,
        ..Options::default()
    }
}

fn row(number: u64) -> Row {
    let mut row = Row::new(
        number,
        (0..DIM).map(|n| number as f32 + n as f32 / 64.0).collect(),
    );
    row.text = Some(format!("verse {number} of many"));
    row
}

fn batch(first: u64) -> Vec<Op> {
    (first..first + 20)
        .map(|number| Op::Upsert(row(number)))
        .collect()
}

fn check_rows(collection: &Collection, numbers: std::ops::Range<u64>) {
    let ids: Vec<Id> = numbers.clone().map(Id::Num).collect();
    let got = collection.get(&ids, Fields::ALL).expect("reads go on");
    for (number, got) in numbers.zip(got) {
        assert_eq!(got, Some(row(number)), "row {number}");
    }
}

fn explain(error: &Error) -> String {
    format!("{error} ({error:?})")
}

/// Opens for writing. A program that another test starts holds the locks of all tests until it
/// runs, so that what was just closed may still be locked for a moment.
fn open(folder: &Path) -> Result<Collection, Error> {
    for _ in 0..1_000 {
        match Collection::open(folder, &options()) {
            Err(Error::Locked { .. }) => std::thread::sleep(Duration::from_millis(5)),
            other => return other,
        }
    }
    Collection::open(folder, &options())
}

#[test]
fn a_full_file_system_refuses_writes_and_recovers() {
    let Some(mounted) = Mounted::new("2m") else {
        return;
    };
    let folder = mounted.path().join("notes");
    let collection = Collection::create(&folder, &schema(), &options()).expect("creates");
    let mut rows = 0;
    let error = loop {
        match collection.write(&batch(rows)) {
            Ok(_) => rows += 20,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, Error::DiskFull { .. }),
        "{}",
        explain(&error)
    );
    assert!(rows > 500, "{rows} rows fitted");
    println!("full after {rows} rows: {error}");
    check_rows(&collection, 0..rows);
    assert_eq!(collection.count(None).expect("counts"), rows);
    collection.write(&batch(rows)).expect_err("still full");

    mounted.remount("size=16m");
    collection
        .write(&batch(rows))
        .expect("writes again without being reopened");
    collection.seal().expect("seals");
    check_rows(&collection, 0..rows + 20);
    drop(collection);
    let again = open(&folder).expect("opens");
    check_rows(&again, 0..rows + 20);
    assert_eq!(again.count(None).expect("counts"), rows + 20);
    let report = again.verify().expect("verifies");
    assert!(report.is_sound(), "{:?}", report.faults);
}

#[test]
fn a_full_file_system_can_be_reopened_while_full() {
    let Some(mounted) = Mounted::new("2m") else {
        return;
    };
    let folder = mounted.path().join("notes");
    let collection = Collection::create(&folder, &schema(), &options()).expect("creates");
    collection.write(&batch(0)).expect("writes");
    let ballast = std::fs::File::create(mounted.path().join("ballast")).expect("creates");
    // Whatever is left, to the last page.
    let mut writer = std::io::BufWriter::with_capacity(4096, ballast);
    let full = std::io::copy(&mut std::io::repeat(7), &mut writer);
    assert!(full.is_err(), "the file system is full");
    drop(writer.into_parts());
    let error = collection
        .write(&batch(20))
        .and_then(|_| collection.write(&batch(40)));
    drop(collection);
    match open(&folder) {
        Ok(again) => check_rows(&again, 0..20),
        Err(error) => assert!(
            matches!(error, Error::DiskFull { .. }),
            "{}",
            explain(&error)
        ),
    }
    println!("on a full disk: {error:?}");
    std::fs::remove_file(mounted.path().join("ballast")).expect("removes");
    let again = open(&folder).expect("opens with room");
    check_rows(&again, 0..20);
    again.write(&batch(60)).expect("writes with room");
}

#[test]
fn a_read_only_file_system_is_read_and_not_written() {
    let Some(mounted) = Mounted::new("8m") else {
        return;
    };
    let folder = mounted.path().join("notes");
    let collection = Collection::create(&folder, &schema(), &options()).expect("creates");
    for first in (0..800).step_by(20) {
        collection.write(&batch(first)).expect("writes");
    }
    drop(collection);
    mounted.remount("ro");
    let error = open(&folder).expect_err("it is read-only");
    assert!(
        matches!(error, Error::ReadOnly { .. }),
        "{}",
        explain(&error)
    );
    println!("a writer is told: {error}");
    let read_only = Options {
        read_only: true,
        ..options()
    };
    let reader =
        Collection::open(&folder, &read_only).unwrap_or_else(|error| panic!("{}", explain(&error)));
    check_rows(&reader, 0..800);
    assert_eq!(reader.count(None).expect("counts"), 800);
    let report = reader.verify().expect("verifies");
    assert!(report.is_sound(), "{:?}", report.faults);
    let refused = reader
        .write(&batch(0))
        .expect_err("a reader does not write");
    assert!(
        matches!(refused, Error::ReadOnly { .. }),
        "{}",
        explain(&refused)
    );
    drop(reader);

    mounted.remount("rw");
    let again = open(&folder).expect("opens");
    again.write(&batch(800)).expect("writes again");
    check_rows(&again, 0..820);
}

/// A collection whose writer was killed, on a file system that has since become read-only: its
/// newest rows are still in the catalog's log.
#[test]
fn a_read_only_file_system_after_a_kill() {
    let Some(mounted) = Mounted::new("64m") else {
        return;
    };
    let folder = mounted.path().join("notes");
    let rows = kill_a_writer(&folder, Duration::from_millis(100));
    mounted.remount("ro");
    let read_only = Options {
        read_only: true,
        ..options()
    };
    let reader =
        Collection::open(&folder, &read_only).unwrap_or_else(|error| panic!("{}", explain(&error)));
    check_rows(&reader, 0..rows);
    drop(reader);
    mounted.remount("rw");
    let again = open(&folder).expect("opens");
    check_rows(&again, 0..rows);
}

/// How often the system's list of locks is read before it is believed.
const READINGS: usize = 100;

/// How many locks this process holds on a file, as far as the system tells.
fn locks_on(path: &Path) -> Option<usize> {
    #[cfg(target_os = "linux")]
    {
        let file = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).ok()?);
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let (file, process) = (format!(":{file}"), std::process::id().to_string());
        let ours = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.contains(&process.as_str()) && words.iter().any(|word| word.ends_with(&file))
        };
        Some(locks.lines().filter(ours).count())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

/// A process that opens a file by itself and closes it loses every lock that SQLite holds on that
/// file for it, and another process may then take the log away under the writer.
#[test]
fn nothing_drops_the_locks_of_the_catalog() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().join("notes");
    let collection = Collection::create(&folder, &schema(), &options()).expect("creates");
    collection.write(&batch(0)).expect("writes");
    let catalog = folder.join("catalog.sqlite");
    // What is held at rest: the least that was seen, not counting lines passed over.
    let readings = (0..READINGS).filter_map(|_| locks_on(&catalog).filter(|&count| count > 0));
    let Some(before) = readings.min() else {
        println!("not run: the system does not tell which files are locked");
        return;
    };
    let copy = folder.with_extension("copy");
    let calls: [(&str, &dyn Fn() -> bool); 7] = [
        ("info", &|| collection.info().is_ok()),
        ("get", &|| {
            collection.get(&[Id::Num(1)], Fields::ALL).is_ok()
        }),
        ("seal", &|| collection.seal().is_ok()),
        ("compact", &|| collection.compact().is_ok()),
        ("verify", &|| collection.verify().is_ok()),
        ("snapshot", &|| collection.snapshot(&copy).is_ok()),
        ("a second writer", &|| {
            Collection::open(&folder, &options()).is_err()
        }),
    ];
    for (name, call) in calls {
        call();
        // The system's list is read a page at a time while other threads lock and unlock, and a
        // line may be passed over; a lock that was dropped stays away however often one looks.
        let held = (0..READINGS).any(|_| locks_on(&catalog) >= Some(before));
        assert!(held, "{name} dropped the locks of the catalog");
    }
}

/// The variable that tells the test below to be the writer.
const CHILD: &str = "SELA_CRASH_TEST_FOLDER";

/// Not a test of its own: the writer that others start and kill.
#[test]
fn child_that_writes_until_killed() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let collection = match open(&folder) {
        Err(Error::NotACollection { .. }) => {
            Collection::create(&folder, &schema(), &options()).expect("creates")
        }
        other => other.unwrap_or_else(|error| panic!("{}", explain(&error))),
    };
    let mut rows = collection.count(None).expect("counts");
    while rows < 100_000 {
        collection.write(&batch(rows)).expect("writes");
        rows += 20;
        println!("acknowledged {rows}");
    }
}

/// Starts a writer and kills it some `time` after it acknowledged its first batch; answers with
/// the rows it acknowledged.
fn kill_a_writer(folder: &Path, time: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("is piped"));
    let (sender, acknowledged) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = lines.lines().map_while(Result::ok);
        // Another line may share the first with the test runner's words.
        lines
            .filter_map(|line| line.rsplit_once("acknowledged ")?.1.parse().ok())
            .for_each(|rows: u64| sender.send(rows).expect("somebody listens"));
    });
    let first = acknowledged
        .recv_timeout(Duration::from_secs(120))
        .expect("a first batch is acknowledged");
    std::thread::sleep(time);
    child.kill().expect("is killed");
    let status = child.wait().expect("is gone");
    let ended = matches!(status.code(), Some(0 | 101));
    assert!(!ended, "it ended before it was killed: {status}");
    let rows = acknowledged.iter().last().unwrap_or(first);
    reader.join().expect("no panic");
    rows
}

#[test]
fn a_killed_writer_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().join("notes");
    let mut before = 0;
    for round in 0..6 {
        let acknowledged = kill_a_writer(&folder, Duration::from_millis(7 + 31 * round));
        assert!(acknowledged > before, "round {round}");
        let collection =
            open(&folder).unwrap_or_else(|error| panic!("round {round}: {}", explain(&error)));
        let rows = collection.count(None).expect("counts");
        assert!(
            rows == acknowledged || rows == acknowledged + 20,
            "{rows} of {acknowledged}"
        );
        check_rows(&collection, 0..rows);
        let report = collection.verify().expect("verifies");
        assert!(report.is_sound(), "round {round}: {:?}", report.faults);
        before = rows;
    }
    println!("{before} rows after six kills");
}
