//! What becomes of a character before words are cut: cleaned, decomposed, in lower case. The rules
//! and the versions of their tables are those of the library's BERT normaliser.

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::canonical_combining_class;

/// Which of the normaliser's steps a tokenizer takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chars {
    pub(super) clean: bool,
    pub(super) chinese: bool,
    pub(super) strip: bool,
    pub(super) lower: bool,
}

/// What a character is when words are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Between words.
    Space,
    /// A word of its own.
    Punctuation,
    /// Part of a word.
    Letter,
}

pub(super) fn kind(c: char) -> Kind {
    if c.is_whitespace() {
        Kind::Space
    } else if c.is_ascii_punctuation() || c.is_punctuation() {
        Kind::Punctuation
    } else {
        Kind::Letter
    }
}

/// Ideographs of Chinese, which are words of their own.
fn is_chinese(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x20000..=0x2A6DF
            | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF
            | 0xF900..=0xFAFF
            | 0x2F800..=0x2FA1F
    )
}

impl Chars {
    /// Hands over what becomes of `c`; false when that depends on the characters around it.
    pub(super) fn each(&self, c: char, mut give: impl FnMut(char)) -> bool {
        let mut c = c;
        if self.clean {
            let line = matches!(c, '\t' | '\n' | '\r');
            if c == '\0' || c == '\u{fffd}' || (!line && c.is_other()) {
                return true;
            }
            if line || c.is_whitespace() {
                c = ' ';
            }
        }
        let chinese = self.chinese && is_chinese(c);
        if chinese {
            give(' ');
        }
        if self.strip && !c.is_ascii() {
            for (part, _) in std::iter::once(c).nfd() {
                if part.is_mark_nonspacing() {
                    continue;
                }
                // Marks that stay are put in order among their neighbours.
                if canonical_combining_class(part) != 0 {
                    return false;
                }
                self.cased(part, &mut give);
            }
        } else {
            self.cased(c, &mut give);
        }
        if chinese {
            give(' ');
        }
        true
    }

    fn cased(&self, c: char, give: &mut impl FnMut(char)) {
        if self.lower {
            c.to_lowercase().for_each(give);
        } else {
            give(c);
        }
    }
}
