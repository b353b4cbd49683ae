//! One connection and the calls that wait on it.
//!
//! The number of waiting calls decides what reads the socket:
//!
//! ```text
//!            second call begins                  last call ends
//!   direct ----------------------> driven ---------------------------> direct
//!   the one waiting call reads     a task reads, and wakes the calls
//! ```
//!
//! A lone caller thus gets its answer without a task hand-over, which would be most of the latency that a client adds
//! to a warm invocation. With several calls, none of them can read for the others, because a caller may stop polling
//! its future without dropping it. The driver task is always polled.
//!
//! Invariants:
//! - In direct mode there is at most one slot; a second slot and the driver are added under the same lock.
//! - The reader of the socket holds `input`, and has checked under that lock that it is its turn to read. The waker
//!   that the socket keeps therefore belongs to the current reader.
//! - A frame is appended to `output` whole. A call that is dropped half-written leaves the rest to the next writer.
//! - Locks nest in the order `input`, `state`; no waker is woken and nothing is spawned under `state`.

use super::{ClientError, ProtocolError};
use crate::error::Error;
use crate::protocol::frame::{self, Frame};
use crate::protocol::ipc::{self, Encoding};
use crate::socket::Socket;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// Free space made in the input buffer before a read, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// Largest output buffer that is kept after it was written, in bytes; a larger one is freed.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;

/// Most reads in one poll, so that a flood of frames does not starve other tasks of the same thread.
const READS_PER_POLL: u32 = 64;

/// Request id of a frame that answers no request: the daemon refuses the connection.
const NO_REQUEST: u64 = 0;

#[derive(Debug)]
pub(super) struct Connection {
    stream: Socket,
    /// Limit on a frame from the daemon, in bytes.
    pub(super) frame_bytes_max: AtomicUsize,
    input: Mutex<BytesMut>,
    output: Mutex<Output>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct Output {
    buffer: BytesMut,
    /// Whether writing has failed. Answers that the daemon sent before are still read.
    broken: bool,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    slots: HashMap<u64, Slot>,
    drivers: u64,
    driver: Option<Driver>,
    closed: Option<Closed>,
}

#[derive(Debug, Default)]
struct Slot {
    frames: VecDeque<Frame>,
    waker: Option<Waker>,
}

/// The task that reads while several calls wait. A task with another number is obsolete and ends.
#[derive(Debug)]
struct Driver {
    number: u64,
    waker: Option<Waker>,
}

#[derive(Debug, Clone)]
enum Closed {
    Disconnected,
    /// The daemon refused the connection, or what it read there, and closed it.
    Refused(Error),
    Malformed(frame::FrameError),
}

impl From<Closed> for ClientError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Disconnected => Self::Disconnected,
            Closed::Refused(error) => Self::Refused(error),
            Closed::Malformed(error) => Self::Protocol(ProtocolError::Frame(error)),
        }
    }
}

impl Connection {
    pub(super) fn new(stream: Socket, frame_bytes_max: usize) -> Self {
        Self {
            stream,
            frame_bytes_max: AtomicUsize::new(frame_bytes_max),
            input: Mutex::default(),
            output: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Writes a request as far as the socket accepts it at once, and returns the pending call.
    pub(super) fn start(self: &Arc<Self>, command: u8, payload: &[u8]) -> Result<Pending, ClientError> {
        if payload.len() > u32::MAX as usize - frame::HEADER_BYTES {
            return Err(ClientError::Protocol(ProtocolError::PayloadTooLarge(payload.len())));
        }
        let (pending, driver) = {
            let mut state = self.state.lock();
            if let Some(closed) = &state.closed {
                return Err(closed.clone().into());
            }
            state.last_id += 1;
            let id = state.last_id;
            state.slots.insert(id, Slot::default());
            let is_driver_needed = state.slots.len() > 1 && state.driver.is_none();
            let driver = is_driver_needed.then(|| {
                state.drivers += 1;
                let number = state.drivers;
                state.driver = Some(Driver { number, waker: None });
                number
            });
            (Pending { connection: Arc::clone(self), id }, driver)
        };
        if let Some(number) = driver {
            let connection = Arc::clone(self);
            // The waiting calls own this task: it ends when the last of them ends.
            tokio::spawn(async move { poll_fn(|cx| connection.poll_drive(cx, number)).await });
        }
        {
            let mut output = self.output.lock();
            if !output.broken {
                frame::encode(pending.id, command, payload, &mut output.buffer);
            }
        }
        let flushed = self.poll_flush(&mut Context::from_waker(Waker::noop()));
        if flushed.is_pending() {
            // The socket now keeps the no-op waker. Waking the driver makes it register its own waker again. Without a
            // driver, the call registers its waker when it is first polled.
            let waker = self.state.lock().driver.as_ref().and_then(|it| it.waker.clone());
            waker.into_iter().for_each(Waker::wake);
        }
        Ok(pending)
    }

    fn poll_drive(&self, cx: &mut Context<'_>, number: u64) -> Poll<()> {
        let mut input = self.input.lock();
        match &mut self.state.lock().driver {
            Some(driver) if driver.number == number => driver.waker = Some(cx.waker().clone()),
            _ => return Poll::Ready(()),
        }
        let _ = self.poll_flush(cx);
        self.poll_read(cx, &mut input, None)
    }

    /// Writes the output buffer. The reading side reports a failure.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut output = self.output.lock();
        let output = &mut *output;
        while !output.buffer.is_empty() {
            match self.stream.poll_write(cx, &[IoSlice::new(&output.buffer)]) {
                Poll::Ready(Ok(written)) if written > 0 => output.buffer.advance(written),
                Poll::Ready(_) => {
                    output.broken = true;
                    output.buffer.clear();
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        if output.buffer.capacity() > OUTPUT_BYTES_KEPT {
            output.buffer = BytesMut::new();
        }
        Poll::Ready(())
    }

    /// Reads frames and hands them out, until a frame of `lone` has arrived or the connection ends.
    fn poll_read(&self, cx: &mut Context<'_>, input: &mut BytesMut, lone: Option<u64>) -> Poll<()> {
        for _ in 0..READS_PER_POLL {
            if input.capacity() - input.len() < READ_BYTES / 4 {
                input.reserve(READ_BYTES);
            }
            let received = match self.stream.poll_read(cx, input) {
                // If writing has failed, the peer has closed the connection. Its last bytes have already arrived,
                // although the runtime may not have reported them yet.
                Poll::Pending if self.output.lock().broken => Poll::Ready(self.stream.read_now(input)),
                received => received,
            };
            match received {
                Poll::Ready(Ok(read)) if read > 0 => match self.hand_out(input, lone) {
                    Ok(true) => return Poll::Ready(()),
                    Ok(false) => {}
                    Err(closed) => return self.close(closed),
                },
                Poll::Ready(_) => return self.close(Closed::Disconnected),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the frames that have arrived to their calls, and returns whether `lone` got one. Frames of dropped calls
    /// are discarded.
    fn hand_out(&self, input: &mut BytesMut, lone: Option<u64>) -> Result<bool, Closed> {
        let bytes_max = self.frame_bytes_max.load(Ordering::Relaxed);
        let mut has_lone = false;
        while let Some(frame) = frame::decode(input, bytes_max).map_err(Closed::Malformed)? {
            if frame.request_id == NO_REQUEST {
                return Err(refusal(&frame));
            }
            let is_lone = lone == Some(frame.request_id);
            has_lone |= is_lone;
            let waker = {
                let mut state = self.state.lock();
                state.slots.get_mut(&frame.request_id).and_then(|slot| {
                    slot.frames.push_back(frame);
                    if is_lone { None } else { slot.waker.take() }
                })
            };
            waker.into_iter().for_each(Waker::wake);
        }
        Ok(has_lone)
    }

    fn close(&self, closed: Closed) -> Poll<()> {
        let wakers: Vec<_> = {
            let mut state = self.state.lock();
            state.closed = Some(closed);
            state.driver = None;
            state.slots.values_mut().filter_map(|slot| slot.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }
}

/// Reads the reason for which the daemon closes the connection.
fn refusal(frame: &Frame) -> Closed {
    match Encoding::of(&frame.payload).read_shared(&frame.payload) {
        Ok(error) if frame.tag == ipc::ERROR => Closed::Refused(error),
        _ => Closed::Disconnected,
    }
}

impl State {
    /// Takes the next frame of `id`, if any. Frames that arrived before the connection ended come before its error.
    fn take(&mut self, id: u64) -> Option<Result<Frame, ClientError>> {
        let frame = self.slots.get_mut(&id).and_then(|slot| slot.frames.pop_front());
        frame.map(Ok).or_else(|| self.closed.clone().map(|closed| Err(closed.into())))
    }
}

/// A call that waits for frames.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) connection: Arc<Connection>,
    pub(super) id: u64,
}

impl Pending {
    /// Waits for the next frame of the answer.
    pub(super) async fn frame(&mut self) -> Result<Frame, ClientError> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, ClientError>> {
        let connection = &*self.connection;
        {
            let mut state = connection.state.lock();
            if let Some(result) = state.take(self.id) {
                return Poll::Ready(result);
            }
            // Needed in direct mode too, because a driver may take over while this call waits.
            if let Some(slot) = state.slots.get_mut(&self.id) {
                slot.waker = Some(cx.waker().clone());
            }
            if state.driver.is_some() {
                return Poll::Pending;
            }
        }
        let mut input = connection.input.lock();
        if connection.state.lock().driver.is_some() {
            return Poll::Pending;
        }
        let _ = connection.poll_flush(cx);
        match connection.poll_read(cx, &mut input, Some(self.id)) {
            Poll::Ready(()) => connection.state.lock().take(self.id).map_or(Poll::Pending, Poll::Ready),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let (slot, driver) = {
            let mut state = self.connection.state.lock();
            let slot = state.slots.remove(&self.id);
            (slot, if state.slots.is_empty() { state.driver.take() } else { None })
        };
        drop(slot);
        // The driver must be polled once more to notice that it is obsolete.
        driver.and_then(|it| it.waker).into_iter().for_each(Waker::wake);
    }
}
