//! What is around every request: its id, its key, its line in the log, and errors in the path's
//! shape.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use crate::audit::Refused;
use crate::auth::admit;
use crate::error::{ApiError, Shape};
use crate::state::AppState;
use crate::telemetry::Seen;

/// The header that names a request.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken from a caller.
const ID_MAX: usize = 128;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Frames a request, and lets it past if it may.
pub(crate) async fn frame(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers());
    let shape = Shape::of(request.uri().path());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let seen = Seen::begin(&app, &request, &id);
    let span = seen.span();
    let (caller, mut response) = match span.in_scope(|| admit(&app, &mut request)) {
        Ok(caller) => (caller, next.run(request).instrument(span).await),
        Err(error) => (None, error.into_response()),
    };
    let error = response.extensions_mut().remove::<Box<ApiError>>();
    if let Some(error) = &error {
        let allow = response.headers_mut().remove(header::ALLOW);
        if shape != Shape::Own {
            response = error.respond(shape);
        }
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if matches!(
            error.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) {
            app.metrics.http.refuse(error.code);
            app.audit.refused(&Refused {
                status: error.status.as_u16(),
                code: error.code,
                peer,
                method: method.as_str(),
                path: uri.path(),
                who: caller.as_ref().map(|caller| &*caller.who),
                request_id: id.to_str().unwrap_or_default(),
            });
        }
    }
    seen.end(&mut response, peer, caller.as_ref());
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
    HeaderValue::try_from(made_id()).unwrap_or(HeaderValue::from_static("unnamed"))
}

/// A request id of ours.
pub(crate) fn made_id() -> String {
    /// Tells this process's requests from another's.
    static PROCESS: LazyLock<u64> =
        LazyLock::new(|| getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id())));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}{next:012x}", *PROCESS)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::request_id;

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
}
