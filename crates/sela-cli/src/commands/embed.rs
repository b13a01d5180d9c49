//! `sela embed`: texts in, vectors out.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sela::{Embeddings, Engine};

use crate::app::{App, Failure, Outcome, Result};
use crate::args::Embed;
use crate::npy;
use crate::readers::Lines;

/// Texts that are embedded together; bounds the memory of a long input.
const TEXTS_AT_ONCE: usize = 1024;

pub(super) fn run(app: &App, args: &Embed) -> Result<Outcome> {
    let output = Output::named(&args.output)?;
    let lines = Lines::open(&args.input).map_err(Failure::file("read", &args.input))?;
    let engine = app.engine_with_model()?;
    let bar = app.bar(0, "{pos} texts, {per_sec}");
    let embedded = match output {
        Output::Npy(path) => to_npy(&engine, lines, &path, &bar),
        Output::Json(path) => {
            let file = File::create(&path).map_err(Failure::file("write", &path))?;
            let mut writer = BufWriter::new(file);
            let failed = |e| Failure::file("write", &path)(e);
            to_json(&engine, lines, &mut writer, &failed, &bar)
        }
        Output::Stdout => {
            let mut writer = BufWriter::new(io::stdout().lock());
            to_json(&engine, lines, &mut writer, &Failure::stdout, &bar)
        }
    };
    bar.finish_and_clear();
    let done = embedded?;
    let mut said = format!("{} texts embedded", crate::table::count(done.texts));
    if done.truncated > 0 {
        let most = engine.encoder()?.tokens_max();
        said += &format!(
            "; {} were longer than {most} tokens and were cut",
            done.truncated
        );
    }
    app.note(&said);
    Ok(Outcome::Done)
}

enum Output {
    Stdout,
    Npy(PathBuf),
    Json(PathBuf),
}

impl Output {
    fn named(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            None if path.as_os_str() == "-" => Ok(Self::Stdout),
            Some("npy") => Ok(Self::Npy(path.to_owned())),
            Some("jsonl" | "ndjson") => Ok(Self::Json(path.to_owned())),
            _ => Err(Failure::say(format!(
                "`{}` ends neither in .npy nor .jsonl",
                path.display()
            ))),
        }
    }
}

#[derive(Default)]
struct Done {
    texts: u64,
    truncated: u64,
}

/// Embeds all lines a stretch at a time.
fn each(
    engine: &Engine,
    mut lines: Lines,
    bar: &indicatif::ProgressBar,
    mut take: impl FnMut(&[String], &Embeddings) -> Result<()>,
) -> Result<Done> {
    let mut done = Done::default();
    loop {
        let texts = lines
            .by_ref()
            .take(TEXTS_AT_ONCE)
            .collect::<sela::Result<Vec<String>>>()?;
        if texts.is_empty() {
            return Ok(done);
        }
        let embedded = engine.embed_batch(&texts)?;
        take(&texts, &embedded)?;
        done.texts += texts.len() as u64;
        done.truncated += embedded.info.iter().filter(|i| i.truncated).count() as u64;
        bar.set_position(done.texts);
    }
}

fn to_json(
    engine: &Engine,
    lines: Lines,
    writer: &mut impl Write,
    failed: &dyn Fn(io::Error) -> Failure,
    bar: &indicatif::ProgressBar,
) -> Result<Done> {
    let done = each(engine, lines, bar, |texts, embedded| {
        for (at, text) in texts.iter().enumerate() {
            let info = &embedded.info[at];
            let line = serde_json::json!({
                "text": text,
                "tokens": info.tokens,
                "tokens_total": info.tokens_total,
                "truncated": info.truncated,
                "embedding": embedded.vector(at),
            });
            writeln!(writer, "{line}").map_err(failed)?;
        }
        writer.flush().map_err(failed)
    })?;
    writer.flush().map_err(failed)?;
    Ok(done)
}

/// The shape stands at the front of the file, so the lines are counted as they come and the
/// header is written last.
fn to_npy(
    engine: &Engine,
    lines: Lines,
    path: &Path,
    bar: &indicatif::ProgressBar,
) -> Result<Done> {
    let mut writer = npy::Writer::create(path, engine.encoder()?.dim())?;
    let done = each(engine, lines, bar, |_, embedded| {
        writer.push(&embedded.vectors)
    })?;
    writer.finish()?;
    Ok(done)
}
