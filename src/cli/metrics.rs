//! Counts and durations of a function, one row per version, or of all functions, one row each.

use super::error::CliError;
use super::print::{RED, styled, table};
use super::session::{Session, list};
use super::text;
use super::views::NO_FUNCTIONS;
use crate::model::Timestamp;
use crate::protocol::message::{ListRequest, MetricsFigures, MetricsRequest, MetricsResponse};
use clap::Args;
use clap::builder::PossibleValuesParser;

/// `levain metrics`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  levain metrics                   all functions\n  levain metrics hello --period 24h

A call is an error if it got no answer. Answers are counted by the class of their status."
)]
pub(super) struct Metrics {
    /// The function's name or id [default: all functions]
    name: Option<String>,
    /// Time span to look back over [default: 1h]
    #[arg(long, value_parser = PossibleValuesParser::new(["1m", "5m", "15m", "1h", "6h", "24h", "7d", "all"]))]
    period: Option<String>,
}

impl Metrics {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { name, period } = self;
        let Some(function_id) = name else { return of_all_functions(session, period).await };
        session.print(&MetricsRequest { function_id, period }, |it| metrics_text(it, Timestamp::now())).await
    }
}

/// Prints one row per function; as JSON, one line per function.
async fn of_all_functions(session: &mut Session, period: Option<String>) -> Result<(), CliError> {
    let client = session.client().await?;
    let mut all = Vec::new();
    for function in list(&client, ListRequest::default(), None).await?.functions {
        let request = MetricsRequest { function_id: function.function_id.to_string(), period: period.clone() };
        let metrics = client.call(&request).await?;
        if session.out.is_json {
            session.out.json(&metrics)?;
        }
        all.push(metrics);
    }
    if session.out.is_json { Ok(()) } else { session.out.text(&all_text(&all, Timestamp::now())) }
}

fn all_text(all: &[MetricsResponse], now: Timestamp) -> String {
    let Some(first) = all.first() else { return NO_FUNCTIONS.into() };
    let rows = all.iter().map(|it| row(&it.function, &it.total, now));
    format!("all functions, {}\n\n{}", period_text(&first.period), figures_table("FUNCTION", rows))
}

fn metrics_text(metrics: &MetricsResponse, now: Timestamp) -> String {
    let mut rows: Vec<_> = metrics.versions.iter().map(|it| row(it.version.as_str(), &it.figures, now)).collect();
    if rows.len() != 1 {
        rows.push(row("all", &metrics.total, now));
    }
    let head = format!("{}, {}", metrics.function, period_text(&metrics.period));
    let mut text = format!("{head}\n\n{}", figures_table("VERSION", rows));
    for (code, count) in &metrics.total.errors_by_code {
        text.push_str(&format!("{} {count}\n", styled(RED, code)));
    }
    text
}

fn period_text(period: &str) -> String {
    if period == "all" { "all time".into() } else { format!("last {period}") }
}

fn figures_table(of: &str, rows: impl IntoIterator<Item = [String; 16]>) -> String {
    let heads = [
        of, ">CALLS", ">ERRORS", ">2XX", ">3XX", ">4XX", ">5XX", ">COLD", ">MEAN", ">QUEUE", ">START", ">P50", ">P90",
        ">P99", ">MAX", "LAST",
    ];
    table(heads, rows)
}

fn row(of: &str, it: &MetricsFigures, now: Timestamp) -> [String; 16] {
    let class = |class: &str| it.answers_by_class.get(class).copied().unwrap_or(0);
    let [ok, redirects, client, server] = ["2xx", "3xx", "4xx", "5xx"].map(class).map(|it| it.to_string());
    let [calls, errors, cold] = [it.invocations, it.errors, it.cold_starts].map(|it| it.to_string());
    let [mean, queue, start] =
        [it.average_duration_ms, it.average_queue_ms, it.average_start_ms].map(text::duration_ms);
    let [p50, p90, p99, max] = [it.p50_ms, it.p90_ms, it.p99_ms, it.max_ms].map(text::duration_ms);
    let last = it.last_invoked.map_or_else(|| "-".into(), |last| text::age(last, now));
    let of = of.to_owned();
    [of, calls, errors, ok, redirects, client, server, cold, mean, queue, start, p50, p90, p99, max, last]
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::protocol::message::VersionMetrics;

    fn metrics() -> MetricsResponse {
        let figures = MetricsFigures {
            invocations: 10,
            errors: 1,
            errors_by_code: [("TIMEOUT".to_owned(), 1)].into(),
            answers_by_class: [("2xx".to_owned(), 7), ("5xx".to_owned(), 2)].into(),
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
        MetricsResponse {
            function: "hello".into(),
            period: "1h".into(),
            total: figures.clone(),
            versions: vec![VersionMetrics { version: "v1".parse().expect("a name"), figures }],
        }
    }

    #[test]
    fn each_version_has_its_own_row() {
        let expected = "\
hello, last 1h

VERSION  CALLS  ERRORS  2XX  3XX  4XX  5XX  COLD     MEAN   QUEUE   START      P50      P90      P99      MAX  LAST
v1          10       1    7    0    0    2     2  1.50 ms  250 µs  500 µs  1.00 ms  2.00 ms  30.0 ms  40.0 ms  3s ago
TIMEOUT 1
";
        assert_eq!(plain(&metrics_text(&metrics(), Timestamp::from_millis(3_000))), expected);
    }

    #[test]
    fn each_function_has_its_own_row() {
        let all = [MetricsResponse { period: "all".into(), ..metrics() }, metrics()];
        let text = plain(&all_text(&all, Timestamp::from_millis(3_000)));
        assert!(text.starts_with("all functions, all time\n\nFUNCTION  CALLS") && text.matches("hello").count() == 2);
    }
}
