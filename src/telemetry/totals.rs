//! What is counted about a version since the daemon started, for whoever scrapes: counts only rise, and durations fall
//! into buckets with fixed bounds.
//!
//! Pure: no clock, lock or database.

use super::metrics::Observation;
use crate::error::ErrorCode;
use crate::model::{ColdStart, FunctionId, VersionId, VersionLabel};
use std::collections::BTreeMap;
use std::time::Duration;

/// Upper ends of the buckets, in microseconds: from a warm call of a small function to the longest that is usual. What
/// is longer has a bucket of its own.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// Durations in buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many fell into each bucket, and not into one before it; the last one has no upper end.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Durations {
    /// Takes one in.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// A version's calls since the daemon started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionTotals {
    /// The function.
    pub function_id: FunctionId,
    /// The version.
    pub version_id: VersionId,
    /// Its label.
    pub version: VersionLabel,
    /// Calls that ended, well or not.
    pub invocations: u64,
    /// Calls that failed.
    pub errors: u64,
    /// The same by what was wrong.
    pub errors_by_code: BTreeMap<ErrorCode, u64>,
    /// Calls that waited for no start, for the claim of a prewarmed process, for a spawn.
    pub starts: [u64; 3],
    /// Waits for a worker to be free.
    pub queue: Durations,
    /// Waits for a worker to start, of the calls that waited for one.
    pub start: Durations,
    /// Runs, of the calls that reached a worker.
    pub run: Durations,
}

/// What the three numbers of [`VersionTotals::starts`] are about.
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
            starts: [0; 3],
            queue: Durations::default(),
            start: Durations::default(),
            run: Durations::default(),
        }
    }

    pub(super) fn record(&mut self, observation: &Observation<'_>) {
        self.invocations += 1;
        if let Some(code) = observation.code {
            self.errors += 1;
            *self.errors_by_code.entry(code).or_default() += 1;
        }
        let timing = &observation.timing;
        self.queue.record(timing.queue);
        // A call that was refused has neither started nor run anything.
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
        let of = |code, run_ms, cold_start| Observation {
            function_id: FunctionId::new(),
            version_id: VersionId::new(),
            version: &version,
            code,
            timing: Timing {
                queue: Duration::from_millis(1),
                start: Duration::from_millis(7),
                run: Duration::from_millis(run_ms),
                cold_start,
            },
            at: Timestamp::now(),
        };
        let mut totals = VersionTotals::new(&of(None, 1, ColdStart::None));
        totals.record(&of(None, 3, ColdStart::None));
        totals.record(&of(None, 3, ColdStart::Prewarmed));
        totals.record(&of(Some(ErrorCode::Timeout), 3, ColdStart::Spawned));
        totals.record(&of(Some(ErrorCode::Overloaded), 0, ColdStart::None));
        assert_eq!((totals.invocations, totals.errors, totals.starts), (4, 2, [1, 1, 1]));
        assert_eq!((totals.queue.count(), totals.start.count(), totals.run.count()), (4, 2, 3));
        assert_eq!(totals.errors_by_code, [(ErrorCode::Timeout, 1), (ErrorCode::Overloaded, 1)].into());
    }
}
