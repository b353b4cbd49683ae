//! Asserts the pool's invariants after every event, so that a debug build stops where it went wrong.

use std::time::Instant;

use super::{Pool, Purpose};

impl Pool {
    /// Panics if an invariant is violated.
    pub(super) fn assert_invariants(&self, now: Instant) {
        let counts = self.counts();
        let (queued, alive) = (counts.queued, counts.alive());
        let replacing = usize::from(self.workers.survey().replacement.is_some());
        assert!(alive <= self.workers_max() + replacing, "I2: {self:?}");
        let has_room = self.workers.with_room(self.concurrency()).is_some() && self.has_slot();
        assert!(queued == 0 || !has_room, "I3: {self:?}");
        assert!(queued == 0 || alive + counts.leaving() > 0, "I4: {self:?}");
        assert!(!self.closed || queued + alive == 0, "I5: {self:?}");
        let held_up = self.breaker.is_open(now);
        assert!(queued == 0 || alive > 0 || !held_up, "I8: {self:?}");
        assert!(!held_up || self.workers.newest_planned(|it| it != Purpose::Wish).is_none(), "I8: {self:?}");
    }
}
