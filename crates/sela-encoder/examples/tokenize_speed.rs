//! Times tokenising on one thread, beside the tokenizers library: `tokenize_speed MODEL [TEXTS.txt]`.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use sela_encoder::{Encoder, EncoderOptions, ModelFiles};
use tokenizers::Tokenizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("the first argument is a model folder")?;
    let texts: Vec<String> = match args.next() {
        Some(path) => {
            let lines = std::fs::read_to_string(path)?;
            lines.lines().map(str::to_owned).collect()
        }
        None => vec!["The LORD is my shepherd; I shall not want.".to_owned(); 10_000],
    };
    let encoder = Encoder::open(
        &ModelFiles::read(Path::new(&folder))?,
        &EncoderOptions::default(),
    )?;
    let mut library = Tokenizer::from_file(Path::new(&folder).join("tokenizer.json"))
        .map_err(|error| error.to_string())?;
    library.with_padding(None);
    library
        .with_truncation(None)
        .map_err(|error| error.to_string())?;
    for round in 1..=5 {
        let began = Instant::now();
        let mut tokens = 0;
        for text in &texts {
            tokens += encoder.count_tokens(text)?;
        }
        let ours = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let mut theirs = 0;
        for text in &texts {
            let ids = library.encode_fast(text.as_str(), true);
            theirs += ids.map_err(|error| error.to_string())?.len();
        }
        let library = began.elapsed().as_secs_f64();
        if tokens != theirs {
            return Err(format!("{tokens} tokens, but the library's are {theirs}").into());
        }
        let rate = |seconds: f64| tokens as f64 / seconds / 1e6;
        println!(
            "round {round}: {tokens} tokens, {:.2}M/s, the library {:.2}M/s",
            rate(ours),
            rate(library)
        );
    }
    Ok(())
}
