//! Edits beside other writers, and edits of more rows than one step takes.

mod common;

use common::{DIM, Fixture, schema};
use sela_store::{
    Edit, Error, Fields, Filter, Id, Op, Options, Payload, Record, Row, Schema, Which,
};
use serde_json::json;

fn merge(values: serde_json::Value) -> Edit {
    let values: Payload = values.as_object().cloned().unwrap();
    Edit::Merge { at: None, values }
}

#[test]
fn edits_of_many_threads_are_all_kept() {
    const THREADS: u64 = 4;
    const EDITS: u64 = 20;
    let fixture = Fixture::new();
    let options = Options {
        seal_rows: 40,
        ..Options::default()
    };
    let rows =
        sela_store::Collection::create(&fixture.dir, &schema(Record::F32), &options).unwrap();
    let start: Vec<Op> = (0..8).map(|n| Op::Upsert(common::row(n))).collect();
    rows.write(&start).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let rows = &rows;
            scope.spawn(move || {
                for n in 0..EDITS {
                    // Every thread adds fields of its own to the same rows, by both ways.
                    let edit = merge(json!({format!("{thread}-{n}"): n}));
                    let which = match n % 2 {
                        0 => Which::Ids((0..8).map(common::id).collect()),
                        _ => Which::Filter(Filter::And(vec![])),
                    };
                    assert_eq!(rows.edit(&which, &edit).unwrap().count, 8);
                    rows.write(&[
                        Op::Upsert(common::row(100 + thread)),
                        Op::Delete(common::id(100 + thread)),
                    ])
                    .unwrap();
                }
            });
        }
    });
    drop(rows);
    let reopened = fixture.open();
    let ids: Vec<Id> = (0..8).map(common::id).collect();
    for (n, row) in reopened
        .get(&ids, Fields::ALL)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        let (row, before) = (row.unwrap(), common::row(n as u64));
        assert_eq!((row.vector, row.text), (before.vector, before.text));
        let payload = row.payload.unwrap();
        for thread in 0..THREADS {
            for n in 0..EDITS {
                assert_eq!(payload.get(&format!("{thread}-{n}")), Some(&json!(n)));
            }
        }
    }
    assert!(reopened.verify().unwrap().is_sound());
}

#[test]
fn more_rows_than_a_step_takes() {
    const ROWS: u64 = 100_300;
    let fixture = Fixture::new();
    let rows = fixture.create(&Schema::new(DIM, "tests"));
    let mut bulk = rows.bulk().unwrap();
    for n in 0..ROWS {
        bulk.push(Row::new(n, vec![n as f32; DIM as usize]))
            .unwrap();
    }
    bulk.commit().unwrap();
    let all = Which::Filter(Filter::Not(Box::new(Filter::HasId(vec![Id::Num(7)]))));
    let edited = rows.edit(&all, &merge(json!({"seen": 1}))).unwrap();
    assert_eq!((edited.count, edited.missing), (ROWS - 1, None));
    assert_eq!(rows.count(Some(&Filter::eq("seen", 1))).unwrap(), ROWS - 1);
    // Rows keep their order.
    let page = rows.scroll(None, 3, None, Fields::ID).unwrap();
    let first: Vec<Id> = page.rows.into_iter().map(|(_, row)| row.id).collect();
    assert_eq!(first, [Id::Num(7), Id::Num(0), Id::Num(1)]);
    // The only row without the field is the 8th, and then none is in a page that begins later.
    let without = Filter::Not(Box::new(Filter::eq("seen", 1)));
    let page = rows
        .scroll_by_id(None, 5, Some(&without), Fields::ID)
        .unwrap();
    assert_eq!((page.rows.len(), page.next), (1, None));
    let none = rows
        .scroll_by_id(Some(&Id::Num(8)), 5, Some(&without), Fields::ID)
        .unwrap();
    assert_eq!(none.rows, []);

    let gone = rows.edit(&Which::Filter(Filter::eq("seen", 1)), &Edit::Delete);
    assert_eq!(gone.unwrap().count, ROWS - 1);
    assert_eq!(rows.info().unwrap().rows_live, 1);
}

#[test]
fn what_cannot_be_stored_changes_nothing() {
    let fixture = Fixture::new();
    let rows = fixture.create(&schema(Record::F32));
    rows.write(&[Op::Upsert(common::row(3)), Op::Upsert(common::row(6))])
        .unwrap();
    let before = rows
        .get(&[common::id(3), common::id(6)], Fields::ALL)
        .unwrap();
    let which = Which::Ids(vec![common::id(3), common::id(6)]);
    let large = merge(json!({"large": "x".repeat(1 << 20)}));
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    for edit in [large, merge(json!({ "deep": deep }))] {
        let error = rows.edit(&which, &edit).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{error}");
    }
    let vectors = [
        (common::id(3), vec![1.0; DIM as usize]),
        (common::id(6), vec![f32::NAN; DIM as usize]),
    ];
    let error = rows.replace_vectors(&vectors).unwrap_err();
    assert!(matches!(error, Error::Vector { .. }), "{error}");
    let many = Which::Ids((0..100_001).map(Id::Num).collect());
    let error = rows.edit(&many, &Edit::Delete).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    let empty = Which::Ids(vec![Id::Str(String::new())]);
    assert!(rows.edit(&empty, &Edit::Delete).is_err());
    let ids = [common::id(3), common::id(6)];
    assert_eq!(rows.get(&ids, Fields::ALL).unwrap(), before);
}
