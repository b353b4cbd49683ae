//! The workers of one pool and the callers that wait for them, as a state machine.
//!
//! ```text
//!              Granted              Ready             dispatch
//!   Planned ────────────> Starting ───────> Idle ───────────────> Busy ──┐ dispatch,
//!      │                    │ │              │ ^                  │ │ ^──┘ Release
//!      │ no longer needed   │ │              │ └──last Release────┘ │
//!      v                    │ └──too many────┤ too many, expired,   │ replaced, given up, blocked
//!    gone                   │                │ evicted, replaced    v
//!                           │                v               Retiring
//!                           │             Stopping <── last Release ┘     (Kill: from Busy and Retiring at once)
//!                           │                │
//!                           └──StartFailed───┴──Exited (from any state with a process)──> gone
//! ```
//!
//! The pool owns the state of each worker, the queue of callers, and every decision about them. It owns no process,
//! lock, clock or task: its holder feeds it [`Event`]s and performs the returned [`Action`]s in order.
//!
//! The holder must guarantee:
//! - `Ask` is answered by `Granted` as soon as the [node](super::node) has a place, unless `Withdraw` comes first.
//! - `Start` is answered by `Ready`, `StartFailed` or `Exited`; `Stop` by `Exited`.
//! - `Dispatch` is answered by one `Release`, `Abandon`, `Kill` or `Exited` of that worker, even if the caller has
//!   left: `Cancel` takes a caller out of the queue and touches no worker.
//! - Invocations that wait at the same time have different ids.
//!
//! An event about an unknown worker, or one in another state, is late: it changes no worker.
//!
//! # Rules
//!
//! - **R1 Choice**: the most recently used idle worker takes the invocation, so that hot workers stay hot and the rest
//!   can expire. If none is idle and workers may run several invocations, the busy worker with the most room takes it.
//! - **R2 Start**: while more callers wait than the workers on their way have room for, and the limits allow another
//!   worker, one is planned; it starts when the node has a place for it. A planned worker that no caller waits for any
//!   more is withdrawn, unless the floor or a wish counts on it.
//! - **R3 Admission**: each slot that runs nothing may have one caller waiting for it, and `queue_max` more may wait. A
//!   pool therefore holds up to `executions_max + queue_max` invocations, and with `queue_max` 0 a cold invocation
//!   still works.
//! - **R4 Breaker**: after a failed start, nothing starts for callers, the floor or a replacement until the back-off of
//!   the [`breaker`] has passed; then one worker at a time, as a probe, until a start succeeds. A failed start
//!   therefore never leads to another at once, and a version that cannot start costs only as many starts as its
//!   back-off allows, however often it is invoked. An `Exited` of a starting worker is a failed start.
//! - **R5 Failing fast**: while the breaker prevents starts, callers wait for workers that start or are busy. If no
//!   worker is alive, waiting and new callers fail at once. The caller whose invocation begins a probe waits for it,
//!   and so do callers that arrive during the probe.
//! - **R6 Floor**: `workers_min` is reached at `SetLimits`, and refilled at `Tick` as far as the breaker allows. A
//!   worker that dies young is therefore replaced at the rate of the ticks. A new pool is empty until its first event:
//!   the first `Tick` brings it to its floor.
//! - **R7 Wishes**: `Warm` and `SetLimits` start the workers they ask for even while the breaker is open: they stand
//!   for a person who has just changed something and wants to know the result. Once it has ended, such a start counts
//!   like any other.
//! - **R8 Too many** (after a lowered `workers_max`, or `Close`, which makes it 0): planned workers are withdrawn
//!   first; then starting ones stop, newest first, since they are worth least; then idle ones, oldest first; then busy
//!   ones retire, newest first. Callers that already wait keep their place, whatever the new `queue_max` is.
//! - **R9 Wear**: a worker is worn after `requests_max` invocations, after `age_max`, or after a `Worn` event. It goes
//!   on serving until its replacement is ready, then finishes its invocations and stops. Workers are replaced one at a
//!   time, the longest-serving first, and a worn worker and its replacement count as one. The replacement inherits the
//!   idle time of its predecessor, so that recycling never prevents expiry.
//! - **R10 Giving up places**: `Evict` takes the longest-idle worker, `Yield` takes the workers whose invocations end
//!   next; neither goes below the floor, and no invocation is cut. When a worker is given up or expires, its
//!   replacement goes with it: otherwise recycling would take the place back.
//! - **R11 Retiring** workers run to their end beside their successors: they no longer count for `workers_max` and
//!   `executions_max`. Nothing is planned while there are `2 × workers_max` workers in all.
//! # Invariants
//!
//! - **I1** A worker is in exactly one state: there is one map and one enum, and counts are derived from them.
//! - **I2** The workers alive (planned, starting, idle or busy) are at most `workers_max`, plus one that replaces a
//!   worn one. Nothing is planned while there are that many including the `Stopping` ones.
//! - **I3** No caller waits while there is a slot: an idle worker, or a busy one with room, and fewer than
//!   `executions_max` running invocations.
//! - **I4** Every waiting caller has a worker to wait for: one that is planned, starting, busy, or about to free its
//!   slot.
//! - **I5** In a closed pool no caller waits and no worker is alive.
//! - **I6** Every invocation ends exactly once: dispatched, failed or cancelled.
//! - **I7** If workers respond, a pool shrinks to its floor, and after `Close` to nothing.
//! - **I8** While the breaker prevents starts, no caller waits unless a worker is alive, and only wishes are planned.
//! - **I9** Once workers start again and the back-off has passed, two ticks and a start between them fill the floor.
//! - **I10** No worker runs more than `concurrency`, unless that was lowered in the meantime.
//!
//! I2 to I5 and I8 are asserted after every event in debug builds; the property tests check all of them, and the
//! simulation (`simulation.rs`) checks what several pools guarantee together.
//!
//! A warm invocation visits each worker only a few times: code that counts workers first checks whether it has to.

use std::collections::VecDeque;
use std::time::Instant;

use super::breaker::{self, Breaker};
use crate::model::{InvocationId, WorkerId};
use members::{Members, Purpose, Survey, Tenure, WorkerState};

pub use breaker::Health;
pub use interface::{Action, Counts, Event, Failure, Holding, Limits};

mod interface;
mod invariants;
mod members;
mod transitions;

/// The workers of one pool and the callers that wait for them.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    workers: Members,
    /// Waiting callers, first come, first served.
    waiting: VecDeque<InvocationId>,
    /// Id of the next worker: unique in this pool, never reused.
    next_id: u64,
    breaker: Breaker,
    /// Busy workers that the node wants given up when their next invocation ends.
    yielding: usize,
    closed: bool,
}

impl Pool {
    /// Makes an empty pool; its first event may start workers.
    pub fn new(limits: Limits) -> Pool {
        Pool {
            limits,
            workers: Members::default(),
            waiting: VecDeque::new(),
            next_id: 1,
            breaker: Breaker::default(),
            yielding: 0,
            closed: false,
        }
    }

    /// Handles an event and appends the resulting actions to `actions`. `now` is the time of the event and never goes
    /// backwards.
    pub fn handle(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        let wish = self.apply(event, now, actions);
        let mut survey = self.workers.survey();
        if let Some((_, new)) = survey.replacement.filter(|(old, _)| !self.is_ready(*old)) {
            self.replaces_nobody(new, actions);
            survey = self.workers.survey();
        }
        self.workers.adopt(wish);
        self.stop_excess(survey, actions);
        self.dispatch(actions);
        if survey.counts.planned > 0 {
            self.withdraw_unneeded(now, actions);
        }
        self.plan_missing(wish, now, actions);
        if survey.is_worn {
            self.replace_worn(now, actions);
        }
        self.fail_unserved(now, actions);
        if cfg!(debug_assertions) {
            self.assert_invariants(now);
        }
    }

    /// Returns the number of workers in each state.
    pub fn counts(&self) -> Counts {
        Counts { queued: self.waiting.len(), ..self.workers.counts() }
    }

    /// Returns whether workers start; if not, also the number of failures and the time until the next try.
    pub fn health(&self, now: Instant) -> Health {
        self.breaker.health(now)
    }

    /// Whether there are no workers and no waiting callers.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty() && self.waiting.is_empty()
    }

    /// Whether a worker may be given invocations.
    pub fn is_serving(&self, id: WorkerId) -> bool {
        self.is_ready(id)
    }

    /// Whether a worker is starting, and the pool still wants it.
    pub fn is_starting(&self, id: WorkerId) -> bool {
        matches!(self.workers.get(id), Some(WorkerState::Starting { .. }))
    }

    /// Whether the pool takes no more work.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns what the node may take from the pool.
    pub fn holding(&self) -> Holding {
        let counts = self.counts();
        let spare = counts.ready().saturating_sub(self.limits.workers_min);
        let mut idle: Vec<Instant> = self.workers.idle().map(|(since, _)| since).collect();
        idle.sort_unstable();
        idle.truncate(spare);
        Holding {
            ready: counts.ready(),
            spare,
            idle,
            serving_since: self.workers.serving_since(),
            leaving: counts.leaving(),
            stopping: counts.stopping,
            yielding: self.yielding,
        }
    }

    /// Records the event. Returns how many workers it wants alive whether or not callers wait, and for which purpose.
    fn apply(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) -> (usize, Purpose) {
        match event {
            Event::Invoke(invocation) => self.admit(invocation, actions),
            Event::Cancel(invocation) => self.waiting.retain(|it| *it != invocation),
            Event::Granted(id) => self.start(id, now, actions),
            Event::Ready(id) => self.ready(id, now, actions),
            Event::Release(id) => self.release(id, now, actions),
            Event::Abandon(id) => {
                let state = self.workers.get(id);
                if let Some(WorkerState::Busy { running, .. } | WorkerState::Retiring { running }) = state {
                    self.retire(id, running - 1, actions);
                }
            }
            Event::Kill(id) => {
                if let Some(WorkerState::Busy { .. } | WorkerState::Retiring { .. }) = self.workers.get(id) {
                    self.stop(id, actions);
                }
            }
            Event::Retire(id) => match self.workers.get(id) {
                Some(WorkerState::Busy { running, .. }) => self.retire(id, running, actions),
                Some(WorkerState::Idle { .. }) => self.stop(id, actions),
                _ => {}
            },
            Event::Worn(id) => self.workers.wear(id),
            // A start that is told to stop may end as a failed one; that says nothing about the version.
            Event::StartFailed(id) => {
                if let Some(WorkerState::Starting { .. } | WorkerState::Stopping) = self.workers.get(id) {
                    self.remove(id, now);
                }
            }
            Event::Exited(id) => self.remove(id, now),
            Event::Warm(count) => return (count, Purpose::Wish),
            Event::SetLimits(limits) => {
                self.limits = limits;
                self.workers.give_up_floor();
                return (self.limits.workers_min, Purpose::Wish);
            }
            Event::Evict => {
                if self.counts().ready() > self.limits.workers_min
                    && let Some((_, id)) = self.workers.idle().min()
                {
                    self.give_up(id, 0, actions);
                }
            }
            Event::Yield(count) => self.yielding = count,
            Event::Close => {
                self.closed = true;
                self.fail_waiting(Failure::Closed, actions);
            }
            Event::Tick => {
                self.workers.wear_old(&self.limits, now);
                self.stop_expired(now, actions);
                return (self.floor_in_reach(now), Purpose::Floor);
            }
        }
        (0, Purpose::Callers)
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
        let slots = self.executions_max().saturating_sub(self.counts().running);
        self.limits.queue_max.saturating_add(slots)
    }

    /// Returns the part of the floor that the breaker lets the pool reach now.
    fn floor_in_reach(&self, now: Instant) -> usize {
        let survey = self.workers.survey();
        let on_their_way = survey.counts.starting + survey.counts.planned;
        let starts_max = self.breaker.starting_max(now).saturating_sub(on_their_way);
        self.limits.workers_min.min(survey.lasting().saturating_add(starts_max))
    }

    fn fail_waiting(&mut self, reason: Failure, actions: &mut Vec<Action>) {
        actions.extend(self.waiting.drain(..).map(|invocation| Action::Fail { invocation, reason }));
    }

    /// Stops expired idle workers, the oldest first, down to the floor. Starting workers do not count towards the
    /// floor: they may never be ready.
    fn stop_expired(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while self.counts().ready() > self.limits.workers_min
            && let Some((since, id)) = self.workers.idle().min()
            && now.saturating_duration_since(since) >= self.limits.idle_timeout
        {
            self.give_up(id, 0, actions);
        }
    }

    /// Takes workers beyond the limit out of service. A worker that is being replaced and its replacement count as one.
    fn stop_excess(&mut self, mut survey: Survey, actions: &mut Vec<Action>) {
        let max = self.workers_max();
        while survey.lasting() > max {
            if let Some(id) = self.workers.newest_planned(|_| true) {
                self.withdraw(id, actions);
            } else if let Some(id) = self.workers.newest_starting() {
                self.stop(id, actions);
            } else if let Some((_, id)) = self.workers.idle().min() {
                self.stop(id, actions);
            } else if let Some((id, running)) = self.workers.newest_busy() {
                self.retire(id, running, actions);
            } else {
                return;
            }
            survey = self.workers.survey();
        }
    }

    /// Hands the first callers to workers with room.
    fn dispatch(&mut self, actions: &mut Vec<Action>) {
        while !self.waiting.is_empty()
            && let Some(id) = self.workers.with_room(self.concurrency())
            && self.has_slot()
            && let Some(invocation) = self.waiting.pop_front()
        {
            match self.workers.get(id) {
                Some(WorkerState::Idle { tenure, .. }) => {
                    self.workers.set(id, WorkerState::Busy { running: 1, tenure });
                }
                Some(WorkerState::Busy { running, tenure }) => {
                    self.workers.set(id, WorkerState::Busy { running: running + 1, tenure });
                }
                state => unreachable!("a worker with room is idle or busy, not {state:?}"),
            }
            actions.push(Action::Dispatch { worker: id, invocation });
        }
    }

    /// Withdraws planned workers that are no longer needed: the caller was served or has left, or the breaker has
    /// opened.
    fn withdraw_unneeded(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let held_up = self.breaker.is_open(now);
        while held_up && let Some(id) = self.workers.newest_planned(|purpose| purpose != Purpose::Wish) {
            self.withdraw(id, actions);
        }
        while self.on_their_way() > self.starts_for_callers(now)
            && let Some(id) = self.workers.newest_planned(|purpose| purpose == Purpose::Callers)
        {
            self.withdraw(id, actions);
        }
    }

    /// Plans the workers that callers wait for, and those missing from `alive_min`, as far as the limits allow.
    fn plan_missing(&mut self, (alive_min, purpose): (usize, Purpose), now: Instant, actions: &mut Vec<Action>) {
        if alive_min == 0 && self.waiting.is_empty() {
            return;
        }
        let (survey, max) = (self.workers.survey(), self.workers_max());
        let (counts, lasting) = (survey.counts, survey.lasting());
        let room = max.saturating_sub(lasting + counts.stopping);
        let room = room.min((2 * max).saturating_sub(counts.alive() + counts.leaving()));
        let for_alive_min = alive_min.saturating_sub(lasting).min(room);
        let for_callers = self.starts_for_callers(now).saturating_sub(self.on_their_way() + for_alive_min);
        for _ in 0..for_alive_min {
            self.plan(purpose, actions);
        }
        for _ in 0..for_callers.min(room - for_alive_min) {
            self.plan(Purpose::Callers, actions);
        }
    }

    /// Plans a replacement for a worn worker.
    fn replace_worn(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let (counts, max) = (self.counts(), self.workers_max());
        if let Some(old) = self.workers.first_worn()
            && self.workers.survey().replacement.is_none()
            && counts.alive() + counts.stopping <= max
            && counts.alive() + counts.leaving() < 2 * max
            && counts.starting < self.breaker.starting_max(now)
        {
            self.plan(Purpose::Replace(old), actions);
        }
    }

    /// Fails the waiting callers if no worker is alive and none may start.
    fn fail_unserved(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.waiting.is_empty() && self.breaker.is_open(now) && self.counts().alive() == 0 {
            self.fail_waiting(Failure::StartFailed, actions);
        }
    }

    /// Returns the number of planned and starting workers that will add to the serving ones.
    fn on_their_way(&self) -> usize {
        let counts = self.counts();
        counts.planned + counts.starting - usize::from(self.workers.survey().replacement.is_some())
    }

    /// Returns how many workers should be on their way for the waiting callers. A starting replacement may be the
    /// probe.
    fn starts_for_callers(&self, now: Instant) -> usize {
        let starting_max = self.breaker.starting_max(now).saturating_sub(self.workers.replacements_starting());
        self.waiting.len().div_ceil(self.concurrency()).min(starting_max)
    }

    fn is_ready(&self, id: WorkerId) -> bool {
        matches!(self.workers.get(id), Some(WorkerState::Idle { .. } | WorkerState::Busy { .. }))
    }

    fn has_slot(&self) -> bool {
        self.counts().running < self.executions_max()
    }

    fn concurrency(&self) -> usize {
        self.limits.concurrency.max(1)
    }

    fn executions_max(&self) -> usize {
        if self.closed { 0 } else { self.limits.executions_max.max(1) }
    }

    fn workers_max(&self) -> usize {
        if self.closed { 0 } else { self.limits.workers_max.max(1) }
    }
}

#[cfg(test)]
mod tests;
