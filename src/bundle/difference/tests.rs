//! Differences between two bundles: their wording, the limits, and diffs that turn one text into the other.

use super::super::{BundleLimits, Content};
use super::*;
use proptest::prelude::*;
use std::fs;

const LIMITS: DifferenceLimits = DifferenceLimits {
    file_bytes_max: 1_000,
    diff_bytes_max: 100_000,
    list_bytes_max: 100_000,
    time: Duration::from_secs(5),
};

fn compare_within(limits: &DifferenceLimits, from: &[(&str, &[u8])], to: &[(&str, &[u8])]) -> Difference {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = BundleStore::open(&folder.path().join("bundles")).expect("opens");
    let function = FunctionId::new();
    let labels = ["v1", "v2"].map(|label| label.parse::<VersionLabel>().expect("a label"));
    for (label, files) in labels.iter().zip([from, to]) {
        let limits = BundleLimits { bytes_max: 1 << 24, files_max: 1_000 };
        let content = |(path, bytes): &(&str, &[u8])| ((*path).to_owned(), Content::Bytes(bytes.to_vec().into()));
        let staged = store.stage(files.iter().map(content), files[0].0, limits).expect("stages");
        staged.publish(function, label).expect("publishes");
    }
    store.compare(function, &labels[0], &labels[1], limits).expect("both are there")
}

fn compare(from: &[(&str, &[u8])], to: &[(&str, &[u8])]) -> Difference {
    compare_within(&LIMITS, from, to)
}

fn diff_of(file: &FileDifference) -> &str {
    if let Diff::Unified(text) = &file.diff { text } else { panic!("no diff: {file:?}") }
}

#[test]
fn every_file_that_differs_is_named_with_what_became_of_it() {
    let difference = compare(
        &[("a.js", b"same"), ("b.js", b"one\ntwo\n"), ("gone.js", b"gone\n"), ("old/name.js", b"moved\n")],
        &[("a.js", b"same"), ("b.js", b"one\n2\n"), ("lib/new.js", b"new"), ("name.js", b"moved\n")],
    );
    let file = |path: &str, change, from_size, to_size, diff| FileDifference {
        path: path.into(),
        change,
        from_size,
        to_size,
        binary: false,
        diff,
    };
    let unified = |text: &str| Diff::Unified(text.into());
    let expected = [
        file(
            "b.js",
            ChangeKind::Changed,
            Some(8),
            Some(6),
            unified("--- v1/b.js\n+++ v2/b.js\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"),
        ),
        file(
            "gone.js",
            ChangeKind::Removed,
            Some(5),
            None,
            unified("--- v1/gone.js\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"),
        ),
        file(
            "lib/new.js",
            ChangeKind::Added,
            None,
            Some(3),
            unified("--- /dev/null\n+++ v2/lib/new.js\n@@ -0,0 +1 @@\n+new\n\\ No newline at end of file\n"),
        ),
        file("name.js", ChangeKind::Renamed { from: "old/name.js".into() }, Some(6), Some(6), Diff::None),
    ];
    assert_eq!(difference, Difference { files: expected.to_vec(), truncated: false });
}

#[test]
fn a_source_map_has_no_lines_for_people() {
    let difference = compare(&[("bundle.js.map", b"{\"a\":1}")], &[("bundle.js.map", b"{\"a\":2}")]);
    assert_eq!(difference.files[0].diff, Diff::SourceMap);
    assert_eq!(difference.files[0].change, ChangeKind::Changed);
}

#[test]
fn files_are_renamed_one_to_one_and_empty_ones_not_at_all() {
    let renamed = |difference: Difference| -> Vec<(String, ChangeKind)> {
        difference.files.into_iter().map(|it| (it.path, it.change)).collect()
    };
    let from = |path: &str| ChangeKind::Renamed { from: path.into() };
    let copies = compare(&[("a", b"x"), ("b", b"x")], &[("c", b"x"), ("d", b"x"), ("e", b"x")]);
    assert_eq!(renamed(copies), [("c".into(), from("a")), ("d".into(), from("b")), ("e".into(), ChangeKind::Added)]);
    let fewer = compare(&[("a", b"x"), ("b", b"x")], &[("c", b"x")]);
    assert_eq!(renamed(fewer), [("b".into(), ChangeKind::Removed), ("c".into(), from("a"))]);
    let empty = compare(&[("a", b""), ("k", b"1")], &[("b", b""), ("k", b"1")]);
    assert_eq!(renamed(empty), [("a".into(), ChangeKind::Removed), ("b".into(), ChangeKind::Added)]);
}

#[test]
fn what_is_no_text_is_said_and_not_shown() {
    let difference = compare(
        &[("a", b"text"), ("b", b"\xff\xfe"), ("c", b"text")],
        &[("a", b"te\0xt"), ("b", b"text"), ("c", b"other text")],
    );
    let found: Vec<_> = difference.files.iter().map(|it| (it.binary, it.diff == Diff::None)).collect();
    assert_eq!(found, [(true, true), (true, true), (false, false)]);
}

#[test]
fn large_files_are_compared_and_not_read_line_by_line() {
    // A two-byte character lies across the end of the examined chunk.
    let text = "ä".repeat(tree::CHUNK_BYTES);
    let text = format!("-{text}");
    let difference = compare(&[("a", text.as_bytes()), ("b", &[0xff; 2_000])], &[("a", b"short"), ("b", b"short")]);
    let found: Vec<_> = difference.files.iter().map(|it| (it.binary, it.diff.clone())).collect();
    assert_eq!(found, [(false, Diff::TooLarge(1_000)), (true, Diff::None)]);
    assert!(!difference.truncated, "nothing was left out");
    assert_eq!(compare(&[("a", text.as_bytes())], &[("a", text.as_bytes())]), Difference::default());
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let long = "line\n".repeat(100);
    let from: [(&str, &[u8]); 3] = [("a", b"1"), ("b", b"2"), ("c", b"3")];
    let to: [(&str, &[u8]); 3] = [("a", b"one"), ("b", long.as_bytes()), ("c", b"three")];
    let limits = DifferenceLimits { diff_bytes_max: 300, ..LIMITS };
    let difference = compare_within(&limits, &from, &to);
    let is_shown: Vec<_> = difference.files.iter().map(|it| it.diff != Diff::TooLong).collect();
    assert_eq!((is_shown, difference.truncated), (vec![true, false, true], true));
    let limits = DifferenceLimits { list_bytes_max: 2 * (FILE_OVERHEAD_BYTES + 1), ..LIMITS };
    let difference = compare_within(&limits, &from, &to);
    assert_eq!((difference.files.len(), difference.truncated), (2, true));
    // Control characters take six bytes in JSON.
    let limits = DifferenceLimits { diff_bytes_max: 400, ..LIMITS };
    assert!(compare_within(&limits, &[("a", b"")], &[("a", &[1; 100])]).truncated);
    assert!(!compare_within(&limits, &[("a", b"")], &[("a", &[b'x'; 100])]).truncated);
}

#[test]
fn texts_made_to_be_slow_are_done_in_time() {
    // Half a million lines of one letter each: the shortest diff would take far too long to find.
    let lines = |mut seed: u64| -> String {
        let mut letter = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'A' + (seed >> 59) as u8)
        };
        (0..1 << 19).flat_map(|_| [letter(), '\n']).collect()
    };
    let (from, to) = (lines(1), lines(2));
    let time = Duration::from_millis(100);
    let limits = DifferenceLimits { file_bytes_max: 1 << 20, diff_bytes_max: 1 << 24, time, ..LIMITS };
    let began = Instant::now();
    let difference = compare_within(&limits, &[("a", from.as_bytes())], &[("a", to.as_bytes())]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(apply(&from, diff_of(&difference.files[0])) == to, "a diff cut short by the deadline is still correct");
}

/// Applies a diff as `patch` does.
fn apply(from: &str, diff: &str) -> String {
    let old: Vec<&str> = from.split_inclusive('\n').collect();
    let (mut text, mut at) = (String::new(), 0);
    let mut lines = diff.split_inclusive('\n').skip(2).peekable();
    while let Some(line) = lines.next() {
        let has_end = !lines.peek().is_some_and(|it| it.starts_with("\\ "));
        let content = |line: &'_ str| if has_end { line[1..].to_owned() } else { line[1..line.len() - 1].to_owned() };
        match line.as_bytes()[0] {
            b'@' => {
                let (start, length) =
                    line[4..].split([' ']).next().map(|it| it.split_once(',').unwrap_or((it, "1"))).expect("a range");
                let start: usize = start.parse().expect("a number");
                let next = if length == "0" { start } else { start - 1 };
                text.extend(old[at..next].iter().copied());
                at = next;
            }
            b' ' => {
                assert_eq!(content(line), old[at]);
                text.push_str(old[at]);
                at += 1;
            }
            b'-' => {
                assert_eq!(content(line), old[at]);
                at += 1;
            }
            b'+' => text.push_str(&content(line)),
            b'\\' => {}
            other => panic!("no line of a diff begins with {other}"),
        }
    }
    text.extend(old[at..].iter().copied());
    text
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_diff_makes_the_one_text_of_the_other(
        from in "([ab@+\\-\r \\\\]{0,2}\n){0,12}[ab\r]{0,1}",
        to in "([ab@+\\-\r \\\\]{0,2}\n){0,12}[ab\r]{0,1}",
    ) {
        let diff = unified(&from, &to, "v1/a", "v2/a", Instant::now() + Duration::from_secs(5));
        prop_assert_eq!(diff.is_empty(), from == to);
        if !diff.is_empty() {
            prop_assert_eq!(apply(&from, &diff), to);
        }
    }

    #[test]
    fn a_text_takes_as_much_room_as_is_said(text in "[\\x00-\\x7fä–😀]{0,64}") {
        let json = serde_json::to_string(&text).expect("a text");
        prop_assert_eq!(json_bytes(&text) + 2, json.len());
    }
}

#[test]
fn a_bundle_that_is_not_there_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = BundleStore::open(folder.path()).expect("opens");
    let label: VersionLabel = "v1".parse().expect("a label");
    let outcome = store.compare(FunctionId::new(), &label, &label, &LIMITS);
    assert!(matches!(outcome, Err(BundleError::Missing { .. })), "{outcome:?}");
    assert!(fs::read_dir(folder.path()).expect("a folder").next().is_none());
}
