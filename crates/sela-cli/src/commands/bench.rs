//! `sela bench`: speed and memory on this machine.

use std::path::Path;

use sela::bench::{BenchOptions, Figure, Matrix, Workload};

use super::{print, print_json};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::Bench;
use crate::readers::Lines;
use crate::{npy, table};

pub(super) fn run(app: &App, args: Bench) -> Result<Outcome> {
    let options = options(&args)?;
    let engine = match sela::bench::needs_model(&options.only) {
        true => app.engine_with_model()?,
        false => app.engine()?,
    };
    let to_stdout = args
        .json
        .as_deref()
        .is_some_and(|path| path == Path::new("-"));
    let mut bar = None;
    let mut failed = None;
    let report = sela::bench::run(&engine, &options, &mut |workload, figure| match figure {
        None => {
            let spinner = app.bar(0, "{spinner} {msg} {elapsed}");
            spinner.set_message(workload.name());
            if let Some(last) = bar.replace(spinner) {
                last.finish_and_clear();
            }
        }
        Some(figure) => {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            if !to_stdout && let Err(failure) = print(&line(figure)) {
                failed.get_or_insert(failure);
            }
        }
    })?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    match &args.json {
        Some(_) if to_stdout => print_json(&report)?,
        Some(path) => {
            let text =
                serde_json::to_string_pretty(&report).map_err(|e| Failure::say(e.to_string()))?;
            std::fs::write(path, text + "\n").map_err(Failure::file("write", path))?;
        }
        None => {
            let m = &report.machine;
            let cpu = m.cpu.as_deref().unwrap_or("unknown CPU");
            let (threads, of) = (m.threads, m.cpu_threads);
            let products = match &m.arithmetic {
                Some(arithmetic) => format!(", {arithmetic} products"),
                None => String::new(),
            };
            app.note(&format!(
                "{cpu}, {threads} of {of} threads, {} kernels{products}",
                m.isa
            ));
        }
    }
    Ok(Outcome::Done)
}

fn options(args: &Bench) -> Result<BenchOptions> {
    let texts = |path: &Option<std::path::PathBuf>| path.as_deref().map(read_texts).transpose();
    let vectors = match (&args.vectors, &args.queries) {
        (Some(rows), Some(queries)) => Some((read_matrix(rows)?, read_matrix(queries)?)),
        _ => None,
    };
    let only = if args.only.is_empty() {
        Workload::ALL.to_vec()
    } else {
        args.only.clone()
    };
    Ok(BenchOptions {
        only,
        repeat: args.repeat,
        texts: texts(&args.texts)?,
        batch_texts: texts(&args.batch_texts)?,
        long_texts: texts(&args.long_texts)?,
        vectors,
        k: args.k,
        program: std::env::current_exe().ok(),
        ..BenchOptions::default()
    })
}

fn read_texts(path: &Path) -> Result<Vec<String>> {
    let lines = Lines::open(path).map_err(Failure::file("read", path))?;
    Ok(lines.collect::<sela::Result<Vec<String>>>()?)
}

fn read_matrix(path: &Path) -> Result<Matrix> {
    let rows = npy::open(path)?;
    Ok(Matrix {
        dim: rows.dim,
        numbers: rows.read_all()?,
    })
}

/// A figure for people.
fn line(figure: &Figure) -> String {
    let rows = figure.rows.map_or_else(String::new, |rows| {
        format!("{} rows", table::count(rows as u64))
    });
    let unit = figure.unit.unwrap_or_default();
    let mut parts = Vec::new();
    for (what, value) in [
        ("p50", figure.p50),
        ("p99", figure.p99),
        ("median", figure.median),
        ("peak", figure.peak),
    ] {
        if let Some(value) = value {
            parts.push(format!("{what} {value:.2} {unit}"));
        }
    }
    for (what, value) in [
        ("texts/s", figure.texts_per_s),
        ("tokens/s", figure.tokens_per_s),
    ] {
        if let Some(value) = value {
            parts.push(format!("{} {what}", table::count(value.round() as u64)));
        }
    }
    format!("{:<10} {rows:>15}  {}\n", figure.name, parts.join(", "))
}
