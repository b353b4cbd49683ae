//! Random events against a model that knows which actions are allowed, but not how the pool chooses them.

use super::*;
use proptest::prelude::*;
use world::World;

mod world;

#[derive(Debug, Clone)]
enum Step {
    Invoke,
    /// The nth waiting caller leaves.
    Cancel(usize),
    /// The nth worker in a state where this report is valid sends it.
    Worker(Report, usize),
    /// Any worker, past, present or future, sends the report, whatever its state.
    Late(Report, u64),
    /// A caller that is not waiting leaves.
    LateCancel(u128),
    Warm(usize),
    SetLimits(Limits),
    Evict,
    Yield(usize),
    Close,
    /// Milliseconds pass without a tick.
    Wait(u64),
    /// Milliseconds pass, followed by a tick.
    Tick(u64),
}

#[derive(Debug, Clone, Copy)]
enum Report {
    Granted,
    Ready,
    StartFailed,
    Release,
    Abandon,
    Kill,
    Retire,
    Worn,
    Crash,
    Stopped,
}

impl Report {
    fn event(self, id: WorkerId) -> Event {
        match self {
            Report::Granted => Event::Granted(id),
            Report::Ready => Event::Ready(id),
            Report::StartFailed => Event::StartFailed(id),
            Report::Release => Event::Release(id),
            Report::Abandon => Event::Abandon(id),
            Report::Kill => Event::Kill(id),
            Report::Retire => Event::Retire(id),
            Report::Worn => Event::Worn(id),
            Report::Crash | Report::Stopped => Event::Exited(id),
        }
    }
}

/// Small limits, which apply exactly, and larger ones, which may apply up to a tenth earlier.
fn wear() -> impl Strategy<Value = (u64, Duration)> {
    let requests = prop_oneof![4 => Just(0), 2 => 1..4u64, 1 => 20..40u64];
    let age = prop_oneof![4 => Just(0), 1 => 1..9u64, 2 => (1..9u64).prop_map(|n| n * 1000)];
    (requests, age.prop_map(Duration::from_millis))
}

fn limits() -> impl Strategy<Value = Limits> {
    let sizes = (0..6usize, prop_oneof![2 => 0..2usize, 1 => 2..4usize], prop::option::of(0..10usize));
    let rest = (0..4usize, 0..5usize, 0..8u64, wear());
    (sizes, rest).prop_map(|((workers_max, concurrency, executions), (queue_max, workers_min, seconds, wear))| Limits {
        workers_max,
        concurrency,
        executions_max: executions.unwrap_or(workers_max * concurrency),
        queue_max,
        workers_min,
        idle_timeout: Duration::from_secs(seconds),
        requests_max: wear.0,
        age_max: wear.1,
    })
}

fn report() -> impl Strategy<Value = Report> {
    prop_oneof![
        8 => Just(Report::Granted),
        8 => Just(Report::Ready),
        2 => Just(Report::StartFailed),
        6 => Just(Report::Release),
        1 => Just(Report::Abandon),
        1 => Just(Report::Kill),
        1 => Just(Report::Retire),
        1 => Just(Report::Worn),
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
        50 => (report(), any::<usize>()).prop_map(|(report, n)| Step::Worker(report, n)),
        4 => (report(), any::<u64>()).prop_map(|(report, n)| Step::Late(report, n)),
        2 => any::<u128>().prop_map(Step::LateCancel),
        2 => (0..8usize).prop_map(Step::Warm),
        2 => limits().prop_map(Step::SetLimits),
        2 => Just(Step::Evict),
        2 => (0..4usize).prop_map(Step::Yield),
        4 => milliseconds().prop_map(Step::Wait),
        8 => milliseconds().prop_map(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_and_every_invocation_ends_once(
        limits in limits(),
        open in prop::collection::vec(step(), 0..160),
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

    /// If the node has a place for every request and every start fails at once, a pool comes to rest after every event.
    #[test]
    fn failing_starts_never_spin(limits in limits(), steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new(limits);
        for step in steps {
            world.step(step);
            for _ in 0..=world.workers_max_ever() {
                world.grant_all();
                world.step(Step::Worker(Report::StartFailed, 0));
            }
            world.grant_all();
            prop_assert_eq!(world.starting(), 0, "a failed start leads to another");
        }
    }

    /// A granted place leads to a start or back to the node, not to another request at once.
    #[test]
    fn places_given_at_once_never_spin(limits in limits(), steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new(limits);
        for step in steps {
            world.step(step);
            world.grant_all();
        }
        world.check_liveness();
    }
}
