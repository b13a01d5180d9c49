//! Weights in the CPU's layout.

use super::encode::CpuEncode;
use super::linear::Linear;
use super::lined::Lined;
use crate::encode::{AttentionTensors, EmbeddingTensors, FeedForwardTensors, NormTensors, Tensor};
use crate::error::Error;

pub(super) struct Norm {
    pub(super) weight: Lined,
    pub(super) bias: Lined,
    pub(super) epsilon: f32,
}

/// Weights of an embedding pass; the word table stays where it is mapped.
pub struct CpuEmbedding {
    pub(super) word: Tensor,
    pub(super) position: Lined,
    pub(super) token_type: Lined,
    pub(super) norm: Norm,
}

/// Weights of an attention block.
pub struct CpuAttention {
    pub(super) projections: Linear,
    pub(super) output: Linear,
    pub(super) norm: Norm,
    pub(super) heads: usize,
}

/// Weights of a feed-forward block.
pub struct CpuFeedForward {
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) norm: Norm,
}

impl CpuEmbedding {
    /// Takes over the weights, packed for the backend.
    pub(super) fn new(tensors: EmbeddingTensors) -> Result<Self, Error> {
        let [vocabulary, hidden] = tensors.word.shape();
        whole_groups("hidden size", hidden)?;
        let (position, token_type) = (tensors.position.to_f32(), tensors.token_type.to_f32());
        let [_, columns] = tensors.position.shape();
        for (what, found) in [
            (
                "first row of the word embedding",
                vocabulary.min(1) * hidden,
            ),
            ("position embedding", columns),
            ("token type", token_type.len()),
        ] {
            if found != hidden {
                return Err(Error::Shape {
                    what: what.into(),
                    expected: hidden,
                    found,
                });
            }
        }
        // The word table is not read here: a text with a bad row is refused when it is embedded.
        check_finite("position embedding", &position)?;
        check_finite("token type", &token_type)?;
        Ok(Self {
            position: position[..].into(),
            token_type: token_type[..].into(),
            norm: norm(&tensors.norm, tensors.epsilon, hidden, "embedding")?,
            word: tensors.word,
        })
    }
}

impl CpuAttention {
    /// The packed weights of its products, in the order in which a forward reads them.
    pub fn packed(&self) -> impl Iterator<Item = &[u8]> {
        [&self.projections, &self.output]
            .into_iter()
            .flat_map(Linear::bytes)
    }

    /// Takes over the weights, packed for the backend.
    pub(super) fn new(backend: &CpuEncode, tensors: AttentionTensors) -> Result<Self, Error> {
        let [hidden, inputs] = tensors.output.weight.shape();
        if hidden != inputs || tensors.heads == 0 || hidden % tensors.heads != 0 {
            let what = format!("attention output in {} heads", tensors.heads);
            return Err(Error::Shape {
                what,
                expected: hidden,
                found: inputs,
            });
        }
        whole_groups("head size", hidden / tensors.heads)?;
        let parts = [
            ("query", &tensors.query),
            ("key", &tensors.key),
            ("value", &tensors.value),
        ];
        for (name, part) in parts {
            let [found, _] = part.weight.shape();
            if found != hidden {
                return Err(Error::Shape {
                    what: name.into(),
                    expected: hidden,
                    found,
                });
            }
        }
        Ok(Self {
            projections: Linear::new(backend.kernels, backend.arithmetic, hidden, &parts)?,
            output: Linear::new(
                backend.kernels,
                backend.arithmetic,
                hidden,
                &[("attention output", &tensors.output)],
            )?,
            norm: norm(&tensors.norm, tensors.epsilon, hidden, "attention")?,
            heads: tensors.heads,
        })
    }
}

impl CpuFeedForward {
    /// The packed weights of its products, in the order in which a forward reads them.
    pub fn packed(&self) -> impl Iterator<Item = &[u8]> {
        [&self.up, &self.down].into_iter().flat_map(Linear::bytes)
    }

    /// Takes over the weights, packed for the backend.
    pub(super) fn new(backend: &CpuEncode, tensors: FeedForwardTensors) -> Result<Self, Error> {
        let [inner, hidden] = tensors.up.weight.shape();
        whole_groups("hidden size", hidden)?;
        whole_groups("inner size", inner)?;
        let [found, _] = tensors.down.weight.shape();
        if found != hidden {
            return Err(Error::Shape {
                what: "feed-forward down".into(),
                expected: hidden,
                found,
            });
        }
        Ok(Self {
            up: Linear::new(
                backend.kernels,
                backend.arithmetic,
                hidden,
                &[("feed-forward up", &tensors.up)],
            )?,
            down: Linear::new(
                backend.kernels,
                backend.arithmetic,
                inner,
                &[("feed-forward down", &tensors.down)],
            )?,
            norm: norm(&tensors.norm, tensors.epsilon, hidden, "feed-forward")?,
        })
    }
}

fn norm(tensors: &NormTensors, epsilon: f32, hidden: usize, what: &str) -> Result<Norm, Error> {
    let (weight, bias) = (tensors.weight.to_f32(), tensors.bias.to_f32());
    for part in [&weight, &bias] {
        if part.len() != hidden {
            let what = format!("{what} normalisation");
            return Err(Error::Shape {
                what,
                expected: hidden,
                found: part.len(),
            });
        }
    }
    check_finite(&format!("{what} normalisation weight"), &weight)?;
    check_finite(&format!("{what} normalisation bias"), &bias)?;
    Ok(Norm {
        weight: weight[..].into(),
        bias: bias[..].into(),
        epsilon,
    })
}

fn check_finite(what: &str, numbers: &[f32]) -> Result<(), Error> {
    match numbers.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(position) => Err(Error::NotFinite {
            what: what.into(),
            position,
            value: numbers[position],
        }),
    }
}

/// The kernels work on whole groups of 16 numbers.
fn whole_groups(what: &str, n: usize) -> Result<(), Error> {
    if n == 0 || !n.is_multiple_of(16) {
        let expected = n.next_multiple_of(16).max(16);
        return Err(Error::Shape {
            what: format!("{what} (a multiple of 16)"),
            expected,
            found: n,
        });
    }
    Ok(())
}
