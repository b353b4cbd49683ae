//! Maps errors of the layers below to the errors that clients see. No other place makes an [`Error`] of them.

use crate::{
    bundle::BundleError,
    deploy::{ArchiveError, BuildError, BundleProblem, SourceError},
    error::{Error, ErrorCode},
    model::{NameError, Scope, variable::KeyError},
    protocol::worker::LoadError,
    scheduler::InvokeError,
    secrets::SecretError,
    store::StoreError,
    telemetry::TelemetryError,
    worker::{Exit, KillReason, StartError, ToolError},
};
use serde_json::{Map, Value, json};

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<crate::model::id::IdError> for Error {
    fn from(error: crate::model::id::IdError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<crate::model::settings::SettingsError> for Error {
    fn from(error: crate::model::settings::SettingsError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NameTaken(_)
            | StoreError::NumberTaken(_)
            | StoreError::AliasFixed(_)
            | StoreError::RolloutGoesOn(_)
            | StoreError::RolloutOver(_)
            | StoreError::NotPending(_)
            | StoreError::Environment(_)
            | StoreError::TokenNameTaken(_) => ErrorCode::Conflict,
            StoreError::IsSecret(_) | StoreError::NotSecret(_) => ErrorCode::Conflict,
            StoreError::Guarded(_) => ErrorCode::Forbidden,
            StoreError::EmptySecret(_) => ErrorCode::InvalidRequest,
            StoreError::VariableNotFound(_) | StoreError::GenerationNotFound(..) => ErrorCode::VariableNotFound,
            StoreError::TooManyVariables { .. } => ErrorCode::PayloadTooLarge,
            StoreError::Secret(_) => ErrorCode::SecretUnavailable,
            StoreError::TokenNotFound(_) => ErrorCode::TokenNotFound,
            StoreError::LabelTaken(_) => ErrorCode::VersionExists,
            StoreError::VersionInUse { .. } => ErrorCode::VersionInUse,
            StoreError::EnvironmentProtected { .. } | StoreError::ApprovalRequired(_) => ErrorCode::ApprovalRequired,
            StoreError::DeploymentNotFound(_) => ErrorCode::DeploymentNotFound,
            StoreError::FunctionNotFound(_) => ErrorCode::FunctionNotFound,
            StoreError::VersionNotFound(_) => ErrorCode::VersionNotFound,
            StoreError::AliasNotFound(_) => ErrorCode::AliasNotFound,
            StoreError::EnvironmentNotFound(_) => ErrorCode::EnvironmentNotFound,
            StoreError::Open(_) | StoreError::Corrupt { .. } | StoreError::Sqlite(_) => return Self::internal(error),
        };
        let explained = Self::new(code, error.to_string());
        match error {
            StoreError::Guarded(environment) => {
                explained.with_details(json!({ "needed": Scope::Admin.name(), "environment": environment }))
            }
            _ => explained,
        }
    }
}

impl From<SecretError> for Error {
    fn from(error: SecretError) -> Self {
        let code = match &error {
            SecretError::SameKey(_) | SecretError::FixedKey => ErrorCode::Conflict,
            // A failure of the system, such as a full disk: no secret and no key is at fault.
            SecretError::File { .. } | SecretError::Random => return Self::internal(error),
            _ => ErrorCode::SecretUnavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<BundleError> for Error {
    fn from(error: BundleError) -> Self {
        match bundle_code(&error) {
            Some(code) => Self::new(code, error.to_string()),
            None => Self::internal(error),
        }
    }
}

/// Code for a wrong bundle; `None` if the disk failed.
fn bundle_code(error: &BundleError) -> Option<ErrorCode> {
    match error {
        BundleError::Path { .. }
        | BundleError::EntryMissing(_)
        | BundleError::TooManyFiles(_)
        | BundleError::NotAFile(_)
        | BundleError::Changed { .. } => Some(ErrorCode::BundleInvalid),
        BundleError::TooLarge(_) => Some(ErrorCode::PayloadTooLarge),
        BundleError::Source { .. } | BundleError::Missing { .. } => Some(ErrorCode::BundleNotFound),
        BundleError::Exists(_) => Some(ErrorCode::VersionExists),
        BundleError::Io { .. } => None,
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        let code = match &error {
            SourceError::NotFound { .. } => ErrorCode::BundleNotFound,
            SourceError::OtherUser { .. } => ErrorCode::Forbidden,
            SourceError::Relative(_) => ErrorCode::InvalidRequest,
            SourceError::Empty
            | SourceError::Extension(_)
            | SourceError::SeveralEntries(_)
            | SourceError::NoEntry
            | SourceError::EntryMissing(_)
            | SourceError::Package(_)
            | SourceError::LeftOut(_)
            | SourceError::IgnoreFile { .. }
            | SourceError::Name(_)
            | SourceError::TooManyFiles { .. } => ErrorCode::BundleInvalid,
            SourceError::Archive(error) => match error {
                ArchiveError::TooLarge(_) | ArchiveError::Ratio(_) => ErrorCode::PayloadTooLarge,
                ArchiveError::Read(_) | ArchiveError::Write { .. } => return Self::internal(error),
                _ => ErrorCode::BundleInvalid,
            },
            SourceError::NoLockfile => ErrorCode::BuildFailed,
            SourceError::Scratch(_) => return Self::internal(error),
        };
        Self::new(code, error.to_string())
    }
}

impl From<&BuildError> for Error {
    fn from(error: &BuildError) -> Self {
        match error {
            BuildError::Problems(_) | BuildError::Install { .. } | BuildError::NoResult(_) => {
                Self::new(ErrorCode::BuildFailed, error.to_string())
            }
            BuildError::Ended { source: ToolError::Launch(_), .. } => {
                Self::new(ErrorCode::WorkerUnavailable, error.to_string())
            }
            BuildError::Ended { .. } => Self::new(ErrorCode::BuildFailed, error.to_string()),
            BuildError::Stopped => super::shutting_down(),
            BuildError::Io(error) => Self::internal(error),
        }
    }
}

impl From<BundleProblem> for Error {
    fn from(error: BundleProblem) -> Self {
        let details = match &error {
            BundleProblem::Syntax { entry, problems } => Some(json!({ "file": entry, "errors": problems })),
            BundleProblem::NoHandler { exports, .. } => Some(json!({ "exports": exports })),
            BundleProblem::NotText(_) => None,
            BundleProblem::Check { .. } | BundleProblem::Read(_) => return Self::internal(error),
        };
        Self { message: error.to_string(), code: ErrorCode::BundleInvalid, details }
    }
}

impl From<TelemetryError> for Error {
    fn from(error: TelemetryError) -> Self {
        Self::internal(error)
    }
}

impl From<&StartError> for Error {
    fn from(error: &StartError) -> Self {
        let details = json!({ "boot_log": error.boot_log() });
        match error {
            StartError::Load { error: load, boot_log } => load_error(load, boot_log),
            StartError::Exited(exit) if matches!(exit.reason, Some(KillReason::OutOfMemory { .. })) => {
                Self::new(ErrorCode::OutOfMemory, format!("the bundle cannot be loaded: out of memory: {exit}"))
                    .with_details(details)
            }
            // The function's code can fail a start only while its bundle loads.
            StartError::Exited(_) | StartError::Timeout { .. } | StartError::Protocol(_) => {
                Self::new(ErrorCode::BundleLoadError, format!("the bundle cannot be loaded: {error}"))
                    .with_details(details)
            }
            StartError::Bundle(error) => {
                Self::new(bundle_code(error).unwrap_or(ErrorCode::Internal), error.to_string())
            }
            StartError::Secret(error) => Self::new(ErrorCode::SecretUnavailable, error.to_string()),
            StartError::Launch(_) | StartError::Prepare(_) => {
                Self::new(ErrorCode::WorkerUnavailable, error.to_string()).with_details(details)
            }
        }
    }
}

fn load_error(load: &LoadError, boot_log: &[String]) -> Error {
    let place = match (&load.file, load.line, load.column) {
        (Some(file), Some(line), Some(column)) => {
            let file = file.rsplit('/').next().unwrap_or(file);
            format!(" ({file}:{line}:{column})")
        }
        _ => String::new(),
    };
    let code = match load.kind.as_str() {
        "syntax" | "no_handler" => ErrorCode::BundleInvalid,
        _ => ErrorCode::BundleLoadError,
    };
    let mut details = match serde_json::to_value(load) {
        Ok(Value::Object(details)) => details,
        _ => Map::new(),
    };
    details.insert("boot_log".into(), json!(boot_log));
    let name = load.name.as_deref().filter(|_| load.kind == "throw").map_or(String::new(), |name| format!("{name}: "));
    Error::new(code, format!("the bundle cannot be loaded: {name}{}{place}", load.message))
        .with_details(Value::Object(details))
}

fn exit_details(exit: &Exit) -> Value {
    use std::os::unix::process::ExitStatusExt;
    json!({ "exit_code": exit.status.code(), "signal": exit.status.signal(), "last_words": exit.last_words })
}

/// Codes for faults of the function: they are an answer, not a refusal.
pub(super) fn is_functions_fault(code: ErrorCode) -> bool {
    use ErrorCode::{HandlerError, OutOfMemory, Timeout, WorkerCrashed};
    matches!(code, HandlerError | Timeout | WorkerCrashed | OutOfMemory)
}

impl From<&InvokeError> for Error {
    fn from(error: &InvokeError) -> Self {
        let message = error.to_string();
        match error {
            InvokeError::QueueFull { retry_after } | InvokeError::QueueTimeout { retry_after, .. } => {
                let details = json!({ "retry_after_ms": retry_after.as_millis() as u64 });
                Self::new(ErrorCode::Overloaded, message).with_details(details)
            }
            InvokeError::Closed => {
                Self::new(ErrorCode::FunctionNotFound, "the function was deleted while the invocation waited")
            }
            InvokeError::Start(Some(error)) => error.as_ref().into(),
            InvokeError::Start(None) | InvokeError::Unreachable => Self::new(ErrorCode::WorkerUnavailable, message),
            InvokeError::Timeout { .. } | InvokeError::Stalled { .. } | InvokeError::Endless { .. } => {
                Self::new(ErrorCode::Timeout, message)
            }
            InvokeError::Crashed(exit) => Self::new(ErrorCode::WorkerCrashed, message).with_details(exit_details(exit)),
            InvokeError::OutOfMemory(exit) => {
                Self::new(ErrorCode::OutOfMemory, message).with_details(exit_details(exit))
            }
            InvokeError::Handler(failure) => {
                let name = failure.name.as_deref().unwrap_or("Error");
                let details = json!({ "name": failure.name, "stack": failure.stack });
                Self::new(ErrorCode::HandlerError, format!("{name}: {}", failure.message)).with_details(details)
            }
            InvokeError::BrokenRequest => Self::invalid(message),
            InvokeError::BrokenAnswer(_) => Self::new(ErrorCode::HandlerError, message),
        }
    }
}
