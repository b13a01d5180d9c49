//! Tests on the values that a path leads to.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::time::Instant;
use super::{Bounds, FilterError, matches, parse};

/// What is asked of the values at a [`crate::FieldPath`]. It holds for a row when it holds for one
/// of them; for all but [`Test::Null`], [`Test::Filled`] and [`Test::Length`] an array stands for
/// its elements.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Test {
    /// It is one of these: strings, numbers, booleans. An integer is never equal to a number
    /// written with a fraction.
    Among(Vec<Value>),
    /// It is none of these, and not null.
    NotAmong(Vec<Value>),
    /// It is a number within these bounds.
    Within(Bounds),
    /// It is a time within these bounds, which are times too: RFC 3339, or a part of it that
    /// leaves out the offset (then UTC), the seconds, or all but the date.
    During(Bounds),
    /// It is a string that has these words, cut and compared as [`Words`] says.
    Words(Words, String),
    /// It is a string that begins so.
    Prefix(String),
    /// It is a string with this in it.
    Contains(String),
    /// It is null, or an array with a null in it.
    Null,
    /// It is neither null nor an empty array.
    Filled,
    /// It has as many elements as the bounds allow: an array its own, null none, others one. No
    /// value at all counts as one of none.
    Length(Bounds),
}

/// Which of some words a text must have. Words are runs of letters and digits, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// All, anywhere.
    All,
    /// One of them.
    Any,
    /// All, one after another.
    Phrase,
}

impl Test {
    /// Whether it holds for the values a path led to.
    pub(super) fn holds(&self, found: &[&Value]) -> bool {
        match self {
            Self::Null => found.iter().any(|value| match value {
                Value::Null => true,
                Value::Array(items) => items.iter().any(Value::is_null),
                _ => false,
            }),
            Self::Filled => found.iter().any(|value| match value {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                _ => true,
            }),
            Self::Length(bounds) if found.is_empty() => matches::within(&json!(0), bounds),
            Self::Length(bounds) => found.iter().any(|value| {
                let length = match value {
                    Value::Null => 0,
                    Value::Array(items) => items.len(),
                    _ => 1,
                };
                matches::within(&json!(length), bounds)
            }),
            _ => found.iter().any(|value| match value {
                Value::Array(items) => items.iter().any(|item| self.holds_for(item)),
                value => self.holds_for(value),
            }),
        }
    }

    fn holds_for(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Among(wanted), value) => is_among(value, wanted),
            (Self::NotAmong(barred), value) => !value.is_null() && !is_among(value, barred),
            (Self::Within(bounds), Value::Number(_)) => matches::within(value, bounds),
            (Self::During(bounds), Value::String(text)) => {
                Instant::parse(text).is_some_and(|time| is_during(time, bounds))
            }
            (Self::Words(which, wanted), Value::String(text)) => has_words(*which, wanted, text),
            (Self::Prefix(prefix), Value::String(text)) => text.starts_with(prefix.as_str()),
            (Self::Contains(part), Value::String(text)) => text.contains(part.as_str()),
            _ => false,
        }
    }

    /// The name of its JSON form and what follows it.
    pub(super) fn to_json(&self) -> (&'static str, Value) {
        match self {
            Self::Among(values) => ("among", json!(values)),
            Self::NotAmong(values) => ("not_among", json!(values)),
            Self::Within(bounds) => ("within", parse::bounds_to_json(bounds)),
            Self::During(bounds) => ("during", parse::bounds_to_json(bounds)),
            Self::Words(Words::All, text) => ("words", json!(text)),
            Self::Words(Words::Any, text) => ("any_word", json!(text)),
            Self::Words(Words::Phrase, text) => ("phrase", json!(text)),
            Self::Prefix(text) => ("prefix", json!(text)),
            Self::Contains(text) => ("contains", json!(text)),
            Self::Null => ("null", json!(true)),
            Self::Filled => ("filled", json!(true)),
            Self::Length(bounds) => ("length", parse::bounds_to_json(bounds)),
        }
    }

    /// Reads the one test that stands beside `path`.
    pub(super) fn from_json(map: &Map<String, Value>) -> Result<Self, FilterError> {
        let wanted = "a `path` and one test";
        let mut tests = map.iter().filter(|(name, _)| *name != "path");
        let (Some((name, value)), None) = (tests.next(), tests.next()) else {
            return Err(parse::shape("field", wanted, &json!(map)));
        };
        let values = || match value {
            Value::Array(values) => Ok(values.clone()),
            other => Err(parse::shape("field", "an array of values", other)),
        };
        let text = || match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(parse::shape("field", "a string", other)),
        };
        let just = |test| match value {
            Value::Bool(true) => Ok(test),
            other => Err(parse::shape("field", "`true`", other)),
        };
        match name.as_str() {
            "among" => Ok(Self::Among(values()?)),
            "not_among" => Ok(Self::NotAmong(values()?)),
            "within" => Ok(Self::Within(parse::parse_bounds(value)?)),
            "during" => Ok(Self::During(parse::parse_bounds(value)?)),
            "words" => Ok(Self::Words(Words::All, text()?)),
            "any_word" => Ok(Self::Words(Words::Any, text()?)),
            "phrase" => Ok(Self::Words(Words::Phrase, text()?)),
            "prefix" => Ok(Self::Prefix(text()?)),
            "contains" => Ok(Self::Contains(text()?)),
            "null" => just(Self::Null),
            "filled" => just(Self::Filled),
            "length" => Ok(Self::Length(parse::parse_bounds(value)?)),
            other => Err(FilterError::Unknown(crate::id::clip(other))),
        }
    }

    /// Whether it makes sense; how many values it names.
    pub(super) fn check(&self) -> Result<usize, FilterError> {
        match self {
            Self::Among(values) | Self::NotAmong(values) => {
                values
                    .iter()
                    .try_for_each(|value| parse::check_scalar("field", value))?;
                Ok(values.len())
            }
            Self::Within(bounds) | Self::Length(bounds) => {
                check_each(bounds, "bounds that are numbers", Value::is_number)
            }
            Self::During(bounds) => check_each(bounds, "bounds that are times", |bound| {
                bound.as_str().and_then(Instant::parse).is_some()
            }),
            _ => Ok(0),
        }
    }
}

fn check_each(
    bounds: &Bounds,
    wanted: &'static str,
    fits: impl Fn(&Value) -> bool,
) -> Result<usize, FilterError> {
    parse::check_bounds(bounds)?;
    match bounds.given().find(|bound| !fits(bound)) {
        Some(bound) => Err(parse::shape("field", wanted, bound)),
        None => Ok(0),
    }
}

fn is_among(value: &Value, wanted: &[Value]) -> bool {
    let same = |wanted: &Value| match (value, wanted) {
        (Value::Number(a), Value::Number(b)) => {
            a.is_f64() == b.is_f64() && matches::equal(value, wanted)
        }
        _ => value == wanted,
    };
    wanted.iter().any(same)
}

fn is_during(time: Instant, bounds: &Bounds) -> bool {
    let holds = |bound: &Option<Value>, test: fn(Ordering) -> bool| match bound {
        Some(bound) => bound
            .as_str()
            .and_then(Instant::parse)
            .is_some_and(|bound| test(time.cmp(&bound))),
        None => true,
    };
    holds(&bounds.gt, Ordering::is_gt)
        && holds(&bounds.gte, Ordering::is_ge)
        && holds(&bounds.lt, Ordering::is_lt)
        && holds(&bounds.lte, Ordering::is_le)
}

fn has_words(which: Words, wanted: &str, text: &str) -> bool {
    let wanted = words(wanted);
    let found = words(text);
    match which {
        Words::Any => wanted.iter().any(|word| found.contains(word)),
        _ if wanted.is_empty() => false,
        Words::All => wanted.iter().all(|word| found.contains(word)),
        Words::Phrase => found.windows(wanted.len()).any(|run| run == wanted),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}
