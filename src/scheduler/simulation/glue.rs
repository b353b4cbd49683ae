//! The scheduler's work around pools and node, step by step as in `cell.rs` and `mod.rs`: which events go where, in
//! which order, and which actions follow once the lock is released.

use super::{
    super::{
        TICK,
        pool::{Action, Event},
    },
    Key,
    world::{CallState, End, Happening, Line, Phase, Process, World, call_of, pool_id, pool_of},
};
use crate::model::WorkerId;
use std::time::Duration;

impl World {
    /// Passes an event to a pool and performs the resulting actions, at once or after other events.
    pub(super) fn apply(&mut self, pool: usize, event: Event) {
        self.line(Line::Event(pool, event));
        let before = self.cells[pool].pool.counts();
        let (now, mut actions) = (self.now(), Vec::new());
        self.cells[pool].pool.handle(event, now, &mut actions);
        for action in &actions {
            self.line(Line::Action(pool, *action));
            self.take_note(pool, event, *action);
        }
        self.check_event(pool, event, before, &actions);
        let is_asked = matches!(event, Event::Release(_)) && self.is_short;
        let has_spare = is_asked && !self.cells[pool].pool.holding().idle.is_empty();
        if self.random.chance(self.scenario.racy) && !actions.is_empty() {
            self.pending += 1;
            self.soon(Happening::Perform { pool, actions, has_spare });
        } else {
            self.watch.depth += 1;
            self.check_depth();
            self.perform(pool, actions, has_spare);
            self.watch.depth -= 1;
        }
    }

    /// Applies the part of an action that happens under the lock of the pool.
    fn take_note(&mut self, pool: usize, event: Event, action: Action) {
        match action {
            Action::Start(worker) => {
                let process = Process {
                    phase: Phase::Ordered,
                    running: Vec::new(),
                    abandoned: 0,
                    memory: self.workload(pool).memory,
                    blocked: None,
                    is_stopped: false,
                };
                let there_was = self.processes.insert((pool, worker), process);
                assert!(there_was.is_none(), "S3: worker {worker} of pool {pool} starts twice");
            }
            Action::Stop(worker) => {
                self.check_stop(pool, event, worker);
                // The process may have exited by itself a moment ago.
                if let Some(process) = self.processes.get_mut(&(pool, worker)) {
                    process.is_stopped = true;
                }
            }
            Action::Dispatch { worker, invocation } => {
                self.check_dispatch(pool, worker, call_of(invocation));
                self.cells[pool].waiting -= 1;
                self.calls[call_of(invocation)].state = CallState::Running(worker);
                if let Some(process) = self.processes.get_mut(&(pool, worker)) {
                    process.running.push(call_of(invocation));
                }
            }
            Action::Fail { invocation, reason } => {
                self.check_fail(pool, event, call_of(invocation), reason);
                self.cells[pool].waiting -= 1;
                self.end(call_of(invocation), End::Failed);
            }
            Action::Ask { .. } | Action::Withdraw(_) => {}
        }
    }

    /// Performs the actions that follow once the lock is released.
    pub(super) fn perform(&mut self, pool: usize, actions: Vec<Action>, has_spare: bool) {
        for action in actions {
            match action {
                Action::Ask { worker, replaces } => {
                    self.note_ask((pool, worker), replaces);
                    let now = self.now();
                    self.node.ask(pool_id(pool), worker, replaces, now);
                    self.told_node();
                }
                Action::Withdraw(worker) => {
                    self.note_withdrawal((pool, worker));
                    self.left((pool, worker));
                }
                Action::Start(worker) => self.begin_start((pool, worker)),
                Action::Stop(worker) => self.stop_process((pool, worker)),
                Action::Dispatch { worker, invocation } => self.begin_call(call_of(invocation), worker),
                Action::Fail { .. } => {}
            }
        }
        if has_spare {
            self.reclaim();
        }
    }

    /// Returns a place, or withdraws the request for it.
    pub(super) fn left(&mut self, (pool, worker): Key) {
        self.node.left(pool_id(pool), worker);
        self.told_node();
    }

    /// Lets the node give places or take some back.
    pub(super) fn told_node(&mut self) {
        let mut granted: Vec<Key> = Vec::new();
        while let Some((pool, worker)) = self.node.grant() {
            self.check_grant(pool_of(pool), worker);
            granted.push((pool_of(pool), worker));
        }
        let is_short = self.node.is_short();
        // Pools that were told to give places up are told that they are no longer wanted.
        let was_short = std::mem::replace(&mut self.is_short, is_short);
        for (pool, worker) in granted {
            match self.cells[pool].forgotten {
                false => self.apply(pool, Event::Granted(worker)),
                true => self.node.left(pool_id(pool), worker),
            }
        }
        if is_short || was_short {
            self.reclaim();
        }
    }

    /// Has pools give up places that others need more.
    fn reclaim(&mut self) {
        self.reclaim_wanted = true;
        while self.reclaim_wanted && !self.reclaiming {
            self.reclaiming = true;
            self.reclaim_wanted = false;
            let mut pools: Vec<usize> = self.pools();
            // The daemon's map has no order.
            self.random.shuffle(&mut pools);
            let holdings: Vec<_> =
                pools.iter().map(|pool| (pool_id(*pool), self.cells[*pool].pool.holding())).collect();
            for (pool, event) in self.node.reclaim(&holdings, self.now()) {
                self.apply(pool_of(pool), event);
            }
            self.reclaiming = false;
        }
    }

    /// Returns the pools that have not been removed.
    pub(super) fn pools(&self) -> Vec<usize> {
        (0..self.cells.len()).filter(|pool| !self.cells[*pool].forgotten).collect()
    }

    pub(super) fn tick(&mut self) {
        let mut pools = self.pools();
        self.random.shuffle(&mut pools);
        for pool in pools {
            self.end_floor(pool);
            self.apply(pool, Event::Tick);
            self.retire_blocked(pool);
            self.wear(pool);
        }
        for cell in &mut self.cells {
            cell.forgotten |= cell.pool.is_closed() && cell.pool.is_empty();
        }
        let is_there = |it: &&Process| !matches!(it.phase, Phase::Ordered | Phase::InLine);
        let memory = self.processes.values().filter(is_there).map(|it| it.memory).sum();
        self.check_memory(memory);
        self.node.measured(memory);
        self.told_node();
        self.check_tick();
        self.after(TICK, Happening::Tick);
    }

    /// Retires workers that block several invocations, so that they take no more.
    fn retire_blocked(&mut self, pool: usize) {
        if self.cells[pool].settings.concurrency == 1 {
            return;
        }
        for worker in self.ready_workers(pool) {
            if self.blocked_for((pool, worker)).is_some_and(|it| it >= self.scenario.blocked) {
                self.apply(pool, Event::Retire(worker));
            }
        }
    }

    /// Replaces workers that have grown.
    fn wear(&mut self, pool: usize) {
        for worker in self.ready_workers(pool) {
            if self.processes.get(&(pool, worker)).is_some_and(|it| it.memory > self.workload(pool).memory_soft) {
                self.apply(pool, Event::Worn(worker));
            }
        }
    }

    fn ready_workers(&self, pool: usize) -> Vec<WorkerId> {
        let of_pool = self.processes.range((pool, WorkerId(0))..(pool + 1, WorkerId(0)));
        of_pool.filter(|(_, it)| it.phase == Phase::Ready).map(|((_, worker), _)| *worker).collect()
    }

    /// Returns how long a worker's event loop has been blocked.
    pub(super) fn blocked_for(&self, key: Key) -> Option<Duration> {
        let (since, until) = self.processes.get(&key)?.blocked?;
        (self.elapsed < until).then(|| self.elapsed - since)
    }
}
