//! What can be seen of a request from outside: its line in the log, its counts, its span.
//!
//! Of what callers send, none of this tells more than a method, a route and their ids: no key, no
//! text, no vector.

mod export;
mod otlp;
mod trace;

use std::net::SocketAddr;
use std::time::Instant;

use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;

use crate::auth::Caller;
use crate::state::AppState;
pub(crate) use export::{Exporter, Spans, open};
use otlp::{Span, nanos};
pub(crate) use trace::Trace;

/// The header by which traces go on, as the W3C writes it.
pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The route of paths that do not exist.
const NO_ROUTE: &str = "none";

/// A request under way. One that is dropped before its end was abandoned by its caller.
pub(crate) struct Seen {
    app: AppState,
    began: Instant,
    method: Method,
    route: Option<MatchedPath>,
    trace: Trace,
    id: HeaderValue,
    ended: bool,
}

impl Seen {
    /// A request has come.
    pub(crate) fn begin(app: &AppState, request: &Request, id: &HeaderValue) -> Self {
        app.metrics.http.begin();
        let parent = request.headers().get(&TRACEPARENT);
        let share = match app.spans.is_on() {
            true => app.settings.telemetry.otlp_share,
            false => 0.0,
        };
        Self {
            app: app.clone(),
            began: Instant::now(),
            method: request.method().clone(),
            route: request.extensions().get().cloned(),
            trace: Trace::of(parent.and_then(|p| p.to_str().ok()), share),
            id: id.clone(),
            ended: false,
        }
    }

    /// The span around the work on it: what is logged meanwhile names the request.
    pub(crate) fn span(&self) -> tracing::Span {
        tracing::info_span!(
            "request",
            request_id = self.id(),
            trace_id = %self.trace.id,
            span_id = %self.trace.span,
        )
    }

    /// It is answered.
    pub(crate) fn end(
        mut self,
        response: &mut Response,
        peer: Option<SocketAddr>,
        caller: Option<&Caller>,
    ) {
        self.ended = true;
        let took = self.began.elapsed();
        let status = response.status();
        self.app
            .metrics
            .http
            .end(&self.method, self.route(), status, took);
        tracing::info!(
            target: "sela_server::access",
            request_id = self.id(),
            trace_id = %self.trace.id,
            method = self.method.as_str(),
            route = self.route(),
            status = status.as_u16(),
            ms = took.as_secs_f64() * 1e3,
            bytes = response.body().size_hint().exact(),
            key = caller.map(|caller| &*caller.who),
            peer = peer.map(tracing::field::display),
            "answered"
        );
        if self.trace.came || self.trace.kept {
            let header = self.trace.header();
            if let Ok(header) = HeaderValue::try_from(header) {
                response.headers_mut().insert(TRACEPARENT.clone(), header);
            }
        }
        self.send(Some(status.as_u16()));
    }

    fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str)
    }

    /// Hands the span to the exporter. `None`: there was no answer.
    fn send(&self, status: Option<u16>) {
        if !self.trace.kept {
            return;
        }
        let end = nanos();
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.app.spans.send(Span {
            trace: self.trace.clone(),
            method: self.method.as_str().to_owned(),
            route: self.route().to_owned(),
            request: self.id().to_owned(),
            status,
            start: end.saturating_sub(took),
            end,
        });
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.app.metrics.http.abandon();
        tracing::info!(
            target: "sela_server::access",
            request_id = self.id(),
            trace_id = %self.trace.id,
            method = self.method.as_str(),
            route = self.route(),
            ms = self.began.elapsed().as_secs_f64() * 1e3,
            "the caller went away"
        );
        self.send(None);
    }
}
