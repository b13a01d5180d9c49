//! A folder for the moment, gone when the value is dropped.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a folder of this process's own under `home`.
    pub(crate) fn new(home: &Path, purpose: &str) -> Result<Self> {
        let stamp = crate::load::now_ns();
        let dir = home
            .join("scratch")
            .join(format!("{purpose}-{}-{stamp}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        Ok(Self(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        if let Some(parent) = self.0.parent() {
            // Only goes when it is empty.
            let _ = std::fs::remove_dir(parent);
        }
    }
}
