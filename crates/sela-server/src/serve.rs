//! A whole server, from the first key to the last answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sela::Engine;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::auth::Role;
use crate::config::{ConfigError, Settings};
use crate::keys::{KeyError, NewKey};
use crate::listen::Listen;
use crate::routes;
use crate::shutdown::{Asked, Signals};
use crate::state::{AppState, key_file};
use crate::tls::{Tls, TlsError};

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys cannot be read, or the first cannot be made.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address is not to be had.
    #[error("cannot listen on {bind}")]
    Bind {
        /// The address.
        bind: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// Anybody could come, and nobody has a key.
    #[error("there are no keys, so nobody could use what listens on {bind}")]
    NoKeys {
        /// The address.
        bind: SocketAddr,
    },
    /// The system gives no threads or no signals.
    #[error("the server cannot run")]
    Runtime(#[source] io::Error),
    /// The model or the device cannot be used.
    #[error(transparent)]
    Engine(#[from] sela::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("something listens there already; choose another with `--bind`".to_owned())
            }
            Self::NoKeys { .. } => Some("make one with `sela key create`".to_owned()),
            Self::Engine(error) => error.hint(),
            _ => None,
        }
    }
}

/// What a server tells of itself while it runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// There were no keys, so this one was made. It is told only now.
    FirstKey(&'a NewKey),
    /// Connections are accepted.
    Listening {
        /// Where.
        address: SocketAddr,
        /// Whether with TLS.
        tls: bool,
    },
    /// The model is read, and everything can be asked for.
    Ready {
        /// Since the server began to start.
        took: Duration,
    },
    /// Nothing new is begun, what runs is finished.
    Draining,
    /// Certificates and keys were read again, or could not be.
    Reloaded(Result<(), String>),
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that ran was finished.
    Drained,
    /// It was told a second time to stop, or what ran took too long.
    AtOnce,
}

/// Runs a server until a signal stops it. It has a runtime and threads of its own.
///
/// The engine's home holds the keys and the audit log. `watch` hears what happens.
pub fn serve(
    engine: Engine,
    settings: Settings,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Stopped, Error> {
    let app = AppState::new(engine, settings)?;
    first_key(&app, watch)?;
    let tls = Tls::open(&app.settings.tls)?.map(Arc::new);
    let limits = &app.settings.limits;
    raise_file_limit(limits.connections_max as u64 + FILES_BESIDE);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(limits.blocking_max + BLOCKING_BESIDE)
        .thread_name("sela-server")
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let stopped = runtime.block_on(run(&app, tls, watch));
    match stopped {
        // Only what nobody waits for any more can still run now.
        Ok(Stopped::Drained) => runtime.shutdown_timeout(Duration::from_secs(1)),
        _ => runtime.shutdown_background(),
    }
    stopped
}

/// How long a stopping server waits for the collector of traces.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// Threads for blocking work besides the turns: parsing, warming up, looking up names.
const BLOCKING_BESIDE: usize = 16;
/// Open files besides connections: collections and their segments.
const FILES_BESIDE: u64 = 1024;

/// Threads for requests: their own work is small.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8))
}

/// Lets this process have as many files as its limits say, as far as the system allows.
fn raise_file_limit(wanted: u64) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let now = getrlimit(Resource::Nofile);
        let most = now.maximum.unwrap_or(u64::MAX).min(wanted);
        if now.current.is_some_and(|current| current < most) {
            let raised = Rlimit {
                current: Some(most),
                maximum: now.maximum,
            };
            if setrlimit(Resource::Nofile, raised).is_err() {
                tracing::warn!(wanted, "the limit of open files cannot be raised");
            }
        }
    }
    #[cfg(not(unix))]
    let _ = wanted;
}

/// Makes the first key on a first start; refuses to listen where nobody could get in.
fn first_key(app: &AppState, watch: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
    let server = &app.settings.server;
    if server.no_auth || app.jwt.is_some() || !app.keys.is_empty() {
        return Ok(());
    }
    let file = key_file(&app.settings, &app.engine);
    if file.path().exists() {
        // All keys were revoked: that is not undone by a restart.
        return match server.bind.ip().is_loopback() {
            true => Ok(()),
            false => Err(Error::NoKeys { bind: server.bind }),
        };
    }
    let made = file.create("first", Role::Admin)?;
    if let Err(error) = app.audit.created(&made.key, "the first start") {
        tracing::error!(%error, "the audit log cannot be written");
    }
    app.keys.look();
    watch(Event::FirstKey(&made));
    Ok(())
}

async fn run(
    app: &AppState,
    tls: Option<Arc<Tls>>,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Stopped, Error> {
    let mut signals = Signals::listen().map_err(Error::Runtime)?;
    let bind = app.settings.server.bind;
    let listener = bound(bind).map_err(|source| Error::Bind { bind, source })?;
    let address = listener.local_addr().map_err(Error::Runtime)?;
    let (drain, draining) = watch::channel(false);
    let limits = &app.settings.limits;
    let router = routes::router(app.clone());
    let connections = app.metrics.connections.clone();
    let listen = Listen::new(router, tls.clone(), limits, draining, connections);
    let mut serving = tokio::spawn(listen.run(listener, limits.connections_max));
    watch(Event::Listening {
        address,
        tls: tls.is_some(),
    });
    let (finish, finished) = watch::channel(false);
    let exporting = app.exporter().map(|e| tokio::spawn(e.run(finished)));
    let warm = app.clone();
    let mut warming = tokio::task::spawn_blocking(move || warm.warm_up());
    let mut warmed = false;
    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            warm = &mut warming, if !warmed => {
                warm.map_err(|error| Error::Runtime(error.into()))??;
                warmed = true;
                watch(Event::Ready { took: app.started.elapsed() });
                continue;
            }
        };
        match asked {
            Asked::Reload => watch(Event::Reloaded(reload(app, tls.as_deref()))),
            Asked::Stop => break,
        }
    }
    app.drain();
    watch(Event::Draining);
    // Nobody listens any more if the task has ended already.
    let _ = drain.send(true);
    let limit = tokio::time::sleep(Duration::from_millis(limits.drain_ms));
    tokio::pin!(limit);
    loop {
        tokio::select! {
            _ = &mut serving => break,
            () = &mut limit => return Ok(Stopped::AtOnce),
            asked = signals.next() => if asked == Asked::Stop {
                return Ok(Stopped::AtOnce);
            },
        }
    }
    let _ = finish.send(true);
    if let Some(exporting) = exporting {
        // A collector that is away does not keep the server.
        let _ = tokio::time::timeout(LAST_SPANS, exporting).await;
    }
    Ok(Stopped::Drained)
}

/// Connections that may wait to be accepted. A wave of them comes faster than a busy machine lets
/// the server run; one for which there is no room is lost without a word where the system answers
/// floods with cookies. Systems have limits of their own, often this.
const BACKLOG: u32 = 4096;

fn bound(bind: SocketAddr) -> io::Result<TcpListener> {
    let socket = match bind {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart does not wait for what is left of connections. Windows means another thing by it.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(bind)?;
    socket.listen(BACKLOG)
}

fn reload(app: &AppState, tls: Option<&Tls>) -> Result<(), String> {
    app.keys.look();
    if let Some(jwt) = &app.jwt {
        jwt.look();
    }
    tls.map_or(Ok(()), |tls| tls.reload().map_err(|e| e.to_string()))
}
