//! `sela key`: keys of the server.

use std::path::Path;

use sela_server::{AUDIT_FILE, Audit, KeyError, KeyFile, NewKey, Role};

use super::{print, print_json, serve};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::Key;
use crate::table;

pub(super) fn run(app: &App, command: Key) -> Result<Outcome> {
    match command {
        Key::Create { role, name, keys } => {
            let file = file(app, keys.config.as_deref())?;
            let made = create(app, &file, &name, role.into())?;
            if keys.format.json {
                print_json(&serde_json::json!({
                    "id": made.key.id, "name": made.key.name, "role": made.key.role.name(),
                    "created": made.key.created, "key": made.secret,
                }))?;
            } else {
                app.note("the key is told only now:");
                print(&format!("{}\n", made.secret))?;
            }
        }
        Key::List(keys) => {
            let file = file(app, keys.config.as_deref())?;
            let list = file.list()?;
            if keys.format.json {
                let line = |key: &sela_server::Key| {
                    serde_json::json!({
                        "id": key.id, "name": key.name, "role": key.role.name(),
                        "created": key.created,
                    })
                };
                print_json(&list.iter().map(line).collect::<Vec<_>>())?;
            } else {
                let line = |key: &sela_server::Key| {
                    let role = key.role.name().to_owned();
                    vec![key.id.clone(), role, key.created.clone(), key.name.clone()]
                };
                print(&table::columns(&list.iter().map(line).collect::<Vec<_>>()))?;
            }
            if list.is_empty() {
                return Ok(Outcome::Nothing);
            }
        }
        Key::Revoke { key, keys } => {
            let file = file(app, keys.config.as_deref())?;
            let revoked = file.revoke(&key)?;
            audit(app)
                .revoked(&revoked, &who())
                .map_err(|e| of_audit(app, e))?;
            if keys.format.json {
                print_json(&serde_json::json!({ "id": revoked.id, "name": revoked.name }))?;
            } else {
                app.note(&format!(
                    "the key `{}` ({}) is revoked",
                    revoked.name, revoked.id
                ));
            }
        }
    }
    Ok(Outcome::Done)
}

/// Makes a key and tells the audit log.
pub(super) fn create(app: &App, file: &KeyFile, name: &str, role: Role) -> Result<NewKey> {
    let made = file.create(name, role)?;
    audit(app)
        .created(&made.key, &who())
        .map_err(|e| of_audit(app, e))?;
    Ok(made)
}

/// Where the server's keys are.
pub(super) fn file(app: &App, config: Option<&Path>) -> Result<KeyFile> {
    let settings = serve::settings(app, config, Vec::new())?;
    Ok(match settings.auth.keys {
        Some(path) => KeyFile::new(path),
        None => KeyFile::new(app.home().join(KeyFile::NAME)),
    })
}

fn audit(app: &App) -> Audit {
    let limits = sela_server::config::Limits::default();
    let path = app.home().join(AUDIT_FILE);
    Audit::new(&path, limits.audit_refusals_max, limits.audit_bytes_max.0)
}

fn of_audit(app: &App, error: std::io::Error) -> Failure {
    Failure::file("write", &app.home().join(AUDIT_FILE))(error)
}

/// Who runs this command, as far as the system tells.
fn who() -> String {
    let name = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    match name {
        Some(name) => format!("{name} at the command line"),
        None => "the command line".to_owned(),
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let hint = match &error {
            KeyError::None { .. } => Some("`sela key list` tells which there are".to_owned()),
            KeyError::Full => Some("revoke those that nobody uses".to_owned()),
            _ => None,
        };
        let text = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        Self::Said(text, hint)
    }
}
