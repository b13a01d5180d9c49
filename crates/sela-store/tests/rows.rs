//! Rows come back as they were given, whichever way they went in.

mod common;

use common::{Fixture, id, row, schema, upserts, vector};
use sela_store::{Collection, Fields, Id, Op, Options, Record, Row};

/// How rows get in, and what happens before they are read.
#[derive(Clone, Copy, Debug)]
enum Way {
    Write,
    WriteSeal,
    WriteReopen,
    Bulk,
    BulkReopen,
    Compact,
}

const WAYS: [Way; 6] = [
    Way::Write,
    Way::WriteSeal,
    Way::WriteReopen,
    Way::Bulk,
    Way::BulkReopen,
    Way::Compact,
];

fn fill(fixture: &Fixture, record: Record, way: Way, rows: u64) -> Collection {
    let collection = fixture.create(&schema(record));
    match way {
        Way::Bulk | Way::BulkReopen => {
            let mut bulk = collection.bulk().unwrap();
            for n in 0..rows {
                bulk.push(row(n)).unwrap();
            }
            assert_eq!(bulk.commit().unwrap().count, rows);
        }
        _ => {
            assert_eq!(collection.write(&upserts(0..rows)).unwrap().count, rows);
        }
    }
    match way {
        Way::WriteSeal => assert_eq!(collection.seal().unwrap().rows_moved, rows),
        Way::Compact => {
            collection.compact().unwrap();
        }
        Way::WriteReopen | Way::BulkReopen => {
            drop(collection);
            return fixture.open();
        }
        _ => {}
    }
    collection
}

#[test]
fn all_ids_and_fields_come_back() {
    for record in [Record::F32, Record::F16] {
        for way in WAYS {
            let fixture = Fixture::new();
            let collection = fill(&fixture, record, way, 300);
            assert_eq!(collection.count(None).unwrap(), 300, "{way:?}");
            let mut ids: Vec<Id> = (0..300).rev().map(id).collect();
            ids.push(Id::Num(999_999));
            let rows = collection.get(&ids, Fields::ALL).unwrap();
            for (found, n) in rows.iter().zip((0..300).rev()) {
                assert_eq!(found.as_ref(), Some(&row(n)), "{way:?} {record:?}");
            }
            assert_eq!(rows[300], None);
            assert!(
                collection.verify().unwrap().is_sound(),
                "{:?}",
                collection.verify()
            );
        }
    }
}

#[test]
fn upserts_replace_and_deletes_remove() {
    for way in WAYS {
        let fixture = Fixture::new();
        let collection = fill(&fixture, Record::F32, way, 100);
        let last = collection.view().unwrap().last_seq();
        let replaced = Row {
            text: Some("new".into()),
            ..Row::new(id(5), vector(77))
        };
        let ops = [
            Op::Upsert(replaced.clone()),
            Op::Delete(id(6)),
            Op::Delete(Id::Num(123_456)),
            Op::Upsert(row(100)),
            Op::Upsert(row(101)),
            Op::Delete(id(101)),
            Op::Upsert(Row::new(id(7), vector(1))),
            Op::Upsert(row(7)),
        ];
        let written = collection.write(&ops).unwrap();
        assert_eq!(written.count, 8, "{way:?}");
        assert_eq!(written.replaced, 5, "{way:?}");
        assert_eq!(written.last_seq, last + 3, "{way:?}");
        for collection in [collection, fixture_reopened(&fixture)] {
            assert_eq!(collection.count(None).unwrap(), 100, "{way:?}");
            let ids = [5, 6, 7, 8, 100, 101].map(id);
            let rows = collection.get(&ids, Fields::ALL).unwrap();
            let expected = [
                Some(replaced.clone()),
                None,
                Some(row(7)),
                Some(row(8)),
                Some(row(100)),
                None,
            ];
            assert_eq!(rows, expected, "{way:?}");
            assert!(collection.verify().unwrap().is_sound());
            drop(collection);
        }
    }
}

fn fixture_reopened(fixture: &Fixture) -> Collection {
    // A reader beside the writer that is still open.
    Collection::open(&fixture.dir, &Options::read_only()).unwrap()
}
