//! A pool behind its lock, and the code that performs its actions once the lock is released.

use super::{
    PoolSnapshot, Shared,
    check::BundleCheck,
    lease::Lease,
    node::PoolId,
    pool::{self, Action, Event, Failure, Holding, Pool},
};
use crate::{
    model::{InvocationId, Settings, WorkerId},
    worker::{Blueprint, KillReason, StartError, Worker},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Outcome of a caller's wait.
pub(super) type Grant = Result<Lease, Refusal>;

/// Reason why a caller gets no worker.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    QueueFull,
    StartFailed(Option<Arc<StartError>>),
    Closed,
}

/// One pool with the processes and callers that its decisions are about.
#[derive(Debug)]
pub(super) struct Cell {
    /// Id of the pool at the node.
    pub(super) id: PoolId,
    pub(super) blueprint: Blueprint,
    state: Mutex<State>,
    /// Verifies that the bundle is still the published one.
    check: BundleCheck,
    rules: Mutex<Rules>,
    /// Rises with every start that ends.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    pool: Pool,
    /// Ready workers, idle and busy.
    workers: HashMap<WorkerId, Arc<Worker>>,
    /// Starts in progress. Cancelling a token ends the start.
    starting: HashMap<WorkerId, CancellationToken>,
    waiting: HashMap<InvocationId, oneshot::Sender<Grant>>,
    failures: usize,
    last_failure: Option<Arc<StartError>>,
    /// Empty between events; kept so that an event allocates nothing.
    actions: Vec<Action>,
}

/// An action to perform once the lock is released.
enum Effect {
    /// The node has a new or withdrawn request for a place.
    SettleNode,
    Start(WorkerId, CancellationToken),
    Stop(Arc<Worker>),
    CancelStart(CancellationToken),
    Answer(oneshot::Sender<Grant>, Grant),
}

/// Number of workers that stay when nothing is invoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// `warm_workers` of the settings: the version is live.
    Settings,
    /// One worker until this time, or until another function waits for its place: the version was live before, so a
    /// rollback to it shall find it warm.
    OneUntil(Instant),
    /// No workers.
    Nothing,
}

/// Sources of a pool's limits.
#[derive(Debug, Clone, Copy)]
struct Rules {
    settings: Settings,
    floor: Floor,
}

impl Rules {
    fn limits(&self) -> pool::Limits {
        let settings = &self.settings;
        let workers_min = match self.floor {
            Floor::Settings => settings.warm_workers,
            Floor::OneUntil(_) => 1,
            Floor::Nothing => 0,
        };
        pool::Limits {
            workers_max: settings.workers_max() as usize,
            concurrency: settings.worker_concurrency as usize,
            executions_max: settings.max_concurrent_executions as usize,
            workers_min: workers_min as usize,
            queue_max: settings.queue_max as usize,
            idle_timeout: Duration::from_secs(settings.idle_timeout_seconds.into()),
            requests_max: settings.max_requests_per_worker.into(),
            age_max: Duration::from_secs(settings.max_age_seconds.into()),
        }
    }
}

impl Cell {
    pub(super) fn new(id: PoolId, blueprint: Blueprint, settings: Settings, floor: Floor) -> Self {
        let rules = Rules { settings, floor };
        Self {
            id,
            blueprint,
            state: Mutex::new(State {
                pool: Pool::new(rules.limits()),
                workers: HashMap::new(),
                starting: HashMap::new(),
                waiting: HashMap::new(),
                failures: 0,
                last_failure: None,
                actions: Vec::new(),
            }),
            check: BundleCheck::default(),
            rules: Mutex::new(rules),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn snapshot(&self) -> PoolSnapshot {
        let state = self.state.lock();
        let (counts, health) = (state.pool.counts(), state.pool.health(Instant::now()));
        PoolSnapshot { blueprint: self.blueprint.clone(), counts, health }
    }

    /// Replaces the given rules; `None` keeps the current value. Returns the event that the pool must be told.
    pub(super) fn set_rules(&self, settings: Option<Settings>, floor: Option<Floor>) -> Event {
        let mut rules = self.rules.lock();
        rules.settings = settings.unwrap_or(rules.settings);
        rules.floor = floor.unwrap_or(rules.floor);
        self.blueprint.memory_max.store(rules.settings.memory_bytes(), Ordering::Relaxed);
        self.blueprint.network.set(rules.settings.network);
        Event::SetLimits(rules.limits())
    }

    /// Whether a temporary floor has ended, either by time or because places are short.
    pub(super) fn is_floor_over(&self, now: Instant, is_starving: bool) -> bool {
        matches!(self.rules.lock().floor, Floor::OneUntil(until) if until <= now || is_starving)
    }

    /// Whether the pool is closed and has neither workers nor callers.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.pool.is_closed() && state.pool.is_empty()
    }

    /// Returns what the node may take from the pool.
    pub(super) fn holding(&self) -> Holding {
        self.state.lock().pool.holding()
    }

    /// Returns how many invocations one of its workers may run at once.
    pub(super) fn concurrency(&self) -> u32 {
        self.rules.lock().settings.worker_concurrency
    }

    /// Returns the ready workers.
    pub(super) fn workers(&self) -> Vec<(WorkerId, Arc<Worker>)> {
        self.state.lock().workers.iter().map(|(id, worker)| (*id, Arc::clone(worker))).collect()
    }

    /// Returns the workers that take invocations but have outdated variables.
    pub(super) fn outdated(&self) -> Vec<WorkerId> {
        let state = self.state.lock();
        let serving = state.workers.iter().filter(|(id, _)| state.pool.is_serving(**id));
        serving
            .filter(|(_, worker)| !self.blueprint.has_current_variables(&worker.revisions))
            .map(|(id, _)| *id)
            .collect()
    }

    pub(super) fn starting(&self) -> Vec<WorkerId> {
        self.state.lock().starting.keys().copied().collect()
    }

    /// Whether every worker that takes invocations has the current variables and every worker in `starting` has started
    /// or failed.
    pub(super) fn is_renewed(&self, starting: &[WorkerId]) -> bool {
        let is_over = |id| !self.state.lock().starting.contains_key(id);
        starting.iter().all(is_over) && self.outdated().is_empty()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().pool.is_closed()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn failures(&self) -> usize {
        self.state.lock().failures
    }

    pub(super) fn last_failure(&self) -> Option<Arc<StartError>> {
        self.state.lock().last_failure.clone()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl State {
    /// Passes an event to the pool and resolves its actions to effects.
    fn handle(&mut self, shared: &Arc<Shared>, cell: &Arc<Cell>, event: Event) -> Vec<Effect> {
        let mut actions = std::mem::take(&mut self.actions);
        self.pool.handle(event, Shared::now(), &mut actions);
        let effects = actions.drain(..).filter_map(|action| self.effect(shared, cell, action)).collect();
        self.actions = actions;
        effects
    }

    /// Resolves an action: finds the worker or caller it names.
    fn effect(&mut self, shared: &Arc<Shared>, cell: &Arc<Cell>, action: Action) -> Option<Effect> {
        match action {
            // Asked under the lock: outside it, the withdrawal of a request could reach the node before the request
            // itself.
            Action::Ask { worker, replaces } => {
                shared.node.lock().ask(cell.id, worker, replaces, Shared::now());
                Some(Effect::SettleNode)
            }
            Action::Withdraw(id) => {
                shared.node.lock().left(cell.id, id);
                Some(Effect::SettleNode)
            }
            Action::Start(id) => {
                let cancelled = CancellationToken::new();
                self.starting.insert(id, cancelled.clone());
                Some(Effect::Start(id, cancelled))
            }
            Action::Stop(id) => match self.workers.get(&id) {
                Some(worker) => Some(Effect::Stop(Arc::clone(worker))),
                None => self.starting.get(&id).cloned().map(Effect::CancelStart),
            },
            Action::Dispatch { worker, invocation } => {
                let waiting = self.waiting.remove(&invocation)?;
                let lease = self.lease(shared, cell, worker, invocation);
                Some(Effect::Answer(waiting, Ok(lease)))
            }
            Action::Fail { invocation, reason } => {
                let waiting = self.waiting.remove(&invocation)?;
                Some(Effect::Answer(waiting, Err(self.refusal(reason))))
            }
        }
    }

    fn lease(&self, shared: &Arc<Shared>, cell: &Arc<Cell>, id: WorkerId, invocation: InvocationId) -> Lease {
        let worker = self.workers.get(&id).expect("the pool dispatches to workers that are ready");
        Lease::new(Arc::clone(shared), Arc::clone(cell), id, Arc::clone(worker), invocation)
    }

    fn refusal(&self, reason: Failure) -> Refusal {
        match reason {
            Failure::QueueFull => Refusal::QueueFull,
            Failure::StartFailed => Refusal::StartFailed(self.last_failure.clone()),
            Failure::Closed => Refusal::Closed,
        }
    }
}

impl Shared {
    /// Passes an event to a pool and performs the resulting actions.
    pub(super) fn apply(self: &Arc<Self>, cell: &Arc<Cell>, event: Event) {
        self.change(cell, event, |_| {});
    }

    /// Passes an event to a pool and, under the same lock, applies a change to the processes and callers around it.
    fn change(self: &Arc<Self>, cell: &Arc<Cell>, event: Event, change: impl FnOnce(&mut State)) {
        let (effects, has_spare) = {
            let mut state = cell.state.lock();
            change(&mut state);
            let effects = state.handle(self, cell, event);
            // Another pool may be waiting for the place of a worker that is no longer needed.
            let is_asked = matches!(event, Event::Release(_)) && self.is_short.load(Ordering::Relaxed);
            (effects, is_asked && !state.pool.holding().idle.is_empty())
        };
        self.perform(cell, effects);
        if has_spare {
            self.reclaim();
        }
    }

    fn perform(self: &Arc<Self>, cell: &Arc<Cell>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::SettleNode => self.tell_node(|_| {}),
                Effect::Start(id, cancelled) => {
                    let (shared, cell) = (Arc::clone(self), Arc::clone(cell));
                    let life = async move {
                        run_worker(&shared, &cell, id, cancelled).await;
                        shared.left(cell.id, id);
                    };
                    self.tasks.spawn_on(life, &self.runtime);
                }
                Effect::Stop(worker) => worker.kill(KillReason::Stop),
                Effect::CancelStart(cancelled) => cancelled.cancel(),
                // If the caller has just left, this drops the lease and so gives the worker back.
                Effect::Answer(waiting, grant) => drop(waiting.send(grant)),
            }
        }
    }

    /// Asks for a worker: an idle one at once, or a place in the queue.
    pub(super) fn request(self: &Arc<Self>, cell: &Arc<Cell>, invocation: InvocationId) -> Result<Grant, Waiting> {
        let mut outcome = None;
        let effects: Vec<Effect> = {
            let mut state = cell.state.lock();
            let mut actions = std::mem::take(&mut state.actions);
            state.pool.handle(Event::Invoke(invocation), Self::now(), &mut actions);
            let mut effects = Vec::new();
            for action in actions.drain(..) {
                match action {
                    Action::Dispatch { worker, invocation: own } if own == invocation => {
                        outcome = Some(Ok(Ok(state.lease(self, cell, worker, invocation))));
                    }
                    Action::Fail { invocation: own, reason } if own == invocation => {
                        outcome = Some(Ok(Err(state.refusal(reason))));
                    }
                    other => effects.extend(state.effect(self, cell, other)),
                }
            }
            state.actions = actions;
            if outcome.is_none() {
                let (sender, grant) = oneshot::channel();
                state.waiting.insert(invocation, sender);
                let (shared, cell) = (Arc::clone(self), Arc::clone(cell));
                outcome = Some(Err(Waiting { shared, cell, invocation, grant }));
            }
            effects
        };
        self.perform(cell, effects);
        outcome.expect("it was just filled")
    }
}

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    invocation: InvocationId,
    grant: oneshot::Receiver<Grant>,
}

impl Waiting {
    /// Waits for a worker.
    pub(super) async fn granted(&mut self) -> Grant {
        (&mut self.grant).await.unwrap_or(Err(Refusal::Closed))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let invocation = self.invocation;
        self.shared.change(&self.cell, Event::Cancel(invocation), |state| {
            state.waiting.remove(&invocation);
        });
    }
}

/// Runs a worker's life as its pool sees it.
async fn run_worker(shared: &Arc<Shared>, cell: &Arc<Cell>, id: WorkerId, cancelled: CancellationToken) {
    let start = cell.check.start(shared, &cell.blueprint);
    let started = tokio::select! {
        () = cancelled.cancelled() => None,
        started = start => Some(started),
    };
    let forget = |state: &mut State| {
        state.starting.remove(&id);
        state.workers.remove(&id);
    };
    match started {
        None => shared.change(cell, Event::Exited(id), forget),
        Some(Err(error)) => {
            tracing::info!(function = %cell.blueprint.function, version = %cell.blueprint.version, "a worker did not start: {error}");
            shared.change(cell, Event::StartFailed(id), |state| {
                forget(state);
                state.failures += 1;
                state.last_failure = Some(Arc::new(error));
            });
        }
        Some(Ok(worker)) => {
            let worker = Arc::new(worker);
            shared.change(cell, Event::Ready(id), |state| {
                state.starting.remove(&id);
                state.workers.insert(id, Arc::clone(&worker));
            });
            // The function's variables may have changed during the start.
            if !cell.blueprint.has_current_variables(&worker.revisions) {
                shared.apply(cell, Event::Worn(id));
            }
            // The pool may have given up on the worker in the last moment of its start.
            if cancelled.is_cancelled() {
                worker.kill(KillReason::Stop);
            }
            cell.changed();
            worker.exited().await;
            shared.change(cell, Event::Exited(id), forget);
        }
    }
    cell.changed();
}
