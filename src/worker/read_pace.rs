//! Limit on the rate at which a stream of a worker is read.

use std::time::{Duration, Instant};

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
