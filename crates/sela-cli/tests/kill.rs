//! Killed without warning, again and again: what was acknowledged is there, nothing is half
//! written, and the next run goes on.
#![cfg(unix)]
#![allow(clippy::print_stdout)] // Figures, and what was skipped.

mod common;

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Sela, committed, vector};
use sela::{Engine, Fields, Id, Options};

const KILLS: usize = 60;
const TIME_MAX: Duration = Duration::from_secs(240);

/// Numbers that differ from run to run of the loop, and are the same each time the test runs.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Starts the command and kills it after a while; what it had acknowledged, and whether it had
/// ended by itself before.
fn run_and_kill(sela: &Sela, arguments: &[&str], after: Duration) -> (usize, bool) {
    let mut child = sela
        .command(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    let began = Instant::now();
    let mut ended = None;
    while began.elapsed() < after && ended.is_none() {
        std::thread::sleep(Duration::from_millis(1));
        ended = child.try_wait().unwrap();
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    if let Some(status) = ended {
        assert!(status.success());
    }
    (committed(&reader.join().unwrap()), ended.is_some())
}

/// Opens the collection as the next process would, and looks at every row. How many there are.
fn check(sela: &Sela, acknowledged: usize, dim: usize) -> usize {
    let engine = Engine::open(Options::new(sela.home.path())).unwrap();
    let names = engine.collections().unwrap();
    if names.is_empty() {
        assert_eq!(acknowledged, 0);
        return 0;
    }
    match engine.verify("rows") {
        Ok(report) => assert!(report.is_sound(), "{:?}", report.faults),
        // Killed while it was being made: as good as not there.
        Err(sela::Error::NoCollection { .. }) if acknowledged == 0 => return 0,
        Err(error) => panic!("{error}"),
    }
    let collection = engine.collection_read_only("rows").unwrap();
    let rows = collection.count(None).unwrap() as usize;
    assert!(
        rows >= acknowledged,
        "{acknowledged} were acknowledged, {rows} are there"
    );
    let ids: Vec<Id> = (0..rows as u64).map(Id::Num).collect();
    for (at, row) in collection
        .get(&ids, Fields::ALL)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        let row = row.unwrap_or_else(|| panic!("row {at} of {rows} is missing: not a prefix"));
        assert_eq!(row.vector, vector(at, dim), "row {at} is half written");
    }
    rows
}

/// Kills loads until there were `kills`, with commits of `commit` items.
fn kill_loads(name: &str, kills: usize, rows: usize, commit: &str, after_ms: u64) {
    const DIM: usize = 8;
    let began = Instant::now();
    let mut random = Random(name.len() as u64);
    let (mut killed, mut finished, mut midway) = (0, 0, 0);
    while killed < kills {
        assert!(began.elapsed() < TIME_MAX, "{killed} kills took too long");
        let sela = Sela::new();
        sela.write_vectors("rows", rows, DIM);
        let index = [
            "index",
            "-c",
            "rows",
            "-i",
            "rows.npy",
            "--ids",
            "rows.ids",
            "--json",
            "--commit-every",
            commit,
        ];
        let mut before = 0;
        loop {
            let after = Duration::from_millis(random.below(after_ms));
            let (acknowledged, ended) = run_and_kill(&sela, &index, after);
            let there = check(&sela, acknowledged, DIM);
            assert!(there >= before, "rows have gone");
            before = there;
            if ended {
                assert_eq!((there, acknowledged), (rows, rows));
                finished += 1;
                break;
            }
            killed += 1;
            midway += usize::from(there > 0 && there < rows);
            if killed >= kills {
                sela.ok(&index);
                assert_eq!(
                    check(&sela, rows, DIM),
                    rows,
                    "the last load is completed as well"
                );
                break;
            }
        }
    }
    println!(
        "{name}: {killed} kills, {midway} of them midway, {finished} loads ended by themselves"
    );
    assert!(midway > 0, "no kill came at an interesting moment");
}

#[test]
fn loads_of_small_commits_survive_kills() {
    kill_loads("small commits", KILLS, 6_000, "40", 400);
}

#[test]
fn loads_of_segments_survive_kills() {
    kill_loads("segments", KILLS / 3, 60_000, "8192", 300);
}

#[test]
fn loads_of_texts_survive_kills() {
    const TEXTS: usize = 120;
    let sela = Sela::with_model();
    let texts: String = (0..TEXTS).map(|i| format!("text number {i}\n")).collect();
    sela.write("texts.txt", texts);
    let index = [
        "index",
        "-c",
        "rows",
        "-i",
        "texts.txt",
        "--json",
        "--commit-every",
        "8",
    ];
    let mut random = Random(3);
    let mut killed = 0;
    loop {
        let (acknowledged, ended) = run_and_kill(
            &sela,
            &index,
            Duration::from_millis(200 + random.below(900)),
        );
        let engine = Engine::open(Options::new(sela.home.path())).unwrap();
        if let Ok(collection) = engine.collection_read_only("rows") {
            assert!(engine.verify("rows").unwrap().is_sound());
            let ids: Vec<Id> = (1..=acknowledged as u64).map(Id::Num).collect();
            for (row, id) in collection
                .get(&ids, Fields::ALL)
                .unwrap()
                .into_iter()
                .zip(1..)
            {
                assert_eq!(row.unwrap().text, Some(format!("text number {}", id - 1)));
            }
        } else {
            assert_eq!(acknowledged, 0);
        }
        if ended || killed == 10 {
            break;
        }
        killed += 1;
    }
    println!("texts: {killed} kills");
    sela.ok(&index);
    let verified: serde_json::Value =
        serde_json::from_str(&sela.ok(&["collection", "verify", "rows", "--json"])).unwrap();
    assert_eq!(verified["rows"], TEXTS);
}
