//! Speed of the encoder on a GPU, with made-up weights in the shape of all-MiniLM-L6-v2.
//!
//! ```text
//! gpu_encode [--gpu N] [--profile] [--f32] [--checked] [--sweep] [VARIANT] [SEQUENCESxTOKENS ...]
//! ```
//!
//! Without a variant all that the GPU should be able to run are measured. `--profile` adds the time
//! of each kernel, `--sweep` tries other tiles for products on cooperative matrices, `--medium` and
//! `--large` with six numbers joined by commas one tile of one's own.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use sela_compute::encode::{
    AttentionTensors, EmbeddingTensors, Encode, FeedForwardTensors, Forward, LinearTensors,
    NormTensors, Pooling, Ragged, Tensor, Ticket,
};
use sela_compute::gpu::encode::{GpuEncode, MatrixTile, Variant, self_test_of};
use sela_compute::gpu::{Gpu, GpuOptions, adapters};
use sela_compute::{Arithmetic, CpuEncode, Isa};

const HIDDEN: usize = 384;
const INNER: usize = 1536;
const HEADS: usize = 12;
const LAYERS: usize = 6;
const VOCABULARY: usize = 30_522;
const POSITIONS: usize = 512;
/// One text, a request of short ones, of longer ones, bulk, and bulk of short ones.
const SHAPES: [(usize, usize); 5] = [(1, 12), (100, 12), (100, 37), (128, 252), (1000, 24)];

struct Arguments {
    gpu: usize,
    profile: bool,
    checked: bool,
    sweep: bool,
    own: Vec<(bool, [u32; 6])>,
    arithmetic: Arithmetic,
    variant: Option<Variant>,
    shapes: Vec<(usize, usize)>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut found = Arguments {
        gpu: 0,
        profile: false,
        checked: false,
        sweep: false,
        own: Vec::new(),
        arithmetic: Arithmetic::F16,
        variant: None,
        shapes: Vec::new(),
    };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--gpu" => found.gpu = given.next().ok_or("--gpu N")?.parse()?,
            "--profile" => found.profile = true,
            "--sweep" => found.sweep = true,
            "--checked" => found.checked = true,
            "--f32" => found.arithmetic = Arithmetic::F32,
            "--large" | "--medium" => {
                let numbers = given.next().ok_or("six numbers joined by commas")?;
                let numbers: Vec<u32> = numbers
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>()?;
                let numbers = numbers.try_into().map_err(|_| "six numbers")?;
                found.own.push((argument == "--large", numbers));
            }
            other => match other.split_once('x') {
                Some((sequences, tokens)) => {
                    found.shapes.push((sequences.parse()?, tokens.parse()?));
                }
                None => found.variant = Some(other.parse()?),
            },
        }
    }
    if found.shapes.is_empty() {
        found.shapes = SHAPES.to_vec();
    }
    Ok(found)
}

/// Numbers that look random and are the same every time.
struct Noise(u64);

impl Noise {
    fn matrix(&mut self, rows: usize, cols: usize, scale: f32) -> Result<Tensor, Box<dyn Error>> {
        let numbers: Vec<f32> = (0..rows * cols)
            .map(|_| {
                self.0 = self
                    .0
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                ((self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
            })
            .collect();
        Ok(Tensor::from_f32(&numbers, [rows, cols])?)
    }

    fn linear(&mut self, outputs: usize, inputs: usize) -> Result<LinearTensors, Box<dyn Error>> {
        Ok(LinearTensors {
            weight: self.matrix(outputs, inputs, 1.5 / (inputs as f32).sqrt())?,
            bias: self.matrix(1, outputs, 0.1)?,
        })
    }

    fn norm(&mut self) -> Result<NormTensors, Box<dyn Error>> {
        let ones = vec![1.0; HIDDEN];
        Ok(NormTensors {
            weight: Tensor::from_f32(&ones, [1, HIDDEN])?,
            bias: self.matrix(1, HIDDEN, 0.1)?,
        })
    }
}

struct Model<E: Encode> {
    embedding: E::Embedding,
    layers: Vec<(E::Attention, E::FeedForward)>,
}

impl<E: Encode> Model<E> {
    fn new(backend: &E) -> Result<Self, Box<dyn Error>> {
        let noise = &mut Noise(7);
        let embedding = backend.embedding(EmbeddingTensors {
            word: noise.matrix(VOCABULARY, HIDDEN, 1.0)?,
            position: noise.matrix(POSITIONS, HIDDEN, 0.3)?,
            token_type: noise.matrix(1, HIDDEN, 0.3)?,
            norm: noise.norm()?,
            epsilon: 1e-12,
        })?;
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            let attention = backend.attention(AttentionTensors {
                query: noise.linear(HIDDEN, HIDDEN)?,
                key: noise.linear(HIDDEN, HIDDEN)?,
                value: noise.linear(HIDDEN, HIDDEN)?,
                output: noise.linear(HIDDEN, HIDDEN)?,
                norm: noise.norm()?,
                epsilon: 1e-12,
                heads: HEADS,
            })?;
            let feed_forward = backend.feed_forward(FeedForwardTensors {
                up: noise.linear(INNER, HIDDEN)?,
                down: noise.linear(HIDDEN, INNER)?,
                norm: noise.norm()?,
                epsilon: 1e-12,
            })?;
            layers.push((attention, feed_forward));
        }
        Ok(Self { embedding, layers })
    }

    fn submit(&self, backend: &E, batch: &Ragged) -> Result<E::Ticket, Box<dyn Error>> {
        let mut forward = backend.begin(batch)?;
        forward.embed(&self.embedding)?;
        for (attention, feed_forward) in &self.layers {
            forward.attend(attention)?;
            forward.feed_forward(feed_forward)?;
        }
        forward.pool(Pooling::Mean, true)?;
        Ok(forward.submit()?)
    }
}

fn batch(sequences: usize, tokens: usize) -> Ragged {
    let mut batch = Ragged::new();
    for i in 0..sequences {
        let id = |at: usize| ((i * 977 + at * 131) % VOCABULARY) as u32;
        let ids: Vec<u32> = (0..tokens).map(id).collect();
        batch.push(&ids);
    }
    batch
}

/// Floating-point operations of a forward: all of them, and those of products alone.
fn operations(sequences: usize, tokens: usize) -> (f64, f64) {
    let rows = (sequences * tokens) as f64;
    let weights = (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER) as f64;
    let products = rows * weights * 2.0 * LAYERS as f64;
    let attention = rows * (4 * tokens * HIDDEN * LAYERS) as f64;
    (products + attention, products)
}

/// The smallest cosine and the largest difference between vectors of length 1.
fn compare(found: &[f32], expected: &[f32]) -> (f32, f32) {
    let cosine = |(x, y): (&[f32], &[f32])| -> f32 { x.iter().zip(y).map(|(x, y)| x * y).sum() };
    let rows = found
        .chunks_exact(HIDDEN)
        .zip(expected.chunks_exact(HIDDEN));
    let least = rows.map(cosine).fold(f32::INFINITY, f32::min);
    let off = found.iter().zip(expected).map(|(x, y)| (x - y).abs());
    (least, off.fold(0.0, f32::max))
}

fn measure(
    backend: &GpuEncode,
    model: &Model<GpuEncode>,
    (sequences, tokens): (usize, usize),
) -> Result<(), Box<dyn Error>> {
    let batch = batch(sequences, tokens);
    // Compiles, makes room, wakes the clocks.
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(300) {
        model.submit(backend, &batch)?.wait()?;
    }
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 10 || (times.len() < 500 && start.elapsed() < Duration::from_secs(2)) {
        let one = Instant::now();
        model.submit(backend, &batch)?.wait()?;
        times.push(one.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    // Two under way at once, as bulk work runs.
    let rounds = times.len().min(50);
    let start = Instant::now();
    let mut before = model.submit(backend, &batch)?;
    for _ in 1..rounds {
        let next = model.submit(backend, &batch)?;
        std::mem::replace(&mut before, next).wait()?;
    }
    before.wait()?;
    let bulk = start.elapsed().as_secs_f64() / rounds as f64;
    let (all, products) = operations(sequences, tokens);
    println!(
        "{sequences:>5} x {tokens:<4} p50 {:>8.3} ms  p10 {:>8.3}  p90 {:>8.3}  {:>10.0} tokens/s  \
         {:>6.1} TFLOP/s ({:.1} of products); two at once {:>8.3} ms, {:.0} tokens/s",
        at(50),
        at(10),
        at(90),
        (sequences * tokens) as f64 / at(50) * 1e3,
        all / at(50) / 1e9,
        products / at(50) / 1e9,
        bulk * 1e3,
        (sequences * tokens) as f64 / bulk,
    );
    Ok(())
}

/// Prints the time of each kernel of a forward, those of `only` if it is not empty.
fn profile(
    backend: GpuEncode,
    (sequences, tokens): (usize, usize),
    only: &str,
) -> Result<(), Box<dyn Error>> {
    const ROUNDS: u32 = 20;
    let backend = backend.profiling();
    let model = Model::new(&backend)?;
    let batch = batch(sequences, tokens);
    model.submit(&backend, &batch)?.wait()?;
    let cold = backend.profile();
    for _ in 0..ROUNDS {
        model.submit(&backend, &batch)?.wait()?;
    }
    println!("  profile of {sequences} x {tokens}, microseconds");
    let mut sum = 0.0;
    for pass in backend.profile() {
        let first = cold.iter().find(|first| first.name == pass.name);
        let (count, total) = first.map_or((0, Duration::ZERO), |f| (f.count, f.total));
        let micros = pass.total.saturating_sub(total).as_secs_f64() * 1e6;
        let each = micros / f64::from((pass.count - count).max(1));
        let forward = micros / f64::from(ROUNDS);
        sum += forward;
        if pass.name.contains(only) {
            println!(
                "    {forward:>9.1} a forward  {each:>8.2} each  {}",
                pass.name
            );
        }
    }
    println!("    {sum:>9.1} in all");
    Ok(())
}

/// Subgroups down and across, squares of each down and across, depth, buffers. Only such as are
/// known to compile: the compilers of some drivers never return from others.
const LARGE: [[u32; 6]; 3] = [
    [4, 2, 2, 4, 32, 2],
    [2, 2, 4, 4, 32, 1],
    [2, 2, 4, 4, 64, 1],
];
const MEDIUM: [[u32; 6]; 2] = [[2, 2, 2, 2, 64, 2], [2, 2, 2, 2, 32, 2]];
const SMALL: [[u32; 6]; 3] = [
    [1, 2, 1, 1, 128, 2],
    [1, 2, 1, 1, 64, 2],
    [1, 4, 1, 1, 64, 2],
];

fn tile([sub_rows, sub_cols, rows, cols, depth, buffers]: [u32; 6]) -> MatrixTile {
    MatrixTile {
        sub_rows,
        sub_cols,
        rows,
        cols,
        depth,
        buffers,
    }
}

/// Times the products in many tiles.
fn sweep(gpu: &Gpu, variant: Variant, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let shapes = &arguments.shapes;
    let new = || GpuEncode::new(gpu.clone(), variant, Arithmetic::F16);
    let [large, medium, small] = new()?.tiles();
    let mut tried: Vec<(&str, [MatrixTile; 3])> = Vec::new();
    if arguments.sweep {
        tried.extend(LARGE.map(|other| ("large", [tile(other), medium, small])));
        tried.extend(MEDIUM.map(|other| ("medium", [large, tile(other), small])));
        tried.extend(SMALL.map(|other| ("small", [large, medium, tile(other)])));
    }
    tried.extend(
        arguments
            .own
            .iter()
            .map(|&(is_large, other)| match is_large {
                true => ("large", [tile(other), medium, small]),
                false => ("medium", [large, tile(other), small]),
            }),
    );
    for (which, tiles) in tried {
        println!("{which} tiles of {tiles:?}");
        let backend = match new()?.tiled(tiles) {
            Ok(backend) => backend,
            Err(error) => {
                println!("  skipped: {error}");
                continue;
            }
        };
        if let Err(error) = self_test_of(&backend) {
            println!("  FAILS: {error}");
            continue;
        }
        for &shape in shapes {
            profile(new()?.tiled(tiles)?, shape, which)?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let facts = adapters();
    let Some(facts) = facts.get(arguments.gpu) else {
        println!("no GPU number {}", arguments.gpu);
        return Ok(());
    };
    println!("{facts:?}");
    let options = GpuOptions {
        checked: arguments.checked,
        ..GpuOptions::default()
    };
    let gpu = Gpu::open(arguments.gpu, options)?;
    let variants = match arguments.variant {
        Some(variant) => vec![variant],
        None => Variant::preferred(gpu.facts(), arguments.arithmetic),
    };
    let cpu = CpuEncode::new(Isa::available()[0], Arithmetic::F32, 2)?;
    let small = {
        let mut small = Ragged::new();
        for tokens in [1, 5, 16, 33, 70] {
            small.push(batch(1, tokens).ids());
        }
        small
    };
    let expected = Model::new(&cpu)?.submit(&cpu, &small)?.wait()?;
    for variant in variants {
        let start = Instant::now();
        let backend = GpuEncode::new(gpu.clone(), variant, arguments.arithmetic)?;
        let verdict = match self_test_of(&backend) {
            Ok(()) => "passes its self-test".to_owned(),
            Err(error) => format!("FAILS: {error}"),
        };
        let tested = start.elapsed();
        let start = Instant::now();
        let model = Model::new(&backend)?;
        let found = model.submit(&backend, &small)?.wait()?;
        let loaded = start.elapsed();
        let (cosine, off) = compare(&found, &expected);
        println!(
            "{variant} in {}: {verdict} in {tested:?}; weights and first forward in {loaded:?}; \
             least cosine to f32 on the CPU {cosine:.6}, largest difference {off:.1e}",
            arguments.arithmetic
        );
        for &shape in &arguments.shapes {
            measure(&backend, &model, shape)?;
        }
        for &shape in arguments.shapes.iter().filter(|_| arguments.profile) {
            profile(
                GpuEncode::new(gpu.clone(), variant, arguments.arithmetic)?,
                shape,
                "",
            )?;
        }
        let wanted = arguments.sweep || !arguments.own.is_empty();
        if wanted && matches!(variant, Variant::Coop16 | Variant::Coop8) {
            sweep(&gpu, variant, &arguments)?;
        }
    }
    Ok(())
}
