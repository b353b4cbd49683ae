//! Worker processes: they start or fail to, and exit when told to or unexpectedly.

use super::{
    Key,
    host::SimulatedWorker,
    scenario::Workload,
    world::{CallState, End, Happening, Phase, Process, World},
};
use crate::worker::StartError;
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

impl World {
    pub(super) fn workload(&self, pool: usize) -> &Workload {
        &self.functions[self.cells[pool].function].workload
    }

    /// Handles an ordered start: it waits in line until fewer than `starts_max` run.
    pub(super) fn begin_start(&mut self, worker: Arc<SimulatedWorker>) {
        let key = worker.key;
        if worker.is_cancelled.load(Ordering::Relaxed) {
            self.soon(Happening::CancelStart(key));
        }
        self.process(key).worker = Some(worker);
        self.set_phase(key, Phase::InLine);
        self.start_line.push_back(key);
        self.next_starts();
    }

    fn next_starts(&mut self) {
        while self.starts_free > 0
            && let Some(key) = self.start_line.pop_front()
        {
            self.starts_free -= 1;
            self.set_phase(key, Phase::Starting);
            let start = self.workload(key.0).start;
            let delay = self.random.time(start);
            self.after(delay, Happening::StartEnds(key));
        }
    }

    fn set_phase(&mut self, key: Key, phase: Phase) {
        self.process(key).phase = phase;
    }

    pub(super) fn process(&mut self, key: Key) -> &mut Process {
        self.processes.get_mut(&key).expect("it exists")
    }

    /// Whether a start that begins now fails.
    fn start_fails(&mut self, pool: usize) -> bool {
        let workload = self.workload(pool);
        let (failing, odds) = (workload.failing, workload.odds);
        if self.is_calm {
            return false;
        }
        let fails = failing.is_some_and(|(from, until)| (from..until).contains(&self.elapsed));
        fails || self.cells[pool].is_broken || self.random.chance(odds.start)
    }

    pub(super) fn start_ends(&mut self, key: Key) {
        // The start was cancelled in the meantime.
        if self.processes.get(&key).is_none_or(|it| it.phase != Phase::Starting) {
            return;
        }
        self.starts_free += 1;
        let (pool, worker) = key;
        if self.start_fails(pool) {
            if !self.processes[&key].is_stopped {
                self.start_has_failed(pool);
            }
            let failure = StartError::Prepare(io::Error::other("the simulation says so"));
            let is_told = !self.random.chance(100);
            self.gone(key, is_told.then_some(failure));
        } else {
            self.set_phase(key, Phase::Ready);
            let (cell, process) = (Arc::clone(&self.cells[pool].pool), self.process(key));
            let started = process.worker.clone().expect("its start has begun");
            self.drive(|driver| driver.ready(&cell, worker, &started));
            self.maybe_crash(key);
        }
        self.next_starts();
    }

    /// Handles a pool's order to stop a process.
    pub(super) fn stop_process(&mut self, key: Key) {
        match self.processes.get(&key).map(|it| it.phase) {
            Some(Phase::Ready) => {
                let exit = self.workload(key.0).exit;
                let delay = self.random.time(exit);
                self.die(key, delay);
            }
            Some(Phase::Dying) | None => {}
            phase => panic!("S3: worker {key:?} is ended in phase {phase:?}"),
        }
    }

    /// Cancels a start: there is no process, or it ends in the background.
    pub(super) fn cancel_start(&mut self, key: Key) {
        match self.processes.get(&key).map(|it| it.phase) {
            Some(Phase::Starting) => self.starts_free += 1,
            Some(Phase::InLine) => self.start_line.retain(|it| *it != key),
            Some(Phase::Ordered | Phase::Ready | Phase::Dying) | None => return,
        }
        self.gone(key, None);
        self.next_starts();
    }

    pub(super) fn maybe_crash(&mut self, key: Key) {
        let odds = self.workload(key.0).odds;
        if !self.is_calm && self.random.chance(odds.idle_crash) {
            let delay = self.random.milliseconds(0..=500);
            self.after(delay, Happening::Crash(key));
        }
    }

    /// Lets a worker crash.
    pub(super) fn crash(&mut self, key: Key) {
        if !self.is_calm && self.processes.get(&key).is_some_and(|it| it.phase == Phase::Ready) {
            self.note(|_| format!("worker {} of pool {} crashes", key.1, key.0));
            self.die(key, Duration::ZERO);
        }
    }

    /// Ends a ready process: its invocations break, and its pool learns of it after a while, in any order.
    pub(super) fn die(&mut self, key: Key, delay: Duration) {
        let Some(process) = self.processes.get_mut(&key).filter(|it| it.phase == Phase::Ready) else { return };
        process.phase = Phase::Dying;
        let calls = std::mem::take(&mut process.running);
        let is_stopped = process.is_stopped;
        for call in calls {
            assert_eq!(self.calls[call].state, CallState::Running(key.1));
            // A caller that has not heard of its worker yet will find it dead.
            if self.calls[call].lease.is_some() {
                self.end(call, End::Broken);
                self.soon(Happening::Late(call));
            }
        }
        let delay = if is_stopped { delay } else { delay + Duration::from_micros(self.random.within(0..=2_000)) };
        self.after(delay, Happening::Exit(key));
    }

    pub(super) fn exit(&mut self, key: Key) {
        self.gone(key, None);
    }

    /// Removes a process.
    fn gone(&mut self, (pool, worker): Key, failure: Option<StartError>) {
        self.processes.remove(&(pool, worker));
        let cell = Arc::clone(&self.cells[pool].pool);
        self.drive(|driver| driver.gone(&cell, worker, failure));
    }

    /// Returns how long a worker's event loop has been blocked.
    pub(super) fn blocked_for(&self, key: Key) -> Option<Duration> {
        let (since, until) = self.processes.get(&key)?.blocked?;
        (self.elapsed < until).then(|| self.elapsed - since)
    }
}
