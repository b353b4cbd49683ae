//! Messages of the commands about approval, and the steps of a plan.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

requests! {
    /// DECIDE_DEPLOYMENT.
    DecideRequest {
        /// Id of the deployment, which must be waiting for approval; or a unique beginning or end of it, or the
        /// function with one waiting deployment.
        #[schemars(length(min = 1))]
        deployment_id: String,
        /// Whether the deployment is approved; false rejects it.
        approve: bool,
        /// Reason, for the audit trail.
        reason?: String,
    }
}

messages! {
    /// One step of a dry run's plan.
    PlanStep {
        /// Kind of the step.
        action: PlanAction,
        /// Description of the step, with names and numbers.
        detail: String,
    }
}

/// Kind of a step, in the order in which the steps happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// The function is created.
    Register,
    /// A version is published.
    Publish,
    /// An existing version is used.
    Reuse,
    /// Workers load the version before anything else happens.
    Load,
    /// The alias stays, because it points at the version already or no move was requested.
    Stay,
    /// The deployment waits for approval, and the alias stays until then.
    WaitForApproval,
    /// The alias is created.
    Make,
    /// The alias moves to the version, or to another environment.
    Move,
    /// The alias's traffic split ends.
    EndSplit,
    /// The alias's rollout in progress is aborted.
    EndRollout,
    /// The version gets a share of the alias's invocations.
    Share,
    /// The header or cookie that keeps a caller on one of two versions changes.
    Stick,
    /// The alias's description changes.
    Describe,
    /// `ROLLBACK` moves to the previous target of `LIVE`.
    Follow,
    /// A version that had traffic keeps a warm worker for a while.
    KeepWarm,
    /// An old version is deleted.
    CleanUp,
}
