//! Worker processes: they start or fail to, and exit when told to or unexpectedly.

use super::{
    super::pool::Event,
    Key,
    scenario::Workload,
    world::{CallState, End, Happening, Phase, World},
};
use std::time::Duration;

impl World {
    pub(super) fn workload(&self, pool: usize) -> &Workload {
        &self.functions[self.cells[pool].function].workload
    }

    /// Handles an ordered start: it waits in line until fewer than `starts_max` run.
    pub(super) fn begin_start(&mut self, key: Key) {
        if self.processes[&key].is_stopped {
            return self.soon(Happening::CancelStart(key));
        }
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
        self.processes.get_mut(&key).expect("it exists").phase = phase;
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
            self.set_phase(key, Phase::Dying);
            self.cells[pool].failures += 1;
            let event = if self.random.chance(100) { Event::Exited(worker) } else { Event::StartFailed(worker) };
            self.gone(key, event);
        } else {
            self.set_phase(key, Phase::Ready);
            self.apply(pool, Event::Ready(worker));
            // The pool may have given up on the worker in the last moment of its start.
            if self.processes.get(&key).is_some_and(|it| it.is_stopped) {
                self.stop_process(key);
            }
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
            Some(Phase::InLine) => self.soon(Happening::CancelStart(key)),
            // The start may end sooner than the order to cancel it arrives.
            Some(Phase::Starting) => self.soon(Happening::CancelStart(key)),
            Some(Phase::Ordered | Phase::Dying) | None => {}
        }
    }

    /// Cancels a start: there is no process, or it ends in the background.
    pub(super) fn cancel_start(&mut self, key: Key) {
        match self.processes.get(&key).map(|it| it.phase) {
            Some(Phase::Starting) => self.starts_free += 1,
            Some(Phase::InLine) => self.start_line.retain(|it| *it != key),
            Some(Phase::Ordered) => {}
            Some(Phase::Ready | Phase::Dying) | None => return,
        }
        self.set_phase(key, Phase::Dying);
        self.gone(key, Event::Exited(key.1));
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
        let (pool, worker) = key;
        let is_stopped = process.is_stopped;
        for call in calls {
            let event = if self.calls[call].has_left { Event::Release(worker) } else { Event::Kill(worker) };
            assert_eq!(self.calls[call].state, CallState::Running(worker));
            self.end(call, End::Broken);
            self.soon(Happening::Late(pool, event));
        }
        let delay = if is_stopped { delay } else { delay + Duration::from_micros(self.random.within(0..=2_000)) };
        self.after(delay, Happening::Exit(key));
    }

    pub(super) fn exit(&mut self, key: Key) {
        self.gone(key, Event::Exited(key.1));
    }

    /// Removes a process: the pool learns of it, then the node.
    fn gone(&mut self, key: Key, event: Event) {
        self.processes.remove(&key);
        self.apply(key.0, event);
        if self.random.chance(self.scenario.racy) {
            self.pending += 1;
            self.soon(Happening::Left(key));
        } else {
            self.left(key);
        }
    }
}
