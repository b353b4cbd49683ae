//! Reasons to keep a version.

use crate::model::{AliasName, DeploymentId};
use std::fmt;

/// Reason to keep a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// The version is one of the newest.
    Newest,
    /// An alias sends calls to the version, or may.
    Alias(AliasName),
    /// A running or paused rollout raises its share of this alias's calls.
    Rollout(AliasName),
    /// A deployment of the version waits for approval.
    Approval(DeploymentId),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Alias(name) => write!(f, "alias {name}"),
            Self::Rollout(alias) => write!(f, "rollout of {alias}"),
            Self::Approval(deployment) => write!(f, "approval of {deployment}"),
        }
    }
}
