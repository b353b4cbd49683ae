//! Errors of a build.

use super::super::problem::{line, summary};
use crate::{protocol::worker::CodeProblem, worker::ToolError};
use std::{fmt, io, process::ExitStatus};

/// Step of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildStep {
    /// Installs the packages of the lockfile.
    Install,
    /// Builds the bundle from the entry.
    Build,
}

impl BuildStep {
    /// Returns the name used in the details of a failure.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Build => "build",
        }
    }
}

impl fmt::Display for BuildStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Install => "the installation of its packages",
            Self::Build => "the build",
        })
    }
}

/// A failed build.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BuildError {
    #[error("the build failed: {}", summary(None, .0))]
    Problems(Vec<CodeProblem>),
    #[error("the packages of {lockfile} cannot be installed: {reason}")]
    Install { lockfile: String, reason: String },
    #[error("{step} was ended: {source}{}", remedy(.source, *.timeout_ms))]
    Ended {
        step: BuildStep,
        source: ToolError,
        /// Time limit for both steps together.
        timeout_ms: u32,
    },
    #[error("the build ended with {0} and left no bundle; its log may say why")]
    NoResult(ExitStatus),
    #[error("the daemon is stopping; try again when it is back")]
    Stopped,
    #[error("a build cannot be prepared: {0}")]
    Io(#[from] io::Error),
}

impl BuildError {
    /// Returns the last lines of the log.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let problems: &[CodeProblem] = match self {
            Self::Problems(problems) => problems,
            _ => &[],
        };
        let lines: Vec<_> = problems.iter().map(|it| format!("error: {}", line(None, it))).collect();
        let own = Some(format!("error: {self}")).filter(|_| lines.is_empty());
        lines.into_iter().chain(own)
    }

    /// Returns the step that failed, if it was one.
    #[must_use]
    pub fn step(&self) -> Option<BuildStep> {
        match self {
            Self::Problems(_) | Self::NoResult(_) => Some(BuildStep::Build),
            Self::Install { .. } => Some(BuildStep::Install),
            Self::Ended { step, .. } => Some(*step),
            Self::Stopped | Self::Io(_) => None,
        }
    }

    /// Returns the errors in the project.
    #[must_use]
    pub fn problems(&self) -> &[CodeProblem] {
        match self {
            Self::Problems(problems) => problems,
            _ => &[],
        }
    }
}

fn remedy(error: &ToolError, timeout_ms: u32) -> String {
    match error {
        ToolError::Timeout => format!(", longer than the {timeout_ms} ms of build.timeout_ms"),
        ToolError::OutOfMemory(_) => " (build.memory_mb)".into(),
        ToolError::DiskFull(_) => " (build.disk_mb)".into(),
        ToolError::Launch(_) | ToolError::Io(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_first_place_and_its_log_all_of_them() {
        let problem = |line| CodeProblem {
            message: "Unexpected ;".into(),
            file: Some("src/a.ts".into()),
            line: Some(line),
            column: Some(11),
            line_text: Some("  const x = ;".into()),
        };
        let error = BuildError::Problems(vec![problem(2), problem(7)]);
        assert_eq!(error.to_string(), "the build failed: src/a.ts:2:11: Unexpected ;\n  const x = ;\n  and 1 more");
        assert_eq!(error.lines().count(), 2);
        let error = BuildError::Ended { step: BuildStep::Install, source: ToolError::Timeout, timeout_ms: 500 };
        let text =
            "the installation of its packages was ended: it took too long, longer than the 500 ms of build.timeout_ms";
        assert_eq!(error.to_string(), text);
        assert_eq!(error.lines().collect::<Vec<_>>(), [format!("error: {text}")]);
        let nameless = CodeProblem { message: "no".into(), ..CodeProblem::default() };
        assert_eq!(line(None, &nameless), "no");
    }
}
