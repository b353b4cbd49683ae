//! The audit trail of secrets: who did what, and when, also with the environments that decide who sees them. Values are
//! never in it.

use super::{EnvironmentName, FunctionId, Timestamp, VariableKey};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretAction {
    /// A secret was made, or what was a plain variable became one.
    Set,
    /// A secret got another value.
    Rotate,
    /// A secret was deleted with all its generations.
    Delete,
    /// A worker was given secrets.
    Inject,
    /// Somebody asked to see a value.
    RevealDenied,
    /// All data keys were sealed with another master key.
    RotateMasterKey,
    /// An environment was protected or not any more, or takes variables from another one.
    ChangeEnvironment,
}

/// A row of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretAudit {
    /// When; of several injections, the first.
    pub at: Timestamp,
    /// What was done.
    pub action: SecretAction,
    /// By whom.
    pub actor: Arc<str>,
    /// The function it is about, if it is about one.
    pub function: Option<FunctionId>,
    /// The environment it is about, if it is about one.
    pub environment: Option<EnvironmentName>,
    /// The secret it is about, if it is about one.
    pub key: Option<VariableKey>,
    /// Its generation afterwards.
    pub generation: Option<u32>,
    /// More about it: the version and the secrets of an injection.
    pub detail: Option<String>,
    /// How many injections it stands for.
    pub count: u32,
    /// When the last of them was.
    pub last_at: Timestamp,
}
