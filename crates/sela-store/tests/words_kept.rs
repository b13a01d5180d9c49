//! A full-text index that is not there, has fallen behind or is damaged: it is made by whoever may
//! write, and until then answers with an error and not with what is wrong.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Fixture, id, row, schema, upserts};
use rusqlite::Connection;
use sela_store::{
    Collection, DamagePlace, Error, Fields, Id, Op, Options, Record, Row, TextQuery, verify,
};
use xxhash_rust::xxh3::Xxh3;

/// The ids of the rows that have a word, sorted.
fn having(collection: &Collection, word: &str) -> Result<Vec<Id>, Error> {
    let view = collection.view()?;
    let query = TextQuery::parse(word)?;
    let hits = collection.search_text(&view, &query, 1000, None)?;
    let places: Vec<_> = hits.iter().map(|hit| hit.place).collect();
    let rows = collection.fetch(&view, &places, Fields::ID)?;
    let mut ids: Vec<Id> = rows.into_iter().map(|row| row.id).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// What `having` should answer, told by a look at every row.
fn holding(collection: &Collection, word: &str) -> Vec<Id> {
    let page = collection.scroll(None, 10_000, None, Fields::ALL).unwrap();
    let has = |row: &Row| {
        let text = row.text.as_deref().unwrap_or_default();
        text.split(' ').any(|other| other == word)
    };
    let rows = page.rows.into_iter().map(|(_, row)| row).filter(has);
    let mut ids: Vec<Id> = rows.map(|row| row.id).collect();
    ids.sort_unstable();
    ids
}

fn assert_whole(collection: &Collection) {
    for word in ["row", "text", "7", "60", "61", "63", "none"] {
        assert_eq!(
            having(collection, word).unwrap(),
            holding(collection, word),
            "{word}"
        );
    }
    let report = collection.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.faults);
}

fn catalog_of(dir: &Path) -> Connection {
    Connection::open(dir.join("catalog.sqlite")).unwrap()
}

/// Changes the counters, with the sum that goes with them.
fn change_state(dir: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let db = catalog_of(dir);
    let sql = "SELECT value FROM meta WHERE name = 'state'";
    let json: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&json).unwrap();
    change(&mut state);
    let json = state.to_string();
    let mut sum = Xxh3::new();
    sum.update(b"meta\0");
    for text in ["state", &json] {
        sum.update(&(text.len() as u64).to_le_bytes());
        sum.update(text.as_bytes());
    }
    let sql = "UPDATE meta SET value = ?, sum = ? WHERE name = 'state'";
    db.execute(sql, (json, sum.digest() as i64)).unwrap();
}

/// Segments, fresh rows, dead rows whose texts are still there.
fn made(fixture: &Fixture) {
    let collection = fixture.create(&schema(Record::F32));
    collection.write(&upserts(0..60)).unwrap();
    collection.seal().unwrap();
    collection.write(&upserts(55..70)).unwrap();
    let deletes: Vec<Op> = (3..9).map(|n| Op::Delete(id(n))).collect();
    collection.write(&deletes).unwrap();
}

fn assert_refused_for_reading(dir: &Path, told: &str) {
    let reader = Collection::open(dir, &Options::read_only()).unwrap();
    let error = having(&reader, "row").unwrap_err();
    assert!(matches!(error, Error::NoTextIndex { .. }), "{error}");
    assert!(error.to_string().contains(told), "{error}");
    assert!(error.hint().unwrap().contains("for writing"));
    assert_eq!(reader.get(&[id(0)], Fields::ALL).unwrap(), [Some(row(0))]);
    assert!(reader.verify().unwrap().is_sound());
}

#[test]
fn a_collection_of_a_version_without_an_index_gets_one() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.dir.join("segments")).unwrap();
    let names: Vec<PathBuf> = ["catalog.sqlite", "lock"]
        .into_iter()
        .map(PathBuf::from)
        .chain(
            fs::read_dir(golden.join("segments"))
                .unwrap()
                .map(|entry| Path::new("segments").join(entry.unwrap().file_name())),
        )
        .collect();
    for name in names {
        fs::copy(golden.join(&name), fixture.dir.join(&name)).unwrap();
    }
    let reader = Collection::open(&fixture.dir, &Options::read_only()).unwrap();
    let error = having(&reader, "row").unwrap_err();
    assert!(error.to_string().contains("no full-text index"), "{error}");
    let collection = fixture.open();
    assert_eq!(having(&collection, "row").unwrap().len(), 36);
    assert_whole(&collection);
    // The reader, which was open before, sees it too.
    assert_whole(&reader);
}

#[test]
fn an_index_that_an_older_version_left_behind_is_made_anew() {
    let fixture = Fixture::new();
    made(&fixture);
    // Words of rows that went meanwhile, as that version leaves them.
    catalog_of(&fixture.dir)
        .execute_batch("INSERT INTO fts(rowid, text) VALUES (9000, 'none at all of row')")
        .unwrap();
    change_state(&fixture.dir, |state| {
        state.as_object_mut().unwrap().remove("text_index").unwrap();
    });
    assert_refused_for_reading(&fixture.dir, "no full-text index");
    assert_whole(&fixture.open());
    // So is one of a version to come, and one that stopped on its way is gone on with.
    change_state(&fixture.dir, |state| {
        state["text_index"]["version"] = 7.into();
    });
    assert_refused_for_reading(&fixture.dir, "no full-text index");
    assert_whole(&fixture.open());
    let db = catalog_of(&fixture.dir);
    db.execute_batch("INSERT INTO fts(fts) VALUES ('delete-all')")
        .unwrap();
    drop(db);
    change_state(&fixture.dir, |state| {
        state["text_index"]["through"] = 0.into();
    });
    assert_refused_for_reading(&fixture.dir, "only to sequence 0 of 75");
    assert_whole(&fixture.open());
    assert_whole(&Collection::open(&fixture.dir, &Options::read_only()).unwrap());
}

/// Ways to damage an index: those that a search notices, and those that only `verify` does.
const SEEN: [&str; 4] = [
    "UPDATE fts_data SET block = zeroblob(9) WHERE id > 10",
    "DELETE FROM fts_data WHERE id > 10",
    "DELETE FROM fts_docsize",
    "INSERT INTO fts(rowid, text) VALUES (4, 'the text of row 4')",
];
const UNSEEN: [&str; 4] = [
    "INSERT INTO fts(fts, rowid, text) VALUES ('delete', 1, 'the text of row 0')",
    "INSERT INTO fts(fts) VALUES ('delete-all')",
    "UPDATE fts_data SET block = x'0c0c' WHERE id = 1",
    "INSERT INTO fts(rowid, text) VALUES (1, 'none')",
];

fn damaged(sql: &str) -> Fixture {
    let fixture = Fixture::new();
    made(&fixture);
    catalog_of(&fixture.dir).execute_batch(sql).unwrap();
    fixture
}

fn is_named(error: &Error) -> bool {
    matches!(error, Error::Damaged(damage) if matches!(damage.place, DamagePlace::TextIndex { .. }))
}

#[test]
fn damage_of_an_index_is_named_by_verify_and_mended_by_a_writer() {
    for sql in SEEN.into_iter().chain(UNSEEN) {
        let fixture = damaged(sql);
        let faults = verify(&fixture.dir, &Options::default()).unwrap().faults;
        assert!(!faults.is_empty(), "{sql}");
        for fault in &faults {
            let named = matches!(fault.place, DamagePlace::TextIndex { .. });
            assert!(named, "{sql}: {fault}");
        }
        // Once verify has named it, a reader asks it no more.
        let reader = Collection::open(&fixture.dir, &Options::read_only()).unwrap();
        assert!(!reader.verify().unwrap().is_sound());
        let error = having(&reader, "row").unwrap_err();
        assert!(is_named(&error), "{sql}: {error}");
        assert!(error.hint().unwrap().contains("made anew"));
        assert_eq!(reader.get(&[id(0)], Fields::ALL).unwrap(), [Some(row(0))]);
        // The writer's verify names it and has it made anew.
        let collection = fixture.open();
        assert!(!collection.verify().unwrap().is_sound());
        assert_whole(&collection);
        assert_whole(&reader);
    }
}

#[test]
fn damage_that_a_search_meets_is_told_or_mended() {
    for sql in SEEN {
        let fixture = damaged(sql);
        let reader = Collection::open(&fixture.dir, &Options::read_only()).unwrap();
        for _ in 0..2 {
            let error = having(&reader, "row").unwrap_err();
            assert!(is_named(&error), "{sql}: {error}");
        }
        drop(reader);
        let collection = fixture.open();
        assert_eq!(
            having(&collection, "row").unwrap(),
            holding(&collection, "row"),
            "{sql}"
        );
        assert_whole(&collection);
    }
}

#[test]
fn a_damaged_index_refuses_no_write() {
    for sql in SEEN {
        let fixture = damaged(sql);
        let collection = fixture.open();
        collection.write(&upserts(40..80)).unwrap();
        collection
            .write(&[Op::Delete(id(0)), Op::Delete(id(1))])
            .unwrap();
        let mut bulk = collection.bulk().unwrap();
        for n in 70..90 {
            bulk.push(row(n)).unwrap();
        }
        bulk.commit().unwrap();
        assert_eq!(
            collection.get(&[id(85)], Fields::ALL).unwrap(),
            [Some(row(85))]
        );
        // Here and there the damage is not met by what was written.
        let _ = collection.verify().unwrap();
        assert_whole(&collection);
    }
}

#[test]
fn a_damaged_text_is_named_and_its_row_can_be_deleted() {
    let fixture = Fixture::new();
    made(&fixture);
    let sql = "UPDATE docs SET text = 'another text of row 0' WHERE seq = 1";
    catalog_of(&fixture.dir).execute_batch(sql).unwrap();
    let collection = fixture.open();
    // Its words cannot be told any more, so the index cannot be made without it.
    let error = collection.renew_text_index().unwrap_err();
    assert!(error.to_string().contains("table `docs`, row 1"), "{error}");
    let error = having(&collection, "row").unwrap_err();
    assert!(error.to_string().contains("table `docs`, row 1"), "{error}");
    collection.write(&[Op::Delete(id(0))]).unwrap();
    collection.write(&[Op::Delete(id(1))]).unwrap();
    for word in ["row", "7", "another"] {
        assert_eq!(
            having(&collection, word).unwrap(),
            holding(&collection, word)
        );
    }
    // Found out only when the row goes, it is the index that goes with it, and comes back whole.
    let fixture = Fixture::new();
    made(&fixture);
    catalog_of(&fixture.dir).execute_batch(sql).unwrap();
    let collection = fixture.open();
    collection.write(&[Op::Delete(id(0))]).unwrap();
    for word in ["row", "7", "another"] {
        assert_eq!(
            having(&collection, word).unwrap(),
            holding(&collection, word)
        );
    }
}
