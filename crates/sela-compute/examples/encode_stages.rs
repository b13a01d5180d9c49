//! Where a forward's time goes: `encode_stages [bf16|bf16x3|int8|int16|f32] [THREADS] [ISA]`.
//!
//! Runs forwards of the shape of all-MiniLM-L6-v2 (6 layers, hidden 384, 12 heads, inner 1536) with
//! made-up weights over batches of texts of one length, with all passes and with some of them. A
//! block's time is what a forward takes longer with it; medians. The rate of a block counts all of
//! its time: bias, GELU, softmax, residual and normalisation too.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use sela_compute::encode::{
    AttentionTensors, EmbeddingTensors, Encode, FeedForwardTensors, Forward, LinearTensors,
    NormTensors, Pooling, Ragged, Tensor, Ticket,
};
use sela_compute::{
    Arithmetic, CpuAttention, CpuEmbedding, CpuEncode, CpuFeedForward, Error, Inventory, Isa,
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

    /// Seconds of a forward, the median of some, with the passes that are wanted.
    fn time(&self, batch: &Ragged, attend: bool, feed: bool, pool: bool) -> Result<f64, Error> {
        let mut took = Vec::new();
        for run in 0..=RUNS {
            let began = Instant::now();
            let mut forward = self.backend.begin(batch)?;
            forward.embed(&self.embedding)?;
            for (attention, feed_forward) in &self.layers {
                if attend {
                    forward.attend(attention)?;
                }
                if feed {
                    forward.feed_forward(feed_forward)?;
                }
            }
            if pool {
                forward.pool(Pooling::Mean, true)?;
            }
            std::hint::black_box(forward.submit()?.wait()?);
            if run > 0 {
                took.push(began.elapsed().as_secs_f64());
            }
        }
        took.sort_by(f64::total_cmp);
        Ok(took[RUNS / 2])
    }
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
        "{arithmetic:?}, {isa}, units {:?} and {:?}, {threads} threads",
        cpu.bf16, cpu.int8
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
        let all = model.time(&some, true, true, true)?;
        let embed = model.time(&some, false, false, false)?;
        let pool = model.time(&some, false, false, true)? - embed;
        let attend = model.time(&some, true, false, false)? - embed;
        let feed = model.time(&some, false, true, false)? - embed;
        println!(
            "{texts} texts of {len} tokens: {:.2} ms, {:.0} tokens/s",
            all * 1e3,
            tokens as f64 / all
        );
        let line = |name: &str, seconds: f64, operations: usize| {
            let rate = (operations * tokens * LAYERS) as f64 / seconds / 1e9;
            let share = seconds / all * 100.0;
            let each = seconds * 1e6 / tokens as f64;
            print!("  {name:32} {share:5.1} %  {each:7.2} us/token");
            match operations {
                0 => println!(),
                _ => println!("  {rate:7.0} GFLOP/s"),
            }
        };
        line("gather, embedding, norm", embed, 0);
        let products = 8 * HIDDEN * HIDDEN + 4 * HIDDEN * len;
        line("attention block", attend, products);
        line("feed-forward block", feed, 4 * HIDDEN * INNER);
        line("pooling", pool, 0);
        line(
            "rest (caches, threads)",
            all - embed - attend - feed - pool,
            0,
        );
    }
    Ok(())
}
