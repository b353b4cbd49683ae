//! Reading logs page by page and live, and the reports of lost lines.

use super::*;
use crate::model::InvocationId;
use crate::protocol::worker::LogLevel;
use crate::telemetry::testing::{label, line, patient, telemetry, until};
use crate::telemetry::{Stream, Telemetry};
use rusqlite::Connection;
use tokio::sync::broadcast::error::TryRecvError;

fn messages(page: &LogPage) -> Vec<&str> {
    page.entries.iter().map(|it| it.record.message.as_str()).collect()
}

fn all(function_id: FunctionId) -> LogQuery {
    LogQuery { limit: LogQuery::LIMIT_MAX, ..LogQuery::new(function_id) }
}

#[test]
fn a_query_sees_what_was_pushed_before_newest_first() {
    let (_folder, _, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let function = FunctionId::new();
    for round in 1..=50 {
        logs.push(line(function, format!("line {round}")));
        let page = logs.query(&LogQuery::new(function)).expect("reads");
        assert_eq!(page.total, round);
        assert_eq!(page.entries[0].record.message, format!("line {round}"));
    }
}

#[test]
fn a_line_comes_back_as_it_was_said() {
    let (_folder, _, telemetry) = telemetry(patient());
    let records: Vec<_> = Stream::ALL
        .into_iter()
        .zip([LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error])
        .map(|(stream, level)| LogRecord {
            at: Timestamp::from_millis(1_769_508_000_123),
            version: label("1.2.3-rc_1"),
            invocation: Some(InvocationId::new()),
            worker: u32::MAX,
            stream,
            level,
            ..line(FunctionId::new(), "two\nlines, a \0 and ünïcode")
        })
        .collect();
    for record in &records {
        telemetry.logs().push(record.clone());
    }
    for record in records {
        let page = telemetry.logs().query(&LogQuery::new(record.function_id)).expect("reads");
        assert_eq!(page.entries.into_iter().map(|it| it.record).collect::<Vec<_>>(), [record]);
    }
}

#[test]
fn pages_follow_each_other_without_gap() {
    let (_folder, _, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let (function, other) = (FunctionId::new(), FunctionId::new());
    for number in 0..25 {
        logs.push(line(function, number.to_string()));
        logs.push(line(other, "noise"));
    }
    let mut seen = Vec::new();
    for offset in (0..).step_by(10) {
        let page = logs.query(&LogQuery { limit: 10, offset, ..LogQuery::new(function) }).expect("reads");
        assert_eq!(page.total, 25);
        if page.entries.is_empty() {
            break;
        }
        seen.extend(page.entries);
    }
    let numbers: Vec<_> = seen.iter().map(|it| it.record.message.parse::<i32>().expect("a number")).collect();
    assert_eq!(numbers, (0..25).rev().collect::<Vec<_>>());
    assert!(seen.is_sorted_by(|a, b| a.id > b.id));

    let far = LogQuery { offset: u64::MAX, ..LogQuery::new(function) };
    assert_eq!(logs.query(&far).expect("reads").entries, []);
    assert_eq!(LogQuery::new(function).limit, 100);
}

#[test]
fn filters_agree_with_what_a_follower_is_shown() {
    let (_folder, _, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let function = FunctionId::new();
    let invocations = [InvocationId::new(), InvocationId::new()];
    let levels = [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
    let mut records = Vec::new();
    for second in 0..24_i64 {
        let place = usize::try_from(second).expect("the number is small");
        let record = LogRecord {
            at: Timestamp::from_millis(second * 1_000),
            level: levels[place % 4],
            invocation: invocations.get(place % 3).copied(),
            ..line(if place % 5 == 0 { FunctionId::new() } else { function }, second.to_string())
        };
        records.push(record.clone());
        logs.push(record);
    }
    let mut hits = 0;
    for level_min in [None, Some(LogLevel::Info), Some(LogLevel::Error)] {
        for invocation in [None, Some(invocations[0])] {
            for since in [None, Some(Timestamp::from_millis(4_000))] {
                for until in [None, Some(Timestamp::from_millis(16_000))] {
                    let query = LogQuery { level_min, invocation, since, until, ..LogQuery::new(function) };
                    let page = logs.query(&query).expect("reads");
                    let wanted: Vec<_> = records.iter().rev().filter(|it| query.matches(it)).cloned().collect();
                    hits += wanted.len();
                    assert_eq!(page.total, wanted.len() as u64, "{query:?}");
                    let found: Vec<_> = page.entries.into_iter().map(|it| it.record).collect();
                    assert_eq!(found, wanted, "{query:?}");
                }
            }
        }
    }
    assert!(hits > 50, "the filters leave something to compare: {hits}");
}

#[test]
fn a_page_is_bounded_in_bytes_and_never_empty_for_that() {
    let (_folder, _, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let function = FunctionId::new();
    for _ in 0..3 {
        logs.push(line(function, "x".repeat(5 << 20)));
    }
    let page = logs.query(&all(function)).expect("reads");
    assert_eq!((page.entries.len(), page.total), (1, 3));
}

#[test]
fn lines_of_several_threads_arrive_whole_and_in_each_ones_order() {
    let (_folder, _, telemetry) = telemetry(LogOptions::default());
    let logs = telemetry.logs();
    let functions: [FunctionId; 4] = std::array::from_fn(|_| FunctionId::new());
    std::thread::scope(|scope| {
        for function in functions {
            scope.spawn(move || (0..2_000).for_each(|it| logs.push(line(function, it.to_string()))));
        }
    });
    for function in functions {
        let page = logs.query(&all(function)).expect("reads");
        let numbers: Vec<i32> = messages(&page).iter().map(|it| it.parse().expect("a number")).collect();
        assert_eq!(numbers, (0..2_000).rev().collect::<Vec<_>>());
    }
    assert_eq!(logs.dropped_total(), 0);
}

#[test]
fn lines_that_find_no_room_are_counted_and_the_log_says_so() {
    let (_folder, path, telemetry) = telemetry(LogOptions { buffer_records_max: 10, ..patient() });
    let logs = telemetry.logs();
    let function = FunctionId::new();
    let pushed = 60;
    {
        // Blocks the writer, as a slow disk would.
        let mut blocker = Connection::open(&path).expect("opens");
        let lock = blocker.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("locks");
        (0..pushed).for_each(|it| logs.push(line(function, it.to_string())));
        drop(lock);
    }
    let dropped = logs.dropped(function);
    // One batch may be on its way while the queue fills up.
    assert!((pushed - 20..=pushed - 10).contains(&dropped), "{dropped}");
    assert_eq!(logs.dropped_total(), dropped);
    assert_eq!(logs.dropped(FunctionId::new()), 0);

    assert!(logs.flush());
    logs.push(line(function, "afterwards"));
    let page = logs.query(&all(function)).expect("reads");
    let (notices, kept): (Vec<_>, Vec<_>) = page.entries.iter().partition(|it| it.record.stream == Stream::System);
    assert_eq!(kept.len() as u64, pushed - dropped + 1);
    let said = |it: &&LogEntry| it.record.message.split(' ').next().and_then(|it| it.parse::<u64>().ok());
    assert_eq!(notices.iter().filter_map(said).sum::<u64>(), dropped, "{notices:?}");
    assert!(notices.iter().all(|it| it.record.level == LogLevel::Warn && it.record.message.contains("dropped")));
}

#[test]
fn lines_that_the_disk_refuses_are_counted_and_the_log_says_so() {
    let (_folder, path, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let function = FunctionId::new();
    let other = Connection::open(&path).expect("opens");
    other.busy_timeout(FLUSH_PATIENCE).expect("is set");
    other.execute_batch("ALTER TABLE logs RENAME TO away").expect("renames");
    (0..3).for_each(|it| logs.push(line(function, it.to_string())));
    assert!(logs.flush(), "a failed batch is finished, too");
    assert_eq!(logs.dropped(function), 3);
    other.execute_batch("ALTER TABLE away RENAME TO logs").expect("renames");
    logs.push(line(function, "kept"));
    let page = logs.query(&all(function)).expect("reads");
    let [notice, "kept"] = messages(&page)[..] else { panic!("{page:?}") };
    assert!(notice.starts_with("3 lines were dropped"), "{notice}");
    assert_eq!(logs.dropped(function), 3, "a reported loss is not counted again");
}

#[test]
fn a_follower_gets_lines_as_they_are_written_with_the_ids_a_query_gives() {
    let (_folder, _, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let function = FunctionId::new();
    logs.push(line(function, "before"));
    assert!(logs.flush());
    let mut follower = logs.follow();
    logs.push(line(function, "first"));
    logs.push(line(FunctionId::new(), "of another function"));
    assert!(logs.flush(), "the followers have it, too");
    let page = logs.query(&all(function)).expect("reads");
    assert_eq!(messages(&page), ["first", "before"]);
    assert_eq!(*follower.try_recv().expect("the first line"), page.entries[0]);
    assert_eq!(follower.try_recv().expect("the second line").record.message, "of another function");
    assert_eq!(follower.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn a_follower_that_lags_is_told_how_many_lines_it_lost() {
    let (_folder, _, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let mut follower = logs.follow();
    let lines = FOLLOWER_ENTRIES_MAX + 100;
    let function = FunctionId::new();
    (0..lines).for_each(|it| logs.push(line(function, it.to_string())));
    assert!(logs.flush());
    assert_eq!(follower.try_recv(), Err(TryRecvError::Lagged(100)));
    assert_eq!(follower.try_recv().expect("the rest").record.message, "100");
}

#[test]
fn a_log_that_is_opened_again_goes_on_where_it_was() {
    let (_folder, path, telemetry) = telemetry(patient());
    let function = FunctionId::new();
    telemetry.logs().push(line(function, "before"));
    drop(telemetry);
    let telemetry = Telemetry::open(&path, patient()).expect("opens again");
    telemetry.logs().push(line(function, "after"));
    let page = telemetry.logs().query(&all(function)).expect("reads");
    assert_eq!(messages(&page), ["after", "before"]);
    assert!(page.entries[0].id > page.entries[1].id);
}

#[test]
fn closing_writes_what_waits_and_what_comes_later_is_counted() {
    let (_folder, _, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let function = FunctionId::new();
    logs.push(line(function, "in time"));
    telemetry.close();
    logs.push(line(function, "too late"));
    assert_eq!(logs.dropped(function), 1);
    let begun = std::time::Instant::now();
    assert!(!logs.flush(), "the loss can no longer be reported");
    assert!(begun.elapsed() < FLUSH_PATIENCE, "no query waits for a writer that is gone");
    assert_eq!(messages(&logs.query(&all(function)).expect("reads")), ["in time"]);
    telemetry.close();
}

#[test]
fn limits_that_change_while_it_runs_count_at_once() {
    let (_folder, _, telemetry) = telemetry(patient());
    let logs = telemetry.logs();
    let function = FunctionId::new();
    let hour_ago = Timestamp::from_millis(Timestamp::now().as_millis() - 3_600_000);
    logs.push(LogRecord { at: hour_ago, ..line(function, "old") });
    logs.push(line(function, "new"));
    assert_eq!(logs.query(&all(function)).expect("reads").total, 2);
    let options = LogOptions { retention: Duration::from_secs(60), ..logs.options() };
    logs.set_options(options);
    assert_eq!(logs.options(), options);
    until("the old line goes", || messages(&logs.query(&all(function)).expect("reads")) == ["new"]);
}
