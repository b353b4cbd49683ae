//! Workers that run several invocations at once.

use super::*;

/// Two workers with three slots each, five of which may be used.
const SHARED: Limits = Limits { workers_max: 2, concurrency: 3, executions_max: 5, ..LIMITS };

/// Makes a pool whose workers became ready at the same time.
fn shared(limits: Limits) -> Bench {
    Bench::warm(limits, limits.workers_max as u64)
}

#[test]
fn an_idle_worker_comes_before_a_busy_one_with_room() {
    let mut bench = shared(SHARED);
    assert_eq!(bench.invoke(1), [dispatch(2, 1)]);
    assert_eq!(bench.invoke(2), [dispatch(1, 2)]);
}

#[test]
fn of_the_busy_workers_the_one_with_the_most_room_takes_the_call() {
    let mut bench = shared(Limits { executions_max: 6, ..SHARED });
    bench.invoke(1);
    bench.invoke(2);
    assert_eq!(bench.invoke(3), [dispatch(1, 3)], "by id if the room is equal");
    assert_eq!(bench.invoke(4), [dispatch(2, 4)]);
    bench.release(2);
    assert_eq!(bench.invoke(5), [dispatch(2, 5)]);
    bench.invoke(6);
    assert_eq!(bench.invoke(7), [dispatch(2, 7)]);
    assert_eq!(bench.invoke(8), [], "both workers are full");
    assert_eq!(bench.release(1), [dispatch(1, 8)]);
}

#[test]
fn of_the_busy_workers_with_the_same_room_the_worn_one_is_the_last() {
    let mut bench = shared(SHARED);
    bench.invoke(1);
    bench.invoke(2);
    bench.is_rich = false;
    bench.worn(1);
    assert_eq!(bench.invoke(3), [dispatch(2, 3)]);
    assert_eq!(bench.invoke(4), [dispatch(1, 4)], "worker 1 has more room, and serves until another is ready");
}

#[test]
fn a_worker_starts_for_as_many_callers_as_it_has_room_for() {
    let mut bench = Bench::new(SHARED);
    assert_eq!(bench.invoke(1), [start(1)]);
    assert_eq!(bench.invoke(2), []);
    assert_eq!(bench.invoke(3), []);
    assert_eq!(bench.invoke(4), [start(2)]);
    assert_eq!(bench.ready(2), [dispatch(2, 1), dispatch(2, 2), dispatch(2, 3)]);
    assert_eq!(bench.ready(1), [dispatch(1, 4)]);
}

#[test]
fn a_plan_is_withdrawn_when_those_on_their_way_have_room_for_all() {
    let mut bench = Bench::poor(SHARED);
    for invocation in 1..=4 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.planned(), 2);
    assert_eq!(bench.cancel(2), [withdraw(2)]);
    assert_eq!(bench.cancel(1), []);
    assert_eq!(bench.cancel(3), []);
    assert_eq!(bench.cancel(4), [withdraw(1)]);
}

#[test]
fn no_more_run_than_may_though_a_worker_has_room() {
    let mut bench = shared(SHARED);
    for invocation in 1..=5 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.invoke(6), []);
    assert_eq!(bench.invoke(7), []);
    assert_eq!(bench.invoke(8), [fail(8, Failure::QueueFull)]);
    assert_eq!(bench.pool.counts().running, 5);
    assert_eq!(bench.release(2), [dispatch(2, 6)]);
    assert_eq!(bench.release(1), [dispatch(1, 7)]);
}

#[test]
fn as_many_may_wait_as_slots_are_free_and_the_queue_takes() {
    let mut bench = Bench::new(SHARED);
    for invocation in 1..=7 {
        assert!(!bench.invoke(invocation).contains(&fail(invocation, Failure::QueueFull)), "{invocation}");
    }
    assert_eq!(bench.invoke(8), [fail(8, Failure::QueueFull)]);
}

#[test]
fn a_worker_is_busy_until_its_last_invocation_ends() {
    let mut bench = Bench::warm(SHARED, 1);
    bench.invoke(1);
    bench.invoke(2);
    bench.release(1);
    assert_eq!((bench.counts(), bench.pool.counts().running), ([0, 0, 1, 0, 0], 1));
    bench.wait(60);
    assert_eq!(bench.tick(), []);
    bench.release(1);
    assert_eq!(bench.counts(), [0, 1, 0, 0, 0]);
    assert_eq!(bench.tick(), [], "it has just become idle");
}

#[test]
fn a_worker_with_an_abandoned_invocation_finishes_the_others_and_stops() {
    let mut bench = Bench::warm(SHARED, 1);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.abandon(1), []);
    assert_eq!((bench.counts(), bench.retiring()), ([0; 5], 1));
    assert_eq!(bench.invoke(4), [start(2)], "worker 1 takes no more");
    assert_eq!(bench.release(1), []);
    assert_eq!(bench.abandon(1), [stop(1)], "the last");
    assert_eq!(bench.release(1), []);
}

#[test]
fn a_killed_worker_stops_with_all_it_runs() {
    for retired in [false, true] {
        let mut bench = Bench::warm(SHARED, 1);
        bench.invoke(1);
        bench.invoke(2);
        if retired {
            bench.retire(1);
        }
        assert_eq!(bench.kill(1), [stop(1)]);
        assert_eq!(bench.release(1), []);
        assert_eq!((bench.counts(), bench.retiring()), ([0, 0, 0, 1, 0], 0));
    }
}

#[test]
fn a_retired_worker_finishes_what_it_runs_beside_who_takes_its_place() {
    let one = Limits { workers_max: 1, executions_max: 3, ..SHARED };
    let mut bench = Bench::warm(one, 1);
    for invocation in 1..=4 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.retire(1), [start(2)]);
    assert_eq!(bench.ready(2), [dispatch(2, 4)], "invocations in the old worker no longer count");
    assert_eq!(bench.invoke(5), [dispatch(2, 5)]);
    bench.release(1);
    bench.release(1);
    assert_eq!(bench.release(1), [stop(1)]);
}

#[test]
fn a_retired_worker_dies_like_any_other() {
    let mut bench = Bench::warm(SHARED, 1);
    bench.invoke(1);
    bench.retire(1);
    assert_eq!(bench.exited(1), []);
    assert!(bench.pool.is_empty());
    assert_eq!(bench.health(), Health::Healthy);
}

#[test]
fn retire_stops_an_idle_worker_and_leaves_who_is_not_ready() {
    let mut bench = Bench::warm(LIMITS, 1);
    assert_eq!(bench.retire(1), [stop(1)]);
    assert_eq!(bench.retire(1), []);
    bench.is_rich = false;
    bench.on(Event::Warm(2));
    bench.granted(2);
    assert_eq!(bench.retire(2), []);
    assert_eq!(bench.retire(3), []);
    assert_eq!((bench.planned(), bench.counts()), (1, [1, 0, 0, 1, 0]));
}

#[test]
fn a_lowered_concurrency_holds_for_the_next_invocations() {
    let mut bench = Bench::warm(SHARED, 1);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    bench.on(Event::SetLimits(Limits { concurrency: 1, workers_max: 1, executions_max: 9, ..SHARED }));
    assert_eq!(bench.invoke(4), []);
    assert_eq!(bench.release(1), []);
    assert_eq!(bench.release(1), []);
    assert_eq!(bench.release(1), [dispatch(1, 4)]);
}

#[test]
fn a_raised_concurrency_serves_who_waits() {
    let mut bench = Bench::warm(Limits { workers_max: 1, executions_max: 1, ..LIMITS }, 1);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    let raised = Limits { workers_max: 1, concurrency: 3, executions_max: 3, ..LIMITS };
    assert_eq!(bench.on(Event::SetLimits(raised)), [dispatch(1, 2), dispatch(1, 3)]);
}

#[test]
fn lowered_executions_hold_for_the_next_invocations() {
    let mut bench = shared(SHARED);
    for invocation in 1..=6 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.on(Event::SetLimits(Limits { executions_max: 4, ..SHARED })), []);
    assert_eq!(bench.release(1), [], "four run");
    assert_eq!(bench.release(1), [dispatch(1, 6)]);
}

#[test]
fn no_concurrency_and_no_executions_are_one() {
    let mut bench = Bench::warm(Limits { workers_max: 1, concurrency: 0, executions_max: 0, ..LIMITS }, 1);
    assert_eq!(bench.invoke(1), [dispatch(1, 1)]);
    assert_eq!(bench.invoke(2), []);
    assert_eq!(bench.release(1), [dispatch(1, 2)]);
}

#[test]
fn a_worker_with_several_invocations_is_given_up_when_the_next_of_them_ends() {
    let mut bench = Bench::warm(SHARED, 1);
    bench.invoke(1);
    bench.invoke(2);
    bench.on(Event::Yield(1));
    assert_eq!(bench.release(1), []);
    assert_eq!((bench.counts(), bench.retiring()), ([0; 5], 1));
    assert_eq!(bench.release(1), [stop(1)]);
}
