//! All cores at work on one enumeration, and the disks it meets opened once each.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::check::{Depth, fault_of_disk, question_of};
use super::disk::SimDisk;
use super::history::Run;
use super::replay::{Cut, Replay};
use super::tree::Tree;

/// An enumeration that takes longer fails: ending it early would prove less than it says.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Calls `visit` for every number below `places`, on all cores. Each core has a walker of its own
/// and visits ascending numbers.
pub(crate) fn visit_all<W>(
    places: usize,
    start: impl Fn() -> W + Sync,
    visit: impl Fn(&mut W, usize) + Sync,
) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
    let (next, visited) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let end = Instant::now() + TIME_MAX;
    let work = || {
        let mut walker = start();
        while Instant::now() < end {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= places {
                break;
            }
            visit(&mut walker, place);
            visited.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let visited = visited.into_inner();
    assert!(
        visited == places,
        "only {visited} of {places} places in {TIME_MAX:?}"
    );
}

/// The disks that crashes of one run left: how many, and which of them were opened already.
pub(crate) struct Images<'a> {
    run: &'a Run,
    left: AtomicUsize,
    opened: Mutex<HashSet<u128>>,
}

impl<'a> Images<'a> {
    pub(crate) fn of(run: &'a Run) -> Images<'a> {
        Images {
            run,
            left: AtomicUsize::new(0),
            opened: Mutex::default(),
        }
    }

    /// How deep to look at a disk that a crash at `at` left; none when it was opened before, with
    /// the same demands on it.
    pub(crate) fn depth_if_new(&self, tree: &Tree, at: usize) -> Option<Depth> {
        self.left.fetch_add(1, Ordering::Relaxed);
        let question = question_of(tree, &self.run.states, &self.run.snapshots, at);
        let new = self
            .opened
            .lock()
            .expect("no panic under it")
            .insert(question);
        new.then_some(Depth {
            reader: question % 4 == 1,
            maintain: question % 16 == 3,
        })
    }

    /// Opens what a crash at the log's position `at` left; what is wrong with it, if anything.
    pub(crate) fn fault(&self, tree: Tree, at: usize) -> Option<String> {
        let depth = self.depth_if_new(&tree, at)?;
        let (states, snapshots) = (&self.run.states, &self.run.snapshots);
        fault_of_disk(&SimDisk::of(tree), states, snapshots, at, depth).err()
    }

    /// Crashes where `replay` is; panics when what is left is not right.
    pub(crate) fn check(&self, replay: &Replay<'_>, cut: Cut) {
        if let Some(fault) = self.fault(replay.image(cut), replay.at()) {
            panic!("{fault}\n{}", replay.describe(cut));
        }
    }

    /// How many there were, and how many of them were opened because they differed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let opened = self.opened.lock().expect("no panic under it").len();
        (self.left.load(Ordering::Relaxed), opened)
    }
}
