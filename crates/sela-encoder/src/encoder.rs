//! Texts in, vectors out: tokenising, batches, the choice of silicon, checks of the result.

mod backend;
mod choose;
mod flight;
mod work;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sela_compute::encode::{Pooling, Share};
#[cfg(feature = "gpu")]
use sela_compute::gpu::Gpu;
use sela_compute::{Arithmetic, DeviceChoice, Isa, Precision, Tier};

use self::backend::Backend;
use self::choose::{Wanted, choose};
pub use self::flight::Flight;
use self::work::{Batch, Flow, Part, batches, encode, tokenize};
use crate::config::Config;
use crate::error::Error;
use crate::files::ModelFiles;
use crate::tokens::{Tokenized, Tokens};

/// Texts that are tokenised and encoded together; bounds the memory of a long call.
const TEXTS_AT_ONCE: usize = 1024;
/// Failures of the GPU in a row after which it is not asked any more.
const FAILURES_MAX: u32 = 3;

/// A promise about the vectors: see [`sela_compute::Precision`].
pub type Dtype = Precision;

/// Texts and the f32 vectors they must have, against which reduced precisions are tested.
#[derive(Clone, Debug, Default)]
pub struct Golden {
    /// The texts.
    pub texts: Vec<String>,
    /// Their vectors, row after row.
    pub vectors: Vec<f32>,
}

/// How to open an encoder. The defaults suit everyone who has no reason to differ.
#[derive(Clone, Debug, Default)]
pub struct EncoderOptions {
    /// The promise about the vectors. `Auto` unless vectors must match those of another machine.
    pub dtype: Dtype,
    /// Where to compute. `Auto` unless a machine is to be compared with itself.
    pub device: DeviceChoice,
    /// The GPU, if the caller has opened the one that `device` means; it is opened otherwise.
    #[cfg(feature = "gpu")]
    pub gpu: Option<Gpu>,
    /// Threads a call may use; all that the system gives unless set.
    pub threads: Option<usize>,
    /// An instruction set to insist on: for tests and comparisons.
    pub isa: Option<Isa>,
    /// An arithmetic to insist on: for tests and comparisons.
    pub arithmetic: Option<Arithmetic>,
    /// Known answers; without them a reduced precision is not offered by `Auto`.
    pub golden: Option<Golden>,
    /// SHA-256 of `tokenizer.json` in hex, when the caller knows it; part of the space's identity.
    pub tokenizer_sha256: Option<String>,
}

/// What is known of one embedded text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextInfo {
    /// Tokens that were encoded, special ones included.
    pub tokens: usize,
    /// Tokens of the whole text, special ones included.
    pub tokens_total: usize,
    /// Whether the text was cut to the model's length.
    pub truncated: bool,
    /// Whether it was computed again, on the CPU: the first result was not finite, or the GPU
    /// failed.
    pub degraded: bool,
}

/// Vectors of a call, in the order of its texts.
#[derive(Clone, Debug, Default)]
pub struct Embeddings {
    /// Numbers of a vector.
    pub dim: usize,
    /// All vectors, row after row.
    pub vectors: Vec<f32>,
    /// One entry a text.
    pub info: Vec<TextInfo>,
}

impl Embeddings {
    /// The vector of text `index`.
    ///
    /// # Panics
    ///
    /// When there is no such text.
    pub fn vector(&self, index: usize) -> &[f32] {
        &self.vectors[index * self.dim..][..self.dim]
    }
}

/// The identity of a vector space: vectors of equal spaces may be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Name of the model, for people.
    pub model: String,
    /// SHA-256 of the weights, when the caller gave it.
    pub weights_sha256: Option<String>,
    /// SHA-256 of the tokenizer's file, when the caller gave it: the vocabulary and how text is
    /// split into it.
    pub tokenizer_sha256: Option<String>,
    /// Whether texts are lower-cased before the tokenizer sees them.
    pub lowercase: bool,
    /// How hidden states become a vector.
    pub pooling: &'static str,
    /// Whether vectors have length 1.
    pub normalized: bool,
    /// Numbers of a vector.
    pub dim: usize,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.weights_sha256 {
            Some(sha) => write!(f, "sha256:{sha}")?,
            None => write!(f, "model:{}", self.model)?,
        }
        if let Some(sha) = &self.tokenizer_sha256 {
            // 64 bits tell the few vocabularies apart that share weights.
            write!(f, "/tokenizer:{}", sha.get(..16).unwrap_or(sha))?;
        }
        if self.lowercase {
            f.write_str("/lower")?;
        }
        let normalized = if self.normalized { "unit" } else { "raw" };
        write!(f, "/{}/{normalized}/{}", self.pooling, self.dim)
    }
}

/// How kernels and a model in them were tested when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// What was tested.
    pub what: String,
    /// How long that took, reading the model included.
    pub took: Duration,
    /// Whether the kernels' own test was passed earlier and not run; only GPUs' tests are
    /// remembered.
    pub remembered: bool,
    /// What was wrong; nothing when the answers were right.
    pub veto: Option<String>,
}

impl SelfTest {
    /// How it ended, in a word: `passed`, `remembered` or `failed`.
    pub fn outcome(&self) -> &'static str {
        match (&self.veto, self.remembered) {
            (Some(_), _) => "failed",
            (None, true) => "remembered",
            (None, false) => "passed",
        }
    }
}

/// What runs, how it was chosen, and what has happened since.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The path through the code.
    pub tier: Tier,
    /// The device: `cpu` or `gpu:N`.
    pub device: String,
    /// The GPU's name; nothing for the CPU.
    pub device_name: Option<String>,
    /// Kind of the kernels, where a device has several.
    pub variant: Option<String>,
    /// Instruction set of the CPU's kernels.
    pub isa: Isa,
    /// Arithmetic of the matrix products.
    pub arithmetic: Arithmetic,
    /// Threads a call may use.
    pub threads: usize,
    /// Why it is so and nothing faster.
    pub reasons: Vec<String>,
    /// Self-tests when the model was opened, of all that was tried.
    pub self_tests: Vec<SelfTest>,
    /// Texts embedded so far.
    pub texts: u64,
    /// Tokens encoded so far.
    pub tokens: u64,
    /// Texts that were cut.
    pub truncated: u64,
    /// Texts computed again because the first result was not finite, or the GPU failed.
    pub degraded: u64,
    /// Batches that the GPU failed and the CPU computed.
    pub fallbacks: u64,
    /// What the GPU said when it last failed.
    pub last_fallback: Option<String>,
}

#[derive(Default)]
struct Counters {
    texts: AtomicU64,
    tokens: AtomicU64,
    truncated: AtomicU64,
    degraded: AtomicU64,
    fallbacks: AtomicU64,
}

/// How the GPU has fared.
#[derive(Default)]
struct Health {
    failures_in_a_row: AtomicU32,
    given_up: AtomicBool,
    said: Mutex<Option<String>>,
}

/// Turns texts into vectors. Share it between threads by reference.
///
/// Two calls with the same text give the same bits, whatever else they embed.
pub struct Encoder {
    backend: Backend,
    /// f32 arithmetic on the CPU for vectors that came out not finite, made when first needed.
    spare: OnceLock<Option<Backend>>,
    /// The CPU as it would have been chosen, for when the GPU fails; made when first needed.
    understudy: OnceLock<Result<Backend, String>>,
    files: ModelFiles,
    config: Config,
    tokens: Tokens,
    options: EncoderOptions,
    report: Report,
    counters: Counters,
    health: Health,
}

impl Encoder {
    /// Opens a model with the best arithmetic that this machine has and that passes its self-test.
    pub fn open(files: &ModelFiles, options: &EncoderOptions) -> Result<Self, Error> {
        let config = Config::read(files)?;
        let tokens = Tokens::read(
            files,
            config.tokens_max,
            config.lowercase,
            config.vocabulary,
        )?;
        let choice = choose(Wanted {
            files,
            config: &config,
            tokens: &tokens,
            options,
        })?;
        Ok(Self {
            backend: choice.backend,
            spare: OnceLock::new(),
            understudy: OnceLock::new(),
            files: files.clone(),
            config,
            tokens,
            options: options.clone(),
            report: choice.report,
            counters: Counters::default(),
            health: Health::default(),
        })
    }

    /// Numbers of a vector.
    pub fn dim(&self) -> usize {
        self.config.hidden
    }

    /// Most tokens of a text that are encoded, special ones included.
    pub fn tokens_max(&self) -> usize {
        self.config.tokens_max
    }

    /// The identity of the vector space.
    pub fn space(&self) -> Space {
        Space {
            model: self.files.name.clone(),
            weights_sha256: self.files.weights_sha256.clone(),
            tokenizer_sha256: self.options.tokenizer_sha256.clone(),
            lowercase: self.config.lowercase,
            pooling: match self.config.pooling {
                Pooling::Mean => "mean",
                Pooling::Cls => "cls",
            },
            normalized: self.config.normalize,
            dim: self.config.hidden,
        }
    }

    /// What runs and what has happened so far.
    pub fn report(&self) -> Report {
        Report {
            texts: self.counters.texts.load(Ordering::Relaxed),
            tokens: self.counters.tokens.load(Ordering::Relaxed),
            truncated: self.counters.truncated.load(Ordering::Relaxed),
            degraded: self.counters.degraded.load(Ordering::Relaxed),
            fallbacks: self.counters.fallbacks.load(Ordering::Relaxed),
            last_fallback: self
                .health
                .said
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            ..self.report.clone()
        }
    }

    /// Names of the model's prompts.
    pub fn prompts(&self) -> impl Iterator<Item = &str> {
        self.config.prompts.keys().map(String::as_str)
    }

    /// The prompt that [`Encoder::embed`] puts before each text, if the model has one.
    pub fn default_prompt(&self) -> Option<&str> {
        let name = self.config.default_prompt.as_ref()?;
        self.config.prompts.get(name).map(String::as_str)
    }

    /// Number of tokens of `text`, special ones included, before any cut.
    pub fn count_tokens(&self, text: &str) -> Result<usize, Error> {
        Ok(self.tokens.encode(text, 0)?.total)
    }

    /// Embeds texts, each with the model's default prompt if it has one.
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Embeddings, Error> {
        self.embed_after(self.prompt_or_default(None)?, texts)
    }

    /// Embeds texts with the model's prompt `name` before each.
    pub fn embed_with_prompt<T: AsRef<str> + Sync>(
        &self,
        name: &str,
        texts: &[T],
    ) -> Result<Embeddings, Error> {
        self.embed_after(self.prompt(name)?, texts)
    }

    fn prompt(&self, name: &str) -> Result<&str, Error> {
        let found = self.config.prompts.get(name).map(String::as_str);
        found.ok_or_else(|| Error::UnknownPrompt(name.into()))
    }

    /// The prompt `name`, or the model's default one; empty if it has none.
    fn prompt_or_default(&self, name: Option<&str>) -> Result<&str, Error> {
        match name.or(self.config.default_prompt.as_deref()) {
            Some(name) => self.prompt(name),
            None => Ok(""),
        }
    }

    fn check_lengths<T: AsRef<str>>(&self, prompt: &str, texts: &[T]) -> Result<(), Error> {
        for (index, text) in texts.iter().enumerate() {
            let (bytes, limit) = (text.as_ref().len() + prompt.len(), crate::TEXT_BYTES_MAX);
            if bytes > limit {
                return Err(Error::TextTooLong {
                    index,
                    bytes,
                    limit,
                });
            }
        }
        Ok(())
    }

    fn embed_after<T: AsRef<str> + Sync>(
        &self,
        prompt: &str,
        texts: &[T],
    ) -> Result<Embeddings, Error> {
        self.check_lengths(prompt, texts)?;
        let dim = self.dim();
        let mut all = Embeddings {
            dim,
            vectors: vec![0.0; texts.len() * dim],
            info: vec![TextInfo::default(); texts.len()],
        };
        let mut flow = Flow::new(&self.backend);
        // While a device works on some texts, the next are tokenised.
        for (i, part) in texts.chunks(TEXTS_AT_ONCE).enumerate() {
            let first = i * TEXTS_AT_ONCE;
            let texts = tokenize(&self.backend, &self.tokens, prompt, part, first)?;
            for batch in batches(&Arc::new(Part { first, texts }), &self.backend) {
                while flow.is_full() {
                    self.store(&mut flow, &mut all)?;
                }
                if self.health.given_up.load(Ordering::Relaxed) {
                    let mut vectors = self.stand_in(&batch)?;
                    self.put(&batch, &mut vectors, true, &mut all)?;
                } else {
                    flow.push(batch);
                }
            }
        }
        while self.store(&mut flow, &mut all)? {}
        Ok(all)
    }

    /// Waits for the oldest batch and puts its vectors in their places; false if there is none.
    fn store(&self, flow: &mut Flow<'_>, all: &mut Embeddings) -> Result<bool, Error> {
        let Some((batch, vectors)) = flow.take() else {
            return Ok(false);
        };
        let (mut vectors, degraded) = self.settle(&batch, vectors)?;
        self.put(&batch, &mut vectors, degraded, all)?;
        Ok(true)
    }

    /// The vectors of a batch: the device's, or the CPU's where the GPU failed, which is told.
    fn settle(
        &self,
        batch: &Batch,
        vectors: Result<Vec<f32>, Error>,
    ) -> Result<(Vec<f32>, bool), Error> {
        match vectors {
            Ok(vectors) => {
                self.health.failures_in_a_row.store(0, Ordering::Relaxed);
                Ok((vectors, false))
            }
            Err(Error::Compute(error @ sela_compute::Error::Device { .. })) => {
                self.note_failure(&error);
                Ok((self.stand_in(batch)?, true))
            }
            Err(other) => Err(other),
        }
    }

    /// Logs and counts a failure of the GPU, and gives it up when it is hopeless.
    fn note_failure(&self, error: &sela_compute::Error) {
        let device = &self.report.device;
        tracing::warn!(%device, %error, "the GPU failed; these texts go to the CPU");
        self.counters.fallbacks.fetch_add(1, Ordering::Relaxed);
        let in_a_row = self
            .health
            .failures_in_a_row
            .fetch_add(1, Ordering::Relaxed)
            + 1;
        if self.backend.is_lost() || in_a_row >= FAILURES_MAX {
            tracing::warn!(%device, in_a_row, "the GPU is given up: all texts go to the CPU");
            self.health.given_up.store(true, Ordering::Relaxed);
        }
        *self
            .health
            .said
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    }

    /// The model on the CPU, with kernels that have passed their self-test.
    fn on_cpu(&self, dtype: Dtype, arithmetic: Option<Arithmetic>) -> Result<Backend, Error> {
        let options = EncoderOptions {
            device: DeviceChoice::Cpu,
            dtype,
            arithmetic,
            ..self.options.clone()
        };
        let choice = choose(Wanted {
            files: &self.files,
            config: &self.config,
            tokens: &self.tokens,
            options: &options,
        })?;
        Ok(choice.backend)
    }

    /// The vectors of a batch by the CPU, in place of the GPU.
    fn stand_in(&self, batch: &Batch) -> Result<Vec<f32>, Error> {
        let made = self.understudy.get_or_init(|| {
            let arithmetic = self.options.arithmetic.filter(|a| *a != Arithmetic::F16);
            self.on_cpu(self.options.dtype, arithmetic)
                .map_err(|error| error.to_string())
        });
        match made {
            Ok(backend) => backend.submit(&batch.ragged(), Share::Whole)?.wait(),
            Err(reason) => Err(Error::Vetoed {
                dtype: format!("{:?}", self.options.dtype).to_lowercase(),
                reason: reason.clone(),
            }),
        }
    }

    /// Puts the vectors of a batch in their places, those that are not finite computed again.
    fn put(
        &self,
        batch: &Batch,
        vectors: &mut [f32],
        degraded: bool,
        all: &mut Embeddings,
    ) -> Result<(), Error> {
        let dim = all.dim;
        let Part { first, texts } = &*batch.part;
        for (&i, vector) in batch.order.iter().zip(vectors.chunks_exact_mut(dim)) {
            let at = first + i;
            all.info[at] = self.judge(at, &texts[i], vector, degraded)?;
            all.vectors[at * dim..][..dim].copy_from_slice(vector);
        }
        Ok(())
    }

    /// Counts a vector, computed again if it is not finite.
    fn judge(
        &self,
        index: usize,
        text: &Tokenized,
        vector: &mut [f32],
        degraded: bool,
    ) -> Result<TextInfo, Error> {
        let finite = vector.iter().all(|x| x.is_finite());
        if !finite {
            self.redo(index, text, vector)?;
        }
        Ok(self.count(text, degraded || !finite))
    }

    fn count(&self, text: &Tokenized, degraded: bool) -> TextInfo {
        let info = TextInfo {
            tokens: text.ids.len(),
            tokens_total: text.total,
            truncated: text.total > text.ids.len(),
            degraded,
        };
        self.counters.texts.fetch_add(1, Ordering::Relaxed);
        self.counters
            .tokens
            .fetch_add(info.tokens as u64, Ordering::Relaxed);
        self.counters
            .truncated
            .fetch_add(info.truncated.into(), Ordering::Relaxed);
        self.counters
            .degraded
            .fetch_add(degraded.into(), Ordering::Relaxed);
        info
    }

    /// Computes a vector that came out not finite again, in f32 on the CPU.
    fn redo(&self, index: usize, text: &Tokenized, out: &mut [f32]) -> Result<(), Error> {
        let arithmetic = self.report.arithmetic;
        tracing::warn!(index, %arithmetic, "a vector was not finite; computing it again in f32");
        let spare = self.spare.get_or_init(|| {
            if arithmetic == Arithmetic::F32 && self.report.tier == Tier::Cpu {
                return None;
            }
            match self.on_cpu(Dtype::F32, Some(Arithmetic::F32)) {
                Ok(backend) => Some(backend),
                Err(error) => {
                    tracing::warn!(%error, "the f32 encoder could not be made");
                    None
                }
            }
        });
        if let Some(spare) = spare {
            out.copy_from_slice(&encode(spare, vec![text.clone()], self.dim())?);
            if out.iter().all(|x| x.is_finite()) {
                return Ok(());
            }
        }
        Err(Error::NotFinite { index })
    }
}

#[cfg(test)]
mod tests {
    use super::Space;

    #[test]
    fn a_space_is_told_apart_by_all_that_shapes_its_vectors() {
        let space = Space {
            model: "tiny".to_owned(),
            weights_sha256: Some("ab".repeat(32)),
            tokenizer_sha256: Some("cd".repeat(32)),
            lowercase: false,
            pooling: "mean",
            normalized: true,
            dim: 384,
        };
        let expected = format!(
            "sha256:{}/tokenizer:cdcdcdcdcdcdcdcd/mean/unit/384",
            "ab".repeat(32)
        );
        assert_eq!(space.to_string(), expected);
        let others = [
            Space {
                weights_sha256: Some("ef".repeat(32)),
                ..space.clone()
            },
            Space {
                tokenizer_sha256: Some("ef".repeat(32)),
                ..space.clone()
            },
            Space {
                lowercase: true,
                ..space.clone()
            },
            Space {
                pooling: "cls",
                ..space.clone()
            },
            Space {
                normalized: false,
                ..space.clone()
            },
        ];
        for other in others {
            assert_ne!(other.to_string(), expected, "{other:?}");
        }
        let unnamed = Space {
            weights_sha256: None,
            tokenizer_sha256: None,
            lowercase: true,
            ..space
        };
        assert_eq!(unnamed.to_string(), "model:tiny/lower/mean/unit/384");
    }
}
