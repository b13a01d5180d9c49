//! A small pool of threads for fork-join work: one job at a time, the caller takes part.
//!
//! A caller that finds the pool busy does its job alone, on its own thread, instead of waiting:
//! with many callers that is the better schedule, and no result depends on it. A caller who leaves
//! a thread to others waits instead: its members and those of a job of all threads would be more than
//! there are threads, and each barrier would last until the system has let the last of them run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

/// Turns of spinning before a waiting thread goes to sleep: some tens of microseconds, about the
/// price of waking it up again.
const SPINS: u32 = 4_000;

/// The members that a job asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// The caller.
    One,
    /// As many as there are threads.
    All,
    /// One less than there are threads, at least one. Others run alone meanwhile.
    AllButOne,
}

impl Width {
    /// All if it is worth it.
    pub(crate) fn all_if(wide: bool) -> Self {
        if wide { Self::All } else { Self::One }
    }
}

/// What each member of a job is told.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a> {
    /// Number of this member, `0..size`.
    pub(crate) index: usize,
    /// Members in the job.
    pub(crate) size: usize,
    barrier: &'a Barrier,
}

impl Member<'static> {
    /// A job of one.
    pub(crate) fn alone() -> Self {
        static BARRIER: Barrier = Barrier {
            arrived: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
        };
        Self {
            index: 0,
            size: 1,
            barrier: &BARRIER,
        }
    }
}

impl Member<'_> {
    /// Returns when every member of the job has called it.
    pub(crate) fn wait(&self) {
        if self.size > 1 {
            self.barrier.wait(self.size);
        }
    }

    /// This member's share of `0..n` in whole multiples of `unit`.
    pub(crate) fn share(&self, n: usize, unit: usize) -> std::ops::Range<usize> {
        let units = n.div_ceil(unit);
        let at = |i: usize| (units * i / self.size * unit).min(n);
        at(self.index)..at(self.index + 1)
    }
}

/// A spinning barrier: the passes between two barriers take microseconds, less than a sleep.
#[derive(Default)]
struct Barrier {
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicUsize,
}

impl Barrier {
    fn wait(&self, size: usize) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == size {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0u32;
        while self.round.load(Ordering::Acquire) == round {
            assert!(
                self.broken.load(Ordering::Relaxed) == 0,
                "another member of this job has panicked"
            );
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

type Task = dyn Fn(Member<'_>) + Sync;

/// A borrowed task whose lifetime the pool guards: `Pool::run` returns only after every worker
/// has let go of it.
#[derive(Clone, Copy)]
struct TaskPtr(*const Task);

// SAFETY: the task is `Sync`, and the pointer is only followed while `Pool::run` keeps it alive.
unsafe impl Send for TaskPtr {}

#[derive(Default)]
struct Slot {
    task: Option<TaskPtr>,
    /// Members of the job.
    size: usize,
    stop: bool,
    panic: Option<Box<dyn Any + Send>>,
}

#[derive(Default)]
struct Shared {
    slot: Mutex<Slot>,
    wake: Condvar,
    /// Number of the newest job; workers watch it while they spin.
    job: AtomicU64,
    /// Workers that still hold the current job.
    running: AtomicUsize,
    barrier: Barrier,
}

/// Threads that wait for work. Dropping the pool ends them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    busy: Mutex<()>,
    /// Callers that wait for the pool; nobody gets in before them.
    waiting: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool whose jobs have up to `threads` members, the caller counted. A machine that gives
    /// fewer threads gets a smaller pool.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut workers = Vec::new();
        for index in 1..threads.max(1) {
            let shared = Arc::clone(&shared);
            let spawned = std::thread::Builder::new()
                .name(format!("sela-{index}"))
                .spawn(move || work(&shared, index));
            match spawned {
                Ok(handle) => workers.push(handle),
                Err(error) => {
                    tracing::warn!(%error, asked = threads, got = index, "fewer threads than asked for");
                    break;
                }
            }
        }
        Self {
            shared,
            workers,
            busy: Mutex::new(()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Members of a job that has the whole pool.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task` once for each member. A job of all threads runs on the calling one alone when the
    /// pool is busy. A panic of a member is passed on.
    pub(crate) fn run(&self, width: Width, task: impl Fn(Member<'_>) + Sync) {
        let size = self.members(width);
        let busy = match width {
            _ if self.workers.is_empty() => None,
            Width::One => None,
            Width::All => self.take(),
            Width::AllButOne => Some(self.wait()),
        };
        if busy.is_some() && size > 1 {
            self.run_wide(size, &task);
        } else {
            task(Member::alone());
        }
    }

    fn members(&self, width: Width) -> usize {
        match width {
            Width::One => 1,
            Width::All => self.threads(),
            Width::AllButOne => self.workers.len().max(1),
        }
    }

    /// The whole pool, if nobody has it or waits for it. A job that panicked leaves the pool itself
    /// sound.
    fn take(&self) -> Option<MutexGuard<'_, ()>> {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        match self.busy.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The whole pool, when it is free.
    fn wait(&self) -> MutexGuard<'_, ()> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let busy = lock(&self.busy);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        busy
    }

    /// A job of `2..=threads` members.
    fn run_wide(&self, size: usize, task: &(dyn Fn(Member<'_>) + Sync)) {
        let shared = &*self.shared;
        shared.barrier.arrived.store(0, Ordering::Relaxed);
        shared.barrier.broken.store(0, Ordering::Relaxed);
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        {
            let mut slot = lock(&shared.slot);
            // SAFETY: only the lifetime is changed; below we wait until no worker holds it.
            let task = unsafe {
                std::mem::transmute::<*const (dyn Fn(Member<'_>) + Sync), *const Task>(task)
            };
            slot.task = Some(TaskPtr(task));
            slot.size = size;
            shared.job.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        let mine = catch_unwind(AssertUnwindSafe(|| {
            task(Member {
                index: 0,
                size,
                barrier: &shared.barrier,
            });
        }));
        if mine.is_err() {
            shared.barrier.broken.store(1, Ordering::Relaxed);
        }
        let mut spins = 0u32;
        while shared.running.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        let theirs = {
            let mut slot = lock(&shared.slot);
            slot.task = None;
            slot.panic.take()
        };
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.slot).stop = true;
        self.shared.job.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so it ends in order.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    while let Some((task, size)) = next(shared, &mut seen) {
        // SAFETY: the caller of `run_wide` keeps the task alive until `running` is 0.
        let task = unsafe { &*task.0 };
        let done = catch_unwind(AssertUnwindSafe(|| {
            if index < size {
                task(Member {
                    index,
                    size,
                    barrier: &shared.barrier,
                });
            }
        }));
        if let Err(panic) = done {
            shared.barrier.broken.store(1, Ordering::Relaxed);
            lock(&shared.slot).panic = Some(panic);
        }
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for the job after `seen`; `None` when the pool ends.
fn next(shared: &Shared, seen: &mut u64) -> Option<(TaskPtr, usize)> {
    for _ in 0..SPINS {
        if shared.job.load(Ordering::Acquire) != *seen {
            break;
        }
        std::hint::spin_loop();
    }
    let mut slot = lock(&shared.slot);
    loop {
        if slot.stop {
            return None;
        }
        let job = shared.job.load(Ordering::Acquire);
        if job != *seen
            && let Some(task) = slot.task
        {
            *seen = job;
            return Some((task, slot.size));
        }
        slot = shared
            .wake
            .wait(slot)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;
    use std::thread;

    use super::{Pool, Width, lock};

    /// The sizes that a job's members were told, each member once.
    fn sizes(pool: &Pool, width: Width) -> Vec<usize> {
        let told = Mutex::new(Vec::new());
        pool.run(width, |member| {
            member.wait();
            let mut told = lock(&told);
            assert!(member.index < member.size);
            told.push(member.size);
        });
        told.into_inner().unwrap()
    }

    #[test]
    fn a_job_has_the_members_that_it_asks_for() {
        for threads in 1..=4 {
            let pool = Pool::new(threads);
            for _ in 0..3 {
                assert_eq!(sizes(&pool, Width::One), [1]);
                assert_eq!(sizes(&pool, Width::All), vec![threads; threads]);
                let most = (threads - 1).max(1);
                assert_eq!(sizes(&pool, Width::AllButOne), vec![most; most]);
            }
        }
    }

    /// One that leaves a thread to others waits for the pool, and those who come meanwhile run alone.
    #[test]
    fn who_leaves_a_thread_to_others_gets_the_pool_next() {
        let pool = Pool::new(2);
        thread::scope(|scope| {
            let busy = pool.take().unwrap();
            let waits = scope.spawn(|| sizes(&pool, Width::AllButOne));
            while pool.waiting.load(Ordering::Relaxed) == 0 {
                assert!(!waits.is_finished(), "it has not waited");
                thread::yield_now();
            }
            assert_eq!(sizes(&pool, Width::All), [1], "it is busy");
            drop(busy);
            assert_eq!(waits.join().unwrap(), [1]);
        });
        pool.waiting.store(1, Ordering::Relaxed);
        assert_eq!(sizes(&pool, Width::All), [1], "somebody waits");
        pool.waiting.store(0, Ordering::Relaxed);
        assert_eq!(sizes(&pool, Width::All), [2, 2]);
    }
}
