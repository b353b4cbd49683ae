//! All metric families: `/metrics` and the table in `docs/metrics.md` are made from this table.

use super::text::{Family, Kind};

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) static $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every family, in the order of the page.
        #[cfg(test)]
        pub(super) static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD = Gauge "levain_build_info" ["version", "bun_version", "sandbox"]
        "1, with the versions of the daemon and of Bun and the level of isolation.";
    READY = Gauge "levain_ready" []
        "1 while /ready answers 200, else 0.";
    FUNCTIONS = Gauge "levain_functions" []
        "Functions that are not deleted.";
    VERSIONS = Gauge "levain_versions" []
        "Versions of these functions.";
    VERSIONS_OMITTED = Gauge "levain_metrics_versions_omitted" []
        "Invoked versions that are left out here because of http.metrics_versions_max.";
    INVOCATIONS = Counter "levain_invocations_total" ["function", "version", "code"]
        "Invocations that ended, by error code; OK if there was none.";
    ANSWERS = Counter "levain_answers_total" ["function", "version", "class"]
        "Answers of functions, by the class of their status: 2xx, 3xx, 4xx or 5xx.";
    DURATION = Histogram "levain_invocation_duration_seconds" ["function", "version"]
        "Time in the function until the last byte of its answer, for invocations that reached a worker.";
    QUEUE = Histogram "levain_invocation_queue_seconds" ["function", "version"]
        "Time waiting for a free worker.";
    START = Histogram "levain_invocation_start_seconds" ["function", "version"]
        "Time waiting for a worker to start, for invocations that waited for one.";
    STARTS = Counter "levain_invocation_starts_total" ["function", "version", "kind"]
        "Invocations that reached a worker: warm, prewarmed (a prewarmed process was claimed) or spawned.";
    WORKERS = Gauge "levain_workers" ["function", "version", "environment", "state"]
        "Workers by state: starting, idle, busy, retiring or stopping.";
    RUNNING = Gauge "levain_invocations_running" ["function", "version", "environment"]
        "Invocations that are running.";
    QUEUED = Gauge "levain_invocations_queued" ["function", "version", "environment"]
        "Invocations that wait for a worker.";
    WANTED = Gauge "levain_workers_wanted" ["function", "version", "environment"]
        "Workers that wait for room under the node's limits.";
    FAILED_STARTS = Gauge "levain_worker_failed_starts" ["function", "version", "environment"]
        "Consecutive failed starts.";
    NODE_WORKERS = Gauge "levain_node_workers" []
        "Workers with a function, in any state.";
    NODE_WORKERS_MAX = Gauge "levain_node_workers_limit" []
        "Limit on these workers (workers.workers_max).";
    PREWARMED = Gauge "levain_prewarmed_workers" []
        "Processes that wait for a function.";
    WORKERS_MEMORY = Gauge "levain_workers_memory_bytes" []
        "Private memory of all workers.";
    WORKERS_MEMORY_MAX = Gauge "levain_workers_memory_limit_bytes" []
        "Limit on this memory (workers.memory_mb_max).";
    HTTP_OPEN = Gauge "levain_http_connections" []
        "Open HTTP connections.";
    HTTP_CONNECTIONS = Counter "levain_http_connections_total" []
        "HTTP connections accepted.";
    HTTP_RUNNING = Gauge "levain_http_requests_running" []
        "HTTP requests whose answer is not yet complete.";
    HTTP_RESPONSES = Counter "levain_http_responses_total" ["class"]
        "HTTP requests that ended, by status: 1xx to 5xx, or none if the client left before there was a status.";
    HTTP_IN = Counter "levain_http_request_body_bytes_total" []
        "Bytes received in request bodies.";
    HTTP_OUT = Counter "levain_http_response_body_bytes_total" []
        "Bytes sent in response bodies.";
    HTTP_SLOW = Counter "levain_http_slow_clients_total" []
        "Clients cut off because they sent or read too slowly.";
    HTTP_TLS_FAILURES = Counter "levain_http_tls_failures_total" []
        "Failed TLS handshakes.";
    ACCESS_LOG_LINES = Counter "levain_access_log_lines_total" []
        "Access log lines written.";
    ACCESS_LOG_DROPPED = Counter "levain_access_log_dropped_total" []
        "Access log lines lost because they could not be written fast enough or at all.";
    LOG_DROPPED = Counter "levain_log_lines_dropped_total" []
        "Log lines of functions that were lost.";
    DISK = Gauge "levain_disk_bytes" ["kind"]
        "Disk usage: bundles, bytecode, store (functions and versions) or logs (and metrics).";
    DISK_FREE = Gauge "levain_disk_free_bytes" []
        "Free space on the file system of the data directory.";
    CPU = Counter "process_cpu_seconds_total" []
        "CPU time used by the daemon itself.";
    RESIDENT = Gauge "process_resident_memory_bytes" []
        "Memory of the daemon itself.";
    VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Address space of the daemon itself.";
    OPEN_FILES = Gauge "process_open_fds" []
        "Files and sockets that the daemon has open.";
    FILES_MAX = Gauge "process_max_fds" []
        "Limit on open files and sockets.";
    THREADS = Gauge "process_threads" []
        "Threads of the daemon.";
    STARTED = Gauge "process_start_time_seconds" []
        "Start time of the daemon, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let names: HashSet<_> = ALL.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), ALL.len());
        let is_name = |text: &str| text.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
        for Family { name, kind, labels, help } in ALL {
            assert!(is_name(name) && (name.starts_with("levain_") || name.starts_with("process_")), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(labels.iter().all(|label| is_name(label) && *label != "le"), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\\', '\n', '|']), "{name}");
        }
    }

    /// Keeps the table of `docs/metrics.md` equal to this one.
    #[test]
    fn the_table_of_the_documentation_is_this_reference() {
        let mut table = String::from("| name | type | labels | |\n|---|---|---|---|\n");
        for Family { name, kind, labels, help } in ALL {
            let labels: Vec<String> = labels.iter().map(|it| format!("`{it}`")).collect();
            table += &format!("| `{name}` | {} | {} | {help} |\n", kind.name(), labels.join(" "));
        }
        crate::reference_tests::keep("docs/metrics.md", &[("families", &table)]);
    }
}
