//! The text format of Prometheus, version 0.0.4.

use crate::telemetry::totals::{BOUNDS_US, Durations};
use std::fmt::{Display, Write};

/// Content type of the format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A value that only rises while the daemon runs.
    Counter,
    /// A current value.
    Gauge,
    /// Counts of observations up to each bound.
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric: samples with one name, told apart by their labels.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// A page in this format.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// Begins a family; its samples are added to the returned value.
    pub(super) fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, kind, help, .. } = family;
        // Names and help texts need no escaping; the test of the table checks that.
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name()));
        Samples { page: self, family }
    }

    /// Writes a family with one sample and no labels.
    pub(super) fn number(&mut self, family: &'static Family, value: impl Display) {
        self.family(family).add(&[], value);
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a text takes everything");
    }
}

/// Samples of one family.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    page: &'a mut Page,
    family: &'static Family,
}

impl Samples<'_> {
    /// Adds one sample. The label values are in the order of the family's labels.
    pub(super) fn add(&mut self, values: &[&str], value: impl Display) {
        self.line("", values, None, value);
    }

    /// Adds the lines of a histogram.
    pub(super) fn durations(&mut self, values: &[&str], durations: &Durations) {
        let mut count = 0;
        let bounds = BOUNDS_US.map(|us| seconds(us).to_string());
        for (index, in_bucket) in durations.counts.iter().enumerate() {
            count += in_bucket;
            self.line("_bucket", values, Some(bounds.get(index).map_or("+Inf", String::as_str)), count);
        }
        self.line("_sum", values, None, seconds(durations.sum_us));
        self.line("_count", values, None, count);
    }

    fn line(&mut self, suffix: &str, values: &[&str], bound: Option<&str>, value: impl Display) {
        debug_assert_eq!(values.len(), self.family.labels.len(), "{}", self.family.name);
        let labels = self.family.labels.iter().copied().zip(values.iter().copied());
        let mut separator = '{';
        self.page.push(format_args!("{}{suffix}", self.family.name));
        for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            self.page.push(format_args!("{separator}{name}=\""));
            escape(value, &mut self.page.0);
            self.page.0.push('"');
            separator = ',';
        }
        let end = if separator == ',' { "}" } else { "" };
        self.page.push(format_args!("{end} {value}\n"));
    }
}

/// Escapes a label's value: three characters could end it or its line.
fn escape(value: &str, into: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
}

/// Converts microseconds to seconds, the unit of the format.
pub(super) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    static FAMILY: Family = Family { name: "a_seconds", kind: Kind::Histogram, labels: &["b"], help: "c." };

    #[test]
    fn a_histogram_counts_up_to_all() {
        let mut durations = Durations::default();
        for ms in [1, 2, 100_000] {
            durations.record(Duration::from_millis(ms));
        }
        let mut page = Page::default();
        page.family(&FAMILY).durations(&["x"], &durations);
        let text = page.into_text();
        assert!(text.starts_with("# HELP a_seconds c.\n# TYPE a_seconds histogram\n"), "{text}");
        for line in [
            "a_seconds_bucket{b=\"x\",le=\"0.0005\"} 0",
            "a_seconds_bucket{b=\"x\",le=\"0.001\"} 1",
            "a_seconds_bucket{b=\"x\",le=\"60\"} 2",
            "a_seconds_bucket{b=\"x\",le=\"+Inf\"} 3",
            "a_seconds_sum{b=\"x\"} 100.003",
            "a_seconds_count{b=\"x\"} 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }

    #[test]
    fn a_hostile_label_stays_one() {
        let mut page = Page::default();
        page.family(&FAMILY).add(&["x\"} 9\nevil{a=\"\\"], 1);
        let text = page.into_text();
        assert_eq!(text.lines().nth(2), Some(r#"a_seconds{b="x\"} 9\nevil{a=\"\\"} 1"#));
        assert_eq!(text.lines().count(), 3);
    }
}
