//! Every family of numbers that `/metrics` has: the page is written and `docs/metrics.md` is made from this table.

use super::text::{Family, Kind};

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) static $constant: Family =
            Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All of them, in the order of the page.
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
        "Versions that were called and are left out here, as http.metrics_versions_max says.";
    INVOCATIONS = Counter "levain_invocations_total" ["function", "version", "code"]
        "Calls that ended, by error code; OK where there was none.";
    DURATION = Histogram "levain_invocation_duration_seconds" ["function", "version"]
        "Time in the function until the last byte of its answer, of the calls that reached a worker.";
    QUEUE = Histogram "levain_invocation_queue_seconds" ["function", "version"]
        "Wait for a worker to be free.";
    START = Histogram "levain_invocation_start_seconds" ["function", "version"]
        "Wait for a worker to start, of the calls that waited for one.";
    STARTS = Counter "levain_invocation_starts_total" ["function", "version", "kind"]
        "Calls that reached a worker: warm, prewarmed (it was claimed for the call) or spawned.";
    WORKERS = Gauge "levain_workers" ["function", "version", "environment", "state"]
        "Workers: starting, idle, busy, retiring or stopping.";
    RUNNING = Gauge "levain_invocations_running" ["function", "version", "environment"]
        "Calls that workers run.";
    QUEUED = Gauge "levain_invocations_queued" ["function", "version", "environment"]
        "Calls that wait for a worker.";
    WANTED = Gauge "levain_workers_wanted" ["function", "version", "environment"]
        "Workers that wait for a place on this machine.";
    FAILED_STARTS = Gauge "levain_worker_failed_starts" ["function", "version", "environment"]
        "Starts that have failed in a row.";
    NODE_WORKERS = Gauge "levain_node_workers" []
        "Workers with a function, in any state.";
    NODE_WORKERS_MAX = Gauge "levain_node_workers_limit" []
        "The most there may be (workers.workers_max).";
    PREWARMED = Gauge "levain_prewarmed_workers" []
        "Processes that wait for a function.";
    WORKERS_MEMORY = Gauge "levain_workers_memory_bytes" []
        "Private memory of all workers.";
    WORKERS_MEMORY_MAX = Gauge "levain_workers_memory_limit_bytes" []
        "The most they may have together (workers.memory_mb_max).";
    HTTP_OPEN = Gauge "levain_http_connections" []
        "Connections of HTTP that are open.";
    HTTP_CONNECTIONS = Counter "levain_http_connections_total" []
        "Connections of HTTP there have been.";
    HTTP_RUNNING = Gauge "levain_http_requests_running" []
        "Requests over HTTP whose answer has not gone.";
    HTTP_RESPONSES = Counter "levain_http_responses_total" ["class"]
        "Requests over HTTP that are over, by status: 1xx to 5xx, or none where the client left before there was one.";
    HTTP_IN = Counter "levain_http_request_body_bytes_total" []
        "Bytes of the bodies of requests.";
    HTTP_OUT = Counter "levain_http_response_body_bytes_total" []
        "Bytes of the bodies of answers.";
    HTTP_SLOW = Counter "levain_http_slow_clients_total" []
        "Clients that were cut off because they sent or read too slowly.";
    HTTP_TLS_FAILURES = Counter "levain_http_tls_failures_total" []
        "Handshakes of TLS that failed.";
    ACCESS_LOG_LINES = Counter "levain_access_log_lines_total" []
        "Lines of the access log that were written.";
    ACCESS_LOG_DROPPED = Counter "levain_access_log_dropped_total" []
        "Lines of the access log that are lost, because it could not be written fast enough or at all.";
    LOG_DROPPED = Counter "levain_log_lines_dropped_total" []
        "Lines of functions that are lost.";
    DISK = Gauge "levain_disk_bytes" ["kind"]
        "What lies on the disk: bundles, bytecode, store (functions and versions) or logs (and metrics).";
    DISK_FREE = Gauge "levain_disk_free_bytes" []
        "What is free on the file system of the data directory.";
    CPU = Counter "process_cpu_seconds_total" []
        "Time of processors that the daemon itself has used.";
    RESIDENT = Gauge "process_resident_memory_bytes" []
        "Memory of the daemon itself.";
    VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Address space of the daemon itself.";
    OPEN_FILES = Gauge "process_open_fds" []
        "Files and sockets that the daemon has open.";
    FILES_MAX = Gauge "process_max_fds" []
        "The most it may have open.";
    THREADS = Gauge "process_threads" []
        "Threads of the daemon.";
    STARTED = Gauge "process_start_time_seconds" []
        "When the daemon started, in seconds since 1970.";
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
