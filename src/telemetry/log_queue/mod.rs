//! The bounded queue between the sources of log lines and the writer thread.
//!
//! Its buffer owns the lines that wait for the disk and the counts of those that found no room. It knows nothing of a
//! database. A push into a full queue may scan the waiting lines.
//!
//! **Invariant.** A line finds no room only if its function has as many waiting as any other: in a full queue, it takes
//! the place of a line of the function that has most of them.

use super::batch_queue::{BatchQueue, Buffer};
use super::records::{LogOptions, LogRecord};
use crate::model::{FunctionId, Timestamp, VersionLabel};
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
pub(super) type LogQueue = BatchQueue<LogBuffer>;

/// Waiting lines, and the losses so far.
#[derive(Debug)]
pub(super) struct LogBuffer {
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

impl LogBuffer {
    /// Accepts a line, or counts it as lost and returns it: its memory is given back after the lock.
    fn accept(&mut self, record: LogRecord, is_closed: bool) -> Option<LogRecord> {
        let bytes = bytes_of(&record);
        if is_closed || !self.make_room(record.function_id, bytes) {
            self.lose(record.function_id, &record.version, record.at, 1);
            return Some(record);
        }
        let held = self.held.entry(record.function_id).or_default();
        held.lines += 1;
        held.bytes += bytes;
        self.bytes += bytes;
        self.records.push(record);
        None
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

    /// Moves the lines and the unreported losses into a batch, whose empty buffer it keeps.
    fn take(&mut self, batch: &mut Batch) -> LogOptions {
        self.bytes = 0;
        self.held.clear();
        std::mem::swap(&mut self.records, &mut batch.records);
        if std::mem::take(&mut self.unreported) {
            let lost = self.lost.iter_mut().filter(|(_, lost)| lost.unreported > 0);
            batch.lost.extend(lost.map(|(&function_id, lost)| Lost {
                function_id,
                version: lost.version.clone(),
                at: lost.at,
                lines: std::mem::take(&mut lost.unreported),
            }));
        }
        self.options
    }
}

impl Buffer for LogBuffer {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && !self.unreported
    }

    /// Triggers at half full at the latest, which leaves room until the writer comes.
    fn is_worth_a_batch(&self) -> bool {
        let records = BATCH_RECORDS.min(self.options.buffer_records_max / 2);
        self.records.len() >= records || self.bytes >= self.options.buffer_bytes_max / 2
    }

    fn flush_interval(&self) -> Duration {
        self.options.flush_interval
    }
}

impl LogQueue {
    pub(super) fn new(options: LogOptions) -> Self {
        Self::of(LogBuffer {
            options,
            records: Vec::with_capacity(options.buffer_records_max),
            bytes: 0,
            held: HashMap::new(),
            lost: HashMap::new(),
            unreported: false,
        })
    }

    /// Accepts a line, or counts it as lost if there is no room. Lines that it displaces are also counted.
    pub(super) fn push(&self, record: LogRecord) {
        drop(self.change(|buffer, is_closed| buffer.accept(record, is_closed)));
    }

    /// Counts lines that were dropped before they reached the queue.
    pub(super) fn count_lost(&self, function_id: FunctionId, version: &VersionLabel, at: Timestamp, lines: u64) {
        self.change(|buffer, _| buffer.lose(function_id, version, at, lines));
    }

    /// Waits for a batch like [`BatchQueue::wait`], and takes it. `batch` provides an empty buffer and receives the full
    /// one.
    pub(super) fn take(&self, batch: &mut Batch, idle_until: Instant, interval_min: Duration) -> LogOptions {
        let (options, is_last) = self.wait(idle_until, interval_min, |buffer| buffer.take(batch));
        batch.last = is_last;
        options
    }

    /// Counts the lines of a batch that the disk did not take as lost, and keeps its loss notices to be reported again.
    /// Called by the writer.
    pub(super) fn lose(&self, batch: &Batch) {
        self.change(|buffer, _| {
            for lost in &batch.lost {
                if let Some(so_far) = buffer.lost.get_mut(&lost.function_id) {
                    so_far.unreported += lost.lines;
                    buffer.unreported = true;
                }
            }
            for record in &batch.records {
                buffer.lose(record.function_id, &record.version, record.at, 1);
            }
        });
    }

    pub(super) fn set_options(&self, options: LogOptions) {
        self.change(|buffer, _| buffer.options = options);
        self.nudge();
    }

    pub(super) fn options(&self) -> LogOptions {
        self.read(|buffer| buffer.options)
    }

    /// Returns the lines of one function dropped since the start.
    pub(super) fn lost(&self, function_id: FunctionId) -> u64 {
        self.read(|buffer| buffer.lost.get(&function_id).map_or(0, |lost| lost.total))
    }

    /// Returns the lines of all functions dropped since the start.
    pub(super) fn lost_total(&self) -> u64 {
        self.read(|buffer| buffer.lost.values().map(|lost| lost.total).sum())
    }
}

#[cfg(test)]
mod tests;
