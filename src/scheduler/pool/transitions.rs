//! Transitions of a worker between states; see the diagram in the pool's documentation.

use super::*;

impl Pool {
    /// Handles a place granted for a planned worker. The breaker may have opened during the wait.
    pub(super) fn start(&mut self, id: WorkerId, now: Instant, actions: &mut Vec<Action>) {
        let purpose = match self.workers.get(id) {
            Some(WorkerState::Planned { purpose }) => purpose,
            Some(_) => return,
            // The worker was withdrawn while the node decided, so the place goes back.
            None => return actions.push(Action::Withdraw(id)),
        };
        if purpose == Purpose::Wish || self.counts().starting < self.breaker.starting_max(now) {
            self.workers.set(id, WorkerState::Starting { since: now, purpose });
            actions.push(Action::Start(id));
        } else {
            self.withdraw(id, actions);
        }
    }

    /// Handles a successful start. The worker that this one replaces takes no more invocations.
    pub(super) fn ready(&mut self, id: WorkerId, now: Instant, actions: &mut Vec<Action>) {
        let Some(WorkerState::Starting { purpose, .. }) = self.workers.get(id) else { return };
        self.breaker.record_success();
        let (mut since, mut tenure) = (now, Tenure::new(now));
        if let Purpose::Replace(old) = purpose {
            match self.workers.get(old) {
                Some(WorkerState::Idle { since: idle_since, tenure: of_old }) => {
                    (since, tenure) = (idle_since, Tenure::in_place_of(of_old, now));
                    self.stop(old, actions);
                }
                Some(WorkerState::Busy { running, tenure: of_old }) => {
                    tenure = Tenure::in_place_of(of_old, now);
                    self.retire(old, running, actions);
                }
                _ => {}
            }
        }
        self.workers.set(id, WorkerState::Idle { since, tenure });
    }

    /// Handles the end of an invocation. The worker is kept for the next, unless it retires or the node wants its
    /// place.
    pub(super) fn release(&mut self, id: WorkerId, now: Instant, actions: &mut Vec<Action>) {
        match self.workers.get(id) {
            Some(WorkerState::Busy { running, .. })
                if self.yielding > 0 && self.counts().ready() > self.limits.workers_min =>
            {
                self.yielding -= 1;
                self.give_up(id, running - 1, actions);
            }
            Some(WorkerState::Busy { running, tenure }) => {
                let tenure = tenure.after_call(id, &self.limits);
                let state = match running - 1 {
                    0 => WorkerState::Idle { since: now, tenure },
                    running => WorkerState::Busy { running, tenure },
                };
                self.workers.set(id, state);
            }
            Some(WorkerState::Retiring { running }) => self.retire(id, running - 1, actions),
            _ => {}
        }
    }

    /// Forgets a worker that is gone. For a starting one this is a failed start; a planned one has no process.
    pub(super) fn remove(&mut self, id: WorkerId, now: Instant) {
        match self.workers.get(id) {
            Some(WorkerState::Planned { .. }) => return,
            Some(WorkerState::Starting { since, .. }) => self.breaker.record_failure(since, now),
            _ => {}
        }
        self.workers.remove(id);
    }

    /// Handles the loss of a worn worker before its replacement was ready: a starting replacement will serve like any
    /// other worker.
    pub(super) fn replaces_nobody(&mut self, id: WorkerId, actions: &mut Vec<Action>) {
        match self.workers.get(id) {
            Some(WorkerState::Starting { since, .. }) => {
                self.workers.set(id, WorkerState::Starting { since, purpose: Purpose::Callers });
            }
            _ => self.withdraw(id, actions),
        }
    }

    pub(super) fn plan(&mut self, purpose: Purpose, actions: &mut Vec<Action>) {
        let id = WorkerId(self.next_id);
        self.next_id += 1;
        self.workers.set(id, WorkerState::Planned { purpose });
        actions.push(Action::Ask { worker: id, replaces: matches!(purpose, Purpose::Replace(_)) });
    }

    pub(super) fn withdraw(&mut self, id: WorkerId, actions: &mut Vec<Action>) {
        self.workers.remove(id);
        actions.push(Action::Withdraw(id));
    }

    pub(super) fn stop(&mut self, id: WorkerId, actions: &mut Vec<Action>) {
        self.workers.set(id, WorkerState::Stopping);
        actions.push(Action::Stop(id));
    }

    /// Retires a worker that is not needed, along with its planned or starting replacement.
    pub(super) fn give_up(&mut self, id: WorkerId, running: usize, actions: &mut Vec<Action>) {
        self.retire(id, running, actions);
        if let Some((_, new)) = self.workers.survey().replacement.filter(|(old, _)| *old == id) {
            match self.workers.get(new) {
                Some(WorkerState::Planned { .. }) => self.withdraw(new, actions),
                _ => self.stop(new, actions),
            }
        }
    }

    /// Lets a worker finish its invocations and then stop.
    pub(super) fn retire(&mut self, id: WorkerId, running: usize, actions: &mut Vec<Action>) {
        if running == 0 {
            self.stop(id, actions);
        } else {
            self.workers.set(id, WorkerState::Retiring { running });
        }
    }
}
