//! Checksums of the catalog's rows, as `docs/format.md` defines them.

use xxhash_rust::xxh3::Xxh3;

/// A checksum over a name, integers and byte strings.
pub(crate) struct Sum(Xxh3);

impl Sum {
    /// Starts the sum of a row of the table `name`.
    pub(crate) fn new(name: &str) -> Self {
        let mut hash = Xxh3::new();
        hash.update(name.as_bytes());
        hash.update(&[0]);
        Self(hash)
    }

    /// Adds an integer.
    pub(crate) fn int(mut self, value: u64) -> Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    /// Adds bytes and their length.
    pub(crate) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
        self
    }

    /// The sum.
    pub(crate) fn finish(self) -> u64 {
        self.0.digest()
    }

    /// The sum of twice the width, for fingerprints.
    pub(crate) fn finish_wide(self) -> u128 {
        self.0.digest128()
    }
}

/// The document sum of a row: 0 exactly when it has neither payload nor text.
pub(crate) fn doc_sum(payload: Option<&str>, text: Option<&str>) -> u64 {
    if payload.is_none() && text.is_none() {
        return 0;
    }
    join_doc_sums(payload.map(payload_sum), text.map(text_sum))
}

/// The document sum from its two halves.
pub(crate) fn join_doc_sums(payload: Option<u64>, text: Option<u64>) -> u64 {
    if payload.is_none() && text.is_none() {
        return 0;
    }
    let sum = Sum::new("doc")
        .int(payload.unwrap_or(0))
        .int(text.unwrap_or(0))
        .finish();
    sum.max(1)
}

/// The sum of a payload's JSON.
pub(crate) fn payload_sum(json: &str) -> u64 {
    Sum::new("payload").bytes(json.as_bytes()).finish()
}

/// The sum of a text.
pub(crate) fn text_sum(text: &str) -> u64 {
    Sum::new("text").bytes(text.as_bytes()).finish()
}
