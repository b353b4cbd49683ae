//! Places for workers on this node: who gets the next one, and who gives one up. Pure, like the pools.
//!
//! A pool asks for a place for each worker that it plans. The node knows how many places each pool holds, who asks for
//! more, and how much memory all workers have together; when it has no place, it looks at what the pools hold and says
//! who gives one up. It knows nothing of single invocations, so a warm call never comes here.
//!
//! # Rules
//!
//! - **N1 Caps**: at most `workers_max` places are given away; one more goes to a worker that comes to replace another,
//!   unless somebody has waited longer for a place: workers that wear out fast would else take each that gets free.
//!   None is given while the workers' memory, with [`START_BYTES`] for each that started since it was measured, would
//!   exceed `memory_max`.
//! - **N2 Order**: the pool that holds the fewest places comes first, of equals the one that is first in line, and of its
//!   wishes the oldest. Who is given a place goes to the end of the line with its other wishes.
//! - **N3 Eviction**: when somebody asks in vain, the worker of another pool that is idle longest stops, unless that
//!   pool's floor needs it. So it does when the workers have more memory than `memory_max`. Workers that stop already
//!   count as such, and those that retire keep no idle one alive, for what they run may take long.
//! - **N4 Fair shares**: when nobody is idle, a pool that holds at least two more than who asks gives up a worker when
//!   its next invocation ends. The shares of busy pools thus come to differ by one at most.
//! - **N5 Turns**: a pool that holds nothing and has waited for [`TURN`] gets the place of a pool whose worker has served
//!   longest, and at least as long. More busy pools than places thus take turns.
//! - **N6 Floors** are given up to nobody, and no invocation is cut.
//!
//! # Invariants
//!
//! - **M1** The places that pools hold are those granted and not left.
//! - **M2** Whoever asks is granted once or withdraws.
//! - **M3** With places, memory and no floors in the way, nobody asks for ever.
//!
//! The simulation beside this module holds them together with those of the pools.

use super::pool::{Event, Holding};
use crate::model::WorkerId;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Memory that a worker is counted with until it has been measured: what one with a large bundle has after its start.
pub const START_BYTES: u64 = 24 << 20;

/// How long a pool without a place waits for its turn, and how long a worker serves before it makes room for one: a cold
/// start of some milliseconds at each turn is then a few percent of the time.
pub const TURN: Duration = Duration::from_millis(250);

/// A pool, as the node knows it. No two pools of a daemon's life have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u64);

/// What all workers of the node keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Most workers with a function, in any state. At least 1; 0 is taken as 1.
    pub workers_max: usize,
    /// Most private memory of all workers together, in bytes.
    pub memory_max: u64,
}

/// The places and who asks for one.
#[derive(Debug)]
pub struct Node {
    caps: Caps,
    /// Who holds a place.
    held: HashMap<PoolId, Vec<WorkerId>>,
    asks: Vec<Ask>,
    /// Where the line ends.
    line: u64,
    /// Private memory of all workers when it was last measured.
    memory: u64,
    /// Places granted since the last measurement, and between that and the one before: a worker is measured in full only
    /// once it has started.
    unmeasured: [u64; 2],
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    pool: PoolId,
    worker: WorkerId,
    since: Instant,
    replaces: bool,
    /// Its place in the line.
    line: u64,
}

impl Node {
    /// A node without workers.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self { caps, held: HashMap::new(), asks: Vec::new(), line: 0, memory: 0, unmeasured: [0; 2] }
    }

    /// Changes the caps. Who holds a place keeps it.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
    }

    /// What everybody keeps to.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// Places that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    /// Workers that wait for a place.
    #[must_use]
    pub fn asking(&self) -> usize {
        self.asks.len()
    }

    /// Whether pools should give something up: somebody asks in vain, or the workers have too much memory.
    #[must_use]
    pub fn is_short(&self) -> bool {
        !self.asks.is_empty() || self.memory > self.caps.memory_max
    }

    /// Whether somebody has waited for a place for a [`TURN`], or the workers have too much memory: nothing should be
    /// kept for a rollback now.
    #[must_use]
    pub fn is_starving(&self, now: Instant) -> bool {
        let waits = |ask: &Ask| now.saturating_duration_since(ask.since) >= TURN;
        self.memory > self.caps.memory_max || self.asks.iter().any(waits)
    }

    /// A pool wants a place for a worker; `replaces` says that another of its workers goes for it.
    pub fn ask(&mut self, pool: PoolId, worker: WorkerId, replaces: bool, now: Instant) {
        self.line += 1;
        self.asks.push(Ask { pool, worker, since: now, replaces, line: self.line });
    }

    /// A worker is gone, or its wish is. Once is enough, and again does no harm.
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

    /// The workers' private memory has been measured.
    pub fn measured(&mut self, memory: u64) {
        self.memory = memory;
        self.unmeasured = [0, self.unmeasured[0]];
    }

    /// Gives a place away, if there is one and somebody wants it. To be called until there is none.
    pub fn grant(&mut self) -> Option<(PoolId, WorkerId)> {
        let held = self.held();
        let max = self.caps.workers_max.max(1);
        // Without a single worker none would ever end and make room.
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
        // Or the wishes of a pool that has asked for many at once would come before all others at each of its turns.
        self.line += 1;
        self.asks.iter_mut().filter(|it| it.pool == ask.pool).for_each(|it| it.line = self.line);
        self.held.entry(ask.pool).or_default().push(ask.worker);
        self.unmeasured[0] += 1;
        Some((ask.pool, ask.worker))
    }

    /// What pools must give up, from what they hold: an [`Event::Evict`] for each worker that goes now, and one
    /// [`Event::Yield`] for each pool that is to give up another number of busy workers than it was told.
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

    /// Who comes first, the least ahead.
    fn rank(&self, ask: &Ask) -> (usize, u64, Instant, WorkerId) {
        (self.share(ask.pool), ask.line, ask.since, ask.worker)
    }

    /// Places a pool holds.
    fn share(&self, pool: PoolId) -> usize {
        self.held.get(&pool).map_or(0, Vec::len)
    }

    /// How many places can be given away when so many workers are gone: those beyond the cap leave none.
    fn places_from(&self, leaving: usize) -> usize {
        leaving.min((self.caps.workers_max.max(1) + leaving).saturating_sub(self.held()))
    }

    fn memory_planned(&self) -> u64 {
        self.memory + self.unmeasured.iter().sum::<u64>() * START_BYTES
    }

    /// How many workers must go so that the rest is within the memory.
    fn too_much_memory(&self) -> usize {
        let each = (self.memory / (self.held() as u64).max(1)).max(1);
        self.memory.saturating_sub(self.caps.memory_max).div_ceil(each) as usize
    }
}

/// What a pool holds, and what it is to give up of it.
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

/// Takes the worker that is idle longest.
fn longest_idle(given: &mut [Given<'_>], not_of: Option<PoolId>) -> Option<PoolId> {
    let others = given.iter_mut().filter(|it| Some(it.pool) != not_of);
    let (_, it) = others.filter_map(|it| Some((it.longest_idle()?, it))).min_by_key(|(since, _)| *since)?;
    it.idle += 1;
    Some(it.pool)
}

#[cfg(test)]
mod tests;
