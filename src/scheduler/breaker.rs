//! Decides when a pool may start workers again after a failed start.
//!
//! ```text
//!            a start fails           the back-off passes
//!   closed ─────────────────> open ───────────────────────> half-open
//!     ^                       ^  │                            │  │
//!     │                       └──│─────── a start fails ──────┘  │
//!     └──── a start succeeds ────┴───────────────────────────────┘
//! ```
//!
//! The breaker owns the back-off but no workers: the pool decides what starts, waits or fails.
//!
//! # Rules
//!
//! - **B1** Closed: any number of workers may start. Open: none may. Half-open: one at a time, the probe.
//! - **B2** A failed start opens the breaker for the back-off, which doubles with each consecutive failure, from 0.1 s
//!   to 15 s.
//! - **B3** Two failures are consecutive if the second start began after the first failure was known. Concurrent starts
//!   fail for the same reason and count as one; otherwise ten callers and a hiccup would cause a back-off of a quarter
//!   of a minute. Each of them still opens the breaker anew: a failed start is never followed by another at once.
//! - **B4** A successful start closes the breaker, however often others failed and whenever it began.

use std::time::{Duration, Instant};

/// Shortest back-off, after the first failure. In every pool, the back-off after consecutive failed starts doubles from
/// 0.1 s to 15 s. A hiccup is over after a tenth of a second, which no caller minds.
pub(super) const BACK_OFF_MIN: Duration = Duration::from_millis(100);

/// Longest back-off. Four starts in a minute cost the node little, and a version whose cause of failure has gone serves
/// again within a quarter of a minute.
pub(super) const BACK_OFF_MAX: Duration = Duration::from_secs(15);

/// State of the breaker of one pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Breaker {
    #[default]
    Closed,
    /// Open for the back-off after `failed_at`, from then on half-open.
    Tripped { failures: u32, failed_at: Instant },
}

/// Whether the workers of a pool start successfully.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The latest start succeeded, or none was tried.
    Healthy,
    /// The latest start failed.
    Unhealthy {
        /// Consecutive failures; those of concurrent starts count as one.
        failures: u32,
        /// Time until a worker may start again. Zero once it may: the next start is a probe.
        retry_in: Duration,
    },
}

impl Breaker {
    /// Records the failure of a start that began at `began`.
    pub(super) fn record_failure(&mut self, began: Instant, now: Instant) {
        let failures = match *self {
            Breaker::Closed => 1,
            Breaker::Tripped { failures, failed_at } if began > failed_at => failures.saturating_add(1),
            Breaker::Tripped { failures, .. } => failures,
        };
        *self = Breaker::Tripped { failures, failed_at: now };
    }

    /// Records a successful start.
    pub(super) fn record_success(&mut self) {
        *self = Breaker::Closed;
    }

    /// Returns how many workers may be starting at once.
    pub(super) fn starting_max(&self, now: Instant) -> usize {
        match self.health(now) {
            Health::Healthy => usize::MAX,
            Health::Unhealthy { retry_in: Duration::ZERO, .. } => 1,
            Health::Unhealthy { .. } => 0,
        }
    }

    /// Returns whether no worker may start.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.starting_max(now) == 0
    }

    pub(super) fn health(&self, now: Instant) -> Health {
        match *self {
            Breaker::Closed => Health::Healthy,
            Breaker::Tripped { failures, failed_at } => {
                let passed = now.saturating_duration_since(failed_at);
                Health::Unhealthy { failures, retry_in: back_off(failures).saturating_sub(passed) }
            }
        }
    }
}

fn back_off(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    BACK_OFF_MIN.saturating_mul(doubled).min(BACK_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Returns a breaker after this many consecutive failures, and the time of the last.
    fn tripped(failures: u32) -> (Breaker, Instant) {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..failures {
            now += BACK_OFF_MAX;
            breaker.record_failure(now, now);
        }
        (breaker, now)
    }

    fn unhealthy(failures: u32, retry_in: Duration) -> Health {
        Health::Unhealthy { failures, retry_in }
    }

    #[test]
    fn any_number_may_start_before_a_failure() {
        let breaker = Breaker::default();
        assert_eq!(breaker.starting_max(Instant::now()), usize::MAX);
        assert_eq!(breaker.health(Instant::now()), Health::Healthy);
    }

    #[test]
    fn none_may_start_until_the_back_off_has_passed_and_then_one() {
        let (breaker, now) = tripped(1);
        for (passed, starting_max) in
            [(Duration::ZERO, 0), (BACK_OFF_MIN - MILLISECOND, 0), (BACK_OFF_MIN, 1), (100 * BACK_OFF_MAX, 1)]
        {
            assert_eq!(breaker.starting_max(now + passed), starting_max, "{passed:?}");
            assert_eq!(breaker.is_open(now + passed), starting_max == 0, "{passed:?}");
        }
    }

    #[test]
    fn the_back_off_doubles_up_to_its_bound() {
        let expected = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000];
        for (failures, milliseconds) in (1..).zip(expected) {
            let (breaker, now) = tripped(failures);
            assert_eq!(breaker.health(now), unhealthy(failures, Duration::from_millis(milliseconds)));
        }
        for failures in [32, 33, 64, u32::MAX] {
            assert_eq!(back_off(failures), BACK_OFF_MAX, "{failures}");
        }
    }

    #[test]
    fn starts_that_went_on_at_the_same_time_fail_as_one() {
        let (began, mut breaker) = (Instant::now(), Breaker::default());
        let mut now = began;
        for _ in 0..10 {
            now += MILLISECOND;
            breaker.record_failure(began, now);
            assert_eq!(breaker.health(now), unhealthy(1, BACK_OFF_MIN), "each failure opens it anew");
        }
        breaker.record_failure(now + MILLISECOND, now + 2 * MILLISECOND);
        assert_eq!(breaker.health(now + 2 * MILLISECOND), unhealthy(2, 2 * BACK_OFF_MIN), "this start began later");
    }

    #[test]
    fn a_success_closes_it_and_the_next_failure_is_the_first() {
        let (mut breaker, now) = tripped(5);
        breaker.record_success();
        assert_eq!(breaker.health(now), Health::Healthy);
        breaker.record_failure(now, now);
        assert_eq!(breaker.health(now), unhealthy(1, BACK_OFF_MIN));
    }

    #[test]
    fn the_wait_that_is_left_shrinks_to_nothing() {
        let (breaker, now) = tripped(2);
        assert_eq!(breaker.health(now + 150 * MILLISECOND), unhealthy(2, 50 * MILLISECOND));
        assert_eq!(breaker.health(now + 201 * MILLISECOND), unhealthy(2, Duration::ZERO));
    }
}
