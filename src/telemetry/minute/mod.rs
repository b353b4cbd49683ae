//! Counts of one version's invocations: for one minute, as a row, and summed up for a report.
//!
//! Pure: no clock, lock or database. A [`Minute`] records invocations and becomes a [`MinuteRow`] when it is over; rows
//! add up in a [`MinuteSum`], which computes the [`Figures`]. Percentiles come from the histogram of all invocations in
//! question, never from other percentiles.

use crate::error::ErrorCode;
use crate::model::{ColdStart, FunctionId, Timestamp, Timing, VersionId, VersionLabel};
use hdrhistogram::{Counter, Histogram};
use std::collections::BTreeMap;
use std::time::Duration;

/// Precision of the histograms: durations are kept to within 1 %.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Cap on recorded durations. Ten days, far over the longest timeout, bound a histogram to 18 KiB.
const DURATION_US_MAX: u64 = 10 * 86_400 * 1_000_000;

/// Classes of statuses that answers may have.
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Counts an answer for the class of its status.
pub(super) fn count_class(answers: &mut [u64; CLASSES.len()], status: u16) {
    if let Some(count) = usize::from(status / 100).checked_sub(2).and_then(|class| answers.get_mut(class)) {
        *count += 1;
    }
}

/// The counts of the classes that occurred.
fn by_class(answers: &[u64; CLASSES.len()]) -> BTreeMap<&'static str, u64> {
    CLASSES.into_iter().zip(*answers).filter(|(_, count)| *count > 0).collect()
}

/// Returns the minute of a time, counted from the Unix epoch.
pub(super) fn minute_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(60_000)
}

fn histogram<C: Counter>() -> Histogram<C> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("2 is within the 0 to 5 digits there may be")
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(DURATION_US_MAX)
}

/// Invocations of one version in one minute.
#[derive(Debug)]
pub(super) struct Minute {
    /// Number of the minute, counted from the Unix epoch.
    pub(super) minute: i64,
    invocations: u64,
    errors_by_code: BTreeMap<ErrorCode, u64>,
    /// Answers by class, as in [`CLASSES`].
    answers: [u64; CLASSES.len()],
    cold_starts_by_kind: BTreeMap<&'static str, u64>,
    queue_us_sum: u64,
    start_us_sum: u64,
    run_us_sum: u64,
    run_us_max: u64,
    /// A minute's counts fit 32 bits, which halves the memory of an active version to about 7 KiB.
    runs_us: Histogram<u32>,
    last_at: Timestamp,
}

impl Minute {
    pub(super) fn new(minute: i64) -> Self {
        Self {
            minute,
            invocations: 0,
            errors_by_code: BTreeMap::new(),
            answers: [0; CLASSES.len()],
            cold_starts_by_kind: BTreeMap::new(),
            queue_us_sum: 0,
            start_us_sum: 0,
            run_us_sum: 0,
            run_us_max: 0,
            runs_us: histogram(),
            last_at: Timestamp::from_millis(minute.saturating_mul(60_000)),
        }
    }

    pub(super) fn record(&mut self, outcome: Result<u16, ErrorCode>, timing: &Timing, at: Timestamp) {
        self.invocations += 1;
        match outcome {
            Ok(status) => count_class(&mut self.answers, status),
            Err(code) => *self.errors_by_code.entry(code).or_default() += 1,
        }
        match timing.cold_start {
            ColdStart::None => {}
            ColdStart::Prewarmed => *self.cold_starts_by_kind.entry("prewarmed").or_default() += 1,
            ColdStart::Spawned => *self.cold_starts_by_kind.entry("spawned").or_default() += 1,
        }
        self.queue_us_sum += microseconds(timing.queue);
        self.start_us_sum += microseconds(timing.start);
        // A refused invocation has no duration: a zero would make the others look faster.
        if !timing.run.is_zero() {
            let run_us = microseconds(timing.run).max(1);
            self.run_us_sum += run_us;
            self.run_us_max = self.run_us_max.max(run_us);
            self.runs_us.record(run_us).expect("it resizes itself, and the duration is bounded");
        }
        self.last_at = self.last_at.max(at);
    }

    /// Returns the row to write for the given version.
    pub(super) fn row(&self, function_id: FunctionId, version_id: VersionId, version: &VersionLabel) -> MinuteRow {
        let json = "a map with text keys";
        MinuteRow {
            function_id,
            version_id,
            version: version.clone(),
            minute: self.minute,
            invocations: self.invocations,
            errors_by_code: serde_json::to_string(&self.errors_by_code).expect(json),
            answers_by_class: serde_json::to_string(&by_class(&self.answers)).expect(json),
            cold_starts_by_kind: serde_json::to_string(&self.cold_starts_by_kind).expect(json),
            queue_us_sum: self.queue_us_sum,
            start_us_sum: self.start_us_sum,
            run_us_sum: self.run_us_sum,
            run_us_max: self.run_us_max,
            run_histogram: encode(&self.runs_us),
            last_at: self.last_at,
        }
    }
}

/// A minute as the database stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MinuteRow {
    pub(super) function_id: FunctionId,
    pub(super) version_id: VersionId,
    pub(super) version: VersionLabel,
    /// Number of the minute, counted from the Unix epoch.
    pub(super) minute: i64,
    pub(super) invocations: u64,
    /// JSON object from code to count.
    pub(super) errors_by_code: String,
    /// JSON object from class to count.
    pub(super) answers_by_class: String,
    /// JSON object from kind to count.
    pub(super) cold_starts_by_kind: String,
    pub(super) queue_us_sum: u64,
    pub(super) start_us_sum: u64,
    pub(super) run_us_sum: u64,
    pub(super) run_us_max: u64,
    /// Encoded histogram of run times; see [`encode`].
    pub(super) run_histogram: Vec<u8>,
    pub(super) last_at: Timestamp,
}

/// The sum of any number of rows.
#[derive(Debug)]
pub(super) struct MinuteSum {
    figures: Figures,
    queue_us_sum: u64,
    start_us_sum: u64,
    run_us_sum: u64,
    run_us_max: u64,
    runs_us: Histogram<u64>,
}

impl MinuteSum {
    pub(super) fn new() -> Self {
        Self {
            figures: Figures::default(),
            queue_us_sum: 0,
            start_us_sum: 0,
            run_us_sum: 0,
            run_us_max: 0,
            runs_us: histogram(),
        }
    }

    pub(super) fn add(&mut self, row: &MinuteRow) {
        let figures = &mut self.figures;
        figures.invocations += row.invocations;
        for (text, count) in counts(&row.errors_by_code) {
            figures.errors += count;
            // A code that only another version of the daemon knows counts as an error without a code.
            if let Some(&code) = ErrorCode::ALL.iter().find(|code| code.as_str() == text) {
                *figures.errors_by_code.entry(code).or_default() += count;
            }
        }
        for (class, count) in counts(&row.answers_by_class) {
            *figures.answers_by_class.entry(class).or_default() += count;
        }
        for (kind, count) in counts(&row.cold_starts_by_kind) {
            figures.cold_starts += count;
            *figures.cold_starts_by_kind.entry(kind).or_default() += count;
        }
        figures.last_invoked = figures.last_invoked.max(Some(row.last_at));
        self.queue_us_sum = self.queue_us_sum.saturating_add(row.queue_us_sum);
        self.start_us_sum = self.start_us_sum.saturating_add(row.start_us_sum);
        self.run_us_sum = self.run_us_sum.saturating_add(row.run_us_sum);
        self.run_us_max = self.run_us_max.max(row.run_us_max);
        decode(&row.run_histogram, &mut self.runs_us);
    }

    pub(super) fn figures(self) -> Figures {
        let average = |sum_us: u64, count: u64| if count == 0 { 0.0 } else { sum_us as f64 / count as f64 / 1_000.0 };
        // A histogram's value is the upper end of its bucket, which may lie above the longest recorded duration.
        let quantile = |it| self.runs_us.value_at_quantile(it).min(self.run_us_max) as f64 / 1_000.0;
        Figures {
            average_duration_ms: average(self.run_us_sum, self.runs_us.len()),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            max_ms: self.run_us_max as f64 / 1_000.0,
            average_queue_ms: average(self.queue_us_sum, self.figures.invocations),
            average_start_ms: average(self.start_us_sum, self.figures.cold_starts),
            ..self.figures
        }
    }
}

/// Metrics of a function or of one of its versions. Durations are in milliseconds, and 0 if nothing was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Invocations that ended, successful or not.
    pub invocations: u64,
    /// Invocations that failed.
    pub errors: u64,
    /// Failed invocations by error code.
    pub errors_by_code: BTreeMap<ErrorCode, u64>,
    /// Answers by the class of their status, such as `2xx`.
    pub answers_by_class: BTreeMap<String, u64>,
    /// Mean run time of the invocations that reached a worker.
    pub average_duration_ms: f64,
    /// Median run time of those invocations, to within 1 %.
    pub p50_ms: f64,
    /// Run time that 90 % of them do not exceed, to within 1 %.
    pub p90_ms: f64,
    /// Run time that 99 % of them do not exceed, to within 1 %.
    pub p99_ms: f64,
    /// Longest run time, exact.
    pub max_ms: f64,
    /// Mean wait for a free worker, over all invocations.
    pub average_queue_ms: f64,
    /// Mean wait for a worker to start, over the invocations that waited for one.
    pub average_start_ms: f64,
    /// Invocations that waited for a worker to start.
    pub cold_starts: u64,
    /// Cold starts by kind, such as `spawned`.
    pub cold_starts_by_kind: BTreeMap<String, u64>,
    /// Time at which the latest invocation ended.
    pub last_invoked: Option<Timestamp>,
}

/// Parses the counts of a JSON object; any other text gives an empty map.
fn counts(json: &str) -> BTreeMap<String, u64> {
    serde_json::from_str(json).unwrap_or_default()
}

/// Encodes a histogram as pairs of LEB128 numbers: the distance of each recorded value from the one before, and its
/// count. Independent of the histogram's precision and of the crate's own layout.
fn encode(histogram: &Histogram<u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |mut number: u64| {
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    };
    let mut last = 0;
    for step in histogram.iter_recorded() {
        put(step.value_iterated_to() - last);
        put(step.count_at_value().into());
        last = step.value_iterated_to();
    }
    bytes
}

/// Adds an encoded histogram to another one; stops at bytes that make no sense.
fn decode(bytes: &[u8], into: &mut Histogram<u64>) {
    let mut bytes = bytes.iter();
    let mut take = || {
        let mut number: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = *bytes.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    };
    let mut value: u64 = 0;
    while let (Some(further), Some(count)) = (take(), take()) {
        value = value.saturating_add(further).min(DURATION_US_MAX);
        into.record_n(value, count).expect("it resizes itself, and the value is bounded");
    }
}

#[cfg(test)]
mod tests;
