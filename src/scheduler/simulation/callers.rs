//! Callers and the fate of their invocations.

use super::{
    super::pool::Event,
    scenario::Arrivals,
    world::{Call, CallState, End, Happening, Phase, World, invocation_id},
};
use crate::model::WorkerId;
use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// Most workers tried for one invocation that none of them received.
const HAND_OVER_TRIES: usize = 5;

impl World {
    /// Lets callers arrive and schedules the next arrivals.
    pub(super) fn arrive(&mut self, function: usize) {
        if self.is_calm || self.functions[function].is_deleted {
            return;
        }
        match self.functions[function].workload.arrivals {
            Arrivals::Greedy(_) => self.call(function),
            Arrivals::Steady(every) => {
                self.call(function);
                let delay = self.random.time(every);
                self.after(delay, Happening::Arrive(function));
            }
            Arrivals::Bursts(every, size) => {
                for _ in 0..size {
                    self.call(function);
                }
                let delay = self.random.time(every);
                self.after(delay, Happening::Arrive(function));
            }
        }
    }

    pub(super) fn call(&mut self, function: usize) {
        let (call, pool) = (self.calls.len(), self.functions[function].live);
        let state = CallState::Waiting;
        let (asked, waiting, lease) = (self.elapsed, None, None);
        self.calls.push(Call { pool, function, asked, state, tries: 0, has_left: false, waiting, lease });
        let odds = self.functions[function].workload.odds;
        if self.random.chance(odds.leave) {
            let delay = self.random.milliseconds(0..=1_000);
            self.after(delay, Happening::CallerLeaves(call));
        }
        self.acquire(call);
    }

    /// Asks for a worker.
    fn acquire(&mut self, call: usize) {
        let pool = self.calls[call].pool;
        let timeout = self.workload(pool).timeout;
        let left = (self.calls[call].asked + timeout).saturating_sub(self.elapsed);
        self.calls[call].state = CallState::Waiting;
        self.cells[pool].waiting += 1;
        let cell = Arc::clone(&self.cells[pool].pool);
        match self.drive(|driver| driver.request(&cell, invocation_id(call))) {
            Ok(Ok(lease)) => {
                self.calls[call].lease = Some(lease);
                self.begin_call(call);
            }
            Ok(Err(_)) => {}
            Err(waiting) => {
                self.calls[call].waiting = Some(waiting);
                self.after(left.min(self.scenario.queue_timeout), Happening::QueueTimeout(call));
            }
        }
    }

    /// Lets a caller hear how its wait has ended, at once or after other events. It may leave in between.
    pub(super) fn hear_soon(&mut self, call: usize) {
        let leave = self.functions[self.calls[call].function].workload.odds.leave;
        if self.random.chance(leave / 4) {
            self.soon(Happening::CallerLeaves(call));
        }
        match self.random.chance(200) {
            true => self.soon(Happening::Hear(call)),
            false => self.after(Duration::ZERO, Happening::Hear(call)),
        }
    }

    /// Lets a caller hear how its wait has ended, if it has.
    pub(super) fn hear(&mut self, call: usize) {
        if self.calls[call].state == CallState::Waiting {
            return;
        }
        let Some(mut waiting) = self.calls[call].waiting.take() else { return };
        let result = pin!(waiting.result()).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(result) = result else {
            self.calls[call].waiting = Some(waiting);
            return self.soon(Happening::Hear(call));
        };
        self.drive(|_| drop(waiting));
        match result {
            Ok(lease) => {
                self.calls[call].lease = Some(lease);
                self.begin_call(call);
            }
            Err(refusal) => {
                let has_failed = self.calls[call].state == CallState::Over(End::Failed);
                assert!(has_failed, "S1: call {call} hears {refusal:?}: {:?}", self.calls[call].state);
            }
        }
    }

    /// Begins an invocation in its worker, unless the worker has just died.
    fn begin_call(&mut self, call: usize) {
        self.calls[call].tries += 1;
        let (pool, state) = (self.calls[call].pool, self.calls[call].state);
        let worker = self.calls[call].lease.as_ref().expect("it was just given").worker.key.1;
        assert_eq!(state, CallState::Running(worker), "S1: call {call} gets a lease");
        match self.processes.get(&(pool, worker)).filter(|it| it.phase == Phase::Ready) {
            Some(_) => self.serve(call, worker),
            None => self.not_sent(call, worker),
        }
    }

    /// Handles a worker that was dead already: another one is tried.
    fn not_sent(&mut self, call: usize, worker: WorkerId) {
        self.take_out(call, worker);
        self.end_lease_with(call, Event::Kill);
        if self.calls[call].tries < HAND_OVER_TRIES {
            self.acquire(call);
        } else {
            self.end(call, End::Broken);
        }
    }

    /// Ends the lease of an invocation whose worker has died.
    pub(super) fn end_lease(&mut self, call: usize) {
        self.end_lease_with(call, if self.calls[call].has_left { Event::Release } else { Event::Kill });
    }

    fn end_lease_with(&mut self, call: usize, event: fn(WorkerId) -> Event) {
        let lease = self.calls[call].lease.take().expect("its invocation runs");
        self.drive(|_| lease.end(event));
    }

    /// Ends the interest of a caller: the lease then waits for its invocation.
    fn let_go(&mut self, call: usize) {
        if !std::mem::replace(&mut self.calls[call].has_left, true) {
            let lease = self.calls[call].lease.take();
            self.drive(|_| drop(lease));
        }
    }

    /// Decides the fate of an invocation in its worker.
    fn serve(&mut self, call: usize, worker: WorkerId) {
        let (pool, tries) = (self.calls[call].pool, self.calls[call].tries);
        let workload = self.workload(pool);
        let deadline = self.now() + workload.timeout;
        let (odds, service, timeout, growth) = (workload.odds, workload.service, workload.timeout, workload.growth);
        self.calls[call].lease.as_mut().expect("it serves").run_until(deadline);
        if self.is_calm {
            let delay = self.random.milliseconds(1..=5);
            return self.after(delay, Happening::CallEnds(call, tries));
        }
        let deadline = (self.calls[call].asked + timeout).saturating_sub(self.elapsed);
        let time = self.random.time(service);
        let is_endless = self.random.chance(odds.endless);
        if self.random.chance(odds.blocking) {
            let until = self.elapsed + if is_endless { Duration::from_secs(3_600) } else { time };
            let since = self.elapsed;
            self.process((pool, worker)).blocked = Some((since, until));
        }
        self.process((pool, worker)).memory += growth;
        if self.random.chance(odds.crash) {
            self.after(time / 2, Happening::Crash((pool, worker)));
        }
        if !is_endless {
            self.after(time, Happening::CallEnds(call, tries));
        }
        self.after(deadline, Happening::Deadline(call, tries));
    }

    /// Returns the worker that an invocation runs in, if this is still the same attempt.
    fn worker_of(&self, call: usize, tries: usize) -> Option<WorkerId> {
        match self.calls[call].state {
            CallState::Running(worker) if self.calls[call].tries == tries => Some(worker),
            _ => None,
        }
    }

    /// Ends a handler, unless its event loop is blocked.
    pub(super) fn call_ends(&mut self, call: usize, tries: usize) {
        let Some(worker) = self.worker_of(call, tries) else { return };
        let key = (self.calls[call].pool, worker);
        match self.processes.get(&key).and_then(|it| it.blocked) {
            Some((_, until)) if until > self.elapsed => {
                self.after(until - self.elapsed, Happening::CallEnds(call, tries));
            }
            _ => {
                self.over(call, worker);
                self.maybe_crash(key);
            }
        }
    }

    /// Ends an invocation whose worker can take another.
    fn over(&mut self, call: usize, worker: WorkerId) {
        self.take_out(call, worker);
        self.end(call, End::Done);
        self.end_lease_with(call, Event::Release);
    }

    fn take_out(&mut self, call: usize, worker: WorkerId) {
        if let Some(process) = self.processes.get_mut(&(self.calls[call].pool, worker)) {
            process.running.retain(|it| *it != call);
        }
    }

    /// Handles an invocation past its deadline. A worker that runs nothing else is killed; any other gets a moment.
    pub(super) fn deadline(&mut self, call: usize, tries: usize) {
        let Some(worker) = self.worker_of(call, tries) else { return };
        let pool = self.calls[call].pool;
        if self.cells[pool].pool.concurrency() == 1 {
            self.kill(call, worker);
        } else {
            self.let_go(call);
            self.after(self.scenario.kill_grace, Happening::GraceOver(call, tries));
        }
    }

    /// Handles the end of that moment: a responsive worker is retired, any other is killed.
    pub(super) fn grace_over(&mut self, call: usize, tries: usize) {
        let Some(worker) = self.worker_of(call, tries) else { return };
        let pool = self.calls[call].pool;
        if self.blocked_for((pool, worker)).is_some_and(|it| it >= self.scenario.kill_grace) {
            return self.kill(call, worker);
        }
        self.take_out(call, worker);
        if let Some(process) = self.processes.get_mut(&(pool, worker)) {
            process.abandoned += 1;
        }
        self.end(call, End::Broken);
        self.end_lease_with(call, Event::Abandon);
    }

    fn kill(&mut self, call: usize, worker: WorkerId) {
        let pool = self.calls[call].pool;
        self.take_out(call, worker);
        self.end(call, End::Broken);
        let exit = self.workload(pool).exit;
        let delay = self.random.time(exit);
        self.die((pool, worker), delay);
        self.end_lease_with(call, Event::Kill);
    }

    pub(super) fn caller_leaves(&mut self, call: usize) {
        if !self.is_calm {
            self.leave(call);
        }
    }

    /// Handles a caller's time limit. In the calm phase callers wait on, since leaving would hide that no worker
    /// serves; unless none can.
    pub(super) fn queue_timeout(&mut self, call: usize) {
        if self.calls[call].waiting.is_some() && (!self.is_calm || !self.has_room_for_all()) {
            self.leave(call);
        }
    }

    /// Lets a caller leave. If it was in the queue, or has not heard of its worker yet, its invocation ends; if its
    /// invocation runs, the worker is free when the handler has ended.
    fn leave(&mut self, call: usize) {
        let state = self.calls[call].state;
        let Some(waiting) = self.calls[call].waiting.take() else {
            if let CallState::Running(_) = state {
                self.let_go(call);
            }
            return;
        };
        match state {
            CallState::Waiting => self.cells[self.calls[call].pool].waiting -= 1,
            CallState::Running(worker) => self.take_out(call, worker),
            CallState::Over(_) => {}
        }
        if !matches!(state, CallState::Over(_)) {
            self.end(call, End::Cancelled);
        }
        self.drive(|_| drop(waiting));
    }

    /// Ends an invocation. A greedy caller comes again.
    pub(super) fn end(&mut self, call: usize, end: End) {
        let function = self.calls[call].function;
        self.check_not_over(call);
        self.calls[call].state = CallState::Over(end);
        if let Arrivals::Greedy(_) = self.functions[function].workload.arrivals {
            let delay = if end == End::Done { Duration::from_micros(500) } else { Duration::from_millis(500) };
            self.after(delay, Happening::Arrive(function));
        }
    }
}
