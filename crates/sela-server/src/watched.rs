//! A file that is read again when it has changed, so that keys rotate without a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Instant, SystemTime};

/// Milliseconds between two looks at a file.
const LOOK_MS: u64 = 1_000;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Stamp {
    /// `None` where there is no file.
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&meta);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self {
            modified: meta.modified().ok(),
            len: meta.len(),
            inode,
        })
    }
}

type Load<T> = Box<dyn Fn(&Path) -> Result<T, String> + Send + Sync>;

/// The contents of a file as of at most a second ago.
pub(crate) struct Watched<T> {
    path: PathBuf,
    load: Load<T>,
    value: RwLock<Arc<T>>,
    stamp: Mutex<Option<Stamp>>,
    began: Instant,
    /// Milliseconds after `began` of the next look.
    next_look: AtomicU64,
}

impl<T> Watched<T> {
    /// Reads the file for the first time; `load` says what an absent one means.
    pub(crate) fn open(
        path: &Path,
        load: impl Fn(&Path) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let stamp = Stamp::of(path);
        let value = load(path)?;
        Ok(Self {
            path: path.to_owned(),
            load: Box::new(load),
            value: RwLock::new(Arc::new(value)),
            stamp: Mutex::new(stamp),
            began: Instant::now(),
            next_look: AtomicU64::new(LOOK_MS),
        })
    }

    /// The contents, read again if it is time to look and the file has changed.
    pub(crate) fn get(&self) -> Arc<T> {
        let now = self.began.elapsed().as_millis() as u64;
        let due = self.next_look.load(Ordering::Relaxed);
        if now >= due {
            let next = now + LOOK_MS;
            let mine =
                self.next_look
                    .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
            if mine.is_ok() {
                self.look();
            }
        }
        self.value
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the file again if it has changed. One that cannot be read leaves what was read last:
    /// a slip of an editor locks nobody out, and the log tells of it.
    pub(crate) fn look(&self) {
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Stamp::of(&self.path);
        if now == *stamp {
            return;
        }
        match (self.load)(&self.path) {
            Ok(value) => {
                *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                *stamp = now;
            }
            Err(reason) => {
                let path = self.path.display();
                tracing::error!(%path, reason, "a changed file cannot be used; its old contents stay");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Watched;

    #[test]
    fn changes_are_seen_and_damage_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let read = |path: &std::path::Path| {
            let text = fs::read_to_string(path).unwrap_or_else(|_| "0".to_owned());
            text.parse::<u32>().map_err(|e| e.to_string())
        };
        let watched = Watched::open(&path, read).unwrap();
        assert_eq!(*watched.get(), 0);
        for (text, seen) in [("12", 12), ("rubbish", 12), ("345", 345)] {
            fs::write(&path, text).unwrap();
            watched.look();
            assert_eq!(*watched.get(), seen);
        }
        fs::remove_file(&path).unwrap();
        watched.look();
        assert_eq!(*watched.get(), 0);
    }
}
