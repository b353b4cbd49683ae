//! State of a watched alias: recent invocations of the version under judgement, and the time that a rollout's step has
//! lasted.
//!
//! Both are in memory only. They survive updates of the router's entry of a function as long as they concern the same
//! policy, version or rollout step; otherwise, and when the daemon starts, they begin anew: nothing is known of the
//! invocations before that, or of the time in which the alias was not watched.

use crate::{
    error::ErrorCode,
    model::{Breach, Policy, PolicyAction, PolicyCounts, Rollout, Timestamp, VersionId, VersionLabel},
    telemetry::window::{self, Window},
};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Policy of an alias, and the invocations of the version under judgement since the alias began to send traffic to it.
#[derive(Debug)]
pub struct Guard {
    /// Limits and action.
    pub policy: Policy,
    /// Version under judgement: the alias's second one if that has a share, else its own.
    pub version: VersionId,
    began: Instant,
    slow_after: Option<Duration>,
    /// Locked for a few additions only.
    state: Mutex<GuardState>,
}

#[derive(Debug)]
struct GuardState {
    window: Window,
    warning: Option<Warning>,
    /// Earliest time to retry a failed action.
    retry_at: Option<Instant>,
}

/// Latest warning about an alias that did not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Label of the version that the warning concerns.
    pub version: VersionLabel,
    /// Text of the warning.
    pub text: Arc<str>,
    /// Time of the warning.
    pub at: Timestamp,
    /// Id of the version that the warning concerns.
    pub version_id: VersionId,
    /// Monotonic time of the warning, for the cooldown.
    pub said: Instant,
}

impl Guard {
    /// Makes a guard that has counted no invocation.
    #[must_use]
    pub fn new(policy: Policy, version: VersionId) -> Self {
        let window = Window::new(Duration::from_secs(policy.window_seconds.into()));
        let slow_after = policy.p99_ms_max.map(|ms| Duration::from_millis(ms.into()));
        let state = Mutex::new(GuardState { window, warning: None, retry_at: None });
        Self { policy, version, began: Instant::now(), slow_after, state }
    }

    /// Counts an invocation that the alias sent to the version, by its outcome and its time in the function.
    pub fn record(&self, code: Option<ErrorCode>, status: u16, run: Duration) {
        if let Some(counts) = window::count(code, status, run, self.slow_after) {
            let mut state = self.state.lock();
            state.window.record(self.began.elapsed(), counts);
        }
    }

    /// Returns the counts within the window.
    #[must_use]
    pub fn counts(&self) -> PolicyCounts {
        self.state.lock().window.counts(self.began.elapsed())
    }

    /// Returns the exceeded limit and the policy's action, if a limit is exceeded.
    #[must_use]
    pub fn breach(&self) -> Option<(PolicyAction, Breach)> {
        self.policy.judge(&self.counts()).map(|breach| (self.policy.action, breach))
    }

    /// Returns the latest warning.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        self.state.lock().warning.clone()
    }

    /// Records a warning if it is due: none about this version was given within the cooldown. Returns whether it was
    /// due.
    pub fn warn(&self, warning: Warning) -> bool {
        let cooldown = Duration::from_secs(self.policy.cooldown_seconds.into());
        let mut state = self.state.lock();
        let is_new = |it: &Warning| it.version_id != self.version || warning.said.duration_since(it.said) >= cooldown;
        let is_due = state.warning.as_ref().is_none_or(is_new);
        if is_due {
            state.warning = Some(warning);
        }
        is_due
    }

    /// Whether an action that may have failed before is to be tried now; the next try is at least `pause` later.
    pub fn may_try(&self, pause: Duration) -> bool {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let may = state.retry_at.is_none_or(|at| at <= now);
        if may {
            state.retry_at = Some(now + pause);
        }
        may
    }

    /// Goes on with the guard before if that has the same policy and version; otherwise, keeps only its warning, which
    /// is still the latest about the alias.
    pub(super) fn take_over(new: &mut Arc<Self>, old: &Arc<Self>) {
        if new.policy == old.policy && new.version == old.version {
            *new = Arc::clone(old);
        } else {
            new.state.lock().warning = old.warning();
        }
    }
}

/// A running rollout, and the start of its current step.
#[derive(Debug)]
pub struct RolloutProgress {
    /// The rollout itself.
    pub rollout: Rollout,
    since: Instant,
}

impl RolloutProgress {
    /// Makes progress whose current step begins now.
    #[must_use]
    pub fn new(rollout: Rollout) -> Self {
        Self { rollout, since: Instant::now() }
    }

    /// Returns how long the current step has lasted.
    #[must_use]
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }
}
