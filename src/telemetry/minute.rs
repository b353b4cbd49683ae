//! What is counted about the calls of one version: in one minute, as a row, and summed up for a report.
//!
//! Pure: no clock, lock or database. A [`Minute`] takes calls, becomes a [`MinuteRow`] when it is over, and rows add up
//! in a [`Tally`], which knows the [`Figures`]. Percentiles come from the histogram of all calls they are about, never
//! from other percentiles.

use crate::error::ErrorCode;
use crate::model::{ColdStart, FunctionId, Timestamp, Timing, VersionId, VersionLabel};
use hdrhistogram::{Counter, Histogram};
use std::collections::BTreeMap;
use std::time::Duration;

/// Precision of the histograms: a duration is kept to within 1 %.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Longer durations count as this long: ten days, far over the longest timeout, bound a histogram to 18 KiB.
const DURATION_US_MAX: u64 = 10 * 86_400 * 1_000_000;

/// The minute a time falls in, counted from the Unix epoch.
pub(super) fn minute_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(60_000)
}

fn histogram<C: Counter>() -> Histogram<C> {
    Histogram::new(SIGNIFICANT_DIGITS).expect("2 is within the 0 to 5 digits there may be")
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(DURATION_US_MAX)
}

/// The calls of one version in one minute.
#[derive(Debug)]
pub(super) struct Minute {
    /// Which one, counted from the Unix epoch.
    pub(super) minute: i64,
    invocations: u64,
    errors_by_code: BTreeMap<ErrorCode, u64>,
    cold_starts_by_kind: BTreeMap<&'static str, u64>,
    queue_us_sum: u64,
    start_us_sum: u64,
    run_us_sum: u64,
    run_us_max: u64,
    /// A minute's counts fit 32 bits, which halves what an active version takes in memory: about 7 KiB.
    runs_us: Histogram<u32>,
    last_at: Timestamp,
}

impl Minute {
    pub(super) fn new(minute: i64) -> Self {
        Self {
            minute,
            invocations: 0,
            errors_by_code: BTreeMap::new(),
            cold_starts_by_kind: BTreeMap::new(),
            queue_us_sum: 0,
            start_us_sum: 0,
            run_us_sum: 0,
            run_us_max: 0,
            runs_us: histogram(),
            last_at: Timestamp::from_millis(minute.saturating_mul(60_000)),
        }
    }

    pub(super) fn record(&mut self, code: Option<ErrorCode>, timing: &Timing, at: Timestamp) {
        self.invocations += 1;
        if let Some(code) = code {
            *self.errors_by_code.entry(code).or_default() += 1;
        }
        match timing.cold_start {
            ColdStart::None => {}
            ColdStart::Prewarmed => *self.cold_starts_by_kind.entry("prewarmed").or_default() += 1,
            ColdStart::Spawned => *self.cold_starts_by_kind.entry("spawned").or_default() += 1,
        }
        self.queue_us_sum += microseconds(timing.queue);
        self.start_us_sum += microseconds(timing.start);
        // A call that was refused has no duration: as a zero it would make the others look faster.
        if !timing.run.is_zero() {
            let run_us = microseconds(timing.run).max(1);
            self.run_us_sum += run_us;
            self.run_us_max = self.run_us_max.max(run_us);
            self.runs_us.record(run_us).expect("it resizes itself, and the duration is bounded");
        }
        self.last_at = self.last_at.max(at);
    }

    /// The minute as it is written, of the given version.
    pub(super) fn row(&self, function_id: FunctionId, version_id: VersionId, version: &VersionLabel) -> MinuteRow {
        let json = "a map with text keys";
        MinuteRow {
            function_id,
            version_id,
            version: version.clone(),
            minute: self.minute,
            invocations: self.invocations,
            errors_by_code: serde_json::to_string(&self.errors_by_code).expect(json),
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

/// A minute as the database keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MinuteRow {
    pub(super) function_id: FunctionId,
    pub(super) version_id: VersionId,
    pub(super) version: VersionLabel,
    /// Counted from the Unix epoch.
    pub(super) minute: i64,
    pub(super) invocations: u64,
    /// A JSON object from code to count.
    pub(super) errors_by_code: String,
    /// A JSON object from kind to count.
    pub(super) cold_starts_by_kind: String,
    pub(super) queue_us_sum: u64,
    pub(super) start_us_sum: u64,
    pub(super) run_us_sum: u64,
    pub(super) run_us_max: u64,
    /// See [`encode`].
    pub(super) run_histogram: Vec<u8>,
    pub(super) last_at: Timestamp,
}

/// The sum of any number of rows.
#[derive(Debug)]
pub(super) struct Tally {
    figures: Figures,
    queue_us_sum: u64,
    start_us_sum: u64,
    run_us_sum: u64,
    run_us_max: u64,
    runs_us: Histogram<u64>,
}

impl Tally {
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
            // A code that only another version of the daemon knows is an error without a code here.
            if let Some(&code) = ErrorCode::ALL.iter().find(|code| code.as_str() == text) {
                *figures.errors_by_code.entry(code).or_default() += count;
            }
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
        // A histogram's value is the upper end of its bucket, which may lie above the longest duration there was.
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

/// What a report says about a function or about one of its versions. Durations are in milliseconds, and 0 where there
/// is nothing to measure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Calls that ended, well or not.
    pub invocations: u64,
    /// Calls that failed.
    pub errors: u64,
    /// The same by what was wrong.
    pub errors_by_code: BTreeMap<ErrorCode, u64>,
    /// Mean run time of the calls that reached a worker.
    pub average_duration_ms: f64,
    /// Half of those calls ran at most this long, to within 1 %.
    pub p50_ms: f64,
    /// Nine in ten ran at most this long, to within 1 %.
    pub p90_ms: f64,
    /// 99 in 100 ran at most this long, to within 1 %.
    pub p99_ms: f64,
    /// The longest run, exactly.
    pub max_ms: f64,
    /// Mean wait for a free worker, over all calls.
    pub average_queue_ms: f64,
    /// Mean wait for a worker to start, over the calls that waited for one.
    pub average_start_ms: f64,
    /// Calls that waited for a worker to start.
    pub cold_starts: u64,
    /// The same by kind of start, such as `spawned`.
    pub cold_starts_by_kind: BTreeMap<String, u64>,
    /// When the latest call ended.
    pub last_invoked: Option<Timestamp>,
}

/// The counts of a JSON object; what is not one has none.
fn counts(json: &str) -> BTreeMap<String, u64> {
    serde_json::from_str(json).unwrap_or_default()
}

/// A histogram as pairs of numbers in LEB128: how far the next recorded value is from the one before, and its count.
/// Depends neither on the histogram's precision nor on the crate's own layout.
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

/// Adds an encoded histogram to another one; where the bytes make no sense it stops.
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
