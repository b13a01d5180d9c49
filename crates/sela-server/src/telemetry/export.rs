//! Sends spans to a collector, over HTTP and beside the requests: a collector that is slow or away
//! costs spans, never a request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Uri, header, uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::otlp::{self, Span};
use crate::config::ConfigError;

/// Spans that wait for the collector at most; more are dropped.
const WAITING_MAX: usize = 4096;
/// Spans of one message.
const TOGETHER_MAX: usize = 512;
/// How long a span waits for others.
const WAIT: Duration = Duration::from_secs(2);
/// How long the collector may take.
const SEND: Duration = Duration::from_secs(10);

/// Where spans are handed in; without a collector, nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans {
    to: Option<mpsc::Sender<Span>>,
    lost: Arc<AtomicU64>,
}

impl Spans {
    /// Whether there is a collector.
    pub(crate) fn is_on(&self) -> bool {
        self.to.is_some()
    }

    pub(super) fn send(&self, span: Span) {
        if self
            .to
            .as_ref()
            .is_some_and(|to| to.try_send(span).is_err())
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Spans that the collector did not get.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What sends them.
pub(crate) struct Exporter {
    from: mpsc::Receiver<Span>,
    to: Uri,
    tls: Option<TlsConnector>,
    lost: Arc<AtomicU64>,
}

/// The two ends for a collector at an address, if one is given.
pub(crate) fn open(endpoint: Option<&str>) -> Result<(Spans, Option<Exporter>), ConfigError> {
    let Some(endpoint) = endpoint else {
        return Ok((Spans::default(), None));
    };
    let wrong = |reason: String| ConfigError::value("telemetry.otlp_endpoint", reason);
    let to = address(endpoint).map_err(wrong)?;
    let tls = match to.scheme_str() {
        Some("https") => Some(connector().map_err(wrong)?),
        _ => None,
    };
    let (sender, from) = mpsc::channel(WAITING_MAX);
    let spans = Spans {
        to: Some(sender),
        lost: Arc::default(),
    };
    let exporter = Exporter {
        from,
        to,
        tls,
        lost: spans.lost.clone(),
    };
    Ok((spans, Some(exporter)))
}

/// The collector's address for traces: as OpenTelemetry says, below the one that is given.
fn address(endpoint: &str) -> Result<Uri, String> {
    let trimmed = endpoint.trim_end_matches('/');
    let whole = match trimmed.ends_with("/v1/traces") {
        true => trimmed.to_owned(),
        false => format!("{trimmed}/v1/traces"),
    };
    let uri: Uri = whole.parse().map_err(|e: uri::InvalidUri| e.to_string())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(format!(
            "`{endpoint}` is no address such as http://127.0.0.1:4318"
        )),
    }
}

fn connector() -> Result<TlsConnector, String> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_no_client_auth()).into())
}

impl Exporter {
    /// Sends spans until the server is done and all are sent.
    pub(crate) async fn run(mut self, mut done: tokio::sync::watch::Receiver<bool>) {
        let mut spans = Vec::with_capacity(TOGETHER_MAX);
        let mut failing = false;
        loop {
            let last = tokio::select! {
                got = self.from.recv_many(&mut spans, TOGETHER_MAX) => got == 0,
                _ = done.wait_for(|done| *done) => true,
            };
            if last {
                self.from.close();
                while self.from.recv_many(&mut spans, TOGETHER_MAX).await > 0 {}
            } else {
                self.gather(&mut spans, &mut done).await;
            }
            for together in spans.chunks(TOGETHER_MAX) {
                let sent = self.send(together).await;
                if let Err(error) = &sent {
                    let lost = together.len() as u64;
                    self.lost.fetch_add(lost, Ordering::Relaxed);
                    if !failing {
                        let to = self.to.to_string();
                        tracing::warn!(%error, to, "the collector of traces takes no spans");
                    }
                }
                failing = sent.is_err();
            }
            spans.clear();
            if last {
                return;
            }
        }
    }

    /// Waits for others, but not long.
    async fn gather(
        &mut self,
        spans: &mut Vec<Span>,
        done: &mut tokio::sync::watch::Receiver<bool>,
    ) {
        let full = async {
            while spans.len() < TOGETHER_MAX {
                let room = TOGETHER_MAX - spans.len();
                if self.from.recv_many(spans, room).await == 0 {
                    break;
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(WAIT, full) => {}
            _ = done.wait_for(|done| *done) => {}
        }
    }

    async fn send(&self, spans: &[Span]) -> io::Result<()> {
        let sent = tokio::time::timeout(SEND, self.post(otlp::encode(spans))).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn post(&self, body: Vec<u8>) -> io::Result<()> {
        let host = self.to.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = match (self.to.port_u16(), &self.tls) {
            (Some(port), _) => port,
            (None, Some(_)) => 443,
            (None, None) => 80,
        };
        let stream = TcpStream::connect((bare, port)).await?;
        match &self.tls {
            None => self.post_on(stream, body).await,
            Some(tls) => {
                let name = rustls::pki_types::ServerName::try_from(bare.to_owned());
                let name = name.map_err(io::Error::other)?;
                self.post_on(tls.connect(name, stream).await?, body).await
            }
        }
    }

    async fn post_on<S>(&self, stream: S, body: Vec<u8>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let request = Request::post(self.to.path())
            .header(
                header::HOST,
                self.to.authority().map_or("", uri::Authority::as_str),
            )
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(
                header::USER_AGENT,
                concat!("sela/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONTENT_LENGTH, body.len())
            .body(Body::from(Bytes::from(body)))
            .map_err(io::Error::other)?;
        let answered = async { sender.send_request(request).await };
        // The connection does the work; it ends with its answer, which is not read further.
        let response = tokio::select! {
            response = answered => response,
            ended = connection => Err(ended.err().ok_or(io::ErrorKind::UnexpectedEof)?),
        };
        let status = response.map_err(io::Error::other)?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("it answers {status}"))),
        }
    }
}
