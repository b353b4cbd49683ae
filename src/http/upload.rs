//! The body of a request, read while the function reads it.

use super::incoming::Incoming;
use crate::{
    config::HttpConfig,
    model::{BodyBroken, IncomingBody},
};
use bytes::{Bytes, BytesMut};
use hyper::body::Body;
use parking_lot::Mutex;
use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// A body up to this size is read before a worker is asked for: the worker then waits for no caller.
const SMALL_BODY_BYTES: u64 = 64 * 1024;

/// How long the end or the first 64 KiB of a larger body, or of one whose length is not known, are waited for before a
/// worker is asked for. A client that waits for an answer to what it has sent so far waits for that long.
const BEGINNING_WAIT: Duration = Duration::from_secs(1);

/// A body that comes in over HTTP: at most so many bytes, and not too slow.
pub(super) struct Upload {
    length: Option<u64>,
    pace: UploadPace,
    state: Mutex<State>,
}

/// How slow a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct UploadPace {
    /// The longest wait for the next part.
    pub(super) patience: Duration,
    /// What all waits together may take besides `patience`: a second for as many bytes as these; 0: no matter how long.
    pub(super) bytes_per_second_min: u32,
}

impl UploadPace {
    pub(super) fn of(config: &HttpConfig) -> Self {
        Self { patience: config.body_timeout(), bytes_per_second_min: config.body_bytes_per_second_min }
    }

    /// How long the next part is waited for, after so many bytes and as long a wait for them.
    fn next_wait(self, received: u64, waited: Duration) -> (Duration, Outcome) {
        if self.bytes_per_second_min == 0 {
            return (self.patience, Outcome::Stalled);
        }
        let earned = Duration::from_secs_f64(received as f64 / f64::from(self.bytes_per_second_min));
        let left = (self.patience + earned).saturating_sub(waited);
        if left < self.patience { (left, Outcome::Slow) } else { (self.patience, Outcome::Stalled) }
    }
}

struct State {
    body: Incoming,
    /// What was read before somebody asked for it.
    beginning: Bytes,
    /// Bytes that may still come, and that have come.
    room: u64,
    received: u64,
    /// How long the client was waited for before the present wait, and since when that goes on.
    waited: Duration,
    waits_since: Option<Instant>,
    /// When the present wait ends, and what it means.
    timer: Pin<Box<Sleep>>,
    limit: Outcome,
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
    /// It made too little.
    Slow,
    /// The connection broke off, or what came was no body.
    Broken,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn new(body: Incoming, bytes_max: u64, pace: UploadPace) -> Self {
        let length = body.size_hint().exact();
        let state = State {
            body,
            beginning: Bytes::new(),
            room: bytes_max,
            received: 0,
            waited: Duration::ZERO,
            waits_since: None,
            timer: Box::pin(sleep(pace.patience)),
            limit: Outcome::Stalled,
            outcome: Outcome::Fine,
        };
        Self { length, pace, state: Mutex::new(state) }
    }

    /// What has become of it.
    pub(super) fn outcome(&self) -> Outcome {
        self.state.lock().outcome
    }

    /// All of it, for bodies that are small.
    pub(super) async fn collect_all(&self) -> Result<Bytes, BodyBroken> {
        let mut gathered = Gathered::default();
        while let Some(chunk) = poll_fn(|context| self.poll_chunk(context)).await {
            gathered.add(chunk?);
        }
        Ok(gathered.take())
    }

    /// All of it if it is small. Of any other body the beginning is read, and comes first when the rest is asked for.
    pub(super) async fn collect_small(&self) -> Result<Option<Bytes>, BodyBroken> {
        if self.length.is_some_and(|length| length <= SMALL_BODY_BYTES) {
            return self.collect_all().await.map(Some);
        }
        let mut beginning = Gathered::default();
        let read = async {
            while beginning.len() < SMALL_BODY_BYTES as usize {
                match poll_fn(|context| self.poll_chunk(context)).await {
                    Some(chunk) => beginning.add(chunk?),
                    None => return Ok(true),
                }
            }
            Ok(false)
        };
        let is_whole = timeout(BEGINNING_WAIT, read).await.unwrap_or(Ok(false))?;
        let bytes = beginning.take();
        if is_whole {
            return Ok(Some(bytes));
        }
        self.state.lock().beginning = bytes;
        Ok(None)
    }
}

/// Parts of a body in one piece; the first one is not copied if no other follows.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: BytesMut,
}

impl Gathered {
    fn add(&mut self, chunk: Bytes) {
        if self.len() == 0 {
            self.first = chunk;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&chunk);
    }

    fn len(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    fn take(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

impl IncomingBody for Upload {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn poll_chunk(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.beginning.is_empty() {
            return Poll::Ready(Some(Ok(mem::take(&mut state.beginning))));
        }
        loop {
            let frame = match Pin::new(&mut state.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // Patience begins with the wait, not while the function is in no hurry to read.
                    if state.waits_since.is_none() {
                        let now = Instant::now();
                        let (wait, limit) = self.pace.next_wait(state.received, state.waited);
                        (state.waits_since, state.limit) = (Some(now), limit);
                        state.timer.as_mut().reset(now + wait);
                    }
                    ready!(state.timer.as_mut().poll(context));
                    state.outcome = state.limit;
                    return Poll::Ready(Some(Err(BodyBroken)));
                }
            };
            if let Some(since) = state.waits_since.take() {
                state.waited += since.elapsed();
            }
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
                    state.received += bytes.len() as u64;
                    return Poll::Ready(Some(Ok(bytes)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_body_earns_its_time_by_its_bytes() {
        let pace = UploadPace { patience: 10 * SECOND, bytes_per_second_min: 100 };
        assert_eq!(pace.next_wait(0, Duration::ZERO), (10 * SECOND, Outcome::Stalled));
        assert_eq!(pace.next_wait(1, 8 * SECOND), (2 * SECOND + SECOND / 100, Outcome::Slow));
        assert_eq!(pace.next_wait(100, 11 * SECOND), (Duration::ZERO, Outcome::Slow));
        assert_eq!(pace.next_wait(10_000, 90 * SECOND), (10 * SECOND, Outcome::Stalled));
        let any = UploadPace { bytes_per_second_min: 0, ..pace };
        assert_eq!(any.next_wait(1, 1_000 * SECOND), (10 * SECOND, Outcome::Stalled));
    }

    #[test]
    fn parts_become_one_piece() {
        for parts in [&[][..], &["a"], &["a", "bc", "d"], &["", "a", "", "b"]] {
            let mut gathered = Gathered::default();
            parts.iter().for_each(|part| gathered.add(Bytes::from_static(part.as_bytes())));
            assert_eq!(gathered.take(), parts.concat());
        }
    }
}
