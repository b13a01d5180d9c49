//! What waits in the lanes, and which texts make up the next batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sela_encoder::Share;

use super::pace::Pace;
use super::request::{Ended, Request, Waiting};
use super::{Lane, Works};

/// Longest that a bulk batch may hold the device while interactive requests come in.
const HOLD: Duration = Duration::from_millis(5);
/// How long after an interactive request more of them are expected.
const LATELY: Duration = Duration::from_secs(1);
/// Length of a bulk batch when nobody else is there, and the tokens that it may have however long
/// they take: below these, threads share the work of a text badly.
const BULK_ALONE: Duration = Duration::from_millis(100);
const BULK_TOKENS: usize = 2048;
/// Length of an interactive batch, and the tokens that it may have however long they take: less
/// would only cost, as who waits behind it is served later.
const INTERACTIVE: Duration = Duration::from_millis(20);
const INTERACTIVE_TOKENS: usize = 1024;
/// How long bulk stands back for interactive work.
const AGE: Duration = Duration::from_millis(50);

/// Both lanes.
pub(super) struct Queues<T> {
    lanes: [Queue<T>; 2],
    pub(super) stop: bool,
    /// When an interactive request was last there.
    seen: Option<Instant>,
}

/// The requests of a lane.
pub(super) struct Queue<T> {
    pub(super) requests: VecDeque<Arc<Request<T>>>,
    /// Texts and bytes that wait.
    pub(super) texts: usize,
    pub(super) bytes: usize,
    /// Batches under way.
    pub(super) running: usize,
    /// Whether the lane's thread waits to be woken.
    pub(super) asleep: bool,
    pub(super) pace: Pace,
    /// Since when there is work and none of it was begun.
    waits: Instant,
    /// Requests that ended while they were queued, about; they are passed over.
    ended: usize,
    /// The earliest deadline, or one that was earlier.
    due: Option<Instant>,
}

/// Texts of a request for a batch.
pub(super) struct Picked<T> {
    pub(super) request: Arc<Request<T>>,
    pub(super) texts: Vec<Waiting<T>>,
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        let queue = |_| Queue {
            requests: VecDeque::new(),
            texts: 0,
            bytes: 0,
            running: 0,
            asleep: false,
            pace: Pace::default(),
            waits: Instant::now(),
            ended: 0,
            due: None,
        };
        Self {
            lanes: [(); 2].map(queue),
            stop: false,
            seen: None,
        }
    }
}

impl<T> Queues<T> {
    pub(super) fn lane(&mut self, lane: Lane) -> &mut Queue<T> {
        &mut self.lanes[lane as usize]
    }

    /// Notes a request's coming or an interactive batch's end.
    pub(super) fn see(&mut self, lane: Lane, now: Instant) {
        if lane == Lane::Interactive {
            self.seen = Some(now);
        }
    }

    fn lately(&self, now: Instant) -> bool {
        self.seen
            .is_some_and(|seen| now.saturating_duration_since(seen) < LATELY)
    }

    /// Batches that the lane may have under way.
    pub(super) fn depth(&self, lane: Lane, most: usize, now: Instant) -> usize {
        if lane == Lane::Bulk && self.lately(now) {
            return most.min(2);
        }
        most
    }

    /// Tokens of the lane's next batch.
    pub(super) fn budget(&self, lane: Lane, depth: usize, now: Instant) -> usize {
        let pace = &self.lanes[lane as usize].pace;
        match lane {
            Lane::Interactive => pace.tokens_in(INTERACTIVE).max(INTERACTIVE_TOKENS),
            // Batches under way hold the device together.
            Lane::Bulk if self.lately(now) => pace.tokens_in(HOLD / depth as u32).max(1),
            Lane::Bulk => pace.tokens_in(BULK_ALONE).max(BULK_TOKENS),
        }
    }

    /// How much of the device the lane's next batch may have.
    pub(super) fn share(&self, lane: Lane, now: Instant) -> Share {
        match lane {
            Lane::Bulk if self.lately(now) => Share::Part,
            _ => Share::Whole,
        }
    }

    /// Until when the lane's work stands back for others; `None` when it may begin.
    pub(super) fn stands_back(&self, lane: Lane, now: Instant) -> Option<Instant> {
        let first = &self.lanes[Lane::Interactive as usize];
        if lane == Lane::Interactive || (first.texts == 0 && first.running == 0) {
            return None;
        }
        let until = self.lanes[lane as usize].waits + AGE;
        (until > now).then_some(until)
    }
}

impl<T> Queue<T> {
    /// Takes a request in.
    pub(super) fn push(&mut self, request: &Arc<Request<T>>, now: Instant) {
        let mut state = request.state();
        if self.texts == 0 && self.running == 0 {
            self.waits = now;
        }
        self.texts += state.waiting.len();
        self.bytes += state.bytes;
        state.queued = true;
        self.due = match (self.due, request.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.requests.push_back(Arc::clone(request));
    }

    /// A batch has ended.
    pub(super) fn ran(&mut self, now: Instant) {
        self.running -= 1;
        self.waits = now;
    }

    /// Forgets what an ended request still had waiting.
    pub(super) fn release(&mut self, ended: &Ended, queued: bool) {
        let Ended::Now { texts, bytes, .. } = ended else {
            return;
        };
        self.texts -= texts;
        self.bytes -= bytes;
        self.ended += usize::from(queued);
        // Each is passed once, so that many that come and go cost little and leave nothing.
        if self.ended > 32 + self.requests.len() / 2 {
            self.requests.retain(|request| request.state().open);
            self.ended = 0;
        }
    }

    /// When a request may have to be told that its time is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes out the requests whose time is over.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Arc<Request<T>>> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut late = Vec::new();
        let mut due: Option<Instant> = None;
        self.requests.retain(|request| {
            if request.expired(now) {
                request.state().queued = false;
                late.push(Arc::clone(request));
                return false;
            }
            if let Some(deadline) = request.deadline {
                due = Some(due.map_or(deadline, |due| due.min(deadline)));
            }
            true
        });
        self.due = due;
        late
    }

    /// Texts for a batch of about `budget` tokens, at least one, of the requests in their order. One
    /// that has more goes to the end: others take their turn before its next batch.
    pub(super) fn pick<W: Works<Text = T>>(&mut self, budget: usize) -> Vec<Picked<T>> {
        let mut picked: Vec<Picked<T>> = Vec::new();
        let mut left = budget;
        let mut full = false;
        while !full && let Some(request) = self.requests.pop_front() {
            let mut state = request.state();
            state.queued = false;
            if !state.open {
                self.ended = self.ended.saturating_sub(1);
                continue;
            }
            let mut texts = Vec::new();
            while let Some(next) = state.waiting.front() {
                let tokens = next.tokens::<W>(&self.pace);
                if tokens > left && !(picked.is_empty() && texts.is_empty()) {
                    full = true;
                    break;
                }
                left = left.saturating_sub(tokens);
                texts.extend(state.waiting.pop_front());
            }
            let bytes: usize = texts.iter().map(|text| text.bytes).sum();
            self.texts -= texts.len();
            self.bytes -= bytes;
            state.bytes -= bytes;
            if !state.waiting.is_empty() {
                state.queued = true;
                let back = Arc::clone(&request);
                match texts.is_empty() {
                    true => self.requests.push_front(back),
                    false => self.requests.push_back(back),
                }
            }
            drop(state);
            if !texts.is_empty() {
                picked.push(Picked { request, texts });
            }
        }
        picked
    }

    /// Puts texts back that a batch had no room for, before all others.
    pub(super) fn put_back(&mut self, picked: Picked<T>) {
        let Picked { request, texts } = picked;
        let mut state = request.state();
        if !state.open {
            return;
        }
        self.texts += texts.len();
        for text in texts.into_iter().rev() {
            self.bytes += text.bytes;
            state.bytes += text.bytes;
            state.waiting.push_front(text);
        }
        if !state.queued {
            state.queued = true;
            self.requests.push_front(Arc::clone(&request));
        }
    }
}

impl<T> Waiting<T> {
    /// Its tokens, or about how many they will be.
    fn tokens<W: Works<Text = T>>(&self, pace: &Pace) -> usize {
        match &self.text {
            super::request::Text::Tokens(text) => W::tokens(text),
            super::request::Text::Raw(_) => pace.tokens_of(self.bytes),
        }
    }
}
