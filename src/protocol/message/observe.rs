//! Messages of GET_LOGS and GET_METRICS.

use crate::{
    model::{InvocationId, Timestamp, VersionLabel},
    protocol::worker::LogLevel,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

requests! {
    /// GET_LOGS.
    LogsRequest {
        /// The function's id or name, optionally with a qualifier after a colon: `hello:STAGING`. All functions when
        /// absent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        function_id: String,
        /// Only lines of one version: the current target of an alias, a label or a number. All versions when absent.
        qualifier?: String,
        /// Most lines in the answer; 100 when absent.
        #[schemars(range(min = 1, max = 10_000))]
        limit?: u32,
        /// Number of lines to skip, from the newest.
        offset?: u32,
        /// The `next_cursor` of the previous page, for older lines, instead of `offset`.
        cursor?: String,
        /// Lowest level of the lines.
        level?: LogLevel,
        /// Only lines of this invocation.
        #[schemars(with = "Option<InvocationId>")]
        execution_id?: String,
        /// Only lines since this time, or of this age at most, such as `15m`.
        #[serde(default, alias = "start_date", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Timestamp>")]
        since: Option<String>,
        /// Only lines up to this time.
        #[serde(default, alias = "until", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Timestamp>")]
        end_date: Option<String>,
        /// Whether new lines are sent in partial frames until the client disconnects.
        #[serde(default)]
        follow: bool,
    }
    /// GET_METRICS.
    MetricsRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// `1m`, `5m`, `15m`, `1h`, `6h`, `24h`, `7d` or `all`; `1h` when absent.
        #[schemars(regex(pattern = "^(1m|5m|15m|1h|6h|24h|7d|all)$"))]
        period?: String,
    }
}

messages! {
    /// One log line.
    LogLine {
        /// When the line was written.
        timestamp: Timestamp,
        /// `debug`, `info`, `warn` or `error`.
        level: LogLevel,
        /// `console`, `stdout` or `stderr`; `system` for lines of the daemon.
        stream: String,
        /// Text of the line.
        message: String,
        /// Name of the function that wrote it.
        #[serde(default)]
        function: String,
        /// Label of the version that wrote it.
        version: VersionLabel,
        /// Id of the invocation that it belongs to.
        execution_id?: InvocationId,
    }
    /// GET_LOGS. Lines are ordered from the oldest to the newest. With `follow`, each partial frame has this form too.
    LogsResponse {
        /// Log lines.
        logs: Vec<LogLine>,
        /// Number of lines on all pages together.
        total: u64,
        /// Number of lines that the daemon has dropped since its start because the function wrote them faster than they
        /// could be stored.
        dropped: u64,
        /// The `cursor` of the next page, of older lines; absent on the last page.
        next_cursor?: String,
    }
    /// GET_METRICS, for the function as a whole.
    MetricsResponse {
        /// Name of the function.
        function: String,
        /// Period that the figures cover.
        period: String,
        /// Figures of all versions together.
        #[serde(flatten)]
        total: MetricsFigures,
        /// Figures of each version.
        versions: Vec<VersionMetrics>,
    }
    /// GET_METRICS, for one version.
    VersionMetrics {
        /// Label of the version.
        version: VersionLabel,
        /// Figures of the version.
        #[serde(flatten)]
        figures: MetricsFigures,
    }
    /// Counts and durations of invocations.
    MetricsFigures {
        /// Number of invocations that ended.
        invocations: u64,
        /// Number of invocations that ended in an error.
        errors: u64,
        /// Number of errors by code.
        errors_by_code: BTreeMap<String, u64>,
        /// Number of answers by the class of their status: `2xx`, `3xx`, `4xx`, `5xx`. An answer is no error, whatever
        /// its status.
        #[serde(default)]
        answers_by_class: BTreeMap<String, u64>,
        /// Mean run time of the invocations that reached a worker, in milliseconds. The percentiles cover the same
        /// invocations.
        average_duration_ms: f64,
        /// Median run time, in milliseconds.
        p50_ms: f64,
        /// 90th percentile of the run time, in milliseconds.
        p90_ms: f64,
        /// 99th percentile of the run time, in milliseconds.
        p99_ms: f64,
        /// Longest run time, in milliseconds.
        max_ms: f64,
        /// Mean wait for a free worker, in milliseconds.
        average_queue_ms: f64,
        /// Mean wait for a worker to start, of the invocations that waited for one, in milliseconds.
        average_start_ms: f64,
        /// Number of invocations that waited for a worker to start.
        cold_starts: u64,
        /// When the last invocation ended.
        last_invoked: Option<Timestamp>,
    }
}
