//! The silicon border of the encoder: a ragged batch of token ids in, one vector a text out.
//!
//! A model is written once over [`Encode`] and [`Forward`]. Passes are half-blocks, never tensor
//! operations, so that a GPU records a whole forward in one compute pass and a CPU runs all
//! passes over a few sequences while their activations are in its cache.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;

/// Storage type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl Dtype {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Bytes shared by many tensors, such as a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A row-major matrix (or a vector, as one row) of little-endian numbers in shared bytes.
#[derive(Clone)]
pub struct Tensor {
    bytes: SharedBytes,
    range: Range<usize>,
    dtype: Dtype,
    rows: usize,
    cols: usize,
}

impl Tensor {
    /// A view of `range` of `bytes` as `rows` x `cols` numbers.
    pub fn new(
        bytes: SharedBytes,
        range: Range<usize>,
        dtype: Dtype,
        [rows, cols]: [usize; 2],
    ) -> Result<Self, Error> {
        let found = (*bytes).as_ref().get(range.clone()).map_or(0, <[u8]>::len) / dtype.bytes();
        let expected = rows.saturating_mul(cols);
        if found != expected {
            return Err(Error::Shape {
                what: "tensor".into(),
                expected,
                found,
            });
        }
        Ok(Self {
            bytes,
            range,
            dtype,
            rows,
            cols,
        })
    }

    /// Copies f32 numbers into a tensor of their own.
    pub fn from_f32(numbers: &[f32], [rows, cols]: [usize; 2]) -> Result<Self, Error> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let range = 0..bytes.len();
        Self::new(Arc::new(bytes), range, Dtype::F32, [rows, cols])
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// The rows, in bytes taken once.
    ///
    /// Fails when the shared bytes have become fewer since, as those of a mapped file can.
    pub fn rows(&self) -> Result<TensorRows<'_>, Error> {
        let bytes = (*self.bytes).as_ref().get(self.range.clone());
        let bytes = bytes.ok_or_else(|| Error::Shape {
            what: "tensor in a file that has become shorter".into(),
            expected: self.rows * self.cols,
            found: 0,
        })?;
        Ok(TensorRows {
            bytes,
            dtype: self.dtype,
            cols: self.cols,
        })
    }

    /// Writes row `row`, widened to f32, to `out`; NaN when [`rows`](Self::rows) fails.
    ///
    /// # Panics
    ///
    /// When `row` is out of range or `out` is not one row long.
    pub fn read_row(&self, row: usize, out: &mut [f32]) {
        match self.rows() {
            Ok(rows) => rows.read(row, out),
            Err(_) => out.fill(f32::NAN),
        }
    }

    /// All numbers, widened to f32.
    ///
    /// All are NaN, which every taker of weights refuses, when [`rows`](Self::rows) fails.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut all = vec![f32::NAN; self.rows * self.cols];
        if let Ok(rows) = self.rows() {
            for (row, out) in all.chunks_exact_mut(self.cols.max(1)).enumerate() {
                rows.read(row, out);
            }
        }
        all
    }
}

/// The rows of a [`Tensor`] in bytes that were taken once: reading one asks nobody.
#[derive(Clone, Copy)]
pub struct TensorRows<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
    cols: usize,
}

impl TensorRows<'_> {
    /// Row `row` as it is stored.
    ///
    /// # Panics
    ///
    /// When `row` is out of range.
    pub(crate) fn bytes(&self, row: usize) -> &[u8] {
        let size = self.cols * self.dtype.bytes();
        &self.bytes[row * size..][..size]
    }

    /// Writes row `row`, widened to f32, to `out`.
    ///
    /// # Panics
    ///
    /// When `row` is out of range or `out` is not one row long.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.cols, "room for a row");
        let bytes = self.bytes(row);
        match self.dtype {
            Dtype::F32 => {
                for (x, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *x = f32::from_le_bytes(*b);
                }
            }
            Dtype::F16 => {
                for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *x = half::f16::from_le_bytes(*b).to_f32();
                }
            }
            Dtype::Bf16 => {
                for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *x = half::bf16::from_le_bytes(*b).to_f32();
                }
            }
        }
    }
}

/// Weights of a layer normalisation, `hidden` numbers each.
pub struct NormTensors {
    /// Factor.
    pub weight: Tensor,
    /// Addend.
    pub bias: Tensor,
}

/// Weights of a linear layer, `y = x W^T + b`.
pub struct LinearTensors {
    /// `outputs` x `inputs`.
    pub weight: Tensor,
    /// `outputs` numbers.
    pub bias: Tensor,
}

/// Weights of the pass that turns token ids into the first hidden state.
pub struct EmbeddingTensors {
    /// `vocabulary` x `hidden`.
    pub word: Tensor,
    /// `positions` x `hidden`.
    pub position: Tensor,
    /// The row of token type 0, `hidden` numbers.
    pub token_type: Tensor,
    /// Normalisation of the sum.
    pub norm: NormTensors,
    /// Its epsilon.
    pub epsilon: f32,
}

/// Weights of an attention block: projections, output projection, residual, normalisation.
pub struct AttentionTensors {
    /// Query projection.
    pub query: LinearTensors,
    /// Key projection.
    pub key: LinearTensors,
    /// Value projection.
    pub value: LinearTensors,
    /// Output projection.
    pub output: LinearTensors,
    /// Normalisation after the residual.
    pub norm: NormTensors,
    /// Its epsilon.
    pub epsilon: f32,
    /// Number of heads; divides `hidden`.
    pub heads: usize,
}

/// Weights of a feed-forward block: up, exact (erf) GELU, down, residual, normalisation.
pub struct FeedForwardTensors {
    /// `inner` x `hidden`.
    pub up: LinearTensors,
    /// `hidden` x `inner`.
    pub down: LinearTensors,
    /// Normalisation after the residual.
    pub norm: NormTensors,
    /// Its epsilon.
    pub epsilon: f32,
}

/// Which hidden states become the vector of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over all tokens of the text.
    Mean,
    /// The first token.
    Cls,
}

/// How much of a device a forward may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// All that is free.
    #[default]
    Whole,
    /// Not all: others may come meanwhile who must not wait. A thread of the CPU stays theirs; a GPU
    /// does one forward after another, so there it is the batch that must be short.
    Part,
}

/// Token sequences packed end to end, none of them padded.
#[derive(Clone, Debug, Default)]
pub struct Ragged {
    ids: Vec<u32>,
    ends: Vec<usize>,
}

impl Ragged {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a sequence of at least one token.
    ///
    /// # Panics
    ///
    /// When the sequence is empty.
    pub fn push(&mut self, ids: &[u32]) {
        assert!(!ids.is_empty(), "a sequence has at least one token");
        self.ids.extend_from_slice(ids);
        self.ends.push(self.ids.len());
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All token ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Where sequence `i` lies in [`ids`](Self::ids).
    pub fn range(&self, i: usize) -> Range<usize> {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        start..self.ends[i]
    }
}

/// A backend that can run an encoder of the BERT family.
pub trait Encode: Send + Sync {
    /// Weights of an embedding pass, in this backend's layout.
    type Embedding: Send + Sync;
    /// Weights of an attention block.
    type Attention: Send + Sync;
    /// Weights of a feed-forward block.
    type FeedForward: Send + Sync;
    /// A forward being recorded.
    type Forward<'a>: Forward<'a, Backend = Self>
    where
        Self: 'a;
    /// A forward under way: it borrows nothing and may be waited for on any thread.
    type Ticket: Ticket + Send + 'static;

    /// Takes over the weights of an embedding pass.
    fn embedding(&self, tensors: EmbeddingTensors) -> Result<Self::Embedding, Error>;
    /// Takes over the weights of an attention block.
    fn attention(&self, tensors: AttentionTensors) -> Result<Self::Attention, Error>;
    /// Takes over the weights of a feed-forward block.
    fn feed_forward(&self, tensors: FeedForwardTensors) -> Result<Self::FeedForward, Error>;
    /// Begins a forward over a batch.
    fn begin<'a>(&'a self, batch: &'a Ragged) -> Result<Self::Forward<'a>, Error>;
}

/// A forward being recorded: passes in their order, then [`submit`](Self::submit).
pub trait Forward<'a>: Sized {
    /// The backend that runs it.
    type Backend: Encode + ?Sized + 'a;
    /// Sum of word, position and type embeddings, normalised.
    fn embed(&mut self, weights: &'a <Self::Backend as Encode>::Embedding) -> Result<(), Error>;
    /// Attention within each sequence, residual, normalisation.
    fn attend(&mut self, weights: &'a <Self::Backend as Encode>::Attention) -> Result<(), Error>;
    /// Feed-forward block, residual, normalisation.
    fn feed_forward(
        &mut self,
        weights: &'a <Self::Backend as Encode>::FeedForward,
    ) -> Result<(), Error>;
    /// Pools each sequence to one vector, scaled to length 1 when `normalize`.
    fn pool(&mut self, pooling: Pooling, normalize: bool) -> Result<(), Error>;
    /// Says how much of the device it may have; the whole unless this is called.
    fn share(&mut self, _share: Share) {}
    /// Starts the work.
    fn submit(self) -> Result<<Self::Backend as Encode>::Ticket, Error>;
}

/// A forward under way.
pub trait Ticket {
    /// Waits for the vectors: `sequences` x `hidden` numbers, row after row.
    fn wait(self) -> Result<Vec<f32>, Error>;
}
