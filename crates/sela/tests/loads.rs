//! Loads: resumed, stopped, broken off and repeated, always with the same rows in the end.

use std::ops::ControlFlow;

use sela::{
    Collection, CollectionOptions, Engine, Error, Fields, Id, Item, Items, LoadEvent, LoadOptions,
    Loaded, Options,
};

const ROWS: u64 = 1_000;

fn engine(home: &tempfile::TempDir) -> Engine {
    Engine::open(Options::new(home.path())).unwrap()
}

fn create(engine: &Engine) -> Collection {
    engine
        .create("rows", &CollectionOptions::external(4))
        .unwrap()
}

fn item(i: u64, value: f32) -> Item {
    Item::vector(i, vec![i as f32, value, 1.0, 2.0])
}

/// `ROWS` items; `value` is part of each vector.
fn items(value: f32) -> Vec<Item> {
    (0..ROWS).map(|i| item(i, value)).collect()
}

fn load_every(
    collection: &Collection,
    items: &[Item],
    commit_items: usize,
    watch: &mut dyn FnMut(LoadEvent) -> ControlFlow<()>,
) -> Loaded {
    let mut open = || {
        let own = items.to_vec();
        let items: Items<'static> = Box::new(own.into_iter().map(Ok));
        Ok(items)
    };
    let options = LoadOptions {
        commit_items: Some(commit_items),
        ..LoadOptions::default()
    };
    collection
        .load("a source", &mut open, &options, watch)
        .unwrap()
}

fn load(collection: &Collection, items: &[Item]) -> Loaded {
    load_every(collection, items, 100, &mut |_| ControlFlow::Continue(()))
}

fn check(collection: &Collection, items: &[Item]) {
    let ids: Vec<Id> = items.iter().map(|i| i.id.clone()).collect();
    let rows = collection.get(&ids, Fields::ALL).unwrap();
    for (item, row) in items.iter().zip(rows) {
        assert_eq!(
            item.vector.as_ref(),
            Some(&row.unwrap().vector),
            "{}",
            item.id
        );
    }
    assert!(collection.verify().unwrap().is_sound());
}

#[test]
fn every_commit_is_told_and_a_second_load_does_nothing() {
    let home = tempfile::tempdir().unwrap();
    let c = create(&engine(&home));
    let mut told = Vec::new();
    let loaded = load_every(&c, &items(0.0), 300, &mut |event| {
        told.push(event);
        if let LoadEvent::Committed { items } = event {
            assert!(c.count(None).unwrap() >= items, "told before it is stored");
        }
        ControlFlow::Continue(())
    });
    assert_eq!((loaded.items, loaded.unchanged), (ROWS, 0));
    let committed = |items| LoadEvent::Committed { items };
    assert_eq!(
        told,
        [
            committed(300),
            committed(600),
            committed(900),
            committed(1000)
        ]
    );
    check(&c, &items(0.0));

    let seq = c.info().unwrap().last_seq;
    told.clear();
    let again = load_every(&c, &items(0.0), 300, &mut |event| {
        told.push(event);
        ControlFlow::Continue(())
    });
    assert_eq!((again.items, again.unchanged), (ROWS, ROWS));
    assert_eq!(told, [LoadEvent::Resumed { items: ROWS }]);
    assert_eq!(c.info().unwrap().last_seq, seq, "nothing was written");
}

#[test]
fn a_stopped_load_goes_on_where_it_stopped() {
    let home = tempfile::tempdir().unwrap();
    let c = create(&engine(&home));
    let stopped = load_every(&c, &items(0.0), 100, &mut |event| match event {
        LoadEvent::Committed { items } if items >= 400 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(stopped.stopped);
    assert_eq!((stopped.items, c.count(None).unwrap()), (400, 400));
    let rest = load(&c, &items(0.0));
    assert!(!rest.stopped);
    assert_eq!((rest.items, rest.unchanged), (ROWS, 400));
    check(&c, &items(0.0));
}

#[test]
fn changed_content_is_stored_again_and_the_rest_is_left() {
    let home = tempfile::tempdir().unwrap();
    let c = create(&engine(&home));
    load(&c, &items(0.0));
    let mut changed = items(0.0);
    changed[17] = item(17, 5.0);
    changed.push(item(ROWS, 5.0));
    let loaded = load(&c, &changed);
    assert_eq!(
        (loaded.items, loaded.unchanged, loaded.replaced),
        (ROWS + 1, ROWS - 1, 1)
    );
    check(&c, &changed);
    assert_eq!(load(&c, &changed).unchanged, ROWS + 1);
}

#[test]
fn a_record_of_progress_is_not_believed_after_other_writes() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    let c = create(&engine);
    load(&c, &items(0.0));
    c.delete(&[Id::Num(3)]).unwrap();
    assert_eq!(
        load(&c, &items(0.0)).unchanged,
        ROWS - 1,
        "a deleted row is stored again"
    );
    c.upsert(&[item(5, 9.0)]).unwrap();
    assert_eq!(
        load(&c, &items(0.0)).replaced,
        1,
        "a replaced row is put back"
    );
    check(&c, &items(0.0));

    // A new collection of the same name knows nothing of the old one's record.
    drop(c);
    engine.delete("rows").unwrap();
    let c = create(&engine);
    assert_eq!(load(&c, &items(0.0)).unchanged, 0);
    check(&c, &items(0.0));
}

#[test]
fn a_lost_or_broken_record_costs_only_a_look() {
    let home = tempfile::tempdir().unwrap();
    let c = create(&engine(&home));
    load(&c, &items(0.0));
    let folder = home.path().join("data/progress/rows");
    let record = std::fs::read_dir(&folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for broken in ["", "{", "{\"format\": 99}"] {
        std::fs::write(&record, broken).unwrap();
        assert_eq!(load(&c, &items(0.0)).unchanged, ROWS);
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(load(&c, &items(0.0)).unchanged, ROWS);
}

#[test]
fn what_came_before_an_error_of_the_source_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let c = create(&engine(&home));
    let mut open = || {
        let broken = Error::Input {
            source_name: "`a.txt`".to_owned(),
            place: "line 251".to_owned(),
            reason: "is not UTF-8".to_owned(),
        };
        let good = (0..250).map(|i| Ok(item(i, 0.0)));
        let items: Items<'static> = Box::new(good.chain([Err(broken)]));
        Ok(items)
    };
    let options = LoadOptions {
        commit_items: Some(100),
        ..LoadOptions::default()
    };
    let mut last = 0;
    let error = c
        .load("broken", &mut open, &options, &mut |event| {
            if let LoadEvent::Committed { items } = event {
                last = items;
            }
            ControlFlow::Continue(())
        })
        .unwrap_err();
    assert!(error.to_string().contains("line 251"), "{error}");
    assert_eq!((last, c.count(None).unwrap()), (250, 250));
}

#[test]
fn the_last_of_equal_ids_wins_in_any_commit() {
    for commit in [3, 100, 10_000] {
        let home = tempfile::tempdir().unwrap();
        let c = create(&engine(&home));
        let twice: Vec<Item> = items(0.0).into_iter().chain(items(1.0)).collect();
        for _ in 0..2 {
            let loaded = load_every(&c, &twice, commit, &mut |_| ControlFlow::Continue(()));
            assert_eq!(loaded.items, 2 * ROWS);
            assert_eq!(c.count(None).unwrap(), ROWS);
            check(&c, &items(1.0));
        }
    }
}

#[test]
fn the_last_of_equal_ids_wins_also_when_it_is_what_was_stored() {
    // More items lie between the two than are looked up together, so that the second is compared
    // with the store while the first waits for the commit.
    let mut source = vec![item(5, 1.0)];
    source.extend((100..5_000).map(|i| item(i, 0.0)));
    source.push(item(5, 0.0));
    for commit in [100, 10_000] {
        let home = tempfile::tempdir().unwrap();
        let c = create(&engine(&home));
        c.upsert(&[item(5, 0.0)]).unwrap();
        let loaded = load_every(&c, &source, commit, &mut |_| ControlFlow::Continue(()));
        assert_eq!((loaded.items, loaded.unchanged), (4_902, 0), "{commit}");
        check(&c, &source[1..]);
        // From the record of progress, and without it.
        let again = load_every(&c, &source, commit, &mut |_| ControlFlow::Continue(()));
        assert_eq!(again.unchanged, 4_902, "{commit}");
        check(&c, &source[1..]);
        std::fs::remove_dir_all(home.path().join("data/progress/rows")).unwrap();
        load_every(&c, &source, commit, &mut |_| ControlFlow::Continue(()));
        check(&c, &source[1..]);
    }
}

#[test]
fn many_vectors_become_segments_and_memory_stays_free() {
    let home = tempfile::tempdir().unwrap();
    let c = create(&engine(&home));
    let many: Vec<Item> = (0..30_000).map(|i| item(i, 0.0)).collect();
    load_every(&c, &many, 10_000, &mut |_| ControlFlow::Continue(()));
    let info = c.info().unwrap();
    assert_eq!(
        (info.rows_live, info.rows_pending, info.segments),
        (30_000, 0, 3)
    );
    check(&c, &many);
}
