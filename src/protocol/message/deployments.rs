//! What GET_DEPLOYMENTS says and answers.

use crate::model::{
    AliasName, DeploymentId, DeploymentKind, DeploymentStatus, EnvironmentName, FunctionId, Timestamp, VersionLabel,
};
use serde::{Deserialize, Serialize};

requests! {
    /// GET_DEPLOYMENTS.
    DeploymentsRequest {
        /// Id or name; all functions when absent, which needs a `status`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        function_id: String,
        /// Only those of this alias.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// Only those of this version, a label or a number, also where it was not published in the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// Only those that ended like this: `built`, `active`, `applied`, `superseded`, `failed`, `rejected` or `removed`;
        /// or those that have not, `building` and `pending_approval`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<DeploymentStatus>,
        /// Deployments at most; 100 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
        /// Deployments to skip.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u32>,
        /// The `next_cursor` of the page before, instead of `offset`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
}

messages! {
    /// GET_DEPLOYMENTS.
    DeploymentsResponse {
        /// Newest first.
        deployments: Vec<DeploymentInfo>,
        /// What asks for the next page as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    /// One deployment.
    DeploymentInfo {
        /// Its id.
        #[schemars(with = "DeploymentId")]
        deployment_id: String,
        /// The label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The number; absent where nothing was published.
        number: Option<u32>,
        /// The alias it was about.
        #[schemars(with = "AliasName")]
        alias: String,
        /// The environment of that alias.
        #[schemars(with = "EnvironmentName")]
        environment: String,
        /// What kind of act it was.
        kind: DeploymentKind,
        /// How it ended, or `building` while it runs.
        status: DeploymentStatus,
        /// Whether the alias points at it now.
        is_active: bool,
        /// The share of the alias's calls that the version got, in percent; all of them when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
        /// The label the alias pointed at before.
        #[schemars(with = "Option<VersionLabel>")]
        previous_version: Option<String>,
        /// When it was asked for.
        created_at: Timestamp,
        /// When it ended, or began to wait for approval; the time of the answer while it runs.
        finished_at: Timestamp,
        /// How long it took, loading and a wait for approval included.
        duration_ms: u64,
        /// Who asked.
        actor: String,
        /// Why.
        reason: Option<String>,
        /// What its build said, and why it failed.
        build_log: Option<String>,
        /// The function's id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// The function's name.
        function: String,
        /// Who approved or rejected it: an actor, or `levain` for the daemon itself.
        decided_by: Option<String>,
        /// Why.
        decision: Option<String>,
        /// When.
        decided_at: Option<Timestamp>,
        /// When it is rejected if nobody decides, while it waits for approval.
        expires_at: Option<Timestamp>,
    }
}
