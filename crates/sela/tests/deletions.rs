//! Deleting collections, and what a deletion that was cut short leaves.

use std::path::Path;

use sela::{CollectionOptions, Engine, Item, Options};

fn engine(home: &Path) -> Engine {
    let mut options = Options::new(home);
    options.models.hub = None;
    options.models.pip.clear();
    Engine::open(options).unwrap()
}

fn make(engine: &Engine, name: &str) {
    let made = engine
        .create(name, &CollectionOptions::external(2))
        .unwrap();
    made.upsert(&[Item::vector(1, vec![1.0, 0.0])]).unwrap();
}

/// A folder as an earlier process of this number leaves it when it is killed while it deletes.
fn leave(home: &Path, name: &str) {
    let left = format!("data/collections/.deleted-{name}-{}", std::process::id());
    let left = home.join(left).join("segments");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("1.seg"), "rows").unwrap();
}

fn names(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(home.join("data/collections")).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_deletion_that_was_cut_short_is_in_no_ones_way_and_is_completed_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(home.path());
    make(&engine, "one");
    make(&engine, "two");
    leave(home.path(), "one");
    leave(home.path(), "other");
    assert_eq!(engine.collections().unwrap(), ["one", "two"]);
    engine.delete("one").unwrap();
    assert_eq!(names(home.path()), ["two"], "nothing is left of any");

    leave(home.path(), "two");
    make(&engine, "three");
    let mut left = names(home.path());
    left.sort_unstable();
    assert_eq!(left, ["three", "two"], "a creation sweeps as well");
}
