//! The catalog's database: how it is opened, its transactions, and its errors in our words.

mod docs;
mod log;
mod rows;
mod words;
mod words_check;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub(crate) use docs::Doc;
pub(crate) use log::{HEADER_BYTES as LOG_HEADER_BYTES, check_log};
pub(crate) use rows::{SegmentRow, State, TABLES, TOMBSTONE_CHUNK_ROWS, TextIndex};
pub(crate) use words::WORDS;

use crate::error::{Error, Result};
use crate::model::Options;

/// The catalog's file name.
pub(crate) const CATALOG: &str = "catalog.sqlite";
/// The database's log.
pub(crate) const LOG: &str = "catalog.sqlite-wal";
/// The catalog's file and those SQLite puts beside it.
pub(crate) const CATALOG_FILES: [&str; 4] =
    [CATALOG, LOG, "catalog.sqlite-shm", "catalog.sqlite-journal"];
/// `application_id` of a catalog: "SELA".
const APPLICATION_ID: i64 = 0x5345_4c41;
/// Why a catalog without tables is no collection.
pub(crate) const UNFINISHED: &str = "its creation was not finished";
/// The newest format this version reads and the one it writes.
pub(crate) const VERSION: u32 = 1;

/// How a connection uses the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Create the file when it is absent, and write.
    Create,
    /// Write an existing one.
    Write,
    /// Read only.
    Read,
    /// Read only, on a file system that cannot be written, without a log.
    Immutable,
}

/// One connection to the catalog.
#[derive(Debug)]
pub(crate) struct Catalog {
    conn: Connection,
    path: PathBuf,
}

/// A transaction that could not be committed.
pub(crate) struct CommitFailure {
    pub(crate) error: Error,
    /// Whether what is on disk is unknown now.
    pub(crate) poison: bool,
}

impl Catalog {
    /// Opens the catalog of a folder and sets it up; what it holds is not looked at yet.
    pub(crate) fn connect(dir: &Path, options: &Options, access: Access) -> Result<Self> {
        let catalog = Self::connect_bare(dir, options, access)?;
        catalog.set_up(options, access)?;
        Ok(catalog)
    }

    /// Opens the catalog of a folder with SQLite's own settings.
    pub(crate) fn connect_bare(dir: &Path, options: &Options, access: Access) -> Result<Self> {
        let path = dir.join(CATALOG);
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
            | match access {
                Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
                Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
                Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
                Access::Immutable => OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
            };
        let name = match access {
            Access::Immutable => PathBuf::from(immutable_uri(&path)),
            _ => path.clone(),
        };
        let conn = match &options.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(&name, flags, vfs.as_str()),
            None => Connection::open_with_flags(&name, flags),
        }
        .map_err(|error| lift("be opened", &path, error))?;
        Ok(Self { conn, path })
    }

    /// Whether the file of a folder's catalog holds no byte.
    ///
    /// SQLite is asked, as for a database that never changes: then it looks at no log. Opening and
    /// closing the file ourselves would drop the locks that SQLite holds on it for this process.
    pub(crate) fn is_empty_file(dir: &Path, options: &Options) -> Result<bool> {
        let catalog = Self::connect_bare(dir, options, Access::Immutable)?;
        match catalog.pragma("page_count") {
            Ok(pages) => Ok(pages == 0),
            // Whatever it holds, it is something.
            Err(Error::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn set_up(&self, options: &Options, access: Access) -> Result<()> {
        let lift = self.lift("be opened");
        self.conn
            .busy_timeout(Duration::from_secs(10))
            .map_err(&lift)?;
        self.conn.set_prepared_statement_cache_capacity(64);
        let cache_kib = options.catalog_cache_bytes_max.div_ceil(1024).max(64);
        self.conn
            .execute_batch(&format!(
                "PRAGMA cache_size = -{cache_kib}; PRAGMA trusted_schema = OFF;
                 PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;"
            ))
            .map_err(&lift)?;
        if !matches!(access, Access::Create | Access::Write) {
            return Ok(());
        }
        let mode: String = self
            .conn
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(&lift)?;
        if mode != "wal" {
            return Err(Error::ReadOnly {
                dir: self.path.clone(),
                reason: "its file system does not support a write-ahead log",
            });
        }
        // Checkpoints are made by `checkpoint`, so that their failures are seen.
        self.conn
            .execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;
                 PRAGMA checkpoint_fullfsync = ON; PRAGMA wal_autocheckpoint = 0;
                 PRAGMA journal_size_limit = 67108864;",
            )
            .map_err(&lift)
    }

    /// Refuses a catalog that is unfinished, foreign or newer than this version.
    pub(crate) fn check_version(&self) -> Result<()> {
        let dir = || self.path.parent().unwrap_or(&self.path).to_owned();
        let application_id = self.pragma("application_id")?;
        let version = self.pragma("user_version")?;
        if version == 0 && application_id == 0 && self.definitions()?.is_empty() {
            let reason = UNFINISHED;
            return Err(Error::NotACollection { dir: dir(), reason });
        }
        if application_id != APPLICATION_ID {
            let reason = "its `catalog.sqlite` belongs to another program";
            return Err(Error::NotACollection { dir: dir(), reason });
        }
        match u32::try_from(version) {
            Ok(1..=VERSION) => Ok(()),
            found => Err(Error::NewerFormat {
                path: self.path.clone(),
                found: found.unwrap_or(u32::MAX),
                known: VERSION,
            }),
        }
    }

    fn pragma(&self, name: &str) -> Result<i64> {
        self.conn
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
            .map_err(self.lift("be read"))
    }

    /// The length of the database.
    pub(crate) fn bytes(&self) -> Result<u64> {
        let bytes = self.pragma("page_count")? * self.pragma("page_size")?;
        Ok(bytes.unsigned_abs())
    }

    /// A number that changes whenever another connection has changed the database.
    pub(crate) fn data_version(&self) -> Result<i64> {
        self.pragma("data_version")
    }

    /// Starts a writing transaction.
    pub(crate) fn begin(&self) -> Result<()> {
        self.conn
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(self.lift("start a transaction"))
    }

    /// Starts a reading transaction: all reads until [`Catalog::end_read`] see one state.
    pub(crate) fn begin_read(&self) -> Result<()> {
        self.conn
            .execute_batch("BEGIN")
            .map_err(self.lift("start a transaction"))
    }

    /// Ends a reading transaction.
    pub(crate) fn end_read(&self) {
        self.rollback();
    }

    /// Commits; on failure the transaction is gone.
    pub(crate) fn commit(&self) -> Result<(), CommitFailure> {
        let Err(error) = self.conn.execute_batch("COMMIT") else {
            return Ok(());
        };
        // A full disk is noticed while the log is written, before it is synced: nothing happened.
        let full = matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
        let rolled_back = self.rollback();
        let poison = !full || !rolled_back;
        Err(CommitFailure {
            error: self.lift("commit")(error),
            poison,
        })
    }

    /// Takes a transaction back, if one is open; whether none is open now.
    pub(crate) fn rollback(&self) -> bool {
        if !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        self.conn.is_autocommit()
    }

    /// Copies the log into the database as far as readers allow.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.conn
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(self.lift("take in its log"))
    }

    /// Leaves the log as it is when the connection closes: for use after a failed sync.
    pub(crate) fn keep_log_on_close(&self) {
        let _ = self
            .conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }

    /// Copies the whole database into a new file.
    pub(crate) fn backup(&self, dest: &mut Self) -> Result<()> {
        let lift = self.lift("be copied");
        let backup = rusqlite::backup::Backup::new(&self.conn, &mut dest.conn).map_err(&lift)?;
        backup
            .run_to_completion(i32::MAX, Duration::from_millis(50), None)
            .map_err(&lift)
    }

    /// SQLite's own check of its trees: what it complains of.
    pub(crate) fn integrity(&self) -> Result<Vec<String>> {
        let lift = self.lift("check itself");
        let mut statement = self
            .conn
            .prepare("PRAGMA integrity_check(100)")
            .map_err(&lift)?;
        let words = statement
            .query_map([], |row| row.get::<_, String>(0))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(&lift)?;
        Ok(words.into_iter().filter(|word| word != "ok").collect())
    }

    fn lift(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
        let path = self.path.clone();
        move |error| lift(action, &path, error)
    }
}

/// Whether an error is a sync that failed inside the database.
pub(crate) fn is_failed_sync(error: &Error) -> bool {
    let Error::Catalog { source, .. } = error else {
        return false;
    };
    let Some(error) = source.downcast_ref::<rusqlite::Error>() else {
        return false;
    };
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC)
    )
}

/// Whether the database could not be opened because its file system cannot be written.
pub(crate) fn is_unwritable(error: &Error) -> bool {
    match error {
        Error::ReadOnly { .. } => true,
        Error::Catalog { source, .. } => source
            .downcast_ref::<rusqlite::Error>()
            .and_then(rusqlite::Error::sqlite_error_code)
            .is_some_and(|code| code == ErrorCode::CannotOpen),
        _ => false,
    }
}

/// A database error in the store's words.
fn lift(action: &'static str, path: &Path, error: rusqlite::Error) -> Error {
    let damaged = |detail: String| Error::catalog(path, detail);
    match &error {
        rusqlite::Error::SqliteFailure(failure, words) => match failure.code {
            ErrorCode::DiskFull => {
                return Error::DiskFull {
                    path: path.to_owned(),
                };
            }
            ErrorCode::ReadOnly => {
                let dir = path.parent().unwrap_or(path).to_owned();
                return Error::ReadOnly {
                    dir,
                    reason: "its catalog is read-only",
                };
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                let words = words.clone().unwrap_or_else(|| failure.to_string());
                return damaged(words);
            }
            // The statements are fixed, so it is the tables that are not as they were made.
            ErrorCode::Unknown
                if words
                    .as_ref()
                    .is_some_and(|words| words.starts_with("no such")) =>
            {
                return damaged(words.clone().unwrap_or_default());
            }
            _ => {}
        },
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => return damaged(error.to_string()),
        // A table or a column that is not there.
        rusqlite::Error::SqlInputError { msg, .. } => return damaged(msg.clone()),
        _ => {}
    }
    Error::Catalog {
        action,
        detail: error.to_string(),
        source: Arc::new(error),
    }
}

/// The URI that opens a database as never changing.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}
