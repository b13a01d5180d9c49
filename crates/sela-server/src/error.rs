//! One error for every route: a status, a code for programs, a sentence and advice for people.
//!
//! The routes of other servers' clients answer in those servers' shapes; which shape a path has is
//! decided here, once.

mod engine;

use std::borrow::Cow;

use crate::json::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::dto::error::{OpenAiError, OpenAiProblem, Problem, QdrantError, QdrantStatus};

/// Why a request was not done.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// A word for programs: `dimension_mismatch`.
    pub code: &'static str,
    /// What is wrong, with the value.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The field of the request that is wrong.
    pub field: Option<Cow<'static, str>>,
    /// Seconds after which it is worth trying again.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error without advice.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            hint: None,
            field: None,
            retry_after: None,
        }
    }

    /// 400: not what the route reads.
    pub fn malformed(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorized(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// 404: nothing is there.
    pub fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// 409: at odds with what is there.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413: more than the limit `limit` allows.
    pub fn too_large(detail: impl Into<String>, limit: &'static str) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
            .hint(format!("the setting `limits.{limit}` sets this"))
    }

    /// 422: a field has a value that it cannot have.
    pub fn invalid(field: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let field = field.into();
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_value",
            detail.into(),
        )
        .field(field)
    }

    /// 429: too much is under way; nothing was begun.
    pub fn busy(detail: impl Into<String>, retry_after: u64) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail);
        error.retry_after = Some(retry_after.max(1));
        error
    }

    /// 503: not now.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        error.retry_after = Some(1);
        error
    }

    /// 500: a fault of ours. The cause is for the log, not for the caller.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed for a fault of the server");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server failed at this request; its log tells why",
        )
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the field that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The answer in the shape that the clients of a path read.
    pub fn respond(&self, shape: Shape) -> Response {
        let status = shape.status(self);
        let mut response = match shape {
            Shape::Own => (status, Json(self.problem())).into_response(),
            Shape::OpenAi => (status, Json(self.open_ai(status))).into_response(),
            Shape::Qdrant => (status, Json(self.qdrant())).into_response(),
        };
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"sela\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }

    fn problem(&self) -> Problem {
        Problem {
            detail: self.detail.clone(),
            code: self.code.to_owned(),
            hint: self.hint.clone(),
            field: self.field.as_deref().map(str::to_owned),
        }
    }

    fn open_ai(&self, status: StatusCode) -> OpenAiError {
        let kind = match status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        OpenAiError {
            error: OpenAiProblem {
                message: self.sentence(),
                kind: kind.to_owned(),
                param: self.field.as_deref().map(str::to_owned),
                code: Some(self.code.to_owned()),
            },
        }
    }

    fn qdrant(&self) -> QdrantError {
        QdrantError {
            status: QdrantStatus {
                error: self.sentence(),
            },
            time: 0.0,
        }
    }

    /// Error and advice for shapes that have one place for both.
    fn sentence(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}; {hint}", self.detail),
            None => self.detail.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.respond(Shape::Own);
        // The frame around all routes knows the path and gives it the path's shape.
        response.extensions_mut().insert(Box::new(self));
        response
    }
}

/// Errors that Qdrant answers with 400 and the other routes with 422.
const QDRANT_400: [&str; 5] = [
    "invalid_field",
    "dimension_mismatch",
    "vector_refused",
    "id_refused",
    "collection_name",
];

/// In whose words a path answers errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"detail", "code", "hint"}`.
    Own,
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// `{"status": {"error"}, "time"}`.
    Qdrant,
}

impl Shape {
    /// The shape of a path.
    pub fn of(path: &str) -> Self {
        let below = |root: &str| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if below("/v1/embeddings") || below("/v1/models") {
            Self::OpenAi
        } else if path == "/" || below("/collections") || below("/aliases") {
            Self::Qdrant
        } else {
            Self::Own
        }
    }

    /// The status as the other server would give it: both answer 400 where a field is of a wrong
    /// type, and OpenAI also where its value is out of range.
    pub fn status(self, error: &ApiError) -> StatusCode {
        match self {
            Self::OpenAi if error.status == StatusCode::UNPROCESSABLE_ENTITY => {
                StatusCode::BAD_REQUEST
            }
            Self::Qdrant if QDRANT_400.contains(&error.code) => StatusCode::BAD_REQUEST,
            _ => error.status,
        }
    }
}
