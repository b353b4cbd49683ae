//! The audit trail of aliases: every act that pointed, or tried to point, an alias at a version, deleted it, or changed
//! its policy.

use super::{AliasName, DeploymentId, EnvironmentName, FunctionId, Percent, Timestamp, VersionLabel, words::words};

words! {
    /// Kind of a deployment.
    DeploymentKind {
        /// A version was deployed.
        Deploy = "deploy",
        /// An alias went back to an earlier version.
        Rollback = "rollback",
        /// An alias was pointed at a version published earlier.
        Promote = "promote",
        /// The shares of an alias's two versions were changed.
        Traffic = "traffic",
        /// An alias was rolled back by its policy.
        AutoRollback = "auto_rollback",
        /// An alias was deleted.
        Remove = "remove",
        /// An alias got a policy or lost it; the routing of its calls did not change.
        Policy = "policy",
    }
}

words! {
    /// State of a deployment.
    DeploymentStatus {
        /// Code is being prepared, built or loaded. One of the other states follows.
        Building = "building",
        /// The version was published; no alias was moved because none was requested.
        Built = "built",
        /// Waiting until somebody approves or rejects it.
        PendingApproval = "pending_approval",
        /// The alias points at its version.
        Active = "active",
        /// The version got a share of the alias's calls.
        Applied = "applied",
        /// A later deployment moved the alias on.
        Superseded = "superseded",
        /// The deployment failed; the alias stayed where it was.
        Failed = "failed",
        /// Approval was refused; the alias stayed where it was.
        Rejected = "rejected",
        /// The alias that pointed at its version is gone.
        Removed = "removed",
        /// The alias points where it did; the act changed something else about it.
        Changed = "changed",
    }
}

words! {
    /// Outcome of a request to deploy a version or to move an alias.
    DeployOutcome {
        /// The alias is as requested.
        Deployed = "deployed",
        /// The deployment waits for approval; the alias stays.
        PendingApproval = "pending_approval",
        /// Approval was refused; the alias stays.
        Rejected = "rejected",
        /// The version is published; the alias was not to move.
        Built = "built",
        /// Dry run: everything was checked, and nothing was kept.
        Checked = "checked",
    }
}

impl From<DeploymentStatus> for DeployOutcome {
    fn from(status: DeploymentStatus) -> Self {
        match status {
            DeploymentStatus::PendingApproval => Self::PendingApproval,
            DeploymentStatus::Rejected => Self::Rejected,
            status if status.takes_effect() => Self::Deployed,
            _ => Self::Built,
        }
    }
}

/// One row of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Identity of the deployment.
    pub id: DeploymentId,
    /// Function concerned.
    pub function_id: FunctionId,
    /// Label of the version; for a failed deployment, the requested label.
    pub label: VersionLabel,
    /// Number of the version; absent if the version was never published.
    pub number: Option<u32>,
    /// Alias concerned.
    pub alias: AliasName,
    /// Environment the alias runs in.
    pub environment: EnvironmentName,
    /// Kind of act.
    pub kind: DeploymentKind,
    /// State of the deployment.
    pub status: DeploymentStatus,
    /// Share of calls that the version gets as the alias's second version; absent means all calls.
    pub weight: Option<Percent>,
    /// Label the alias pointed at before.
    pub previous: Option<VersionLabel>,
    /// Identity of the requester, as far as the daemon knows: `uid:1000` for the command socket.
    pub actor: String,
    /// Reason, in the client's or the daemon's words.
    pub reason: Option<String>,
    /// Output of the build, and why it failed.
    pub build_log: Option<String>,
    /// Time of the request.
    pub created_at: Timestamp,
    /// Time when it ended or began to wait for approval; while it runs, the time of the request.
    pub finished_at: Timestamp,
    /// Decision about it, if it waited for approval and somebody has decided.
    pub decision: Option<Decision>,
}

/// Approval or rejection of a deployment that waited for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Actor who decided, or `levain` for the daemon itself.
    pub by: String,
    /// Reason given.
    pub reason: Option<String>,
    /// Time of the decision.
    pub at: Timestamp,
}

impl Decision {
    /// Actor of decisions that the daemon makes itself: the deployment waited too long, or its function is gone.
    pub const DAEMON: &str = "levain";
}

impl DeploymentStatus {
    /// Whether the version takes calls of its alias, or would once it is approved.
    #[must_use]
    pub fn takes_effect(self) -> bool {
        matches!(self, Self::Active | Self::Applied)
    }
}
