//! Recent invocations of a version, for policies that judge it: a ring of counts.
//!
//! Pure: the time is an argument, counted from any fixed start. The window moves in steps of a sixtieth of its length,
//! so it reaches back between 59 and 60 of them.

use crate::{error::ErrorCode, model::PolicyCounts};
use std::time::Duration;

/// Slots of the ring.
const SLOTS: u64 = 60;

/// Counts within a moving window of time.
#[derive(Debug)]
pub struct Window {
    slot: Duration,
    slots: Box<[WindowSlot]>,
}

#[derive(Debug, Clone, Default)]
struct WindowSlot {
    /// Number of the time slot that it holds, counted from the start.
    number: u64,
    counts: PolicyCounts,
}

impl Window {
    /// Makes a window of this length.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        let slot = (length / SLOTS as u32).max(Duration::from_millis(1));
        Self { slot, slots: vec![WindowSlot::default(); SLOTS as usize].into() }
    }

    fn number(&self, at: Duration) -> u64 {
        (at.as_nanos() / self.slot.as_nanos()) as u64
    }

    /// Counts an invocation that ended at this time.
    pub fn record(&mut self, at: Duration, counts: PolicyCounts) {
        let number = self.number(at);
        let slot = &mut self.slots[(number % SLOTS) as usize];
        if slot.number < number {
            *slot = WindowSlot { number, counts: PolicyCounts::default() };
        }
        // Only an invocation whose thread was delayed for the whole window can be older than the ring.
        if slot.number == number {
            slot.counts += counts;
        }
    }

    /// Returns the counts within the window that ends at this time.
    #[must_use]
    pub fn counts(&self, at: Duration) -> PolicyCounts {
        let now = self.number(at);
        let mut sum = PolicyCounts::default();
        for slot in self.slots.iter().filter(|slot| slot.number + SLOTS > now && slot.number <= now) {
            sum += slot.counts;
        }
        sum
    }
}

/// Returns the counts of an invocation, given how it ended and its time in the function. `None` for one that says
/// nothing about the version: its caller made a mistake, or the node had no room for it.
#[must_use]
pub fn count(
    code: Option<ErrorCode>,
    status: u16,
    run: Duration,
    slow_after: Option<Duration>,
) -> Option<PolicyCounts> {
    use ErrorCode::{BundleInvalid, BundleLoadError, HandlerError, OutOfMemory, Timeout, WorkerCrashed};
    let (is_error, is_crash) = match code {
        None => (status >= 500, false),
        Some(HandlerError | Timeout) => (true, false),
        Some(WorkerCrashed | OutOfMemory | BundleLoadError | BundleInvalid) => (true, true),
        Some(_) => return None,
    };
    let is_slow = slow_after.is_some_and(|limit| run > limit);
    Some(PolicyCounts { calls: 1, errors: is_error.into(), crashes: is_crash.into(), slow: is_slow.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: PolicyCounts = PolicyCounts { calls: 1, errors: 0, crashes: 0, slow: 0 };

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn calls_leave_the_window_when_they_are_old() {
        let mut window = Window::new(seconds(60.0));
        for at in [0.0, 0.5, 30.0, 59.9] {
            window.record(seconds(at), CALL);
        }
        for (at, calls) in [(0.1, 2), (59.9, 4), (60.0, 2), (89.9, 2), (90.0, 1), (118.9, 1), (119.0, 0), (1e6, 0)] {
            assert_eq!(window.counts(seconds(at)).calls, calls, "{at}");
        }
        window.record(seconds(1e6), CALL);
        window.record(seconds(1.0), CALL);
        assert_eq!(window.counts(seconds(1e6)).calls, 1, "an invocation later than the window is not counted");
    }

    #[test]
    fn what_a_call_counts_for() {
        use ErrorCode::{Internal, InvalidRequest, Overloaded, PayloadTooLarge, ShuttingDown, WorkerUnavailable};
        let limit = Some(Duration::from_millis(200));
        let of = |code, status, ms| {
            count(code, status, Duration::from_millis(ms), limit).map(|it| (it.calls, it.errors, it.crashes, it.slow))
        };
        assert_eq!(of(None, 200, 200), Some((1, 0, 0, 0)));
        assert_eq!(of(None, 404, 201), Some((1, 0, 0, 1)));
        assert_eq!(of(None, 500, 1), Some((1, 1, 0, 0)));
        for code in [ErrorCode::HandlerError, ErrorCode::Timeout] {
            assert_eq!(of(Some(code), 0, 1), Some((1, 1, 0, 0)), "{code}");
        }
        use ErrorCode::{BundleInvalid, BundleLoadError, OutOfMemory, WorkerCrashed};
        for code in [WorkerCrashed, OutOfMemory, BundleLoadError, BundleInvalid] {
            assert_eq!(of(Some(code), 0, 0), Some((1, 1, 1, 0)), "{code}");
        }
        for code in [InvalidRequest, Overloaded, WorkerUnavailable, ShuttingDown, PayloadTooLarge, Internal] {
            assert_eq!(of(Some(code), 0, 0), None, "{code}");
        }
        assert_eq!(count(None, 200, Duration::MAX, None), Some(CALL), "without a limit nothing is slow");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The result lies between the invocations of 59 and those of 60 slots, however they are spread.
        #[test]
        fn the_window_is_as_long_as_it_says(gaps in prop::collection::vec(0..9_000_u64, 0..200), length in 10..3_600_u64) {
            let mut window = Window::new(Duration::from_secs(length));
            let (mut now, mut all) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                all.push(now);
                window.record(Duration::from_millis(now), CALL);
                let since = |ms: u64| all.iter().filter(|at| **at + ms > now).count() as u64;
                let counted = window.counts(Duration::from_millis(now)).calls;
                prop_assert!(since(length * 1_000 / 60 * 59) <= counted && counted <= since(length * 1_000));
            }
        }
    }
}
