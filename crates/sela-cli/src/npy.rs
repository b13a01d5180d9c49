//! NumPy's `.npy` files: two-dimensional arrays of f32.

use std::fs::File;
use std::io::{self, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use crate::app::{Failure, Result};
use crate::part::PartFile;

/// Rows of a file, one after another.
pub(crate) struct Rows {
    path: PathBuf,
    numbers: npyz::NpyReader<f32, BufReader<File>>,
    pub(crate) rows: u64,
    pub(crate) dim: usize,
    row: u64,
}

/// Opens a file of f32, `[rows, dim]` (or one row, `[dim]`).
pub(crate) fn open(path: &Path) -> Result<Rows> {
    let file = File::open(path).map_err(Failure::file("read", path))?;
    let bad = |why: &str| {
        Failure::say(format!(
            "`{}` is no array of f32 rows: {why}",
            path.display()
        ))
    };
    let npy = npyz::NpyFile::new(BufReader::new(file)).map_err(|e| bad(&e.to_string()))?;
    if npy.order() == npyz::Order::Fortran && npy.shape().len() > 1 {
        return Err(bad("it is in Fortran order"));
    }
    let (rows, dim) = match npy.shape() {
        [dim] => (1, *dim),
        [rows, dim] => (*rows, *dim),
        shape => return Err(bad(&format!("its shape has {} axes", shape.len()))),
    };
    let kind = npy.dtype().descr();
    let numbers = npy
        .data::<f32>()
        .map_err(|_| bad(&format!("its numbers are {kind}")))?;
    let dim = usize::try_from(dim).map_err(|_| bad("its rows are too long"))?;
    if dim == 0 && rows > 0 {
        return Err(bad("its rows are empty"));
    }
    Ok(Rows {
        path: path.to_owned(),
        numbers,
        rows,
        dim,
        row: 0,
    })
}

impl Rows {
    fn read(&mut self) -> io::Result<Vec<f32>> {
        let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends inside it");
        (0..self.dim)
            .map(|_| self.numbers.next().unwrap_or_else(|| Err(short())))
            .collect()
    }

    /// All that is left, row after row.
    pub(crate) fn read_all(mut self) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for row in &mut self {
            all.extend(row?);
        }
        Ok(all)
    }
}

impl Iterator for Rows {
    type Item = sela::Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.row == self.rows {
            return None;
        }
        self.row += 1;
        let row = self.read().map_err(|error| {
            let place = format!("row {}", self.row);
            // The rest of the file has no rows any more.
            self.row = self.rows;
            let source_name = format!("`{}`", self.path.display());
            sela::Error::Input {
                source_name,
                place,
                reason: error.to_string(),
            }
        });
        Some(row)
    }
}

/// A file under way; it appears under its name when it is whole.
pub(crate) struct Writer {
    path: PathBuf,
    file: PartFile,
    dim: usize,
    numbers: u64,
}

/// Bytes before the numbers: the same for every count of rows, so that it can be filled in last.
const HEADER: usize = 128;

impl Writer {
    /// Starts a file of rows of `dim` numbers; how many is known at the end.
    pub(crate) fn create(path: &Path, dim: usize) -> Result<Self> {
        let start = || -> io::Result<PartFile> {
            let mut file = PartFile::create(path)?;
            file.write_all(&[0; HEADER])?;
            Ok(file)
        };
        let file = start().map_err(Failure::file("write", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            dim,
            numbers: 0,
        })
    }

    /// Adds rows.
    pub(crate) fn push(&mut self, numbers: &[f32]) -> Result<()> {
        self.numbers += numbers.len() as u64;
        let mut write = || {
            numbers
                .iter()
                .try_for_each(|x| self.file.write_all(&x.to_le_bytes()))
        };
        write().map_err(Failure::file("write", &self.path))
    }

    /// Completes the file.
    pub(crate) fn finish(self) -> Result<()> {
        let rows = self.numbers / self.dim.max(1) as u64;
        let Self {
            path,
            mut file,
            dim,
            ..
        } = self;
        let finish = || -> io::Result<()> {
            file.seek(io::SeekFrom::Start(0))?;
            file.write_all(&header(rows, dim))?;
            file.finish()
        };
        finish().map_err(Failure::file("write", &path))
    }
}

/// Version 1.0 of the format, padded with blanks.
fn header(rows: u64, dim: usize) -> [u8; HEADER] {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let mut header = [b' '; HEADER];
    header[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    header[8..10].copy_from_slice(&((HEADER - 10) as u16).to_le_bytes());
    header[10..10 + text.len()].copy_from_slice(text.as_bytes());
    header[HEADER - 1] = b'\n';
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for rows in [0usize, 1, 1000] {
            let path = dir.path().join("a.npy");
            let numbers: Vec<f32> = (0..rows * 3).map(|x| x as f32 / 7.0).collect();
            let mut writer = Writer::create(&path, 3).ok().unwrap();
            numbers
                .chunks(6)
                .for_each(|some| writer.push(some).ok().unwrap());
            writer.finish().ok().unwrap();
            let read = open(&path).ok().unwrap();
            assert_eq!((read.rows, read.dim), (rows as u64, 3));
            assert_eq!(read.read_all().ok().unwrap(), numbers);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
