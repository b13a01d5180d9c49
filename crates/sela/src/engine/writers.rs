//! Collections open for writing: one handle a name, shared by all who ask for it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sela_index::Searcher;

use super::lock;

/// How long a handle that is closing is waited for: on a slow disk, taking in the catalog's log
/// lasts.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// The engine's searcher, once there is one.
pub(crate) type SharedSearcher = Arc<Mutex<Option<Arc<Searcher>>>>;

/// An open store, and the sign that it is closed.
pub(crate) struct OpenStore {
    store: sela_store::Collection,
    /// Who may hold copies of its rows.
    searcher: SharedSearcher,
    // Never sent on. It goes after the store, when the store's lock is free: the slot hears that.
    _closed: Option<Sender<Infallible>>,
}

impl OpenStore {
    /// A store whose end nobody waits for, as it holds no lock.
    pub(crate) fn read_only(store: sela_store::Collection, searcher: SharedSearcher) -> Self {
        Self {
            store,
            searcher,
            _closed: None,
        }
    }
}

impl fmt::Debug for OpenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Drop for OpenStore {
    /// Opened again, its segments have other identities: copies of their rows are of no use then.
    fn drop(&mut self) {
        let searcher = lock(&self.searcher).clone();
        let (Some(searcher), Ok(view)) = (searcher, self.store.view()) else {
            return;
        };
        for identity in view.parts().iter().filter_map(sela_store::Part::identity) {
            searcher.forget(identity);
        }
    }
}

impl Deref for OpenStore {
    type Target = sela_store::Collection;

    fn deref(&self) -> &Self::Target {
        &self.store
    }
}

/// The place of a name. Its mutex is held from the look to the opening: of several who find the
/// collection closed, one opens it and the others share that handle.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    open: Weak<OpenStore>,
    closed: Option<Receiver<Infallible>>,
}

impl Slot {
    /// The open handle, if there is one.
    pub(crate) fn open(&self) -> Option<Arc<OpenStore>> {
        self.open.upgrade()
    }

    /// The open handle; where the last one is just closing, `None` once its lock is free.
    pub(crate) fn open_or_closed(&self) -> Option<Arc<OpenStore>> {
        let open = self.open.upgrade();
        if open.is_none()
            && let Some(closed) = &self.closed
        {
            // If it takes longer, the store itself says that it is locked.
            let _ = closed.recv_timeout(CLOSING_MAX);
        }
        open
    }

    /// Whether no handle is open, now or once those who have it let go of it within this time.
    pub(crate) fn is_closed_within(&self, wait: Duration) -> bool {
        match &self.closed {
            None => true,
            Some(closed) => closed.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected),
        }
    }

    /// Puts a handle where none is open.
    pub(crate) fn fill(
        &mut self,
        store: sela_store::Collection,
        searcher: SharedSearcher,
    ) -> Arc<OpenStore> {
        let (sender, receiver) = channel();
        let store = Arc::new(OpenStore {
            store,
            searcher,
            _closed: Some(sender),
        });
        self.open = Arc::downgrade(&store);
        self.closed = Some(receiver);
        store
    }
}

/// The places of all names that were ever open.
#[derive(Debug, Default)]
pub(crate) struct Writers(Mutex<HashMap<String, Arc<Mutex<Slot>>>>);

impl Writers {
    /// The place of a name. Ask only for collections that exist or are about to: it stays.
    pub(crate) fn slot(&self, name: &str) -> Arc<Mutex<Slot>> {
        Arc::clone(lock(&self.0).entry(name.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use sela_store::{Collection, Options, Schema};

    use super::{CLOSING_MAX, SharedSearcher, Slot};

    #[test]
    fn a_handle_that_is_closing_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("points");
        let options = Options::default();
        let mut slot = Slot::default();
        assert!(slot.open_or_closed().is_none(), "none was ever open");
        let store = Collection::create(&dir, &Schema::new(2, "external:2"), &options).unwrap();
        let mut handle = slot.fill(store, SharedSearcher::default());
        for _ in 0..50 {
            assert!(slot.open_or_closed().is_some());
            // For a moment there is no handle, and the store is not closed.
            let closing = thread::spawn(move || drop(handle));
            while slot.open().is_some() {
                std::hint::spin_loop();
            }
            assert!(slot.open_or_closed().is_none());
            handle = slot.fill(
                Collection::open(&dir, &options).unwrap(),
                SharedSearcher::default(),
            );
            closing.join().unwrap();
        }
        assert!(!slot.is_closed_within(Duration::ZERO));
        assert!(!slot.is_closed_within(Duration::from_millis(1)));
        let closing = thread::spawn(move || drop(handle));
        assert!(slot.is_closed_within(CLOSING_MAX));
        assert!(slot.open().is_none());
        closing.join().unwrap();
        assert!(Slot::default().is_closed_within(Duration::ZERO));
    }
}
