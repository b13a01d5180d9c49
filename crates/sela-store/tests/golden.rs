//! Collections written by released versions stay readable for ever, and this version writes the
//! same bytes as the version whose format it claims.
//!
//! To lay down the golden collection of a new format, name a folder that does not exist in
//! `SELA_STORE_GOLDEN` and run this test.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{id, row, schema, upserts, vector};
use sela_store::{Collection, Fields, Filter, Id, Op, Options, Record, Row};

/// One segment with every section, one of plain numbers, one with dead rows, and fresh rows.
fn build(dir: &Path) {
    let mut schema = schema(Record::F16);
    schema.metric = Some("cosine".into());
    schema.provenance = serde_json::json!({"model": "none", "digits": 0.1});
    let collection = Collection::create(dir, &schema, &Options::default()).unwrap();
    let load = |rows: Vec<Row>| {
        let mut bulk = collection.bulk().unwrap();
        for row in rows {
            bulk.push(row).unwrap();
        }
        bulk.commit().unwrap();
    };
    load((0..60).rev().map(row).collect());
    let deletes: Vec<Op> = (0..20).map(|n| Op::Delete(id(n * 2))).collect();
    collection.write(&deletes).unwrap();
    collection.compact().unwrap();
    load((1_000..1_050).map(|n| Row::new(n, vector(n))).collect());
    collection
        .write(&[Op::Delete(Id::Num(1_007)), Op::Delete(id(43))])
        .unwrap();
    collection.write(&upserts(60..75)).unwrap();
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn check(collection: &Collection) {
    let lives = |n: u64| (n >= 40 || n % 2 == 1) && n != 43;
    let ids: Vec<Id> = (0..75).map(id).collect();
    for (n, found) in collection
        .get(&ids, Fields::ALL)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        assert_eq!(found, lives(n as u64).then(|| row(n as u64)), "row {n}");
    }
    for n in 1_000..1_050 {
        let found = collection
            .get(&[Id::Num(n)], Fields::ALL)
            .unwrap()
            .remove(0);
        assert_eq!(found, (n != 1_007).then(|| Row::new(n, vector(n))));
    }
    assert_eq!(collection.count(None).unwrap(), 54 + 49);
    assert_eq!(
        collection.count(Some(&Filter::eq("tags", "mod3"))).unwrap(),
        7
    );
    assert_eq!(collection.schema().provenance["digits"], 0.1);
    assert_eq!(collection.view().unwrap().last_seq(), 125);
    let report = collection.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.faults);
}

#[test]
fn version_1_is_read_and_written() {
    if let Ok(dir) = std::env::var("SELA_STORE_GOLDEN") {
        build(Path::new(&dir));
    }
    let folder = tempfile::tempdir().unwrap();
    // A copy, as opening puts files beside the catalog.
    let copy = folder.path().join("golden");
    fs::create_dir_all(copy.join("segments")).unwrap();
    for file in ["catalog.sqlite", "lock"] {
        fs::copy(golden().join(file), copy.join(file)).unwrap();
    }
    for entry in fs::read_dir(golden().join("segments")).unwrap() {
        let name = entry.unwrap().file_name();
        fs::copy(
            golden().join("segments").join(&name),
            copy.join("segments").join(&name),
        )
        .unwrap();
    }
    check(&Collection::open(&copy, &Options::read_only()).unwrap());
    let collection = Collection::open(&copy, &Options::default()).unwrap();
    check(&collection);

    let fresh = folder.path().join("fresh");
    build(&fresh);
    let rebuilt = Collection::open(&fresh, &Options::default()).unwrap();
    assert_eq!(
        rebuilt.fingerprint().unwrap(),
        collection.fingerprint().unwrap()
    );
    for entry in fs::read_dir(fresh.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let twin = copy.join("segments").join(path.file_name().unwrap());
        assert!(
            fs::read(&path).unwrap() == fs::read(&twin).unwrap(),
            "{} differs",
            path.display()
        );
    }
    collection.write(&upserts(0..10)).unwrap();
    collection.compact().unwrap();
    assert!(collection.verify().unwrap().is_sound());
}
