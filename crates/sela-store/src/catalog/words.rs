//! The full-text index: SQLite's FTS5 over the texts of live rows, by the sequence of their row.
//!
//! It holds words and where they stand, not the texts. So to take a row out, its text is given
//! once more, and must be the same that was put in.

use rusqlite::{OptionalExtension, params};

use super::rows::wrong_sum;
use super::{Catalog, lift};
use crate::error::{Damage, DamagePlace, Error, Result};
use crate::sum::text_sum;

/// The index, by name and definition.
pub(crate) const WORDS: (&str, &str) = (
    "fts",
    "CREATE VIRTUAL TABLE fts USING fts5(text, content='', \
     tokenize='unicode61 remove_diacritics 2')",
);

impl Catalog {
    /// Makes the index anew, without rows.
    pub(crate) fn renew_words(&self) -> Result<()> {
        self.conn
            .execute_batch(&format!("DROP TABLE IF EXISTS {}; {}", WORDS.0, WORDS.1))
            .map_err(self.lift_words("be made anew"))
    }

    /// Adds the text of a row.
    pub(crate) fn put_words(&self, seq: u64, text: &str) -> Result<()> {
        self.run_words(
            "INSERT INTO fts(rowid, text) VALUES (?, ?)",
            params![seq as i64, text],
        )
    }

    /// Takes the text of a row out, if it has one; whether that could be done: a text that is
    /// lost or damaged cannot be taken out.
    pub(super) fn remove_words(&self, seq: u64) -> Result<bool> {
        let lift = self.lift("be read");
        let mut statement = self
            .conn
            .prepare_cached("SELECT text, text_sum FROM docs WHERE seq = ?")
            .map_err(&lift)?;
        type Read<T> = rusqlite::Result<Option<T>>;
        let read = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(Read<String>, Read<i64>)> {
            Ok((row.get(0), row.get(1)))
        };
        let found = statement
            .query_row([seq as i64], read)
            .optional()
            .map_err(&lift)?;
        let Some((Ok(text), Ok(sum))) = found else {
            return Ok(false);
        };
        if text.as_deref().map(text_sum) != sum.map(|sum| sum as u64) {
            return Ok(false);
        }
        if let Some(text) = text {
            self.run_words(
                "INSERT INTO fts(fts, rowid, text) VALUES ('delete', ?, ?)",
                params![seq as i64, text],
            )?;
        }
        Ok(true)
    }

    /// Writes what the index has gathered in memory: at the commit, which would do it else, a
    /// damaged index could not be told from a disk that fails.
    pub(crate) fn settle_words(&self) -> Result<()> {
        self.run_words("INSERT INTO fts(fts) VALUES ('flush')", [])
    }

    /// Hands over the sequence and the BM25 score (the larger the better) of every row that an
    /// expression of FTS5 matches, by ascending sequence.
    pub(crate) fn each_match(
        &self,
        expression: &str,
        mut each: impl FnMut(u64, f64) -> Result<()>,
    ) -> Result<()> {
        let lift = self.lift_words("be searched");
        let mut statement = self
            .conn
            .prepare_cached("SELECT rowid, -bm25(fts) FROM fts WHERE fts MATCH ?")
            .map_err(&lift)?;
        let mut rows = statement.query([expression]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let seq = row.get::<_, i64>(0).map_err(&lift)? as u64;
            each(seq, row.get(1).map_err(&lift)?)?;
        }
        Ok(())
    }

    /// Whether any row is in the index.
    pub(crate) fn has_words(&self) -> Result<bool> {
        self.conn
            .prepare_cached("SELECT 1 FROM fts_docsize LIMIT 1")
            .and_then(|mut statement| statement.exists([]))
            .map_err(self.lift_words("be read"))
    }

    /// Hands over every text after a sequence, dead rows' included, or what is wrong with it,
    /// until `each` has enough.
    pub(crate) fn each_text(
        &self,
        after: u64,
        mut each: impl FnMut(u64, Result<&str>) -> Result<bool>,
    ) -> Result<()> {
        let lift = self.lift("be read");
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT seq, text, text_sum FROM docs \
                 WHERE seq > ? AND text_sum IS NOT NULL ORDER BY seq",
            )
            .map_err(&lift)?;
        let mut rows = statement.query([after as i64]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let seq = row.get::<_, i64>(0).map_err(&lift)? as u64;
            let sum = row.get::<_, i64>(2).map_err(&lift)? as u64;
            let text = row.get_ref(1).map_err(&lift)?.as_str().ok();
            let text = text
                .filter(|text| text_sum(text) == sum)
                .ok_or_else(|| wrong_sum("docs", seq));
            if !each(seq, text)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether any row after a sequence has a text.
    pub(crate) fn has_text_after(&self, seq: u64) -> Result<bool> {
        self.conn
            .prepare_cached("SELECT 1 FROM docs WHERE seq > ? AND text_sum IS NOT NULL LIMIT 1")
            .and_then(|mut statement| statement.exists([seq as i64]))
            .map_err(self.lift("be read"))
    }

    fn run_words(&self, sql: &str, values: impl rusqlite::Params) -> Result<()> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map(|_| ())
            .map_err(self.lift_words("be written"))
    }

    /// Damage met in the index is told as the index's, which can be made anew.
    pub(super) fn lift_words(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
        let path = self.path.clone();
        move |error| {
            let words = match &error {
                rusqlite::Error::SqliteFailure(failure, words) => match failure.code {
                    // The statements are fixed, so it is the index that is not as it was made.
                    rusqlite::ErrorCode::Unknown => words
                        .clone()
                        .filter(|words| !words.starts_with("fts5: syntax")),
                    _ => None,
                },
                _ => None,
            };
            let detail = match (lift(action, &path, error), words) {
                (Error::Damaged(damage), _) => damage.detail,
                (_, Some(words)) => words,
                (other, None) => return other,
            };
            damaged_words(&path, detail)
        }
    }

    /// The index is not what was written.
    pub(crate) fn damaged_words(&self, detail: impl Into<String>) -> Error {
        damaged_words(&self.path, detail)
    }
}

fn damaged_words(path: &std::path::Path, detail: impl Into<String>) -> Error {
    let place = DamagePlace::TextIndex {
        path: path.to_owned(),
    };
    Error::Damaged(Damage {
        place,
        detail: detail.into(),
    })
}
