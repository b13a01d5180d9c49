//! Read-only memory maps: the one place of this crate that needs `unsafe`.

use std::fs::File;
use std::io;

/// A whole file mapped for reading.
#[derive(Debug)]
pub(crate) struct Map(Option<memmap2::Mmap>);

impl Map {
    /// Maps all of `file`; an empty file maps to no bytes.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the store's files are immutable once they are named in the catalog, and the
        // collection's writer lock keeps other writers of ours away. A foreign process that
        // shortens the file could still make a read fault. `Mapped::bytes` checks the length,
        // and is asked again before every block is handed out and at every new block of a walk,
        // which narrows that window to the work on one block: a race, not a wait.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Self(Some(map)))
    }

    /// The mapped bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}
