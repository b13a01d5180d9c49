//! The full-text index held against the texts, word by word.
//!
//! The texts are indexed once more, some at a time and in memory, and what the two indexes hold is
//! summed up: every word with its row and its place, every row with its length, and the totals
//! that scores rest on.

use std::collections::HashSet;

use super::Catalog;
use crate::error::Result;
use crate::sum::Sum;

/// Bytes of texts that are indexed in memory at once.
const SLICE_BYTES: usize = 1 << 20;

/// What an index holds, in an order that does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WordsSum {
    /// Words, each as often as it stands somewhere.
    pub(crate) words: u64,
    /// Rows.
    pub(crate) rows: u64,
    sum: u64,
}

/// The tables of an index to be summed up: its words, and the lengths of its rows.
struct Tables {
    words: &'static str,
    lengths: &'static str,
}

const STORED: Tables = Tables {
    words: "SELECT term, doc, offset FROM temp.words_stored",
    lengths: "SELECT id, sz FROM main.fts_docsize",
};
const AGAIN: Tables = Tables {
    words: "SELECT term, doc, offset FROM temp.words_again",
    lengths: "SELECT id, sz FROM temp.again_docsize",
};

impl Catalog {
    /// Sums up the index, but for some rows.
    pub(crate) fn sum_of_index(&self, but: &HashSet<u64>) -> Result<WordsSum> {
        self.conn
            .execute_batch(
                "CREATE VIRTUAL TABLE temp.words_stored USING fts5vocab(main, fts, instance)",
            )
            .map_err(self.lift_words("be read"))?;
        let mut sum = WordsSum::default();
        self.add_words(&STORED, but, &mut sum)?;
        Ok(sum)
    }

    /// Sums up what the index should hold: `texts` gives the texts to the function it is called
    /// with, which wants each row once.
    pub(crate) fn sum_of_texts(
        &self,
        texts: impl FnOnce(&mut dyn FnMut(u64, &str) -> Result<()>) -> Result<()>,
    ) -> Result<WordsSum> {
        let lift = self.lift("index texts in memory");
        self.conn
            .execute_batch(
                "CREATE VIRTUAL TABLE temp.again USING fts5(text, content='', \
                 tokenize='unicode61 remove_diacritics 2');
                 CREATE VIRTUAL TABLE temp.words_again USING fts5vocab(temp, again, instance)",
            )
            .map_err(&lift)?;
        let mut sum = WordsSum::default();
        let mut bytes = 0;
        let mut add = |flush: bool| -> Result<()> {
            if flush {
                self.add_words(&AGAIN, &HashSet::new(), &mut sum)?;
                self.conn
                    .execute_batch("INSERT INTO temp.again(again) VALUES ('delete-all')")
                    .map_err(&lift)?;
            }
            Ok(())
        };
        texts(&mut |seq, text| {
            self.conn
                .prepare_cached("INSERT INTO temp.again(rowid, text) VALUES (?, ?)")
                .and_then(|mut statement| statement.execute((seq as i64, text)))
                .map_err(&lift)?;
            bytes += text.len();
            let full = bytes >= SLICE_BYTES;
            if full {
                bytes = 0;
            }
            add(full)
        })?;
        add(true)?;
        Ok(sum)
    }

    /// The rows and words that the index counts, which scores rest on.
    pub(crate) fn totals_of_index(&self) -> Result<(u64, u64)> {
        let record: Vec<u8> = self
            .conn
            .query_row("SELECT block FROM fts_data WHERE id = 1", [], |row| {
                row.get(0)
            })
            .map_err(self.lift_words("be read"))?;
        let (rows, rest) = read_number(&record);
        Ok((rows, read_number(rest).0))
    }

    fn add_words(&self, from: &Tables, but: &HashSet<u64>, sum: &mut WordsSum) -> Result<()> {
        let lift = self.lift_words("be read");
        let mut statement = self.conn.prepare_cached(from.words).map_err(&lift)?;
        let mut rows = statement.query([]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let doc = row.get::<_, i64>(1).map_err(&lift)? as u64;
            if but.contains(&doc) {
                continue;
            }
            let word = row.get_ref(0).map_err(&lift)?;
            let at = row.get::<_, i64>(2).map_err(&lift)? as u64;
            let word = word.as_bytes().unwrap_or_default();
            let one = Sum::new("word").int(doc).int(at).bytes(word).finish();
            sum.sum = sum.sum.wrapping_add(one);
            sum.words += 1;
        }
        let mut statement = self.conn.prepare_cached(from.lengths).map_err(&lift)?;
        let mut rows = statement.query([]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let doc = row.get::<_, i64>(0).map_err(&lift)? as u64;
            if but.contains(&doc) {
                continue;
            }
            let length: Vec<u8> = row.get(1).map_err(&lift)?;
            let one = Sum::new("length").int(doc).bytes(&length).finish();
            sum.sum = sum.sum.wrapping_add(one);
            sum.rows += 1;
        }
        Ok(())
    }
}

/// A number as FTS5 and SQLite write it: seven bits a byte, the high ones first, up to nine bytes.
fn read_number(bytes: &[u8]) -> (u64, &[u8]) {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return (number << 8 | u64::from(*byte), &bytes[9..]);
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return (number, &bytes[at + 1..]);
        }
    }
    (number, &[])
}

#[cfg(test)]
mod tests {
    use super::read_number;

    #[test]
    fn numbers_are_read_as_sqlite_writes_them() {
        for (bytes, number, left) in [
            (&[0x00, 9][..], 0, 1),
            (&[0x7f], 127, 0),
            (&[0x81, 0x00, 7, 7], 128, 2),
            (&[0xff; 9], u64::MAX, 0),
            (&[], 0, 0),
        ] {
            let (found, rest) = read_number(bytes);
            assert_eq!((found, rest.len()), (number, left), "{bytes:?}");
        }
    }
}
