//! Where values stand in a payload: names, elements of arrays, and what can be done there.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::id::clip;
use crate::limits::FIELD_STEPS_MAX;
use crate::model::Payload;

/// The way to values in a payload, arrays entered only where it says so.
///
/// Written as names joined by dots, each followed by any number of `[]` (every element) and `[n]`
/// (the n-th, from 0): `country.cities[].name`. A name with other characters than letters,
/// digits, `_` and `-` stands in double quotes: `"a.b".c`.
///
/// ```
/// use sela_store::FieldPath;
/// let path: FieldPath = "cities[].sights[0]".parse()?;
/// assert_eq!(path.to_string(), "cities[].sights[0]");
/// assert!("cities[".parse::<FieldPath>().is_err());
/// # Ok::<(), sela_store::FieldPathError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Name(String),
    Every,
    Nth(usize),
}

/// Why a text is no [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not name a field: names joined by dots are wanted, like `cities[].name`")]
pub struct FieldPathError(String);

impl FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| FieldPathError(clip(text)))
    }
}

fn parse(text: &str) -> Option<FieldPath> {
    let mut steps = Vec::new();
    let mut rest = text;
    loop {
        let name;
        (name, rest) = split_name(rest)?;
        steps.push(Step::Name(name.to_owned()));
        while let Some(inside) = rest.strip_prefix('[') {
            let (index, after) = inside.split_once(']')?;
            steps.push(match index {
                "" => Step::Every,
                digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                    Step::Nth(digits.parse().ok()?)
                }
                _ => return None,
            });
            rest = after;
        }
        if steps.len() > FIELD_STEPS_MAX {
            return None;
        }
        if rest.is_empty() {
            return Some(FieldPath(steps));
        }
        rest = rest.strip_prefix('.')?;
    }
}

/// The name at the start, and what follows.
fn split_name(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted.split_once('"');
    }
    let end = text.find(|c: char| !is_plain(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Name(name) => {
                    let dot = if index > 0 { "." } else { "" };
                    if !name.is_empty() && name.chars().all(is_plain) {
                        write!(f, "{dot}{name}")?;
                    } else {
                        write!(f, "{dot}\"{name}\"")?;
                    }
                }
                Step::Every => f.write_str("[]")?,
                Step::Nth(nth) => write!(f, "[{nth}]")?,
            }
        }
        Ok(())
    }
}

impl FieldPath {
    /// Hands over every value it leads to, arrays whole.
    pub(crate) fn each<'a>(&self, payload: &'a Payload, each: &mut dyn FnMut(&'a Value)) {
        let Some((Step::Name(name), rest)) = self.0.split_first() else {
            return;
        };
        if let Some(value) = payload.get(name) {
            each_below(value, rest, each);
        }
    }

    /// The same way without an `[]` at its end.
    pub(crate) fn without_every(&self) -> Self {
        let mut steps = self.0.clone();
        if steps.len() > 1 && steps.last() == Some(&Step::Every) {
            steps.pop();
        }
        Self(steps)
    }

    /// Merges `values` into the object it leads to; makes objects on the way where there are
    /// none. Elements of arrays that do not exist are not made.
    pub(crate) fn merge(&self, payload: &mut Payload, values: &Payload) {
        let Some((Step::Name(name), rest)) = self.0.split_first() else {
            return;
        };
        let slot = payload.entry(name.as_str()).or_insert(Value::Null);
        merge_below(slot, rest, values);
    }

    /// Removes the values it leads to: fields with their names, and with a last `[]` all elements.
    /// One element alone is never removed.
    pub(crate) fn remove(&self, payload: &mut Payload) {
        match self.0.as_slice() {
            [Step::Name(name)] => drop(payload.remove(name)),
            [Step::Name(name), rest @ ..] => {
                if let Some(value) = payload.get_mut(name) {
                    remove_below(value, rest);
                }
            }
            _ => {}
        }
    }
}

/// What the paths select of a payload, with what is around it. Of arrays they select nothing but
/// what lies behind `[]`.
pub fn keep_fields(payload: &Payload, paths: &[FieldPath]) -> Payload {
    let steps: Vec<&[Step]> = paths.iter().map(|path| path.0.as_slice()).collect();
    let kept = payload
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), kept(value, below(name, &steps)?))));
    kept.collect()
}

/// A payload without what the paths select, as [`keep_fields`] takes them.
pub fn leave_fields(payload: &Payload, paths: &[FieldPath]) -> Payload {
    let steps: Vec<&[Step]> = paths.iter().map(|path| path.0.as_slice()).collect();
    let left = payload
        .iter()
        .filter_map(|(name, value)| match below(name, &steps) {
            None => Some((name.clone(), value.clone())),
            Some(steps) if steps.is_empty() => None,
            Some(steps) => Some((name.clone(), left(value, &steps))),
        });
    left.collect()
}

/// How the paths that go by a field go on: nowhere when one of them ends there, and `None` when
/// no path goes by it.
fn below<'a>(name: &str, paths: &[&'a [Step]]) -> Option<Vec<&'a [Step]>> {
    behind(paths, |step| matches!(step, Step::Name(own) if own == name))
}

fn behind<'a>(paths: &[&'a [Step]], by: impl Fn(&Step) -> bool) -> Option<Vec<&'a [Step]>> {
    let rests: Vec<&[Step]> = paths
        .iter()
        .filter_map(|path| path.split_first())
        .filter(|(step, _)| by(step))
        .map(|(_, rest)| rest)
        .collect();
    match rests.iter().any(|rest| rest.is_empty()) {
        true => Some(Vec::new()),
        false if rests.is_empty() => None,
        false => Some(rests),
    }
}

fn kept(value: &Value, steps: Vec<&[Step]>) -> Value {
    match value {
        _ if steps.is_empty() => value.clone(),
        Value::Object(map) => map
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), kept(value, below(name, &steps)?))))
            .collect::<Payload>()
            .into(),
        Value::Array(items) => match behind(&steps, |step| *step == Step::Every) {
            None => Value::Array(Vec::new()),
            Some(steps) => items.iter().map(|item| kept(item, steps.clone())).collect(),
        },
        value => value.clone(),
    }
}

fn left(value: &Value, steps: &[&[Step]]) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter_map(|(name, value)| match below(name, steps) {
                None => Some((name.clone(), value.clone())),
                Some(steps) if steps.is_empty() => None,
                Some(steps) => Some((name.clone(), left(value, &steps))),
            })
            .collect::<Payload>()
            .into(),
        Value::Array(items) => match behind(steps, |step| *step == Step::Every) {
            None => value.clone(),
            Some(steps) if steps.is_empty() => Value::Array(Vec::new()),
            Some(steps) => items.iter().map(|item| left(item, &steps)).collect(),
        },
        value => value.clone(),
    }
}

fn each_below<'a>(value: &'a Value, steps: &[Step], each: &mut dyn FnMut(&'a Value)) {
    let Some((step, rest)) = steps.split_first() else {
        each(value);
        return;
    };
    match (step, value) {
        (Step::Name(name), Value::Object(map)) => {
            if let Some(value) = map.get(name) {
                each_below(value, rest, each);
            }
        }
        (Step::Every, Value::Array(items)) => {
            items.iter().for_each(|item| each_below(item, rest, each));
        }
        (Step::Nth(nth), Value::Array(items)) => {
            if let Some(item) = items.get(*nth) {
                each_below(item, rest, each);
            }
        }
        _ => {}
    }
}

fn merge_below(slot: &mut Value, steps: &[Step], values: &Payload) {
    let Some((step, rest)) = steps.split_first() else {
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        if let Value::Object(map) = slot {
            merge(map, values);
        }
        return;
    };
    match step {
        Step::Name(name) => {
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            if let Value::Object(map) = slot {
                let slot = map.entry(name.as_str()).or_insert(Value::Null);
                merge_below(slot, rest, values);
            }
        }
        Step::Every | Step::Nth(_) => {
            if !slot.is_array() {
                *slot = Value::Array(Vec::new());
            }
            if let Value::Array(items) = slot {
                for (index, item) in items.iter_mut().enumerate() {
                    if matches!(step, Step::Every) || *step == Step::Nth(index) {
                        merge_below(item, rest, values);
                    }
                }
            }
        }
    }
}

/// Sets the fields of `values`; one that is null is removed.
pub(crate) fn merge(into: &mut Payload, values: &Payload) {
    for (name, value) in values {
        if value.is_null() {
            into.remove(name);
        } else {
            into.insert(name.clone(), value.clone());
        }
    }
}

fn remove_below(value: &mut Value, steps: &[Step]) {
    let Some((step, rest)) = steps.split_first() else {
        return;
    };
    match (step, value) {
        (Step::Name(name), Value::Object(map)) if rest.is_empty() => {
            map.remove(name);
        }
        (Step::Every, Value::Array(items)) if rest.is_empty() => items.clear(),
        (Step::Name(name), Value::Object(map)) => {
            if let Some(value) = map.get_mut(name) {
                remove_below(value, rest);
            }
        }
        (Step::Every, Value::Array(items)) => {
            items.iter_mut().for_each(|item| remove_below(item, rest));
        }
        (Step::Nth(nth), Value::Array(items)) => {
            if let Some(item) = items.get_mut(*nth) {
                remove_below(item, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Payload {
        value.as_object().unwrap().clone()
    }

    fn path(text: &str) -> FieldPath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_lead_where_they_say() {
        let payload = object(json!({
            "a": {"b": [1, {"c": 2}]}, "rows": [{"c": 3}, {"c": [4, 5]}], "x.y": 6, "": 7,
        }));
        for (text, expected) in [
            ("a.b", json!([[1, {"c": 2}]])),
            ("a.b[]", json!([1, {"c": 2}])),
            ("a.b[0]", json!([1])),
            ("a.b[].c", json!([2])),
            ("a.b.c", json!([])),
            ("rows[].c", json!([3, [4, 5]])),
            ("rows[1].c[1]", json!([5])),
            ("rows.c", json!([])),
            ("rows[2]", json!([])),
            ("\"x.y\"", json!([6])),
            ("\"\"", json!([7])),
            ("missing", json!([])),
        ] {
            let mut found = Vec::new();
            path(text).each(&payload, &mut |value| found.push(value.clone()));
            assert_eq!(Value::Array(found), expected, "{text}");
            assert_eq!(path(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a[",
            "a]",
            "a[x]",
            "a[-1]",
            "[0]",
            "a[0]b",
            "\"a",
            "a b",
            "a[99999999999999999999999]",
        ] {
            let told = text.parse::<FieldPath>().unwrap_err().to_string();
            assert!(told.contains(&format!("`{text}`")), "{told}");
        }
        assert!("a.".repeat(1000).parse::<FieldPath>().is_err());
        assert!(
            format!("a{}", "[]".repeat(1000))
                .parse::<FieldPath>()
                .is_err()
        );
    }

    #[test]
    fn fields_are_kept_and_left_out() {
        let payload = object(json!({"a": {"b": 1, "c": 2}, "l": [{"x": 1, "y": 2}, 3], "n": 4}));
        for (paths, kept, left) in [
            (vec![], json!({}), json!(payload)),
            (
                vec!["n"],
                json!({"n": 4}),
                json!({"a": {"b": 1, "c": 2}, "l": [{"x": 1, "y": 2}, 3]}),
            ),
            (
                vec!["a.b", "n.x"],
                json!({"a": {"b": 1}, "n": 4}),
                json!({"a": {"c": 2}, "l": [{"x": 1, "y": 2}, 3], "n": 4}),
            ),
            (
                vec!["a.b", "a"],
                json!({"a": {"b": 1, "c": 2}}),
                json!({"l": [{"x": 1, "y": 2}, 3], "n": 4}),
            ),
            (
                vec!["l[].x"],
                json!({"l": [{"x": 1}, 3]}),
                json!({"a": {"b": 1, "c": 2}, "l": [{"y": 2}, 3], "n": 4}),
            ),
            (
                vec!["l[]"],
                json!({"l": [{"x": 1, "y": 2}, 3]}),
                json!({"a": {"b": 1, "c": 2}, "l": [], "n": 4}),
            ),
            (vec!["l[0]"], json!({"l": []}), json!(payload)),
        ] {
            let paths: Vec<FieldPath> = paths.into_iter().map(path).collect();
            assert_eq!(json!(keep_fields(&payload, &paths)), kept, "{paths:?}");
            assert_eq!(json!(leave_fields(&payload, &paths)), left, "{paths:?}");
        }
    }

    #[test]
    fn values_are_merged_and_removed_in_their_places() {
        let before = json!({"a": {"b": 1}, "rows": [{"c": 1, "d": 2}, 5], "n": 3});
        let new = object(json!({"x": 9, "c": null}));
        for (text, expected) in [
            (
                "a",
                json!({"a": {"b": 1, "x": 9}, "rows": [{"c": 1, "d": 2}, 5], "n": 3}),
            ),
            (
                "n",
                json!({"a": {"b": 1}, "rows": [{"c": 1, "d": 2}, 5], "n": {"x": 9}}),
            ),
            (
                "n.m",
                json!({"a": {"b": 1}, "rows": [{"c": 1, "d": 2}, 5], "n": {"m": {"x": 9}}}),
            ),
            (
                "rows[]",
                json!({"a": {"b": 1}, "rows": [{"x": 9, "d": 2}, {"x": 9}], "n": 3}),
            ),
            (
                "rows[0]",
                json!({"a": {"b": 1}, "rows": [{"x": 9, "d": 2}, 5], "n": 3}),
            ),
            (
                "rows[7]",
                json!({"a": {"b": 1}, "rows": [{"c": 1, "d": 2}, 5], "n": 3}),
            ),
            (
                "a.b[0]",
                json!({"a": {"b": []}, "rows": [{"c": 1, "d": 2}, 5], "n": 3}),
            ),
        ] {
            let mut payload = object(before.clone());
            path(text).merge(&mut payload, &new);
            assert_eq!(Value::Object(payload), expected, "{text}");
        }
        for (text, expected) in [
            ("a", json!({"rows": [{"c": 1, "d": 2}, 5], "n": 3})),
            (
                "a.b",
                json!({"a": {}, "rows": [{"c": 1, "d": 2}, 5], "n": 3}),
            ),
            (
                "rows[].c",
                json!({"a": {"b": 1}, "rows": [{"d": 2}, 5], "n": 3}),
            ),
            ("rows[]", json!({"a": {"b": 1}, "rows": [], "n": 3})),
            ("rows[0]", before.clone()),
            (
                "rows[0].d",
                json!({"a": {"b": 1}, "rows": [{"c": 1}, 5], "n": 3}),
            ),
            ("missing.b", before.clone()),
        ] {
            let mut payload = object(before.clone());
            path(text).remove(&mut payload);
            assert_eq!(Value::Object(payload), expected, "{text}");
        }
    }
}
