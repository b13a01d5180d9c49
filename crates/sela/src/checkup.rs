//! A GPU's own tests and what it can do, for `sela doctor`.

use std::time::Duration;
#[cfg(feature = "gpu")]
use std::time::Instant;

#[cfg(feature = "gpu")]
use sela_compute::{
    Arithmetic, CpuScan, Inventory,
    gpu::{
        Gpu,
        encode::{Variant, gpu_self_test},
        residency::import_self_test,
        scan,
    },
};

use crate::engine::Engine;
use crate::error::Result;

/// A known-answer test of a GPU's kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuTest {
    /// What was tested.
    pub what: String,
    /// How long it took, compiling included.
    pub took: Duration,
    /// What was wrong; nothing when the answers were right.
    pub veto: Option<String>,
}

/// What the choice between GPU and CPU is made from, search by search.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct GpuProbe {
    /// From a submission of almost nothing to its answer.
    pub round_trip: Duration,
    /// Bytes of rows that the GPU scans in a second.
    pub scan_bytes_per_s: f64,
    /// Bytes of rows that are brought to it in a second.
    pub upload_bytes_per_s: f64,
    /// Bytes of rows that the CPU scans in a second.
    pub cpu_bytes_per_s: f64,
}

impl Engine {
    /// Tests every variant of the GPU's kernels against the reference, passed earlier or not; none
    /// where the CPU does everything. A failure makes it forgotten that a test was passed.
    pub fn gpu_self_tests(&self) -> Result<Vec<GpuTest>> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu()? {
            return Ok(tests(&gpu, self.options().threads));
        }
        Ok(Vec::new())
    }

    /// What the router of searches goes by, measured when the searcher was made; nothing where the
    /// CPU does everything. A GPU that cannot search is an error.
    pub fn gpu_probe(&self) -> Result<Option<GpuProbe>> {
        #[cfg(feature = "gpu")]
        if self.gpu()?.is_some() {
            let searcher = self.searcher()?;
            return match searcher.gpu_probe() {
                Some(probe) => Ok(Some(GpuProbe::of(&probe))),
                None => {
                    let why = searcher.stats().last_fallback.unwrap_or_default();
                    let error = sela_compute::Error::Missing(format!("search on the GPU: {why}"));
                    Err(sela_index::Error::from(error).into())
                }
            };
        }
        Ok(None)
    }
}

#[cfg(feature = "gpu")]
impl GpuProbe {
    fn of(probe: &scan::Probe) -> Self {
        Self {
            round_trip: probe.round_trip,
            scan_bytes_per_s: probe.scan_bytes_per_s,
            upload_bytes_per_s: probe.upload_bytes_per_s,
            cpu_bytes_per_s: probe.cpu_bytes_per_s,
        }
    }
}

/// The CPU's part in a search by the GPU.
#[cfg(feature = "gpu")]
fn cpu_scan(threads: Option<usize>) -> Result<CpuScan, sela_compute::Error> {
    let machine = Inventory::probe_cpu().cpu;
    let threads = threads.unwrap_or(machine.threads);
    CpuScan::new(machine.isas[0], threads)
}

#[cfg(feature = "gpu")]
fn tests(gpu: &Gpu, threads: Option<usize>) -> Vec<GpuTest> {
    let run = |what: String, test: &dyn Fn() -> Result<(), sela_compute::Error>| {
        let began = Instant::now();
        let veto = test().err().map(|veto| veto.to_string());
        GpuTest {
            what,
            took: began.elapsed(),
            veto,
        }
    };
    let mut done = Vec::new();
    for arithmetic in [Arithmetic::F16, Arithmetic::F32] {
        for variant in Variant::preferred(gpu.facts(), arithmetic) {
            let what = format!("{arithmetic} products with {variant} kernels");
            let test = || gpu_self_test(gpu, variant, arithmetic);
            done.push(run(what, &test));
        }
    }
    match cpu_scan(threads) {
        Ok(cpu) => done.extend(scan::self_tests(gpu, &cpu).into_iter().map(|test| GpuTest {
            what: format!("search with {} kernels", test.variant),
            took: test.took,
            veto: test.veto,
        })),
        Err(error) => done.push(GpuTest {
            what: "search".into(),
            took: Duration::ZERO,
            veto: Some(error.to_string()),
        }),
    }
    let facts = gpu.facts();
    // Nothing depends on it yet; whoever has a Mac can tell whether something may.
    if facts.metal.is_some() && facts.unified_memory {
        let test = || import_self_test(gpu).unwrap_or(Ok(()));
        done.push(run("memory of the CPU read in place".into(), &test));
    }
    done
}
