//! [`SimDisk`]: the disk border in memory, logged and able to fail.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use sela_store::disk::{Disk, DiskFile, Mapped, OpenMode};

use super::fault::{Fault, Faults, Kind, Plan};
use super::tree::{Born, Edit, Ino, NameOp, Op, Tree, names};

/// A file system in memory. Clones are the same disk.
///
/// The first part of every path names the mount and is skipped, so that one tree can be mounted
/// anywhere.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    tree: Tree,
    log: Option<Vec<Op>>,
    next_ino: Ino,
    faults: Faults,
    capacity_bytes: Option<u64>,
    spares_names: bool,
    locks: BTreeMap<Ino, u64>,
    next_handle: u64,
}

impl SimDisk {
    /// An empty disk that logs what happens to it.
    pub(crate) fn recording() -> SimDisk {
        SimDisk::with(Tree::default(), Some(Vec::new()))
    }

    /// A disk that holds `tree`, every bit of it stable, and keeps no log.
    pub(crate) fn of(tree: Tree) -> SimDisk {
        SimDisk::with(tree, None)
    }

    /// A disk that holds `tree`, every bit of it stable, and logs what happens from here on.
    pub(crate) fn recording_from(tree: Tree) -> SimDisk {
        SimDisk::with(tree, Some(Vec::new()))
    }

    /// A disk on which `log` has happened and the machine runs on: what was not synced before is
    /// not stable now.
    pub(crate) fn continuing(log: &[Op]) -> SimDisk {
        let mut tree = Tree::default();
        log.iter().for_each(|op| tree.apply(op));
        SimDisk::with(tree, Some(log.to_vec()))
    }

    fn with(tree: Tree, log: Option<Vec<Op>>) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State {
            next_ino: tree.next_ino(),
            tree,
            log,
            faults: Faults::default(),
            capacity_bytes: None,
            spares_names: false,
            locks: BTreeMap::new(),
            next_handle: 0,
        })))
    }

    /// How many operations the log holds.
    pub(crate) fn log_len(&self) -> usize {
        self.state().log.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn log(&self) -> Vec<Op> {
        self.state().log.clone().unwrap_or_default()
    }

    /// What the disk holds now, synced or not.
    pub(crate) fn tree(&self) -> Tree {
        self.state().tree.clone()
    }

    /// Makes operations fail by `plan` from now on, or none.
    pub(crate) fn set_plan(&self, plan: Option<Plan>) {
        self.state().faults.set(plan);
    }

    /// How many operations failed by the plan.
    pub(crate) fn fired(&self) -> u64 {
        self.state().faults.fired()
    }

    /// How many operations failed by this plan or an earlier one.
    pub(crate) fn fired_ever(&self) -> u64 {
        self.state().faults.fired_ever()
    }

    /// How many operations the plan's fault concerned so far.
    pub(crate) fn seen(&self) -> u64 {
        self.state().faults.seen()
    }

    /// Lets files hold `bytes` together at most; more is `StorageFull`.
    pub(crate) fn set_capacity_bytes(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Whether the names that a failed sync of a folder should have kept wait for its next sync,
    /// instead of being lost for good.
    pub(crate) fn spare_names(&self, spare: bool) {
        self.state().spares_names = spare;
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.state().tree.used_bytes()
    }

    /// Flips one bit of a file behind everybody's back.
    pub(crate) fn flip_bit(&self, path: &Path, byte: u64, bit: u8) {
        let mut state = self.state();
        let ino = state.tree.find(path).expect("the file to damage is there");
        let old = state.tree.file(ino).expect("a file")[byte as usize];
        state.tree.write(ino, byte, &[old ^ (1 << bit)]);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .expect("no test panics while it holds the disk")
    }
}

impl State {
    fn log(&mut self, op: Op) {
        self.tree.apply(&op);
        if let Some(log) = &mut self.log {
            log.push(op);
        }
    }

    fn check(&mut self, kind: Kind) -> io::Result<()> {
        match self.faults.meet(kind) {
            Some(fault) => Err(fault.error()),
            None => Ok(()),
        }
    }

    fn edit(&mut self, what: &'static str, edits: Vec<Edit>, born: Option<Born>) {
        self.log(Op::Names(NameOp { what, edits, born }));
    }

    fn new_ino(&mut self) -> Ino {
        self.next_ino += 1;
        self.next_ino - 1
    }

    fn create(&mut self, path: &Path) -> io::Result<Ino> {
        let (dir, name) = self.tree.parent(path)?;
        self.check(Kind::Grow)?;
        let ino = self.new_ino();
        let edit = Edit {
            dir,
            name,
            to: Some(ino),
        };
        self.edit("create", vec![edit], Some(Born::File(ino)));
        Ok(ino)
    }

    fn remove(&mut self, dir: Ino, name: &str) -> io::Result<()> {
        self.check(Kind::Shrink)?;
        let edit = Edit {
            dir,
            name: name.to_owned(),
            to: None,
        };
        self.edit("remove", vec![edit], None);
        Ok(())
    }

    fn remove_tree(&mut self, dir: Ino) -> io::Result<()> {
        for (name, child) in self.tree.dir(dir)?.clone() {
            if self.tree.is_dir(child) {
                self.remove_tree(child)?;
            }
            self.remove(dir, &name)?;
        }
        Ok(())
    }

    /// How many of `more` bytes still fit.
    fn room(&self, more: u64) -> u64 {
        match self.capacity_bytes {
            Some(capacity) => capacity.saturating_sub(self.tree.used_bytes()).min(more),
            None => more,
        }
    }

    fn write(&mut self, ino: Ino, buf: &[u8], offset: u64) -> io::Result<()> {
        let len = self.tree.file(ino)?.len() as u64;
        let (wanted, mut error) = match self.faults.meet(Kind::Grow) {
            Some(fault @ Fault::NoSpace { short: true }) => (buf.len() / 2, Some(fault)),
            Some(fault) => (0, Some(fault)),
            None => (buf.len(), None),
        };
        let grow = (offset + wanted as u64).saturating_sub(len);
        let missing = grow - self.room(grow);
        if missing > 0 {
            error = Some(Fault::NoSpace { short: true });
        }
        let done = wanted.saturating_sub(missing as usize);
        if done > 0 {
            self.log(Op::Write {
                ino,
                offset,
                bytes: buf[..done].into(),
            });
        }
        error.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        let grow = len.saturating_sub(self.tree.file(ino)?.len() as u64);
        self.check(if grow > 0 { Kind::Grow } else { Kind::Shrink })?;
        if self.room(grow) < grow {
            return Err(Fault::NoSpace { short: false }.error());
        }
        self.log(Op::SetLen { ino, len });
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    ino: Ino,
    handle: u64,
    writable: bool,
}

impl SimFile {
    fn writable(&self) -> io::Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "opened for reading",
            )),
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.locks.get(&self.ino) == Some(&self.handle) {
            state.locks.remove(&self.ino);
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check(Kind::Read)?;
        if buf.is_empty() {
            return Ok(());
        }
        let file = state.tree.file(self.ino)?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let from = file.get(start..start.saturating_add(buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.writable()?;
        self.disk.state().write(self.ino, buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.check(Kind::Read)?;
        Ok(state.tree.file(self.ino)?.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.disk.state().set_len(self.ino, len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let failed = state.check(Kind::Sync);
        state.log(match failed {
            Ok(()) => Op::Sync { ino: self.ino },
            Err(_) => Op::SyncFailed { ino: self.ino },
        });
        failed
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.state();
        let holder = *state.locks.entry(self.ino).or_insert(self.handle);
        Ok(holder == self.handle)
    }
}

/// A copy in memory that begins at a page border, as a mapping does.
#[derive(Debug)]
struct SimMapped {
    disk: SimDisk,
    ino: Ino,
    padded: Vec<u8>,
    start: usize,
    len: usize,
}

const PAGE: usize = 4096;

impl Mapped for SimMapped {
    fn bytes(&self) -> io::Result<&[u8]> {
        let mut state = self.disk.state();
        state.check(Kind::Read)?;
        if state.tree.file(self.ino)?.len() < self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&self.padded[self.start..self.start + self.len])
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let found = state.tree.find(path);
        let missing = matches!(&found, Err(error) if error.kind() == io::ErrorKind::NotFound);
        let ino = match mode {
            OpenMode::CreateNew if found.is_ok() => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            OpenMode::CreateNew => state.create(path)?,
            OpenMode::ReadWrite if missing => state.create(path)?,
            OpenMode::ReadWrite => {
                // Opening changes nothing, but a read-only file system refuses it all the same.
                if let Some(fault @ Fault::ReadOnly) = state.faults.meet(Kind::Shrink) {
                    return Err(fault.error());
                }
                found?
            }
            OpenMode::Read => {
                state.check(Kind::Read)?;
                found?
            }
        };
        state.tree.file(ino)?;
        state.next_handle += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            ino,
            handle: state.next_handle,
            writable: mode != OpenMode::Read,
        }))
    }

    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapped>> {
        let mut state = self.state();
        state.check(Kind::Read)?;
        let ino = state.tree.find(path)?;
        let file = state.tree.file(ino)?;
        let mut padded = vec![0; file.len() + PAGE];
        let start = padded.as_ptr().align_offset(PAGE);
        padded[start..start + file.len()].copy_from_slice(file);
        let len = file.len();
        Ok(Arc::new(SimMapped {
            disk: self.clone(),
            ino,
            padded,
            start,
            len,
        }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state();
        state.check(Kind::Read)?;
        Ok(state.tree.find(path).is_ok())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.check(Kind::Read)?;
        let dir = state.tree.find(dir)?;
        Ok(state.tree.dir(dir)?.keys().cloned().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let mut at = super::tree::ROOT;
        for name in names(dir)? {
            at = match state.tree.dir(at)?.get(&name) {
                Some(ino) => *ino,
                None => {
                    state.check(Kind::Grow)?;
                    let ino = state.new_ino();
                    let edit = Edit {
                        dir: at,
                        name,
                        to: Some(ino),
                    };
                    state.edit("mkdir", vec![edit], Some(Born::Dir(ino)));
                    ino
                }
            };
        }
        state.tree.dir(at).map(drop)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let ino = state.tree.find(path)?;
        state.tree.file(ino)?;
        let (dir, name) = state.tree.parent(path)?;
        state.remove(dir, &name)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let ino = state.tree.find(dir)?;
        state.remove_tree(ino)?;
        let (parent, name) = state.tree.parent(dir)?;
        state.remove(parent, &name)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let ino = state.tree.find(from)?;
        let (from_dir, from_name) = state.tree.parent(from)?;
        let (to_dir, to_name) = state.tree.parent(to)?;
        if let Ok(there) = state.tree.find(to) {
            if there == ino {
                return Ok(());
            }
            if state.tree.is_dir(there) && !state.tree.dir(there)?.is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
        }
        state.check(Kind::Grow)?;
        let edits = vec![
            Edit {
                dir: from_dir,
                name: from_name,
                to: None,
            },
            Edit {
                dir: to_dir,
                name: to_name,
                to: Some(ino),
            },
        ];
        state.edit("rename", edits, None);
        Ok(())
    }

    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let ino = state.tree.find(from)?;
        state.tree.file(ino)?;
        if state.tree.find(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = state.tree.parent(to)?;
        state.check(Kind::Grow)?;
        state.edit(
            "link",
            vec![Edit {
                dir,
                name,
                to: Some(ino),
            }],
            None,
        );
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let dir = state.tree.find(dir)?;
        state.tree.dir(dir)?;
        let failed = state.check(Kind::Sync);
        let lost = !state.spares_names;
        state.log(match failed {
            Ok(()) => Op::SyncDir { dir },
            Err(_) => Op::SyncDirFailed { dir, lost },
        });
        failed
    }
}
