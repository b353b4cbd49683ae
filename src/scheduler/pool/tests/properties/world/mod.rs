//! The holder of a pool and its workers. It applies each event and action to its own small model, rejects every action
//! that the rules forbid, and then checks what the rules guarantee for the new state.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

mod checks;
mod record;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Planned(Why),
    Starting(Instant, Why),
    Idle(Instant, Service),
    Busy(Vec<InvocationId>, Service),
    /// With no invocations left, it must be told to stop now.
    Retiring(Vec<InvocationId>),
    Stopping,
}

/// Purpose of a planned worker.
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
    serving_since: Instant,
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

/// Back-off after each number of consecutive failures; the last value applies to all further ones.
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
    /// Worker in which the current event has ended an invocation.
    has_served: Option<WorkerId>,
    /// Actions that the current event must cause.
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
            has_served: None,
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

    /// Returns the number of replacements whose worn worker still serves.
    fn replacements(&self) -> usize {
        self.count(|it| it.replaces().is_some_and(|old| self.is_ready(old)))
    }

    /// Returns the number of workers alive; a worn worker and its replacement count as one.
    fn lasting(&self) -> usize {
        self.alive() - self.replacements()
    }

    fn running(&self) -> usize {
        self.workers.values().map(|it| if let Phase::Busy(running, _) = it { running.len() } else { 0 }).sum()
    }

    fn is_ready(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|it| it.service().is_some())
    }

    /// Whether only wishes may start.
    fn is_open(&self) -> bool {
        self.failures.is_some_and(|it| self.now < it.retry_at())
    }

    /// Returns how many workers may be starting for callers, for the floor and as replacements.
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

    /// Returns the worker that must take the next invocation.
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

    /// Returns how many workers should be on their way for waiting callers, and how many are.
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
                    assert_eq!(Some(worker), self.next_worker(), "not the worker whose turn it is");
                    assert_eq!(self.waiting.pop_front(), Some(invocation), "not the first waiting caller");
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
        let _ = self.due.swap_remove(at.unwrap_or_else(|| panic!("{action:?} unexpected")));
    }

    /// Grants every request for a place.
    pub(super) fn grant_all(&mut self) {
        for _ in 0..=2 * self.workers_max_ever {
            self.step(Step::Worker(Report::Granted, 0));
        }
        assert_eq!(self.planned(), 0, "places are requested and returned for ever");
    }

    /// Plays workers without faults: each planned one gets a place, each starting one becomes ready, each invocation
    /// ends, each stopping one exits.
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

    /// Checks I6, I7 and I9.
    pub(super) fn check_liveness(&mut self) {
        self.behave();
        assert_eq!(self.waiting.len(), 0, "a caller waits for ever");
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
