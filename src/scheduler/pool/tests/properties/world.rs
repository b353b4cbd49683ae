//! The holder of a pool and its workers: it applies each event and action to its own small picture, refuses every
//! action that the rules forbid, and then checks what the rules promise for the state reached.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Planned(Why),
    Starting(Instant, Why),
    Idle(Instant, Service),
    Busy(Vec<InvocationId>, Service),
    /// With nothing to run, it must be told to stop now.
    Retiring(Vec<InvocationId>),
    Stopping,
}

/// What a worker is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Callers,
    Floor,
    Wish,
    Replace(WorkerId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Service {
    ready_at: Instant,
    served: u64,
    worn: bool,
}

impl Phase {
    fn service(&self) -> Option<Service> {
        match self {
            Phase::Idle(_, service) | Phase::Busy(_, service) => Some(*service),
            _ => None,
        }
    }

    fn why(&self) -> Option<Why> {
        match self {
            Phase::Planned(why) | Phase::Starting(_, why) => Some(*why),
            _ => None,
        }
    }

    fn is_planned(&self) -> bool {
        matches!(self, Phase::Planned(_))
    }

    fn is_starting(&self) -> bool {
        matches!(self, Phase::Starting(..))
    }

    fn is_busy(&self) -> bool {
        matches!(self, Phase::Busy(..))
    }

    fn is_alive(&self) -> bool {
        self.why().is_some() || self.service().is_some()
    }

    fn replaces(&self) -> Option<WorkerId> {
        match self.why() {
            Some(Why::Replace(old)) => Some(old),
            _ => None,
        }
    }
}

/// The back-off after so many failures in a row, and after more.
const BACK_OFF_MS: [u64; 9] = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000];

/// Failures since the last success, and the time of the latest.
#[derive(Debug, Clone, Copy)]
struct Failures {
    in_a_row: usize,
    latest: Instant,
}

impl Failures {
    fn retry_at(self) -> Instant {
        let at = self.in_a_row.min(BACK_OFF_MS.len()) - 1;
        self.latest + Duration::from_millis(BACK_OFF_MS[at])
    }
}

pub(super) struct World {
    pool: Pool,
    now: Instant,
    limits: Limits,
    workers: BTreeMap<WorkerId, Phase>,
    waiting: VecDeque<InvocationId>,
    ended: BTreeSet<InvocationId>,
    invoked: u128,
    asked: u64,
    failures: Option<Failures>,
    yielding: usize,
    closed: bool,
    workers_max_ever: usize,
    /// What must come back for the event at hand.
    due: Vec<Action>,
}

impl World {
    pub(super) fn new(limits: Limits) -> World {
        World {
            pool: Pool::new(limits),
            now: Instant::now(),
            limits,
            workers: BTreeMap::new(),
            waiting: VecDeque::new(),
            ended: BTreeSet::new(),
            invoked: 0,
            asked: 0,
            failures: None,
            yielding: 0,
            closed: false,
            workers_max_ever: limits.workers_max.max(1),
            due: Vec::new(),
        }
    }

    fn count(&self, phase: impl Fn(&Phase) -> bool) -> usize {
        self.workers.values().filter(|it| phase(it)).count()
    }

    pub(super) fn starting(&self) -> usize {
        self.count(Phase::is_starting)
    }

    fn planned(&self) -> usize {
        self.count(Phase::is_planned)
    }

    fn ready(&self) -> usize {
        self.count(|it| it.service().is_some())
    }

    fn stopping(&self) -> usize {
        self.count(|it| *it == Phase::Stopping)
    }

    fn alive(&self) -> usize {
        self.count(Phase::is_alive)
    }

    /// Workers that come to replace one that still serves.
    fn replacements(&self) -> usize {
        self.count(|it| it.replaces().is_some_and(|old| self.is_ready(old)))
    }

    /// Those alive, where the worn one and the one that comes for it are one.
    fn lasting(&self) -> usize {
        self.alive() - self.replacements()
    }

    fn running(&self) -> usize {
        self.workers.values().map(|it| if let Phase::Busy(running, _) = it { running.len() } else { 0 }).sum()
    }

    fn is_ready(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|it| it.service().is_some())
    }

    /// Whether nothing may start but what is wished for.
    fn is_open(&self) -> bool {
        self.failures.is_some_and(|it| self.now < it.retry_at())
    }

    /// How many workers may be starting for callers, for the floor and to replace others.
    fn starting_max(&self) -> usize {
        match self.failures {
            None => usize::MAX,
            Some(_) if self.is_open() => 0,
            Some(_) => 1,
        }
    }

    fn idle(&self) -> Vec<(Instant, WorkerId)> {
        let since = |(id, phase): (&WorkerId, &Phase)| match phase {
            Phase::Idle(since, _) => Some((*since, *id)),
            _ => None,
        };
        let mut idle: Vec<_> = self.workers.iter().filter_map(since).collect();
        idle.sort();
        idle
    }

    fn newest(&self, phase: impl Fn(&Phase) -> bool) -> Option<WorkerId> {
        self.workers.iter().rev().find(|(_, it)| phase(it)).map(|(id, _)| *id)
    }

    fn concurrency(&self) -> usize {
        self.limits.concurrency.max(1)
    }

    fn workers_max(&self) -> usize {
        if self.closed { 0 } else { self.limits.workers_max.max(1) }
    }

    pub(super) fn workers_max_ever(&self) -> usize {
        self.workers_max_ever
    }

    fn executions_max(&self) -> usize {
        if self.closed { 0 } else { self.limits.executions_max.max(1) }
    }

    fn floor(&self) -> usize {
        self.limits.workers_min.min(self.workers_max())
    }

    fn waiting_max(&self) -> usize {
        self.limits.queue_max + self.executions_max().saturating_sub(self.running())
    }

    /// Who must take the next call.
    fn next_worker(&self) -> Option<WorkerId> {
        if self.running() >= self.executions_max() {
            return None;
        }
        let room = |(id, phase): (&WorkerId, &Phase)| match phase {
            Phase::Busy(running, service) if running.len() < self.concurrency() => {
                Some((running.len(), service.worn, *id))
            }
            _ => None,
        };
        let idle = self.idle().last().map(|it| it.1);
        idle.or_else(|| self.workers.iter().filter_map(room).min().map(|it| it.2))
    }

    /// How many workers should be on their way for those who wait, and how many are.
    fn starts_for_callers(&self) -> (usize, usize) {
        let probing = self.count(|it| it.is_starting() && it.replaces().is_some());
        let wanted = self.waiting.len().div_ceil(self.concurrency()).min(self.starting_max().saturating_sub(probing));
        (wanted, self.count(|it| it.why().is_some() && it.replaces().is_none()))
    }

    fn end(&mut self, invocations: impl IntoIterator<Item = InvocationId>) {
        for invocation in invocations {
            assert!(self.ended.insert(invocation), "{invocation:?} ended twice");
        }
    }

    fn event(&mut self, step: Step) -> Option<Event> {
        let nth = |n: usize, belongs: fn(&Phase) -> bool| {
            let ids: Vec<_> = self.workers.iter().filter(|(_, phase)| belongs(phase)).map(|(id, _)| *id).collect();
            (!ids.is_empty()).then(|| ids[n % ids.len()])
        };
        Some(match step {
            Step::Invoke => {
                self.invoked += 1;
                Event::Invoke(inv(self.invoked))
            }
            Step::Cancel(n) => Event::Cancel(*self.waiting.get(n % self.waiting.len().max(1))?),
            Step::LateCancel(n) => {
                let id = inv(n % (self.invoked + 2));
                if self.waiting.contains(&id) {
                    return None;
                }
                Event::Cancel(id)
            }
            Step::Worker(report, n) => {
                let belongs: fn(&Phase) -> bool = match report {
                    Report::Granted => Phase::is_planned,
                    Report::Ready | Report::StartFailed => Phase::is_starting,
                    Report::Release | Report::Abandon | Report::Kill => {
                        |it| matches!(it, Phase::Busy(..) | Phase::Retiring(_))
                    }
                    Report::Retire | Report::Worn => |it| it.service().is_some(),
                    Report::Crash => |it| !matches!(it, Phase::Planned(_) | Phase::Stopping),
                    Report::Stopped => |it| *it == Phase::Stopping,
                };
                report.event(nth(n, belongs)?)
            }
            Step::Late(report, n) => report.event(WorkerId(n % (self.asked + 2))),
            Step::Warm(count) => Event::Warm(count),
            Step::SetLimits(limits) => Event::SetLimits(limits),
            Step::Evict => Event::Evict,
            Step::Yield(count) => Event::Yield(count),
            Step::Close => Event::Close,
            Step::Wait(milliseconds) => {
                self.now += Duration::from_millis(milliseconds);
                return None;
            }
            Step::Tick(milliseconds) => {
                self.now += Duration::from_millis(milliseconds);
                Event::Tick
            }
        })
    }

    pub(super) fn step(&mut self, step: Step) {
        if let Some(event) = self.event(step) {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.pool.handle(event, self.now, &mut actions);
        let failed_start = self.record(event);
        self.record_wear(event);
        self.forget_replaced();
        let wanted = self.wanted(event);
        self.adopt(wanted);
        self.record_excess();
        for action in actions {
            match action {
                Action::Ask { worker, replaces } => {
                    assert!(!failed_start, "a failed start leads to another");
                    self.check_ask(worker, replaces, wanted);
                }
                Action::Start(id) => {
                    self.take_due(action);
                    let why = self.workers[&id].why().expect("it was planned");
                    self.workers.insert(id, Phase::Starting(self.now, why));
                }
                Action::Withdraw(id) => self.check_withdraw(id),
                Action::Stop(id) => {
                    assert_eq!(self.workers.insert(id, Phase::Stopping), Some(Phase::Retiring(Vec::new())), "{id:?}");
                }
                Action::Dispatch { worker, invocation } => {
                    assert_eq!(Some(worker), self.next_worker(), "not the one whose turn it is");
                    assert_eq!(self.waiting.pop_front(), Some(invocation), "not the first caller");
                    match self.workers.get_mut(&worker) {
                        Some(Phase::Busy(running, _)) => running.push(invocation),
                        Some(phase) => *phase = Phase::Busy(vec![invocation], phase.service().expect("it is idle")),
                        None => panic!("{worker:?} is unknown"),
                    }
                }
                Action::Fail { invocation, reason } => self.check_fail(event, invocation, reason),
            }
        }
        self.check_enough(event);
        self.check_state(event);
    }

    fn take_due(&mut self, action: Action) {
        let at = self.due.iter().position(|it| *it == action);
        let _ = self.due.swap_remove(at.unwrap_or_else(|| panic!("{action:?} out of place")));
    }

    /// What an event means by itself. Returns whether it is a failed start.
    fn record(&mut self, event: Event) -> bool {
        match event {
            Event::Invoke(invocation) => self.waiting.push_back(invocation),
            Event::Cancel(invocation) => {
                if let Some(at) = self.waiting.iter().position(|it| *it == invocation) {
                    self.waiting.remove(at);
                    self.end([invocation]);
                }
            }
            Event::SetLimits(limits) => {
                self.limits = limits;
                self.workers_max_ever = self.workers_max_ever.max(limits.workers_max);
                // What the floor still needs is adopted as a wish.
                for phase in self.workers.values_mut().filter(|it| **it == Phase::Planned(Why::Floor)) {
                    *phase = Phase::Planned(Why::Callers);
                }
            }
            Event::Evict if self.ready() > self.limits.workers_min => {
                if let Some((_, id)) = self.idle().first() {
                    self.workers.insert(*id, Phase::Retiring(Vec::new()));
                }
            }
            Event::Yield(count) => self.yielding = count,
            Event::Close => self.closed = true,
            Event::Tick => {
                // Of a pair, one goes at the most while the floor needs the other.
                let replacements = self.replacements();
                while let Some((since, id)) = self.idle().first().copied()
                    && self.alive() - replacements > self.limits.workers_min
                    && self.now - since >= self.limits.idle_timeout
                {
                    self.workers.insert(id, Phase::Retiring(Vec::new()));
                }
            }
            Event::Evict | Event::Warm(_) => {}
            Event::Granted(id)
            | Event::Ready(id)
            | Event::StartFailed(id)
            | Event::Release(id)
            | Event::Abandon(id)
            | Event::Kill(id)
            | Event::Retire(id)
            | Event::Worn(id)
            | Event::Exited(id) => return self.record_report(event, id),
        }
        false
    }

    fn record_report(&mut self, event: Event, id: WorkerId) -> bool {
        let gives_up = self.yielding > 0 && self.ready() > self.limits.workers_min;
        let phase = self.workers.get(&id).cloned();
        let next = match (event, phase) {
            (Event::Granted(_), None) => {
                self.due.push(Action::Withdraw(id));
                return false;
            }
            (Event::Granted(_), Some(Phase::Planned(why))) => {
                let may_start = why == Why::Wish || self.starting() < self.starting_max();
                self.due.push(if may_start { Action::Start(id) } else { Action::Withdraw(id) });
                return false;
            }
            (Event::Ready(_), Some(Phase::Starting(_, why))) => {
                self.failures = None;
                Some(Phase::Idle(self.idle_since(why), Service { ready_at: self.now, served: 0, worn: false }))
            }
            (Event::StartFailed(_) | Event::Exited(_), Some(Phase::Starting(began, _))) => {
                self.workers.remove(&id);
                let again = |it: Failures| if began > it.latest { it.in_a_row + 1 } else { it.in_a_row };
                self.failures = Some(Failures { in_a_row: self.failures.map_or(1, again), latest: self.now });
                return true;
            }
            (Event::Exited(_) | Event::StartFailed(_), Some(Phase::Stopping))
            | (Event::Exited(_), Some(Phase::Idle(..))) => None,
            (Event::Exited(_), Some(Phase::Busy(running, _) | Phase::Retiring(running))) => {
                self.end(running);
                None
            }
            (Event::Release(_), Some(Phase::Busy(mut running, mut service))) => {
                self.end(running.pop());
                service.served += 1;
                self.yielding -= usize::from(gives_up);
                Some(match running.is_empty() {
                    _ if gives_up => Phase::Retiring(running),
                    true => Phase::Idle(self.now, service),
                    false => Phase::Busy(running, service),
                })
            }
            (Event::Abandon(_), Some(Phase::Busy(mut running, _)))
            | (Event::Release(_) | Event::Abandon(_), Some(Phase::Retiring(mut running))) => {
                self.end(running.pop());
                Some(Phase::Retiring(running))
            }
            (Event::Kill(_), Some(Phase::Busy(running, _) | Phase::Retiring(running))) => {
                self.end(running);
                Some(Phase::Retiring(Vec::new()))
            }
            (Event::Retire(_), Some(Phase::Busy(running, _))) => Some(Phase::Retiring(running)),
            (Event::Retire(_), Some(Phase::Idle(..))) => Some(Phase::Retiring(Vec::new())),
            _ => return false,
        };
        match next {
            Some(next) => drop(self.workers.insert(id, next)),
            None => drop(self.workers.remove(&id)),
        }
        false
    }

    /// Takes the place of the worker that this one comes for. Returns since when the new one is idle.
    fn idle_since(&mut self, why: Why) -> Instant {
        let Why::Replace(old) = why else { return self.now };
        match self.workers[&old].clone() {
            Phase::Idle(since, _) => {
                self.workers.insert(old, Phase::Retiring(Vec::new()));
                since
            }
            Phase::Busy(running, _) => {
                self.workers.insert(old, Phase::Retiring(running));
                self.now
            }
            phase => panic!("{old:?} is replaced and {phase:?}"),
        }
    }

    /// When exactly a worker is worn is up to the pool, within a tenth.
    fn record_wear(&mut self, event: Event) {
        let (limits, now) = (self.limits, self.now);
        for (id, phase) in &mut self.workers {
            let Some(WorkerState::Idle { tenure, .. } | WorkerState::Busy { tenure, .. }) = self.pool.workers.get(*id)
            else {
                continue;
            };
            let (Phase::Idle(_, service) | Phase::Busy(_, service)) = phase else { continue };
            let bounds = |part: f64, limit: f64| (limit > 0.0 && part >= 0.9 * limit, limit > 0.0 && part >= limit);
            let (may, must) = match event {
                Event::Worn(worn) if worn == *id => (true, true),
                Event::Release(released) if released == *id => {
                    bounds(service.served as f64, limits.requests_max as f64)
                }
                Event::Tick => bounds((now - service.ready_at).as_secs_f64(), limits.age_max.as_secs_f64()),
                _ => (false, false),
            };
            assert!(!tenure.worn || service.worn || may, "{id:?} is worn too early");
            assert!(tenure.worn || !(service.worn || must), "{id:?} is not worn");
            service.worn = tenure.worn;
        }
    }

    /// How many workers the event wants alive, and why.
    fn wanted(&self, event: Event) -> Option<(usize, Why)> {
        match event {
            Event::Warm(count) => Some((count.min(self.workers_max()), Why::Wish)),
            Event::SetLimits(_) => Some((self.floor(), Why::Wish)),
            Event::Tick => {
                let starts = self.starting_max().saturating_sub(self.starting() + self.planned());
                Some((self.floor().min(self.lasting().saturating_add(starts)), Why::Floor))
            }
            _ => None,
        }
    }

    /// Planned workers that a wish or the floor counts on are for that from now on.
    fn adopt(&mut self, wanted: Option<(usize, Why)>) {
        let Some((count, why)) = wanted else { return };
        let is_lesser = |it: &Phase| match it {
            Phase::Planned(own) => *own == Why::Callers || (*own == Why::Floor && why == Why::Wish),
            _ => false,
        };
        let others = self.lasting() - self.count(is_lesser);
        let lesser = self.workers.values_mut().filter(|it| is_lesser(it));
        lesser.take(count.saturating_sub(others)).for_each(|it| *it = Phase::Planned(why));
    }

    /// R8.
    fn record_excess(&mut self) {
        while self.lasting() > self.workers_max() {
            if let Some(id) = self.newest(Phase::is_planned) {
                self.due.push(Action::Withdraw(id));
                self.workers.remove(&id);
                continue;
            }
            let oldest_idle = || self.idle().first().map(|it| it.1);
            let id = self.newest(Phase::is_starting).or_else(oldest_idle).or_else(|| self.newest(Phase::is_busy));
            let id = id.expect("somebody is alive");
            let running = match &self.workers[&id] {
                Phase::Busy(running, _) => running.clone(),
                _ => Vec::new(),
            };
            self.workers.insert(id, Phase::Retiring(running));
        }
    }

    /// A start whose worn worker is gone goes on for the callers, and a plan for one is withdrawn.
    fn forget_replaced(&mut self) {
        let is_late = |it: &Phase| it.replaces().is_some_and(|old| !self.is_ready(old));
        let Some(id) = self.newest(is_late) else { return };
        match self.workers.remove(&id) {
            Some(Phase::Starting(since, _)) => drop(self.workers.insert(id, Phase::Starting(since, Why::Callers))),
            _ => self.due.push(Action::Withdraw(id)),
        }
    }

    fn has_room(&self) -> bool {
        let max = self.workers_max();
        self.lasting() + self.stopping() < max && self.workers.len() < 2 * max
    }

    /// Whether another process may come for a worn one.
    fn may_replace(&self) -> bool {
        let max = self.workers_max();
        let has_room = self.alive() + self.stopping() <= max && self.workers.len() < 2 * max;
        has_room && self.replacements() == 0 && self.starting() < self.starting_max()
    }

    fn first_worn(&self) -> Option<WorkerId> {
        let worn = self.workers.iter().filter_map(|(id, it)| Some((it.service().filter(|it| it.worn)?.ready_at, *id)));
        worn.min().map(|(_, id)| id)
    }

    fn check_ask(&mut self, id: WorkerId, replaces: bool, wanted: Option<(usize, Why)>) {
        let (needed, on_their_way) = self.starts_for_callers();
        let why = if replaces {
            assert!(self.may_replace(), "{id:?} has no room to replace another");
            Why::Replace(self.first_worn().expect("a replacement for nobody"))
        } else {
            assert!(self.has_room(), "{id:?} has no room");
            match wanted.filter(|(count, _)| self.lasting() < *count) {
                Some((_, why)) => why,
                None => {
                    assert!(on_their_way < needed, "planned for nobody, or before its time");
                    Why::Callers
                }
            }
        };
        self.asked += 1;
        assert_eq!(self.workers.insert(id, Phase::Planned(why)), None, "{id:?} is in use");
    }

    fn check_withdraw(&mut self, id: WorkerId) {
        if self.due.contains(&Action::Withdraw(id)) {
            self.take_due(Action::Withdraw(id));
            self.workers.remove(&id);
            return;
        }
        let (needed, on_their_way) = self.starts_for_callers();
        let why = match self.workers.get(&id) {
            Some(Phase::Planned(why)) => *why,
            phase => panic!("{id:?} is withdrawn and {phase:?}"),
        };
        let is_needless = match why {
            Why::Wish => false,
            Why::Floor => self.is_open(),
            Why::Callers => self.is_open() || on_their_way > needed,
            Why::Replace(_) => self.is_open(),
        };
        assert!(is_needless, "{id:?} is withdrawn though it is for {why:?}");
        if why == Why::Callers {
            assert_eq!(self.newest(|it| *it == Phase::Planned(why)), Some(id), "not the newest");
        }
        self.workers.remove(&id);
    }

    fn check_fail(&mut self, event: Event, invocation: InvocationId, reason: Failure) {
        let at = self.waiting.iter().position(|it| *it == invocation).expect("only who waits can fail");
        let others = self.waiting.len() - 1;
        match reason {
            Failure::Closed => assert!(self.closed),
            Failure::StartFailed => assert!(self.is_open() && self.alive() == 0),
            Failure::QueueFull => {
                assert_eq!(event, Event::Invoke(invocation), "refused later than at once");
                assert!(others >= self.waiting_max(), "refused though there is room");
            }
        }
        self.waiting.remove(at);
        self.end([invocation]);
    }

    /// Whatever must come has come.
    fn check_enough(&self, event: Event) {
        assert_eq!(self.due, [], "left undone");
        assert_eq!(self.count(|it| *it == Phase::Retiring(Vec::new())), 0, "somebody is not stopped");
        assert_eq!(self.next_worker().filter(|_| !self.waiting.is_empty()), None, "I3");
        let (needed, on_their_way) = self.starts_for_callers();
        let is_full = !self.has_room();
        assert!(is_full || on_their_way >= needed, "a caller waits for no start");
        let for_callers = self.count(|it| *it == Phase::Planned(Why::Callers));
        assert!(for_callers == 0 || on_their_way <= needed, "planned for nobody");
        match event {
            Event::Warm(count) => assert!(is_full || self.lasting() >= count, "below what was asked for"),
            Event::SetLimits(_) => assert!(is_full || self.lasting() >= self.floor(), "below the new floor"),
            Event::Tick => {
                let is_held_up = self.starting() + self.planned() >= self.starting_max();
                assert!(is_full || is_held_up || self.lasting() >= self.floor(), "below the floor");
            }
            _ => {}
        }
        assert!(self.first_worn().is_none() || !self.may_replace(), "nobody comes for a worn worker");
        for phase in self.workers.values() {
            assert!(phase.replaces().is_none_or(|old| self.is_ready(old)), "a replacement for one that is gone");
        }
    }

    fn check_state(&self, event: Event) {
        let retiring = self.count(|it| matches!(it, Phase::Retiring(_)));
        let model = Counts {
            planned: self.planned(),
            starting: self.starting(),
            idle: self.idle().len(),
            busy: self.count(Phase::is_busy),
            retiring,
            stopping: self.stopping(),
            running: self.running(),
            queued: self.waiting.len(),
        };
        assert_eq!(self.pool.counts(), model);
        assert_eq!(self.pool.is_empty(), self.workers.is_empty() && self.waiting.is_empty());
        assert_eq!(self.pool.is_closed(), self.closed);
        let health = self.failures.map_or(Health::Healthy, |it| Health::Unhealthy {
            failures: it.in_a_row as u32,
            retry_in: it.retry_at().saturating_duration_since(self.now),
        });
        assert_eq!(self.pool.health(self.now), health);
        let spare = self.ready().saturating_sub(self.limits.workers_min);
        let holding = Holding {
            ready: self.ready(),
            spare,
            idle: self.idle().iter().take(spare).map(|it| it.0).collect(),
            serving_since: self.workers.values().filter_map(|it| Some(it.service()?.ready_at)).min(),
            leaving: retiring + self.stopping(),
            yielding: self.yielding,
        };
        assert_eq!(self.pool.holding(), holding);
        assert!(self.lasting() <= self.workers_max() && self.replacements() <= 1, "I2");
        assert!(model.queued == 0 || !self.workers.is_empty(), "I4");
        assert!(model.queued == 0 || self.alive() > 0 || !self.is_open(), "I8");
        let is_wish = |it: &Phase| *it == Phase::Planned(Why::Wish);
        assert!(!self.is_open() || self.count(is_wish) == model.planned, "I8");
        assert!(!self.closed || model.queued + self.alive() == 0, "I5");
        if let Event::Invoke(invocation) = event {
            let waits = self.waiting.back() == Some(&invocation);
            assert!(!waits || self.waiting.len() <= self.waiting_max(), "admitted beyond the bound");
        }
    }

    /// The node has a place for everybody.
    pub(super) fn grant_all(&mut self) {
        for _ in 0..=2 * self.workers_max_ever {
            self.step(Step::Worker(Report::Granted, 0));
        }
        assert_eq!(self.planned(), 0, "places are asked for and given back for ever");
    }

    /// Every worker does what it should: whatever is planned gets a place, whatever starts is ready, whatever runs is
    /// released, whatever stops exits.
    fn behave(&mut self) {
        for _ in 0..1000 {
            let due = self.workers.iter().find_map(|(id, phase)| match phase {
                Phase::Planned(_) => Some(Event::Granted(*id)),
                Phase::Starting(..) => Some(Event::Ready(*id)),
                Phase::Busy(..) | Phase::Retiring(_) => Some(Event::Release(*id)),
                Phase::Stopping => Some(Event::Exited(*id)),
                Phase::Idle(..) => None,
            });
            let Some(event) = due else { return };
            self.handle(event);
        }
        panic!("the workers never come to rest");
    }

    /// I6, I7 and I9.
    pub(super) fn check_liveness(&mut self) {
        self.behave();
        assert_eq!(self.waiting.len(), 0, "somebody waits for ever");
        assert_eq!(self.ended.len() as u128, self.invoked, "an invocation was lost");
        self.now += self.limits.idle_timeout + Duration::from_millis(BACK_OFF_MS[8]);
        for _ in 0..2 {
            self.handle(Event::Tick);
            self.behave();
        }
        assert!(self.alive() >= self.floor(), "below the floor");
        self.now += self.limits.idle_timeout;
        self.handle(Event::Tick);
        self.behave();
        assert_eq!(self.workers.len(), self.floor(), "not at the floor");
        assert_eq!(self.first_worn(), None, "a worn worker stays");
        self.handle(Event::Close);
        self.behave();
        assert!(self.pool.is_empty());
    }
}
