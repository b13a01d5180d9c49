//! A lane's thread: it takes what waits, encodes it, and wakes who waits for it.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Waker;
use std::time::Instant;

use sela_encoder::Share;

use super::queue::{Picked, Queues};
use super::request::{Ended, Request, Text};
use super::{EmbedOptions, Lane, QueueOptions, RETRY_MAX, RETRY_MIN, Works};
use crate::engine::lock;
use crate::error::{Error, Result};
use crate::histogram::Histogram;
use crate::stats::LaneStats;

/// What callers, tickets and the lanes' threads share.
pub(super) struct Shared<W: Works> {
    pub(super) works: Arc<W>,
    options: QueueOptions,
    queues: Mutex<Queues<W::Text>>,
    wake: [Condvar; 2],
    counts: [Counts; 2],
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    refused: AtomicU64,
    cancelled: AtomicU64,
    expired: AtomicU64,
    failed: AtomicU64,
    texts: AtomicU64,
    batch_tokens: Histogram,
    batch_requests: Histogram,
    took: Histogram,
    held: Histogram,
}

/// A batch under way.
struct Flying<W: Works> {
    flight: W::Flight,
    /// Whose the texts are: the request's place in `requests`, the text's in its request.
    owners: Vec<(usize, usize)>,
    requests: Vec<Arc<Request<W::Text>>>,
    tokens: usize,
    began: Instant,
}

/// What is to become a batch.
struct Picks<T> {
    texts: Vec<Picked<T>>,
    /// Tokens that it may have.
    budget: usize,
    share: Share,
}

/// What the thread does next.
enum Next<T> {
    Start(Picks<T>),
    /// Nothing can be started before a batch has ended.
    Finish,
    Stop,
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl<W: Works> Shared<W> {
    pub(super) fn new(works: Arc<W>, options: QueueOptions) -> Self {
        Self {
            works,
            options,
            queues: Mutex::default(),
            wake: Default::default(),
            counts: Default::default(),
        }
    }

    fn counts(&self, lane: Lane) -> &Counts {
        &self.counts[lane as usize]
    }

    /// Refuses, before any work, a request that there is no room or no time for.
    pub(super) fn admit(&self, options: &EmbedOptions, texts: usize, bytes: usize) -> Result<()> {
        let QueueOptions {
            texts_max,
            bytes_max,
        } = self.options;
        for (what, value, limit) in [
            ("texts", texts, texts_max),
            ("bytes of text", bytes, bytes_max),
        ] {
            if value > limit {
                return Err(Error::RequestTooLarge { what, value, limit });
            }
        }
        if options.deadline.is_some_and(|at| at <= Instant::now()) {
            add(&self.counts(options.lane).expired);
            return Err(Error::Deadline {
                waited: std::time::Duration::ZERO,
            });
        }
        self.room(&mut lock(&self.queues), options.lane, texts, bytes)
    }

    fn room(
        &self,
        queues: &mut Queues<W::Text>,
        lane: Lane,
        texts: usize,
        bytes: usize,
    ) -> Result<()> {
        let queue = queues.lane(lane);
        let (most, bytes_max) = (self.options.texts_max, self.options.bytes_max);
        let (what, queued, limit) = if queue.texts + texts > most {
            ("texts", queue.texts, most)
        } else if queue.bytes + bytes > bytes_max {
            ("bytes of text", queue.bytes, bytes_max)
        } else {
            return Ok(());
        };
        add(&self.counts(lane).refused);
        let time = queue.pace.time_of(queue.bytes).unwrap_or(RETRY_MIN);
        Err(Error::Busy {
            what,
            queued,
            limit,
            retry_after: time.clamp(RETRY_MIN, RETRY_MAX),
        })
    }

    /// Puts a request into its lane.
    pub(super) fn push(&self, request: &Arc<Request<W::Text>>) -> Result<()> {
        let lane = request.lane;
        let (texts, bytes) = {
            let state = request.state();
            (state.waiting.len(), state.bytes)
        };
        let mut queues = lock(&self.queues);
        self.room(&mut queues, lane, texts, bytes)?;
        let now = Instant::now();
        queues.see(lane, now);
        let queue = queues.lane(lane);
        queue.push(request, now);
        let wake = std::mem::take(&mut queue.asleep);
        drop(queues);
        add(&self.counts(lane).requests);
        if wake {
            self.wake[lane as usize].notify_one();
        }
        Ok(())
    }

    pub(super) fn see_interactive(&self) {
        lock(&self.queues).see(Lane::Interactive, Instant::now());
    }

    /// Nobody waits for a request any more.
    pub(super) fn cancel(&self, request: &Request<W::Text>) {
        let mut queues = lock(&self.queues);
        if self.end(&mut queues, request, None).is_some() {
            add(&self.counts(request.lane).cancelled);
        }
    }

    /// Ends a request that is still open. The waker is to be woken without the lock.
    fn end(
        &self,
        queues: &mut Queues<W::Text>,
        request: &Request<W::Text>,
        error: Option<Error>,
    ) -> Option<Option<Waker>> {
        let (ended, queued) = {
            let mut state = request.state();
            let queued = state.queued;
            (state.end(error.map(Err)), queued)
        };
        queues.lane(request.lane).release(&ended, queued);
        match ended {
            Ended::No => None,
            Ended::Now { waker, .. } => Some(waker),
        }
    }

    /// Fails requests, each with an error of its own.
    fn fail<'a>(
        &self,
        requests: impl IntoIterator<Item = &'a Arc<Request<W::Text>>>,
        error: impl Fn(&Request<W::Text>) -> Error,
    ) {
        let mut wakers = Vec::new();
        let mut queues = lock(&self.queues);
        for request in requests {
            if let Some(waker) = self.end(&mut queues, request, Some(error(request))) {
                add(&self.counts(request.lane).failed);
                wakers.extend(waker);
            }
        }
        drop(queues);
        wake(wakers);
    }

    /// Ends the threads; what was not begun fails.
    pub(super) fn stop(&self) {
        lock(&self.queues).stop = true;
        for wake in &self.wake {
            wake.notify_all();
        }
    }

    pub(super) fn stats(&self, lane: Lane) -> LaneStats {
        let counts = self.counts(lane);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut queues = lock(&self.queues);
        let queue = queues.lane(lane);
        let open = queue.requests.iter().filter(|r| r.state().open);
        let oldest = open.map(|request| request.since).min();
        LaneStats {
            lane,
            queued_texts: queue.texts as u64,
            queued_bytes: queue.bytes as u64,
            running: queue.running as u64,
            oldest: oldest.map_or_else(Default::default, |since| since.elapsed()),
            requests: read(&counts.requests),
            refused: read(&counts.refused),
            cancelled: read(&counts.cancelled),
            expired: read(&counts.expired),
            failed: read(&counts.failed),
            texts: read(&counts.texts),
            batch_tokens: counts.batch_tokens.sizes(),
            batch_requests: counts.batch_requests.sizes(),
            held: counts.held.times(),
            took: counts.took.times(),
        }
    }

    /// What the lane's thread does next; waits for it unless batches are under way.
    fn next(&self, lane: Lane, flying: usize) -> Next<W::Text> {
        let mut queues = lock(&self.queues);
        loop {
            if queues.stop {
                return Next::Stop;
            }
            let now = Instant::now();
            let late = queues.lane(lane).expired(now);
            if !late.is_empty() {
                drop(queues);
                self.expire(&late);
                queues = lock(&self.queues);
                continue;
            }
            let depth = queues.depth(lane, self.works.flights_max(), now);
            if flying >= depth {
                return Next::Finish;
            }
            let mut until = None;
            if queues.lane(lane).texts > 0 {
                until = queues.stands_back(lane, now);
                if until.is_none() {
                    let budget = queues.budget(lane, depth, now);
                    let budget = budget.min(self.works.tokens_max());
                    let share = queues.share(lane, now);
                    let queue = queues.lane(lane);
                    queue.running += 1;
                    return Next::Start(Picks {
                        texts: queue.pick::<W>(budget),
                        budget,
                        share,
                    });
                }
            }
            if flying > 0 {
                return Next::Finish;
            }
            let queue = queues.lane(lane);
            let until = [until, queue.due()].into_iter().flatten().min();
            queue.asleep = true;
            let wake = &self.wake[lane as usize];
            queues = match until {
                None => wake.wait(queues).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let time = until.saturating_duration_since(now);
                    let waited = wake.wait_timeout(queues, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            queues.lane(lane).asleep = false;
        }
    }

    fn expire(&self, late: &[Arc<Request<W::Text>>]) {
        for request in late {
            add(&self.counts(request.lane).expired);
        }
        self.fail(late, Request::late);
    }

    /// Starts a batch; `None` when nothing is left of it.
    fn start(&self, lane: Lane, picks: Picks<W::Text>) -> Option<Flying<W>> {
        let Picks {
            texts: picked,
            budget,
            share,
        } = picks;
        let requests: Vec<_> = picked.iter().map(|p| p.request.clone()).collect();
        let started = catch_unwind(AssertUnwindSafe(|| {
            let (owners, texts, tokens) = self.make_ready(lane, picked, budget);
            if texts.is_empty() {
                return None;
            }
            let began = Instant::now();
            Some((self.works.start(texts, share), owners, tokens, began))
        }));
        let started = started.unwrap_or_else(|panic| {
            self.panicked(&requests, &panic);
            None
        });
        let Some((flight, owners, tokens, began)) = started else {
            self.ran(lane, 0, None);
            return None;
        };
        Some(Flying {
            flight,
            owners,
            requests,
            tokens,
            began,
        })
    }

    /// The tokens of what was picked. Texts beyond the budget go back; a request with a text that
    /// has none fails.
    fn make_ready(
        &self,
        lane: Lane,
        picked: Vec<Picked<W::Text>>,
        budget: usize,
    ) -> (Vec<(usize, usize)>, Vec<W::Text>, usize) {
        // What was picked by an estimate may be a little over.
        let most = (budget + budget / 4).min(self.works.tokens_max());
        let (mut owners, mut texts, mut tokens) = (Vec::new(), Vec::new(), 0);
        let mut back = Vec::new();
        for (place, mut one) in picked.into_iter().enumerate() {
            if let Err(error) = self.tokenize(lane, &mut one) {
                let error = std::cell::Cell::new(Some(error));
                self.fail([&one.request], |_| error.take().unwrap_or(Error::Closed));
                continue;
            }
            let mut over = Vec::new();
            for waiting in one.texts {
                let Text::Tokens(text) = &waiting.text else {
                    continue;
                };
                let more = W::tokens(text);
                if !over.is_empty() || (tokens + more > most && !texts.is_empty()) {
                    over.push(waiting);
                    continue;
                }
                tokens += more;
                owners.push((place, waiting.index));
                if let Text::Tokens(text) = waiting.text {
                    texts.push(text);
                }
            }
            if !over.is_empty() {
                back.push(Picked {
                    request: one.request,
                    texts: over,
                });
            }
        }
        if !back.is_empty() {
            let mut queues = lock(&self.queues);
            for picked in back.into_iter().rev() {
                queues.lane(lane).put_back(picked);
            }
        }
        (owners, texts, tokens)
    }

    /// Tokenises the texts that are not yet.
    fn tokenize(&self, lane: Lane, picked: &mut Picked<W::Text>) -> Result<()> {
        let (mut raw, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
        for waiting in &mut picked.texts {
            if let Text::Raw(text) = &mut waiting.text {
                raw.push(std::mem::take(text));
                places.push(waiting.index);
                bytes += waiting.bytes;
            }
        }
        if raw.is_empty() {
            return Ok(());
        }
        let prompt = picked.request.prompt.as_deref();
        let tokenized = self.works.tokenize(prompt, &raw);
        let made = tokenized.map_err(|error| error.of_text(|i| places[i]))?;
        let tokens = made.iter().map(W::tokens).sum();
        lock(&self.queues).lane(lane).pace.tokenized(bytes, tokens);
        let mut made = made.into_iter();
        for waiting in &mut picked.texts {
            if let Text::Raw(_) = waiting.text
                && let Some(text) = made.next()
            {
                waiting.text = Text::Tokens(text);
            }
        }
        Ok(())
    }

    /// Waits for a batch and hands its vectors out. `free` is since when the device had nothing
    /// else to do.
    fn finish(&self, lane: Lane, flying: Flying<W>, free: Instant) {
        let Flying {
            flight,
            owners,
            requests,
            tokens,
            began,
        } = flying;
        let mut ended: Vec<(usize, Ended)> = Vec::new();
        let (mut done, mut failed) = (0, 0);
        let finished = catch_unwind(AssertUnwindSafe(|| {
            self.works.finish(flight, &mut |i, found| {
                let (place, index) = owners[i];
                let mut state = requests[place].state();
                let over = match found {
                    Ok((vector, info)) => {
                        done += 1;
                        state.put(index, vector, info)
                    }
                    Err(error) => {
                        failed += u64::from(state.open);
                        state.end(Some(Err(error.of_text(|_| index))))
                    }
                };
                if let Ended::Now { .. } = over {
                    ended.push((place, over));
                }
            })
        }));
        let now = Instant::now();
        let took = now.saturating_duration_since(began.max(free));
        let counts = self.counts(lane);
        counts.texts.fetch_add(done, Ordering::Relaxed);
        counts.failed.fetch_add(failed, Ordering::Relaxed);
        counts.batch_tokens.add(tokens as u64);
        counts.batch_requests.add(requests.len() as u64);
        counts.held.add_time(took);
        for (place, _) in &ended {
            let since = requests[*place].since;
            counts.took.add_time(now.saturating_duration_since(since));
        }
        let whole = matches!(finished, Ok(Ok(())));
        let mut wakers = Vec::new();
        {
            let mut queues = lock(&self.queues);
            for (place, over) in ended {
                let queued = requests[place].state().queued;
                queues.lane(lane).release(&over, queued);
                if let Ended::Now { waker, .. } = over {
                    wakers.extend(waker);
                }
            }
        }
        self.ran(lane, tokens, whole.then_some((took, now)));
        wake(wakers);
        match finished {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let source = Arc::new(error);
                self.fail(&requests, |_| Error::Batch {
                    source: Arc::clone(&source),
                });
            }
            Err(panic) => self.panicked(&requests, &panic),
        }
    }

    /// A batch is over; if it went well, with how long it took and when.
    fn ran(&self, lane: Lane, tokens: usize, took: Option<(std::time::Duration, Instant)>) {
        let mut queues = lock(&self.queues);
        let now = took.map_or_else(Instant::now, |(_, now)| now);
        queues.see(lane, now);
        let queue = queues.lane(lane);
        queue.ran(now);
        if let Some((took, _)) = took {
            queue.pace.ran(tokens, took);
        }
        let idle = queue.texts == 0 && queue.running == 0;
        let bulk = queues.lane(Lane::Bulk);
        let wake = lane == Lane::Interactive && idle && bulk.texts > 0 && bulk.asleep;
        if wake {
            bulk.asleep = false;
        }
        drop(queues);
        if wake {
            self.wake[Lane::Bulk as usize].notify_one();
        }
    }

    fn panicked(&self, requests: &[Arc<Request<W::Text>>], panic: &Box<dyn Any + Send>) {
        let said = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        let reason = said.unwrap_or_else(|| "it did not say why".to_owned());
        tracing::error!(%reason, requests = requests.len(), "a batch has panicked");
        self.fail(requests, |_| Error::Panicked {
            reason: reason.clone(),
        });
    }
}

/// Wakes those who wait; what they do then is their own affair.
fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
            tracing::error!("who was woken has panicked");
        }
    }
}

/// The work of a lane's thread, until the scheduler is dropped.
pub(super) fn run<W: Works>(shared: &Shared<W>, lane: Lane) {
    let mut flying: VecDeque<Flying<W>> = VecDeque::new();
    let mut free = Instant::now();
    loop {
        match shared.next(lane, flying.len()) {
            Next::Start(picks) => flying.extend(shared.start(lane, picks)),
            Next::Finish => {
                if let Some(oldest) = flying.pop_front() {
                    shared.finish(lane, oldest, free);
                    free = Instant::now();
                }
            }
            Next::Stop => break,
        }
    }
    // What was begun is brought to its end.
    for oldest in flying {
        shared.finish(lane, oldest, free);
        free = Instant::now();
    }
    let left: Vec<_> = lock(&shared.queues).lane(lane).requests.drain(..).collect();
    shared.fail(&left, |_| Error::Closed);
}
