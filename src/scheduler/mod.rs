//! Chooses the worker that runs each invocation, and decides how many workers there are.
//!
//! [`pool::Pool`] makes the decisions: a pure state machine, one for each version and environment. This module acts on
//! them. A pool sits behind a short lock in its cell ([`cell`]); an event goes in, the lock is released, and the pool's
//! actions are performed outside it. Nothing is spawned, awaited or written under the lock. Places and memory, which
//! pools share, are given away by [`node::Node`], which is also pure and has its own lock: a pool asks it for a place
//! for each worker that it plans, and the node tells the pool when to give one up.
//!
//! ```text
//! Scheduler::pool ─▶ PoolHandle::invoke ─▶ lease of a worker ─▶ Worker::exchange ─▶ Reply
//! ```
//!
//! **Invariants.** Each dispatched invocation holds exactly one [`lease::Lease`] of its worker, whose drop gives the
//! worker back or ends it, so a caller that goes away leaks nothing. Each worker has one task, from its start to its
//! end.

mod breaker;
mod cell;
mod check;
mod invoke;
mod lease;
pub mod node;
pub mod pool;
mod renewal;
#[cfg(test)]
mod simulation;

pub use cell::Floor;
pub use invoke::{Failed, InvokeError, Pace, Reply, Wait};
pub use renewal::Renewal;

use crate::{
    bundle::BundleStore,
    model::{EnvironmentName, Settings, VersionId, WorkerId},
    worker::{Blueprint, Spawner, StartError},
};
use arc_swap::ArcSwap;
use breaker::{BACK_OFF_MAX, BACK_OFF_MIN};
use cell::Cell;
use node::{Caps, Node, PoolId};
use parking_lot::{Mutex, RwLock};
use pool::{Counts, Event, Health};
use std::{
    collections::HashMap,
    iter,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout_at};
use tokio_util::task::TaskTracker;

/// Interval at which pools are told that time has passed.
pub const TICK: Duration = Duration::from_millis(250);

/// Limits on starts and waits on this node.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Concurrent starts.
    pub starts_max: usize,
    /// How long an invocation waits for a worker.
    pub queue_timeout: Duration,
    /// Grace for an invocation past its deadline to end in a worker that also runs others.
    pub kill_grace: Duration,
    /// Time for which a worker that runs several invocations may stay unresponsive.
    pub blocked: Duration,
    /// Percentage of its memory limit at which a grown worker is replaced.
    pub memory_soft_percent: u64,
    /// Caps on all workers together.
    pub caps: Caps,
}

/// The pools of the node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Scheduler(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    spawner: Spawner,
    bundles: Arc<BundleStore>,
    pools: RwLock<Pools>,
    limits: ArcSwap<Limits>,
    /// Decides which pool gets the next place for a worker.
    node: Mutex<Node>,
    /// Whether the node needs a place or memory back. Checked when a worker becomes idle.
    is_short: AtomicBool,
    /// Held while places are taken back: two tasks at once would take the same place twice.
    reclaiming: Mutex<()>,
    /// Set when the pools' holdings must be examined again.
    reclaim_wanted: AtomicBool,
    /// One permit for each concurrent start. Replaced when the limit changes: starts that already wait or run keep the
    /// old semaphore.
    starts: ArcSwap<Semaphore>,
    /// Owns one task per worker, and one per invocation whose caller has left.
    tasks: TaskTracker,
    runtime: Handle,
}

#[derive(Debug, Default)]
struct Pools {
    /// Pools by version. A version has one for each environment it runs in, and these are few.
    cells: HashMap<VersionId, Vec<Arc<Cell>>>,
    /// Number of pools ever made; the source of pool ids.
    made: u64,
    /// Set when the daemon stops: a pool made after that is closed at once.
    closed: bool,
}

/// Handle to one pool, to invoke and to steer it.
#[derive(Debug, Clone)]
pub struct PoolHandle {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
}

/// A pool as STATUS shows it.
#[derive(Debug, Clone)]
pub struct PoolSnapshot {
    /// Code and environment of its workers.
    pub blueprint: Blueprint,
    /// Workers in each state.
    pub counts: Counts,
    /// Whether its starts succeed.
    pub health: Health,
}

/// The node as STATUS shows it.
#[derive(Debug, Clone, Copy)]
pub struct NodeSnapshot {
    /// Places held: workers with a function, in any state.
    pub workers: usize,
    /// Workers that wait for a place.
    pub planned: usize,
    /// Caps in force.
    pub caps: Caps,
}

/// Result of a warm-up.
#[derive(Debug)]
pub struct Warmed {
    /// Workers that are ready now.
    pub ready: usize,
    /// Starts that failed during the warm-up.
    pub failed: usize,
    /// Workers still waiting for a place on the node.
    pub planned: usize,
    /// Cause of the latest failure.
    pub failure: Option<Arc<StartError>>,
    /// Whether the pool takes no more work.
    pub closed: bool,
}

impl Pools {
    fn find(&self, version: VersionId, environment: &EnvironmentName) -> Option<Arc<Cell>> {
        self.cells.get(&version)?.iter().find(|cell| cell.blueprint.environment == *environment).cloned()
    }
}

impl Scheduler {
    /// Makes a scheduler without pools. Must be called within the runtime that its tasks shall run on.
    #[must_use]
    pub fn new(spawner: Spawner, bundles: Arc<BundleStore>, limits: Limits) -> Self {
        Self(Arc::new(Shared {
            spawner,
            bundles,
            pools: RwLock::default(),
            starts: ArcSwap::from_pointee(Semaphore::new(limits.starts_max)),
            limits: ArcSwap::from_pointee(limits),
            node: Mutex::new(Node::new(limits.caps)),
            is_short: AtomicBool::new(false),
            reclaiming: Mutex::new(()),
            reclaim_wanted: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }))
    }

    /// Returns the spawner that makes the workers.
    #[must_use]
    pub fn spawner(&self) -> &Spawner {
        &self.0.spawner
    }

    /// Returns the pool of a version in an environment. `make` is called only if the pool does not exist yet.
    pub fn pool(
        &self,
        version: VersionId,
        environment: &EnvironmentName,
        make: impl FnOnce() -> (Blueprint, Settings, Floor),
    ) -> PoolHandle {
        if let Some(pool) = self.existing(version, environment) {
            return pool;
        }
        let (cell, closed) = {
            let mut pools = self.0.pools.write();
            let cell = pools.find(version, environment).unwrap_or_else(|| {
                let (blueprint, settings, floor) = make();
                pools.made += 1;
                let cell = Arc::new(Cell::new(PoolId(pools.made), blueprint, settings, floor));
                pools.cells.entry(version).or_default().push(Arc::clone(&cell));
                cell
            });
            (cell, pools.closed)
        };
        if closed {
            self.0.apply(&cell, Event::Close);
        }
        PoolHandle { shared: Arc::clone(&self.0), cell }
    }

    /// Returns the pool of a version in an environment, if one was ever needed.
    #[must_use]
    pub fn existing(&self, version: VersionId, environment: &EnvironmentName) -> Option<PoolHandle> {
        let cell = self.0.pools.read().find(version, environment)?;
        Some(PoolHandle { shared: Arc::clone(&self.0), cell })
    }

    /// Returns the pools of a version, one for each environment in which it was ever needed.
    #[must_use]
    pub fn pools_of(&self, version: VersionId) -> Vec<PoolHandle> {
        let cells = self.0.pools.read().cells.get(&version).cloned().unwrap_or_default();
        cells.into_iter().map(|cell| PoolHandle { shared: Arc::clone(&self.0), cell }).collect()
    }

    /// Closes a version's pools: waiting invocations fail, running ones finish. A later tick removes the pools.
    pub fn close(&self, version: VersionId) {
        for pool in self.pools_of(version) {
            self.0.apply(&pool.cell, Event::Close);
        }
    }

    /// Closes the pools of a deleted environment. Returns whether any of them still exists.
    pub fn close_in(&self, environment: &EnvironmentName) -> bool {
        let cells: Vec<_> = self.0.cells().into_iter().filter(|it| it.blueprint.environment == *environment).collect();
        for cell in cells.iter().filter(|it| !it.is_closed()) {
            self.0.apply(cell, Event::Close);
        }
        !cells.is_empty()
    }

    /// Changes the limits; starts in progress are not interrupted.
    pub fn set_limits(&self, limits: Limits) {
        if limits.starts_max != self.0.limits.load().starts_max {
            self.0.starts.store(Arc::new(Semaphore::new(limits.starts_max)));
        }
        self.0.limits.store(Arc::new(limits));
        self.0.tell_node(|node| node.set_caps(limits.caps));
    }

    /// Returns all pools that have, or once had, a worker or a waiting invocation.
    #[must_use]
    pub fn snapshot(&self) -> Vec<PoolSnapshot> {
        self.0.cells().iter().map(|cell| cell.snapshot()).collect()
    }

    /// The node as STATUS shows it.
    #[must_use]
    pub fn node(&self) -> NodeSnapshot {
        let node = self.0.node.lock();
        NodeSnapshot { workers: node.held(), planned: node.asking(), caps: node.caps() }
    }

    /// Tells every pool that time has passed. Must be called every [`TICK`].
    pub fn tick(&self) {
        let now = Shared::now();
        let is_starving = self.0.node.lock().is_starving(now);
        for cell in self.0.cells() {
            if cell.is_floor_over(now, is_starving) {
                self.0.apply(&cell, cell.set_rules(None, Some(Floor::Nothing)));
            }
            self.0.apply(&cell, Event::Tick);
            self.0.retire_blocked(&cell);
        }
        self.0.pools.write().cells.retain(|_, cells| {
            cells.retain(|cell| !cell.is_over());
            !cells.is_empty()
        });
    }

    /// Checks the memory of all workers and tells the node the sum. Kills workers over their limit; replaces those near
    /// it, and those whose function now has another network or other variables. Must be called every `memory_poll`.
    pub fn enforce_memory(&self) {
        self.0.spawner.enforce_memory();
        let soft_percent = self.0.limits.load().memory_soft_percent;
        for cell in self.0.cells() {
            let soft = cell.blueprint.memory_max.load(Ordering::Relaxed) / 100 * soft_percent;
            for (id, worker) in cell.workers() {
                // A process cannot change its network, so a changed setting needs new processes.
                let is_outdated = worker.network != cell.blueprint.network.get()
                    || !cell.blueprint.has_current_variables(&worker.revisions);
                if is_outdated || worker.has_grown_to(soft) {
                    self.0.apply(&cell, Event::Worn(id));
                }
            }
        }
        let memory = self.0.spawner.measured_memory();
        self.0.tell_node(|node| node.measured(memory));
    }

    /// Keeps the configured number of prewarmed processes. Runs until it is dropped.
    ///
    /// Their starts queue with those of functions, and begin only once the import that took a prewarmed process is
    /// done.
    pub async fn keep_prewarmed(&self) {
        let mut pause = BACK_OFF_MIN;
        loop {
            let network = self.0.spawner.prewarm_missing().await;
            let starts = self.0.starts.load_full();
            let _permit = starts.acquire().await.expect("the semaphore is never closed");
            match self.0.spawner.prewarm(network).await {
                Ok(()) => pause = BACK_OFF_MIN,
                Err(error) => {
                    tracing::warn!("cannot prewarm a worker: {error}");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(BACK_OFF_MAX);
                }
            }
        }
    }

    /// Takes no more invocations, waits up to `grace` for the running ones, then kills the remaining workers and waits
    /// for their exit.
    pub async fn shutdown(&self, grace: Duration) {
        self.0.pools.write().closed = true;
        for cell in self.0.cells() {
            self.0.apply(&cell, Event::Close);
        }
        self.0.tasks.close();
        if tokio::time::timeout(grace, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("invocations are still running after the grace period; their workers are ended");
            self.kill_all();
            self.0.tasks.wait().await;
        }
        self.0.spawner.drained().await;
    }

    /// Kills every worker at once, whatever it runs.
    pub fn kill_all(&self) {
        self.0.spawner.kill_all();
    }
}

impl PoolHandle {
    /// Brings at least `count` workers to ready, as far as the function's settings allow, and waits for their starts.
    pub async fn warm(&self, count: usize) -> Warmed {
        let mut changes = self.cell.changes();
        // Without a time limit, this would wait forever on a node whose floors take all places.
        let patience = Instant::now() + self.shared.limits.load().queue_timeout;
        let before = self.cell.failures();
        loop {
            let failed = self.cell.failures() - before;
            if failed == 0 {
                // Repeated after each change: workers that were stopping may have blocked the starts before.
                self.shared.apply(&self.cell, Event::Warm(count));
            }
            let counts = self.cell.snapshot().counts;
            let ready = counts.ready();
            let mut waiting = counts.starting > 0 || (counts.leaving() > 0 && failed == 0 && !self.cell.is_closed());
            if ready < count && counts.planned > 0 && !waiting {
                waiting = timeout_at(patience.into(), changes.changed()).await.is_ok();
            } else if ready < count && waiting {
                waiting = changes.changed().await.is_ok();
            }
            if ready >= count || !waiting {
                let failure = self.cell.last_failure().filter(|_| failed > 0);
                return Warmed { ready, failed, failure, planned: counts.planned, closed: self.cell.is_closed() };
            }
        }
    }

    /// The pool as STATUS shows it.
    #[must_use]
    pub fn snapshot(&self) -> PoolSnapshot {
        self.cell.snapshot()
    }

    /// Applies a function's current settings.
    pub fn set_settings(&self, settings: &Settings) {
        self.shared.apply(&self.cell, self.cell.set_rules(Some(*settings), None));
    }

    /// Sets which workers stay when nothing is invoked.
    pub fn set_floor(&self, floor: Floor) {
        self.shared.apply(&self.cell, self.cell.set_rules(None, Some(floor)));
    }
}

impl Shared {
    fn cells(&self) -> Vec<Arc<Cell>> {
        self.pools.read().cells.values().flatten().cloned().collect()
    }

    /// Searches all pools: cheap compared with the start of the worker that it is for.
    fn cell(&self, pool: PoolId) -> Option<Arc<Cell>> {
        self.pools.read().cells.values().flatten().find(|cell| cell.id == pool).cloned()
    }

    /// Retires workers that block several invocations at once, so that they take no more.
    fn retire_blocked(self: &Arc<Self>, cell: &Arc<Cell>) {
        if cell.concurrency() == 1 {
            return;
        }
        let (now, blocked_max) = (Self::now(), self.limits.load().blocked);
        for (id, worker) in cell.workers() {
            if worker.blocked_for(now).is_some_and(|blocked| blocked >= blocked_max) {
                self.apply(cell, Event::Retire(id));
            } else if worker.is_busy() {
                worker.ping();
            }
        }
    }

    /// Changes the node's state, and tells the pools which places they get.
    fn tell_node(self: &Arc<Self>, tell: impl FnOnce(&mut Node)) {
        let (granted, was_short, is_short) = {
            let mut node = self.node.lock();
            tell(&mut node);
            let granted: Vec<(PoolId, WorkerId)> = iter::from_fn(|| node.grant()).collect();
            let is_short = node.is_short();
            (granted, self.is_short.swap(is_short, Ordering::Relaxed), is_short)
        };
        for (pool, worker) in granted {
            match self.cell(pool) {
                Some(cell) => self.apply(&cell, Event::Granted(worker)),
                None => self.left(pool, worker),
            }
        }
        // Runs once more when no pool asks any longer, so that pools told to give something up keep it.
        if is_short || was_short {
            self.reclaim();
        }
    }

    /// Tells the node that a worker has exited or that a request for a place is withdrawn.
    fn left(self: &Arc<Self>, pool: PoolId, worker: WorkerId) {
        self.tell_node(|node| node.left(pool, worker));
    }

    /// Has pools give up places that others need more.
    fn reclaim(self: &Arc<Self>) {
        self.reclaim_wanted.store(true, Ordering::SeqCst);
        while self.reclaim_wanted.load(Ordering::SeqCst) {
            // The holder of the lock checks `reclaim_wanted` again before it returns.
            let Some(_reclaiming) = self.reclaiming.try_lock() else { return };
            if !self.reclaim_wanted.swap(false, Ordering::SeqCst) {
                return;
            }
            let cells = self.cells();
            let holdings: Vec<_> = cells.iter().map(|cell| (cell.id, cell.holding())).collect();
            let events = self.node.lock().reclaim(&holdings, Self::now());
            for (pool, event) in events {
                if let Some(cell) = cells.iter().find(|cell| cell.id == pool) {
                    self.apply(cell, event);
                }
            }
        }
    }

    fn now() -> Instant {
        Instant::now()
    }
}
