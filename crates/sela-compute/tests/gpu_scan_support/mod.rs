//! Devices, scans on them, and blocks with names.

// Each test file uses a part of it.
#![allow(dead_code, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sela_compute::gpu::scan::{GpuScan, GpuScanOptions};
use sela_compute::gpu::{Gpu, GpuOptions, adapters};
use sela_compute::scan::PageId;
use sela_compute::{CpuScan, Isa};

use crate::scan_support::Held;

/// The first adapter, opened; `None`, said aloud, where there is none.
pub(crate) fn gpu(options: GpuOptions) -> Option<Gpu> {
    let Some(facts) = adapters().into_iter().next() else {
        println!("skipped: no GPU");
        return None;
    };
    Some(Gpu::open(facts.index, options).unwrap())
}

pub(crate) fn cpu() -> Arc<CpuScan> {
    Arc::new(CpuScan::new(Isa::available()[0], 2).unwrap())
}

/// Everything goes to the device, nothing is too small.
pub(crate) fn options(cache_bytes: u64) -> GpuScanOptions {
    GpuScanOptions {
        cache_bytes,
        block_bytes_min: 0,
        ..GpuScanOptions::default()
    }
}

/// The best variant that there is, with so much memory.
pub(crate) fn scan(cache_bytes: u64) -> Option<GpuScan> {
    let gpu = gpu(GpuOptions::default())?;
    Some(GpuScan::new(&gpu, cpu(), options(cache_bytes)).unwrap())
}

/// The same rows under a name that no others have.
pub(crate) fn named(mut held: Held) -> Held {
    static NEXT: AtomicU64 = AtomicU64::new(1_000);
    held.page = Some(PageId {
        owner: NEXT.fetch_add(1, Ordering::Relaxed),
        page: 0,
    });
    held
}
