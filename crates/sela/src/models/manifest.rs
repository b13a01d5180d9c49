//! The record beside a model's files: size, time and sha256 of each.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{KnownModel, ModelDir};
use crate::error::{Error, Result};

const FILE: &str = "sela-model.json";
const FORMAT: u32 = 1;

/// How deep and how wide a folder of the user's own is looked through.
const FOLDER_FILES_MAX: usize = 256;

/// A file of a model as it was when it was last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The path inside the model's folder, with `/`.
    pub path: String,
    /// The length in bytes.
    pub size: u64,
    /// The time of the last change, in nanoseconds since 1970.
    pub mtime_ns: u64,
    /// The sha256 of the contents, in hexadecimal.
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) source: String,
    pub(crate) files: Vec<FileRecord>,
}

/// What [`Manifest::refresh`] found.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// One sentence for each file that is not what it was.
    pub(crate) problems: Vec<String>,
    /// Whether a file had another time and the same contents.
    pub(crate) restamped: bool,
}

impl Manifest {
    /// The manifest in a folder; `None` when there is none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(manifest) if manifest.format == FORMAT => Ok(Some(manifest)),
            // Unreadable is as good as absent: the files are checked or fetched again.
            _ => Ok(None),
        }
    }

    /// Writes it whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let temporary = dir.join(format!("{FILE}.{}", std::process::id()));
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::io("write", &path)(io::Error::other(e)))?;
        fs::write(&temporary, text)
            .and_then(|()| sync_file(&temporary))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| sync_dir(dir))
            .map_err(Error::io("write", &path))
    }

    /// Records the files of a known model that lie in `dir`, and makes them durable.
    ///
    /// Those with a hash in the table must have been checked against it.
    pub(crate) fn of_known(known: &KnownModel, dir: &Path, source: String) -> Result<Self> {
        let mut files = Vec::new();
        for file in &known.files {
            let path = dir.join(&file.path);
            if !path.is_file() {
                continue;
            }
            sync_file(&path).map_err(Error::io("write", &path))?;
            if let Some(parent) = path.parent() {
                sync_dir(parent).map_err(Error::io("write", parent))?;
            }
            let sha256 = match &file.sha256 {
                Some(checked) => checked.clone(),
                None => sha256_of_file(&path).map_err(Error::io("read", &path))?,
            };
            files.push(record(dir, &file.path, sha256)?);
        }
        Ok(Self {
            format: FORMAT,
            source,
            files,
        })
    }

    /// Records every file of a folder, trusting what `kept` says of those that did not change.
    pub(crate) fn of_folder(dir: &Path, kept: Option<&Self>) -> Result<Self> {
        let mut paths = Vec::new();
        list_into(dir, "", 2, &mut paths).map_err(Error::io("read", dir))?;
        paths.sort_unstable();
        let mut files = Vec::new();
        for path in paths {
            let mut now = record(dir, &path, String::new())?;
            let same = |old: &&FileRecord| {
                old.path == now.path && old.size == now.size && old.mtime_ns == now.mtime_ns
            };
            now.sha256 = match kept.and_then(|k| k.files.iter().find(same)) {
                Some(old) => old.sha256.clone(),
                None => {
                    let full = dir.join(&path);
                    sha256_of_file(&full).map_err(Error::io("read", &full))?
                }
            };
            files.push(now);
        }
        Ok(Self {
            format: FORMAT,
            source: "a folder".to_owned(),
            files,
        })
    }

    /// Hashes the files whose size or time is not as recorded.
    pub(crate) fn refresh(mut self, dir: &Path) -> Result<(Self, Changed)> {
        let mut changed = Changed::default();
        for kept in &mut self.files {
            let now = match record(dir, &kept.path, String::new()) {
                Ok(now) => now,
                Err(error) => {
                    let why = match &error {
                        Error::Io { source, .. } => source.to_string(),
                        other => other.to_string(),
                    };
                    changed
                        .problems
                        .push(format!("`{}` cannot be read: {why}", kept.path));
                    continue;
                }
            };
            if now.size == kept.size && now.mtime_ns == kept.mtime_ns {
                continue;
            }
            let path = dir.join(&kept.path);
            if sha256_of_file(&path).map_err(Error::io("read", &path))? == kept.sha256 {
                kept.mtime_ns = now.mtime_ns;
                changed.restamped = true;
            } else {
                changed
                    .problems
                    .push(format!("`{}` has changed since it was fetched", kept.path));
            }
        }
        Ok((self, changed))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    pub(crate) fn into_dir(self, name: String, path: PathBuf) -> ModelDir {
        ModelDir {
            name,
            path,
            files: self.files,
            source: self.source,
        }
    }
}

fn record(dir: &Path, path: &str, sha256: String) -> Result<FileRecord> {
    let full = dir.join(path);
    let meta = fs::metadata(&full).map_err(Error::io("read", &full))?;
    let modified = meta.modified().map_err(Error::io("read", &full))?;
    let mtime_ns = modified
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64);
    Ok(FileRecord {
        path: path.to_owned(),
        size: meta.len(),
        mtime_ns,
        sha256,
    })
}

/// The files of a folder and of the folders in it, but for hidden ones.
fn list_into(dir: &Path, prefix: &str, depth: u32, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || found.len() >= FOLDER_FILES_MAX {
            continue;
        }
        // Followed: model caches keep their files as links.
        let kind = fs::metadata(entry.path())?;
        if kind.is_dir() && depth > 1 {
            list_into(&entry.path(), &format!("{prefix}{name}/"), depth - 1, found)?;
        } else if kind.is_file() && is_model_file(&name) {
            found.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

/// Leaves aside the copies of the weights for other programs, which can be large.
fn is_model_file(name: &str) -> bool {
    [".json", ".txt", ".safetensors", ".model"]
        .iter()
        .any(|end| name.ends_with(end))
}

pub(crate) fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn sync_file(path: &Path) -> io::Result<()> {
    // A file that was copied here may be read-only; Windows alone wants the right to write.
    File::options()
        .read(true)
        .write(cfg!(windows))
        .open(path)?
        .sync_all()
}

/// Makes the names in a folder durable, where the platform has that notion.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

/// A short name for a path.
pub(crate) fn short_hash(path: &Path) -> String {
    hex(&Sha256::digest(path.as_os_str().as_encoded_bytes()))[..24].to_owned()
}

pub(crate) fn sha256_of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
