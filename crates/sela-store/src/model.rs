//! The plain words of the store: schema, options, rows, operations and answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, OsDisk};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limits::{DIM_MAX, SCHEMA_BYTES_MAX, SEGMENT_ROWS_MAX};

/// A row's JSON object.
pub type Payload = serde_json::Map<String, serde_json::Value>;

/// How the numbers of a vector are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Record {
    /// Four bytes each: the numbers as given.
    F32,
    /// Two bytes each: rounded to the nearest half-precision number, ties to even.
    F16,
}

impl Record {
    /// The bytes one number takes.
    pub fn number_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// What a collection holds; fixed when it is created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Numbers in every vector, 1 to 65,536.
    pub dim: u32,
    /// How they are stored.
    pub record: Record,
    /// The metric meant for the vectors; the store does not read it.
    pub metric: Option<String>,
    /// The identity of the vector space; the store does not read it.
    pub space: String,
    /// How the vectors were made; the store does not read it.
    pub provenance: serde_json::Value,
}

impl Schema {
    /// A schema of `dim` numbers in `f32`, without metric or provenance.
    pub fn new(dim: u32, space: impl Into<String>) -> Self {
        Self {
            dim,
            record: Record::F32,
            metric: None,
            space: space.into(),
            provenance: serde_json::Value::Null,
        }
    }

    /// The bytes one stored vector takes.
    pub fn row_bytes(&self) -> usize {
        self.dim as usize * self.record.number_bytes()
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.dim == 0 {
            return Err(Error::Schema("vectors need at least one number".into()));
        }
        if self.dim > DIM_MAX {
            return Err(Error::limit(
                "vector dimensions",
                self.dim as usize,
                DIM_MAX as usize,
            ));
        }
        let bytes = serde_json::to_vec(self).map_or(0, |json| json.len());
        if bytes > SCHEMA_BYTES_MAX {
            return Err(Error::limit("schema bytes", bytes, SCHEMA_BYTES_MAX));
        }
        Ok(())
    }
}

/// How a collection is opened; the defaults suit most.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file system; another one than the system's only in tests.
    pub disk: Arc<dyn Disk>,
    /// The name of the SQLite virtual file system; another one than the system's only in tests.
    pub vfs: Option<String>,
    /// Open for reading only: takes no lock, sweeps nothing, and may sit beside a writer.
    pub read_only: bool,
    /// Fresh rows that make the store seal them into a segment after a write (65,536). Less
    /// saves memory, more makes fewer segments.
    pub seal_rows: usize,
    /// Most rows of a segment made by bulk loading or compaction (1,048,576).
    pub segment_rows: usize,
    /// Ids, payloads and texts a bulk load keeps in memory before it seals a segment early
    /// (128 MiB).
    pub bulk_bytes_max: usize,
    /// SQLite's page cache per connection (8 MiB).
    pub catalog_cache_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            disk: Arc::new(OsDisk),
            vfs: None,
            read_only: false,
            seal_rows: 65_536,
            segment_rows: 1 << 20,
            bulk_bytes_max: 128 << 20,
            catalog_cache_bytes_max: 8 << 20,
        }
    }
}

impl Options {
    /// The defaults, for reading only.
    pub fn read_only() -> Self {
        Self {
            read_only: true,
            ..Self::default()
        }
    }

    /// The same options, kept within what the format allows.
    pub(crate) fn clamped(&self) -> Self {
        let mut options = self.clone();
        options.seal_rows = options.seal_rows.clamp(1, SEGMENT_ROWS_MAX);
        options.segment_rows = options.segment_rows.clamp(1, SEGMENT_ROWS_MAX);
        options
    }
}

/// One row as it is given and given back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub id: Id,
    /// Its vector; empty in answers that did not ask for it.
    pub vector: Vec<f32>,
    /// Its JSON object, if any.
    pub payload: Option<Payload>,
    /// Its text, if any.
    pub text: Option<String>,
}

impl Row {
    /// A row without payload and text.
    pub fn new(id: impl Into<Id>, vector: Vec<f32>) -> Self {
        Self {
            id: id.into(),
            vector,
            payload: None,
            text: None,
        }
    }
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// Stores a row, replacing the one of the same id.
    Upsert(Row),
    /// Removes the row of this id; no error when there is none.
    Delete(Id),
}

/// What a write did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Operations applied.
    pub count: u64,
    /// Rows that were there before and are now replaced or removed.
    pub replaced: u64,
    /// The newest sequence of the collection after the write; 0 when it never held a row.
    pub last_seq: u64,
}

/// Which parts of a row an answer carries, its id apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The vector.
    pub vector: bool,
    /// The payload.
    pub payload: bool,
    /// The text.
    pub text: bool,
}

impl Fields {
    /// Everything.
    pub const ALL: Self = Self {
        vector: true,
        payload: true,
        text: true,
    };
    /// The id alone.
    pub const ID: Self = Self {
        vector: false,
        payload: false,
        text: false,
    };
    /// Payload and text.
    pub const DOC: Self = Self {
        vector: false,
        payload: true,
        text: true,
    };
}

/// Where a row stands in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The part, an index into [`crate::View::parts`].
    pub part: u32,
    /// The row in the part.
    pub row: u32,
}

/// One page of a scroll.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The rows in ascending sequence, each with its sequence.
    pub rows: Vec<(u64, Row)>,
    /// What to pass as `after` for the next page; `None` at the end.
    pub next: Option<u64>,
}

/// How a collection stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Info {
    /// Rows that answer.
    pub rows_live: u64,
    /// Rows replaced or removed whose bytes are not reclaimed yet.
    pub rows_dead: u64,
    /// Live rows that are not in a segment yet.
    pub rows_pending: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of the segment files.
    pub segment_bytes: u64,
    /// Bytes of the catalog and its log.
    pub catalog_bytes: u64,
    /// The newest sequence.
    pub last_seq: u64,
    /// Why writes are refused, if they are.
    pub poisoned: Option<String>,
}

/// What sealing or compacting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Maintained {
    /// Rows written into new segments.
    pub rows_moved: u64,
    /// Dead rows dropped.
    pub rows_dropped: u64,
    /// Segments written.
    pub segments_made: u64,
    /// Segments removed.
    pub segments_removed: u64,
}

/// What [`crate::verify`] looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Segment files read to the last byte.
    pub segments: u64,
    /// Checksummed blocks of them.
    pub blocks: u64,
    /// Rows of the catalog's tables.
    pub catalog_rows: u64,
    /// Live rows.
    pub rows: u64,
    /// Everything that is not as it was written.
    pub faults: Vec<crate::error::Damage>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// Whether all that is wrong is the full-text index, which can be made anew.
    pub fn only_text_index(&self) -> bool {
        let of_index = |fault: &crate::error::Damage| {
            matches!(fault.place, crate::error::DamagePlace::TextIndex { .. })
        };
        !self.is_sound() && self.faults.iter().all(of_index)
    }
}
