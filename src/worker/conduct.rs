//! Rules for a worker's output, and limits on its rate.
//!
//! A function runs in the process of its shim: it can write to the control channel, the pipes and the accepted
//! connections itself. Everything that a worker sends is therefore hostile input, and falls under one of three rules.
//!
//! **Ended** is a worker that does what the shim never does, whatever the function: something else has written there,
//! and nothing that follows can be trusted. See [`Violation`]; the invocations that run in that worker have crashed.
//!
//! **Tolerated** is what an honest shim may cause and what harms no other invocation or worker:
//!
//! | what | why |
//! |---|---|
//! | `settled` twice, or late | the shim may send it unasked, and again when it is asked about a dropped connection |
//! | `settled`, `log`, `rejection` of an invocation that has ended | a function's timers outlive its answers. Once the invocation is forgotten, the message has no id ([`super::invocations`]) |
//! | a line without an invocation, or with an empty invocation name | output at import; a request that a function makes to its own socket has no id |
//! | a `pong` after any time | a ping stays open until it is answered |
//! | the end of the control channel | it precedes the end of the process by a moment; a process that lives on is no longer heard |
//! | a head with too many headers, too large, or with a character that no header may have | the function chose them: its answer fails, and the worker goes on |
//! | the shim's own headers in an answer of the function | the function only says of itself that it failed or has more to do. The shim is asked whether it has |
//! | an answer that ends early, or never | a function may exit or be slow: its deadline ends it |
//! | descriptors sent along | the daemon does not take them: the kernel closes them |
//!
//! **Slowed down** is a worker that sends a lot: its streams are not read for a while ([`ReadPace`]). Lines over the log
//! rate are also dropped and counted. The output of an answer is bounded by what its caller accepts.

use std::time::{Duration, Instant};

/// A breach of the protocol that the shim never commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not JSON, an unknown message, or a message with an invalid field.
    #[error("a line on its control channel is not a valid message")]
    NoMessage,
    /// The shim cuts its texts, so that its lines stay below the limit.
    #[error("a line on its control channel is too long")]
    LineTooLong,
    /// `ready` is sent once, before there is a function.
    #[error("it sent `ready` a second time")]
    ReadyAgain,
    /// The number was never sent, or its answer has already come.
    #[error("it answered a ping that was not sent")]
    PongUnasked,
    /// Not an invocation id, or the id of an invocation that this worker was never given.
    #[error("it named an invocation that it never had")]
    ForeignInvocation,
    /// Bun writes heads and bodies, so they are well-formed, however strange the function's answer is.
    #[error("its answer is not HTTP: {0}")]
    NotHttp(&'static str),
    /// Bytes behind a complete answer, or on a connection without a request: they would be taken for the next answer.
    #[error("it sent bytes that belong to no answer")]
    BytesUnasked,
}

/// Cost of reading one stream per second, in bytes of long lines: a few percent of a processor.
const COST_PER_SECOND: u64 = 16 << 20;

/// Cost of a read besides its bytes: a worker may write them one by one.
const READ_COST: u64 = 1024;

/// Lowest number of short lines read per second, even where fewer are kept.
const LINES_PER_SECOND_MIN: u64 = 20_000;

/// Lines read for each one that may be kept: most dropped lines should be counted rather than wait in the pipe.
const LINES_READ_PER_KEPT: u64 = 4;

/// Shortest pause in reading a stream. The shim waits longer than this for room on a channel before it drops lines.
const PAUSE: Duration = Duration::from_millis(20);

/// Reading pace of one stream: over the pace, output waits in the pipe, and then the worker waits.
///
/// Costs are counted against an allowance that grows steadily, up to one second's growth: a worker that was quiet may
/// write that much at once.
#[derive(Debug)]
pub(super) struct ReadPace {
    /// Negative while the stream is in debt.
    allowance: i64,
    line_cost: u64,
    counted: Instant,
    paused_until: Option<Instant>,
}

impl ReadPace {
    /// Creates the pace for a worker of which `lines_per_second_max` lines are kept per second.
    pub(super) fn new(lines_per_second_max: u32) -> Self {
        let lines = (u64::from(lines_per_second_max) * LINES_READ_PER_KEPT).max(LINES_PER_SECOND_MIN);
        let (allowance, line_cost) = (COST_PER_SECOND as i64, COST_PER_SECOND / lines);
        Self { allowance, line_cost, counted: Instant::now(), paused_until: None }
    }

    /// Counts a read. Over the allowance, a pause begins.
    pub(super) fn spend(&mut self, reads: u64, lines: u64, bytes: u64, now: Instant) {
        let second = COST_PER_SECOND as i64;
        let grown = now.saturating_duration_since(self.counted).min(Duration::from_secs(1)).as_micros() as i64;
        self.counted = now;
        self.allowance = (self.allowance + grown * second / 1_000_000).min(second);
        let cost = reads * READ_COST + lines * self.line_cost + bytes;
        self.allowance = self.allowance.saturating_sub_unsigned(cost);
        if self.allowance < 0 {
            let debt = Duration::from_micros((-self.allowance * 1_000_000 / second) as u64);
            self.paused_until = Some(now + debt.max(PAUSE));
        }
    }

    /// End of the current pause, if there is one.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Ends a pause that has lasted long enough.
    pub(super) fn resume(&mut self, now: Instant) {
        self.paused_until.take_if(|until| *until <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repeats the same read for ten seconds and returns how many times it was possible.
    fn in_ten_seconds(mut pace: ReadPace, reads: u64, lines: u64, bytes: u64) -> u64 {
        let start = pace.counted;
        let (mut now, mut times) = (start, 0);
        while now < start + Duration::from_secs(10) {
            pace.spend(reads, lines, bytes, now);
            times += 1;
            if let Some(until) = pace.paused_until() {
                now = until;
                pace.resume(now);
                assert_eq!(pace.paused_until(), None);
            }
        }
        times
    }

    #[test]
    fn whoever_is_read_without_end_is_read_at_the_pace() {
        // Eleven seconds' worth: the initial allowance comes on top.
        let bytes = in_ten_seconds(ReadPace::new(5_000), 1, 0, 16 << 10) * (16 << 10);
        assert!((150 << 20..=177 << 20).contains(&bytes), "{bytes}");
        for kept in [1, 5_000] {
            let lines = in_ten_seconds(ReadPace::new(kept), 1, 1_000, 4_000) * 1_000;
            assert!((180_000..=222_000).contains(&lines), "{lines}");
        }
        let tiny_reads = in_ten_seconds(ReadPace::new(5_000), 1, 0, 1);
        assert!((150_000..=200_000).contains(&tiny_reads), "{tiny_reads}");
    }

    #[test]
    fn what_may_be_kept_is_read_without_a_pause() {
        for kept in [100, 5_000] {
            let mut pace = ReadPace::new(kept);
            let start = pace.counted;
            for number in 0..u64::from(kept) * 10 {
                pace.spend(1, 1, 100, start + Duration::from_secs(1) / kept * number as u32);
                assert_eq!(pace.paused_until(), None, "{kept} a second, line {number}");
            }
        }
    }

    #[test]
    fn a_pause_lasts_until_the_debt_is_paid() {
        let mut pace = ReadPace::new(5_000);
        let now = pace.counted;
        pace.spend(0, 0, 3 * COST_PER_SECOND, now);
        assert_eq!(pace.paused_until(), Some(now + Duration::from_secs(2)));
        pace.resume(now + Duration::from_secs(1));
        assert!(pace.paused_until().is_some());
        pace.resume(now + Duration::from_secs(2));
        assert_eq!(pace.paused_until(), None);
    }
}
