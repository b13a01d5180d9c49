//! Snapshots of collections: whole copies beside them, given out as tar archives.
//!
//! A snapshot is a folder that opens as a collection. It lies under `snapshots` beside the
//! collections, so that hard links reach it; being written it has a dot in front of its name.

mod archive;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::json::Json;
use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer;
use crate::dto::qdrant::{Answered, SnapshotDescription, WriteParams};
use crate::error::ApiError;
use crate::extract::{PathOf, QueryOf};
use crate::state::AppState;
use crate::{time, work};

/// Where they are, beside the collections.
const FOLDER: &str = "snapshots";
/// How their names end.
const SUFFIX: &str = ".snapshot";
/// Most snapshots of a collection: each may keep files that the collection needs no longer.
const COUNT_MAX: usize = 100;

pub(super) fn reading() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(list))
}

pub(super) fn writing() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(create))
        .routes(routes!(delete))
}

/// What gives out all of a collection, rows that were deleted a while ago included.
pub(super) fn whole() -> OpenApiRouter<AppState> {
    OpenApiRouter::default().routes(routes!(download))
}

/// Snapshots of a collection
#[utoipa::path(
    get,
    path = "/collections/{collection}/snapshots",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name")),
    responses((status = 200, description = "The oldest first", body = Answered<Vec<SnapshotDescription>>))
)]
async fn list(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Answered<Vec<SnapshotDescription>>>, ApiError> {
    let began = Instant::now();
    let state = app.clone();
    let found = work::blocking(&app, move || {
        let folder = folder(&state, &name)?;
        let names = names(&folder)?;
        let described = names.into_iter().map(|name| describe(&folder, name));
        described.collect()
    });
    Ok(answer(began, found.await?))
}

/// Makes a snapshot of a collection: a whole copy that opens as a collection
///
/// Writes wait meanwhile. Files that do not change are shared with the collection where the file
/// system can do that.
#[utoipa::path(
    post,
    path = "/collections/{collection}/snapshots",
    tag = "qdrant",
    params(("collection" = String, Path, description = "Its name"), WriteParams),
    responses((status = 200, description = "It is made", body = Answered<SnapshotDescription>))
)]
async fn create(
    State(app): State<AppState>,
    PathOf(name): PathOf<String>,
    QueryOf(_): QueryOf<WriteParams>,
) -> Result<Json<Answered<SnapshotDescription>>, ApiError> {
    let began = Instant::now();
    let state = app.clone();
    let made = work::blocking(&app, move || make(&state, &name));
    Ok(answer(began, made.await?))
}

/// Deletes a snapshot
#[utoipa::path(
    delete,
    path = "/collections/{collection}/snapshots/{snapshot}",
    tag = "qdrant",
    params(
        ("collection" = String, Path, description = "The collection's name"),
        ("snapshot" = String, Path, description = "The snapshot's name"),
        WriteParams
    ),
    responses((status = 200, description = "It is gone", body = Answered<bool>))
)]
async fn delete(
    State(app): State<AppState>,
    PathOf((name, snapshot)): PathOf<(String, String)>,
    QueryOf(_): QueryOf<WriteParams>,
) -> Result<Json<Answered<bool>>, ApiError> {
    let began = Instant::now();
    let state = app.clone();
    let deleted = work::blocking(&app, move || {
        let _one_at_a_time = state.snapshots();
        let folder = folder(&state, &name)?;
        let path = existing(&folder, &snapshot)?;
        // Out of the list at once, however long removing the files takes.
        let gone = folder.join(format!(".{snapshot}"));
        fs::rename(&path, &gone).map_err(|error| failed(&error))?;
        fs::remove_dir_all(&gone).map_err(|error| failed(&error))
    });
    deleted.await?;
    Ok(answer(began, true))
}

/// A snapshot as a tar archive
///
/// Unpacked into a folder of its own among the collections, it is a collection.
#[utoipa::path(
    get,
    path = "/collections/{collection}/snapshots/{snapshot}",
    tag = "qdrant",
    params(
        ("collection" = String, Path, description = "The collection's name"),
        ("snapshot" = String, Path, description = "The snapshot's name")
    ),
    responses((status = 200, description = "Its files", body = Vec<u8>, content_type = "application/x-tar"))
)]
async fn download(
    State(app): State<AppState>,
    PathOf((name, snapshot)): PathOf<(String, String)>,
) -> Result<Response, ApiError> {
    let state = app.clone();
    let file = format!("{snapshot}.tar");
    let files = work::blocking(&app, move || {
        let folder = folder(&state, &name)?;
        let path = existing(&folder, &snapshot)?;
        files(&path, "").map_err(|error| failed(&error))
    });
    Ok(archive::give(&app, files.await?, &file))
}

/// Where a collection's snapshots are; the collection must be there.
fn folder(app: &AppState, collection: &str) -> Result<PathBuf, ApiError> {
    let collection = app.collection(collection)?;
    let data = &app.engine.options().data;
    Ok(data.join(FOLDER).join(collection.name()))
}

fn make(app: &AppState, name: &str) -> Result<SnapshotDescription, ApiError> {
    let _one_at_a_time = app.snapshots();
    let folder = folder(app, name)?;
    fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    sweep(&folder);
    let there = names(&folder)?.len();
    if there >= COUNT_MAX {
        let detail = format!("`{name}` has {there} snapshots, and the limit is {COUNT_MAX}");
        return Err(ApiError::conflict("too_many_snapshots", detail).hint("delete some"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let second = time::rfc3339(now.as_secs()).replace([':', 'T'], "-");
    let (second, nanos) = (second.trim_end_matches('Z'), now.subsec_nanos());
    let snapshot = format!("{name}-{second}-{nanos:09}{SUFFIX}");
    let part = folder.join(format!(".{snapshot}"));
    if let Err(error) = app.collection(name)?.snapshot(&part) {
        // What is left of it is in nobody's way, and the next one sweeps it.
        let _ = fs::remove_dir_all(&part);
        return Err(error.into());
    }
    fs::rename(&part, folder.join(&snapshot)).map_err(|error| failed(&error))?;
    describe(&folder, snapshot)
}

/// Removes what was cut short.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The names of all snapshots in a folder, the oldest first.
fn names(folder: &Path) -> Result<Vec<String>, ApiError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed(&error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| failed(&error))?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(SUFFIX) && !name.starts_with('.') {
            names.push(name.into_owned());
        }
    }
    // Their names begin alike and go on with the time.
    names.sort_unstable();
    Ok(names)
}

/// The folder of a snapshot; a name is looked for among those there are and is never a path.
fn existing(folder: &Path, snapshot: &str) -> Result<PathBuf, ApiError> {
    match names(folder)?.iter().any(|name| name == snapshot) {
        true => Ok(folder.join(snapshot)),
        false => {
            let shown: String = snapshot.chars().take(200).collect();
            let detail = format!("there is no snapshot `{shown}`");
            Err(ApiError::not_found("no_snapshot", detail))
        }
    }
}

fn describe(folder: &Path, name: String) -> Result<SnapshotDescription, ApiError> {
    let path = folder.join(&name);
    let made = fs::metadata(&path).and_then(|data| data.modified());
    let made = made.map_err(|error| failed(&error))?;
    let seconds = made.duration_since(UNIX_EPOCH).unwrap_or_default();
    let files = files(&path, "").map_err(|error| failed(&error))?;
    Ok(SnapshotDescription {
        name,
        creation_time: time::rfc3339(seconds.as_secs())
            .trim_end_matches('Z')
            .to_owned(),
        size: files.iter().map(|file| file.size).sum(),
        checksum: None,
    })
}

/// A file of a snapshot.
#[derive(Debug)]
struct Stored {
    /// Its name in the snapshot: `segments/0000000000000001.seg`.
    name: String,
    path: PathBuf,
    size: u64,
    /// Seconds after 1970 at which it was changed.
    changed: u64,
}

/// All files below a folder.
fn files(folder: &Path, prefix: &str) -> std::io::Result<Vec<Stored>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let data = entry.metadata()?;
        if data.is_dir() {
            found.extend(files(&entry.path(), &format!("{name}/"))?);
            continue;
        }
        let changed = data.modified()?.duration_since(UNIX_EPOCH);
        found.push(Stored {
            name,
            path: entry.path(),
            size: data.len(),
            changed: changed.unwrap_or_default().as_secs(),
        });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn failed(error: &std::io::Error) -> ApiError {
    match error.kind() {
        ErrorKind::StorageFull => sela::StoreError::DiskFull {
            path: PathBuf::new(),
        }
        .into(),
        ErrorKind::NotFound => ApiError::not_found("no_snapshot", "the snapshot is gone"),
        _ => ApiError::internal(error),
    }
}
