//! The files of a model folder, as bytes in memory or mapped by the caller.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sela_compute::encode::SharedBytes;

use crate::error::Error;

/// Name of the weights file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Name of the tokenizer file.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// Files without which nothing can be embedded.
const REQUIRED: [&str; 3] = [WEIGHTS, TOKENIZER, "config.json"];
/// Files that say more, when they are there.
const OPTIONAL: [&str; 5] = [
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
];

/// Bytes of a model's files by their path in the folder.
#[derive(Clone, Default)]
pub struct ModelFiles {
    files: BTreeMap<String, SharedBytes>,
    /// Name of the model as users say it.
    pub name: String,
    /// SHA-256 of the weights in hex, when the caller knows it; part of the space's identity.
    pub weights_sha256: Option<String>,
}

impl ModelFiles {
    /// No files yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Adds a file; mapped files are welcome, the word table is read where it lies.
    pub fn insert(&mut self, path: &str, bytes: SharedBytes) {
        self.files.insert(path.into(), bytes);
    }

    /// Paths in a model folder that [`Encoder::open`](crate::Encoder::open) looks at: those it
    /// needs, then those it uses when they are there.
    pub fn names() -> impl Iterator<Item = (&'static str, bool)> {
        REQUIRED
            .into_iter()
            .map(|n| (n, true))
            .chain(OPTIONAL.into_iter().map(|n| (n, false)))
    }

    /// Reads all files of a folder into memory.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let mut files = Self::new(&folder.file_name().unwrap_or_default().to_string_lossy());
        for (name, required) in Self::names() {
            match std::fs::read(folder.join(name)) {
                Ok(bytes) => files.insert(name, Arc::new(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if required {
                        return Err(Error::MissingFile(name.into()));
                    }
                }
                Err(source) => {
                    return Err(Error::ReadFile {
                        name: name.into(),
                        source,
                    });
                }
            }
        }
        Ok(files)
    }

    pub(crate) fn get(&self, name: &str) -> Result<SharedBytes, Error> {
        self.files
            .get(name)
            .cloned()
            .ok_or_else(|| Error::MissingFile(name.into()))
    }

    /// A JSON file, `None` when it is absent.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let Some(bytes) = self.files.get(name) else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice((**bytes).as_ref());
        parsed.map(Some).map_err(|e| Error::BadFile {
            name: name.into(),
            reason: e.to_string(),
        })
    }
}
