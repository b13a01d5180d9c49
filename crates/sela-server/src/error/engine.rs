//! The engine's errors as answers. What tells of the server's own files is for its log alone.

use std::fmt;
use std::io;

use axum::http::StatusCode;
use sela::{EncoderError, Error as E, StoreError};

use super::ApiError;

impl From<sela::Error> for ApiError {
    fn from(error: E) -> Self {
        // A batch's error is each of its requests' own.
        let told = error.cause();
        let (status, code) = match told {
            E::CollectionName { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "collection_name"),
            E::NoCollection { .. } => (StatusCode::NOT_FOUND, "no_collection"),
            E::NoRow { .. } => (StatusCode::NOT_FOUND, "no_point"),
            E::CollectionExists { .. } => (StatusCode::CONFLICT, "collection_exists"),
            E::ExternalSpace { .. } | E::DeclaredExternal { .. } => {
                (StatusCode::CONFLICT, "external_space")
            }
            E::NoTexts { .. } => (StatusCode::CONFLICT, "no_texts"),
            E::Undeclared { .. } => (StatusCode::CONFLICT, "undeclared"),
            E::OtherSpace { .. } => (StatusCode::CONFLICT, "fingerprint_differs"),
            E::QueryDim { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "dimension_mismatch"),
            E::EmptyItem { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "empty_item"),
            E::Encoder(EncoderError::TextTooLong { .. }) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "text_too_long")
            }
            E::Encoder(EncoderError::Tokenize { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "untokenizable")
            }
            E::DatabaseShape { .. } | E::DatabaseNumber { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_value")
            }
            E::DatabaseLimit { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            E::DatabaseDim { .. } => (StatusCode::CONFLICT, "dimension_mismatch"),
            E::Index(sela::IndexError::Queries { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "dimension_mismatch")
            }
            E::Index(sela::IndexError::NotFinite { .. } | sela::IndexError::Limit { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_value")
            }
            E::Busy { retry_after, .. } => {
                let detail = told.to_string();
                return Self::busy(detail, retry_after.as_secs());
            }
            E::RequestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            E::Deadline { .. } => {
                let detail = told.to_string();
                return Self::unavailable("deadline", detail);
            }
            E::Closed => return Self::unavailable("stopping", told.to_string()),
            E::Store(stored) => return of_store(stored),
            E::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                return disk_full();
            }
            E::ModelUnknown { .. } | E::ModelMissing { .. } | E::ModelUnavailable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "model_missing")
            }
            _ => return Self::internal(&Causes(told)),
        };
        let mut made = Self::new(status, code, Causes(told).to_string());
        made.hint = advice(told);
        made
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        of_store(&error)
    }
}

fn of_store(error: &StoreError) -> ApiError {
    let (status, code) = match error {
        StoreError::DiskFull { .. } => return disk_full(),
        StoreError::Locked { .. } => {
            return ApiError::conflict(
                "collection_locked",
                "the collection is in use elsewhere: in another request or another process",
            );
        }
        StoreError::ReadOnly { .. } | StoreError::Poisoned { .. } => {
            tracing::error!(error = %Causes(error), "a collection refuses writes");
            return ApiError::unavailable(
                "read_only",
                "the collection refuses writes; the server's log tells why",
            );
        }
        StoreError::Vector { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "vector_refused"),
        StoreError::Limit { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        StoreError::Id(_) => (StatusCode::UNPROCESSABLE_ENTITY, "id_refused"),
        StoreError::Filter(_) => (StatusCode::BAD_REQUEST, "filter_refused"),
        StoreError::TextQuery(_) => (StatusCode::UNPROCESSABLE_ENTITY, "query_refused"),
        StoreError::NoTextIndex { .. } => {
            tracing::error!(error = %Causes(error), "a collection cannot be searched for words");
            return ApiError::unavailable(
                "no_text_index",
                "the collection's texts cannot be searched for words now; the server's log tells why",
            );
        }
        StoreError::Schema(_) => (StatusCode::UNPROCESSABLE_ENTITY, "schema_refused"),
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            return disk_full();
        }
        _ => return ApiError::internal(&Causes(error)),
    };
    let mut made = ApiError::new(status, code, Causes(error).to_string());
    made.hint = error.hint().map(str::to_owned);
    made
}

fn disk_full() -> ApiError {
    ApiError::new(
        StatusCode::INSUFFICIENT_STORAGE,
        "disk_full",
        "the disk is full, and nothing was written",
    )
    .hint("free some space and try again; reads go on meanwhile")
}

/// Advice, unless it speaks of flags of the command line.
fn advice(error: &E) -> Option<String> {
    match error {
        E::Undeclared { .. } | E::ExternalSpace { .. } | E::DeclaredExternal { .. } => Some(
            "vectors made elsewhere go into a collection of their own; ask it with vectors"
                .to_owned(),
        ),
        E::NoCollection { others, .. } if others.is_empty() => None,
        E::OtherSpace { .. } => {
            Some("start the server with that model, or use another collection".to_owned())
        }
        other => other.hint(),
    }
}

/// An error with its causes, one after another.
pub(crate) struct Causes<'a>(pub(crate) &'a dyn std::error::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write!(f, "{said}")?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_full_disk_is_507_and_no_path_of_ours_is_told() {
        let path = PathBuf::from("/srv/private/embeddings");
        let full = StoreError::DiskFull { path: path.clone() };
        let system = E::Io {
            what: "write",
            path: path.clone(),
            source: io::ErrorKind::StorageFull.into(),
        };
        let batch = E::Batch {
            source: std::sync::Arc::new(E::Store(full.clone())),
        };
        for error in [E::Store(full), system, batch] {
            let answer = ApiError::from(error);
            assert_eq!((answer.status.as_u16(), answer.code), (507, "disk_full"));
        }
        let denied = E::Io {
            what: "read",
            path: path.clone(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        let locked = E::Store(StoreError::Locked { dir: path.clone() });
        let poisoned = E::Store(StoreError::Poisoned {
            dir: path,
            cause: "no".to_owned(),
        });
        for (error, status) in [(denied, 500), (locked, 409), (poisoned, 503)] {
            let answer = ApiError::from(error);
            assert_eq!(answer.status.as_u16(), status);
            let hint = answer.hint.unwrap_or_default();
            assert!(!format!("{}{hint}", answer.detail).contains("private"));
        }
    }
}
