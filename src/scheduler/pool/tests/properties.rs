//! Random events against a model that knows what may happen, not how the pool decides it.
//!
//! `World` plays the holder of the pool and its workers: it applies each event and action to its own small picture,
//! refuses every action that the rules forbid, and then checks what the rules promise for the state reached.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Invoke,
    /// The nth waiting caller leaves.
    Cancel(usize),
    /// The nth worker in the state where this event belongs reports it.
    Worker(Report, usize),
    /// Any worker that ever was, or will be, reports it, whatever its state.
    Late(Report, u64),
    /// A caller that does not wait leaves.
    LateCancel(u128),
    Warm(usize),
    SetLimits(Limits),
    Close,
    /// Milliseconds pass, and nobody is told.
    Wait(u64),
    /// Milliseconds pass.
    Tick(u64),
}

#[derive(Debug, Clone, Copy)]
enum Report {
    Ready,
    StartFailed,
    Release,
    Kill,
    Crash,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting(Instant),
    Idle(Instant),
    Busy(InvocationId),
    Stopping,
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

struct World {
    pool: Pool,
    now: Instant,
    limits: Limits,
    workers: BTreeMap<WorkerId, Phase>,
    waiting: VecDeque<InvocationId>,
    ended: BTreeSet<InvocationId>,
    invoked: u128,
    started: u64,
    failures: Option<Failures>,
    closed: bool,
}

impl World {
    fn new(limits: Limits) -> World {
        World {
            pool: Pool::new(limits),
            now: Instant::now(),
            limits,
            workers: BTreeMap::new(),
            waiting: VecDeque::new(),
            ended: BTreeSet::new(),
            invoked: 0,
            started: 0,
            failures: None,
            closed: false,
        }
    }

    fn count(&self, phase: impl Fn(Phase) -> bool) -> usize {
        self.workers.values().filter(|it| phase(**it)).count()
    }

    fn starting(&self) -> usize {
        self.count(|it| matches!(it, Phase::Starting(_)))
    }

    /// Whether nothing may start but what is wished for.
    fn is_open(&self) -> bool {
        self.failures.is_some_and(|it| self.now < it.retry_at())
    }

    /// How many workers may be starting for callers and for the floor.
    fn starting_max(&self) -> usize {
        match self.failures {
            None => usize::MAX,
            Some(_) if self.is_open() => 0,
            Some(_) => 1,
        }
    }

    fn busy(&self) -> usize {
        self.count(|it| matches!(it, Phase::Busy(_)))
    }

    fn alive(&self) -> usize {
        self.count(|it| it != Phase::Stopping)
    }

    fn idle(&self) -> Vec<(Instant, WorkerId)> {
        let since = |(id, phase): (&WorkerId, &Phase)| match phase {
            Phase::Idle(since) => Some((*since, *id)),
            _ => None,
        };
        let mut idle: Vec<_> = self.workers.iter().filter_map(since).collect();
        idle.sort();
        idle
    }

    fn workers_max(&self) -> usize {
        if self.closed { 0 } else { self.limits.workers_max.max(1) }
    }

    fn floor(&self) -> usize {
        self.limits.workers_min.min(self.workers_max())
    }

    fn waiting_max(&self) -> usize {
        self.limits.queue_max + self.workers_max().saturating_sub(self.busy())
    }

    fn end(&mut self, invocation: InvocationId) {
        assert!(self.ended.insert(invocation), "{invocation:?} ended twice");
    }

    fn event(&mut self, step: Step) -> Option<Event> {
        let nth = |n: usize, belongs: fn(Phase) -> bool| {
            let ids: Vec<_> = self.workers.iter().filter(|(_, phase)| belongs(**phase)).map(|(id, _)| *id).collect();
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
                let belongs: fn(Phase) -> bool = match report {
                    Report::Ready | Report::StartFailed => |it| matches!(it, Phase::Starting(_)),
                    Report::Release | Report::Kill => |it| matches!(it, Phase::Busy(_)),
                    Report::Crash => |it| it != Phase::Stopping,
                    Report::Stopped => |it| it == Phase::Stopping,
                };
                report.event(nth(n, belongs)?)
            }
            Step::Late(report, n) => report.event(WorkerId(n % (self.started + 2))),
            Step::Warm(count) => Event::Warm(count),
            Step::SetLimits(limits) => Event::SetLimits(limits),
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

    fn step(&mut self, step: Step) {
        if let Some(event) = self.event(step) {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        let actions = self.pool.handle(event, self.now);
        let failed_start = self.record(event);
        let mut starts = 0;
        for action in &actions {
            match *action {
                Action::Start(id) => {
                    starts += 1;
                    self.started += 1;
                    assert_eq!(self.workers.insert(id, Phase::Starting(self.now)), None, "{id:?} is in use");
                }
                Action::Dispatch { worker, invocation } => {
                    assert_eq!(self.idle().last().map(|it| it.1), Some(worker), "not the latest idle worker");
                    assert_eq!(self.waiting.pop_front(), Some(invocation), "not the first caller");
                    assert!(self.alive() <= self.workers_max(), "a worker beyond the limit gets work");
                    self.workers.insert(worker, Phase::Busy(invocation));
                }
                Action::Stop(id) => self.check_stop(event, id),
                Action::Fail { invocation, reason } => self.check_fail(event, invocation, reason),
            }
        }
        self.check_starts(event, failed_start, starts);
        self.check_state(event);
    }

    /// What an event means by itself. Returns whether it is a failed start.
    fn record(&mut self, event: Event) -> bool {
        match event {
            Event::Invoke(invocation) => self.waiting.push_back(invocation),
            Event::Cancel(invocation) => {
                if let Some(at) = self.waiting.iter().position(|it| *it == invocation) {
                    self.waiting.remove(at);
                    self.end(invocation);
                }
            }
            Event::Ready(id) => {
                if let Some(Phase::Starting(_)) = self.workers.get(&id) {
                    self.workers.insert(id, Phase::Idle(self.now));
                    self.failures = None;
                }
            }
            Event::Release(id) => {
                if let Some(Phase::Busy(invocation)) = self.workers.get(&id).copied() {
                    self.workers.insert(id, Phase::Idle(self.now));
                    self.end(invocation);
                }
            }
            Event::StartFailed(id) => match self.workers.get(&id).copied() {
                Some(Phase::Starting(began)) => return self.record_failure(id, began),
                Some(Phase::Stopping) => drop(self.workers.remove(&id)),
                _ => {}
            },
            Event::Exited(id) => match self.workers.get(&id).copied() {
                Some(Phase::Starting(began)) => return self.record_failure(id, began),
                Some(Phase::Busy(invocation)) => {
                    self.workers.remove(&id);
                    self.end(invocation);
                }
                _ => drop(self.workers.remove(&id)),
            },
            Event::SetLimits(limits) => self.limits = limits,
            Event::Close => self.closed = true,
            Event::Kill(_) | Event::Warm(_) | Event::Tick => {}
        }
        false
    }

    fn record_failure(&mut self, id: WorkerId, began: Instant) -> bool {
        self.workers.remove(&id);
        let in_a_row = self.failures.map_or(1, |it| if began > it.latest { it.in_a_row + 1 } else { it.in_a_row });
        self.failures = Some(Failures { in_a_row, latest: self.now });
        true
    }

    fn check_stop(&mut self, event: Event, id: WorkerId) {
        let too_many = self.alive() > self.workers_max();
        let phase = self.workers.insert(id, Phase::Stopping).expect("only a worker that exists is stopped");
        match phase {
            Phase::Busy(invocation) => {
                assert_eq!(event, Event::Kill(id), "stopped while busy");
                self.end(invocation);
            }
            Phase::Starting(_) => {
                let newer = self.workers.range(id..).any(|(_, phase)| matches!(phase, Phase::Starting(_)));
                assert!(too_many && !newer, "{id:?} stopped while starting");
            }
            Phase::Idle(since) => {
                let expired = event == Event::Tick
                    && self.now - since >= self.limits.idle_timeout
                    && self.alive() >= self.floor();
                assert!(expired || (too_many && self.starting() == 0), "{id:?} stopped while idle");
                assert!(self.idle().first().is_none_or(|it| *it > (since, id)), "{id:?} is not the oldest");
            }
            Phase::Stopping => panic!("{id:?} stopped twice"),
        }
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
        self.end(invocation);
    }

    /// How many workers the event wants alive, whoever waits and whatever failed.
    fn wished(&self, event: Event) -> usize {
        match event {
            Event::Warm(count) => count.min(self.workers_max()),
            Event::SetLimits(_) => self.floor(),
            _ => 0,
        }
    }

    fn check_starts(&self, event: Event, failed_start: bool, starts: usize) {
        let full = self.workers.len() >= self.workers_max();
        let callers = self.waiting.len().min(self.starting_max());
        let floor = if event == Event::Tick { self.floor() } else { 0 };
        if starts > 0 {
            assert!(!failed_start, "a failed start starts another");
            assert!(self.workers.len() <= self.workers_max(), "started beyond the limit");
            let for_wish = self.alive() <= self.wished(event);
            let for_floor = self.alive() <= floor && self.starting() <= self.starting_max();
            assert!(self.starting() <= callers || for_wish || for_floor, "started for nobody, or before its time");
        }
        assert!(full || self.starting() >= callers, "a caller waits for no start");
        assert!(full || self.alive() >= self.wished(event), "below what was asked for");
        let held_up = self.starting() >= self.starting_max();
        assert!(full || self.alive() >= floor || held_up, "below the floor");
    }

    fn check_state(&self, event: Event) {
        let model = Counts {
            starting: self.starting(),
            idle: self.idle().len(),
            busy: self.busy(),
            stopping: self.count(|it| it == Phase::Stopping),
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
        if model.starting + model.idle > 0 {
            assert!(self.alive() <= self.workers_max(), "I2");
        }
        assert!(model.queued == 0 || model.idle == 0, "I3");
        assert!(model.queued == 0 || !self.workers.is_empty(), "I4");
        assert!(model.queued == 0 || self.alive() > 0 || !self.is_open(), "I8");
        assert!(!self.closed || model.queued + model.starting + model.idle == 0, "I5");
        if let Event::Invoke(invocation) = event {
            let waits = self.waiting.back() == Some(&invocation);
            assert!(!waits || self.waiting.len() <= self.waiting_max(), "admitted beyond the bound");
        }
        if event == Event::Tick && self.alive() > self.floor() {
            let expired = |(since, _): &(Instant, WorkerId)| self.now - *since >= self.limits.idle_timeout;
            assert!(!self.idle().iter().any(expired), "an expired worker stays");
        }
    }

    /// Every worker does what it should: whatever starts is ready, whatever is busy is released, whatever stops exits.
    fn behave(&mut self) {
        for _ in 0..1000 {
            let due = self.workers.iter().find_map(|(id, phase)| match phase {
                Phase::Starting(_) => Some(Event::Ready(*id)),
                Phase::Busy(_) => Some(Event::Release(*id)),
                Phase::Stopping => Some(Event::Exited(*id)),
                Phase::Idle(_) => None,
            });
            let Some(event) = due else { return };
            self.handle(event);
        }
        panic!("the workers never come to rest");
    }

    /// I6, I7 and I9.
    fn check_liveness(&mut self) {
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
        self.handle(Event::Close);
        self.behave();
        assert!(self.pool.is_empty());
    }
}

impl Report {
    fn event(self, id: WorkerId) -> Event {
        match self {
            Report::Ready => Event::Ready(id),
            Report::StartFailed => Event::StartFailed(id),
            Report::Release => Event::Release(id),
            Report::Kill => Event::Kill(id),
            Report::Crash | Report::Stopped => Event::Exited(id),
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..6usize, 0..4usize, 0..5usize, 0..8u64).prop_map(|(workers_max, queue_max, workers_min, seconds)| Limits {
        workers_max,
        queue_max,
        workers_min,
        idle_timeout: Duration::from_secs(seconds),
    })
}

fn report() -> impl Strategy<Value = Report> {
    prop_oneof![
        8 => Just(Report::Ready),
        2 => Just(Report::StartFailed),
        6 => Just(Report::Release),
        1 => Just(Report::Kill),
        1 => Just(Report::Crash),
        4 => Just(Report::Stopped),
    ]
}

/// Waits on both sides of the first back-offs and of the idle timeouts, and longer than all of them.
fn milliseconds() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..5u64, 4 => (0..9u64).prop_map(|n| n * 50), 4 => (0..5u64).prop_map(|n| n * 1000), 1 => Just(16_000)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => Just(Step::Invoke),
        4 => any::<usize>().prop_map(Step::Cancel),
        40 => (report(), any::<usize>()).prop_map(|(report, n)| Step::Worker(report, n)),
        4 => (report(), any::<u64>()).prop_map(|(report, n)| Step::Late(report, n)),
        2 => any::<u128>().prop_map(Step::LateCancel),
        2 => (0..8usize).prop_map(Step::Warm),
        2 => limits().prop_map(Step::SetLimits),
        4 => milliseconds().prop_map(Step::Wait),
        8 => milliseconds().prop_map(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_and_every_invocation_ends_once(
        limits in limits(),
        open in prop::collection::vec(step(), 0..120),
        closed in prop::option::of(prop::collection::vec(step(), 0..40)),
    ) {
        let mut world = World::new(limits);
        open.into_iter().for_each(|step| world.step(step));
        if let Some(steps) = closed {
            world.step(Step::Close);
            steps.into_iter().for_each(|step| world.step(step));
        }
        world.check_liveness();
    }

    /// A pool whose starts all fail at once comes to rest after every event.
    #[test]
    fn failing_starts_never_spin(limits in limits(), steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new(limits);
        for step in steps {
            world.step(step);
            for _ in 0..=world.limits.workers_max.max(1) {
                world.step(Step::Worker(Report::StartFailed, 0));
            }
            prop_assert_eq!(world.starting(), 0, "a start follows a start");
        }
    }
}
