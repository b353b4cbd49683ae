//! Requests and responses of the command protocol, with every field as it is on the wire.
//!
//! Times are RFC 3339 in UTC, and durations are milliseconds. A request's `function_id` accepts the id or the name.
//! Unknown fields are ignored.

use super::field::{Body, Fields, object, object_or_none};
use crate::error::ErrorCode;
use crate::model::{
    AliasName, ColdStart, Digest, FunctionId, FunctionName, FunctionStatus, InvocationId, Settings, SettingsPatch,
    Timestamp, VersionId, VersionLabel, VersionSource,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Defines messages. A field `name?: Type` is an `Option<Type>` that is left out of the message if it is `None`.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($fields:tt)* })*) => {
        $(message_fields! { [$(#[$doc])* $name] [] $($fields)* })*
    };
}

/// Defines one message: moves its fields from the tail into the second pair of brackets, one by one.
macro_rules! message_fields {
    ([$(#[$doc:meta])* $name:ident] [$($done:tt)*]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        pub struct $name { $($done)* }
    };
    ($head:tt [$($done:tt)*] $(#[$doc:meta])* $field:ident ?: $type:ty, $($rest:tt)*) => {
        message_fields! { $head [
            $($done)*
            $(#[$doc])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $field: Option<$type>,
        ] $($rest)* }
    };
    ($head:tt [$($done:tt)*] $(#[$doc:meta])* $field:ident: $type:ty, $($rest:tt)*) => {
        message_fields! { $head [$($done)* $(#[$doc])* pub $field: $type,] $($rest)* }
    };
}

/// Defines messages that have a default, so that a client names only the fields it needs.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($fields:tt)* })*) => {
        $(message_fields! { [$(#[$doc])* #[derive(Default)] $name] [] $($fields)* })*
    };
}

requests! {
    /// INVOKE.
    InvokeRequest {
        /// The function's id or name, optionally with a qualifier after a colon: `hello:STAGING`.
        #[schemars(length(min = 1))]
        function_id: String,
        /// HTTP method; when absent, `POST` with a body and `GET` without one.
        #[schemars(regex(pattern = "^(GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS)$"))]
        method?: String,
        /// Path, with or without a query; `/` when absent.
        path?: String,
        /// Request headers.
        headers?: Fields,
        /// Query parameters, added to those in `path`.
        query?: Fields,
        /// Request body.
        body?: Body,
        /// Timeout of this invocation in milliseconds. A value can shorten the function's timeout, not lengthen it.
        timeout_ms?: u64,
        /// An alias, a version label or a version number; `LIVE` when absent.
        qualifier?: String,
        /// Whether the response body arrives in partial frames as the function produces it.
        #[serde(default)]
        stream: bool,
    }
    /// REGISTER_FUNCTION.
    RegisterRequest {
        /// Name of the function.
        #[schemars(with = "FunctionName")]
        name: String,
        /// `bun`.
        #[schemars(regex(pattern = "^bun$"))]
        runtime?: String,
        /// Name of the export to call; `default` when absent.
        #[schemars(regex(pattern = r"^[\w$]{1,128}$"))]
        handler?: String,
        /// Settings that differ from the configured defaults; the others keep those defaults.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_none")]
        settings: Option<SettingsPatch>,
    }
    /// DELETE_FUNCTION.
    DeleteRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
    }
    /// GET_FUNCTION_VERSIONS.
    VersionsRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Most versions in the answer; 1000 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
        /// The `next_cursor` of the previous page.
        cursor?: String,
    }
    /// GET_FUNCTION.
    GetRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
    }
    /// WARMUP_FUNCTION.
    WarmupRequest {
        /// The function's id or name, optionally with a qualifier after a colon: `hello:STAGING`.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Number of workers to have ready.
        count: u32,
        /// An alias, a version label or a version number; `LIVE` when absent.
        qualifier?: String,
    }
    /// LIST_FUNCTIONS.
    ListRequest {
        /// Most functions in the answer; 1000 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
        /// Number of functions to skip.
        offset?: u32,
        /// The `next_cursor` of the previous page, instead of `offset`.
        cursor?: String,
    }
    /// UPDATE_FUNCTION.
    UpdateRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The settings to change.
        #[serde(deserialize_with = "object")]
        settings: SettingsPatch,
    }
    /// ROLLBACK.
    RollbackRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A version label, a version number or an alias; the alias's previous target when absent.
        version?: VersionRef,
        /// The alias to move back; `LIVE` when absent.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Reason, for the audit trail.
        reason?: String,
        /// Whether this is a dry run: everything is checked, no alias moves, and the answer holds the plan.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
}

/// Returns whether a flag is left out of the message.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A version, given as its number, its label, or an alias that points at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a version's number, its label, or an alias")]
pub enum VersionRef {
    /// The number: 1, 2, 3 …
    Number(u32),
    /// The label, or an alias.
    Label(String),
}

impl From<String> for VersionRef {
    fn from(label: String) -> Self {
        Self::Label(label)
    }
}

impl From<&str> for VersionRef {
    fn from(label: &str) -> Self {
        Self::Label(label.into())
    }
}

mod aliases;
mod approval;
mod backup;
mod cancel;
mod deploy;
mod deployments;
mod environments;
mod housekeeping;
mod manifest;
mod observe;
mod previews;
mod promotion;
mod rollout;
mod status;
mod tags;
mod tokens;
mod traffic;
mod variables;
pub use aliases::{
    AliasDetails, AliasInfo, AliasesRequest, AliasesResponse, DeleteAliasRequest, DeleteAliasResponse, SetAliasRequest,
};
pub use approval::{DecideRequest, PlanAction, PlanStep};
pub use backup::{BackupPart, BackupRequest, BackupResponse};
pub use cancel::{CancelRequest, CancelResponse};
pub use deploy::{DeployProgress, DeployRequest, DeployResponse};
pub use deployments::{DeploymentInfo, DeploymentsRequest, DeploymentsResponse};
pub use environments::{
    CompareEnvironmentsRequest, CompareEnvironmentsResponse, ComparedFunction, ComparedSide, ComparedState,
    ComparedVariable, CreateEnvironmentRequest, DeleteEnvironmentRequest, EnvironmentDetails, EnvironmentInfo,
    EnvironmentRequest, EnvironmentRun, EnvironmentsRequest, EnvironmentsResponse, SetEnvironmentRequest,
};
pub use housekeeping::{
    CleanupRequest, CleanupResponse, CompareRequest, CompareResponse, ComparedVersion, DeleteVersionRequest,
    FileChange, FunctionCleanup, KeptVersion, RemovedVersion, SettingChange,
};
pub use manifest::{
    ApplyManifestRequest, ApplyManifestResponse, ExportManifestRequest, Manifest, ManifestAlias, ManifestChange,
    ManifestDeployment, ManifestFunction, ManifestOther, ManifestSplit,
};
pub use observe::{
    LogLine, LogsRequest, LogsResponse, MetricsFigures, MetricsRequest, MetricsResponse, VersionMetrics,
};
pub use previews::{
    CleanupPreviewsRequest, DeletePreviewRequest, PreviewInfo, PreviewsRequest, PreviewsResponse,
    RemovedPreviewsResponse,
};
pub use promotion::{PromoteAllRequest, PromoteAllResponse, PromoteRequest, SkippedFunction};
pub use rollout::{
    ControlRolloutRequest, PolicyResponse, PolicyVerdict, RolloutAction, RolloutDetails, RolloutsRequest,
    RolloutsResponse, SetPolicyRequest, StartRolloutRequest,
};
pub use status::{DiskInfo, PoolInfo, SandboxInfo, StatusRequest, StatusResponse};
pub use tags::TagVersionRequest;
pub use tokens::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeTokenRequest, TokenInfo,
};
pub use traffic::{SetTrafficRequest, SplitInfo};
pub use variables::*;

messages! {
    /// GET_VERSION.
    VersionRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A version label, a version number or an alias.
        version: VersionRef,
    }
    /// INVOKE. If the function failed, `success` is false, `error` and `code` are set, and `status` is 0.
    InvokeResponse {
        /// Whether the function answered.
        success: bool,
        /// HTTP status of the function's response.
        status: u16,
        /// Headers of the function's response.
        headers: Fields,
        /// Body of the function's response; empty if it was sent in partial frames.
        body: Body,
        /// Time from the daemon's receipt of the command until the response was complete, in milliseconds.
        execution_time_ms: f64,
        /// Id of the invocation, as in its log lines.
        execution_id: InvocationId,
        /// Label of the version that ran.
        version: VersionLabel,
        /// `none` for a warm worker, `prewarmed` if a prewarmed worker loaded the function for this invocation,
        /// `spawned` if a new process was started.
        cold_start: ColdStart,
        /// Time spent waiting for a free worker, in milliseconds.
        queue_ms: f64,
        /// Time spent waiting for a worker to start, in milliseconds.
        start_ms: f64,
        /// Message of the function's failure.
        error?: String,
        /// `HANDLER_ERROR`, `TIMEOUT`, `WORKER_CRASHED` or `OUT_OF_MEMORY`.
        code?: ErrorCode,
        /// Details of the failure, such as the stack, the exit status or the worker's last output.
        details?: serde_json::Value,
    }
    /// The first partial frame of a streamed INVOKE.
    StreamHead {
        /// HTTP status of the function's response.
        status: u16,
        /// Headers of the function's response.
        headers: Fields,
        /// Id of the invocation, as in its log lines.
        execution_id: InvocationId,
        /// Label of the version that runs.
        version: VersionLabel,
        /// See [`InvokeResponse::cold_start`].
        cold_start: ColdStart,
        /// Time spent waiting for a free worker, in milliseconds.
        queue_ms: f64,
        /// Time spent waiting for a worker to start, in milliseconds.
        start_ms: f64,
    }
    /// The partial frames of a streamed INVOKE after the first.
    StreamChunk {
        /// The next bytes of the body.
        body: Body,
    }
    /// REGISTER_FUNCTION.
    RegisterResponse {
        /// Id of the function.
        function_id: FunctionId,
        /// Name of the function.
        name: String,
        /// `bun`.
        runtime: String,
        /// Name of the export that is called.
        handler: String,
        /// `registered` for a new function; an existing one may be further, such as `deployed`.
        status: FunctionStatus,
        /// Whether the function is new; false if one with the same settings existed already.
        created: bool,
    }
    /// DELETE_FUNCTION.
    DeleteResponse {
        /// Id of the function.
        function_id: FunctionId,
        /// `deleted`.
        status: FunctionStatus,
    }
    /// DELETE_VERSION.
    DeleteVersionResponse {
        /// Id of the function.
        function_id: FunctionId,
        /// Label of the deleted version.
        version: VersionLabel,
    }
    /// GET_FUNCTION_VERSIONS.
    VersionsResponse {
        /// Sorted from the newest to the oldest.
        versions: Vec<VersionInfo>,
        /// The `cursor` of the next page; absent on the last page.
        next_cursor?: String,
    }
    /// One version.
    VersionInfo {
        /// Id of the version.
        id: VersionId,
        /// Label of the version.
        version: VersionLabel,
        /// Number of the version within its function, from 1.
        number: u32,
        /// When the version was published.
        created_at: Timestamp,
        /// Path of the file that is imported.
        bundle_path: String,
        /// SHA-256 digest of the bundle.
        digest: Digest,
        /// Size of the bundle in bytes.
        size: u64,
        /// Free text, given at deployment or changed later.
        description: Option<String>,
        /// Free labels, given at deployment or changed later.
        tags: Vec<String>,
        /// Names of the aliases that point at the version.
        aliases: Vec<String>,
        /// Git commit that the version was built from.
        git_commit: Option<String>,
        /// Git branch that the version was built from.
        git_branch: Option<String>,
        /// How the code was delivered: `upload`, `path` or `archive`; `build` if the daemon built the bundle from it.
        source: VersionSource,
        /// Bun version that the bundle was checked with.
        bun_version: String,
        /// The function's settings when the version was published. Workers use the function's current settings instead.
        settings: Settings,
        /// Whether new workers load the version as bytecode.
        bytecode: bool,
    }
    /// WARMUP_FUNCTION.
    WarmupResponse {
        /// Number of workers that are ready.
        warm: u32,
        /// Number of worker starts that failed.
        failed: u32,
    }
    /// LIST_FUNCTIONS.
    ListResponse {
        /// Sorted by name.
        functions: Vec<FunctionSummary>,
        /// Number of functions on all pages together.
        total: u64,
        /// The `cursor` of the next page; absent on the last page.
        next_cursor?: String,
    }
    /// A function in a list.
    FunctionSummary {
        /// Id of the function.
        function_id: FunctionId,
        /// Name of the function.
        name: String,
        /// State of the function: `registered`, `built`, `deployed` or `deleted`.
        status: FunctionStatus,
        /// Label of the version that `LIVE` points at.
        active_version: Option<String>,
        /// Number of versions.
        versions: u32,
        /// Number of warm workers, idle or busy.
        warm: u32,
        /// When anything about the function last changed.
        updated_at: Timestamp,
    }
    /// GET_FUNCTION and UPDATE_FUNCTION.
    FunctionInfo {
        /// Id of the function.
        function_id: FunctionId,
        /// Name of the function.
        name: String,
        /// `bun`.
        runtime: String,
        /// Name of the export that is called.
        handler: String,
        /// State of the function: `registered`, `built`, `deployed` or `deleted`.
        status: FunctionStatus,
        /// Label of the version that `LIVE` points at.
        active_version: Option<String>,
        /// Id of the version that `LIVE` points at.
        active_version_id: Option<VersionId>,
        /// Current settings of the function.
        settings: Settings,
        /// Aliases of the function.
        aliases: Vec<AliasInfo>,
        /// Number of versions.
        versions: u32,
        /// Size of the bundles of all versions, in bytes.
        disk_bytes: u64,
        /// Pools of the function that have a worker or a waiting invocation.
        pools: Vec<PoolInfo>,
        /// When the function was registered.
        created_at: Timestamp,
        /// When anything about the function last changed.
        updated_at: Timestamp,
    }
}
