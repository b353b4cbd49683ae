//! A buffer that many threads fill and one thread empties in batches.
//!
//! [`BatchQueue`] owns the lock and the waiting. What fits and what is dropped is decided by the [`Buffer`]. The lock is
//! held for one change of the buffer or one swap, and never while anything is written.

use parking_lot::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Contents of a [`BatchQueue`]. Its implementation keeps it bounded.
pub trait Buffer {
    /// Whether there is nothing to write.
    fn is_empty(&self) -> bool;

    /// Whether there is so much to write that the thread should not wait for more.
    fn is_worth_a_batch(&self) -> bool;

    /// Time that an entry waits for others, to be written together with them.
    fn flush_interval(&self) -> Duration;
}

/// A buffer behind a lock, and the signals between the threads that fill it and the one that writes.
#[derive(Debug)]
pub struct BatchQueue<B> {
    state: Mutex<QueueState<B>>,
    /// Signals the writer that there is work.
    work: Condvar,
    /// Signals waiting threads that the writer has finished a batch, or has ended.
    done: Condvar,
}

#[derive(Debug)]
struct QueueState<B> {
    buffer: B,
    /// Tells the writer not to wait for the interval to pass.
    hurry: bool,
    closed: bool,
    /// Whether the writer has ended.
    ended: bool,
    /// Batches that the writer has taken; the next field counts those it has finished.
    taken: u64,
    finished: u64,
}

impl<B: Buffer> QueueState<B> {
    fn is_due(&self) -> bool {
        self.hurry || self.closed
    }
}

impl<B: Buffer> BatchQueue<B> {
    /// Creates a queue with an empty buffer.
    pub fn of(buffer: B) -> Self {
        let state = QueueState { buffer, hurry: false, closed: false, ended: false, taken: 0, finished: 0 };
        Self { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() }
    }

    /// Reads the buffer.
    pub fn read<R>(&self, read: impl FnOnce(&B) -> R) -> R {
        read(&self.state.lock().buffer)
    }

    /// Changes the buffer, and wakes the writer if there is new work. The change is told whether the queue is closed.
    pub fn change<R>(&self, change: impl FnOnce(&mut B, bool) -> R) -> R {
        let mut state = self.state.lock();
        let (was_empty, is_closed) = (state.buffer.is_empty(), state.closed);
        let result = change(&mut state.buffer, is_closed);
        let hurry = state.buffer.is_worth_a_batch();
        let wake = (was_empty && !state.buffer.is_empty()) || (hurry && !state.hurry);
        state.hurry |= hurry;
        drop(state);
        if wake {
            self.work.notify_one();
        }
        result
    }

    /// Waits until a batch is due, or until `idle_until` if nothing arrives, and takes it. Returns what `take` returns,
    /// and whether the queue is closed, so that this is the last batch. Called by the writer.
    ///
    /// [`finish`](Self::finish) must follow. Entries wait for others for the buffer's interval, or for `interval_min` if
    /// that is longer.
    pub fn wait<R>(&self, idle_until: Instant, interval_min: Duration, take: impl FnOnce(&mut B) -> R) -> (R, bool) {
        let mut state = self.state.lock();
        while state.buffer.is_empty() && !state.is_due() {
            if self.work.wait_until(&mut state, idle_until).timed_out() {
                break;
            }
        }
        if !state.buffer.is_empty() {
            let batch_until = Instant::now() + state.buffer.flush_interval().max(interval_min);
            while !state.is_due() && !self.work.wait_until(&mut state, batch_until).timed_out() {}
        }
        state.hurry = false;
        state.taken += 1;
        (take(&mut state.buffer), state.closed)
    }

    /// Marks the taken batch as finished. Called by the writer.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        state.finished = state.taken;
        drop(state);
        self.done.notify_all();
    }

    /// Marks the writer as ended, so that no thread waits for it. Called by the writer.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.ended = true;
        drop(state);
        self.done.notify_all();
    }

    /// Waits until the writer has finished everything that came before; returns false if that takes longer than
    /// `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        let target = if state.buffer.is_empty() { state.taken } else { state.taken + 1 };
        while state.finished < target && !state.ended {
            if !state.buffer.is_empty() {
                state.hurry = true;
                self.work.notify_one();
            }
            if self.done.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.finished >= target
    }

    /// Wakes the writer even if there may be nothing to write.
    pub fn nudge(&self) {
        self.state.lock().hurry = true;
        self.work.notify_one();
    }

    /// Closes the queue; the writer takes the rest as its last batch.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }

    /// Waits until the writer has ended; returns false if that takes longer than `patience`.
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        self.done.wait_while_for(&mut state, |state| !state.ended, patience);
        state.ended
    }
}
