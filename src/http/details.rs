//! How much a caller of a function learns about a failure.
//!
//! A stack, a path or a line of output helps the function's developers and nobody else, and may contain what a stranger
//! must not see. So may the names that an error suggests and the message of an exception. `http.error_details` decides
//! whether such details go to everybody, to nobody, or to callers that may see the function's logs anyway. The log
//! always has them.

use super::{auth, face::Face, local, peer::Peer};
use crate::{
    commands::Context,
    config::ErrorDetails,
    error::{Error, ErrorCode},
    model::{FunctionId, Timestamp},
};
use http::HeaderValue;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Environment whose invocations are answered with details.
const DEV: &str = "dev";

/// Facts about a caller. None is looked up before an invocation has failed.
#[derive(Debug, Default)]
pub(super) struct Asker {
    /// See [`local::looks_local`].
    pub(super) looks_local: bool,
    /// The function, once it is known.
    pub(super) function: Option<FunctionId>,
    /// Whether the invocation runs in the environment for development.
    pub(super) is_dev: bool,
    /// Whether the caller has shown a token that allows the invocation.
    pub(super) has_token: bool,
    /// The header `Authorization` that the caller sent to a function that requires no token.
    pub(super) authorization: Option<HeaderValue>,
}

impl Asker {
    /// Notes the function and environment of the invocation.
    pub(super) fn calls(&mut self, function: FunctionId, environment: &str) {
        (self.function, self.is_dev) = (Some(function), environment == DEV);
    }

    /// Returns the failure as this caller may see it.
    pub(super) async fn told(
        &self,
        error: Error,
        (face, context): (&Face, &Arc<Context>),
        main: &Handle,
        peer: &Peer,
    ) -> Error {
        let sees_all = match context.config.load().http.error_details {
            ErrorDetails::Full => true,
            ErrorDetails::None => false,
            ErrorDetails::Auto => {
                self.is_dev
                    || self.has_token
                    || self.shows_token(context)
                    || (self.looks_local && local::is_local(face, context, main, peer).await)
            }
        };
        if sees_all { error } else { without_details(error) }
    }

    /// Whether the caller shows a token that may invoke the function or read its logs. The header belongs to the
    /// function if the function requires no token, so a wrong token does not count as a failed attempt.
    fn shows_token(&self, context: &Context) -> bool {
        let bearer = self.authorization.as_ref().and_then(auth::bearer_in);
        let grant = bearer.and_then(|bearer| context.authority.recognise(bearer, Timestamp::now()));
        grant.is_some_and(|grant| grant.may_see_failures(self.function))
    }
}

/// Reduces a failure to what every caller may see.
fn without_details(error: Error) -> Error {
    match sentence(error.code) {
        Some(sentence) => Error::new(error.code, sentence),
        // These details are about the caller's own token.
        None if error.code == ErrorCode::Forbidden => error,
        None => Error { details: None, ..error },
    }
}

/// Returns the message for strangers, or `None` if the daemon's own message only repeats the request and names limits.
fn sentence(code: ErrorCode) -> Option<&'static str> {
    use ErrorCode::*;
    match code {
        InvalidRequest | PayloadTooLarge | Unauthorized | Forbidden | FunctionNotFound | FunctionNotDeployed
        | VersionNotFound | AliasNotFound | Timeout | Overloaded | Starting | ShuttingDown => None,
        HandlerError => Some("the function failed; its log says why"),
        WorkerCrashed => Some("the function's process ended before the answer was complete; its log says why"),
        OutOfMemory => Some("the function took more memory than it may have; its log says more"),
        BundleNotFound | BundleInvalid | BundleLoadError | BuildFailed => {
            Some("the function cannot be loaded; its log says why")
        }
        WorkerUnavailable | SecretUnavailable => Some("the function cannot be started; the daemon's log says why"),
        ApprovalRequired => Some("this version may not be called by its own name"),
        Internal => Some("the daemon failed; its log says why"),
        UnknownCommand | VersionExists | VersionInUse | EnvironmentNotFound | DeploymentNotFound | TokenNotFound
        | VariableNotFound | Conflict | IdempotencyKeyReused | Cancelled => Some("the call cannot be carried out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stranger_is_told_no_facts_and_nothing_that_a_function_has_said() {
        for code in ErrorCode::ALL {
            let error = Error::new(*code, "secret words").with_details(json!({ "stack": "at /bundle/index.js" }));
            let told = without_details(error);
            assert_eq!(told.code, *code);
            assert!(told.details.is_none() || *code == ErrorCode::Forbidden, "{code}");
            if matches!(code, ErrorCode::HandlerError | ErrorCode::WorkerCrashed | ErrorCode::Internal) {
                assert!(!told.message.contains("secret"), "{code}");
            }
        }
    }
}
