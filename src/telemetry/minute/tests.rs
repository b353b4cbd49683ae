//! Figures of a minute, compared with a sorted list of all durations.

use super::*;
use crate::telemetry::testing::{label, warm};
use proptest::prelude::*;

fn row(minute: &Minute) -> MinuteRow {
    minute.row(FunctionId::new(), VersionId::new(), &label("v1"))
}

fn figures(rows: &[MinuteRow]) -> Figures {
    let mut tally = MinuteSum::new();
    rows.iter().for_each(|row| tally.add(row));
    tally.figures()
}

/// Returns the value that a share `quantile` of all values does not exceed.
fn model_quantile(sorted: &[u64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted[rank - 1] as f64 / 1_000.0
}

proptest! {
    #[test]
    fn figures_agree_with_a_sorted_list_of_all_durations(
        minutes in prop::collection::vec(
            prop::collection::vec(prop_oneof![1..200_u64, 1..2_000_000_u64, 1..40_000_000_000_u64], 1..60),
            1..6,
        ),
    ) {
        let rows: Vec<_> = minutes.iter().zip(0..).map(|(durations, number)| {
            let mut minute = Minute::new(number);
            for &run_us in durations {
                minute.record(Ok(200), &warm(run_us), Timestamp::from_millis(number * 60_000));
            }
            row(&minute)
        }).collect();
        let mut sorted = minutes.concat();
        sorted.sort_unstable();

        let figures = figures(&rows);
        prop_assert_eq!(figures.invocations, sorted.len() as u64);
        for (found, quantile) in [(figures.p50_ms, 0.5), (figures.p90_ms, 0.9), (figures.p99_ms, 0.99)] {
            let wanted = model_quantile(&sorted, quantile);
            prop_assert!(found >= wanted && found <= wanted * 1.01, "{} is {} and not {}", quantile, found, wanted);
        }
        let last = *sorted.last().expect("there is one") as f64;
        prop_assert!((figures.max_ms - last / 1_000.0).abs() < 1e-9);
        let mean = sorted.iter().sum::<u64>() as f64 / sorted.len() as f64 / 1_000.0;
        prop_assert!((figures.average_duration_ms - mean).abs() < 1e-6 * mean);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode(&bytes, &mut histogram());
    }
}

#[test]
fn calls_are_told_apart_by_how_they_went() {
    let mut minute = Minute::new(0);
    let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
    let ms = Duration::from_millis;
    let cold = Timing { queue: ms(2), start: ms(80), run: ms(10), cold_start: ColdStart::Spawned };
    let refused = Timing { queue: ms(6), start: ms(0), run: ms(0), cold_start: ColdStart::None };
    minute.record(Ok(200), &cold, at(1));
    minute.record(Ok(503), &warm(20_000), at(3));
    minute.record(Err(ErrorCode::HandlerError), &warm(30_000), at(2));
    minute.record(Err(ErrorCode::Overloaded), &refused, at(2));
    minute.record(Err(ErrorCode::Overloaded), &refused, at(2));

    let found = figures(&[row(&minute)]);
    assert_eq!((found.invocations, found.errors, found.cold_starts), (5, 3, 1));
    assert_eq!(found.errors_by_code, [(ErrorCode::HandlerError, 1), (ErrorCode::Overloaded, 2)].into());
    assert_eq!(found.answers_by_class, [("2xx".to_owned(), 1), ("5xx".to_owned(), 1)].into());
    assert_eq!(found.cold_starts_by_kind, [("spawned".to_owned(), 1)].into());
    assert_eq!(found.average_duration_ms, 20.0, "a refused call has no duration");
    assert_eq!(found.max_ms, 30.0);
    assert_eq!(found.average_queue_ms, (2 + 6 + 6) as f64 / 5.0);
    assert_eq!(found.average_start_ms, 80.0);
    assert_eq!(found.last_invoked, Some(at(3)));
}

#[test]
fn nothing_has_figures_of_zero() {
    assert_eq!(figures(&[]), Figures::default());
    assert_eq!(figures(&[]).p99_ms, 0.0);
}

#[test]
fn a_code_of_another_daemon_is_an_error_still() {
    let mut minute = Minute::new(0);
    minute.record(Ok(200), &warm(1), Timestamp::from_millis(0));
    let stranger = MinuteRow { errors_by_code: r#"{"FROM_THE_FUTURE":1}"#.into(), ..row(&minute) };
    let found = figures(&[stranger]);
    assert_eq!((found.errors, found.errors_by_code.len()), (1, 0));
}

#[test]
fn extreme_durations_are_bounded_and_a_busy_minute_is_small() {
    let mut minute = Minute::new(0);
    let run = Duration::MAX;
    minute.record(Ok(200), &Timing { run, queue: run, start: run, ..warm(1) }, Timestamp::from_millis(0));
    minute.record(Ok(200), &Timing { run: Duration::from_nanos(1), ..warm(1) }, Timestamp::from_millis(0));
    assert_eq!(minute.runs_us.distinct_values() * size_of::<u32>(), 17_408);
    assert_eq!(figures(&[row(&minute)]).max_ms, DURATION_US_MAX as f64 / 1_000.0);

    let mut minute = Minute::new(0);
    (0..100_000).for_each(|it| minute.record(Ok(200), &warm(500 + it % 3_000), Timestamp::from_millis(0)));
    let bytes = row(&minute).run_histogram.len();
    assert!(bytes < 2_000, "{bytes}");
}
