//! Collections through the engine, with vectors alone: no model is needed.

use sela::{
    CollectionOptions, Engine, Error, Fields, Filter, Id, Item, Metric, Options, Query,
    VerifyReport,
};

fn engine(home: &tempfile::TempDir) -> Engine {
    let mut options = Options::new(home.path());
    options.models.hub = None;
    options.models.pip.clear();
    Engine::open(options).unwrap()
}

fn filter(json: &str) -> Filter {
    serde_json::from_str(json).unwrap()
}

fn item(id: u64, vector: [f32; 2], colour: &str) -> Item {
    let payload = serde_json::json!({"colour": colour})
        .as_object()
        .cloned()
        .unwrap();
    Item::vector(id, vector.to_vec()).payload(payload)
}

#[test]
fn rows_are_stored_found_replaced_and_deleted() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    let c = engine
        .create("points", &CollectionOptions::external(2))
        .unwrap();
    c.upsert(&[
        item(1, [1.0, 0.0], "red"),
        item(2, [0.0, 1.0], "blue"),
        item(3, [0.6, 0.8], "red"),
    ])
    .unwrap();
    let ids = |query: &Query| -> Vec<String> {
        c.query(query)
            .unwrap()
            .iter()
            .map(|h| h.id.to_string())
            .collect()
    };
    let near = Query::vector(vec![0.0, 1.0]);
    assert_eq!(ids(&near), ["2", "3", "1"]);
    assert_eq!(ids(&near.clone().k(1)), ["2"]);
    assert_eq!(ids(&near.clone().metric(Metric::L2).k(2)), ["2", "3"]);
    let red = filter(r#"{"eq": {"colour": "red"}}"#);
    assert_eq!(
        ids(&near.clone().filter(red.clone())),
        ["3", "1"],
        "min(k, matches) come back"
    );
    assert_eq!(c.count(Some(&red)).unwrap(), 2);

    let hit = &c.query(&near).unwrap()[0];
    assert_eq!(hit.payload.as_ref().unwrap()["colour"], "blue");
    assert!(hit.vector.is_none() && hit.text.is_none());

    assert_eq!(
        c.upsert(&[item(2, [1.0, 0.0], "green")])
            .unwrap()
            .written
            .replaced,
        1
    );
    c.delete(&[Id::Num(1), Id::Num(99)]).unwrap();
    assert_eq!(ids(&near), ["3", "2"]);
    let rows = c.get(&[Id::Num(1), Id::Num(2)], Fields::ALL).unwrap();
    assert!(rows[0].is_none());
    assert_eq!(rows[1].as_ref().unwrap().vector, [1.0, 0.0]);
    assert_eq!(c.scroll(None, 10, None, Fields::ID).unwrap().rows.len(), 2);
    assert_eq!(engine.stats().queries, 6);
}

#[test]
fn collections_are_listed_reopened_and_deleted() {
    let home = tempfile::tempdir().unwrap();
    {
        let engine = engine(&home);
        assert!(engine.collections().unwrap().is_empty());
        for name in ["b", "a.1"] {
            let c = engine
                .create(name, &CollectionOptions::external(2))
                .unwrap();
            c.upsert(&[item(7, [1.0, 2.0], "red")]).unwrap();
        }
        assert!(matches!(
            engine.create("b", &CollectionOptions::external(2)),
            Err(Error::CollectionExists { .. })
        ));
    }
    let engine = engine(&home);
    assert_eq!(engine.collections().unwrap(), ["a.1", "b"]);
    let first = engine.collection("b").unwrap();
    let second = engine.collection("b").unwrap();
    second.upsert(&[item(8, [1.0, 2.0], "red")]).unwrap();
    assert_eq!(
        first.count(None).unwrap(),
        2,
        "two handles are one collection"
    );
    assert!(engine.delete("b").is_err(), "it is open for writing");
    drop((first, second));
    engine.delete("b").unwrap();
    assert_eq!(engine.collections().unwrap(), ["a.1"]);
    let error = engine.collection("b").unwrap_err();
    assert!(matches!(&error, Error::NoCollection { others, .. } if others == &["a.1"]));
    assert!(engine.verify("a.1").unwrap().is_sound());
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let home = tempfile::tempdir().unwrap();
    let writer = engine(&home);
    let written = writer
        .create("one", &CollectionOptions::external(2))
        .unwrap();
    let other = engine(&home);
    let error = other.collection("one").unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{error}");
    assert!(error.to_string().contains("already open for writing"));
    assert!(other.delete("one").is_err());
    let reader = other.collection_read_only("one").unwrap();
    written.upsert(&[item(1, [1.0, 0.0], "red")]).unwrap();
    assert_eq!(
        reader.count(None).unwrap(),
        1,
        "a reader follows the writer"
    );
    assert!(reader.upsert(&[item(2, [1.0, 0.0], "red")]).is_err());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    for bad in ["", "a/b", ".hidden", "..", "ä"] {
        let error = engine
            .create(bad, &CollectionOptions::external(2))
            .unwrap_err();
        assert!(
            matches!(error, Error::CollectionName { .. }),
            "{bad}: {error}"
        );
    }
    let c = engine
        .create("points", &CollectionOptions::external(2))
        .unwrap();
    let error = c.query(&Query::vector(vec![1.0; 3])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "collection `points` holds vectors of 2 numbers, but this query has 3"
    );
    let error = c.query(&Query::text("hello")).unwrap_err();
    assert!(matches!(error, Error::ExternalSpace { .. }));
    assert!(error.hint().unwrap().contains("--declare"));
    assert!(matches!(
        c.upsert(&[Item::text(1, "hello")]),
        Err(Error::ExternalSpace { .. })
    ));
    assert!(c.upsert(&[item(1, [f32::NAN, 0.0], "red")]).is_err());
    assert!(c.query(&Query::vector(vec![f32::NAN, 0.0])).is_err());
    assert!(c.query(&Query::vector(vec![1.0, 0.0]).k(0)).is_err());
    assert_eq!(c.count(None).unwrap(), 0);
    let empty = Item {
        id: Id::Num(1),
        text: None,
        vector: None,
        payload: None,
    };
    assert!(matches!(c.upsert(&[empty]), Err(Error::EmptyItem { .. })));
    assert!(matches!(
        engine.create("texts", &CollectionOptions::default()),
        Err(Error::ModelMissing { .. })
    ));
}

#[test]
fn a_flipped_bit_is_never_served() {
    let home = tempfile::tempdir().unwrap();
    {
        let c = engine(&home)
            .create("points", &CollectionOptions::external(32))
            .unwrap();
        let source = (0..20_000u64).map(|i| Ok(Item::vector(i, vec![i as f32; 32])));
        let mut source = Some(source);
        let mut open = || {
            let items: sela::Items<'static> = Box::new(source.take().unwrap());
            Ok(items)
        };
        let options = sela::LoadOptions::default();
        c.load("test", &mut open, &options, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    let segments = home.path().join("data/collections/points/segments");
    let path = std::fs::read_dir(segments)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    std::fs::write(&path, bytes).unwrap();
    let engine = engine(&home);
    let report: VerifyReport = engine.verify("points").unwrap();
    assert!(!report.is_sound());
    let error = engine
        .collection_read_only("points")
        .unwrap()
        .query(&Query::vector(vec![1.0; 32]));
    assert!(
        matches!(error, Err(Error::Store(sela_store::Error::Damaged(_)))),
        "{error:?}"
    );
}
