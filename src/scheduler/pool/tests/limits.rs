//! Limits that change, and the end of the pool.

use super::*;

#[test]
fn a_lowered_limit_stops_starting_then_idle_workers_and_then_retires_busy_ones() {
    let mut bench = Bench::warm(Limits { workers_max: 6, executions_max: 6, ..LIMITS }, 4);
    bench.invoke(1);
    bench.invoke(2);
    bench.on(Event::Warm(6));
    assert_eq!(bench.counts(), [2, 2, 2, 0, 0]);
    let lower = |max| Event::SetLimits(Limits { workers_max: max, executions_max: max, ..LIMITS });
    assert_eq!(bench.on(lower(5)), [stop(6)]);
    assert_eq!(bench.on(lower(3)), [stop(5), stop(1)]);
    assert_eq!(bench.on(lower(1)), [stop(2)]);
    assert_eq!((bench.counts(), bench.retiring()), ([0, 0, 1, 4, 0], 1), "the newest of the busy ones retires");
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
    assert_eq!(
        bench.on(Event::SetLimits(Limits { workers_max: 1, executions_max: 1, queue_max: 0, ..LIMITS })),
        [stop(3)]
    );
    assert_eq!(bench.invoke(6), [fail(6, Failure::QueueFull)]);
    assert_eq!(bench.release(2), [stop(2)], "worker 2 was retired");
    assert_eq!(bench.release(1), [dispatch(1, 3)]);
}

#[test]
fn a_raised_limit_starts_workers_for_those_who_wait() {
    let mut bench = Bench::new(Limits { workers_max: 1, executions_max: 1, queue_max: 5, ..LIMITS });
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
    let mut bench = Bench::new(Limits { workers_max: 0, executions_max: 0, queue_max: usize::MAX, ..LIMITS });
    assert_eq!(bench.invoke(1), [start(1)]);
    assert_eq!(bench.invoke(2), []);
}

#[test]
fn close_fails_callers_and_stops_all_but_the_busy_workers() {
    let mut bench = Bench::new(Limits { workers_max: 2, executions_max: 2, ..LIMITS });
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
    let raise = Limits { workers_max: 9, executions_max: 9, workers_min: 9, ..LIMITS };
    for event in [Event::Warm(3), Event::SetLimits(raise), Event::Tick, Event::Exited(WorkerId(1)), Event::Close] {
        assert_eq!(bench.on(event), [], "{event:?}");
    }
    assert!(bench.pool.is_empty());
}
