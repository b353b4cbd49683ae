//! Messages of GET_DEPLOYMENTS.

use crate::model::{
    AliasName, DeploymentId, DeploymentKind, DeploymentStatus, EnvironmentName, FunctionId, Timestamp, VersionLabel,
};
use serde::{Deserialize, Serialize};

requests! {
    /// GET_DEPLOYMENTS.
    DeploymentsRequest {
        /// The function's id or name; all functions when absent, which needs a `status`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        function_id: String,
        /// Only deployments of this alias.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Only deployments of this version, given as a label or a number, even if it was never published.
        version?: String,
        /// Only deployments with this status: `built`, `active`, `applied`, `superseded`, `failed`, `rejected`,
        /// `removed` or `changed`, or one of those in progress, `building` and `pending_approval`.
        status?: DeploymentStatus,
        /// Most deployments in the answer; 100 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
        /// Number of deployments to skip.
        offset?: u32,
        /// The `next_cursor` of the previous page, instead of `offset`.
        cursor?: String,
    }
}

messages! {
    /// GET_DEPLOYMENTS.
    DeploymentsResponse {
        /// Sorted from the newest to the oldest.
        deployments: Vec<DeploymentInfo>,
        /// The `cursor` of the next page; absent on the last page.
        next_cursor?: String,
    }
    /// One deployment.
    DeploymentInfo {
        /// Id of the deployment.
        #[schemars(with = "DeploymentId")]
        deployment_id: String,
        /// Label of the version.
        version: VersionLabel,
        /// Number of the version; absent if no version was published.
        number: Option<u32>,
        /// Alias that the deployment concerns.
        alias: AliasName,
        /// Environment that the alias runs in.
        environment: EnvironmentName,
        /// Kind of the deployment.
        kind: DeploymentKind,
        /// Outcome of the deployment; `building` while it runs.
        status: DeploymentStatus,
        /// Whether the alias points at the version now.
        is_active: bool,
        /// Share of the alias's invocations that the version got, in percent; absent if it got all of them.
        weight?: u32,
        /// Label of the version that the alias pointed at before.
        previous_version: Option<VersionLabel>,
        /// When the deployment was requested.
        created_at: Timestamp,
        /// When the deployment ended or began to wait for approval; the time of the answer while it runs.
        finished_at: Timestamp,
        /// Duration in milliseconds, including loading and a wait for approval.
        duration_ms: u64,
        /// Actor who requested it.
        actor: String,
        /// Reason that the actor gave.
        reason: Option<String>,
        /// Log of its build, and the cause of a failure.
        build_log: Option<String>,
        /// Id of the function.
        function_id: FunctionId,
        /// Name of the function.
        function: String,
        /// Actor who approved or rejected it; `levain` for the daemon itself.
        decided_by: Option<String>,
        /// Reason for the approval or rejection.
        decision: Option<String>,
        /// When it was approved or rejected.
        decided_at: Option<Timestamp>,
        /// When it is rejected automatically, while it waits for approval.
        expires_at: Option<Timestamp>,
    }
}
