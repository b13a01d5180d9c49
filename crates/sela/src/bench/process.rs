//! What a whole process takes: time to its first vector, and memory.

use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{BenchOptions, Figure, embed, median, millis, timed};
use crate::collection::{CollectionOptions, Item};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::load::LoadOptions;

/// From the start of a process to its end, one text embedded and printed in between.
pub(super) fn coldstart(engine: &Engine, options: &BenchOptions) -> Result<Vec<Figure>> {
    const RUNS: usize = 5;
    let Some(program) = &options.program else {
        return Ok(Vec::new());
    };
    let has = engine.options();
    let mut taken = Vec::new();
    for run in 0..=RUNS * options.repeat.max(1) {
        let mut command = Command::new(program);
        command
            .arg("--home")
            .arg(&has.home)
            .arg("--model")
            .arg(&has.model);
        command.args(["--dtype", &format!("{:?}", has.dtype).to_lowercase()]);
        if let Some(threads) = has.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        command
            .args(["--quiet", "embed"])
            .stdout(Stdio::piped())
            .stdin(Stdio::piped());
        let mut once = || {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                std::io::Write::write_all(&mut stdin, b"The Lord is my shepherd\n")?;
            }
            child.wait_with_output()
        };
        let (took, output) = timed(|| once().map_err(Error::io("start", program)))?;
        if !output.status.success() {
            let failed = std::io::Error::other(format!("it ended with {}", output.status));
            return Err(Error::io("run", program)(failed));
        }
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

/// The most anonymous memory this process has while it loads the bulk texts into a collection.
pub(super) fn memory(engine: &Engine, options: &BenchOptions) -> Result<Vec<Figure>> {
    if anonymous_bytes().is_none() {
        return Ok(Vec::new());
    }
    let texts = embed::bulk_texts(options)?;
    let home = &engine.options().home;
    let scratch = crate::scratch::Scratch::new(home, "bench")?;
    let mut own = engine.options().clone();
    own.data = scratch.path().to_owned();
    let own = Engine::open(own)?;
    let collection = own.create("memory", &CollectionOptions::default())?;
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let rows = texts.len();
    let loaded = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_bytes().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut open = || {
            let items = texts.clone().into_iter().zip(1u64..);
            let items: crate::load::Items<'static> =
                Box::new(items.map(|(text, id)| Ok(Item::text(id, text))));
            Ok(items)
        };
        let loaded = collection.load("bench", &mut open, &LoadOptions::default(), &mut |_| {
            ControlFlow::Continue(())
        });
        done.store(true, Ordering::Relaxed);
        loaded
    });
    loaded?;
    let peak = Some(peak.load(Ordering::Relaxed) as f64 / 1e6);
    let (name, unit) = ("memory", Some("MB of anonymous memory"));
    Ok(vec![Figure {
        name,
        unit,
        rows: Some(rows),
        peak,
        ..Figure::default()
    }])
}

/// Anonymous memory of this process, where the system tells: mapped files are not in it.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
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
