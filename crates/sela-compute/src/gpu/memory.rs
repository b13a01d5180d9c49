//! What a GPU's memory is taken for, counted as buffers come and go.
//!
//! Every buffer is made by [`Gpu::buffer`](super::Gpu) for a purpose and counted until its owner
//! drops it; the driver gives the memory back once no submission uses it any more. Bytes on their
//! way to the device lie in memory of wgpu's until a submission takes them along: they are counted
//! from the write to the end of that submission.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a GPU's memory by what they are taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuMemory {
    /// Weights of models.
    pub weights: u64,
    /// Activations of the encoder: work space, kept from batch to batch.
    pub work: u64,
    /// Rows that are searched: the cache, the ring that others stream through.
    pub rows: u64,
    /// Queries, ranks and candidates of searches, kept from search to search.
    pub search: u64,
    /// Bytes on their way to the device and back.
    pub transfer: u64,
    /// What is left.
    pub other: u64,
    /// All of them.
    pub total: u64,
    /// The most that they were so far.
    pub peak: u64,
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Weights,
    Work,
    Rows,
    Search,
    Transfer,
    Other,
}

const PURPOSES: usize = 6;

/// The counts of one device.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    taken: [AtomicU64; PURPOSES],
    total: AtomicU64,
    peak: AtomicU64,
    /// Bytes written since the last submission, which will take them along; counted as taken.
    staged: AtomicU64,
}

impl Ledger {
    pub(super) fn told(&self) -> GpuMemory {
        let of = |purpose: Purpose| self.taken[purpose as usize].load(Ordering::Relaxed);
        GpuMemory {
            weights: of(Purpose::Weights),
            work: of(Purpose::Work),
            rows: of(Purpose::Rows),
            search: of(Purpose::Search),
            transfer: of(Purpose::Transfer),
            other: of(Purpose::Other),
            total: self.total.load(Ordering::Relaxed),
            peak: self.peak.load(Ordering::Relaxed),
        }
    }

    fn add(&self, purpose: Purpose, bytes: u64) {
        self.taken[purpose as usize].fetch_add(bytes, Ordering::Relaxed);
        let total = self.total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(total, Ordering::Relaxed);
    }

    fn take(self: &Arc<Self>, purpose: Purpose, bytes: u64) -> Taken {
        self.add(purpose, bytes);
        Taken {
            ledger: self.clone(),
            purpose,
            bytes,
        }
    }

    /// Counts bytes that wait for a submission; how many do now.
    pub(super) fn stage(&self, bytes: u64) -> u64 {
        self.add(Purpose::Transfer, bytes);
        self.staged.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// The bytes that a submission takes along; they are free when it is done and this is dropped.
    pub(super) fn unstage(self: &Arc<Self>) -> Taken {
        Taken {
            ledger: self.clone(),
            purpose: Purpose::Transfer,
            bytes: self.staged.swap(0, Ordering::Relaxed),
        }
    }
}

/// Bytes that are counted as long as this lives.
#[derive(Debug)]
pub(super) struct Taken {
    ledger: Arc<Ledger>,
    purpose: Purpose,
    bytes: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.ledger.taken[self.purpose as usize].fetch_sub(self.bytes, Ordering::Relaxed);
        self.ledger.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A buffer of the device that is counted. Clones are the same buffer.
#[derive(Clone, Debug)]
pub(crate) struct Buffer(Arc<(wgpu::Buffer, Taken)>);

impl Buffer {
    /// Counts a buffer from now on.
    pub(super) fn new(buffer: wgpu::Buffer, purpose: Purpose, ledger: &Arc<Ledger>) -> Self {
        let taken = ledger.take(purpose, buffer.size());
        Self(Arc::new((buffer, taken)))
    }
}

impl Deref for Buffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.0.0
    }
}
