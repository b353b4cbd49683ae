//! The thread that writes the database: lines in batches, minutes of metrics when they are over, and retention.

use super::database::Database;
use super::file::{self, Reader, WriteAccess};
use super::logs::{LogRecord, Logs, Stream};
use super::metrics::Metrics;
use super::minute::minute_of;
use super::queue::{Batch, Lost};
use super::shares::ROW_BYTES;
use super::{LogOptions, TelemetryError};
use crate::model::Timestamp;
use crate::protocol::worker::LogLevel;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the writer lets a disk rest that has refused a batch. A loss that is still to be said would otherwise be
/// tried again at once.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The running thread.
#[derive(Debug)]
pub(super) struct Writer {
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(database: WriteAccess, logs: Arc<Logs>, metrics: Arc<Metrics>) -> Result<Self, TelemetryError> {
        let options = logs.options();
        let work = Work { database, logs, metrics, options, retain: true, unchecked_bytes: 0, failing: false };
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || work.run());
        Ok(Self { thread: Mutex::new(Some(thread.map_err(TelemetryError::Thread)?)) })
    }

    /// Has it write what is waiting, and waits for its end; so does everybody who calls this in the meantime.
    pub(super) fn stop(&self, logs: &Logs) {
        let mut thread = self.thread.lock();
        logs.queue().close();
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log writer panicked; the latest log lines and metrics are lost");
        }
    }
}

/// What the thread works on.
struct Work {
    database: WriteAccess,
    logs: Arc<Logs>,
    metrics: Arc<Metrics>,
    /// As of the latest batch.
    options: LogOptions,
    /// Whether there may be something to delete.
    retain: bool,
    /// What was written since the database's size was last looked at.
    unchecked_bytes: u64,
    /// Whether the latest attempt to write failed, so that one failure is not said a hundred times.
    failing: bool,
}

impl Drop for Work {
    /// Also when it panics: nobody may wait for a thread that is gone.
    fn drop(&mut self) {
        self.logs.queue().end();
    }
}

impl Work {
    fn run(mut self) {
        let mut batch = Batch::default();
        let mut minute = minute_of(Timestamp::now());
        while !batch.last {
            batch.records.reserve(self.options.buffer_records_max);
            let idle_until = Instant::now() + if self.retain { Duration::ZERO } else { until_next_minute() };
            let interval_min = if self.failing { RETRY_INTERVAL } else { Duration::ZERO };
            let options = self.logs.queue().take(&mut batch, idle_until, interval_min);
            self.retain |= options != self.options;
            self.options = options;
            self.look_after_file();
            self.write_lines(&mut batch);
            self.logs.queue().finish();

            let present_minute = minute_of(Timestamp::now());
            if present_minute != minute || batch.last {
                minute = present_minute;
                self.retain = true;
                self.write_minutes(if batch.last { i64::MAX } else { minute });
            }
            if self.retain && !batch.last {
                self.retain();
            }
        }
    }

    /// Writes a batch, gives it to the followers, and leaves an empty buffer.
    fn write_lines(&mut self, batch: &mut Batch) {
        let lines = batch.records.len();
        batch.records.extend(batch.lost.iter().map(notice));
        if !batch.records.is_empty() {
            let result = self.write(|database| database.append(&batch.records));
            match &result {
                Ok(first_id) => {
                    let bytes = |it: &LogRecord| it.message.len() as u64 + ROW_BYTES;
                    self.unchecked_bytes += batch.records.iter().map(bytes).sum::<u64>();
                    self.logs.publish(*first_id, batch.records.drain(..));
                }
                Err(_) => {
                    batch.records.truncate(lines);
                    self.logs.queue().lose(batch);
                }
            }
            self.note(result);
        }
        batch.records.clear();
        batch.lost.clear();
        // Without this, a flood between two minutes could take the database far over its limit.
        self.retain |= self.unchecked_bytes > self.options.database_bytes_max / 16;
    }

    fn write_minutes(&mut self, before: i64) {
        let metrics = Arc::clone(&self.metrics);
        let result = self.write(|database| metrics.hand_over(before, |rows| database.append_minutes(rows)));
        self.note(result);
    }

    fn retain(&mut self) {
        self.unchecked_bytes = 0;
        let (options, now) = (self.options, Timestamp::now());
        let result = self.write(|database| database.retain(&options, now));
        self.retain = matches!(result, Ok(true));
        self.note(result);
    }

    /// Does something with the database; once more with a new one if this one turns out to be damaged.
    fn write<T>(&mut self, act: impl Fn(&mut Database) -> rusqlite::Result<T>) -> Result<T, TelemetryError> {
        let first = self.database.database().and_then(|it| act(it).map_err(TelemetryError::from));
        match first {
            Err(error) if error.is_damage() => {
                self.replace(&error);
                Ok(act(self.database.database()?)?)
            }
            result => result,
        }
    }

    /// Takes care of what others have done to the file or found in it.
    fn look_after_file(&mut self) {
        let [by_query, by_report] = [self.logs.reader(), self.metrics.reader()].map(Reader::take_damage);
        if by_query || by_report {
            self.replace(&TelemetryError::Damaged);
        } else if self.database.is_displaced() {
            let path = self.database.path().display().to_string();
            tracing::warn!(path, "the log database was removed or replaced while the daemon runs: it is opened anew");
            self.reopen();
        }
    }

    /// Moves the damaged database aside.
    fn replace(&mut self, error: &TelemetryError) {
        // Before it is closed, which could still change it.
        file::set_aside(self.database.path(), error);
        self.reopen();
    }

    /// Closes every connection, and only then opens the database again: the last to close one removes files beside it by
    /// their names. That is the one that writes, as it first has to move what is in the write-ahead log to the database.
    /// A failure shows when it is written.
    fn reopen(&mut self) {
        let _nobody_reads = [self.logs.reader().shut(), self.metrics.reader().shut()];
        self.database.close();
        let _ = self.database.database();
    }

    /// Says so when the database begins to fail and when it works again.
    fn note<T>(&mut self, result: Result<T, TelemetryError>) {
        match &result {
            Err(error) if !self.failing => {
                tracing::error!(%error, "the log database cannot be written; log lines are dropped until it can");
            }
            Ok(_) if self.failing => tracing::info!("the log database can be written again"),
            _ => {}
        }
        self.failing = result.is_err();
    }
}

/// What a function's log says in place of the lines it lacks.
fn notice(lost: &Lost) -> LogRecord {
    let lines = if lost.lines == 1 { "1 line was".to_owned() } else { format!("{} lines were", lost.lines) };
    LogRecord {
        at: lost.at,
        function_id: lost.function_id,
        version: lost.version.clone(),
        invocation: None,
        worker: 0,
        stream: Stream::System,
        level: LogLevel::Warn,
        message: format!("{lines} dropped: they came faster than they may be kept"),
    }
}

fn until_next_minute() -> Duration {
    let into_minute = Timestamp::now().as_millis().rem_euclid(60_000);
    Duration::from_millis(60_000 - into_minute.unsigned_abs())
}
