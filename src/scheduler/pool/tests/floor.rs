//! Idle expiry, the floor and wishes.

use super::*;

#[test]
fn idle_workers_expire_oldest_first_down_to_the_floor() {
    let mut bench = Bench::warm(Limits { workers_min: 1, ..LIMITS }, 3);
    bench.wait(7);
    assert_eq!(bench.tick(), [], "idle for nine seconds at most");
    bench.wait(1);
    assert_eq!(bench.tick(), [stop(1)]);
    bench.wait(60);
    assert_eq!(bench.tick(), [stop(2)]);
    assert_eq!(bench.counts(), [0, 1, 0, 2, 0]);
}

#[test]
fn busy_workers_count_for_the_floor_and_starting_ones_do_once_they_are_ready() {
    let mut bench = Bench::warm(Limits { workers_min: 2, ..LIMITS }, 2);
    bench.invoke(1);
    bench.on(Event::Warm(3));
    bench.wait(60);
    assert_eq!(bench.counts(), [1, 1, 1, 0, 0]);
    assert_eq!(bench.tick(), [], "the starting worker may fail");
    bench.ready(3);
    assert_eq!(bench.tick(), [stop(1)]);
    bench.wait(60);
    assert_eq!(bench.tick(), [], "one busy, one idle");
}

#[test]
fn a_tick_refills_the_floor_within_the_limit() {
    let mut bench = Bench::new(Limits { workers_min: 9, ..LIMITS });
    assert_eq!(bench.tick(), [start(1), start(2), start(3)]);
    for worker in 1..=3 {
        bench.ready(worker);
    }
    assert_eq!(bench.exited(2), [], "not at once: a worker that dies young would be restarted in a loop");
    assert_eq!(bench.tick(), [start(4)]);
    assert_eq!(bench.tick(), []);
}

#[test]
fn a_failed_start_holds_the_floor_up_for_its_back_off_only() {
    let mut bench = Bench::new(Limits { workers_min: 3, ..LIMITS });
    assert_eq!(bench.tick(), [start(1), start(2), start(3)]);
    bench.ready(1);
    bench.start_failed(2);
    bench.start_failed(3);
    bench.wait_ms(99);
    assert_eq!(bench.tick(), []);
    bench.wait_ms(1);
    assert_eq!(bench.tick(), [start(4)], "a probe");
    assert_eq!(bench.tick(), [], "one at a time");
    bench.ready(4);
    assert_eq!(bench.tick(), [start(5)]);
    assert_eq!(bench.tick(), []);
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
