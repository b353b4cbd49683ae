//! GET_METRICS.

use super::Context;
use super::{Caller, Command};
use crate::{
    error::Error,
    model::Timestamp,
    protocol::message::{MetricsFigures, MetricsRequest, MetricsResponse, VersionMetrics},
    telemetry::{Figures, Period},
};
use std::sync::Arc;

impl Command for MetricsRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<MetricsResponse, Error> {
        let entry = context.router.function(&self.function_id)?;
        let period: Period = match self.period.as_deref() {
            Some(period) => {
                period.parse().map_err(|error: crate::telemetry::PeriodError| Error::invalid(error.to_string()))?
            }
            None => Period::default(),
        };
        let id = entry.function.id;
        let report = context
            .blocking(move |context| Ok(context.telemetry.metrics().report(id, period, Timestamp::now())?))
            .await?;
        let versions = report
            .versions
            .into_iter()
            .map(|it| VersionMetrics { version: it.version.clone(), figures: figures(it.figures) });
        Ok(MetricsResponse {
            function: entry.function.name.to_string(),
            period: report.period.to_string(),
            total: figures(report.figures),
            versions: versions.collect(),
        })
    }
}

fn figures(figures: Figures) -> MetricsFigures {
    let errors_by_code = figures.errors_by_code.into_iter().map(|(code, count)| (code.to_string(), count)).collect();
    MetricsFigures {
        invocations: figures.invocations,
        errors: figures.errors,
        errors_by_code,
        answers_by_class: figures.answers_by_class,
        average_duration_ms: figures.average_duration_ms,
        p50_ms: figures.p50_ms,
        p90_ms: figures.p90_ms,
        p99_ms: figures.p99_ms,
        max_ms: figures.max_ms,
        average_queue_ms: figures.average_queue_ms,
        average_start_ms: figures.average_start_ms,
        cold_starts: figures.cold_starts,
        last_invoked: figures.last_invoked,
    }
}
