//! The record of how far a load has come.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::collection::{Collection, Item};
use crate::error::{Error, Result};

const FORMAT: u32 = 1;

/// How many items of a source are stored, and in which state the collection was then.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    format: u32,
    /// For people who look at the file.
    source: String,
    /// When the collection was created: another of the same name has another time.
    created_ns: String,
    /// Items stored, from the first on.
    pub(crate) items: u64,
    /// A digest of those items.
    pub(crate) digest: String,
    /// Writes that add or replace rows raise this,
    last_seq: u64,
    /// and those that remove rows lower this: with both the same, nothing was written since.
    rows_live: u64,
}

impl Progress {
    /// The record of a source for this very collection, if there is one.
    ///
    /// A record that cannot be read is none: it is only there to save work.
    pub(crate) fn read(collection: &Collection, source: &str) -> Result<Option<Self>> {
        let path = path_of(collection, source);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        let progress = serde_json::from_slice::<Self>(&text).ok();
        Ok(progress.filter(|p| p.format == FORMAT && p.created_ns == created_ns(collection)))
    }

    /// Whether the collection is as it was when the record was written.
    pub(crate) fn fits(&self, info: &sela_store::Info) -> bool {
        self.last_seq == info.last_seq && self.rows_live == info.rows_live
    }

    /// Records that `items` items are stored; called after the store's commit.
    ///
    /// Not synced: if it is lost or older than the store, items are looked up instead.
    pub(crate) fn write(
        collection: &Collection,
        source: &str,
        items: u64,
        digest: &Digest,
    ) -> Result<()> {
        let info = collection.info()?;
        let progress = Self {
            format: FORMAT,
            source: source.to_owned(),
            created_ns: created_ns(collection),
            items,
            digest: digest.hex(),
            last_seq: info.last_seq,
            rows_live: info.rows_live,
        };
        let path = path_of(collection, source);
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || -> io::Result<()> {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&temporary, serde_json::to_vec(&progress)?)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(Error::io("write", &path))
    }
}

/// Removes the records of a collection that is no more.
pub(crate) fn forget(data: &Path, name: &str) {
    // A record left behind fits no other collection.
    let _ = fs::remove_dir_all(folder(data, name));
}

fn folder(data: &Path, name: &str) -> PathBuf {
    data.join("progress").join(name)
}

fn path_of(collection: &Collection, source: &str) -> PathBuf {
    let hash = Sha256::digest(source.as_bytes());
    let name: String = hash.iter().take(12).map(|b| format!("{b:02x}")).collect();
    folder(&collection.engine().options().data, collection.name()).join(format!("{name}.json"))
}

fn created_ns(collection: &Collection) -> String {
    let created = collection
        .schema()
        .provenance
        .get("created_ns")
        .and_then(|v| v.as_str());
    created.unwrap_or_default().to_owned()
}

pub(crate) fn now_ns() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos())
}

/// A digest of items, one after another.
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(crate) fn update(&mut self, item: &Item) {
        self.part(item.id.to_string().as_bytes());
        match &item.text {
            Some(text) => self.part(text.as_bytes()),
            None => self.absent(),
        }
        match &item.payload {
            Some(payload) => self.part(
                serde_json::to_string(payload)
                    .unwrap_or_default()
                    .as_bytes(),
            ),
            None => self.absent(),
        }
        match &item.vector {
            Some(vector) => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                self.part(&bytes);
            }
            None => self.absent(),
        }
    }

    pub(crate) fn hex(&self) -> String {
        self.0
            .clone()
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn absent(&mut self) {
        self.0.update(u64::MAX.to_le_bytes());
    }
}
