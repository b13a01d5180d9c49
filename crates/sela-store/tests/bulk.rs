//! Bulk loads: committed by segments, resumable, and gone without a trace when dropped.

mod common;

use common::{Fixture, id, row, schema, upserts, vector};
use sela_store::{Collection, Error, Fields, Id, Options, Record, Row, VectorFault};

fn files(fixture: &Fixture) -> usize {
    std::fs::read_dir(fixture.dir.join("segments"))
        .unwrap()
        .count()
}

#[test]
fn a_dropped_load_keeps_its_full_segments_and_resumes() {
    let fixture = Fixture::new();
    let options = Options {
        segment_rows: 100,
        ..Options::default()
    };
    let collection = Collection::create(&fixture.dir, &schema(Record::F32), &options).unwrap();
    let mut bulk = collection.bulk().unwrap();
    let mut told = 0;
    for n in 0..250 {
        if let Some(written) = bulk.push(row(n)).unwrap() {
            told += 1;
            assert_eq!((written.count, written.last_seq), (told * 100, told * 100));
        }
    }
    assert_eq!(bulk.written().count, 200);
    drop(bulk);
    assert_eq!(files(&fixture), 2, "the unfinished segment is removed");
    assert_eq!(collection.count(None).unwrap(), 200);
    drop(collection);

    let collection = Collection::open(&fixture.dir, &options).unwrap();
    let last = collection.scroll(Some(199), 10, None, Fields::ID).unwrap();
    assert_eq!(last.rows[0].1.id, id(199));
    let mut bulk = collection.bulk().unwrap();
    for n in 200..250 {
        bulk.push(row(n)).unwrap();
    }
    assert_eq!(bulk.commit().unwrap().count, 50);
    let ids: Vec<Id> = (0..250).map(id).collect();
    for (n, found) in collection
        .get(&ids, Fields::ALL)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        assert_eq!(found, Some(row(n as u64)));
    }
    assert!(collection.verify().unwrap().is_sound());
}

#[test]
fn many_documents_seal_a_segment_early() {
    let fixture = Fixture::new();
    let options = Options {
        bulk_bytes_max: 10_000,
        ..Options::default()
    };
    let collection = Collection::create(&fixture.dir, &schema(Record::F32), &options).unwrap();
    let mut bulk = collection.bulk().unwrap();
    let text = "x".repeat(999);
    let mut sealed = 0;
    for n in 0..100_u64 {
        let row = Row {
            text: Some(text.clone()),
            ..Row::new(n, vector(n))
        };
        sealed += usize::from(bulk.push(row).unwrap().is_some());
    }
    bulk.commit().unwrap();
    assert!(sealed >= 9, "{sealed} segments before the last");
    assert_eq!(collection.count(None).unwrap(), 100);
}

#[test]
fn a_load_replaces_rows_wherever_they_are() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    collection.write(&upserts(0..40)).unwrap();
    collection.seal().unwrap();
    collection.write(&upserts(40..80)).unwrap();
    let mut bulk = collection.bulk().unwrap();
    for n in (20..60).rev() {
        bulk.push(Row {
            vector: vector(n + 1),
            ..row(n)
        })
        .unwrap();
    }
    // The same id twice in one load: the last one stays.
    bulk.push(Row {
        vector: vector(33),
        ..row(30)
    })
    .unwrap();
    bulk.push(Row {
        vector: vector(34),
        ..row(30)
    })
    .unwrap();
    // Written by someone else meanwhile.
    collection.write(&upserts(50..52)).unwrap();
    let written = bulk.commit().unwrap();
    assert_eq!((written.count, written.replaced), (42, 42));
    for collection in [
        collection,
        Collection::open(&fixture.dir, &Options::read_only()).unwrap(),
    ] {
        assert_eq!(collection.count(None).unwrap(), 80);
        for n in 0..80 {
            let found = collection
                .get(&[id(n)], Fields::ALL)
                .unwrap()
                .remove(0)
                .unwrap();
            let expected = match n {
                30 => vector(34),
                20..60 => vector(n + 1),
                _ => vector(n),
            };
            assert_eq!(
                found,
                Row {
                    vector: expected,
                    ..row(n)
                },
                "row {n}"
            );
        }
        let report = collection.verify().unwrap();
        assert!(report.is_sound(), "{:?}", report.faults);
    }
}

#[test]
fn a_bad_row_is_refused_and_the_load_goes_on() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    let mut bulk = collection.bulk().unwrap();
    bulk.push(row(0)).unwrap();
    let error = bulk.push(Row::new(9, vec![1.0])).unwrap_err();
    let Error::Vector {
        id: Id::Num(9),
        fault: VectorFault::Dim {
            expected: 6,
            found: 1,
        },
    } = error
    else {
        panic!("{error}")
    };
    bulk.push(row(1)).unwrap();
    assert_eq!(bulk.commit().unwrap().count, 2);
}

#[test]
fn two_loads_and_writers_at_once() {
    let fixture = Fixture::new();
    let options = Options {
        segment_rows: 64,
        seal_rows: 50,
        ..Options::default()
    };
    let collection = Collection::create(&fixture.dir, &schema(Record::F16), &options).unwrap();
    std::thread::scope(|scope| {
        for part in 0..2 {
            let collection = &collection;
            scope.spawn(move || {
                let mut bulk = collection.bulk().unwrap();
                for n in part * 500..part * 500 + 500 {
                    bulk.push(row(n)).unwrap();
                }
                bulk.commit().unwrap();
            });
            scope.spawn(move || {
                for n in (1000 + part * 200..1200 + part * 200).step_by(10) {
                    collection.write(&upserts(n..n + 10)).unwrap();
                }
            });
        }
    });
    assert_eq!(collection.count(None).unwrap(), 1400);
    collection.compact().unwrap();
    let ids: Vec<Id> = (0..1400).map(id).collect();
    let rows = collection.get(&ids, Fields::ALL).unwrap();
    assert!(
        rows.into_iter()
            .enumerate()
            .all(|(n, found)| found == Some(row(n as u64)))
    );
    let report = collection.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.faults);
}
