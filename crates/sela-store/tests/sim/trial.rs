//! [`Trial`]: one life of a collection with one fault in it, and what must hold afterwards.

use std::collections::BTreeMap;

use sela_store::{Error, Op};

use super::check::{Depth, fault_of_image};
use super::disk::SimDisk;
use super::fault::{Fault, Plan};
use super::history::{Act, Model, Run, State, in_full, row, rows_of};
use super::replay::{Cut, Replay};
use super::tree::Tree;

/// The kinds of errors met, for the summary.
pub(crate) type Tally = BTreeMap<String, usize>;

/// The name of an error's variant, and of the act it came from.
pub(crate) fn kind_of(act: &str, error: &Error) -> String {
    let name = format!("{error:?}");
    let name: String = name
        .chars()
        .take_while(|letter| letter.is_alphanumeric())
        .collect();
    format!("{act}: {name}")
}

pub(crate) fn name_of(act: &Act) -> &'static str {
    match act {
        Act::Write(_) => "write",
        Act::Edit(..) => "edit",
        Act::Bulk(_) => "bulk",
        Act::Seal => "seal",
        Act::Compact => "compact",
        Act::Snapshot(_) => "snapshot",
        Act::Reopen => "open",
    }
}

/// One life with one fault in it.
pub(crate) struct Trial {
    pub(crate) run: Run,
    pub(crate) plan: Plan,
    pub(crate) tally: Tally,
    /// Whether any act failed so far.
    pub(crate) struck: bool,
}

impl Trial {
    pub(crate) fn new(plan: Plan) -> Trial {
        let run = Run::as_production(SimDisk::recording());
        run.disk.set_plan(Some(plan));
        Trial {
            run,
            plan,
            tally: Tally::new(),
            struck: false,
        }
    }

    pub(crate) fn met(&mut self, act: &str, error: &Error) {
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
    pub(crate) fn live(&mut self, acts: &[Act]) -> Result<(), String> {
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
    pub(crate) fn reads_go_on(&self, before: &Model) -> Result<(), String> {
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
    pub(crate) fn forget_failed(&mut self, states: usize) {
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
    pub(crate) fn crash_here(&self, when: &str) -> Result<(), String> {
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
