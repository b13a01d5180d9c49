//! Between filters and JSON, and what a filter may be.

use serde_json::{Map, Value, json};

use super::{Bounds, Filter, FilterError};
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
        other => Err(FilterError::Unknown(clip(other))),
    }
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

fn parse_bounds(json: &Value) -> Result<Bounds, FilterError> {
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

fn shape(condition: &'static str, wanted: &'static str, found: &Value) -> FilterError {
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
    }
}

fn check_field(field: &str) -> Result<(), FilterError> {
    if field.split('.').any(str::is_empty) {
        return Err(FilterError::Field(clip(field)));
    }
    Ok(())
}

fn check_scalar(condition: &'static str, value: &Value) -> Result<(), FilterError> {
    match value {
        Value::Array(_) | Value::Object(_) => {
            Err(shape(condition, "a string, number, boolean or null", value))
        }
        _ => Ok(()),
    }
}

fn check_bounds(bounds: &Bounds) -> Result<(), FilterError> {
    let given = [&bounds.gt, &bounds.gte, &bounds.lt, &bounds.lte];
    if given.iter().all(|bound| bound.is_none()) {
        return Err(shape(
            "range",
            "at least one of gt, gte, lt, lte",
            &json!({}),
        ));
    }
    for value in given.into_iter().flatten() {
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
            let named = [
                ("gt", &bounds.gt),
                ("gte", &bounds.gte),
                ("lt", &bounds.lt),
                ("lte", &bounds.lte),
            ];
            let map: Map<String, Value> = named
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
                .collect();
            json!({"range": {field: map}})
        }
        Filter::Exists { field } => json!({"exists": field}),
        Filter::HasId(ids) => json!({"ids": ids}),
        Filter::And(filters) => json!({"and": filters.iter().map(to_json).collect::<Vec<_>>()}),
        Filter::Or(filters) => json!({"or": filters.iter().map(to_json).collect::<Vec<_>>()}),
        Filter::Not(filter) => json!({"not": to_json(filter)}),
    }
}
