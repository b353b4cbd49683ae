//! Ways for a worker to end.

use super::*;

#[test]
fn a_killed_worker_keeps_its_slot_until_it_is_gone() {
    let mut bench = Bench::new(Limits { workers_max: 1, executions_max: 1, ..LIMITS });
    bench.invoke(1);
    bench.ready(1);
    bench.invoke(2);
    assert_eq!(bench.kill(1), [stop(1)]);
    assert_eq!(bench.counts(), [0, 0, 0, 1, 1]);
    assert_eq!(bench.exited(1), [start(2)]);
}

#[test]
fn a_crash_fails_nobody_and_frees_the_slot() {
    let mut bench = Bench::new(Limits { workers_max: 1, executions_max: 1, ..LIMITS });
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
