//! The disk border: every byte the store changes, syncs or maps goes through these two traits,
//! so that tests can record, tear, reorder, drop and fail any of it.
//!
//! SQLite's own files go through the same trait in tests, by a virtual file system registered
//! with SQLite (see `tests/sim`); in production SQLite uses its own.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Read an existing file.
    Read,
    /// Read and write, creating the file when it is absent, keeping what it holds.
    ReadWrite,
    /// Create a file that must not exist yet.
    CreateNew,
}

/// Bytes of a file that stay readable for as long as the value lives.
pub trait Mapped: Debug + Send + Sync {
    /// The bytes, as long as the file was when it was mapped.
    ///
    /// Fails when the file has since become shorter than that, so that a file shortened under
    /// us is an error and not a crash.
    fn bytes(&self) -> io::Result<&[u8]>;

    /// Reads exactly `buf.len()` bytes at `offset`, by a read of the file and not through the
    /// map: bytes that are gone, or that the device cannot read, are an error here, where
    /// touching the map would end the process.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes()?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let there = bytes.get(start..start.saturating_add(buf.len()));
        buf.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// An open file of a [`Disk`].
pub trait DiskFile: Debug + Send + Sync {
    /// Reads exactly `buf.len()` bytes at `offset`; a shorter file is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, growing the file when needed.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or grows the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when the contents and the length are on stable storage (`F_FULLFSYNC` on macOS).
    fn sync(&self) -> io::Result<()>;
    /// Takes the file's exclusive lock; `false` when another holder has it.
    fn try_lock(&self) -> io::Result<bool>;
}

/// A file system, as little of one as the store needs.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Maps a whole existing file for reading.
    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapped>>;
    /// Whether a file or folder is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// The names of the entries of a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a folder and its missing parents.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all in it.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or folder, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// A second name for the same file; a copy where the file system has no hard links.
    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns when the folder's entries (created, renamed, removed) are on stable storage.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

#[derive(Debug)]
struct OsFile(fs::File);

#[derive(Debug)]
struct OsMapped {
    path: PathBuf,
    file: fs::File,
    map: crate::map::Map,
}

impl Mapped for OsMapped {
    fn bytes(&self) -> io::Result<&[u8]> {
        let now = self.file.metadata()?.len();
        let bytes = self.map.bytes();
        if now < bytes.len() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "`{}` was {} bytes when it was opened and is {now} bytes now",
                    self.path.display(),
                    bytes.len()
                ),
            ));
        }
        Ok(bytes)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        read_exact_at(&self.file, buf, offset)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &fs::File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &fs::File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buf, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf = &mut buf[n..];
        offset += n as u64;
    }
    Ok(())
}

impl DiskFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        read_exact_at(&self.0, buf, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, buf, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let n = std::os::windows::fs::FileExt::seek_write(&self.0, buf, offset)?;
            buf = &buf[n..];
            offset += n as u64;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // std issues F_FULLFSYNC on Apple platforms.
        self.0.sync_all()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(fs::TryLockError::WouldBlock) => Ok(false),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true).create(true).truncate(false),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
        };
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn map(&self, path: &Path) -> io::Result<Arc<dyn Mapped>> {
        let file = fs::File::open(path)?;
        let map = crate::map::Map::new(&file)?;
        Ok(Arc::new(OsMapped {
            path: path.to_owned(),
            file,
            map,
        }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to).or_else(|_| {
            fs::copy(from, to)?;
            fs::File::open(to)?.sync_all()
        })
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        // Windows journals folder entries with the file's own flush.
        Ok(())
    }
}
