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
    /// A text. By words, any of them will do, and texts with more and rarer ones come first;
    /// `"words in quotes"` stand one after another, `past*` is how a word begins, and `-word` keeps
    /// texts out.
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
    /// `vector` unless said otherwise.
    #[serde(default)]
    #[schema(value_type = Option<SearchMode>)]
    pub(crate) mode: Option<String>,
}

/// How documents are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SearchMode {
    /// By the nearness of vectors.
    Vector,
    /// By words, ranked by BM25; no text is embedded.
    Text,
    /// By both; the two rankings are joined by the reciprocals of ranks.
    Hybrid,
}

impl SearchMode {
    /// The mode of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "vector" => Self::Vector,
            "text" => Self::Text,
            "hybrid" => Self::Hybrid,
            _ => return None,
        })
    }
}

fn ten() -> usize {
    10
}

/// Documents near to the query, the nearest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundDocuments {
    pub(crate) hits: Vec<FoundDocument>,
    pub(crate) time_ms: f64,
    /// Tokens of the query, special ones included; 0 when it was not embedded.
    pub(crate) tokens: usize,
    /// Whether the query was longer than the model reads.
    pub(crate) truncated: bool,
}

/// A document near to the query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundDocument {
    #[serde(flatten)]
    pub(crate) document: GivenDocument,
    /// Nearness as the collection measures it; by words the score of BM25; by both the sum of
    /// `1 / (60 + rank)` over the rankings it is in.
    pub(crate) score: f32,
    /// Nearness, if it is among the nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vector_score: Option<f32>,
    /// Its rank by nearness, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vector_rank: Option<u32>,
    /// The score of BM25, if it is among those found by words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text_score: Option<f32>,
    /// Its rank by words, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text_rank: Option<u32>,
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
