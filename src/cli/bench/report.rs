//! Tally and report of a measurement.

use super::super::print::{GREEN, RED, facts, styled};
use super::super::text::duration_ms;
use crate::error::ErrorCode;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

const TAKES_ALL: &str = "a histogram that resizes itself takes every value";

/// Results of one loop, or of all loops together.
#[derive(Debug)]
pub(super) struct Tally {
    /// Durations of answered invocations in microseconds, as the client sees them.
    micros: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<ErrorCode, u64>,
    cold_starts: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let mut micros = Histogram::new(3).expect("three digits are within the bounds of a histogram");
        micros.auto(true);
        Self { micros, statuses: BTreeMap::new(), errors: BTreeMap::new(), cold_starts: 0 }
    }
}

impl Tally {
    /// Counts an invocation that the function answered.
    pub(super) fn answer(&mut self, took: Duration, status: u16, is_cold: bool) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.record(micros).expect(TAKES_ALL);
        *self.statuses.entry(status).or_default() += 1;
        self.cold_starts += u64::from(is_cold);
    }

    /// Counts an invocation that was refused or failed.
    pub(super) fn error(&mut self, code: ErrorCode) {
        *self.errors.entry(code).or_default() += 1;
    }

    /// Adds the results of another loop.
    pub(super) fn add(&mut self, other: &Self) {
        self.micros.add(&other.micros).expect(TAKES_ALL);
        other.statuses.iter().for_each(|(status, count)| *self.statuses.entry(*status).or_default() += count);
        other.errors.iter().for_each(|(code, count)| *self.errors.entry(*code).or_default() += count);
        self.cold_starts += other.cold_starts;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.micros.is_empty() && self.errors.is_empty()
    }

    /// Returns the most frequent error if no invocation was answered at all.
    pub(super) fn only_failures(&self) -> Option<ErrorCode> {
        let most = self.errors.iter().max_by_key(|(_, count)| **count);
        most.filter(|_| self.micros.is_empty()).map(|(code, _)| *code)
    }
}

/// The result, as `--json` prints it.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Report {
    seconds: f64,
    connections: u32,
    in_flight: u32,
    /// Invocations that the function answered.
    answers: u64,
    answers_per_second: f64,
    errors: u64,
    errors_by_code: BTreeMap<ErrorCode, u64>,
    statuses: BTreeMap<u16, u64>,
    cold_starts: u64,
    mean_ms: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

impl Report {
    pub(super) fn new(tally: &Tally, elapsed: Duration, connections: u32, in_flight: u32) -> Self {
        let quantile_ms = |quantile: f64| tally.micros.value_at_quantile(quantile) as f64 / 1000.0;
        let answers = tally.micros.len();
        Self {
            seconds: elapsed.as_secs_f64(),
            connections,
            in_flight,
            answers,
            answers_per_second: answers as f64 / elapsed.as_secs_f64().max(1e-6),
            errors: tally.errors.values().sum(),
            errors_by_code: tally.errors.clone(),
            statuses: tally.statuses.clone(),
            cold_starts: tally.cold_starts,
            mean_ms: tally.micros.mean() / 1000.0,
            p50_ms: quantile_ms(0.5),
            p90_ms: quantile_ms(0.9),
            p99_ms: quantile_ms(0.99),
            p999_ms: quantile_ms(0.999),
            max_ms: tally.micros.max() as f64 / 1000.0,
        }
    }

    pub(super) fn text(&self) -> String {
        let list = |entries: Vec<String>| entries.join(", ");
        let statuses = list(self.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect());
        let codes = list(self.errors_by_code.iter().map(|(code, count)| format!("{code}: {count}")).collect());
        let rate = styled(GREEN, format!("{:.0} answers a second", self.answers_per_second));
        let load = format!("{} connections x {} in flight", self.connections, self.in_flight);
        let head = format!("{rate}, {load}, {}\n", duration_ms(self.seconds * 1000.0));
        let mut text = head;
        text.push_str(&facts([
            ("answers", format!("{} ({statuses})", self.answers)),
            ("cold starts", self.cold_starts.to_string()),
            ("mean", duration_ms(self.mean_ms)),
            ("p50", duration_ms(self.p50_ms)),
            ("p90", duration_ms(self.p90_ms)),
            ("p99", duration_ms(self.p99_ms)),
            ("p99.9", duration_ms(self.p999_ms)),
            ("max", duration_ms(self.max_ms)),
        ]));
        if self.errors > 0 {
            text.push_str(&format!("{} ({codes})\n", styled(RED, format!("{} errors", self.errors))));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::print::plain;
    use super::*;

    #[test]
    fn the_report_adds_up_what_the_loops_saw() {
        let mut total = Tally::default();
        for ms in [1, 3] {
            let mut tally = Tally::default();
            tally.answer(Duration::from_millis(ms), 200, ms == 3);
            tally.error(ErrorCode::Overloaded);
            total.add(&tally);
        }
        assert_eq!(total.only_failures(), None);
        let report = Report::new(&total, Duration::from_secs(2), 2, 1);
        assert_eq!((report.answers, report.errors, report.cold_starts), (2, 2, 1));
        let expected = "\
1 answers a second, 2 connections x 1 in flight, 2.00 s
answers      2 (200: 2)
cold starts  1
mean         2.00 ms
p50          1.00 ms
p90          3.00 ms
p99          3.00 ms
p99.9        3.00 ms
max          3.00 ms
2 errors (OVERLOADED: 2)
";
        assert_eq!(plain(&report.text()), expected);
    }

    #[test]
    fn failures_alone_give_the_exit_code_of_the_most_frequent() {
        let mut tally = Tally::default();
        tally.error(ErrorCode::Overloaded);
        tally.error(ErrorCode::HandlerError);
        tally.error(ErrorCode::HandlerError);
        assert_eq!(tally.only_failures(), Some(ErrorCode::HandlerError));
    }
}
