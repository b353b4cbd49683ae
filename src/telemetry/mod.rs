//! Logs and metrics of functions, kept in one database and written off the hot path.
//!
//! ```text
//!   worker links ──push───> Logs ────lines───┐                         ┌──> followers
//!                                            ├──> writer thread ───────┤
//!   commands ─────record──> Metrics ─minutes─┘    one transaction      └──> logs.db
//!                                                 a batch                     │
//!   commands <──────────── Logs::query, Metrics::report <── read only ────────┘
//! ```
//!
//! [`Telemetry`] owns the writer thread, the only one that writes the database. The rest of the daemon uses [`Logs`]
//! and [`Metrics`]: `push` and `record` never wait for the disk, while `query` and `report` block and belong on a
//! blocking thread.
//!
//! # Invariants
//!
//! - A query returns every line pushed before it began, unless the line was dropped or the disk takes longer than the
//!   query waits.
//! - Dropped lines are counted, and a line in the function's log says how many are missing.
//! - A report counts each invocation once, even while the writer moves a minute from memory to the database.
//! - The data waiting for the disk is bounded, in number and in bytes.
//! - One function's lines push out no others': where room is short, it is taken from the function with the most.
//! - A damaged, removed or replaced database gives way to a new one; only the log reports it.

mod batch_queue;
mod database;
mod file;
mod log_queue;
pub mod logs;
pub mod metrics;
mod minute;
pub mod records;
mod shares;
pub mod totals;
pub mod window;
mod writer;

pub use batch_queue::{BatchQueue, Buffer};
pub use logs::Logs;
pub use metrics::{Metrics, MetricsReport, Period, PeriodError, VersionReport};
pub use minute::{CLASSES, Figures};
pub use records::{LogEntry, LogOptions, LogPage, LogQuery, LogRecord, Stream};
pub use totals::{Observation, VersionTotals};
pub use window::Window;

use file::{Reader, WriteAccess};
use std::path::Path;
use std::sync::Arc;
use writer::Writer;

/// Error from opening, reading or writing the log database.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The database cannot be opened or migrated to this version's schema.
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

/// Logs, metrics and the thread that writes both. Dropping it has the effect of [`close`](Self::close).
#[derive(Debug)]
pub struct Telemetry {
    logs: Arc<Logs>,
    metrics: Arc<Metrics>,
    writer: Writer,
}

impl Telemetry {
    /// Opens or creates the database at `path` and starts the writer. A damaged database is moved aside.
    pub fn open(path: &Path, options: LogOptions) -> Result<Self, TelemetryError> {
        // The writer's connection is opened first, because it creates the file that the readers open.
        let database = file::open(path)?;
        let logs = Arc::new(Logs::new(Reader::new(path), options));
        let metrics = Arc::new(Metrics::new(Reader::new(path)));
        let writer = Writer::start(WriteAccess::new(path, database), logs.clone(), metrics.clone())?;
        Ok(Self { logs, metrics, writer })
    }

    /// Returns the functions' log lines.
    #[must_use]
    pub fn logs(&self) -> &Arc<Logs> {
        &self.logs
    }

    /// Returns the functions' counts and durations.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Writes all waiting data, including the minute in progress, and stops the writer.
    ///
    /// Blocks until that is done. Afterwards lines are dropped and counted, and invocations are counted in memory only;
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
