//! The place of a request in the queue, as its caller holds it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use sela_encoder::Embeddings;

use super::Works;
use super::lane::Shared;
use super::request::Request;
use crate::error::Result;

/// A request that was accepted. Wait for it, or await it; any executor will do.
///
/// Dropping it cancels what has not been begun.
#[must_use = "dropping it cancels the request"]
pub struct Ticket {
    /// `None` once the outcome was taken.
    pending: Option<Box<dyn Pending>>,
}

/// A request in whatever queue.
trait Pending: Send + Sync {
    fn poll(&self, waker: &Waker) -> Option<Result<Embeddings>>;
    fn cancel(&self);
}

struct Held<W: Works> {
    shared: Arc<Shared<W>>,
    request: Arc<Request<W::Text>>,
}

impl<W: Works> Pending for Held<W> {
    fn poll(&self, waker: &Waker) -> Option<Result<Embeddings>> {
        self.request.state().poll(waker)
    }

    fn cancel(&self) {
        self.shared.cancel(&self.request);
    }
}

impl Ticket {
    pub(super) fn new<W: Works>(shared: Arc<Shared<W>>, request: Arc<Request<W::Text>>) -> Self {
        Self {
            pending: Some(Box::new(Held { shared, request })),
        }
    }

    /// Blocks until the vectors are there, in the order of the texts.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`](crate::Error::Deadline), [`Error::Closed`](crate::Error::Closed), and
    /// what embedding itself can meet.
    pub fn wait(self) -> Result<Embeddings> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut ticket = pin!(self);
        loop {
            match ticket.as_mut().poll(&mut context) {
                Poll::Ready(outcome) => return outcome,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for Ticket {
    type Output = Result<Embeddings>;

    /// # Panics
    ///
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let pending = self.pending.as_ref();
        let pending = pending.expect("a ticket is not polled after it was ready");
        match pending.poll(context.waker()) {
            Some(outcome) => {
                self.pending = None;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(pending) = &self.pending {
            pending.cancel();
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}
