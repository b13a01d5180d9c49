//! BERT's WordPiece in one pass over a text: characters, words and pieces without a copy of the
//! text between them.
//!
//! It gives the ids that the tokenizers library gives, and says so when it cannot: a
//! `tokenizer.json` of another form is not read at all, and a text whose marks would have to be
//! reordered, or which spells out a special token, is left to the library.

mod chars;
mod spec;
#[cfg(test)]
mod tests;
mod trie;

use chars::{Chars, Kind, kind};
use trie::Trie;

/// What an ASCII character does.
#[derive(Clone, Copy)]
enum Ascii {
    Nothing,
    Space,
    Punctuation(u8),
    Letter(u8),
}

/// A tokenizer of BERT's form.
pub(crate) struct WordPiece {
    chars: Chars,
    ascii: [Ascii; 128],
    trie: Trie,
    unknown: u32,
    word_chars_max: usize,
    /// Spellings of special tokens.
    special: Vec<String>,
    /// Ids before a text.
    pub(crate) prefix: Vec<u32>,
    /// Ids after a text.
    pub(crate) suffix: Vec<u32>,
    /// Tokens in the vocabulary.
    pub(crate) vocabulary: usize,
}

impl WordPiece {
    /// Reads a `tokenizer.json`; `None` when it is not of BERT's plain form.
    pub(crate) fn read(json: &[u8]) -> Option<Self> {
        spec::read(json)
    }

    /// The ids of `text` with special tokens around them; `None` when only the library can tell them.
    pub(crate) fn framed(&self, text: &str) -> Option<Vec<u32>> {
        // English has a piece for every four or five bytes.
        let room = self.prefix.len() + text.len() / 4 + self.suffix.len() + 1;
        let mut ids = Vec::with_capacity(room);
        ids.extend_from_slice(&self.prefix);
        if !self.split(text, &mut ids) {
            return None;
        }
        ids.extend_from_slice(&self.suffix);
        Some(ids)
    }

    /// Adds the ids of `text` without special tokens; false, and nothing added, when only the
    /// library can tell them.
    fn split(&self, text: &str, ids: &mut Vec<u32>) -> bool {
        if self.spells_special(text) {
            return false;
        }
        let before = ids.len();
        let mut word = Vec::with_capacity(64);
        let bytes = text.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Some(ascii) = self.ascii.get(usize::from(byte)) {
                at += 1;
                match *ascii {
                    Ascii::Letter(byte) => word.push(byte),
                    Ascii::Nothing => {}
                    Ascii::Space => self.end(&mut word, ids),
                    Ascii::Punctuation(byte) => {
                        self.end(&mut word, ids);
                        self.word(&[byte], ids);
                    }
                }
                continue;
            }
            let Some(c) = text[at..].chars().next() else {
                break;
            };
            at += c.len_utf8();
            if !self.chars.each(c, |c| self.add(c, &mut word, ids)) {
                ids.truncate(before);
                return false;
            }
        }
        self.end(&mut word, ids);
        true
    }

    /// Adds a character that is beyond ASCII or came of one that is.
    fn add(&self, c: char, word: &mut Vec<u8>, ids: &mut Vec<u32>) {
        let mut bytes = [0; 4];
        let bytes = c.encode_utf8(&mut bytes).as_bytes();
        match kind(c) {
            Kind::Letter => word.extend_from_slice(bytes),
            Kind::Space => self.end(word, ids),
            Kind::Punctuation => {
                self.end(word, ids);
                self.word(bytes, ids);
            }
        }
    }

    /// The word ends here.
    fn end(&self, word: &mut Vec<u8>, ids: &mut Vec<u32>) {
        if !word.is_empty() {
            self.word(word, ids);
            word.clear();
        }
    }

    fn word(&self, word: &[u8], ids: &mut Vec<u32>) {
        // Bytes that do not go on a character begin one.
        let long = word.len() > self.word_chars_max
            && word.iter().filter(|&&b| b & 0xC0 != 0x80).count() > self.word_chars_max;
        if long || !self.trie.split(word, ids) {
            ids.push(self.unknown);
        }
    }

    fn spells_special(&self, text: &str) -> bool {
        let within = |special: &String| text.contains(special.as_str());
        // All that models of this form have begin with a bracket.
        if self.special.iter().all(|s| s.starts_with('[')) && !text.as_bytes().contains(&b'[') {
            return false;
        }
        self.special.iter().any(within)
    }
}

/// The table of ASCII, by the rules of all characters.
fn ascii(chars: Chars) -> [Ascii; 128] {
    std::array::from_fn(|n| {
        let mut became = Ascii::Nothing;
        chars.each(char::from(n as u8), |c| {
            became = match kind(c) {
                Kind::Space => Ascii::Space,
                Kind::Punctuation => Ascii::Punctuation(c as u8),
                Kind::Letter => Ascii::Letter(c as u8),
            };
        });
        became
    })
}
