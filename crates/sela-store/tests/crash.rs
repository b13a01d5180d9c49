//! The store is killed, or the power is cut, after every operation it ever asked of the disk.
//!
//! A short life of a collection is recorded on a simulated disk, with the position in the log at
//! which each write was acknowledged. Then every position is a crash: with everything written so
//! far kept, with only what was synced, with every subset of what was not (where that is more
//! than eight changes: each alone, each missing, and some at random), and with each write torn.
//! From each the collection must open, hold every acknowledged row, show
//! each batch whole or not at all, pass `verify`, and take a further write.

// The counts are printed for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

mod sim;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sela_store::{Collection, Fields, Op};
use sim::history::{Act, FOLDER, Run, State, life, options, row, rows_of, schema, short_life};
use sim::{
    Cut, Depth, Images, Mount, Part, Replay, SimDisk, Tree, fault_of_image, seeds, visit_all,
};

/// Up to so many pending changes, every subset of them is a crash.
const ALL_SUBSETS_MAX: usize = 8;

fn recorded(life: &[Act]) -> Run {
    let mut run = Run::as_production(SimDisk::recording());
    run.all(life);
    run
}

/// The same life with SQLite trusting the disk less than it does in production.
fn recorded_with_distrust(life: &[Act]) -> Run {
    let mut run = Run::new(SimDisk::recording());
    run.all(life);
    run
}

/// Calls `visit` after each operation of a log, and before the first.
fn after_each(log: &[sim::Op], visit: impl Fn(&Replay<'_>) + Sync) {
    visit_all(
        log.len() + 1,
        || Replay::new(Tree::default(), log),
        |replay, at| {
            replay.walk_to(at);
            visit(replay);
        },
    );
}

#[test]
fn killed_or_without_power_after_every_operation() {
    let run = recorded(&life());
    let log = run.disk.log();
    let images = Images::of(&run);
    after_each(&log, |replay| {
        for cut in [Cut::Kill, Cut::Synced] {
            images.check(replay, cut);
        }
    });
    let (left, opened) = images.counts();
    assert_eq!(left, 2 * (log.len() + 1));
    println!(
        "{left} images after each of {} operations, {opened} of them different",
        log.len()
    );
}

/// What is tried of the changes that are pending here.
fn subsets(replay: &Replay<'_>) -> Vec<Cut> {
    let pending = replay.pending();
    let mut cuts: Vec<Cut> = match pending <= ALL_SUBSETS_MAX {
        true => (0..1 << pending).map(Cut::Subset).collect(),
        false => (0..pending)
            .flat_map(|index| [Cut::Only(index), Cut::AllBut(index)])
            .collect(),
    };
    cuts.extend(torn(replay));
    cuts.extend((0..seeds()).map(Cut::Some));
    cuts
}

/// Each write is the newest once, and is then torn everywhere, with all before it kept. Where a
/// sync comes next, those before it are torn as well, each at one place, with all others kept.
fn torn(replay: &Replay<'_>) -> Vec<Cut> {
    let Some(newest) = replay.pending().checked_sub(1) else {
        return Vec::new();
    };
    let halves = |index, at, rest| {
        [Part::Head(at), Part::Tail(at)].map(|part| Cut::Torn { index, part, rest })
    };
    let newest_places = replay.tears(newest).into_iter();
    let mut cuts: Vec<Cut> = newest_places
        .flat_map(|at| halves(newest, at, false))
        .collect();
    let earlier = if replay.is_full() { newest } else { 0 };
    for index in 0..earlier {
        let places = replay.tears(index);
        let place = places.get(index % places.len().max(1));
        cuts.extend(place.into_iter().flat_map(|at| halves(index, *at, true)));
    }
    cuts
}

/// Crashes `run` with every subset that is tried, after each of its operations.
fn crash_with_subsets(name: &str, run: &Run) {
    let log = run.disk.log();
    let images = Images::of(run);
    let all = AtomicUsize::new(0);
    after_each(&log, |replay| {
        let cuts = subsets(replay);
        let whole = replay.pending() <= ALL_SUBSETS_MAX;
        all.fetch_add(usize::from(whole), Ordering::Relaxed);
        cuts.into_iter().for_each(|cut| images.check(replay, cut));
    });
    let ((left, opened), all) = (images.counts(), all.into_inner());
    println!(
        "{name}: {left} images after each of {} operations ({all} with all subsets), {opened} of \
         them different",
        log.len()
    );
    assert!(2 * all > log.len(), "few positions had all their subsets");
}

#[test]
fn unsynced_writes_torn_dropped_and_reordered() {
    crash_with_subsets("as in production", &recorded(&short_life()));
}

#[test]
fn unsynced_writes_of_a_distrustful_sqlite() {
    crash_with_subsets("with distrust", &recorded_with_distrust(&short_life()));
}

#[test]
fn a_second_crash_while_recovering_from_the_first() {
    let run = recorded(&short_life());
    let log = run.disk.log();
    let (firsts, images) = (Images::of(&run), Images::of(&run));
    after_each(&log, |replay| {
        for cut in [Cut::Kill, Cut::Some(1)] {
            if firsts
                .depth_if_new(&replay.image(cut), replay.at())
                .is_some()
            {
                crash_again(&images, replay, cut);
            }
        }
    });
    let ((left, opened), (_, first)) = (images.counts(), firsts.counts());
    println!(
        "{left} images of a second crash after {first} first ones, {opened} of them different"
    );
    assert!(left > 10 * log.len(), "recoveries were recorded");
}

/// Crashes the recovery from one image after each of its operations.
fn crash_again(images: &Images<'_>, replay: &Replay<'_>, cut: Cut) {
    let first = replay.image(cut);
    let disk = SimDisk::recording_from(first.clone());
    let mount = Mount::new(Arc::new(disk.clone()));
    // Before the creation was acknowledged there may be nothing to recover.
    let _ = Collection::open(&mount.path(FOLDER), &options(&disk));
    drop(mount);
    let log = disk.log();
    let mut again = Replay::new(first, &log);
    for second in 0..=log.len() {
        again.walk_to(second);
        for second_cut in [Cut::Kill, Cut::Synced, Cut::Some(second as u64)] {
            if let Some(fault) = images.fault(again.image(second_cut), replay.at()) {
                let (one, two) = (replay.describe(cut), again.describe(second_cut));
                panic!("{fault}\nfirst {one}\n\nsecond {two}");
            }
        }
    }
}

/// The process is killed, another opens the collection and writes, and then the power is cut:
/// what the first one had written without syncing was seen by the second, and may still be lost.
#[test]
fn power_cut_after_a_kill_and_a_reopening() {
    let run = recorded(&short_life());
    let log = run.disk.log();
    let (images, reopened) = (AtomicUsize::new(0), AtomicUsize::new(0));
    after_each(&log, |replay| {
        let cuts = cut_after_kill(&run, &log[..replay.at()]);
        images.fetch_add(cuts, Ordering::Relaxed);
        reopened.fetch_add(usize::from(cuts > 0), Ordering::Relaxed);
    });
    let created = run.states[0].acknowledged.expect("was created");
    let reopened = reopened.into_inner();
    println!(
        "{} images of a power cut after {reopened} kills",
        images.into_inner()
    );
    assert!(
        reopened > log.len() - created,
        "whatever was acknowledged reopens"
    );
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
