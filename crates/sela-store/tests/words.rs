//! Texts are found by their words: as a plain BM25 over a plain map finds them.

mod common;

use std::collections::HashMap;

use common::{Fixture, id, schema, vector};
use sela_store::{Collection, Fields, Filter, Id, Op, Options, Record, Row, TextQuery};

/// A text of a few words out of many, rare ones rarely.
fn text_of(n: u64) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let high = 1 + state % 60;
        format!("w{}", (state >> 20) % high)
    };
    let words: Vec<String> = (0..3 + n % 9).map(|_| word()).collect();
    words.join(" ")
}

fn noted(n: u64) -> Row {
    Row {
        text: (!n.is_multiple_of(7)).then(|| text_of(n)),
        payload: serde_json::json!({ "even": n.is_multiple_of(2) })
            .as_object()
            .cloned(),
        ..Row::new(id(n), vector(n))
    }
}

fn upserts(numbers: std::ops::Range<u64>) -> Vec<Op> {
    numbers.map(|n| Op::Upsert(noted(n))).collect()
}

/// What one search answers with: ids, the best first, with their scores.
fn found(
    collection: &Collection,
    query: &str,
    k: usize,
    filter: Option<&Filter>,
) -> Vec<(Id, f64)> {
    let view = collection.view().unwrap();
    let chosen = filter.map(|filter| collection.select(&view, filter).unwrap());
    let query = TextQuery::parse(query).unwrap();
    let hits = collection
        .search_text(&view, &query, k, chosen.as_deref())
        .unwrap();
    let places: Vec<_> = hits.iter().map(|hit| hit.place).collect();
    let rows = collection.fetch(&view, &places, Fields::ID).unwrap();
    rows.into_iter()
        .zip(hits)
        .map(|(row, hit)| (row.id, hit.score))
        .collect()
}

/// The plain twin: BM25 of any of some words, over all texts of a collection.
fn expected(
    collection: &Collection,
    words: &[&str],
    k: usize,
    filter: Option<&Filter>,
) -> Vec<(Id, f64)> {
    let page = collection.scroll(None, 100_000, None, Fields::ALL).unwrap();
    let texts: Vec<(u64, &Row, Vec<&str>)> = page
        .rows
        .iter()
        .filter_map(|(seq, row)| Some((*seq, row, row.text.as_deref()?.split(' ').collect())))
        .collect();
    let rows = texts.len() as f64;
    let mean = texts.iter().map(|(_, _, words)| words.len()).sum::<usize>() as f64 / rows;
    let mut scores: HashMap<u64, f64> = HashMap::new();
    for word in words {
        let with = texts.iter().filter(|(_, _, words)| words.contains(word));
        let count = with.count() as f64;
        let weight = ((rows - count + 0.5) / (count + 0.5)).ln();
        let weight = if weight <= 0.0 { 1e-6 } else { weight };
        for (seq, _, text) in &texts {
            let times = text.iter().filter(|other| *other == word).count() as f64;
            if times > 0.0 {
                let length = 1.0 - 0.75 + 0.75 * text.len() as f64 / mean;
                *scores.entry(*seq).or_default() += weight * times * 2.2 / (times + 1.2 * length);
            }
        }
    }
    let mut hits: Vec<(u64, Id, f64)> = texts
        .iter()
        .filter(|(_, row, _)| filter.is_none_or(|f| f.matches(&row.id, row.payload.as_ref())))
        .filter_map(|(seq, row, _)| Some((*seq, row.id.clone(), *scores.get(seq)?)))
        .collect();
    hits.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    hits.truncate(k);
    hits.into_iter().map(|(_, id, score)| (id, score)).collect()
}

/// Scores are equal but for the order of sums; equal ones may then stand in another order.
fn assert_same(collection: &Collection, words: &[&str], k: usize, filter: Option<&Filter>) {
    let (got, want) = (
        found(collection, &words.join(" "), k, filter),
        expected(collection, words, k, filter),
    );
    assert_eq!(got.len(), want.len(), "{words:?}");
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        let close = (got.1 - want.1).abs() <= 1e-9 * want.1.abs();
        assert!(close, "{words:?}, hit {at}: {got:?} instead of {want:?}");
    }
    if words.len() == 1 {
        assert_eq!(got, want_ids(&got, &want), "{words:?}");
    }
}

fn want_ids(got: &[(Id, f64)], want: &[(Id, f64)]) -> Vec<(Id, f64)> {
    let scores = got.iter().map(|(_, score)| *score);
    want.iter().map(|(id, _)| id.clone()).zip(scores).collect()
}

fn assert_all_same(collection: &Collection) {
    let even = Filter::eq("even", true);
    for words in [
        &["w0"][..],
        &["w1"],
        &["w17"],
        &["w55"],
        &["w99"],
        &["w3", "w40"],
        &["w0", "w1", "w2", "w30"],
    ] {
        for k in [1, 7, 1000] {
            assert_same(collection, words, k, None);
            assert_same(collection, words, k, Some(&even));
        }
    }
    let report = collection.verify().unwrap();
    assert!(report.is_sound(), "{:?}", report.faults);
}

#[test]
fn rankings_are_those_of_bm25_whatever_became_of_the_rows() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    assert_eq!(found(&collection, "w1", 10, None), []);
    collection.write(&upserts(0..200)).unwrap();
    assert_all_same(&collection);
    // Replaced, deleted, sealed, loaded in bulk, compacted, opened again.
    collection.write(&upserts(50..90)).unwrap();
    let deletes: Vec<Op> = (20..60).map(|n| Op::Delete(id(n))).collect();
    collection.write(&deletes).unwrap();
    assert_all_same(&collection);
    collection.seal().unwrap();
    assert_all_same(&collection);
    let mut bulk = collection.bulk().unwrap();
    for n in (150..600).chain([300, 301]) {
        bulk.push(noted(n)).unwrap();
    }
    bulk.commit().unwrap();
    assert_all_same(&collection);
    let deletes: Vec<Op> = (100..400).map(|n| Op::Delete(id(n))).collect();
    collection.write(&deletes).unwrap();
    collection.compact().unwrap();
    assert_all_same(&collection);
    drop(collection);
    assert_all_same(&Collection::open(&fixture.dir, &Options::read_only()).unwrap());
    let collection = fixture.open();
    assert_all_same(&collection);
    collection.renew_text_index().unwrap();
    assert_all_same(&collection);
}

#[test]
fn what_people_write_finds_what_they_mean() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    let texts = [
        "He maketh me to lie down in green pastures",
        "the valley of the shadow of death",
        "Green is the valley; its pasture is wide",
        "Über den Wolken, naïve café",
        "C++ and well-known O'Reilly",
    ];
    let rows: Vec<Op> = (0..)
        .zip(texts)
        .map(|(n, text)| {
            Op::Upsert(Row {
                text: Some(text.to_owned()),
                ..Row::new(Id::Num(n), vector(n))
            })
        })
        .collect();
    collection.write(&rows).unwrap();
    let numbers = |query: &str| {
        let mut numbers: Vec<u64> = found(&collection, query, 10, None)
            .into_iter()
            .map(|(id, score)| match id {
                Id::Num(n) if score > 0.0 => n,
                other => panic!("{other} {score}"),
            })
            .collect();
        numbers.sort_unstable();
        numbers
    };
    for (query, wanted) in [
        ("green", &[0, 2][..]),
        ("GREEN valley", &[0, 1, 2]),
        ("\"green pastures\"", &[0]),
        ("pastures", &[0]),
        ("pastur*", &[0, 2]),
        ("\"is w*\"", &[2]),
        ("green -valley", &[0]),
        ("valley -\"of death\"", &[2]),
        ("valley -sh*", &[2]),
        ("uber", &[3]),
        ("ÜBER", &[3]),
        ("cafe naive", &[3]),
        ("c++", &[4]),
        ("well-known", &[4]),
        ("known-well", &[]),
        ("o'reilly", &[4]),
        ("AND OR NOT NEAR", &[4]),
        ("text:green", &[]),
        ("!!! ???", &[]),
        ("green -!!!", &[0, 2]),
        ("green !!!", &[0, 2]),
        ("", &[]),
        ("nothing of the kind*", &[1, 2]),
    ] {
        assert_eq!(numbers(query), wanted, "{query}");
    }
}

/// Odd strings out of the marks that mean something to somebody.
#[test]
fn no_string_is_a_syntax_error() {
    let fixture = Fixture::new();
    let collection = fixture.create(&schema(Record::F32));
    collection.write(&upserts(0..40)).unwrap();
    let view = collection.view().unwrap();
    let pieces = [
        "w1", "w2", "\"", "-", "*", "(", ")", "AND", "OR", "NOT", "NEAR", "NEAR(", ":", "^", "+",
        "{", "}", "'", "''", "\\", ";", "--", "\0", " ", "\t", "\n", "é", "日本", "\u{301}",
        "\u{202e}", "\u{e000}", "text", "rowid", "rank", "fts", ",", "1e9", "💡", "\u{feff}",
    ];
    let mut state = 7_u64;
    let mut asked = 0;
    for _ in 0..4000 {
        let mut text = String::new();
        for _ in 0..1 + state % 12 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(pieces[(state >> 11) as usize % pieces.len()]);
        }
        let Ok(query) = TextQuery::parse(&text) else {
            continue;
        };
        let hits = collection.search_text(&view, &query, 5, None);
        assert!(hits.is_ok(), "{text:?}: {hits:?}");
        asked += 1;
    }
    assert!(asked > 3000);
    let many: Vec<String> = (0..256).map(|n| format!("w{n}*")).collect();
    assert_eq!(found(&collection, &many.join(" "), 100, None).len(), 34);
    let unwanted = format!("w1 -{}", many[2..].join(" -"));
    found(&collection, &unwanted, 100, None);
    found(&collection, &"a.".repeat(4096), 100, None);
    let k = sela_store::limits::PAGE_ROWS_MAX + 1;
    let query = TextQuery::parse("w1").unwrap();
    let error = collection.search_text(&view, &query, k, None).unwrap_err();
    assert!(error.to_string().contains("100001"), "{error}");
}
