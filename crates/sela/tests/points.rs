//! Collections of vectors made elsewhere: what is asked of them, and changing what is there.

use sela::{
    CollectionOptions, Edit, Engine, Error, Fields, Filter, Id, Item, Metric, Near, Options, Query,
    Which,
};
use serde_json::json;

fn engine(home: &tempfile::TempDir) -> Engine {
    Engine::open(Options::new(home.path())).unwrap()
}

/// Ten points on a line, the n-th at distance n from the origin.
fn line(engine: &Engine, metric: Metric) -> sela::Collection {
    let options = CollectionOptions {
        metric,
        ..CollectionOptions::external(2)
    };
    let points = engine.create("line", &options).unwrap();
    let items: Vec<Item> = (0..10_u64)
        .map(|n| {
            let payload = json!({"n": n, "even": n % 2 == 0});
            Item::vector(n, [n as f32, 1.0]).payload(payload.as_object().cloned().unwrap())
        })
        .collect();
    points.upsert(&items).unwrap();
    points
}

fn ids(hits: &[sela::Hit]) -> Vec<String> {
    hits.iter().map(|hit| hit.id.to_string()).collect()
}

#[test]
fn answers_begin_at_the_offset_and_end_at_the_threshold() {
    let home = tempfile::tempdir().unwrap();
    let points = line(&engine(&home), Metric::L2);
    let origin = Query::vector([0.0, 1.0]);
    let found = points.query(&origin.clone().k(3).offset(2)).unwrap();
    assert_eq!(ids(&found), ["2", "3", "4"]);
    let found = points.query(&origin.clone().k(3).offset(9)).unwrap();
    assert_eq!(ids(&found), ["9"]);
    assert_eq!(points.query(&origin.clone().offset(99)).unwrap(), []);
    let found = points.query(&origin.clone().threshold(2.0)).unwrap();
    assert_eq!(ids(&found), ["0", "1", "2"]);
    let dot = origin.clone().metric(Metric::Dot);
    assert_eq!(points.query(&dot.clone().threshold(1.0)).unwrap().len(), 10);
    assert_eq!(points.query(&dot.threshold(1.5)).unwrap(), []);
    let beyond = points.query(&origin.k(16_384).offset(1)).unwrap_err();
    assert!(beyond.to_string().contains("16385"), "{beyond}");
}

#[test]
fn a_row_is_not_near_to_itself() {
    let home = tempfile::tempdir().unwrap();
    let points = line(&engine(&home), Metric::L2);
    let near = |id| Query::near(Near::Row(Id::Num(id)));
    let found = points.query(&near(5).k(2)).unwrap();
    assert_eq!(ids(&found), ["4", "6"]);
    assert_eq!(found[0].score, 1.0);
    let even = near(5).k(3).filter(Filter::eq("even", true));
    assert_eq!(ids(&points.query(&even).unwrap()), ["4", "6", "2"]);
    let none = points.query(&near(50)).unwrap_err();
    assert!(matches!(none, Error::NoRow { .. }), "{none}");
    assert!(none.to_string().contains("`50`"));
}

#[test]
fn rows_change_where_they_are() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    let points = line(&engine, Metric::L2);
    let marked = json!({"marked": true, "n": null}).as_object().cloned();
    let edit = Edit::Merge {
        at: None,
        values: marked.unwrap(),
    };
    let which = Which::Ids(vec![Id::Num(3), Id::Num(77), Id::Num(4)]);
    let edited = points.edit(&which, &edit).unwrap();
    assert_eq!((edited.count, edited.missing), (2, Some(Id::Num(77))));
    let moved = [(Id::Num(4), vec![-1.0, 1.0]), (Id::Num(78), vec![0.0, 0.0])];
    assert_eq!(points.replace_vectors(&moved).unwrap().count, 1);
    let rows = points.get(&[Id::Num(3), Id::Num(4)], Fields::ALL).unwrap();
    let row = |at: usize| rows[at].as_ref().unwrap();
    let payload = json!({"even": false, "marked": true});
    assert_eq!(row(0).payload.as_ref(), payload.as_object());
    assert_eq!((row(0).vector[0], row(1).vector[0]), (3.0, -1.0));
    let wrong = points.replace_vectors(&[(Id::Num(4), vec![1.0])]);
    assert!(wrong.unwrap_err().to_string().contains('4'));

    let odd = Which::Filter(Filter::eq("even", false));
    assert_eq!(points.edit(&odd, &Edit::Delete).unwrap().count, 5);
    points.compact().unwrap();
    let page = points
        .scroll_by_id(Some(&Id::Num(2)), 2, None, Fields::ID)
        .unwrap();
    let there: Vec<Id> = page.rows.into_iter().map(|row| row.id).collect();
    assert_eq!(there, [Id::Num(2), Id::Num(4)]);
    assert_eq!(page.next, Some(Id::Num(6)));
}

#[test]
fn notes_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let notes = json!({"made": "by hand"});
    let options = CollectionOptions {
        notes: notes.clone(),
        ..CollectionOptions::external(2)
    };
    let made = engine(&home).create("noted", &options).unwrap();
    assert_eq!(*made.notes(), notes);
    drop(made);
    assert_eq!(*engine(&home).collection("noted").unwrap().notes(), notes);
    let plain = engine(&home)
        .create("plain", &CollectionOptions::external(2))
        .unwrap();
    assert!(plain.notes().is_null());
}
