//! Queue of lines for the writer: its limits, and which functions lose lines.

use super::*;
use crate::telemetry::testing::{label, line, patient};

fn numbers(batch: &Batch) -> Vec<&str> {
    batch.records.iter().map(|it| it.message.as_str()).collect()
}

fn take(queue: &LogQueue) -> Batch {
    let mut batch = Batch::default();
    queue.take(&mut batch, Instant::now(), Duration::ZERO);
    batch
}

/// Limits without a flush interval, as if it had always just passed.
fn hasty(buffer_records_max: usize) -> LogOptions {
    LogOptions { buffer_records_max, flush_interval: Duration::ZERO, ..LogOptions::default() }
}

#[test]
fn a_full_queue_keeps_the_first_lines_and_counts_the_rest() {
    let queue = LogQueue::new(hasty(10));
    let (one, two) = (FunctionId::new(), FunctionId::new());
    (0..13).for_each(|it| queue.push(line(one, it.to_string())));
    let last = LogRecord { version: label("v2"), at: Timestamp::from_millis(5), ..line(one, "13") };
    queue.push(last);
    assert_eq!((queue.lost(one), queue.lost(two), queue.lost_total()), (4, 0, 4));

    let batch = take(&queue);
    assert_eq!(numbers(&batch), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let of_one = Lost { function_id: one, version: label("v2"), at: Timestamp::from_millis(5), lines: 4 };
    assert_eq!(batch.lost, [of_one]);

    queue.push(line(one, "there is room again"));
    let batch = take(&queue);
    assert_eq!(numbers(&batch), ["there is room again"]);
    assert_eq!(batch.lost, [], "a loss is reported once");
    assert_eq!(queue.lost(one), 4, "but the total stays");
}

#[test]
fn a_flood_leaves_room_for_the_lines_of_others() {
    let queue = LogQueue::new(hasty(1_000));
    let [flood, second, quiet] = [(); 3].map(|()| FunctionId::new());
    (0..5_000).for_each(|it| queue.push(line(flood, it.to_string())));
    (0..10).for_each(|it| queue.push(line(quiet, it.to_string())));
    (0..5_000).for_each(|it| queue.push(line(second, it.to_string())));
    (10..20).for_each(|it| queue.push(line(quiet, it.to_string())));
    let batch = take(&queue);
    let of = |function| batch.records.iter().filter(move |it| it.function_id == function);
    assert_eq!(queue.lost(quiet), 0);
    assert!(of(quiet).map(|it| it.message.as_str()).eq((0..20).map(|it| it.to_string()).collect::<Vec<_>>()));
    for function in [flood, second] {
        let kept = of(function).count();
        assert!((430..=550).contains(&kept), "two floods share what is left: {kept}");
        assert!(of(function).map(|it| it.message.as_str()).eq((0..kept).map(|it| it.to_string()).collect::<Vec<_>>()));
        assert_eq!(queue.lost(function), 5_000 - kept as u64, "each line is kept or counted");
    }
    (0..1_000).for_each(|_| queue.push(line(flood, "")));
    assert_eq!(take(&queue).records.len(), 1_000, "alone, a function has all the room");
}

#[test]
fn lines_with_much_text_leave_room_for_others() {
    let queue = LogQueue::new(LogOptions { buffer_bytes_max: 100_000, ..hasty(1_000) });
    let [flood, quiet] = [(); 2].map(|()| FunctionId::new());
    (0..50).for_each(|_| queue.push(line(flood, "x".repeat(5_000))));
    (0..30).for_each(|_| queue.push(line(quiet, "x".repeat(1_000))));
    assert_eq!(queue.lost(quiet), 0);
    queue.push(line(quiet, "x".repeat(200_000)));
    assert_eq!(queue.lost(quiet), 1, "a line too large for an empty queue is lost in the end");
    let batch = take(&queue);
    assert!(batch.records.iter().map(bytes_of).sum::<usize>() <= 100_000);
}

#[test]
fn a_loss_that_could_not_be_written_is_said_with_the_next_one() {
    let queue = LogQueue::new(hasty(2));
    let function = FunctionId::new();
    (0..5).for_each(|it| queue.push(line(function, it.to_string())));
    let refused = take(&queue);
    assert_eq!((refused.records.len(), refused.lost[0].lines), (2, 3));
    queue.lose(&refused);
    assert_eq!(take(&queue).lost[0].lines, 5);
    assert_eq!(queue.lost(function), 5, "each line is counted once");
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let queue = LogQueue::new(LogOptions { buffer_bytes_max: 10_000, ..hasty(1_000) });
    let function = FunctionId::new();
    (0..20).for_each(|_| queue.push(line(function, "x".repeat(1_000))));
    assert_eq!(take(&queue).records.len() as u64 + queue.lost(function), 20);
    assert!((10..14).contains(&queue.lost(function)), "{}", queue.lost(function));
    (0..5).for_each(|_| queue.push(line(function, "x".repeat(1_000))));
    assert_eq!(take(&queue).records.len(), 5, "a taken batch makes room");
}

#[test]
fn a_line_waits_for_others_until_the_batch_is_worth_it() {
    let queue = LogQueue::new(patient());
    let function = FunctionId::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| take_when_due(&queue));
        (0..BATCH_RECORDS).for_each(|it| queue.push(line(function, it.to_string())));
        assert_eq!(writer.join().expect("takes").records.len(), BATCH_RECORDS, "all in one batch");
    });
}

fn take_when_due(queue: &LogQueue) -> Batch {
    let mut batch = Batch::default();
    queue.take(&mut batch, Instant::now() + Duration::from_secs(60), Duration::ZERO);
    batch
}

#[test]
fn whoever_flushes_waits_for_the_batch_on_its_way() {
    let queue = LogQueue::new(patient());
    assert!(queue.flush(Duration::ZERO), "there is nothing to wait for");
    queue.push(line(FunctionId::new(), "0"));
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| queue.flush(Duration::from_secs(60)));
        let batch = take_when_due(&queue);
        assert_eq!(numbers(&batch), ["0"], "the writer did not wait for the interval");
        assert!(!queue.flush(Duration::from_millis(1)), "a taken batch is not written yet");
        assert!(!flush.is_finished());
        queue.finish();
        assert!(flush.join().expect("ends"));
    });
}

#[test]
fn nobody_waits_for_a_writer_that_is_gone() {
    let queue = LogQueue::new(patient());
    queue.push(line(FunctionId::new(), "0"));
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| queue.flush(Duration::from_secs(3_600)));
        queue.end();
        assert!(!flush.join().expect("ends"), "the flush reports that the line is not written");
    });
}

#[test]
fn a_push_does_not_grow_the_buffer() {
    let queue = LogQueue::new(hasty(100));
    let mut batch = Batch { records: Vec::with_capacity(100), ..Batch::default() };
    for _ in 0..4 {
        let buffer = queue.read(|buffer| buffer.records.as_ptr());
        (0..150).for_each(|it| queue.push(line(FunctionId::new(), it.to_string())));
        assert_eq!(queue.read(|buffer| buffer.records.as_ptr()), buffer);
        queue.take(&mut batch, Instant::now(), Duration::ZERO);
        batch.records.clear();
    }
}

#[test]
fn a_loss_elsewhere_is_said_even_if_no_line_comes() {
    let queue = LogQueue::new(LogOptions { flush_interval: Duration::ZERO, ..patient() });
    let function = FunctionId::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| take_when_due(&queue));
        queue.count_lost(function, &label("v1"), Timestamp::from_millis(0), 7);
        let lost = writer.join().expect("takes").lost;
        assert_eq!(lost.iter().map(|it| (it.function_id, it.lines)).collect::<Vec<_>>(), [(function, 7)]);
    });
    assert_eq!(queue.lost(function), 7);
}
