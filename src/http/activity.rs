//! Whether a connection is idle, and since when.
//!
//! A request changes two numbers of its own connection and takes no lock. [`super::places`] reads them when it looks for
//! a connection that can give way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// What one connection does.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose answers are not complete.
    running: AtomicU32,
    /// An answer waits for the client to take it.
    is_writing: AtomicBool,
    idle_since_ms: AtomicU64,
    /// It is to give way.
    is_evicted: AtomicBool,
    /// Told when it is to give way, and when it has had as many requests as it may.
    pub(super) told: Notify,
}

impl Activity {
    /// That of a new connection. Times are in ms since `started`.
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

    /// Tells it to give way.
    pub(super) fn evict(&self) {
        self.is_evicted.store(true, Relaxed);
        self.told.notify_one();
    }

    /// When it is to give way. Only one may wait for what it is told.
    pub(super) async fn evicted(&self) {
        while !self.is_evicted() {
            self.told.notified().await;
        }
    }

    /// Whether an answer waits for the client to take it.
    pub(super) fn writes(&self, is_writing: bool) {
        self.is_writing.store(is_writing, Relaxed);
    }
}

/// A request that runs, until this is dropped.
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
