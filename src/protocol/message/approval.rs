//! What commands about approval and plans say and answer.

use crate::model::DeploymentId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

requests! {
    /// DECIDE_DEPLOYMENT.
    DecideRequest {
        /// The deployment, which waits for approval.
        #[schemars(with = "DeploymentId")]
        deployment_id: String,
        /// Whether it takes effect; it is rejected if not.
        approve: bool,
        /// Why, for the audit trail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
}

messages! {
    /// One step of what a command would do.
    PlanStep {
        /// What it is.
        action: PlanAction,
        /// The same in words, with names and numbers.
        detail: String,
    }
}

/// A kind of step, in the order in which steps come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// The function is made.
    Register,
    /// A version is published.
    Publish,
    /// A version that is there already is used.
    Reuse,
    /// Workers load the version before anything else happens.
    Load,
    /// The alias stays where it is, because it is there already or no move was asked for.
    Stay,
    /// The deployment waits for approval, and the alias stays where it is until then.
    WaitForApproval,
    /// The alias is made.
    Make,
    /// The alias moves to the version, or to another environment.
    Move,
    /// The alias no longer divides its calls.
    EndSplit,
    /// The rollout of the alias that goes on is aborted.
    EndRollout,
    /// The version gets a share of the alias's calls.
    Share,
    /// What keeps a caller with one of two versions changes.
    Stick,
    /// The alias is described.
    Describe,
    /// `ROLLBACK` follows.
    Follow,
    /// A version that had calls keeps a warm worker for a while.
    KeepWarm,
    /// An old version is removed.
    CleanUp,
}
