//! Places on the node: requested, granted, returned and taken away.

use super::*;

// Planned workers

#[test]
fn a_worker_starts_when_the_node_has_a_place_for_it() {
    let mut bench = Bench::poor(LIMITS);
    assert_eq!(bench.invoke(1), [ask(1)]);
    assert_eq!((bench.planned(), bench.counts()), (1, [0, 0, 0, 0, 1]));
    assert_eq!(bench.tick(), [], "asking once is enough");
    assert_eq!(bench.granted(1), [start(1)]);
    assert_eq!((bench.planned(), bench.counts()), (0, [1, 0, 0, 0, 1]));
    assert_eq!(bench.ready(1), [dispatch(1, 1)]);
}

#[test]
fn a_place_is_asked_for_for_each_caller_up_to_the_limit() {
    let mut bench = Bench::poor(LIMITS);
    for invocation in 1..=3 {
        assert_eq!(bench.invoke(invocation as u128), [ask(invocation)]);
    }
    assert_eq!(bench.invoke(4), []);
    assert_eq!(bench.granted(2), [start(2)], "in the order of the grants");
    assert_eq!(bench.granted(1), [start(1)]);
}

#[test]
fn the_newest_plan_is_withdrawn_when_a_caller_leaves() {
    let mut bench = Bench::poor(LIMITS);
    bench.invoke(1);
    bench.invoke(2);
    assert_eq!(bench.cancel(1), [withdraw(2)]);
    assert_eq!(bench.cancel(2), [withdraw(1)]);
    assert!(bench.pool.is_empty());
}

#[test]
fn a_plan_is_withdrawn_when_its_caller_is_served_meanwhile() {
    let mut bench = Bench::warm_then_poor(LIMITS, 1);
    bench.invoke(1);
    assert_eq!(bench.invoke(2), [ask(2)]);
    assert_eq!(bench.release(1), [dispatch(1, 2), withdraw(2)]);
    assert_eq!(bench.planned(), 0);
}

#[test]
fn a_plan_stays_while_more_callers_wait_than_starts_go_on() {
    let mut bench = Bench::poor(LIMITS);
    for invocation in 1..=4 {
        bench.invoke(invocation);
    }
    bench.granted(1);
    assert_eq!(bench.cancel(1), [], "three wait for three workers");
    assert_eq!(bench.cancel(2), [withdraw(3)]);
    assert_eq!(bench.ready(1), [dispatch(1, 3)]);
    assert_eq!(bench.granted(2), [start(2)]);
}

#[test]
fn a_place_that_comes_too_late_goes_back() {
    let mut bench = Bench::poor(LIMITS);
    bench.invoke(1);
    bench.cancel(1);
    assert_eq!(bench.granted(1), [withdraw(1)]);
    assert!(bench.pool.is_empty());
    bench.invoke(2);
    assert_eq!(bench.granted(1), [withdraw(1)], "a place is not passed to another worker");
    assert_eq!(bench.granted(2), [start(2)]);
    bench.exited(2);
    assert_eq!(bench.granted(2), [withdraw(2)]);
}

#[test]
fn no_event_but_granted_is_about_a_planned_worker() {
    let mut bench = Bench::poor(LIMITS);
    bench.invoke(1);
    let id = WorkerId(1);
    for event in [
        Event::Ready(id),
        Event::StartFailed(id),
        Event::Release(id),
        Event::Abandon(id),
        Event::Kill(id),
        Event::Retire(id),
        Event::Worn(id),
        Event::Exited(id),
    ] {
        assert_eq!(bench.on(event), [], "{event:?}");
        assert_eq!(bench.planned(), 1, "{event:?}");
    }
    assert_eq!(bench.granted(1), [start(1)]);
}

#[test]
fn a_place_that_is_given_twice_starts_one_worker() {
    let mut bench = Bench::poor(LIMITS);
    bench.invoke(1);
    assert_eq!(bench.granted(1), [start(1)]);
    assert_eq!(bench.granted(1), []);
    bench.ready(1);
    assert_eq!(bench.granted(1), []);
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
}

#[test]
fn a_wish_is_not_withdrawn_when_nobody_waits() {
    let mut bench = Bench::poor(LIMITS);
    assert_eq!(bench.on(Event::Warm(2)), [ask(1), ask(2)]);
    assert_eq!(bench.invoke(1), [], "the caller waits for one of the workers");
    assert_eq!(bench.cancel(1), []);
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.planned(), 2);
}

#[test]
fn the_floor_is_not_withdrawn_when_nobody_waits() {
    let mut bench = Bench::poor(Limits { workers_min: 2, ..LIMITS });
    assert_eq!(bench.tick(), [ask(1), ask(2)]);
    bench.invoke(1);
    assert_eq!(bench.cancel(1), []);
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.planned(), 2);
}

#[test]
fn plans_go_first_when_the_limit_is_lowered() {
    let mut bench = Bench::warm_then_poor(LIMITS, 1);
    bench.on(Event::Warm(3));
    bench.granted(3);
    let lower = |max| Event::SetLimits(Limits { workers_max: max, executions_max: max, ..LIMITS });
    assert_eq!(bench.on(lower(2)), [withdraw(2)]);
    assert_eq!(bench.on(lower(1)), [stop(3)]);
    assert_eq!(bench.counts(), [0, 1, 0, 1, 0]);
}

#[test]
fn close_withdraws_what_is_planned() {
    let mut bench = Bench::poor(LIMITS);
    bench.on(Event::Warm(1));
    bench.invoke(1);
    bench.invoke(2);
    assert_eq!(bench.on(Event::Close), [fail(1, Failure::Closed), fail(2, Failure::Closed), withdraw(2), withdraw(1)]);
    assert!(bench.pool.is_empty());
    assert_eq!(bench.granted(1), [withdraw(1)]);
}

#[test]
fn a_wish_counts_on_a_plan_for_a_caller_and_keeps_it() {
    let mut bench = Bench::poor(LIMITS);
    bench.invoke(1);
    assert_eq!(bench.on(Event::Warm(2)), [ask(2)]);
    assert_eq!(bench.cancel(1), []);
    assert_eq!(bench.planned(), 2);
    bench.granted(2);
    assert_eq!(bench.start_failed(2), [], "the breaker does not delay it either");
    assert_eq!(bench.granted(1), [start(1)]);
}

#[test]
fn a_wish_keeps_no_more_plans_than_it_asks_for() {
    let mut bench = Bench::warm_then_poor(LIMITS, 1);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.planned(), 2);
    assert_eq!(bench.on(Event::Warm(2)), []);
    assert_eq!(bench.cancel(2), [withdraw(3)]);
    assert_eq!(bench.cancel(3), []);
    assert_eq!(bench.planned(), 1);
}

#[test]
fn the_floor_counts_on_a_plan_for_a_caller_and_keeps_it() {
    let mut bench = Bench::poor(Limits { workers_min: 2, ..LIMITS });
    bench.invoke(1);
    assert_eq!(bench.tick(), [ask(2)]);
    assert_eq!(bench.cancel(1), []);
    assert_eq!(bench.planned(), 2);
}

#[test]
fn a_lowered_floor_withdraws_what_was_planned_for_it() {
    let mut bench = Bench::poor(Limits { workers_min: 3, ..LIMITS });
    bench.tick();
    bench.invoke(1);
    assert_eq!(bench.on(Event::SetLimits(Limits { workers_min: 2, ..LIMITS })), [withdraw(3)]);
    assert_eq!(bench.planned(), 2);

    let mut bench = Bench::poor(Limits { workers_min: 3, ..LIMITS });
    bench.tick();
    bench.invoke(1);
    assert_eq!(bench.on(Event::SetLimits(LIMITS)), [withdraw(3), withdraw(2)], "one worker is for the caller");
    assert_eq!(bench.cancel(1), [withdraw(1)]);
}

// The breaker and places

#[test]
fn plans_are_withdrawn_when_the_breaker_opens() {
    let mut bench = Bench::warm_then_poor(LIMITS, 1);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    bench.granted(2);
    assert_eq!(bench.start_failed(2), [withdraw(3)]);
    assert_eq!(bench.granted(3), [withdraw(3)]);
    bench.wait_ms(100);
    assert_eq!(bench.tick(), [ask(4)], "a probe");
    assert_eq!(bench.granted(4), [start(4)]);
}

#[test]
fn the_floor_and_replacements_are_withdrawn_when_the_breaker_opens() {
    let mut bench = Bench::warm_then_poor(Limits { workers_max: 4, workers_min: 3, ..LIMITS }, 1);
    assert_eq!(bench.tick(), [ask(2), ask(3)]);
    assert_eq!(bench.worn(1), [ask_to_replace(4)]);
    bench.granted(2);
    assert_eq!(bench.start_failed(2), [withdraw(4), withdraw(3)]);
    bench.wait_ms(100);
    assert_eq!(bench.on(Event::Warm(2)), [ask(5), ask_to_replace(6)]);
    bench.granted(5);
    assert_eq!(bench.granted(6), [withdraw(6)], "one at a time, and nothing is planned instead");
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.ready(5), [ask_to_replace(7)]);
}

#[test]
fn callers_fail_when_the_breaker_opens_and_only_plans_are_left() {
    let mut bench = Bench::poor(LIMITS);
    bench.invoke(1);
    bench.invoke(2);
    bench.granted(2);
    assert_eq!(bench.start_failed(2), [withdraw(1), fail(1, Failure::StartFailed), fail(2, Failure::StartFailed)]);
    assert!(bench.pool.is_empty());
}

#[test]
fn a_planned_wish_outlasts_the_breaker_and_callers_wait_for_it() {
    let mut bench = Bench::poor(LIMITS);
    bench.on(Event::Warm(2));
    bench.granted(1);
    assert_eq!(bench.start_failed(1), []);
    assert_eq!(bench.invoke(1), []);
    assert_eq!(bench.granted(2), [start(2)], "at once");
    assert_eq!(bench.ready(2), [dispatch(2, 1)]);
}

#[test]
fn a_probe_that_gets_its_place_while_another_goes_on_gives_it_back() {
    let mut bench = Bench::warm_then_poor(Limits { workers_min: 2, ..LIMITS }, 1);
    bench.on(Event::Warm(2));
    bench.granted(2);
    bench.start_failed(2);
    bench.wait_ms(100);
    assert_eq!(bench.tick(), [ask(3)]);
    assert_eq!(bench.worn(1), [ask_to_replace(4)]);
    assert_eq!(bench.granted(4), [start(4)]);
    assert_eq!(bench.granted(3), [withdraw(3)], "one at a time");
    assert_eq!(bench.ready(4), [stop(1)]);
    bench.exited(1);
    assert_eq!(bench.tick(), [ask(5)]);
}

// Limit on all workers of a pool

#[test]
fn nothing_is_planned_while_there_are_twice_as_many_as_may_be() {
    let mut bench = Bench::warm(Limits { workers_max: 2, executions_max: 2, queue_max: 9, ..LIMITS }, 2);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.retire(1), [start(3)]);
    assert_eq!(bench.ready(3), [dispatch(3, 3)]);
    bench.retire(2);
    bench.invoke(4);
    bench.ready(4);
    assert_eq!((bench.counts(), bench.retiring()), ([0, 0, 2, 0, 0], 2));
    assert_eq!(bench.invoke(5), []);
    assert_eq!(bench.retire(3), [], "four workers in all, with a limit of two");
    assert_eq!(bench.release(1), [stop(1)], "still four");
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.exited(1), [start(5)]);
    assert_eq!(bench.ready(5), [dispatch(5, 5)]);
}

// Taking places back

#[test]
fn evict_stops_the_worker_that_is_idle_longest_down_to_the_floor() {
    let mut bench = Bench::warm(Limits { workers_min: 1, ..LIMITS }, 3);
    assert_eq!(bench.on(Event::Evict), [stop(1)]);
    assert_eq!(bench.on(Event::Evict), [stop(2)]);
    assert_eq!(bench.on(Event::Evict), []);
    assert_eq!(bench.counts(), [0, 1, 0, 2, 0]);
}

#[test]
fn evict_cuts_no_invocation_and_busy_workers_count_for_the_floor() {
    let mut bench = Bench::warm(Limits { workers_min: 1, ..LIMITS }, 2);
    bench.invoke(1);
    assert_eq!(bench.on(Event::Evict), [stop(1)]);
    assert_eq!(bench.on(Event::Evict), []);
    let mut bench = Bench::warm(LIMITS, 1);
    bench.invoke(1);
    assert_eq!(bench.on(Event::Evict), []);
}

#[test]
fn starting_workers_do_not_make_up_for_one_that_is_taken() {
    let mut bench = Bench::warm(Limits { workers_min: 1, ..LIMITS }, 1);
    bench.on(Event::Warm(3));
    assert_eq!(bench.on(Event::Evict), [], "the starting workers may never be ready");
    bench.invoke(1);
    bench.on(Event::Yield(1));
    assert_eq!(bench.release(1), []);
}

#[test]
fn a_worker_that_is_to_be_given_up_stops_instead_of_its_next_invocation() {
    let mut bench = Bench::warm(Limits { queue_max: 9, ..LIMITS }, 3);
    for invocation in 1..=4 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.on(Event::Yield(1)), []);
    assert_eq!(bench.release(2), [stop(2)]);
    assert_eq!(bench.pool.holding().yielding, 0);
    assert_eq!(bench.release(1), [dispatch(1, 4)], "one was enough");
}

#[test]
fn who_gives_a_worker_up_asks_again_for_its_callers() {
    let mut bench = Bench::warm_then_poor(Limits { workers_max: 1, executions_max: 1, ..LIMITS }, 1);
    bench.invoke(1);
    bench.invoke(2);
    bench.on(Event::Yield(1));
    assert_eq!(bench.release(1), [stop(1)], "its slot is not free yet");
    assert_eq!(bench.exited(1), [ask(2)]);
}

#[test]
fn idle_workers_are_not_given_up_by_yield() {
    let mut bench = Bench::warm(LIMITS, 2);
    bench.invoke(1);
    assert_eq!(bench.on(Event::Yield(2)), []);
    assert_eq!(bench.tick(), []);
    assert_eq!(bench.release(2), [stop(2)]);
    assert_eq!(bench.counts(), [0, 1, 0, 1, 0]);
}

#[test]
fn yield_stops_at_the_floor() {
    let mut bench = Bench::warm(Limits { workers_min: 2, ..LIMITS }, 3);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    bench.on(Event::Yield(3));
    assert_eq!(bench.release(1), [stop(1)]);
    assert_eq!(bench.release(2), []);
    assert_eq!(bench.release(3), []);
    assert_eq!(bench.counts(), [0, 2, 0, 1, 0]);
}

#[test]
fn yield_says_how_many_in_all() {
    let mut bench = Bench::warm(LIMITS, 3);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    bench.on(Event::Yield(2));
    bench.on(Event::Yield(1));
    assert_eq!(bench.release(1), [stop(1)]);
    assert_eq!(bench.release(2), []);
    bench.on(Event::Yield(1));
    bench.on(Event::Yield(0));
    assert_eq!(bench.release(3), [], "not any more");
}

#[test]
fn what_the_node_may_take_is_told() {
    let mut bench = Bench::warm(Limits { workers_max: 9, executions_max: 9, workers_min: 2, ..LIMITS }, 5);
    let ready_at = |worker: u64| bench.now - Duration::from_secs(5 - worker);
    let (first, second, third) = (ready_at(1), ready_at(2), ready_at(3));
    let all = Holding {
        ready: 5,
        spare: 3,
        idle: vec![first, second, third],
        serving_since: Some(first),
        leaving: 0,
        stopping: 0,
        yielding: 0,
    };
    assert_eq!(bench.pool.holding(), all);
    bench.invoke(1);
    bench.invoke(2);
    bench.retire(5);
    bench.on(Event::Evict);
    bench.on(Event::Yield(1));
    bench.on(Event::Warm(9));
    let left = Holding {
        ready: 3,
        spare: 1,
        idle: vec![second],
        serving_since: Some(second),
        leaving: 2,
        stopping: 1,
        yielding: 1,
    };
    assert_eq!(bench.pool.holding(), left);
    assert_eq!(Bench::new(LIMITS).pool.holding(), Holding::default());
}
