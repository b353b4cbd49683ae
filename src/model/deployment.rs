//! The audit trail: every act that pointed, or tried to point, an alias at a version, deleted it, or changed its policy.

use super::{AliasName, DeploymentId, EnvironmentName, FunctionId, Percent, Timestamp, VersionLabel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of act it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentKind {
    /// A version was deployed.
    Deploy,
    /// An alias went back to an earlier version.
    Rollback,
    /// A version that was published before was given an alias.
    Promote,
    /// The shares of an alias's two versions were changed.
    Traffic,
    /// An alias went back by its policy.
    AutoRollback,
    /// An alias was deleted.
    Remove,
    /// An alias was given a policy, or has none any more; its calls go where they went.
    Policy,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStatus {
    /// It runs: its code is prepared, built or loaded. It ends as one of the others.
    Building,
    /// The version was published; no alias was moved because none was asked for.
    Built,
    /// It waits until somebody approves or rejects it.
    PendingApproval,
    /// The alias points at its version.
    Active,
    /// Its version got a share of the alias's calls.
    Applied,
    /// A later deployment moved the alias on.
    Superseded,
    /// It did not pass; the alias stayed where it was.
    Failed,
    /// It was not approved; the alias stayed where it was.
    Rejected,
    /// The alias that pointed at its version is gone.
    Removed,
    /// The alias that points at its version is another one in something else.
    Changed,
}

/// One row of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its identity.
    pub id: DeploymentId,
    /// The function.
    pub function_id: FunctionId,
    /// The version's label; for a failed deployment the label that was asked for.
    pub label: VersionLabel,
    /// The version's number; absent where the version was never published.
    pub number: Option<u32>,
    /// The alias it was about.
    pub alias: AliasName,
    /// The environment that alias runs in.
    pub environment: EnvironmentName,
    /// What kind of act it was.
    pub kind: DeploymentKind,
    /// How it ended.
    pub status: DeploymentStatus,
    /// The share that the version gets as the alias's second one; all calls where absent.
    pub weight: Option<Percent>,
    /// The label the alias pointed at before.
    pub previous: Option<VersionLabel>,
    /// Who asked, as far as the daemon knows: `uid:1000` for the command socket.
    pub actor: String,
    /// Why, in the client's or the daemon's words.
    pub reason: Option<String>,
    /// What its build said, and why it failed.
    pub build_log: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended, or began to wait for approval; while it runs, when it was asked for.
    pub finished_at: Timestamp,
    /// What was said of it, if it waited for approval and somebody has decided.
    pub decision: Option<Decision>,
}

/// What somebody said of a deployment that waited for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who: as an actor, or `levain` for the daemon itself.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl Decision {
    /// Who decides where nobody was asked: what waited too long, or for a function that is gone.
    pub const DAEMON: &str = "levain";
}

impl DeploymentStatus {
    /// The word on the wire and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Built => "built",
            Self::PendingApproval => "pending_approval",
            Self::Active => "active",
            Self::Applied => "applied",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }

    /// Whether its version takes calls of its alias, or would once it is approved.
    #[must_use]
    pub fn takes_effect(self) -> bool {
        matches!(self, Self::Active | Self::Applied)
    }
}
