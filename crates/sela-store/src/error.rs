//! What can go wrong in a store, told to a reader: values inside, causes kept, advice apart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::id::{Id, IdError};
use crate::limits::SEGMENTS_WHAT;

/// A store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause kept below an error, whatever library it came from.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// What went wrong in a store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },
    /// The disk has no room; nothing of the refused write remains.
    #[error("the disk that holds `{path}` is full")]
    DiskFull {
        /// The file or folder that could not grow.
        path: PathBuf,
    },
    /// The collection cannot be written: it was opened for reading, or its file system is.
    #[error("collection `{dir}` cannot be written: {reason}")]
    ReadOnly {
        /// The collection's folder.
        dir: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Another process, or another value in this one, has the collection open for writing.
    #[error("collection `{dir}` is already open for writing elsewhere")]
    Locked {
        /// The collection's folder.
        dir: PathBuf,
    },
    /// The folder holds no (finished) collection.
    #[error("`{dir}` is not a collection: {reason}")]
    NotACollection {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// The folder holds a collection already.
    #[error("`{dir}` already holds a collection")]
    AlreadyExists {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder holds files that are not a collection's.
    #[error("cannot use `{dir}`: it holds `{name}`, which is no part of a collection")]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
        /// The first foreign entry.
        name: String,
    },
    /// The file was written by a newer version.
    #[error("`{path}` has format {found}; this version reads formats up to {known}")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// Stored bytes are not what was written; they are not served.
    #[error("{0}")]
    Damaged(Damage),
    /// An earlier sync failed, so what is on disk is unknown: writes are refused until reopened.
    #[error(
        "collection `{dir}` refuses writes because an earlier one failed to reach the disk: {cause}"
    )]
    Poisoned {
        /// The collection's folder.
        dir: PathBuf,
        /// The failure that did it.
        cause: String,
    },
    /// The catalog's database refused an operation.
    #[error("the catalog cannot {action}: {detail}")]
    Catalog {
        /// What was tried, as a verb.
        action: &'static str,
        /// The database's words.
        detail: String,
        /// The database's error.
        #[source]
        source: Cause,
    },
    /// A vector cannot be stored.
    #[error("row `{id}`: {fault}")]
    Vector {
        /// The row.
        id: Id,
        /// What is wrong with its vector.
        fault: VectorFault,
    },
    /// Something is larger than the store allows.
    #[error("{what} is {found}, and the limit is {max}")]
    Limit {
        /// What is too large, with its unit.
        what: String,
        /// Its size.
        found: u64,
        /// The largest allowed.
        max: u64,
    },
    /// An id cannot be stored.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A filter cannot be understood.
    #[error(transparent)]
    Filter(#[from] crate::filter::FilterError),
    /// A schema makes no sense.
    #[error("the schema is not usable: {0}")]
    Schema(String),
    /// A place names a part or a row that the view does not have.
    #[error("the view has no row {row} in part {part}")]
    NoSuchPlace {
        /// The part.
        part: u32,
        /// The row.
        row: u32,
    },
    /// What is to be looked for in texts cannot be understood.
    #[error(transparent)]
    TextQuery(#[from] crate::text::TextQueryError),
    /// The collection has no full-text index, or not yet one of all its texts.
    #[error("the texts of collection `{dir}` cannot be searched for words: {reason}")]
    NoTextIndex {
        /// The collection's folder.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// The collection's writer, in another process, has removed what the view shows.
    #[error("the view is too old: its rows have been replaced and removed since")]
    ViewExpired,
}

/// What is wrong with a vector.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VectorFault {
    /// It has another number of dimensions than the collection.
    #[error("the vector has {found} numbers, and the collection holds vectors of {expected}")]
    Dim {
        /// The collection's dimensions.
        expected: u32,
        /// The vector's.
        found: usize,
    },
    /// A number is NaN or infinite.
    #[error("number {position} of the vector is {value}")]
    NotFinite {
        /// Its position, from 0.
        position: usize,
        /// Its value.
        value: f32,
    },
    /// A number does not fit the collection's 16-bit records.
    #[error(
        "number {position} of the vector is {value}, beyond the 16-bit range of the collection"
    )]
    NotF16 {
        /// Its position, from 0.
        position: usize,
        /// Its value.
        value: f32,
    },
    /// The vector is so long that scores would overflow.
    #[error("the vector's squared length is {norm_squared:.1e}, and the limit is 5e37")]
    TooLong {
        /// The sum of the squares.
        norm_squared: f64,
    },
}

/// Which stored bytes are damaged, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {detail}")]
pub struct Damage {
    /// Where.
    pub place: DamagePlace,
    /// How it was noticed.
    pub detail: String,
}

/// Where stored bytes are damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamagePlace {
    /// A segment file as a whole: missing, shortened, or with a bad header.
    #[error("segment file `{path}`")]
    Segment {
        /// The file.
        path: PathBuf,
    },
    /// One checksummed block of a segment file.
    #[error("segment file `{path}`, {section} block {block} (rows {first_row}..{end_row})")]
    Block {
        /// The file.
        path: PathBuf,
        /// The section's name.
        section: &'static str,
        /// The block's number in its section.
        block: u32,
        /// The first row the block bears on.
        first_row: u32,
        /// One past the last row the block bears on.
        end_row: u32,
    },
    /// One row of a table of the catalog.
    #[error("catalog table `{table}`, row {row}")]
    Row {
        /// The table.
        table: &'static str,
        /// The row's key.
        row: String,
    },
    /// The catalog's database file.
    #[error("catalog `{path}`")]
    Catalog {
        /// The file.
        path: PathBuf,
    },
    /// The full-text index, which is made anew from the texts.
    #[error("full-text index in `{path}`")]
    TextIndex {
        /// The catalog's database file.
        path: PathBuf,
    },
    /// One frame of the catalog's log.
    #[error("log `{path}`, frame {frame}")]
    Log {
        /// The file.
        path: PathBuf,
        /// The frame, from 1.
        frame: u64,
    },
}

impl Error {
    /// What the reader might do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::DiskFull { .. } => "free some space and try again; reads go on meanwhile",
            Self::ReadOnly { .. } => {
                "open the collection for writing, on a file system that allows it"
            }
            Self::Locked { .. } => {
                "close the other writer, or open the collection for reading only"
            }
            Self::NotACollection { .. } => {
                "check the path; if its creation was interrupted, create the collection again"
            }
            Self::AlreadyExists { .. } => "open it, or choose another folder",
            Self::NotEmpty { .. } => "choose an empty or a new folder",
            Self::NewerFormat { .. } => "open it with the version that wrote it, or a newer one",
            Self::Damaged(Damage {
                place: DamagePlace::TextIndex { .. },
                ..
            }) => "open the collection for writing and ask again: the index is then made anew",
            Self::Damaged(_) => {
                "run verify to list every fault, then restore the collection from a snapshot"
            }
            Self::Poisoned { .. } => {
                "look after the disk, then reopen the collection: acknowledged writes are kept"
            }
            Self::Vector { .. } => "look at what made the vector; nothing of the batch was stored",
            Self::Limit { what, .. } if what == SEGMENTS_WHAT => {
                "compact the collection, which joins small segments, and try again"
            }
            Self::Limit { .. } => "make it smaller or split it; nothing was stored",
            Self::TextQuery(error) => error.hint(),
            Self::NoTextIndex { .. } => {
                "open the collection for writing once: its full-text index is made then"
            }
            Self::ViewExpired => "take a new view and ask again",
            Self::Filter(error) => error.hint(),
            _ => return None,
        })
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull {
                path: path.to_owned(),
            },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly {
                dir: path.to_owned(),
                reason: "its file system is read-only",
            },
            _ => Self::Io {
                action,
                path: path.to_owned(),
                source: Arc::new(source),
            },
        }
    }

    pub(crate) fn segment(path: &Path, detail: impl Into<String>) -> Self {
        let place = DamagePlace::Segment {
            path: path.to_owned(),
        };
        Self::Damaged(Damage {
            place,
            detail: detail.into(),
        })
    }

    pub(crate) fn catalog(path: &Path, detail: impl Into<String>) -> Self {
        let place = DamagePlace::Catalog {
            path: path.to_owned(),
        };
        Self::Damaged(Damage {
            place,
            detail: detail.into(),
        })
    }

    pub(crate) fn row(table: &'static str, row: impl ToString, detail: impl Into<String>) -> Self {
        let place = DamagePlace::Row {
            table,
            row: row.to_string(),
        };
        Self::Damaged(Damage {
            place,
            detail: detail.into(),
        })
    }

    pub(crate) fn limit(what: impl Into<String>, found: usize, max: usize) -> Self {
        Self::Limit {
            what: what.into(),
            found: found as u64,
            max: max as u64,
        }
    }
}
