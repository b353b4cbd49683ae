//! Errors of commands, and their exit codes.

use crate::client::ClientError;
use crate::daemon::StartError;
use crate::deploy::SourceError;
use crate::error::{Error, ErrorCode};
use crate::http::BindError;
use crate::worker::runtime::RuntimeError;
use std::io;
use std::path::PathBuf;

/// Exit code for invalid arguments, the same as clap's.
const EXIT_USAGE: u8 = 2;

/// Exit code of `invoke --fail` for an answer with a status of 400 or above.
pub(super) const EXIT_STATUS: u8 = 11;

#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The arguments are invalid together; the text says which are valid.
    #[error("{0}")]
    Usage(String),
    /// The daemon refused, or does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The function failed; the command has already reported it.
    #[error("the function failed with {0}")]
    Function(ErrorCode),
    /// The function answered with a status that `--fail` counts as a failure.
    #[error("the function answered with status {0}")]
    Status(u16),
    /// A file that an argument names cannot be read.
    #[error("cannot read {path}: {source}")]
    Input { path: PathBuf, source: io::Error },
    /// A file or folder that an argument names cannot be sent.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Standard output is closed or full.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// The system gives no threads or signals.
    #[error("the system refuses what levain needs: {0}")]
    System(io::Error),
    /// Any other failure that this program finds itself.
    #[error("{message}")]
    Failed { code: ErrorCode, message: String },
}

impl CliError {
    /// Creates the error for invalid arguments.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Creates the error for a failure of this program itself.
    pub(super) fn failed(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Failed { code, message: message.into() }
    }

    /// Exit code of the process. A closed pipe is a success: its reader (`| head`) has enough.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Input { .. } | Self::Source(_) => EXIT_USAGE,
            Self::Client(error) => error.exit_code(),
            Self::Status(_) => EXIT_STATUS,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) | Self::System(_) => ErrorCode::Internal.exit_code(),
            Self::Function(code) | Self::Failed { code, .. } => code.exit_code(),
        }
    }

    /// Whether the failure needs no message.
    pub(super) fn is_silent(&self) -> bool {
        match self {
            Self::Function(_) => true,
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }

    /// The daemon's refusal, if it refused.
    pub(super) fn refusal(&self) -> Option<&Error> {
        match self {
            Self::Client(ClientError::Refused(error)) => Some(error),
            _ => None,
        }
    }

    /// Code of the failure, if it has one.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Failed { code, .. } => Some(*code),
            _ => self.refusal().map(|it| it.code),
        }
    }
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        let code = match &error {
            StartError::Locked { .. }
            | StartError::NoDatabase { .. }
            | StartError::Bind(_)
            | StartError::Http(BindError::Address { .. }) => ErrorCode::Conflict,
            StartError::Http(_) => ErrorCode::InvalidRequest,
            StartError::Runtime(_) => ErrorCode::WorkerUnavailable,
            _ => ErrorCode::Internal,
        };
        Self::failed(code, error.to_string())
    }
}

impl From<RuntimeError> for CliError {
    fn from(error: RuntimeError) -> Self {
        Self::failed(ErrorCode::WorkerUnavailable, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_class_of_the_error() {
        let refused = |code| CliError::from(ClientError::Refused(Error::new(code, "no"))).exit_code();
        assert_eq!(refused(ErrorCode::FunctionNotFound), 3);
        assert_eq!(refused(ErrorCode::Timeout), 6);
        assert_eq!(CliError::from(ClientError::Disconnected).exit_code(), 10);
        assert_eq!(CliError::Function(ErrorCode::HandlerError).exit_code(), 5);
        assert_eq!(CliError::usage("no").exit_code(), 2);
        assert!(ErrorCode::ALL.iter().all(|code| code.exit_code() != EXIT_STATUS), "it has a code of its own");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = CliError::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((error.exit_code(), error.is_silent()), (0, true));
    }
}
