//! Runs the shim's analysis programs, which print a report about code. They run in a workplace, so that a vulnerability
//! in Bun's parser gives no access to the machine.

use crate::{
    model::Network,
    worker::{BunRuntime, Spawner, ToolError, ToolJob, Workplace, WorkplaceLimits},
};
use serde::de::DeserializeOwned;
use std::{ffi::OsString, io, path::Path, process::ExitStatus, time::Duration};
use tokio::time::Instant;

/// Limits of such a program; the largest bundles need a part of them.
const LIMITS: WorkplaceLimits = WorkplaceLimits { memory_max: 1 << 30, processes_max: 256, disk_max: 1 << 30 };

/// Largest output, in bytes; a check reports a bounded number of errors.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Characters of the output quoted in an error.
const EXCERPT_CHARS_MAX: usize = 1_000;

/// A program that did not give an answer.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The program did not finish.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The program ended without a valid answer.
    #[error("it ended with {status} and printed: {output}")]
    Unexpected {
        /// Exit status of the program.
        status: ExitStatus,
        /// End of its output.
        output: String,
    },
}

impl From<io::Error> for ShimError {
    fn from(error: io::Error) -> Self {
        Self::Tool(error.into())
    }
}

/// Creates an empty workplace for such a program.
pub(super) fn workplace(spawner: &Spawner) -> io::Result<Workplace<'_>> {
    spawner.workplace(LIMITS)
}

/// Runs a program and parses its output.
pub(super) async fn ask<T: DeserializeOwned>(
    place: &Workplace<'_>,
    script: &str,
    args: impl IntoIterator<Item = OsString>,
    is_writable: bool,
    time_max: Duration,
) -> Result<T, ShimError> {
    let job = ToolJob {
        args: BunRuntime::tool_args(&place.shim(script)).chain(args).collect(),
        environment: Vec::new(),
        folder: Path::new(""),
        network: Network::Off,
        is_writable,
        shown: None,
        deadline: Instant::now() + time_max,
    };
    let mut output = Vec::new();
    let status = place.run(job, |bytes| {
        let room = OUTPUT_BYTES_MAX - output.len();
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    });
    let status = status.await?;
    match serde_json::from_slice(&output) {
        Ok(answer) if status.success() => Ok(answer),
        _ => Err(ShimError::Unexpected { status, output: excerpt(&String::from_utf8_lossy(&output)) }),
    }
}

/// Returns the end of a text.
fn excerpt(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().rev().nth(EXCERPT_CHARS_MAX) {
        Some((start, _)) => format!("… {}", &text[start..]),
        None if text.is_empty() => "nothing".into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_end_of_the_text() {
        assert_eq!(excerpt("\n one\n"), "one");
        assert_eq!(excerpt("\n"), "nothing");
        let long = excerpt(&"ü".repeat(5_000));
        assert!(long.chars().count() < EXCERPT_CHARS_MAX + 10 && long.starts_with('…'), "{long}");
    }
}
