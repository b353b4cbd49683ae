//! Compare: the differences between two versions, in the form of git.

use super::error::CliError;
use super::print::{BOLD, CYAN, DIM, GREEN, RED_TEXT, facts, styled, table};
use super::session::Session;
use super::text;
use crate::protocol::message::{CompareRequest, CompareResponse, ComparedVersion, FileChange};
use clap::Args;
use std::borrow::Cow;

const EXAMPLES: &str = "Examples:
  levain compare hello v1 v2
  levain compare hello ROLLBACK LIVE       what the last deployment changed
  levain compare hello 1 3 --stat          only the list of files
  levain compare hello v1 v2 --full        all lines, however many

Without --full, a file shows at most 200 lines, all files together 1000, and long lines are cut.";

/// `levain compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Compare {
    /// The function's name or id
    name: String,
    /// The first version: a label, a number or an alias
    from: String,
    /// The second version: a label, a number or an alias
    to: String,
    /// List the files that differ, without their lines
    #[arg(long, conflicts_with = "full")]
    stat: bool,
    /// Print all lines that differ
    #[arg(long)]
    full: bool,
}

impl Compare {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let Self { name, from, to, stat, full } = self;
        let (from, to) = (from.into(), to.into());
        let response = session.call(&CompareRequest { function_id: name.clone(), from, to }).await?;
        let shown = match (stat, full) {
            (true, _) => Shown::Files,
            (false, true) => Shown::Lines(usize::MAX),
            (false, false) => Shown::Lines(LINES_MAX),
        };
        session.out.response(&response, |it| compare_text(&name, it, shown))
    }
}

/// Extent of the output.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// The files alone.
    Files,
    /// The files with at most this many lines.
    Lines(usize),
}

/// Most lines of all files, and of one of them. What is longer is not read on a terminal.
const LINES_MAX: usize = 1_000;
const FILE_LINES_MAX: usize = 200;

/// Longest line in characters: a minified bundle is one line.
const LINE_CHARACTERS_MAX: usize = 500;

fn compare_text(name: &str, response: &CompareResponse, shown: Shown) -> String {
    let mut text = head(name, response);
    if response.same_code {
        text.push_str("the code is the same\n");
        return text;
    }
    text.push('\n');
    match shown {
        Shown::Files => {
            text.push_str(&table(["CHANGE", "FILE", "SIZE", "LINES"], response.files.iter().map(stat)));
            text.push_str(&summary(response));
        }
        Shown::Lines(max) => {
            let mut left = max;
            response.files.iter().for_each(|file| text.push_str(&lines(file, &mut left, max == usize::MAX)));
        }
    }
    if response.truncated {
        text.push_str(&styled(DIM, "the comparison is too large for one answer: the rest is left out"));
        text.push('\n');
    }
    text
}

/// Reads one fact about a version, as text.
type Fact = fn(&ComparedVersion) -> String;

/// Names the two versions, and lists the facts about them that differ.
fn head(name: &str, response: &CompareResponse) -> String {
    let CompareResponse { from, to, .. } = response;
    let changed = |fact: Fact| {
        let (from, to) = (fact(from), fact(to));
        if from == to { String::new() } else { format!("{} → {}", or_none(&from), or_none(&to)) }
    };
    let mut text = format!("{}\n", styled(BOLD, text::harmless(&format!("{name} {} → {}", from.version, to.version))));
    let known: [(&str, Fact); 10] = [
        ("number", |it| it.number.to_string()),
        ("published", |it| it.created_at.to_string()),
        ("digest", |it| it.digest.to_string()[..12].to_owned()),
        ("size", |it| text::size(it.size)),
        ("entry", |it| it.entry.clone()),
        ("bun", |it| it.bun_version.clone()),
        ("commit", |it| it.git_commit.clone().unwrap_or_default()),
        ("branch", |it| it.git_branch.clone().unwrap_or_default()),
        ("description", |it| it.description.clone().unwrap_or_default()),
        ("tags", |it| it.tags.join(" ")),
    ];
    let settings = response.settings.iter();
    let settings =
        settings.map(|it| (it.key.as_str(), format!("{} → {}", text::setting(&it.from), text::setting(&it.to))));
    text.push_str(&facts(known.into_iter().map(|(name, fact)| (name, changed(fact))).chain(settings)));
    text
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// Table row of a file: its change, its sizes and its line counts.
fn stat(file: &FileChange) -> [String; 4] {
    let size = |size: Option<u64>| size.map_or_else(|| "none".into(), text::size);
    let sizes = if file.from_size == file.to_size {
        size(file.to_size)
    } else {
        format!("{} → {}", size(file.from_size), size(file.to_size))
    };
    let lines = match (&file.diff, &file.note) {
        (Some(diff), _) => counted(counts(diff)),
        (None, Some(note)) => note.clone(),
        (None, None) if file.binary => "binary".into(),
        (None, None) => "-".into(),
    };
    [file.change.clone(), path(file), sizes, lines]
}

fn counted((added, removed): (usize, usize)) -> String {
    format!("+{added} -{removed}")
}

fn path(file: &FileChange) -> String {
    let from = file.renamed_from.iter().map(|from| format!("{from} → "));
    text::harmless(&(from.collect::<String>() + &file.path)).into_owned()
}

/// Counts the lines that a diff adds and removes. Its first two lines are file names.
fn counts(diff: &str) -> (usize, usize) {
    let begins = |sign: char| diff.lines().skip(2).filter(|line| line.starts_with(sign)).count();
    (begins('+'), begins('-'))
}

fn summary(response: &CompareResponse) -> String {
    let count = response.files.len();
    let lines = response.files.iter().filter_map(|it| it.diff.as_deref()).map(counts);
    let lines = lines.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let files = if count == 1 { "file differs" } else { "files differ" };
    format!("{count} {files}, {} lines\n", counted(lines))
}

/// Formats one file in the form of git, with its lines as far as `left` goes, which it lowers.
fn lines(file: &FileChange, left: &mut usize, is_full: bool) -> String {
    let Some(diff) = &file.diff else {
        let note = match &file.note {
            Some(note) => format!(": {note}"),
            None if file.binary => ": binary".into(),
            None => String::new(),
        };
        return format!("{}\n", styled(BOLD, format!("{} {}{}", file.change, path(file), text::harmless(&note))));
    };
    let (count, max) = (diff.lines().count(), if is_full { usize::MAX } else { FILE_LINES_MAX.min(*left) });
    *left -= count.min(max);
    let mut text = String::new();
    for (index, line) in diff.lines().take(max).enumerate() {
        let shown = text::harmless(line);
        let shown = if is_full { shown } else { cut(shown) };
        text.push_str(&match line.as_bytes().first() {
            _ if index < 2 => styled(BOLD, &shown),
            Some(b'@') => styled(CYAN, &shown),
            Some(b'+') => styled(GREEN, &shown),
            Some(b'-') => styled(RED_TEXT, &shown),
            _ => shown.into_owned(),
        });
        text.push('\n');
    }
    if count > max {
        let more = format!("{}: {} more lines, --full shows them", path(file), count - max);
        text.push_str(&format!("{}\n", styled(DIM, &more)));
    }
    text
}

/// Cuts a line that is too long to read, and says by how much.
fn cut(line: Cow<'_, str>) -> Cow<'_, str> {
    match line.char_indices().nth(LINE_CHARACTERS_MAX) {
        None => line,
        Some((at, _)) => format!("{} … {} more", &line[..at], text::size((line.len() - at) as u64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::print;
    use super::*;
    use crate::model::{Digest, Timestamp, VersionSource};
    use crate::protocol::message::SettingChange;

    fn version(number: u32) -> ComparedVersion {
        ComparedVersion {
            version: format!("v{number}").parse().expect("a name"),
            number,
            digest: Digest([0x10 + number as u8; 32]),
            size: 1_000,
            created_at: Timestamp::from_millis(i64::from(number) * 1_000),
            description: (number == 2).then(|| "second".into()),
            tags: Vec::new(),
            git_commit: None,
            git_branch: Some("main".into()),
            bun_version: "1.3.0".into(),
            entry: "bundle.js".into(),
            source: VersionSource::Path,
        }
    }

    fn response() -> CompareResponse {
        let file = |path: &str, change: &str| FileChange {
            path: path.into(),
            change: change.into(),
            renamed_from: None,
            from_size: Some(2_048),
            to_size: Some(2_048),
            binary: false,
            diff: None,
            note: None,
        };
        let diff = "--- v1/bundle.js\n+++ v2/bundle.js\n@@ -1,2 +1,2 @@\n same\n--- old\n+\u{1b}[2Jnew\n".to_owned();
        CompareResponse {
            from: version(1),
            to: version(2),
            same_code: false,
            settings: vec![
                SettingChange { key: "network".into(), from: "on".into(), to: "off".into() },
                SettingChange { key: "timeout_seconds".into(), from: 30.into(), to: 5.into() },
            ],
            files: vec![
                FileChange { diff: Some(diff), to_size: Some(4_096), ..file("bundle.js", "changed") },
                FileChange { binary: true, from_size: None, ..file("logo.png", "added") },
                FileChange { renamed_from: Some("a.js".into()), ..file("b.js", "renamed") },
                FileChange { note: Some("it has more than 1048576 bytes".into()), ..file("c.js", "changed") },
            ],
            truncated: false,
        }
    }

    const HEAD: &str = "\
hello v1 → v2
number           1 → 2
published        1970-01-01T00:00:01.000Z → 1970-01-01T00:00:02.000Z
digest           111111111111 → 121212121212
description      none → second
network          on → off
timeout_seconds  30 → 5
";

    #[test]
    fn facts_that_differ_come_first_and_then_the_lines() {
        let expected = format!(
            "{HEAD}\n--- v1/bundle.js\n+++ v2/bundle.js\n@@ -1,2 +1,2 @@\n same\n--- old\n+\\u{{1b}}[2Jnew\n\
             added logo.png: binary\nrenamed a.js → b.js\nchanged c.js: it has more than 1048576 bytes\n"
        );
        assert_eq!(print::plain(&compare_text("hello", &response(), Shown::Lines(LINES_MAX))), expected);
    }

    #[test]
    fn a_stat_lists_the_files() {
        let expected = format!(
            "{HEAD}\nCHANGE   FILE         SIZE               LINES\n\
             changed  bundle.js    2.0 KiB → 4.0 KiB  +1 -1\n\
             added    logo.png     none → 2.0 KiB     binary\n\
             renamed  a.js → b.js  2.0 KiB            -\n\
             changed  c.js         2.0 KiB            it has more than 1048576 bytes\n\
             4 files differ, +1 -1 lines\n"
        );
        assert_eq!(print::plain(&compare_text("hello", &response(), Shown::Files)), expected);
    }

    #[test]
    fn the_same_code_is_said_to_be() {
        let same = CompareResponse { same_code: true, files: Vec::new(), ..response() };
        assert!(
            print::plain(&compare_text("hello", &same, Shown::Lines(LINES_MAX))).ends_with("the code is the same\n")
        );
        let cut = CompareResponse { truncated: true, ..response() };
        assert!(compare_text("hello", &cut, Shown::Lines(LINES_MAX)).contains("left out"));
    }

    #[test]
    fn long_lines_and_long_files_are_cut_and_it_says_so() {
        let diff = |lines: usize| {
            let lines = (0..lines).map(|it| format!("+{it}\n")).collect::<String>();
            Some(format!("--- v1/a\n+++ v2/a\n{lines}"))
        };
        let file = |lines| FileChange { diff: diff(lines), ..response().files[0].clone() };
        let long = format!("--- v1/min.js\n+++ v2/min.js\n+{}\n", "x".repeat(3_000));
        let minified = FileChange { path: "min.js".into(), diff: Some(long), ..file(1) };
        let files = [vec![minified, file(300)], (0..6).map(|_| file(198)).collect()].concat();
        let many = CompareResponse { files, ..response() };
        let text = print::plain(&compare_text("hello", &many, Shown::Lines(LINES_MAX)));
        assert!(text.contains(" … 2.4 KiB more\n") && !text.contains(&"x".repeat(501)), "{text}");
        assert!(text.contains("bundle.js: 102 more lines, --full shows them\n"), "{text}");
        assert!(text.lines().count() < LINES_MAX + 30, "{}", text.lines().count());
        let full = print::plain(&compare_text("hello", &many, Shown::Lines(usize::MAX)));
        assert!(full.contains(&"x".repeat(3_000)) && !full.contains("more lines"));
    }
}
