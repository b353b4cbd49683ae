//! An answer that is passed on as it is produced, and how long its client may take to ask for more.
//!
//! The function's own pace is watched by the scheduler while somebody waits for its next bytes. A client that does not
//! read what it has got asks for nothing, and would keep a worker for as long: so each answer has a watch that ends the
//! call then.

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

/// Pieces as they come.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The rest of an answer. Dropped before its end it ends the call.
pub(super) struct Streamed {
    state: Arc<Mutex<State>>,
    _watch: AbortOnDropHandle<()>,
}

struct State {
    /// None once the watch has ended the call.
    chunks: Option<Chunks>,
    /// Since when the client has something to read and asks for no more; none while it waits.
    taken: Option<Instant>,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").finish_non_exhaustive()
    }
}

impl Streamed {
    /// What the stream gives, for a client that asks for more within `patience`.
    pub(super) fn new(chunks: Chunks, patience: Duration, face: Arc<Face>) -> Self {
        let state = State { chunks: Some(chunks), taken: Some(Instant::now()) };
        let state = Arc::new(Mutex::new(state));
        let watch = watch(Arc::clone(&state), patience, face);
        Self { state, _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }

    /// The next bytes. Both this and the watch run on the lane's thread, so that neither ever waits for the lock.
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
    tracing::debug!("a client took too long to read an answer, so that its call is ended");
}
