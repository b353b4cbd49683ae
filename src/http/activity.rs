//! Idleness of a connection: whether it is idle, and since when.
//!
//! A request updates two atomics of its own connection and takes no lock. [`super::places`] reads them when it looks
//! for a connection to evict.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// Activity of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose answers are not complete.
    running: AtomicU32,
    /// Whether an answer waits for the client to read it.
    is_writing: AtomicBool,
    idle_since_ms: AtomicU64,
    /// Whether the connection has been told to make room for another.
    is_evicted: AtomicBool,
    /// Notified when the connection is evicted, and when it has served its last allowed request.
    pub(super) told: Notify,
}

impl Activity {
    /// Activity of a new, idle connection. Times are in ms since `started`.
    pub(super) fn idle_from(started: Instant) -> Arc<Self> {
        let activity = Self::default();
        activity.rests_since(since(started));
        Arc::new(activity)
    }

    pub(super) fn idle_since_ms(&self) -> u64 {
        self.idle_since_ms.load(Relaxed)
    }

    pub(super) fn rests_since(&self, ms: u64) {
        self.idle_since_ms.store(ms, Relaxed);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.load(Relaxed) == 0 && !self.is_writing.load(Relaxed)
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Relaxed)
    }

    /// Tells the connection to make room for another.
    pub(super) fn evict(&self) {
        self.is_evicted.store(true, Relaxed);
        self.told.notify_one();
    }

    /// Resolves when the connection is evicted. Only one task may wait on `told`.
    pub(super) async fn evicted(&self) {
        while !self.is_evicted() {
            self.told.notified().await;
        }
    }

    /// Notes whether an answer waits for the client to read it.
    pub(super) fn writes(&self, is_writing: bool) {
        self.is_writing.store(is_writing, Relaxed);
    }
}

/// Guard of a running request; dropping it ends the request.
#[derive(Debug)]
pub(super) struct Busy {
    activity: Arc<Activity>,
    started: Instant,
}

impl Busy {
    pub(super) fn begin(activity: &Arc<Activity>, started: Instant) -> Self {
        activity.running.fetch_add(1, Relaxed);
        Self { activity: Arc::clone(activity), started }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.rests_since(since(self.started));
        self.activity.running.fetch_sub(1, Relaxed);
    }
}

fn since(started: Instant) -> u64 {
    started.elapsed().as_millis() as u64
}
