//! Texts in, vectors out: tokenising, batches, the choice of arithmetic, checks of the result.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sela_compute::encode::{Pooling, Ragged};
use sela_compute::{Arithmetic, CpuEncode, Inventory, Isa, PlanOptions, Precision, Tier, plan};

use crate::bert::Bert;
use crate::config::Config;
use crate::error::Error;
use crate::files::ModelFiles;
use crate::tokens::{Tokenized, Tokens};

/// Texts that are tokenised and encoded together; bounds the memory of a long call.
const TEXTS_AT_ONCE: usize = 1024;
/// Tokens of a forward; bounds the memory of a batch of long texts.
const TOKENS_AT_ONCE: usize = 32 * 1024;
/// What a reduced precision must reach against the golden vectors to be used by `auto`.
const COSINE_MIN: f64 = 0.999;
const COSINE_MEAN: f64 = 0.9999;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextInfo {
    /// Tokens that were encoded, special ones included.
    pub tokens: usize,
    /// Tokens of the whole text, special ones included.
    pub tokens_total: usize,
    /// Whether the text was cut to the model's length.
    pub truncated: bool,
    /// Whether the first result was not finite and was computed again in f32.
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

/// What runs, how it was chosen, and what has happened since.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The path through the code.
    pub tier: Tier,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Arithmetic of the matrix products.
    pub arithmetic: Arithmetic,
    /// Threads a call may use.
    pub threads: usize,
    /// Why it is so and nothing faster.
    pub reasons: Vec<String>,
    /// Self-tests that ran at open: what, how long, and the veto if there was one.
    pub self_tests: Vec<(String, Duration, Option<String>)>,
    /// Texts embedded so far.
    pub texts: u64,
    /// Tokens encoded so far.
    pub tokens: u64,
    /// Texts that were cut.
    pub truncated: u64,
    /// Texts computed again because the first result was not finite.
    pub degraded: u64,
}

#[derive(Default)]
struct Counters {
    texts: AtomicU64,
    tokens: AtomicU64,
    truncated: AtomicU64,
    degraded: AtomicU64,
}

enum Backend {
    Cpu(Bert<CpuEncode>),
}

impl Backend {
    fn cpu(
        files: &ModelFiles,
        config: &Config,
        isa: Isa,
        arithmetic: Arithmetic,
        threads: usize,
    ) -> Result<Self, Error> {
        Ok(Self::Cpu(Bert::load(
            CpuEncode::new(isa, arithmetic, threads)?,
            files,
            config,
        )?))
    }

    fn forward(&self, batch: &Ragged) -> Result<Vec<f32>, Error> {
        match self {
            Self::Cpu(bert) => bert.forward(batch),
        }
    }

    fn for_each(&self, n: usize, work: impl Fn(usize) + Sync) {
        match self {
            Self::Cpu(bert) => bert.backend().for_each(n, work),
        }
    }
}

/// Turns texts into vectors. Share it between threads by reference.
///
/// Two calls with the same text give the same bits, whatever else they embed.
pub struct Encoder {
    backend: Backend,
    /// f32 arithmetic for vectors that came out not finite, made when first needed.
    spare: OnceLock<Option<Backend>>,
    files: ModelFiles,
    config: Config,
    tokens: Tokens,
    tokenizer_sha256: Option<String>,
    report: Report,
    counters: Counters,
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
        let choice = choose(files, &config, &tokens, options)?;
        Ok(Self {
            backend: choice.backend,
            spare: OnceLock::new(),
            files: files.clone(),
            config,
            tokens,
            tokenizer_sha256: options.tokenizer_sha256.clone(),
            report: choice.report,
            counters: Counters::default(),
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
            tokenizer_sha256: self.tokenizer_sha256.clone(),
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
        let prompt = match &self.config.default_prompt {
            Some(name) => self.prompt(name)?,
            None => "",
        };
        self.embed_after(prompt, texts)
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

    fn embed_after<T: AsRef<str> + Sync>(
        &self,
        prompt: &str,
        texts: &[T],
    ) -> Result<Embeddings, Error> {
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
        let dim = self.dim();
        let mut all = Embeddings {
            dim,
            vectors: vec![0.0; texts.len() * dim],
            info: Vec::with_capacity(texts.len()),
        };
        for (part, out) in texts
            .chunks(TEXTS_AT_ONCE)
            .zip(all.vectors.chunks_mut((TEXTS_AT_ONCE * dim).max(1)))
        {
            let first = all.info.len();
            let tokenized = tokenize(&self.backend, &self.tokens, prompt, part, first)?;
            encode(&self.backend, &tokenized, dim, out)?;
            for (i, text) in tokenized.iter().enumerate() {
                let vector = &mut out[i * dim..][..dim];
                let degraded = !vector.iter().all(|x| x.is_finite());
                if degraded {
                    self.redo(first + i, text, vector)?;
                }
                all.info.push(self.count(text, degraded));
            }
        }
        Ok(all)
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

    /// Computes a vector that came out not finite again, in f32.
    fn redo(&self, index: usize, text: &Tokenized, out: &mut [f32]) -> Result<(), Error> {
        let arithmetic = self.report.arithmetic;
        tracing::warn!(index, %arithmetic, "a vector was not finite; computing it again in f32");
        let spare = self.spare.get_or_init(|| {
            if arithmetic == Arithmetic::F32 {
                return None;
            }
            let (isa, threads) = (self.report.isa, self.report.threads);
            match Backend::cpu(&self.files, &self.config, isa, Arithmetic::F32, threads) {
                Ok(backend) => Some(backend),
                Err(error) => {
                    tracing::warn!(%error, "the f32 encoder could not be made");
                    None
                }
            }
        });
        if let Some(spare) = spare {
            encode(spare, std::slice::from_ref(text), self.dim(), out)?;
            if out.iter().all(|x| x.is_finite()) {
                return Ok(());
            }
        }
        Err(Error::NotFinite { index })
    }
}

/// Token ids of `texts`, by all threads when there are many.
fn tokenize<T: AsRef<str> + Sync>(
    backend: &Backend,
    tokens: &Tokens,
    prompt: &str,
    texts: &[T],
    first: usize,
) -> Result<Vec<Tokenized>, Error> {
    /// Texts of a piece of work: enough to be worth handing to a thread.
    const PIECE: usize = 16;
    let one = |i: usize| {
        let text = texts[i].as_ref();
        if prompt.is_empty() {
            tokens.encode(text, first + i)
        } else {
            tokens.encode(&format!("{prompt}{text}"), first + i)
        }
    };
    let pieces: Vec<OnceLock<Vec<Result<Tokenized, Error>>>> = (0..texts.len().div_ceil(PIECE))
        .map(|_| OnceLock::new())
        .collect();
    backend.for_each(pieces.len(), |piece| {
        let range = piece * PIECE..((piece + 1) * PIECE).min(texts.len());
        pieces[piece].get_or_init(|| range.map(one).collect());
    });
    pieces
        .into_iter()
        .flat_map(|piece| piece.into_inner().unwrap_or_default())
        .collect()
}

/// Encodes texts, the longest first so that neighbours are alike, and puts the vectors in order.
fn encode(
    backend: &Backend,
    texts: &[Tokenized],
    dim: usize,
    out: &mut [f32],
) -> Result<(), Error> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(texts[i].ids.len()));
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let mut batch = Ragged::new();
        let mut taken = 0;
        for &i in rest {
            if taken > 0 && batch.ids().len() + texts[i].ids.len() > TOKENS_AT_ONCE {
                break;
            }
            batch.push(&texts[i].ids);
            taken += 1;
        }
        let vectors = backend.forward(&batch)?;
        for (&i, vector) in rest[..taken].iter().zip(vectors.chunks_exact(dim)) {
            out[i * dim..][..dim].copy_from_slice(vector);
        }
        rest = &rest[taken..];
    }
    Ok(())
}

struct Choice {
    backend: Backend,
    report: Report,
}

/// Walks the plan's order until an instruction set and an arithmetic pass their self-tests.
fn choose(
    files: &ModelFiles,
    config: &Config,
    tokens: &Tokens,
    options: &EncoderOptions,
) -> Result<Choice, Error> {
    let plan = plan(
        &Inventory::probe(),
        &PlanOptions {
            precision: options.dtype,
            isa: options.isa,
            arithmetic: options.arithmetic,
            threads: options.threads,
        },
    )?;
    let mut self_tests = Vec::new();
    let mut reasons = plan.reasons;
    let mut vetoes = Vec::new();
    for &isa in &plan.isas {
        for &arithmetic in &plan.arithmetics {
            let what = format!("{arithmetic} products with {isa} kernels");
            let began = Instant::now();
            let tried = sela_compute::self_test(isa, arithmetic).map_err(|e| e.to_string());
            let tried = match tried {
                Ok(()) => {
                    let backend = Backend::cpu(files, config, isa, arithmetic, plan.threads)?;
                    known_answers(&backend, tokens, config, arithmetic, options).map(|()| backend)
                }
                Err(veto) => Err(veto),
            };
            let took = began.elapsed();
            match tried {
                Ok(backend) => {
                    self_tests.push((what, took, None));
                    tracing::info!(%isa, %arithmetic, threads = plan.threads, "encoder ready");
                    let report = Report {
                        tier: plan.tier,
                        isa,
                        arithmetic,
                        threads: plan.threads,
                        reasons,
                        self_tests,
                        texts: 0,
                        tokens: 0,
                        truncated: 0,
                        degraded: 0,
                    };
                    return Ok(Choice { backend, report });
                }
                Err(veto) => {
                    // A model of one's own comes without vectors to hold bf16 against: no failure.
                    let unheld = arithmetic == Arithmetic::Bf16 && options.golden.is_none();
                    if unheld {
                        tracing::info!(%what, %veto, "not chosen");
                    } else {
                        tracing::warn!(%what, %veto, "self-test failed");
                    }
                    reasons.push(format!("not {what}: {veto}"));
                    vetoes.push(format!("{what}: {veto}"));
                    self_tests.push((what, took, Some(veto)));
                }
            }
        }
    }
    let dtype = format!("{:?}", options.dtype).to_lowercase();
    Err(Error::Vetoed {
        dtype,
        reason: vetoes.join("; "),
    })
}

/// Holds a reduced precision against the golden vectors; f32 arithmetic needs no such proof.
fn known_answers(
    backend: &Backend,
    tokens: &Tokens,
    config: &Config,
    arithmetic: Arithmetic,
    options: &EncoderOptions,
) -> Result<(), String> {
    if arithmetic != Arithmetic::Bf16 {
        return Ok(());
    }
    let Some(golden) = &options.golden else {
        return match options.dtype {
            Dtype::Auto => Err("there are no golden vectors to hold it against".into()),
            _ => Ok(()),
        };
    };
    let dim = config.hidden;
    let mut found = vec![0.0; golden.texts.len() * dim];
    let texts = tokenize(backend, tokens, "", &golden.texts, 0).map_err(|e| e.to_string())?;
    encode(backend, &texts, dim, &mut found).map_err(|e| e.to_string())?;
    let (mut least, mut sum) = (f64::INFINITY, 0.0);
    for (a, b) in found
        .chunks_exact(dim)
        .zip(golden.vectors.chunks_exact(dim))
    {
        let cosine = cosine(a, b);
        least = least.min(cosine);
        sum += cosine;
    }
    let mean = sum / golden.texts.len().max(1) as f64;
    // Written so that a NaN fails too.
    if least >= COSINE_MIN && mean >= COSINE_MEAN {
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
