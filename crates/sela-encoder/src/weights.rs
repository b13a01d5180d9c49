//! The tensors of a BERT encoder in a safetensors file, read where they lie.

use safetensors::SafeTensors;
use sela_compute::encode::{
    AttentionTensors, Dtype, EmbeddingTensors, FeedForwardTensors, LinearTensors, NormTensors,
    SharedBytes, Tensor,
};

use crate::config::Config;
use crate::error::Error;
use crate::files::{ModelFiles, WEIGHTS};

/// Tensors by name.
pub(crate) struct Weights<'a> {
    shared: SharedBytes,
    /// The shared bytes as they were when the file was opened: a mapped file that has become
    /// shorter gives others, and asking it is a system call.
    bytes: &'a [u8],
    tensors: SafeTensors<'a>,
    /// What stands before every name, such as `bert.`.
    prefix: &'static str,
    config: &'a Config,
}

fn bad(reason: impl ToString) -> Error {
    Error::BadFile {
        name: WEIGHTS.into(),
        reason: reason.to_string(),
    }
}

/// Opens the weights and hands them to `read`.
pub(crate) fn with_weights<T>(
    files: &ModelFiles,
    config: &Config,
    read: impl FnOnce(&Weights<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let shared = files.get(WEIGHTS)?;
    let held = shared.clone();
    let bytes = (*held).as_ref();
    let tensors = SafeTensors::deserialize(bytes).map_err(bad)?;
    let prefix = if tensors.names().iter().any(|n| n.starts_with("bert.")) {
        "bert."
    } else {
        ""
    };
    let found = read(&Weights {
        shared,
        bytes,
        tensors,
        prefix,
        config,
    });
    // Whatever `read` made of bytes that were gone, this is why.
    if (*held).as_ref().len() < bytes.len() {
        return Err(bad("it became shorter while it was read"));
    }
    found
}

impl Weights<'_> {
    /// A tensor by its name, or by its older name.
    fn tensor(&self, name: &str, shape: [usize; 2]) -> Result<Tensor, Error> {
        let full = format!("{}{name}", self.prefix);
        let older = full
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        let view = self
            .tensors
            .tensor(&full)
            .or_else(|_| self.tensors.tensor(&older))
            .map_err(|_| Error::MissingTensor(full.clone()))?;
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            other => {
                return Err(Error::Unsupported {
                    what: "type of weights",
                    value: format!("{other:?} of {full}"),
                });
            }
        };
        let found = match *view.shape() {
            [n] => [1, n],
            [rows, cols] => [rows, cols],
            _ => [0, 0],
        };
        if found != shape {
            return Err(bad(format!(
                "{full} has shape {:?}, not {shape:?}",
                view.shape()
            )));
        }
        let start = view.data().as_ptr() as usize - self.bytes.as_ptr() as usize;
        let range = start..start + view.data().len();
        Ok(Tensor::new(self.shared.clone(), range, dtype, found)?)
    }

    fn norm(&self, name: &str) -> Result<NormTensors, Error> {
        let hidden = self.config.hidden;
        Ok(NormTensors {
            weight: self.tensor(&format!("{name}.LayerNorm.weight"), [1, hidden])?,
            bias: self.tensor(&format!("{name}.LayerNorm.bias"), [1, hidden])?,
        })
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<LinearTensors, Error> {
        Ok(LinearTensors {
            weight: self.tensor(&format!("{name}.weight"), [outputs, inputs])?,
            bias: self.tensor(&format!("{name}.bias"), [1, outputs])?,
        })
    }

    pub(crate) fn embedding(&self) -> Result<EmbeddingTensors, Error> {
        let Config {
            hidden,
            vocabulary,
            positions,
            token_types,
            ..
        } = *self.config;
        let table = |name: &str, rows| {
            let name = format!("embeddings.{name}_embeddings.weight");
            self.tensor(&name, [rows, hidden])
        };
        let mut type0 = vec![0.0; hidden];
        table("token_type", token_types)?.read_row(0, &mut type0);
        Ok(EmbeddingTensors {
            word: table("word", vocabulary)?,
            position: table("position", positions)?,
            token_type: Tensor::from_f32(&type0, [1, hidden])?,
            norm: self.norm("embeddings")?,
            epsilon: self.config.epsilon,
        })
    }

    pub(crate) fn attention(&self, layer: usize) -> Result<AttentionTensors, Error> {
        let hidden = self.config.hidden;
        let name = format!("encoder.layer.{layer}.attention");
        Ok(AttentionTensors {
            query: self.linear(&format!("{name}.self.query"), hidden, hidden)?,
            key: self.linear(&format!("{name}.self.key"), hidden, hidden)?,
            value: self.linear(&format!("{name}.self.value"), hidden, hidden)?,
            output: self.linear(&format!("{name}.output.dense"), hidden, hidden)?,
            norm: self.norm(&format!("{name}.output"))?,
            epsilon: self.config.epsilon,
            heads: self.config.heads,
        })
    }

    pub(crate) fn feed_forward(&self, layer: usize) -> Result<FeedForwardTensors, Error> {
        let Config { hidden, inner, .. } = *self.config;
        let name = format!("encoder.layer.{layer}");
        Ok(FeedForwardTensors {
            up: self.linear(&format!("{name}.intermediate.dense"), inner, hidden)?,
            down: self.linear(&format!("{name}.output.dense"), hidden, inner)?,
            norm: self.norm(&format!("{name}.output"))?,
            epsilon: self.config.epsilon,
        })
    }
}
