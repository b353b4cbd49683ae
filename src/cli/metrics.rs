//! Counts and durations of a function, one row per version.

use super::error::CliError;
use super::print::{RED, styled, table};
use super::session::Session;
use super::text;
use crate::model::Timestamp;
use crate::protocol::message::{MetricsFigures, MetricsRequest, MetricsResponse};
use clap::Args;
use clap::builder::PossibleValuesParser;

/// `levain metrics`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  levain metrics hello --period 1h")]
pub(super) struct Metrics {
    /// The function's name or id
    name: String,
    /// Time span to look back over [default: 1h]
    #[arg(long, value_parser = PossibleValuesParser::new(["1m", "5m", "15m", "1h", "6h", "24h", "7d", "all"]))]
    period: Option<String>,
}

impl Metrics {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let response = session.call(&MetricsRequest { function_id: self.name, period: self.period }).await?;
        session.out.response(&response, |it| metrics_text(it, Timestamp::now()))
    }
}

fn metrics_text(metrics: &MetricsResponse, now: Timestamp) -> String {
    let row = |version: &str, it: &MetricsFigures| {
        let [mean, queue, start] =
            [it.average_duration_ms, it.average_queue_ms, it.average_start_ms].map(text::duration_ms);
        let [p50, p90, p99, max] = [it.p50_ms, it.p90_ms, it.p99_ms, it.max_ms].map(text::duration_ms);
        let last = it.last_invoked.map_or_else(|| "-".into(), |last| text::age(last, now));
        let counts = [it.invocations, it.errors, it.cold_starts].map(|count| count.to_string());
        let [invocations, errors, cold] = counts;
        [version.to_owned(), invocations, errors, cold, mean, queue, start, p50, p90, p99, max, last]
    };
    let heads =
        ["VERSION", ">CALLS", ">ERRORS", ">COLD", ">MEAN", ">QUEUE", ">START", ">P50", ">P90", ">P99", ">MAX", "LAST"];
    let mut rows: Vec<_> = metrics.versions.iter().map(|it| row(&it.version, &it.figures)).collect();
    if rows.len() != 1 {
        rows.push(row("all", &metrics.total));
    }
    let mut text = format!("{}, last {}\n\n{}", metrics.function, metrics.period, table(heads, rows));
    if metrics.period == "all" {
        text = text.replacen(", last all", ", all time", 1);
    }
    for (code, count) in &metrics.total.errors_by_code {
        text.push_str(&format!("{} {count}\n", styled(RED, code)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::protocol::message::VersionMetrics;

    #[test]
    fn each_version_has_its_own_row() {
        let figures = MetricsFigures {
            invocations: 10,
            errors: 1,
            errors_by_code: [("TIMEOUT".to_owned(), 1)].into(),
            average_duration_ms: 1.5,
            average_queue_ms: 0.25,
            average_start_ms: 0.5,
            p50_ms: 1.0,
            p90_ms: 2.0,
            p99_ms: 30.0,
            max_ms: 40.0,
            cold_starts: 2,
            last_invoked: Some(Timestamp::from_millis(0)),
        };
        let metrics = MetricsResponse {
            function: "hello".into(),
            period: "1h".into(),
            total: figures.clone(),
            versions: vec![VersionMetrics { version: "v1".into(), figures }],
        };
        let expected = "\
hello, last 1h

VERSION  CALLS  ERRORS  COLD     MEAN   QUEUE   START      P50      P90      P99      MAX  LAST
v1          10       1     2  1.50 ms  250 µs  500 µs  1.00 ms  2.00 ms  30.0 ms  40.0 ms  3s ago
TIMEOUT 1
";
        assert_eq!(plain(&metrics_text(&metrics, Timestamp::from_millis(3_000))), expected);
    }
}
