//! The thread that writes the database: lines in batches, finished minutes of metrics, and retention.

use super::database::Database;
use super::file::{self, Reader, WriteAccess};
use super::log_queue::{Batch, Lost};
use super::logs::Logs;
use super::metrics::Metrics;
use super::minute::minute_of;
use super::records::{LogRecord, Stream};
use super::shares::ROW_BYTES;
use super::{LogOptions, TelemetryError};
use crate::model::Timestamp;
use crate::protocol::worker::LogLevel;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause after the disk has refused a batch. Otherwise an unreported loss would be retried at once.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Handle to the running thread.
#[derive(Debug)]
pub(super) struct Writer {
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(database: WriteAccess, logs: Arc<Logs>, metrics: Arc<Metrics>) -> Result<Self, TelemetryError> {
        let options = logs.options();
        let work = WriterThread { database, logs, metrics, options, retain: true, unchecked_bytes: 0, failing: false };
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || work.run());
        Ok(Self { thread: Mutex::new(Some(thread.map_err(TelemetryError::Thread)?)) })
    }

    /// Writes all waiting data and waits for the thread's end; concurrent callers wait as well.
    pub(super) fn stop(&self, logs: &Logs) {
        let mut thread = self.thread.lock();
        logs.queue().close();
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log writer panicked; the latest log lines and metrics are lost");
        }
    }
}

/// State of the thread.
struct WriterThread {
    database: WriteAccess,
    logs: Arc<Logs>,
    metrics: Arc<Metrics>,
    /// Options as of the latest batch.
    options: LogOptions,
    /// Whether there may be lines or minutes to delete.
    retain: bool,
    /// Bytes written since the database's size was last checked.
    unchecked_bytes: u64,
    /// Whether the latest write failed, so that one failure is logged only once.
    failing: bool,
}

impl Drop for WriterThread {
    /// Runs also on a panic: no thread may wait for a writer that is gone.
    fn drop(&mut self) {
        self.logs.queue().end();
    }
}

impl WriterThread {
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

    /// Writes a batch, passes it to the followers, and leaves an empty buffer.
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

    /// Runs an action on the database; if the database turns out to be damaged, replaces it and runs the action again.
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

    /// Handles damage found by readers, and files that other programs removed or replaced.
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
        // The move comes before the close, which could still change the file.
        file::set_aside(self.database.path(), error);
        self.reopen();
    }

    /// Closes every connection, and only then opens the database again: the last connection to close removes the files
    /// beside the database by their names. The writing connection closes last, since it first has to move the contents
    /// of the write-ahead log into the database. A failure to open shows at the next write.
    fn reopen(&mut self) {
        let _nobody_reads = [self.logs.reader().shut(), self.metrics.reader().shut()];
        self.database.close();
        let _ = self.database.database();
    }

    /// Logs when the database begins to fail and when it works again.
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

/// Makes the line that a function's log has in place of its dropped lines.
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
