//! Totals of a version since the daemon started, for scrapers: counts only rise, and durations fall into buckets with
//! fixed bounds.
//!
//! Pure: no clock, lock or database.

use super::minute::{CLASSES, count_class};
use crate::error::ErrorCode;
use crate::model::{ColdStart, FunctionId, Timestamp, Timing, VersionId, VersionLabel};
use std::collections::BTreeMap;
use std::time::Duration;

/// An invocation that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// Id of the function.
    pub function_id: FunctionId,
    /// Id of the invoked version.
    pub version_id: VersionId,
    /// Label of the version.
    pub version: &'a VersionLabel,
    /// Status of the answer, or the error code without one.
    pub outcome: Result<u16, ErrorCode>,
    /// Where the time went; a `run` of zero means that the invocation reached no worker.
    pub timing: Timing,
    /// Time at which the invocation ended.
    pub at: Timestamp,
}

/// Upper bounds of the buckets, in microseconds: from a warm invocation of a small function to the longest usual one.
/// Longer durations have a bucket of their own.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Histogram of durations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    /// Number of durations per bucket, not cumulative; the last bucket has no upper bound.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// Sum of the durations, in microseconds.
    pub sum_us: u64,
}

impl Durations {
    /// Adds a duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Invocations of a version since the daemon started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionTotals {
    /// Id of the function.
    pub function_id: FunctionId,
    /// Id of the version.
    pub version_id: VersionId,
    /// Label of the version.
    pub version: VersionLabel,
    /// Invocations that ended, successful or not.
    pub invocations: u64,
    /// Invocations that failed.
    pub errors: u64,
    /// Failed invocations by error code.
    pub errors_by_code: BTreeMap<ErrorCode, u64>,
    /// Answers by the class of their status, as in [`CLASSES`].
    pub answers: [u64; CLASSES.len()],
    /// Invocations without a start, with a prewarmed process, and with a spawn; see [`START_KINDS`].
    pub starts: [u64; 3],
    /// Waits for a free worker.
    pub queue: Durations,
    /// Waits for a worker to start, of the invocations that waited for one.
    pub start: Durations,
    /// Run times of the invocations that reached a worker.
    pub run: Durations,
}

/// Labels of the three numbers in [`VersionTotals::starts`].
pub const START_KINDS: [&str; 3] = ["warm", "prewarmed", "spawned"];

impl VersionTotals {
    pub(super) fn new(observation: &Observation<'_>) -> Self {
        Self {
            function_id: observation.function_id,
            version_id: observation.version_id,
            version: observation.version.clone(),
            invocations: 0,
            errors: 0,
            errors_by_code: BTreeMap::new(),
            answers: [0; CLASSES.len()],
            starts: [0; 3],
            queue: Durations::default(),
            start: Durations::default(),
            run: Durations::default(),
        }
    }

    pub(super) fn record(&mut self, observation: &Observation<'_>) {
        self.invocations += 1;
        match observation.outcome {
            Ok(status) => count_class(&mut self.answers, status),
            Err(code) => {
                self.errors += 1;
                *self.errors_by_code.entry(code).or_default() += 1;
            }
        }
        let timing = &observation.timing;
        self.queue.record(timing.queue);
        // A refused invocation has neither a start nor a run.
        if timing.run.is_zero() {
            return;
        }
        self.run.record(timing.run);
        let kind = match timing.cold_start {
            ColdStart::None => 0,
            ColdStart::Prewarmed => 1,
            ColdStart::Spawned => 2,
        };
        self.starts[kind] += 1;
        if kind > 0 {
            self.start.record(timing.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Timestamp, Timing};

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_pass() {
        let mut durations = Durations::default();
        for us in [0, 500, 501, 60_000_000, 60_000_001, 1 << 40] {
            durations.record(Duration::from_micros(us));
        }
        assert_eq!(
            (durations.counts[0], durations.counts[1], durations.counts[15], durations.counts[16]),
            (2, 1, 1, 2)
        );
        assert_eq!((durations.count(), durations.sum_us), (6, 120_001_002 + (1 << 40)));
    }

    #[test]
    fn a_call_counts_for_what_it_came_to() {
        let version = "v1".parse().expect("a label");
        let of = |outcome, run_ms, cold_start| Observation {
            function_id: FunctionId::new(),
            version_id: VersionId::new(),
            version: &version,
            outcome,
            timing: Timing {
                queue: Duration::from_millis(1),
                start: Duration::from_millis(7),
                run: Duration::from_millis(run_ms),
                cold_start,
            },
            at: Timestamp::now(),
        };
        let mut totals = VersionTotals::new(&of(Ok(200), 1, ColdStart::None));
        totals.record(&of(Ok(404), 3, ColdStart::None));
        totals.record(&of(Ok(200), 3, ColdStart::Prewarmed));
        totals.record(&of(Err(ErrorCode::Timeout), 3, ColdStart::Spawned));
        totals.record(&of(Err(ErrorCode::Overloaded), 0, ColdStart::None));
        assert_eq!((totals.invocations, totals.errors, totals.starts), (4, 2, [1, 1, 1]));
        assert_eq!(totals.answers, [1, 0, 1, 0]);
        assert_eq!((totals.queue.count(), totals.start.count(), totals.run.count()), (4, 2, 3));
        assert_eq!(totals.errors_by_code, [(ErrorCode::Timeout, 1), (ErrorCode::Overloaded, 1)].into());
    }
}
