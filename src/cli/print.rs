//! Standard output and standard error: text and tables for people, JSON lines for programs.
//!
//! Colours are always written, and removed again where the stream is no terminal (anstream). Every write can fail with
//! a closed pipe, which ends the command quietly instead of with a panic, so nothing here uses `println!`.
//!
//! Names, messages and output of functions may have any characters. Code that formats them escapes those that would
//! steer a terminal ([`text::harmless`]); [`Out`] does so once more for all that it prints, except for styles.

use super::error::CliError;
use super::text;
use crate::error::{Error, ErrorCode};
use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// Heads of tables, names of facts.
pub(super) const BOLD: Style = Style::new().bold();
/// Less important text.
pub(super) const DIM: Style = Style::new().dimmed();
/// Failures.
pub(super) const RED: Style = AnsiColor::Red.on_default().bold();
/// Removed lines.
pub(super) const RED_TEXT: Style = AnsiColor::Red.on_default();
/// Positions in a file.
pub(super) const CYAN: Style = AnsiColor::Cyan.on_default();
/// Warnings.
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Success.
pub(super) const GREEN: Style = AnsiColor::Green.on_default();

/// Returns `text` in a style.
pub(super) fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Output of the command.
#[derive(Debug)]
pub(super) struct Out {
    /// Whether a program reads the output, as JSON.
    pub(super) is_json: bool,
}

impl Out {
    /// Prints a response: as one line of JSON, or as `text` makes it.
    pub(super) fn response<T: Serialize>(&self, response: &T, text: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        if self.is_json { self.json(response) } else { self.text(&text(response)) }
    }

    /// Prints one line of JSON.
    pub(super) fn json<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        let line = serde_json::to_string(value).map_err(|error| CliError::Output(error.into()))?;
        self.bytes((text::printable_json(line) + "\n").as_bytes())
    }

    /// Prints text and ends its line.
    pub(super) fn text(&self, text: &str) -> Result<(), CliError> {
        let text = text::printable(text);
        let mut stdout = anstream::stdout().lock();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        write!(stdout, "{text}{end}").and_then(|()| stdout.flush()).map_err(CliError::Output)
    }

    /// Prints bytes as they are.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(CliError::Output)
    }

    /// Writes a note to standard error. A closed standard error is ignored.
    pub(super) fn note(&self, text: &str) {
        let mut stderr = anstream::stderr().lock();
        let _ = writeln!(stderr, "{}", text::printable(text));
    }

    /// Whether progress is shown: only to a person at a terminal.
    pub(super) fn shows_progress(&self) -> bool {
        !self.is_json && io::stderr().is_terminal()
    }

    /// Replaces the last line of a terminal.
    pub(super) fn progress(&self, text: &str) {
        if self.shows_progress() {
            let mut stderr = anstream::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{}", text::printable(text)).and_then(|()| stderr.flush());
        }
    }

    /// Leaves a line of progress on a terminal.
    pub(super) fn progress_line(&self, text: &str) {
        self.progress(&format!("{text}\n"));
    }

    /// Reports why the command failed, with a hint if there is one, and returns its exit code. A program gets the wire
    /// form of the error on standard output.
    pub(super) fn failure(&self, error: &CliError, hint: Option<&str>) -> u8 {
        match error {
            _ if error.is_silent() => {}
            // The answer itself, with its status, is printed already.
            CliError::Status(_) if self.is_json => {}
            _ if self.is_json => {
                let _ = match (error.refusal(), error.code()) {
                    (Some(refusal), _) => self.json(refusal),
                    (None, Some(code)) => self.json(&Error::new(code, error.to_string())),
                    (None, None) => self.json(&serde_json::json!({ "error": error.to_string() })),
                };
            }
            _ => self.note(&failure_text(error, hint)),
        }
        error.exit_code()
    }
}

fn failure_text(error: &CliError, hint: Option<&str>) -> String {
    let message = error.to_string();
    let Some(code) = error.code() else { return format!("{RED}error{RED:#}: {}", text::harmless(&message)) };
    if error.refusal().is_some() && code == ErrorCode::Cancelled {
        return "cancelled: nothing was changed".into();
    }
    error_text(code, &message, hint, error.refusal().and_then(|it| it.details.as_ref()))
}

/// A failure with its code, a hint and the facts about it.
pub(super) fn error_text(code: ErrorCode, message: &str, hint: Option<&str>, details: Option<&Value>) -> String {
    let details = details.map(|it| text::details(it, message)).filter(|it| !it.is_empty());
    let parts = [Some(message), hint, details.as_deref()].into_iter().flatten();
    format!("{RED}error[{code}]{RED:#}: {}", text::harmless(&parts.collect::<Vec<_>>().join("\n")))
}

/// Table without lines; columns whose head begins with `>` are aligned to the right.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.map(|it| it.trim_start_matches('>')));
    for row in rows {
        table.add_row(row.map(|cell| text::harmless(&cell).replace('\n', " ")));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let is_right = heads[index].starts_with('>');
        column.set_cell_alignment(if is_right { CellAlignment::Right } else { CellAlignment::Left });
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for (index, line) in table.lines().enumerate() {
        let line = line.trim_end();
        text.push_str(&if index == 0 { styled(BOLD, line) } else { line.to_owned() });
        text.push('\n');
    }
    text
}

/// Names and values, one pair per line. Empty values are left out.
pub(super) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let facts: Vec<_> = facts.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        format!("{BOLD}{name}{BOLD:#}{:1$}{2}\n", "", width + 2 - name.len(), text::harmless(value))
    };
    facts.iter().map(line).collect()
}

/// Removes the colours from `text`, as for a pipe.
#[cfg(test)]
pub(super) fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientError;

    #[test]
    fn a_table_aligns_its_columns_and_has_no_trailing_blanks() {
        let rows = [["hello".into(), "7".into(), "-".into()], ["a".into(), "1234".into(), "two\nlines".into()]];
        let expected = "NAME   COUNT  NOTE\nhello      7  -\na       1234  two lines\n";
        assert_eq!(plain(&table(["NAME", ">COUNT", "NOTE"], rows)), expected);
    }

    #[test]
    fn facts_stand_below_each_other_and_empty_ones_fall_away() {
        let text = facts([("id", "1".to_owned()), ("handler", "default".to_owned()), ("none", String::new())]);
        assert_eq!(plain(&text), "id       1\nhandler  default\n");
    }

    #[test]
    fn a_failure_names_its_code_and_shows_its_details() {
        let error = Error::new(ErrorCode::BundleInvalid, "no handler").with_details(serde_json::json!({"line": 3}));
        let error = ClientError::Refused(error).into();
        assert_eq!(plain(&failure_text(&error, None)), "error[BUNDLE_INVALID]: no handler\nline: 3");
        assert!(plain(&failure_text(&error, Some("did you mean?"))).contains("no handler\ndid you mean?\nline"));
        let own = CliError::failed(ErrorCode::Conflict, "no");
        assert_eq!(plain(&failure_text(&own, None)), "error[CONFLICT]: no");
    }
}
