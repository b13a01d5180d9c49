//! From a file, the environment and flags to settings, and back to a documented page.

use std::net::SocketAddr;

use toml::{Table, Value};

use super::Settings;

/// The documented settings file with every default.
pub const TEMPLATE: &str = include_str!("settings.toml");

/// Tables whose keys are the user's own.
const FREE: [&str; 2] = ["auth.jwt.roles", "openai.aliases"];

/// Where settings come from, the weakest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The name and the text of a settings file.
    pub file: Option<(String, String)>,
    /// Environment variables; those that name no setting are passed over.
    pub env: Vec<(String, String)>,
    /// Settings that flags give: `("server.bind", "0.0.0.0:8000")`.
    pub flags: Vec<(String, String)>,
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is no TOML.
    #[error("`{file}` is no TOML: {reason}")]
    Syntax {
        /// The file.
        file: String,
        /// What is wrong and where.
        reason: String,
    },
    /// There is no such setting.
    #[error("{from} sets `{key}`, which is no setting")]
    Unknown {
        /// The file, or the variable's name.
        from: String,
        /// The key.
        key: String,
        /// The key that is most like it.
        near: Option<String>,
    },
    /// A setting has a value that it cannot have.
    #[error("the setting `{key}` cannot be used: {reason}")]
    Value {
        /// The key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// Everybody may do everything, from anywhere.
    #[error("`server.no_auth` would open `{bind}` to everybody who reaches it")]
    NoAuthBeyondLoopback {
        /// The address.
        bind: SocketAddr,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("TLS needs both files, and `{missing}` is not set")]
    HalfTls {
        /// The setting that is missing.
        missing: &'static str,
    },
}

impl ConfigError {
    pub(crate) fn value(key: impl Into<String>, reason: impl ToString) -> Self {
        Self::Value {
            key: key.into(),
            reason: reason.to_string(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { near, .. } => Some(match near {
                Some(near) => format!("do you mean `{near}`?"),
                None => "`sela serve --print-config` prints all settings".to_owned(),
            }),
            Self::NoAuthBeyondLoopback { .. } => Some(
                "listen on 127.0.0.1, or leave `no_auth` away: keys are made by `sela key create`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A setting as the documented file has it.
struct Known {
    key: String,
    /// Its default; without one an example.
    sample: Value,
}

/// Every setting of the documented file.
fn known() -> Vec<Known> {
    let mut found = Vec::new();
    let mut section = String::new();
    for line in TEMPLATE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if let Some((key, sample)) = setting(line).filter(|_| !is_free(&section)) {
            let key = format!("{section}.{key}");
            found.push(Known { key, sample });
        }
    }
    found
}

/// The key and the value of a line, those of an example included: `#threads = 4`.
fn setting(line: &str) -> Option<(&str, Value)> {
    let line = line.strip_prefix('#').unwrap_or(line);
    let (key, value) = line.split_once(" = ")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if key.is_empty() || !key.chars().all(plain) {
        return None;
    }
    let mut table: Table = toml::from_str(&format!("value = {value}")).ok()?;
    table.remove("value").map(|value| (key, value))
}

fn is_free(section: &str) -> bool {
    FREE.contains(&section)
}

impl Settings {
    /// Reads settings from their layers.
    pub fn load(layers: &Layers) -> Result<Self, ConfigError> {
        let known = known();
        let mut table = Table::new();
        if let Some((file, text)) = &layers.file {
            table = toml::from_str(text).map_err(|error: toml::de::Error| {
                let (file, reason) = (file.clone(), error.to_string());
                ConfigError::Syntax { file, reason }
            })?;
            check_keys(&table, "", &format!("`{file}`"), &known)?;
        }
        for (name, value) in &layers.env {
            if let Some(key) = key_of_variable(name, &known)? {
                put(&mut table, key, parse(key, value)?);
            }
        }
        for (key, value) in &layers.flags {
            let Some(known) = known.iter().find(|k| k.key == *key) else {
                return Err(unknown("a flag", key, &known));
            };
            put(&mut table, known, parse(known, value)?);
        }
        let settings: Self = match table.try_into() {
            Ok(settings) => settings,
            Err(error) => return Err(of_types(&layers.file, &error)),
        };
        settings.check()?;
        Ok(settings)
    }

    /// The documented file with these settings in it; secrets are not told.
    pub fn print(&self) -> String {
        let table = Table::try_from(self).unwrap_or_default();
        let mut page = String::new();
        let mut section = String::new();
        for line in TEMPLATE.lines() {
            if let Some(name) = line.strip_prefix('[') {
                name.trim_end_matches(']').clone_into(&mut section);
            }
            let value = setting(line)
                .and_then(|(key, _)| Some((key, look_up(&table, &section)?.get(key)?)));
            match value {
                Some(("secret", _)) => page += "#secret = \"(hidden)\"",
                Some((key, value)) if !is_free(&section) => page += &format!("{key} = {value}"),
                _ => page += line,
            }
            page.push('\n');
            if let Some(own) = look_up(&table, &section).filter(|_| line.starts_with('[')) {
                for (key, value) in own.iter().filter(|_| is_free(&section)) {
                    page += &format!("{} = {value}\n", Value::from(key.as_str()));
                }
            }
        }
        page
    }
}

/// The table of a section: `auth.jwt`.
fn look_up<'a>(table: &'a Table, section: &str) -> Option<&'a Table> {
    section
        .split('.')
        .try_fold(table, |table, name| table.get(name)?.as_table())
}

/// Refuses keys that the documented file does not have.
fn check_keys(
    table: &Table,
    section: &str,
    from: &str,
    known: &[Known],
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = match section {
            "" => name.clone(),
            section => format!("{section}.{name}"),
        };
        let inside = known.iter().any(|k| k.key.starts_with(&format!("{key}.")))
            || FREE.iter().any(|free| free.starts_with(&format!("{key}.")));
        match value {
            Value::Table(_) if is_free(&key) => {}
            Value::Table(table) if inside => check_keys(table, &key, from, known)?,
            _ if inside => return Err(ConfigError::value(key, "it is a table of settings")),
            _ if known.iter().any(|k| k.key == key) => {}
            _ => return Err(unknown(from, &key, known)),
        }
    }
    Ok(())
}

fn unknown(from: &str, key: &str, known: &[Known]) -> ConfigError {
    let like = |k: &&Known| {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let whole = strsim::jaro_winkler(&k.key, key);
        whole.max(strsim::jaro_winkler(&last(&k.key), &last(key)))
    };
    let near = known
        .iter()
        .max_by(|a, b| like(a).total_cmp(&like(b)))
        .filter(|k| like(k) > 0.8);
    ConfigError::Unknown {
        from: from.to_owned(),
        key: key.to_owned(),
        near: near.map(|k| k.key.clone()),
    }
}

/// The setting that a variable names. One that begins as the variables of a section do and names
/// none is an error; all others are somebody else's.
fn key_of_variable<'a>(name: &str, known: &'a [Known]) -> Result<Option<&'a Known>, ConfigError> {
    let variable = |key: &str| format!("SELA_{}", key.replace('.', "_").to_uppercase());
    if let Some(found) = known.iter().find(|k| variable(&k.key) == name) {
        return Ok(Some(found));
    }
    let section = known
        .iter()
        .filter_map(|k| k.key.split('.').next())
        .find(|section| name.starts_with(&format!("{}_", variable(section))));
    match section {
        Some(section) => {
            let rest = &name[variable(section).len() + 1..];
            let key = format!("{section}.{}", rest.to_lowercase());
            Err(unknown(&format!("`{name}`"), &key, known))
        }
        None => Ok(None),
    }
}

/// A value from outside of a file: of the type that the setting's sample has.
fn parse(known: &Known, text: &str) -> Result<Value, ConfigError> {
    let wrong = |wants: &str| {
        let reason = format!("`{text}` is no {wants}");
        ConfigError::value(&known.key, reason)
    };
    match known.sample {
        Value::Integer(_) => {
            let number = text.parse::<i64>();
            number
                .map(Value::Integer)
                .map_err(|_| wrong("whole number"))
        }
        Value::Float(_) => {
            let number = text.parse::<f64>();
            number.map(Value::Float).map_err(|_| wrong("number"))
        }
        Value::Boolean(_) => match text {
            "1" | "true" => Ok(Value::Boolean(true)),
            "0" | "false" => Ok(Value::Boolean(false)),
            _ => Err(wrong("`true` or `false`")),
        },
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn put(table: &mut Table, known: &Known, value: Value) {
    let mut path: Vec<&str> = known.key.split('.').collect();
    let last = path.pop().unwrap_or_default();
    let mut at = table;
    for name in path {
        let inner = at.entry(name).or_insert_with(|| Value::Table(Table::new()));
        match inner {
            Value::Table(inner) => at = inner,
            // `check_keys` has refused everything else.
            _ => return,
        }
    }
    at.insert(last.to_owned(), value);
}

/// A value of a wrong type; the file's own line is told if it is the file's fault.
fn of_types(file: &Option<(String, String)>, error: &toml::de::Error) -> ConfigError {
    if let Some((file, text)) = file
        && let Err(error) = toml::from_str::<Settings>(text)
    {
        return ConfigError::Syntax {
            file: file.clone(),
            reason: error.to_string(),
        };
    }
    ConfigError::value("given outside of the file", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bytes;

    fn of_file(text: &str) -> Result<Settings, ConfigError> {
        Settings::load(&Layers {
            file: Some(("sela.toml".to_owned(), text.to_owned())),
            ..Layers::default()
        })
    }

    #[test]
    fn the_documented_file_holds_every_setting_with_its_default() {
        assert_eq!(of_file(TEMPLATE), Ok(Settings::default()));
        fn keys(table: &Table, section: &str, found: &mut Vec<String>) {
            for (name, value) in table {
                let key = format!("{section}{name}");
                match value {
                    Value::Table(inner) => keys(inner, &format!("{key}."), found),
                    _ => found.push(key),
                }
            }
        }
        let mut coded = Vec::new();
        keys(
            &Table::try_from(Settings::default()).unwrap(),
            "",
            &mut coded,
        );
        let documented: Vec<_> = known().into_iter().map(|k| k.key).collect();
        let missing: Vec<_> = coded.iter().filter(|k| !documented.contains(k)).collect();
        assert!(missing.is_empty(), "not documented: {missing:?}");
        assert!(documented.len() > 30, "{documented:?}");
        // Examples too are values that their settings can have.
        let examples = TEMPLATE.replace("\n#", "\n").replace("\n ", "\n# ");
        let read = of_file(&examples).unwrap();
        assert_eq!(read.engine.threads, Some(4));
        assert_eq!(read.auth.jwt.roles.len(), 1);
    }

    #[test]
    fn flags_are_stronger_than_the_environment_and_that_than_the_file() {
        let text = "[limits]\nk_max = 1\ntexts_max = 1\nbody_ms = 1\n".to_owned();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let settings = Settings::load(&Layers {
            file: Some(("sela.toml".to_owned(), text)),
            env: vec![
                pair("SELA_LIMITS_K_MAX", "2"),
                pair("SELA_LIMITS_TEXTS_MAX", "2"),
                pair("SELA_LIMITS_BODY_BYTES_MAX", "3MiB"),
                pair("SELA_HOME", "/elsewhere"),
                pair("HOME", "/home/someone"),
            ],
            flags: vec![pair("limits.k_max", "3"), pair("server.no_auth", "true")],
        })
        .unwrap();
        let limits = &settings.limits;
        assert_eq!((limits.k_max, limits.texts_max, limits.body_ms), (3, 2, 1));
        assert_eq!(limits.body_bytes_max, Bytes(3 << 20));
        assert!(settings.server.no_auth);
    }

    #[test]
    fn what_is_no_setting_is_refused_with_the_nearest() {
        let near = |error: Result<Settings, ConfigError>| match error.unwrap_err() {
            ConfigError::Unknown { near, .. } => near,
            other => panic!("{other}"),
        };
        let limit = Some("limits.texts_max".to_owned());
        assert_eq!(near(of_file("[limits]\ntext_max = 5\n")), limit);
        assert_eq!(
            near(of_file("[sever]\nbind = \"127.0.0.1:1\"\n")),
            Some("server.bind".to_owned())
        );
        assert_eq!(near(of_file("[zzz]\nqqq = 1\n")), None);
        let env = vec![("SELA_LIMITS_TEXT_MAX".to_owned(), "5".to_owned())];
        let layers = Layers {
            env,
            ..Layers::default()
        };
        assert_eq!(near(Settings::load(&layers)), limit);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (text, said) in [
            ("[limits]\nk_max = \"many\"\n", "k_max"),
            ("[limits]\nk_max = -1\n", "k_max"),
            ("[limits]\nk_max = 0\n", "more than 0"),
            ("[limits]\nbody_bytes_max = \"2 goats\"\n", "body_bytes_max"),
            ("[server]\nbind = \"here\"\n", "bind"),
            (
                "[server]\nbind = \"0.0.0.0:1\"\nno_auth = true\n",
                "0.0.0.0:1",
            ),
            ("[tls]\ncert = \"a.pem\"\n", "tls.key"),
            ("limits = 3\n", "table"),
            ("[limits\n", "no TOML"),
            ("[auth.jwt.roles]\nboss = \"owner\"\n", "owner"),
        ] {
            let error = of_file(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let mut settings = Settings::default();
        assert_eq!(settings.print(), TEMPLATE);
        settings.engine.threads = Some(3);
        settings.engine.model = "a \"model\"".to_owned();
        settings.limits.k_max = 7;
        let alias = ("a.b c".to_owned(), "all-MiniLM-L6-v2".to_owned());
        settings.openai.aliases.extend([alias]);
        assert_eq!(of_file(&settings.print()), Ok(settings.clone()));
        settings.auth.jwt.secret = Some("do not tell".to_owned());
        let printed = settings.print();
        assert!(!printed.contains("do not tell") && printed.contains("(hidden)"));
    }
}
