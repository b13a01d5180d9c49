//! Weights on the GPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::slice::HalfFloatSliceExt;
use wgpu::BufferUsages;

use super::shaders::{Kind, Rows, Tile};
use super::{GpuEncode, Style};
use crate::encode::{
    AttentionTensors, EmbeddingTensors, FeedForwardTensors, LinearTensors, NormTensors, Tensor,
};
use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Kernel, Purpose};

/// Widths are padded to multiples of this.
pub(super) const WIDTH: usize = 128;
/// Largest hidden size: a thread keeps a 32nd of a row in registers.
const HIDDEN_MAX: usize = 4096;
/// Largest head: its queries and outputs are kept in registers.
const HEAD_MAX: usize = 128;

/// The width of rows of `n` numbers.
pub(super) fn padded(n: usize) -> usize {
    n.next_multiple_of(WIDTH)
}

/// Weights of an embedding pass.
pub struct GpuEmbedding {
    pub(super) name: Name,
    pub(super) words: Words,
    pub(super) positions: Buffer,
    pub(super) scale_shift: Buffer,
    pub(super) kernel: Arc<Kernel>,
    pub(super) epsilon: f32,
    pub(super) hidden: usize,
    pub(super) vocabulary: usize,
    pub(super) longest: usize,
}

/// The word table.
pub(super) enum Words {
    /// On the GPU, whole.
    Resident(Buffer),
    /// Larger than a kernel can see: the rows of a batch are sent with it.
    Sent(Tensor),
}

/// Weights of an attention block.
pub struct GpuAttention {
    pub(super) name: Name,
    pub(super) projections: Product,
    pub(super) output: Product,
    pub(super) norm: Norm,
    /// For few and for many rows a tile.
    pub(super) kernels: [Arc<Kernel>; 2],
    pub(super) heads: usize,
    pub(super) hidden: usize,
}

/// Weights of a feed-forward block.
pub struct GpuFeedForward {
    pub(super) up: Product,
    pub(super) down: Product,
    pub(super) norm: Norm,
    pub(super) hidden: usize,
}

/// What tells weights apart, for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(u64);

impl Name {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A linear layer, or several over the same input side by side.
pub(super) struct Product {
    pub(super) name: Name,
    pub(super) weights: Buffer,
    pub(super) bias: Buffer,
    /// Numbers of an input row, padded.
    pub(super) depth: usize,
    /// Numbers of an output row, padded.
    pub(super) width: usize,
    /// Kernels for large, medium and small tiles.
    pub(super) kernels: [Arc<Kernel>; 3],
}

/// A normalisation.
pub(super) struct Norm {
    pub(super) name: Name,
    pub(super) scale_shift: Buffer,
    pub(super) kernel: Arc<Kernel>,
    pub(super) epsilon: f32,
}

impl GpuEmbedding {
    pub(super) fn new(backend: &GpuEncode, tensors: EmbeddingTensors) -> Result<Self, Error> {
        let [vocabulary, hidden] = tensors.word.shape();
        check_hidden(hidden)?;
        let (position, token_type) = (tensors.position.to_f32(), tensors.token_type.to_f32());
        let [longest, columns] = tensors.position.shape();
        let parts = [
            (
                "first row of the word embedding",
                vocabulary.min(1) * hidden,
            ),
            ("position embedding", columns),
            ("token type", token_type.len()),
        ];
        for (what, found) in parts {
            if found != hidden {
                return Err(shape(what, hidden, found));
            }
        }
        check_finite("position embedding", &position)?;
        check_finite("token type", &token_type)?;
        let width = padded(hidden);
        let mut sums = vec![0f32; longest * width];
        for (sum, row) in sums
            .chunks_exact_mut(width)
            .zip(position.chunks_exact(hidden))
        {
            for ((sum, x), t) in sum.iter_mut().zip(row).zip(&token_type) {
                *sum = x + t;
            }
        }
        let gpu = &backend.gpu;
        let bytes = (vocabulary * width * backend.style.bytes()) as u64;
        let words = if bytes > gpu.facts().binding_bytes {
            Words::Sent(tensors.word)
        } else {
            // Not looked at: a text with a bad row is refused when it is embedded.
            let ids = 0..vocabulary as u32;
            let rows = word_rows(backend.style, &tensors.word, ids)?;
            Words::Resident(upload(gpu, "words", &rows)?)
        };
        let quads = (width / WIDTH) as u32;
        backend.kernel(Kind::Pool(quads))?;
        Ok(Self {
            name: Name::new(),
            words,
            positions: upload(gpu, "positions", bytemuck::cast_slice(&sums))?,
            scale_shift: scale_shift(gpu, &tensors.norm, hidden, "embedding")?,
            kernel: backend.kernel(Kind::Embed(quads))?,
            epsilon: tensors.epsilon,
            hidden,
            vocabulary,
            longest,
        })
    }
}

impl GpuAttention {
    pub(super) fn new(backend: &GpuEncode, tensors: AttentionTensors) -> Result<Self, Error> {
        let [hidden, inputs] = tensors.output.weight.shape();
        let heads = tensors.heads;
        if hidden != inputs || heads == 0 || hidden % heads != 0 {
            return Err(shape(
                &format!("attention output in {heads} heads"),
                hidden,
                inputs,
            ));
        }
        check_hidden(hidden)?;
        let head = hidden / heads;
        whole_groups("head size", head)?;
        limit("numbers of an attention head", head, HEAD_MAX)?;
        let parts = [
            ("query", &tensors.query),
            ("key", &tensors.key),
            ("value", &tensors.value),
        ];
        for (name, part) in parts {
            let [found, _] = part.weight.shape();
            if found != hidden {
                return Err(shape(name, hidden, found));
            }
        }
        Ok(Self {
            name: Name::new(),
            projections: Product::new(backend, hidden, &parts)?,
            output: Product::new(backend, hidden, &[("attention output", &tensors.output)])?,
            norm: Norm::new(backend, &tensors.norm, tensors.epsilon, hidden, "attention")?,
            kernels: [
                backend.kernel(Kind::Attention(head as u32, Rows::Few))?,
                backend.kernel(Kind::Attention(head as u32, Rows::Many))?,
            ],
            heads,
            hidden,
        })
    }
}

impl GpuFeedForward {
    pub(super) fn new(backend: &GpuEncode, tensors: FeedForwardTensors) -> Result<Self, Error> {
        let [inner, hidden] = tensors.up.weight.shape();
        check_hidden(hidden)?;
        whole_groups("inner size", inner)?;
        let [found, _] = tensors.down.weight.shape();
        if found != hidden {
            return Err(shape("feed-forward down", hidden, found));
        }
        Ok(Self {
            up: Product::new(backend, hidden, &[("feed-forward up", &tensors.up)])?,
            down: Product::new(backend, inner, &[("feed-forward down", &tensors.down)])?,
            norm: Norm::new(
                backend,
                &tensors.norm,
                tensors.epsilon,
                hidden,
                "feed-forward",
            )?,
            hidden,
        })
    }
}

impl Product {
    /// Packs `layers`, each with its name, one after the other.
    fn new(
        backend: &GpuEncode,
        inputs: usize,
        layers: &[(&str, &LinearTensors)],
    ) -> Result<Self, Error> {
        let outputs = layers
            .iter()
            .map(|(_, layer)| layer.weight.shape()[0])
            .sum();
        let (depth, width) = (padded(inputs), padded(outputs));
        let mut matrix = vec![0f32; depth * width];
        let mut bias = Vec::with_capacity(width);
        let mut row = vec![0f32; inputs];
        let mut output = 0;
        for (name, layer) in layers {
            let added = check_layer(layer, inputs, name)?;
            let rows = layer.weight.rows()?;
            for i in 0..added.len() {
                rows.read(i, &mut row);
                check_finite(&format!("{name} weight"), &row)
                    .map_err(|error| moved(error, i * inputs))?;
                check_f16(backend.style, &format!("{name} weight"), &row)?;
                matrix[output * depth..][..inputs].copy_from_slice(&row);
                output += 1;
            }
            bias.extend(added);
        }
        bias.resize(width, 0.0);
        let [large, medium, small] = Tile::ALL.map(|tile| backend.kernel(Kind::Product(tile)));
        Ok(Self {
            name: Name::new(),
            weights: upload(&backend.gpu, "weights", &numbers(backend.style, &matrix))?,
            bias: upload(&backend.gpu, "bias", bytemuck::cast_slice(&bias))?,
            depth,
            width,
            kernels: [large?, medium?, small?],
        })
    }
}

impl Norm {
    fn new(
        backend: &GpuEncode,
        tensors: &NormTensors,
        epsilon: f32,
        hidden: usize,
        what: &str,
    ) -> Result<Self, Error> {
        Ok(Self {
            name: Name::new(),
            scale_shift: scale_shift(&backend.gpu, tensors, hidden, what)?,
            kernel: backend.kernel(Kind::Norm((padded(hidden) / WIDTH) as u32))?,
            epsilon,
        })
    }
}

/// Numbers as they lie in memory.
fn numbers(style: Style, numbers: &[f32]) -> Vec<u8> {
    if style.f16 {
        let mut halves = vec![half::f16::ZERO; numbers.len()];
        halves.convert_from_f32_slice(numbers);
        bytemuck::cast_slice(&halves).to_vec()
    } else {
        bytemuck::cast_slice(numbers).to_vec()
    }
}

/// Rows of the word table, padded, as they lie in memory.
pub(super) fn word_rows(
    style: Style,
    words: &Tensor,
    ids: impl ExactSizeIterator<Item = u32>,
) -> Result<Vec<u8>, Error> {
    let [_, hidden] = words.shape();
    let rows = words.rows()?;
    let mut row = vec![0f32; padded(hidden)];
    let mut bytes = Vec::with_capacity(ids.len() * row.len() * style.bytes());
    for id in ids {
        rows.read(id as usize, &mut row[..hidden]);
        bytes.extend(numbers(style, &row));
    }
    Ok(bytes)
}

/// Scale, then shift, padded.
fn scale_shift(
    gpu: &Gpu,
    tensors: &NormTensors,
    hidden: usize,
    what: &str,
) -> Result<Buffer, Error> {
    let width = padded(hidden);
    let mut both = vec![0f32; 2 * width];
    let parts = [("weight", &tensors.weight), ("bias", &tensors.bias)];
    for ((name, tensor), out) in parts.into_iter().zip(both.chunks_exact_mut(width)) {
        let part = tensor.to_f32();
        if part.len() != hidden {
            return Err(shape(&format!("{what} normalisation"), hidden, part.len()));
        }
        check_finite(&format!("{what} normalisation {name}"), &part)?;
        out[..hidden].copy_from_slice(&part);
    }
    upload(gpu, "norm", bytemuck::cast_slice(&both))
}

fn upload(gpu: &Gpu, label: &str, bytes: &[u8]) -> Result<Buffer, Error> {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
    if bytes.len() as u64 > gpu.facts().binding_bytes {
        let limit = gpu.facts().binding_bytes;
        let len = bytes.len();
        return Err(gpu.error(format!(
            "{label} take {len} bytes; a kernel sees {limit} at most"
        )));
    }
    let buffer = gpu.buffer(Purpose::Weights, label, bytes.len() as u64, usage)?;
    gpu.write_much(&buffer, bytes)?;
    Ok(buffer)
}

/// Checks the shapes of a layer; its bias.
fn check_layer(layer: &LinearTensors, inputs: usize, what: &str) -> Result<Vec<f32>, Error> {
    let [outputs, found] = layer.weight.shape();
    let bias = layer.bias.to_f32();
    if found != inputs || bias.len() != outputs {
        return Err(shape(&format!("{what} weight"), inputs, found));
    }
    check_finite(&format!("{what} bias"), &bias)?;
    Ok(bias)
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

/// Weights that f16 cannot hold would be infinite.
fn check_f16(style: Style, what: &str, numbers: &[f32]) -> Result<(), Error> {
    match numbers.iter().find(|x| x.abs() > half::f16::MAX.to_f32()) {
        Some(value) if style.f16 => Err(Error::Missing(format!(
            "room in f16 for {value} in the {what}"
        ))),
        _ => Ok(()),
    }
}

/// The same error, `by` numbers further on.
fn moved(error: Error, by: usize) -> Error {
    match error {
        Error::NotFinite {
            what,
            position,
            value,
        } => Error::NotFinite {
            what,
            position: position + by,
            value,
        },
        error => error,
    }
}

fn shape(what: &str, expected: usize, found: usize) -> Error {
    Error::Shape {
        what: what.into(),
        expected,
        found,
    }
}

fn limit(what: &'static str, value: usize, limit: usize) -> Result<(), Error> {
    if value > limit {
        return Err(Error::Limit { what, value, limit });
    }
    Ok(())
}

fn check_hidden(hidden: usize) -> Result<(), Error> {
    whole_groups("hidden size", hidden)?;
    limit("hidden size", hidden, HIDDEN_MAX)
}

/// The kernels work on whole groups of 16 numbers, as those of the CPU do.
fn whole_groups(what: &str, n: usize) -> Result<(), Error> {
    if n == 0 || !n.is_multiple_of(16) {
        let expected = n.next_multiple_of(16).max(16);
        return Err(shape(&format!("{what} (a multiple of 16)"), expected, n));
    }
    Ok(())
}
