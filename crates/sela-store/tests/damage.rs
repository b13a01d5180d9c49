//! Flipped bits, shortened files and garbage are found, named and never served.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Fixture, id, row, schema, upserts, vector};
use sela_store::{
    Collection, Damage, DamagePlace, Error, Fields, Id, Op, Options, Record, Row, verify,
};

/// A collection whose one segment has every section: keys, an order, sequences, documents.
fn with_all_sections(fixture: &Fixture) -> PathBuf {
    let collection = fixture.create(&schema(Record::F32));
    let mut bulk = collection.bulk().unwrap();
    for n in (0..600).rev() {
        bulk.push(row(n)).unwrap();
    }
    bulk.commit().unwrap();
    // Compaction leaves gaps between the sequences.
    let deletes: Vec<Op> = (0..300).map(|n| Op::Delete(id(n * 2))).collect();
    collection.write(&deletes).unwrap();
    collection.compact().unwrap();
    collection.write(&upserts(600..620)).unwrap();
    drop(collection);
    segment_of(&fixture.dir)
}

fn segment_of(dir: &Path) -> PathBuf {
    let mut files = fs::read_dir(dir.join("segments")).unwrap();
    files.next().unwrap().unwrap().path()
}

fn flip(path: &Path, offset: u64, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset as usize] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

fn faults(dir: &Path) -> Vec<Damage> {
    verify(dir, &Options::default()).unwrap().faults
}

/// Reads everything the segment serves; whether every read either failed or was right.
fn reads_are_right_or_fail(dir: &Path) -> bool {
    let collection = match Collection::open(dir, &Options::read_only()) {
        Ok(collection) => collection,
        Err(Error::Damaged(_) | Error::NewerFormat { .. } | Error::NotACollection { .. }) => {
            return true;
        }
        Err(error) => panic!("{error}"),
    };
    let mut right = true;
    for n in (1..620).step_by(2) {
        match collection.get(&[id(n)], Fields::ALL) {
            Ok(found) => right &= found[0] == Some(row(n)),
            Err(Error::Damaged(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let view = collection.view().unwrap();
    for part in view.parts() {
        for block in 0..part.blocks() {
            match part.block(block).map(|block| block.records.len()) {
                Ok(_) | Err(Error::Damaged(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    right
}

#[test]
fn a_flipped_bit_anywhere_in_a_segment_is_found() {
    let fixture = Fixture::new();
    let path = with_all_sections(&fixture);
    assert_eq!(faults(&fixture.dir), []);
    let length = fs::metadata(&path).unwrap().len();
    assert_eq!(length % 16_384, 0);
    assert!(length / 16_384 >= 9, "some sections are missing");
    // Every field of the header, both ends of every page, and a stride through all the rest.
    let page_ends = (0..length / 16_384)
        .flat_map(|page| [0, 1, 7, 2048, 8191, 16_383].map(|offset| page * 16_384 + offset));
    let offsets: Vec<u64> = (0..520)
        .step_by(4)
        .chain(page_ends)
        .chain((0..length).step_by(1237))
        .collect();
    let pristine = fs::read(&path).unwrap();
    for (index, offset) in offsets.into_iter().enumerate() {
        flip(&path, offset, (index % 8) as u8);
        let found = faults(&fixture.dir);
        assert!(!found.is_empty(), "nothing noticed at {offset}");
        for fault in &found {
            let (DamagePlace::Block { path: named, .. } | DamagePlace::Segment { path: named }) =
                &fault.place
            else {
                panic!("{fault} at {offset}")
            };
            assert_eq!(named, &path, "{fault} at {offset}");
        }
        if index % 7 == 0 {
            assert!(
                reads_are_right_or_fail(&fixture.dir),
                "something wrong is served: {offset}"
            );
        }
        fs::write(&path, &pristine).unwrap();
    }
    assert_eq!(faults(&fixture.dir), []);
}

#[test]
fn a_bad_block_is_named_and_its_neighbours_are_served() {
    let fixture = Fixture::new();
    let mut schema = schema(Record::F32);
    schema.dim = 384;
    let collection = Collection::create(&fixture.dir, &schema, &Options::default()).unwrap();
    let mut bulk = collection.bulk().unwrap();
    for n in 0..600_u64 {
        bulk.push(Row::new(n, vec![n as f32; 384])).unwrap();
    }
    bulk.commit().unwrap();
    drop(collection);
    let path = segment_of(&fixture.dir);
    // Row 200 of blocks of 192 rows of 1,536 bytes.
    flip(&path, 16_384 + 200 * 1536 + 5, 3);
    let collection = fixture.open();
    let view = collection.view().unwrap();
    let part = &view.parts()[0];
    assert_eq!((part.blocks(), part.rows_per_block()), (4, 192));
    for block in [0, 2, 3] {
        part.block(block).unwrap();
    }
    for _ in 0..2 {
        let error = part.block(1).unwrap_err();
        let Error::Damaged(Damage { place, .. }) = &error else {
            panic!("{error}")
        };
        let DamagePlace::Block {
            section,
            block,
            first_row,
            end_row,
            ..
        } = place
        else {
            panic!("{error}")
        };
        assert_eq!(
            (*section, *block, *first_row, *end_row),
            ("records", 1, 192, 384)
        );
        assert!(error.hint().unwrap().contains("verify"));
    }
    let vector = Fields {
        vector: true,
        ..Fields::ID
    };
    assert!(collection.get(&[Id::Num(5)], vector).is_ok());
    assert!(matches!(
        collection.get(&[Id::Num(300)], vector),
        Err(Error::Damaged(_))
    ));
    assert_eq!(collection.verify().unwrap().faults.len(), 1);
    // Compaction must not launder it.
    let deletes: Vec<Op> = (400..600).map(|n| Op::Delete(Id::Num(n))).collect();
    collection.write(&deletes).unwrap();
    assert!(matches!(collection.compact(), Err(Error::Damaged(_))));
    assert_eq!(collection.count(None).unwrap(), 400);
    drop(collection);
    assert_eq!(
        fs::read_dir(fixture.dir.join("segments")).unwrap().count(),
        1
    );
}

#[test]
fn a_shortened_segment_is_an_error_and_no_crash() {
    let fixture = Fixture::new();
    let path = with_all_sections(&fixture);
    let bytes = fs::read(&path).unwrap();
    for length in [0, 1, 100, 16_383, 16_384, 40_000, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = Collection::open(&fixture.dir, &Options::read_only()).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(!faults(&fixture.dir).is_empty());
    }
    fs::remove_file(&path).unwrap();
    let error = Collection::open(&fixture.dir, &Options::read_only()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    fs::write(&path, &bytes).unwrap();

    let collection = fixture.open();
    let view = collection.view().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(20_000).unwrap();
    let error = view.parts()[0].block(0).unwrap_err();
    assert!(error.to_string().contains("20000 bytes now"), "{error}");
    assert!(matches!(
        collection.get(&[id(1)], Fields::ALL),
        Err(Error::Damaged(_))
    ));
    assert!(matches!(view.parts()[0].id(0), Err(Error::Damaged(_))));
    // Fresh rows are still there.
    assert_eq!(
        collection.get(&[id(600)], Fields::ALL).unwrap()[0],
        Some(row(600))
    );
}

#[test]
fn a_garbage_catalog_is_told_and_kept() {
    let fixture = Fixture::new();
    with_all_sections(&fixture);
    let catalog = fixture.dir.join("catalog.sqlite");
    for garbage in [
        b"not a database, but long enough to look like one, perhaps".repeat(99),
        vec![0; 8192],
    ] {
        fs::write(&catalog, &garbage).unwrap();
        for options in [Options::default(), Options::read_only()] {
            let error = Collection::open(&fixture.dir, &options).unwrap_err();
            assert!(matches!(error, Error::Damaged(_)), "{error}");
            assert!(error.to_string().contains("catalog"), "{error}");
        }
        let error = Collection::create(&fixture.dir, &schema(Record::F32), &Options::default());
        assert!(error.is_err());
        assert!(
            fs::read(&catalog).unwrap() == garbage,
            "garbage may be somebody's only copy"
        );
    }
}

/// Bytes that stand in the catalog's rows, and what holds them.
fn catalog_needles() -> Vec<(&'static str, Vec<u8>)> {
    let numbers: Vec<u8> = vector(610).iter().flat_map(|v| v.to_le_bytes()).collect();
    vec![
        ("a pending vector", numbers),
        ("a pending id", b"\x02row 608".to_vec()),
        ("a text", b"the text of row 601".to_vec()),
        ("a payload", b"\"n\":603".to_vec()),
        ("the schema", b"\"space\":\"tests\"".to_vec()),
        ("the counters", b"\"last_seq\"".to_vec()),
    ]
}

#[test]
fn a_flipped_byte_in_the_rows_of_the_catalog_is_found() {
    let fixture = Fixture::new();
    with_all_sections(&fixture);
    let catalog = fixture.dir.join("catalog.sqlite");
    assert!(
        !fixture.dir.join("catalog.sqlite-wal").exists(),
        "the log was not taken in"
    );
    let pristine = fs::read(&catalog).unwrap();
    for (what, needle) in catalog_needles() {
        let places: Vec<usize> = (0..pristine.len() - needle.len())
            .filter(|at| pristine[*at..].starts_with(&needle))
            .collect();
        assert!(!places.is_empty(), "{what} is not in the file");
        let mut noticed = 0;
        for place in &places {
            for bit in [0, 5] {
                flip(&catalog, (place + needle.len() / 2) as u64, bit);
                noticed += usize::from(!faults(&fixture.dir).is_empty());
                assert!(
                    reads_are_right_or_fail(&fixture.dir),
                    "{what} is served wrongly"
                );
                fs::write(&catalog, &pristine).unwrap();
            }
        }
        // Some copies stand in pages or cells that are free by now.
        assert!(
            noticed >= 2,
            "{what}: {noticed} of {} flips noticed",
            places.len() * 2
        );
    }
    assert_eq!(faults(&fixture.dir), []);
}

#[test]
fn no_flip_in_the_catalog_is_served_as_truth() {
    let fixture = Fixture::new();
    with_all_sections(&fixture);
    let catalog = fixture.dir.join("catalog.sqlite");
    let pristine = fs::read(&catalog).unwrap();
    let mut noticed = 0;
    let offsets: Vec<usize> = (0..200)
        .step_by(3)
        .chain((0..pristine.len()).step_by(331))
        .collect();
    for (index, &offset) in offsets.iter().enumerate() {
        flip(&catalog, offset as u64, (index % 8) as u8);
        let outcome = verify(&fixture.dir, &Options::default());
        noticed += usize::from(!outcome.is_ok_and(|report| report.is_sound()));
        assert!(
            reads_are_right_or_fail(&fixture.dir),
            "served wrongly after a flip at {offset}"
        );
        for name in ["catalog.sqlite-wal", "catalog.sqlite-shm"] {
            let _ = fs::remove_file(fixture.dir.join(name));
        }
        fs::write(&catalog, &pristine).unwrap();
    }
    // The rest are bytes that mean nothing: free space inside pages.
    assert!(
        noticed * 4 > offsets.len(),
        "{noticed} of {}",
        offsets.len()
    );
}

#[test]
fn rows_changed_behind_our_back_are_found() {
    let fixture = Fixture::new();
    let path = with_all_sections(&fixture);
    drop(path);
    let catalog = fixture.dir.join("catalog.sqlite");
    let pristine = fs::read(&catalog).unwrap();
    // A tombstone, a grave and so on need rows to change.
    let collection = fixture.open();
    collection
        .write(&[Op::Delete(id(1)), Op::Upsert(row(605)), Op::Delete(id(3))])
        .unwrap();
    drop(collection);
    assert_eq!(faults(&fixture.dir), []);
    drop(pristine);
    let pristine = fs::read(&catalog).unwrap();
    for sql in [
        "UPDATE meta SET value = replace(value, '384', '385') || ' ' WHERE name = 'schema'",
        "UPDATE meta SET sum = sum + 1 WHERE name = 'state'",
        "DELETE FROM meta WHERE name = 'state'",
        "UPDATE segments SET dead = dead + 1",
        "UPDATE segments SET digest = zeroblob(16)",
        "DELETE FROM segments",
        "UPDATE tombstones SET bits = zeroblob(4096)",
        "DELETE FROM tombstones",
        "UPDATE pending SET vector = zeroblob(24) WHERE seq = (SELECT max(seq) FROM pending)",
        "UPDATE pending SET id = x'0000000000000001' WHERE seq = (SELECT max(seq) FROM pending)",
        "UPDATE pending SET seq = seq + 1000 WHERE seq = (SELECT max(seq) FROM pending)",
        "UPDATE pending SET doc = 0 WHERE doc != 0",
        "DELETE FROM pending WHERE seq = (SELECT max(seq) FROM pending)",
        "UPDATE docs SET text = text || 'x' WHERE text IS NOT NULL",
        "UPDATE docs SET payload = '{}' WHERE payload IS NOT NULL",
        "UPDATE docs SET text = NULL, text_sum = NULL WHERE text IS NOT NULL",
        "UPDATE docs SET seq = -seq",
        "DELETE FROM docs WHERE seq = (SELECT max(seq) FROM docs)",
        "UPDATE graves SET seq = seq + 1",
        "DROP TABLE graves",
        "CREATE TABLE more (x); DROP TABLE docs; ALTER TABLE more RENAME TO docs",
    ] {
        let connection = rusqlite::Connection::open(&catalog).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let found = faults(&fixture.dir);
        assert!(!found.is_empty(), "not noticed: {sql}");
        fs::write(&catalog, &pristine).unwrap();
    }
    assert_eq!(faults(&fixture.dir), []);
}

const LOG: &str = "catalog.sqlite-wal";
const LOG_HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

/// A copy of an open collection's folder, as it is left when its process is killed.
fn killed(dir: &Path) -> Fixture {
    let copy = Fixture::new();
    fs::create_dir_all(copy.dir.join("segments")).unwrap();
    for name in ["lock", "catalog.sqlite", LOG] {
        fs::copy(dir.join(name), copy.dir.join(name)).unwrap();
    }
    for entry in fs::read_dir(dir.join("segments")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(
            entry.path(),
            copy.dir.join("segments").join(entry.file_name()),
        )
        .unwrap();
    }
    copy
}

/// Where each frame of a log begins, and whether it is a commit.
fn frames(log: &[u8]) -> Vec<(usize, bool)> {
    assert_eq!((log.len() - LOG_HEADER) % FRAME, 0);
    let starts = (LOG_HEADER..log.len()).step_by(FRAME);
    starts
        .map(|at| (at, log[at + 4..at + 8] != [0; 4]))
        .collect()
}

fn count(dir: &Path) -> Result<u64, Error> {
    Collection::open(dir, &Options::read_only())?.count(None)
}

#[test]
fn a_flipped_bit_in_the_log_is_told_from_a_torn_end() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    for n in 0..4 {
        collection.write(&upserts(n * 5..n * 5 + 5)).unwrap();
    }
    let killed = killed(&fixture.dir);
    drop(collection);
    assert_eq!(count(&killed.dir).unwrap(), 20);
    let path = killed.dir.join(LOG);
    let pristine = fs::read(&path).unwrap();
    let frames = frames(&pristine);
    assert_eq!(frames.iter().filter(|(_, commit)| *commit).count(), 4);
    for (index, &(at, commit)) in frames.iter().enumerate() {
        let commits = frames[index..].iter().filter(|(_, commit)| *commit).count();
        for offset in [0, 5, 8, 13, 16, 21, 24, 2000, FRAME - 1] {
            flip(&path, (at + offset) as u64, 2);
            let told = format!("frame {}, byte {offset}", index + 1);
            match count(&killed.dir) {
                Err(Error::Damaged(damage)) => {
                    let (named, frame) = (path.clone(), index as u64 + 1);
                    let place = DamagePlace::Log { path: named, frame };
                    assert_eq!(damage.place, place, "{told}");
                    assert_eq!(faults(&killed.dir), [damage], "{told}");
                    let left = fs::read(&path).unwrap();
                    let opened = Collection::open(&killed.dir, &Options::default());
                    assert!(matches!(opened, Err(Error::Damaged(_))), "{told}");
                    assert!(fs::read(&path).unwrap() == left, "{told}");
                }
                Err(error) => panic!("{told}: {error}"),
                // What is lost may be the last transaction, which could have been torn.
                Ok(rows) => match commits {
                    1 => assert_eq!(rows, 15, "{told}"),
                    // And the one before, where the damage hides that anything rests on it.
                    2 => assert!(rows == 10 && commit | (offset < 24), "{told}"),
                    _ => panic!("{told}: {rows} rows without a word"),
                },
            }
            fs::write(&path, &pristine).unwrap();
        }
    }
    assert_eq!(count(&killed.dir).unwrap(), 20);
}

#[test]
fn a_log_torn_again_and_again_goes_on() {
    let mut fixture = Fixture::new();
    drop(fixture.create(&schema(Record::F32)));
    let mut rows = 0;
    for round in 0..8 {
        let collection = fixture.open();
        assert_eq!(collection.count(None).unwrap(), rows, "round {round}");
        let first = round * 100;
        let (kept, lost) = (1 + round * 5 % 13, 1 + round * 11 % 17);
        collection.write(&upserts(first..first + kept)).unwrap();
        collection
            .write(&upserts(first + 50..first + 50 + lost))
            .unwrap();
        rows += kept;
        let copy = killed(&fixture.dir);
        drop(collection);
        // The newest commit is the last that its predecessors lead to; tear what it rests on.
        let path = copy.dir.join(LOG);
        let newest = newest_commit(&fs::read(&path).unwrap());
        flip(&path, (newest - FRAME + 24 + 100) as u64, 1);
        assert_eq!(faults(&copy.dir), [], "round {round}");
        fixture = copy;
    }
}

/// Where the last frame begins that SQLite takes for a commit: the frames before it are whole.
fn newest_commit(log: &[u8]) -> usize {
    let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let data_word = |at: usize| match word(0) & 1 {
        1 => word(at),
        _ => word(at).swap_bytes(),
    };
    let mut sum = [word(24), word(28)];
    let mut newest = 0;
    for (at, commit) in frames(log) {
        for pair in (at..at + 8).chain(at + 24..at + FRAME).step_by(8) {
            sum[0] = sum[0].wrapping_add(data_word(pair)).wrapping_add(sum[1]);
            sum[1] = sum[1]
                .wrapping_add(data_word(pair + 4))
                .wrapping_add(sum[0]);
        }
        let salts = log[at + 8..at + 16] == log[16..24];
        if !salts || sum != [word(at + 16), word(at + 20)] {
            break;
        }
        if commit {
            newest = at;
        }
    }
    newest
}

/// Everything in a folder, by name.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn rows_whose_catalog_is_gone_are_kept() {
    for (sealed, logged) in [(true, false), (false, true), (true, true)] {
        for emptied in [true, false] {
            let fixture = Fixture::new();
            let collection = fixture.create(&schema(Record::F32));
            collection.write(&upserts(0..5)).unwrap();
            if sealed {
                collection.seal().unwrap();
            }
            let left = logged.then(|| killed(&fixture.dir));
            drop(collection);
            let left = left.unwrap_or(fixture);
            let catalog = left.dir.join("catalog.sqlite");
            match emptied {
                true => fs::write(&catalog, "").unwrap(),
                false => fs::remove_file(&catalog).unwrap(),
            }
            let before = contents(&left.dir);
            let told = format!("sealed {sealed}, logged {logged}, emptied {emptied}");
            for options in [Options::default(), Options::read_only()] {
                let error = Collection::open(&left.dir, &options).unwrap_err();
                assert!(matches!(error, Error::Damaged(_)), "{told}: {error}");
            }
            let found = faults(&left.dir);
            assert_eq!(found.len(), 1, "{told}");
            assert!(found[0].to_string().contains("catalog.sqlite"), "{told}");
            let error = Collection::create(&left.dir, &schema(Record::F32), &Options::default());
            assert!(matches!(error, Err(Error::Damaged(_))), "{told}");
            assert!(contents(&left.dir) == before, "{told}");
        }
    }
}

#[test]
fn segments_beside_an_unfinished_catalog_are_kept() {
    let fixture = Fixture::new();
    let path = with_all_sections(&fixture);
    let catalog = fixture.dir.join("catalog.sqlite");
    fs::remove_file(&catalog).unwrap();
    let begun = rusqlite::Connection::open(&catalog).unwrap();
    begun
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
    drop(begun);
    let pristine = fs::read(&path).unwrap();
    let error = Collection::open(&fixture.dir, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("has no tables"), "{error}");
    let error = Collection::create(&fixture.dir, &schema(Record::F32), &Options::default());
    assert!(matches!(error, Err(Error::Damaged(_))));
    assert!(catalog.exists() && fs::read(&path).unwrap() == pristine);
}
