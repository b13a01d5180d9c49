//! The device that an engine works on: chosen by the plan, opened at the first need, shared by the
//! encoder and the searcher.

use std::sync::{Mutex, PoisonError};

#[cfg(feature = "gpu")]
use sela_compute::gpu::{Gpu, GpuOptions};
use sela_compute::inventory::GpuFacts;
use sela_compute::{DeviceChoice, Inventory, PlanOptions, plan};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::stats::GpuMemory;

/// The file of the home in which passed self-tests of GPUs are remembered.
#[cfg(feature = "gpu")]
const SELF_TESTS: &str = "gpu-self-tests";

/// What an engine asked for, and what it got once something needed it.
#[derive(Debug, Default)]
pub(crate) struct Device(Mutex<Option<Opened>>);

/// The device that was opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opened {
    /// The GPU; without one the CPU does everything.
    #[cfg(feature = "gpu")]
    pub(crate) gpu: Option<Gpu>,
    /// Why it is so, in sentences.
    pub(crate) reasons: Vec<String>,
    /// What a GPU said that was there and did not open.
    pub(crate) failed: Option<String>,
}

/// Why no GPU is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NoGpu {
    /// In words that go on from "everything is done by".
    pub why: String,
    /// Whether a GPU is there that would have been used and does not open.
    pub failed: bool,
}

impl Engine {
    /// Why no GPU is in use; nothing where one is. Opens the device as [`Engine::device`] does.
    pub fn no_gpu(&self) -> Result<Option<NoGpu>> {
        let opened = self.opened()?;
        if opened.facts().is_some() {
            return Ok(None);
        }
        // The choice of the device comes before what was chosen for it; a failure comes last.
        let why = match opened.failed {
            Some(_) => opened.reasons.last(),
            None => opened.reasons.first(),
        };
        Ok(Some(NoGpu {
            why: why.map_or_else(
                || "the CPU because it was asked for".to_owned(),
                String::clone,
            ),
            failed: opened.failed.is_some(),
        }))
    }
}

impl Device {
    /// The device, opened by the first who needs it.
    pub(crate) fn get(&self, options: &crate::Options) -> Result<Opened> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*slot {
            return Ok(opened.clone());
        }
        let opened = open(options)?;
        *slot = Some(opened.clone());
        Ok(opened)
    }

    /// The device, if somebody has needed it.
    pub(crate) fn seen(&self) -> Option<Opened> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
    }
}

impl Opened {
    /// What is known of the GPU, if there is one.
    #[cfg(feature = "gpu")]
    pub(crate) fn facts(&self) -> Option<&GpuFacts> {
        self.gpu.as_ref().map(Gpu::facts)
    }

    #[cfg(not(feature = "gpu"))]
    pub(crate) fn facts(&self) -> Option<&GpuFacts> {
        None
    }

    /// What the GPU's memory is taken for.
    #[cfg(feature = "gpu")]
    pub(crate) fn memory(&self) -> Option<GpuMemory> {
        let memory = self.gpu.as_ref()?.memory();
        Some(GpuMemory {
            weights: memory.weights,
            work: memory.work,
            rows: memory.rows,
            search: memory.search,
            transfer: memory.transfer,
            other: memory.other,
            total: memory.total,
            peak: memory.peak,
        })
    }

    #[cfg(not(feature = "gpu"))]
    pub(crate) fn memory(&self) -> Option<GpuMemory> {
        None
    }

    #[cfg(feature = "gpu")]
    fn with(gpu: Gpu, reasons: Vec<String>) -> Self {
        Self {
            gpu: Some(gpu),
            reasons,
            failed: None,
        }
    }
}

fn open(options: &crate::Options) -> Result<Opened> {
    let choice = options.device;
    if choice == DeviceChoice::Cpu {
        return Ok(Opened::default());
    }
    #[cfg(feature = "gpu")]
    if let Some(gpu) = &options.gpu {
        return Ok(Opened::with(gpu.clone(), vec!["it was handed in".into()]));
    }
    let machine = Inventory::probe();
    let asked = PlanOptions {
        device: choice,
        precision: options.dtype,
        threads: options.threads,
        ..PlanOptions::default()
    };
    let planned = match plan(&machine, &asked) {
        Err(sela_compute::Error::Missing(_)) if choice.insists() => {
            return Err(absent(choice, &machine.gpus));
        }
        planned => planned.map_err(sela_index::Error::from)?,
    };
    let Some(gpu) = planned.gpu else {
        let reason = planned.reasons.first().map_or("", String::as_str);
        tracing::info!(%choice, reason, "everything runs on the CPU");
        return Ok(Opened {
            reasons: planned.reasons,
            ..Opened::default()
        });
    };
    open_gpu(gpu.index, options, planned.reasons)
}

#[cfg(feature = "gpu")]
fn open_gpu(index: usize, options: &crate::Options, mut reasons: Vec<String>) -> Result<Opened> {
    let choice = options.device;
    let gpu = GpuOptions {
        self_tests: Some(options.home.join(SELF_TESTS)),
        ..GpuOptions::default()
    };
    match Gpu::open(index, gpu) {
        Ok(gpu) => Ok(Opened::with(gpu, reasons)),
        Err(error) if choice.insists() => Err(Error::DeviceFailed {
            device: choice,
            source: Box::new(error),
        }),
        Err(error) => {
            tracing::warn!(gpu = index, %error, "the GPU does not open: everything runs on the CPU");
            reasons.push(format!("the CPU because the GPU did not open: {error}"));
            Ok(Opened {
                reasons,
                failed: Some(error.to_string()),
                ..Opened::default()
            })
        }
    }
}

/// Never called: a build without kernels for GPUs finds none.
#[cfg(not(feature = "gpu"))]
fn open_gpu(_: usize, options: &crate::Options, _: Vec<String>) -> Result<Opened> {
    Err(absent(options.device, &[]))
}

/// The error for a GPU that is not there.
fn absent(device: DeviceChoice, gpus: &[GpuFacts]) -> Error {
    Error::NoDevice {
        device,
        there: gpus.iter().map(describe).collect(),
    }
}

/// A GPU in one line: `gpu:0 NVIDIA H100 (Vulkan, discrete)`.
pub(crate) fn describe(gpu: &GpuFacts) -> String {
    format!(
        "gpu:{} {} ({}, {})",
        gpu.index, gpu.name, gpu.backend, gpu.kind
    )
}
