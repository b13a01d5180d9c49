//! Every operation that the store asks of the disk fails once, in every way it can.
//!
//! A life of a collection is lived again and again, each time with another operation failing:
//! nothing panics, an error leaves the contents as they were or poisons the collection, what was
//! acknowledged stays (through a reopening, and through a crash after the failure), and once the
//! fault is gone the work goes on.

// The counts are printed for whoever runs the tests with `--nocapture`.
#![allow(clippy::print_stdout)]

mod sim;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use sela_store::{Collection, Error, Op, Options};
use sim::history::{Act, Model, Run, State, in_full, options, row, rows_of, short_life};
use sim::{Cut, Depth, Fault, Plan, Replay, SimDisk, Tree, fault_of_image, patience};

/// The kinds of errors met, for the summary.
type Tally = BTreeMap<String, usize>;

/// The name of an error's variant, and of the act it came from.
fn kind_of(act: &str, error: &Error) -> String {
    let name = format!("{error:?}");
    let name: String = name
        .chars()
        .take_while(|letter| letter.is_alphanumeric())
        .collect();
    format!("{act}: {name}")
}

fn name_of(act: &Act) -> &'static str {
    match act {
        Act::Write(_) => "write",
        Act::Bulk(_) => "bulk",
        Act::Seal => "seal",
        Act::Compact => "compact",
        Act::Snapshot(_) => "snapshot",
        Act::Reopen => "open",
    }
}

/// One life with one fault in it.
struct Trial {
    run: Run,
    plan: Plan,
    tally: Tally,
    /// Whether any act failed so far.
    struck: bool,
}

impl Trial {
    fn new(plan: Plan) -> Trial {
        let run = Run::as_production(SimDisk::recording());
        run.disk.set_plan(Some(plan));
        Trial {
            run,
            plan,
            tally: Tally::new(),
            struck: false,
        }
    }

    fn met(&mut self, act: &str, error: &Error) {
        assert!(
            self.run.disk.fired() > 0,
            "{act} failed by itself: {}",
            in_full(error)
        );
        assert!(!error.to_string().is_empty());
        *self.tally.entry(kind_of(act, error)).or_default() += 1;
    }

    /// Lives through all acts; once the fault has struck, the power fails after the act it struck,
    /// after the next one, and in the end.
    fn live(&mut self, acts: &[Act]) -> Result<(), String> {
        self.create()?;
        let mut crashes_left = 2;
        for (at, act) in acts.iter().enumerate() {
            let before = self.run.model();
            let states = self.run.states.len();
            if let Err(error) = self.run.act(act) {
                self.met(name_of(act), &error);
                self.after_failure(act, &error, &before, states)
                    .map_err(|fault| {
                        let (name, error) = (name_of(act), in_full(&error));
                        format!("act {at} ({name}) answered `{error}`; then {fault}")
                    })?;
                self.struck = true;
            }
            if (self.struck || self.run.disk.fired() > 0) && crashes_left > 0 {
                crashes_left -= 1;
                self.crash_here(&format!("after act {at} ({})", name_of(act)))?;
            }
        }
        self.crash_here("in the end")
    }

    /// Creates the collection, a second time if the first fails.
    fn create(&mut self) -> Result<(), String> {
        let Err(error) = self.run.create() else {
            return Ok(());
        };
        self.met("create", &error);
        self.crash_here("after a failed creation")?;
        self.run.disk.set_plan(None);
        match self.run.create() {
            Ok(()) => Ok(()),
            Err(Error::AlreadyExists { .. }) => self
                .run
                .open()
                .map_err(|again| format!("neither created nor opened: {}", in_full(&again))),
            Err(again) => Err(format!(
                "created again: {}\nafter {}",
                in_full(&again),
                in_full(&error)
            )),
        }
    }

    /// The contents are untouched, or the collection is poisoned; then the work goes on.
    fn after_failure(
        &mut self,
        act: &Act,
        error: &Error,
        before: &Model,
        states: usize,
    ) -> Result<(), String> {
        self.crash_here("right after the failure")?;
        let poisoned = match &self.run.collection {
            Some(collection) => {
                let info = collection
                    .info()
                    .map_err(|error| format!("info: {}", in_full(&error)))?;
                info.poisoned.is_some()
            }
            None => false,
        };
        if self.run.collection.is_none() {
            self.stop_failing();
            return self
                .run
                .open()
                .map_err(|error| format!("open: {}", in_full(&error)));
        }
        self.reads_go_on(before)?;
        let sync = self.plan.fault == Fault::Sync && !matches!(act, Act::Snapshot(_));
        if sync && !poisoned {
            return Err("the collection is not poisoned after a failed sync".to_owned());
        }
        if poisoned {
            self.poisoned_until_reopened()?;
        } else {
            self.forget_failed(states);
        }
        self.stop_failing();
        let retry = match act {
            Act::Snapshot(_) => Act::Snapshot("copy-again"),
            other => other.clone(),
        };
        self.run
            .act(&retry)
            .map_err(|again| format!("again `{}` after `{error}`", in_full(&again)))
    }

    /// Reads show what was there before, or that and the segments of a bulk load committed since.
    fn reads_go_on(&self, before: &Model) -> Result<(), String> {
        let model = self
            .run
            .states
            .iter()
            .rfind(|state| state.acknowledged.is_some())
            .map_or(before, |state| &state.model);
        let rows = rows_of(self.run.collection())
            .map_err(|error| format!("reads: {}", in_full(&error)))?;
        match model.difference(&rows) {
            Some(difference) => Err(format!("reads differ: {difference}")),
            None => Ok(()),
        }
    }

    fn poisoned_until_reopened(&mut self) -> Result<(), String> {
        let refused = self.run.collection().write(&[Op::Upsert(row(9_000, 1))]);
        if !matches!(refused, Err(Error::Poisoned { .. })) {
            return Err(format!(
                "a poisoned collection answers a write with {refused:?}"
            ));
        }
        self.stop_failing();
        self.run
            .open()
            .map_err(|error| format!("reopen: {}", in_full(&error)))?;
        let rows = rows_of(self.run.collection()).map_err(|error| in_full(&error))?;
        let open_end = self
            .run
            .states
            .iter()
            .rposition(|state| state.acknowledged.is_some());
        let allowed = &self.run.states[open_end.unwrap_or(0)..];
        let Some(found) = allowed
            .iter()
            .rfind(|state| state.model.difference(&rows).is_none())
        else {
            return Err(format!(
                "the reopened collection shows {} rows, none of the states allowed",
                rows.len()
            ));
        };
        // Both outcomes stay possible until the next acknowledged write.
        let found = State {
            acknowledged: None,
            ..found.clone()
        };
        self.run.states.push(found);
        Ok(())
    }

    /// A write that failed cleanly must not turn up later.
    fn forget_failed(&mut self, states: usize) {
        let tail = self.run.states.split_off(states);
        self.run.states.extend(
            tail.into_iter()
                .filter(|state| state.acknowledged.is_some()),
        );
    }

    fn stop_failing(&self) {
        if self.plan.on || self.plan.fault == Fault::ReadOnly {
            self.run.disk.set_plan(None);
        }
    }

    /// The power fails now: what was acknowledged must be there.
    fn crash_here(&self, when: &str) -> Result<(), String> {
        let log = self.run.disk.log();
        for (seed, cut) in [
            (0, Cut::Kill),
            (0, Cut::Synced),
            (0, Cut::Some(1)),
            (5, Cut::Some(2)),
        ] {
            let mut replay = Replay::new(Tree::default(), &log).seeded(seed);
            replay.walk_to(log.len());
            let (states, snapshots) = (&self.run.states, &self.run.snapshots);
            let fault = fault_of_image(
                replay.image(cut),
                states,
                snapshots,
                log.len(),
                Depth::default(),
            );
            if let Some(fault) = fault {
                return Err(format!("a crash {when}: {fault}\n{}", replay.describe(cut)));
            }
        }
        Ok(())
    }
}

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
    tally: Tally,
    failures: Vec<String>,
}

/// Lives once for every operation, or for as many evenly spread ones as patience allows (which
/// is all of them on a machine with nothing else to do).
fn fail_each(fault: Fault, on: bool) {
    let operations = operations(fault);
    let shared = Mutex::new(Outcome::default());
    let end = Instant::now() + patience(12);
    // A step that is coprime to the count visits each operation once, evenly from the start.
    let step = (operations * 5 / 8..)
        .find(|step| gcd(*step, operations) == 1)
        .unwrap_or(1);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8)) as u64;
    std::thread::scope(|scope| {
        for core in 0..cores {
            let shared = &shared;
            scope.spawn(move || {
                let visits = (core..operations).step_by(cores as usize);
                for visit in visits.take_while(|_| Instant::now() < end) {
                    let plan = Plan {
                        fault,
                        nth: visit * step % operations,
                        on,
                    };
                    let mut trial = Trial::new(plan);
                    let lived = trial.live(&short_life());
                    let mut shared = shared.lock().expect("no panic under it");
                    shared.lives += 1;
                    shared
                        .failures
                        .extend(lived.err().map(|why| format!("{plan:?}: {why}")));
                    for (kind, count) in trial.tally {
                        *shared.tally.entry(kind).or_default() += count;
                    }
                }
            });
        }
    });
    let Outcome {
        lives,
        tally,
        failures,
    } = shared.into_inner().expect("no panic under it");
    println!("{fault:?}, on {on}: {lives} lives for {operations} operations; met {tally:?}");
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
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
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
