//! The simulation as the host of the pools: it records what the driver does, and performs some of it later.

use super::{
    super::{
        driver::{Cell, Driver, Effect, Host, Lease, Rules},
        node::{Node, PoolId},
        pool::{Action, Counts, Event, Health, Pool},
    },
    Key,
    random::Random,
};
use crate::model::WorkerId;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Limit on events that cause each other at the same time: a longer chain would never end.
const CHAIN_MAX: usize = 20_000;

#[derive(Debug)]
pub(super) struct SimulatedHost {
    /// Current time, and the number of events since it last moved.
    pub(super) clock: Mutex<(Instant, usize)>,
    random: Mutex<Random>,
    /// Probability, per thousand, that effects are performed only after other events.
    racy: u64,
    /// Records since the world last looked.
    pub(super) records: Mutex<Vec<Record>>,
}

/// A worker as its pool and its starts know it.
#[derive(Debug)]
pub(super) struct SimulatedWorker {
    pub(super) key: Key,
    /// Whether its start was cancelled.
    pub(super) is_cancelled: AtomicBool,
    pub(super) is_blocked: AtomicBool,
    pub(super) is_worn: AtomicBool,
}

/// One thing that the driver did.
#[derive(Debug)]
pub(super) enum Record {
    /// A pool handled an event.
    Handled {
        pool: usize,
        event: Event,
        actions: Vec<Action>,
        after: Box<PoolState>,
    },
    /// The node gave a place; with it, this many are held.
    Granted(Key, usize),
    Start(Arc<SimulatedWorker>),
    Stop(Key),
    CancelStart(Key),
    Settle(Lease<SimulatedHost>),
    /// Effects that are performed only after other events.
    Delayed(Vec<Effect<SimulatedHost>>),
}

/// State of a pool after an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoolState {
    pub(super) counts: Counts,
    pub(super) health: Health,
    pub(super) is_closed: bool,
    pub(super) rules: Rules,
}

impl SimulatedHost {
    pub(super) fn new(start: Instant, seed: u64, racy: u64) -> Self {
        let (clock, random) = (Mutex::new((start, 0)), Mutex::new(Random::new(seed)));
        Self { clock, random, racy, records: Mutex::default() }
    }

    fn record(&self, record: Record) {
        self.records.lock().push(record);
    }
}

impl Host for SimulatedHost {
    type Worker = SimulatedWorker;
    type Start = Arc<SimulatedWorker>;
    type Code = ();

    fn now(&self) -> Instant {
        self.clock.lock().0
    }

    fn plan_start(&self, pool: PoolId, worker: WorkerId) -> Self::Start {
        let of = AtomicBool::default;
        let key = (pool_of(pool), worker);
        Arc::new(SimulatedWorker { key, is_cancelled: of(), is_blocked: of(), is_worn: of() })
    }

    fn start(driver: &Arc<Driver<Self>>, _cell: &Arc<Cell<Self>>, _worker: WorkerId, start: Self::Start) {
        driver.host.record(Record::Start(start));
    }

    fn cancel(&self, start: &Self::Start) {
        start.is_cancelled.store(true, Ordering::Relaxed);
        self.record(Record::CancelStart(start.key));
    }

    fn stop(&self, worker: &SimulatedWorker) {
        self.record(Record::Stop(worker.key));
    }

    fn settle(lease: Lease<Self>, _deadline: Instant) {
        let driver = Arc::clone(&lease.driver);
        driver.host.record(Record::Settle(lease));
    }

    fn is_blocked(&self, worker: &SimulatedWorker) -> bool {
        worker.is_blocked.load(Ordering::Relaxed)
    }

    fn is_worn(&self, _cell: &Cell<Self>, worker: &SimulatedWorker) -> bool {
        worker.is_worn.load(Ordering::Relaxed)
    }

    fn perform(driver: &Arc<Driver<Self>>, effects: Vec<Effect<Self>>) {
        if !effects.is_empty() && driver.host.random.lock().chance(driver.host.racy) {
            driver.host.record(Record::Delayed(effects));
        } else {
            driver.perform(effects);
        }
    }

    fn observe(&self, cell: &Cell<Self>, pool: &Pool, event: Event, actions: &[Action]) {
        let (now, chain) = {
            let mut clock = self.clock.lock();
            clock.1 += 1;
            *clock
        };
        assert!(chain < CHAIN_MAX, "S9: events lead to each other for ever");
        let (counts, health, is_closed, rules) = (pool.counts(), pool.health(now), pool.is_closed(), cell.rules());
        let after = Box::new(PoolState { counts, health, is_closed, rules });
        self.record(Record::Handled { pool: pool_of(cell.id), event, actions: actions.to_vec(), after });
    }

    fn observe_grant(&self, node: &Node, pool: PoolId, worker: WorkerId) {
        self.record(Record::Granted((pool_of(pool), worker), node.held()));
    }

    /// The daemon's map has no order.
    fn arrange(&self, cells: &mut Vec<Arc<Cell<Self>>>) {
        cells.sort_unstable_by_key(|cell| cell.id);
        self.random.lock().shuffle(cells);
    }
}

/// Returns the index of a pool.
fn pool_of(id: PoolId) -> usize {
    id.0 as usize - 1
}
