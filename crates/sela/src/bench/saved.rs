//! Figures that an earlier run wrote, read again: held against another run's, or shown as a page.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// Most bytes of a file of figures: a thousand times what a run writes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What [`super::BenchReport`] looks like when it is read.
#[derive(Clone, Debug, Deserialize)]
pub struct Saved {
    /// Where it was measured, as it was written.
    pub machine: BTreeMap<String, Value>,
    /// What was found.
    pub results: Vec<SavedFigure>,
    /// What could not be measured.
    #[serde(default)]
    pub not_measured: Vec<String>,
}

/// What [`super::Figure`] looks like when it is read. Numbers by their names: `p50`, `texts_per_s`.
#[derive(Clone, Debug, Deserialize)]
pub struct SavedFigure {
    /// What was measured.
    pub name: String,
    /// Where.
    #[serde(default)]
    pub device: Option<String>,
    /// The unit of the numbers without one in their name.
    #[serde(default)]
    pub unit: Option<String>,
    /// Texts or rows it was measured on.
    #[serde(default)]
    pub rows: Option<u64>,
    #[serde(flatten)]
    numbers: BTreeMap<String, Value>,
}

/// The numbers of a figure in the order they are told, their unit where it is always the same, and
/// whether more of it is better.
const NUMBERS: [(&str, Option<&str>, bool); 7] = [
    ("p50", None, false),
    ("p99", None, false),
    ("median", None, false),
    ("peak", None, false),
    ("texts_per_s", Some("texts/s"), true),
    ("tokens_per_s", Some("tokens/s"), true),
    ("rows_per_s", Some("rows/s"), true),
];

/// A number of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Number<'a> {
    /// `p50`, `texts_per_s`.
    pub field: &'static str,
    /// What it counts.
    pub unit: &'a str,
    /// The number.
    pub value: f64,
    /// Whether more of it is better.
    pub more: bool,
}

/// One number in two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What was measured.
    pub name: String,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Texts or rows it was measured on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Which number: `p50`, `texts_per_s`.
    pub field: &'static str,
    /// What the numbers count.
    pub unit: String,
    /// In the first run; nothing when it was not measured there.
    pub before: Option<f64>,
    /// In the second run; nothing when it was not measured there.
    pub after: Option<f64>,
    /// How many times as good the second is: above 1 is faster, or less memory.
    pub times: Option<f64>,
}

/// Two runs against each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changes {
    /// What is not the same about the machines and settings: name, first, second.
    pub machine: Vec<(String, Value, Value)>,
    /// Every number that either has.
    pub figures: Vec<Change>,
}

impl Saved {
    /// Reads what `sela bench --json` wrote.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is longer than 16 MiB, or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |what: String| Error::Figures {
            path: path.to_owned(),
            what,
        };
        let bytes = std::fs::metadata(path)
            .map_err(Error::io("read", path))?
            .len();
        if bytes > FILE_BYTES_MAX {
            return Err(bad(format!(
                "it has {bytes} bytes, and at most {FILE_BYTES_MAX} are read"
            )));
        }
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
    }
}

impl SavedFigure {
    /// Its numbers, those that are none left out.
    pub fn numbers(&self) -> impl Iterator<Item = Number<'_>> {
        NUMBERS.iter().filter_map(|&(field, unit, more)| {
            let value = self.numbers.get(field)?.as_f64()?;
            let unit = unit.or(self.unit.as_deref()).unwrap_or_default();
            Some(Number {
                field,
                unit,
                value,
                more,
            })
        })
    }

    /// Whether it tells of the same thing.
    fn is_of(&self, other: &Self) -> bool {
        let key = |f: &Self| (f.name.clone(), f.device.clone(), f.rows);
        key(self) == key(other)
    }
}

/// Holds a second run against a first: every number that either has.
pub fn changes(before: &Saved, after: &Saved) -> Changes {
    let names = before.machine.keys().chain(after.machine.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    let of = |saved: &Saved, name: &str| saved.machine.get(name).cloned().unwrap_or(Value::Null);
    let machine = names.into_iter().filter_map(|name| {
        let (was, is) = (of(before, name), of(after, name));
        (was != is).then(|| (name.clone(), was, is))
    });
    let mut figures = Vec::new();
    for was in &before.results {
        let is = after.results.iter().find(|figure| figure.is_of(was));
        figures.extend(figure_changes(was, Some(was), is));
    }
    for is in &after.results {
        if !before.results.iter().any(|figure| figure.is_of(is)) {
            figures.extend(figure_changes(is, None, Some(is)));
        }
    }
    Changes {
        machine: machine.collect(),
        figures,
    }
}

fn figure_changes(
    named: &SavedFigure,
    before: Option<&SavedFigure>,
    after: Option<&SavedFigure>,
) -> Vec<Change> {
    let find = |figure: Option<&SavedFigure>, field: &str| {
        let number = figure?.numbers().find(|number| number.field == field)?;
        Some((number.value, number.unit.to_owned()))
    };
    let change = |&(field, _, more): &(&'static str, Option<&str>, bool)| {
        let (was, is) = (find(before, field), find(after, field));
        let unit = was.as_ref().or(is.as_ref())?.1.clone();
        let (was, is) = (was.map(|(value, _)| value), is.map(|(value, _)| value));
        let times = match (was, is) {
            (Some(was), Some(is)) if was > 0.0 && is > 0.0 => {
                Some(if more { is / was } else { was / is })
            }
            _ => None,
        };
        Some(Change {
            name: named.name.clone(),
            device: named.device.clone(),
            rows: named.rows,
            field,
            unit,
            before: was,
            after: is,
            times,
        })
    };
    NUMBERS.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn saved(results: Value) -> Saved {
        let all = json!({"machine": {"cpu": "A", "threads": 2}, "results": results});
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn faster_is_more_whatever_is_counted() {
        let before = saved(json!([
            {"name": "single", "device": "cpu", "unit": "ms", "p50": 2.0, "p99": 3.0},
            {"name": "bulk", "device": "cpu", "rows": 10, "texts_per_s": 100.0},
            {"name": "gone", "unit": "ms", "median": 1.0},
        ]));
        let mut after = saved(json!([
            {"name": "bulk", "device": "cpu", "rows": 10, "texts_per_s": 150.0},
            {"name": "bulk", "device": "cpu", "rows": 20, "texts_per_s": 1.0},
            {"name": "single", "device": "cpu", "unit": "ms", "p50": 1.0, "p99": 6.0},
        ]));
        after.machine.insert("cpu".into(), json!("B"));
        let found = changes(&before, &after);
        assert_eq!(found.machine, [("cpu".into(), json!("A"), json!("B"))]);
        let told: Vec<_> = found
            .figures
            .iter()
            .map(|c| (c.name.as_str(), c.rows, c.field, c.times))
            .collect();
        assert_eq!(
            told,
            [
                ("single", None, "p50", Some(2.0)),
                ("single", None, "p99", Some(0.5)),
                ("bulk", Some(10), "texts_per_s", Some(1.5)),
                ("gone", None, "median", None),
                ("bulk", Some(20), "texts_per_s", None),
            ]
        );
    }

    /// What a run writes is what is read.
    #[test]
    fn a_report_is_read_again() {
        let figure = super::super::Figure {
            name: "search1",
            device: Some("cpu".into()),
            unit: Some("ms"),
            rows: Some(10_000),
            p50: Some(0.25),
            ..super::super::Figure::default()
        };
        let figure: SavedFigure =
            serde_json::from_value(serde_json::to_value(&figure).unwrap()).unwrap();
        let numbers: Vec<_> = figure.numbers().collect();
        assert_eq!(
            numbers,
            [Number {
                field: "p50",
                unit: "ms",
                value: 0.25,
                more: false
            }]
        );
        assert_eq!(
            (figure.rows, figure.device.as_deref()),
            (Some(10_000), Some("cpu"))
        );
    }
}
