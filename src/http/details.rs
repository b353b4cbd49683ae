//! How much a caller of a function is told about a failure.
//!
//! A stack, a path or a line of output helps whoever develops a function and nobody else, and may have in it what is none
//! of a stranger's business. So do the names that an error suggests, and the message of what a function has thrown. As
//! `http.error_details` says, such facts go to everybody, to nobody, or to those callers who may see the function's logs
//! anyway. The log always has them.

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

/// The environment whose calls are answered with details.
const DEV: &str = "dev";

/// What is known of a caller. Nothing is looked up for it until a call has failed.
#[derive(Debug, Default)]
pub(super) struct Asker {
    /// See [`local::looks_local`].
    pub(super) looks_local: bool,
    /// The function, once that is known.
    pub(super) function: Option<FunctionId>,
    /// The environment in which the call runs is the one for development.
    pub(super) is_dev: bool,
    /// It has shown a token that allows the call.
    pub(super) has_token: bool,
    /// What it has sent to a function that asks for no token.
    pub(super) authorization: Option<HeaderValue>,
}

impl Asker {
    /// Notes where a call goes.
    pub(super) fn calls(&mut self, function: FunctionId, environment: &str) {
        (self.function, self.is_dev) = (Some(function), environment == DEV);
    }

    /// The failure as this caller is told of it.
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

    /// Whether it shows a token that is good for calls of the function or for its logs. The header is the function's own
    /// where the function asks for no token: a wrong one is no attempt.
    fn shows_token(&self, context: &Context) -> bool {
        let bearer = self.authorization.as_ref().and_then(auth::bearer_in);
        let grant = bearer.and_then(|bearer| context.authority.recognise(bearer, Timestamp::now()));
        grant.is_some_and(|grant| grant.may_see_failures(self.function))
    }
}

/// What everybody may know of a failure.
fn without_details(error: Error) -> Error {
    match sentence(error.code) {
        Some(sentence) => Error::new(error.code, sentence),
        // Such details are about the token that the caller has sent.
        None if error.code == ErrorCode::Forbidden => error,
        None => Error { details: None, ..error },
    }
}

/// The message for strangers; none where the daemon's own has nothing in it but what the request has said and limits.
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
