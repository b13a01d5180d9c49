//! `sela bench compare` and `sela bench report`: what earlier runs wrote.

use std::path::{Path, PathBuf};

use sela::bench::{Change, Changes, Saved, changes, html};
use serde_json::Value;

use super::super::{print, print_json};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::Format;
use crate::table;

pub(super) fn compare(before: &Path, after: &Path, format: &Format) -> Result<Outcome> {
    let found = changes(&Saved::read(before)?, &Saved::read(after)?);
    if format.json {
        print_json(&found)?;
    } else {
        print(&lines(&found))?;
    }
    Ok(Outcome::Done)
}

pub(super) fn report(app: &App, files: &[PathBuf], output: Option<&Path>) -> Result<Outcome> {
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or(path.as_os_str());
        Ok((name.to_string_lossy().into_owned(), Saved::read(path)?))
    };
    let page = html(&files.iter().map(read).collect::<Result<Vec<_>>>()?);
    match output {
        None => print(&page)?,
        Some(path) => {
            std::fs::write(path, page).map_err(Failure::file("write", path))?;
            app.note(&format!("wrote `{}`", path.display()));
        }
    }
    Ok(Outcome::Done)
}

/// What differs about the machines, then every number of both.
fn lines(found: &Changes) -> String {
    let value = |value: &Value| match value {
        Value::String(string) => string.clone(),
        other => other.to_string(),
    };
    let mut text = String::new();
    for (name, before, after) in &found.machine {
        text += &format!("{name}: {} -> {}\n", value(before), value(after));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let heads = ["", "", "", "", "first", "second", "", "second is"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(found.figures.iter().map(row));
    text + &table::columns(&rows)
}

fn row(change: &Change) -> Vec<String> {
    let number = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) if value >= 1_000.0 => table::count(value.round() as u64),
        Some(value) => format!("{value:.3}"),
    };
    let rows = change
        .rows
        .map_or_else(String::new, |rows| format!("{} rows", table::count(rows)));
    let times = change
        .times
        .map_or_else(String::new, |times| format!("{times:.2}x as good"));
    vec![
        change.name.clone(),
        change.device.clone().unwrap_or_default(),
        rows,
        change.field.trim_end_matches("_per_s").to_owned(),
        number(change.before),
        number(change.after),
        change.unit.clone(),
        times,
    ]
}
