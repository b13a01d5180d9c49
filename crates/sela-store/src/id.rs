//! Row ids: a number, a UUID or a short string.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::ID_BYTES_MAX;

/// The name a row is stored under: a number, a UUID or a string.
///
/// In JSON an id is a number or a string; a string in the canonical form of a UUID (lower or
/// upper case, with hyphens) is a UUID. Ids are ordered numbers first, then UUIDs, then strings
/// by their bytes.
///
/// ```
/// use sela_store::Id;
/// assert_eq!("42".parse::<Id>()?, Id::Num(42));
/// assert_eq!("Ruth 1:16".parse::<Id>()?, Id::Str("Ruth 1:16".into()));
/// let uuid: Id = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse()?;
/// assert!(matches!(uuid, Id::Uuid(_)));
/// assert_eq!(uuid.to_string(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
/// # Ok::<(), sela_store::IdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// An unsigned number.
    Num(u64),
    /// The sixteen bytes of a UUID.
    Uuid([u8; 16]),
    /// A string of 1 to 512 bytes that is not a canonical UUID.
    Str(String),
}

/// Why something is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The string is empty.
    #[error("an id cannot be empty")]
    Empty,
    /// The string is longer than [`ID_BYTES_MAX`].
    #[error("an id of {bytes} bytes is too long (at most {ID_BYTES_MAX}): `{start}...`")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// Its first characters.
        start: String,
    },
    /// `Id::Str` holds what is written as a UUID, so it would come back as another id.
    #[error("the string `{0}` is a UUID and must be given as one")]
    UuidAsString(String),
    /// The JSON value is neither an unsigned number nor a string.
    #[error("an id is an unsigned number or a string, not `{0}`")]
    NotAnId(String),
}

const TAG_NUM: u8 = 0;
const TAG_UUID: u8 = 1;
const TAG_STR: u8 = 2;

impl Id {
    /// Reads a string that was an id in JSON: a canonical UUID or any other string.
    pub fn from_text(text: &str) -> Result<Self, IdError> {
        if let Some(uuid) = canonical_uuid(text) {
            return Ok(Self::Uuid(uuid));
        }
        let id = Self::Str(text.to_owned());
        id.check()?;
        Ok(id)
    }

    /// Reads a JSON value: an unsigned number or a string.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, IdError> {
        match value {
            serde_json::Value::Number(number) => match number.as_u64() {
                Some(number) => Ok(Self::Num(number)),
                None => Err(IdError::NotAnId(number.to_string())),
            },
            serde_json::Value::String(text) => Self::from_text(text),
            other => Err(IdError::NotAnId(clip(&other.to_string()))),
        }
    }

    /// Whether the id keeps to the limits and comes back from JSON as itself.
    pub fn check(&self) -> Result<(), IdError> {
        let Self::Str(text) = self else { return Ok(()) };
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > ID_BYTES_MAX {
            return Err(IdError::TooLong {
                bytes: text.len(),
                start: clip(text),
            });
        }
        if canonical_uuid(text).is_some() {
            return Err(IdError::UuidAsString(text.clone()));
        }
        Ok(())
    }

    /// The bytes that stand for the id in the catalog; they sort as ids do.
    pub(crate) fn to_key(&self) -> Vec<u8> {
        match self {
            Self::Num(number) => {
                let mut key = vec![TAG_NUM];
                key.extend_from_slice(&number.to_be_bytes());
                key
            }
            Self::Uuid(uuid) => {
                let mut key = vec![TAG_UUID];
                key.extend_from_slice(uuid);
                key
            }
            Self::Str(text) => {
                let mut key = vec![TAG_STR];
                key.extend_from_slice(text.as_bytes());
                key
            }
        }
    }

    /// Reads [`Id::to_key`] back; `None` for bytes that are no key.
    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        let (&tag, rest) = key.split_first()?;
        match tag {
            TAG_NUM => Some(Self::Num(u64::from_be_bytes(rest.try_into().ok()?))),
            TAG_UUID => Some(Self::Uuid(rest.try_into().ok()?)),
            TAG_STR => {
                let id = Self::Str(std::str::from_utf8(rest).ok()?.to_owned());
                id.check().ok()?;
                Some(id)
            }
            _ => None,
        }
    }

    /// The bytes the id takes in memory and on disk, roughly.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Num(_) => 8,
            Self::Uuid(_) => 16,
            Self::Str(text) => text.len() + 5,
        }
    }
}

fn canonical_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    uuid::Uuid::try_parse(text).ok().map(uuid::Uuid::into_bytes)
}

/// The first characters of a text that may be long.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(number) => write!(f, "{number}"),
            Self::Uuid(uuid) => write!(f, "{}", uuid::Uuid::from_bytes(*uuid)),
            Self::Str(text) => f.write_str(text),
        }
    }
}

impl FromStr for Id {
    type Err = IdError;

    /// Reads an id typed by a person: digits without leading zeros are a number, a canonical
    /// UUID is one, anything else is a string.
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => Ok(Self::Num(number)),
            _ => Self::from_text(text),
        }
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self::Num(number)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Num(number) => serializer.serialize_u64(*number),
            Self::Uuid(_) | Self::Str(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(serde::de::Error::custom)
    }
}
