//! What is around every request: its id, its line in the log, and errors in the path's shape.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::audit::Refused;
use crate::auth::Caller;
use crate::error::{ApiError, Shape};
use crate::state::AppState;

/// The header that names a request.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken from a caller.
const ID_MAX: usize = 128;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Frames a request.
pub(crate) async fn frame(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let shape = Shape::of(request.uri().path());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let trace = trace_id(request.headers()).unwrap_or_default();
    let span = tracing::info_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        trace_id = trace,
        method = method.as_str(),
        path = uri.path(),
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    let error = response.extensions_mut().remove::<Box<ApiError>>();
    if let Some(error) = &error {
        let allow = response.headers_mut().remove(axum::http::header::ALLOW);
        if shape != Shape::Own {
            response = error.respond(shape);
        }
        if let Some(allow) = allow {
            response
                .headers_mut()
                .insert(axum::http::header::ALLOW, allow);
        }
        if matches!(
            error.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) {
            app.audit.refused(&Refused {
                status: error.status.as_u16(),
                code: error.code,
                peer,
                method: method.as_str(),
                path: uri.path(),
                who: response.extensions().get::<Caller>().map(|c| &*c.who),
                request_id: id.to_str().unwrap_or_default(),
            });
        }
    }
    let status = response.status().as_u16();
    let ms = began.elapsed().as_secs_f64() * 1e3;
    tracing::info!(parent: &span, status, ms, "answered");
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    response
}

/// The caller's id for the request if it is a plain one, else one of ours.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b);
    if let Some(id) = headers.get(&REQUEST_ID) {
        let bytes = id.as_bytes();
        if (1..=ID_MAX).contains(&bytes.len()) && bytes.iter().all(plain) {
            return id.clone();
        }
    }
    /// Tells this process's requests from another's.
    static PROCESS: LazyLock<u64> =
        LazyLock::new(|| getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!(
        "{:016x}{:012x}",
        *PROCESS,
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("unnamed"))
}

/// The id of the trace that a request is part of, by the W3C's header `traceparent`.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = parent.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let whole = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    let known = version != "ff" && (version != "00" || parts.next().is_none());
    (whole && known && !zero(trace) && !zero(span)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{request_id, trace_id};

    #[test]
    fn plain_request_ids_are_taken_and_others_replaced() {
        let of = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_str(id).unwrap());
            request_id(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(of("abc-1.2_3"), "abc-1.2_3");
        for bad in ["", "a b", "<script>", &"x".repeat(129)] {
            let made = of(bad);
            assert_ne!(made, bad);
            assert_eq!(made.len(), 28);
        }
        assert_ne!(of(""), of(""));
    }

    #[test]
    fn traces_are_taken_as_the_w3c_writes_them() {
        let of = |parent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_str(parent).unwrap());
            trace_id(&headers).map(str::to_owned)
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        assert_eq!(of(&parent).as_deref(), Some(trace));
        let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let more = format!("{parent}-x");
        for bad in ["", "00", &zeros, &more, &parent.to_uppercase()] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
