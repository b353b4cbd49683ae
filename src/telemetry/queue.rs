//! The bounded queue between the sources of log lines and the writer thread.
//!
//! It owns the lines that wait for the disk and the counts of those that found no room. It knows nothing of a database.
//! Its lock is held for a push of one line or a swap of two buffers; a push into a full queue may scan the waiting
//! lines.
//!
//! **Invariant.** A line finds no room only if its function has as many waiting as any other: in a full queue, it takes
//! the place of a line of the function that has most of them.

use super::records::{LogOptions, LogRecord};
use crate::model::{FunctionId, Timestamp, VersionLabel};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Number of waiting lines at which a batch is written early.
const BATCH_RECORDS: usize = 1_000;

/// Lines and losses that the writer takes at a time.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Lines in the order they were pushed.
    pub(super) records: Vec<LogRecord>,
    /// Losses since the last batch.
    pub(super) lost: Vec<Lost>,
    /// Set when the queue is closed: this is the last batch.
    pub(super) last: bool,
}

/// Dropped lines of one function.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lost {
    pub(super) function_id: FunctionId,
    /// Version of the latest dropped line.
    pub(super) version: VersionLabel,
    /// Time of the latest dropped line.
    pub(super) at: Timestamp,
    pub(super) lines: u64,
}

/// Bounded queue of log lines; see the module.
#[derive(Debug)]
pub(super) struct LogQueue {
    state: Mutex<QueueState>,
    /// Signals the writer that there is work.
    work: Condvar,
    /// Signals flushing threads that the writer has finished a batch.
    done: Condvar,
}

#[derive(Debug)]
struct QueueState {
    options: LogOptions,
    records: Vec<LogRecord>,
    /// Approximate memory that `records` takes.
    bytes: usize,
    /// Share of each function in `records`. Emptied together with it; allocates only for a function that has no entry
    /// yet.
    held: HashMap<FunctionId, WaitingLines>,
    /// Losses per function that ever lost a line; grows only with the first loss of a function.
    lost: HashMap<FunctionId, LostSoFar>,
    /// Whether any entry of `lost` has unreported lines.
    unreported: bool,
    /// Tells the writer not to wait for the interval to pass.
    hurry: bool,
    /// Whether `options` changed since the writer last looked.
    options_changed: bool,
    closed: bool,
    /// Whether the writer has ended.
    ended: bool,
    /// Batches that the writer has taken; the next field counts those it has finished.
    taken: u64,
    finished: u64,
}

#[derive(Debug)]
struct LostSoFar {
    version: VersionLabel,
    at: Timestamp,
    unreported: u64,
    total: u64,
}

/// Waiting lines of one function.
#[derive(Debug, Clone, Copy, Default)]
struct WaitingLines {
    lines: usize,
    bytes: usize,
}

/// Resource that a full queue has run out of.
#[derive(Debug, Clone, Copy)]
enum Scarce {
    Lines,
    Bytes,
}

impl WaitingLines {
    fn of(self, scarce: Scarce) -> usize {
        match scarce {
            Scarce::Lines => self.lines,
            Scarce::Bytes => self.bytes,
        }
    }
}

/// Returns the approximate memory of a line.
fn bytes_of(record: &LogRecord) -> usize {
    size_of::<LogRecord>() + record.message.len()
}

impl QueueState {
    /// Accepts a line, or returns it if there is no room.
    fn accept(&mut self, record: LogRecord) -> Result<(), LogRecord> {
        let bytes = bytes_of(&record);
        if self.closed || !self.make_room(record.function_id, bytes) {
            return Err(record);
        }
        let held = self.held.entry(record.function_id).or_default();
        held.lines += 1;
        held.bytes += bytes;
        self.bytes += bytes;
        self.records.push(record);
        Ok(())
    }

    /// Makes room for a line of this function and size. Fails if, with this line, no other function would have more
    /// waiting.
    fn make_room(&mut self, function_id: FunctionId, bytes: usize) -> bool {
        loop {
            let scarce = if self.records.len() >= self.options.buffer_records_max {
                Scarce::Lines
            } else if self.bytes + bytes > self.options.buffer_bytes_max {
                Scarce::Bytes
            } else {
                return true;
            };
            let own = self.held.get(&function_id).copied().unwrap_or_default();
            let own = WaitingLines { lines: own.lines + 1, bytes: own.bytes + bytes };
            let largest = self.held.iter().max_by_key(|(_, held)| held.of(scarce));
            match largest {
                Some((&largest, &held)) if held.of(scarce) > own.of(scarce) => self.cut(largest, held),
                _ => return false,
            }
        }
    }

    /// Drops the newest lines of a function: one in sixteen, so that a full queue is not scanned for each line.
    fn cut(&mut self, function_id: FunctionId, held: WaitingLines) {
        let kept = held.lines - (held.lines / 16).max(1);
        let mut left = WaitingLines::default();
        let mut records = std::mem::take(&mut self.records);
        records.retain(|record| {
            if record.function_id != function_id {
                return true;
            }
            let stays = left.lines < kept;
            if stays {
                left.lines += 1;
                left.bytes += bytes_of(record);
            } else {
                self.lose(function_id, &record.version, record.at, 1);
            }
            stays
        });
        self.records = records;
        self.bytes -= held.bytes - left.bytes;
        self.held.insert(function_id, left);
    }

    fn lose(&mut self, function_id: FunctionId, version: &VersionLabel, at: Timestamp, lines: u64) {
        let fresh = || LostSoFar { version: version.clone(), at, unreported: 0, total: 0 };
        let lost = self.lost.entry(function_id).or_insert_with(fresh);
        if lost.version != *version {
            lost.version = version.clone();
        }
        lost.at = at;
        lost.unreported += lines;
        lost.total += lines;
        self.unreported = true;
    }

    /// Triggers at half full at the latest, which leaves room until the writer comes.
    fn is_worth_a_batch(&self) -> bool {
        let records = BATCH_RECORDS.min(self.options.buffer_records_max / 2);
        self.records.len() >= records || self.bytes >= self.options.buffer_bytes_max / 2
    }

    fn is_due(&self) -> bool {
        self.hurry || self.closed || self.options_changed
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && !self.unreported
    }
}

impl LogQueue {
    pub(super) fn new(options: LogOptions) -> Self {
        let state = QueueState {
            options,
            records: Vec::with_capacity(options.buffer_records_max),
            bytes: 0,
            held: HashMap::new(),
            lost: HashMap::new(),
            unreported: false,
            hurry: false,
            options_changed: false,
            closed: false,
            ended: false,
            taken: 0,
            finished: 0,
        };
        Self { state: Mutex::new(state), work: Condvar::new(), done: Condvar::new() }
    }

    /// Accepts a line, or counts it as lost if there is no room. Lines that it displaces are also counted.
    pub(super) fn push(&self, record: LogRecord) {
        let mut state = self.state.lock();
        if let Err(record) = state.accept(record) {
            state.lose(record.function_id, &record.version, record.at, 1);
            drop(state); // before the line's memory is given back
            return;
        }
        let hurry = state.is_worth_a_batch();
        let wake = state.records.len() == 1 || (hurry && !state.hurry);
        state.hurry |= hurry;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    /// Counts lines that were dropped before they reached the queue.
    pub(super) fn count_lost(&self, function_id: FunctionId, version: &VersionLabel, at: Timestamp, lines: u64) {
        let mut state = self.state.lock();
        let wake = state.is_empty();
        state.lose(function_id, version, at, lines);
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    /// Waits until a batch is due, or until `idle_until` if no line arrives, and takes it. Called by the writer.
    ///
    /// `batch` provides an empty buffer and receives the full one. [`finish`](Self::finish) must follow. Lines wait for
    /// others for the interval of the options, or for `interval_min` if that is longer.
    pub(super) fn take(&self, batch: &mut Batch, idle_until: Instant, interval_min: Duration) -> LogOptions {
        let mut state = self.state.lock();
        while state.is_empty() && !state.is_due() {
            if self.work.wait_until(&mut state, idle_until).timed_out() {
                break;
            }
        }
        if !state.is_empty() {
            let batch_until = Instant::now() + state.options.flush_interval.max(interval_min);
            while !state.is_due() && !self.work.wait_until(&mut state, batch_until).timed_out() {}
        }
        state.hurry = false;
        state.options_changed = false;
        state.taken += 1;
        state.bytes = 0;
        state.held.clear();
        std::mem::swap(&mut state.records, &mut batch.records);
        batch.last = state.closed;
        if std::mem::take(&mut state.unreported) {
            let lost = state.lost.iter_mut().filter(|(_, lost)| lost.unreported > 0);
            batch.lost.extend(lost.map(|(&function_id, lost)| Lost {
                function_id,
                version: lost.version.clone(),
                at: lost.at,
                lines: std::mem::take(&mut lost.unreported),
            }));
        }
        state.options
    }

    /// Marks the taken batch as finished. Called by the writer.
    pub(super) fn finish(&self) {
        let mut state = self.state.lock();
        state.finished = state.taken;
        drop(state);
        self.done.notify_all();
    }

    /// Marks the writer as ended, so that no thread waits for it. Called by the writer.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.ended = true;
        drop(state);
        self.done.notify_all();
    }

    /// Counts the lines of a batch that the disk did not take as lost, and keeps its loss notices to be reported again.
    /// Called by the writer.
    pub(super) fn lose(&self, batch: &Batch) {
        let mut state = self.state.lock();
        for lost in &batch.lost {
            if let Some(so_far) = state.lost.get_mut(&lost.function_id) {
                so_far.unreported += lost.lines;
                state.unreported = true;
            }
        }
        for record in &batch.records {
            state.lose(record.function_id, &record.version, record.at, 1);
        }
    }

    /// Waits until the writer has finished everything pushed before; returns false if that takes longer than
    /// `patience`.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        let target = if state.is_empty() { state.taken } else { state.taken + 1 };
        while state.finished < target && !state.ended {
            if !state.is_empty() {
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
    pub(super) fn nudge(&self) {
        self.state.lock().hurry = true;
        self.work.notify_one();
    }

    /// Stops accepting lines; the writer takes the rest as its last batch.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }

    pub(super) fn set_options(&self, options: LogOptions) {
        let mut state = self.state.lock();
        state.options = options;
        state.options_changed = true;
        drop(state);
        self.work.notify_one();
    }

    pub(super) fn options(&self) -> LogOptions {
        self.state.lock().options
    }

    /// Returns the lines of one function dropped since the start.
    pub(super) fn lost(&self, function_id: FunctionId) -> u64 {
        self.state.lock().lost.get(&function_id).map_or(0, |lost| lost.total)
    }

    /// Returns the lines of all functions dropped since the start.
    pub(super) fn lost_total(&self) -> u64 {
        self.state.lock().lost.values().map(|lost| lost.total).sum()
    }
}

#[cfg(test)]
mod tests;
