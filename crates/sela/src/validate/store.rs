//! A collection written, read, reopened, copied and damaged in a folder of its own.

use std::fs;
use std::path::Path;

use super::{Checks, Outcome, verdict};
use crate::collection::{CollectionOptions, Item};
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::query::Query;
use crate::random::Random;
use crate::scratch::Scratch;
use sela_store::{Fields, Id};

const ROWS: usize = 500;
const DIM: usize = 48;

pub(super) fn run(engine: &Engine, checks: &mut Checks<'_>) {
    checks.run("what is stored comes back, also after reopening", || {
        in_scratch(engine, |engine, _| round_trip(engine))
    });
    checks.run("a snapshot holds the same", || {
        in_scratch(engine, |engine, dir| {
            let collection = filled(engine)?;
            let copy = dir.join("collections").join("copy");
            collection.snapshot(&copy)?;
            let copy = engine.collection_read_only("copy")?;
            let same = copy.fingerprint()? == collection.fingerprint()?;
            Ok(verdict(
                same && copy.verify()?.is_sound(),
                format!("{ROWS} rows"),
            ))
        })
    });
    checks.run("a flipped bit is found and named", || {
        in_scratch(engine, flipped_bit)
    });
}

fn in_scratch(
    engine: &Engine,
    check: impl FnOnce(&Engine, &Path) -> Result<Outcome>,
) -> Result<Outcome> {
    let scratch = Scratch::new(&engine.options().home, "validate")?;
    let data = scratch.path().to_owned();
    let engine = Engine::open(Options {
        data,
        ..engine.options().clone()
    })?;
    check(&engine, scratch.path())
}

fn items() -> Vec<Item> {
    let mut random = Random::new(5);
    let item = |i: usize| {
        let mut item = Item::vector(Id::Num(i as u64), random.numbers(DIM));
        item.text = Some(format!("text {i}\n\u{0}\u{1F411}"));
        item.payload = serde_json::json!({"row": i, "tags": ["a", "b"]})
            .as_object()
            .cloned();
        item
    };
    (0..ROWS).map(item).collect()
}

/// A collection with rows in a segment and rows that are still fresh.
fn filled(engine: &Engine) -> Result<crate::Collection> {
    let collection = engine.create("check", &CollectionOptions::external(DIM))?;
    let items = items();
    collection.upsert(&items[..ROWS / 2])?;
    collection.store().seal()?;
    collection.upsert(&items[ROWS / 2..])?;
    Ok(collection)
}

fn round_trip(engine: &Engine) -> Result<Outcome> {
    let items = items();
    let mut faults = Vec::new();
    let mut collection = filled(engine)?;
    for opened in ["at once", "reopened"] {
        let ids: Vec<Id> = items.iter().map(|i| i.id.clone()).collect();
        let rows = collection.get(&ids, Fields::ALL)?;
        for (item, row) in items.iter().zip(rows) {
            let same = row.is_some_and(|r| {
                Some(&r.vector) == item.vector.as_ref()
                    && r.text == item.text
                    && r.payload == item.payload
            });
            if !same {
                faults.push(format!("row {} is not what was stored, {opened}", item.id));
            }
        }
        let query = items[17].vector.clone().unwrap_or_default();
        let hits = collection.query(&Query::vector(query).k(1))?;
        if hits.first().map(|h| &h.id) != Some(&items[17].id) {
            faults.push(format!("a stored vector is not its own nearest, {opened}"));
        }
        if !collection.verify()?.is_sound() {
            faults.push(format!("verify finds faults, {opened}"));
        }
        drop(collection);
        collection = engine.collection("check")?;
    }
    collection.delete(&[items[17].id.clone()])?;
    if collection.count(None)? != ROWS as u64 - 1 {
        faults.push("a deleted row is counted".to_owned());
    }
    drop(collection);
    engine.delete("check")?;
    faults.truncate(3);
    Ok(match faults.is_empty() {
        true => Outcome::Pass {
            found: format!("{ROWS} rows with text and payload"),
        },
        false => Outcome::Fail {
            found: faults.join("; "),
        },
    })
}

fn flipped_bit(engine: &Engine, dir: &Path) -> Result<Outcome> {
    drop(filled(engine)?);
    let segments = dir.join("collections/check/segments");
    let io = |what| Error::io(what, &segments);
    let entry = fs::read_dir(&segments).map_err(io("read"))?.next();
    let Some(entry) = entry else {
        return Ok(Outcome::Fail {
            found: "there is no segment file".to_owned(),
        });
    };
    let path = entry.map_err(io("read"))?.path();
    let mut bytes = fs::read(&path).map_err(io("read"))?;
    // Somewhere in the records, which make up most of the file.
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).map_err(io("write"))?;
    let report = engine.verify("check")?;
    let named = report.faults.first().map(ToString::to_string);
    Ok(match named {
        Some(fault) => Outcome::Pass {
            found: fault.replace(&dir.display().to_string(), "..."),
        },
        None => Outcome::Fail {
            found: format!("byte {at} of a segment was changed unnoticed"),
        },
    })
}
