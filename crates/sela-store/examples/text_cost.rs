//! What the full-text index costs: rows a second and bytes a row, with the same words once as text,
//! which is indexed, and once as payload, which is not; and how long searches take.
//!
//! `cargo run --release -p sela-store --example text_cost FILE` with a text a line.

// An example tells what it finds.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use sela_store::{Collection, Op, Options, Row, Schema, TextQuery};

const DIM: u32 = 384;
const BATCH: usize = 512;

fn row(number: usize, words: &str, indexed: bool) -> Row {
    let vector = (0..DIM).map(|i| ((number as u32 * 7 + i) % 101) as f32);
    let mut row = Row::new(number as u64, vector.collect());
    if indexed {
        row.text = Some(words.to_owned());
    } else {
        let payload = serde_json::json!({ "words": words });
        row.payload = payload.as_object().cloned();
    }
    row
}

/// Writes all rows and tells how quick that was.
fn fill(
    dir: &Path,
    texts: &[&str],
    indexed: bool,
    bulk: bool,
) -> Result<Collection, Box<dyn Error>> {
    let schema = Schema::new(DIM, "example");
    let collection = Collection::create(dir, &schema, &Options::default())?;
    let rows = texts
        .iter()
        .enumerate()
        .map(|(number, words)| row(number, words, indexed));
    let began = Instant::now();
    if bulk {
        let mut load = collection.bulk()?;
        for row in rows {
            load.push(row)?;
        }
        load.commit()?;
    } else {
        let ops: Vec<Op> = rows.map(Op::Upsert).collect();
        for batch in ops.chunks(BATCH) {
            collection.write(batch)?;
        }
    }
    let took = began.elapsed().as_secs_f64();
    let bytes = collection.info()?.catalog_bytes;
    drop(collection);
    let collection = Collection::open(dir, &Options::default())?;
    println!(
        "{} {}: {:.0} rows/s, {:.0} bytes a row in the catalog, {bytes} with its log",
        if bulk { "bulk load" } else { "writes" },
        if indexed { "with index" } else { "without" },
        texts.len() as f64 / took,
        collection.info()?.catalog_bytes as f64 / texts.len() as f64,
    );
    Ok(collection)
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("a file of texts is wanted")?;
    let file = std::fs::read_to_string(path)?;
    let texts: Vec<&str> = file.lines().collect();
    let words: usize = texts.iter().map(|text| text.len()).sum();
    println!(
        "{} texts of {} bytes",
        texts.len(),
        words / texts.len().max(1)
    );
    let folder = tempfile::tempdir()?;
    for (at, (indexed, bulk)) in [(false, false), (true, false), (false, true), (true, true)]
        .into_iter()
        .enumerate()
    {
        let dir = folder.path().join(at.to_string());
        let collection = fill(&dir, &texts, indexed, bulk)?;
        if !(indexed && bulk) {
            continue;
        }
        let view = collection.view()?;
        for query in [
            "shepherd",
            "the lord is my shepherd",
            "the",
            "\"green pastures\"",
            "s*",
        ] {
            let parsed = TextQuery::parse(query)?;
            collection.search_text(&view, &parsed, 10, None)?;
            let began = Instant::now();
            let hits = collection.search_text(&view, &parsed, 10, None)?;
            println!("`{query}`: {} hits in {:?}", hits.len(), began.elapsed());
        }
        let began = Instant::now();
        collection.renew_text_index()?;
        println!("made anew in {:?}", began.elapsed());
        let began = Instant::now();
        assert!(collection.verify()?.is_sound());
        println!("verified in {:?}", began.elapsed());
    }
    Ok(())
}
