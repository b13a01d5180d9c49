//! The accept loop: a cap on connections, time limits on slow clients, and an orderly end.

mod stall;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::config::Limits;
use crate::frame::{self, Peer};
use crate::metrics::Connections;
use crate::tls::Tls;
use stall::Stall;

/// Most bytes of a request's head.
const HEAD_MAX: usize = 64 << 10;
/// What a client hears that is one too many; a request id and the end of the head follow.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\
    connection: close\r\nx-request-id: ";
/// The pause after the system had no room for another connection. No signal tells of new room.
const NO_ROOM: Duration = Duration::from_millis(50);

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Listen {
    pub(crate) router: Router,
    pub(crate) connections: Connections,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) head: Duration,
    pub(crate) stall: Duration,
    /// Becomes true when the server stops.
    pub(crate) draining: watch::Receiver<bool>,
}

impl Listen {
    pub(crate) fn new(
        router: Router,
        tls: Option<Arc<Tls>>,
        limits: &Limits,
        draining: watch::Receiver<bool>,
        connections: Connections,
    ) -> Self {
        Self {
            router,
            connections,
            tls,
            head: Duration::from_millis(limits.head_ms),
            stall: Duration::from_millis(limits.body_ms),
            draining,
        }
    }

    /// Serves connections until the server drains; then until the last has ended.
    pub(crate) async fn run(mut self, listener: TcpListener, connections_max: usize) {
        let connections = connections_max.min(u32::MAX as usize);
        let room = Arc::new(Semaphore::new(connections));
        let tending = tokio::spawn(self.connections.ended().tend());
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.draining.wait_for(|&draining| draining) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => match room.clone().try_acquire_owned() {
                    Ok(place) => {
                        tokio::spawn(self.clone().connection(stream, peer, place));
                    }
                    Err(_) => {
                        self.connections.refuse();
                        refuse(&stream, self.tls.is_some());
                    }
                },
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted for now");
                    tokio::time::sleep(NO_ROOM).await;
                }
            }
        }
        drop(listener);
        // All places are free again when the last connection has ended.
        let _ = room.acquire_many(connections as u32).await;
        tending.abort();
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, _place: OwnedSemaphorePermit) {
        let _open = self.connections.open();
        // Answers are written whole: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let ended = match &self.tls {
            None => self.serve(stream, peer).await,
            Some(tls) => {
                let accept = TlsAcceptor::from(tls.config()).accept(stream);
                match tokio::time::timeout(self.head, accept).await {
                    Ok(Ok(stream)) => self.serve(stream, peer).await,
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, %error, "a TLS handshake failed");
                        return;
                    }
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }

    async fn serve<S>(&self, stream: S, peer: SocketAddr) -> hyper::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            answer(self.router.clone(), request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(Stall::new(stream, self.stall)), service);
        let mut connection = pin!(connection);
        let mut draining = self.draining.clone();
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = draining.wait_for(|&draining| draining) => {}
        }
        // An idle connection ends now, a busy one after its answer.
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    router.oneshot(request).await
}

/// Tells a client that it is one too many, if that takes no time.
fn refuse(stream: &TcpStream, tls: bool) {
    if !tls {
        let _ = stream.try_write(format!("{FULL}{}\r\n\r\n", frame::made_id()).as_bytes());
    }
}

/// Whether only one connection failed, not the listener.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
