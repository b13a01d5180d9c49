//! Snapshots are collections; fingerprints tell equals from others.

mod common;

use common::{Fixture, id, row, schema, upserts};
use sela_store::{Collection, Error, Fields, Id, Op, Options, Record};

#[test]
fn a_snapshot_opens_and_is_independent() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    let mut bulk = collection.bulk().unwrap();
    (0..50).for_each(|n| assert!(bulk.push(row(n)).unwrap().is_none()));
    bulk.commit().unwrap();
    collection.write(&upserts(40..60)).unwrap();
    collection.write(&[Op::Delete(id(1))]).unwrap();
    let dest = fixture.folder.path().join("deep/copy");
    collection.snapshot(&dest).unwrap();
    assert!(matches!(
        collection.snapshot(&dest),
        Err(Error::NotEmpty { .. })
    ));

    let copy = Collection::open(&dest, &Options::default()).unwrap();
    assert_eq!(
        copy.fingerprint().unwrap(),
        collection.fingerprint().unwrap()
    );
    collection.write(&upserts(0..60)).unwrap();
    collection.compact().unwrap();
    assert_eq!(copy.count(None).unwrap(), 59);
    let ids: Vec<Id> = (0..60).map(id).collect();
    for (n, found) in copy.get(&ids, Fields::ALL).unwrap().into_iter().enumerate() {
        assert_eq!(found, (n != 1).then(|| row(n as u64)));
    }
    assert!(copy.verify().unwrap().is_sound());
    assert_ne!(
        copy.fingerprint().unwrap(),
        collection.fingerprint().unwrap()
    );
    copy.write(&upserts(100..101)).unwrap();
    copy.compact().unwrap();
    assert!(collection.verify().unwrap().is_sound());

    // A reader can take one too.
    drop(copy);
    let reader = Collection::open(&dest, &Options::read_only()).unwrap();
    let again = fixture.folder.path().join("again");
    reader.snapshot(&again).unwrap();
    let again = Collection::open(&again, &Options::default()).unwrap();
    assert_eq!(again.fingerprint().unwrap(), reader.fingerprint().unwrap());
}

#[test]
fn fingerprints_follow_the_contents() {
    let build = |change: u64| {
        let fixture = Fixture::new();
        let collection = fixture.create(&schema(Record::F32));
        let mut rows: Vec<_> = (0..20).map(row).collect();
        match change {
            1 => rows[3].vector[2] += 1.0,
            2 => rows[3].text = Some("other".into()),
            3 => rows.swap(3, 4),
            4 => rows[5].payload = None,
            _ => {}
        }
        let ops: Vec<Op> = rows.into_iter().map(Op::Upsert).collect();
        collection.write(&ops).unwrap();
        let fresh = collection.fingerprint().unwrap();
        collection.seal().unwrap();
        let sealed = collection.fingerprint().unwrap();
        collection
            .write(&[Op::Delete(id(if change == 5 { 9 } else { 8 }))])
            .unwrap();
        (fresh, sealed, collection.fingerprint().unwrap())
    };
    let all: Vec<_> = (0..6).map(build).collect();
    assert_eq!(build(0), all[0]);
    for (change, found) in all.iter().enumerate().skip(1) {
        assert_eq!(found.0 == all[0].0, change == 5, "change {change}");
        assert_eq!(found.1 == all[0].1, change == 5, "change {change}");
        assert_ne!(found.2, all[0].2, "change {change}");
    }
}
