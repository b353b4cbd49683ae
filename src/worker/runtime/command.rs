//! Runs a program that is trusted to end, but within limits.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{io, str};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Maximum lines of an error output to repeat.
const LINES_MAX: usize = 5;

/// Maximum characters of those lines.
const EXCERPT_CHARS_MAX: usize = 1_000;

/// Failure of a program.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started, or its output could not be read.
    #[error("it cannot be run: {0}")]
    Io(#[from] io::Error),
    /// The time limit was exceeded, and the program was killed.
    #[error("it took longer than {} s", .0.as_secs())]
    Timeout(Duration),
    /// The program printed too much and was stopped.
    #[error("it printed more than {0} bytes")]
    TooMuchOutput(u64),
    /// The program reported failure.
    #[error("it ended with {status}: {output}")]
    Failed {
        /// Exit status.
        status: ExitStatus,
        /// Last lines of its output.
        output: String,
    },
    /// The output was not the expected one.
    #[error("it printed something unexpected: {output}")]
    Unexpected {
        /// Last lines of its output.
        output: String,
    },
}

/// Runs a program without input and returns its output. Dropping this future kills the program.
pub(super) async fn run(mut command: Command, time_max: Duration, bytes_max: u64) -> Result<String, CommandError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended =
        async { tokio::try_join!(read(stdout, bytes_max), read(stderr, bytes_max), async { Ok(child.wait().await?) }) };
    let (stdout, stderr, status) =
        tokio::time::timeout(time_max, ended).await.map_err(|_| CommandError::Timeout(time_max))??;
    if status.success() {
        return Ok(stdout);
    }
    let said = if stderr.trim().is_empty() { stdout } else { stderr };
    Err(CommandError::Failed { status, output: excerpt(&said) })
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Result<String, CommandError> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(bytes_max + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > bytes_max {
        return Err(CommandError::TooMuchOutput(bytes_max));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the last lines of an output.
pub(super) fn excerpt(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().rev().map(str::trim_end).filter(|it| !it.is_empty()).take(LINES_MAX).collect();
    lines.reverse();
    let text = lines.join("\n");
    match text.char_indices().rev().nth(EXCERPT_CHARS_MAX) {
        Some((start, _)) => format!("… {}", &text[start..]),
        None if text.is_empty() => "it printed nothing".into(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, time_max: Duration, bytes_max: u64) -> Result<String, CommandError> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, time_max, bytes_max).await
    }

    #[tokio::test]
    async fn time_and_output_are_bounded() {
        let second = Duration::from_secs(10);
        assert_eq!(shell("printf 12345", second, 5).await.expect("its output"), "12345");
        assert!(matches!(shell("printf 123456", second, 5).await, Err(CommandError::TooMuchOutput(5))));
        assert!(matches!(shell("yes", second, 5).await, Err(CommandError::TooMuchOutput(5))));
        assert!(matches!(shell("yes >&2", second, 5).await, Err(CommandError::TooMuchOutput(5))));
        let short = Duration::from_millis(20);
        assert!(matches!(shell("exec sleep 1000", short, 5).await, Err(CommandError::Timeout(_))));
    }

    #[test]
    fn an_excerpt_is_the_end_of_the_text() {
        assert_eq!(excerpt("1\n2\n3\n\n4\n5\n6\n"), "2\n3\n4\n5\n6");
        let long = excerpt(&"ü".repeat(5_000));
        assert!(long.chars().count() < EXCERPT_CHARS_MAX + 10 && long.starts_with('…'), "{long}");
        assert_eq!(excerpt("\n"), "it printed nothing");
    }
}
