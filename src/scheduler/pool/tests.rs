//! One test per rule of the pool. The random ones are in `properties`.

use std::time::Duration;

use super::*;

mod properties;

const LIMITS: Limits = Limits { workers_max: 3, queue_max: 2, workers_min: 0, idle_timeout: Duration::from_secs(10) };

fn inv(number: u128) -> InvocationId {
    InvocationId::from_bytes(number.to_be_bytes())
}

fn dispatch(worker: u64, invocation: u128) -> Action {
    Action::Dispatch { worker: WorkerId(worker), invocation: inv(invocation) }
}

fn start(worker: u64) -> Action {
    Action::Start(WorkerId(worker))
}

fn stop(worker: u64) -> Action {
    Action::Stop(WorkerId(worker))
}

fn unhealthy(failures: u32, retry_in_ms: u64) -> Health {
    Health::Unhealthy { failures, retry_in: Duration::from_millis(retry_in_ms) }
}

fn fail(invocation: u128, reason: Failure) -> Action {
    Action::Fail { invocation: inv(invocation), reason }
}

/// A pool and its clock.
struct Bench {
    pool: Pool,
    now: Instant,
}

impl Bench {
    fn new(limits: Limits) -> Bench {
        Bench { pool: Pool::new(limits), now: Instant::now() }
    }

    /// A pool with this many idle workers: 1 is the one used least recently.
    fn warm(limits: Limits, workers: u64) -> Bench {
        let mut bench = Bench::new(limits);
        bench.on(Event::Warm(workers as usize));
        for worker in 1..=workers {
            bench.wait(1);
            bench.ready(worker);
        }
        bench
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn wait_ms(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.pool.handle(event, self.now)
    }

    fn invoke(&mut self, invocation: u128) -> Vec<Action> {
        self.on(Event::Invoke(inv(invocation)))
    }

    fn cancel(&mut self, invocation: u128) -> Vec<Action> {
        self.on(Event::Cancel(inv(invocation)))
    }

    fn ready(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Ready(WorkerId(worker)))
    }

    fn start_failed(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::StartFailed(WorkerId(worker)))
    }

    fn release(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Release(WorkerId(worker)))
    }

    fn kill(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Kill(WorkerId(worker)))
    }

    fn exited(&mut self, worker: u64) -> Vec<Action> {
        self.on(Event::Exited(WorkerId(worker)))
    }

    fn health(&self) -> Health {
        self.pool.health(self.now)
    }

    /// `[starting, idle, busy, stopping, queued]`
    fn counts(&self) -> [usize; 5] {
        let counts = self.pool.counts();
        [counts.starting, counts.idle, counts.busy, counts.stopping, counts.queued]
    }
}

// Choice and queue

#[test]
fn a_call_goes_through_start_dispatch_and_release() {
    let mut bench = Bench::new(LIMITS);
    assert_eq!(bench.invoke(1), [start(1)]);
    assert_eq!(bench.counts(), [1, 0, 0, 0, 1]);
    assert_eq!(bench.ready(1), [dispatch(1, 1)]);
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
    assert_eq!(bench.release(1), []);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    assert_eq!(bench.invoke(2), [dispatch(1, 2)]);
}

#[test]
fn the_most_recently_used_worker_takes_the_call() {
    let mut bench = Bench::warm(LIMITS, 3);
    assert_eq!(bench.invoke(1), [dispatch(3, 1)]);
    assert_eq!(bench.invoke(2), [dispatch(2, 2)]);
    bench.wait(1);
    bench.release(3);
    bench.wait(1);
    bench.release(2);
    assert_eq!(bench.invoke(3), [dispatch(2, 3)]);
}

#[test]
fn workers_used_at_the_same_time_are_chosen_by_id() {
    let mut bench = Bench::new(LIMITS);
    bench.on(Event::Warm(3));
    for worker in [2, 3, 1] {
        bench.ready(worker);
    }
    assert_eq!(bench.invoke(1), [dispatch(3, 1)]);
}

#[test]
fn callers_are_served_in_the_order_they_came() {
    let mut bench = Bench::new(Limits { workers_max: 1, ..LIMITS });
    bench.invoke(1);
    bench.invoke(2);
    bench.invoke(3);
    assert_eq!(bench.ready(1), [dispatch(1, 1)]);
    assert_eq!(bench.release(1), [dispatch(1, 2)]);
    assert_eq!(bench.release(1), [dispatch(1, 3)]);
}

#[test]
fn one_worker_starts_for_each_waiting_caller_up_to_the_limit() {
    let mut bench = Bench::new(LIMITS);
    assert_eq!(bench.invoke(1), [start(1)]);
    assert_eq!(bench.invoke(2), [start(2)]);
    assert_eq!(bench.invoke(3), [start(3)]);
    assert_eq!(bench.invoke(4), []);
    assert_eq!(bench.counts(), [3, 0, 0, 0, 4]);
}

#[test]
fn a_start_under_way_serves_the_next_caller_when_the_first_one_leaves() {
    let mut bench = Bench::new(LIMITS);
    bench.invoke(1);
    assert_eq!(bench.cancel(1), []);
    assert_eq!(bench.invoke(2), []);
    assert_eq!(bench.ready(1), [dispatch(1, 2)]);
}

#[test]
fn a_cancelled_caller_is_neither_served_nor_counted() {
    let mut bench = Bench::new(Limits { workers_max: 1, queue_max: 0, ..LIMITS });
    bench.invoke(1);
    assert_eq!(bench.invoke(2), [fail(2, Failure::QueueFull)]);
    bench.cancel(1);
    assert_eq!(bench.invoke(3), []);
    assert_eq!(bench.ready(1), [dispatch(1, 3)]);
}

#[test]
fn cancelling_a_dispatched_or_unknown_invocation_changes_nothing() {
    let mut bench = Bench::warm(LIMITS, 1);
    bench.invoke(1);
    assert_eq!(bench.cancel(1), []);
    assert_eq!(bench.cancel(9), []);
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
}

// Admission

#[test]
fn the_queue_is_bounded_beyond_the_slots_that_are_not_busy() {
    let mut bench = Bench::new(Limits { workers_max: 2, queue_max: 2, ..LIMITS });
    for invocation in 1..=4 {
        assert!(!bench.invoke(invocation).contains(&fail(invocation, Failure::QueueFull)));
    }
    assert_eq!(bench.invoke(5), [fail(5, Failure::QueueFull)]);
    bench.ready(1);
    bench.ready(2);
    assert_eq!(bench.counts(), [0, 0, 2, 0, 2]);
    assert_eq!(bench.invoke(6), [fail(6, Failure::QueueFull)]);
    bench.release(1);
    assert_eq!(bench.invoke(7), []);
}

#[test]
fn without_a_queue_a_call_may_wait_for_its_own_start_only() {
    let mut bench = Bench::new(Limits { workers_max: 1, queue_max: 0, ..LIMITS });
    assert_eq!(bench.invoke(1), [start(1)]);
    assert_eq!(bench.invoke(2), [fail(2, Failure::QueueFull)]);
    assert_eq!(bench.ready(1), [dispatch(1, 1)]);
    assert_eq!(bench.invoke(3), [fail(3, Failure::QueueFull)]);
    bench.release(1);
    assert_eq!(bench.invoke(4), [dispatch(1, 4)]);
}

#[test]
fn without_a_queue_a_call_may_wait_for_a_slot_that_is_being_freed() {
    let mut bench = Bench::warm(Limits { workers_max: 1, queue_max: 0, ..LIMITS }, 1);
    bench.wait(10);
    assert_eq!(bench.on(Event::Tick), [stop(1)]);
    assert_eq!(bench.invoke(1), []);
    assert_eq!(bench.exited(1), [start(2)]);
}

// Failed starts

#[test]
fn callers_fail_when_the_last_start_fails() {
    let mut bench = Bench::new(LIMITS);
    bench.invoke(1);
    bench.invoke(2);
    assert_eq!(bench.start_failed(2), []);
    assert_eq!(bench.counts(), [1, 0, 0, 0, 2]);
    assert_eq!(bench.start_failed(1), [fail(1, Failure::StartFailed), fail(2, Failure::StartFailed)]);
    assert!(bench.pool.is_empty());
}

#[test]
fn a_process_that_exits_before_it_is_ready_is_a_failed_start() {
    let mut bench = Bench::new(LIMITS);
    bench.invoke(1);
    assert_eq!(bench.exited(1), [fail(1, Failure::StartFailed)]);
    assert_eq!(bench.health(), unhealthy(1, 100));
}

#[test]
fn a_start_told_to_stop_is_not_a_failed_one() {
    let mut bench = Bench::new(LIMITS);
    bench.on(Event::Warm(3));
    assert_eq!(bench.on(Event::SetLimits(Limits { workers_max: 1, ..LIMITS })), [stop(3), stop(2)]);
    bench.start_failed(3);
    bench.exited(2);
    assert_eq!(bench.health(), Health::Healthy);
}

#[test]
fn a_failed_start_leaves_callers_waiting_for_a_busy_worker() {
    let mut bench = Bench::warm(LIMITS, 1);
    bench.invoke(1);
    assert_eq!(bench.invoke(2), [start(2)]);
    assert_eq!(bench.start_failed(2), []);
    assert_eq!(bench.release(1), [dispatch(1, 2)]);
}

#[test]
fn a_worker_that_stops_does_not_keep_callers_waiting_after_a_failed_start() {
    let mut bench = Bench::warm(LIMITS, 1);
    bench.invoke(1);
    bench.invoke(2);
    bench.kill(1);
    assert_eq!(bench.start_failed(2), [fail(2, Failure::StartFailed)]);
}

// Breaker

#[test]
fn a_caller_fails_at_once_while_the_breaker_is_open_and_nobody_is_alive() {
    let mut bench = Bench::new(LIMITS);
    bench.invoke(1);
    bench.start_failed(1);
    bench.wait_ms(99);
    assert_eq!(bench.invoke(2), [fail(2, Failure::StartFailed)]);
    assert_eq!(bench.on(Event::Tick), []);
    assert_eq!(bench.health(), unhealthy(1, 1));
    bench.wait_ms(1);
    assert_eq!(bench.invoke(3), [start(2)], "a probe");
    assert_eq!(bench.invoke(4), [], "one at a time, and whoever comes waits for it");
    assert_eq!(bench.health(), unhealthy(1, 0));
    assert_eq!(bench.start_failed(2), [fail(3, Failure::StartFailed), fail(4, Failure::StartFailed)]);
    assert_eq!(bench.health(), unhealthy(2, 200));
}

#[test]
fn while_the_breaker_is_open_callers_wait_for_who_is_alive_and_nothing_starts() {
    let mut bench = Bench::warm(Limits { workers_max: 5, queue_max: 9, ..LIMITS }, 1);
    bench.invoke(1);
    bench.invoke(2);
    bench.start_failed(2);
    for invocation in 3..=5 {
        assert_eq!(bench.invoke(invocation), []);
    }
    assert_eq!(bench.on(Event::Tick), []);
    assert_eq!(bench.cancel(5), []);
    assert_eq!(bench.release(1), [dispatch(1, 2)]);
    assert_eq!(bench.counts(), [0, 0, 1, 0, 2]);
    bench.wait_ms(100);
    assert_eq!(bench.invoke(6), [start(3)], "a probe");
    assert_eq!(bench.invoke(7), [], "one at a time");
    assert_eq!(bench.on(Event::Tick), []);
    assert_eq!(bench.ready(3), [dispatch(3, 3), start(4), start(5), start(6)], "a success lets all start");
    assert_eq!(bench.health(), Health::Healthy);
}

#[test]
fn a_tick_probes_for_who_waits() {
    let mut bench = Bench::warm(Limits { queue_max: 9, ..LIMITS }, 1);
    for invocation in 1..=4 {
        bench.invoke(invocation);
    }
    bench.start_failed(2);
    bench.start_failed(3);
    bench.wait_ms(99);
    assert_eq!(bench.on(Event::Tick), []);
    bench.wait_ms(1);
    assert_eq!(bench.on(Event::Tick), [start(4)]);
}

#[test]
fn callers_fail_when_the_last_worker_goes_while_the_breaker_is_open() {
    for event in [Event::Exited(WorkerId(1)), Event::Kill(WorkerId(1))] {
        let mut bench = Bench::warm(LIMITS, 1);
        bench.invoke(1);
        bench.invoke(2);
        bench.start_failed(2);
        assert_eq!(bench.on(event).last(), Some(&fail(2, Failure::StartFailed)), "{event:?}");
        assert_eq!(bench.invoke(3), [fail(3, Failure::StartFailed)], "{event:?}");
    }
}

#[test]
fn after_the_back_off_a_probe_stands_in_for_the_last_worker() {
    let mut bench = Bench::warm(LIMITS, 1);
    bench.invoke(1);
    bench.invoke(2);
    bench.start_failed(2);
    bench.wait_ms(100);
    assert_eq!(bench.exited(1), [start(3)]);
    assert_eq!(bench.ready(3), [dispatch(3, 2)]);
}

#[test]
fn a_start_that_somebody_wished_for_is_the_probe() {
    let mut bench = Bench::new(Limits { workers_min: 2, ..LIMITS });
    bench.on(Event::Warm(1));
    bench.start_failed(1);
    assert_eq!(bench.on(Event::Warm(1)), [start(2)], "at once");
    assert_eq!(bench.invoke(1), [], "waits for it");
    bench.wait_ms(100);
    assert_eq!(bench.invoke(2), []);
    assert_eq!(bench.on(Event::Tick), []);
    assert_eq!(bench.ready(2), [dispatch(2, 1), start(3)]);
}

#[test]
fn a_success_while_the_breaker_is_open_closes_it() {
    let mut bench = Bench::new(LIMITS);
    for invocation in 1..=4 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.start_failed(3), []);
    assert_eq!(bench.ready(1), [dispatch(1, 1), start(4)]);
    assert_eq!(bench.health(), Health::Healthy);
}

#[test]
fn the_failures_of_starts_at_the_same_time_are_one() {
    let mut bench = Bench::new(Limits { workers_max: 10, queue_max: 9, ..LIMITS });
    for invocation in 1..=10 {
        bench.invoke(invocation);
    }
    for worker in 1..=10 {
        bench.wait_ms(30);
        bench.start_failed(worker);
    }
    assert_eq!(bench.health(), unhealthy(1, 100));
    assert!(bench.pool.is_empty());
}

/// Tells the event to a version whose starts fail at once. Returns how many there were.
fn starts_that_fail(bench: &mut Bench, event: Event) -> usize {
    let (mut starts, mut events) = (0, vec![event]);
    while let Some(event) = events.pop() {
        for action in bench.on(event) {
            if let Action::Start(id) = action {
                starts += 1;
                events.push(Event::StartFailed(id));
            }
        }
        assert!(starts < 100, "a failed start starts another");
    }
    starts
}

#[test]
fn a_version_that_crashes_at_import_is_started_as_often_as_its_back_off_allows() {
    let mut bench = Bench::new(Limits { workers_min: 2, ..LIMITS });
    let mut starts = 0;
    for call in 1..=1000 {
        starts += starts_that_fail(&mut bench, Event::Invoke(inv(call)));
        bench.wait_ms(100);
        starts += starts_that_fail(&mut bench, Event::Tick);
        assert_eq!(bench.counts(), [0; 5], "every call has failed at once");
    }
    // Within the 100 s: at 0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7 and 25.5 s, and then every 15 s.
    assert_eq!(starts, 9 + 4);

    let mut bench = Bench::new(LIMITS);
    let starts: usize = (1..=1000).map(|call| starts_that_fail(&mut bench, Event::Invoke(inv(call)))).sum();
    assert_eq!(starts, 1, "all at the same time");
}

// Workers that end

#[test]
fn a_killed_worker_keeps_its_slot_until_it_is_gone() {
    let mut bench = Bench::new(Limits { workers_max: 1, ..LIMITS });
    bench.invoke(1);
    bench.ready(1);
    bench.invoke(2);
    assert_eq!(bench.kill(1), [stop(1)]);
    assert_eq!(bench.counts(), [0, 0, 0, 1, 1]);
    assert_eq!(bench.exited(1), [start(2)]);
}

#[test]
fn a_crash_fails_nobody_and_frees_the_slot() {
    let mut bench = Bench::new(Limits { workers_max: 1, ..LIMITS });
    bench.invoke(1);
    bench.ready(1);
    bench.invoke(2);
    assert_eq!(bench.exited(1), [start(2)]);
    assert_eq!(bench.ready(2), [dispatch(2, 2)]);
}

#[test]
fn late_events_change_nothing() {
    let mut bench = Bench::warm(LIMITS, 2);
    bench.invoke(1);
    let before = bench.counts();
    assert_eq!(before, [0, 1, 1, 0, 0]);
    for event in [
        Event::Ready(WorkerId(1)),
        Event::Ready(WorkerId(2)),
        Event::Release(WorkerId(1)),
        Event::Kill(WorkerId(1)),
        Event::StartFailed(WorkerId(1)),
        Event::StartFailed(WorkerId(2)),
        Event::Ready(WorkerId(10)),
        Event::Release(WorkerId(10)),
        Event::Kill(WorkerId(10)),
        Event::StartFailed(WorkerId(10)),
        Event::Exited(WorkerId(10)),
    ] {
        assert_eq!(bench.on(event), [], "{event:?}");
        assert_eq!(bench.counts(), before, "{event:?}");
    }
    bench.kill(2);
    assert_eq!(bench.release(2), []);
    assert_eq!(bench.ready(2), []);
    assert_eq!(bench.counts(), [0, 1, 0, 1, 0]);
}

#[test]
fn a_start_told_to_stop_may_end_as_ready_failed_or_exited() {
    let mut bench = Bench::new(LIMITS);
    bench.on(Event::Warm(3));
    bench.on(Event::Close);
    assert_eq!(bench.ready(1), []);
    assert_eq!(bench.counts(), [0, 0, 0, 3, 0]);
    bench.exited(1);
    bench.exited(2);
    bench.start_failed(3);
    assert!(bench.pool.is_empty());
}

// Idle expiry and floor

#[test]
fn idle_workers_expire_oldest_first_down_to_the_floor() {
    let mut bench = Bench::warm(Limits { workers_min: 1, ..LIMITS }, 3);
    bench.wait(7);
    assert_eq!(bench.on(Event::Tick), [], "nine seconds at most");
    bench.wait(1);
    assert_eq!(bench.on(Event::Tick), [stop(1)]);
    bench.wait(60);
    assert_eq!(bench.on(Event::Tick), [stop(2)]);
    assert_eq!(bench.counts(), [0, 1, 0, 2, 0]);
}

#[test]
fn busy_and_starting_workers_count_for_the_floor() {
    let mut bench = Bench::warm(Limits { workers_min: 2, ..LIMITS }, 2);
    bench.invoke(1);
    bench.on(Event::Warm(3));
    bench.wait(60);
    assert_eq!(bench.counts(), [1, 1, 1, 0, 0]);
    assert_eq!(bench.on(Event::Tick), [stop(1)]);
    bench.wait(60);
    assert_eq!(bench.on(Event::Tick), [], "one busy, one starting");
}

#[test]
fn a_tick_refills_the_floor_within_the_limit() {
    let mut bench = Bench::new(Limits { workers_min: 9, ..LIMITS });
    assert_eq!(bench.on(Event::Tick), [start(1), start(2), start(3)]);
    for worker in 1..=3 {
        bench.ready(worker);
    }
    assert_eq!(bench.exited(2), [], "not at once: a worker that dies young would be restarted in a loop");
    assert_eq!(bench.on(Event::Tick), [start(4)]);
    assert_eq!(bench.on(Event::Tick), []);
}

#[test]
fn a_failed_start_holds_the_floor_up_for_its_back_off_only() {
    let mut bench = Bench::new(Limits { workers_min: 3, ..LIMITS });
    assert_eq!(bench.on(Event::Tick), [start(1), start(2), start(3)]);
    bench.ready(1);
    bench.start_failed(2);
    bench.start_failed(3);
    bench.wait_ms(99);
    assert_eq!(bench.on(Event::Tick), []);
    bench.wait_ms(1);
    assert_eq!(bench.on(Event::Tick), [start(4)], "a probe");
    assert_eq!(bench.on(Event::Tick), [], "one at a time");
    bench.ready(4);
    assert_eq!(bench.on(Event::Tick), [start(5)]);
    assert_eq!(bench.on(Event::Tick), []);
}

#[test]
fn warm_starts_what_is_missing_within_the_limit() {
    let mut bench = Bench::warm(LIMITS, 1);
    assert_eq!(bench.on(Event::Warm(2)), [start(2)]);
    assert_eq!(bench.on(Event::Warm(2)), []);
    assert_eq!(bench.on(Event::Warm(99)), [start(3)]);
}

#[test]
fn what_somebody_wishes_for_starts_whatever_the_breaker_says() {
    let mut bench = Bench::warm(LIMITS, 1);
    bench.on(Event::Warm(3));
    bench.start_failed(2);
    bench.start_failed(3);
    assert_eq!(bench.on(Event::Warm(3)), [start(4), start(5)]);
    bench.start_failed(4);
    bench.start_failed(5);
    assert_eq!(bench.on(Event::SetLimits(Limits { workers_min: 2, ..LIMITS })), [start(6)]);
}

#[test]
fn one_start_serves_a_waiting_caller_and_a_wish_for_warm_workers() {
    let mut bench = Bench::warm(LIMITS, 1);
    bench.invoke(1);
    bench.invoke(2);
    bench.start_failed(2);
    assert_eq!(bench.on(Event::Warm(2)), [start(3)]);
    bench.ready(3);
    assert_eq!(bench.invoke(3), [start(4)]);
}

// Limits

#[test]
fn a_lowered_limit_stops_starting_then_idle_then_released_workers() {
    let mut bench = Bench::warm(Limits { workers_max: 6, ..LIMITS }, 4);
    bench.invoke(1);
    bench.invoke(2);
    bench.on(Event::Warm(6));
    assert_eq!(bench.counts(), [2, 2, 2, 0, 0]);
    let lower = |workers_max| Event::SetLimits(Limits { workers_max, ..LIMITS });
    assert_eq!(bench.on(lower(5)), [stop(6)]);
    assert_eq!(bench.on(lower(3)), [stop(5), stop(1)]);
    assert_eq!(bench.on(lower(1)), [stop(2)]);
    assert_eq!(bench.counts(), [0, 0, 2, 4, 0]);
    assert_eq!(bench.release(4), [stop(4)]);
    assert_eq!(bench.release(3), []);
    assert_eq!(bench.counts(), [0, 1, 0, 5, 0]);
}

#[test]
fn callers_outlast_a_lowered_limit() {
    let mut bench = Bench::new(LIMITS);
    for invocation in 1..=5 {
        bench.invoke(invocation);
    }
    bench.ready(1);
    bench.ready(2);
    assert_eq!(bench.counts(), [1, 0, 2, 0, 3]);
    assert_eq!(bench.on(Event::SetLimits(Limits { workers_max: 1, queue_max: 0, ..LIMITS })), [stop(3)]);
    assert_eq!(bench.invoke(6), [fail(6, Failure::QueueFull)]);
    assert_eq!(bench.release(1), [stop(1)]);
    assert_eq!(bench.release(2), [dispatch(2, 3)]);
}

#[test]
fn a_raised_limit_starts_workers_for_those_who_wait() {
    let mut bench = Bench::new(Limits { workers_max: 1, queue_max: 5, ..LIMITS });
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.on(Event::SetLimits(LIMITS)), [start(2), start(3)]);
}

#[test]
fn a_raised_floor_starts_workers_at_once() {
    let mut bench = Bench::warm(LIMITS, 1);
    assert_eq!(bench.on(Event::SetLimits(Limits { workers_min: 2, ..LIMITS })), [start(2)]);
}

#[test]
fn a_limit_of_no_workers_is_one_worker() {
    let mut bench = Bench::new(Limits { workers_max: 0, queue_max: usize::MAX, ..LIMITS });
    assert_eq!(bench.invoke(1), [start(1)]);
    assert_eq!(bench.invoke(2), []);
}

// Close

#[test]
fn close_fails_callers_and_stops_all_but_the_busy_workers() {
    let mut bench = Bench::new(Limits { workers_max: 2, ..LIMITS });
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    bench.ready(1);
    assert_eq!(bench.on(Event::Close), [fail(2, Failure::Closed), fail(3, Failure::Closed), stop(2)]);
    assert!(bench.pool.is_closed());
    assert_eq!(bench.invoke(4), [fail(4, Failure::Closed)]);
    assert_eq!(bench.release(1), [stop(1)]);
    bench.exited(1);
    bench.exited(2);
    assert!(bench.pool.is_empty());
}

#[test]
fn a_closed_pool_starts_nothing() {
    let mut bench = Bench::warm(LIMITS, 1);
    assert_eq!(bench.on(Event::Close), [stop(1)]);
    let raise = Limits { workers_max: 9, workers_min: 9, ..LIMITS };
    for event in [Event::Warm(3), Event::SetLimits(raise), Event::Tick, Event::Exited(WorkerId(1)), Event::Close] {
        assert_eq!(bench.on(event), [], "{event:?}");
    }
    assert!(bench.pool.is_empty());
}
