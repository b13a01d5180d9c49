//! Conditions on payloads and ids, and their JSON form.

mod matches;
mod parse;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::id::{Id, IdError};

/// A condition a row may meet.
///
/// A `field` is a dotted path into the payload (`author.name`). Where the path meets an array,
/// any element will do; so `{"eq": {"tags": "law"}}` matches the payload
/// `{"tags": ["law", "land"]}`. Numbers are compared by value (`1` equals `1.0`), strings and
/// booleans only with their kind. A row without the field (or without a payload) meets no
/// condition on it, and so meets every `not` of one.
///
/// The JSON form:
///
/// | JSON | holds for rows |
/// |---|---|
/// | `{"eq": {"book": "Psalms"}}` | whose field is that string, number, boolean or null |
/// | `{"in": {"book": ["Job", "Ruth"]}}` | whose field is one of those |
/// | `{"range": {"chapter": {"gte": 3, "lt": 10}}}` | whose field lies between (numbers, or strings by their bytes); bounds `gt`, `gte`, `lt`, `lte` |
/// | `{"exists": "chapter"}` | whose field is there and not null |
/// | `{"ids": [1, "a"]}` | of those ids |
/// | `{"and": [..]}`, `{"or": [..]}`, `{"not": {..}}` | that meet all, any, or not the condition |
///
/// ```
/// use sela_store::Filter;
/// let filter: Filter = serde_json::from_str(
///     r#"{"and": [{"eq": {"book": "Psalms"}}, {"range": {"chapter": {"gte": 3}}}]}"#,
/// )?;
/// assert!(matches!(&filter, Filter::And(both) if both.len() == 2));
/// assert_eq!(serde_json::from_str::<Filter>(&serde_json::to_string(&filter)?)?, filter);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// The field holds this value.
    Eq {
        /// The dotted path.
        field: String,
        /// A string, number, boolean or null.
        value: Value,
    },
    /// The field holds one of these values.
    In {
        /// The dotted path.
        field: String,
        /// Strings, numbers, booleans or nulls.
        values: Vec<Value>,
    },
    /// The field lies within these bounds.
    Range {
        /// The dotted path.
        field: String,
        /// The bounds.
        bounds: Bounds,
    },
    /// All of these hold; with none, every row.
    And(Vec<Filter>),
    /// Any of these holds; with none, no row.
    Or(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// The field is there and is not null.
    Exists {
        /// The dotted path.
        field: String,
    },
    /// The row has one of these ids.
    HasId(Vec<Id>),
}

/// The bounds of a range: numbers or strings, at least one of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Greater than.
    pub gt: Option<Value>,
    /// Greater than or equal to.
    pub gte: Option<Value>,
    /// Less than.
    pub lt: Option<Value>,
    /// Less than or equal to.
    pub lte: Option<Value>,
}

/// Why a filter cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// It is not a JSON object of one known condition.
    #[error("a filter is an object of one condition, not `{0}`")]
    NotACondition(String),
    /// The condition's name is unknown.
    #[error("`{0}` is not a condition of a filter")]
    Unknown(String),
    /// What follows the condition's name has the wrong shape.
    #[error("`{condition}` wants {wanted}, not `{found}`")]
    Shape {
        /// The condition's name.
        condition: &'static str,
        /// What it wants.
        wanted: &'static str,
        /// What it was given.
        found: String,
    },
    /// A field's path is empty or has an empty step.
    #[error("`{0}` is not a field: a path of names joined by dots is wanted")]
    Field(String),
    /// An id in `ids` is none.
    #[error("in `ids`: {0}")]
    Id(#[from] IdError),
    /// The filter is too large.
    #[error("the filter has {found} {what}, and the limit is {max}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: usize,
        /// How much is allowed.
        max: usize,
    },
}

impl FilterError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "ask with several smaller filters",
            _ => {
                "conditions are eq, in, range, exists, ids, and, or, not; \
                 for example {\"eq\": {\"book\": \"Psalms\"}}"
            }
        }
    }
}

impl Filter {
    /// The field holds `value`.
    pub fn eq(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::Eq {
            field: field.into(),
            value: value.into(),
        }
    }

    /// Reads the JSON form.
    pub fn from_json(json: &Value) -> Result<Self, FilterError> {
        parse::parse(json)
    }

    /// The JSON form.
    pub fn to_json(&self) -> Value {
        parse::to_json(self)
    }

    /// Whether the filter makes sense and keeps to the limits.
    pub fn check(&self) -> Result<(), FilterError> {
        parse::check(self)
    }

    /// Whether a row of this id and payload meets the condition.
    pub fn matches(&self, id: &Id, payload: Option<&crate::model::Payload>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|filter| filter.matches(id, payload)),
            Self::Or(any) => any.iter().any(|filter| filter.matches(id, payload)),
            Self::Not(filter) => !filter.matches(id, payload),
            Self::HasId(ids) => ids.contains(id),
            leaf => payload.is_some_and(|payload| matches::leaf(leaf, payload)),
        }
    }

    /// Whether a payload meets a condition on a field.
    pub(crate) fn leaf_matches(&self, payload: &crate::model::Payload) -> bool {
        matches::leaf(self, payload)
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        Self::from_json(&json).map_err(serde::de::Error::custom)
    }
}
