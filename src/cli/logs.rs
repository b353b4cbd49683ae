//! Logs of a function or of all: one record per line, oldest first, followed on request.

use super::error::CliError;
use super::print::{DIM, RED, YELLOW, styled};
use super::session::Session;
use super::text;
use crate::protocol::message::{LogLine, LogsRequest, LogsResponse};
use crate::protocol::worker::LogLevel;
use clap::{Args, ValueEnum};
use std::pin::pin;

/// Width of the column with the function's name. Longer names push the rest of their line to the right: the lines come
/// one by one, so the longest name is not known.
const FUNCTION_WIDTH: usize = 16;

const EXAMPLES: &str = "Examples:
  levain logs -f                           all functions
  levain logs hello
  levain logs hello:STAGING
  levain logs hello -f --level warn
  levain logs hello --since 15m --limit 1000
  levain logs hello --execution exec-0190c1d2-…";

/// `levain logs`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Logs {
    /// The function's name or id; with `:` and an alias, label or number, only that version's lines [default: all
    /// functions]
    #[arg(value_name = "NAME[:QUALIFIER]")]
    name: Option<String>,
    /// Print new records as they arrive, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Lowest level to print
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Only records of this invocation
    #[arg(long, value_name = "ID")]
    execution: Option<String>,
    /// Only records since this time: RFC 3339, or an age such as 15m, 2h or 1d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only records until this time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// Number of newest records to print [default: 100]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}

impl Logs {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let is_of_all = self.name.is_none();
        let request = LogsRequest {
            function_id: self.name.unwrap_or_default(),
            qualifier: None,
            limit: self.limit,
            offset: None,
            cursor: None,
            level: self.level.map(LogLevel::from),
            execution_id: self.execution,
            since: self.since,
            end_date: self.until,
            follow: self.follow,
        };
        let client = session.client().await?;
        if !self.follow {
            return print(session, &client.call(&request).await?, is_of_all);
        }
        let mut answer = client.call_streaming(&request)?;
        let mut stop = pin!(tokio::signal::ctrl_c());
        loop {
            let part = tokio::select! {
                part = answer.next_partial::<LogsResponse>() => part?,
                stopped = &mut stop => return stopped.map_err(CliError::System),
            };
            match part {
                Some(part) => print(session, &part, is_of_all)?,
                None => return print(session, &answer.finish().await?, is_of_all),
            }
        }
    }
}

fn print(session: &Session, response: &LogsResponse, is_of_all: bool) -> Result<(), CliError> {
    session.out.response(response, |it| it.logs.iter().map(|line| line_text(line, is_of_all)).collect())
}

/// Formats a record as one line; further lines of its message are indented. Lines of all functions name theirs.
fn line_text(line: &LogLine, is_of_all: bool) -> String {
    let style = match line.level {
        LogLevel::Debug | LogLevel::Info => DIM,
        LogLevel::Warn => YELLOW,
        LogLevel::Error => RED,
    };
    let level = styled(style, format!("{:5}", line.level.as_str()));
    let head = styled(DIM, line.timestamp.to_string());
    let execution = styled(
        DIM,
        format!(
            "{:8}",
            line.execution_id.map_or_else(|| "-".to_owned(), |it| text::short_id(&it.to_string()).to_owned())
        ),
    );
    let message = text::harmless(line.message.trim_end()).replace('\n', "\n    ");
    let function = if is_of_all { format!("{:FUNCTION_WIDTH$} ", line.function) } else { String::new() };
    format!("{head} {level} {function}{execution} {message}\n")
}

#[cfg(test)]
mod tests {
    use super::super::print::plain;
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_record_is_a_line_and_its_further_lines_are_indented() {
        let mut line = LogLine {
            timestamp: Timestamp::from_millis(1_769_508_000_123),
            level: LogLevel::Warn,
            stream: "console".into(),
            message: "a\nb\u{1b}[31m\n".into(),
            function: "hello".into(),
            version: "v1".parse().expect("a name"),
            execution_id: Some("exec-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("a name")),
        };
        let expected = "2026-01-27T10:00:00.123Z warn  456789ab a\n    b\\u{1b}[31m\n";
        assert_eq!(plain(&line_text(&line, false)), expected);
        line.execution_id = None;
        assert!(plain(&line_text(&line, false)).starts_with("2026-01-27T10:00:00.123Z warn  -        a\n"));
        assert!(plain(&line_text(&line, true)).contains("Z warn  hello            -        a\n"));
    }
}
