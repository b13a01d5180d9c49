//! A simulated disk for the store's tests, and SQLite on top of it.
//!
//! * [`SimDisk`] is a file system in memory that logs every change and fails on demand.
//! * [`Replay`] walks such a log and makes the disks a crash could leave behind.
//! * [`Mount`] lets SQLite keep its files on a `SimDisk`.
//! * [`history::Run`] is a collection at work beside a plain map of what it should hold, and
//!   [`fault_of_image`] holds the two together after a crash.
//!
//! What counts as stable: the bytes of a file after that file's `sync`, the entries of a folder
//! after that folder's `sync_dir`, nothing else. A file's own sync does not make its name stable.

// Every test file compiles this module and uses its own part of it.
#![allow(dead_code)]
#![allow(unused_imports)]

mod check;
mod disk;
mod fault;
mod files;
pub(crate) mod history;
mod locks;
mod replay;
mod rng;
mod tree;
pub(crate) mod trial;
mod vfs;
mod visit;

pub(crate) use check::{Depth, fault_of_disk, fault_of_image};
pub(crate) use disk::SimDisk;
pub(crate) use fault::{Fault, Plan};
pub(crate) use files::Mount;
pub(crate) use replay::{Cut, Part, Replay};
pub(crate) use rng::Rng;
pub(crate) use tree::{Op, Tree};
pub(crate) use vfs::VFS;
pub(crate) use visit::{Images, visit_all};

/// How many random subsets are drawn at each position: `SELA_CRASH_SEEDS` when it is set (a long
/// night finds more), otherwise two.
pub(crate) fn seeds() -> u64 {
    let asked = std::env::var("SELA_CRASH_SEEDS").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(2)
}
