//! The way from the world to the driver, and back: after each use of the driver, the world follows its records.

use super::{
    super::{
        driver::Driver,
        pool::{Action, Event},
    },
    host::{PoolState, Record, SimulatedHost},
    world::{CallState, End, Happening, Line, Phase, Process, World, call_of},
};
use std::sync::Arc;

impl World {
    /// Has the driver do something, then looks at what it did.
    pub(super) fn drive<T>(&mut self, work: impl FnOnce(&Arc<Driver<SimulatedHost>>) -> T) -> T {
        let (driver, now) = (Arc::clone(&self.driver), self.now());
        {
            let mut clock = driver.host.clock.lock();
            *clock = (now, if clock.0 == now { clock.1 } else { 0 });
        }
        let done = work(&driver);
        let records = std::mem::take(&mut *driver.host.records.lock());
        for record in records {
            self.follow(record);
        }
        done
    }

    /// Passes an event to a pool.
    pub(super) fn apply(&mut self, pool: usize, event: Event) {
        let cell = Arc::clone(&self.cells[pool].pool);
        self.drive(|driver| driver.apply(&cell, event));
    }

    /// Lets the world follow what the driver did.
    fn follow(&mut self, record: Record) {
        match record {
            Record::Handled { pool, event, actions, after } => {
                self.line(Line::Event(pool, event));
                for action in &actions {
                    self.line(Line::Action(pool, *action));
                    self.follow_action(pool, event, *action, &after);
                }
                self.check_event(pool, event, &after, &actions);
            }
            Record::Granted(key, held) => self.check_grant(key, held),
            Record::Start(worker) => self.begin_start(worker),
            Record::Stop(key) => self.stop_process(key),
            // The start may end sooner than its task sees this.
            Record::CancelStart(key) => self.soon(Happening::CancelStart(key)),
            Record::Settle(lease) => {
                let call = call_of(lease.invocation);
                self.calls[call].lease = Some(lease);
            }
            Record::Delayed(effects) => {
                self.pending += 1;
                self.soon(Happening::Perform(effects));
            }
        }
    }

    fn follow_action(&mut self, pool: usize, event: Event, action: Action, after: &PoolState) {
        match action {
            Action::Ask { worker, replaces } => self.note_ask((pool, worker), replaces),
            Action::Withdraw(worker) => self.note_withdrawal((pool, worker)),
            Action::Start(worker) => {
                let process = Process {
                    phase: Phase::Ordered,
                    worker: None,
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
                let call = call_of(invocation);
                self.check_dispatch(pool, worker, call, after);
                self.cells[pool].waiting -= 1;
                self.calls[call].state = CallState::Running(worker);
                if let Some(process) = self.processes.get_mut(&(pool, worker)) {
                    process.running.push(call);
                }
                self.hear_soon(call);
            }
            Action::Fail { invocation, reason } => {
                let call = call_of(invocation);
                self.check_fail(pool, event, call, reason, after);
                self.cells[pool].waiting -= 1;
                self.end(call, End::Failed);
                self.hear_soon(call);
            }
        }
    }
}
