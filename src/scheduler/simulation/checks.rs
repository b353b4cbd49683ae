//! Checks of the invariants S1 to S14 of the [simulation](super).

use super::{
    super::{
        Floor,
        node::{START_BYTES, TURN},
        pool::{Action, Counts, Event, Failure, Health},
    },
    Key,
    history::FailingStarts,
    host::PoolState,
    scenario::Kind,
    world::{CallState, Phase, World, floor},
};
use crate::model::WorkerId;
use std::time::Duration;

/// Interval, in happenings, of checks that look at every pool.
const LOOK_AT_ALL_EVERY: u64 = 8;

/// Back-off after each consecutive failure; the last value applies to all further ones.
const BACK_OFF_MS: [u64; 9] = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000];

/// Returns how many starts the back-off allows within a time.
fn starts_allowed(time: Duration) -> usize {
    let back_offs = BACK_OFF_MS.iter().chain(std::iter::repeat(&BACK_OFF_MS[8]));
    let mut sum = Duration::ZERO;
    back_offs
        .take_while(|milliseconds| {
            sum += Duration::from_millis(**milliseconds);
            sum <= time
        })
        .count()
}

impl World {
    /// Checks S1, S2 and S3.
    pub(super) fn check_dispatch(&mut self, pool: usize, worker: WorkerId, call: usize, after: &PoolState) {
        let is_its_pool = self.calls[call].pool == pool;
        assert!(is_its_pool && self.calls[call].state == CallState::Waiting, "S1: call {call} does not wait");
        let (limits, running) = (after.rules.limits(), after.counts.running);
        assert!(!after.is_closed, "S2: pool {pool} is closed");
        assert!(running <= limits.executions_max.max(1), "S2: {running} run in pool {pool}");
        let process = self.processes.get(&(pool, worker)).expect("S3: a call goes to a worker that exists");
        assert!(matches!(process.phase, Phase::Ready | Phase::Dying), "S3: {worker} of pool {pool} is {process:?}");
        assert!(!process.is_stopped, "S3: worker {worker} of pool {pool} was told to stop");
        assert!(process.running.len() < limits.concurrency.max(1), "S2: worker {worker} of pool {pool} is full");
    }

    /// Checks S1.
    pub(super) fn check_fail(&self, pool: usize, event: Event, call: usize, reason: Failure, after: &PoolState) {
        let (it, cell) = (&self.calls[call], &self.cells[pool]);
        assert!(it.pool == pool && it.state == CallState::Waiting, "S1: call {call} does not wait");
        match reason {
            Failure::Closed => assert!(after.is_closed, "S1: call {call} fails for a pool that is open"),
            Failure::QueueFull => assert!(matches!(event, Event::Invoke(_)), "S1: call {call} loses its place"),
            Failure::StartFailed => {
                assert!(cell.checked.failing.is_some(), "S1: call {call} fails without a failed start");
                assert_eq!(after.counts.alive(), 0, "S1: call {call} fails although a worker may serve it");
            }
        }
    }

    pub(super) fn check_not_over(&self, call: usize) {
        assert!(!matches!(self.calls[call].state, CallState::Over(_)), "S1: call {call} ends twice");
    }

    /// Checks S5.
    pub(super) fn check_stop(&mut self, pool: usize, event: Event, worker: WorkerId) {
        let Some(process) = self.processes.get(&(pool, worker)) else {
            panic!("S3: worker {worker} of pool {pool} is stopped but does not exist");
        };
        assert!(!process.is_stopped, "S3: worker {worker} of pool {pool} is stopped twice");
        let is_cut = !process.running.is_empty() && event != Event::Kill(worker);
        assert!(!is_cut, "S5: {event:?} cuts {:?} in worker {worker} of pool {pool}", process.running);
        self.watch.over = 0;
        if let Phase::Ordered | Phase::InLine | Phase::Starting = process.phase
            && let Some(failing) = &mut self.cells[pool].checked.failing
        {
            // A cancelled start says nothing about the version.
            failing.starts = failing.starts.saturating_sub(1);
        }
    }

    pub(super) fn note_ask(&mut self, key: Key, replaces: bool) {
        self.watch.asks.insert(key, replaces);
    }

    pub(super) fn note_withdrawal(&mut self, key: Key) {
        self.watch.asks.remove(&key);
    }

    /// Checks S4 for grants.
    pub(super) fn check_grant(&mut self, (pool, worker): Key, held: usize) {
        let Some(replaces) = self.watch.asks.remove(&(pool, worker)) else {
            panic!("S4: pool {pool} gets a place for worker {worker} without a request");
        };
        let caps = self.node(|node| node.caps());
        let max = caps.workers_max.max(1) + usize::from(replaces);
        assert!(held <= max, "S4: {held} places are held of at most {max}");
        let memory = self.watch.memory + START_BYTES;
        assert!(held == 1 || memory <= caps.memory_max, "S4: a place is given without memory for it");
    }

    /// Checks a pool after each event.
    pub(super) fn check_event(&mut self, pool: usize, event: Event, state: &PoolState, actions: &[Action]) {
        let after = state.counts;
        assert_eq!(after.queued, self.cells[pool].waiting, "S1: callers of pool {pool}");
        self.check_floor(pool, event, state);
        self.check_starts(pool, event, state, actions);
        let is_hungry = after.queued > 0 && after.planned > 0 && after.starting + after.ready() + after.leaving() == 0;
        let elapsed = self.elapsed;
        let checked = &mut self.cells[pool].checked;
        checked.was_released = matches!(event, Event::Release(_));
        checked.hungry_since = is_hungry.then(|| checked.hungry_since.unwrap_or(elapsed));
    }

    /// Checks S6 and S10.
    fn check_floor(&mut self, pool: usize, event: Event, state: &PoolState) {
        let (floor, now, after) = (floor(state.rules, state.is_closed), self.now(), state.counts);
        let before = std::mem::replace(&mut self.cells[pool].checked.counts, after);
        let is_loss = matches!(event, Event::Kill(_) | Event::Exited(_) | Event::Retire(_) | Event::Abandon(_));
        if !is_loss {
            let kept = before.ready().min(floor);
            assert!(after.ready() >= kept, "S6: {event:?} takes {before:?} of pool {pool} below {floor}: {after:?}");
        }
        let checked = &mut self.cells[pool].checked;
        let is_before = matches!(state.rules.floor, Floor::OneUntil(until) if until > now) && !state.is_closed;
        checked.is_kept = is_before && (after.ready() > 0 || (checked.is_kept && !is_loss));
        self.check_kept(pool);
    }

    /// Checks S10.
    pub(super) fn check_kept(&self, pool: usize) {
        let cell = &self.cells[pool];
        let is_kept = !cell.checked.is_kept || cell.checked.counts.ready() > 0;
        assert!(is_kept, "S10: pool {pool} has lost its worker for a rollback");
    }

    /// Records a failed start that was not cancelled.
    pub(super) fn start_has_failed(&mut self, pool: usize) {
        let since = self.elapsed;
        self.cells[pool].checked.failing.get_or_insert(FailingStarts { since, starts: 0, wished: 0 });
    }

    /// Checks S8.
    fn check_starts(&mut self, pool: usize, event: Event, state: &PoolState, actions: &[Action]) {
        let (elapsed, after, health) = (self.elapsed, state.counts, state.health);
        let checked = &mut self.cells[pool].checked;
        if let Event::Ready(_) = event {
            checked.failing = None;
        }
        let Some(failing) = &mut checked.failing else { return };
        let held_up = matches!(health, Health::Unhealthy { retry_in, .. } if !retry_in.is_zero());
        assert!(
            !held_up || after.queued == 0 || after.alive() > 0,
            "S8: a caller waits in pool {pool} although no worker may start"
        );
        let asked = actions.iter().filter(|it| matches!(it, Action::Ask { .. })).count();
        match event {
            Event::Warm(_) | Event::SetLimits(_) => failing.wished += asked,
            // Workers planned in spite of the first failure were wished for.
            Event::StartFailed(_) | Event::Exited(_) if failing.since == elapsed => failing.wished = after.planned,
            _ => {}
        }
        failing.starts += actions.iter().filter(|it| matches!(it, Action::Start(_))).count();
        let allowed = starts_allowed(elapsed - failing.since);
        let within = failing.starts <= allowed + failing.wished;
        assert!(within, "S8: pool {pool} may have had {allowed} starts: {failing:?}");
    }

    /// Checks S4 and S12 when nothing is under way between pools and node.
    pub(super) fn check_state(&mut self) {
        let (held, asking, caps) = self.node(|node| (node.held(), node.asking(), node.caps()));
        let max = caps.workers_max.max(1) + 1;
        assert!(held <= max.max(self.watch.ceiling), "S4: {held} places are held of {max}");
        self.watch.ceiling = self.watch.ceiling.min(held);
        assert!(self.processes.len() <= held, "S4: {} processes, {held} places", self.processes.len());
        if self.pending > 0 {
            return;
        }
        assert_eq!(self.processes.len(), held, "S4: places and processes differ");
        self.watch.happenings += 1;
        if !self.watch.happenings.is_multiple_of(LOOK_AT_ALL_EVERY) {
            return;
        }
        let planned: usize = self.cells.iter().map(|it| it.pool.counts().planned).sum();
        assert_eq!(asking, planned, "S4: places are asked for other workers than those planned");
        if held <= caps.workers_max.max(1) {
            self.check_freed();
        }
        if !self.node(|node| node.is_short()) {
            let yields = self.cells.iter().position(|it| it.pool.holding().yielding > 0 && !it.pool.is_closed());
            assert_eq!(yields, None, "S12: a pool gives up places although no pool asks");
        }
    }

    /// Checks S14 when nothing is under way between pools and node.
    fn check_freed(&self) {
        let holdings: Vec<_> = self.pools().into_iter().map(|it| (it, self.cells[it].pool.holding())).collect();
        let stopping: usize = holdings.iter().map(|(_, it)| it.stopping).sum();
        let asked = |pool: usize| self.watch.asks.keys().filter(|(other, _)| *other != pool).count();
        let freed = holdings.iter().find(|(pool, it)| {
            self.cells[*pool].checked.was_released && !it.idle.is_empty() && asked(*pool) > stopping
        });
        assert!(freed.is_none(), "S14: a worker idles that another pool asks for: {}", self.picture());
    }

    /// Checks S11, before the node knows the new measurement.
    pub(super) fn check_memory(&mut self, memory: u64) {
        let has_idle = self.pools().iter().any(|pool| !self.cells[*pool].pool.holding().idle.is_empty());
        let is_going = self.processes.values().any(|it| it.is_stopped || it.phase == Phase::Dying);
        let is_over = memory > self.node(|node| node.caps()).memory_max && has_idle && !is_going;
        self.watch.memory = memory;
        self.watch.over = if is_over { self.watch.over + 1 } else { 0 };
        assert!(self.watch.over <= 2, "S11: too much memory, and no worker stops: {}", self.picture());
    }

    /// Checks S13 after a tick.
    pub(super) fn check_floors(&self, is_starving: bool) {
        let is_kept = |pool: &usize| matches!(self.cells[*pool].pool.rules().floor, Floor::OneUntil(_));
        let kept = self.pools().into_iter().find(is_kept).filter(|_| is_starving);
        assert_eq!(kept, None, "S13: this pool keeps a worker for a rollback that another function needs");
    }

    /// Checks S7.
    pub(super) fn check_tick(&mut self) {
        let (elapsed, room) = (self.elapsed, self.room());
        let held_back = room == 0 || self.watch.ceiling > self.node(|node| node.caps()).workers_max + 1;
        let others = self.pools().len();
        let rounds = others.div_ceil(room.max(1)) + 1;
        let bound = self.scenario.round() * rounds as u32 * self.memory_factor();
        for pool in 0..self.cells.len() {
            let Some(since) = self.cells[pool].checked.hungry_since else { continue };
            if held_back {
                self.cells[pool].checked.hungry_since = Some(elapsed);
            } else if elapsed - since > bound {
                panic!(
                    "S7: pool {pool} has waited for a place since {since:?}, longer than {bound:?}: {}",
                    self.picture()
                );
            }
        }
    }

    /// Returns how many workers may have to go for one: a worker may use less memory than a new one is counted with.
    fn memory_factor(&self) -> u32 {
        if self.node(|node| node.caps()).memory_max < u64::MAX / 2 { 3 } else { 1 }
    }

    /// Returns the number of places that no floor can take; 0 also if the floors can take all memory.
    fn room(&self) -> usize {
        let (mut floors, mut memory) = (0, 0);
        for pool in self.pools() {
            let floor = self.cells[pool].floor();
            let of_pool = self.processes.range((pool, WorkerId(0))..(pool + 1, WorkerId(0)));
            let most = of_pool.map(|(_, it)| it.memory).max().unwrap_or(0).max(self.workload(pool).memory);
            floors += floor;
            memory += floor as u64 * most;
        }
        let largest = self.processes.values().map(|it| it.memory).max().unwrap_or(0);
        let caps = self.node(|node| node.caps());
        let has_memory = memory + largest.max(64 << 20) + 4 * START_BYTES <= caps.memory_max;
        if has_memory { caps.workers_max.max(1).saturating_sub(floors) } else { 0 }
    }

    pub(super) fn has_room_for_all(&self) -> bool {
        self.room() > 0
    }

    /// Returns the time that everything may take to come to rest: timeouts and back-offs, and a turn of the node for
    /// each waiting caller.
    pub(super) fn rest_max(&self) -> Duration {
        let waiting: usize = self.cells.iter().map(|it| it.waiting).sum();
        let turns = self.pools().len() + 2 + waiting * 5 / TURN.as_millis() as usize;
        let round = self.scenario.round() * self.memory_factor();
        self.scenario.settle() + round * turns as u32 + self.scenario.queue_timeout
    }

    /// Checks S9: no caller waits, and every pool stands at its floor.
    pub(super) fn is_at_rest(&self) -> bool {
        let has_room = self.has_room_for_all();
        !self.functions.iter().any(|it| it.is_deploying)
            && self.pools().iter().all(|pool| {
                let cell = &self.cells[*pool];
                let (counts, floor) = (cell.pool.counts(), cell.floor());
                let rules = cell.pool.rules();
                let is_kept_for_a_time = matches!(rules.floor, Floor::OneUntil(_));
                let is_at_floor = match has_room {
                    true if rules.settings.age_max.is_zero() => counts == Counts { idle: floor, ..Counts::default() },
                    true => (floor..=floor + 1).contains(&counts.ready()),
                    false => counts.ready() <= floor + 1,
                };
                counts.queued + counts.running == 0 && is_at_floor && !is_kept_for_a_time
            })
    }

    /// Checks S4: no place is held or requested.
    pub(super) fn is_empty(&self) -> bool {
        self.node(|node| node.held() + node.asking()) + self.processes.len() + self.pending == 0
    }

    /// Checks S1.
    pub(super) fn check_end(&self) {
        let open = self.calls.iter().position(|it| !matches!(it.state, CallState::Over(_)));
        assert_eq!(open, None, "S1: a call has not ended");
        let leased = self.calls.iter().position(|it| it.lease.is_some() || it.waiting.is_some());
        assert_eq!(leased, None, "S1: a call that has ended has a lease");
        assert_eq!(self.starts_free, self.scenario.starts_max, "a permit to start is lost in the simulation itself");
    }

    /// Describes the state, for a message.
    pub(super) fn picture(&self) -> String {
        let is_empty = |pool: &usize| self.cells[*pool].pool.counts() == Counts::default();
        let pools = self.pools().into_iter().filter(|it| !is_empty(it)).map(|pool| {
            let cell = &self.cells[pool];
            format!("\n  pool {pool}: {:?}, floor {}, {:?}", cell.pool.counts(), cell.floor(), cell.pool.holding())
        });
        let pools: String = pools.collect();
        let kind: Kind = self.scenario.kind;
        self.node(|it| format!("{kind:?}: {:?}, {} held, {} ask{pools}", it.caps(), it.held(), it.asking()))
    }
}
