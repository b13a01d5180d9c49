//! Who may come in: one writer, many readers, and no strangers.

mod common;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{DIM, Fixture, id, row, schema, upserts};
use sela_store::disk::{Disk, DiskFile, Mapped, OpenMode, OsDisk};
use sela_store::{Collection, Error, Fields, Id, Op, Options, Record, Row, Schema, limits};

const OTHER_PROCESS: &str = "SELA_STORE_TEST_DIR";

#[test]
fn a_second_writer_is_refused_and_readers_are_welcome() {
    let fixture = Fixture::new();
    let first = fixture.create(&schema(Record::F32));
    first.write(&upserts(0..3)).unwrap();
    let error = Collection::open(&fixture.dir, &Options::default()).unwrap_err();
    assert!(
        matches!(&error, Error::Locked { dir } if dir == &fixture.dir),
        "{error}"
    );
    assert!(error.hint().is_some());
    let error = Collection::create(&fixture.dir, &schema(Record::F32), &Options::default());
    assert!(matches!(error, Err(Error::Locked { .. })));
    let reader = Collection::open(&fixture.dir, &Options::read_only()).unwrap();
    assert_eq!(reader.count(None).unwrap(), 3);
    drop(first);
    drop(Collection::open(&fixture.dir, &Options::default()).unwrap());
    assert_eq!(reader.count(None).unwrap(), 3);
}

#[test]
fn another_process_may_read_but_not_write() {
    if let Ok(dir) = std::env::var(OTHER_PROCESS) {
        // This is the other process.
        let dir = Path::new(&dir);
        let error = Collection::open(dir, &Options::default()).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        let reader = Collection::open(dir, &Options::read_only()).unwrap();
        assert_eq!(reader.get(&[id(4)], Fields::ALL).unwrap()[0], Some(row(4)));
        return;
    }
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    collection.write(&upserts(0..3)).unwrap();
    collection.seal().unwrap();
    collection.write(&upserts(3..5)).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_may_read_but_not_write"])
        .env(OTHER_PROCESS, &fixture.dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    collection.write(&upserts(5..6)).unwrap();
}

#[test]
fn folders_that_are_no_collections() {
    let fixture = Fixture::new();
    let open = |dir: &Path| Collection::open(dir, &Options::default()).unwrap_err();
    let error = open(&fixture.dir);
    assert!(matches!(error, Error::NotACollection { .. }), "{error}");
    assert!(!fixture.dir.exists(), "a failed open leaves nothing behind");

    fs::create_dir(&fixture.dir).unwrap();
    assert!(matches!(open(&fixture.dir), Error::NotACollection { .. }));
    fs::write(fixture.dir.join("thesis.txt"), "irreplaceable").unwrap();
    let error = Collection::create(&fixture.dir, &schema(Record::F32), &Options::default());
    assert!(matches!(error, Err(Error::NotEmpty { name, .. }) if name == "thesis.txt"));
    fs::remove_file(fixture.dir.join("thesis.txt")).unwrap();

    // A database of someone else's.
    let foreign = rusqlite::Connection::open(fixture.dir.join("catalog.sqlite")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(foreign);
    let error = open(&fixture.dir);
    assert!(error.to_string().contains("another program"), "{error}");
    assert!(Collection::create(&fixture.dir, &schema(Record::F32), &Options::default()).is_err());
}

#[test]
fn a_creation_cut_short_can_be_done_again() {
    for step in 0..4 {
        let fixture = Fixture::new();
        fs::create_dir_all(&fixture.dir).unwrap();
        fs::write(fixture.dir.join("lock"), "").unwrap();
        if step > 0 {
            fs::create_dir(fixture.dir.join("segments")).unwrap();
        }
        if step > 1 {
            fs::write(fixture.dir.join("catalog.sqlite"), "").unwrap();
        }
        if step > 2 {
            let begun = rusqlite::Connection::open(fixture.dir.join("catalog.sqlite")).unwrap();
            begun
                .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
                .unwrap();
        }
        let error = Collection::open(&fixture.dir, &Options::default()).unwrap_err();
        assert!(
            matches!(error, Error::NotACollection { .. }),
            "{step}: {error}"
        );
        let collection = fixture.create(&schema(Record::F32));
        collection.write(&upserts(0..2)).unwrap();
        drop(collection);
        assert_eq!(fixture.open().count(None).unwrap(), 2);
        let error = Collection::create(&fixture.dir, &schema(Record::F32), &Options::default());
        assert!(matches!(error, Err(Error::AlreadyExists { .. })));
        assert_eq!(fixture.open().count(None).unwrap(), 2);
    }
}

#[test]
fn unnamed_segments_are_swept_by_writers_only() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    collection.write(&upserts(0..10)).unwrap();
    collection.seal().unwrap();
    drop(collection);
    let stray = fixture.dir.join("segments/00000000000000ff.seg");
    let foreign = fixture.dir.join("segments/notes.txt");
    fs::write(&stray, "half a segment").unwrap();
    fs::write(&foreign, "mine").unwrap();
    drop(Collection::open(&fixture.dir, &Options::read_only()).unwrap());
    assert!(stray.exists());
    assert_eq!(fixture.open().count(None).unwrap(), 10);
    assert!(!stray.exists() && foreign.exists());
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let fixture = Fixture::new();
    drop(fixture.create(&schema(Record::F32)));
    let catalog = rusqlite::Connection::open(fixture.dir.join("catalog.sqlite")).unwrap();
    catalog.execute_batch("PRAGMA user_version = 7").unwrap();
    drop(catalog);
    let error = Collection::open(&fixture.dir, &Options::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NewerFormat {
                found: 7,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn limits_are_named() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F16));
    let numbers = vec![0.5; DIM as usize];
    let upsert = |row: Row| {
        collection
            .write(&[Op::Upsert(row)])
            .unwrap_err()
            .to_string()
    };
    let with = |at: usize, value: f32| {
        let mut numbers = numbers.clone();
        numbers[at] = value;
        Row::new(3, numbers)
    };
    let mut big = sela_store::Payload::new();
    big.insert("x".into(), "y".repeat(limits::PAYLOAD_BYTES_MAX).into());
    for (message, expected) in [
        (
            upsert(Row::new(3, vec![1.0; 5])),
            "row `3`: the vector has 5 numbers",
        ),
        (
            upsert(with(4, f32::NAN)),
            "row `3`: number 4 of the vector is NaN",
        ),
        (
            upsert(with(0, f32::INFINITY)),
            "number 0 of the vector is inf",
        ),
        (
            upsert(with(2, 65_520.0)),
            "number 2 of the vector is 65520, beyond the 16-bit range",
        ),
        (
            upsert(Row::new(Id::Str("x".repeat(513)), numbers.clone())),
            "513 bytes is too long",
        ),
        (
            upsert(Row::new(Id::Str(String::new()), numbers.clone())),
            "cannot be empty",
        ),
        (
            upsert(Row {
                payload: Some(big),
                ..Row::new(1, numbers.clone())
            }),
            "1048576",
        ),
        (
            upsert(Row {
                text: Some("x".repeat((4 << 20) + 1)),
                ..Row::new(1, numbers.clone())
            }),
            "the text of row `1`, in bytes, is 4194305, and the limit is 4194304",
        ),
        (
            collection
                .write(&vec![Op::Delete(Id::Num(1)); limits::BATCH_OPS_MAX + 1])
                .unwrap_err()
                .to_string(),
            "operations of a batch is 100001",
        ),
        (
            Collection::create(&fixture.dir, &Schema::new(65_537, ""), &Options::default())
                .unwrap_err()
                .to_string(),
            "dimensions is 65537",
        ),
        (
            Collection::create(&fixture.dir, &Schema::new(0, ""), &Options::default())
                .unwrap_err()
                .to_string(),
            "at least one number",
        ),
    ] {
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(collection.count(None).unwrap(), 0);
}

#[test]
fn a_vector_too_long_to_score_is_refused() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    let mut numbers = vec![0.5; DIM as usize];
    numbers[0] = 8e18;
    let error = collection
        .write(&[Op::Upsert(Row::new(1, numbers.clone()))])
        .unwrap_err();
    assert!(
        error.to_string().contains("squared length is 6.4e37"),
        "{error}"
    );
    numbers[0] = 7e18;
    collection
        .write(&[Op::Upsert(Row::new(1, numbers.clone()))])
        .unwrap();
    assert_eq!(
        collection.get(&[Id::Num(1)], Fields::ALL).unwrap()[0]
            .as_ref()
            .unwrap()
            .vector,
        numbers
    );
}

#[test]
fn a_bad_batch_leaves_no_trace() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    let mut ops = upserts(0..5);
    ops.push(Op::Upsert(Row::new(9, vec![f32::NAN; DIM as usize])));
    assert!(collection.write(&ops).is_err());
    assert_eq!(collection.count(None).unwrap(), 0);
    let written = collection.write(&[]).unwrap();
    assert_eq!((written.count, written.last_seq), (0, 0));
}

/// JSON of so many arrays in one another.
fn nested(levels: usize) -> serde_json::Value {
    (0..levels).fold(serde_json::Value::Null, |inner, _| vec![inner].into())
}

#[test]
fn json_that_could_not_be_read_again_is_refused() {
    let fixture = Fixture::new();
    let mut deep = schema(Record::F32);
    deep.provenance = nested(limits::PAYLOAD_DEPTH_MAX + 1);
    let error = Collection::create(&fixture.dir, &deep, &Options::default()).unwrap_err();
    let expected = "the depth of the schema's provenance, in levels, is 65, and the limit is 64";
    assert_eq!(error.to_string(), expected);
    assert!(!fixture.dir.exists());

    deep.provenance = nested(limits::PAYLOAD_DEPTH_MAX);
    let collection = fixture.create(&deep);
    let row = |levels| {
        let mut row = Row::new(1, vec![0.5; DIM as usize]);
        let mut payload = sela_store::Payload::new();
        payload.insert("deep".into(), nested(levels));
        row.payload = Some(payload);
        row
    };
    // The payload is a level itself.
    let mut bulk = collection.bulk().unwrap();
    for levels in [limits::PAYLOAD_DEPTH_MAX, 1000] {
        let found = levels + 1;
        let expected = format!(
            "the depth of the payload of row `1`, in levels, is {found}, and the limit is 64"
        );
        let error = collection.write(&[Op::Upsert(row(levels))]).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(bulk.push(row(levels)).unwrap_err().to_string(), expected);
    }
    drop(bulk);
    let right = row(limits::PAYLOAD_DEPTH_MAX - 1);
    collection.write(&[Op::Upsert(right.clone())]).unwrap();
    drop(collection);
    let collection = fixture.open();
    assert_eq!(collection.schema(), &deep);
    let found = collection.get(&[Id::Num(1)], Fields::ALL).unwrap();
    assert_eq!(found[0], Some(right));
}

/// The system's files; once, it cannot look at what has a certain name.
#[derive(Debug, Default)]
struct Watched {
    blind_to: &'static str,
    was_blind: AtomicBool,
    synced: Mutex<Vec<PathBuf>>,
}

impl Watched {
    fn look(&self, path: &Path) -> io::Result<()> {
        let strikes = path.file_name().is_some_and(|name| name == self.blind_to)
            && !self.was_blind.swap(true, Ordering::Relaxed);
        match strikes {
            true => Err(io::Error::other("input/output error")),
            false => Ok(()),
        }
    }
}

impl Disk for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        OsDisk.open(path, mode)
    }

    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapped>> {
        OsDisk.map(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        if path.extension().is_some() {
            self.look(path)?;
        }
        OsDisk.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.look(dir)?;
        OsDisk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(dir)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsDisk.remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.link_or_copy(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.synced.lock().unwrap().push(dir.to_owned());
        OsDisk.sync_dir(dir)
    }
}

fn watched(blind_to: &'static str) -> (Arc<Watched>, Options) {
    let disk = Arc::new(Watched {
        blind_to,
        ..Watched::default()
    });
    let options = Options {
        disk: disk.clone(),
        ..Options::default()
    };
    (disk, options)
}

#[test]
fn a_creation_that_cannot_look_removes_nothing() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    collection.write(&upserts(0..3)).unwrap();
    drop(collection);
    let (disk, options) = watched("catalog.sqlite");
    let error = Collection::create(&fixture.dir, &schema(Record::F32), &options).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(disk.was_blind.load(Ordering::Relaxed));
    assert_eq!(fixture.open().count(None).unwrap(), 3);

    // An unfinished catalog beside what may be segments.
    let catalog = fixture.dir.join("catalog.sqlite");
    fs::write(&catalog, "").unwrap();
    let segment = fixture.dir.join("segments/0000000000000001.seg");
    fs::write(&segment, "rows").unwrap();
    let (disk, options) = watched("segments");
    let error = Collection::create(&fixture.dir, &schema(Record::F32), &options).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(disk.was_blind.load(Ordering::Relaxed));
    assert_eq!(fs::read(&segment).unwrap(), b"rows");
    assert!(catalog.exists());
}

#[test]
fn a_creation_syncs_every_folder_it_makes_a_name_in() {
    let fixture = Fixture::new();
    let root = fixture.folder.path();
    let (disk, options) = watched("");
    let dir = root.join("data/collections/rows");
    drop(Collection::create(&dir, &schema(Record::F32), &options).unwrap());
    let synced = disk.synced.lock().unwrap();
    for folder in ["", "data", "data/collections", "data/collections/rows"] {
        // Joining nothing ends the path with a separator, which compares as none.
        assert!(synced.contains(&root.join(folder)), "{folder}: {synced:?}");
    }
}
