//! Texts a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sela::Error;

/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 64 << 20;

/// Lines of a file, split at line feeds only; a final line feed ends the last line.
pub(crate) struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    pub(crate) line: u64,
    done: bool,
}

impl Lines {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let (name, reader): (String, Box<dyn BufRead>) = match path.to_str() {
            Some("-") => (
                "standard input".to_owned(),
                Box::new(BufReader::new(io::stdin())),
            ),
            _ => {
                let file = File::open(path)?;
                (
                    format!("`{}`", path.display()),
                    Box::new(BufReader::with_capacity(1 << 16, file)),
                )
            }
        };
        Ok(Self {
            name,
            reader,
            line: 0,
            done: false,
        })
    }

    /// An error at the line read last.
    pub(crate) fn error(&self, reason: impl Into<String>) -> Error {
        self.error_at(self.line, reason)
    }

    /// An error at a line, counted from 1.
    pub(crate) fn error_at(&self, line: u64, reason: impl Into<String>) -> Error {
        Error::Input {
            source_name: self.name.clone(),
            place: format!("line {line}"),
            reason: reason.into(),
        }
    }

    /// The next lines: at most so many, and no further one once they have so many bytes. Empty at
    /// the end.
    pub(crate) fn stretch(
        &mut self,
        lines_max: usize,
        bytes_max: usize,
    ) -> sela::Result<Vec<String>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < lines_max && bytes < bytes_max {
            let Some(line) = self.next() else { break };
            let line = line?;
            bytes += line.len();
            lines.push(line);
        }
        Ok(lines)
    }

    fn read(&mut self) -> Option<sela::Result<String>> {
        let mut bytes = Vec::new();
        self.line += 1;
        let read = self
            .reader
            .by_ref()
            .take(LINE_MAX + 1)
            .read_until(b'\n', &mut bytes);
        match read {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(self.error(format!("cannot be read: {error}")))),
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        } else if bytes.len() as u64 > LINE_MAX {
            return Some(Err(
                self.error(format!("is longer than {} MiB", LINE_MAX >> 20))
            ));
        }
        Some(String::from_utf8(bytes).map_err(|_| self.error("is not UTF-8")))
    }
}

impl Iterator for Lines {
    type Item = sela::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let line = self.read();
        self.done = !matches!(line, Some(Ok(_)));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    fn lines(text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, text).unwrap();
        Lines::open(&path).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn lines_end_at_line_feeds_only() {
        assert_eq!(lines(""), [""; 0]);
        assert_eq!(lines("\n"), [""]);
        assert_eq!(lines("a"), ["a"]);
        assert_eq!(lines("a\n"), ["a"]);
        assert_eq!(lines("a\n\nb\n"), ["a", "", "b"]);
        assert_eq!(
            lines("a\r\nb\u{2028}c\u{85}\u{b}d"),
            ["a\r", "b\u{2028}c\u{85}\u{b}d"]
        );
    }

    #[test]
    fn a_stretch_ends_at_its_lines_or_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "a\nbb\nccc\nd\n\ne").unwrap();
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.stretch(2, 9).unwrap(), ["a", "bb"]);
        assert_eq!(lines.stretch(9, 3).unwrap(), ["ccc"]);
        assert_eq!(lines.stretch(9, 9).unwrap(), ["d", "", "e"]);
        assert_eq!(lines.stretch(9, 9).unwrap(), [""; 0]);
    }

    #[test]
    fn a_line_that_is_not_utf8_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, b"good\nb\xffd\nnever read\n").unwrap();
        let mut lines = Lines::open(&path).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "good");
        let error = lines.next().unwrap().unwrap_err().to_string();
        assert!(error.ends_with("line 2: is not UTF-8"), "{error}");
        assert!(lines.next().is_none());
    }
}
