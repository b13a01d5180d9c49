//! How filters look in the document of the routes; `qdrant/filter.rs` reads them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::dto::documents::DocumentId;

/// Which points are meant: those that meet all of `must`, one of `should`, none of `must_not`, and
/// so many of `min_should`.
#[derive(Serialize, ToSchema)]
#[schema(as = QdrantFilter, no_recursion)]
pub(crate) struct Filter {
    must: Option<Vec<Condition>>,
    should: Option<Vec<Condition>>,
    must_not: Option<Vec<Condition>>,
    min_should: Option<MinShould>,
}

/// So many conditions must be met.
#[derive(Serialize, ToSchema)]
#[schema(as = QdrantMinShould, no_recursion)]
pub(crate) struct MinShould {
    #[schema(no_recursion)]
    conditions: Vec<Condition>,
    #[schema(minimum = 0)]
    min_count: u64,
}

/// A condition: on a field (`key` and one test), on ids, on a nested object, or a filter.
#[derive(Serialize, ToSchema)]
#[schema(as = QdrantCondition, no_recursion)]
pub(crate) struct Condition {
    /// The path of a field: `country.cities[].name`.
    key: Option<String>,
    /// One of `value`, `any`, `except`, `text`, `text_any`, `phrase`, `prefix`, `substring`.
    #[schema(value_type = Option<Object>, example = json!({"value": "Psalms"}))]
    r#match: Option<Value>,
    /// Numbers or times: `gt`, `gte`, `lt`, `lte`.
    #[schema(value_type = Option<Object>, example = json!({"gte": 3}))]
    range: Option<Value>,
    /// How many values: `gt`, `gte`, `lt`, `lte`.
    #[schema(value_type = Option<Object>, example = json!({"gte": 1}))]
    values_count: Option<Value>,
    /// Of a field given by `key` a boolean; else an object of a `key`.
    #[schema(value_type = Option<Object>, example = json!({"key": "book"}))]
    is_empty: Option<Value>,
    /// Of a field given by `key` a boolean; else an object of a `key`.
    #[schema(value_type = Option<Object>, example = json!({"key": "book"}))]
    is_null: Option<Value>,
    has_id: Option<Vec<DocumentId>>,
    /// The empty name, which every point's vector has.
    has_vector: Option<String>,
    nested: Option<Nested>,
    #[schema(no_recursion)]
    must: Option<Vec<Condition>>,
    #[schema(no_recursion)]
    should: Option<Vec<Condition>>,
    #[schema(no_recursion)]
    must_not: Option<Vec<Condition>>,
    #[schema(no_recursion)]
    min_should: Option<Box<MinShould>>,
}

/// One object of an array meets all of a filter.
#[derive(Serialize, ToSchema)]
#[schema(as = QdrantNested, no_recursion)]
pub(crate) struct Nested {
    key: String,
    #[schema(no_recursion)]
    filter: Box<Filter>,
}
