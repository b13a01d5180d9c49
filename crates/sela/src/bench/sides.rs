//! The devices that are measured side by side, and proof that each did the work itself.

use std::path::Path;

use sela_compute::inventory::{GpuFacts, GpuKind};
use sela_compute::{DeviceChoice, Inventory, Tier};
use serde::Serialize;

use super::{BenchOptions, Figure};
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::stats::Stats;

/// A device that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Used {
    /// `cpu` or `gpu:N`.
    pub device: String,
    /// The GPU's name; nothing for the CPU.
    pub device_name: Option<String>,
    /// The interface to the GPU.
    pub backend: Option<String>,
    /// What the GPU is made of.
    pub kind: Option<String>,
    /// The GPU's driver.
    pub driver: Option<String>,
    /// The path of the encoder, if it was needed.
    pub tier: Option<String>,
    /// The kind of its kernels.
    pub variant: Option<String>,
    /// Its arithmetic.
    pub arithmetic: Option<String>,
    /// Instruction set of the CPU's kernels.
    pub isa: Option<String>,
}

/// A device with an engine of its own.
pub(super) struct Side {
    pub(super) name: String,
    pub(super) engine: Engine,
    gpu: Option<GpuFacts>,
}

/// The devices to measure, and what is said of those that could not be opened though nobody named
/// them; all engines have their data in `data`.
pub(super) fn open(
    engine: &Engine,
    devices: &[DeviceChoice],
    data: &Path,
) -> Result<(Vec<Side>, Vec<String>)> {
    let (mut sides, mut unopened): (Vec<Side>, _) = (Vec::new(), Vec::new());
    let mut choices = devices.to_vec();
    if choices.is_empty() {
        choices.push(DeviceChoice::Cpu);
        let gpus = Inventory::probe().gpus;
        if gpus.iter().any(|gpu| gpu.kind != GpuKind::Software) {
            choices.push(DeviceChoice::Gpu);
        }
    }
    for device in choices {
        let with = |device| {
            Engine::open(Options {
                device,
                data: data.to_owned(),
                ..engine.options().clone()
            })
        };
        let mut opened = with(device)?;
        let gpu = match opened.device() {
            Err(error) if devices.is_empty() => {
                unopened.push(format!("{error}: {device} is not measured"));
                continue;
            }
            gpu => gpu?,
        };
        // `auto` routes searches, and what is measured on a device is all to be done by it.
        if device == DeviceChoice::Auto {
            opened = with(match &gpu {
                Some(gpu) => DeviceChoice::Number(gpu.index),
                None => DeviceChoice::Cpu,
            })?;
        }
        let name = match &gpu {
            Some(gpu) => DeviceChoice::Number(gpu.index).to_string(),
            None => DeviceChoice::Cpu.to_string(),
        };
        if sides.iter().all(|side| side.name != name) {
            sides.push(Side {
                name,
                engine: opened,
                gpu,
            });
        }
    }
    Ok((sides, unopened))
}

/// What a measurement uses of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uses {
    Encoder,
    Searcher,
    Both,
}

impl Side {
    pub(super) fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    pub(super) fn used(&self, with_model: bool) -> Result<Used> {
        let report = match with_model {
            true => Some(self.engine.encoder()?.report()),
            false => None,
        };
        let gpu = self.gpu.as_ref();
        Ok(Used {
            device: self.name.clone(),
            device_name: gpu.map(|gpu| gpu.name.clone()),
            backend: gpu.map(|gpu| gpu.backend.to_string()),
            kind: gpu.map(|gpu| gpu.kind.to_string()),
            driver: gpu.map(|gpu| gpu.driver.clone()),
            tier: report.as_ref().map(|r| r.tier.to_string()),
            variant: report.as_ref().and_then(|r| r.variant.clone()),
            arithmetic: report.as_ref().map(|r| r.arithmetic.to_string()),
            isa: report.as_ref().map(|r| r.isa.to_string()),
        })
    }

    /// Measures by embedding with this device.
    pub(super) fn embedding(
        &self,
        what: &'static str,
        measure: impl FnOnce(&Engine, &BenchOptions) -> Result<Vec<Figure>>,
        options: &BenchOptions,
    ) -> Result<Vec<Figure>> {
        self.proven(what, Uses::Encoder, |engine| measure(engine, options))
    }

    /// Figures of a measurement, with this device's name, if it did the work.
    pub(super) fn proven(
        &self,
        what: &'static str,
        uses: Uses,
        measure: impl FnOnce(&Engine) -> Result<Vec<Figure>>,
    ) -> Result<Vec<Figure>> {
        let before = self.engine.stats();
        let mut figures = measure(&self.engine)?;
        if self.is_gpu() {
            did_the_work(&before, &self.engine.stats(), uses).map_err(|instead| {
                Error::NotMeasured {
                    what,
                    device: self.name.clone(),
                    instead,
                }
            })?;
        }
        for figure in &mut figures {
            figure.device = Some(self.name.clone());
        }
        Ok(figures)
    }
}

/// Whether the GPU did all that was done between two looks at the counters; else what happened.
pub(super) fn did_the_work(before: &Stats, after: &Stats, uses: Uses) -> Result<(), String> {
    let said = after.last_fallback.as_deref().unwrap_or("it failed");
    if uses != Uses::Searcher {
        match after.tier {
            None => return Err("nothing was embedded".to_owned()),
            Some(Tier::Cpu) => return Err("no variant of its encoder may be used".to_owned()),
            Some(_) => {}
        }
        let degraded = after.degraded - before.degraded;
        if degraded > 0 {
            return Err(format!("the CPU computed {degraded} texts: {said}"));
        }
        if after.texts == before.texts {
            return Err("nothing was embedded".to_owned());
        }
    }
    if uses != Uses::Encoder {
        let (was, is) = (&before.searches, &after.searches);
        if is.on_cpu > was.on_cpu {
            let why = is.last.as_deref().unwrap_or(said);
            let searches = is.on_cpu - was.on_cpu;
            return Err(format!("the CPU did {searches} searches: {why}"));
        }
        let left = is.gpu_left - was.gpu_left;
        if left > 0 {
            return Err(format!("the CPU answered {left} of the queries"));
        }
        if is.gpu_queries == was.gpu_queries {
            return Err("the rows are too few to be worth its while".to_owned());
        }
    }
    if after.fallbacks > before.fallbacks {
        return Err(format!("the CPU did a part of it: {said}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_of_a_gpu_that_did_not_do_the_work_is_none() {
        let before = Stats::default();
        let mut good = Stats {
            tier: Some(Tier::Gpu),
            texts: 10,
            ..Stats::default()
        };
        good.searches.gpu_queries = 3;
        let check = |change: &dyn Fn(&mut Stats)| {
            let mut after = good.clone();
            change(&mut after);
            [Uses::Encoder, Uses::Searcher, Uses::Both]
                .map(|uses| did_the_work(&before, &after, uses).is_ok())
        };
        assert_eq!(check(&|_| {}), [true; 3]);
        assert_eq!(check(&|s| s.tier = Some(Tier::Cpu)), [false, true, false]);
        assert_eq!(check(&|s| s.tier = None), [false, true, false]);
        assert_eq!(check(&|s| s.degraded = 1), [false, true, false]);
        assert_eq!(check(&|s| s.texts = 0), [false, true, false]);
        assert_eq!(check(&|s| s.searches.on_cpu = 1), [true, false, false]);
        assert_eq!(check(&|s| s.searches.gpu_queries = 0), [true, false, false]);
        assert_eq!(check(&|s| s.searches.gpu_left = 1), [true, false, false]);
        assert_eq!(check(&|s| s.fallbacks = 1), [false; 3]);
    }
}
