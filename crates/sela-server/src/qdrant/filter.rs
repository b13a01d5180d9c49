//! Qdrant's filters, read into the store's.

use sela::{Bounds, FieldPath, Filter, Id, Test, Words};
use serde_json::{Map, Value, json};

use super::unsupported;
use crate::error::ApiError;

/// Reads a filter; none where there is none or null.
pub(super) fn optional(json: Option<&Value>) -> Result<Option<Filter>, ApiError> {
    match json {
        None | Some(Value::Null) => Ok(None),
        Some(json) => parse(json).map(Some),
    }
}

/// Reads a filter.
pub(super) fn parse(json: &Value) -> Result<Filter, ApiError> {
    let filter = whole(json).map_err(|error| error.field("filter"))?;
    filter.check().map_err(|error| refused(error.to_string()))?;
    Ok(filter)
}

fn refused(detail: impl Into<String>) -> ApiError {
    ApiError::malformed("filter_refused", detail).field("filter")
}

/// `what` of the filter is not what it must be.
fn wanted(what: &str, wanted: &str, found: &Value) -> ApiError {
    let found: String = found.to_string().chars().take(100).collect();
    refused(format!("`{what}` wants {wanted}, not `{found}`"))
}

/// The fields of an object that are not null.
fn given(fields: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let fields = fields.iter().map(|(name, value)| (name.as_str(), value));
    fields.filter(|(_, value)| !value.is_null())
}

fn whole(json: &Value) -> Result<Filter, ApiError> {
    let clauses = json.as_object();
    let clauses = clauses.ok_or_else(|| wanted("filter", "an object of clauses", json))?;
    let mut all = Vec::new();
    for (name, value) in given(clauses) {
        match name {
            "must" => all.extend(conditions(name, value)?),
            "must_not" => {
                let barred = conditions(name, value)?.into_iter();
                all.extend(barred.map(|condition| Filter::Not(Box::new(condition))));
            }
            // Without conditions these two ask for nothing.
            "should" => {
                let any = conditions(name, value)?;
                if !any.is_empty() {
                    all.push(Filter::Or(any));
                }
            }
            "min_should" => all.extend(min_should(value)?),
            _ => {
                let name: String = name.chars().take(100).collect();
                return Err(refused(format!(
                    "`{name}` is no clause of a filter: there are must, should, must_not and \
                     min_should"
                )));
            }
        }
    }
    Ok(match all.len() {
        1 => all.swap_remove(0),
        _ => Filter::And(all),
    })
}

/// A list of conditions, or one.
fn conditions(name: &str, json: &Value) -> Result<Vec<Filter>, ApiError> {
    match json {
        Value::Array(items) => items.iter().map(condition).collect(),
        Value::Object(_) => Ok(vec![condition(json)?]),
        other => Err(wanted(name, "a list of conditions", other)),
    }
}

fn min_should(json: &Value) -> Result<Option<Filter>, ApiError> {
    let what = "conditions and a min_count";
    let fields = json.as_object().filter(|fields| fields.len() == 2);
    let (Some(list), Some(count)) = (
        fields.and_then(|fields| fields.get("conditions")),
        fields.and_then(|fields| fields.get("min_count")),
    ) else {
        return Err(wanted("min_should", what, json));
    };
    let of = conditions("conditions", list)?;
    let met = count.as_u64().and_then(|count| usize::try_from(count).ok());
    let count = met.ok_or_else(|| wanted("min_count", "a whole number from 0", count))?;
    Ok((!of.is_empty()).then_some(Filter::AtLeast { count, of }))
}

fn condition(json: &Value) -> Result<Filter, ApiError> {
    let fields = json.as_object();
    let fields = fields.ok_or_else(|| wanted("condition", "an object", json))?;
    if let Some(key) = fields.get("key") {
        return on_field(key, fields);
    }
    let mut named = given(fields).filter(|(name, _)| !CLAUSES.contains(name));
    let Some((name, value)) = named.next() else {
        return whole(json);
    };
    if given(fields).count() > 1 {
        return Err(wanted("condition", "one condition an object", json));
    }
    match name {
        "is_empty" => Ok(not(at(path_in(name, value)?, Test::Filled))),
        "is_null" => Ok(at(path_in(name, value)?, Test::Null)),
        "has_id" => {
            let ids = value.as_array();
            let ids = ids.ok_or_else(|| wanted(name, "a list of ids", value))?;
            let read =
                |id| Id::from_json(id).map_err(|error| refused(format!("`{name}`: {error}")));
            Ok(Filter::HasId(
                ids.iter().map(read).collect::<Result<_, _>>()?,
            ))
        }
        // Every point has the one vector there is.
        "has_vector" if value == "" => Ok(Filter::And(Vec::new())),
        "has_vector" => Err(unsupported("named vectors: `has_vector` in a filter")),
        "nested" => nested(value),
        "slice" => Err(unsupported("`slice` in a filter")),
        _ => {
            let name: String = name.chars().take(100).collect();
            Err(refused(format!("`{name}` is no condition of a filter")))
        }
    }
}

/// What makes a condition a filter of its own.
const CLAUSES: [&str; 4] = ["must", "should", "must_not", "min_should"];

fn nested(json: &Value) -> Result<Filter, ApiError> {
    let fields = json.as_object().filter(|fields| fields.len() == 2);
    let (Some(key), Some(filter)) = (
        fields.and_then(|fields| fields.get("key")),
        fields.and_then(|fields| fields.get("filter")),
    ) else {
        return Err(wanted("nested", "a key and a filter", json));
    };
    Ok(Filter::Nested {
        path: path(key)?,
        filter: Box::new(whole(filter)?),
    })
}

fn on_field(key: &Value, fields: &Map<String, Value>) -> Result<Filter, ApiError> {
    let path = path(key)?;
    let mut tests = given(fields).filter(|(name, _)| *name != "key");
    let (Some((name, value)), None) = (tests.next(), tests.next()) else {
        let found = json!(fields);
        return Err(wanted("condition", "one test of the field", &found));
    };
    match name {
        "match" => Ok(at(path, matching(value)?)),
        "range" => Ok(at(path, range(value)?)),
        "values_count" => Ok(at(path, Test::Length(bounds(name, value)?))),
        "is_empty" | "is_null" => {
            let flag = value.as_bool();
            let flag = flag.ok_or_else(|| wanted(name, "true or false", value))?;
            let filter = match name {
                "is_empty" => not(at(path, Test::Filled)),
                _ => at(path, Test::Null),
            };
            Ok(if flag { filter } else { not(filter) })
        }
        "geo_bounding_box" | "geo_radius" | "geo_polygon" => {
            Err(unsupported(&format!("places: `{name}` in a filter")))
        }
        _ => {
            let name: String = name.chars().take(100).collect();
            Err(refused(format!("`{name}` is no test of a field")))
        }
    }
}

fn matching(json: &Value) -> Result<Test, ApiError> {
    let fields = json.as_object();
    let fields = fields.ok_or_else(|| wanted("match", "an object", json))?;
    let mut tests = given(fields);
    let (Some((name, value)), None) = (tests.next(), tests.next()) else {
        return Err(wanted("match", "one way to match", json));
    };
    let text = || match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(wanted(name, "a string", other)),
    };
    Ok(match name {
        "value" => Test::Among(vec![exact(name, value)?]),
        "any" => Test::Among(exact_all(name, value)?),
        "except" => Test::NotAmong(exact_all(name, value)?),
        "text" => Test::Words(Words::All, text()?),
        "text_any" => Test::Words(Words::Any, text()?),
        "phrase" => Test::Words(Words::Phrase, text()?),
        "prefix" => Test::Prefix(text()?),
        "substring" => Test::Contains(text()?),
        _ => {
            let name: String = name.chars().take(100).collect();
            return Err(unsupported(&format!("`{name}` in `match` of a filter")));
        }
    })
}

/// A value that can be matched: numbers with a fraction are for ranges.
fn exact(name: &str, value: &Value) -> Result<Value, ApiError> {
    match value {
        Value::String(_) | Value::Bool(_) => Ok(value.clone()),
        Value::Number(number) if !number.is_f64() => Ok(value.clone()),
        other => Err(wanted(name, "strings, whole numbers, true or false", other)),
    }
}

fn exact_all(name: &str, json: &Value) -> Result<Vec<Value>, ApiError> {
    let values = json.as_array();
    let values = values.ok_or_else(|| wanted(name, "a list of values", json))?;
    values.iter().map(|value| exact(name, value)).collect()
}

fn range(json: &Value) -> Result<Test, ApiError> {
    let bounds = bounds("range", json)?;
    let given = [&bounds.gt, &bounds.gte, &bounds.lt, &bounds.lte];
    let times = given.into_iter().flatten().any(Value::is_string);
    Ok(match times {
        true => Test::During(bounds),
        false => Test::Within(bounds),
    })
}

fn bounds(what: &str, json: &Value) -> Result<Bounds, ApiError> {
    let names = "bounds named gt, gte, lt or lte";
    let fields = json.as_object();
    let fields = fields.ok_or_else(|| wanted(what, names, json))?;
    let mut bounds = Bounds::default();
    for (name, value) in given(fields) {
        let bound = match name {
            "gt" => &mut bounds.gt,
            "gte" => &mut bounds.gte,
            "lt" => &mut bounds.lt,
            "lte" => &mut bounds.lte,
            _ => return Err(wanted(what, names, json)),
        };
        *bound = Some(value.clone());
    }
    Ok(bounds)
}

fn path_in(name: &str, json: &Value) -> Result<FieldPath, ApiError> {
    let fields = json.as_object().filter(|fields| fields.len() == 1);
    match fields.and_then(|fields| fields.get("key")) {
        Some(key) => path(key),
        None => Err(wanted(name, "an object of a key", json)),
    }
}

fn path(key: &Value) -> Result<FieldPath, ApiError> {
    let text = key.as_str();
    let text = text.ok_or_else(|| wanted("key", "the path of a field", key))?;
    text.parse::<FieldPath>()
        .map_err(|error| refused(error.to_string()))
}

fn at(path: FieldPath, test: Test) -> Filter {
    Filter::At { path, test }
}

fn not(filter: Filter) -> Filter {
    Filter::Not(Box::new(filter))
}
