//! Segment files: immutable vectors and ids, laid out as `docs/format.md` says.

mod ids;
mod layout;
mod reader;
mod writer;

use std::path::{Path, PathBuf};

pub(crate) use reader::{Reading, Segment};
pub(crate) use writer::{SegmentWriter, SeqColumn, WriteFailure};

/// The folder of the segment files in a collection's folder.
pub(crate) const SEGMENTS: &str = "segments";

/// The file of a segment.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(SEGMENTS).join(format!("{number:016x}.seg"))
}

/// The number in the name of a segment's file.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (format!("{number:016x}") == digits).then_some(number)
}
