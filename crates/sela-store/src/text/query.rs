//! What people write when they look for words.

use std::collections::HashSet;

use crate::limits::{TEXT_QUERY_BYTES_MAX, TEXT_QUERY_TERMS_MAX};

/// What is looked for in texts.
///
/// | written | finds texts with |
/// |---|---|
/// | `green pastures` | either word, those with both and with rare ones first |
/// | `"green pastures"` | these words one after another |
/// | `past*`, `"green past*"` | a word (the last of the phrase) that begins so |
/// | `-valley`, `-"of death"` | none of this, whatever else they have |
///
/// Everything else is taken as it stands; there is nothing that cannot be understood. Case and
/// accents make no difference. A word is a run of letters and digits: what is written together
/// with other marks between (`well-known`, `a.m.`) is looked for as a phrase.
///
/// ```
/// use sela_store::TextQuery;
///
/// let query = TextQuery::parse(r#"sheep past* -"valley of death""#)?;
/// assert!(!query.is_empty());
/// assert!(TextQuery::parse("-sheep").is_err());
/// # Ok::<(), sela_store::TextQueryError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextQuery {
    wanted: Vec<Term>,
    unwanted: Vec<Term>,
}

/// A word or a phrase.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Term {
    words: String,
    /// Whether the last word may go on.
    prefix: bool,
}

/// Why texts cannot be searched for what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextQueryError {
    /// It tells what texts may not have and nothing that they should have.
    #[error("the search for words says only what texts may not have")]
    OnlyUnwanted,
    /// It is too long.
    #[error("the search for words is {found} bytes long, and the limit is {max}")]
    TooLong {
        /// Its bytes.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
    /// It has too many words.
    #[error("the search for words has {found} words and phrases, and the limit is {max}")]
    TooManyTerms {
        /// How many it has, equal ones counted once.
        found: usize,
        /// How many are allowed.
        max: usize,
    },
}

impl TextQueryError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::OnlyUnwanted => "add a word to look for; `-word` only leaves texts out",
            _ => "look for the few words that matter, or search by vectors",
        }
    }
}

impl TextQuery {
    /// Reads what somebody wrote.
    ///
    /// # Errors
    /// [`TextQueryError`] for too much of it, or only words to leave out.
    pub fn parse(text: &str) -> Result<Self, TextQueryError> {
        if text.len() > TEXT_QUERY_BYTES_MAX {
            return Err(TextQueryError::TooLong {
                found: text.len(),
                max: TEXT_QUERY_BYTES_MAX,
            });
        }
        let mut query = Self::default();
        let mut seen = HashSet::new();
        let mut rest = text;
        while let Some((term, unwanted, after)) = next_term(rest) {
            rest = after;
            if term.has_words() && seen.insert((term.clone(), unwanted)) {
                let terms = if unwanted {
                    &mut query.unwanted
                } else {
                    &mut query.wanted
                };
                terms.push(term);
            }
        }
        if seen.len() > TEXT_QUERY_TERMS_MAX {
            return Err(TextQueryError::TooManyTerms {
                found: seen.len(),
                max: TEXT_QUERY_TERMS_MAX,
            });
        }
        if query.wanted.is_empty() && !query.unwanted.is_empty() {
            return Err(TextQueryError::OnlyUnwanted);
        }
        Ok(query)
    }

    /// Whether there is nothing in it to look for, so that it finds nothing.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The same in the words of FTS5; none when there is nothing to look for.
    pub(crate) fn expression(&self) -> Option<String> {
        if self.wanted.is_empty() {
            return None;
        }
        let any = |terms: &[Term]| {
            let terms: Vec<String> = terms.iter().map(Term::expression).collect();
            format!("({})", terms.join(" OR "))
        };
        let wanted = any(&self.wanted);
        Some(match self.unwanted.is_empty() {
            true => wanted,
            false => format!("{wanted} NOT {}", any(&self.unwanted)),
        })
    }
}

impl Term {
    fn has_words(&self) -> bool {
        self.words.chars().any(char::is_alphanumeric)
    }

    fn expression(&self) -> String {
        // FTS5 reads up to a zero, and within quotes minds nothing but quotes.
        let words = self.words.replace(['\0', '"'], " ");
        format!("\"{words}\"{}", if self.prefix { " *" } else { "" })
    }
}

/// The first term of a text, whether it is unwanted, and what comes after it.
fn next_term(text: &str) -> Option<(Term, bool, &str)> {
    let text = text.trim_start_matches(is_space);
    let first = text.chars().next()?;
    let minus = text.strip_prefix('-').filter(|rest| {
        let next = rest.chars().next();
        next.is_some_and(|next| next == '"' || next.is_alphanumeric())
    });
    let body = minus.unwrap_or(text);
    let (words, rest) = match quoted(body) {
        Some(phrase) => phrase,
        // A quote that nothing closes means nothing.
        None if first == '"' => (&body[..0], &body[1..]),
        None => {
            let end = body.find(|c| is_space(c) || c == '"');
            body.split_at(end.filter(|end| *end > 0).unwrap_or_else(
                || match body.starts_with('"') {
                    true => 1,
                    false => body.len(),
                },
            ))
        }
    };
    let (words, starred) = match words.strip_suffix('*') {
        Some(words) => (words, true),
        None => (words, false),
    };
    let outside = rest.strip_prefix('*');
    let prefix = (starred || outside.is_some()) && words.ends_with(char::is_alphanumeric);
    let term = Term {
        words: words.to_owned(),
        prefix,
    };
    Some((term, minus.is_some(), outside.unwrap_or(rest)))
}

/// A phrase in quotes at the beginning of a text, and what comes after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('"')?.split_once('"')
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match TextQuery::parse(text) {
            Ok(query) => query.expression().unwrap_or_default(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn what_people_write_is_read_as_they_mean_it() {
        for (text, meant) in [
            ("", ""),
            (" \t\u{0}\n", ""),
            ("!!! -- * \" ** -* -\"\"", ""),
            ("green pastures", r#"("green" OR "pastures")"#),
            (r#""green pastures""#, r#"("green pastures")"#),
            (r#"a"b c"d"#, r#"("a" OR "b c" OR "d")"#),
            ("past*", r#"("past" *)"#),
            ("past**", r#"("past*")"#),
            (r#""green past*" "green past"*"#, r#"("green past" *)"#),
            ("a -b -\"c d\"", r#"("a") NOT ("b" OR "c d")"#),
            ("a -b*", r#"("a") NOT ("b" *)"#),
            ("-b", "OnlyUnwanted"),
            (
                "a - b --c well-known",
                r#"("a" OR "b" OR "--c" OR "well-known")"#,
            ),
            ("\"never closed", r#"("never" OR "closed")"#),
            ("a -\"never closed", r#"("a" OR "never" OR "closed")"#),
            ("a\u{0}b a a A", r#"("a" OR "b" OR "A")"#),
            (
                "NEAR(a b, 3) AND text:x ^y {z} +w",
                r#"("NEAR(a" OR "b," OR "3)" OR "AND" OR "text:x" OR "^y" OR "{z}" OR "+w")"#,
            ),
        ] {
            assert_eq!(read(text), meant, "{text:?}");
        }
    }

    #[test]
    fn too_much_is_refused() {
        let many: String = (0..=TEXT_QUERY_TERMS_MAX)
            .map(|n| format!("w{n} "))
            .collect();
        assert!(read(&many).starts_with("TooManyTerms { found: 257"));
        let long = "x".repeat(TEXT_QUERY_BYTES_MAX + 1);
        assert!(read(&long).starts_with("TooLong"));
        assert!(TextQuery::parse(&long[1..]).is_ok());
    }
}
