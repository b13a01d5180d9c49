//! Whether a payload meets a condition on one of its fields.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{Bounds, Filter};
use crate::id::Id;
use crate::model::Payload;

/// Elements of arrays have no id, and no condition on ids is asked of them.
const NOBODY: Id = Id::Num(0);

/// Whether `payload` meets the condition; conditions that are not on a field never hold here.
pub(super) fn leaf(filter: &Filter, payload: &Payload) -> bool {
    match filter {
        Filter::Eq { field, value } => any(payload, field, &|found| equal(found, value)),
        Filter::In { field, values } => any(payload, field, &|found| {
            values.iter().any(|value| equal(found, value))
        }),
        Filter::Range { field, bounds } => any(payload, field, &|found| within(found, bounds)),
        Filter::Exists { field } => any(payload, field, &|found| !found.is_null()),
        Filter::At { path, test } => {
            let mut found = Vec::new();
            path.each(payload, &mut |value| found.push(value));
            test.holds(&found)
        }
        Filter::Nested { path, filter } => {
            let mut holds = false;
            path.without_every().each(payload, &mut |value| {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                holds |= items.iter().any(|item| {
                    item.as_object()
                        .is_some_and(|item| filter.matches(&NOBODY, Some(item)))
                });
            });
            holds
        }
        Filter::And(_)
        | Filter::Or(_)
        | Filter::Not(_)
        | Filter::AtLeast { .. }
        | Filter::HasId(_) => false,
    }
}

/// Whether any value that the dotted path leads to passes the test.
fn any(payload: &Payload, field: &str, test: &dyn Fn(&Value) -> bool) -> bool {
    let (name, rest) = match field.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (field, None),
    };
    payload
        .get(name)
        .is_some_and(|value| any_in(value, rest, test))
}

fn any_in(value: &Value, rest: Option<&str>, test: &dyn Fn(&Value) -> bool) -> bool {
    match (value, rest) {
        (Value::Array(values), _) => values.iter().any(|value| any_in(value, rest, test)),
        (Value::Object(map), Some(rest)) => any(map, rest, test),
        (_, Some(_)) => false,
        (value, None) => test(value),
    }
}

pub(super) fn equal(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b) == Some(Ordering::Equal),
        _ => found == wanted,
    }
}

pub(super) fn within(found: &Value, bounds: &Bounds) -> bool {
    let holds = |bound: &Option<Value>, test: fn(Ordering) -> bool| match bound {
        Some(bound) => compare(found, bound).is_some_and(test),
        None => true,
    };
    holds(&bounds.gt, Ordering::is_gt)
        && holds(&bounds.gte, Ordering::is_ge)
        && holds(&bounds.lt, Ordering::is_lt)
        && holds(&bounds.lte, Ordering::is_le)
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        _ => None,
    }
}

/// Compares by value: integers exactly, anything with a fraction as `f64`.
fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Conditions, and whether the row below meets them.
    const CASES: &[(&str, bool)] = &[
        (r#"{"eq": {"book": "Job"}}"#, true),
        (r#"{"eq": {"book": "job"}}"#, false),
        (r#"{"eq": {"chapter": 3.0}}"#, true),
        (r#"{"eq": {"chapter": "3"}}"#, false),
        (r#"{"eq": {"tags": "land"}}"#, true),
        (r#"{"eq": {"none": null}}"#, true),
        (r#"{"eq": {"missing": null}}"#, false),
        (r#"{"eq": {"author.name": "x"}}"#, true),
        (r#"{"eq": {"author.name.y": "x"}}"#, false),
        (r#"{"eq": {"verses.n": 2}}"#, true),
        (r#"{"eq": {"big": 9007199254740992}}"#, false),
        (r#"{"in": {"chapter": [1, 3]}}"#, true),
        (r#"{"in": {"chapter": []}}"#, false),
        (r#"{"range": {"chapter": {"gte": 3, "lt": 4}}}"#, true),
        (r#"{"range": {"chapter": {"gt": 3}}}"#, false),
        (r#"{"range": {"author.born": {"lte": 1.5}}}"#, true),
        (r#"{"range": {"book": {"gte": "Jo", "lt": "Jp"}}}"#, true),
        (r#"{"range": {"book": {"gte": 1}}}"#, false),
        (r#"{"exists": "chapter"}"#, true),
        (r#"{"exists": "none"}"#, false),
        (r#"{"exists": "empty"}"#, false),
        (r#"{"exists": "author"}"#, true),
        (r#"{"field": {"path": "chapter", "among": [1, 3]}}"#, true),
        (r#"{"field": {"path": "chapter", "among": [3.0]}}"#, false),
        (r#"{"field": {"path": "tags", "among": ["land"]}}"#, true),
        (
            r#"{"field": {"path": "tags[0]", "among": ["land"]}}"#,
            false,
        ),
        (
            r#"{"field": {"path": "tags", "not_among": ["land"]}}"#,
            true,
        ),
        (
            r#"{"field": {"path": "tags", "not_among": ["land", "law"]}}"#,
            false,
        ),
        (
            r#"{"field": {"path": "none", "not_among": ["land"]}}"#,
            false,
        ),
        (
            r#"{"field": {"path": "missing", "not_among": ["land"]}}"#,
            false,
        ),
        (r#"{"field": {"path": "verses.n", "among": [1]}}"#, false),
        (r#"{"field": {"path": "verses[].n", "among": [2]}}"#, true),
        (
            r#"{"field": {"path": "verses[].n", "within": {"gt": 1}}}"#,
            true,
        ),
        (
            r#"{"field": {"path": "verses[].n", "within": {"gt": 2}}}"#,
            false,
        ),
        (r#"{"field": {"path": "book", "within": {"gt": 2}}}"#, false),
        (r#"{"field": {"path": "none", "null": true}}"#, true),
        (r#"{"field": {"path": "missing", "null": true}}"#, false),
        (r#"{"field": {"path": "nulls", "null": true}}"#, true),
        (r#"{"field": {"path": "empty", "filled": true}}"#, false),
        (r#"{"field": {"path": "nulls", "filled": true}}"#, true),
        (r#"{"field": {"path": "missing", "filled": true}}"#, false),
        (r#"{"field": {"path": "chapter", "filled": true}}"#, true),
        (r#"{"field": {"path": "tags", "length": {"gte": 2}}}"#, true),
        (r#"{"field": {"path": "book", "length": {"lt": 1}}}"#, false),
        (
            r#"{"field": {"path": "missing", "length": {"lt": 1}}}"#,
            true,
        ),
        (
            r#"{"field": {"path": "line", "words": "earth VOID"}}"#,
            true,
        ),
        (
            r#"{"field": {"path": "line", "words": "earth sky"}}"#,
            false,
        ),
        (r#"{"field": {"path": "line", "words": "ear"}}"#, false),
        (r#"{"field": {"path": "line", "words": " "}}"#, false),
        (
            r#"{"field": {"path": "line", "any_word": "sky void"}}"#,
            true,
        ),
        (r#"{"field": {"path": "line", "any_word": ""}}"#, false),
        (
            r#"{"field": {"path": "line", "phrase": "without form"}}"#,
            true,
        ),
        (
            r#"{"field": {"path": "line", "phrase": "form without"}}"#,
            false,
        ),
        (r#"{"field": {"path": "line", "prefix": "The ear"}}"#, true),
        (r#"{"field": {"path": "line", "prefix": "the ear"}}"#, false),
        (
            r#"{"field": {"path": "line", "contains": "out form"}}"#,
            true,
        ),
        (
            r#"{"field": {"path": "day", "during": {"gte": "2024-02-29"}}}"#,
            true,
        ),
        (
            r#"{"field": {"path": "day", "during": {"lt": "2024-03-01T00:00:00+02:00"}}}"#,
            false,
        ),
        (
            r#"{"field": {"path": "book", "during": {"gte": "2024-02-29"}}}"#,
            false,
        ),
        (
            r#"{"nested": {"path": "pairs", "filter": {"and": [
                {"eq": {"a": 1}}, {"eq": {"b": 2}}]}}}"#,
            false,
        ),
        (
            r#"{"nested": {"path": "pairs[]", "filter": {"and": [
                {"eq": {"a": 1}}, {"eq": {"b": 1}}]}}}"#,
            true,
        ),
        (
            r#"{"nested": {"path": "pairs", "filter": {"not": {"exists": "b"}}}}"#,
            true,
        ),
        (
            r#"{"nested": {"path": "author", "filter": {"exists": "name"}}}"#,
            false,
        ),
    ];

    #[test]
    fn conditions_hold_as_documented() {
        let payload = json!({
            "book": "Job", "chapter": 3, "tags": ["law", "land"], "none": null, "empty": [],
            "author": {"name": "x", "born": 1.5}, "verses": [{"n": 1}, {"n": 2}],
            "nulls": [null], "line": "The earth was without form, and void", "day": "2024-03-01 00:00",
            "pairs": [{"a": 1, "b": 1}, {"a": 2, "b": 2}, {"a": 3}, 4],
            "big": 9_007_199_254_740_993_u64,
        });
        let payload = payload.as_object().unwrap();
        for (filter, expected) in CASES {
            let parsed: Filter = serde_json::from_str(filter).unwrap();
            assert_eq!(leaf(&parsed, payload), *expected, "{filter}");
        }
    }

    #[test]
    fn bad_filters_name_the_value() {
        for (filter, words) in [
            ("3", "not `3`"),
            ("{}", "not `{}`"),
            (r#"{"equals": {"a": 1}}"#, "`equals`"),
            (r#"{"eq": 7}"#, "`7`"),
            (r#"{"eq": {"a": [1]}}"#, "`[1]`"),
            (r#"{"eq": {"a": 1, "b": 2}}"#, "one field"),
            (r#"{"in": {"a": 1}}"#, "`1`"),
            (r#"{"range": {"a": {"above": 1}}}"#, "`\"above\"`"),
            (r#"{"range": {"a": {}}}"#, "at least one"),
            (r#"{"range": {"a": {"gt": true}}}"#, "`true`"),
            (r#"{"exists": 1}"#, "`1`"),
            (r#"{"eq": {"a..b": 1}}"#, "`a..b`"),
            (r#"{"ids": [-1]}"#, "`-1`"),
            (r#"{"ids": [""]}"#, "empty"),
            (r#"{"and": {"eq": {"a": 1}}}"#, "array of filters"),
            (r#"{"field": {"path": "a"}}"#, "one test"),
            (
                r#"{"field": {"path": "a", "null": true, "filled": true}}"#,
                "one test",
            ),
            (r#"{"field": {"null": true}}"#, "`path`"),
            (r#"{"field": {"path": "a[", "null": true}}"#, "`a[`"),
            (r#"{"field": {"path": "a", "like": 1}}"#, "`like`"),
            (r#"{"field": {"path": "a", "null": false}}"#, "`false`"),
            (r#"{"field": {"path": "a", "among": [{}]}}"#, "`{}`"),
            (
                r#"{"field": {"path": "a", "within": {"gt": "1"}}}"#,
                "`\"1\"`",
            ),
            (
                r#"{"field": {"path": "a", "during": {"gt": "now"}}}"#,
                "`\"now\"`",
            ),
            (r#"{"field": {"path": "a", "length": {}}}"#, "at least one"),
            (
                r#"{"nested": {"path": "a", "filter": {"ids": [1]}}}"#,
                "ids",
            ),
            (r#"{"nested": {"path": "a"}}"#, "`filter`"),
            (r#"{"at_least": {"count": -1, "of": []}}"#, "`-1`"),
            (r#"{"at_least": {"of": []}}"#, "`count`"),
        ] {
            let error = serde_json::from_str::<Filter>(filter)
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{filter}: {error}");
        }
        let deep = "{\"not\":".repeat(40) + r#"{"exists":"a"}"# + &"}".repeat(40);
        let error = serde_json::from_str::<Filter>(&deep)
            .unwrap_err()
            .to_string();
        assert!(error.contains("levels"), "{error}");
    }
}
