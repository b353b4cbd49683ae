//! Real damage to a real database: at the start, and under a writer and readers that have it open.

use super::*;
use crate::model::FunctionId;
use crate::telemetry::testing::{Callee, line, patient, telemetry, until};
use crate::telemetry::{LogQuery, Period, Telemetry};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

const PAGE: u64 = 4_096;

/// Returns the databases that were moved aside.
fn damaged(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path.parent().expect("a folder")).expect("reads").map(|it| it.expect("an entry"));
    let names = names.map(|it| it.file_name().into_string().expect("text"));
    let mut kept: Vec<_> = names.filter(|it| it.contains(".damaged-") && it.ends_with('Z')).collect();
    kept.sort();
    kept
}

/// Writes lines over many pages, so that opening the database reads only a few of them.
fn fill(telemetry: &Telemetry, function: FunctionId) {
    for number in 0..5_000 {
        telemetry.logs().push(line(function, format!("{number} {}", "x".repeat(1_000))));
    }
    assert!(telemetry.logs().flush());
}

/// Overwrites all pages but the first one, as a bad disk may; the write-ahead log is checkpointed first.
fn overwrite_pages(path: &Path) {
    checkpoint(path);
    let file = OpenOptions::new().write(true).open(path).expect("opens");
    let pages = file.metadata().expect("its size").len() / PAGE;
    assert!(pages > 100, "{pages}");
    for page in 1..pages {
        file.write_all_at(&[0xa5; PAGE as usize], page * PAGE).expect("writes");
    }
}

fn checkpoint(path: &Path) {
    let other = Connection::open(path).expect("opens");
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("is written");
}

fn messages(telemetry: &Telemetry, function: FunctionId) -> Vec<String> {
    let page = telemetry.logs().query(&LogQuery::new(function)).expect("reads");
    page.entries.into_iter().map(|it| it.record.message).collect()
}

/// Returns the lines that another program finds on disk under the files' names.
fn on_disk(path: &Path, function: FunctionId) -> u64 {
    let query = LogQuery::new(function);
    let reader = database::open_reader(path).expect("opens");
    database::select_logs(&reader, &query).map_or(0, |page| page.total)
}

#[test]
fn a_damaged_database_gives_way_to_a_new_one_at_the_start() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("no database", |it| fs::write(it, "no database, however long it is read ".repeat(200)).expect("writes")),
        ("cut off", |it| {
            let file = OpenOptions::new().write(true).open(it).expect("opens");
            file.set_len(10 * PAGE + 7).expect("cuts");
        }),
        ("its header overwritten", |it| {
            let file = OpenOptions::new().write(true).open(it).expect("opens");
            file.write_all_at(&[0xff; 100], 0).expect("writes");
        }),
        ("its pages overwritten", overwrite_pages),
    ];
    for (what, damage) in damages {
        let (_folder, path, telemetry) = telemetry(patient());
        let function = FunctionId::new();
        fill(&telemetry, function);
        drop(telemetry);
        damage(&path);
        let telemetry = Telemetry::open(&path, patient()).unwrap_or_else(|error| panic!("{what}: {error}"));
        telemetry.logs().push(line(function, "afterwards"));
        assert_eq!(messages(&telemetry, function), ["afterwards"], "{what}");
        assert_eq!(damaged(&path).len(), 1, "{what}: {:?}", damaged(&path));
    }
}

#[test]
fn the_newest_damaged_databases_are_kept_and_no_more() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("logs.db");
    for year in 2001..=2004 {
        for part in PARTS {
            fs::write(with_end(&path, &format!(".damaged-{year}-01-01T00-00-00Z{part}")), "").expect("writes");
        }
    }
    fs::write(&path, "no database ".repeat(1_000)).expect("writes");
    drop(Telemetry::open(&path, patient()).expect("opens"));
    let kept = damaged(&path);
    assert_eq!(kept.len(), DAMAGED_MAX, "{kept:?}");
    assert!(kept[0].contains("2003") && kept[1].contains("2004"), "{kept:?}");
    assert!(!with_end(&path, ".damaged-2002-01-01T00-00-00Z-wal").exists(), "its side files go too");
    assert!(with_end(&path, ".damaged-2003-01-01T00-00-00Z-wal").exists());
}

#[test]
fn damage_that_the_writer_finds_gives_way_to_a_new_database() {
    let (_folder, path, telemetry) = telemetry(patient());
    let function = FunctionId::new();
    fill(&telemetry, function);
    overwrite_pages(&path);
    // Deleting the oldest lines reads their pages, which are no longer in the writer's cache.
    telemetry.logs().set_options(crate::telemetry::LogOptions { database_bytes_max: 1 << 20, ..patient() });
    until("the database is replaced", || damaged(&path).len() == 1);
    telemetry.logs().push(line(function, "kept"));
    assert_eq!(messages(&telemetry, function), ["kept"]);
    assert_eq!((on_disk(&path, function), telemetry.logs().dropped_total()), (1, 0));
}

#[test]
fn damage_that_a_query_finds_ends_without_a_line_that_comes() {
    let (_folder, path, telemetry) = telemetry(patient());
    let function = FunctionId::new();
    fill(&telemetry, function);
    overwrite_pages(&path);
    let query = LogQuery::new(function);
    let error = telemetry.logs().query(&query).expect_err("a query reads the damage");
    assert!(error.is_damage(), "{error}");
    until("the database is replaced", || telemetry.logs().query(&query).is_ok_and(|page| page.total == 0));
    assert_eq!(damaged(&path).len(), 1);
}

#[test]
fn a_file_that_is_removed_while_it_is_open_is_made_anew() {
    for parts in [&PARTS[..1], &PARTS[1..2], &PARTS[..3]] {
        let (_folder, path, telemetry) = telemetry(patient());
        let (callee, now) = (Callee::new(FunctionId::new(), "v1"), Timestamp::now());
        let function = callee.function_id;
        telemetry.logs().push(line(function, "before"));
        let page = telemetry.logs().query(&LogQuery::new(function)).expect("reads");
        let last_id = page.entries[0].id;
        for part in parts {
            fs::remove_file(with_end(&path, part)).expect("removes");
        }
        telemetry.logs().push(line(function, "after"));
        assert_eq!(messages(&telemetry, function)[0], "after", "{parts:?}");
        let page = telemetry.logs().query(&LogQuery::new(function)).expect("reads");
        assert!(page.entries[0].id > last_id, "no id is reused");
        let is_whole = !parts.contains(&"");
        assert_eq!(page.total, if is_whole { 2 } else { 1 }, "{parts:?}: recoverable lines are kept");
        assert_eq!(on_disk(&path, function), page.total, "{parts:?}: queries read the files on disk");
        telemetry.metrics().record(&callee.call(1_000, now));
        drop(telemetry);
        let telemetry = Telemetry::open(&path, patient()).expect("opens again");
        assert_eq!(messages(&telemetry, function)[0], "after", "{parts:?}");
        let report = telemetry.metrics().report(function, Period::OneHour, now).expect("reads");
        assert_eq!(report.figures.invocations, 1);
        assert_eq!(damaged(&path), [""; 0], "a removed file is no damage");
    }
}
