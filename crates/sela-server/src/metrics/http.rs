//! Requests and connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::page::Page;
use crate::heap::Ended;

/// Upper bounds in seconds: from a search of a small collection to the limit of a request.
const SECONDS: [f64; 15] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// What a request is counted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

/// Requests.
#[derive(Debug)]
pub(crate) struct Http {
    requests: Family<Asked, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    abandoned: Counter,
    refusals: Family<Code, Counter>,
}

impl Http {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let http = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Gauge::default(),
            abandoned: Counter::default(),
            refusals: Family::default(),
        };
        registry.register(
            "sela_http_requests",
            "Requests answered, by route and class of status; paths that do not exist are one route",
            http.requests.clone(),
        );
        registry.register(
            "sela_http_request_duration_seconds",
            "From a request's head to its answer's; a long answer is sent after that",
            http.seconds.clone(),
        );
        registry.register(
            "sela_http_requests_in_flight",
            "Requests under way",
            http.in_flight.clone(),
        );
        registry.register(
            "sela_http_requests_abandoned",
            "Requests whose caller went away before the answer",
            http.abandoned.clone(),
        );
        registry.register(
            "sela_auth_refusals",
            "Requests refused for their key, a token or a role",
            http.refusals.clone(),
        );
        http
    }

    /// A request has come.
    pub(crate) fn begin(&self) {
        self.in_flight.inc();
    }

    /// It is answered.
    pub(crate) fn end(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        self.in_flight.dec();
        let asked = Asked {
            method: method_of(method),
            route: route.to_owned(),
            status: class_of(status),
        };
        self.requests.get_or_create(&asked).inc();
        let route = Route { route: asked.route };
        self.seconds
            .get_or_create(&route)
            .observe(took.as_secs_f64());
    }

    /// Nobody waits for its answer any more.
    pub(crate) fn abandon(&self) {
        self.in_flight.dec();
        self.abandoned.inc();
    }

    /// It was refused.
    pub(crate) fn refuse(&self, code: &'static str) {
        self.refusals.get_or_create(&Code { code }).inc();
    }
}

/// Anybody can make up methods.
fn method_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn class_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        // What callers of a busy server must tell from their own faults.
        429 => "429",
        400..=499 => "4xx",
        503 => "503",
        _ => "5xx",
    }
}

/// Connections; clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    ended: Ended,
}

/// A connection, until it is dropped.
pub(crate) struct Open(Connections);

impl Connections {
    /// One more.
    pub(crate) fn open(&self) -> Open {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// Those that have ended.
    pub(crate) fn ended(&self) -> Ended {
        self.0.ended.clone()
    }

    /// One too many.
    pub(crate) fn refuse(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn tell(&self, page: &mut Page) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        page.gauge(
            "sela_connections",
            "Connections that are open",
            read(&self.0.open),
        );
        page.counter(
            "sela_connections_accepted",
            "Connections that were accepted",
            read(&self.0.accepted),
        );
        page.counter(
            "sela_connections_refused",
            "Connections that were one too many",
            read(&self.0.refused),
        );
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.0.ended.note();
    }
}
