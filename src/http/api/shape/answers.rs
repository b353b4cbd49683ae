//! Answers that have another form over HTTP than on the command socket: those fields that clients of other systems know,
//! and all of the command's own whose names they leave free.

use crate::{
    model::{
        AliasName, ColdStart, DeploymentId, DeploymentKind, DeploymentStatus, Digest, EnvironmentName, FunctionId,
        FunctionName, InvocationId, Timestamp, VersionLabel,
    },
    protocol::{
        field::Fields,
        message::{DeployResponse, DeploymentInfo, DeploymentsResponse, InvokeResponse, PlanStep},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// What answers a deploy.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http::api) struct Deployed {
    /// The function's id.
    #[schemars(with = "FunctionId")]
    id: String,
    /// The function's name; absent in a dry run of one that is not there.
    name: Option<FunctionName>,
    /// The version's number.
    version: u32,
    /// The version's label.
    #[schemars(with = "VersionLabel")]
    label: String,
    /// The deployment; empty in a dry run, and where nothing was to be done.
    #[serde(rename = "deploymentId")]
    deployment: String,
    /// `active`, `pending_approval` when somebody has to approve it first, `rejected` when it was, `built` when the alias
    /// was not moved, or `checked` in a dry run.
    #[schemars(regex(pattern = "^(active|pending_approval|rejected|built|checked)$"))]
    status: String,
    /// Whether the function was made with it.
    #[serde(rename = "isNewFunction")]
    is_new_function: bool,
    /// When the version was published; absent in a dry run.
    #[serde(rename = "createdAt")]
    created: Option<Timestamp>,
    #[serde(flatten)]
    act: Act,
}

/// What answers a rollback.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http::api) struct RolledBack {
    /// What was done, in words.
    message: String,
    /// The version's number.
    version: u32,
    /// The version's label.
    #[schemars(with = "VersionLabel")]
    label: String,
    /// The deployment; empty in a dry run, and where nothing was to be done.
    #[serde(rename = "deploymentId")]
    deployment: String,
    /// `deployed`, `pending_approval` when somebody has to approve it first, `rejected` when it was, or `checked` in a dry
    /// run.
    #[schemars(regex(pattern = "^(deployed|pending_approval|rejected|checked)$"))]
    status: String,
    #[serde(flatten)]
    act: Act,
}

/// The command's own fields of both.
#[derive(Debug, Serialize, JsonSchema)]
struct Act {
    /// The same as `deploymentId`.
    deployment_id: String,
    /// The function's id.
    #[schemars(with = "FunctionId")]
    function_id: String,
    /// The same as `version`.
    number: u32,
    /// The alias it was about.
    #[schemars(with = "AliasName")]
    alias: String,
    /// The environment that alias runs in.
    #[schemars(with = "EnvironmentName")]
    environment: String,
    /// The share of the alias's calls that the version got, in percent; all of them when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    /// The label the alias pointed at before.
    #[schemars(with = "Option<VersionLabel>")]
    previous_version: Option<String>,
    /// The share that `previous_version` had as the alias's second version, in percent, where that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_weight: Option<u32>,
    /// Whether a new version was published; false when an existing one was re-activated.
    published: bool,
    /// Whether the code that was sent is that of a version that is published already, which keeps what it says of itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    reused: bool,
    /// Whether the alias sent its calls there already, so that nothing moved.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    unchanged: bool,
    /// The bundle's digest.
    digest: Digest,
    /// Bytes of the bundle.
    size: u64,
    /// How long the command took.
    duration_ms: f64,
    /// Where the preview is, by path; only for a preview.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Where it is by a host name of its own; absent where the names do not make one.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_url: Option<String>,
    /// When it goes by itself; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// What would happen, step by step; only in a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    plan: Vec<PlanStep>,
}

/// The label, the status, and all else.
fn parts(answer: DeployResponse) -> (String, String, Act) {
    // Every field, so that none is forgotten here. That the function is new is told apart.
    let DeployResponse {
        deployment_id,
        function_id,
        version,
        number,
        alias,
        environment,
        weight,
        status,
        previous_version,
        previous_weight,
        published,
        reused,
        unchanged,
        new_function: _,
        digest,
        size,
        duration_ms,
        url,
        host_url,
        expires_at,
        plan,
    } = answer;
    let act = Act {
        deployment_id,
        function_id,
        number,
        alias,
        environment,
        weight,
        previous_version,
        previous_weight,
        published,
        reused,
        unchanged,
        digest,
        size,
        duration_ms,
        url,
        host_url,
        expires_at,
        plan,
    };
    (version, status, act)
}

impl Deployed {
    pub(super) fn new(answer: DeployResponse, name: Option<FunctionName>, created: Option<Timestamp>) -> Self {
        let is_new_function = answer.new_function;
        let (label, status, act) = parts(answer);
        Self {
            id: act.function_id.clone(),
            name,
            version: act.number,
            label,
            deployment: act.deployment_id.clone(),
            status: if status == "deployed" { "active".into() } else { status },
            is_new_function,
            created,
            act,
        }
    }
}

impl From<DeployResponse> for RolledBack {
    fn from(answer: DeployResponse) -> Self {
        let (label, status, act) = parts(answer);
        Self {
            message: match status.as_str() {
                "deployed" => format!("Successfully rolled back to version {}", act.number),
                "checked" => format!("This would roll back to version {}", act.number),
                other => format!("The rollback to version {} is {}", act.number, other.replace('_', " ")),
            },
            version: act.number,
            label,
            deployment: act.deployment_id.clone(),
            status,
            act,
        }
    }
}

/// What answers a question for deployments.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http::api) struct DeploymentRows {
    /// Newest first.
    deployments: Vec<DeploymentRow>,
    /// What asks for the next page as its `cursor`; absent in the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// One deployment.
#[derive(Debug, Serialize, JsonSchema)]
struct DeploymentRow {
    /// Its id.
    #[schemars(with = "DeploymentId")]
    id: String,
    /// The version's number; absent where nothing was published.
    version: Option<u32>,
    /// The version's label.
    #[schemars(with = "VersionLabel")]
    label: String,
    /// Whether the alias points at it now.
    #[serde(rename = "isActive")]
    active: bool,
    /// When it ended, or began to wait for approval.
    #[serde(rename = "deployedAt")]
    deployed: Timestamp,
    /// The same as `id`.
    #[schemars(with = "DeploymentId")]
    deployment_id: String,
    /// The same as `version`.
    number: Option<u32>,
    /// The alias it was about.
    #[schemars(with = "AliasName")]
    alias: String,
    /// The environment of that alias.
    #[schemars(with = "EnvironmentName")]
    environment: String,
    /// What kind of act it was.
    kind: DeploymentKind,
    /// How it ended.
    status: DeploymentStatus,
    /// The same as `isActive`.
    is_active: bool,
    /// The share of the alias's calls that the version got, in percent; all of them when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    /// The label the alias pointed at before.
    #[schemars(with = "Option<VersionLabel>")]
    previous_version: Option<String>,
    /// When it was asked for.
    created_at: Timestamp,
    /// The same as `deployedAt`.
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
    /// The function's name; empty where it is deleted.
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

impl From<DeploymentsResponse> for DeploymentRows {
    fn from(answer: DeploymentsResponse) -> Self {
        let next_cursor = answer.next_cursor;
        Self { deployments: answer.deployments.into_iter().map(Into::into).collect(), next_cursor }
    }
}

impl From<DeploymentInfo> for DeploymentRow {
    fn from(row: DeploymentInfo) -> Self {
        Self {
            id: row.deployment_id.clone(),
            version: row.number,
            label: row.version,
            active: row.is_active,
            deployed: row.finished_at,
            deployment_id: row.deployment_id,
            number: row.number,
            alias: row.alias,
            environment: row.environment,
            kind: row.kind,
            status: row.status,
            is_active: row.is_active,
            weight: row.weight,
            previous_version: row.previous_version,
            created_at: row.created_at,
            finished_at: row.finished_at,
            duration_ms: row.duration_ms,
            actor: row.actor,
            reason: row.reason,
            build_log: row.build_log,
            function_id: row.function_id,
            function: row.function,
            decided_by: row.decided_by,
            decision: row.decision,
            decided_at: row.decided_at,
            expires_at: row.expires_at,
        }
    }
}

/// What answers a call of a function.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::http::api) struct Invoked {
    /// Whether the function gave an answer.
    success: bool,
    /// The answer's HTTP status; 0 where there is none.
    status: u16,
    /// The answer's headers.
    headers: Fields,
    /// The answer's body: JSON where its content type says so, else a text, or base64 where it is neither.
    body: Value,
    /// Whether the body is base64.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    is_base64: bool,
    /// From the daemon's receipt of the command until the answer was complete.
    execution_time_ms: f64,
    /// The invocation, as logs name it.
    #[schemars(with = "InvocationId")]
    execution_id: String,
    /// The label of the version that ran.
    #[schemars(with = "VersionLabel")]
    version: String,
    /// Which start it waited for.
    cold_start: ColdStart,
    /// Waiting for a free worker.
    queue_ms: f64,
    /// Waiting for a worker's start.
    start_ms: f64,
    /// What the function did wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// `HANDLER_ERROR`, `TIMEOUT`, `WORKER_CRASHED` or `OUT_OF_MEMORY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<crate::error::ErrorCode>,
    /// Stack, exit status, last words.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

impl From<InvokeResponse> for Invoked {
    fn from(answer: InvokeResponse) -> Self {
        let is_json = answer.headers.get("content-type").is_some_and(|it| it.starts_with("application/json"));
        let (body, is_base64) = match std::str::from_utf8(&answer.body.0) {
            Ok(text) => {
                let parsed = is_json.then(|| serde_json::from_str(text).ok()).flatten();
                (parsed.unwrap_or_else(|| text.into()), false)
            }
            Err(_) => (STANDARD.encode(&answer.body.0).into(), true),
        };
        Self {
            success: answer.success,
            status: answer.status,
            headers: answer.headers,
            body,
            is_base64,
            execution_time_ms: answer.execution_time_ms,
            execution_id: answer.execution_id,
            version: answer.version,
            cold_start: answer.cold_start,
            queue_ms: answer.queue_ms,
            start_ms: answer.start_ms,
            error: answer.error,
            code: answer.code,
            details: answer.details,
        }
    }
}
