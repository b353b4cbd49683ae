//! Choice, queue and admission.

use super::*;

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
    let mut bench = Bench::new(Limits { workers_max: 1, executions_max: 1, ..LIMITS });
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
    let mut bench = Bench::new(Limits { workers_max: 1, executions_max: 1, queue_max: 0, ..LIMITS });
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

#[test]
fn the_queue_is_bounded_beyond_the_slots_that_are_not_busy() {
    let mut bench = Bench::new(Limits { workers_max: 2, executions_max: 2, queue_max: 2, ..LIMITS });
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
    let mut bench = Bench::new(Limits { workers_max: 1, executions_max: 1, queue_max: 0, ..LIMITS });
    assert_eq!(bench.invoke(1), [start(1)]);
    assert_eq!(bench.invoke(2), [fail(2, Failure::QueueFull)]);
    assert_eq!(bench.ready(1), [dispatch(1, 1)]);
    assert_eq!(bench.invoke(3), [fail(3, Failure::QueueFull)]);
    bench.release(1);
    assert_eq!(bench.invoke(4), [dispatch(1, 4)]);
}

#[test]
fn without_a_queue_a_call_may_wait_for_a_slot_that_is_being_freed() {
    let mut bench = Bench::warm(Limits { workers_max: 1, executions_max: 1, queue_max: 0, ..LIMITS }, 1);
    bench.wait(10);
    assert_eq!(bench.tick(), [stop(1)]);
    assert_eq!(bench.invoke(1), []);
    assert_eq!(bench.exited(1), [start(2)]);
}
