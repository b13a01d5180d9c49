//! The door: a collection that is created, opened, looked at and asked how it stands.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use crate::catalog::{Access, Catalog, LOG, State};
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Damage, Error, Result};
use crate::id::Id;
use crate::maintain::Upkeep;
use crate::model::{Info, Options, Schema};
use crate::shape::Shape;
use crate::view::{Picture, View};
use crate::write::Job;

/// A collection of rows in one folder: vectors of one length with ids, payloads and texts.
///
/// One value (in one process) may have it open for writing; any number may read. All methods
/// take `&self` and may be called from many threads.
///
/// ```
/// use sela_store::{Collection, Fields, Id, Op, Options, Row, Schema};
///
/// # let folder = tempfile::tempdir()?;
/// let dir = folder.path().join("verses");
/// let verses = Collection::create(&dir, &Schema::new(3, "example"), &Options::default())?;
/// verses.write(&[Op::Upsert(Row::new(7, vec![0.0, 0.6, 0.8]))])?;
///
/// let rows = verses.get(&[Id::Num(7), Id::Num(8)], Fields::ALL)?;
/// assert_eq!(rows[0].as_ref().map(|row| row.vector.as_slice()), Some(&[0.0, 0.6, 0.8][..]));
/// assert_eq!(rows[1], None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Collection {
    pub(crate) dir: PathBuf,
    pub(crate) schema: Schema,
    pub(crate) options: Options,
    pub(crate) shown: RwLock<Shown>,
    /// Batches that wait for whoever commits next.
    pub(crate) queue: Mutex<Vec<Arc<Job>>>,
    pub(crate) next_segment: AtomicU64,
    /// Why writes are refused: the first failed sync.
    pub(crate) poison: OnceLock<String>,
    // Dropped in this order: the readers first, as the last connection to close takes in the log.
    pub(crate) readers: Mutex<Vec<Catalog>>,
    pub(crate) access: Access,
    /// What a collection opened for reading follows the writer with.
    pub(crate) watch: Mutex<Option<Watch>>,
    pub(crate) writer: Option<Mutex<Writer>>,
    /// Damage of the full-text index, and which index it is of.
    pub(crate) text_fault: Mutex<Option<(Damage, u64)>>,
    /// Why the texts could not be indexed when it was tried last.
    pub(crate) text_refusal: Mutex<Option<String>>,
    pub(crate) _lock: Option<Arc<dyn DiskFile>>,
}

/// What readers see now.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) picture: Arc<Picture>,
    /// Live fresh rows by id: their part, counted from the first fresh one, and row.
    pub(crate) index: HashMap<Id, (u32, u32)>,
    pub(crate) epoch: Arc<()>,
}

/// What only the one who commits may touch.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) catalog: Catalog,
    pub(crate) state: State,
    /// An earlier epoch, and the newest grave of its time: once its views are gone, so may be
    /// the documents.
    pub(crate) retired: Option<(Arc<()>, i64)>,
    /// Bytes the log has grown since it was last taken in, roughly.
    pub(crate) log_bytes: u64,
    /// Fresh rows at which sealing is tried, after it failed.
    pub(crate) seal_at: u64,
    /// What it remembers of the maintenance that nobody asked for.
    pub(crate) upkeep: Upkeep,
}

/// A reader's connection and the database's version it has loaded.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) catalog: Catalog,
    pub(crate) version: i64,
}

impl Collection {
    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it holds.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Whether it was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.writer.is_none()
    }

    /// A consistent picture that later writes do not change. Cheap; opened for reading, it first
    /// asks the catalog whether the writer (in another process) has gone on.
    ///
    /// # Errors
    /// Opened for reading: what reading the catalog may bring. Otherwise none.
    pub fn view(&self) -> Result<View> {
        if self.writer.is_none() {
            self.follow()?;
        }
        let shown = self.shown();
        Ok(View {
            picture: Arc::clone(&shown.picture),
            _epoch: Arc::clone(&shown.epoch),
        })
    }

    /// How it stands.
    ///
    /// # Errors
    /// What [`Collection::view`] and looking at file lengths may bring.
    pub fn info(&self) -> Result<Info> {
        let view = self.view()?;
        let picture = &view.picture;
        let rows: u64 = picture
            .parts
            .iter()
            .map(|part| u64::from(part.rows()))
            .sum();
        let rows_live = picture.live_rows();
        let fresh = picture.parts[picture.sealed..].iter();
        Ok(Info {
            rows_live,
            rows_dead: rows - rows_live,
            rows_pending: fresh.map(|part| u64::from(part.live_rows())).sum(),
            segments: picture.sealed as u64,
            segment_bytes: picture.segments().map(|(_, s)| s.segment.row().bytes).sum(),
            catalog_bytes: self.catalog_bytes(),
            last_seq: picture.last_seq,
            poisoned: self.poison.get().cloned(),
        })
    }

    /// Asks the database for its length: who opens its file beside SQLite and closes it again
    /// drops the locks that SQLite holds on it for the whole process.
    fn catalog_bytes(&self) -> u64 {
        let database = self.with_reader(Catalog::bytes).unwrap_or(0);
        let log = self.dir.join(LOG);
        let log = self
            .options
            .disk
            .open(&log, OpenMode::Read)
            .and_then(|file| file.len());
        database + log.unwrap_or(0)
    }

    pub(crate) fn shown(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shown_mut(&self) -> RwLockWriteGuard<'_, Shown> {
        self.shown.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer, unless the collection cannot be written.
    pub(crate) fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.check_writable()?;
        let writer = writer.lock().unwrap_or_else(|panicked| {
            // The one before stopped in the middle: memory and disk may differ.
            let writer = panicked.into_inner();
            self.poison(&writer, &self.abandoned());
            writer
        });
        self.check_poison()?;
        Ok(writer)
    }

    pub(crate) fn check_writable(&self) -> Result<&Mutex<Writer>> {
        let reason = "it was opened for reading only";
        self.writer.as_ref().ok_or_else(|| Error::ReadOnly {
            dir: self.dir.clone(),
            reason,
        })
    }

    /// What a batch is told whose committer stopped in the middle.
    pub(crate) fn abandoned(&self) -> Error {
        let cause = "a thread stopped in the middle of a write".to_owned();
        Error::Poisoned {
            dir: self.dir.clone(),
            cause,
        }
    }

    pub(crate) fn check_poison(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned {
                dir: self.dir.clone(),
                cause: cause.clone(),
            }),
        }
    }

    /// Refuses all further writes: what is on disk is unknown.
    pub(crate) fn poison(&self, writer: &Writer, error: &Error) {
        use std::error::Error as _;
        let mut cause = error.to_string();
        if let Some(source) = error.source() {
            cause = format!("{cause}: {source}");
        }
        tracing::error!(collection = %self.dir.display(), %cause, "writes are refused from now on");
        let _ = self.poison.set(cause);
        writer.catalog.keep_log_on_close();
    }

    /// Runs `read` with a connection of the pool.
    pub(crate) fn with_reader<T>(&self, read: impl FnOnce(&Catalog) -> Result<T>) -> Result<T> {
        const POOL_MAX: usize = 8;
        let pooled = lock(&self.readers).pop();
        let catalog = match pooled {
            Some(catalog) => catalog,
            None => Catalog::connect(&self.dir, &self.options, self.access)?,
        };
        let result = read(&catalog);
        let mut pool = lock(&self.readers);
        if pool.len() < POOL_MAX {
            pool.push(catalog);
        }
        result
    }

    pub(crate) fn shape_of_segments(&self) -> Shape {
        Shape::of_segments(&self.schema)
    }
}

const _: fn() = || {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Collection>();
    shared_between_threads::<View>();
};

/// Takes a mutex, also one whose holder panicked: what it guards is changed in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
