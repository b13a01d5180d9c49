//! A file that appears under its name when it is whole, so that an error costs nobody the old one.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file under way: `NAME.part` beside the file it is to become.
pub(crate) struct PartFile {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    whole: bool,
}

impl PartFile {
    /// Starts a file; what an interrupted run left in its `.part` is overwritten.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        // Behind a link, the file is replaced and not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = BufWriter::new(claim(&part)?);
        Ok(Self {
            path,
            part,
            file,
            whole: false,
        })
    }

    /// Puts the file under its name, in the place of one that is there.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        // A disk that is full or gone may say so only now.
        self.file.get_ref().sync_all()?;
        fs::rename(&self.part, &self.path)?;
        self.whole = true;
        Ok(())
    }
}

/// Opens an empty file that no other process is writing.
fn claim(part: &Path) -> io::Result<File> {
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(part)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let why = "another process is writing it";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
            }
            // Some file systems know no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Else that process ended just now, and what was opened is its finished file.
        if part.exists() {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for PartFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.whole {
            // Left behind, it is overwritten next time.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        let mut names: Vec<String> = entries
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_file_stays_until_the_new_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, "old").unwrap();
        let mut given_up = PartFile::create(&path).unwrap();
        given_up.write_all(b"half").unwrap();
        drop(given_up);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["a.txt"]);

        fs::write(dir.path().join("a.txt.part"), "left by an interrupted run").unwrap();
        let mut whole = PartFile::create(&path).unwrap();
        whole.write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        whole.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(dir.path()), ["a.txt"]);
    }

    #[test]
    fn two_writers_at_once_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let mut first = PartFile::create(&path).unwrap();
        first.write_all(b"first").unwrap();
        let second = PartFile::create(&path).err().unwrap();
        assert_eq!(second.to_string(), "another process is writing it");
        first.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn a_folder_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(PartFile::create(dir.path()).is_err());
        assert!(names(dir.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut file = PartFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
