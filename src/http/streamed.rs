//! Streamed answers, and the time that a client may take to ask for more.
//!
//! The scheduler watches the function's own pace while the client waits for its next bytes. A client that stops reading
//! asks for nothing and would keep a worker busy. So each streamed answer has a watch that then ends the invocation.

use super::face::Face;
use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// Stream of the pieces of a body.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Rest of an answer. Dropping it before its end ends the invocation.
pub(super) struct Streamed {
    state: Arc<Mutex<State>>,
    _watch: AbortOnDropHandle<()>,
}

struct State {
    /// `None` once the watch has ended the invocation.
    chunks: Option<Chunks>,
    /// Time since which the client has bytes to read and has not asked for more; `None` while it waits for bytes.
    taken: Option<Instant>,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").finish_non_exhaustive()
    }
}

impl Streamed {
    /// Wraps a stream for a client that must ask for more within `patience`.
    pub(super) fn new(chunks: Chunks, patience: Duration, face: Arc<Face>) -> Self {
        let state = State { chunks: Some(chunks), taken: Some(Instant::now()) };
        let state = Arc::new(Mutex::new(state));
        let watch = watch(Arc::clone(&state), patience, face);
        Self { state, _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }

    /// Polls for the next bytes. This and the watch run on the lane's thread, so neither ever waits for the lock.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut state = self.state.lock();
        let State { chunks, taken } = &mut *state;
        let Some(chunks) = chunks else {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the client took too long to read the answer");
            return Poll::Ready(Some(Err(error)));
        };
        *taken = None;
        let chunk = ready!(chunks.as_mut().poll_next(context));
        *taken = Some(Instant::now());
        Poll::Ready(chunk)
    }
}

async fn watch(state: Arc<Mutex<State>>, patience: Duration, face: Arc<Face>) {
    loop {
        let taken = state.lock().taken;
        let until = taken.unwrap_or_else(Instant::now) + patience;
        if taken.is_some() && until <= Instant::now() {
            break;
        }
        sleep_until(until).await;
    }
    let ended = state.lock().chunks.take();
    drop(ended);
    face.counters.slow_client();
    tracing::debug!("a client took too long to read an answer; its invocation is ended");
}
