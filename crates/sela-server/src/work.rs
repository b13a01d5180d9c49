//! How handlers have work done that would block: with turns, limits and deadlines.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sela::{EmbedOptions, Embeddings, Lane};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::ApiError;
use crate::state::AppState;

/// Texts up to which a request counts as one that somebody waits for.
const INTERACTIVE_MAX: usize = 16;
/// Bytes of all texts up to which it does.
const INTERACTIVE_BYTES_MAX: usize = 64 << 10;

/// Embeds texts among all others that are asked for. Dropping the future takes them back.
pub(crate) async fn embed(app: &AppState, texts: Vec<String>) -> Result<Embeddings, ApiError> {
    app.ready()?;
    check_texts(app, &texts)?;
    let bytes: usize = texts.iter().map(String::len).sum();
    let few = texts.len() <= INTERACTIVE_MAX && bytes <= INTERACTIVE_BYTES_MAX;
    let lane = if few { Lane::Interactive } else { Lane::Bulk };
    embed_in(app, texts, lane).await
}

/// Embeds texts in a lane.
pub(crate) async fn embed_in(
    app: &AppState,
    texts: Vec<String>,
    lane: Lane,
) -> Result<Embeddings, ApiError> {
    let limit_ms = app.settings.limits.request_ms;
    let options = EmbedOptions {
        lane,
        deadline: Instant::now().checked_add(Duration::from_millis(limit_ms)),
        ..EmbedOptions::default()
    };
    let ticket = app.engine.submit(texts, &options)?;
    within(limit_ms, ticket).await?.map_err(ApiError::from)
}

/// Embeds one text.
pub(crate) async fn embed_one(app: &AppState, text: String) -> Result<Embeddings, ApiError> {
    embed(app, vec![text]).await
}

/// Refuses more texts, or longer ones, than the limits allow.
pub(crate) fn check_texts(app: &AppState, texts: &[String]) -> Result<(), ApiError> {
    let limits = &app.settings.limits;
    if texts.len() > limits.texts_max {
        let (found, max) = (texts.len(), limits.texts_max);
        let detail = format!("the request has {found} texts, and the limit is {max}");
        return Err(ApiError::too_large(detail, "texts_max"));
    }
    let max = limits.text_bytes_max.0;
    match texts.iter().position(|text| text.len() as u64 > max) {
        None => Ok(()),
        Some(at) => {
            let found = texts[at].len();
            let detail = format!("text {at} has {found} bytes, and the limit is {max}");
            Err(ApiError::too_large(detail, "text_bytes_max"))
        }
    }
}

/// Refuses to look for no rows, or for more than the limit allows.
pub(crate) fn check_k(app: &AppState, k: usize) -> Result<(), ApiError> {
    let max = app.settings.limits.k_max;
    match (1..=max).contains(&k) {
        true => Ok(()),
        false => Err(ApiError::invalid(
            "k",
            format!("k is {k}, and it may be 1 to {max}"),
        )),
    }
}

/// Does blocking work on a thread for it, when it is this request's turn. Once begun it is finished,
/// whether or not the caller still waits.
pub(crate) async fn blocking<T: Send + 'static>(
    app: &AppState,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let turn = turn(app).await?;
    let work = move || {
        // Given back when the work ends, not when its caller goes.
        let _turn = turn;
        work()
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ApiError::internal(&error))?
}

async fn turn(app: &AppState) -> Result<OwnedSemaphorePermit, ApiError> {
    if let Ok(turn) = app.turns.clone().try_acquire_owned() {
        return Ok(turn);
    }
    let limits = &app.settings.limits;
    let _waiting = Waiting::among(&app.waiting, limits.blocking_queue_max)?;
    let turn = within(limits.request_ms, app.turns.clone().acquire_owned()).await?;
    turn.map_err(|error| ApiError::internal(&error))
}

/// Waits for something, but not longer than a request may take.
pub(crate) async fn within<T>(
    limit_ms: u64,
    future: impl Future<Output = T>,
) -> Result<T, ApiError> {
    let limit = Duration::from_millis(limit_ms);
    tokio::time::timeout(limit, future).await.map_err(|_| {
        let detail = format!("the request was not done within {limit_ms} ms");
        ApiError::unavailable("deadline", detail)
    })
}

/// One more that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize, max: usize) -> Result<Self, ApiError> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(count);
        match before >= max {
            true => Err(ApiError::busy(format!("{before} requests wait already"), 1)),
            false => Ok(waiting),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
