//! Failures as clients see them: a stable code, a sentence, and details where they help.
//!
//! Every module has its own error type, which `commands` maps to an [`Error`] in one place. The table below is the only
//! list of codes, with the HTTP status and the exit code of the command line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! error_codes {
    ($(#[doc = $meaning:literal] $variant:ident = $text:literal, http $http:literal, exit $exit:literal;)*) => {
        /// Stable code of one kind of failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ErrorCode {
            $(#[doc = $meaning] #[serde(rename = $text)] $variant,)*
        }

        impl ErrorCode {
            /// All codes, in the order of the documentation.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// Returns the code's name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text,)* }
            }

            /// Returns the code's meaning, in one sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$variant => $meaning.trim_ascii(),)* }
            }

            /// Returns the HTTP status of an answer with this code.
            #[must_use]
            pub fn http_status(self) -> u16 {
                match self { $(ErrorCode::$variant => $http,)* }
            }

            /// Returns the exit code of the command line for this code.
            #[must_use]
            pub fn exit_code(self) -> u8 {
                match self { $(ErrorCode::$variant => $exit,)* }
            }
        }
    };
}

error_codes! {
    /// A field is missing, has the wrong type or has an invalid value.
    InvalidRequest = "INVALID_REQUEST", http 400, exit 2;
    /// The command byte is unknown.
    UnknownCommand = "UNKNOWN_COMMAND", http 400, exit 2;
    /// A frame, body or answer is over its limit.
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", http 413, exit 2;
    /// The caller is not authenticated.
    Unauthorized = "UNAUTHORIZED", http 401, exit 8;
    /// The caller lacks the permission for this.
    Forbidden = "FORBIDDEN", http 403, exit 8;
    /// No function has this id or name.
    FunctionNotFound = "FUNCTION_NOT_FOUND", http 404, exit 3;
    /// The function has no version that takes traffic.
    FunctionNotDeployed = "FUNCTION_NOT_DEPLOYED", http 409, exit 4;
    /// The function has no version of this label or number.
    VersionNotFound = "VERSION_NOT_FOUND", http 404, exit 3;
    /// A version with this label and other code exists.
    VersionExists = "VERSION_EXISTS", http 409, exit 4;
    /// An alias, rollout or waiting deployment uses the version.
    VersionInUse = "VERSION_IN_USE", http 409, exit 4;
    /// The function has no alias of this name.
    AliasNotFound = "ALIAS_NOT_FOUND", http 404, exit 3;
    /// No environment has this name.
    EnvironmentNotFound = "ENVIRONMENT_NOT_FOUND", http 404, exit 3;
    /// No deployment has this id.
    DeploymentNotFound = "DEPLOYMENT_NOT_FOUND", http 404, exit 3;
    /// No token has this id, id prefix or name.
    TokenNotFound = "TOKEN_NOT_FOUND", http 404, exit 3;
    /// No variable has this name in this place.
    VariableNotFound = "VARIABLE_NOT_FOUND", http 404, exit 3;
    /// A secret cannot be decrypted: the master key is missing or wrong, or the secret is damaged.
    SecretUnavailable = "SECRET_UNAVAILABLE", http 503, exit 10;
    /// The request conflicts with the current state.
    Conflict = "CONFLICT", http 409, exit 4;
    /// The idempotency key was used with another request before.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", http 422, exit 4;
    /// The bundle was not found, or cannot be read.
    BundleNotFound = "BUNDLE_NOT_FOUND", http 400, exit 9;
    /// The bundle is not a valid function: its syntax, encoding or size is wrong, or it has no handler.
    BundleInvalid = "BUNDLE_INVALID", http 400, exit 9;
    /// The import of the bundle failed.
    BundleLoadError = "BUNDLE_LOAD_ERROR", http 422, exit 9;
    /// The build of the bundle failed.
    BuildFailed = "BUILD_FAILED", http 422, exit 9;
    /// The handler threw, rejected, or returned no Response.
    HandlerError = "HANDLER_ERROR", http 502, exit 5;
    /// The invocation exceeded its timeout.
    Timeout = "TIMEOUT", http 504, exit 6;
    /// The worker died during the invocation.
    WorkerCrashed = "WORKER_CRASHED", http 502, exit 5;
    /// The worker exceeded its memory limit.
    OutOfMemory = "OUT_OF_MEMORY", http 502, exit 5;
    /// The queue is full, or the wait for a worker was too long.
    Overloaded = "OVERLOADED", http 429, exit 7;
    /// No worker could be started, or the node has no room for one.
    WorkerUnavailable = "WORKER_UNAVAILABLE", http 503, exit 7;
    /// The client cancelled the command before it was committed; nothing was changed.
    Cancelled = "CANCELLED", http 409, exit 130;
    /// The environment is protected, and this needs an approval or is not allowed there.
    ApprovalRequired = "APPROVAL_REQUIRED", http 403, exit 8;
    /// The daemon is starting, and has no functions yet.
    Starting = "STARTING", http 503, exit 7;
    /// The daemon is stopping.
    ShuttingDown = "SHUTTING_DOWN", http 503, exit 7;
    /// The daemon itself failed; its log has the details.
    Internal = "INTERNAL", http 500, exit 1;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A failure as a client sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error, JsonSchema)]
#[error("{message}")]
pub struct Error {
    /// Message: what was wrong, and what to do next.
    #[serde(rename = "error")]
    pub message: String,
    /// Code of the failure.
    pub code: ErrorCode,
    /// Facts about the failure, such as a stack, a position or a boot log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl Error {
    /// Creates a failure without details.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { message: message.into(), code, details: None }
    }

    /// Adds details to the failure.
    #[must_use]
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Creates an `INVALID_REQUEST` failure.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// Creates an `INTERNAL` failure, for faults that the client cannot fix. The cause goes into the daemon's log.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(ErrorCode::Internal, format!("the daemon failed: {cause}; its log has the details"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_serialise_as_their_text() {
        let texts: BTreeSet<_> = ErrorCode::ALL.iter().map(|it| it.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).expect("a unit variant");
            assert_eq!(json, format!("\"{code}\""));
            assert!(code.exit_code() != 0, "{code} must not look like success");
        }
    }
}
