//! What functions say and how their calls go: logs and metrics in one database, written off the hot path.
//!
//! ```text
//!   worker links ──push───> Logs ────lines───┐                         ┌──> followers
//!                                            ├──> writer thread ───────┤
//!   commands ─────record──> Metrics ─minutes─┘    one transaction      └──> logs.db
//!                                                 a batch                     │
//!   commands <──────────── Logs::query, Metrics::report <── read only ────────┘
//! ```
//!
//! [`Telemetry`] owns the writer thread, which is the only one that writes the database. [`Logs`] and [`Metrics`] are
//! the two faces the rest of the daemon sees: `push` and `record` never wait for the disk, `query` and `report` block
//! and belong on a blocking thread.
//!
//! # Invariants
//!
//! - What was pushed before a query began is in its answer, unless the line was dropped or the disk takes longer than
//!   the query waits.
//! - A line that is not kept is counted, and a line in the function's log says how many are missing.
//! - A report counts each call once, also while the writer moves a minute from memory to the database.
//! - Everything waiting for the disk is bounded, in number and in bytes.
//! - One function's lines push out no others': where room is short, it is taken from the function with the most.
//! - A database that is damaged, removed or replaced gives way to a new one; nobody but the log notices.

mod database;
mod file;
pub mod logs;
pub mod metrics;
mod minute;
mod queue;
mod shares;
pub mod totals;
pub mod window;
mod writer;

pub use logs::{LogEntry, LogOptions, LogPage, LogQuery, LogRecord, Logs, Stream};
pub use metrics::{Metrics, MetricsReport, Observation, Period, PeriodError, VersionReport};
pub use minute::Figures;
pub use totals::VersionTotals;
pub use window::Window;

use file::{Reader, WriteAccess};
use std::path::Path;
use std::sync::Arc;
use writer::Writer;

/// The log database cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// It cannot be opened or brought to this version's schema.
    #[error("the log database cannot be opened: {0}")]
    Open(#[from] crate::sqlite::SqliteError),
    /// A statement failed.
    #[error("the log database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A query found damage.
    #[error("the log database is damaged")]
    Damaged,
    /// The writer thread cannot be started.
    #[error("the log writer cannot be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// Logs, metrics and the thread that writes both.
///
/// Dropping it does what [`close`](Self::close) does.
#[derive(Debug)]
pub struct Telemetry {
    logs: Arc<Logs>,
    metrics: Arc<Metrics>,
    writer: Writer,
}

impl Telemetry {
    /// Opens or makes the database at `path` and starts the writer. A damaged one is moved aside.
    pub fn open(path: &Path, options: LogOptions) -> Result<Self, TelemetryError> {
        // The writer's connection comes first: it makes the file that the readers open.
        let database = file::open(path)?;
        let logs = Arc::new(Logs::new(Reader::new(path), options));
        let metrics = Arc::new(Metrics::new(Reader::new(path)));
        let writer = Writer::start(WriteAccess::new(path, database), logs.clone(), metrics.clone())?;
        Ok(Self { logs, metrics, writer })
    }

    /// The functions' log lines.
    #[must_use]
    pub fn logs(&self) -> &Arc<Logs> {
        &self.logs
    }

    /// The functions' counts and durations.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Writes what is waiting, the minute in progress included, and stops the writer.
    ///
    /// Blocks until that is done. Afterwards lines are dropped and counted, and calls are counted in memory only;
    /// queries and reports go on working.
    pub fn close(&self) {
        self.writer.stop(&self.logs);
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod testing;
