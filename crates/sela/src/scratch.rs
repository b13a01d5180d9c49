//! A folder for the moment, gone when the value is dropped.
//!
//! A process that is interrupted or killed drops nothing, so each new folder first sweeps what
//! such processes have left. A lock tells whether any that made one is still alive.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub(crate) struct Scratch {
    dir: PathBuf,
    /// Holds off the sweeps of others; released by the system when the process ends in any way.
    _alive: File,
}

impl Scratch {
    /// Makes a folder of this process's own under `home`.
    pub(crate) fn new(home: &Path, purpose: &str) -> Result<Self> {
        let root = home.join("scratch");
        let alive = sweep(home, &root)?;
        let stamp = crate::load::now_ns();
        let dir = root.join(format!("{purpose}-{}-{stamp}", std::process::id()));
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        Ok(Self { dir, _alive: alive })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        if let Some(root) = self.dir.parent() {
            // Only goes when it is empty.
            let _ = fs::remove_dir(root);
        }
    }
}

/// Removes every folder when nobody alive has one; the file that comes back is locked against
/// the next sweep.
fn sweep(home: &Path, root: &Path) -> Result<File> {
    fs::create_dir_all(home).map_err(Error::io("create", home))?;
    let path = home.join(".scratch.lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::io("create", &path))?;
    match lock.try_lock() {
        Ok(()) => {
            // What cannot be removed is in nobody's way: names never come again.
            let _ = fs::remove_dir_all(root);
            // Another may sweep before the lock is shared; nothing of ours is there yet.
            lock.unlock().map_err(Error::io("lock", &path))?;
        }
        Err(TryLockError::WouldBlock) => {}
        // Without locks nobody sweeps either.
        Err(TryLockError::Error(_)) => return Ok(lock),
    }
    lock.lock_shared().map_err(Error::io("lock", &path))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_dead_are_swept_and_those_of_the_living_are_not() {
        let home = tempfile::tempdir().unwrap();
        let left = home.path().join("scratch/bench-1-2/collections");
        fs::create_dir_all(&left).unwrap();
        let first = Scratch::new(home.path(), "bench").unwrap();
        assert!(!left.exists());
        let second = Scratch::new(home.path(), "validate").unwrap();
        assert!(first.path().is_dir() && second.path().is_dir());
        drop(first);
        assert!(second.path().is_dir());

        fs::create_dir_all(&left).unwrap();
        let third = Scratch::new(home.path(), "bench").unwrap();
        assert!(left.exists(), "nobody can tell whose it is");
        drop((second, third));
        drop(Scratch::new(home.path(), "bench").unwrap());
        assert!(!home.path().join("scratch").exists());
    }
}
