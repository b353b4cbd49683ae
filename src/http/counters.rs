//! Counters of connections and requests, over all functions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since the daemon started, and current gauges. All are read and written without a lock.
#[derive(Debug, Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    connections_open: AtomicU64,
    requests_running: AtomicU64,
    /// Indexed by the first digit of the status. Index 0 counts requests whose client left before there was a status.
    responses: [AtomicU64; 6],
    body_bytes_in: AtomicU64,
    body_bytes_out: AtomicU64,
    slow_clients: AtomicU64,
    tls_failures: AtomicU64,
}

/// Names of the classes of [`Counters::responses`].
pub(super) const RESPONSE_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Holds a gauge up by one until dropped.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a AtomicU64);

impl<'a> Held<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Snapshot of the counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) connections: u64,
    pub(super) connections_open: u64,
    pub(super) requests_running: u64,
    pub(super) responses: [u64; RESPONSE_CLASSES.len()],
    pub(super) body_bytes_in: u64,
    pub(super) body_bytes_out: u64,
    pub(super) slow_clients: u64,
    pub(super) tls_failures: u64,
}

impl Counters {
    pub(super) fn connection(&self) -> Held<'_> {
        self.connections.fetch_add(1, Relaxed);
        Held::new(&self.connections_open)
    }

    pub(super) fn request_begins(&self) {
        self.requests_running.fetch_add(1, Relaxed);
    }

    /// Counts a request that has ended, with its status if it got one.
    pub(super) fn request_ends(&self, status: Option<u16>, bytes_in: u64, bytes_out: u64) {
        let class = status.map_or(0, |status| usize::from(status / 100)).min(RESPONSE_CLASSES.len() - 1);
        self.requests_running.fetch_sub(1, Relaxed);
        self.responses[class].fetch_add(1, Relaxed);
        if bytes_in > 0 {
            self.body_bytes_in.fetch_add(bytes_in, Relaxed);
        }
        if bytes_out > 0 {
            self.body_bytes_out.fetch_add(bytes_out, Relaxed);
        }
    }

    pub(super) fn slow_client(&self) {
        self.slow_clients.fetch_add(1, Relaxed);
    }

    pub(super) fn tls_failure(&self) {
        self.tls_failures.fetch_add(1, Relaxed);
    }

    pub(super) fn now(&self) -> Counted {
        let load = |it: &AtomicU64| it.load(Relaxed);
        Counted {
            connections: load(&self.connections),
            connections_open: load(&self.connections_open),
            requests_running: load(&self.requests_running),
            responses: [0, 1, 2, 3, 4, 5].map(|class| load(&self.responses[class])),
            body_bytes_in: load(&self.body_bytes_in),
            body_bytes_out: load(&self.body_bytes_out),
            slow_clients: load(&self.slow_clients),
            tls_failures: load(&self.tls_failures),
        }
    }
}
