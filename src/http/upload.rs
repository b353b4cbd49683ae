//! The body of a request, read while the function reads it.

use super::incoming::Incoming;
use crate::model::{BodyBroken, IncomingBody};
use bytes::Bytes;
use hyper::body::Body;
use parking_lot::Mutex;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// A body that comes in over HTTP: at most so many bytes, and never longer without progress than its patience.
pub(super) struct Upload {
    length: Option<u64>,
    patience: Duration,
    state: Mutex<State>,
}

struct State {
    body: Incoming,
    /// Bytes that may still come.
    room: u64,
    /// When patience ends.
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
    outcome: Outcome,
}

/// Why a body did not come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So far, or for good, nothing was wrong.
    Fine,
    /// It had more bytes than it may.
    TooLarge,
    /// It made no progress.
    Stalled,
    /// The connection broke off, or what came was no body.
    Broken,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn new(body: Incoming, bytes_max: u64, patience: Duration) -> Self {
        let length = body.size_hint().exact();
        let timer = Box::pin(sleep(patience));
        let state = State { body, room: bytes_max, timer, is_waiting: false, outcome: Outcome::Fine };
        Self { length, patience, state: Mutex::new(state) }
    }

    /// What has become of it.
    pub(super) fn outcome(&self) -> Outcome {
        self.state.lock().outcome
    }

    /// All of it, for bodies that are small.
    pub(super) async fn collect(&self) -> Result<Bytes, BodyBroken> {
        let mut whole = Bytes::new();
        while let Some(chunk) = std::future::poll_fn(|context| self.poll_chunk(context)).await {
            let chunk = chunk?;
            whole = if whole.is_empty() { chunk } else { [whole, chunk].concat().into() };
        }
        Ok(whole)
    }
}

impl IncomingBody for Upload {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn poll_chunk(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        loop {
            let frame = match Pin::new(&mut state.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // Patience begins with the wait, not while the function is in no hurry to read.
                    if !std::mem::replace(&mut state.is_waiting, true) {
                        state.timer.as_mut().reset(Instant::now() + self.patience);
                    }
                    ready!(state.timer.as_mut().poll(context));
                    state.outcome = Outcome::Stalled;
                    return Poll::Ready(Some(Err(BodyBroken)));
                }
            };
            state.is_waiting = false;
            match frame {
                None => return Poll::Ready(None),
                Some(Err(_)) => {
                    state.outcome = Outcome::Broken;
                    return Poll::Ready(Some(Err(BodyBroken)));
                }
                Some(Ok(frame)) => {
                    // Trailers are about the connection, and end here.
                    let Ok(bytes) = frame.into_data() else { continue };
                    let Some(room) = state.room.checked_sub(bytes.len() as u64) else {
                        state.outcome = Outcome::TooLarge;
                        return Poll::Ready(Some(Err(BodyBroken)));
                    };
                    state.room = room;
                    return Poll::Ready(Some(Ok(bytes)));
                }
            }
        }
    }
}
