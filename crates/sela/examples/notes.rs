//! Stores a few notes and asks them a question.
//!
//!     cargo run --release -p sela --example notes -- HOME

#![allow(clippy::print_stdout)]

use sela::{CollectionOptions, Engine, Filter, Item, Options, Query};

const NOTES: [(&str, &str); 4] = [
    ("work", "The meeting is moved to Thursday at ten."),
    ("home", "The oven needs a new door seal."),
    ("work", "Anna takes over the report on solar cells."),
    ("home", "Sow the beans after the last frost."),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = std::env::args().nth(1).ok_or("which home folder?")?;
    let engine = Engine::open(Options::new(home))?;
    engine
        .models()
        .find_or_pull(&engine.options().model, &mut |_| {})?;

    let notes = engine.collection_or_create("notes", &CollectionOptions::default())?;
    let items = NOTES.iter().zip(1u64..).map(|((place, text), id)| {
        let payload = serde_json::json!({ "place": place });
        Item::text(id, *text).payload(payload.as_object().cloned().unwrap_or_default())
    });
    notes.upsert(&items.collect::<Vec<_>>())?;

    for hit in notes.query(&Query::text("When do we meet?").k(1))? {
        println!("{:.3} {}", hit.score, hit.text.unwrap_or_default());
    }
    let at_home: Filter = serde_json::from_str(r#"{"eq": {"place": "home"}}"#)?;
    for hit in notes.query(&Query::text("gardening").filter(at_home).k(1))? {
        println!("{:.3} {}", hit.score, hit.text.unwrap_or_default());
    }
    Ok(())
}
