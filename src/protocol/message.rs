//! Requests and responses of the command protocol, field by field as they stand on the wire.
//!
//! Times are RFC 3339 in UTC, durations are milliseconds. Where a field is called `function_id` it takes the id or the
//! name. Unknown fields are ignored.

use super::field::{Body, Fields, object, object_or_none};
use crate::error::ErrorCode;
use crate::model::{
    AliasName, ColdStart, Digest, FunctionId, FunctionName, FunctionStatus, InvocationId, Settings, SettingsPatch,
    Source, Timestamp, VersionId, VersionLabel,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        )*
    };
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        messages! { $($(#[$doc])* #[derive(Default)] $name {
            $($(#[$field_doc])* $field: $type,)*
        })* }
    };
}

requests! {
    /// INVOKE.
    InvokeRequest {
        /// Id or name; a qualifier may follow after a colon.
        #[schemars(length(min = 1))]
        function_id: String,
        /// HTTP method; `POST` when there is a body, else `GET`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^(GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS)$"))]
        method: Option<String>,
        /// Path, with or without a query; `/` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// Request headers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        headers: Option<Fields>,
        /// Query parameters, added to those in `path`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        query: Option<Fields>,
        /// Request body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Body>,
        /// Shortens the function's timeout; it cannot lengthen it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
        /// Alias, version label or number; `LIVE` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        qualifier: Option<String>,
        /// Whether the body comes in partial frames as it is produced.
        #[serde(default)]
        stream: bool,
    }
    /// REGISTER_FUNCTION.
    RegisterRequest {
        /// The function's name.
        #[schemars(with = "FunctionName")]
        name: String,
        /// `bun`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^bun$"))]
        runtime: Option<String>,
        /// The export to call; `default` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = r"^[\w$]{1,128}$"))]
        handler: Option<String>,
        /// Settings that differ from the configured defaults.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "object_or_none")]
        settings: Option<SettingsPatch>,
    }
    /// DELETE_FUNCTION.
    DeleteRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
    }
    /// GET_FUNCTION_VERSIONS.
    VersionsRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Versions at most; 1000 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
        /// The `next_cursor` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    /// GET_FUNCTION.
    GetRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
    }
    /// WARMUP_FUNCTION.
    WarmupRequest {
        /// Id or name; a qualifier may follow after a colon.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Workers to have ready.
        count: u32,
        /// Alias, version label or number; `LIVE` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        qualifier: Option<String>,
    }
    /// LIST_FUNCTIONS.
    ListRequest {
        /// Functions at most; 1000 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
        /// Functions to skip.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<u32>,
        /// The `next_cursor` of the page before, instead of `offset`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    /// UPDATE_FUNCTION.
    UpdateRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The settings to change.
        #[serde(deserialize_with = "object")]
        settings: SettingsPatch,
    }
    /// ROLLBACK.
    RollbackRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A label, a number or an alias; the previous target when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<VersionRef>,
        /// The alias to move back; `LIVE` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// Why, for the audit trail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Check everything, move nothing, and say what would happen.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
}

/// Whether a flag can be left out.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A version named by its number, its label, or an alias that points at it.
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
    /// What answers INVOKE. Where the function failed, `success` is false, `error` and `code` are set and `status` is 0.
    InvokeResponse {
        /// Whether the function gave an answer.
        success: bool,
        /// The answer's HTTP status.
        status: u16,
        /// The answer's headers.
        headers: Fields,
        /// The answer's body; empty when it came in partial frames.
        body: Body,
        /// From the daemon's receipt of the command until the answer was complete.
        execution_time_ms: f64,
        /// The invocation, as logs name it.
        #[schemars(with = "InvocationId")]
        execution_id: String,
        /// The label of the version that ran.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// `none`, `prewarmed` when a waiting process loaded the function for it, `spawned` when one was started.
        cold_start: ColdStart,
        /// Waiting for a free worker.
        queue_ms: f64,
        /// Waiting for a worker's start.
        start_ms: f64,
        /// What the function did wrong.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// `HANDLER_ERROR`, `TIMEOUT`, `WORKER_CRASHED` or `OUT_OF_MEMORY`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<ErrorCode>,
        /// Stack, exit status, last words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        details: Option<serde_json::Value>,
    }
    /// The first partial frame of a streamed INVOKE.
    StreamHead {
        /// The answer's HTTP status.
        status: u16,
        /// The answer's headers.
        headers: Fields,
        /// The invocation, as logs name it.
        #[schemars(with = "InvocationId")]
        execution_id: String,
        /// The label of the version that runs.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// See [`InvokeResponse::cold_start`].
        cold_start: ColdStart,
        /// Waiting for a free worker.
        queue_ms: f64,
        /// Waiting for a worker's start.
        start_ms: f64,
    }
    /// The partial frames after it.
    StreamChunk {
        /// The next bytes of the body.
        body: Body,
    }
    /// REGISTER_FUNCTION.
    RegisterResponse {
        /// The function's id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// Its name.
        name: String,
        /// `bun`.
        runtime: String,
        /// The export to call.
        handler: String,
        /// `registered`, or further if it existed.
        status: FunctionStatus,
        /// False when the same function was there already.
        created: bool,
    }
    /// DELETE_FUNCTION.
    DeleteResponse {
        /// The function's id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// `deleted`.
        status: FunctionStatus,
    }
    /// DELETE_VERSION.
    DeleteVersionResponse {
        /// The function's id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// The label that is gone.
        #[schemars(with = "VersionLabel")]
        version: String,
    }
    /// GET_FUNCTION_VERSIONS.
    VersionsResponse {
        /// Newest first.
        versions: Vec<VersionInfo>,
        /// What asks for the next page as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    /// One version.
    VersionInfo {
        /// Its id.
        #[schemars(with = "VersionId")]
        id: String,
        /// Its label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// 1, 2, 3 …
        number: u32,
        /// When it was published.
        created_at: Timestamp,
        /// The file that is imported.
        bundle_path: String,
        /// SHA-256 of the bundle.
        digest: Digest,
        /// Bytes of the bundle.
        size: u64,
        /// Free text.
        description: Option<String>,
        /// Free labels.
        tags: Vec<String>,
        /// Aliases that point at it.
        aliases: Vec<String>,
        /// The commit it was built from.
        git_commit: Option<String>,
        /// The branch it was built from.
        git_branch: Option<String>,
        /// How its code came in: `upload`, `path`, `archive`, or `build` where it was built from what came.
        source: Source,
        /// The Bun version it was checked with.
        bun_version: String,
        /// The function's settings when it was published; those of today apply.
        settings: Settings,
        /// Whether workers that start now load it as bytecode.
        bytecode: bool,
    }
    /// WARMUP_FUNCTION.
    WarmupResponse {
        /// Workers that are ready.
        warm: u32,
        /// Starts that failed.
        failed: u32,
    }
    /// LIST_FUNCTIONS.
    ListResponse {
        /// By name.
        functions: Vec<FunctionSummary>,
        /// How many there are besides paging.
        total: u64,
        /// What asks for the next page as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    /// A function in a list.
    FunctionSummary {
        /// Its id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// Its name.
        name: String,
        /// How far it has come.
        status: FunctionStatus,
        /// LIVE's target.
        active_version: Option<String>,
        /// How many versions it has.
        versions: u32,
        /// Workers that are ready.
        warm: u32,
        /// When anything about it last changed.
        updated_at: Timestamp,
    }
    /// GET_FUNCTION and UPDATE_FUNCTION.
    FunctionInfo {
        /// Its id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// Its name.
        name: String,
        /// `bun`.
        runtime: String,
        /// The export to call.
        handler: String,
        /// How far it has come.
        status: FunctionStatus,
        /// LIVE's target.
        active_version: Option<String>,
        /// The id of LIVE's target.
        #[schemars(with = "Option<VersionId>")]
        active_version_id: Option<String>,
        /// Its settings.
        settings: Settings,
        /// Its aliases.
        aliases: Vec<AliasInfo>,
        /// How many versions it has.
        versions: u32,
        /// Bytes of their bundles.
        disk_bytes: u64,
        /// Its workers, a row for each version that has any.
        pools: Vec<PoolInfo>,
        /// When it was registered.
        created_at: Timestamp,
        /// When anything about it last changed.
        updated_at: Timestamp,
    }
}
