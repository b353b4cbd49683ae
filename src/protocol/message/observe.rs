//! What functions log and how they do: GET_LOGS and GET_METRICS.

use crate::{
    model::{InvocationId, Timestamp, VersionLabel},
    protocol::worker::LogLevel,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

requests! {
    /// GET_LOGS.
    LogsRequest {
        /// Id or name; a qualifier may follow after a colon.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Only lines of the version that this alias, label or number means now; all versions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        qualifier: Option<String>,
        /// Lines at most; 100 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 10_000))]
        limit: Option<u32>,
        /// Lines to skip, counted from the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u32>,
        /// The `next_cursor` of the page before, for older lines, instead of `offset`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// The least level.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        level: Option<LogLevel>,
        /// Only this invocation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<InvocationId>")]
        execution_id: Option<String>,
        /// Not older than this: a time, or an age such as `15m`.
        #[serde(default, alias = "start_date", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Timestamp>")]
        since: Option<String>,
        /// Not newer than this.
        #[serde(default, alias = "until", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Timestamp>")]
        end_date: Option<String>,
        /// Whether new lines follow in partial frames until the client disconnects.
        #[serde(default)]
        follow: bool,
    }
    /// GET_METRICS.
    MetricsRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// `1m`, `5m`, `15m`, `1h`, `6h`, `24h`, `7d` or `all`; `1h` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^(1m|5m|15m|1h|6h|24h|7d|all)$"))]
        period: Option<String>,
    }
}

messages! {
    /// One log line.
    LogLine {
        /// When it was written.
        timestamp: Timestamp,
        /// `debug`, `info`, `warn` or `error`.
        level: LogLevel,
        /// `console`, `stdout`, `stderr`, or `system` for the daemon's own words.
        stream: String,
        /// The text.
        message: String,
        /// The version that wrote it.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The invocation it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<InvocationId>")]
        execution_id: Option<String>,
    }
    /// GET_LOGS. Lines are oldest first. While following, each partial frame is one of these too.
    LogsResponse {
        /// The lines.
        logs: Vec<LogLine>,
        /// How many there are besides paging.
        total: u64,
        /// Lines the daemon dropped since its start because the function wrote faster than they could be kept.
        dropped: u64,
        /// What asks for the next page, of older lines, as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    /// GET_METRICS, for the function as a whole.
    MetricsResponse {
        /// The function's name.
        function: String,
        /// The period the figures are about.
        period: String,
        /// All versions together.
        #[serde(flatten)]
        total: MetricsFigures,
        /// Each version by itself.
        versions: Vec<VersionMetrics>,
    }
    /// GET_METRICS, for one version.
    VersionMetrics {
        /// The label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// Its figures.
        #[serde(flatten)]
        figures: MetricsFigures,
    }
    /// Counts and durations.
    MetricsFigures {
        /// Invocations that ended.
        invocations: u64,
        /// Those that ended in an error.
        errors: u64,
        /// Errors by their code.
        errors_by_code: BTreeMap<String, u64>,
        /// Mean run time of those that reached a worker; the percentiles are of the same.
        average_duration_ms: f64,
        /// Median.
        p50_ms: f64,
        /// 90th percentile.
        p90_ms: f64,
        /// 99th percentile.
        p99_ms: f64,
        /// The longest.
        max_ms: f64,
        /// Mean wait for a free worker.
        average_queue_ms: f64,
        /// Mean wait for a start, of those that waited for one.
        average_start_ms: f64,
        /// Invocations that waited for a worker's start.
        cold_starts: u64,
        /// The last one.
        last_invoked: Option<Timestamp>,
    }
}
