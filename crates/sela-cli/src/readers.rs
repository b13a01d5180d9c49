//! Inputs: texts a line, JSON objects a line, vectors with names.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sela::{Error, Id, Item, Items};

use crate::app::{Failure, Result};
use crate::args;
use crate::npy;

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
        Error::Input {
            source_name: self.name.clone(),
            place: format!("line {}", self.line),
            reason: reason.into(),
        }
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

/// What kind of input a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Json,
    Vectors,
}

/// An input of items that can be opened again and again.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    path: PathBuf,
    ids: Option<PathBuf>,
    pub(crate) kind: Kind,
}

impl Input {
    pub(crate) fn new(args: &args::Index) -> Result<Self> {
        let kind = match args.input.extension().and_then(|e| e.to_str()) {
            Some("txt") => Kind::Text,
            Some("jsonl" | "ndjson") => Kind::Json,
            Some("npy") => Kind::Vectors,
            _ => {
                let what = format!(
                    "`{}` ends neither in .txt nor .jsonl nor .npy",
                    args.input.display()
                );
                return Err(Failure::say(what));
            }
        };
        let wrong = match (kind, &args.ids) {
            (Kind::Vectors, None) => Some("the rows of a .npy file need names: give `--ids FILE`"),
            (Kind::Json, Some(_)) => {
                Some("the objects of a .jsonl file bring their ids: leave `--ids` out")
            }
            _ => None,
        };
        match wrong {
            Some(what) => Err(Failure::say(what)),
            None => Ok(Self {
                path: readable(&args.input)?,
                ids: args.ids.clone(),
                kind,
            }),
        }
    }

    /// Numbers in a vector, for a file of vectors.
    pub(crate) fn dim(&self) -> Result<Option<usize>> {
        match self.kind {
            Kind::Vectors => Ok(Some(npy::open(&self.path)?.dim)),
            Kind::Text => Ok(None),
            Kind::Json => {
                // Vectors or texts: the first object tells.
                let first = self.open()?.next();
                Ok(first
                    .and_then(Result::ok)
                    .and_then(|item| item.vector)
                    .map(|v| v.len()))
            }
        }
    }

    /// How many items there are, as far as that is cheap to know.
    pub(crate) fn count(&self) -> Option<u64> {
        match self.kind {
            Kind::Vectors => npy::open(&self.path).ok().map(|rows| rows.rows),
            Kind::Text | Kind::Json => {
                let mut reader = BufReader::with_capacity(1 << 16, File::open(&self.path).ok()?);
                let (mut lines, mut last) = (0, b'\n');
                loop {
                    let buffer = reader.fill_buf().ok()?;
                    let Some(&end) = buffer.last() else { break };
                    lines += buffer.iter().filter(|&&b| b == b'\n').count() as u64;
                    last = end;
                    let n = buffer.len();
                    reader.consume(n);
                }
                Some(lines + u64::from(last != b'\n'))
            }
        }
    }

    /// The items from the first on.
    pub(crate) fn open(&self) -> sela::Result<Items<'static>> {
        let ids = self.ids.as_deref().map(open_lines).transpose()?;
        Ok(match self.kind {
            Kind::Text => Box::new(texts(open_lines(&self.path)?, ids)),
            Kind::Json => Box::new(objects(open_lines(&self.path)?)),
            Kind::Vectors => {
                let rows = npy::open(&self.path).map_err(|failure| match failure {
                    Failure::Sela(error) => error,
                    other => Error::Input {
                        source_name: format!("`{}`", self.path.display()),
                        place: "header".to_owned(),
                        reason: other.lines().0,
                    },
                })?;
                Box::new(vectors(rows, ids))
            }
        })
    }
}

/// The path, if the file can be opened: told before a model is fetched for it.
fn readable(path: &Path) -> Result<PathBuf> {
    File::open(path).map_err(Failure::file("read", path))?;
    Ok(path.to_owned())
}

fn open_lines(path: &Path) -> sela::Result<Lines> {
    Lines::open(path).map_err(|source| Error::Io {
        what: "read",
        path: path.to_owned(),
        source,
    })
}

/// The next name of a file of names.
fn next_id(ids: &mut Lines) -> sela::Result<Id> {
    match ids.next() {
        Some(line) => line?
            .parse()
            .map_err(|e: sela::IdError| ids.error(e.to_string())),
        None => Err(ids.error("is missing: there are fewer names than rows")),
    }
}

/// A text a line, named by the line's number or by a file of names.
fn texts(lines: Lines, mut ids: Option<Lines>) -> impl Iterator<Item = sela::Result<Item>> {
    let mut number = 0;
    lines.map(move |text| {
        number += 1;
        let id = ids.as_mut().map_or(Ok(Id::Num(number)), next_id)?;
        Ok(Item::text(id, text?))
    })
}

fn vectors(rows: npy::Rows, mut ids: Option<Lines>) -> impl Iterator<Item = sela::Result<Item>> {
    let mut number = 0;
    rows.map(move |vector| {
        number += 1;
        let id = ids.as_mut().map_or(Ok(Id::Num(number)), next_id)?;
        Ok(Item::vector(id, vector?))
    })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    id: Id,
    text: Option<String>,
    vector: Option<Vec<f32>>,
    payload: Option<sela::Payload>,
}

/// A JSON object a line, with `id`, and `text` or `vector` or both, and perhaps `payload`.
fn objects(mut lines: Lines) -> impl Iterator<Item = sela::Result<Item>> {
    std::iter::from_fn(move || {
        let line = match lines.next()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let parsed = serde_json::from_str::<Object>(&line);
        Some(match parsed {
            Ok(Object {
                text: None,
                vector: None,
                ..
            }) => Err(lines.error("has neither a text nor a vector")),
            Ok(Object {
                id,
                text,
                vector,
                payload,
            }) => Ok(Item {
                id,
                text,
                vector,
                payload,
            }),
            Err(error) => {
                // The parser's own line is always the first: it sees one line at a time.
                let text = error.to_string();
                let what = text
                    .rsplit_once(" at line ")
                    .map_or(text.as_str(), |(what, _)| what);
                Err(lines.error(format!("column {}: {what}", error.column())))
            }
        })
    })
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
