//! Between filters and JSON, and what a filter may be.

use serde_json::{Map, Value, json};

use super::{Bounds, Filter, FilterError, Test};
use crate::field::FieldPath;
use crate::id::{Id, clip};
use crate::limits::{FILTER_DEPTH_MAX, FILTER_NODES_MAX, FILTER_VALUES_MAX};

pub(super) fn parse(json: &Value) -> Result<Filter, FilterError> {
    let filter = parse_at(json, 0)?;
    check(&filter)?;
    Ok(filter)
}

fn parse_at(json: &Value, depth: usize) -> Result<Filter, FilterError> {
    if depth > FILTER_DEPTH_MAX {
        return Err(too_deep(depth));
    }
    let (name, value) = single(json).ok_or_else(|| FilterError::NotACondition(short(json)))?;
    match name.as_str() {
        "eq" => {
            let (field, value) =
                single(value).ok_or_else(|| shape("eq", "an object of one field", value))?;
            Ok(Filter::Eq {
                field: field.clone(),
                value: value.clone(),
            })
        }
        "in" => {
            let wanted = "an object of one field and an array of values";
            let (field, values) = single(value).ok_or_else(|| shape("in", wanted, value))?;
            let values = values
                .as_array()
                .ok_or_else(|| shape("in", wanted, values))?;
            Ok(Filter::In {
                field: field.clone(),
                values: values.clone(),
            })
        }
        "range" => {
            let (field, bounds) = single(value)
                .ok_or_else(|| shape("range", "an object of one field and its bounds", value))?;
            Ok(Filter::Range {
                field: field.clone(),
                bounds: parse_bounds(bounds)?,
            })
        }
        "exists" => match value {
            Value::String(field) => Ok(Filter::Exists {
                field: field.clone(),
            }),
            other => Err(shape("exists", "a field's name", other)),
        },
        "ids" => {
            let ids = value
                .as_array()
                .ok_or_else(|| shape("ids", "an array of ids", value))?;
            Ok(Filter::HasId(
                ids.iter().map(Id::from_json).collect::<Result<_, _>>()?,
            ))
        }
        "and" => Ok(Filter::And(parse_all("and", value, depth)?)),
        "or" => Ok(Filter::Or(parse_all("or", value, depth)?)),
        "not" => Ok(Filter::Not(Box::new(parse_at(value, depth + 1)?))),
        "at_least" => parse_at_least(value, depth),
        "field" => {
            let wanted = "an object of a `path` and one test";
            let map = value
                .as_object()
                .ok_or_else(|| shape("field", wanted, value))?;
            Ok(Filter::At {
                path: parse_path("field", map, value)?,
                test: Test::from_json(map)?,
            })
        }
        "nested" => {
            let wanted = "an object of a `path` and a `filter`";
            let map = value.as_object().filter(|map| map.len() == 2);
            let map = map.ok_or_else(|| shape("nested", wanted, value))?;
            let filter = map
                .get("filter")
                .ok_or_else(|| shape("nested", wanted, value))?;
            Ok(Filter::Nested {
                path: parse_path("nested", map, value)?,
                filter: Box::new(parse_at(filter, depth + 1)?),
            })
        }
        other => Err(FilterError::Unknown(clip(other))),
    }
}

fn parse_at_least(json: &Value, depth: usize) -> Result<Filter, FilterError> {
    let wanted = "an object of a `count` and `of`, an array of filters";
    let map = json.as_object().filter(|map| map.len() == 2);
    let (Some(count), Some(of)) = (
        map.and_then(|map| map.get("count")),
        map.and_then(|map| map.get("of")),
    ) else {
        return Err(shape("at_least", wanted, json));
    };
    let found = count.as_u64().and_then(|count| usize::try_from(count).ok());
    Ok(Filter::AtLeast {
        count: found.ok_or_else(|| shape("at_least", "a `count` from 0", count))?,
        of: parse_all("at_least", of, depth)?,
    })
}

fn parse_path(
    condition: &'static str,
    map: &Map<String, Value>,
    json: &Value,
) -> Result<FieldPath, FilterError> {
    let path = map.get("path").and_then(Value::as_str);
    let path = path.ok_or_else(|| shape(condition, "a `path`, a string", json))?;
    path.parse().map_err(|_| FilterError::Field(clip(path)))
}

fn parse_all(
    condition: &'static str,
    value: &Value,
    depth: usize,
) -> Result<Vec<Filter>, FilterError> {
    let filters = value
        .as_array()
        .ok_or_else(|| shape(condition, "an array of filters", value))?;
    filters
        .iter()
        .map(|filter| parse_at(filter, depth + 1))
        .collect()
}

pub(super) fn parse_bounds(json: &Value) -> Result<Bounds, FilterError> {
    let wanted = "bounds named gt, gte, lt or lte";
    let map = json
        .as_object()
        .ok_or_else(|| shape("range", wanted, json))?;
    let mut bounds = Bounds::default();
    for (name, value) in map {
        let bound = match name.as_str() {
            "gt" => &mut bounds.gt,
            "gte" => &mut bounds.gte,
            "lt" => &mut bounds.lt,
            "lte" => &mut bounds.lte,
            _ => return Err(shape("range", wanted, &Value::String(name.clone()))),
        };
        *bound = Some(value.clone());
    }
    Ok(bounds)
}

/// The only entry of an object.
fn single(json: &Value) -> Option<(&String, &Value)> {
    let map = json.as_object()?;
    if map.len() == 1 {
        map.iter().next()
    } else {
        None
    }
}

pub(super) fn shape(condition: &'static str, wanted: &'static str, found: &Value) -> FilterError {
    FilterError::Shape {
        condition,
        wanted,
        found: short(found),
    }
}

fn short(json: &Value) -> String {
    clip(&json.to_string())
}

fn too_deep(found: usize) -> FilterError {
    FilterError::TooLarge {
        what: "levels",
        found,
        max: FILTER_DEPTH_MAX,
    }
}

/// Nodes and values of a filter, counted as it is walked.
#[derive(Default)]
struct Size {
    nodes: usize,
    values: usize,
}

pub(super) fn check(filter: &Filter) -> Result<(), FilterError> {
    let mut size = Size::default();
    check_at(filter, 0, &mut size)?;
    for (what, found, max) in [
        ("conditions", size.nodes, FILTER_NODES_MAX),
        ("values", size.values, FILTER_VALUES_MAX),
    ] {
        if found > max {
            return Err(FilterError::TooLarge { what, found, max });
        }
    }
    Ok(())
}

fn check_at(filter: &Filter, depth: usize, size: &mut Size) -> Result<(), FilterError> {
    if depth > FILTER_DEPTH_MAX {
        return Err(too_deep(depth));
    }
    size.nodes += 1;
    match filter {
        Filter::Eq { field, value } => {
            check_field(field)?;
            check_scalar("eq", value)
        }
        Filter::In { field, values } => {
            size.values += values.len();
            check_field(field)?;
            values
                .iter()
                .try_for_each(|value| check_scalar("in", value))
        }
        Filter::Range { field, bounds } => {
            check_field(field)?;
            check_bounds(bounds)
        }
        Filter::Exists { field } => check_field(field),
        Filter::HasId(ids) => {
            size.values += ids.len();
            ids.iter()
                .try_for_each(|id| id.check().map_err(FilterError::Id))
        }
        Filter::And(filters) | Filter::Or(filters) => filters
            .iter()
            .try_for_each(|filter| check_at(filter, depth + 1, size)),
        Filter::Not(filter) => check_at(filter, depth + 1, size),
        Filter::AtLeast { of, .. } => of
            .iter()
            .try_for_each(|filter| check_at(filter, depth + 1, size)),
        Filter::At { test, .. } => {
            size.values += test.check()?;
            Ok(())
        }
        Filter::Nested { filter, .. } => {
            if asks_ids(filter, depth) {
                return Err(FilterError::NestedIds);
            }
            check_at(filter, depth + 1, size)
        }
    }
}

/// Whether a part of the filter is on ids; what lies too deep is refused elsewhere.
fn asks_ids(filter: &Filter, depth: usize) -> bool {
    if depth > FILTER_DEPTH_MAX {
        return false;
    }
    match filter {
        Filter::HasId(_) => true,
        Filter::And(filters) | Filter::Or(filters) | Filter::AtLeast { of: filters, .. } => {
            filters.iter().any(|filter| asks_ids(filter, depth + 1))
        }
        Filter::Not(filter) | Filter::Nested { filter, .. } => asks_ids(filter, depth + 1),
        _ => false,
    }
}

fn check_field(field: &str) -> Result<(), FilterError> {
    if field.split('.').any(str::is_empty) {
        return Err(FilterError::Field(clip(field)));
    }
    Ok(())
}

pub(super) fn check_scalar(condition: &'static str, value: &Value) -> Result<(), FilterError> {
    match value {
        Value::Array(_) | Value::Object(_) => {
            Err(shape(condition, "a string, number, boolean or null", value))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_bounds(bounds: &Bounds) -> Result<(), FilterError> {
    if bounds.given().next().is_none() {
        return Err(shape(
            "range",
            "at least one of gt, gte, lt, lte",
            &json!({}),
        ));
    }
    for value in bounds.given() {
        if !value.is_number() && !value.is_string() {
            return Err(shape("range", "bounds that are numbers or strings", value));
        }
    }
    Ok(())
}

pub(super) fn to_json(filter: &Filter) -> Value {
    match filter {
        Filter::Eq { field, value } => json!({"eq": {field: value}}),
        Filter::In { field, values } => json!({"in": {field: values}}),
        Filter::Range { field, bounds } => {
            json!({"range": {field: bounds_to_json(bounds)}})
        }
        Filter::Exists { field } => json!({"exists": field}),
        Filter::HasId(ids) => json!({"ids": ids}),
        Filter::And(filters) => json!({"and": filters.iter().map(to_json).collect::<Vec<_>>()}),
        Filter::Or(filters) => json!({"or": filters.iter().map(to_json).collect::<Vec<_>>()}),
        Filter::Not(filter) => json!({"not": to_json(filter)}),
        Filter::AtLeast { count, of } => {
            let of: Vec<Value> = of.iter().map(to_json).collect();
            json!({"at_least": {"count": count, "of": of}})
        }
        Filter::At { path, test } => {
            let (name, value) = test.to_json();
            json!({"field": {"path": path.to_string(), name: value}})
        }
        Filter::Nested { path, filter } => {
            json!({"nested": {"path": path.to_string(), "filter": to_json(filter)}})
        }
    }
}

pub(super) fn bounds_to_json(bounds: &Bounds) -> Value {
    let named = [
        ("gt", &bounds.gt),
        ("gte", &bounds.gte),
        ("lt", &bounds.lt),
        ("lte", &bounds.lte),
    ];
    named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
        .collect::<Map<_, _>>()
        .into()
}
