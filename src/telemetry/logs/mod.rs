//! Log lines of functions: accepted without waiting, written in batches, read back and followed.
//!
//! Lines and queries are defined in `records`. The queue behind [`Logs::push`] is in `log_queue`, the thread that
//! empties it in `writer`, the SQL in `database`.

use super::file::Reader;
use super::log_queue::LogQueue;
use super::records::{LogEntry, LogOptions, LogPage, LogQuery, LogRecord};
use super::{TelemetryError, database};
use crate::model::{FunctionId, Timestamp, VersionLabel};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// Entries that a follower may lag behind before it loses the oldest of them.
const FOLLOWER_ENTRIES_MAX: usize = 1_024;

/// Time that a query waits for the writer before it reads the present state.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Log of every function.
#[derive(Debug)]
pub struct Logs {
    queue: LogQueue,
    followers: broadcast::Sender<Arc<LogEntry>>,
    reader: Reader,
}

impl Logs {
    pub(super) fn new(reader: Reader, options: LogOptions) -> Self {
        let followers = broadcast::Sender::new(FOLLOWER_ENTRIES_MAX);
        Self { queue: LogQueue::new(options), followers, reader }
    }

    /// Accepts a line, or drops and counts it when the queue is full.
    ///
    /// Never waits for the disk, and allocates only for the first line that a function loses.
    pub fn push(&self, record: LogRecord) {
        self.queue.push(record);
    }

    /// Counts lines dropped before they reached the log, such as those of a worker over its rate. A line in the log
    /// says how many.
    pub fn count_dropped(&self, function_id: FunctionId, version: &VersionLabel, lines: u64) {
        self.queue.count_lost(function_id, version, Timestamp::now(), lines);
    }

    /// Reads lines, newest first, including any that were pushed before.
    ///
    /// Blocks on the disk, and up to two seconds for the writer.
    pub fn query(&self, query: &LogQuery) -> Result<LogPage, TelemetryError> {
        self.flush();
        self.reader.read(|connection| database::select_logs(connection, query)).inspect_err(|error| {
            if error.is_damage() {
                self.queue.nudge();
            }
        })
    }

    /// Waits, up to two seconds, until everything pushed before is written and delivered to the followers.
    ///
    /// Returns false if it takes longer.
    pub fn flush(&self) -> bool {
        self.queue.flush(FLUSH_PATIENCE)
    }

    /// Subscribes to the lines of every function as they are written, from now on.
    ///
    /// A receiver that falls behind by 1,024 entries loses the oldest and is told how many
    /// ([`RecvError::Lagged`](broadcast::error::RecvError::Lagged)). See [`LogQuery::matches`] for one function's lines.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogEntry>> {
        self.followers.subscribe()
    }

    /// Returns the limits in force.
    #[must_use]
    pub fn options(&self) -> LogOptions {
        self.queue.options()
    }

    /// Changes the limits. Lines beyond the new limits are deleted at once.
    pub fn set_options(&self, options: LogOptions) {
        self.queue.set_options(options);
    }

    /// Returns the lines of one function dropped since the start.
    #[must_use]
    pub fn dropped(&self, function_id: FunctionId) -> u64 {
        self.queue.lost(function_id)
    }

    /// Returns the lines of all functions dropped since the start.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.queue.lost_total()
    }

    pub(super) fn queue(&self) -> &LogQueue {
        &self.queue
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Sends written lines to the followers. The writer calls this, so that `push` stays cheap.
    pub(super) fn publish(&self, first_id: i64, records: impl Iterator<Item = LogRecord>) {
        if self.followers.receiver_count() > 0 {
            for (id, record) in (first_id..).zip(records) {
                // Fails only when the last follower has just gone.
                let _ = self.followers.send(Arc::new(LogEntry { id, record }));
            }
        }
    }
}

#[cfg(test)]
mod tests;
