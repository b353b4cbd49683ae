//! Random numbers derived from a seed: SplitMix64, which is a few lines and passes the usual tests.

use std::{ops::RangeInclusive, time::Duration};

#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    pub(super) fn count(&mut self, range: RangeInclusive<usize>) -> usize {
        self.within(*range.start() as u64..=*range.end() as u64) as usize
    }

    /// Returns a random index below `len`.
    pub(super) fn index(&mut self, len: usize) -> usize {
        (self.next() % len as u64) as usize
    }

    /// Returns true with a probability given per thousand.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.next() % 1_000 < per_mille
    }

    pub(super) fn milliseconds(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Returns a random time within a span, to the microsecond.
    pub(super) fn time(&mut self, span: Span) -> Duration {
        Duration::from_micros(self.within(span.min.as_micros() as u64..=span.max.as_micros() as u64))
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.index(at + 1));
        }
    }
}

/// A shortest and a longest time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Span {
    pub(super) fn milliseconds(min: u64, max: u64) -> Self {
        Self { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }
}
