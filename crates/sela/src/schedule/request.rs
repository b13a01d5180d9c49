//! A request: its texts, what has become of them, and who waits for it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;
use std::time::Instant;

use sela_encoder::{Embeddings, TextInfo};

use super::{EmbedOptions, Lane};
use crate::engine::lock;
use crate::error::{Error, Result};

/// A text that waits, by its place in the request.
pub(super) struct Waiting<T> {
    pub(super) index: usize,
    /// Bytes it had as a text.
    pub(super) bytes: usize,
    pub(super) text: Text<T>,
}

pub(super) enum Text<T> {
    Raw(String),
    Tokens(T),
}

pub(super) struct Request<T> {
    pub(super) lane: Lane,
    pub(super) prompt: Option<String>,
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
    state: Mutex<State<T>>,
}

pub(super) struct State<T> {
    /// Texts that no batch has taken.
    pub(super) waiting: VecDeque<Waiting<T>>,
    /// Bytes of these.
    pub(super) bytes: usize,
    /// Whether a lane's queue holds the request.
    pub(super) queued: bool,
    /// Whether somebody wants the answer and there is none yet.
    pub(super) open: bool,
    answer: Embeddings,
    texts: usize,
    missing: usize,
    outcome: Option<Result<Embeddings>>,
    waker: Option<Waker>,
}

impl<T> Request<T> {
    pub(super) fn new(options: &EmbedOptions, texts: Vec<String>) -> Self {
        let raw = |(index, text): (usize, String)| Waiting {
            index,
            bytes: text.len(),
            text: Text::Raw(text),
        };
        Self::waiting(options, texts.into_iter().enumerate().map(raw).collect())
    }

    /// One whose texts are tokenised already.
    pub(super) fn tokenized(options: &EmbedOptions, texts: Vec<String>, tokens: Vec<T>) -> Self {
        let ready = |(index, (text, tokens)): (usize, (String, T))| Waiting {
            index,
            bytes: text.len(),
            text: Text::Tokens(tokens),
        };
        let both = texts.into_iter().zip(tokens);
        Self::waiting(options, both.enumerate().map(ready).collect())
    }

    /// One that asks for nothing.
    pub(super) fn done(options: &EmbedOptions, dim: usize) -> Self {
        let request = Self::waiting(options, VecDeque::new());
        let nothing = Embeddings {
            dim,
            ..Embeddings::default()
        };
        let _ = request.state().end(Some(Ok(nothing)));
        request
    }

    fn waiting(options: &EmbedOptions, waiting: VecDeque<Waiting<T>>) -> Self {
        let texts = waiting.len();
        Self {
            lane: options.lane,
            prompt: options.prompt.clone(),
            since: Instant::now(),
            deadline: options.deadline,
            state: Mutex::new(State {
                bytes: waiting.iter().map(|w| w.bytes).sum(),
                waiting,
                queued: false,
                open: true,
                answer: Embeddings::default(),
                texts,
                missing: texts,
                outcome: None,
                waker: None,
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    /// Whether its time is over.
    pub(super) fn expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The error of one whose time is over.
    pub(super) fn late(&self) -> Error {
        Error::Deadline {
            waited: self.since.elapsed(),
        }
    }
}

impl<T> State<T> {
    /// Puts a vector in its place; the waker of who waits if it was the last.
    pub(super) fn put(&mut self, index: usize, vector: &[f32], info: TextInfo) -> Ended {
        if !self.open {
            return Ended::No;
        }
        let dim = vector.len();
        if self.answer.info.is_empty() {
            self.answer = Embeddings {
                dim,
                vectors: vec![0.0; self.texts * dim],
                info: vec![TextInfo::default(); self.texts],
            };
        }
        self.answer.vectors[index * dim..][..dim].copy_from_slice(vector);
        self.answer.info[index] = info;
        self.missing -= 1;
        if self.missing > 0 {
            return Ended::No;
        }
        let answer = std::mem::take(&mut self.answer);
        self.end(Some(Ok(answer)))
    }

    /// Ends the request, with an outcome or, when nobody wants one any more, without.
    pub(super) fn end(&mut self, outcome: Option<Result<Embeddings>>) -> Ended {
        if !self.open {
            return Ended::No;
        }
        self.open = false;
        self.outcome = outcome;
        self.answer = Embeddings::default();
        Ended::Now {
            texts: std::mem::take(&mut self.waiting).len(),
            bytes: std::mem::take(&mut self.bytes),
            waker: self.waker.take(),
        }
    }

    /// The outcome once there is one; else `waker` is kept to be called then.
    pub(super) fn poll(&mut self, waker: &Waker) -> Option<Result<Embeddings>> {
        if self.open {
            match &mut self.waker {
                Some(kept) => kept.clone_from(waker),
                None => self.waker = Some(waker.clone()),
            }
        }
        self.outcome.take()
    }
}

/// What an event has meant for a request.
#[must_use]
pub(super) enum Ended {
    No,
    /// It is over; so many texts and bytes no longer wait.
    Now {
        texts: usize,
        bytes: usize,
        waker: Option<Waker>,
    },
}
