//! Reports over minutes that are in memory, on their way to the disk, or written.

use super::*;
use crate::error::ErrorCode;
use crate::telemetry::testing::{Callee, patient, telemetry};
use crate::telemetry::{LogOptions, Telemetry};
use std::sync::atomic::{AtomicU64, Ordering};

const MINUTE_MS: i64 = 60_000;

/// Returns a time in the given minute.
fn at(minute: i64, offset_ms: i64) -> Timestamp {
    Timestamp::from_millis(minute * MINUTE_MS + offset_ms)
}

/// Makes metrics whose writer is played by the test.
fn metrics() -> (tempfile::TempDir, database::Database, Metrics) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("logs.db");
    let database = database::Database::open(&path).expect("opens");
    let metrics = Metrics::new(Reader::new(&path));
    (folder, database, metrics)
}

fn invocations(metrics: &Metrics, function_id: FunctionId, period: Period, now: Timestamp) -> u64 {
    metrics.report(function_id, period, now).expect("reads").figures.invocations
}

#[test]
fn a_report_is_the_same_before_and_after_minutes_are_written() {
    let (_folder, mut database, metrics) = metrics();
    let callee = Callee::new(FunctionId::new(), "v1");
    let (mut written, now) = (0, at(30, 10));
    for minute in 20..=30 {
        (0..10).for_each(|it| metrics.record(&callee.call(1_000 * (it + 1), at(minute, 5))));
    }
    let report = || metrics.report(callee.function_id, Period::FifteenMinutes, now).expect("reads");
    let before = report();
    assert_eq!(before.figures.invocations, 110);
    metrics
        .hand_over(minute_of(now), |rows| {
            written = rows.len();
            database.append_minutes(rows)
        })
        .expect("writes");
    assert_eq!(written, 10, "the minute in progress stays");
    assert_eq!(report(), before);
    metrics.hand_over(i64::MAX, |rows| database.append_minutes(rows)).expect("writes");
    assert_eq!(report(), before);
    assert_eq!(report().figures.last_invoked, Some(at(30, 5)));
}

#[test]
fn a_period_begins_with_a_whole_minute_and_last_invoked_looks_further() {
    let (_folder, mut database, metrics) = metrics();
    let callee = Callee::new(FunctionId::new(), "v1");
    let minute = 100_000;
    for back in [0, 1, 2, 5, 6, 15, 60, 360, 1_440, 10_080, 20_000] {
        metrics.record(&callee.call(1_000, at(minute - back, 59_000)));
        metrics.hand_over(i64::MAX, |rows| database.append_minutes(rows)).expect("writes");
    }
    let counted = |period| invocations(&metrics, callee.function_id, period, at(minute, 0));
    assert_eq!(Period::ALL.map(counted), [2, 4, 6, 7, 8, 9, 10, 11]);
    let later = metrics.report(callee.function_id, Period::OneMinute, at(minute + 50, 0)).expect("reads");
    assert_eq!((later.figures.invocations, later.versions.len()), (0, 0));
    assert_eq!(later.figures.last_invoked, Some(at(minute, 59_000)));
}

#[test]
fn versions_and_functions_do_not_mix() {
    let (_folder, mut database, metrics) = metrics();
    let function_id = FunctionId::new();
    let (fast, slow) = (Callee::new(function_id, "v1"), Callee::new(function_id, "v2"));
    let other = Callee::new(FunctionId::new(), "v1");
    for it in 0..98 {
        metrics.record(&fast.call(1_000, at(10, it)));
    }
    for it in 0..2 {
        metrics.record(&Observation { outcome: Err(ErrorCode::Timeout), ..slow.call(9_000_000, at(10, it)) });
        metrics.record(&other.call(5, at(10, it)));
    }
    metrics.hand_over(i64::MAX, |rows| database.append_minutes(rows)).expect("writes");
    let report = metrics.report(function_id, Period::All, at(10, 500)).expect("reads");
    let labels: Vec<_> = report.versions.iter().map(|it| it.version.as_str()).collect();
    assert_eq!(labels, ["v1", "v2"], "in the order they were published");
    let [of_fast, of_slow] = [&report.versions[0].figures, &report.versions[1].figures];
    assert_eq!((of_fast.invocations, of_fast.errors, of_slow.invocations, of_slow.errors), (98, 0, 2, 2));
    assert!(of_fast.p99_ms == 1.0 && of_slow.p50_ms == 9_000.0);
    // The 98th and 99th percentile of a hundred lie on either side; a mean of the versions' percentiles would lie
    // between.
    assert!(report.figures.p90_ms < 1.01 && report.figures.p99_ms == 9_000.0, "{report:?}");
    assert_eq!(report.figures.errors_by_code, [(ErrorCode::Timeout, 2)].into());

    let mut totals = metrics.totals();
    totals.sort_by_key(|it| it.version_id);
    let totals: Vec<_> = totals.iter().map(|it| (it.function_id, it.invocations, it.errors)).collect();
    assert_eq!(totals, [(function_id, 98, 0), (function_id, 2, 2), (other.function_id, 2, 0)]);
}

#[test]
fn minutes_that_cannot_be_written_wait_for_the_next_time() {
    let (_folder, mut database, metrics) = metrics();
    let callee = Callee::new(FunctionId::new(), "v1");
    metrics.record(&callee.call(1_000, at(1, 0)));
    assert_eq!(metrics.hand_over(i64::MAX, |_| Err("the disk is full")), Err("the disk is full"));
    let counted = || invocations(&metrics, callee.function_id, Period::All, at(2, 0));
    assert_eq!(counted(), 1);
    metrics.record(&callee.call(1_000, at(2, 0)));
    metrics.hand_over(i64::MAX, |rows| database.append_minutes(rows)).expect("writes");
    assert_eq!(counted(), 2);
    metrics.hand_over(i64::MAX, |_| Err("there is nothing to write")).expect("is not asked to");
}

#[test]
fn what_waits_for_a_writer_that_does_not_come_is_bounded() {
    let (_folder, _database, metrics) = metrics();
    let callee = Callee::new(FunctionId::new(), "v1");
    let minutes = FINISHED_MAX as i64 + 20;
    (0..minutes).for_each(|minute| metrics.record(&callee.call(1_000, at(minute, 0))));
    let counted = invocations(&metrics, callee.function_id, Period::All, at(minutes, 0));
    assert_eq!(counted, FINISHED_MAX as u64 + 1);
    assert_eq!(metrics.totals()[0].invocations, minutes as u64, "the totals miss nothing");
}

#[test]
fn a_clock_that_is_set_back_loses_nothing() {
    let (_folder, mut database, metrics) = metrics();
    let callee = Callee::new(FunctionId::new(), "v1");
    for minute in [10, 9, 10, 3, 3, 4] {
        metrics.record(&callee.call(1_000, at(minute, 0)));
    }
    let mut minutes = Vec::new();
    metrics
        .hand_over(i64::MAX, |rows| {
            minutes.extend(rows.iter().map(|row| (row.minute, row.invocations)));
            database.append_minutes(rows)
        })
        .expect("writes");
    assert_eq!(minutes, [(10, 3), (3, 2), (4, 1)], "a straggler counts into the minute in progress");
}

#[test]
fn figures_survive_a_restart_within_a_minute() {
    let (_folder, path, telemetry) = telemetry(patient());
    let callee = Callee::new(FunctionId::new(), "v1");
    let now = Timestamp::now();
    telemetry.metrics().record(&callee.call(1_000, now));
    drop(telemetry);

    let telemetry = Telemetry::open(&path, LogOptions::default()).expect("opens again");
    telemetry.metrics().record(&callee.call(3_000, now));
    let report = telemetry.metrics().report(callee.function_id, Period::OneHour, now).expect("reads");
    assert_eq!((report.figures.invocations, report.figures.average_duration_ms), (2, 2.0));
    assert_eq!(telemetry.metrics().totals()[0].invocations, 1, "totals begin anew");
    telemetry.close();
    assert_eq!(invocations(telemetry.metrics(), callee.function_id, Period::OneHour, now), 2);
}

#[test]
fn reports_made_while_minutes_move_count_each_call_once() {
    const CALLS: u64 = 20_000;
    let (_folder, mut database, metrics) = metrics();
    let function_id = FunctionId::new();
    let callees = [Callee::new(function_id, "v1"), Callee::new(function_id, "v2")];
    let (metrics, callees) = (&metrics, &callees);
    let (begun, ended) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let counted = || {
        let least = ended.load(Ordering::SeqCst);
        let counted = invocations(metrics, function_id, Period::All, at(100, 0));
        let most = begun.load(Ordering::SeqCst);
        assert!((least..=most).contains(&counted), "{counted} is not within {least} and {most}");
        counted
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for _ in 0..CALLS / 4 {
                    let number = begun.fetch_add(1, Ordering::SeqCst);
                    // Time runs through fifty minutes.
                    let minute = (number / (CALLS / 50)) as i64;
                    metrics.record(&callees[thread % 2].call(number + 1, at(minute, 0)));
                    ended.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(move || {
            while ended.load(Ordering::SeqCst) < CALLS {
                let minute = (ended.load(Ordering::SeqCst) / (CALLS / 50)) as i64;
                metrics.hand_over(minute, |rows| database.append_minutes(rows)).expect("writes");
            }
        });
        while counted() < CALLS {}
    });
    let report = metrics.report(function_id, Period::All, at(100, 0)).expect("reads");
    assert!(report.versions.iter().all(|it| it.figures.invocations == CALLS / 2));
}

#[test]
fn a_version_that_is_not_called_has_no_histogram() {
    let (_folder, mut database, metrics) = metrics();
    let callee = Callee::new(FunctionId::new(), "v1");
    metrics.record(&callee.call(1_000, at(1, 0)));
    metrics.hand_over(2, |rows| database.append_minutes(rows)).expect("writes");
    let versions = metrics.versions.read();
    let live = versions[&callee.version_id].lock();
    assert!(live.current.is_none() && live.finished.is_empty());
    // The rest are totals: three numbers per bucket.
    assert!(size_of::<Live>() < 700, "{}", size_of::<Live>());
}

#[test]
fn periods_have_one_text_form() {
    for period in Period::ALL {
        assert_eq!(period.to_string().parse(), Ok(period));
    }
    let error = "2h".parse::<Period>().expect_err("`2h` is not a period");
    assert!(error.to_string().contains("`2h`") && error.to_string().contains("24h"), "{error}");
}
