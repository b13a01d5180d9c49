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

#[test]
fn indexing_vectors_takes_no_more_for_more() {
    let sela = Sela::new();
    let peak = |rows: usize| {
        let name = format!("rows-{rows}");
        sela.write_vectors(&name, rows, 64);
        let (file, ids) = (format!("{name}.npy"), format!("{name}.ids"));
        peak_of(&sela, &["index", "-c", &name, "-i", &file, "--ids", &ids])
    };
    let (few, many) = (peak(70_000), peak(280_000));
    println!(
        "70,000 rows: {} MB, 280,000 rows: {} MB",
        few / 1_000_000,
        many / 1_000_000
    );
    assert!(many < few + 40_000_000);
}
