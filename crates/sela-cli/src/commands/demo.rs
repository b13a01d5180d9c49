//! `sela demo`: the King James Bible, and questions to it.

use std::time::Instant;

use sela::demo::{COLLECTION, QUESTIONS, VERSES};
use sela::{Collection, CollectionOptions, Engine, LoadOptions, Query};
use serde_json::json;

use super::index::Load;
use super::{print, print_json};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::Format;
use crate::table;

/// What the load is called in the record of progress.
const SOURCE: &str = "the demo corpus";
const HITS: usize = 3;

pub(super) fn run(app: &App, format: Format) -> Result<Outcome> {
    let engine = app.engine_with_model()?;
    let collection = open(app, &engine)?;
    // The first question is not to wait for what the others find ready.
    engine.warm_up()?;
    for question in QUESTIONS {
        let began = Instant::now();
        let hits = collection.query(&Query::text(question).k(HITS))?;
        let millis = began.elapsed().as_secs_f64() * 1e3;
        if format.json {
            let hits: Vec<_> = hits
                .iter()
                .map(|h| json!({"id": h.id, "score": h.score, "text": h.text}))
                .collect();
            print_json(&json!({"question": question, "ms": millis, "hits": hits}))?;
        } else {
            print(&answer(question, millis, &hits))?;
        }
    }
    app.note(&format!(
        "ask more with: sela search --collection {COLLECTION} \"...\""
    ));
    Ok(Outcome::Done)
}

/// The collection with all verses in it.
fn open(app: &App, engine: &Engine) -> Result<Collection> {
    match engine.collection_read_only(COLLECTION) {
        Ok(collection) if collection.info()?.rows_live == VERSES => return Ok(collection),
        Ok(_) | Err(sela::Error::NoCollection { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let collection = engine.collection_or_create(COLLECTION, &CollectionOptions::default())?;
    app.note(&format!(
        "indexing the King James Bible, {} verses (only this once)",
        table::count(VERSES)
    ));
    let began = Instant::now();
    let load = Load {
        app,
        total: Some(VERSES),
        json: false,
    };
    let mut open = || {
        let items: sela::Items<'static> = Box::new(sela::demo::items()?);
        Ok(items)
    };
    let loaded = load.run(&collection, SOURCE, &mut open, &LoadOptions::default())?;
    if loaded.stopped {
        let kept = format!(
            "the first {} verses are kept; run it again to go on",
            table::count(loaded.items)
        );
        return Err(Failure::Stopped(kept));
    }
    let took = began.elapsed().as_secs_f64();
    let fresh = (loaded.items - loaded.unchanged) as f64;
    app.note(&format!(
        "indexed in {took:.1} s, {:.0} verses a second\n",
        fresh / took
    ));
    Ok(collection)
}

fn answer(question: &str, millis: f64, hits: &[sela::Hit]) -> String {
    let mut text = format!("> {question}   ({millis:.1} ms)\n");
    for hit in hits {
        let verse = table::one_line(hit.text.as_deref().unwrap_or_default(), 100);
        text += &format!("  {:.3}  {}  {verse}\n", hit.score, hit.id);
    }
    text + "\n"
}
