//! The buffers of one submission, used again by the next, and what is put into them.

use std::collections::HashMap;

use wgpu::{BindGroup, BufferUsages};

use super::bound::{QUERY_MIN, Slack};
use super::kernels::{Kernels, Key, MATRIX_QUERIES};
use super::units::Layout;
use crate::error::Error;
use crate::gpu::{Buffer, Gpu, Purpose};
use crate::scan::{Metric, Queries, Record};

/// Spaces kept for the next searches, and most bytes of them together; one is kept whatever it is.
const SPACES: usize = 8;
const SPACE_BYTES: u64 = 128 << 20;
/// Bind groups kept: those of several shapes of vectors on several slabs.
const BOUND: usize = 1_024;

/// Buffers of a submission, with what they are bound to.
pub(super) struct Space {
    input: Sized,
    best: Sized,
    counts: Sized,
    bound: HashMap<(Key, usize), BindGroup>,
}

/// A buffer that grows.
#[derive(Default)]
struct Sized {
    buffer: Option<Buffer>,
    bytes: u64,
}

impl Sized {
    /// Makes room, none where none is asked for; whether the buffer is another one now.
    fn reserve(&mut self, gpu: &Gpu, label: &str, bytes: u64, most: u64) -> Result<bool, Error> {
        if self.bytes >= bytes {
            return Ok(false);
        }
        let bytes = bytes.next_power_of_two().clamp(64 << 10, most.max(bytes));
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        self.buffer = Some(gpu.buffer(Purpose::Search, label, bytes, usage)?);
        self.bytes = bytes;
        Ok(true)
    }

    fn get(&self, gpu: &Gpu) -> Result<&Buffer, Error> {
        self.buffer
            .as_ref()
            .ok_or_else(|| gpu.error("a buffer that nobody made"))
    }
}

impl Space {
    pub(super) fn new() -> Self {
        Self {
            input: Sized::default(),
            best: Sized::default(),
            counts: Sized::default(),
            bound: HashMap::new(),
        }
    }

    /// Goes to those that are kept for the next searches, if there is room for it.
    pub(super) fn keep(self, spaces: &mut Vec<Self>) {
        let kept: u64 = spaces.iter().map(Self::bytes).sum();
        if spaces.len() < SPACES && (spaces.is_empty() || kept + self.bytes() <= SPACE_BYTES) {
            spaces.push(self);
        }
    }

    /// Bytes of all its buffers.
    fn bytes(&self) -> u64 {
        self.input.bytes + self.best.bytes + self.counts.bytes
    }

    /// Room for so many bytes of input, ranks and counts.
    pub(super) fn reserve(&mut self, gpu: &Gpu, sizes: [u64; 3]) -> Result<(), Error> {
        let most = gpu.facts().binding_bytes;
        let [input, best, counts] = sizes;
        let mut other = self.input.reserve(gpu, "input", input, most)?;
        other |= self.best.reserve(gpu, "best ranks", best, most)?;
        other |= self.counts.reserve(gpu, "counts", counts, most)?;
        if other {
            self.bound.clear();
        }
        Ok(())
    }

    /// Sends the input to its place; there is room for it.
    pub(super) fn put(&self, gpu: &Gpu, input: &Input) -> Result<(), Error> {
        let buffer = self.input.get(gpu)?;
        gpu.write(buffer, 0, input.bytes())
    }

    pub(super) fn best(&self, gpu: &Gpu) -> Result<&Buffer, Error> {
        self.best.get(gpu)
    }

    pub(super) fn counts(&self, gpu: &Gpu) -> Result<&Buffer, Error> {
        self.counts.get(gpu)
    }

    /// The buffers of a kernel, bound. `slab` is the number of the slab and its buffer, for the
    /// kernels that read one.
    pub(super) fn bind(
        &mut self,
        gpu: &Gpu,
        kernels: &Kernels,
        key: Key,
        slab: Option<(usize, &Buffer)>,
    ) -> Result<BindGroup, Error> {
        let name = (key, slab.map_or(0, |(number, _)| number));
        if let Some(bound) = self.bound.get(&name) {
            return Ok(bound.clone());
        }
        let (input, best) = (self.input.get(gpu)?, self.best.get(gpu)?);
        let buffers: Vec<&Buffer> = match (key, slab) {
            (Key::Few { .. }, Some((_, slab))) => vec![slab, input, best],
            (Key::Matrix { .. }, Some((_, slab))) => vec![slab, input, best, slab, input],
            (Key::Norms { .. }, Some((_, slab))) => vec![slab],
            _ => vec![input, best, self.counts.get(gpu)?],
        };
        let bindings: Vec<_> = buffers
            .iter()
            .map(|buffer| buffer.as_entire_buffer_binding())
            .collect();
        let bound = kernels.get(key)?.bind(gpu, &bindings)?;
        if self.bound.len() >= BOUND {
            // All of them, now and then: those in use are made again.
            self.bound.clear();
        }
        self.bound.insert(name, bound.clone());
        Ok(bound)
    }
}

/// What goes up with a submission, in vectors of 16 bytes.
#[derive(Default)]
pub(super) struct Input(Vec<u32>);

impl Input {
    /// Where the next thing goes, in vectors.
    pub(super) fn at(&self) -> u32 {
        (self.0.len() / 4) as u32
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    /// Adds words and fills up the last vector.
    pub(super) fn put(&mut self, words: impl IntoIterator<Item = u32>) -> u32 {
        let at = self.at();
        self.0.extend(words);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        at
    }

    /// The queries as the kernel for few queries reads them over rows of that layout, up to a
    /// multiple of eight of them.
    pub(super) fn put_few(&mut self, packed: &Packed, layout: Layout) -> u32 {
        let at = self.at();
        let stride = layout.stride() / layout.record.bytes();
        for query in &packed.vectors {
            let start = self.0.len();
            self.0.extend(query.iter().map(|x| x.to_bits()));
            self.0.resize(start + stride, 0);
        }
        let missing = packed.vectors.len().next_multiple_of(8) - packed.vectors.len();
        self.0.resize(self.0.len() + missing * stride, 0);
        at
    }

    /// The queries scaled and rounded to f16, up to a multiple of 64 of them, and what undoes the
    /// scale of each: where both are.
    pub(super) fn put_matrix(&mut self, packed: &Packed, layout: Layout) -> (u32, u32) {
        let count = packed.vectors.len().next_multiple_of(MATRIX_QUERIES);
        let stride = layout.stride() / 2;
        let mut scales = vec![0f32; count];
        let mut halves = vec![half::f16::ZERO; count * stride];
        for (query, (vector, scale)) in packed.vectors.iter().zip(&mut scales).enumerate() {
            let exponent = top_exponent(vector) - 9;
            *scale = 2f32.powi(exponent);
            // A power of two within what f32 has: numbers stay as exact as f16 can take them.
            let up = 2f32.powi(-exponent);
            let halves = &mut halves[query * stride..];
            for (half, x) in halves.iter_mut().zip(vector) {
                *half = half::f16::from_f32(x * up);
            }
        }
        let pairs = halves.chunks_exact(2);
        let pair = |p: &[half::f16]| u32::from(p[0].to_bits()) | u32::from(p[1].to_bits()) << 16;
        let at = self.put(pairs.map(pair));
        (at, self.put(scales.into_iter().map(f32::to_bits)))
    }
}

/// The exponent of a vector's largest number; of a vector of zeros, 0.
fn top_exponent(vector: &[f32]) -> i32 {
    let most = vector.iter().fold(0f32, |most, x| most.max(x.abs()));
    match most > 0.0 {
        true => f64::from(most).log2().floor() as i32,
        false => 0,
    }
}

/// Queries as a device takes them.
pub(super) struct Packed {
    pub(super) metric: Metric,
    pub(super) dim: usize,
    /// For cosine, of length 1 or 0.
    vectors: Vec<Vec<f32>>,
    norms: Vec<f64>,
}

impl Packed {
    /// The queries of those numbers.
    pub(super) fn new(queries: Queries<'_>, numbers: &[usize]) -> Self {
        let dim = queries.dim;
        let mut packed = Self {
            metric: queries.metric,
            dim,
            vectors: Vec::with_capacity(numbers.len()),
            norms: Vec::with_capacity(numbers.len()),
        };
        for number in numbers {
            let vector = &queries.vectors[number * dim..][..dim];
            let norm = norm(vector);
            let factor = match queries.metric {
                Metric::Cosine if norm > 0.0 => 1.0 / norm,
                _ => 1.0,
            };
            let number = |x: &f32| (f64::from(*x) * factor) as f32;
            packed.vectors.push(vector.iter().map(number).collect());
            packed.norms.push(norm);
        }
        packed
    }

    pub(super) fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Twice the bound of each query's ranks.
    pub(super) fn slacks(&self, matrix: bool) -> Vec<Slack> {
        let slack = |norm: &f64| Slack::of(self.metric, self.dim, *norm, matrix);
        self.norms.iter().map(slack).collect()
    }

    /// Whether f16 can hold all queries, scaled by what f32 can hold.
    pub(super) fn suits_matrix(&self) -> bool {
        self.vectors
            .iter()
            .all(|vector| (-100..=100).contains(&top_exponent(vector)))
    }
}

/// The Euclidean norm, as exactly as f64 has it.
pub(super) fn norm(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|x| f64::from(*x) * f64::from(*x));
    squares.sum::<f64>().sqrt()
}

/// Whether a device can rank rows for a query of that norm.
pub(super) fn suits(metric: Metric, norm: f64) -> bool {
    let long_enough = metric != Metric::Cosine || norm == 0.0 || norm >= QUERY_MIN;
    long_enough && norm <= super::bound::NORM_MAX_GPU
}

/// The record's place in tables of both.
pub(super) fn index(record: Record) -> usize {
    match record {
        Record::F32 => 0,
        Record::F16 => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_spaces_are_few_and_small_together() {
        let Some(gpu) = crate::gpu::tests::gpu() else {
            return;
        };
        let keep = |count, sizes: [u64; 3]| {
            let mut spaces = Vec::new();
            for _ in 0..count {
                let mut space = Space::new();
                space.reserve(&gpu, sizes).unwrap();
                space.keep(&mut spaces);
            }
            let bytes = gpu.memory().search;
            assert_eq!(bytes, spaces.iter().map(Space::bytes).sum::<u64>());
            (spaces.len(), bytes)
        };
        let least = 64 << 10;
        // No room is taken for lists that nobody asks for.
        assert_eq!(keep(1, [1, 1, 0]), (1, 2 * least));
        assert_eq!(keep(SPACES + 2, [1, 1, 1]).0, SPACES);
        let large = 32 << 20;
        assert_eq!(keep(SPACES, [1, large, 0]), (3, 3 * (large + least)));
        assert_eq!(keep(2, [large, 3 * large, large]).0, 1);
        assert_eq!(gpu.memory().search, 0);
    }
}
