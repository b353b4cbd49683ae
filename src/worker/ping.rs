//! Checks whether a worker's event loop turns: one open ping at a time, and how long it has gone unanswered.
//!
//! ```text
//! nothing asked ──ask──▶ asked, not sent ──sent──▶ asked ──the right answer──▶ nothing asked
//! ```
//!
//! The time counts from the first attempt: a full channel is one that the worker does not read.

use super::violation::Violation;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// The open ping of one worker.
#[derive(Debug, Default)]
pub(super) struct Ping(Mutex<PingState>);

#[derive(Debug, Default)]
struct PingState {
    /// Number of the last ping; 0 before the first.
    number: u64,
    asked: Option<OpenPing>,
}

#[derive(Debug)]
struct OpenPing {
    since: Instant,
    /// Whether the channel has taken the ping.
    sent: bool,
}

impl Ping {
    /// Sends a ping unless one is open. `send` writes a numbered ping and returns whether it went out; one that did not
    /// goes out with a later call.
    pub(super) fn ask(&self, now: Instant, send: impl FnOnce(u64) -> bool) {
        let mut state = self.0.lock();
        let PingState { number, asked } = &mut *state;
        let asked = asked.get_or_insert_with(|| {
            *number += 1;
            OpenPing { since: now, sent: false }
        });
        if !asked.sent {
            // Sent under the lock, so that only one goes out: this is one write that does not wait.
            asked.sent = send(*number);
        }
    }

    /// Handles an answer of the worker.
    pub(super) fn answer(&self, number: u64) -> Result<(), Violation> {
        let mut state = self.0.lock();
        let is_right = state.number == number && state.asked.take_if(|asked| asked.sent).is_some();
        if is_right { Ok(()) } else { Err(Violation::PongUnasked) }
    }

    /// Time for which the ping has gone unanswered; `None` if no ping is open.
    pub(super) fn unanswered_for(&self, now: Instant) -> Option<Duration> {
        let since = self.0.lock().asked.as_ref()?.since;
        Some(now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_question_at_a_time_until_the_right_answer() {
        let (ping, start) = (Ping::default(), Instant::now());
        let mut numbers = Vec::new();
        let mut ask = |now| {
            ping.ask(now, |number| {
                numbers.push(number);
                true
            });
        };
        assert_eq!(ping.unanswered_for(start), None);
        ask(start);
        ask(start + SECOND);
        assert_eq!(ping.unanswered_for(start + 2 * SECOND), Some(2 * SECOND), "from the first attempt");
        assert_eq!(ping.answer(1), Ok(()));
        assert_eq!(ping.unanswered_for(start + 2 * SECOND), None);
        ask(start + 3 * SECOND);
        assert_eq!(ping.unanswered_for(start + 3 * SECOND), Some(Duration::ZERO));
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn answers_that_nobody_waits_for_are_told_apart_and_change_nothing() {
        let (ping, start) = (Ping::default(), Instant::now());
        for number in [0, 1, u64::MAX] {
            assert_eq!(ping.answer(number), Err(Violation::PongUnasked));
        }
        ping.ask(start, |_| true);
        for number in [0, 2, u64::MAX] {
            assert_eq!(ping.answer(number), Err(Violation::PongUnasked));
        }
        assert_eq!(ping.unanswered_for(start + SECOND), Some(SECOND), "an answer before its question does not count");
        assert_eq!(ping.answer(1), Ok(()));
        assert_eq!(ping.answer(1), Err(Violation::PongUnasked));
        ping.ask(start, |_| true);
        assert_eq!(ping.answer(1), Err(Violation::PongUnasked));
        assert_eq!(ping.unanswered_for(start + SECOND), Some(SECOND), "the answer to an older question does not count");
    }

    #[test]
    fn what_a_full_channel_does_not_take_goes_out_later() {
        let (ping, start) = (Ping::default(), Instant::now());
        ping.ask(start, |_| false);
        assert_eq!(ping.answer(1), Err(Violation::PongUnasked));
        assert_eq!(ping.unanswered_for(start + SECOND), Some(SECOND), "a ping that was not sent cannot be answered");
        let mut sent = 0;
        ping.ask(start + SECOND, |number| {
            sent = number;
            true
        });
        assert_eq!((sent, ping.unanswered_for(start + SECOND)), (1, Some(SECOND)));
        assert_eq!(ping.answer(1), Ok(()));
        assert_eq!(ping.unanswered_for(start + SECOND), None);
    }
}
