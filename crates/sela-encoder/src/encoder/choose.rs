//! The choice of a backend: the plan's order, walked until one passes its self-tests.

use std::time::{Duration, Instant};

#[cfg(feature = "gpu")]
use sela_compute::CpuEncode;
#[cfg(feature = "gpu")]
use sela_compute::gpu::{
    Gpu, GpuOptions, Proof,
    encode::{Variant, gpu_self_test_once},
};
#[cfg(feature = "gpu")]
use sela_compute::inventory::GpuKind;
use sela_compute::{Arithmetic, DeviceChoice, Inventory, Plan, PlanOptions, Tier, plan};

use super::backend::Backend;
use super::work::{encode, tokenize};
use super::{Dtype, EncoderOptions, Report, SelfTest};
use crate::config::Config;
use crate::error::Error;
use crate::files::ModelFiles;
use crate::tokens::{Tokenized, Tokens};

/// What a reduced precision must reach against the golden vectors: the least cosine and their mean.
fn promised(arithmetic: Arithmetic) -> (f64, f64) {
    match arithmetic {
        Arithmetic::Int8 => (0.99, 0.995),
        _ => (0.999, 0.9999),
    }
}

/// Tokens of golden texts that a CPU is held against: more would be a third of the time that opening
/// takes. `validate` holds it against all.
const GOLDEN_CPU: usize = 512;
/// The same of a software GPU, which takes a second for a long text.
#[cfg(feature = "gpu")]
const GOLDEN_SOFTWARE: usize = 512;

pub(super) struct Choice {
    pub(super) backend: Backend,
    pub(super) report: Report,
}

/// A model and how it is to be opened.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) files: &'a ModelFiles,
    pub(super) config: &'a Config,
    pub(super) tokens: &'a Tokens,
    pub(super) options: &'a EncoderOptions,
}

/// A walk along the plan, with what was met on the way.
struct Walk<'a> {
    wanted: Wanted<'a>,
    plan: Plan,
    reasons: Vec<String>,
    vetoes: Vec<String>,
    self_tests: Vec<SelfTest>,
}

/// What a backend is called, in the report and in messages.
struct Named {
    tier: Tier,
    device: DeviceChoice,
    device_name: Option<String>,
    variant: Option<String>,
    arithmetic: Arithmetic,
    isa: sela_compute::Isa,
    /// Most tokens of golden texts it is held against.
    golden_tokens_max: usize,
    what: String,
}

/// Walks the plan's order until a backend passes its self-tests.
pub(super) fn choose(wanted: Wanted<'_>) -> Result<Choice, Error> {
    let options = wanted.options;
    // Asking for the GPUs takes a while: not for a caller who wants none.
    let inventory = match options.device {
        DeviceChoice::Cpu => Inventory::probe_cpu(),
        _ => Inventory::probe(),
    };
    let plan = plan(
        &inventory,
        &PlanOptions {
            device: options.device,
            precision: options.dtype,
            isa: options.isa,
            arithmetic: options.arithmetic,
            threads: options.threads,
        },
    )?;
    #[cfg_attr(
        not(feature = "gpu"),
        allow(unused_mut, reason = "the GPU leaves its mark")
    )]
    let mut walk = Walk {
        wanted,
        reasons: plan.reasons.clone(),
        plan,
        vetoes: Vec::new(),
        self_tests: Vec::new(),
    };
    #[cfg(feature = "gpu")]
    if let Some(choice) = walk.gpu()? {
        return Ok(choice);
    }
    walk.cpu()
}

impl Walk<'_> {
    /// The first variant of the planned GPU that gives right answers.
    #[cfg(feature = "gpu")]
    fn gpu(&mut self) -> Result<Option<Choice>, Error> {
        let Some(planned) = self.plan.gpu.clone() else {
            return Ok(None);
        };
        let opened = match &self.wanted.options.gpu {
            Some(gpu) => Ok(gpu.clone()),
            None => Gpu::open(planned.index, GpuOptions::default()),
        };
        let gpu = match opened {
            Ok(gpu) => gpu,
            Err(error) => {
                self.veto(format!("gpu:{}", planned.index), None, error.to_string());
                return Ok(None);
            }
        };
        let (isa, threads) = (self.plan.isas[0], self.plan.threads);
        let Wanted { files, config, .. } = self.wanted;
        for &arithmetic in &planned.arithmetics {
            for variant in Variant::preferred(gpu.facts(), arithmetic) {
                let named = Named {
                    tier: planned.tier,
                    device: DeviceChoice::Number(gpu.facts().index),
                    device_name: Some(gpu.facts().name.clone()),
                    variant: Some(variant.to_string()),
                    arithmetic,
                    isa,
                    golden_tokens_max: match gpu.facts().kind {
                        GpuKind::Software => GOLDEN_SOFTWARE,
                        _ => usize::MAX,
                    },
                    what: format!(
                        "{arithmetic} with {variant} kernels on {}",
                        gpu.facts().name
                    ),
                };
                let tried = || -> Result<Result<(Backend, bool), String>, Error> {
                    let remembered = match gpu_self_test_once(&gpu, variant, arithmetic) {
                        Ok(proof) => proof == Proof::Remembered,
                        Err(veto) => return Ok(Err(veto.to_string())),
                    };
                    let workers = CpuEncode::new(isa, Arithmetic::F32, threads)?;
                    match Backend::gpu(files, config, &gpu, variant, arithmetic, workers) {
                        Ok(backend) => Ok(Ok((backend, remembered))),
                        // Weights that are no weights are so on every device, and the CPU says so;
                        // what this device alone cannot do is a veto.
                        Err(Error::Compute(
                            veto @ (sela_compute::Error::Device { .. }
                            | sela_compute::Error::Limit { .. }
                            | sela_compute::Error::Missing(_)),
                        )) => Ok(Err(veto.to_string())),
                        Err(other) => Err(other),
                    }
                };
                if let Some(choice) = self.hold(named, tried)? {
                    return Ok(Some(choice));
                }
            }
        }
        Ok(None)
    }

    /// The first instruction set and arithmetic of the CPU that give right answers.
    fn cpu(mut self) -> Result<Choice, Error> {
        let Wanted { files, config, .. } = self.wanted;
        let threads = self.plan.threads;
        for isa in self.plan.isas.clone() {
            for arithmetic in self.plan.arithmetics.clone() {
                let named = Named {
                    tier: Tier::Cpu,
                    device: DeviceChoice::Cpu,
                    device_name: None,
                    variant: None,
                    arithmetic,
                    isa,
                    golden_tokens_max: GOLDEN_CPU,
                    what: format!("{arithmetic} products with {isa} kernels"),
                };
                let tried = || match sela_compute::self_test(isa, arithmetic) {
                    Ok(()) => {
                        let backend = Backend::cpu(files, config, isa, arithmetic, threads)?;
                        Ok(Ok((backend, false)))
                    }
                    Err(veto) => Ok(Err(veto.to_string())),
                };
                if let Some(choice) = self.hold(named, tried)? {
                    return Ok(choice);
                }
            }
        }
        Err(Error::Vetoed {
            dtype: format!("{:?}", self.wanted.options.dtype).to_lowercase(),
            reason: self.vetoes.join("; "),
        })
    }

    /// A backend made, held against what it must answer, and reported; `None` for a veto. With it
    /// comes whether the self-test of its kernels was remembered.
    fn hold(
        &mut self,
        named: Named,
        make: impl FnOnce() -> Result<Result<(Backend, bool), String>, Error>,
    ) -> Result<Option<Choice>, Error> {
        let began = Instant::now();
        let tried =
            make()?.and_then(|made| known_answers(&made.0, self.wanted, &named).map(|()| made));
        let took = began.elapsed();
        let (backend, remembered) = match tried {
            Ok(made) => made,
            Err(veto) => {
                // A model of one's own comes without vectors to hold it against: no failure.
                let unheld = reduced(named.arithmetic) && self.wanted.options.golden.is_none();
                if unheld {
                    tracing::info!(what = named.what, %veto, "not chosen");
                    self.note_veto(named.what, Some(took), veto);
                } else {
                    self.veto(named.what, Some(took), veto);
                }
                return Ok(None);
            }
        };
        let Named {
            arithmetic, isa, ..
        } = named;
        tracing::info!(device = %named.device, %arithmetic, %isa, threads = self.plan.threads, "encoder ready");
        self.self_tests.push(SelfTest {
            what: named.what,
            took,
            remembered,
            veto: None,
        });
        let report = Report {
            tier: named.tier,
            device: named.device.to_string(),
            device_name: named.device_name,
            variant: named.variant,
            isa,
            arithmetic,
            threads: self.plan.threads,
            reasons: std::mem::take(&mut self.reasons),
            self_tests: std::mem::take(&mut self.self_tests),
            texts: 0,
            tokens: 0,
            truncated: 0,
            degraded: 0,
            fallbacks: 0,
            last_fallback: None,
        };
        Ok(Some(Choice { backend, report }))
    }

    fn veto(&mut self, what: String, took: Option<Duration>, veto: String) {
        tracing::warn!(%what, %veto, "self-test failed");
        self.note_veto(what, took, veto);
    }

    fn note_veto(&mut self, what: String, took: Option<Duration>, veto: String) {
        self.reasons.push(format!("not {what}: {veto}"));
        self.vetoes.push(format!("{what}: {veto}"));
        self.self_tests.push(SelfTest {
            what,
            took: took.unwrap_or_default(),
            remembered: false,
            veto: Some(veto),
        });
    }
}

/// Whether an arithmetic keeps less than f32 does.
fn reduced(arithmetic: Arithmetic) -> bool {
    matches!(
        arithmetic,
        Arithmetic::Bf16 | Arithmetic::F16 | Arithmetic::Int8 | Arithmetic::Int16
    )
}

/// Holds a reduced precision against the golden vectors; f32 arithmetic needs no such proof.
fn known_answers(backend: &Backend, wanted: Wanted<'_>, named: &Named) -> Result<(), String> {
    if !reduced(named.arithmetic) {
        return Ok(());
    }
    let Some(golden) = &wanted.options.golden else {
        return match wanted.options.dtype {
            Dtype::Auto => Err("there are no golden vectors to hold it against".into()),
            _ => Ok(()),
        };
    };
    let dim = wanted.config.hidden;
    let texts =
        tokenize(backend, wanted.tokens, "", &golden.texts, 0).map_err(|e| e.to_string())?;
    // No text takes more than a quarter of what is left, so texts of all lengths are among them.
    let mut room = named.golden_tokens_max;
    let held = |(_, text): &(usize, Tokenized)| {
        let fits = text.ids.len() <= room / 4;
        room -= if fits { text.ids.len() } else { 0 };
        fits
    };
    let (held, texts): (Vec<usize>, Vec<Tokenized>) =
        texts.into_iter().enumerate().filter(held).unzip();
    let found = encode(backend, texts, dim).map_err(|e| e.to_string())?;
    let (mut least, mut sum) = (f64::INFINITY, 0.0);
    for (a, &text) in found.chunks_exact(dim).zip(&held) {
        let vector = golden.vectors.get(text * dim..(text + 1) * dim);
        let cosine = vector.map_or(f64::NAN, |b| cosine(a, b));
        least = least.min(cosine);
        sum += cosine;
    }
    let mean = sum / held.len().max(1) as f64;
    let (least_wanted, mean_wanted) = promised(named.arithmetic);
    // Written so that a NaN fails too.
    if least >= least_wanted && mean >= mean_wanted {
        return Ok(());
    }
    Err(format!(
        "cosine to the golden vectors is {least:.6} at least and {mean:.6} in the mean"
    ))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
