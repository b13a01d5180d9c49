//! The demo: the King James Bible, one verse an item, and questions to ask it.

use std::io::Read;

use crate::collection::Item;
use crate::error::{Error, Result};

/// The collection the demo keeps.
pub const COLLECTION: &str = "kjv-demo";

/// Verses in the corpus.
pub const VERSES: u64 = 31_102;

/// What the demo asks: the words of a verse first, then thoughts in modern words.
pub const QUESTIONS: [&str; 6] = [
    "The LORD is my shepherd; I shall not want",
    "Who created the universe?",
    "A man is swallowed by a huge fish",
    "A wise king decides which woman is the real mother of a baby",
    "Do rich people get into heaven?",
    "Should I forgive someone who keeps hurting me?",
];

const CORPUS: &[u8] = include_bytes!("../demo/kjv.txt.gz");

/// A verse: where it stands and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verse {
    /// Book, chapter and verse: `Psalms 23:1`.
    pub place: String,
    /// The words.
    pub text: String,
}

/// All verses in order.
pub fn verses() -> Result<Vec<Verse>> {
    let mut text = String::new();
    let read = flate2::read::GzDecoder::new(CORPUS).read_to_string(&mut text);
    read.map_err(Error::io("read", "the demo corpus".as_ref()))?;
    let verse = |line: &str| {
        let (place, text) = line.split_once('\t')?;
        Some(Verse {
            place: place.to_owned(),
            text: text.to_owned(),
        })
    };
    Ok(text.lines().filter_map(verse).collect())
}

/// All verses as items: named by their place, with book, chapter and verse to filter by.
pub fn items() -> Result<impl Iterator<Item = Result<Item>>> {
    Ok(verses()?.into_iter().map(|verse| {
        let payload = payload(&verse.place);
        let item = Item::text(verse.place, verse.text);
        Ok(match payload {
            Some(payload) => item.payload(payload),
            None => item,
        })
    }))
}

fn payload(place: &str) -> Option<sela_store::Payload> {
    let (book, numbers) = place.rsplit_once(' ')?;
    let (chapter, verse) = numbers.split_once(':')?;
    let (chapter, verse): (u64, u64) = (chapter.parse().ok()?, verse.parse().ok()?);
    match serde_json::json!({"book": book, "chapter": chapter, "verse": verse}) {
        serde_json::Value::Object(payload) => Some(payload),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verse_has_its_place() {
        let items: Vec<Item> = items().unwrap().map(Result::unwrap).collect();
        assert_eq!(items.len() as u64, VERSES);
        let psalm = items
            .iter()
            .find(|i| i.id.to_string() == "Psalms 23:1")
            .unwrap();
        assert_eq!(
            psalm.text.as_deref(),
            Some("The LORD is my shepherd; I shall not want.")
        );
        assert_eq!(psalm.payload.as_ref().unwrap()["chapter"], 23);
        assert!(items.iter().all(|i| i.payload.is_some()));
    }
}
