//! Worn workers and their replacements.

use super::*;
use std::collections::BTreeSet;

const ONE: Limits = Limits { workers_max: 1, executions_max: 1, ..LIMITS };

/// Runs invocations one after the other. Returns the actions for the end of the last.
fn run(bench: &mut Bench, worker: u64, invocations: u64) -> Vec<Action> {
    let mut actions = Vec::new();
    for invocation in 1..=invocations {
        assert_eq!(actions, [], "before the end of invocation {invocation}");
        assert_eq!(bench.invoke(invocation.into()), [dispatch(worker, invocation.into())]);
        actions = bench.release(worker);
    }
    actions
}

// When a worker is worn

#[test]
fn a_worker_is_worn_after_so_many_invocations() {
    let mut bench = Bench::warm_then_poor(Limits { requests_max: 3, ..ONE }, 1);
    assert_eq!(run(&mut bench, 1, 3), [ask_to_replace(2)]);
    assert_eq!(run(&mut bench, 1, 2), [], "the worker goes on serving, and is not replaced twice");
    bench.granted(2);
    assert_eq!(bench.ready(2), [stop(1)]);
    bench.exited(1);
    assert_eq!(run(&mut bench, 2, 3), [ask_to_replace(3)], "the new worker counts from zero");
}

#[test]
fn invocations_at_the_same_time_count_each() {
    let mut bench = Bench::warm_then_poor(Limits { concurrency: 3, executions_max: 3, requests_max: 2, ..ONE }, 1);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.release(1), []);
    assert_eq!(bench.release(1), [ask_to_replace(2)]);
}

/// Makes a pool with one idle worker of this id.
fn bench_with_worker(limits: Limits, id: u64) -> Bench {
    let mut bench = Bench::new(limits);
    for failed in 1..id {
        bench.on(Event::Warm(1));
        bench.start_failed(failed);
    }
    bench.on(Event::Warm(1));
    bench.ready(id);
    bench.is_rich = false;
    bench
}

#[test]
fn workers_are_worn_up_to_a_tenth_earlier_and_not_all_at_once() {
    let limits = Limits { requests_max: 200, age_max: Duration::from_secs(200), ..ONE };
    let (mut invocations, mut ages) = (BTreeSet::new(), BTreeSet::new());
    for id in 1..=40 {
        let mut bench = bench_with_worker(Limits { age_max: Duration::ZERO, ..limits }, id);
        let mut count = 1;
        while run(&mut bench, id, 1).is_empty() {
            count += 1;
        }
        invocations.insert(count);

        let mut bench = bench_with_worker(Limits { requests_max: 0, idle_timeout: Duration::MAX, ..limits }, id);
        let mut seconds = 0;
        while bench.tick().is_empty() {
            bench.wait(1);
            seconds += 1;
        }
        ages.insert(seconds);
    }
    for when in [invocations, ages] {
        let (first, last) = (when.first().expect("40 of them"), when.last().expect("40 of them"));
        assert!((181..=185).contains(first) && (196..=200).contains(last), "{first} to {last}");
        assert!(when.len() >= 15, "workers are worn at {} moments only", when.len());
    }
}

#[test]
fn a_small_bound_is_exact() {
    for id in 1..=20 {
        let mut bench = bench_with_worker(Limits { requests_max: 1, ..ONE }, id);
        assert_eq!(run(&mut bench, id, 1), [ask_to_replace(id + 1)]);
    }
}

#[test]
fn age_counts_from_when_the_worker_was_ready_and_is_looked_at_at_a_tick() {
    let age_max = Duration::from_millis(9);
    let mut bench = Bench::poor(Limits { age_max, workers_min: 1, ..ONE });
    bench.tick();
    bench.wait(1);
    bench.granted(1);
    bench.wait(1);
    bench.ready(1);
    bench.wait_ms(8);
    assert_eq!(bench.tick(), []);
    bench.wait_ms(1);
    assert_eq!(run(&mut bench, 1, 1), []);
    assert_eq!(bench.tick(), [ask_to_replace(2)]);
}

#[test]
fn without_bounds_no_worker_is_worn() {
    let mut bench = Bench::warm(Limits { workers_min: 1, ..ONE }, 1);
    assert_eq!(run(&mut bench, 1, 1_000), []);
    bench.wait(1_000_000_000);
    assert_eq!(bench.tick(), []);
}

#[test]
fn only_a_worker_that_serves_is_worn_by_decree() {
    let mut bench = Bench::warm_then_poor(LIMITS, 2);
    bench.retire(1);
    bench.on(Event::Warm(3));
    bench.granted(3);
    for worker in [1, 3, 4, 9] {
        assert_eq!(bench.worn(worker), [], "{worker}");
    }
    assert_eq!((bench.planned(), bench.counts()), (0, [1, 1, 0, 1, 0]));
    bench.ready(3);
    assert_eq!(bench.tick(), []);
}

// How a worn worker is replaced

#[test]
fn an_idle_worker_stops_when_its_replacement_is_ready() {
    let mut bench = Bench::warm_then_poor(ONE, 1);
    assert_eq!(bench.worn(1), [ask_to_replace(2)]);
    assert_eq!(bench.worn(1), []);
    assert_eq!(bench.granted(2), [start(2)]);
    assert_eq!(run(&mut bench, 1, 1), [], "the worn worker serves until then");
    assert_eq!(bench.ready(2), [stop(1)]);
    assert_eq!(run(&mut bench, 2, 1), []);
    assert_eq!(bench.counts(), [0, 1, 0, 1, 0]);
}

#[test]
fn a_busy_worker_finishes_what_it_runs_when_its_replacement_is_ready() {
    let mut bench = Bench::warm(ONE, 1);
    bench.invoke(1);
    bench.invoke(2);
    assert_eq!(bench.worn(1), [start(2)]);
    assert_eq!(bench.ready(2), [dispatch(2, 2)]);
    assert_eq!((bench.counts(), bench.retiring()), ([0, 0, 1, 0, 0], 1));
    assert_eq!(bench.release(1), [stop(1)]);
}

#[test]
fn a_replacement_takes_over_how_long_the_old_one_was_idle() {
    let mut bench = Bench::warm(LIMITS, 2);
    bench.wait(7);
    assert_eq!(bench.worn(1), [start(3)]);
    bench.wait(1);
    assert_eq!(bench.ready(3), [stop(1)]);
    assert_eq!(bench.invoke(1), [dispatch(2, 1)], "2 was used later than 1, whose idle time 3 inherits");
    bench.wait(1);
    assert_eq!(bench.tick(), [stop(3)], "ten seconds after 1 became idle");
}

#[test]
fn a_replacement_that_fails_to_start_leaves_the_old_one_at_work() {
    let mut bench = Bench::warm(ONE, 1);
    assert_eq!(bench.worn(1), [start(2)]);
    assert_eq!(bench.start_failed(2), []);
    assert_eq!(run(&mut bench, 1, 1), []);
    bench.wait_ms(99);
    assert_eq!(bench.tick(), []);
    bench.wait_ms(1);
    assert_eq!(bench.tick(), [start(3)]);
    assert_eq!(bench.ready(3), [stop(1)]);
}

#[test]
fn a_replacement_that_has_no_place_yet_is_withdrawn_when_the_old_one_dies() {
    let gone = [Event::Exited(WorkerId(1)), Event::Retire(WorkerId(1)), Event::Evict];
    for event in gone {
        let mut bench = Bench::warm_then_poor(LIMITS, 1);
        bench.worn(1);
        assert_eq!(bench.on(event).last(), Some(&withdraw(2)), "{event:?}");
        assert_eq!(bench.planned(), 0, "{event:?}");
        assert_eq!(bench.granted(2), [withdraw(2)], "{event:?}");
    }
}

#[test]
fn a_replacement_that_is_starting_when_the_old_one_dies_serves_as_any_other() {
    let mut bench = Bench::warm(ONE, 1);
    bench.invoke(1);
    bench.worn(1);
    assert_eq!(bench.exited(1), []);
    assert_eq!(bench.invoke(2), [], "the caller waits for the starting worker");
    assert_eq!(bench.ready(2), [dispatch(2, 2)]);
    assert_eq!(bench.counts(), [0, 0, 1, 0, 0]);
}

#[test]
fn workers_are_replaced_one_at_a_time_and_the_one_that_served_longest_first() {
    let mut bench = Bench::warm(LIMITS, 3);
    assert_eq!(bench.worn(2), [start(4)]);
    assert_eq!(bench.worn(3), []);
    assert_eq!(bench.worn(1), []);
    assert_eq!(bench.ready(4), [stop(2)], "the stopping worker must exit first");
    assert_eq!(bench.exited(2), [start(5)]);
    assert_eq!(bench.ready(5), [stop(1)]);
    assert_eq!(bench.exited(1), [start(6)]);
    assert_eq!(bench.ready(6), [stop(3)]);
}

#[test]
fn a_replacement_is_one_more_than_may_be_and_no_caller_gets_another() {
    let mut bench = Bench::warm_then_poor(LIMITS, 3);
    for invocation in 1..=3 {
        bench.invoke(invocation);
    }
    assert_eq!(bench.worn(2), [ask_to_replace(4)]);
    assert_eq!(bench.invoke(4), []);
    assert_eq!(bench.granted(4), [start(4)]);
    assert_eq!(bench.ready(4), [dispatch(4, 4)]);
    assert_eq!((bench.counts(), bench.retiring()), ([0, 0, 3, 0, 0], 1));
}

#[test]
fn no_replacement_is_planned_while_there_are_twice_as_many_as_may_be() {
    let mut bench = Bench::warm(ONE, 1);
    bench.invoke(1);
    bench.worn(1);
    bench.ready(2);
    assert_eq!((bench.counts(), bench.retiring()), ([0, 1, 0, 0, 0], 1));
    assert_eq!(bench.worn(2), [], "two workers in all, with a limit of one");
    assert_eq!(bench.release(1), [stop(1)], "still two");
    assert_eq!(bench.exited(1), [start(3)]);
}

#[test]
fn a_worn_worker_that_is_given_up_is_not_replaced() {
    let mut bench = Bench::warm_then_poor(ONE, 1);
    bench.invoke(1);
    assert_eq!(bench.worn(1), [ask_to_replace(2)]);
    bench.on(Event::Yield(1));
    assert_eq!(bench.release(1), [stop(1), withdraw(2)]);
}

#[test]
fn a_closed_pool_replaces_nobody() {
    let mut bench = Bench::warm_then_poor(ONE, 1);
    bench.invoke(1);
    bench.worn(1);
    assert_eq!(bench.on(Event::Close), [withdraw(2)]);
    assert_eq!(bench.worn(1), []);
    assert_eq!(bench.release(1), [stop(1)]);
}

#[test]
fn a_lowered_limit_takes_the_replacement_and_then_as_many_as_are_too_many() {
    let lower = |max| Event::SetLimits(Limits { workers_max: max, executions_max: max, ..LIMITS });
    let busy = || {
        let mut bench = Bench::warm_then_poor(LIMITS, 3);
        bench.invoke(1);
        bench.invoke(2);
        assert_eq!(bench.worn(1), [ask_to_replace(4)]);
        bench
    };
    let mut bench = busy();
    assert_eq!(bench.on(lower(2)), [withdraw(4), stop(1)]);
    let mut bench = busy();
    bench.granted(4);
    assert_eq!(bench.on(lower(1)), [stop(4), stop(1)]);
    assert_eq!((bench.counts(), bench.retiring()), ([0, 0, 1, 2, 0], 1));
}

#[test]
fn a_worn_worker_and_its_replacement_are_one_for_the_floor() {
    let floor = Limits { workers_min: 1, ..LIMITS };
    let mut bench = Bench::warm_then_poor(floor, 1);
    assert_eq!(bench.worn(1), [ask_to_replace(2)]);
    bench.wait(60);
    assert_eq!(bench.tick(), [], "worn by age, but the floor needs it");
    assert_eq!(bench.on(Event::Warm(2)), [ask(3)], "two besides the one that stops");
    let mut bench = Bench::warm_then_poor(floor, 1);
    bench.worn(1);
    assert_eq!(bench.on(Event::SetLimits(Limits { workers_min: 2, ..LIMITS })), [ask(3)]);
    let mut bench = Bench::warm_then_poor(Limits { workers_min: 2, ..LIMITS }, 2);
    bench.worn(1);
    bench.exited(2);
    assert_eq!(bench.tick(), [ask(4)]);
}

#[test]
fn a_worn_worker_and_its_replacement_are_one_when_they_expire() {
    let mut bench = Bench::warm_then_poor(Limits { workers_min: 1, ..LIMITS }, 2);
    bench.worn(1);
    bench.wait(60);
    assert_eq!(bench.tick(), [stop(1), withdraw(3)]);
    assert_eq!(bench.counts(), [0, 1, 0, 1, 0]);
}

#[test]
fn a_caller_is_given_a_start_beside_a_replacement() {
    let mut bench = Bench::warm_then_poor(Limits { workers_max: 2, executions_max: 2, ..LIMITS }, 1);
    bench.invoke(1);
    assert_eq!(bench.worn(1), [ask_to_replace(2)]);
    assert_eq!(bench.invoke(2), [ask(3)], "two workers, plus one replacement");
    assert_eq!(bench.invoke(3), []);
}

#[test]
fn a_replacement_that_is_the_probe_holds_up_starts_for_callers() {
    let mut bench = Bench::warm_then_poor(LIMITS, 1);
    bench.on(Event::Warm(2));
    bench.granted(2);
    bench.start_failed(2);
    bench.wait_ms(100);
    assert_eq!(bench.worn(1), [ask_to_replace(3)]);
    bench.invoke(1);
    assert_eq!(bench.invoke(2), [ask(4)], "the first to get a place is the probe");
    assert_eq!(bench.granted(3), [start(3), withdraw(4)]);
    assert_eq!(bench.granted(4), [withdraw(4)], "and nothing is planned instead");
    assert_eq!(bench.invoke(3), []);
    assert_eq!(bench.ready(3), [dispatch(3, 2), ask(5)]);
}
