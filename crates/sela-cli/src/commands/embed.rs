//! `sela embed`: texts in, vectors out.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sela::{Embeddings, Engine};

use crate::app::{App, Failure, Outcome, Result};
use crate::args::Embed;
use crate::npy;
use crate::part::PartFile;
use crate::readers::Lines;
use crate::table::count;

/// Texts that are embedded together; bounds the memory of a long input,
const TEXTS_AT_ONCE: usize = 1024;
/// as their bytes do that of long texts.
const BYTES_AT_ONCE: usize = 16 << 20;

pub(super) fn run(app: &App, args: &Embed) -> Result<Outcome> {
    let output = Output::named(&args.output)?;
    let lines = Lines::open(&args.input).map_err(Failure::file("read", &args.input))?;
    let engine = app.engine_with_model()?;
    let bar = app.bar(0, "{pos} texts, {per_sec}");
    let embedded = match output {
        Output::Npy(path) => to_npy(&engine, lines, &path, &bar),
        Output::Json(path) => to_json_file(&engine, lines, &path, &bar),
        Output::Stdout => {
            let mut writer = BufWriter::new(io::stdout().lock());
            to_json(&engine, lines, &mut writer, &Failure::stdout, &bar)
        }
    };
    bar.finish_and_clear();
    app.note(&embedded?.said(engine.encoder()?.tokens_max()));
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
    degraded: u64,
}

impl Done {
    fn said(&self, tokens_max: usize) -> String {
        let mut said = format!("{} texts embedded", count(self.texts));
        if self.truncated > 0 {
            said += &format!(
                "; {} were longer than {tokens_max} tokens and were cut",
                count(self.truncated)
            );
        }
        if self.degraded > 0 {
            said += &format!(
                "; {} were computed again by the CPU, as they came out not finite or the GPU failed",
                count(self.degraded)
            );
        }
        said
    }
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
        let texts = lines.stretch(TEXTS_AT_ONCE, BYTES_AT_ONCE)?;
        if texts.is_empty() {
            return Ok(done);
        }
        let embedded = engine
            .embed_batch(&texts)
            .map_err(|error| at_line(error, &lines, done.texts))?;
        take(&texts, &embedded)?;
        done.texts += texts.len() as u64;
        for info in &embedded.info {
            done.truncated += u64::from(info.truncated);
            done.degraded += u64::from(info.degraded);
        }
        bar.set_position(done.texts);
    }
}

/// Names the line an encoder's complaint is about: the encoder counts the texts of a call from 0,
/// and `before` of them were embedded in earlier calls.
fn at_line(error: sela::Error, lines: &Lines, before: u64) -> Failure {
    let named = match &error {
        sela::Error::Encoder(complaint) => numbered(&complaint.to_string()),
        _ => None,
    };
    match named {
        Some((index, reason)) => {
            let told = lines.error_at(before + index + 1, reason).to_string();
            Failure::Said(told, error.hint())
        }
        None => error.into(),
    }
}

/// The number in a complaint about `text 7`, and the complaint about `the text`.
fn numbered(complaint: &str) -> Option<(u64, String)> {
    let (start, rest) = complaint.split_once("text ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let index = rest[..digits].parse().ok()?;
    Some((index, format!("{start}the text{}", &rest[digits..])))
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
                "degraded": info.degraded,
                "embedding": embedded.vector(at),
            });
            writeln!(writer, "{line}").map_err(failed)?;
        }
        writer.flush().map_err(failed)
    })?;
    writer.flush().map_err(failed)?;
    Ok(done)
}

fn to_json_file(
    engine: &Engine,
    lines: Lines,
    path: &Path,
    bar: &indicatif::ProgressBar,
) -> Result<Done> {
    let failed = |error| Failure::file("write", path)(error);
    let mut file = PartFile::create(path).map_err(failed)?;
    let done = to_json(engine, lines, &mut file, &failed, bar)?;
    file.finish().map_err(failed)?;
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
