//! Where a forward's time goes: `encode_stages [bf16|bf16x3|int8|int16|f32] [THREADS] [ISA] [TEXTSxTOKENS]`.
//!
//! Runs forwards of the shape of all-MiniLM-L6-v2 (6 layers, hidden 384, 12 heads, inner 1536) with
//! made-up weights over batches of texts of one length. Of each stage: its share of what all threads
//! took together, and of a product its rate and what part that is of the ceiling, which is what the
//! same threads reach without reading anything, measured in the same run. A product's time has its
//! bias, GELU, residual and rounding to bf16 in it.
//!
//! Of one text: how long it takes to read the packed weights once, by the same number of threads.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use sela_compute::encode::{
    AttentionTensors, EmbeddingTensors, Encode, FeedForwardTensors, Forward, LinearTensors,
    NormTensors, Pooling, Ragged, Tensor, Ticket,
};
use sela_compute::{
    Arithmetic, CpuAttention, CpuEmbedding, CpuEncode, CpuFeedForward, Error, Inventory, Isa, Stage,
};

const LAYERS: usize = 6;
const HIDDEN: usize = 384;
const HEADS: usize = 12;
const INNER: usize = 1536;
const VOCABULARY: usize = 30_000;
const RUNS: usize = 7;

fn matrix(rows: usize, cols: usize, scale: f32) -> Result<Tensor, Error> {
    let mut state = (rows * 31 + cols) as u32 | 1;
    let numbers: Vec<f32> = (0..rows * cols)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state as f32 / 2f32.powi(31) - 1.0) * scale
        })
        .collect();
    Tensor::from_f32(&numbers, [rows, cols])
}

fn linear(outputs: usize, inputs: usize) -> Result<LinearTensors, Error> {
    Ok(LinearTensors {
        weight: matrix(outputs, inputs, (3.0 / inputs as f32).sqrt())?,
        bias: matrix(1, outputs, 0.1)?,
    })
}

fn norm() -> Result<NormTensors, Error> {
    Ok(NormTensors {
        weight: Tensor::from_f32(&[1.0; HIDDEN], [1, HIDDEN])?,
        bias: Tensor::from_f32(&[0.0; HIDDEN], [1, HIDDEN])?,
    })
}

struct Model {
    backend: CpuEncode,
    embedding: CpuEmbedding,
    layers: Vec<(CpuAttention, CpuFeedForward)>,
}

impl Model {
    fn new(backend: CpuEncode) -> Result<Self, Error> {
        let epsilon = 1e-12;
        let embedding = backend.embedding(EmbeddingTensors {
            word: matrix(VOCABULARY, HIDDEN, 1.0)?,
            position: matrix(512, HIDDEN, 0.1)?,
            token_type: matrix(1, HIDDEN, 0.1)?,
            norm: norm()?,
            epsilon,
        })?;
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            let attention = backend.attention(AttentionTensors {
                query: linear(HIDDEN, HIDDEN)?,
                key: linear(HIDDEN, HIDDEN)?,
                value: linear(HIDDEN, HIDDEN)?,
                output: linear(HIDDEN, HIDDEN)?,
                norm: norm()?,
                epsilon,
                heads: HEADS,
            })?;
            let feed_forward = backend.feed_forward(FeedForwardTensors {
                up: linear(INNER, HIDDEN)?,
                down: linear(HIDDEN, INNER)?,
                norm: norm()?,
                epsilon,
            })?;
            layers.push((attention, feed_forward));
        }
        Ok(Self {
            backend,
            embedding,
            layers,
        })
    }

    /// A forward, which must be one that works.
    fn run(&self, batch: &Ragged) -> Result<(), Error> {
        let mut forward = self.backend.begin(batch)?;
        forward.embed(&self.embedding)?;
        for (attention, feed_forward) in &self.layers {
            forward.attend(attention)?;
            forward.feed_forward(feed_forward)?;
        }
        forward.pool(Pooling::Mean, true)?;
        std::hint::black_box(forward.submit()?.wait()?);
        Ok(())
    }

    /// Reads all packed weights once, each thread its part of each layer's.
    fn read(&self) {
        let threads = self.backend.threads();
        self.backend.for_each(threads, |thread| {
            let mut all = 0;
            for (attention, feed_forward) in &self.layers {
                for bytes in attention.packed().chain(feed_forward.packed()) {
                    let lines = bytes.len() / 64;
                    let at = |thread: usize| lines * thread / threads * 64;
                    all ^= read(&bytes[at(thread)..at(thread + 1)]);
                }
            }
            std::hint::black_box(all);
        });
    }

    fn packed_bytes(&self) -> usize {
        let layers = self.layers.iter();
        layers
            .flat_map(|(attention, feed_forward)| attention.packed().chain(feed_forward.packed()))
            .map(<[u8]>::len)
            .sum()
    }
}

/// Reads whole lines of 64 bytes, in as many chains as keep the registers busy.
fn read(bytes: &[u8]) -> u64 {
    let mut sums = [0_u64; 32];
    for lines in bytes.chunks_exact(256) {
        for (sum, word) in sums.iter_mut().zip(lines.chunks_exact(8)) {
            *sum ^= u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        }
    }
    sums.into_iter().fold(0, |all, sum| all ^ sum)
}

/// Seconds that something takes: the least and the median of some runs, as many as fit into a second
/// but seven at least.
fn time(mut run: impl FnMut() -> Result<(), Error>) -> Result<[f64; 2], Error> {
    run()?;
    let (mut took, all) = (Vec::new(), Instant::now());
    while took.len() < RUNS || all.elapsed().as_secs_f64() < 1.0 {
        let began = Instant::now();
        run()?;
        took.push(began.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    Ok([took[0], took[took.len() / 2]])
}

fn batch(texts: usize, len: usize) -> Ragged {
    let mut batch = Ragged::new();
    for text in 0..texts {
        let ids: Vec<u32> = (0..len)
            .map(|i| ((text * 7919 + i * 104_729) % VOCABULARY) as u32)
            .collect();
        batch.push(&ids);
    }
    batch
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let arithmetic = match args.next().as_deref() {
        None | Some("bf16") => Arithmetic::Bf16,
        Some("bf16x3") => Arithmetic::Bf16x3,
        Some("int8") => Arithmetic::Int8,
        Some("int16") => Arithmetic::Int16,
        Some("f32") => Arithmetic::F32,
        Some(other) => return Err(format!("there is no arithmetic `{other}`").into()),
    };
    let threads = match args.next() {
        Some(n) => n.parse()?,
        None => std::thread::available_parallelism()?.get(),
    };
    let isa = args.next();
    let isa = Isa::available()
        .into_iter()
        .find(|here| isa.as_ref().is_none_or(|asked| *asked == here.to_string()))
        .ok_or_else(|| format!("this CPU has no instructions `{}`", isa.unwrap_or_default()))?;
    let cpu = Inventory::probe_cpu().cpu;
    println!(
        "{arithmetic:?}, {isa}, units {:?}, {:?} and {:?}, {threads} threads",
        cpu.bf16, cpu.int8, cpu.int16
    );
    let model = Model::new(CpuEncode::new(isa, arithmetic, threads)?)?;
    let shapes = match std::env::args().nth(4) {
        Some(shape) => {
            let (texts, len) = shape.split_once('x').ok_or("a shape is TEXTSxTOKENS")?;
            vec![(texts.parse()?, len.parse()?)]
        }
        None => vec![(1, 12), (100, 36), (500, 18), (32, 252)],
    };
    for (texts, len) in shapes {
        let (tokens, some) = (texts * len, batch(texts, len));
        let [least, median] = time(|| model.run(&some))?;
        println!(
            "{texts} texts of {len} tokens: {:.2} ms, least {:.2}, {:.0} tokens/s",
            median * 1e3,
            least * 1e3,
            tokens as f64 / median
        );
        if texts == 1 {
            let [_, read] = time(|| {
                model.read();
                Ok(())
            })?;
            println!(
                "  reading {:.1} MB of weights once: {:.2} ms; the text takes {:.2} times as long",
                model.packed_bytes() as f64 / 1e6,
                read * 1e3,
                median / read
            );
        }
        stages(&model, &some, len)?;
    }
    Ok(())
}

/// Prints the stages of some forwards.
fn stages(model: &Model, batch: &Ragged, len: usize) -> Result<(), Error> {
    let tokens = batch.ids().len();
    let backend = &model.backend;
    backend.record_stages(true);
    backend.take_stages();
    let (mut runs, all) = (0, Instant::now());
    let mut ceilings = Vec::new();
    while runs < RUNS || all.elapsed().as_secs_f64() < 1.0 {
        model.run(batch)?;
        runs += 1;
        if runs % RUNS == 1 {
            ceilings.extend(backend.ceiling());
        }
    }
    let times = backend.take_stages();
    backend.record_stages(false);
    ceilings.sort_by(f64::total_cmp);
    let ceiling = ceilings.get(ceilings.len() / 2);
    let share = |part: std::time::Duration| part.as_secs_f64() / times.total().as_secs_f64() * 1e2;
    let mut products = [0.0; 2];
    for stage in Stage::ALL {
        let time = times.of(stage);
        let each = match stage {
            Stage::Project => 3 * HIDDEN * HIDDEN,
            Stage::Output => HIDDEN * HIDDEN,
            Stage::Up | Stage::Down => HIDDEN * INNER,
            Stage::Attend => 2 * HIDDEN * len,
            _ => 0,
        };
        print!(
            "  {stage:22} {:5.1} %  {:6.2} us/token",
            share(time),
            time.as_secs_f64() * 1e6 / (runs * tokens) as f64
        );
        let multiply_adds = (each * LAYERS * tokens * runs) as f64;
        if stage.is_product() {
            products[0] += multiply_adds;
            products[1] += time.as_secs_f64();
        }
        match each {
            0 => println!(),
            // Attention may multiply other numbers than products do.
            _ => rate(
                multiply_adds,
                time.as_secs_f64(),
                backend.threads(),
                ceiling.filter(|_| stage.is_product()),
            ),
        }
    }
    let time = std::time::Duration::from_secs_f64(products[1]);
    print!("  {:22} {:5.1} %  {:6} ", "all products", share(time), "");
    print!("         ");
    rate(products[0], products[1], backend.threads(), ceiling);
    Ok(())
}

/// Prints the rate of a stage that took so long on all threads together.
fn rate(multiply_adds: f64, seconds: f64, threads: usize, ceiling: Option<&f64>) {
    let rate = multiply_adds / seconds * threads as f64;
    print!("  {:6.0} GFLOP/s", 2.0 * rate / 1e9);
    match ceiling {
        Some(ceiling) => println!(
            ", {:.0} % of {:.0}",
            rate / ceiling * 1e2,
            2.0 * ceiling / 1e9
        ),
        None => println!(),
    }
}
