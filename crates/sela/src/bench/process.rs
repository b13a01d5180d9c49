//! What a whole process takes: time to its first vector, and memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::sides::Side;
use super::storage::DIM;
use super::{Bench, Figure, embed, median, millis, timed};
use crate::error::{Error, Result};
use crate::random::Random;

/// From the start of a process to its end, one text embedded and printed in between.
pub(super) fn coldstart(bench: &Bench<'_>, side: &Side) -> Result<Vec<Figure>> {
    const RUNS: usize = 5;
    let Some(program) = &bench.options.program else {
        return Ok(Vec::new());
    };
    let told = bench.scratch.path().join("coldstart.json");
    let mut taken = Vec::new();
    for run in 0..=RUNS * bench.options.repeat.max(1) {
        let mut command = command(program, side);
        command.arg("--stats").arg(&told);
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
        proven(side, "coldstart", &told, Told::embedded_on_gpu)?;
    }
    let (unit, median) = (Some("ms"), Some(median(&mut taken)));
    Ok(vec![Figure {
        name: "coldstart",
        device: Some(side.name.clone()),
        unit,
        median,
        ..Figure::default()
    }])
}

/// The most memory of processes that do one thing. Processes of their own, so that what was
/// measured before and the texts held here are not in the figures.
pub(super) fn memory(bench: &Bench<'_>, found: &mut dyn FnMut(Figure)) -> Result<()> {
    let Some(program) = &bench.options.program else {
        return Ok(());
    };
    if memory_of(std::process::id()).is_none() {
        return Ok(());
    }
    for side in &bench.sides {
        found(texts(bench, side, program)?);
    }
    vectors(bench, program, found)
}

/// The most anonymous memory of a process that loads the bulk texts into a collection.
fn texts(bench: &Bench<'_>, side: &Side, program: &Path) -> Result<Figure> {
    let texts = embed::bulk_texts(bench.options)?;
    let path = bench.scratch.path();
    let (input, told) = (path.join("texts.jsonl"), path.join("memory.json"));
    write_items(&input, &texts).map_err(Error::io("write", &input))?;
    let name = format!("memory-{}", side.name.replace(':', "-"));
    let mut command = command(program, side);
    command.arg("--stats").arg(&told);
    command.args(["index", "--collection", &name, "--input"]);
    command.arg(&input).stdout(Stdio::null());
    let peak = peak_of(&mut command, program)?;
    proven(side, "memory", &told, Told::embedded_on_gpu)?;
    Ok(Figure {
        name: "memory",
        device: Some(side.name.clone()),
        unit: Some("MB of anonymous memory"),
        rows: Some(texts.len()),
        peak: Some(peak.anonymous as f64 / 1e6),
        ..Figure::default()
    })
}

/// The most resident memory, mapped files included, of a process that loads many vectors into a
/// collection, which no GPU takes part in, and of one that searches them.
fn vectors(bench: &Bench<'_>, program: &Path, found: &mut dyn FnMut(Figure)) -> Result<()> {
    let Some(first) = bench.sides.first() else {
        return Ok(());
    };
    let rows = bench.options.memory_rows.max(1);
    let (input, ids) = write_vectors(bench.scratch.path(), rows)?;
    let mut load = command(program, first);
    load.args(["index", "--collection", "vectors", "--input"]);
    load.arg(&input)
        .arg("--ids")
        .arg(&ids)
        .stdout(Stdio::null());
    let loading = peak_of(&mut load, program)?.resident;
    let figure = |name, device, peak: u64| Figure {
        name,
        device,
        unit: Some("MB of memory, mapped files included"),
        rows: Some(rows),
        peak: Some(peak as f64 / 1e6),
        ..Figure::default()
    };
    found(figure("memory1m_load", None, loading));
    let told = bench.scratch.path().join("vectors.json");
    for side in &bench.sides {
        let mut search = command(program, side);
        search.arg("--stats").arg(&told);
        search.args(["search", "--collection", "vectors", "--vector"]);
        search.arg(&input).stdout(Stdio::null());
        let searching = peak_of(&mut search, program)?.resident;
        proven(side, "memory1m", &told, |told| {
            told.searches.gpu_queries > 0
        })?;
        found(figure("memory1m", Some(side.name.clone()), searching));
    }
    // They are large, and nobody needs them any more.
    let _ = std::fs::remove_file(input);
    first.engine.delete("vectors")
}

/// The program with a side's home, data, model, device, precision and threads.
fn command(program: &Path, side: &Side) -> Command {
    let has = side.engine.options();
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).arg("--quiet");
    command.arg("--home").arg(&has.home);
    command.arg("--data").arg(&has.data);
    command.arg("--model").arg(&has.model);
    command.args(["--dtype", &format!("{:?}", has.dtype).to_lowercase()]);
    command.args(["--device", &side.name]);
    command.args(["--gpu-cache", &has.gpu_cache.to_string()]);
    command.args(["--scan-cache", &has.scan_cache.to_string()]);
    if let Some(threads) = has.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    command
}

/// What a process wrote of itself, as far as it is looked at.
#[derive(Deserialize)]
struct Told {
    #[serde(default, deserialize_with = "text_or_nothing")]
    tier: String,
    fallbacks: u64,
    degraded: u64,
    searches: Searches,
}

#[derive(Deserialize)]
struct Searches {
    gpu_queries: u64,
    last: Option<String>,
}

impl Told {
    fn embedded_on_gpu(&self) -> bool {
        !["", "cpu"].contains(&self.tier.as_str())
    }
}

fn text_or_nothing<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

/// Whether a process that was to use a GPU did all of its work there.
fn proven(side: &Side, what: &'static str, told: &Path, on_gpu: fn(&Told) -> bool) -> Result<()> {
    let text = std::fs::read_to_string(told).map_err(Error::io("read", told))?;
    if !side.is_gpu() {
        return Ok(());
    }
    let instead = match serde_json::from_str::<Told>(&text) {
        Err(error) => format!("the process told no figures: {error}"),
        Ok(told) if told.fallbacks + told.degraded > 0 => "the CPU did a part of it".to_owned(),
        Ok(told) if !on_gpu(&told) => match told.searches.last {
            Some(last) => format!("the CPU did it: {last}"),
            None => "the CPU did it".to_owned(),
        },
        Ok(_) => return Ok(()),
    };
    Err(Error::NotMeasured {
        what,
        device: side.name.clone(),
        instead,
    })
}

/// Random vectors as `.npy` and their names, a few at a time: they are not to fill the memory here.
fn write_vectors(folder: &Path, rows: usize) -> Result<(PathBuf, PathBuf)> {
    const AT_ONCE: usize = 10_000;
    let (input, ids) = (folder.join("vectors.npy"), folder.join("vectors.ids"));
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(&input)?);
        let mut header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIM}), }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&(header.len() as u16).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let mut random = Random::new(11);
        for first in (0..rows).step_by(AT_ONCE) {
            let numbers = random.unit_rows(AT_ONCE.min(rows - first), DIM);
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        file.flush()?;
        let mut file = BufWriter::new(File::create(&ids)?);
        for id in 0..rows {
            writeln!(file, "{id}")?;
        }
        file.flush()
    };
    write().map_err(Error::io("write", &input))?;
    Ok((input, ids))
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

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// Of its own: mapped files are not in it.
    anonymous: u64,
    /// The most it ever had in main memory, mapped files included.
    resident: u64,
}

/// Runs a command to its end and looks at its memory all the while.
fn peak_of(command: &mut Command, program: &Path) -> Result<Memory> {
    let mut child = command.spawn().map_err(Error::io("start", program))?;
    let mut peak = Memory::default();
    loop {
        if let Some(status) = child.try_wait().map_err(Error::io("run", program))? {
            succeeded(program, status)?;
            return Ok(peak);
        }
        let now = memory_of(child.id()).unwrap_or_default();
        peak.anonymous = peak.anonymous.max(now.anonymous);
        peak.resident = peak.resident.max(now.resident);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Memory of a process, where the system tells.
fn memory_of(process: u32) -> Option<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        Some(kib * 1024)
    };
    Some(Memory {
        anonymous: bytes("RssAnon:")?,
        resident: bytes("VmHWM:")?,
    })
}
