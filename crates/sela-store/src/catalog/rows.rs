//! The rows of the catalog's tables but the documents, each with its checksum.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{APPLICATION_ID, Catalog, VERSION};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limits::{SEGMENTS_MAX, SEGMENTS_WHAT};
use crate::model::Schema;
use crate::sum::Sum;

/// The tables, by name and definition.
pub(crate) const TABLES: [(&str, &str); 6] = [
    (
        "meta",
        "CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL, \
         sum INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (
        "segments",
        "CREATE TABLE segments (number INTEGER PRIMARY KEY, rows INTEGER NOT NULL, \
         bytes INTEGER NOT NULL, dead INTEGER NOT NULL, digest BLOB NOT NULL, \
         sum INTEGER NOT NULL) STRICT",
    ),
    (
        "tombstones",
        "CREATE TABLE tombstones (segment INTEGER NOT NULL, chunk INTEGER NOT NULL, \
         bits BLOB NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (segment, chunk)) \
         STRICT, WITHOUT ROWID",
    ),
    (
        "pending",
        "CREATE TABLE pending (seq INTEGER PRIMARY KEY, id BLOB NOT NULL, \
         doc INTEGER NOT NULL, vector BLOB NOT NULL, sum INTEGER NOT NULL) STRICT",
    ),
    (
        "docs",
        "CREATE TABLE docs (seq INTEGER PRIMARY KEY, payload TEXT, payload_sum INTEGER, \
         text TEXT, text_sum INTEGER) STRICT",
    ),
    (
        "graves",
        "CREATE TABLE graves (number INTEGER PRIMARY KEY, seq INTEGER NOT NULL, \
         sum INTEGER NOT NULL) STRICT",
    ),
];

/// Rows one chunk of tombstones covers.
pub(crate) const TOMBSTONE_CHUNK_ROWS: u32 = 32_768;
const CHUNK_WORDS: usize = TOMBSTONE_CHUNK_ROWS as usize / 64;

/// The collection's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The newest sequence given.
    pub(crate) last_seq: u64,
    /// The number of the next segment.
    pub(crate) next_segment: u64,
    /// Rows of `segments`.
    pub(crate) segments: u64,
    /// Rows of `pending`.
    pub(crate) pending: u64,
    /// How often dead documents were removed.
    pub(crate) purges: u64,
    /// How far the full-text index goes. A version that knows of none leaves it out of whatever
    /// it writes, which so tells that the index has fallen behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text_index: Option<TextIndex>,
}

/// How the full-text index stands: it holds the texts of the live rows up to a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TextIndex {
    /// The way texts are cut into words; 0 for an index that is to be made anew.
    pub(crate) version: u32,
    /// How often it was made.
    pub(crate) made: u64,
    /// The sequence it goes to.
    pub(crate) through: u64,
}

impl TextIndex {
    /// The way this version cuts texts into words.
    pub(crate) const VERSION: u32 = 1;
}

impl State {
    /// The index, if it is one that this version keeps up.
    pub(crate) fn known_index(&self) -> Option<TextIndex> {
        self.text_index
            .filter(|index| index.version == TextIndex::VERSION)
    }

    /// From now on the index counts for nothing.
    pub(crate) fn forget_index(&mut self) {
        if let Some(index) = &mut self.text_index {
            index.version = 0;
        }
    }

    /// Whether the index holds the texts of all rows.
    pub(crate) fn is_indexed(&self) -> bool {
        self.known_index()
            .is_some_and(|index| index.through >= self.last_seq)
    }

    /// Whether the index holds the text of this live row, if it has one.
    pub(crate) fn indexes(&self, seq: u64) -> bool {
        self.known_index().is_some_and(|index| index.through >= seq)
    }
}

/// A row of `segments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) number: u64,
    pub(crate) rows: u32,
    pub(crate) bytes: u64,
    pub(crate) dead: u32,
    pub(crate) digest: u128,
}

/// A row of `pending`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingRow {
    pub(crate) seq: u64,
    pub(crate) id: Id,
    pub(crate) doc: u64,
    pub(crate) vector: Vec<u8>,
}

impl SegmentRow {
    fn sum(&self) -> u64 {
        Sum::new("segments")
            .int(self.number)
            .int(self.rows.into())
            .int(self.bytes)
            .int(self.dead.into())
            .bytes(&self.digest.to_le_bytes())
            .finish()
    }
}

fn tombstone_sum(segment: u64, chunk: u32, bits: &[u8]) -> u64 {
    Sum::new("tombstones")
        .int(segment)
        .int(chunk.into())
        .bytes(bits)
        .finish()
}

fn pending_sum(seq: u64, key: &[u8], doc: u64, vector: &[u8]) -> u64 {
    Sum::new("pending")
        .int(seq)
        .bytes(key)
        .int(doc)
        .bytes(vector)
        .finish()
}

pub(super) fn wrong_sum(table: &'static str, row: impl ToString) -> Error {
    Error::row(table, row, "its checksum does not match its contents")
}

impl Catalog {
    /// Creates the tables and the first rows; the caller commits.
    pub(crate) fn create_tables(&self, schema: &Schema) -> Result<()> {
        for (_, definition) in TABLES {
            self.conn
                .execute_batch(definition)
                .map_err(self.lift("create its tables"))?;
        }
        self.renew_words()?;
        let json = serde_json::to_string(schema).map_err(|e| Error::Schema(e.to_string()))?;
        self.put_meta("schema", &json)?;
        let text_index = TextIndex {
            version: TextIndex::VERSION,
            made: 1,
            through: 0,
        };
        self.put_state(&State {
            next_segment: 1,
            text_index: Some(text_index),
            ..State::default()
        })?;
        self.conn
            .execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}"
            ))
            .map_err(self.lift("create its tables"))
    }

    fn put_meta(&self, name: &str, value: &str) -> Result<()> {
        let sum = Sum::new("meta")
            .bytes(name.as_bytes())
            .bytes(value.as_bytes())
            .finish();
        self.run(
            "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)",
            params![name, value, sum as i64],
        )
    }

    fn meta(&self, name: &'static str) -> Result<String> {
        let row: Option<(String, i64)> = self
            .conn
            .prepare_cached("SELECT value, sum FROM meta WHERE name = ?")
            .and_then(|mut s| {
                s.query_row([name], |r| Ok((r.get(0)?, r.get(1)?)))
                    .optional()
            })
            .map_err(self.lift("be read"))?;
        let Some((value, sum)) = row else {
            return Err(Error::row("meta", name, "it is missing"));
        };
        let expected = Sum::new("meta")
            .bytes(name.as_bytes())
            .bytes(value.as_bytes())
            .finish();
        if sum as u64 != expected {
            return Err(wrong_sum("meta", name));
        }
        Ok(value)
    }

    /// The schema.
    pub(crate) fn schema(&self) -> Result<Schema> {
        let json = self.meta("schema")?;
        serde_json::from_str(&json).map_err(|e| Error::row("meta", "schema", e.to_string()))
    }

    /// The counters.
    pub(crate) fn state(&self) -> Result<State> {
        let json = self.meta("state")?;
        serde_json::from_str(&json).map_err(|e| Error::row("meta", "state", e.to_string()))
    }

    /// Stores the counters. Whoever names a segment comes by here in the same transaction, so the
    /// number of segments is checked here.
    pub(crate) fn put_state(&self, state: &State) -> Result<()> {
        if state.segments > SEGMENTS_MAX as u64 {
            let found = state.segments as usize;
            return Err(Error::limit(SEGMENTS_WHAT, found, SEGMENTS_MAX));
        }
        let json = serde_json::to_string(state).map_err(|e| Error::Schema(e.to_string()))?;
        self.put_meta("state", &json)
    }

    /// All segments by number, checked.
    pub(crate) fn segments(&self) -> Result<Vec<SegmentRow>> {
        let mut rows = Vec::new();
        self.each_segment(|row| {
            rows.push(row?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Hands every row of `segments` over, or what is wrong with it.
    pub(crate) fn each_segment(
        &self,
        mut each: impl FnMut(Result<SegmentRow>) -> Result<()>,
    ) -> Result<()> {
        let lift = self.lift("be read");
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT number, rows, bytes, dead, digest, sum FROM segments ORDER BY number",
            )
            .map_err(&lift)?;
        let mut rows = statement.query([]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let read = || {
                let digest: Vec<u8> = row.get(4)?;
                Ok((
                    SegmentRow {
                        number: row.get::<_, i64>(0)? as u64,
                        rows: row.get(1)?,
                        bytes: row.get::<_, i64>(2)? as u64,
                        dead: row.get(3)?,
                        digest: u128::from_le_bytes(digest.try_into().unwrap_or([0; 16])),
                    },
                    row.get::<_, i64>(5)? as u64,
                ))
            };
            let (segment, sum): (SegmentRow, u64) = read().map_err(&lift)?;
            each(if segment.sum() == sum {
                Ok(segment)
            } else {
                Err(wrong_sum("segments", segment.number))
            })?;
        }
        Ok(())
    }

    /// Names a segment, or stores its new count of dead rows.
    pub(crate) fn put_segment(&self, row: &SegmentRow) -> Result<()> {
        let digest = row.digest.to_le_bytes();
        self.run(
            "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?)",
            params![
                row.number as i64,
                row.rows,
                row.bytes as i64,
                row.dead,
                &digest[..],
                row.sum() as i64
            ],
        )
    }

    /// Forgets a segment and its tombstones.
    pub(crate) fn remove_segment(&self, number: u64) -> Result<()> {
        self.run("DELETE FROM tombstones WHERE segment = ?", [number as i64])?;
        self.run("DELETE FROM segments WHERE number = ?", [number as i64])
    }

    /// The dead rows of a segment, one bit each.
    pub(crate) fn tombstones(&self, segment: &SegmentRow) -> Result<Vec<u64>> {
        let lift = self.lift("be read");
        let mut dead = vec![0_u64; (segment.rows as usize).div_ceil(64)];
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT chunk, bits, sum FROM tombstones WHERE segment = ? ORDER BY chunk",
            )
            .map_err(&lift)?;
        let mut rows = statement.query([segment.number as i64]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let chunk: u32 = row.get(0).map_err(&lift)?;
            let bits: Vec<u8> = row.get(1).map_err(&lift)?;
            let sum: i64 = row.get(2).map_err(&lift)?;
            let name = || format!("{}/{chunk}", segment.number);
            if sum as u64 != tombstone_sum(segment.number, chunk, &bits) {
                return Err(wrong_sum("tombstones", name()));
            }
            let start = chunk as usize * CHUNK_WORDS;
            if bits.len() != CHUNK_WORDS * 8 || start >= dead.len() {
                return Err(Error::row(
                    "tombstones",
                    name(),
                    "it does not fit its segment",
                ));
            }
            for (word, bytes) in dead[start..].iter_mut().zip(bits.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
        }
        let count: u32 = dead.iter().map(|word| word.count_ones()).sum();
        let beyond = segment.rows % 64;
        let tail = if beyond == 0 {
            0
        } else {
            dead.last().map_or(0, |word| word >> beyond)
        };
        if count != segment.dead || tail != 0 {
            let detail = format!(
                "it counts {} dead rows, its tombstones {count}",
                segment.dead
            );
            return Err(Error::row("segments", segment.number, detail));
        }
        Ok(dead)
    }

    /// Stores one chunk of a segment's dead rows.
    pub(crate) fn put_tombstones(&self, segment: u64, chunk: u32, dead: &[u64]) -> Result<()> {
        let mut bits = [0_u8; CHUNK_WORDS * 8];
        let start = chunk as usize * CHUNK_WORDS;
        for (bytes, word) in bits.as_chunks_mut::<8>().0.iter_mut().zip(&dead[start..]) {
            *bytes = word.to_le_bytes();
        }
        let sum = tombstone_sum(segment, chunk, &bits);
        self.run(
            "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?)",
            params![segment as i64, chunk, &bits[..], sum as i64],
        )
    }

    /// Hands every fresh row over in ascending sequence, or what is wrong with it.
    pub(crate) fn each_pending(
        &self,
        row_bytes: usize,
        mut each: impl FnMut(Result<PendingRow>) -> Result<()>,
    ) -> Result<()> {
        let lift = self.lift("be read");
        let mut statement = self
            .conn
            .prepare_cached("SELECT seq, id, doc, vector, sum FROM pending ORDER BY seq")
            .map_err(&lift)?;
        let mut rows = statement.query([]).map_err(&lift)?;
        while let Some(row) = rows.next().map_err(&lift)? {
            let seq = row.get::<_, i64>(0).map_err(&lift)? as u64;
            let key: Vec<u8> = row.get(1).map_err(&lift)?;
            let doc = row.get::<_, i64>(2).map_err(&lift)? as u64;
            let vector: Vec<u8> = row.get(3).map_err(&lift)?;
            let sum = row.get::<_, i64>(4).map_err(&lift)? as u64;
            each(if sum != pending_sum(seq, &key, doc, &vector) {
                Err(wrong_sum("pending", seq))
            } else if vector.len() != row_bytes {
                Err(Error::row(
                    "pending",
                    seq,
                    "its vector has the wrong length",
                ))
            } else {
                Id::from_key(&key)
                    .map(|id| PendingRow {
                        seq,
                        id,
                        doc,
                        vector,
                    })
                    .ok_or_else(|| Error::row("pending", seq, "its id is none"))
            })?;
        }
        Ok(())
    }

    /// Stores a fresh row.
    pub(crate) fn put_pending(&self, seq: u64, id: &Id, doc: u64, vector: &[u8]) -> Result<()> {
        let key = id.to_key();
        let sum = pending_sum(seq, &key, doc, vector);
        self.run(
            "INSERT INTO pending VALUES (?, ?, ?, ?, ?)",
            params![seq as i64, key, doc as i64, vector, sum as i64],
        )
    }

    /// Removes a fresh row.
    pub(crate) fn remove_pending(&self, seq: u64) -> Result<()> {
        self.run("DELETE FROM pending WHERE seq = ?", [seq as i64])
    }

    /// Removes all fresh rows.
    pub(crate) fn clear_pending(&self) -> Result<()> {
        self.run("DELETE FROM pending", [])
    }

    /// How many rows a table has.
    pub(crate) fn count(&self, table: &'static str) -> Result<u64> {
        self.conn
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get::<_, i64>(0)
            })
            .map(|count| count as u64)
            .map_err(self.lift("be read"))
    }

    /// The definitions of tables and indexes as the database holds them.
    pub(crate) fn definitions(&self) -> Result<Vec<(String, Option<String>)>> {
        let lift = self.lift("be read");
        let mut statement = self
            .conn
            .prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")
            .map_err(&lift)?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(&lift)?;
        Ok(rows)
    }

    pub(super) fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<()> {
        self.conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map(|_| ())
            .map_err(self.lift("be written"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Access;
    use crate::model::Options;

    #[test]
    fn more_segments_than_allowed_are_not_named() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::connect(folder.path(), &Options::default(), Access::Create).unwrap();
        catalog.create_tables(&Schema::new(2, "tests")).unwrap();
        let with = |segments| State {
            segments,
            ..State::default()
        };
        catalog.put_state(&with(SEGMENTS_MAX as u64)).unwrap();
        let error = catalog
            .put_state(&with(SEGMENTS_MAX as u64 + 1))
            .unwrap_err();
        let told = error.to_string();
        assert_eq!(
            told,
            "the number of segments is 65537, and the limit is 65536"
        );
        assert!(error.hint().unwrap().contains("compact"));
        assert_eq!(catalog.state().unwrap(), with(SEGMENTS_MAX as u64));
    }
}
