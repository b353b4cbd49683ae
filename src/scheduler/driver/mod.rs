//! Passes events to the pools and the node, and performs their decisions once the locks are released.
//!
//! The driver owns the locks, the leases and the order of steps. Processes, tasks and the clock belong to its [`Host`].
//! The daemon is one host; the simulation (`simulation.rs`) is another, so it tests the code that runs.
//!
//! **Locks.** A pool's lock may be held while the node's is taken, never the other way round. Under a pool's lock the
//! node is told of requests and exits: outside it, the withdrawal of a request could reach the node before the request
//! itself. Everything else follows as [`Effect`]s after the release, when other threads may have come first.

use super::{
    node::{Node, PoolId},
    pool::{Action, Event, Pool},
};
use crate::{
    model::{InvocationId, WorkerId},
    worker::StartError,
};
use cell::CellState;
use parking_lot::{Mutex, RwLock};
use pools::Pools;
use std::{
    fmt, iter,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::sync::oneshot;

pub use cell::Floor;
#[cfg(test)]
pub(super) use cell::Rules;
pub(super) use cell::{Cell, Refusal};

mod cell;
mod pools;

/// Processes, tasks and the clock, as the driver needs them.
pub(super) trait Host: fmt::Debug + Sized {
    /// A ready worker.
    type Worker: fmt::Debug;
    /// A start in progress.
    type Start: fmt::Debug + Clone;
    /// Code and environment of a pool's workers.
    type Code: fmt::Debug;

    fn now(&self) -> Instant;

    /// Makes the handle by which a start can be cancelled.
    fn plan_start(&self, pool: PoolId, worker: WorkerId) -> Self::Start;

    /// Begins a start. Its end is reported by [`Driver::ready`] or [`Driver::gone`].
    fn start(driver: &Arc<Driver<Self>>, cell: &Arc<Cell<Self>>, worker: WorkerId, start: Self::Start);

    /// Cancels a start, if it has not ended.
    fn cancel(&self, start: &Self::Start);

    /// Ends a ready worker.
    fn stop(&self, worker: &Self::Worker);

    /// Ends the lease of an invocation that runs on without a caller, until this deadline at most.
    fn settle(lease: Lease<Self>, deadline: Instant);

    /// Whether a worker has blocked its invocations for too long.
    fn is_blocked(&self, worker: &Self::Worker) -> bool;

    /// Whether a worker should be replaced.
    fn is_worn(&self, cell: &Cell<Self>, worker: &Self::Worker) -> bool;

    /// Performs effects after a lock was released. Only the simulation does it later.
    fn perform(driver: &Arc<Driver<Self>>, effects: Vec<Effect<Self>>) {
        driver.perform(effects);
    }

    /// Sees an event and its actions, under the pool's lock.
    fn observe(&self, _cell: &Cell<Self>, _pool: &Pool, _event: Event, _actions: &[Action]) {}

    /// Sees a granted place, under the node's lock.
    fn observe_grant(&self, _node: &Node, _pool: PoolId, _worker: WorkerId) {}

    /// Puts cells into an order that does not depend on hashes.
    fn arrange(&self, _cells: &mut Vec<Arc<Cell<Self>>>) {}
}

/// Part of an event's outcome that is performed after the lock was released.
#[derive(Debug)]
pub(super) enum Effect<H: Host> {
    /// The node has requests, returned places or withdrawn requests to decide about.
    SettleNode,
    Grant(PoolId, WorkerId),
    Reclaim,
    Start(Arc<Cell<H>>, WorkerId, H::Start),
    CancelStart(H::Start),
    Stop(Arc<H::Worker>),
    Answer(oneshot::Sender<LeaseResult<H>>, LeaseResult<H>),
}

/// All pools of a host, and the node that they share.
#[derive(Debug)]
pub(super) struct Driver<H: Host> {
    pub(super) host: H,
    pools: RwLock<Pools<H>>,
    /// Decides which pool gets the next place for a worker.
    node: Mutex<Node>,
    /// Whether the node needs a place or memory back. Checked when a worker becomes idle.
    is_short: AtomicBool,
    /// Held while places are taken back: two tasks at once would take the same place twice.
    reclaiming: Mutex<()>,
    /// Set when the pools' holdings must be examined again.
    reclaim_wanted: AtomicBool,
}

impl<H: Host> Driver<H> {
    pub(super) fn new(host: H, node: Node) -> Self {
        Self {
            host,
            pools: RwLock::new(Pools::default()),
            node: Mutex::new(node),
            is_short: AtomicBool::new(false),
            reclaiming: Mutex::new(()),
            reclaim_wanted: AtomicBool::new(false),
        }
    }

    /// Asks the node something.
    pub(super) fn ask_node<T>(&self, ask: impl FnOnce(&Node) -> T) -> T {
        ask(&self.node.lock())
    }

    /// Changes the node's state, and tells the pools which places they get.
    pub(super) fn tell_node(self: &Arc<Self>, tell: impl FnOnce(&mut Node)) {
        let effects = {
            let mut node = self.node.lock();
            tell(&mut node);
            let granted = iter::from_fn(|| {
                let (pool, worker) = node.grant()?;
                self.host.observe_grant(&node, pool, worker);
                Some(Effect::Grant(pool, worker))
            });
            let mut effects: Vec<_> = granted.collect();
            let is_short = node.is_short();
            // Once more when no pool asks any longer, so that pools told to give something up keep it.
            if self.is_short.swap(is_short, Ordering::Relaxed) || is_short {
                effects.push(Effect::Reclaim);
            }
            effects
        };
        H::perform(self, effects);
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
            let events = self.node.lock().reclaim(&holdings, self.host.now());
            for (pool, event) in events {
                if let Some(cell) = cells.iter().find(|cell| cell.id == pool) {
                    self.apply(cell, event);
                }
            }
        }
    }

    /// Passes an event to a pool and performs the resulting actions.
    pub(super) fn apply(self: &Arc<Self>, cell: &Arc<Cell<H>>, event: Event) {
        self.change(cell, event, |_| {});
    }

    /// Passes an event to a pool and, before it under the same lock, changes the workers and callers around the pool.
    fn change(self: &Arc<Self>, cell: &Arc<Cell<H>>, event: Event, change: impl FnOnce(&mut CellState<H>)) {
        let effects = {
            let mut state = cell.state();
            change(&mut state);
            let mut actions = self.handle(cell, &mut state, event);
            let mut effects: Vec<_> =
                actions.drain(..).filter_map(|action| self.effect(cell, &mut state, action)).collect();
            state.actions = actions;
            // Another pool may be waiting for the place of a worker that is no longer needed.
            let is_asked = matches!(event, Event::Release(_)) && self.is_short.load(Ordering::Relaxed);
            if is_asked && !state.pool.holding().idle.is_empty() {
                effects.push(Effect::Reclaim);
            }
            effects
        };
        H::perform(self, effects);
    }

    fn handle(&self, cell: &Cell<H>, state: &mut CellState<H>, event: Event) -> Vec<Action> {
        let mut actions = std::mem::take(&mut state.actions);
        state.pool.handle(event, self.host.now(), &mut actions);
        self.host.observe(cell, &state.pool, event, &actions);
        actions
    }

    /// Resolves an action: finds the worker or caller it names.
    fn effect(self: &Arc<Self>, cell: &Arc<Cell<H>>, state: &mut CellState<H>, action: Action) -> Option<Effect<H>> {
        match action {
            Action::Ask { worker, replaces } => {
                self.node.lock().ask(cell.id, worker, replaces, self.host.now());
                Some(Effect::SettleNode)
            }
            Action::Withdraw(id) => {
                self.node.lock().left(cell.id, id);
                Some(Effect::SettleNode)
            }
            Action::Start(id) => {
                let start = self.host.plan_start(cell.id, id);
                state.starting.insert(id, start.clone());
                Some(Effect::Start(Arc::clone(cell), id, start))
            }
            Action::Stop(id) => match state.workers.get(&id) {
                Some(worker) => Some(Effect::Stop(Arc::clone(worker))),
                None => state.starting.get(&id).cloned().map(Effect::CancelStart),
            },
            Action::Dispatch { worker, invocation } => {
                let waiting = state.waiting.remove(&invocation)?;
                Some(Effect::Answer(waiting, Ok(self.lease(cell, state, worker, invocation))))
            }
            Action::Fail { invocation, reason } => {
                let waiting = state.waiting.remove(&invocation)?;
                Some(Effect::Answer(waiting, Err(state.refusal(reason))))
            }
        }
    }

    pub(super) fn perform(self: &Arc<Self>, effects: Vec<Effect<H>>) {
        for effect in effects {
            match effect {
                Effect::SettleNode => self.tell_node(|_| {}),
                Effect::Grant(pool, worker) => match self.cell(pool) {
                    Some(cell) => self.apply(&cell, Event::Granted(worker)),
                    None => self.tell_node(|node| node.left(pool, worker)),
                },
                Effect::Reclaim => self.reclaim(),
                Effect::Start(cell, id, start) => H::start(self, &cell, id, start),
                Effect::CancelStart(start) => self.host.cancel(&start),
                Effect::Stop(worker) => self.host.stop(&worker),
                // If the caller has just left, this drops the lease and so gives the worker back.
                Effect::Answer(waiting, result) => drop(waiting.send(result)),
            }
        }
    }

    /// Records a successful start.
    pub(super) fn ready(self: &Arc<Self>, cell: &Arc<Cell<H>>, id: WorkerId, worker: &Arc<H::Worker>) {
        let mut is_given_up = false;
        self.change(cell, Event::Ready(id), |state| {
            is_given_up = !state.pool.is_starting(id);
            state.starting.remove(&id);
            state.workers.insert(id, Arc::clone(worker));
        });
        // The order to cancel the start may arrive only after its end.
        if is_given_up {
            self.host.stop(worker);
        }
        cell.changed();
    }

    /// Records that a process is gone, or that its start has failed.
    pub(super) fn gone(self: &Arc<Self>, cell: &Arc<Cell<H>>, id: WorkerId, failure: Option<StartError>) {
        let event = if failure.is_some() { Event::StartFailed(id) } else { Event::Exited(id) };
        self.change(cell, event, |state| {
            state.starting.remove(&id);
            state.workers.remove(&id);
            state.failures += usize::from(failure.is_some());
            state.last_failure = failure.map(Arc::new).or(state.last_failure.take());
            // The pool may ask for another place at once: the node should then know that this one is free, and not take
            // one from another pool.
            self.node.lock().left(cell.id, id);
        });
        cell.changed();
        self.tell_node(|_| {});
    }

    /// Asks for a worker: an idle one at once, or a place in the queue.
    pub(super) fn request(
        self: &Arc<Self>,
        cell: &Arc<Cell<H>>,
        invocation: InvocationId,
    ) -> Result<LeaseResult<H>, Waiting<H>> {
        let mut outcome = None;
        let mut effects = Vec::new();
        {
            let mut state = cell.state();
            let mut actions = self.handle(cell, &mut state, Event::Invoke(invocation));
            for action in actions.drain(..) {
                match action {
                    Action::Dispatch { worker, invocation: own } if own == invocation => {
                        outcome = Some(Ok(Ok(self.lease(cell, &state, worker, invocation))));
                    }
                    Action::Fail { invocation: own, reason } if own == invocation => {
                        outcome = Some(Ok(Err(state.refusal(reason))));
                    }
                    other => effects.extend(self.effect(cell, &mut state, other)),
                }
            }
            state.actions = actions;
            if outcome.is_none() {
                let (sender, result) = oneshot::channel();
                state.waiting.insert(invocation, sender);
                let (driver, cell) = (Arc::clone(self), Arc::clone(cell));
                outcome = Some(Err(Waiting { driver, cell, invocation, result }));
            }
        }
        H::perform(self, effects);
        outcome.expect("it was just filled")
    }

    fn lease(
        self: &Arc<Self>,
        cell: &Arc<Cell<H>>,
        state: &CellState<H>,
        id: WorkerId,
        invocation: InvocationId,
    ) -> Lease<H> {
        let worker = state.workers.get(&id).expect("the pool dispatches to workers that are ready");
        let (driver, cell, worker) = (Arc::clone(self), Arc::clone(cell), Arc::clone(worker));
        Lease { driver, cell, id, worker, invocation, stage: LeaseStage::Unused }
    }
}

/// Outcome of a caller's wait.
pub(super) type LeaseResult<H> = Result<Lease<H>, Refusal>;

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Waiting<H: Host> {
    driver: Arc<Driver<H>>,
    cell: Arc<Cell<H>>,
    invocation: InvocationId,
    result: oneshot::Receiver<LeaseResult<H>>,
}

impl<H: Host> Waiting<H> {
    /// Waits for a worker.
    pub(super) async fn result(&mut self) -> LeaseResult<H> {
        (&mut self.result).await.unwrap_or(Err(Refusal::Closed))
    }
}

impl<H: Host> Drop for Waiting<H> {
    fn drop(&mut self) {
        let invocation = self.invocation;
        self.driver.change(&self.cell, Event::Cancel(invocation), |state| {
            state.waiting.remove(&invocation);
        });
    }
}

/// The right to one slot of a worker. Its drop gives the slot back: at once if nothing was sent, else when the
/// invocation has settled.
#[derive(Debug)]
pub(super) struct Lease<H: Host> {
    pub(super) driver: Arc<Driver<H>>,
    pub(super) cell: Arc<Cell<H>>,
    id: WorkerId,
    pub(super) worker: Arc<H::Worker>,
    pub(super) invocation: InvocationId,
    stage: LeaseStage,
}

#[derive(Debug, Clone, Copy)]
enum LeaseStage {
    /// The invocation was not sent.
    Unused,
    /// The invocation runs in the worker, until this deadline at most.
    Running { deadline: Instant },
    /// The lease's end has another owner, or the pool was told of it.
    Over,
}

impl<H: Host> Lease<H> {
    /// Records that the invocation is being sent, or that its deadline has changed.
    pub(super) fn run_until(&mut self, deadline: Instant) {
        self.stage = LeaseStage::Running { deadline };
    }

    /// Ends the lease with an event about its worker.
    pub(super) fn end(mut self, event: impl FnOnce(WorkerId) -> Event) {
        self.stage = LeaseStage::Over;
        self.driver.apply(&self.cell, event(self.id));
    }
}

impl<H: Host> Drop for Lease<H> {
    fn drop(&mut self) {
        match self.stage {
            LeaseStage::Over => {}
            LeaseStage::Unused => self.driver.apply(&self.cell, Event::Release(self.id)),
            LeaseStage::Running { deadline } => {
                let (driver, cell, worker) =
                    (Arc::clone(&self.driver), Arc::clone(&self.cell), Arc::clone(&self.worker));
                let (id, invocation) = (self.id, self.invocation);
                H::settle(Self { driver, cell, id, worker, invocation, stage: LeaseStage::Over }, deadline);
            }
        }
    }
}
