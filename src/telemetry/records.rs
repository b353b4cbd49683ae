//! Log lines and queries for them.

use crate::model::{FunctionId, InvocationId, Timestamp, VersionLabel};
use crate::protocol::worker::LogLevel;
use std::time::Duration;

/// Source of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The function's `console`.
    Console,
    /// The worker's standard output.
    Stdout,
    /// The worker's standard error.
    Stderr,
    /// The daemon, about a worker: a crash, a timeout, dropped lines.
    System,
}

impl Stream {
    /// Every stream; the database stores the index in this list.
    pub(super) const ALL: [Self; 4] = [Self::Console, Self::Stdout, Self::Stderr, Self::System];

    /// Returns the stream's name on the wire.
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

/// One entry of a function's log; its text may span several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Time at which the daemon received it.
    pub at: Timestamp,
    /// Id of the function.
    pub function_id: FunctionId,
    /// Version that ran.
    pub version: VersionLabel,
    /// Invocation it belongs to, if known.
    pub invocation: Option<InvocationId>,
    /// Process id of the worker; 0 if the line is from no worker.
    pub worker: u32,
    /// Source of the line.
    pub stream: Stream,
    /// Severity.
    pub level: LogLevel,
    /// Text; bounded by the code that reads it from a worker.
    pub message: String,
}

/// A line with its position in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Rises with every line of any function. A client that first follows and then queries can drop duplicates by it.
    pub id: i64,
    /// The line itself.
    pub record: LogRecord,
}

/// Limits of the log, which may change while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Lines that may wait for the writer; any more are dropped and counted. A batch on its way to the disk does not
    /// count.
    pub buffer_records_max: usize,
    /// Memory that waiting lines may take.
    pub buffer_bytes_max: usize,
    /// Time that a line waits for others to be written with it.
    pub flush_interval: Duration,
    /// Time that lines and metrics are kept.
    pub retention: Duration,
    /// Database size above which the oldest lines are deleted.
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

/// Selects lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only lines of this function.
    pub function_id: Option<FunctionId>,
    /// Only lines of this version.
    pub version: Option<VersionLabel>,
    /// Only lines of this invocation.
    pub invocation: Option<InvocationId>,
    /// Only lines of at least this level.
    pub level_min: Option<LogLevel>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only lines up to and including this time.
    pub until: Option<Timestamp>,
    /// Most lines to return; capped at [`LIMIT_MAX`](Self::LIMIT_MAX).
    pub limit: u32,
    /// Matching lines to skip, counted from the newest.
    pub offset: u64,
    /// Only lines with a lower id.
    pub before: Option<i64>,
    /// Only lines with a higher id.
    pub after: Option<i64>,
}

impl LogQuery {
    /// Most lines in one page.
    pub const LIMIT_MAX: u32 = 10_000;

    /// Makes a query for the newest 100 lines of a function.
    #[must_use]
    pub fn new(function_id: FunctionId) -> Self {
        Self { function_id: Some(function_id), limit: 100, ..Self::default() }
    }

    /// Whether a follower with this query gets the line; ignores paging.
    #[must_use]
    pub fn matches(&self, record: &LogRecord) -> bool {
        self.function_id.is_none_or(|it| record.function_id == it)
            && self.version.as_ref().is_none_or(|it| record.version == *it)
            && self.invocation.is_none_or(|it| record.invocation == Some(it))
            && self.level_min.is_none_or(|it| record.level >= it)
            && self.since.is_none_or(|it| record.at >= it)
            && self.until.is_none_or(|it| record.at <= it)
    }
}

/// Answer to a [`LogQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// Matching lines, **newest first**, so that an offset counts back from the present. Fewer than requested, but at
    /// least one, if their text is over 4 MiB; the next page begins before the last of these.
    pub entries: Vec<LogEntry>,
    /// Number of all matching lines, on any page.
    pub total: u64,
    /// Whether older matching lines exist.
    pub has_more: bool,
}
