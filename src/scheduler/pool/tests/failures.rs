//! Failed starts and the breaker.

use super::*;

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
    assert_eq!(bench.on(Event::SetLimits(Limits { workers_max: 1, executions_max: 1, ..LIMITS })), [stop(3), stop(2)]);
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

#[test]
fn a_caller_fails_at_once_while_the_breaker_is_open_and_nobody_is_alive() {
    let mut bench = Bench::new(LIMITS);
    bench.invoke(1);
    bench.start_failed(1);
    bench.wait_ms(99);
    assert_eq!(bench.invoke(2), [fail(2, Failure::StartFailed)]);
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.health(), unhealthy(1, 1));
    bench.wait_ms(1);
    assert_eq!(bench.invoke(3), [start(2)], "a probe");
    assert_eq!(bench.invoke(4), [], "one at a time, and new callers wait for it");
    assert_eq!(bench.health(), unhealthy(1, 0));
    assert_eq!(bench.start_failed(2), [fail(3, Failure::StartFailed), fail(4, Failure::StartFailed)]);
    assert_eq!(bench.health(), unhealthy(2, 200));
}

#[test]
fn while_the_breaker_is_open_callers_wait_for_who_is_alive_and_nothing_starts() {
    let mut bench = Bench::warm(Limits { workers_max: 5, executions_max: 5, queue_max: 9, ..LIMITS }, 1);
    bench.invoke(1);
    bench.invoke(2);
    bench.start_failed(2);
    for invocation in 3..=5 {
        assert_eq!(bench.invoke(invocation), []);
    }
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.cancel(5), []);
    assert_eq!(bench.release(1), [dispatch(1, 2)]);
    assert_eq!(bench.counts(), [0, 0, 1, 0, 2]);
    bench.wait_ms(100);
    assert_eq!(bench.invoke(6), [start(3)], "a probe");
    assert_eq!(bench.invoke(7), [], "one at a time");
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.ready(3), [dispatch(3, 3), start(4), start(5), start(6)], "after a success all may start");
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
    assert_eq!(bench.tick(), []);
    bench.wait_ms(1);
    assert_eq!(bench.tick(), [start(4)]);
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
    assert_eq!(bench.invoke(1), [], "the caller waits for the probe");
    bench.wait_ms(100);
    assert_eq!(bench.invoke(2), []);
    assert_eq!(bench.tick(), []);
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
    let mut bench = Bench::new(Limits { workers_max: 10, executions_max: 10, queue_max: 9, ..LIMITS });
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

/// Feeds the event to a version whose starts fail at once. Returns the number of starts.
fn starts_that_fail(bench: &mut Bench, event: Event) -> usize {
    let (mut starts, mut events) = (0, vec![event]);
    while let Some(event) = events.pop() {
        for action in bench.on(event) {
            if let Action::Start(id) = action {
                starts += 1;
                events.push(Event::StartFailed(id));
            }
        }
        assert!(starts < 100, "a failed start leads to another");
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
    // Starts within the 100 s: at 0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7 and 25.5 s, and then every 15 s.
    assert_eq!(starts, 9 + 4);

    let mut bench = Bench::new(LIMITS);
    let starts: usize = (1..=1000).map(|call| starts_that_fail(&mut bench, Event::Invoke(inv(call)))).sum();
    assert_eq!(starts, 1, "all at the same time");
}
