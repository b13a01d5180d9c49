//! The GPU beside the CPU: which of them a search goes to, and what happens when the GPU fails.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sela_compute::gpu::Gpu;
use sela_compute::gpu::scan::{GpuScan, GpuScanOptions, Request, Route, Variant, route};
use sela_compute::scan::{Block, Queries};
use sela_compute::{CpuScan, DeviceChoice};

use crate::search::{Decision, Pages, RouteChoice, SearchStats};

/// Failures in a row after which a GPU is left alone.
const FAILURES_MAX: u32 = 3;

/// A GPU that searches, as long as it works.
pub(crate) struct Device {
    scan: GpuScan,
    choice: RouteChoice,
    cache_bytes: u64,
    /// Failures since it last worked.
    in_a_row: AtomicU32,
    off: AtomicBool,
    fallbacks: AtomicU64,
    /// Causes that the log has told of.
    told: Mutex<HashSet<String>>,
    last_fallback: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// The GPU made ready, or why it cannot be.
    pub(crate) fn new(
        gpu: &Gpu,
        cpu: &Arc<CpuScan>,
        cache_bytes: u64,
        choice: RouteChoice,
    ) -> Result<Self, sela_compute::Error> {
        let options = GpuScanOptions {
            cache_bytes,
            ..GpuScanOptions::default()
        };
        let scan = GpuScan::new(gpu, cpu.clone(), options)?;
        tracing::info!(
            gpu = %gpu.facts().name,
            variant = %scan.variant(),
            probe = ?scan.probe(),
            "searches may go to the GPU"
        );
        Ok(Self {
            scan,
            choice,
            cache_bytes,
            in_a_row: AtomicU32::new(0),
            off: AtomicBool::new(false),
            fallbacks: AtomicU64::new(0),
            told: Mutex::default(),
            last_fallback: Mutex::default(),
        })
    }

    pub(crate) fn scan(&self) -> &GpuScan {
        &self.scan
    }

    /// Where a search should run, and why.
    pub(crate) fn decide<'a>(
        &self,
        blocks: impl Iterator<Item = Block<'a>> + Clone,
        queries: &Queries<'_>,
    ) -> Decision {
        let name = &self.scan.gpu().facts().name;
        let on = |gpu, reason| Decision { gpu, reason };
        if self.off.load(Ordering::Relaxed) {
            return on(false, format!("{name} has failed and is left alone"));
        }
        let (dim, k) = (queries.dim, queries.k);
        if self.choice == RouteChoice::Gpu {
            return on(true, format!("{name} was asked for"));
        }
        let weight = self.scan.weigh(blocks.clone(), dim);
        let rows: u64 = blocks.clone().map(|block| u64::from(block.len)).sum();
        let live: u64 = blocks.map(|block| live_rows(&block)).sum();
        let all = weight.resident_bytes + weight.missing_bytes;
        let row_bytes = all / rows.max(1);
        let request = Request {
            resident_bytes: weight.resident_bytes,
            missing_bytes: weight.missing_bytes,
            live_bytes: live * row_bytes,
            row_bytes,
            queries: (queries.vectors.len() / dim.max(1)) as u64,
            k: k as u64,
            cache_bytes: self.cache_bytes,
            matrix: self.scan.variant() == Variant::Matrix,
        };
        let (to, reason) = route(self.scan.probe(), &request);
        on(to == Route::Gpu, reason)
    }

    /// A search that the GPU has not failed.
    pub(crate) fn worked(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// A search that the GPU has failed; the CPU does it.
    pub(crate) fn failed(&self, error: &sela_compute::Error) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        let cause = error.to_string();
        *lock(&self.last_fallback) = Some(cause.clone());
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let lost = self.scan.gpu().is_lost();
        if (lost || in_a_row >= FAILURES_MAX) && !self.off.swap(true, Ordering::Relaxed) {
            tracing::warn!(%cause, lost, in_a_row, "the GPU failed; searches go to the CPU from now on");
        }
        let mut told = lock(&self.told);
        // Causes name values now and then; those beyond the first hundred are only counted.
        if told.len() < 100 && told.insert(cause.clone()) {
            tracing::warn!(%cause, "the GPU failed a search; the CPU does it");
        }
    }

    /// Adds what the GPU has done.
    pub(crate) fn add_to(&self, stats: &mut SearchStats) {
        let scan = self.scan.stats();
        let facts = self.scan.gpu().facts();
        stats.device = Some(DeviceChoice::Number(facts.index).to_string());
        stats.device_name = Some(facts.name.clone());
        stats.variant = Some(self.scan.variant().to_string());
        stats.self_test = Some(self.scan.proof().to_string());
        stats.vetoes = self.scan.vetoes().to_vec();
        stats.on_gpu = scan.searches;
        stats.on_cpu += scan.searches_left;
        stats.fallbacks += self.fallbacks.load(Ordering::Relaxed);
        if let Some(cause) = lock(&self.last_fallback).clone() {
            stats.last_fallback = Some(cause);
        }
        stats.gpu_queries = scan.queries;
        stats.gpu_left = scan.too_many + scan.unsound + scan.beyond;
        stats.pages = Pages {
            hits: scan.pages.hits,
            misses: scan.pages.misses,
            page_ins: scan.pages.page_ins,
            page_outs: scan.pages.page_outs,
            streamed: scan.pages.streamed,
            bytes: scan.pages.resident_bytes,
            budget: scan.pages.budget_bytes,
        };
    }
}

/// Rows of a block that take part.
fn live_rows(block: &Block<'_>) -> u64 {
    let rows = block.len as usize;
    let Some(words) = block.live else {
        return rows as u64;
    };
    let whole: u64 = words[..rows / 64]
        .iter()
        .map(|w| u64::from(w.count_ones()))
        .sum();
    let rest = match rows % 64 {
        0 => 0,
        bits => (words[rows / 64] << (64 - bits)).count_ones(),
    };
    whole + u64::from(rest)
}
