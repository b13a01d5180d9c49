//! SQLite's locks inside one process: the five states of a database file, and the eight slots
//! of its shared index.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

/// How firmly a connection holds a database file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    #[default]
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

/// Who holds one database file, all connections together.
#[derive(Debug, Default)]
pub(crate) struct FileLock {
    shared: u32,
    /// The one connection above `Shared`, at its level.
    upper: Level,
}

impl FileLock {
    /// Raises `held` to `want`; false when another connection is in the way. A failed rise to
    /// `Exclusive` may stop at `Pending`, which keeps new readers out.
    pub(crate) fn raise(&mut self, held: &mut Level, want: Level) -> bool {
        if *held >= want {
            return true;
        }
        let others_upper = self.upper > Level::None && *held < Level::Reserved;
        match want {
            Level::None | Level::Pending => false,
            Level::Shared if self.upper >= Level::Pending => false,
            Level::Shared => {
                self.shared += 1;
                *held = Level::Shared;
                true
            }
            Level::Reserved | Level::Exclusive if others_upper => false,
            Level::Reserved => {
                self.take(held, Level::Reserved);
                true
            }
            Level::Exclusive => {
                if *held >= Level::Reserved {
                    self.take(held, Level::Pending);
                }
                let alone = self.shared == 1;
                if alone {
                    self.take(held, Level::Exclusive);
                }
                alone
            }
        }
    }

    /// Lowers `held` to `Shared` or `None`.
    pub(crate) fn lower(&mut self, held: &mut Level, to: Level) {
        if *held >= Level::Reserved {
            self.upper = Level::None;
            *held = Level::Shared;
        }
        if to == Level::None && *held == Level::Shared {
            self.shared -= 1;
            *held = Level::None;
        }
    }

    /// Whether any connection is about to write.
    pub(crate) fn is_reserved(&self) -> bool {
        self.upper >= Level::Reserved
    }

    fn take(&mut self, held: &mut Level, level: Level) {
        self.upper = level;
        *held = level;
    }
}

/// How many slots the shared index has.
const SLOTS: usize = 8;

/// The slots of the shared index: free, held by several readers, or held by one writer.
#[derive(Debug, Default)]
pub(crate) struct SlotLocks {
    readers: [u32; SLOTS],
    writer: [bool; SLOTS],
}

/// The slots that one connection holds, as bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeldSlots {
    shared: u8,
    exclusive: u8,
}

impl SlotLocks {
    /// Takes slots `first..first + count`; all or none.
    pub(crate) fn take(
        &mut self,
        held: &mut HeldSlots,
        first: usize,
        count: usize,
        exclusive: bool,
    ) -> bool {
        let slots = first..(first + count).min(SLOTS);
        let mask = |slot: usize| 1u8 << slot;
        if exclusive {
            let foreign = |slot: usize| {
                held.exclusive & mask(slot) == 0 && (self.writer[slot] || self.readers[slot] > 0)
            };
            if slots.clone().any(foreign) {
                return false;
            }
            for slot in slots {
                self.writer[slot] = true;
                held.exclusive |= mask(slot);
            }
            return true;
        }
        if slots.clone().any(|slot| self.writer[slot]) {
            return false;
        }
        for slot in slots {
            if held.shared & mask(slot) == 0 {
                self.readers[slot] += 1;
                held.shared |= mask(slot);
            }
        }
        true
    }

    /// Gives slots `first..first + count` back.
    pub(crate) fn give_back(&mut self, held: &mut HeldSlots, first: usize, count: usize) {
        for slot in first..(first + count).min(SLOTS) {
            let mask = 1u8 << slot;
            if held.shared & mask != 0 {
                self.readers[slot] -= 1;
                held.shared &= !mask;
            }
            if held.exclusive & mask != 0 {
                self.writer[slot] = false;
                held.exclusive &= !mask;
            }
        }
    }

    pub(crate) fn give_all_back(&mut self, held: &mut HeldSlots) {
        self.give_back(held, 0, SLOTS);
    }
}

/// What the connections to one database file share; `S` is the memory of its index.
#[derive(Debug, Default)]
pub(crate) struct Node<S> {
    pub(crate) lock: Mutex<FileLock>,
    pub(crate) shared_index: Mutex<S>,
}

/// The nodes in use, by path.
#[derive(Debug)]
pub(crate) struct Nodes<S>(Mutex<HashMap<PathBuf, Weak<Node<S>>>>);

impl<S: Default> Nodes<S> {
    pub(crate) fn new() -> Nodes<S> {
        Nodes(Mutex::new(HashMap::new()))
    }

    /// The node that all connections to `path` share.
    pub(crate) fn at(&self, path: &Path) -> Arc<Node<S>> {
        let mut nodes = self.0.lock().expect("no panic under this lock");
        nodes.retain(|_, node| node.strong_count() > 0);
        if let Some(node) = nodes.get(path).and_then(Weak::upgrade) {
            return node;
        }
        let node = Arc::new(Node::default());
        nodes.insert(path.to_owned(), Arc::downgrade(&node));
        node
    }
}
