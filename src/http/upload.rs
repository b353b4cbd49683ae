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

/// Bodies up to this size are read before a worker is requested, so that no worker waits for the client.
const SMALL_BODY_BYTES: u64 = 64 * 1024;

/// Time to wait for the end or the first 64 KiB of a larger body, or of one of unknown length, before a worker is
/// requested. A client that waits for an answer to what it has sent so far waits for that long.
const BEGINNING_WAIT: Duration = Duration::from_secs(1);

/// Body received over HTTP, limited in size and watched for slowness.
pub(super) struct Upload {
    length: Option<u64>,
    pace: UploadPace,
    state: Mutex<State>,
}

/// Limits on the slowness of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct UploadPace {
    /// Longest wait for the next part.
    pub(super) patience: Duration,
    /// Bytes that earn one second of waiting beyond `patience`; 0: no limit on the sum of the waits.
    pub(super) bytes_per_second_min: u32,
}

impl UploadPace {
    pub(super) fn of(config: &HttpConfig) -> Self {
        Self { patience: config.body_timeout(), bytes_per_second_min: config.body_bytes_per_second_min }
    }

    /// Returns the time to wait for the next part, after `received` bytes and `waited` in total, and what its end
    /// means.
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
    /// Bytes that were read before the function asked for any.
    beginning: Bytes,
    /// Bytes still allowed, and bytes received.
    room: u64,
    received: u64,
    /// Sum of the earlier waits for the client, and the begin of the present one.
    waited: Duration,
    waits_since: Option<Instant>,
    /// End of the present wait, and its meaning.
    timer: Pin<Box<Sleep>>,
    limit: Outcome,
    outcome: Outcome,
}

/// State of a body, or why it is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No fault so far.
    Fine,
    /// The body exceeds its limit.
    TooLarge,
    /// No bytes arrived for `patience`.
    Stalled,
    /// The average rate was too low.
    Slow,
    /// The connection broke off, or the body was malformed.
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

    /// Returns the state of the body.
    pub(super) fn outcome(&self) -> Outcome {
        self.state.lock().outcome
    }

    /// Reads the whole body, for bodies that are small.
    pub(super) async fn collect_all(&self) -> Result<Bytes, BodyBroken> {
        let mut gathered = Gathered::default();
        while let Some(chunk) = poll_fn(|context| self.poll_chunk(context)).await {
            gathered.add(chunk?);
        }
        Ok(gathered.take())
    }

    /// Reads the whole body if it is small. Otherwise reads only the beginning, which later comes first.
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

/// Collects parts of a body into one piece; a single part is not copied.
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
                    // The timer starts with the wait, not while the function is slow to read.
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
                    // Trailers concern the connection and are dropped.
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
