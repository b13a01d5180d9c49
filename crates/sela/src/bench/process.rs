//! What a whole process takes: time to its first vector, and memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{BenchOptions, Figure, embed, median, millis, timed};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::scratch::Scratch;

/// From the start of a process to its end, one text embedded and printed in between.
pub(super) fn coldstart(engine: &Engine, options: &BenchOptions) -> Result<Vec<Figure>> {
    const RUNS: usize = 5;
    let Some(program) = &options.program else {
        return Ok(Vec::new());
    };
    let mut taken = Vec::new();
    for run in 0..=RUNS * options.repeat.max(1) {
        let mut command = command(program, engine);
        command
            .arg("embed")
            .stdout(Stdio::piped())
            .stdin(Stdio::piped());
        let mut once = || {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(b"The Lord is my shepherd\n")?;
            }
            child.wait_with_output()
        };
        let (took, output) = timed(|| once().map_err(Error::io("start", program)))?;
        succeeded(program, output.status)?;
        // The first run may have read the files from the disk.
        if run > 0 {
            taken.push(millis(took));
        }
    }
    let (unit, median) = (Some("ms"), Some(median(&mut taken)));
    Ok(vec![Figure {
        name: "coldstart",
        unit,
        median,
        ..Figure::default()
    }])
}

/// The most anonymous memory a process has that loads the bulk texts into a collection. One of its
/// own, so that what was measured before and the texts held here are not in the figure.
pub(super) fn memory(engine: &Engine, options: &BenchOptions) -> Result<Vec<Figure>> {
    let Some(program) = &options.program else {
        return Ok(Vec::new());
    };
    if anonymous_bytes(std::process::id()).is_none() {
        return Ok(Vec::new());
    }
    let texts = embed::bulk_texts(options)?;
    let scratch = Scratch::new(&engine.options().home, "bench")?;
    let input = scratch.path().join("texts.jsonl");
    write_items(&input, &texts).map_err(Error::io("write", &input))?;
    let mut command = command(program, engine);
    command.arg("--data").arg(scratch.path());
    command.args(["index", "--collection", "memory", "--input"]);
    command.arg(&input).stdout(Stdio::null());
    let peak = Some(peak_of(&mut command, program)? as f64 / 1e6);
    let (name, unit) = ("memory", Some("MB of anonymous memory"));
    Ok(vec![Figure {
        name,
        unit,
        rows: Some(texts.len()),
        peak,
        ..Figure::default()
    }])
}

/// The program with the engine's home, model, precision and threads.
fn command(program: &Path, engine: &Engine) -> Command {
    let has = engine.options();
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).arg("--quiet");
    command.arg("--home").arg(&has.home);
    command.arg("--model").arg(&has.model);
    command.args(["--dtype", &format!("{:?}", has.dtype).to_lowercase()]);
    if let Some(threads) = has.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    command
}

fn succeeded(program: &Path, status: std::process::ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let failed = std::io::Error::other(format!("it ended with {status}"));
    Err(Error::io("run", program)(failed))
}

fn write_items(path: &Path, texts: &[String]) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for (text, id) in texts.iter().zip(1u64..) {
        writeln!(file, "{}", serde_json::json!({"id": id, "text": text}))?;
    }
    file.flush()
}

/// Runs a command to its end and looks at its anonymous memory all the while.
fn peak_of(command: &mut Command, program: &Path) -> Result<u64> {
    let mut child = command.spawn().map_err(Error::io("start", program))?;
    let mut peak = 0;
    loop {
        if let Some(status) = child.try_wait().map_err(Error::io("run", program))? {
            succeeded(program, status)?;
            return Ok(peak);
        }
        peak = peak.max(anonymous_bytes(child.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Anonymous memory of a process, where the system tells: mapped files are not in it.
fn anonymous_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
