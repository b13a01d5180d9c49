//! Which operations fail, and how.

use std::io;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A change, or a sync, is answered with an input/output error. A failed sync loses its data.
    Io,
    /// A change that needs room finds none; with `short`, half of a write is done before.
    NoSpace { short: bool },
    /// A sync of a file or folder fails and its data is lost, although reads still see it (the
    /// entries of a folder only where the disk does not spare names).
    Sync,
    /// Something cannot be read.
    Read,
    /// Every change is refused from here on.
    ReadOnly,
}

/// What an operation is, as far as faults care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    /// A change that may need room: writing, growing, naming.
    Grow,
    /// A change that needs none: removing, cutting.
    Shrink,
    Sync,
}

/// The `nth` (from 0) operation that `fault` concerns fails; with `on`, all after it too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    pub(crate) nth: u64,
    pub(crate) on: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    plan: Option<Plan>,
    seen: u64,
    fired: u64,
    fired_before: u64,
}

impl Faults {
    pub(crate) fn set(&mut self, plan: Option<Plan>) {
        *self = Faults {
            plan,
            seen: 0,
            fired: 0,
            fired_before: self.fired_ever(),
        };
    }

    /// How many operations failed by the plan.
    pub(crate) fn fired(&self) -> u64 {
        self.fired
    }

    /// How many operations failed by this plan or an earlier one.
    pub(crate) fn fired_ever(&self) -> u64 {
        self.fired_before + self.fired
    }

    /// How many operations the plan's fault concerned.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// The fault that this operation meets, if any.
    pub(crate) fn meet(&mut self, kind: Kind) -> Option<Fault> {
        let plan = self.plan?;
        if !concerns(plan.fault, kind) {
            return None;
        }
        let index = self.seen;
        self.seen += 1;
        let on = plan.on || plan.fault == Fault::ReadOnly;
        let hit = index == plan.nth || (on && index > plan.nth);
        self.fired += u64::from(hit);
        hit.then_some(plan.fault)
    }
}

fn concerns(fault: Fault, kind: Kind) -> bool {
    match fault {
        Fault::Io => kind != Kind::Read,
        Fault::NoSpace { .. } => kind == Kind::Grow,
        Fault::Sync => kind == Kind::Sync,
        Fault::Read => kind == Kind::Read,
        Fault::ReadOnly => matches!(kind, Kind::Grow | Kind::Shrink),
    }
}

impl Fault {
    pub(crate) fn error(self) -> io::Error {
        match self {
            Fault::Io | Fault::Sync | Fault::Read => {
                io::Error::other("input/output error (simulated)")
            }
            Fault::NoSpace { .. } => io::Error::new(
                io::ErrorKind::StorageFull,
                "no space left on device (simulated)",
            ),
            Fault::ReadOnly => io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "read-only file system (simulated)",
            ),
        }
    }
}
