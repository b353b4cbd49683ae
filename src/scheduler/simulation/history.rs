//! History of the node and its pools, as far as the checks need it.

use super::{super::pool::Counts, Key};
use std::{collections::BTreeMap, time::Duration};

/// History of the node that the checks need.
#[derive(Debug, Default)]
pub(super) struct NodeHistory {
    /// Open requests, and whether each is for a replacement.
    pub(super) asks: BTreeMap<Key, bool>,
    pub(super) happenings: u64,
    /// Places that were held when the cap was lowered.
    pub(super) ceiling: usize,
    /// Workers' memory at the last measurement.
    pub(super) memory: u64,
    /// Ticks with too much memory and an idle worker since a worker was last stopped.
    pub(super) over: usize,
}

/// History of a pool that the checks need.
#[derive(Debug, Default)]
pub(super) struct PoolHistory {
    /// Its workers after the latest event.
    pub(super) counts: Counts,
    /// Whether the latest event was the end of an invocation.
    pub(super) was_released: bool,
    /// Time since which it has had callers and held no place.
    pub(super) hungry_since: Option<Duration>,
    /// Whether it has a worker for a rollback, and none of its workers has died.
    pub(super) is_kept: bool,
    pub(super) failing: Option<FailingStarts>,
}

/// Starts of a pool since the first one failed.
#[derive(Debug)]
pub(super) struct FailingStarts {
    pub(super) since: Duration,
    pub(super) starts: usize,
    /// Starts that were wished for.
    pub(super) wished: usize,
}
