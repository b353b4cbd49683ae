//! Operators: deployments, rollbacks, settings, caps, warm-ups, deletions; and the end of a run.

use super::{
    super::{
        Floor, TICK,
        node::Caps,
        pool::{Counts, Event, Limits},
    },
    history::PoolHistory,
    scenario::{Arrivals, Kind, settings},
    world::{Cell, Function, Happening, Phase, Process, World},
};
use crate::model::{VersionId, WorkerId};
use std::{sync::atomic::Ordering, time::Duration};

impl World {
    /// Creates the functions with their first versions, and schedules the first happenings.
    pub(super) fn populate(&mut self) {
        for workload in self.scenario.functions.clone() {
            let (function, settings) = (self.functions.len(), workload.settings);
            let (arrivals, live) = (workload.arrivals, self.cells.len());
            self.functions.push(Function {
                workload,
                versions: vec![live],
                live,
                before: None,
                is_deploying: false,
                is_deleted: false,
                settings,
            });
            self.new_cell(function, Floor::Settings, false);
            let callers = if let Arrivals::Greedy(callers) = arrivals { callers } else { 1 };
            let first = self.random.milliseconds(0..=3_000);
            for _ in 0..callers {
                self.after(first, Happening::Arrive(function));
            }
        }
        let first = self.random.milliseconds(0..=250);
        self.after(first, Happening::Tick);
        self.next_act();
    }

    fn new_cell(&mut self, function: usize, floor: Floor, is_broken: bool) {
        let settings = self.functions[function].settings;
        let version = VersionId::from_bytes((self.cells.len() as u128).to_be_bytes());
        let pool = self.driver.pool(version, |()| true, || ((), settings, floor));
        let checked = PoolHistory::default();
        self.cells.push(Cell { pool, function, is_broken, forgotten: false, waiting: 0, checked });
    }

    fn next_act(&mut self) {
        if let Some(every) = self.scenario.acts {
            let delay = self.random.time(every);
            self.after(delay, Happening::Act);
        }
    }

    /// Makes a random change.
    pub(super) fn act(&mut self) {
        if self.is_calm {
            return;
        }
        let function = self.random.index(self.functions.len());
        match self.random.index(20) {
            0..=5 => self.deploy(function),
            6..=10 => self.roll_back(function),
            11..=13 => self.change_settings(function),
            14..=15 => {
                let count = self.random.count(1..=8);
                self.apply(self.functions[function].live, Event::Warm(count));
            }
            16 => {
                let worker = WorkerId(self.random.within(1..=20));
                self.apply(self.functions[function].live, Event::Worn(worker));
            }
            17..=18 if self.scenario.kind == Kind::Chaos => self.change_caps(),
            19 => self.delete(function),
            _ => {}
        }
        self.next_act();
    }

    fn deploy(&mut self, function: usize) {
        if self.functions[function].is_deploying || self.functions[function].is_deleted {
            return;
        }
        let pool = self.cells.len();
        self.note(|_| format!("function {function} gets version {pool}"));
        let is_broken = self.random.chance(150);
        self.new_cell(function, Floor::Nothing, is_broken);
        self.functions[function].versions.push(pool);
        self.begin_bring(function, pool);
    }

    /// Sends the traffic back to the previous version, which has a worker if it had one and its time is not over.
    fn roll_back(&mut self, function: usize) {
        let Some(pool) = self.functions[function].before else { return };
        if self.functions[function].is_deploying || self.functions[function].is_deleted {
            return;
        }
        self.note(|_| format!("function {function} goes back to version {pool}"));
        self.check_kept(pool);
        self.begin_bring(function, pool);
    }

    fn begin_bring(&mut self, function: usize, pool: usize) {
        let count = self.functions[function].settings.workers_min.max(1);
        let (patience, failures) = (self.elapsed + self.scenario.queue_timeout, self.cells[pool].pool.failures());
        self.functions[function].is_deploying = true;
        self.bring(pool, count, patience, failures);
    }

    /// Brings workers of a version to ready, checks again after a while, and moves the traffic when they are.
    pub(super) fn bring(&mut self, pool: usize, count: usize, patience: Duration, failures: usize) {
        let failed = self.cells[pool].pool.failures() - failures;
        if failed == 0 {
            self.apply(pool, Event::Warm(count));
        }
        let (counts, is_closed) = (self.cells[pool].pool.counts(), self.cells[pool].pool.is_closed());
        let is_in_time = self.elapsed < patience;
        let waits = counts.starting > 0 || (counts.leaving() > 0 && failed == 0 && !is_closed);
        if counts.ready() < count && (waits || (counts.planned > 0 && is_in_time)) {
            return self.after(Duration::from_millis(50), Happening::Bring { pool, count, patience, failures });
        }
        let function = self.cells[pool].function;
        self.functions[function].is_deploying = false;
        let is_new = Some(pool) != self.functions[function].before;
        if failed == 0 && counts.ready() > 0 && !is_closed {
            self.move_traffic(function, pool);
        } else if is_new {
            self.apply(pool, Event::Close);
        }
    }

    /// Moves the floors with the traffic: the live version has that of the settings, the previous one keeps one worker
    /// for a while.
    fn move_traffic(&mut self, function: usize, pool: usize) {
        self.note(|_| format!("the traffic of function {function} goes to version {pool}"));
        let before = self.functions[function].live;
        self.functions[function].live = pool;
        self.functions[function].before = Some(before);
        let until = self.now() + self.scenario.rollback_warm;
        for version in self.functions[function].versions.clone() {
            let floor = match version {
                it if it == pool => Floor::Settings,
                it if it == before => Floor::OneUntil(until),
                _ => Floor::Nothing,
            };
            self.set_floor(version, floor);
        }
        if !self.is_calm {
            self.call(function);
        }
    }

    fn set_floor(&mut self, pool: usize, floor: Floor) {
        self.set_rules(pool, None, Some(floor));
    }

    fn set_rules(&mut self, pool: usize, settings: Option<Limits>, floor: Option<Floor>) {
        if !self.cells[pool].forgotten {
            let event = self.cells[pool].pool.set_rules(settings, floor);
            self.apply(pool, event);
        }
    }

    fn change_settings(&mut self, function: usize) {
        let settings = settings(&mut self.random);
        self.functions[function].settings = settings;
        for pool in self.functions[function].versions.clone() {
            self.set_rules(pool, Some(settings), None);
        }
    }

    fn change_caps(&mut self) {
        let workers_max = self.random.count(1..=2 * self.scenario.caps.workers_max);
        self.note(|_| format!("the node may have {workers_max} workers"));
        self.watch.ceiling = self.watch.ceiling.max(self.node(|node| node.held()));
        let caps = Caps { workers_max, ..self.scenario.caps };
        self.drive(|driver| driver.tell_node(|node| node.set_caps(caps)));
    }

    fn delete(&mut self, function: usize) {
        self.functions[function].is_deleted = true;
        for pool in self.functions[function].versions.clone() {
            if !self.cells[pool].forgotten {
                self.apply(pool, Event::Close);
            }
        }
    }

    /// Lets time pass for the daemon, and measures its workers.
    pub(super) fn tick(&mut self) {
        for (key, process) in &self.processes {
            let Some(worker) = &process.worker else { continue };
            let is_blocked = self.blocked_for(*key).is_some_and(|it| it >= self.scenario.blocked);
            worker.is_blocked.store(is_blocked, Ordering::Relaxed);
            worker.is_worn.store(process.memory > self.workload(key.0).memory_soft, Ordering::Relaxed);
        }
        let is_starving = self.node(|node| node.is_starving(self.now()));
        self.drive(|driver| driver.tick());
        for cell in &mut self.cells {
            cell.forgotten |= cell.pool.is_closed() && cell.pool.counts() == Counts::default();
        }
        self.check_floors(is_starving);
        self.drive(|driver| driver.replace_worn());
        let is_there = |it: &&Process| !matches!(it.phase, Phase::Ordered | Phase::InLine);
        let memory = self.processes.values().filter(is_there).map(|it| it.memory).sum();
        self.check_memory(memory);
        self.drive(|driver| driver.tell_node(|node| node.measured(memory)));
        self.check_tick();
        self.after(TICK, Happening::Tick);
    }

    /// Ends all faults. Everything must come to rest, then shrink to nothing, and be gone once it is closed.
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
        self.note(|_| "from now on everything behaves".to_owned());
        self.play_until_so("S9: the run does not come to rest", Self::is_at_rest);
        for pool in self.pools() {
            self.set_floor(pool, Floor::Nothing);
        }
        self.play_until_so("S4: a worker or request remains although no floor needs it", Self::is_empty);
        for pool in self.pools() {
            self.apply(pool, Event::Close);
        }
        self.play_until_so("S9: a closed pool stays", |world| world.pools().is_empty());
        self.check_end();
    }

    /// Plays on until a condition holds, within the time that everything may take to come to rest.
    fn play_until_so(&mut self, otherwise: &str, is_so: impl Fn(&Self) -> bool) {
        let until = self.elapsed + self.rest_max();
        while !is_so(self) {
            assert!(self.elapsed < until, "{otherwise}: {}", self.picture());
            self.play_until(self.elapsed + TICK);
        }
    }
}
