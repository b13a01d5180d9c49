//! `sela bench`: speed and memory on this machine.

mod saved;

use std::path::Path;

use indicatif::ProgressBar;
use sela::DeviceChoice;
use sela::bench::{BenchOptions, BenchReport, Figure, Machine, Matrix, Used, Workload};

use super::{print, print_json};
use crate::app::{App, Failure, Outcome, Result};
use crate::args::{Bench, BenchCommand};
use crate::readers::Lines;
use crate::{npy, table};

pub(super) fn run(app: &App, mut args: Bench) -> Result<Outcome> {
    match args.command.take() {
        None => measure(app, args),
        Some(BenchCommand::Compare {
            before,
            after,
            format,
        }) => saved::compare(&before, &after, &format),
        Some(BenchCommand::Report { files, output }) => {
            saved::report(app, &files, output.as_deref())
        }
    }
}

fn measure(app: &App, args: Bench) -> Result<Outcome> {
    let options = options(&args, app.global.device.clone())?;
    // Each device gets an engine of its own: this one opens nothing.
    let engine = app.engine()?;
    if sela::bench::needs_model(&options.only) {
        let name = &engine.options().model;
        app.pulling(name, |watch| engine.models().find_or_pull(name, watch))?;
    }
    let to_stdout = args
        .json
        .as_deref()
        .is_some_and(|path| path == Path::new("-"));
    let mut bar = None;
    let mut failed = None;
    let report = sela::bench::run(&engine, &options, &mut |workload, figure| {
        if let Some(last) = bar.take() {
            ProgressBar::finish_and_clear(&last);
        }
        if let Some(figure) = figure
            && !to_stdout
            && let Err(failure) = print(&line(figure))
        {
            failed.get_or_insert(failure);
        }
        bar = Some(app.spinner(workload.name()));
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = report?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    let outcome = match report.not_measured.is_empty() {
        true => Outcome::Done,
        false => Outcome::Nothing,
    };
    for told in &report.not_measured {
        app.note(told);
    }
    if to_stdout {
        print_json(&report)?;
        return Ok(outcome);
    }
    print(&summary(&report))?;
    if let Some(path) = &args.json {
        let text =
            serde_json::to_string_pretty(&report).map_err(|e| Failure::say(e.to_string()))?;
        std::fs::write(path, text + "\n").map_err(Failure::file("write", path))?;
    }
    for told in machine(&report.machine) {
        app.note(&told);
    }
    Ok(outcome)
}

/// The machine in lines: the CPU, then each GPU.
fn machine(m: &Machine) -> Vec<String> {
    let cpu = m.cpu.as_deref().unwrap_or("unknown CPU");
    let (threads, of, isa) = (m.threads, m.cpu_threads, &m.isa);
    let products = |used: &Used| match (&used.arithmetic, &used.variant) {
        (Some(arithmetic), Some(variant)) => format!(", {arithmetic} by {variant} kernels"),
        (Some(arithmetic), None) => format!(", {arithmetic} products"),
        _ => String::new(),
    };
    let by_cpu = m.devices.iter().find(|used| used.device_name.is_none());
    let mut lines = vec![format!(
        "{cpu}, {threads} of {of} threads, {isa} kernels{}",
        by_cpu.map_or_else(String::new, products)
    )];
    for used in &m.devices {
        let (Some(gpu), Some(backend)) = (&used.device_name, &used.backend) else {
            continue;
        };
        let driver = used.driver.as_deref().unwrap_or_default();
        lines.push(format!(
            "{}: {gpu}, {backend}, {driver}{}",
            used.device,
            products(used)
        ));
    }
    lines
}

/// The devices against each other, and the aims.
fn summary(report: &BenchReport) -> String {
    let rows = |rows: Option<usize>| {
        rows.map_or_else(String::new, |rows| {
            format!("{} rows", table::count(rows as u64))
        })
    };
    let mut text = String::new();
    if !report.speedups.is_empty() {
        let mut lines = vec![
            ["", "", "cpu", "gpu", "", "speed-up"]
                .map(str::to_owned)
                .to_vec(),
        ];
        lines.extend(report.speedups.iter().map(|s| {
            vec![
                s.name.to_owned(),
                rows(s.rows),
                format!("{:.3}", s.cpu),
                format!("{:.3}", s.gpu),
                s.unit.to_owned(),
                format!("{:.1}x ({})", s.speedup, s.device),
            ]
        }));
        text += &format!("\nSide by side\n{}", table::columns(&lines));
    }
    let lines: Vec<Vec<String>> = report
        .targets
        .iter()
        .map(|target| {
            let found = match target.found {
                Some(found) if found >= 100.0 => format!("{found:.0}"),
                Some(found) => format!("{found:.1}"),
                None => "-".to_owned(),
            };
            let met = match target.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not measured",
            };
            let device = target.device.clone().unwrap_or_default();
            vec![
                target.what.clone(),
                device,
                target.aim.to_owned(),
                found,
                met.to_owned(),
            ]
        })
        .collect();
    text + &format!("\nAims\n{}", table::columns(&lines))
}

fn options(args: &Bench, devices: Vec<DeviceChoice>) -> Result<BenchOptions> {
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
        devices,
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
        ("rows/s", figure.rows_per_s),
    ] {
        if let Some(value) = value {
            parts.push(format!("{} {what}", table::count(value.round() as u64)));
        }
    }
    let device = figure.device.as_deref().unwrap_or("-");
    format!(
        "{:<13} {device:<5} {rows:>15}  {}\n",
        figure.name,
        parts.join(", ")
    )
}
