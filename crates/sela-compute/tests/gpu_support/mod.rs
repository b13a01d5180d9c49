//! A small model of the BERT family, on any backend.

use sela_compute::encode::{
    AttentionTensors, EmbeddingTensors, Encode, FeedForwardTensors, Forward, LinearTensors,
    NormTensors, Pooling, Ragged, Tensor, Ticket,
};
use sela_compute::{Arithmetic, CpuEncode, Error, Isa};

pub(crate) const VOCABULARY: usize = 300;
pub(crate) const POSITIONS: usize = 320;
/// The token whose embedding is not a number.
pub(crate) const POISON: u32 = 299;
const EPSILON: f32 = 1e-6;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    /// Factor of queries and keys: how sharp attention is.
    pub(crate) heat: f32,
}

impl Shape {
    pub(crate) fn new(hidden: usize, inner: usize, heads: usize) -> Self {
        Self {
            hidden,
            inner,
            heads,
            layers: 1,
            heat: 1.0,
        }
    }
}

/// Numbers that look random and are the same on every machine.
struct Noise(u64);

impl Noise {
    fn take(&mut self, n: usize, scale: f32) -> Vec<f32> {
        let step = |_| {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        };
        (0..n).map(step).collect()
    }

    fn matrix(&mut self, rows: usize, cols: usize, scale: f32) -> Tensor {
        Tensor::from_f32(&self.take(rows * cols, scale), [rows, cols]).unwrap()
    }

    fn linear(&mut self, outputs: usize, inputs: usize, heat: f32) -> LinearTensors {
        LinearTensors {
            weight: self.matrix(outputs, inputs, heat * 1.7 / (inputs as f32).sqrt()),
            bias: self.matrix(1, outputs, 0.3),
        }
    }

    fn norm(&mut self, hidden: usize) -> NormTensors {
        let weight: Vec<f32> = self.take(hidden, 0.3).iter().map(|x| 1.0 + x).collect();
        NormTensors {
            weight: Tensor::from_f32(&weight, [1, hidden]).unwrap(),
            bias: self.matrix(1, hidden, 0.2),
        }
    }
}

pub(crate) struct Model<E: Encode> {
    embedding: E::Embedding,
    layers: Vec<(E::Attention, E::FeedForward)>,
    pub(crate) pooling: Pooling,
    pub(crate) unit: bool,
}

pub(crate) fn embedding(shape: Shape) -> EmbeddingTensors {
    let noise = &mut Noise(5);
    let hidden = shape.hidden;
    let mut words = noise.take(VOCABULARY * hidden, 1.0);
    words[POISON as usize * hidden + 3] = f32::NAN;
    EmbeddingTensors {
        word: Tensor::from_f32(&words, [VOCABULARY, hidden]).unwrap(),
        position: noise.matrix(POSITIONS, hidden, 0.4),
        token_type: noise.matrix(1, hidden, 0.4),
        norm: noise.norm(hidden),
        epsilon: EPSILON,
    }
}

pub(crate) fn attention(shape: Shape, layer: u64) -> AttentionTensors {
    let noise = &mut Noise(100 + layer);
    let hidden = shape.hidden;
    AttentionTensors {
        query: noise.linear(hidden, hidden, shape.heat),
        key: noise.linear(hidden, hidden, shape.heat),
        value: noise.linear(hidden, hidden, 1.0),
        output: noise.linear(hidden, hidden, 1.0),
        norm: noise.norm(hidden),
        epsilon: EPSILON,
        heads: shape.heads,
    }
}

pub(crate) fn feed_forward(shape: Shape, layer: u64) -> FeedForwardTensors {
    let noise = &mut Noise(200 + layer);
    FeedForwardTensors {
        up: noise.linear(shape.inner, shape.hidden, 1.0),
        down: noise.linear(shape.hidden, shape.inner, 1.0),
        norm: noise.norm(shape.hidden),
        epsilon: EPSILON,
    }
}

impl<E: Encode> Model<E> {
    pub(crate) fn new(backend: &E, shape: Shape) -> Self {
        let layer = |layer| {
            let attention = backend.attention(attention(shape, layer)).unwrap();
            let feed_forward = backend.feed_forward(feed_forward(shape, layer)).unwrap();
            (attention, feed_forward)
        };
        Self {
            embedding: backend.embedding(embedding(shape)).unwrap(),
            layers: (0..shape.layers as u64).map(layer).collect(),
            pooling: Pooling::Mean,
            unit: true,
        }
    }

    pub(crate) fn submit(&self, backend: &E, batch: &Ragged) -> Result<E::Ticket, Error> {
        let mut forward = backend.begin(batch)?;
        forward.embed(&self.embedding)?;
        for (attention, feed_forward) in &self.layers {
            forward.attend(attention)?;
            forward.feed_forward(feed_forward)?;
        }
        forward.pool(self.pooling, self.unit)?;
        forward.submit()
    }

    pub(crate) fn run(&self, backend: &E, batch: &Ragged) -> Vec<f32> {
        self.submit(backend, batch).unwrap().wait().unwrap()
    }
}

/// The CPU's answer in f32.
pub(crate) fn on_cpu(shape: Shape, batch: &Ragged, pooling: Pooling, unit: bool) -> Vec<f32> {
    let cpu = CpuEncode::new(Isa::available()[0], Arithmetic::F32, 2).unwrap();
    let mut model = Model::new(&cpu, shape);
    (model.pooling, model.unit) = (pooling, unit);
    model.run(&cpu, batch)
}

/// Tokens of a text; none of them is the poisoned one.
pub(crate) fn text(len: usize, salt: usize) -> Vec<u32> {
    (0..len)
        .map(|i| ((i * 29 + len * 7 + salt * 13) % (VOCABULARY - 1)) as u32)
        .collect()
}

pub(crate) fn batch(lengths: &[usize]) -> Ragged {
    let mut batch = Ragged::new();
    for (salt, &len) in lengths.iter().enumerate() {
        batch.push(&text(len, salt));
    }
    batch
}

pub(crate) fn alone(ids: &[u32]) -> Ragged {
    let mut batch = Ragged::new();
    batch.push(ids);
    batch
}

pub(crate) fn bits(vectors: &[f32]) -> Vec<u32> {
    vectors.iter().map(|x| x.to_bits()).collect()
}
