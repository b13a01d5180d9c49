//! A GPU's own tests and what it can do, for `sela doctor`.

#[cfg(feature = "gpu")]
use std::sync::Arc;
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
        scan::{self, GpuScan, GpuScanOptions},
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
    /// Tests every variant of the GPU's kernels against the reference; none where the CPU does
    /// everything.
    pub fn gpu_self_tests(&self) -> Result<Vec<GpuTest>> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu()? {
            return Ok(tests(&gpu, self.options().threads));
        }
        Ok(Vec::new())
    }

    /// What the router of searches goes by, measured now; nothing where the CPU does everything.
    pub fn gpu_probe(&self) -> Result<Option<GpuProbe>> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu()? {
            return Ok(Some(probe(&gpu, self.options().threads)?));
        }
        Ok(None)
    }
}

#[cfg(feature = "gpu")]
fn probe(gpu: &Gpu, threads: Option<usize>) -> Result<GpuProbe> {
    let cpu = cpu_scan(threads).map_err(sela_index::Error::from)?;
    let scan =
        GpuScan::new(gpu, cpu, GpuScanOptions::default()).map_err(sela_index::Error::from)?;
    let probe = scan.probe();
    Ok(GpuProbe {
        round_trip: probe.round_trip,
        scan_bytes_per_s: probe.scan_bytes_per_s,
        upload_bytes_per_s: probe.upload_bytes_per_s,
        cpu_bytes_per_s: probe.cpu_bytes_per_s,
    })
}

/// The CPU's part in a search by the GPU.
#[cfg(feature = "gpu")]
fn cpu_scan(threads: Option<usize>) -> Result<Arc<CpuScan>, sela_compute::Error> {
    let machine = Inventory::probe_cpu().cpu;
    let threads = threads.unwrap_or(machine.threads);
    Ok(Arc::new(CpuScan::new(machine.isas[0], threads)?))
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
    let facts = gpu.facts();
    let has_matrix = (facts.has_matrix(16) || facts.has_matrix(8))
        && facts
            .subgroup
            .is_some_and(|(least, most)| (least..=most).contains(&32));
    let has_subgroups = facts.subgroup.is_some_and(|(_, most)| most >= 8);
    for (variant, has) in [
        (scan::Variant::Matrix, has_matrix),
        (scan::Variant::Subgroup, has_subgroups),
        (scan::Variant::Plain, true),
    ] {
        if has {
            let test = || search_self_test(gpu, threads, variant);
            done.push(run(format!("search with {variant} kernels"), &test));
        }
    }
    // Nothing depends on it yet; whoever has a Mac can tell whether something may.
    if facts.metal.is_some() && facts.unified_memory {
        let test = || import_self_test(gpu).unwrap_or(Ok(()));
        done.push(run("memory of the CPU read in place".into(), &test));
    }
    done
}

/// Whether search kernels pass their self-test: a lesser variant takes the place of one that does
/// not.
#[cfg(feature = "gpu")]
fn search_self_test(
    gpu: &Gpu,
    threads: Option<usize>,
    variant: scan::Variant,
) -> Result<(), sela_compute::Error> {
    let options = GpuScanOptions {
        variant,
        ..GpuScanOptions::default()
    };
    let passed = GpuScan::new(gpu, cpu_scan(threads)?, options)?.variant();
    match passed == variant {
        true => Ok(()),
        false => Err(sela_compute::Error::SelfTest(format!(
            "{variant} kernels: {passed} kernels are used instead"
        ))),
    }
}
