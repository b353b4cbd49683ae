//! Answers whose form over HTTP differs from that on the command socket: the fields known to clients of other systems,
//! and all of the command's own fields whose names do not clash with them.

use crate::{
    commands::{Context, Response},
    error::Error,
    model::{
        AliasName, ColdStart, DeployOutcome, DeploymentId, DeploymentKind, DeploymentStatus, Digest, EnvironmentName,
        FunctionId, FunctionName, InvocationId, Timestamp, VersionLabel,
    },
    protocol::{
        field::Fields,
        ipc::{CommandRequest, Encoding},
        message::{
            DeployRequest, DeployResponse, DeploymentInfo, DeploymentsRequest, DeploymentsResponse, InvokeRequest,
            InvokeResponse, PlanStep, RollbackRequest,
        },
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;
use std::any::Any;

/// Encodes a command's response.
type WriteAnswer = fn(Box<dyn Response>, &Context) -> Result<Vec<u8>, Error>;

/// Form of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerForm {
    /// Encodes a command's response.
    pub(super) write: WriteAnswer,
    /// JSON Schema of the form.
    pub(super) schema: fn(&mut SchemaGenerator) -> Schema,
}

impl AnswerForm {
    pub(super) const fn of<R: CommandRequest, F: AnswerTo<R>>() -> Self {
        Self { write: write::<R, F>, schema: SchemaGenerator::subschema_for::<F> }
    }
}

/// An answer to the command with this request.
pub(super) trait AnswerTo<R: CommandRequest>: Serialize + JsonSchema {
    fn new(response: R::Response, context: &Context) -> Self;
}

fn write<R: CommandRequest, F: AnswerTo<R>>(response: Box<dyn Response>, context: &Context) -> Result<Vec<u8>, Error> {
    let response: Box<dyn Any> = response;
    let response = response.downcast::<R::Response>().map_err(|_| Error::internal("a response of another command"))?;
    Encoding::Json.write(&F::new(*response, context))
}

/// Answer to a deploy.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Deployed {
    /// The function's id.
    id: FunctionId,
    /// The function's name; absent in a dry run that would create the function.
    name: Option<FunctionName>,
    /// The version's number.
    version: u32,
    /// The version's label.
    label: VersionLabel,
    /// The deployment's id; empty in a dry run, and if there was nothing to do.
    #[serde(rename = "deploymentId")]
    deployment: String,
    /// `active`, `pending_approval` when somebody has to approve it first, `rejected` when it was, `built` when the alias
    /// was not moved, or `checked` in a dry run.
    #[schemars(regex(pattern = "^(active|pending_approval|rejected|built|checked)$"))]
    status: &'static str,
    /// Whether the deployment created the function.
    #[serde(rename = "isNewFunction")]
    is_new_function: bool,
    /// When the version was published; absent in a dry run.
    #[serde(rename = "createdAt")]
    created: Option<Timestamp>,
    #[serde(flatten)]
    act: Act,
}

/// Answer to a rollback.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RolledBack {
    /// Outcome in words.
    message: String,
    /// The version's number.
    version: u32,
    /// The version's label.
    label: VersionLabel,
    /// The deployment's id; empty in a dry run, and if there was nothing to do.
    #[serde(rename = "deploymentId")]
    deployment: String,
    /// `deployed`, `pending_approval` when somebody has to approve it first, `rejected` when it was, or `checked` in a dry
    /// run.
    status: DeployOutcome,
    #[serde(flatten)]
    act: Act,
}

/// Fields of the command that both answers share.
#[derive(Debug, Serialize, JsonSchema)]
struct Act {
    /// Equal to `deploymentId`.
    deployment_id: String,
    /// The function's id.
    function_id: FunctionId,
    /// Equal to `version`.
    number: u32,
    /// The alias that was moved.
    alias: AliasName,
    /// The environment of the alias.
    environment: EnvironmentName,
    /// The share of the alias's invocations that the version got, in percent; absent for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    /// The label the alias pointed at before.
    previous_version: Option<VersionLabel>,
    /// The share that `previous_version` had as the alias's second version, in percent, if it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_weight: Option<u32>,
    /// Whether a new version was published; false when an existing one was re-activated.
    published: bool,
    /// Whether the sent code equals that of a published version, which keeps its own description.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    reused: bool,
    /// Whether the alias already sent its invocations to the version, so that nothing moved.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    unchanged: bool,
    /// The bundle's digest.
    digest: Digest,
    /// Bytes of the bundle.
    size: u64,
    /// How long the command took.
    duration_ms: f64,
    /// URL of the alias; absent if HTTP is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// URL of the alias on its own host, for a preview or below `http.functions_domain`; absent if the names form no
    /// host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    host_url: Option<String>,
    /// Time at which the preview expires; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// The planned steps; only in a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    plan: Vec<PlanStep>,
}

/// Splits an answer into the label, the status, and the shared fields.
fn parts(answer: DeployResponse) -> (VersionLabel, DeployOutcome, Act) {
    // Destructured completely, so that a new field is not forgotten here. The caller has the function, and whether it is new.
    let DeployResponse {
        deployment_id,
        function_id,
        function: _,
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
    (version.clone(), status, act)
}

impl AnswerTo<DeployRequest> for Deployed {
    fn new(answer: DeployResponse, context: &Context) -> Self {
        let entry = context.router.by_id(answer.function_id).ok();
        let version = entry.as_ref().and_then(|it| it.labelled(answer.version.as_str()));
        let (name, created) = (entry.as_ref().map(|it| it.function.name.clone()), version.map(|it| it.created_at));
        let is_new_function = answer.new_function;
        let (label, status, act) = parts(answer);
        Self {
            id: act.function_id,
            name,
            version: act.number,
            label,
            deployment: act.deployment_id.clone(),
            status: if status == DeployOutcome::Deployed { "active" } else { status.name() },
            is_new_function,
            created,
            act,
        }
    }
}

impl AnswerTo<RollbackRequest> for RolledBack {
    fn new(answer: DeployResponse, _: &Context) -> Self {
        let (label, status, act) = parts(answer);
        Self {
            message: match status {
                DeployOutcome::Deployed => format!("Successfully rolled back to version {}", act.number),
                DeployOutcome::Checked => format!("This would roll back to version {}", act.number),
                other => format!("The rollback to version {} is {}", act.number, other.name().replace('_', " ")),
            },
            version: act.number,
            label,
            deployment: act.deployment_id.clone(),
            status,
            act,
        }
    }
}

/// Answer to a query for deployments.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeploymentRows {
    /// Newest first.
    deployments: Vec<DeploymentRow>,
    /// The `cursor` of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// One deployment.
#[derive(Debug, Serialize, JsonSchema)]
struct DeploymentRow {
    /// The deployment's id.
    #[schemars(with = "DeploymentId")]
    id: String,
    /// The version's number; absent if nothing was published.
    version: Option<u32>,
    /// The version's label.
    label: VersionLabel,
    /// Whether the alias currently points at the version.
    #[serde(rename = "isActive")]
    active: bool,
    /// Time at which the deployment ended, or began to wait for approval.
    #[serde(rename = "deployedAt")]
    deployed: Timestamp,
    /// Equal to `id`.
    #[schemars(with = "DeploymentId")]
    deployment_id: String,
    /// Equal to `version`.
    number: Option<u32>,
    /// The alias that was moved.
    alias: AliasName,
    /// The environment of the alias.
    environment: EnvironmentName,
    /// Kind of the deployment.
    kind: DeploymentKind,
    /// Status of the deployment.
    status: DeploymentStatus,
    /// Equal to `isActive`.
    is_active: bool,
    /// The share of the alias's invocations that the version got, in percent; absent for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    /// The label the alias pointed at before.
    previous_version: Option<VersionLabel>,
    /// Time of the request.
    created_at: Timestamp,
    /// Equal to `deployedAt`.
    finished_at: Timestamp,
    /// Duration, including loading and a wait for approval.
    duration_ms: u64,
    /// The actor that requested the deployment.
    actor: String,
    /// The reason given for the deployment.
    reason: Option<String>,
    /// Output of the build, and the reason if it failed.
    build_log: Option<String>,
    /// The function's id.
    function_id: FunctionId,
    /// The function's name; empty if the function is deleted.
    function: String,
    /// The actor that approved or rejected the deployment, or `levain` for the daemon itself.
    decided_by: Option<String>,
    /// The reason given for the decision.
    decision: Option<String>,
    /// Time of the decision.
    decided_at: Option<Timestamp>,
    /// Time at which a waiting deployment is rejected if nobody decides.
    expires_at: Option<Timestamp>,
}

impl AnswerTo<DeploymentsRequest> for DeploymentRows {
    fn new(answer: DeploymentsResponse, _: &Context) -> Self {
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

/// Answer to an invocation.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Invoked {
    /// Whether the function gave an answer.
    success: bool,
    /// The answer's HTTP status; 0 if there is no answer.
    status: u16,
    /// The answer's headers.
    headers: Fields,
    /// The answer's body: JSON if its content type says so, otherwise text, or base64 if it is not UTF-8.
    body: Value,
    /// Whether the body is base64.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    is_base64: bool,
    /// Time from the receipt of the command until the answer was complete.
    execution_time_ms: f64,
    /// The invocation's id, as in logs.
    #[schemars(with = "InvocationId")]
    execution_id: String,
    /// The label of the version that ran.
    version: VersionLabel,
    /// Kind of worker start that the invocation waited for.
    cold_start: ColdStart,
    /// Time waiting for a free worker.
    queue_ms: f64,
    /// Time waiting for a worker to start.
    start_ms: f64,
    /// Message of the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// `HANDLER_ERROR`, `TIMEOUT`, `WORKER_CRASHED` or `OUT_OF_MEMORY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<crate::error::ErrorCode>,
    /// Stack, exit status and last output.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

impl AnswerTo<InvokeRequest> for Invoked {
    fn new(answer: InvokeResponse, _: &Context) -> Self {
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
            execution_id: answer.execution_id.to_string(),
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
