//! Times the encoder on a model folder: `encode_speed MODEL [TEXTS.txt] [THREADS]`.
//!
//! Prints the p50 of one short text, a batch of 100 texts and the rate over all texts.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use sela_encoder::{Encoder, EncoderOptions, ModelFiles};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("the first argument is a model folder")?;
    let texts = match args.next() {
        Some(path) => std::fs::read_to_string(path)?
            .lines()
            .map(str::to_owned)
            .collect(),
        None => vec!["The LORD is my shepherd; I shall not want.".to_owned(); 1000],
    };
    let threads = args.next().map(|n| n.parse()).transpose()?;
    let files = ModelFiles::read(std::path::Path::new(&folder))?;
    let began = Instant::now();
    let options = EncoderOptions {
        threads,
        ..EncoderOptions::default()
    };
    let encoder = Encoder::open(&files, &options)?;
    println!("open {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let mut times: Vec<f64> = (0..300)
        .map(|_| {
            let began = Instant::now();
            std::hint::black_box(
                encoder
                    .embed(&["What is the capital of the kingdom?"])
                    .is_ok(),
            );
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "one text p50 {:.3} ms, best {:.3} ms",
        times[times.len() / 2],
        times[0]
    );
    for round in 0..3 {
        let began = Instant::now();
        let batch = encoder.embed(&texts[..100.min(texts.len())])?;
        println!(
            "batch of {} {:.1} ms",
            batch.info.len(),
            began.elapsed().as_secs_f64() * 1e3
        );
        let began = Instant::now();
        let all = encoder.embed(&texts)?;
        let (seconds, tokens) = (
            began.elapsed().as_secs_f64(),
            all.info.iter().map(|i| i.tokens).sum::<usize>(),
        );
        println!(
            "round {round}: {} texts, {:.0} texts/s, {:.0} tokens/s",
            texts.len(),
            texts.len() as f64 / seconds,
            tokens as f64 / seconds
        );
    }
    println!("{:?}", encoder.report());
    Ok(())
}
