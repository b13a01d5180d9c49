//! Documents: texts in collections.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

/// A text to keep.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Document {
    /// Its name: a whole number from 0, or a string. A document of the same name is replaced.
    #[schema(value_type = DocumentId)]
    pub(crate) id: Value,
    #[schema(example = "The meeting is moved to Thursday.")]
    pub(crate) text: String,
    /// An object of yours, for filters and answers.
    #[schema(value_type = Option<Object>)]
    pub(crate) payload: Option<Map<String, Value>>,
}

/// A whole number from 0, or a string of 1 to 512 bytes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum DocumentId {
    Number(u64),
    Text(String),
}

/// Texts to keep.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct StoreDocuments {
    pub(crate) documents: Vec<Document>,
}

/// What was stored, durably.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct StoredDocuments {
    pub(crate) stored: u64,
    /// Of these, documents that were there before under the same name.
    pub(crate) replaced: u64,
    /// Texts that were longer than the model reads and were cut.
    pub(crate) truncated: u64,
}

/// What to look for.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct SearchDocuments {
    #[schema(example = "When do we meet?")]
    pub(crate) query: String,
    /// How many.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 100)]
    pub(crate) k: usize,
    /// Only documents that meet a condition on their payload: `{"eq": {"book": "Psalms"}}`.
    #[schema(value_type = Option<Object>)]
    pub(crate) filter: Option<Value>,
    /// Whether hits carry their vectors.
    #[serde(default)]
    pub(crate) with_vector: bool,
    /// `vector`, which is all there is: search by words is not supported.
    #[serde(default)]
    #[schema(value_type = Option<SearchMode>)]
    pub(crate) mode: Option<String>,
}

/// How documents are searched.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "it stands in the document of the routes")]
pub(crate) enum SearchMode {
    /// By the nearness of vectors.
    Vector,
}

fn ten() -> usize {
    10
}

/// Documents near to the query, the nearest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundDocuments {
    pub(crate) hits: Vec<FoundDocument>,
    pub(crate) time_ms: f64,
    /// Tokens of the query, special ones included.
    pub(crate) tokens: usize,
    /// Whether the query was longer than the model reads.
    pub(crate) truncated: bool,
}

/// A document near to the query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundDocument {
    #[serde(flatten)]
    pub(crate) document: GivenDocument,
    /// Nearness as the collection measures it.
    pub(crate) score: f32,
}

/// A document as it is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GivenDocument {
    pub(crate) id: DocumentId,
    pub(crate) text: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub(crate) payload: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vector: Option<Vec<f32>>,
}

/// Which documents to give.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListDocuments {
    /// Where the page before ended: its `next`.
    pub(crate) after: Option<u64>,
    /// Documents of a page; without effect on NDJSON, which gives all.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(crate) limit: Option<usize>,
    /// Whether documents carry their vectors.
    #[serde(default)]
    #[param(default = false)]
    pub(crate) with_vector: bool,
}

/// A page of documents, in the order they were stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentsPage {
    pub(crate) documents: Vec<GivenDocument>,
    /// What to give as `after` for the next page; nothing at the end.
    pub(crate) next: Option<u64>,
}

/// Documents to remove.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DeleteDocuments {
    #[schema(value_type = Vec<DocumentId>)]
    pub(crate) ids: Vec<Value>,
}

/// What was removed, durably.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeletedDocuments {
    /// Documents that were there.
    pub(crate) deleted: u64,
}
