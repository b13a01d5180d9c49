//! Errors in the three shapes that clients read.

use serde::Serialize;
use utoipa::ToSchema;

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What is wrong, with the value.
    #[schema(example = "k is 500, and the limit is 100")]
    pub(crate) detail: String,
    /// A word for programs.
    #[schema(example = "invalid_value")]
    pub(crate) code: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// The field of the request that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
}

/// An error as clients of OpenAI read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    pub(crate) error: OpenAiProblem,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiProblem {
    /// What is wrong, with the value.
    pub(crate) message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    #[schema(example = "invalid_request_error")]
    pub(crate) kind: String,
    /// The field of the request that is wrong.
    pub(crate) param: Option<String>,
    /// A word for programs.
    pub(crate) code: Option<String>,
}

/// An error as clients of Qdrant read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QdrantError {
    pub(crate) status: QdrantStatus,
    /// Seconds the request took.
    pub(crate) time: f64,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QdrantStatus {
    /// What is wrong, with the value.
    pub(crate) error: String,
}
