//! Places for workers on this node: decides which pool gets the next one, and which pool gives one up. Pure, like the
//! pools.
//!
//! A pool asks for a place for each worker that it plans. The node knows how many places each pool holds, which pools
//! ask for more, and how much memory all workers use together; when no place is free, it compares the pools' holdings
//! and decides which pool gives one up. It knows nothing of single invocations, so a warm invocation never reaches it.
//!
//! # Rules
//!
//! - **N1 Caps**: at most `workers_max` places are given away. A worker that replaces another may have one more, unless
//!   another request for a place has waited longer: otherwise workers that wear out fast would take every place that
//!   becomes free. No place is given while the workers' memory, with [`START_BYTES`] for each worker started since the
//!   measurement, would exceed `memory_max`.
//! - **N2 Order**: the pool that holds the fewest places comes first; among equals, the one first in line; within a
//!   pool, its oldest request. A pool that is given a place goes to the end of the line with its other requests.
//! - **N3 Eviction**: when a request finds no place, the longest-idle worker of another pool stops, unless that pool's
//!   floor needs it. The longest-idle worker also stops when the workers use more memory than `memory_max`. Workers
//!   that are already stopping count towards what must go. Retiring ones do not spare an idle worker, for what they run
//!   may take long.
//! - **N4 Fair shares**: when no worker is idle, a pool that holds at least two places more than the asking pool gives
//!   up a worker when its next invocation ends. The shares of busy pools thus come to differ by one at most.
//! - **N5 Turns**: a pool that holds nothing and has waited for [`TURN`] gets the place of the pool whose worker has
//!   served longest, and has served for at least [`TURN`]. If there are more busy pools than places, they take turns.
//! - **N6 Floors**: no worker below a pool's floor is given up, and no invocation is cut.
//!
//! # Invariants
//!
//! - **M1** The places that pools hold are those that were granted and not yet returned.
//! - **M2** Each request is granted once or withdrawn.
//! - **M3** With places, memory and no floors in the way, no request waits for ever.
//!
//! The simulation beside this module checks them together with the invariants of the pools.

use super::pool::{Event, Holding};
use crate::model::WorkerId;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Memory counted for a worker until it has been measured: the size of one with a large bundle after its start.
pub const START_BYTES: u64 = 24 << 20;

/// Time that a pool without a place waits for its turn, and that a worker serves before it makes room for one: a cold
/// start of some milliseconds at each turn is then a few percent of the time.
pub const TURN: Duration = Duration::from_millis(250);

/// Id of a pool at the node, unique within a daemon's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u64);

/// Caps on all workers of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Most workers with a function, in any state. At least 1; 0 counts as 1.
    pub workers_max: usize,
    /// Most private memory of all workers together, in bytes.
    pub memory_max: u64,
}

/// Places, and the requests for them.
#[derive(Debug)]
pub struct Node {
    caps: Caps,
    /// Workers that hold a place, by pool.
    held: HashMap<PoolId, Vec<WorkerId>>,
    asks: Vec<Ask>,
    /// Number at the end of the line.
    line: u64,
    /// Private memory of all workers at the last measurement.
    memory: u64,
    /// Places granted since the last measurement, and between that and the one before: only a worker that has started
    /// can be measured in full.
    unmeasured: [u64; 2],
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    pool: PoolId,
    worker: WorkerId,
    since: Instant,
    replaces: bool,
    /// Position in the line.
    line: u64,
}

impl Node {
    /// Makes a node without workers.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, held: HashMap::new(), asks: Vec::new(), line: 0, memory: 0, unmeasured: [0; 2] }
    }

    /// Changes the caps. Held places stay held.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
    }

    /// Returns the caps.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// Returns the number of places held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    /// Returns the number of workers that wait for a place.
    #[must_use]
    pub fn asking(&self) -> usize {
        self.asks.len()
    }

    /// Whether pools should give something up: a request finds no place, or the workers use too much memory.
    #[must_use]
    pub fn is_short(&self) -> bool {
        !self.asks.is_empty() || self.memory > self.caps.memory_max
    }

    /// Whether a request has waited for a [`TURN`], or the workers use too much memory: no worker should be kept for a
    /// rollback now.
    #[must_use]
    pub fn is_starving(&self, now: Instant) -> bool {
        let waits = |ask: &Ask| now.saturating_duration_since(ask.since) >= TURN;
        self.memory > self.caps.memory_max || self.asks.iter().any(waits)
    }

    /// Records a pool's request for a place for a worker; `replaces` says that the new worker replaces another of the
    /// pool.
    pub fn ask(&mut self, pool: PoolId, worker: WorkerId, replaces: bool, now: Instant) {
        self.line += 1;
        self.asks.push(Ask { pool, worker, since: now, replaces, line: self.line });
    }

    /// Records that a worker has exited or that its request is withdrawn. Repeated reports are harmless.
    pub fn left(&mut self, pool: PoolId, worker: WorkerId) {
        let is_it = |ask: &Ask| (ask.pool, ask.worker) == (pool, worker);
        if let Some(at) = self.asks.iter().position(is_it) {
            self.asks.swap_remove(at);
        } else if let Some(held) = self.held.get_mut(&pool) {
            held.retain(|it| *it != worker);
            if held.is_empty() {
                self.held.remove(&pool);
            }
        }
    }

    /// Records the measured private memory of all workers.
    pub fn measured(&mut self, memory: u64) {
        self.memory = memory;
        self.unmeasured = [0, self.unmeasured[0]];
    }

    /// Gives a place to the first request, if both exist. Must be called until it returns `None`.
    pub fn grant(&mut self) -> Option<(PoolId, WorkerId)> {
        let held = self.held();
        let max = self.caps.workers_max.max(1);
        // Without this, a node whose memory is too small for one worker would never give any place, and no worker could
        // ever make room.
        let is_first = held == 0;
        if !is_first && self.memory_planned() + START_BYTES > self.caps.memory_max {
            return None;
        }
        let longest_wait = self.asks.iter().filter(|ask| !ask.replaces).map(|ask| ask.since).min();
        let may_be_more = |ask: &Ask| ask.replaces && longest_wait.is_none_or(|since| ask.since <= since);
        let may_have_one = |ask: &Ask| held < max || (held == max && may_be_more(ask));
        let asks = self.asks.iter().enumerate().filter(|(_, ask)| may_have_one(ask));
        let (at, _) = asks.min_by_key(|(_, ask)| self.rank(ask))?;
        let ask = self.asks.swap_remove(at);
        // Otherwise the requests of a pool that asked for many at once would come before all others at each of its
        // turns.
        self.line += 1;
        self.asks.iter_mut().filter(|it| it.pool == ask.pool).for_each(|it| it.line = self.line);
        self.held.entry(ask.pool).or_default().push(ask.worker);
        self.unmeasured[0] += 1;
        Some((ask.pool, ask.worker))
    }

    /// Returns what the pools with these holdings must give up: an [`Event::Evict`] for each worker that goes now, and
    /// one [`Event::Yield`] for each pool that must give up a different number of busy workers than it was last told.
    #[must_use]
    pub fn reclaim(&self, holdings: &[(PoolId, Holding)], now: Instant) -> Vec<(PoolId, Event)> {
        let mut events = Vec::new();
        let mut given: Vec<Given<'_>> = holdings.iter().map(|(pool, it)| Given::new(*pool, it)).collect();
        let leaving: usize = holdings.iter().map(|(_, it)| it.leaving).sum();
        let stopping: usize = holdings.iter().map(|(_, it)| it.stopping).sum();
        let soon = self.places_from(stopping);
        let mut later = self.places_from(leaving).saturating_sub(soon);
        let mut asks = self.asks.clone();
        asks.sort_unstable_by_key(|ask| self.rank(ask));
        let mut gained: HashMap<PoolId, usize> = HashMap::new();
        for ask in asks.iter().skip(soon) {
            if let Some(idle) = longest_idle(&mut given, Some(ask.pool)) {
                events.push((idle, Event::Evict));
                continue;
            }
            if later > 0 {
                later -= 1;
                continue;
            }
            let share = self.share(ask.pool) + gained.get(&ask.pool).copied().unwrap_or(0);
            let is_its_turn = share == 0 && now.saturating_duration_since(ask.since) >= TURN;
            let others = || given.iter().enumerate().filter(|(_, it)| it.pool != ask.pool && it.may_yield());
            let richest = others().max_by_key(|(_, it)| it.left()).filter(|(_, it)| it.left() > share + 1);
            let longest = || {
                let served = others().filter_map(|(at, it)| Some((it.holding.serving_since?, at)));
                served.min().filter(|(since, _)| is_its_turn && now.saturating_duration_since(*since) >= TURN)
            };
            let Some(at) = richest.map(|(at, _)| at).or_else(|| longest().map(|(_, at)| at)) else { continue };
            given[at].busy += 1;
            *gained.entry(ask.pool).or_default() += 1;
        }
        for _ in stopping..self.too_much_memory() {
            events.extend(longest_idle(&mut given, None).map(|pool| (pool, Event::Evict)));
        }
        let changed = given.iter().filter(|it| it.busy != it.holding.yielding);
        events.extend(changed.map(|it| (it.pool, Event::Yield(it.busy))));
        events
    }

    /// Sorting key of a request; the least is first.
    fn rank(&self, ask: &Ask) -> (usize, u64, Instant, WorkerId) {
        (self.share(ask.pool), ask.line, ask.since, ask.worker)
    }

    /// Returns the number of places that a pool holds.
    fn share(&self, pool: PoolId) -> usize {
        self.held.get(&pool).map_or(0, Vec::len)
    }

    /// Returns how many places can be given away once this many workers are gone: places beyond the cap are not given
    /// away again.
    fn places_from(&self, leaving: usize) -> usize {
        leaving.min((self.caps.workers_max.max(1) + leaving).saturating_sub(self.held()))
    }

    fn memory_planned(&self) -> u64 {
        self.memory + self.unmeasured.iter().sum::<u64>() * START_BYTES
    }

    /// Returns how many workers must go so that the rest fits into the memory.
    fn too_much_memory(&self) -> usize {
        let each = (self.memory / (self.held() as u64).max(1)).max(1);
        self.memory.saturating_sub(self.caps.memory_max).div_ceil(each) as usize
    }
}

/// Holding of a pool, and what it must give up.
struct Given<'a> {
    pool: PoolId,
    holding: &'a Holding,
    idle: usize,
    busy: usize,
}

impl<'a> Given<'a> {
    fn new(pool: PoolId, holding: &'a Holding) -> Self {
        Self { pool, holding, idle: 0, busy: 0 }
    }

    fn longest_idle(&self) -> Option<Instant> {
        self.holding.idle.get(self.idle).copied()
    }

    fn left(&self) -> usize {
        self.holding.ready - self.idle - self.busy
    }

    fn may_yield(&self) -> bool {
        self.idle + self.busy < self.holding.spare
    }
}

/// Takes the worker that has been idle longest.
fn longest_idle(given: &mut [Given<'_>], not_of: Option<PoolId>) -> Option<PoolId> {
    let others = given.iter_mut().filter(|it| Some(it.pool) != not_of);
    let (_, it) = others.filter_map(|it| Some((it.longest_idle()?, it))).min_by_key(|(since, _)| *since)?;
    it.idle += 1;
    Some(it.pool)
}

#[cfg(test)]
mod tests;
