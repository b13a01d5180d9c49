//! Times embedding on the CPU, text to vectors: `encode_speed MODEL TEXTS.txt [ARITHMETIC] [THREADS]`,
//! the arithmetic being one of f32, bf16x3, bf16, int16, int8 (without it, that of f32 on this CPU).
//!
//! One text of twelve tokens, a hundred texts at once, all of them, and long texts made of ten each;
//! medians, with the least and the most.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use sela_compute::Arithmetic;
use sela_encoder::{Dtype, Encoder, EncoderOptions, ModelFiles};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("the first argument is a model folder")?;
    let texts = args.next().ok_or("the second is a file of texts")?;
    let texts = std::fs::read_to_string(texts)?;
    let texts: Vec<&str> = texts.lines().take(4_000).collect();
    let long: Vec<String> = texts
        .chunks(10)
        .map(|ten| ten.join(" "))
        .take(100)
        .collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let (dtype, arithmetic) = match args.next().as_deref() {
        None => (Dtype::F32, None),
        Some("f32") => (Dtype::F32, Some(Arithmetic::F32)),
        Some("bf16x3") => (Dtype::F32, Some(Arithmetic::Bf16x3)),
        Some("int16") => (Dtype::Bf16, Some(Arithmetic::Int16)),
        Some("int8") => (Dtype::Int8, Some(Arithmetic::Int8)),
        Some("bf16") => (Dtype::Bf16, Some(Arithmetic::Bf16)),
        Some(other) => return Err(format!("there is no arithmetic `{other}`").into()),
    };
    let options = EncoderOptions {
        dtype,
        arithmetic,
        threads: args.next().map(|n| n.parse()).transpose()?,
        ..EncoderOptions::default()
    };
    let began = Instant::now();
    let encoder = Encoder::open(&ModelFiles::read(Path::new(&folder))?, &options)?;
    let report = encoder.report();
    println!(
        "{:?}, open after {:.0} ms",
        report.arithmetic,
        began.elapsed().as_secs_f64() * 1e3
    );
    let one = ["The Lord is my shepherd, I shall not want"];
    for (name, texts, runs) in [
        ("single", &one[..], 300),
        ("hundred", &texts[..texts.len().min(100)], 9),
        ("bulk", &texts[..], 5),
        ("long", &long[..], 5),
    ] {
        let mut tokens = 0;
        for text in texts {
            tokens += encoder.count_tokens(text)?.min(encoder.tokens_max());
        }
        let mut took = Vec::with_capacity(runs);
        for run in 0..=runs {
            let began = Instant::now();
            encoder.embed(texts)?;
            // The first makes room.
            if run > 0 {
                took.push(began.elapsed().as_secs_f64());
            }
        }
        took.sort_by(f64::total_cmp);
        let median = took[runs / 2];
        println!(
            "{name:>8}: {:>8.3} ms ({:.3} to {:.3}), {:>7.0} tokens/s",
            median * 1e3,
            took[0] * 1e3,
            took[runs - 1] * 1e3,
            tokens as f64 / median
        );
    }
    Ok(())
}
