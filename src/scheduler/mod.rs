//! Chooses the worker that runs each invocation, and decides how many workers there are.
//!
//! [`pool::Pool`] makes the decisions: a pure state machine, one for each version and environment. The [`driver`] acts
//! on them. A pool sits behind a short lock in its cell; an event goes in, the lock is released, and the pool's actions
//! are performed outside it. Nothing is spawned, awaited or written under the lock. Places and memory, which pools
//! share, are given away by [`node::Node`], which is also pure and has its own lock: a pool asks it for a place for each
//! worker that it plans, and the node tells the pool when to give one up. Processes, tasks and the clock belong to the
//! driver's [`driver::Host`]: [`host`] in the daemon, and the simulation in tests.
//!
//! ```text
//! Scheduler::pool ─▶ PoolHandle::invoke ─▶ lease of a worker ─▶ Worker::exchange ─▶ Reply
//! ```
//!
//! **Invariants.** Each dispatched invocation holds exactly one [`driver::Lease`] of its worker, whose drop gives the
//! worker back or ends it, so a caller that goes away leaks nothing. Each worker has one task, from its start to its
//! end.

mod breaker;
mod check;
mod driver;
mod host;
mod invoke;
pub mod node;
pub mod pool;
mod renewal;
#[cfg(test)]
mod simulation;

pub use driver::Floor;
pub use invoke::{Failed, InvokeError, Pace, Reply, Wait};
pub use renewal::Renewal;

use crate::{
    bundle::BundleStore,
    model::{EnvironmentName, Settings, VersionId},
    worker::{Blueprint, Spawner, StartError},
};
use arc_swap::ArcSwap;
use breaker::{BACK_OFF_MAX, BACK_OFF_MIN};
use check::BundleCheck;
use driver::{Cell, Driver};
use host::PoolCode;
use node::{Caps, Node};
use pool::{Counts, Event, Health};
use std::{
    sync::{Arc, atomic::Ordering},
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
pub struct Scheduler(Arc<Driver<DaemonHost>>);

/// Processes, limits and tasks that the daemon's pools share.
#[derive(Debug)]
struct DaemonHost {
    spawner: Spawner,
    bundles: Arc<BundleStore>,
    limits: ArcSwap<Limits>,
    /// One permit for each concurrent start. Replaced when the limit changes: starts that already wait or run keep the
    /// old semaphore.
    starts: ArcSwap<Semaphore>,
    /// Owns one task per worker, and one per invocation whose caller has left.
    tasks: TaskTracker,
    runtime: Handle,
}

/// Handle to one pool, to invoke and to steer it.
#[derive(Debug, Clone)]
pub struct PoolHandle {
    driver: Arc<Driver<DaemonHost>>,
    cell: Arc<Cell<DaemonHost>>,
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

impl Scheduler {
    /// Makes a scheduler without pools. Must be called within the runtime that its tasks shall run on.
    #[must_use]
    pub fn new(spawner: Spawner, bundles: Arc<BundleStore>, limits: Limits) -> Self {
        let host = DaemonHost {
            spawner,
            bundles,
            starts: ArcSwap::from_pointee(Semaphore::new(limits.starts_max)),
            limits: ArcSwap::from_pointee(limits),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        };
        Self(Arc::new(Driver::new(host, Node::new(limits.caps))))
    }

    /// Returns the spawner that makes the workers.
    #[must_use]
    pub fn spawner(&self) -> &Spawner {
        &self.0.host.spawner
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
        let make = || {
            let (blueprint, settings, floor) = make();
            (PoolCode { blueprint, check: BundleCheck::default() }, (&settings).into(), floor)
        };
        self.handle(self.0.pool(version, |it| it.blueprint.environment == *environment, make))
    }

    /// Returns the pool of a version in an environment, if one was ever needed.
    #[must_use]
    pub fn existing(&self, version: VersionId, environment: &EnvironmentName) -> Option<PoolHandle> {
        let cell = self.0.existing(version, |it| it.blueprint.environment == *environment)?;
        Some(self.handle(cell))
    }

    /// Returns the pools of a version, one for each environment in which it was ever needed.
    #[must_use]
    pub fn pools_of(&self, version: VersionId) -> Vec<PoolHandle> {
        self.0.pools_of(version).into_iter().map(|cell| self.handle(cell)).collect()
    }

    fn handle(&self, cell: Arc<Cell<DaemonHost>>) -> PoolHandle {
        PoolHandle { driver: Arc::clone(&self.0), cell }
    }

    /// Closes a version's pools: waiting invocations fail, running ones finish. A later tick removes the pools.
    pub fn close(&self, version: VersionId) {
        for pool in self.pools_of(version) {
            self.0.apply(&pool.cell, Event::Close);
        }
    }

    /// Closes the pools of a deleted environment. Returns whether any of them still exists.
    pub fn close_in(&self, environment: &EnvironmentName) -> bool {
        let is_in = |it: &Arc<Cell<DaemonHost>>| it.code.blueprint.environment == *environment;
        let cells: Vec<_> = self.0.cells().into_iter().filter(is_in).collect();
        for cell in cells.iter().filter(|it| !it.is_closed()) {
            self.0.apply(cell, Event::Close);
        }
        !cells.is_empty()
    }

    /// Changes the limits; starts in progress are not interrupted.
    pub fn set_limits(&self, limits: Limits) {
        let host = &self.0.host;
        if limits.starts_max != host.limits.load().starts_max {
            host.starts.store(Arc::new(Semaphore::new(limits.starts_max)));
        }
        host.limits.store(Arc::new(limits));
        self.0.tell_node(|node| node.set_caps(limits.caps));
    }

    /// Returns all pools that have, or once had, a worker or a waiting invocation.
    #[must_use]
    pub fn snapshot(&self) -> Vec<PoolSnapshot> {
        self.0.cells().iter().map(snapshot).collect()
    }

    /// The node as STATUS shows it.
    #[must_use]
    pub fn node(&self) -> NodeSnapshot {
        self.0.ask_node(|node| NodeSnapshot { workers: node.held(), planned: node.asking(), caps: node.caps() })
    }

    /// Tells every pool that time has passed. Must be called every [`TICK`].
    pub fn tick(&self) {
        self.0.tick();
    }

    /// Checks the memory of all workers and tells the node the sum. Kills workers over their limit; replaces those near
    /// it, and those whose function now has another network or other variables. Must be called every `memory_poll`.
    pub fn enforce_memory(&self) {
        self.spawner().enforce_memory();
        self.0.replace_worn();
        let memory = self.spawner().measured_memory();
        self.0.tell_node(|node| node.measured(memory));
    }

    /// Keeps the configured number of prewarmed processes. Runs until it is dropped.
    ///
    /// Their starts queue with those of functions, and begin only once the import that took a prewarmed process is
    /// done.
    pub async fn keep_prewarmed(&self) {
        let mut pause = BACK_OFF_MIN;
        loop {
            let network = self.spawner().prewarm_missing().await;
            let starts = self.0.host.starts.load_full();
            let _permit = starts.acquire().await.expect("the semaphore is never closed");
            match self.spawner().prewarm(network).await {
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
        self.0.close();
        let tasks = &self.0.host.tasks;
        tasks.close();
        if tokio::time::timeout(grace, tasks.wait()).await.is_err() {
            tracing::warn!("invocations are still running after the grace period; their workers are ended");
            self.kill_all();
            tasks.wait().await;
        }
        self.spawner().drained().await;
    }

    /// Kills every worker at once, whatever it runs.
    pub fn kill_all(&self) {
        self.spawner().kill_all();
    }
}

impl PoolHandle {
    /// Brings at least `count` workers to ready, as far as the function's settings allow, and waits for their starts.
    pub async fn warm(&self, count: usize) -> Warmed {
        let mut changes = self.cell.changes();
        // Without a time limit, this would wait forever on a node whose floors take all places.
        let patience = Instant::now() + self.driver.host.limits.load().queue_timeout;
        let before = self.cell.failures();
        loop {
            let failed = self.cell.failures() - before;
            if failed == 0 {
                // Repeated after each change: workers that were stopping may have blocked the starts before.
                self.driver.apply(&self.cell, Event::Warm(count));
            }
            let counts = self.cell.counts();
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
        snapshot(&self.cell)
    }

    /// Applies a function's current settings.
    pub fn set_settings(&self, settings: &Settings) {
        let blueprint = &self.cell.code.blueprint;
        blueprint.memory_max.store(settings.memory_bytes(), Ordering::Relaxed);
        blueprint.network.set(settings.network);
        self.driver.apply(&self.cell, self.cell.set_rules(Some(settings.into()), None));
    }

    /// Sets which workers stay when nothing is invoked.
    pub fn set_floor(&self, floor: Floor) {
        self.driver.apply(&self.cell, self.cell.set_rules(None, Some(floor)));
    }
}

fn snapshot(cell: &Arc<Cell<DaemonHost>>) -> PoolSnapshot {
    let (counts, health) = (cell.counts(), cell.health(Instant::now()));
    PoolSnapshot { blueprint: cell.code.blueprint.clone(), counts, health }
}
