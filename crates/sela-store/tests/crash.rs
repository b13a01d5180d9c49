//! The store is killed, or the power is cut, after every operation it ever asked of the disk.
//!
//! A short life of a collection is recorded on a simulated disk, with the position in the log at
//! which each write was acknowledged. Then every position is a crash: with everything written so
//! far kept, with only what was synced, and with many subsets of what was not (whole, torn at
//! sectors, out of order). From each the collection must open, hold every acknowledged row, show
//! each batch whole or not at all, pass `verify`, and take a further write.

// The counts are printed for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

mod sim;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sela_store::{Collection, Fields, Op};
use sim::history::{FOLDER, Run, State, life, options, row, rows_of, schema};
use sim::{Cut, Depth, Mount, Replay, SimDisk, Tree, fault_of_disk, fault_of_image, patience};

/// Positions are visited in this many rounds, so that a short run still covers them evenly.
const ROUNDS: usize = 16;

fn recorded() -> Run {
    let mut run = Run::as_production(SimDisk::recording());
    run.all(&life());
    run
}

/// The same life with SQLite trusting the disk less than it does in production.
fn recorded_with_distrust() -> Run {
    let mut run = Run::new(SimDisk::recording());
    run.all(&life());
    run
}

/// Runs `work` on every core, each with its own number.
fn on_all_cores(work: impl Fn(usize, usize) + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn({
                    let work = &work;
                    move || work(core, cores)
                })
            })
            .collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

fn check(run: &Run, replay: &Replay<'_>, cut: Cut, depth: Depth) {
    let (at, states, snapshots) = (replay.at(), &run.states, &run.snapshots);
    if let Some(fault) = fault_of_image(replay.image(cut), states, snapshots, at, depth) {
        panic!("{fault}\n{}", replay.describe(cut));
    }
}

fn depth_at(at: usize) -> Depth {
    Depth {
        reader: at % 4 == 1,
        maintain: at % 16 == 3,
    }
}

/// The subsets of what is pending that are tried in one round.
fn subsets(pending: usize, round: usize) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = (0..4)
        .map(|seed| Cut::Some((round * 4 + seed) as u64))
        .collect();
    if pending <= 6 {
        cuts.extend((0..pending).flat_map(|index| [Cut::Only(index), Cut::AllBut(index)]));
    }
    cuts
}

#[test]
fn killed_or_without_power_after_every_operation() {
    let run = recorded();
    let log = run.disk.log();
    let images = AtomicUsize::new(0);
    on_all_cores(|core, cores| {
        let mut replay = Replay::new(Tree::default(), &log);
        for at in (core..=log.len()).step_by(cores) {
            replay.walk_to(at);
            for cut in [Cut::Kill, Cut::Synced] {
                check(&run, &replay, cut, depth_at(at));
                images.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    println!(
        "{} images after each of {} operations",
        images.into_inner(),
        log.len()
    );
}

#[test]
fn unsynced_writes_torn_dropped_and_reordered() {
    let runs = [recorded(), recorded_with_distrust()];
    let logs = [runs[0].disk.log(), runs[1].disk.log()];
    let images = AtomicUsize::new(0);
    let end = Instant::now() + patience(30);
    on_all_cores(|core, cores| {
        for turn in (core..2 * ROUNDS).step_by(cores) {
            let (which, round) = (turn % 2, turn / 2);
            let (run, log) = (&runs[which], &logs[which]);
            // Rounds in an order that keeps what was visited evenly spread.
            let first = (round * 7) % ROUNDS;
            let mut replay = Replay::new(Tree::default(), log);
            for at in (first..=log.len()).step_by(ROUNDS) {
                replay.walk_to(at);
                for cut in subsets(replay.pending(), round) {
                    if Instant::now() > end {
                        return;
                    }
                    check(run, &replay, cut, depth_at(at));
                    images.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    let operations = logs[0].len() + logs[1].len();
    println!(
        "{} subsets of what {operations} operations left pending",
        images.into_inner()
    );
}

#[test]
fn a_second_crash_while_recovering_from_the_first() {
    let run = recorded();
    let log = run.disk.log();
    let images = AtomicUsize::new(0);
    let end = Instant::now() + patience(15);
    on_all_cores(|core, cores| {
        let mut replay = Replay::new(Tree::default(), &log);
        for at in (core * 37..=log.len()).step_by(37 * cores) {
            replay.walk_to(at);
            for cut in [Cut::Kill, Cut::Some(1), Cut::Some(2)] {
                if Instant::now() < end {
                    images.fetch_add(crash_again(&run, &replay, cut), Ordering::Relaxed);
                }
            }
        }
    });
    println!("{} images of a second crash", images.into_inner());
}

/// Crashes the recovery from one image at evenly spread points; answers with their number.
fn crash_again(run: &Run, replay: &Replay<'_>, cut: Cut) -> usize {
    let first = replay.image(cut);
    let at = replay.at();
    let disk = SimDisk::recording_from(first.clone());
    let mount = Mount::new(Arc::new(disk.clone()));
    let recovered = Collection::open(&mount.path(FOLDER), &options(&disk)).is_ok();
    drop(mount);
    if !recovered {
        return 0;
    }
    let log = disk.log();
    let mut again = Replay::new(first, &log);
    let mut images = 0;
    for second in (0..=log.len()).step_by((log.len() / 12).max(1)) {
        again.walk_to(second);
        for second_cut in [Cut::Kill, Cut::Synced, Cut::Some(second as u64)] {
            images += 1;
            let disk = SimDisk::of(again.image(second_cut));
            let checked = fault_of_disk(&disk, &run.states, &run.snapshots, at, Depth::default());
            if let Err(fault) = checked {
                let (one, two) = (replay.describe(cut), again.describe(second_cut));
                panic!("{fault}\nfirst {one}\n\nsecond {two}");
            }
        }
    }
    images
}

/// The process is killed, another opens the collection and writes, and then the power is cut:
/// what the first one had written without syncing was seen by the second, and may still be lost.
#[test]
fn power_cut_after_a_kill_and_a_reopening() {
    let run = recorded();
    let log = run.disk.log();
    let images = AtomicUsize::new(0);
    let end = Instant::now() + patience(15);
    on_all_cores(|core, cores| {
        for round in (core..ROUNDS).step_by(cores) {
            for at in ((round * 7) % ROUNDS..=log.len()).step_by(ROUNDS) {
                if Instant::now() < end {
                    images.fetch_add(cut_after_kill(&run, &log[..at]), Ordering::Relaxed);
                }
            }
        }
    });
    println!("{} images of a power cut after a kill", images.into_inner());
}

/// Reopens after a kill at the end of `log`, then cuts the power after that and after a write.
fn cut_after_kill(run: &Run, log: &[sim::Op]) -> usize {
    let Some((log_after, opened, states)) = write_after_kill(run, log) else {
        return 0;
    };
    let mut replay = Replay::new(Tree::default(), &log_after);
    let mut images = 0;
    for at in [opened, log_after.len()] {
        replay.walk_to(at);
        for cut in [Cut::Synced, Cut::Since(log.len()), Cut::Some(1)] {
            images += 1;
            let fault = fault_of_image(replay.image(cut), &states, &[], at, Depth::default());
            if let Some(fault) = fault {
                panic!(
                    "killed after {}: {fault}\n{}",
                    log.len(),
                    replay.describe(cut)
                );
            }
        }
    }
    images
}

/// Opens what a kill at the end of `log` left and writes a row: the whole log, its length after
/// the opening, and the states then allowed. None before the collection was created.
fn write_after_kill(run: &Run, log: &[sim::Op]) -> Option<(Vec<sim::Op>, usize, Vec<State>)> {
    let disk = SimDisk::continuing(log);
    let mount = Mount::new(Arc::new(disk.clone()));
    let collection = Collection::open(&mount.path(FOLDER), &options(&disk)).ok()?;
    let opened = disk.log_len();
    let happened = |position: &usize| *position <= log.len();
    let begun = run
        .states
        .iter()
        .filter(|state| happened(&state.begun))
        .cloned();
    let mut states: Vec<State> = begun
        .map(|state| State {
            acknowledged: state.acknowledged.filter(happened),
            ..state
        })
        .collect();
    let found = rows_of(&collection).expect("reads");
    let shown = states
        .iter()
        .rfind(|state| state.model.difference(&found).is_none());
    let mut model = shown.expect("shows an allowed state").model.clone();
    let op = Op::Upsert(row(8_888, 1));
    collection.write(std::slice::from_ref(&op)).expect("writes");
    model.apply(&op);
    states.push(State {
        what: "the write after the kill".to_owned(),
        begun: opened,
        acknowledged: Some(disk.log_len()),
        model,
    });
    drop(collection);
    Some((disk.log(), opened, states))
}

/// A batch of one of several writers at once.
struct Batch {
    begun: usize,
    acknowledged: usize,
    rows: Vec<sela_store::Row>,
}

fn batches_of_writers(disk: &SimDisk, mount: &Mount) -> Vec<Batch> {
    let collection =
        Collection::create(&mount.path(FOLDER), &schema(), &options(disk)).expect("creates");
    let write = |writer: u64, turn: u64| {
        let first = writer * 1_000 + turn * 10;
        let rows: Vec<_> = (first..first + 3).map(|number| row(number, 1)).collect();
        let ops: Vec<_> = rows.iter().cloned().map(Op::Upsert).collect();
        let begun = disk.log_len();
        collection.write(&ops).expect("writes");
        Batch {
            begun,
            acknowledged: disk.log_len(),
            rows,
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (1..=4)
            .map(|writer| scope.spawn(move || (0..8).map(|turn| write(writer, turn)).collect()))
            .collect();
        let batches = writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"));
        batches
            .collect::<Vec<Vec<Batch>>>()
            .into_iter()
            .flatten()
            .collect()
    })
}

#[test]
fn writers_that_share_a_sync_lose_nothing_acknowledged() {
    let disk = SimDisk::recording();
    let mount = Mount::new(Arc::new(disk.clone()));
    let batches = batches_of_writers(&disk, &mount);
    let log = disk.log();
    let start = batches
        .iter()
        .map(|batch| batch.begun)
        .min()
        .expect("there are some");
    let mut replay = Replay::new(Tree::default(), &log);
    let mut images = 0;
    for at in start..=log.len() {
        replay.walk_to(at);
        for cut in [Cut::Kill, Cut::Synced, Cut::Some(1), Cut::Some(2)] {
            images += 1;
            let disk = SimDisk::of(replay.image(cut));
            let mount = Mount::new(Arc::new(disk.clone()));
            let collection = Collection::open(&mount.path(FOLDER), &options(&disk)).expect("opens");
            for batch in &batches {
                let ids: Vec<_> = batch.rows.iter().map(|row| row.id.clone()).collect();
                let got = collection.get(&ids, Fields::ALL).expect("gets");
                let whole = got
                    .iter()
                    .zip(&batch.rows)
                    .all(|(got, row)| got.as_ref() == Some(row));
                let none = got.iter().all(Option::is_none);
                let right = if batch.acknowledged <= at {
                    whole
                } else {
                    whole || none
                };
                let early = whole && batch.begun > at;
                assert!(right && !early, "{got:?}\n{}", replay.describe(cut));
            }
        }
    }
    println!(
        "{images} images of four writers at once, {} operations",
        log.len()
    );
}
