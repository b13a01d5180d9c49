//! Documents a line each, in and out, however many: memory holds one batch of them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use sela::Collection;
use tokio::sync::mpsc;

use super::{fields, given, keep};
use crate::body::Parts;
use crate::dto::documents::{Document, ListDocuments, StoredDocuments};
use crate::error::ApiError;
use crate::extract;
use crate::state::AppState;

/// The type of such bodies.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";

/// Documents that are embedded and stored together.
const BATCH: usize = 256;
/// Bytes of lines after which a batch is stored.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of a line besides its text, escapes included: an id and a payload.
const LINE_BESIDE: u64 = 1 << 20;
/// Documents read from the store at a time, and pages that may wait for the client.
const PAGE: usize = 100;
const PAGES: usize = 2;

/// Stores what comes, batch after batch.
pub(super) async fn store(
    app: &AppState,
    name: String,
    request: Request,
) -> Result<StoredDocuments, ApiError> {
    let limits = &app.settings.limits;
    let line_max = usize::try_from(2 * limits.text_bytes_max.0 + LINE_BESIDE).unwrap_or(usize::MAX);
    let mut upload = Upload {
        app,
        name,
        documents: Vec::new(),
        bytes: 0,
        line: 0,
        stored: StoredDocuments::default(),
    };
    let mut body = request.into_body();
    let (mut rest, mut taken) = (Vec::new(), 0u64);
    let pause = Duration::from_millis(limits.body_ms);
    loop {
        let frame = tokio::time::timeout(pause, body.frame()).await;
        let frame = frame.map_err(|_| upload.told(extract::slow(app)))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| upload.told(extract::unreadable(&error)))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        taken += data.len() as u64;
        if taken > limits.database_bytes_max.0 {
            let max = limits.database_bytes_max.0;
            let detail = format!("the body is larger than {max} bytes");
            return Err(upload.told(ApiError::too_large(detail, "database_bytes_max")));
        }
        let mut parts = data.split(|&b| b == b'\n');
        rest.extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            upload.take(&rest).await?;
            rest.clear();
            rest.extend_from_slice(part);
        }
        if rest.len() > line_max {
            let line = upload.line + 1;
            let detail = format!("line {line} has more than {line_max} bytes");
            return Err(upload.told(ApiError::too_large(detail, "text_bytes_max")));
        }
    }
    upload.take(&rest).await?;
    upload.flush().await?;
    Ok(upload.stored)
}

/// What is under way.
struct Upload<'a> {
    app: &'a AppState,
    name: String,
    documents: Vec<Document>,
    bytes: usize,
    /// Lines seen.
    line: u64,
    stored: StoredDocuments,
}

impl Upload<'_> {
    /// Takes a line; empty ones are passed over.
    async fn take(&mut self, line: &[u8]) -> Result<(), ApiError> {
        self.line += 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let document = extract::parse_json::<Document>(line);
        let document = document.map_err(|mut error| {
            error.detail = format!("line {}: {}", self.line, error.detail);
            self.told(error)
        })?;
        self.documents.push(document);
        self.bytes += line.len();
        match self.documents.len() >= BATCH || self.bytes >= BATCH_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), ApiError> {
        self.bytes = 0;
        let documents = std::mem::take(&mut self.documents);
        let last = self.line;
        let kept = keep(self.app, self.name.clone(), documents).await;
        let kept = kept.map_err(|mut error| {
            error.detail = format!("in the lines up to {last}: {}", error.detail);
            self.told(error)
        })?;
        self.stored.stored += kept.stored;
        self.stored.replaced += kept.replaced;
        self.stored.truncated += kept.truncated;
        Ok(())
    }

    /// An error that tells how much is stored in spite of it.
    fn told(&self, error: ApiError) -> ApiError {
        let stored = self.stored.stored;
        error.hint(format!(
            "the first {stored} documents of the body are stored"
        ))
    }
}

/// Gives all documents, as fast as the client takes them.
pub(super) fn give(app: &AppState, collection: Collection, asked: &ListDocuments) -> Response {
    let (pages, taken) = mpsc::channel::<Bytes>(PAGES);
    let (mut after, fields) = (asked.after, fields(asked.with_vector));
    let app = app.clone();
    tokio::spawn(async move {
        loop {
            let collection = collection.clone();
            let read = crate::work::blocking(&app, move || {
                let page = collection.scroll(after, PAGE, None, fields)?;
                let mut text = Vec::new();
                for (_, row) in page.rows {
                    let document = given(row, fields.vector);
                    serde_json::to_writer(&mut text, &document)
                        .map_err(|error| ApiError::internal(&error))?;
                    text.push(b'\n');
                }
                Ok((text, page.next))
            });
            // Without a last page the client sees that the body broke off: `finished` is not sent.
            let Ok((text, next)) = read.await else { return };
            if !text.is_empty() && pages.send(text.into()).await.is_err() {
                return;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let _ = pages.send(Bytes::new()).await;
    });
    let body = Body::new(Parts::new(taken));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}
