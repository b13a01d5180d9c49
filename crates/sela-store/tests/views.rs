//! A view stays what it was; blocks and bitmaps are as documented.

mod common;

use common::{DIM, Fixture, id, row, schema, upserts, vector};
use sela_store::{Collection, Fields, Op, Options, Place, Record, Row, Seqs, View};

/// Everything a view shows, read through its parts alone, and its documents.
fn read_all(collection: &Collection, view: &View) -> Vec<(u64, Row)> {
    let mut places = Vec::new();
    let mut seqs = Vec::new();
    for (index, part) in view.parts().iter().enumerate() {
        let table = part.seqs().unwrap();
        for row in 0..part.rows() {
            if part.live()[row as usize / 64] >> (row % 64) & 1 == 1 {
                places.push(Place {
                    part: index as u32,
                    row,
                });
                seqs.push(table.get(row));
            }
        }
    }
    let rows = collection.fetch(view, &places, Fields::ALL).unwrap();
    let mut all: Vec<(u64, Row)> = seqs.into_iter().zip(rows).collect();
    all.sort_by_key(|(seq, _)| *seq);
    all
}

#[test]
fn later_writes_do_not_change_a_view() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    collection.write(&upserts(0..50)).unwrap();
    collection.seal().unwrap();
    collection.write(&upserts(50..90)).unwrap();
    let view = collection.view().unwrap();
    let before = read_all(&collection, &view);
    assert_eq!(before.len(), 90);

    collection.write(&upserts(0..30)).unwrap();
    collection
        .write(&(40..60).map(|n| Op::Delete(id(n))).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(read_all(&collection, &view), before);
    collection.seal().unwrap();
    assert_eq!(read_all(&collection, &view), before);
    for _ in 0..3 {
        collection.compact().unwrap();
        assert_eq!(
            read_all(&collection, &view),
            before,
            "documents were removed under a view"
        );
    }
    assert_eq!(view.live_rows(), 90);
    assert_eq!(view.find(&id(45)).unwrap().map(|place| place.part), Some(0));
    assert_eq!(collection.view().unwrap().find(&id(45)).unwrap(), None);

    let documents = |fixture: &Fixture| -> i64 {
        let catalog = rusqlite::Connection::open(fixture.dir.join("catalog.sqlite")).unwrap();
        catalog
            .query_row("SELECT count(*) FROM docs", [], |row| row.get(0))
            .unwrap()
    };
    let kept = documents(&fixture);
    drop(view);
    collection.compact().unwrap();
    assert!(
        documents(&fixture) < kept,
        "documents of dead rows stay once no view is left"
    );
    assert_eq!(documents(&fixture), 70);
    assert!(collection.verify().unwrap().is_sound());
}

#[test]
fn blocks_hold_the_records_in_order() {
    for (dim, record) in [
        (1, Record::F16),
        (6, Record::F32),
        (384, Record::F32),
        (1500, Record::F16),
    ] {
        let fixture = Fixture::new();
        let mut schema = schema(record);
        schema.dim = dim;
        let collection = Collection::create(&fixture.dir, &schema, &Options::default()).unwrap();
        let rows = 700_u64;
        let vector = |n: u64| {
            (0..dim)
                .map(|i| ((n + u64::from(i)) % 100) as f32)
                .collect()
        };
        let mut bulk = collection.bulk().unwrap();
        for n in 0..rows {
            bulk.push(Row::new(n, vector(n))).unwrap();
        }
        bulk.commit().unwrap();
        let ops: Vec<Op> = (rows..2 * rows)
            .map(|n| Op::Upsert(Row::new(n, vector(n))))
            .collect();
        collection.write(&ops).unwrap();

        let view = collection.view().unwrap();
        assert!(matches!(view.parts()[0].seqs().unwrap(), Seqs::Run(1)));
        assert_eq!(view.parts()[0].segment(), Some(1));
        assert_eq!(view.parts()[1].segment(), None);
        let mut n = 0;
        for part in view.parts() {
            assert_eq!(part.rows_per_block() % 64, 0);
            assert_eq!(part.row_bytes(), dim as usize * record.number_bytes());
            for index in 0..part.blocks() {
                let block = part.block(index).unwrap();
                assert_eq!(block.first_row, index * part.rows_per_block());
                assert_eq!(block.records.len(), block.rows as usize * part.row_bytes());
                assert_eq!(block.padded.len() % 16_384, 0);
                assert_eq!(block.padded.as_ptr() as usize % 64, 0);
                assert!(
                    block.padded[block.records.len()..]
                        .iter()
                        .all(|byte| *byte == 0)
                );
                for bytes in block.records.chunks_exact(part.row_bytes()) {
                    let numbers: Vec<f32> = match record {
                        Record::F32 => bytes
                            .chunks_exact(4)
                            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                            .collect(),
                        _ => bytes
                            .chunks_exact(2)
                            .map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32())
                            .collect(),
                    };
                    assert_eq!(numbers, vector(n), "row {n} of dim {dim}");
                    n += 1;
                }
            }
            assert!(part.block(part.blocks()).is_err());
            assert!(part.id(part.rows()).is_err());
        }
        assert_eq!(n, 2 * rows);
    }
}

#[test]
fn fresh_rows_over_many_stretches() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    let mut views = Vec::new();
    for start in (0..12_000).step_by(1500) {
        collection.write(&upserts(start..start + 1500)).unwrap();
        views.push(collection.view().unwrap());
    }
    for (index, view) in views.iter().enumerate() {
        assert_eq!(view.live_rows(), (index as u64 + 1) * 1500);
    }
    assert!(views[7].parts().len() > 1);
    let all = read_all(&collection, &views[7]);
    assert_eq!(all[11_999].1, row(11_999));
    assert_eq!(all[11_999].0, 12_000);
    assert_eq!(vector(3).len(), DIM as usize);
}

#[test]
fn a_reader_in_the_same_folder_follows_the_writer() {
    let fixture = Fixture::new();
    let writer = fixture.create(&schema(Record::F32));
    let reader = Collection::open(&fixture.dir, &Options::read_only()).unwrap();
    assert_eq!(reader.count(None).unwrap(), 0);
    writer.write(&upserts(0..20)).unwrap();
    let old = reader.view().unwrap();
    assert_eq!(reader.get(&[id(7)], Fields::ALL).unwrap()[0], Some(row(7)));
    writer.write(&upserts(0..20)).unwrap();
    writer.compact().unwrap();
    assert_eq!(reader.count(None).unwrap(), 20);
    assert_eq!(reader.get(&[id(7)], Fields::ALL).unwrap()[0], Some(row(7)));
    // The writer does not know of this view, so its documents are gone; it is told, not guessed.
    let place = old.find(&id(0)).unwrap().unwrap();
    assert_eq!(
        reader
            .fetch(
                &old,
                &[place],
                Fields {
                    vector: true,
                    ..Fields::ID
                }
            )
            .unwrap()
            .len(),
        1
    );
    let error = reader.fetch(&old, &[place], Fields::ALL).unwrap_err();
    assert!(matches!(error, sela_store::Error::ViewExpired), "{error}");
    let error = reader.write(&upserts(0..1)).unwrap_err();
    assert!(
        matches!(error, sela_store::Error::ReadOnly { .. }),
        "{error}"
    );
}

#[test]
fn a_segment_keeps_its_identity_for_as_long_as_it_is_open_and_shares_it_with_nobody() {
    let fixture = Fixture::new();
    let identities = |collection: &Collection| -> Vec<Option<u64>> {
        let view = collection.view().unwrap();
        view.parts()
            .iter()
            .map(sela_store::Part::identity)
            .collect()
    };
    let collection = fixture.create(&schema(Record::F32));
    for rows in [0..40, 40..90] {
        collection.write(&upserts(rows)).unwrap();
        collection.seal().unwrap();
    }
    collection.write(&upserts(90..95)).unwrap();
    let before = identities(&collection);
    assert_eq!(before.len(), 3, "two segments and fresh rows");
    assert!(before[0].is_some() && before[1].is_some());
    assert_ne!(before[0], before[1]);
    assert_eq!(before[2], None, "fresh rows change");
    // Deletes change which rows answer, not what the records are.
    collection.write(&[Op::Delete(id(3))]).unwrap();
    assert_eq!(identities(&collection)[..2], before[..2]);

    drop(collection);
    let reader = fixture.open();
    let apart = identities(&reader);
    assert!(
        apart
            .iter()
            .flatten()
            .all(|id| !before.contains(&Some(*id)))
    );
}
