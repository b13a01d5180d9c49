//! Keys: 256 random bits each, kept as SHA-256 digests in one file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::auth::{Caller, Role};
use crate::time;
use crate::watched::Watched;

/// How every key begins.
pub(crate) const PREFIX: &str = "sela_";
/// Most keys at a time: each request is held against all of them.
pub(crate) const KEYS_MAX: usize = 1000;
/// Longest name of a key, in characters.
const NAME_MAX: usize = 100;
/// Version of the file.
const VERSION: u32 = 1;

/// A key as it is kept: everything but the key itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Names it in commands and logs.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made, RFC 3339.
    pub created: String,
    /// SHA-256 of the key.
    #[serde(with = "hex")]
    digest: [u8; 32],
}

/// A key just made; only now can it be told.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What is kept of it.
    pub key: Key,
    /// The key.
    pub secret: String,
}

/// Why keys cannot be made, read or revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot {what} the keys in `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file holds no keys that this version understands.
    #[error("`{}` is no file of keys: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Too many.
    #[error("there are {KEYS_MAX} keys, which is the limit")]
    Full,
    /// A name that a key cannot have.
    #[error("`{name}` cannot be the name of a key: it has 1 to {NAME_MAX} printable characters")]
    Name {
        /// The name.
        name: String,
    },
    /// The name is taken.
    #[error("there is a key called `{name}` already")]
    Taken {
        /// The name.
        name: String,
    },
    /// No key has that id or name.
    #[error("no key has the id or the name `{which}`")]
    None {
        /// What was asked for.
        which: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    keys: Vec<Key>,
}

/// The file of keys. Changes replace it whole; a lock file beside it keeps changes apart.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The name of the file in a home.
    pub const NAME: &str = "keys.json";

    /// The keys of a file, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys; none when there is no file.
    pub fn list(&self) -> Result<Vec<Key>, KeyError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.io("read", source)),
        };
        let damaged = |reason: String| KeyError::Damaged {
            path: self.path.clone(),
            reason,
        };
        let contents: Contents =
            serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        match contents.version {
            VERSION => Ok(contents.keys),
            version => Err(damaged(format!("its version is {version}, not {VERSION}"))),
        }
    }

    /// Makes a key.
    pub fn create(&self, name: &str, role: Role) -> Result<NewKey, KeyError> {
        let characters = name.chars().count();
        let plain = (1..=NAME_MAX).contains(&characters) && !name.chars().any(char::is_control);
        if !plain {
            let name = name.chars().take(NAME_MAX).collect();
            return Err(KeyError::Name { name });
        }
        let _alone = self.lock()?;
        let mut keys = self.list()?;
        if keys.len() >= KEYS_MAX {
            return Err(KeyError::Full);
        }
        if keys.iter().any(|k| k.name == name) {
            let name = name.to_owned();
            return Err(KeyError::Taken { name });
        }
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random::<32>()?));
        let key = Key {
            id: hex::text(&random::<4>()?),
            name: name.to_owned(),
            role,
            created: time::rfc3339(time::now_seconds()),
            digest: digest(&secret),
        };
        keys.push(key.clone());
        self.write(keys)?;
        Ok(NewKey { key, secret })
    }

    /// Takes a key away, by its id or its name.
    pub fn revoke(&self, which: &str) -> Result<Key, KeyError> {
        let _alone = self.lock()?;
        let mut keys = self.list()?;
        let by_id = keys.iter().position(|k| k.id == which);
        let found = by_id.or_else(|| keys.iter().position(|k| k.name == which));
        let Some(at) = found else {
            let which = which.to_owned();
            return Err(KeyError::None { which });
        };
        let revoked = keys.remove(at);
        self.write(keys)?;
        Ok(revoked)
    }

    fn lock(&self) -> Result<File, KeyError> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(|e| self.io("write", e))?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = private(&mut options)
            .open(self.beside("lock"))
            .map_err(|e| self.io("lock", e))?;
        file.lock().map_err(|e| self.io("lock", e))?;
        Ok(file)
    }

    /// Replaces the file: old or new, never a part.
    fn write(&self, keys: Vec<Key>) -> Result<(), KeyError> {
        let contents = Contents {
            version: VERSION,
            keys,
        };
        let replace = || -> io::Result<()> {
            let part = self.beside("new");
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            let mut file = private(&mut options).open(&part)?;
            serde_json::to_writer_pretty(&mut file, &contents)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&part, &self.path)?;
            sync_folder(&self.path)
        };
        replace().map_err(|e| self.io("write", e))
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(ending);
        name.into()
    }

    fn io(&self, what: &'static str, source: io::Error) -> KeyError {
        KeyError::Io {
            what,
            path: self.path.clone(),
            source,
        }
    }
}

/// For the owner alone.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        #[cfg(unix)]
        Some(dir) => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| KeyError::Random(e.to_string()))?;
    Ok(bytes)
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// The keys of a running server: as the file has them, a change seen within a second.
pub(crate) struct Keys {
    watched: Watched<Vec<Known>>,
}

/// What a request is held against.
struct Known {
    digest: [u8; 32],
    caller: Caller,
}

impl Keys {
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let known = |key: Key| Known {
            digest: key.digest,
            caller: Caller {
                role: key.role,
                who: key.id.into(),
            },
        };
        let load = move |path: &Path| {
            let keys = KeyFile::new(path).list().map_err(|e| e.to_string())?;
            Ok(keys.into_iter().map(known).collect())
        };
        Ok(Self {
            watched: Watched::open(path, load)?,
        })
    }

    /// Whose key it is that a caller shows. Every key is looked at whole, so that time tells nothing.
    pub(crate) fn find(&self, secret: &str) -> Option<Caller> {
        let shown = digest(secret);
        let keys = self.watched.get();
        let mut found = u32::MAX;
        for (at, key) in keys.iter().enumerate() {
            let same = key.digest.ct_eq(&shown);
            found.conditional_assign(&(at as u32), same);
        }
        keys.get(found as usize).map(|key| key.caller.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.watched.get().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.watched.get().is_empty()
    }

    /// Reads the file now if it has changed.
    pub(crate) fn look(&self) {
        self.watched.look();
    }
}

/// Digests as text.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn text(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || D::Error::custom("a digest has 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_until_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path().join("home/keys.json"));
        assert!(file.list().unwrap().is_empty());
        let made = file.create("laptop", Role::Write).unwrap();
        let other = file.create("desk", Role::Read).unwrap();
        assert_eq!(made.secret.len(), PREFIX.len() + 43);
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains(&made.secret) && text.contains("laptop"));
        let keys = Keys::open(file.path()).unwrap();
        let whose = |secret: &str| keys.find(secret).map(|who| (who.role, who.who.to_string()));
        assert_eq!(
            whose(&made.secret),
            Some((Role::Write, made.key.id.clone()))
        );
        assert_eq!(whose(&other.secret), Some((Role::Read, other.key.id)));
        assert_eq!(whose("sela_"), None);
        assert_eq!(file.revoke(&made.key.id).unwrap(), made.key);
        keys.look();
        assert_eq!(whose(&made.secret), None);
        assert!(whose(&other.secret).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path().join("keys.json"));
        file.create("a", Role::Admin).unwrap();
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path().join("keys.json"));
        file.create("a", Role::Admin).unwrap();
        assert!(matches!(
            file.create("a", Role::Read),
            Err(KeyError::Taken { .. })
        ));
        for name in ["", "a\nb", &"x".repeat(NAME_MAX + 1)] {
            assert!(matches!(
                file.create(name, Role::Read),
                Err(KeyError::Name { .. })
            ));
        }
        assert!(matches!(file.revoke("b"), Err(KeyError::None { .. })));
        for text in ["", "{}", "{\"version\":2,\"keys\":[]}", "[]"] {
            fs::write(file.path(), text).unwrap();
            assert!(
                matches!(file.list(), Err(KeyError::Damaged { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn makers_at_the_same_time_lose_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path().join("keys.json"));
        std::thread::scope(|scope| {
            for at in 0..8 {
                let file = &file;
                scope.spawn(move || file.create(&format!("key {at}"), Role::Read).unwrap());
            }
        });
        assert_eq!(file.list().unwrap().len(), 8);
    }
}
