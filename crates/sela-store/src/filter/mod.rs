//! Conditions on payloads and ids, and their JSON form.

mod matches;
mod parse;
mod time;
mod value;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

pub use value::{Test, Words};

use crate::field::FieldPath;
use crate::id::{Id, IdError};
use crate::model::Payload;

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
/// | `{"at_least": {"count": 2, "of": [..]}}` | that meet so many of the conditions |
/// | `{"field": {"path": "a[].b", "among": [1, 2]}}` | with a value at that [`FieldPath`] that passes the [`Test`]: `among`, `not_among`, `within`, `during`, `words`, `any_word`, `phrase`, `prefix`, `contains`, `null`, `filled`, `length` |
/// | `{"nested": {"path": "a", "filter": {..}}}` | where one object of the array at that path meets the condition alone |
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
    /// At least so many of these hold.
    AtLeast {
        /// How many; with 0, every row.
        count: usize,
        /// The conditions.
        of: Vec<Filter>,
    },
    /// A value at the path passes the test.
    At {
        /// Where.
        path: FieldPath,
        /// What is asked of it.
        test: Test,
    },
    /// For one object of the array at the path, taken for a payload, the condition holds.
    Nested {
        /// Where the array is.
        path: FieldPath,
        /// The condition; none on ids.
        filter: Box<Filter>,
    },
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

impl Bounds {
    fn given(&self) -> impl Iterator<Item = &Value> {
        [&self.gt, &self.gte, &self.lt, &self.lte]
            .into_iter()
            .flatten()
    }
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
    /// `nested` holds a condition on ids, and elements of arrays have none.
    #[error("`nested` holds a condition on ids, which elements of arrays do not have")]
    NestedIds,
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
                "conditions are eq, in, range, exists, ids, and, or, not, at_least, field, nested; \
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
    pub fn matches(&self, id: &Id, payload: Option<&Payload>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|filter| filter.matches(id, payload)),
            Self::Or(any) => any.iter().any(|filter| filter.matches(id, payload)),
            Self::Not(filter) => !filter.matches(id, payload),
            Self::AtLeast { count, of } => {
                let met = of.iter().filter(|filter| filter.matches(id, payload));
                met.count() >= *count
            }
            Self::HasId(ids) => ids.contains(id),
            leaf => matches::leaf(leaf, payload.unwrap_or(&Payload::new())),
        }
    }

    /// Whether the condition, one without parts of its own, holds for a row without a payload.
    pub(crate) fn leaf_matches_nothing(&self) -> bool {
        matches::leaf(self, &Payload::new())
    }

    /// Whether a payload meets a condition on a field.
    pub(crate) fn leaf_matches(&self, payload: &Payload) -> bool {
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
