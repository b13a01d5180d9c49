//! Memory stays within bounds, however long the input is.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout)] // Figures, and what was skipped.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::Sela;

/// The most anonymous memory a command had, in bytes; mapped files are not in it.
fn peak_of(sela: &Sela, arguments: &[&str]) -> u64 {
    let mut child = sela
        .command(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success());
            return peak;
        }
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What texts take beside their vectors: tokens, activations, the text itself. That rows do not pile
/// up is the next test's, which can afford more of them.
#[test]
fn indexing_texts_takes_less_than_400_mb_and_no_more_for_more() {
    let sela = Sela::with_model();
    let verses = sela::demo::verses().unwrap();
    let peak = |name: &str, count: usize| {
        let texts: String = verses
            .iter()
            .take(count)
            .map(|v| format!("{}\n", v.text))
            .collect();
        let file = format!("{name}.txt");
        sela.write(&file, texts);
        peak_of(&sela, &["index", "-c", name, "-i", &file])
    };
    let few = peak("few", 600);
    let many = peak("many", 2_400);
    println!(
        "600 texts: {} MB, 2,400 texts: {} MB",
        few / 1_000_000,
        many / 1_000_000
    );
    assert!(many < 400_000_000);
    // Fresh rows are held in memory until they fill a segment: 1.5 kB each, and the text.
    assert!(many < few + 40_000_000);
}

/// The peak of a load of so many rows of 64 numbers.
fn peak_of_rows(sela: &Sela, rows: usize, commit_every: &str) -> u64 {
    let name = format!("rows-{rows}-{commit_every}");
    sela.write_vectors(&name, rows, 64);
    let (file, ids) = (format!("{name}.npy"), format!("{name}.ids"));
    let input = ["index", "-c", &name, "-i", &file, "--ids", &ids];
    peak_of(
        sela,
        &[&input[..], &["--commit-every", commit_every]].concat(),
    )
}

/// Four times as many rows take no more memory, by either way into the store: whole segments, and
/// fresh rows that are sealed when they fill one. Both counts fill several segments, so that what
/// grows with rows would show: the bound is 30 bytes a row.
#[test]
fn indexing_vectors_takes_no_more_for_more() {
    let sela = Sela::new();
    for (way, commit_every) in [("segments", "32768"), ("fresh rows", "512")] {
        let few = peak_of_rows(&sela, 100_000, commit_every);
        let many = peak_of_rows(&sela, 400_000, commit_every);
        println!(
            "{way}: 100,000 rows: {} MB, 400,000 rows: {} MB",
            few / 1_000_000,
            many / 1_000_000
        );
        assert!(many < few + 9_000_000, "{way}: {few}, then {many} bytes");
    }
}
