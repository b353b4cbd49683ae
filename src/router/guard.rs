//! State of a watched alias: recent invocations of the version under judgement, and the time that a rollout's step has
//! lasted.
//!
//! Both are in memory only. They survive updates of the router's entry of a function as long as they concern the same
//! policy, version or rollout step; otherwise, and when the daemon starts, they begin anew: nothing is known of the
//! invocations before that, or of the time in which the alias was not watched.

use super::{Alias, Entry};
use crate::{
    error::ErrorCode,
    model::{
        Breach, Percent, Policy, PolicyAction, PolicyCounts, Rollout, Timestamp, VersionId, VersionLabel,
        rollout::{self, WatchAction},
    },
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

    fn is_same(&self, other: &Self) -> bool {
        self.policy == other.policy && self.version == other.version
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

impl Alias {
    /// Returns the version that a policy judges: the second one if it has a share, else the alias's own.
    #[must_use]
    pub fn under_judgement(&self) -> VersionId {
        self.split.filter(|it| it.weight > Percent::NONE).map_or(self.version, |it| it.version_id)
    }

    /// Whether the alias was recently rolled back by its policy, so that its version is not judged yet.
    fn rests(&self, now: Timestamp) -> bool {
        self.rests_until().is_some_and(|(since, until)| since <= now && now < until)
    }

    /// Returns start and end of the cooldown after an automatic rollback. The start is early enough for a clock that
    /// was set back.
    fn rests_until(&self) -> Option<(Timestamp, Timestamp)> {
        let (guard, at) = (self.guard.as_ref()?, self.went_back_at?.as_millis());
        let cooldown = i64::from(guard.policy.cooldown_seconds) * 1_000;
        Some((Timestamp::from_millis(at - cooldown), Timestamp::from_millis(at + cooldown)))
    }

    /// Returns the end of the cooldown, for an alias in its cooldown.
    #[must_use]
    pub fn rest_ends_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.rests_until().map(|it| it.1).filter(|_| self.rests(now))
    }

    /// Returns the limit that the version under judgement exceeds, unless the alias is in its cooldown.
    #[must_use]
    pub fn breach(&self, now: Timestamp) -> Option<(PolicyAction, Breach)> {
        let guard = self.guard.as_ref().filter(|_| !self.rests(now))?;
        guard.breach()
    }

    /// Whether the alias has a policy or a running rollout.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.guard.is_some() || self.rollout.is_some()
    }

    /// Decides what the watch has to do for the alias now.
    #[must_use]
    pub fn watch_action(&self) -> WatchAction {
        let rollout = self.rollout.as_ref().map(|it| (&it.rollout, it.held()));
        rollout::decide(self.breach(Timestamp::now()), rollout)
    }
}

impl Entry {
    /// Takes over state from the previous entry where it concerns the same policy or rollout.
    pub(super) fn remember(&mut self, before: &Self) {
        for alias in &mut self.aliases {
            let Some(before) = before.alias(alias.name.as_str()) else { continue };
            if let (Some(new), Some(old)) = (&mut alias.guard, &before.guard) {
                if new.is_same(old) {
                    *new = Arc::clone(old);
                } else {
                    // The warning is still the latest about the alias.
                    new.state.lock().warning = old.warning();
                }
            }
            if let (Some(new), Some(old)) = (&mut alias.rollout, &before.rollout)
                && new.rollout == old.rollout
            {
                *new = Arc::clone(old);
            }
        }
    }
}
