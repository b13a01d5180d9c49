//! Known-answer tests of the encoder's kernels: a whole small model, held against the reference.
//!
//! A self-test may only veto. It takes about a millisecond and covers every kernel of an
//! instruction set at shapes that fill no tile.

#[cfg(feature = "gpu")]
mod gpu;
mod scan;

use crate::cpu::encode::CpuEncode;
use crate::encode::{
    AttentionTensors, EmbeddingTensors, Encode, FeedForwardTensors, Forward, LinearTensors,
    NormTensors, Pooling, Ragged, Tensor, Ticket,
};
use crate::error::Error;
use crate::isa::Isa;
use crate::plan::Arithmetic;
use crate::reference;

#[cfg(feature = "gpu")]
pub use self::gpu::{gpu_self_test, gpu_self_test_once, self_test_of};
pub use self::scan::scan_self_test;

/// The size of a model to test with.
#[derive(Clone, Copy)]
struct Shape {
    hidden: usize,
    inner: usize,
    heads: usize,
}

const SHAPE: Shape = Shape {
    hidden: 48,
    inner: 80,
    heads: 3,
};
const SEED: u64 = 20;
const VOCABULARY: usize = 64;
const POSITIONS: usize = 40;
const EPSILON: f32 = 1e-6;

/// Numbers that look random and are the same on every machine.
struct Noise(u64);

impl Noise {
    /// `n` numbers between `-scale` and `scale`.
    fn take(&mut self, n: usize, scale: f32) -> Vec<f32> {
        let step = |_| {
            // A 64-bit linear congruential generator with Knuth's constants.
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        };
        (0..n).map(step).collect()
    }

    fn matrix(&mut self, rows: usize, cols: usize, scale: f32) -> Result<Tensor, Error> {
        Tensor::from_f32(&self.take(rows * cols, scale), [rows, cols])
    }

    fn linear(&mut self, outputs: usize, inputs: usize) -> Result<LinearTensors, Error> {
        let scale = 2.0 / (inputs as f32).sqrt();
        let weight = self.matrix(outputs, inputs, scale)?;
        Ok(LinearTensors {
            weight,
            bias: self.matrix(1, outputs, 0.5)?,
        })
    }

    fn norm(&mut self, hidden: usize) -> Result<NormTensors, Error> {
        Ok(NormTensors {
            weight: self.matrix(1, hidden, 1.5)?,
            bias: self.matrix(1, hidden, 0.3)?,
        })
    }
}

/// The weights of a model of one layer.
struct Tensors {
    embedding: EmbeddingTensors,
    attention: AttentionTensors,
    feed_forward: FeedForwardTensors,
}

impl Tensors {
    /// The same for the same shape, every time.
    fn new(shape: Shape) -> Result<Self, Error> {
        let noise = &mut Noise(SEED);
        let Shape {
            hidden,
            inner,
            heads,
        } = shape;
        Ok(Self {
            embedding: EmbeddingTensors {
                word: noise.matrix(VOCABULARY, hidden, 1.0)?,
                position: noise.matrix(POSITIONS, hidden, 0.5)?,
                token_type: noise.matrix(1, hidden, 0.5)?,
                norm: noise.norm(hidden)?,
                epsilon: EPSILON,
            },
            attention: AttentionTensors {
                query: noise.linear(hidden, hidden)?,
                key: noise.linear(hidden, hidden)?,
                value: noise.linear(hidden, hidden)?,
                output: noise.linear(hidden, hidden)?,
                norm: noise.norm(hidden)?,
                epsilon: EPSILON,
                heads,
            },
            feed_forward: FeedForwardTensors {
                up: noise.linear(inner, hidden)?,
                down: noise.linear(hidden, inner)?,
                norm: noise.norm(hidden)?,
                epsilon: EPSILON,
            },
        })
    }
}

fn add_linear(to: &mut [f32], from: &[f32], layer: &LinearTensors) {
    let sums = reference::linear(from, &layer.weight.to_f32(), &layer.bias.to_f32());
    for (x, sum) in to.iter_mut().zip(sums) {
        *x += sum;
    }
}

fn apply_norm(row: &mut [f32], norm: &NormTensors) {
    reference::layer_norm(row, &norm.weight.to_f32(), &norm.bias.to_f32(), EPSILON);
}

/// The vector of one sequence by the reference kernels.
fn expected(ids: &[u32], tensors: &Tensors) -> Vec<f32> {
    let Tensors {
        embedding,
        attention,
        feed_forward,
    } = tensors;
    let [_, hidden] = embedding.word.shape();
    let (position, token_type) = (embedding.position.to_f32(), embedding.token_type.to_f32());
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for (at, &id) in ids.iter().enumerate() {
        let mut row = vec![0.0; hidden];
        embedding.word.read_row(id as usize, &mut row);
        for (i, x) in row.iter_mut().enumerate() {
            *x += token_type[i] + position[at * hidden + i];
        }
        apply_norm(&mut row, &embedding.norm);
        rows.push(row);
    }
    let project = |layer: &LinearTensors| -> Vec<Vec<f32>> {
        let (weight, bias) = (layer.weight.to_f32(), layer.bias.to_f32());
        rows.iter()
            .map(|row| reference::linear(row, &weight, &bias))
            .collect()
    };
    let parts = [&attention.query, &attention.key, &attention.value].map(project);
    let dim = hidden / attention.heads;
    let mut context = vec![vec![0.0; hidden]; ids.len()];
    for head in 0..attention.heads {
        let columns = head * dim..(head + 1) * dim;
        let [q, k, v] = [0, 1, 2].map(|part: usize| -> Vec<f32> {
            parts[part]
                .iter()
                .flat_map(|row| row[columns.clone()].to_vec())
                .collect()
        });
        let out = reference::attention(&q, &k, &v, dim);
        for (row, found) in context.iter_mut().zip(out.chunks_exact(dim)) {
            row[columns.clone()].copy_from_slice(found);
        }
    }
    for (row, context) in rows.iter_mut().zip(&context) {
        add_linear(row, context, &attention.output);
        apply_norm(row, &attention.norm);
        let up = &feed_forward.up;
        let inner = reference::linear(row, &up.weight.to_f32(), &up.bias.to_f32());
        let inner: Vec<f32> = inner.into_iter().map(reference::gelu).collect();
        add_linear(row, &inner, &feed_forward.down);
        apply_norm(row, &feed_forward.norm);
    }
    let mean = |i: usize| rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / rows.len() as f64;
    let mean: Vec<f64> = (0..hidden).map(mean).collect();
    let norm = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
    mean.iter().map(|x| (x / norm) as f32).collect()
}

/// Lengths around the borders of lanes and tiles.
const LENGTHS: [usize; 11] = [1, 2, 5, 6, 7, 12, 13, 16, 17, 31, 33];

/// A batch of sequences of those lengths.
fn batch(lengths: &[usize]) -> Ragged {
    let mut batch = Ragged::new();
    for &len in lengths {
        let ids: Vec<u32> = (0..len)
            .map(|i| ((i * 29 + len * 7) % VOCABULARY) as u32)
            .collect();
        batch.push(&ids);
    }
    batch
}

/// A model in a backend's layout.
struct Model<'a, E: Encode> {
    backend: &'a E,
    embedding: E::Embedding,
    attention: E::Attention,
    feed_forward: E::FeedForward,
}

impl<'a, E: Encode> Model<'a, E> {
    fn new(backend: &'a E, shape: Shape) -> Result<Self, Error> {
        let tensors = Tensors::new(shape)?;
        Ok(Self {
            backend,
            embedding: backend.embedding(tensors.embedding)?,
            attention: backend.attention(tensors.attention)?,
            feed_forward: backend.feed_forward(tensors.feed_forward)?,
        })
    }

    fn run(&self, batch: &Ragged) -> Result<Vec<f32>, Error> {
        let mut forward = self.backend.begin(batch)?;
        forward.embed(&self.embedding)?;
        forward.attend(&self.attention)?;
        forward.feed_forward(&self.feed_forward)?;
        forward.pool(Pooling::Mean, true)?;
        forward.submit()?.wait()
    }

    /// The vectors of a batch, held against the reference, each sequence alone against itself
    /// in the batch bit for bit. `what` is tested.
    fn check(
        &self,
        shape: Shape,
        batch: &Ragged,
        tolerance: f32,
        what: &str,
    ) -> Result<Vec<f32>, Error> {
        let all = self.run(batch)?;
        let tensors = Tensors::new(shape)?;
        for (i, found) in all.chunks_exact(shape.hidden).enumerate() {
            let ids = &batch.ids()[batch.range(i)];
            let expected = expected(ids, &tensors);
            for (position, (x, y)) in found.iter().zip(&expected).enumerate() {
                let off = (x - y).abs();
                if off.is_nan() || off > tolerance {
                    return Err(Error::SelfTest(format!(
                        "{what}: number {position} of a sequence of {} tokens is {x}, not {y}",
                        ids.len()
                    )));
                }
            }
            let mut alone = Ragged::new();
            alone.push(ids);
            let alone = self.run(&alone)?;
            if !same_bits(&alone, found) {
                return Err(Error::SelfTest(format!(
                    "{what}: a sequence of {} tokens has other bits in a batch",
                    ids.len()
                )));
            }
        }
        Ok(all)
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// Largest difference of a number that each arithmetic may show in the self-test.
fn tolerance(arithmetic: Arithmetic) -> f32 {
    match arithmetic {
        Arithmetic::F32 => 2e-6,
        Arithmetic::Bf16x3 => 2e-5,
        Arithmetic::Bf16 | Arithmetic::F16 => 1e-2,
        // Attention beside it may be in bf16.
        Arithmetic::Int16 => 5e-3,
        Arithmetic::Int8 => 1.5e-2,
    }
}

/// Holds the kernels of `isa` with products in `arithmetic` against the reference, and each
/// sequence alone against the same sequence in a batch, bit for bit. An error is a veto.
pub fn self_test(isa: Isa, arithmetic: Arithmetic) -> Result<(), Error> {
    let backend = CpuEncode::new(isa, arithmetic, 1)?;
    let what = format!("{arithmetic} with {isa}");
    let model = Model::new(&backend, SHAPE)?;
    model.check(SHAPE, &batch(&LENGTHS), tolerance(arithmetic), &what)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heads that units take, and an odd number of panels everywhere: of the hidden size, of queries, keys and
    /// values, and of the inner size.
    const OF_UNITS: Shape = Shape {
        hidden: 96,
        inner: 160,
        heads: 3,
    };

    #[test]
    fn heads_of_units_and_odd_panels_are_as_in_the_reference_with_any_threads() {
        for (isa, arithmetic) in Isa::available().into_iter().flat_map(|isa| {
            [
                Arithmetic::F32,
                Arithmetic::Bf16,
                Arithmetic::Bf16x3,
                Arithmetic::Int8,
                Arithmetic::Int16,
            ]
            .map(|arithmetic| (isa, arithmetic))
        }) {
            let mut first = None;
            for threads in 1..=3 {
                let backend = CpuEncode::new(isa, arithmetic, threads).unwrap();
                let model = Model::new(&backend, OF_UNITS).unwrap();
                let what = format!("{arithmetic} with {isa}, {threads} threads");
                let batch = batch(&[1, 7, 16, 17, 33, 40, 18, 2, 31]);
                let found = model
                    .check(OF_UNITS, &batch, tolerance(arithmetic), &what)
                    .unwrap();
                let first = first.get_or_insert_with(|| found.clone());
                assert!(same_bits(first, &found), "{what}: other bits than alone");
            }
        }
    }
}
