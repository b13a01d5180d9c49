//! What others do to the files in the middle of a long read: cut them, or replace them.

mod common;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use common::{Fixture, id, row, schema, upserts};
use sela_store::disk::{Disk, DiskFile, Mapped, OpenMode, OsDisk};
use sela_store::{
    Collection, Error, Fields, Filter, Id, Op, Options, Record, Result, Row, Schema, verify,
};

/// Something to be done once.
type Deed = Mutex<Option<Box<dyn FnOnce() + Send>>>;

/// The system's disk, with something done before a file is mapped and a mapped file cut at a
/// look.
#[derive(Clone, Default)]
struct Meddled {
    before_map: Arc<Deed>,
    /// Looks at mapped files until the one looked at is cut.
    looks_left: Arc<AtomicI64>,
}

impl fmt::Debug for Meddled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddled")
    }
}

#[derive(Debug)]
struct MeddledMap {
    inner: Arc<dyn Mapped>,
    path: PathBuf,
    disk: Meddled,
}

impl MeddledMap {
    fn look(&self) {
        if self.disk.looks_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let file = fs::OpenOptions::new().write(true).open(&self.path);
            file.and_then(|file| file.set_len(20_000)).unwrap();
        }
    }
}

impl Mapped for MeddledMap {
    fn bytes(&self) -> io::Result<&[u8]> {
        self.look();
        self.inner.bytes()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.look();
        self.inner.read_at(buf, offset)
    }
}

impl Disk for Meddled {
    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapped>> {
        let deed = self.before_map.lock().unwrap().take();
        if let Some(deed) = deed {
            deed();
        }
        Ok(Arc::new(MeddledMap {
            inner: OsDisk.map(path)?,
            path: path.to_owned(),
            disk: self.clone(),
        }))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        OsDisk.open(path, mode)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsDisk.exists(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
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
        OsDisk.sync_dir(dir)
    }
}

impl Meddled {
    fn options(&self) -> Options {
        Options {
            disk: Arc::new(self.clone()),
            ..Options::default()
        }
    }

    /// How often `work` looks at mapped files.
    fn looks_of(&self, work: impl FnOnce()) -> i64 {
        self.looks_left.store(0, Ordering::SeqCst);
        work();
        -self.looks_left.swap(0, Ordering::SeqCst)
    }

    fn cut_at(&self, look: i64) {
        self.looks_left.store(look, Ordering::SeqCst);
    }
}

/// One segment of 600 rows with payloads, in four blocks of records.
fn four_blocks(fixture: &Fixture, disk: &Meddled) -> (Collection, PathBuf) {
    let schema = Schema::new(384, "tests");
    let collection = Collection::create(&fixture.dir, &schema, &disk.options()).unwrap();
    let mut bulk = collection.bulk().unwrap();
    for n in 0..600_u64 {
        let numbered = Row {
            vector: vec![n as f32; 384],
            ..row(n)
        };
        bulk.push(numbered).unwrap();
    }
    bulk.commit().unwrap();
    let mut files = fs::read_dir(fixture.dir.join("segments")).unwrap();
    let path = files.next().unwrap().unwrap().path();
    (collection, path)
}

/// Does `work` with the segment cut at each of its looks; every time it must say so.
fn cut_at_each_look(what: &str, work: impl Fn(&Collection) -> Result<()>) {
    let (fixture, disk) = (Fixture::new(), Meddled::default());
    let (collection, path) = four_blocks(&fixture, &disk);
    let whole = fs::read(&path).unwrap();
    let looks = disk.looks_of(|| work(&collection).unwrap());
    assert!(looks >= 4, "{what} looks {looks} times in four blocks");
    for look in (1..=looks).step_by((looks as usize / 40).max(1)) {
        disk.cut_at(look);
        let error = work(&collection).expect_err(what);
        assert!(matches!(error, Error::Damaged(_)), "{what}: {error}");
        let text = error.to_string();
        assert!(text.contains("20000 bytes now"), "{what}: {text}");
        fs::write(&path, &whole).unwrap();
    }
    work(&collection).unwrap();
}

#[test]
fn a_segment_cut_during_a_scroll() {
    cut_at_each_look("scroll", |collection| {
        let page = collection.scroll(None, 1000, None, Fields::ALL)?;
        assert_eq!(page.rows.len(), 600);
        Ok(())
    });
}

#[test]
fn a_segment_cut_during_a_selection() {
    cut_at_each_look("select", |collection| {
        let filter = Filter::eq("even", true);
        assert_eq!(collection.count(Some(&filter))?, 200);
        Ok(())
    });
}

#[test]
fn a_segment_cut_during_verify() {
    let (fixture, disk) = (Fixture::new(), Meddled::default());
    let (collection, path) = four_blocks(&fixture, &disk);
    let whole = fs::read(&path).unwrap();
    let check = || verify(&fixture.dir, &disk.options()).unwrap();
    let looks = disk.looks_of(|| assert!(check().is_sound()));
    assert!(looks >= 4, "{looks}");
    for look in (1..=looks).step_by((looks as usize / 60).max(1)) {
        disk.cut_at(look);
        let report = check();
        let told = report.faults.iter().any(|fault| {
            let text = fault.to_string();
            text.contains(path.to_str().unwrap()) && text.contains("20000 bytes")
        });
        assert!(told, "look {look}: {:?}", report.faults);
        fs::write(&path, &whole).unwrap();
    }
    assert!(check().is_sound());
    drop(collection);
}

#[test]
fn a_segment_cut_during_compaction() {
    let prepared = |fixture: &Fixture, disk: &Meddled| {
        let (collection, path) = four_blocks(fixture, disk);
        let deletes: Vec<Op> = (0..200).map(|n| Op::Delete(id(n * 3))).collect();
        collection.write(&deletes).unwrap();
        (collection, path)
    };
    let (fixture, disk) = (Fixture::new(), Meddled::default());
    let (collection, _) = prepared(&fixture, &disk);
    let looks = disk.looks_of(|| assert_eq!(collection.compact().unwrap().rows_moved, 400));
    assert!(looks >= 4, "{looks}");
    for look in 1..=looks {
        let (fixture, disk) = (Fixture::new(), Meddled::default());
        let (collection, path) = prepared(&fixture, &disk);
        disk.cut_at(look);
        let error = collection.compact().unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{look}: {error}");
        assert!(error.to_string().contains("20000 bytes"), "{look}: {error}");
        assert!(path.exists());
        assert_eq!(collection.count(None).unwrap(), 400);
    }
}

/// Between reading a segment's name and opening its file, a writer replaces it.
#[test]
fn verify_follows_a_writer_that_has_replaced_a_segment() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    collection.write(&upserts(0..100)).unwrap();
    collection.seal().unwrap();
    let deletes: Vec<Op> = (0..50).map(|n| Op::Delete(id(n))).collect();
    collection.write(&deletes).unwrap();
    let disk = Meddled::default();
    *disk.before_map.lock().unwrap() = Some(Box::new(move || {
        assert_eq!(collection.compact().unwrap().segments_removed, 1);
    }));
    let report = verify(&fixture.dir, &disk.options()).unwrap();
    assert!(disk.before_map.lock().unwrap().is_none());
    assert!(report.is_sound(), "{:?}", report.faults);
    assert_eq!((report.segments, report.rows), (1, 50));
}

#[test]
fn verify_beside_a_writer_that_compacts() {
    let fixture = Fixture::new();
    let options = Options {
        seal_rows: 60,
        segment_rows: 200,
        ..Options::default()
    };
    let collection = Collection::create(&fixture.dir, &schema(Record::F32), &options).unwrap();
    let done = AtomicBool::new(false);
    let checked = std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..150_u64 {
                let first = round * 37 % 300;
                collection.write(&upserts(first..first + 40)).unwrap();
                if round % 5 == 0 {
                    collection.compact().unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut checked = 0;
        while !done.load(Ordering::SeqCst) {
            let report = verify(&fixture.dir, &Options::default()).unwrap();
            assert!(report.is_sound(), "{:?}", report.faults);
            checked += 1;
        }
        checked
    });
    assert!(checked > 0);
    let ids: Vec<Id> = (0..300).map(id).collect();
    assert!(collection.get(&ids, Fields::ALL).is_ok());
}
