//! Creating and opening a collection, and loading its catalog.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use crate::bits;
use crate::catalog::{
    Access, CATALOG, CATALOG_FILES, Catalog, LOG, LOG_HEADER_BYTES, State, UNFINISHED, check_log,
    is_unwritable,
};
use crate::collection::{Collection, Shown, Watch, Writer, lock};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::fresh::Fresh;
use crate::id::Id;
use crate::limits::{check_depth, seal_rows};
use crate::maintain::Upkeep;
use crate::model::{Options, Schema};
use crate::segment::{self, SEGMENTS, Segment};
use crate::shape::Shape;
use crate::view::{Kind, Part, Picture};

const LOCK: &str = "lock";

/// What the catalog says, with the segments open.
pub(crate) struct Loaded {
    state: State,
    picture: Picture,
    index: HashMap<Id, (u32, u32)>,
}

impl Collection {
    /// Creates a collection in a new or empty folder and opens it for writing.
    ///
    /// A creation that was cut short leaves a folder that does not open; creating there again
    /// starts afresh. Nothing else is ever removed.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotEmpty`] for a folder with foreign files,
    /// [`Error::Damaged`] for one with rows whose catalog is gone, [`Error::Locked`],
    /// [`Error::Schema`], [`Error::Limit`], and what the file system brings.
    pub fn create(dir: &Path, schema: &Schema, options: &Options) -> Result<Self> {
        let what = || "the depth of the schema's provenance, in levels,".to_owned();
        check_depth(what, 0, std::iter::once(&schema.provenance))?;
        schema.check()?;
        if options.read_only {
            let reason = "it cannot be created for reading only";
            return Err(Error::ReadOnly {
                dir: dir.to_owned(),
                reason,
            });
        }
        let disk = &options.disk;
        create_folder(disk, dir)?;
        refuse_foreign(disk, dir)?;
        let lock = take_lock(disk, dir)?;
        remove_unfinished(dir, options)?;
        create_folder(disk, &dir.join(SEGMENTS))?;
        sync_dir(disk, dir)?;
        if let Err(error) = create_catalog(dir, schema, options) {
            // Nothing may build on files of which it is unknown whether they reached the disk. None
            // of them was there before.
            let _ = remove_catalog(disk, dir);
            return Err(error);
        }
        Self::open_locked(dir, options, Some(lock))
    }

    /// Opens a collection; takes time by the number of its segments, not of its rows.
    ///
    /// # Errors
    /// [`Error::NotACollection`], [`Error::Locked`], [`Error::NewerFormat`], [`Error::Damaged`]
    /// when the catalog or the header or length of a segment is ([`crate::verify`] lists it
    /// all), [`Error::ReadOnly`], and what the file system brings.
    pub fn open(dir: &Path, options: &Options) -> Result<Self> {
        let disk = &options.disk;
        refuse_absent(disk, dir)?;
        let lock = if options.read_only {
            None
        } else {
            Some(take_lock(disk, dir)?)
        };
        Self::open_locked(dir, options, lock)
    }

    fn open_locked(dir: &Path, options: &Options, lock: Option<Arc<dyn DiskFile>>) -> Result<Self> {
        let mut options = options.clamped();
        let (catalog, access) = connect(dir, &options)?;
        let schema = catalog.schema()?;
        options.seal_rows = seal_rows(options.seal_rows, schema.row_bytes());
        let version = catalog.data_version()?;
        let loaded = load(&catalog, dir, &options, &schema, None)?;
        let (writer, watch) = if options.read_only {
            (None, Some(Watch { catalog, version }))
        } else {
            // SQLite made its log by now, and ignores it when that log's name cannot be synced.
            sync_dir(&options.disk, dir)?;
            sweep(&options.disk, dir, &loaded.picture)?;
            let state = loaded.state;
            let writer = Writer {
                catalog,
                state,
                retired: None,
                log_bytes: 0,
                seal_at: 0,
                upkeep: Upkeep::default(),
            };
            (Some(Mutex::new(writer)), None)
        };
        let epoch = Arc::new(());
        let picture = Arc::new(loaded.picture);
        let opened = Self {
            dir: dir.to_owned(),
            schema,
            options,
            shown: RwLock::new(Shown {
                picture,
                index: loaded.index,
                epoch,
            }),
            queue: Mutex::default(),
            next_segment: AtomicU64::new(loaded.state.next_segment),
            poison: OnceLock::new(),
            readers: Mutex::default(),
            access: if access == Access::Write {
                Access::Read
            } else {
                access
            },
            watch: Mutex::new(watch),
            writer,
            text_fault: Mutex::default(),
            text_refusal: Mutex::default(),
            _lock: lock,
        };
        if opened.writer.is_some() {
            opened.index_at_opening()?;
        }
        Ok(opened)
    }

    /// Loads the catalog again if another process has changed it.
    pub(crate) fn follow(&self) -> Result<()> {
        let mut watch = lock(&self.watch);
        let Some(watch) = watch.as_mut() else {
            return Ok(());
        };
        if self.access == Access::Immutable {
            return Ok(());
        }
        let version = watch.catalog.data_version()?;
        if version == watch.version {
            return Ok(());
        }
        let known = Arc::clone(&self.shown().picture);
        let loaded = load(
            &watch.catalog,
            &self.dir,
            &self.options,
            &self.schema,
            Some(&known),
        )?;
        let mut shown = self.shown_mut();
        shown.picture = Arc::new(loaded.picture);
        shown.index = loaded.index;
        watch.version = version;
        Ok(())
    }
}

pub(crate) fn refuse_absent(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    let refuse = |reason| {
        Err(Error::NotACollection {
            dir: dir.to_owned(),
            reason,
        })
    };
    if !exists(disk, dir)? {
        return refuse("there is no such folder");
    }
    if !exists(disk, &dir.join(CATALOG))? && left_behind(disk, dir)?.is_none() {
        return refuse("it has no `catalog.sqlite`");
    }
    Ok(())
}

fn create_catalog(dir: &Path, schema: &Schema, options: &Options) -> Result<()> {
    // SQLite goes on when it cannot sync the name of a file it makes. With the catalog's name on
    // the disk before, and its first page before anything goes to the log, a log without a catalog
    // is never what a creation leaves.
    let path = dir.join(CATALOG);
    let made = options.disk.open(&path, OpenMode::CreateNew);
    drop(made.map_err(|error| Error::io("create", &path, error))?);
    sync_dir(&options.disk, dir)?;
    let catalog = Catalog::connect(dir, options, Access::Create)?;
    catalog.begin()?;
    let committed = catalog
        .create_tables(schema)
        .and_then(|()| catalog.commit().map_err(|failure| failure.error))
        .and_then(|()| sync_dir(&options.disk, dir));
    if committed.is_err() {
        catalog.rollback();
        catalog.keep_log_on_close();
    }
    committed
}

/// Opens the catalog of an existing collection as the options ask, and checks its version and,
/// before SQLite sees them, its log and its length.
pub(crate) fn connect(dir: &Path, options: &Options) -> Result<(Catalog, Access)> {
    let try_as = |access| {
        let catalog = Catalog::connect(dir, options, access)?;
        let checked = catalog.check_version();
        if checked.as_ref().is_err_and(is_unfinished) {
            refuse_segments(&options.disk, dir)?;
        }
        checked.map(|()| (catalog, access))
    };
    refuse_hollow(dir, options)?;
    check_log(&options.disk, dir)?;
    if !options.read_only {
        settle_log(&options.disk, dir)?;
        return try_as(Access::Write);
    }
    match try_as(Access::Read) {
        Err(error) if is_unwritable(&error) => {
            // A log cannot be shared on a file system that cannot be written; without one, the
            // database is all there is.
            let log = dir.join(LOG);
            let length = options
                .disk
                .open(&log, OpenMode::Read)
                .and_then(|file| file.len());
            if length.unwrap_or(0) > 0 {
                let reason = "its log must first be taken in by opening it for writing";
                return Err(Error::ReadOnly {
                    dir: dir.to_owned(),
                    reason,
                });
            }
            try_as(Access::Immutable)
        }
        other => other,
    }
}

/// Reads the catalog in one transaction and opens the segments it names.
fn load(
    catalog: &Catalog,
    dir: &Path,
    options: &Options,
    schema: &Schema,
    known: Option<&Picture>,
) -> Result<Loaded> {
    const TRIES: usize = 5;
    let mut tries = 0;
    loop {
        catalog.begin_read()?;
        let loaded = load_once(catalog, dir, options, schema, known);
        catalog.end_read();
        tries += 1;
        match loaded {
            // A writer elsewhere may remove a segment between our reading its name and its file.
            Err(Error::Damaged(_)) if options.read_only && tries < TRIES => {}
            other => return other,
        }
    }
}

fn load_once(
    catalog: &Catalog,
    dir: &Path,
    options: &Options,
    schema: &Schema,
    known: Option<&Picture>,
) -> Result<Loaded> {
    let state = catalog.state()?;
    let mut parts = Vec::new();
    for row in catalog.segments()? {
        let same = |segment: &Segment| {
            segment.row().number == row.number && segment.row().digest == row.digest
        };
        let open =
            known.and_then(|known| known.segments().find(|(_, sealed)| same(&sealed.segment)));
        let segment = match open {
            Some((_, sealed)) => Arc::clone(&sealed.segment),
            None => {
                let path = segment::path(dir, row.number);
                Arc::new(Segment::open(&options.disk, &path, &row, schema)?)
            }
        };
        let mut live = bits::ones(row.rows);
        if row.dead > 0 {
            let dead = catalog.tombstones(&row)?;
            live.iter_mut()
                .zip(dead)
                .for_each(|(live, dead)| *live &= !dead);
        }
        parts.push(Part::sealed(segment, live));
    }
    let sealed = parts.len();
    if sealed as u64 != state.segments {
        let detail = format!(
            "it counts {} segments, and there are {sealed}",
            state.segments
        );
        return Err(Error::row("meta", "state", detail));
    }
    let index = load_fresh(catalog, schema, &state, &mut parts)?;
    let picture = Picture {
        parts,
        sealed,
        last_seq: state.last_seq,
        purges: state.purges,
    };
    Ok(Loaded {
        state,
        picture,
        index,
    })
}

/// Appends the pending rows as fresh parts.
fn load_fresh(
    catalog: &Catalog,
    schema: &Schema,
    state: &State,
    parts: &mut Vec<Part>,
) -> Result<HashMap<Id, (u32, u32)>> {
    let sealed = parts.len();
    let mut index = HashMap::new();
    let mut fresh = FreshParts {
        parts,
        sealed,
        shape: Shape::of_fresh(schema),
    };
    catalog.each_pending(schema.row_bytes(), |row| {
        let row = row?;
        if row.seq > state.last_seq {
            return Err(Error::row(
                "pending",
                row.seq,
                "its sequence was never given",
            ));
        }
        let place = fresh.push(row.seq, row.id.clone(), &row.vector, row.doc);
        if index.insert(row.id, place).is_some() {
            return Err(Error::row("pending", row.seq, "its id is there twice"));
        }
        Ok(())
    })?;
    if index.len() as u64 != state.pending {
        let found = index.len();
        let detail = format!(
            "it counts {} pending rows, and there are {found}",
            state.pending
        );
        return Err(Error::row("meta", "state", detail));
    }
    Ok(index)
}

/// The fresh parts at the end of a picture's parts, as they grow.
pub(crate) struct FreshParts<'a> {
    pub(crate) parts: &'a mut Vec<Part>,
    pub(crate) sealed: usize,
    pub(crate) shape: Shape,
}

impl FreshParts<'_> {
    /// Appends a row; its part, counted from the first fresh one, and its row.
    pub(crate) fn push(&mut self, seq: u64, id: Id, record: &[u8], doc: u64) -> (u32, u32) {
        let full = match self.parts[self.sealed..].last() {
            Some(Part(Kind::Fresh(fresh))) => fresh.is_full(),
            _ => true,
        };
        if full {
            self.parts
                .push(Part(Kind::Fresh(Arc::new(Fresh::new(self.shape)))));
        }
        let part = (self.parts.len() - self.sealed - 1) as u32;
        let mut row = 0;
        if let Some(Part(Kind::Fresh(fresh))) = self.parts.last_mut() {
            let fresh = Arc::make_mut(fresh);
            row = fresh.rows();
            fresh.push(seq, id, record, doc);
        }
        (part, row)
    }
}

/// Makes what can be read of the catalog's log stable, before anything rests on it.
///
/// A writer that was killed may have left a transaction that was never synced; it is seen from
/// now on, so it must not be lost any more. After a failed sync the system may have lost bytes
/// that it still shows and takes for written: only writing them again brings them to the disk.
fn settle_log(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let path = dir.join(LOG);
    let failed = |action| {
        let path = path.clone();
        move |error| Error::io(action, &path, error)
    };
    if !disk.exists(&path).map_err(failed("find"))? {
        return Ok(());
    }
    let file = disk
        .open(&path, OpenMode::ReadWrite)
        .map_err(failed("open"))?;
    let length = file.len().map_err(failed("read"))?;
    let mut piece = vec![0; PIECE.min(length) as usize];
    let mut offset = 0;
    while offset < length {
        let piece = &mut piece[..PIECE.min(length - offset) as usize];
        file.read_at(piece, offset).map_err(failed("read"))?;
        match file.write_at(piece, offset) {
            // Where overwriting takes room and there is none, the sync must do.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
            written => written.map_err(failed("write"))?,
        }
        offset += piece.len() as u64;
    }
    file.sync().map_err(failed("sync"))
}

/// Removes segment files that the catalog does not name.
fn sweep(disk: &Arc<dyn Disk>, dir: &Path, picture: &Picture) -> Result<()> {
    let folder = dir.join(SEGMENTS);
    let named: HashSet<u64> = picture
        .segments()
        .map(|(_, s)| s.segment.row().number)
        .collect();
    let names = disk
        .list(&folder)
        .map_err(|error| Error::io("list", &folder, error))?;
    for name in names {
        if segment::number_of(&name).is_some_and(|number| !named.contains(&number)) {
            let path = folder.join(&name);
            tracing::info!(file = %path.display(), "removing a segment that was never committed");
            disk.remove_file(&path)
                .map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}

fn take_lock(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Arc<dyn DiskFile>> {
    let path = dir.join(LOCK);
    let file = disk
        .open(&path, OpenMode::ReadWrite)
        .map_err(|error| Error::io("open", &path, error))?;
    match file.try_lock() {
        Ok(true) => Ok(file),
        Ok(false) => Err(Error::Locked {
            dir: dir.to_owned(),
        }),
        Err(error) => Err(Error::io("lock", &path, error)),
    }
}

/// Creates a folder and its missing parents, and syncs every folder that got a new entry.
pub(crate) fn create_folder(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    let mut at = dir;
    while !at.as_os_str().is_empty() && !exists(disk, at)? {
        missing.push(at.to_owned());
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    disk.create_dir_all(dir)
        .map_err(|error| Error::io("create", dir, error))?;
    for folder in missing.iter().rev() {
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        sync_dir(disk, parent)?;
    }
    Ok(())
}

pub(crate) fn sync_dir(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    disk.sync_dir(dir)
        .map_err(|error| Error::io("sync", dir, error))
}

fn refuse_foreign(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    let names = disk
        .list(dir)
        .map_err(|error| Error::io("list", dir, error))?;
    let ours = |name: &str| name == LOCK || name == SEGMENTS || CATALOG_FILES.contains(&name);
    match names.into_iter().find(|name| !ours(name)) {
        Some(name) => Err(Error::NotEmpty {
            dir: dir.to_owned(),
            name,
        }),
        None => Ok(()),
    }
}

fn exists(disk: &Arc<dyn Disk>, path: &Path) -> Result<bool> {
    disk.exists(path)
        .map_err(|error| Error::io("find", path, error))
}

/// The entries of the folder of segments, if there is one.
fn in_segments(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Vec<String>> {
    let folder = dir.join(SEGMENTS);
    if !exists(disk, &folder)? {
        return Ok(Vec::new());
    }
    disk.list(&folder)
        .map_err(|error| Error::io("list", &folder, error))
}

/// What a folder holds that comes only once its catalog has a first page: a segment, or frames in
/// the log. A log of a header alone may be left of a creation that was cut short twice.
fn left_behind(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<String>> {
    let mut names = in_segments(disk, dir)?.into_iter();
    if let Some(name) = names.find(|name| segment::number_of(name).is_some()) {
        return Ok(Some(format!("`{SEGMENTS}` holds `{name}`")));
    }
    let log = dir.join(LOG);
    if !exists(disk, &log)? {
        return Ok(None);
    }
    let length = disk.open(&log, OpenMode::Read).and_then(|log| log.len());
    let bytes = length.map_err(|error| Error::io("read", &log, error))?;
    Ok((bytes > LOG_HEADER_BYTES as u64).then(|| format!("its log holds {bytes} bytes")))
}

/// Refuses a catalog that is missing or empty where rows are left: SQLite would take it for a new
/// database, and remove the log beside it.
fn refuse_hollow(dir: &Path, options: &Options) -> Result<()> {
    let (disk, path) = (&options.disk, dir.join(CATALOG));
    let hollow = || -> Result<Option<&'static str>> {
        if !exists(disk, &path)? {
            return Ok(Some("missing"));
        }
        Ok(Catalog::is_empty_file(dir, options)?.then_some("empty"))
    };
    if hollow()?.is_none() {
        return Ok(());
    }
    let Some(left) = left_behind(disk, dir)? else {
        return Ok(());
    };
    // Asked again: a creation may have gone on elsewhere meanwhile.
    match hollow()? {
        Some(what) => Err(Error::catalog(&path, format!("it is {what}, and {left}"))),
        None => Ok(()),
    }
}

fn is_unfinished(error: &Error) -> bool {
    matches!(error, Error::NotACollection { reason, .. } if *reason == UNFINISHED)
}

/// Refuses a catalog without tables beside anything in the folder of segments: an unfinished
/// creation has put nothing there.
fn refuse_segments(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    let names = in_segments(disk, dir)?;
    if let Some(name) = names.iter().find(|name| segment::number_of(name).is_some()) {
        let detail = format!("it has no tables, and `{SEGMENTS}` holds `{name}`");
        return Err(Error::catalog(&dir.join(CATALOG), detail));
    }
    match names.into_iter().next() {
        Some(name) => Err(Error::NotEmpty {
            dir: dir.join(SEGMENTS),
            name,
        }),
        None => Ok(()),
    }
}

/// Removes what a creation that was cut short left; refuses to touch anything else.
fn remove_unfinished(dir: &Path, options: &Options) -> Result<()> {
    let disk = &options.disk;
    refuse_hollow(dir, options)?;
    if !exists(disk, &dir.join(CATALOG))? {
        return refuse_segments(disk, dir);
    }
    check_log(disk, dir)?;
    let catalog = Catalog::connect(dir, options, Access::Write)?;
    // It is only looked at: the log of a finished one is for whoever opens it.
    catalog.keep_log_on_close();
    match catalog.check_version() {
        Err(error) if is_unfinished(&error) => {}
        Ok(()) => {
            return Err(Error::AlreadyExists {
                dir: dir.to_owned(),
            });
        }
        Err(error) => return Err(error),
    }
    drop(catalog);
    refuse_segments(disk, dir)?;
    remove_catalog(disk, dir)
}

/// Removes the files of an unfinished catalog, each for good before the next: a log never outlasts
/// its catalog, nor a catalog the journal that would roll it back.
fn remove_catalog(disk: &Arc<dyn Disk>, dir: &Path) -> Result<()> {
    let others = CATALOG_FILES.into_iter().filter(|name| *name != LOG);
    for name in std::iter::once(LOG).chain(others) {
        let path = dir.join(name);
        if exists(disk, &path)? {
            disk.remove_file(&path)
                .map_err(|error| Error::io("remove", &path, error))?;
            sync_dir(disk, dir)?;
        }
    }
    Ok(())
}
