//! Faults on demand, so that tests can prove what happens when a device fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A way in which a GPU fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device is lost while a submission is made; it stays lost.
    Lost,
    /// A buffer cannot be had for want of memory.
    OutOfMemory,
    /// A submission ends early though the driver reports success.
    Unfinished,
    /// A self-test finds a wrong answer.
    WrongAnswer,
    /// A forward returns a row with a number that is not finite.
    NotFinite,
}

const KINDS: usize = 5;

/// Faults waiting to happen on one device. Clones share them; without any it costs a load.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<[AtomicU32; KINDS]>);

impl Faults {
    /// Makes the next `times` occasions for `fault` fail.
    pub fn arm(&self, fault: Fault, times: u32) {
        self.0[fault as usize].store(times, Ordering::SeqCst);
    }

    /// Occasions for `fault` that have not failed yet.
    pub fn armed(&self, fault: Fault) -> u32 {
        self.0[fault as usize].load(Ordering::SeqCst)
    }

    /// Whether this occasion is to fail.
    pub(crate) fn strike(&self, fault: Fault) -> bool {
        let left = &self.0[fault as usize];
        left.load(Ordering::Relaxed) > 0
            && left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok()
    }
}
