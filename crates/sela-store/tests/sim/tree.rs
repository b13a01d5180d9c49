//! Files and folders in memory, and the operations that change them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

/// What a name points at: a file or a folder, whatever it is called.
pub(crate) type Ino = u64;

/// The folder everything else is in.
pub(crate) const ROOT: Ino = 0;

/// One logged operation.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write {
        ino: Ino,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    SetLen {
        ino: Ino,
        len: u64,
    },
    Names(NameOp),
    Sync {
        ino: Ino,
    },
    /// The sync answered with an error: what it should have kept may be gone for good.
    SyncFailed {
        ino: Ino,
    },
    SyncDir {
        dir: Ino,
    },
    /// The same for the entries of a folder; unless `lost`, they wait for its next sync.
    SyncDirFailed {
        dir: Ino,
        lost: bool,
    },
}

/// A change of names that happens whole or not at all.
#[derive(Clone, Debug)]
pub(crate) struct NameOp {
    pub(crate) what: &'static str,
    pub(crate) edits: Vec<Edit>,
    /// The file or folder born by it.
    pub(crate) born: Option<Born>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Born {
    File(Ino),
    Dir(Ino),
}

/// In folder `dir`, `name` now points at `to`, or at nothing.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) dir: Ino,
    pub(crate) name: String,
    pub(crate) to: Option<Ino>,
}

/// A file system's whole contents; cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    files: BTreeMap<Ino, Arc<Vec<u8>>>,
    dirs: BTreeMap<Ino, BTreeMap<String, Ino>>,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree {
            files: BTreeMap::new(),
            dirs: BTreeMap::from([(ROOT, BTreeMap::new())]),
        }
    }
}

impl Tree {
    /// The file or folder at `path`.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Ino> {
        let mut at = ROOT;
        for name in names(path)? {
            let dir = self.dirs.get(&at).ok_or(io::ErrorKind::NotADirectory)?;
            at = *dir.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The folder that holds `path`, and the last part of `path`.
    pub(crate) fn parent(&self, path: &Path) -> io::Result<(Ino, String)> {
        let mut at = ROOT;
        let mut names = names(path)?;
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        for name in names {
            at = *self.dir(at)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        self.dir(at)?;
        Ok((at, last))
    }

    pub(crate) fn file(&self, ino: Ino) -> io::Result<&Arc<Vec<u8>>> {
        self.files
            .get(&ino)
            .ok_or_else(|| io::ErrorKind::IsADirectory.into())
    }

    pub(crate) fn dir(&self, ino: Ino) -> io::Result<&BTreeMap<String, Ino>> {
        self.dirs
            .get(&ino)
            .ok_or_else(|| io::ErrorKind::NotADirectory.into())
    }

    pub(crate) fn is_dir(&self, ino: Ino) -> bool {
        self.dirs.contains_key(&ino)
    }

    /// The first number never used for a file or folder.
    pub(crate) fn next_ino(&self) -> Ino {
        let file = self.files.last_key_value().map_or(0, |(ino, _)| *ino);
        let dir = self.dirs.last_key_value().map_or(0, |(ino, _)| *ino);
        file.max(dir) + 1
    }

    /// The bytes of all files that have a name.
    pub(crate) fn used_bytes(&self) -> u64 {
        let mut named: Vec<Ino> = self
            .dirs
            .values()
            .flat_map(|dir| dir.values().copied())
            .collect();
        named.sort_unstable();
        named.dedup();
        named
            .iter()
            .filter_map(|ino| self.files.get(ino))
            .map(|file| file.len() as u64)
            .sum()
    }

    /// Whether any name points at `ino`.
    pub(crate) fn is_named(&self, ino: Ino) -> bool {
        self.dirs
            .values()
            .any(|dir| dir.values().any(|entry| *entry == ino))
    }

    pub(crate) fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) {
        let Some(file) = self.files.get_mut(&ino) else {
            return;
        };
        let file = Arc::make_mut(file);
        let start = offset as usize;
        let end = start + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
    }

    pub(crate) fn set_len(&mut self, ino: Ino, len: u64) {
        if let Some(file) = self.files.get_mut(&ino) {
            Arc::make_mut(file).resize(len as usize, 0);
        }
    }

    /// Makes a file or folder, without a name as yet.
    pub(crate) fn bear(&mut self, born: Born) {
        match born {
            Born::File(ino) => drop(self.files.entry(ino).or_default()),
            Born::Dir(ino) => drop(self.dirs.entry(ino).or_default()),
        }
    }

    pub(crate) fn rename(&mut self, op: &NameOp) {
        if let Some(born) = op.born {
            self.bear(born);
        }
        for edit in &op.edits {
            let Some(dir) = self.dirs.get_mut(&edit.dir) else {
                continue;
            };
            match edit.to {
                Some(ino) => dir.insert(edit.name.clone(), ino),
                None => dir.remove(&edit.name),
            };
        }
    }

    /// Applies an operation as the running process sees it.
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Write { ino, offset, bytes } => self.write(*ino, *offset, bytes),
            Op::SetLen { ino, len } => self.set_len(*ino, *len),
            Op::Names(names) => self.rename(names),
            Op::Sync { .. }
            | Op::SyncFailed { .. }
            | Op::SyncDir { .. }
            | Op::SyncDirFailed { .. } => {}
        }
    }

    /// Adds everything that has a name, down to the last byte.
    pub(crate) fn digest_into(&self, hash: &mut Xxh3) {
        self.digest_dir(ROOT, hash);
    }

    fn digest_dir(&self, ino: Ino, hash: &mut Xxh3) {
        let number = |hash: &mut Xxh3, number: u64| hash.update(&number.to_le_bytes());
        let entries = self.dirs.get(&ino);
        number(hash, entries.map_or(0, BTreeMap::len) as u64);
        for (name, child) in entries.into_iter().flatten() {
            number(hash, name.len() as u64);
            hash.update(name.as_bytes());
            // Two names of one file are not two files of the same contents.
            number(hash, *child);
            match self.files.get(child) {
                Some(file) => {
                    number(hash, file.len() as u64);
                    hash.update(file);
                }
                None => self.digest_dir(*child, hash),
            }
        }
    }

    /// All paths, files with their lengths: what a failure message shows.
    pub(crate) fn describe(&self) -> String {
        let mut lines = Vec::new();
        self.describe_dir(ROOT, "", &mut lines);
        lines.join("\n")
    }

    fn describe_dir(&self, ino: Ino, path: &str, lines: &mut Vec<String>) {
        for (name, child) in self.dirs.get(&ino).into_iter().flatten() {
            let path = format!("{path}/{name}");
            match self.files.get(child) {
                Some(file) => lines.push(format!("  {path} ({} bytes)", file.len())),
                None => {
                    lines.push(format!("  {path}/"));
                    self.describe_dir(*child, &path, lines);
                }
            }
        }
    }
}

/// The parts of a path below the mount: the first part names the mount itself.
pub(crate) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    if names.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    names.remove(0);
    Ok(names)
}
