//! What a watched alias remembers: how the calls of the version under judgement went, and how long a rollout's step holds.
//!
//! Both are in memory only. They stay the same while the router's picture of a function changes, as long as they are
//! about the same thing, and begin anew otherwise, as they do when the daemon starts: of the calls before that, and of
//! the time in which nobody looked, nothing is known.

use super::{Alias, Entry};
use crate::{
    error::ErrorCode,
    model::{Breach, Counts, Percent, Policy, PolicyAction, Rollout, Timestamp, VersionId, VersionLabel},
    telemetry::window::{self, Window},
};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The policy of an alias, and the calls of the version under judgement since the alias began to send calls to it.
#[derive(Debug)]
pub struct Guard {
    /// The policy.
    pub policy: Policy,
    /// The version under judgement: the alias's second one if that has a share, else its own.
    pub version: VersionId,
    began: Instant,
    slow_after: Option<Duration>,
    /// Held for a few additions.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: Window,
    warning: Option<Warning>,
    /// When to try again what did not work.
    retry_at: Option<Instant>,
}

/// What was last said about an alias that did not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The version it was about.
    pub version: VersionLabel,
    /// What was said.
    pub text: Arc<str>,
    /// When.
    pub at: Timestamp,
    /// The version's id.
    pub version_id: VersionId,
    /// When, for the cooldown.
    pub said: Instant,
}

impl Guard {
    /// One that has seen no call.
    #[must_use]
    pub fn new(policy: Policy, version: VersionId) -> Self {
        let window = Window::new(Duration::from_secs(policy.window_seconds.into()));
        let slow_after = policy.p99_ms_max.map(|ms| Duration::from_millis(ms.into()));
        let state = Mutex::new(State { window, warning: None, retry_at: None });
        Self { policy, version, began: Instant::now(), slow_after, state }
    }

    /// Counts a call that the alias has sent to the version, by how it ended and how long it was in the function.
    pub fn record(&self, code: Option<ErrorCode>, status: u16, run: Duration) {
        if let Some(counts) = window::count(code, status, run, self.slow_after) {
            let mut state = self.state.lock();
            state.window.record(self.began.elapsed(), counts);
        }
    }

    /// The calls within the window.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state.lock().window.counts(self.began.elapsed())
    }

    /// The limit that is not kept, and what to do about it.
    #[must_use]
    pub fn breach(&self) -> Option<(PolicyAction, Breach)> {
        self.policy.judge(&self.counts()).map(|breach| (self.policy.action, breach))
    }

    /// What was last said.
    #[must_use]
    pub fn warning(&self) -> Option<Warning> {
        self.state.lock().warning.clone()
    }

    /// Remembers a warning if it is time for one: nothing was said about the version within the cooldown.
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

    /// Whether to try what may have failed before; the next time is not before `pause` has passed.
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

/// A rollout that goes on, and since when its present step holds.
#[derive(Debug)]
pub struct Progress {
    /// The rollout.
    pub rollout: Rollout,
    since: Instant,
}

impl Progress {
    /// One whose present step begins now.
    #[must_use]
    pub fn new(rollout: Rollout) -> Self {
        Self { rollout, since: Instant::now() }
    }

    /// For how long the present step holds.
    #[must_use]
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Alias {
    /// The version that a policy judges: the second one if calls go there, else its own.
    #[must_use]
    pub fn under_judgement(&self) -> VersionId {
        self.split.filter(|it| it.weight > Percent::NONE).map_or(self.version, |it| it.version_id)
    }

    /// Whether the alias went back by itself just now, so that its version has rest.
    fn rests(&self, now: Timestamp) -> bool {
        self.rests_until().is_some_and(|(since, until)| since <= now && now < until)
    }

    /// When the rest after going back began, give or take a clock that is set back, and when it ends.
    fn rests_until(&self) -> Option<(Timestamp, Timestamp)> {
        let (guard, at) = (self.guard.as_ref()?, self.went_back_at?.as_millis());
        let cooldown = i64::from(guard.policy.cooldown_seconds) * 1_000;
        Some((Timestamp::from_millis(at - cooldown), Timestamp::from_millis(at + cooldown)))
    }

    /// When the rest ends, for an alias that has it.
    #[must_use]
    pub fn rest_ends_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.rests_until().map(|it| it.1).filter(|_| self.rests(now))
    }

    /// The limit that the version under judgement does not keep, unless it has rest.
    #[must_use]
    pub fn breach(&self, now: Timestamp) -> Option<(PolicyAction, Breach)> {
        let guard = self.guard.as_ref().filter(|_| !self.rests(now))?;
        guard.breach()
    }

    /// Whether anything is to be watched here.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.guard.is_some() || self.rollout.is_some()
    }
}

impl Entry {
    /// Takes over what the picture before remembers about the same things.
    pub(super) fn remember(&mut self, before: &Self) {
        for alias in &mut self.aliases {
            let Some(before) = before.alias(alias.name.as_str()) else { continue };
            if let (Some(new), Some(old)) = (&mut alias.guard, &before.guard) {
                if new.is_same(old) {
                    *new = Arc::clone(old);
                } else {
                    // It is still the last that was said about the alias.
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
