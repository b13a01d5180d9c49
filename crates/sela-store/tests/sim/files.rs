//! What stands behind SQLite's files: mounted disks, open files, their locks and shared memory.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::ffi;
use sela_store::disk::{Disk, DiskFile, OpenMode};

use super::disk::SimDisk;
use super::locks::{HeldSlots, Level, Node, Nodes, SlotLocks};
use super::tree::Tree;
use super::vfs::register;

/// A disk that SQLite sees for as long as this lives.
#[derive(Debug)]
pub(crate) struct Mount {
    name: String,
}

impl Mount {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Mount {
        Mount::with(disk, 0)
    }

    /// Claims, as SQLite's own Unix files do, that a write leaves the bytes beside it alone.
    pub(crate) fn claiming_powersafe_overwrite(disk: Arc<dyn Disk>) -> Mount {
        Mount::with(disk, ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE)
    }

    fn with(disk: Arc<dyn Disk>, characteristics: c_int) -> Mount {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        register();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sim-{number}");
        let point = Point {
            disk,
            nodes: Nodes::new(),
            characteristics,
        };
        mounts()
            .lock()
            .expect("no panic under it")
            .insert(name.clone(), Arc::new(point));
        Mount { name }
    }

    /// Where `below` is on this disk.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        Path::new("/").join(&self.name).join(below)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(mut mounts) = mounts().lock() {
            mounts.remove(&self.name);
        }
    }
}

#[derive(Debug)]
pub(super) struct Point {
    pub(super) disk: Arc<dyn Disk>,
    nodes: Nodes<SharedIndex>,
    pub(super) characteristics: c_int,
}

fn mounts() -> &'static Mutex<BTreeMap<String, Arc<Point>>> {
    static MOUNTS: Mutex<BTreeMap<String, Arc<Point>>> = Mutex::new(BTreeMap::new());
    &MOUNTS
}

/// The mount that `path` lies in.
pub(super) fn point_of(path: &Path) -> Option<Arc<Point>> {
    let name = path.components().find_map(|part| match part {
        std::path::Component::Normal(name) => name.to_str(),
        _ => None,
    })?;
    mounts().lock().ok()?.get(name).cloned()
}

/// The memory that the connections to one database share, and the file that stands for it.
#[derive(Debug, Default)]
pub(super) struct SharedIndex {
    /// Atomics, because several connections write here without telling Rust.
    regions: Vec<Box<[AtomicU64]>>,
    pub(super) slots: SlotLocks,
    users: u32,
    file: Option<Arc<dyn DiskFile>>,
}

/// One open file of SQLite's.
pub(super) struct Open {
    pub(super) point: Arc<Point>,
    path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) node: Arc<Node<SharedIndex>>,
    pub(super) level: Level,
    /// The slots held in the shared index, once that is in use.
    pub(super) slots: Option<HeldSlots>,
    sync_folder: bool,
    delete_on_close: bool,
}

pub(super) static LAST_ERROR: AtomicI32 = AtomicI32::new(0);

/// Notes an error for `xGetLastError` and answers SQLite with `code`, or "full" for a full disk.
pub(super) fn fail(error: &io::Error, code: c_int) -> c_int {
    let (number, code) = match error.kind() {
        io::ErrorKind::StorageFull => (
            28,
            if code == ffi::SQLITE_IOERR_WRITE {
                ffi::SQLITE_FULL
            } else {
                code
            },
        ),
        io::ErrorKind::ReadOnlyFilesystem => (30, code),
        io::ErrorKind::NotFound => (2, code),
        _ => (5, code),
    };
    LAST_ERROR.store(number, Ordering::Relaxed);
    code
}

pub(super) fn answer(result: io::Result<()>, code: c_int) -> c_int {
    result.map_or_else(|error| fail(&error, code), |()| ffi::SQLITE_OK)
}

impl Open {
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> c_int {
        let len = match self.file.len() {
            Ok(len) => len,
            Err(error) => return fail(&error, ffi::SQLITE_IOERR_CORRUPTFS),
        };
        let there = (len.saturating_sub(offset) as usize).min(buf.len());
        let (head, rest) = buf.split_at_mut(there);
        rest.fill(0);
        if let Err(error) = self.file.read_at(head, offset) {
            // SQLite's own files tell a broken device from other trouble in this way.
            return fail(&error, ffi::SQLITE_IOERR_CORRUPTFS);
        }
        if rest.is_empty() {
            ffi::SQLITE_OK
        } else {
            ffi::SQLITE_IOERR_SHORT_READ
        }
    }

    pub(super) fn sync(&mut self) -> c_int {
        if let Err(error) = self.file.sync() {
            return fail(&error, ffi::SQLITE_IOERR_FSYNC);
        }
        if std::mem::take(&mut self.sync_folder) {
            let _ignored_as_on_unix = self.point.disk.sync_dir(folder_of(&self.path));
        }
        ffi::SQLITE_OK
    }

    fn shared_index_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("-shm");
        name.into()
    }

    /// Joins the users of the shared index, opening its file when this is the first.
    fn join_shared_index(&mut self) -> Result<(), c_int> {
        if self.slots.is_some() {
            return Ok(());
        }
        let node = Arc::clone(&self.node);
        let mut index = node.shared_index.lock().expect("no panic under it");
        if index.users == 0 {
            let path = self.shared_index_path();
            let file = self
                .point
                .disk
                .open(&path, OpenMode::ReadWrite)
                .map_err(|error| {
                    // An index that can be read but not written cannot be trusted.
                    match self.point.disk.open(&path, OpenMode::Read) {
                        Ok(_) => fail(&error, ffi::SQLITE_READONLY_CANTINIT),
                        Err(_) => fail(&error, ffi::SQLITE_CANTOPEN),
                    }
                })?;
            index.file = Some(file);
        }
        index.users += 1;
        self.slots = Some(HeldSlots::default());
        Ok(())
    }

    /// The memory of one region of the shared index, null when it is not there yet.
    pub(super) fn map_shared_index(
        &mut self,
        region: usize,
        region_bytes: usize,
        extend: bool,
    ) -> Result<*mut c_void, c_int> {
        self.join_shared_index()?;
        let mut index = self.node.shared_index.lock().expect("no panic under it");
        while index.regions.len() <= region {
            if !extend {
                return Ok(ptr::null_mut());
            }
            let end = ((index.regions.len() + 1) * region_bytes) as u64;
            if let Some(file) = &index.file {
                let grown = file.len().and_then(|len| match len < end {
                    true => file.set_len(end),
                    false => Ok(()),
                });
                grown.map_err(|error| fail(&error, ffi::SQLITE_IOERR_SHMSIZE))?;
            }
            index
                .regions
                .push((0..region_bytes / 8).map(|_| AtomicU64::new(0)).collect());
        }
        Ok(index.regions[region].as_ptr().cast_mut().cast())
    }

    pub(super) fn leave_shared_index(&mut self, delete: bool) {
        let Some(mut held) = self.slots.take() else {
            return;
        };
        let path = self.shared_index_path();
        let mut index = self.node.shared_index.lock().expect("no panic under it");
        index.slots.give_all_back(&mut held);
        index.users -= 1;
        if index.users == 0 {
            *index = SharedIndex::default();
            if delete {
                let _ignored_as_on_unix = self.point.disk.remove_file(&path);
            }
        }
    }

    pub(super) fn lower(&mut self, to: Level) {
        let mut lock = self.node.lock.lock().expect("no panic under it");
        lock.lower(&mut self.level, to);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.leave_shared_index(false);
        self.lower(Level::None);
        if self.delete_on_close {
            let _ignored_as_on_unix = self.point.disk.remove_file(&self.path);
        }
    }
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Opens a file by SQLite's flags; the second value says that it is only readable.
fn open_by_flags(
    point: &Arc<Point>,
    path: &Path,
    flags: c_int,
) -> io::Result<(Arc<dyn DiskFile>, bool)> {
    let has = |flag| flags & flag != 0;
    if has(ffi::SQLITE_OPEN_EXCLUSIVE) {
        return Ok((point.disk.open(path, OpenMode::CreateNew)?, false));
    }
    let may_write = has(ffi::SQLITE_OPEN_READWRITE)
        && (has(ffi::SQLITE_OPEN_CREATE) || point.disk.exists(path)?);
    if may_write && let Ok(file) = point.disk.open(path, OpenMode::ReadWrite) {
        return Ok((file, false));
    }
    Ok((point.disk.open(path, OpenMode::Read)?, true))
}

/// Opens the file at `path`, or a nameless one that is no part of any disk.
pub(super) fn open_file(path: Option<&Path>, flags: c_int) -> io::Result<(Open, bool)> {
    let (point, path) = match path {
        Some(path) => (
            point_of(path).ok_or(io::ErrorKind::NotFound)?,
            path.to_owned(),
        ),
        None => {
            let disk = Arc::new(SimDisk::of(Tree::default()));
            let point = Point {
                disk,
                nodes: Nodes::new(),
                characteristics: 0,
            };
            (Arc::new(point), PathBuf::from("/temporary/file"))
        }
    };
    let (file, read_only) = open_by_flags(&point, &path, flags)?;
    let journal =
        ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL;
    let open = Open {
        node: point.nodes.at(&path),
        sync_folder: flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & journal != 0,
        delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        level: Level::None,
        slots: None,
        point,
        path,
        file,
    };
    Ok((open, read_only))
}

pub(super) fn level_of(number: c_int) -> Level {
    match number {
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        ffi::SQLITE_LOCK_EXCLUSIVE => Level::Exclusive,
        _ => Level::None,
    }
}
