//! Helpers shared by the tests of this folder.

use super::{LogOptions, LogRecord, Observation, Stream, Telemetry};
use crate::model::{ColdStart, FunctionId, Timestamp, Timing, VersionId, VersionLabel};
use crate::protocol::worker::LogLevel;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Limits under which nothing happens by itself: a batch is written only on request or when it is full, and no line is
/// too old.
pub(super) fn patient() -> LogOptions {
    let (hour, century) = (Duration::from_secs(3_600), Duration::from_secs(100 * 365 * 86_400));
    LogOptions { flush_interval: hour, retention: century, ..LogOptions::default() }
}

/// Opens a database in a folder of its own; the caller must keep the folder.
pub(super) fn telemetry(options: LogOptions) -> (tempfile::TempDir, PathBuf, Telemetry) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("logs.db");
    let telemetry = Telemetry::open(&path, options).expect("opens");
    (folder, path, telemetry)
}

pub(super) fn label(text: &str) -> VersionLabel {
    text.parse().expect("a label")
}

/// Makes a console line at level info, logged now.
pub(super) fn line(function_id: FunctionId, message: impl Into<String>) -> LogRecord {
    LogRecord {
        at: Timestamp::now(),
        function_id,
        version: label("v1"),
        invocation: None,
        worker: 7,
        stream: Stream::Console,
        level: LogLevel::Info,
        message: message.into(),
    }
}

/// One version of one function, to be invoked.
pub(super) struct Callee {
    pub(super) function_id: FunctionId,
    pub(super) version_id: VersionId,
    pub(super) version: VersionLabel,
}

impl Callee {
    pub(super) fn new(function_id: FunctionId, version: &str) -> Self {
        Self { function_id, version_id: VersionId::new(), version: label(version) }
    }

    /// Makes a successful warm invocation.
    pub(super) fn call(&self, run_us: u64, at: Timestamp) -> Observation<'_> {
        Observation {
            function_id: self.function_id,
            version_id: self.version_id,
            version: &self.version,
            outcome: Ok(200),
            timing: warm(run_us),
            at,
        }
    }
}

pub(super) fn warm(run_us: u64) -> Timing {
    let run = Duration::from_micros(run_us);
    Timing { queue: Duration::ZERO, start: Duration::ZERO, run, cold_start: ColdStart::None }
}

/// Waits until a condition holds, for at most ten seconds.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(1));
    }
}
