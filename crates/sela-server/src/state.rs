//! What all requests share.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sela::{Collection, CollectionOptions, Database, Engine};
use tokio::sync::Semaphore;

use crate::audit::{AUDIT_FILE, Audit};
use crate::bench::Bench;
use crate::config::{ConfigError, Settings};
use crate::error::ApiError;
use crate::heap;
use crate::jwt::Jwt;
use crate::keys::{KeyFile, Keys};
use crate::metrics::Metrics;
use crate::telemetry::{self, Exporter, Spans};

/// The collection that `/store_embedding` stores in.
pub(crate) const STORED: &str = "embeddings";

/// What all requests share; clones are the same.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

/// What all requests share.
#[doc(hidden)]
pub struct Inner {
    pub(crate) engine: Engine,
    pub(crate) settings: Settings,
    pub(crate) keys: Keys,
    pub(crate) jwt: Option<Jwt>,
    pub(crate) audit: Audit,
    pub(crate) started: Instant,
    pub(crate) metrics: Metrics,
    /// Where spans of requests go.
    pub(crate) spans: Spans,
    /// What sends them, until it runs.
    exporter: Mutex<Option<Exporter>>,
    phase: AtomicU8,
    /// Collections that were asked for: they stay open, as opening one for each request would cost.
    open: Mutex<Open>,
    /// What `/load_database` has loaded.
    pub(crate) database: RwLock<Option<Database>>,
    /// The measurement or check under way.
    pub(crate) bench: Bench,
    backends: Mutex<Option<(Instant, Arc<Backends>)>>,
    model: OnceLock<ModelFacts>,
    /// Held by whoever makes or deletes a snapshot.
    snapshots: Mutex<()>,
    /// Turns of work that blocks its thread.
    pub(crate) turns: Arc<Semaphore>,
    /// Requests that wait for a turn.
    pub(crate) waiting: AtomicUsize,
    /// KiB that large bodies may still take.
    pub(crate) bodies: Arc<Semaphore>,
}

/// Where a server is between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The model is being read.
    Starting = 0,
    /// Everything can be asked for.
    Ready = 1,
    /// What runs is finished, and nothing is begun.
    Draining = 2,
}

impl Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState")
            .field("settings", &self.settings)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

impl AppState {
    /// The state of a server over an engine, whose home holds keys and the audit log.
    pub fn new(engine: Engine, settings: Settings) -> Result<Self, ConfigError> {
        settings.check()?;
        let home = engine.options().home.clone();
        let limits = &settings.limits;
        let path = key_file(&settings, &engine);
        let keys =
            Keys::open(path.path()).map_err(|reason| ConfigError::value("auth.keys", reason))?;
        let audit = Audit::new(
            &home.join(AUDIT_FILE),
            limits.audit_refusals_max,
            limits.audit_bytes_max.0,
        );
        let endpoint = settings.telemetry.otlp_endpoint.as_deref();
        let (spans, exporter) = telemetry::open(endpoint)?;
        let bodies = (limits.bodies_bytes_max.0 >> 10).min(u64::from(u32::MAX)) as usize;
        Ok(Self(Arc::new(Inner {
            keys,
            jwt: Jwt::open(&settings.auth.jwt)?,
            audit,
            started: Instant::now(),
            metrics: Metrics::default(),
            spans,
            exporter: Mutex::new(exporter),
            phase: AtomicU8::new(Phase::Starting as u8),
            open: Mutex::default(),
            database: RwLock::new(None),
            bench: Bench::default(),
            backends: Mutex::new(None),
            model: OnceLock::new(),
            snapshots: Mutex::default(),
            turns: Arc::new(Semaphore::new(limits.blocking_max)),
            waiting: AtomicUsize::new(0),
            bodies: Arc::new(Semaphore::new(bodies.min(Semaphore::MAX_PERMITS))),
            engine,
            settings,
        })))
    }

    /// Reads the model and opens the device now; after that the state is ready.
    pub fn warm_up(&self) -> sela::Result<()> {
        self.engine.warm_up()?;
        // One text through everything, so that no caller pays for what is made at the first.
        self.engine.embed("ready")?;
        let starting = Phase::Starting as u8;
        let _ = self.phase.compare_exchange(
            starting,
            Phase::Ready as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        // What opening the model took and nothing uses any more, some MiB.
        heap::trim();
        Ok(())
    }

    /// What sends spans, for the one that runs it.
    pub(crate) fn exporter(&self) -> Option<Exporter> {
        lock(&self.exporter).take()
    }

    pub(crate) fn drain(&self) {
        self.phase.store(Phase::Draining as u8, Ordering::Release);
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Refuses work while the model is being read.
    pub(crate) fn ready(&self) -> Result<(), ApiError> {
        match self.phase() {
            Phase::Starting => Err(ApiError::unavailable(
                "not_ready",
                "the server is starting: the model is being read",
            )),
            _ => Ok(()),
        }
    }

    /// A collection, open for reading and writing. Blocks.
    pub(crate) fn collection(&self, name: &str) -> Result<Collection, ApiError> {
        let mut open = lock(&self.open);
        if let Some(collection) = open.get(name)? {
            return Ok(collection);
        }
        let collection = self.engine.collection(name)?;
        Ok(open.keep(collection))
    }

    /// A new collection. Blocks.
    pub(crate) fn create(&self, name: &str, options: &CollectionOptions) -> Result<(), ApiError> {
        let mut open = lock(&self.open);
        open.get(name)?;
        let collection = self.engine.create(name, options)?;
        open.keep(collection);
        Ok(())
    }

    /// The same, made for the engine's model if there is none. Blocks.
    pub(crate) fn collection_or_new(&self, name: &str) -> Result<Collection, ApiError> {
        let mut open = lock(&self.open);
        if let Some(collection) = open.get(name)? {
            return Ok(collection);
        }
        let options = CollectionOptions::default();
        let collection = self.engine.collection_or_create(name, &options)?;
        Ok(open.keep(collection))
    }

    /// Deletes a collection once the requests that use it are done; none is let to it meanwhile.
    /// Blocks.
    pub(crate) fn delete(&self, name: &str) -> Result<(), ApiError> {
        let held = {
            let mut open = lock(&self.open);
            open.get(name)?;
            open.deleting.insert(name.to_owned());
            open.collections.remove(name)
        };
        drop(held);
        let deleted = self.engine.delete_within(name, DELETE_WAIT);
        lock(&self.open).deleting.remove(name);
        Ok(deleted?)
    }

    /// Leave to make or delete a snapshot: one at a time may. Blocks.
    pub(crate) fn snapshots(&self) -> MutexGuard<'_, ()> {
        lock(&self.snapshots)
    }

    /// The collection that `/store_embedding` stores in, if there is one. Blocks.
    pub(crate) fn stored(&self) -> Result<Option<Collection>, ApiError> {
        match self.collection(STORED) {
            Err(error) if error.code == "no_collection" => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// What does the work now, as of at most a fifth of a second ago.
    pub(crate) fn backends(&self) -> Arc<Backends> {
        let mut slot = lock(&self.backends);
        if let Some((when, backends)) = &*slot
            && when.elapsed() < BACKENDS_FOR
        {
            return backends.clone();
        }
        let backends = Arc::new(Backends::of(&self.engine.stats()));
        *slot = Some((Instant::now(), backends.clone()));
        backends
    }

    /// What is known of the model, once it is read.
    pub(crate) fn model(&self) -> Result<&ModelFacts, ApiError> {
        self.ready()?;
        if let Some(model) = self.model.get() {
            return Ok(model);
        }
        let encoder = self.engine.encoder()?;
        Ok(self.model.get_or_init(|| ModelFacts {
            name: encoder.space().model,
            dim: encoder.dim(),
            tokens_max: encoder.tokens_max(),
        }))
    }
}

/// How long it is taken for true what does the work.
const BACKENDS_FOR: Duration = Duration::from_millis(200);
/// Most collections that stay open without anybody using them.
const OPEN_MAX: usize = 256;

/// How long a collection that is to be deleted waits for the requests that use it.
const DELETE_WAIT: Duration = Duration::from_secs(5);

/// Collections that are open, and those on their way out.
#[derive(Debug, Default)]
struct Open {
    collections: HashMap<String, Collection>,
    deleting: HashSet<String>,
}

impl Open {
    fn get(&self, name: &str) -> Result<Option<Collection>, ApiError> {
        if self.deleting.contains(name) {
            let detail = format!("the collection `{name}` is being deleted");
            return Err(ApiError::conflict("collection_locked", detail));
        }
        Ok(self.collections.get(name).cloned())
    }

    fn keep(&mut self, collection: Collection) -> Collection {
        if self.collections.len() >= OPEN_MAX
            && let Some(other) = self.collections.keys().next().cloned()
        {
            self.collections.remove(&other);
        }
        let name = collection.name().to_owned();
        self.collections.insert(name, collection.clone());
        collection
    }
}

/// What does the work.
#[derive(Debug)]
pub(crate) struct Backends {
    /// `metal4`, `metal3`, `gpu` or `cpu`.
    pub(crate) embedder: String,
    /// Where the last search was done: `gpu` or `cpu`.
    pub(crate) search: String,
}

impl Backends {
    fn of(stats: &sela::Stats) -> Self {
        let tier = stats
            .tier
            .map_or_else(|| "cpu".to_owned(), |t| t.to_string());
        let last = stats.searches.last.as_deref();
        let search = last.and_then(|last| last.split(':').next());
        Self {
            embedder: tier,
            search: search.unwrap_or("cpu").to_owned(),
        }
    }
}

/// What is known of the model.
#[derive(Debug)]
pub(crate) struct ModelFacts {
    pub(crate) name: String,
    /// Numbers in a vector.
    pub(crate) dim: usize,
    /// Most tokens of a text that are read.
    pub(crate) tokens_max: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the keys of a server are.
pub(crate) fn key_file(settings: &Settings, engine: &Engine) -> KeyFile {
    let home = &engine.options().home;
    match &settings.auth.keys {
        Some(path) => KeyFile::new(path),
        None => KeyFile::new(home.join(KeyFile::NAME)),
    }
}
