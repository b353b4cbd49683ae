//! Log lines of functions: taken without waiting, written in batches, read back and followed.
//!
//! It owns what a line is and how lines are asked for. The queue behind [`Logs::push`] is in `queue`, the thread that
//! empties it in `writer`, the SQL in `database`.

use super::file::Reader;
use super::queue::Queue;
use super::{TelemetryError, database};
use crate::model::{FunctionId, InvocationId, Timestamp, VersionLabel};
use crate::protocol::worker::LogLevel;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// Entries a follower may be behind before it loses the oldest of them.
const FOLLOWER_ENTRIES_MAX: usize = 1_024;

/// How long a query waits for the writer before it reads what is there.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The function's `console`.
    Console,
    /// The worker's standard output.
    Stdout,
    /// The worker's standard error.
    Stderr,
    /// The daemon, about a worker: a crash, a timeout, lines that were not kept.
    System,
}

impl Stream {
    /// Every stream; the place in this list is what the database keeps.
    pub(super) const ALL: [Self; 4] = [Self::Console, Self::Stdout, Self::Stderr, Self::System];

    /// The stream as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }
}

/// One line of a function's log; the text may have several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// When the daemon got it.
    pub at: Timestamp,
    /// The function.
    pub function_id: FunctionId,
    /// The version that ran.
    pub version: VersionLabel,
    /// The invocation it belongs to, where that is known.
    pub invocation: Option<InvocationId>,
    /// The worker's process id; 0 where no worker said it.
    pub worker: u32,
    /// Where it comes from.
    pub stream: Stream,
    /// How much it matters.
    pub level: LogLevel,
    /// The text; whoever reads it from a worker bounds it.
    pub message: String,
}

/// A line with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Rises with every line of any function. Who first follows and then queries knows by it what it has already seen.
    pub id: i64,
    /// The line.
    pub record: LogRecord,
}

/// The limits of the log, which may change while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Lines that may wait for the writer; one more is dropped and counted. A batch on its way to the disk comes on
    /// top.
    pub buffer_records_max: usize,
    /// Memory that waiting lines may take.
    pub buffer_bytes_max: usize,
    /// How long a line waits for others to be written with it.
    pub flush_interval: Duration,
    /// How long lines and metrics are kept.
    pub retention: Duration,
    /// How large the database may get before the oldest lines go.
    pub database_bytes_max: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            buffer_records_max: 10_000,
            buffer_bytes_max: 16 << 20,
            flush_interval: Duration::from_millis(200),
            retention: Duration::from_secs(7 * 86_400),
            database_bytes_max: 256 << 20,
        }
    }
}

/// Which lines of a function to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// The function.
    pub function_id: FunctionId,
    /// Only lines of this version.
    pub version: Option<VersionLabel>,
    /// Only lines of this invocation.
    pub invocation: Option<InvocationId>,
    /// Only lines of at least this level.
    pub level_min: Option<LogLevel>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only lines up to this time, itself included.
    pub until: Option<Timestamp>,
    /// Lines to return at most; above [`LIMIT_MAX`](Self::LIMIT_MAX) that is what counts.
    pub limit: u32,
    /// Matching lines to leave out, from the newest on.
    pub offset: u64,
    /// Only lines before this one.
    pub before: Option<i64>,
    /// Only lines after this one.
    pub after: Option<i64>,
}

impl LogQuery {
    /// Lines that one page holds at most.
    pub const LIMIT_MAX: u32 = 10_000;

    /// The newest 100 lines of a function.
    #[must_use]
    pub fn new(function_id: FunctionId) -> Self {
        let (version, invocation, level_min, since, until) = (None, None, None, None, None);
        Self {
            function_id,
            version,
            invocation,
            level_min,
            since,
            until,
            limit: 100,
            offset: 0,
            before: None,
            after: None,
        }
    }

    /// Whether the line is one of those asked for, for a follower; paging aside.
    #[must_use]
    pub fn matches(&self, record: &LogRecord) -> bool {
        record.function_id == self.function_id
            && self.version.as_ref().is_none_or(|it| record.version == *it)
            && self.invocation.is_none_or(|it| record.invocation == Some(it))
            && self.level_min.is_none_or(|it| record.level >= it)
            && self.since.is_none_or(|it| record.at >= it)
            && self.until.is_none_or(|it| record.at <= it)
    }
}

/// An answer to a [`LogQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// The matching lines, **newest first**, so that an offset counts back from the present. May be fewer than asked
    /// for, though never none, where their text is over 4 MiB; the next page begins before the last of these.
    pub entries: Vec<LogEntry>,
    /// All lines that match, on whatever page.
    pub total: u64,
    /// Whether there are older ones.
    pub has_more: bool,
}

/// The log of all functions.
#[derive(Debug)]
pub struct Logs {
    queue: Queue,
    followers: broadcast::Sender<Arc<LogEntry>>,
    reader: Reader,
}

impl Logs {
    pub(super) fn new(reader: Reader, options: LogOptions) -> Self {
        let followers = broadcast::Sender::new(FOLLOWER_ENTRIES_MAX);
        Self { queue: Queue::new(options), followers, reader }
    }

    /// Takes a line, or drops and counts it when the queue is full.
    ///
    /// Never waits for the disk, and allocates nothing, save for the first line that a function loses.
    pub fn push(&self, record: LogRecord) {
        self.queue.push(record);
    }

    /// Counts lines that somebody dropped on their way here, such as those of a worker over its rate. A line in the log
    /// says how many.
    pub fn count_dropped(&self, function_id: FunctionId, version: &VersionLabel, lines: u64) {
        self.queue.count_lost(function_id, version, Timestamp::now(), lines);
    }

    /// Reads lines, those included that were pushed before; newest first.
    ///
    /// Blocks: on the disk, and up to two seconds for the writer.
    pub fn query(&self, query: &LogQuery) -> Result<LogPage, TelemetryError> {
        self.flush();
        self.reader.read(|connection| database::select_logs(connection, query)).inspect_err(|error| {
            if error.is_damage() {
                self.queue.nudge();
            }
        })
    }

    /// Waits, up to two seconds, until everything pushed before is written and with the followers.
    ///
    /// False if it takes longer.
    pub fn flush(&self) -> bool {
        self.queue.flush(FLUSH_PATIENCE)
    }

    /// The lines of all functions as they are written, from now on.
    ///
    /// A receiver that falls behind by 1,024 entries loses the oldest and is told how many
    /// ([`RecvError::Lagged`](broadcast::error::RecvError::Lagged)). See [`LogQuery::matches`] for one function's lines.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogEntry>> {
        self.followers.subscribe()
    }

    /// The present limits.
    #[must_use]
    pub fn options(&self) -> LogOptions {
        self.queue.options()
    }

    /// Changes the limits; what is then too old or too much goes at once.
    pub fn set_options(&self, options: LogOptions) {
        self.queue.set_options(options);
    }

    /// Lines of one function that were not kept since the start.
    #[must_use]
    pub fn dropped(&self, function_id: FunctionId) -> u64 {
        self.queue.lost(function_id)
    }

    /// Lines of all functions that were not kept since the start.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.queue.lost_total()
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Gives written lines to whoever follows. The writer does this, so that `push` stays cheap.
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
