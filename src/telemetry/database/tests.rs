//! Size and age limits of the log database, and the use of its indexes by queries.

use super::*;
use crate::telemetry::testing::line;
use std::path::PathBuf;

fn database() -> (tempfile::TempDir, PathBuf, Database) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("logs.db");
    let database = Database::open(&path).expect("opens");
    (folder, path, database)
}

fn kept(path: &Path, function_id: FunctionId) -> LogPage {
    select_logs(&open_reader(path).expect("opens"), &LogQuery::new(function_id)).expect("reads")
}

fn retain_all(database: &mut Database, options: &LogOptions, now: Timestamp) -> usize {
    let steps = (1..1_000).find(|_| !database.retain(options, now).expect("deletes"));
    steps.expect("retention comes to an end")
}

#[test]
fn rows_go_when_they_are_too_old_in_small_steps() {
    let (_folder, path, mut database) = database();
    let function = FunctionId::new();
    let at = |number: u32| Timestamp::from_millis(i64::from(number) * 1_000);
    let records: Vec<_> = (0..5_000).map(|it| LogRecord { at: at(it), ..line(function, "x") }).collect();
    database.append(&records).expect("writes");
    let options = LogOptions { retention: Duration::from_secs(1_000), ..LogOptions::default() };

    assert!(database.retain(&options, at(5_500)).expect("deletes"));
    assert_eq!(kept(&path, function).total, 5_000 - u64::from(DELETE_ROWS), "one step deletes `DELETE_ROWS` lines");
    retain_all(&mut database, &options, at(5_500));
    let page = kept(&path, function);
    assert_eq!(page.total, 500);
    assert_eq!(page.entries[0].record.at, at(4_999), "the newest stay");
}

#[test]
fn the_oldest_lines_go_when_the_database_is_too_large_and_the_file_shrinks() {
    let (_folder, path, mut database) = database();
    let function = FunctionId::new();
    let bytes = |path: &Path| std::fs::metadata(path).expect("the file").len();
    for _ in 0..10 {
        let records: Vec<_> = (0..1_000).map(|it| line(function, format!("{it}{}", "x".repeat(1_000)))).collect();
        database.append(&records).expect("writes");
    }
    let options = LogOptions { database_bytes_max: 4 << 20, ..LogOptions::default() };
    let checkpoint = |it: &Database| it.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    checkpoint(&database).expect("is written");
    assert!(bytes(&path) > 8 << 20, "{}", bytes(&path));

    retain_all(&mut database, &options, Timestamp::now());
    checkpoint(&database).expect("is written");
    assert!(bytes(&path) < 5 << 20, "{}", bytes(&path));
    let page = kept(&path, function);
    assert!((1_000..5_000).contains(&page.total), "{}", page.total);
    assert_eq!(page.entries[0].id, 10_000, "the newest stay");

    let next = database.append(&[line(function, "later")]).expect("writes");
    assert_eq!(next, 10_001, "ids are not reused");
}

/// Returns the shares as stored, and as computed from the lines.
fn shares(database: &Database) -> [Vec<(Vec<u8>, i64, i64)>; 2] {
    [
        "SELECT function_id, lines, text_bytes FROM log_shares ORDER BY function_id",
        "SELECT function_id, count(*), sum(octet_length(message)) FROM logs GROUP BY function_id ORDER BY function_id",
    ]
    .map(|sql| {
        let mut select = database.connection.prepare(sql).expect("a statement");
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("shares")
    })
}

fn assert_counted(database: &Database) {
    let [kept, counted] = shares(database);
    assert_eq!(kept, counted);
}

#[test]
fn size_takes_lines_of_the_largest_functions_and_leaves_those_of_others() {
    let (_folder, path, mut database) = database();
    let [flood, second] = [(); 2].map(|()| FunctionId::new());
    let quiet: [FunctionId; 20] = std::array::from_fn(|_| FunctionId::new());
    let options = LogOptions { database_bytes_max: 4 << 20, ..LogOptions::default() };
    // The quiet functions own the oldest lines, and others among those of the flood.
    for round in 0..30 {
        let text = |function, length: usize| line(function, "ü".repeat(length / 2));
        let mut records: Vec<_> = quiet.iter().map(|it| text(*it, 100)).collect();
        records.extend((0..1_000).map(|it| text(if it % 4 == 0 { second } else { flood }, 1_000)));
        records.extend(quiet.iter().map(|it| text(*it, 100)));
        database.append(&records).expect("writes");
        retain_all(&mut database, &options, Timestamp::now());
        assert_counted(&database);
        for function in quiet {
            assert_eq!(kept(&path, function).total, 2 * (round + 1), "round {round}");
        }
    }
    let used = Size::of(&database.connection).expect("its size").used_bytes();
    assert!((3 << 20..=4 << 20).contains(&used), "{used}");
    let [of_flood, of_second] = [flood, second].map(|it| kept(&path, it).total);
    assert!(of_flood > 800 && of_second > 800 && of_flood.abs_diff(of_second) < 1_100, "{of_flood} {of_second}");
    assert_eq!(kept(&path, flood).entries[0].id, database.next_id - 21, "the newest stay");
    // Retention by age ignores whose line it is.
    retain_all(&mut database, &options, Timestamp::from_millis(Timestamp::now().as_millis() + 8 * 86_400_000));
    assert_eq!(shares(&database), [vec![], vec![]]);
}

#[test]
fn lines_of_before_there_were_shares_are_counted() {
    let (_folder, path, mut database) = database();
    let (one, two) = (FunctionId::new(), FunctionId::new());
    database.append(&[line(one, "ünï\0code"), line(one, ""), line(two, "x")]).expect("writes");
    database
        .connection
        .execute_batch(
            "DROP TABLE log_shares; ALTER TABLE metrics_minutes DROP COLUMN answers_by_class; PRAGMA user_version = 1",
        )
        .expect("goes back");
    drop(database);
    let database = Database::open(&path).expect("opens");
    assert_eq!(shares(&database)[0].len(), 2);
    assert_counted(&database);
}

#[test]
fn retention_finds_lines_by_an_index() {
    let (_folder, _, database) = database();
    for sql in [
        "SELECT id, octet_length(message) FROM logs WHERE function_id = x'00' ORDER BY id LIMIT 10",
        "DELETE FROM logs WHERE function_id = x'00' AND id <= 5",
    ] {
        let mut plan = database.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
        let steps: Vec<String> =
            plan.query_map([], |row| row.get(3)).expect("a plan").collect::<Result<_, _>>().expect("steps");
        assert!(steps.len() == 1 && steps[0].contains("logs_by_function"), "neither a scan nor a sort: {steps:?}");
    }
}

#[test]
fn retention_ends_when_there_is_nothing_left_to_delete() {
    let (_folder, path, mut database) = database();
    let function = FunctionId::new();
    database.append(&[line(function, "x")]).expect("writes");
    let options = LogOptions { database_bytes_max: 0, ..LogOptions::default() };
    retain_all(&mut database, &options, Timestamp::now());
    assert_eq!(kept(&path, function).total, 0);
}

#[test]
fn a_query_walks_an_index_in_the_order_of_its_answer() {
    let (_folder, _, database) = database();
    for (filter, index) in [
        ("function_id = x'00' AND level >= 2", "logs_by_function"),
        ("+function_id = x'00' AND invocation = x'00'", "logs_by_invocation"),
    ] {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM logs WHERE {filter} ORDER BY id DESC LIMIT 10");
        let mut plan = database.connection.prepare(&sql).expect("a statement");
        let steps = plan.query_map([], |row| row.get(3)).expect("a plan");
        let steps: Vec<String> = steps.collect::<Result<_, _>>().expect("steps");
        assert!(steps.len() == 1 && steps[0].contains(index), "neither a scan nor a sort: {steps:?}");
    }
}
