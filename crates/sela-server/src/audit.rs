//! The audit log: who made or revoked which key, and which requests were refused, a JSON object a
//! line, only ever added to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::keys::Key;
use crate::time;

/// The name of the log in a home.
pub const AUDIT_FILE: &str = "audit.jsonl";

/// Longest path of a refused request that is written down, in bytes.
const PATH_MAX: usize = 200;

/// The log of a home.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    refusals_max: u32,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    bytes: u64,
    /// The second that refusals are counted in.
    second: u64,
    told: u32,
    untold: u64,
}

/// A refused request.
#[derive(Debug, Serialize)]
pub(crate) struct Refused<'a> {
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) who: Option<&'a str>,
    pub(crate) request_id: &'a str,
}

#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    time: &'a str,
    event: &'a str,
    #[serde(flatten)]
    what: T,
}

#[derive(Serialize)]
struct OfKey<'a> {
    key: &'a str,
    name: &'a str,
    role: &'a str,
    by: &'a str,
}

#[derive(Serialize)]
struct Untold {
    count: u64,
}

impl Audit {
    /// The log in a file, made at the first line. At most `refusals_max` refusals a second are
    /// told, and at `bytes_max` the file is put aside.
    pub fn new(path: &Path, refusals_max: u32, bytes_max: u64) -> Self {
        Self {
            path: path.to_owned(),
            refusals_max,
            bytes_max,
            state: Mutex::default(),
        }
    }

    /// Tells that a key was made; on stable storage when it returns.
    pub fn created(&self, key: &Key, by: &str) -> io::Result<()> {
        self.of_key("key_created", key, by)
    }

    /// Tells that a key was revoked; on stable storage when it returns.
    pub fn revoked(&self, key: &Key, by: &str) -> io::Result<()> {
        self.of_key("key_revoked", key, by)
    }

    fn of_key(&self, event: &str, key: &Key, by: &str) -> io::Result<()> {
        let what = OfKey {
            key: &key.id,
            name: &key.name,
            role: key.role.name(),
            by,
        };
        let mut state = self.lock();
        self.write(&mut state, event, &what)?;
        state.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Tells of a refused request, unless too many were told of in this second.
    pub(crate) fn refused(&self, refused: &Refused<'_>) {
        let mut state = self.lock();
        let now = time::now_seconds();
        if state.second != now {
            let count = std::mem::take(&mut state.untold);
            (state.second, state.told) = (now, 0);
            if count > 0 {
                self.try_write(&mut state, "refused_more", &Untold { count });
            }
        }
        if state.told >= self.refusals_max {
            state.untold += 1;
            return;
        }
        state.told += 1;
        let mut end = refused.path.len().min(PATH_MAX);
        while !refused.path.is_char_boundary(end) {
            end -= 1;
        }
        let path = &refused.path[..end];
        self.try_write(&mut state, "refused", &Refused { path, ..*refused });
    }

    /// A request must not fail because the log does.
    fn try_write(&self, state: &mut State, event: &str, what: &impl Serialize) {
        if let Err(error) = self.write(state, event, what) {
            tracing::error!(%error, path = %self.path.display(), "the audit log cannot be written");
        }
    }

    fn write(&self, state: &mut State, event: &str, what: &impl Serialize) -> io::Result<()> {
        let time = &time::rfc3339(time::now_seconds());
        let mut line = serde_json::to_vec(&Line { time, event, what })?;
        line.push(b'\n');
        if state.file.is_some() && state.bytes + line.len() as u64 > self.bytes_max {
            state.file = None;
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            fs::rename(&self.path, aside)?;
        }
        let file = match &mut state.file {
            Some(file) => file,
            empty => {
                let file = open(&self.path)?;
                state.bytes = file.metadata()?.len();
                empty.insert(file)
            }
        };
        state.bytes += line.len() as u64;
        // One write a line: lines of several processes do not mix.
        file.write_all(&line)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(audit: &Audit, path: &str) {
        audit.refused(&Refused {
            status: 401,
            code: "no_key",
            peer: None,
            method: "GET",
            path,
            who: None,
            request_id: "r",
        });
    }

    #[test]
    fn a_flood_of_refusals_is_counted_and_the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(AUDIT_FILE);
        let audit = Audit::new(&path, 3, 2_000);
        let long = "/ü".repeat(10_000);
        for _ in 0..1_000 {
            refuse(&audit, &long);
        }
        // However many seconds that took, all but three of each were only counted.
        audit.lock().second = 0;
        refuse(&audit, "/last");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let count = |event: &str| lines.iter().filter(|l| l["event"] == event).count();
        assert!(count("refused_more") >= 1, "{text}");
        assert_eq!(lines.last().unwrap()["path"], "/last");
        assert!(text.len() < 2_000);
        for _ in 0..100 {
            audit.lock().second = 0;
            refuse(&audit, &long);
        }
        assert!(fs::metadata(&path).unwrap().len() <= 2_000);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
