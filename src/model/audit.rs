//! The audit trail of secrets: who did what, and when. It also covers the environments that decide who sees secrets,
//! and never holds a value.

use super::{EnvironmentName, FunctionId, Timestamp, VariableKey, words::words};
use std::sync::Arc;

words! {
    /// Kind of an audited act.
    SecretAction {
        /// A secret was created, or a plain variable became a secret.
        Set = "set",
        /// A secret got another value.
        Rotate = "rotate",
        /// A secret was deleted with all its generations.
        Delete = "delete",
        /// Secrets were given to a worker.
        Inject = "inject",
        /// A request to see a value was refused.
        RevealDenied = "reveal_denied",
        /// Every data key was sealed with another master key.
        RotateMasterKey = "rotate_master_key",
        /// An environment gained or lost its protection, or changed the environment it takes variables from.
        ChangeEnvironment = "change_environment",
    }
}

/// A row of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretAudit {
    /// Time of the act; of several injections, the first.
    pub at: Timestamp,
    /// Kind of act.
    pub action: SecretAction,
    /// Identity of the actor.
    pub actor: Arc<str>,
    /// Function concerned, if any.
    pub function: Option<FunctionId>,
    /// Environment concerned, if any.
    pub environment: Option<EnvironmentName>,
    /// Secret concerned, if any.
    pub key: Option<VariableKey>,
    /// Generation of the secret after the act.
    pub generation: Option<u32>,
    /// Further text, such as the version and the secrets of an injection.
    pub detail: Option<String>,
    /// Number of injections this row stands for.
    pub count: u32,
    /// Time of the last of those injections.
    pub last_at: Timestamp,
}
