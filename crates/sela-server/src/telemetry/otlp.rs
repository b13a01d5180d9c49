//! Spans as OpenTelemetry's protocol writes them: an `ExportTraceServiceRequest` in protobuf.
//!
//! The message is small and frozen, and the crates that know all of the protocol would bring some
//! sixty others. The numbers are those of `opentelemetry/proto/trace/v1/trace.proto`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::trace::Trace;

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Span {
    pub(super) trace: Trace,
    pub(super) method: String,
    pub(super) route: String,
    pub(super) request: String,
    /// Nothing when the caller went away.
    pub(super) status: Option<u16>,
    /// Nanoseconds since 1970.
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Nanoseconds since 1970.
pub(super) fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// `Span.kind` of what a server did.
const SERVER: u64 = 2;
/// `Status.code` of what failed.
const FAILED: u64 = 2;
/// `Span.flags`: the caller is elsewhere, and that is known.
const REMOTE: u32 = 0x300;

/// All spans in one message.
pub(super) fn encode(spans: &[Span]) -> Vec<u8> {
    let mut resource = Message::default();
    resource.message(1, attribute("service.name", &"sela"));
    resource.message(1, attribute("service.version", &env!("CARGO_PKG_VERSION")));
    let mut scope = Message::default();
    scope.bytes(1, b"sela-server");
    let mut of_scope = Message::default();
    of_scope.message(1, scope);
    for span in spans {
        of_scope.message(2, encode_span(span));
    }
    let mut of_resource = Message::default();
    of_resource.message(1, resource);
    of_resource.message(2, of_scope);
    let mut request = Message::default();
    request.message(1, of_resource);
    request.0
}

fn encode_span(span: &Span) -> Message {
    let mut to = Message::default();
    to.bytes(1, &span.trace.id.0);
    to.bytes(2, &span.trace.span.0);
    if let Some(parent) = &span.trace.parent {
        to.bytes(4, &parent.0);
    }
    to.bytes(5, format!("{} {}", span.method, span.route).as_bytes());
    to.number(6, SERVER);
    to.fixed64(7, span.start);
    to.fixed64(8, span.end);
    to.message(9, attribute("http.request.method", &span.method));
    to.message(9, attribute("http.route", &span.route));
    to.message(9, attribute("sela.request_id", &span.request));
    if let Some(status) = span.status {
        let status = i64::from(status);
        to.message(9, attribute("http.response.status_code", &status));
    }
    // As the conventions for HTTP say: a caller's fault is not the server's failure.
    if span.status.is_none_or(|status| status >= 500) {
        let mut failed = Message::default();
        failed.number(3, FAILED);
        to.message(15, failed);
    }
    if span.trace.parent.is_some() {
        to.fixed32(16, REMOTE | 1);
    }
    to
}

/// A `KeyValue`.
fn attribute(key: &str, value: &dyn AnyValue) -> Message {
    let mut of_value = Message::default();
    value.put(&mut of_value);
    let mut pair = Message::default();
    pair.bytes(1, key.as_bytes());
    pair.message(2, of_value);
    pair
}

trait AnyValue {
    fn put(&self, to: &mut Message);
}

impl AnyValue for &str {
    fn put(&self, to: &mut Message) {
        to.bytes(1, self.as_bytes());
    }
}

impl AnyValue for String {
    fn put(&self, to: &mut Message) {
        to.bytes(1, self.as_bytes());
    }
}

impl AnyValue for i64 {
    fn put(&self, to: &mut Message) {
        to.number(3, self.cast_unsigned());
    }
}

/// A protobuf message that is being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, value: u32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn message(&mut self, field: u64, message: Self) {
        self.bytes(field, &message.0);
    }
}
