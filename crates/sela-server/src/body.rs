//! Bodies of answers that are made while they are sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// A body of parts. It ends well only with an empty part: else making it failed midway, and the
/// connection is broken off so that the client does not take a part for the whole.
pub(crate) struct Parts {
    taken: mpsc::Receiver<Bytes>,
    finished: bool,
}

impl Parts {
    /// The parts that come through a channel.
    pub(crate) fn new(taken: mpsc::Receiver<Bytes>) -> Self {
        Self {
            taken,
            finished: false,
        }
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        match ready!(self.taken.poll_recv(context)) {
            Some(part) if part.is_empty() => {
                self.finished = true;
                Poll::Ready(None)
            }
            Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
            None => Poll::Ready(Some(Err(io::Error::other("reading has failed")))),
        }
    }
}
