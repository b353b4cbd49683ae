//! The workers of one pool and the callers that wait for them, as a state machine.
//!
//! ```text
//!             Ready              dispatch
//!   Starting ───────> Idle ───────────────────> Busy
//!      │ │             │ ^                      │  │
//!      │ │             │ └───────Release────────┘  │
//!      │ └──too many───┤ too many, expired         │ Kill
//!      │               v                           v
//!      │            Stopping <─────────────────────┘
//!      │               │
//!      └─StartFailed───┴──Exited (from any state)──> gone
//! ```
//!
//! The pool owns the state of each worker, the queue of callers, and every decision about them. It owns no process,
//! lock, clock or task: whoever holds it feeds it [`Event`]s and performs the [`Action`]s that come back, in order.
//!
//! What it expects of its holder:
//! - `Start` is answered by `Ready`, `StartFailed` or `Exited`; `Stop` by `Exited`.
//! - `Dispatch` is answered by one `Release`, `Kill` or `Exited` of that worker, also when the caller left in the
//!   meantime: `Cancel` takes a caller out of the queue and touches no worker.
//! - Ids of invocations that wait at the same time differ.
//!
//! Events about an unknown worker, or one that is in another state, are late: they change no worker.
//!
//! # Rules
//!
//! - **R1 Choice**: the most recently used idle worker takes the call, so that the hot stay hot and the rest can expire.
//! - **R2 Start**: while more callers wait than workers start, and there is room, one more starts.
//! - **R3 Admission**: each slot that is not busy may have one caller waiting for it, and `queue_max` more may wait.
//!   A pool therefore holds up to `workers_max + queue_max` calls, and with `queue_max` 0 a cold call still works.
//! - **R4 Breaker**: after a failed start, nothing starts for callers or for the floor until the back-off of the
//!   [`breaker`] has passed; then one at a time, as a probe, until one succeeds. A start that fails therefore never leads
//!   to another at once, and a version that cannot start costs as many starts as its back-off allows, however often it
//!   is invoked. An `Exited` of a starting worker is a failed start.
//! - **R5 Failing fast**: while the breaker lets nothing start, callers wait for workers that start or are busy, and
//!   fail at once when nobody is alive, those who come and those who wait. The caller whose call begins a probe waits
//!   for it, and so does who comes meanwhile.
//! - **R6 Floor**: `workers_min` is reached at `SetLimits`, and refilled at `Tick` as far as the breaker allows.
//!   A worker that dies young is therefore replaced at the rate of the ticks. A new pool is empty until its first
//!   event: the first `Tick` brings it to its floor.
//! - **R7 Wishes**: `Warm` and `SetLimits` start what they ask for whatever the breaker says: they stand for a person who
//!   has just changed something and wants to know. Such a start counts as any other once it has ended.
//! - **R8 Too many** (a lowered `workers_max`, or `Close`, which makes it 0): starting workers stop first, the newest
//!   ahead, for they are worth least; then idle ones, the oldest ahead; busy ones stop when they are released.
//!   Callers that already wait keep their place, whatever the new `queue_max` says.
//!
//! # Invariants
//!
//! - **I1** A worker is in exactly one state: there is one map, one enum, and counts are derived from them.
//! - **I2** Nothing starts while `workers_max` workers exist, `Stopping` ones included. More exist only after the limit
//!   is lowered, and then the excess is busy or stopping: with any worker starting or idle, those alive are within it.
//! - **I3** Nobody waits while a worker is idle.
//! - **I4** Whoever waits has something to wait for: a worker that starts, is busy, or frees its slot by stopping.
//! - **I5** In a closed pool nobody waits and no worker is starting or idle.
//! - **I6** Every invocation ends exactly once: dispatched, failed or cancelled.
//! - **I7** With workers that answer, a pool falls to its floor, and after `Close` to nothing.
//! - **I8** While the breaker lets nothing start, nobody waits unless a worker is alive.
//! - **I9** Once workers start again and the back-off has passed, two ticks and a start between them fill the floor.
//!
//! I2 to I5 and I8 are asserted after every event in debug builds; the property tests hold all of them.
//!
//! A call on the usual way looks at each worker once at the most: what counts them asks first whether it has to.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::breaker::{self, Breaker};
use crate::model::{InvocationId, WorkerId};

pub use breaker::Health;
pub use interface::{Action, Counts, Event, Failure, Limits};

mod interface;

/// Which invocation a busy worker has is known to the caller that has the worker, and decides nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkerState {
    Starting { since: Instant },
    Idle { since: Instant },
    Busy,
    Stopping,
}

/// The workers of one pool and the callers that wait for them.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    workers: BTreeMap<WorkerId, WorkerState>,
    /// First come, first served.
    waiting: VecDeque<InvocationId>,
    /// The id of the next worker: unique in this pool, never used again.
    next_id: u64,
    breaker: Breaker,
    closed: bool,
}

impl Pool {
    /// An empty pool; its first event may start workers.
    pub fn new(limits: Limits) -> Pool {
        Pool {
            limits,
            workers: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_id: 1,
            breaker: Breaker::default(),
            closed: false,
        }
    }

    /// Takes in what happened and says what to do about it. `now` is the time of the event and does not go backwards.
    #[must_use = "the pool counts on each action being performed"]
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let alive_min = self.apply(event, now, &mut actions);
        self.stop_excess(&mut actions);
        self.dispatch(&mut actions);
        self.start_missing(alive_min, now, &mut actions);
        self.fail_unserved(now, &mut actions);
        if cfg!(debug_assertions) {
            self.assert_invariants(now);
        }
        actions
    }

    /// How many workers are in each state now.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { queued: self.waiting.len(), ..Counts::default() };
        for state in self.workers.values() {
            match state {
                WorkerState::Starting { .. } => counts.starting += 1,
                WorkerState::Idle { .. } => counts.idle += 1,
                WorkerState::Busy => counts.busy += 1,
                WorkerState::Stopping => counts.stopping += 1,
            }
        }
        counts
    }

    /// Whether workers start, and if not, since how many failures and for how long.
    pub fn health(&self, now: Instant) -> Health {
        self.breaker.health(now)
    }

    /// Whether there are no workers and nobody waits.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty() && self.waiting.is_empty()
    }

    /// Whether the pool takes no more work.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Records the event. Returns how many workers it wants alive, whoever waits.
    fn apply(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) -> usize {
        match event {
            Event::Invoke(invocation) => self.admit(invocation, actions),
            Event::Cancel(invocation) => self.waiting.retain(|it| *it != invocation),
            Event::Ready(id) => {
                if let Some(WorkerState::Starting { .. }) = self.state(id) {
                    self.workers.insert(id, WorkerState::Idle { since: now });
                    self.breaker.record_success();
                }
            }
            Event::Release(id) => {
                if self.state(id) == Some(WorkerState::Busy) {
                    self.workers.insert(id, WorkerState::Idle { since: now });
                }
            }
            Event::Kill(id) => {
                if self.state(id) == Some(WorkerState::Busy) {
                    self.stop(id, actions);
                }
            }
            // A start that is told to stop may end as one that failed, and says nothing about the version.
            Event::StartFailed(id) => {
                if let Some(WorkerState::Starting { .. } | WorkerState::Stopping) = self.state(id) {
                    self.remove(id, now);
                }
            }
            Event::Exited(id) => self.remove(id, now),
            Event::Warm(count) => return count,
            Event::SetLimits(limits) => {
                self.limits = limits;
                return self.limits.workers_min;
            }
            Event::Close => {
                self.closed = true;
                self.fail_waiting(Failure::Closed, actions);
            }
            Event::Tick => {
                self.stop_expired(now, actions);
                return self.floor_in_reach(now);
            }
        }
        0
    }

    fn admit(&mut self, invocation: InvocationId, actions: &mut Vec<Action>) {
        if self.closed {
            actions.push(Action::Fail { invocation, reason: Failure::Closed });
        } else if self.waiting.len() < self.limits.queue_max || self.waiting.len() < self.waiting_max() {
            self.waiting.push_back(invocation);
        } else {
            actions.push(Action::Fail { invocation, reason: Failure::QueueFull });
        }
    }

    fn waiting_max(&self) -> usize {
        let slots_not_busy = self.workers_max().saturating_sub(self.counts().busy);
        self.limits.queue_max.saturating_add(slots_not_busy)
    }

    /// Forgets a worker that is gone. One that was starting has failed to.
    fn remove(&mut self, id: WorkerId, now: Instant) {
        if let Some(WorkerState::Starting { since }) = self.workers.remove(&id) {
            self.breaker.record_failure(since, now);
        }
    }

    /// The floor, or as much of it as the breaker lets be reached now.
    fn floor_in_reach(&self, now: Instant) -> usize {
        let counts = self.counts();
        let starts_max = self.breaker.starting_max(now).saturating_sub(counts.starting);
        self.limits.workers_min.min(counts.alive().saturating_add(starts_max))
    }

    fn fail_waiting(&mut self, reason: Failure, actions: &mut Vec<Action>) {
        actions.extend(self.waiting.drain(..).map(|invocation| Action::Fail { invocation, reason }));
    }

    /// Stops idle workers whose time is over, the oldest first, down to the floor.
    fn stop_expired(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while self.counts().alive() > self.limits.workers_min
            && let Some((since, id)) = self.idle().min()
            && now.saturating_duration_since(since) >= self.limits.idle_timeout
        {
            self.stop(id, actions);
        }
    }

    /// Stops workers beyond the limit as far as they are not busy.
    fn stop_excess(&mut self, actions: &mut Vec<Action>) {
        while self.workers.len() > self.workers_max()
            && self.counts().alive() > self.workers_max()
            && let Some(id) = self.newest_starting().or_else(|| self.idle().min().map(|(_, id)| id))
        {
            self.stop(id, actions);
        }
    }

    /// Hands the first invocation to the worker used most recently. Because of I3, an event brings together one pair at
    /// most: a caller that comes, or a worker that becomes idle.
    fn dispatch(&mut self, actions: &mut Vec<Action>) {
        if !self.waiting.is_empty()
            && let Some((_, worker)) = self.idle().max()
            && let Some(invocation) = self.waiting.pop_front()
        {
            self.workers.insert(worker, WorkerState::Busy);
            actions.push(Action::Dispatch { worker, invocation });
        }
    }

    /// Starts the workers that are waited for, and those that make `alive_min`, as far as there is room.
    fn start_missing(&mut self, alive_min: usize, now: Instant, actions: &mut Vec<Action>) {
        let room = self.workers_max().saturating_sub(self.workers.len());
        if room == 0 || (alive_min == 0 && self.waiting.is_empty()) {
            return;
        }
        let counts = self.counts();
        let for_callers = counts.queued.min(self.breaker.starting_max(now)).saturating_sub(counts.starting);
        let for_alive_min = alive_min.saturating_sub(counts.alive());
        for _ in 0..for_callers.max(for_alive_min).min(room) {
            let id = WorkerId(self.next_id);
            self.next_id += 1;
            self.workers.insert(id, WorkerState::Starting { since: now });
            actions.push(Action::Start(id));
        }
    }

    /// Fails the callers whom nobody serves and for whom nothing may start.
    fn fail_unserved(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.waiting.is_empty() && self.breaker.is_open(now) && self.counts().alive() == 0 {
            self.fail_waiting(Failure::StartFailed, actions);
        }
    }

    fn stop(&mut self, id: WorkerId, actions: &mut Vec<Action>) {
        self.workers.insert(id, WorkerState::Stopping);
        actions.push(Action::Stop(id));
    }

    fn state(&self, id: WorkerId) -> Option<WorkerState> {
        self.workers.get(&id).copied()
    }

    /// The idle workers; the greatest is the one used most recently, by id where the clock cannot tell.
    fn idle(&self) -> impl Iterator<Item = (Instant, WorkerId)> {
        self.workers.iter().filter_map(|(id, state)| match state {
            WorkerState::Idle { since } => Some((*since, *id)),
            _ => None,
        })
    }

    fn newest_starting(&self) -> Option<WorkerId> {
        let mut newest_first = self.workers.iter().rev();
        newest_first.find(|(_, state)| matches!(state, WorkerState::Starting { .. })).map(|(id, _)| *id)
    }

    fn workers_max(&self) -> usize {
        if self.closed { 0 } else { self.limits.workers_max.max(1) }
    }

    fn assert_invariants(&self, now: Instant) {
        let Counts { starting, idle, busy, stopping, queued } = self.counts();
        let alive = self.counts().alive();
        assert!(starting + idle == 0 || alive <= self.workers_max(), "I2: {self:?}");
        assert!(queued == 0 || idle == 0, "I3: {self:?}");
        assert!(queued == 0 || starting + busy + stopping > 0, "I4: {self:?}");
        assert!(!self.closed || queued + starting + idle == 0, "I5: {self:?}");
        assert!(queued == 0 || alive > 0 || !self.breaker.is_open(now), "I8: {self:?}");
    }
}

#[cfg(test)]
mod tests;
