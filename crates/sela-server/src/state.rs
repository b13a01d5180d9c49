//! What all requests share.

use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sela::{Collection, CollectionOptions, Engine};
use tokio::sync::Semaphore;

use crate::audit::{AUDIT_FILE, Audit};
use crate::config::{ConfigError, Settings};
use crate::error::ApiError;
use crate::jwt::Jwt;
use crate::keys::{KeyFile, Keys};

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
    phase: AtomicU8,
    /// Where `/store_embedding` stores, once it was asked for.
    stored: Mutex<Option<Collection>>,
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
        let bodies = (limits.bodies_bytes_max.0 >> 10).min(u64::from(u32::MAX)) as usize;
        Ok(Self(Arc::new(Inner {
            keys,
            jwt: Jwt::open(&settings.auth.jwt)?,
            audit,
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Starting as u8),
            stored: Mutex::new(None),
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
        Ok(())
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

    /// The collection that `/store_embedding` stores in, if there is one.
    pub(crate) fn stored(&self) -> Result<Option<Collection>, ApiError> {
        let mut slot = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            match self.engine.collection(STORED) {
                Err(sela::Error::NoCollection { .. }) => return Ok(None),
                opened => *slot = Some(opened?),
            }
        }
        Ok(slot.clone())
    }

    /// The same, made now if there is none.
    pub(crate) fn stored_or_new(&self) -> Result<Collection, ApiError> {
        let mut slot = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = &*slot {
            return Ok(stored.clone());
        }
        let options = CollectionOptions::default();
        let stored = self.engine.collection_or_create(STORED, &options)?;
        Ok(slot.insert(stored).clone())
    }
}

/// Where the keys of a server are.
pub(crate) fn key_file(settings: &Settings, engine: &Engine) -> KeyFile {
    let home = &engine.options().home;
    match &settings.auth.keys {
        Some(path) => KeyFile::new(path),
        None => KeyFile::new(home.join(KeyFile::NAME)),
    }
}
