//! Collections through the engine: with vectors alone, and with those of the real model.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, OnceLock};
use std::thread;

use sela::{
    Collection, CollectionOptions, Dtype, Engine, Error, Fields, Filter, Id, Item, Items,
    LoadOptions, Metric, Options, Query, VerifyReport,
};

fn engine(home: &tempfile::TempDir) -> Engine {
    let mut options = Options::new(home.path());
    options.models.hub = None;
    options.models.pip.clear();
    Engine::open(options).unwrap()
}

/// The folder of the real model: where SELA_HOME has it, else fetched once for all tests.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let home = std::env::var_os("SELA_HOME").map_or_else(
            || Path::new(env!("CARGO_TARGET_TMPDIR")).join("sela-home"),
            PathBuf::from,
        );
        let engine = Engine::open(Options::new(home)).unwrap();
        let found = engine
            .models()
            .find_or_pull("all-MiniLM-L6-v2", &mut |_| {});
        found
            .unwrap_or_else(|error| panic!("the model cannot be had: {error}"))
            .path
    })
}

fn engine_with(home: &tempfile::TempDir, model: &Path) -> Engine {
    let mut options = Options::new(home.path());
    options.model = model.to_str().unwrap().to_owned();
    options.dtype = Dtype::F32;
    Engine::open(options).unwrap()
}

/// The real model in a folder of the same name, with one file changed.
fn changed_model(to: &Path, file: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    let to = to.join("all-MiniLM-L6-v2");
    fs::create_dir_all(to.join("1_Pooling")).unwrap();
    for name in [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "model.safetensors",
    ] {
        fs::copy(model().join(name), to.join(name)).unwrap();
    }
    let before = fs::read_to_string(to.join(file)).unwrap();
    let after = change(before.clone());
    assert_ne!(before, after, "{file}");
    fs::write(to.join(file), after).unwrap();
    to
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

    // The one who had it and let it go is refused as well, until the next one is done.
    drop((reader, written));
    let next = other.collection("one").unwrap();
    assert!(writer.collection("one").is_err());
    drop(next);
    writer.collection("one").unwrap();
}

#[test]
fn threads_that_open_and_drop_one_collection_never_meet_its_lock() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 25;
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    let options = CollectionOptions::external(2);
    for name in ["first", "second"] {
        let start = Barrier::new(THREADS as usize);
        let open = |round: u64| match round % 3 {
            // All of them ask for it before there is one.
            0 => engine.collection_or_create(name, &options),
            1 => engine.collection(name),
            _ => engine.collection_read_only(name),
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (start, open) = (&start, &open);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..ROUNDS {
                        let c = open(round).unwrap_or_else(|e| panic!("round {round}: {e}"));
                        if round % 3 < 2 {
                            let row = item(thread * ROUNDS + round, [1.0, 0.0], "red");
                            c.upsert(&[row]).unwrap();
                        } else {
                            assert!(c.count(None).unwrap() > 0);
                        }
                    }
                });
            }
        });
        let written = (0..ROUNDS).filter(|round| round % 3 < 2).count() as u64;
        let count = engine.collection(name).unwrap().count(None).unwrap();
        assert_eq!(count, THREADS * written);
        engine.delete(name).unwrap();
    }
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
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("another collection with `--declare`"),
        "{hint}"
    );
    let error = c.declare_vectors().unwrap_err();
    assert!(matches!(error, Error::DeclaredExternal { .. }), "{error}");
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

#[test]
fn vectors_among_a_models_own_must_be_declared() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine_with(&home, model());
    let c = engine
        .create("notes", &CollectionOptions::default())
        .unwrap();
    c.upsert(&[Item::text(1, "The king rode to war.")]).unwrap();
    let made = engine.embed("Bread is made of flour and water.").unwrap();
    let refused = |error: Error| {
        assert!(matches!(&error, Error::Undeclared { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "item `2` brings a vector, but collection `notes` holds those of `all-MiniLM-L6-v2`, \
             and this one is not declared to be of it"
        );
        assert!(error.hint().unwrap().contains("`--declare`"));
    };
    let mixed = [
        Item::text(1, "A text first."),
        Item::vector(2, made.clone()),
    ];
    refused(c.upsert(&mixed).unwrap_err());
    let load = |c: &Collection| {
        let mut open = || {
            let items: Items<'static> = Box::new(mixed.clone().into_iter().map(Ok));
            Ok(items)
        };
        c.load("mixed", &mut open, &LoadOptions::default(), &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
    };
    refused(load(&c).unwrap_err());
    let row = &c.get(&[Id::Num(1)], Fields::ALL).unwrap()[0];
    assert_eq!(
        row.as_ref().unwrap().text.as_deref(),
        Some("The king rode to war."),
        "nothing was stored"
    );

    let declared = c.declare_vectors().unwrap();
    assert_eq!(load(&declared).unwrap().items, 2);
    declared.upsert(&[Item::vector(3, made)]).unwrap();
    let hits = c.query(&Query::text("how do I bake?").k(2)).unwrap();
    let ids: Vec<Id> = hits.into_iter().map(|h| h.id).collect();
    assert_eq!(ids, [Id::Num(2), Id::Num(3)]);
    refused(c.upsert(&mixed).unwrap_err());
}

#[test]
fn another_vocabulary_is_another_space() {
    let home = tempfile::tempdir().unwrap();
    {
        let engine = engine_with(&home, model());
        let notes = engine
            .create("notes", &CollectionOptions::default())
            .unwrap();
        notes.upsert(&[Item::text(1, "a dog")]).unwrap();
        let schema = notes.schema();
        assert_eq!(schema.space, engine.capabilities().unwrap().space);
        assert!(
            schema.space.contains("/tokenizer:be50c3628f2bf5bb/mean/"),
            "{}",
            schema.space
        );
        let made = &schema.provenance["made"];
        assert_eq!(
            (&made["dtype"], &made["prompt"], &made["tokens_max"]),
            (&"f32".into(), &serde_json::Value::Null, &256.into())
        );
    }
    let lowered =
        |text: String| text.replace("\"do_lower_case\": false", "\"do_lower_case\": true");
    let others = [
        changed_model(&home.path().join("a"), "tokenizer.json", |t| t + "\n"),
        changed_model(&home.path().join("b"), "sentence_bert_config.json", lowered),
    ];
    for other in others {
        let engine = engine_with(&home, &other);
        let notes = engine.collection("notes").unwrap();
        let vector = engine.embed("a dog").unwrap();
        for refused in [
            notes.query(&Query::text("puppy")).map(|_| ()),
            notes.upsert(&[Item::text(2, "a cat")]).map(|_| ()),
            notes.declare_vectors().map(|_| ()),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::OtherSpace { .. }), "{error}");
            assert_eq!(
                error.to_string(),
                "collection `notes` was built with another model called `all-MiniLM-L6-v2` than \
                 the one in use"
            );
            assert!(error.hint().unwrap().contains("`--model DIR`"));
        }
        // Whoever brings a vector vouches for it.
        assert_eq!(notes.query(&Query::vector(vector)).unwrap().len(), 1);
    }
}

#[test]
fn a_query_that_was_cut_is_told() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine_with(&home, model());
    let c = engine
        .create("notes", &CollectionOptions::default())
        .unwrap();
    c.upsert(&[Item::text(1, "a dog")]).unwrap();
    let ask = |query: &Query| {
        let (hits, info) = c.query_with_info(query).unwrap();
        assert_eq!(hits, c.query(query).unwrap());
        assert_eq!(hits.len(), 1);
        info.map(|i| (i.tokens, i.tokens_total, i.truncated))
    };
    assert_eq!(
        ask(&Query::text("word ".repeat(400))),
        Some((256, 402, true))
    );
    assert_eq!(ask(&Query::text("puppy")), Some((3, 3, false)));
    assert_eq!(ask(&Query::vector(engine.embed("puppy").unwrap())), None);
}

/// Rows of two numbers with texts, in a collection that no model is asked for.
fn with_texts(engine: &Engine) -> Collection {
    let c = engine
        .create("notes", &CollectionOptions::external(2))
        .unwrap();
    let texts = [
        "green pastures and still waters",
        "the valley of the shadow",
        "green is the valley",
        "a rod and a staff",
    ];
    let angles = [0.0_f32, 0.3, 0.6, 0.9];
    let items: Vec<Item> = (0..4)
        .map(|n| Item {
            text: Some(texts[n].to_owned()),
            ..item(
                n as u64,
                [angles[n].cos(), angles[n].sin()],
                if n < 2 { "red" } else { "blue" },
            )
        })
        .collect();
    c.upsert(&items).unwrap();
    c
}

#[test]
fn rows_are_found_by_words_by_vectors_and_by_both() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    let c = with_texts(&engine);
    let ids = |query: &Query| -> Vec<String> {
        let hits = c.query(query).unwrap();
        hits.iter().map(|hit| hit.id.to_string()).collect()
    };
    // Both words; then one each, the shorter text first.
    let words = Query::words("green valley");
    assert_eq!(ids(&words), ["2", "0", "1"]);
    assert_eq!(ids(&words.clone().offset(1).k(1)), ["0"]);
    let red = filter(r#"{"eq": {"colour": "red"}}"#);
    assert_eq!(ids(&words.clone().filter(red.clone())), ["0", "1"]);
    let hits = c.query(&words).unwrap();
    for (rank, hit) in (1..).zip(&hits) {
        assert_eq!(Some(hit.score), hit.text_score);
        assert_eq!((hit.text_rank, hit.vector_rank), (Some(rank), None));
        assert!(hit.text.is_some() && hit.payload.is_some());
    }
    let best = hits[0].score;
    assert_eq!(ids(&words.clone().threshold(best)), ["2"]);

    // By vectors 3, 2, 1, 0; by words 2, 0, 1.
    let both = Query::vector(vec![0.9_f32.cos(), 0.9_f32.sin()]).and_words("green valley");
    let hits = c.query(&both).unwrap();
    let term = |rank: u32| 1.0 / (60.0 + f64::from(rank));
    let expected = [
        ("2", term(2) + term(1), Some(2), Some(1)),
        ("0", term(4) + term(2), Some(4), Some(2)),
        ("1", term(3) + term(3), Some(3), Some(3)),
        ("3", term(1), Some(1), None),
    ];
    for (hit, (id, score, vector_rank, text_rank)) in hits.iter().zip(expected) {
        assert_eq!((hit.id.to_string().as_str(), hit.score), (id, score as f32));
        assert_eq!((hit.vector_rank, hit.text_rank), (vector_rank, text_rank));
        assert_eq!(hit.vector_score.is_some(), vector_rank.is_some());
        assert_eq!(hit.text_score.is_some(), text_rank.is_some());
    }
    assert_eq!(hits.len(), 4);
    assert_eq!(ids(&both.clone().metric(Metric::L2).k(2)), ["2", "0"]);
    // A filter and a deletion bear on both sides, ranks included.
    let red = c.query(&both.clone().filter(red)).unwrap();
    let ranks: Vec<_> = red.iter().map(|h| (h.vector_rank, h.text_rank)).collect();
    assert_eq!(ranks, [(Some(2), Some(1)), (Some(1), Some(2))]);
    assert_eq!(red[0].id, Id::Num(0), "of equal ones the older first");
    c.delete(&[Id::Num(2)]).unwrap();
    assert_eq!(ids(&both), ["0", "1", "3"]);
    // What has no words to look for leaves the ranking to the vectors.
    assert_eq!(ids(&both.clone().and_words("?!")), ["3", "1", "0"]);
    let near = Query::near(sela::Near::Row(Id::Num(0))).and_words("green valley");
    assert_eq!(ids(&near), ["1", "3"]);
}

#[test]
fn words_that_cannot_be_looked_for_are_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let engine = engine(&home);
    let c = engine
        .create("points", &CollectionOptions::external(2))
        .unwrap();
    assert_eq!(c.query(&Query::words("green")).unwrap(), []);
    c.upsert(&[item(1, [1.0, 0.0], "red")]).unwrap();
    let both = Query::vector(vec![0.0, 1.0]).and_words("green");
    for query in [Query::words("green"), both] {
        let error = c.query(&query).unwrap_err();
        assert!(matches!(error, Error::NoTexts { .. }), "{error}");
        assert!(error.hint().unwrap().contains("vector"));
    }
    let error = c.query(&Query::words("-green")).unwrap_err();
    assert!(error.to_string().contains("may not have"), "{error}");
    assert!(error.hint().unwrap().contains("add a word"));
    let c = with_texts(&engine);
    assert_eq!(c.query(&Query::words("nowhere")).unwrap(), []);
}
