//! Inputs: texts a line, JSON objects a line, vectors with names.

mod lines;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use sela::{Error, Id, Item, Items};

use crate::app::{Failure, Result};
use crate::{args, npy, table};

pub(crate) use lines::Lines;

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
        if let Some(what) = wrong {
            return Err(Failure::say(what));
        }
        let input = Self {
            path: readable(&args.input)?,
            ids: args.ids.clone(),
            kind,
        };
        input.check_names()?;
        Ok(input)
    }

    /// Refuses another number of names than of items, before anything is written.
    fn check_names(&self) -> Result<()> {
        let Some(ids) = self.ids.as_deref().filter(|ids| ids.as_os_str() != "-") else {
            return Ok(());
        };
        let kind = std::fs::metadata(ids).map_err(Failure::file("read", ids))?;
        // A pipe can be read only once: the load tells when it gets there.
        let names = if kind.is_file() {
            count_lines(ids)
        } else {
            None
        };
        let (Some(items), Some(names)) = (self.count(), names) else {
            return Ok(());
        };
        if names == items {
            return Ok(());
        }
        let what = match self.kind {
            Kind::Vectors => "rows",
            Kind::Text | Kind::Json => "lines",
        };
        let (ids, path) = (ids.display(), self.path.display());
        Err(Failure::Said(
            format!(
                "`{ids}` holds {} names, but `{path}` has {} {what}",
                table::count(names),
                table::count(items)
            ),
            Some(format!("give one name a line, in the order of the {what}")),
        ))
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
        if !self.path.is_file() {
            return None;
        }
        match self.kind {
            Kind::Vectors => npy::open(&self.path).ok().map(|rows| rows.rows),
            Kind::Text | Kind::Json => count_lines(&self.path),
        }
    }

    /// The items from the first on.
    pub(crate) fn open(&self) -> sela::Result<Items<'static>> {
        let ids = self.ids.as_deref().map(open_lines).transpose()?;
        Ok(match self.kind {
            Kind::Text => Box::new(named(open_lines(&self.path)?, ids, Item::text)),
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
                Box::new(named(rows, ids, Item::vector))
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

/// Lines of a file, one without a line feed at the end included.
fn count_lines(path: &Path) -> Option<u64> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path).ok()?);
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

/// The next name of a file of names.
fn next_id(ids: &mut Lines) -> sela::Result<Id> {
    match ids.next() {
        Some(line) => line?
            .parse()
            .map_err(|e: sela::IdError| ids.error(e.to_string())),
        None => Err(ids.error("is missing: there are fewer names than rows")),
    }
}

/// An error if a file of names goes on after the last of `items`.
fn surplus(mut ids: Lines, items: u64) -> Option<Error> {
    let more = ids.by_ref().count() as u64;
    let names = items + more;
    let reason = format!("is too many: there are more names than rows, {names} and {items}");
    (more > 0).then(|| ids.error_at(items + 1, reason))
}

/// Items of texts or vectors, named by their number or by a file of names.
fn named<T>(
    mut contents: impl Iterator<Item = sela::Result<T>>,
    mut ids: Option<Lines>,
    item: impl Fn(Id, T) -> Item,
) -> impl Iterator<Item = sela::Result<Item>> {
    let mut number = 0;
    std::iter::from_fn(move || {
        let Some(content) = contents.next() else {
            return surplus(ids.take()?, number).map(Err);
        };
        number += 1;
        let id = ids.as_mut().map_or(Ok(Id::Num(number)), next_id);
        Some(id.and_then(|id| Ok(item(id, content?))))
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
    use std::path::Path;

    use super::{Error, Item, Lines, named};

    /// The names of items a line, and how they end; the file of names is read as a pipe is.
    fn name_all(contents: &str, names: &str) -> Vec<Result<String, String>> {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["contents", "names"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], contents).unwrap();
        std::fs::write(&paths[1], names).unwrap();
        let [contents, names] = paths.map(|path| Lines::open(&path).unwrap());
        let items = named(contents, Some(names), Item::text);
        let place = |error: Error| error.to_string().split_once(", ").unwrap().1.to_owned();
        items
            .map(|item| item.map(|i| i.id.to_string()).map_err(place))
            .collect()
    }

    #[test]
    fn names_are_neither_too_few_nor_too_many() {
        let ok = |name: &str| Ok(name.to_owned());
        assert_eq!(name_all("x\ny\n", "a\nb\n"), [ok("a"), ok("b")]);
        let few = "line 2: is missing: there are fewer names than rows".to_owned();
        assert_eq!(name_all("x\ny\n", "a\n"), [ok("a"), Err(few)]);
        let many = "line 2: is too many: there are more names than rows, 4 and 1".to_owned();
        assert_eq!(name_all("x\n", "a\nb\nc\nd"), [ok("a"), Err(many)]);
        assert_eq!(super::count_lines(Path::new("/none")), None);
    }
}
