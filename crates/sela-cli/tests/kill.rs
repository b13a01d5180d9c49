//! Killed without warning, again and again: what was acknowledged is there, nothing is half
//! written, and the next run goes on.
//!
//! A kill counts when it came midway: after something was committed in that run, and with more
//! to come. Some kills come at any time since the start instead; they are checked all the same.
#![cfg(unix)]
#![allow(clippy::print_stdout)] // Figures, and what was skipped.

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use common::{Sela, committed, vector};
use sela::{Engine, Fields, Id, Options};

/// A command that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(120);
const SIGKILL: i32 = 9;

/// Numbers that differ from run to run of the loop, and are the same each time the test runs.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }

    fn time_below(&mut self, end: Duration) -> Duration {
        Duration::from_micros(self.below(end.as_micros() as u64))
    }
}

/// When a run is killed.
#[derive(Clone, Copy)]
enum Moment {
    SinceStart(Duration),
    SinceFirstCommit(Duration),
}

/// One run of the command, up to its end or its kill.
struct Life {
    /// Items acknowledged last, those found there at its start included.
    acknowledged: usize,
    /// When the first commit of its own was acknowledged, if that was waited for.
    first_commit: Option<Duration>,
    ended: bool,
}

/// Starts the command where `there` items are stored already, and kills it at a moment.
fn run_and_kill(sela: &Sela, arguments: &[&str], there: usize, moment: Moment) -> Life {
    let mut child = sela
        .command(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        while stdout.read_line(&mut line).unwrap() > 0 {
            // Nobody may be waiting any more.
            let _ = sender.send(committed(&line));
            line.clear();
        }
    });
    let (mut acknowledged, mut first_commit) = (0, None);
    if let Moment::SinceFirstCommit(_) = moment {
        while acknowledged <= there {
            match lines.recv_timeout(SILENCE_MAX) {
                Ok(items) => acknowledged = acknowledged.max(items),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("nothing was said for {SILENCE_MAX:?}"),
            }
        }
        first_commit = (acknowledged > there).then(|| began.elapsed());
    }
    let (Moment::SinceStart(delay) | Moment::SinceFirstCommit(delay)) = moment;
    std::thread::sleep(delay);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let ended = status.success();
    assert!(ended || status.signal() == Some(SIGKILL), "{status}");
    acknowledged = lines.iter().fold(acknowledged, usize::max);
    reader.join().unwrap();
    Life {
        acknowledged,
        first_commit,
        ended,
    }
}

/// What must be stored of an item, in the order of the input.
#[derive(Debug, PartialEq)]
struct Stored {
    id: Id,
    /// The bits of the numbers: one zero is not the other.
    vector: Vec<u32>,
    text: Option<String>,
}

/// All items of a collection that are among `ids`, as far as they are there.
fn stored(engine: &Engine, name: &str, ids: &[Id]) -> Vec<Option<Stored>> {
    let collection = engine.collection_read_only(name).unwrap();
    let rows = collection.get(ids, Fields::ALL).unwrap();
    rows.into_iter()
        .map(|row| {
            let row = row?;
            Some(Stored {
                id: row.id,
                vector: row.vector.iter().map(|x| x.to_bits()).collect(),
                text: row.text,
            })
        })
        .collect()
}

/// A load that is killed.
struct Load<'a> {
    name: &'a str,
    index: &'a [&'a str],
    /// Everything that must be there in the end.
    items: &'a [Stored],
    /// How many kills must come midway.
    midway: usize,
}

impl Load<'_> {
    /// Opens the collection as the next process would, and looks at every row. How many there are.
    fn check(&self, sela: &Sela, acknowledged: usize) -> usize {
        let engine = Engine::open(Options::new(sela.home.path())).unwrap();
        match engine.verify("rows") {
            Ok(report) => assert!(report.is_sound(), "{:?}", report.faults),
            // Killed before it was there, or while it was being made: as good as not there.
            Err(sela::Error::NoCollection { .. }) if acknowledged == 0 => return 0,
            Err(error) => panic!("{error}"),
        }
        let collection = engine.collection_read_only("rows").unwrap();
        let rows = collection.count(None).unwrap() as usize;
        assert!(
            rows >= acknowledged,
            "{acknowledged} were acknowledged, {rows} are there"
        );
        let ids: Vec<Id> = self.items.iter().map(|item| item.id.clone()).collect();
        let found = stored(&engine, "rows", &ids);
        for (at, (found, item)) in found.iter().zip(self.items).enumerate() {
            let expected = (at < rows).then_some(item);
            assert_eq!(found.as_ref(), expected, "item {at}, with {rows} rows");
        }
        assert!(rows <= self.items.len(), "{rows} rows");
        rows
    }

    /// Completes the load that was killed last: only what is missing is stored.
    fn complete(&self, sela: &Sela, there: usize) {
        let output = sela.run(self.index);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let end = committed(&String::from_utf8(output.stdout).unwrap());
        let all = self.items.len();
        assert_eq!(end, all);
        if there > 0 {
            // As in `12,000 items in `rows`, 11,960 of them unchanged`.
            let unchanged = said.split(" of them unchanged").next().unwrap();
            let digits: String = unchanged.rsplit(' ').next().unwrap().replace(',', "");
            assert_eq!(digits.parse(), Ok(there), "{said}");
        }
        assert_eq!(self.check(sela, all), all);
        let verified: serde_json::Value =
            serde_json::from_str(&sela.ok(&["collection", "verify", "rows", "--json"])).unwrap();
        assert_eq!(verified["rows"], all);
    }
}

/// Kills of one kind of load, and how the moments are chosen.
struct Kills {
    random: Random,
    lives: usize,
    killed: usize,
    midway: usize,
    finished: usize,
    /// Kills come within this time of the first commit.
    spread: Duration,
    /// What it took to the first commit.
    first_commit: Duration,
}

impl Kills {
    fn moment(&mut self) -> Moment {
        match self.random.below(5) {
            0 => Moment::SinceStart(self.random.time_below(self.first_commit)),
            _ => Moment::SinceFirstCommit(self.random.time_below(self.spread)),
        }
    }

    /// Counts a run of `load`, before which `there` items were stored.
    fn count(&mut self, load: &Load<'_>, there: usize, life: &Life) {
        self.lives += 1;
        self.killed += usize::from(!life.ended);
        self.finished += usize::from(life.ended);
        let midway =
            !life.ended && life.acknowledged > there && life.acknowledged < load.items.len();
        self.midway += usize::from(midway);
        self.first_commit = life.first_commit.unwrap_or(self.first_commit);
        // So that about one run in eight ends by itself, whatever this machine's pace is.
        self.spread = match life.ended {
            true => self.spread / 2,
            false => self.spread * 11 / 10,
        };
    }

    /// Kills one load until it ends by itself, or until there were enough.
    fn of_one(&mut self, load: &Load<'_>, sela: &Sela) {
        let mut there = 0;
        loop {
            assert!(
                self.lives < 10 * load.midway,
                "{}: only {} of {} kills came midway in {} runs",
                load.name,
                self.midway,
                load.midway,
                self.lives
            );
            let moment = self.moment();
            let life = run_and_kill(sela, load.index, there, moment);
            let now = load.check(sela, life.acknowledged);
            assert!(now >= there, "rows have gone");
            self.count(load, there, &life);
            there = now;
            if life.ended {
                assert_eq!((there, life.acknowledged), (load.items.len(), there));
                return;
            }
            if self.midway == load.midway {
                return load.complete(sela, there);
            }
        }
    }
}

/// Kills loads until there were enough kills midway; `prepare` makes the home of each.
fn kill_loads(load: &Load<'_>, prepare: impl Fn() -> Sela) {
    let mut kills = Kills {
        random: Random(load.name.len() as u64),
        lives: 0,
        killed: 0,
        midway: 0,
        finished: 0,
        spread: Duration::from_millis(40),
        first_commit: Duration::from_millis(50),
    };
    while kills.midway < load.midway {
        kills.of_one(load, &prepare());
    }
    println!(
        "{}: {} kills, {} of them midway, {} loads ended by themselves",
        load.name, kills.killed, kills.midway, kills.finished
    );
}

fn kill_loads_of_vectors(name: &str, midway: usize, rows: usize, commit: &str) {
    const DIM: usize = 8;
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
    let items: Vec<Stored> = (0..rows)
        .map(|row| Stored {
            id: Id::Num(row as u64),
            vector: vector(row, DIM).iter().map(|x| x.to_bits()).collect(),
            text: None,
        })
        .collect();
    let load = Load {
        name,
        index: &index,
        items: &items,
        midway,
    };
    kill_loads(&load, || {
        let sela = Sela::new();
        sela.write_vectors("rows", rows, DIM);
        sela
    });
}

#[test]
fn loads_of_small_commits_survive_kills() {
    kill_loads_of_vectors("small commits", 60, 12_000, "40");
}

#[test]
fn loads_of_segments_survive_kills() {
    kill_loads_of_vectors("segments", 20, 100_000, "8192");
}

#[test]
fn loads_of_texts_survive_kills() {
    const TEXTS: u64 = 400;
    let texts: String = (0..TEXTS).map(|i| format!("text number {i}\n")).collect();
    let prepare = || {
        let sela = Sela::with_model();
        sela.write("texts.txt", &texts);
        sela
    };
    // What a load that nobody disturbs stores, with commits of another size.
    let whole = prepare();
    whole.ok(&["index", "-c", "whole", "-i", "texts.txt"]);
    let engine = Engine::open(Options::new(whole.home.path())).unwrap();
    let ids: Vec<Id> = (1..=TEXTS).map(Id::Num).collect();
    let items = stored(&engine, "whole", &ids).into_iter();
    let items: Vec<Stored> = items.map(Option::unwrap).collect();
    for (item, number) in items.iter().zip(0..) {
        assert_eq!(item.text, Some(format!("text number {number}")));
    }
    let load = Load {
        name: "texts",
        index: &[
            "index",
            "-c",
            "rows",
            "-i",
            "texts.txt",
            "--json",
            "--commit-every",
            "4",
        ],
        items: &items,
        midway: 6,
    };
    kill_loads(&load, prepare);
}
