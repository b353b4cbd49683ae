//! A pool behind its lock, with the workers and callers that its decisions are about.

use super::{
    super::{
        node::PoolId,
        pool::{Action, Counts, Event, Failure, Health, Holding, Limits, Pool},
    },
    Host, LeaseResult,
};
use crate::{
    model::{InvocationId, WorkerId},
    worker::StartError,
};
use parking_lot::{Mutex, MutexGuard};
use std::{collections::HashMap, sync::Arc, time::Instant};
use tokio::sync::{oneshot, watch};

/// One pool with the workers and callers that its decisions are about.
#[derive(Debug)]
pub(in super::super) struct Cell<H: Host> {
    /// Id of the pool at the node.
    pub(in super::super) id: PoolId,
    pub(in super::super) code: H::Code,
    state: Mutex<CellState<H>>,
    rules: Mutex<Rules>,
    /// Rises with every start that ends.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct CellState<H: Host> {
    pub(super) pool: Pool,
    /// Ready workers, idle and busy.
    pub(super) workers: HashMap<WorkerId, Arc<H::Worker>>,
    /// Starts in progress.
    pub(super) starting: HashMap<WorkerId, H::Start>,
    pub(super) waiting: HashMap<InvocationId, oneshot::Sender<LeaseResult<H>>>,
    pub(super) failures: usize,
    pub(super) last_failure: Option<Arc<StartError>>,
    /// Empty between events; kept so that an event allocates nothing.
    pub(super) actions: Vec<Action>,
}

/// Reason why a caller gets no worker.
#[derive(Debug)]
pub(in super::super) enum Refusal {
    QueueFull,
    StartFailed(Option<Arc<StartError>>),
    Closed,
}

/// Number of workers that stay when nothing is invoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// `workers_min` of the limits: the version is live.
    Settings,
    /// One worker until this time, or until another function waits for its place: the version was live before, so a
    /// rollback to it shall find it warm.
    OneUntil(Instant),
    /// No workers.
    Nothing,
}

/// Sources of a pool's limits.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Rules {
    /// Limits of a live version.
    pub(in super::super) settings: Limits,
    pub(in super::super) floor: Floor,
}

impl Rules {
    pub(in super::super) fn limits(&self) -> Limits {
        let workers_min = match self.floor {
            Floor::Settings => self.settings.workers_min,
            Floor::OneUntil(_) => 1,
            Floor::Nothing => 0,
        };
        Limits { workers_min, ..self.settings }
    }
}

impl<H: Host> Cell<H> {
    pub(super) fn new(id: PoolId, code: H::Code, settings: Limits, floor: Floor) -> Self {
        let rules = Rules { settings, floor };
        let state = CellState {
            pool: Pool::new(rules.limits()),
            workers: HashMap::new(),
            starting: HashMap::new(),
            waiting: HashMap::new(),
            failures: 0,
            last_failure: None,
            actions: Vec::new(),
        };
        Self { id, code, state: Mutex::new(state), rules: Mutex::new(rules), changes: watch::Sender::new(0) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, CellState<H>> {
        self.state.lock()
    }

    /// Replaces the given rules; `None` keeps the current value. Returns the event that the pool must be told.
    pub(in super::super) fn set_rules(&self, settings: Option<Limits>, floor: Option<Floor>) -> Event {
        let mut rules = self.rules.lock();
        rules.settings = settings.unwrap_or(rules.settings);
        rules.floor = floor.unwrap_or(rules.floor);
        Event::SetLimits(rules.limits())
    }

    pub(in super::super) fn rules(&self) -> Rules {
        *self.rules.lock()
    }

    /// Whether a temporary floor has ended, either by time or because places are short.
    pub(super) fn is_floor_over(&self, now: Instant, is_starving: bool) -> bool {
        matches!(self.rules().floor, Floor::OneUntil(until) if until <= now || is_starving)
    }

    pub(in super::super) fn counts(&self) -> Counts {
        self.state().pool.counts()
    }

    pub(in super::super) fn health(&self, now: Instant) -> Health {
        self.state().pool.health(now)
    }

    /// Whether the pool is closed and has neither workers nor callers.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state();
        state.pool.is_closed() && state.pool.is_empty()
    }

    /// Returns what the node may take from the pool.
    pub(in super::super) fn holding(&self) -> Holding {
        self.state().pool.holding()
    }

    /// Returns how many invocations one of its workers may run at once.
    pub(in super::super) fn concurrency(&self) -> usize {
        self.rules().settings.concurrency
    }

    /// Returns the ready workers, in the order of their starts.
    pub(in super::super) fn workers(&self) -> Vec<(WorkerId, Arc<H::Worker>)> {
        let mut workers: Vec<_> = self.state().workers.iter().map(|(id, worker)| (*id, Arc::clone(worker))).collect();
        workers.sort_unstable_by_key(|(id, _)| *id);
        workers
    }

    /// Whether a worker may be given invocations.
    pub(in super::super) fn is_serving(&self, id: WorkerId) -> bool {
        self.state().pool.is_serving(id)
    }

    pub(in super::super) fn starting(&self) -> Vec<WorkerId> {
        self.state().starting.keys().copied().collect()
    }

    pub(in super::super) fn is_starting(&self, id: WorkerId) -> bool {
        self.state().starting.contains_key(&id)
    }

    pub(in super::super) fn is_closed(&self) -> bool {
        self.state().pool.is_closed()
    }

    pub(in super::super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(in super::super) fn failures(&self) -> usize {
        self.state().failures
    }

    pub(in super::super) fn last_failure(&self) -> Option<Arc<StartError>> {
        self.state().last_failure.clone()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl<H: Host> CellState<H> {
    pub(super) fn refusal(&self, reason: Failure) -> Refusal {
        match reason {
            Failure::QueueFull => Refusal::QueueFull,
            Failure::StartFailed => Refusal::StartFailed(self.last_failure.clone()),
            Failure::Closed => Refusal::Closed,
        }
    }
}
