//! Every operation that the store asks of the disk fails once, in every way it can.
//!
//! A life of a collection is lived again and again, each time with another operation failing:
//! nothing panics, an error leaves the contents as they were or poisons the collection, what was
//! acknowledged stays (through a reopening, and through a crash after the failure), and once the
//! fault is gone the work goes on.

// The counts are printed for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

mod sim;

use std::sync::Mutex;

use sela_store::{Collection, Error, Op, Options};
use sim::history::{Act, Run, in_full, options, row, rows_of, short_life};
use sim::trial::{Tally, Trial, kind_of, name_of};
use sim::{Fault, Plan, SimDisk, visit_all};

/// How many operations of a life a fault can meet.
fn operations(fault: Fault) -> u64 {
    let mut run = Run::as_production(SimDisk::recording());
    run.disk.set_plan(Some(Plan {
        fault,
        nth: u64::MAX,
        on: false,
    }));
    run.all(&short_life());
    run.disk.seen()
}

/// What all lives with one kind of fault came to.
#[derive(Default)]
struct Outcome {
    lives: usize,
    /// Lives in which the fault was met.
    struck: usize,
    tally: Tally,
    failures: Vec<String>,
}

/// Lives once for every operation, which then fails.
fn fail_each(fault: Fault, on: bool) {
    let operations = operations(fault) as usize;
    let shared = Mutex::new(Outcome::default());
    visit_all(
        operations,
        || (),
        |(), nth| {
            let nth = nth as u64;
            let plan = Plan { fault, nth, on };
            let mut trial = Trial::new(plan);
            let lived = trial.live(&short_life());
            let mut shared = shared.lock().expect("no panic under it");
            shared.lives += 1;
            shared.struck += usize::from(trial.run.disk.fired_ever() > 0);
            shared
                .failures
                .extend(lived.err().map(|why| format!("{plan:?}: {why}")));
            for (kind, count) in trial.tally {
                *shared.tally.entry(kind).or_default() += count;
            }
        },
    );
    let Outcome {
        lives,
        struck,
        tally,
        failures,
    } = shared.into_inner().expect("no panic under it");
    println!(
        "{fault:?}, on {on}: {lives} lives for {operations} operations, {struck} of them struck; \
         met {tally:?}"
    );
    let first_lines = failures
        .iter()
        .skip(1)
        .filter_map(|failure| failure.lines().next());
    assert!(
        failures.is_empty(),
        "{} lives went wrong, the first so:\n{}\nand others so:\n{}",
        failures.len(),
        failures[0],
        first_lines.take(20).collect::<Vec<_>>().join("\n")
    );
    assert_eq!((lives, struck), (operations, operations));
}

#[test]
fn input_output_errors() {
    fail_each(Fault::Io, false);
}

#[test]
fn a_disk_that_stops_working() {
    fail_each(Fault::Io, true);
}

#[test]
fn no_room_for_one_write() {
    fail_each(Fault::NoSpace { short: false }, false);
}

#[test]
fn no_room_for_half_a_write() {
    fail_each(Fault::NoSpace { short: true }, false);
}

#[test]
fn failing_syncs() {
    fail_each(Fault::Sync, false);
}

#[test]
fn failing_syncs_from_one_on() {
    fail_each(Fault::Sync, true);
}

#[test]
fn failing_reads() {
    fail_each(Fault::Read, false);
}

#[test]
fn a_disk_that_turns_read_only() {
    fail_each(Fault::ReadOnly, true);
}

/// A write needs room the disk does not have; with more room the same collection goes on.
#[test]
fn a_full_disk_recovers_by_itself() {
    let mut refused = 0;
    for spare in (0..60_000).step_by(1_531) {
        let mut run = Run::as_production(SimDisk::recording());
        run.all(&[Act::Write(vec![Op::Upsert(row(1, 1))])]);
        run.disk
            .set_capacity_bytes(Some(run.disk.used_bytes() + spare));
        let mut number = 10;
        let error = loop {
            let batch = Act::Write(
                (number..number + 9)
                    .map(|n| Op::Upsert(row(n, 1)))
                    .collect(),
            );
            let before = run.model();
            let states = run.states.len();
            number += 9;
            let Err(error) = run.act(&batch) else {
                continue;
            };
            run.states.truncate(states);
            let rows =
                rows_of(run.collection()).unwrap_or_else(|error| panic!("{}", in_full(&error)));
            assert_eq!(before.difference(&rows), None, "spare {spare}");
            break (error, batch);
        };
        let (error, batch) = error;
        assert!(
            matches!(error, Error::DiskFull { .. }),
            "spare {spare}: {}",
            in_full(&error)
        );
        assert!(error.hint().is_some());
        refused += 1;
        run.disk.set_capacity_bytes(None);
        for act in [batch, Act::Seal, Act::Compact, Act::Reopen] {
            run.act(&act)
                .unwrap_or_else(|error| panic!("spare {spare}: {}", in_full(&error)));
        }
        let trial = Trial {
            run,
            plan: Plan {
                fault: Fault::Io,
                nth: 0,
                on: false,
            },
            tally: Tally::new(),
            struck: false,
        };
        trial
            .crash_here("after recovery")
            .unwrap_or_else(|fault| panic!("spare {spare}: {fault}"));
    }
    println!("{refused} full disks");
}

/// Every kind of work on a disk with only `spare` bytes left: refused and taken up again.
fn squeezed(spare: u64) -> Tally {
    let plan = Plan {
        fault: Fault::NoSpace { short: true },
        nth: u64::MAX,
        on: false,
    };
    let mut trial = Trial::new(plan);
    trial
        .run
        .create()
        .unwrap_or_else(|error| panic!("{}", in_full(&error)));
    for act in short_life() {
        let before = trial.run.model();
        let states = trial.run.states.len();
        trial
            .run
            .disk
            .set_capacity_bytes(Some(trial.run.disk.used_bytes() + spare));
        let Err(error) = trial.run.act(&act) else {
            continue;
        };
        *trial
            .tally
            .entry(kind_of(name_of(&act), &error))
            .or_default() += 1;
        let checked = match trial.run.collection {
            Some(_) => {
                assert!(
                    matches!(error, Error::DiskFull { .. }),
                    "{spare}: {}",
                    in_full(&error)
                );
                trial.reads_go_on(&before)
            }
            None => Ok(()),
        };
        checked.unwrap_or_else(|fault| panic!("spare {spare}, {}: {fault}", name_of(&act)));
        trial.forget_failed(states);
        trial.run.disk.set_capacity_bytes(None);
        let retry = match act {
            Act::Snapshot(_) => Act::Snapshot("copy-again"),
            other => other,
        };
        trial
            .run
            .act(&retry)
            .unwrap_or_else(|again| panic!("spare {spare}: {}", in_full(&again)));
    }
    trial
        .crash_here("in the end")
        .unwrap_or_else(|fault| panic!("spare {spare}: {fault}"));
    trial.tally
}

#[test]
fn every_kind_of_work_on_a_full_disk() {
    let mut tally = Tally::new();
    for spare in (0..180_000).step_by(4_801) {
        for (kind, count) in squeezed(spare) {
            *tally.entry(kind).or_default() += count;
        }
    }
    println!("met {tally:?}");
    let refused = |act: &str| tally.keys().any(|kind| kind.starts_with(act));
    assert!(
        ["write", "bulk", "seal", "compact"]
            .into_iter()
            .all(refused),
        "{tally:?}"
    );
}

/// On a read-only disk a writer is refused clearly and a reader sees everything.
#[test]
fn a_read_only_disk() {
    let mut run = Run::as_production(SimDisk::recording());
    run.all(&short_life());
    run.collection = None;
    run.disk.set_plan(Some(Plan {
        fault: Fault::ReadOnly,
        nth: 0,
        on: true,
    }));
    let refused = Collection::open(&run.folder(), &options(&run.disk));
    let error = refused.expect_err("the disk is read-only");
    assert!(
        matches!(error, Error::ReadOnly { .. }),
        "{}",
        in_full(&error)
    );
    let options = Options {
        read_only: true,
        ..options(&run.disk)
    };
    let reader = Collection::open(&run.folder(), &options)
        .unwrap_or_else(|error| panic!("{}", in_full(&error)));
    let rows = rows_of(&reader).unwrap_or_else(|error| panic!("{}", in_full(&error)));
    assert_eq!(run.model().difference(&rows), None);
    let refused = reader
        .write(&[Op::Delete(row(1, 1).id)])
        .expect_err("it is a reader");
    assert!(
        matches!(refused, Error::ReadOnly { .. }),
        "{}",
        in_full(&refused)
    );
}
