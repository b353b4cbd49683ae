//! Prewarmed processes, so that a cold start costs the import and not the start of Bun.

use super::boot::Booted;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::{sync::Notify, time::timeout};

/// Interval at which the stock is checked for processes that have died.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The prewarmed processes.
#[derive(Debug, Default)]
pub(super) struct PrewarmPool {
    state: Mutex<PrewarmState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct PrewarmState {
    waiting: Vec<Booted>,
    wanted: usize,
    closed: bool,
}

impl PrewarmPool {
    pub(super) fn new(wanted: usize) -> Self {
        let stock = Self::default();
        stock.set_wanted(wanted);
        stock
    }

    /// Whether any processes are wanted.
    pub(super) fn is_used(&self) -> bool {
        self.state.lock().wanted > 0
    }

    /// Number of waiting processes.
    pub(super) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Takes a living process, if there is one. The stock is not filled up before [`Self::refill`]: starting another
    /// process would slow down the import that this one is for.
    pub(super) fn take(&self) -> Option<Booted> {
        let mut state = self.state.lock();
        state.waiting.retain(Booted::is_alive);
        state.waiting.pop()
    }

    /// Adds a process, or gives it back if there are enough.
    pub(super) fn put(&self, booted: Booted) -> Option<Booted> {
        let mut state = self.state.lock();
        if state.closed || state.waiting.len() >= state.wanted {
            return Some(booted);
        }
        state.waiting.push(booted);
        None
    }

    /// Triggers the start of missing processes.
    pub(super) fn refill(&self) {
        self.changed.notify_one();
    }

    /// Changes the wanted number. Waiting processes are ended, because they were made under the old limits.
    pub(super) fn set_wanted(&self, wanted: usize) {
        let old = {
            let mut state = self.state.lock();
            state.wanted = wanted;
            std::mem::take(&mut state.waiting)
        };
        drop(old);
        self.refill();
    }

    /// Ends all processes and accepts no more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.set_wanted(0);
    }

    /// Waits until a process is missing.
    pub(super) async fn missing(&self) {
        loop {
            {
                let mut state = self.state.lock();
                state.waiting.retain(Booted::is_alive);
                if !state.closed && state.waiting.len() < state.wanted {
                    return;
                }
            }
            // A process that dies while it waits sends no notification, so the stock is polled too.
            let _ = timeout(LOOK_EVERY, self.changed.notified()).await;
        }
    }
}
