//! A snapshot's files as one tar archive, read as fast as the client takes them.

use std::fs::File;
use std::io::{self, Read};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use super::super::tar;
use super::Stored;
use crate::body::Parts;
use crate::error::ApiError;
use crate::state::AppState;
use crate::work;

/// Bytes that are read at a time, and parts that may wait for the client.
const PART: usize = 1 << 20;
const PARTS: usize = 2;

/// Gives files as an archive of this name.
pub(super) fn give(app: &AppState, files: Vec<Stored>, name: &str) -> Response {
    let lengths = files
        .iter()
        .map(|file| tar::BLOCK + file.size + tar::padding(file.size));
    let length = lengths.sum::<u64>() + tar::END.len() as u64;
    let (parts, taken) = mpsc::channel::<Bytes>(PARTS);
    let app = app.clone();
    tokio::spawn(async move {
        for file in files {
            // Without a last part the client sees that the body broke off.
            if send(&app, file, &parts).await.is_err() {
                return;
            }
        }
        let end = Bytes::from_static(&tar::END);
        if parts.send(end).await.is_ok() {
            let _ = parts.send(Bytes::new()).await;
        }
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-tar"),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::try_from(format!("attachment; filename=\"{name}\""))
                .unwrap_or(HeaderValue::from_static("attachment")),
        ),
    ];
    (headers, Body::new(Parts::new(taken))).into_response()
}

/// Sends a file: its header, its bytes and what fills its last block.
async fn send(app: &AppState, file: Stored, parts: &mpsc::Sender<Bytes>) -> Result<(), ApiError> {
    let gone = |_| ApiError::unavailable("gone", "the client is gone");
    let header = tar::header(&file.name, file.size, file.changed)
        .ok_or_else(|| ApiError::internal(&format!("the name `{}` is too long", file.name)))?;
    parts
        .send(Bytes::copy_from_slice(&header))
        .await
        .map_err(gone)?;
    let size = file.size;
    let mut open = work::blocking(app, move || File::open(&file.path).map_err(internal)).await?;
    let mut left = size;
    while left > 0 {
        // A turn for each part: a slow client keeps nobody else waiting.
        let read = work::blocking(app, move || {
            let mut part = vec![0; left.min(PART as u64) as usize];
            open.read_exact(&mut part).map_err(internal)?;
            Ok((open, part))
        });
        let part;
        (open, part) = read.await?;
        left -= part.len() as u64;
        parts.send(part.into()).await.map_err(gone)?;
    }
    let padding = vec![0; tar::padding(size) as usize];
    if !padding.is_empty() {
        parts.send(padding.into()).await.map_err(gone)?;
    }
    Ok(())
}

fn internal(error: io::Error) -> ApiError {
    ApiError::internal(&error)
}
