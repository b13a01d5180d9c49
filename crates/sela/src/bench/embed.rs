//! Embedding: one text, a batch, many texts, long texts.

use super::{BenchOptions, Figure, median, millis, percentile, timed};
use crate::demo;
use crate::engine::Engine;
use crate::error::Result;

/// 12 tokens with the special ones.
const SINGLE_TEXT: &str = "The Lord is my shepherd, I shall not want";
const SINGLE_CALLS: usize = 200;
const SINGLE_WARM: usize = 20;
const BATCH_CALLS: usize = 5;
/// Verses of the bulk run where no texts are given.
const BULK_TEXTS: usize = 4_000;
const LONG_TEXTS: usize = 100;
/// Verses in each of the long texts: more than fill the model's length.
const LONG_VERSES: usize = 14;

pub(super) fn single(engine: &Engine, options: &BenchOptions) -> Result<Vec<Figure>> {
    let mut taken = Vec::new();
    for call in 0..SINGLE_WARM + SINGLE_CALLS * options.repeat.max(1) {
        let (took, _) = timed(|| engine.embed(SINGLE_TEXT))?;
        if call >= SINGLE_WARM {
            taken.push(millis(took));
        }
    }
    Ok(vec![Figure {
        name: "single",
        unit: Some("ms"),
        p50: Some(percentile(&mut taken, 0.5)),
        p99: Some(percentile(&mut taken, 0.99)),
        ..Figure::default()
    }])
}

pub(super) fn batch(engine: &Engine, options: &BenchOptions) -> Result<Vec<Figure>> {
    let texts = match &options.batch_texts {
        Some(texts) => texts.clone(),
        None => spread(100)?,
    };
    engine.embed_batch(&texts)?;
    let mut taken = Vec::new();
    for _ in 0..BATCH_CALLS * options.repeat.max(1) {
        taken.push(millis(timed(|| engine.embed_batch(&texts))?.0));
    }
    let (unit, median) = (Some("ms"), Some(median(&mut taken)));
    Ok(vec![Figure {
        name: "batch100",
        unit,
        rows: Some(texts.len()),
        median,
        ..Figure::default()
    }])
}

pub(super) fn bulk(engine: &Engine, options: &BenchOptions) -> Result<Vec<Figure>> {
    let texts = bulk_texts(options)?;
    throughput(engine, "bulk", &texts, options)
}

pub(super) fn long(engine: &Engine, options: &BenchOptions) -> Result<Vec<Figure>> {
    let texts = match &options.long_texts {
        Some(texts) => texts.clone(),
        None => {
            let verses = demo::verses()?;
            let join = |at: usize| {
                let verses = verses.iter().skip(at * 150).take(LONG_VERSES);
                verses
                    .map(|v| v.text.as_str())
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            (0..LONG_TEXTS).map(join).collect()
        }
    };
    throughput(engine, "long", &texts, options)
}

pub(super) fn bulk_texts(options: &BenchOptions) -> Result<Vec<String>> {
    options.texts.clone().map_or_else(|| spread(BULK_TEXTS), Ok)
}

/// Verses from all over the corpus.
fn spread(count: usize) -> Result<Vec<String>> {
    let verses = demo::verses()?;
    let step = (verses.len() / count).max(1);
    Ok(verses
        .into_iter()
        .step_by(step)
        .take(count)
        .map(|v| v.text)
        .collect())
}

fn throughput(
    engine: &Engine,
    name: &'static str,
    texts: &[String],
    options: &BenchOptions,
) -> Result<Vec<Figure>> {
    engine.embed_batch(&texts[..texts.len().min(32)])?;
    let mut seconds = Vec::new();
    let mut tokens = 0;
    for _ in 0..options.repeat.max(1) {
        let (took, embedded) = timed(|| engine.embed_batch(texts))?;
        seconds.push(took.as_secs_f64());
        tokens = embedded.info.iter().map(|i| i.tokens).sum();
    }
    let seconds = median(&mut seconds);
    Ok(vec![Figure {
        name,
        rows: Some(texts.len()),
        texts_per_s: Some(texts.len() as f64 / seconds),
        tokens_per_s: Some(tokens as f64 / seconds),
        ..Figure::default()
    }])
}
