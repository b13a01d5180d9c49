//! Bytes that decay after they were found sound are neither served once verify has named them,
//! nor given new checksums by compaction.

mod common;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use common::Fixture;
use sela_store::{Collection, DamagePlace, Error, Fields, Id, Op, Options, Row, Schema, verify};

const VECTOR: Fields = Fields {
    vector: true,
    ..Fields::ID
};
const DIM: usize = 384;

/// One segment of 600 rows in blocks of 192, every block of which was read.
fn touched(fixture: &Fixture) -> (Collection, PathBuf) {
    let schema = Schema::new(DIM as u32, "tests");
    let collection = Collection::create(&fixture.dir, &schema, &Options::default()).unwrap();
    let mut bulk = collection.bulk().unwrap();
    for n in 0..600_u64 {
        bulk.push(Row::new(n, vec![n as f32; DIM])).unwrap();
    }
    bulk.commit().unwrap();
    for n in (0..600).step_by(50) {
        collection.get(&[Id::Num(n)], VECTOR).unwrap();
    }
    let path = segments(fixture).remove(0);
    (collection, path)
}

fn segments(fixture: &Fixture) -> Vec<PathBuf> {
    let files = fs::read_dir(fixture.dir.join("segments")).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

/// Flips a bit in place, so that whoever has the file mapped sees it.
fn flip(path: &Path, offset: u64) {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
}

fn record_of_row(row: u64) -> u64 {
    16_384 + row * 4 * DIM as u64
}

#[test]
fn a_block_that_verify_names_is_not_served_any_more() {
    let fixture = Fixture::new();
    let (collection, path) = touched(&fixture);
    let view = collection.view().unwrap();
    flip(&path, record_of_row(200) + 5);
    let report = collection.verify().unwrap();
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    let DamagePlace::Block { block: 1, .. } = report.faults[0].place else {
        panic!("{}", report.faults[0])
    };
    for row in [192, 200, 383] {
        let error = collection.get(&[Id::Num(row)], VECTOR).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
    }
    assert!(matches!(view.parts()[0].block(1), Err(Error::Damaged(_))));
    // Its neighbours are.
    for row in [0, 191, 384, 599] {
        let rows = collection.get(&[Id::Num(row)], VECTOR).unwrap();
        assert_eq!(rows[0].as_ref().unwrap().vector[0], row as f32);
    }
    // What is bad stays so, whatever the file shows later.
    flip(&path, record_of_row(200) + 5);
    assert!(collection.verify().unwrap().is_sound());
    assert!(collection.get(&[Id::Num(200)], VECTOR).is_err());
    drop((collection, view));
    let collection = Collection::open(&fixture.dir, &Options::default()).unwrap();
    assert!(collection.get(&[Id::Num(200)], VECTOR).is_ok());
}

#[test]
fn blocks_whose_checksums_decay_are_not_served_any_more() {
    let fixture = Fixture::new();
    let (collection, path) = touched(&fixture);
    // The last section begins with the sums of the records' blocks.
    let length = fs::metadata(&path).unwrap().len();
    flip(&path, length - 16_384 + 3);
    let report = collection.verify().unwrap();
    assert!(!report.is_sound());
    let error = collection.get(&[Id::Num(5)], VECTOR).unwrap_err();
    assert!(
        error.to_string().contains("checksums of its records"),
        "{error}"
    );
    assert!(collection.get(&[Id::Num(5)], Fields::ID).is_ok());
}

#[test]
fn a_reader_quarantines_what_it_finds() {
    let fixture = Fixture::new();
    let (writer, path) = touched(&fixture);
    drop(writer);
    let reader = Collection::open(&fixture.dir, &Options::read_only()).unwrap();
    reader.get(&[Id::Num(300)], VECTOR).unwrap();
    flip(&path, record_of_row(300));
    assert_eq!(reader.verify().unwrap().faults.len(), 1);
    assert!(reader.get(&[Id::Num(300)], VECTOR).is_err());
}

#[test]
fn compaction_does_not_give_decayed_bytes_new_checksums() {
    let fixture = Fixture::new();
    let (collection, path) = touched(&fixture);
    flip(&path, record_of_row(200) + 5);
    let deletes: Vec<Op> = (400..600).map(|n| Op::Delete(Id::Num(n))).collect();
    collection.write(&deletes).unwrap();
    let error = collection.compact().unwrap_err();
    let Error::Damaged(damage) = &error else {
        panic!("{error}")
    };
    assert!(
        matches!(damage.place, DamagePlace::Block { block: 1, .. }),
        "{error}"
    );
    assert_eq!(segments(&fixture), [path]);
    // What compaction has found is known to all.
    assert!(collection.get(&[Id::Num(200)], VECTOR).is_err());
    assert!(collection.get(&[Id::Num(5)], VECTOR).is_ok());
    assert_eq!(collection.count(None).unwrap(), 400);
    drop(collection);
    let report = verify(&fixture.dir, &Options::default()).unwrap();
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
}
