//! Frames as bytes in `tests/golden/ipc`: a change of the layout or of a field's name shows as a changed file.
//!
//! With `LEVAIN_BLESS` set, the tests write the files.

use super::wire::{SUCCESS, Wire};
use crate::harness::TestDaemon;
use bytes::BytesMut;
use levain::{
    error::{Error, ErrorCode},
    model::{
        ColdStart, DeploymentKind, DeploymentStatus, Digest, FunctionId, FunctionStatus, Policy, PolicyCounts,
        RolloutStatus, Scope, SecretAction, SettingsPatch, Timestamp, TokenSecret, VersionSource, policy::PolicyLimits,
        rollout::RolloutPlan, token::TokenStatus,
    },
    protocol::{
        field::{Body, Fields},
        frame,
        ipc::{self, CommandRequest, Encoding, Request},
        message::*,
    },
};
use serde::Serialize;
use serde_json::json;
use std::{fs, path::PathBuf};

const ENCODINGS: [(Encoding, &str); 2] = [(Encoding::Json, "json"), (Encoding::MessagePack, "msgpack")];

/// Id in every golden frame; its bytes all differ.
const ID: u64 = 0x0102_0304_0506_0708;

fn path(name: &str, encoding: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ipc");
    PathBuf::from(format!("{folder}/{name}.{encoding}.frame"))
}

fn bytes<T: Serialize>(encoding: Encoding, tag: u8, message: &T) -> BytesMut {
    let mut out = BytesMut::new();
    frame::encode(ID, tag, &encoding.write(message).unwrap(), &mut out);
    out
}

fn check<T: Serialize>(name: &str, tag: u8, message: &T) {
    for (encoding, suffix) in ENCODINGS {
        let (path, bytes) = (path(name, suffix), bytes(encoding, tag, message));
        if std::env::var_os("LEVAIN_BLESS").is_some() {
            fs::write(&path, &bytes).unwrap();
        }
        let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(golden == bytes, "{name}.{suffix}\n golden: {}\npresent: {}", shown(&golden), shown(&bytes));
    }
}

fn request<R: CommandRequest>(name: &str, request: &R) {
    check(&format!("{name}.request"), R::COMMAND, request);
}

/// Checks an answer to a request of this type.
fn response<R: CommandRequest>(name: &str, response: &R::Response) {
    check(&format!("{name}.answer"), ipc::SUCCESS, response);
}

fn fields(fields: &[(&str, &str)]) -> Fields {
    Fields(fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
}

fn register() -> RegisterRequest {
    let settings = SettingsPatch { memory_mb: Some(128), timeout_seconds: Some(5), ..SettingsPatch::default() };
    RegisterRequest {
        name: "hello".into(),
        runtime: Some("bun".into()),
        handler: Some("handler".into()),
        settings: Some(settings),
    }
}

fn manifest() -> Manifest {
    let alias = ManifestAlias {
        name: "LIVE".into(),
        environment: "production".into(),
        version: "v2".into(),
        number: 2,
        digest: Digest([0xab; 32]),
        split: Some(ManifestSplit { version: "v3".into(), digest: Digest([0xcd; 32]), weight: 10 }),
        sticky: Some("header:x-user".into()),
        description: None,
    };
    Manifest {
        manifest: 1,
        created_at: Timestamp::from_millis(1_769_508_000_123),
        deployment: None,
        functions: vec![ManifestFunction { name: "hello".into(), aliases: vec![alias] }],
    }
}

#[test]
fn requests_are_these_bytes() {
    request("register", &register());
    request(
        "deploy",
        &DeployRequest {
            function_id: "hello".into(),
            version: Some("v1".into()),
            bundle: Some(Body::from(b"export default () => new Response('hello')".to_vec())),
            tags: vec!["first".into()],
            ..DeployRequest::default()
        },
    );
    request(
        "invoke",
        &InvokeRequest {
            function_id: "hello".into(),
            method: Some("POST".into()),
            path: Some("/a?b=c".into()),
            headers: Some(fields(&[("content-type", "text/plain"), ("x-many", "1"), ("x-many", "2")])),
            query: Some(fields(&[("d", "e")])),
            body: Some(Body::from(vec![0, 1, 254, 255])),
            timeout_ms: Some(5000),
            ..InvokeRequest::default()
        },
    );
    request("list", &ListRequest::default());
    let (function_id, name) = ("hello".to_owned(), "STAGING".to_owned());
    request("list-aliases", &AliasesRequest { function_id: function_id.clone(), ..AliasesRequest::default() });
    request("delete-alias", &DeleteAliasRequest { function_id: function_id.clone(), name: name.clone() });
    request("get-version", &VersionRequest { function_id: "hello".into(), version: "v2".into() });
    request(
        "tag-version",
        &TagVersionRequest {
            function_id: "hello".into(),
            version: VersionRef::Number(3),
            add: vec!["stable".into()],
            remove: vec!["canary".into()],
            description: Some("the one".into()),
        },
    );
    request("export-manifest", &ExportManifestRequest { function_id: Some("hello".into()), deployment_id: None });
    request(
        "apply-manifest",
        &ApplyManifestRequest { manifest: manifest(), dry_run: true, reason: Some("as before".into()) },
    );
    request(
        "set-traffic",
        &SetTrafficRequest {
            function_id: function_id.clone(),
            alias: Some("LIVE".into()),
            version: Some(VersionRef::Label("v3".into())),
            weight: Some(10),
            sticky: Some("cookie:session".into()),
            reason: None,
        },
    );
    request(
        "set-alias",
        &SetAliasRequest {
            function_id,
            name,
            version: VersionRef::Number(2),
            environment: Some("staging".into()),
            description: Some("for the testers".into()),
            reason: None,
            dry_run: false,
        },
    );
    request(
        "set-environment",
        &SetEnvironmentRequest { name: "production".into(), protected: Some(true), ..SetEnvironmentRequest::default() },
    );
    request("list-environments", &EnvironmentsRequest::default());
    let deployment_id = "deploy-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".to_owned();
    request("decide", &DecideRequest { deployment_id, approve: true, reason: Some("reviewed".into()) });
    let status = Some(DeploymentStatus::PendingApproval);
    request("deployments-pending", &DeploymentsRequest { status, ..DeploymentsRequest::default() });
    let share = DeployRequest {
        function_id: "hello".into(),
        version: Some("v2".into()),
        weight: Some(10),
        create: true,
        dry_run: true,
        ..DeployRequest::default()
    };
    request("deploy-share", &share);
}

#[test]
fn requests_about_housekeeping_are_these_bytes() {
    let function_id = "hello".to_owned();
    let keep = CleanupRequest { function_id: Some(function_id.clone()), keep: Some(3), dry_run: true };
    request("cleanup", &keep);
    request("cleanup-all", &CleanupRequest::default());
    let (from, to) = ("ROLLBACK".into(), VersionRef::Number(2));
    request("compare", &CompareRequest { function_id: function_id.clone(), from, to });
    request("delete-version", &DeleteVersionRequest { function_id, version: "v1".into() });
}

fn token() -> TokenInfo {
    TokenInfo {
        token_id: "token-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap(),
        name: "ci".into(),
        scopes: vec![Scope::Deploy, Scope::Invoke],
        function_id: Some("func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap()),
        function: Some("hello".into()),
        status: TokenStatus::Valid,
        actor: "uid:1000".into(),
        created_at: Timestamp::from_millis(1_769_508_000_123),
        expires_at: Some(Timestamp::from_millis(1_769_594_400_123)),
        last_used_at: None,
        revoked_at: None,
    }
}

fn variable_place() -> PlaceInfo {
    PlaceInfo {
        function_id: Some("func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap()),
        environment: Some("staging".parse().unwrap()),
    }
}

#[test]
fn requests_and_answers_about_variables_are_these_bytes() {
    let (function_id, environment) = (Some("hello".to_owned()), Some("staging".to_owned()));
    let one = SetVariablesRequest {
        function_id: function_id.clone(),
        key: Some("API_KEY".into()),
        value: Some("secret-value".into()),
        is_secret: Some(true),
        ..SetVariablesRequest::default()
    };
    request("set-variable", &one);
    let restored =
        VariableInput { key: "API_KEY".into(), value: None, is_secret: Some(true), from_generation: Some(2) };
    let plain = VariableInput { key: "A".into(), value: Some("1".into()), ..VariableInput::default() };
    let many = SetVariablesRequest {
        function_id: function_id.clone(),
        environment: environment.clone(),
        variables: vec![plain, restored],
        dotenv: Some("B=2\n".into()),
        only_existing: true,
        ..SetVariablesRequest::default()
    };
    request("set-variables", &many);
    let changed = ChangeVariablesResponse {
        created: vec!["A".into()],
        changed: vec!["API_KEY".into()],
        unchanged: vec!["B".into()],
        deleted: Vec::new(),
        workers: RenewalInfo { pools: 2, pending: 1, failure: Some("a worker did not start".into()) },
        warnings: vec!["A is short".into()],
    };
    response::<SetVariablesRequest>("set-variables", &changed);
    let (id, named) = (function_id.clone(), environment.clone());
    request(
        "list-variables",
        &ListVariablesRequest { function_id: id, environment: named, resolved: true, reveal: false },
    );
    let at = Timestamp::from_millis(1_735_689_600_000);
    let plain = VariableInfo {
        key: "A".parse().unwrap(),
        value: Some("1".into()),
        is_secret: false,
        generation: None,
        place: variable_place(),
        hides: vec![PlaceInfo { function_id: None, environment: None }],
        actor: "uid:1000".into(),
        created_at: at,
        updated_at: at,
    };
    let secret = VariableInfo { value: None, is_secret: true, generation: Some(2), hides: Vec::new(), ..plain.clone() };
    response::<ListVariablesRequest>("list-variables", &ListVariablesResponse { variables: vec![plain, secret] });
    let (id, keys) = (function_id.clone(), vec!["A".into(), "B".into()]);
    request(
        "delete-variables",
        &DeleteVariablesRequest { function_id: id, environment: None, key: None, keys, only_secrets: false },
    );
    let (id, key) = (function_id.clone(), "API_KEY".to_owned());
    request("secret-generations", &SecretGenerationsRequest { function_id: id, environment, key });
    let generation = GenerationInfo { generation: 2, is_current: true, actor: "token:ci".into(), created_at: at };
    let generations = SecretGenerationsResponse { generations: vec![generation] };
    response::<SecretGenerationsRequest>("secret-generations", &generations);
    request("secret-audit", &SecretAuditRequest { function_id, limit: Some(10) });
    let entry = SecretAuditInfo {
        at,
        action: SecretAction::Inject,
        actor: "daemon".into(),
        function_id: Some("func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap()),
        function: Some("hello".into()),
        environment: Some("staging".parse().unwrap()),
        key: None,
        generation: None,
        detail: Some("version v1: API_KEY@2".into()),
        count: 3,
        last_at: at,
    };
    response::<SecretAuditRequest>("secret-audit", &SecretAuditResponse { entries: vec![entry] });
    request("rotate-master-key", &RotateMasterKeyRequest {});
    let rotated = RotateMasterKeyResponse { key_id: "0123456789abcdef".into(), data_keys: 7 };
    response::<RotateMasterKeyRequest>("rotate-master-key", &rotated);
}

#[test]
fn requests_and_answers_about_tokens_are_these_bytes() {
    let create = CreateTokenRequest {
        name: "ci".into(),
        scopes: vec![Scope::Deploy, Scope::Invoke],
        function_id: Some("hello".into()),
        expires_in: Some("30d".into()),
        expires_at: None,
    };
    request("create-token", &create);
    request("list-tokens", &ListTokensRequest { all: true, limit: Some(10), ..ListTokensRequest::default() });
    request("revoke-token", &RevokeTokenRequest { token_id: "ci".into() });
    let created = CreateTokenResponse { token: TokenSecret::new([0xab; 32]), info: token() };
    response::<CreateTokenRequest>("create-token", &created);
    response::<ListTokensRequest>(
        "list-tokens",
        &ListTokensResponse { tokens: vec![token()], total: 1, next_cursor: None },
    );
    let at = Some(Timestamp::from_millis(1_769_508_060_123));
    let revoked = TokenInfo { status: TokenStatus::Revoked, last_used_at: at, revoked_at: at, ..token() };
    response::<RevokeTokenRequest>("revoke-token", &revoked);
}

#[test]
fn answers_about_housekeeping_are_these_bytes() {
    let function_id: FunctionId = "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap();
    let cleaned = FunctionCleanup {
        function: "hello".into(),
        function_id,
        removed: vec![RemovedVersion { version: "v1".parse().unwrap(), number: 1, size: 42 }],
        kept: vec![KeptVersion {
            version: "v2".parse().unwrap(),
            number: 2,
            why: vec!["newest".into(), "alias LIVE".into()],
        }],
    };
    let answer = CleanupResponse { functions: vec![cleaned], freed_bytes: 42, dry_run: false };
    response::<CleanupRequest>("cleanup", &answer);
    let side = |version: &str, number| ComparedVersion {
        version: version.parse().unwrap(),
        number,
        digest: Digest([0xab; 32]),
        size: 42,
        created_at: Timestamp::from_millis(1_769_508_000_123),
        description: None,
        tags: vec!["first".into()],
        git_commit: Some("0123abcd".into()),
        git_branch: None,
        bun_version: "1.3.0".into(),
        entry: "bundle.js".into(),
        source: VersionSource::Upload,
    };
    let file = |path: &str, change: &str| FileChange {
        path: path.into(),
        change: change.into(),
        renamed_from: None,
        from_size: Some(42),
        to_size: None,
        binary: false,
        diff: None,
        note: None,
    };
    let differs = CompareResponse {
        from: side("v1", 1),
        to: side("v2", 2),
        same_code: false,
        settings: vec![SettingChange { key: "network".into(), from: "on".into(), to: "off".into() }],
        files: vec![
            FileChange { diff: Some("--- v1/a.js\n+++ /dev/null\n".into()), ..file("a.js", "removed") },
            FileChange { renamed_from: Some("b.js".into()), to_size: Some(42), ..file("c.js", "renamed") },
            FileChange { note: Some("it has more than 1048576 bytes".into()), ..file("d.js", "changed") },
        ],
        truncated: true,
    };
    response::<CompareRequest>("compare", &differs);
}

#[test]
fn answers_are_these_bytes() {
    let function_id: FunctionId = "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap();
    response::<RegisterRequest>(
        "register",
        &RegisterResponse {
            function_id,
            name: "hello".into(),
            runtime: "bun".into(),
            handler: "handler".into(),
            status: FunctionStatus::Registered,
            created: true,
        },
    );
    response::<DeployRequest>(
        "deploy",
        &DeployResponse {
            deployment_id: "deploy-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".into(),
            function_id,
            function: "hello".into(),
            version: "v1".parse().unwrap(),
            number: 1,
            alias: "LIVE".parse().unwrap(),
            environment: "production".parse().unwrap(),
            status: levain::model::DeployOutcome::Deployed,
            weight: None,
            previous_version: None,
            previous_weight: None,
            published: true,
            reused: false,
            unchanged: false,
            new_function: false,
            digest: Digest([0xab; 32]),
            size: 42,
            duration_ms: 12.5,
            url: None,
            host_url: None,
            expires_at: None,
            plan: Vec::new(),
        },
    );
    let step = |action, detail: &str| PlanStep { action, detail: detail.into() };
    response::<DeployRequest>(
        "deploy-plan",
        &DeployResponse {
            deployment_id: String::new(),
            function_id,
            function: "hello".into(),
            version: "v2".parse().unwrap(),
            number: 2,
            alias: "LIVE".parse().unwrap(),
            environment: "production".parse().unwrap(),
            status: levain::model::DeployOutcome::Checked,
            previous_version: Some("v1".parse().unwrap()),
            previous_weight: None,
            published: false,
            reused: false,
            unchanged: false,
            new_function: false,
            digest: Digest([0xab; 32]),
            size: 42,
            duration_ms: 12.5,
            weight: Some(10),
            url: None,
            host_url: None,
            expires_at: None,
            plan: vec![
                step(PlanAction::Reuse, "v2 is published already, as version 2"),
                step(PlanAction::WaitForApproval, "production is protected"),
            ],
        },
    );
    let at = Timestamp::from_millis;
    let production = EnvironmentInfo {
        name: "production".parse().unwrap(),
        parent: None,
        protected: true,
        aliases: 2,
        created_at: at(1_769_508_000_123),
        warnings: Vec::new(),
    };
    response::<SetEnvironmentRequest>("set-environment", &production);
    let environments = vec![production];
    response::<EnvironmentsRequest>("list-environments", &EnvironmentsResponse { environments, next_cursor: None });
    let waiting = DeploymentInfo {
        deployment_id: "deploy-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".into(),
        version: "v2".parse().unwrap(),
        number: Some(2),
        alias: "LIVE".parse().unwrap(),
        environment: "production".parse().unwrap(),
        kind: DeploymentKind::Deploy,
        status: DeploymentStatus::PendingApproval,
        is_active: false,
        previous_version: Some("v1".parse().unwrap()),
        created_at: at(1_769_508_000_123),
        finished_at: at(1_769_508_000_223),
        duration_ms: 100,
        actor: "uid:1000".into(),
        reason: None,
        build_log: None,
        function_id,
        function: "hello".into(),
        weight: Some(10),
        decided_by: None,
        decision: None,
        decided_at: None,
        expires_at: Some(at(1_769_767_200_223)),
    };
    let rejected = DeploymentInfo {
        status: DeploymentStatus::Rejected,
        decided_by: Some("levain".into()),
        decision: Some("expired after 72 h".into()),
        decided_at: Some(at(1_769_767_200_223)),
        expires_at: None,
        ..waiting.clone()
    };
    response::<DeploymentsRequest>(
        "deployments",
        &DeploymentsResponse { deployments: vec![rejected, waiting], next_cursor: None },
    );
    let live = AliasDetails {
        name: "LIVE".parse().unwrap(),
        environment: "production".parse().unwrap(),
        version: "v2".parse().unwrap(),
        number: 2,
        split: Some(SplitInfo { version: "v3".parse().unwrap(), weight: 10 }),
        sticky: Some("cookie:session".into()),
        previous_version: Some("v1".parse().unwrap()),
        description: None,
        updated_at: Timestamp::from_millis(1_769_508_000_123),
    };
    response::<AliasesRequest>("list-aliases", &AliasesResponse { aliases: vec![live], next_cursor: None });
    response::<ExportManifestRequest>("export-manifest", &manifest());
    let change = ManifestChange {
        function: "hello".into(),
        alias: "LIVE".into(),
        from: Some("v2".into()),
        to: "v2 90 %, v3 10 %".into(),
        deployments: Vec::new(),
    };
    let other = ManifestOther { function: "hello".into(), alias: "DEV".into(), version: "v1".into() };
    let applied = ApplyManifestResponse { dry_run: true, changes: vec![change], unchanged: 2, others: vec![other] };
    response::<ApplyManifestRequest>("apply-manifest", &applied);
    let deleted = DeleteAliasResponse { function_id, name: "STAGING".into(), version: "v2".parse().unwrap() };
    response::<DeleteAliasRequest>("delete-alias", &deleted);
    let answered = InvokeResponse {
        success: true,
        status: 201,
        headers: fields(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]),
        body: Body::from(vec![0, 1, 254, 255]),
        execution_time_ms: 1.25,
        execution_id: "exec-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap(),
        version: "v1".parse().unwrap(),
        cold_start: ColdStart::Spawned,
        queue_ms: 0.5,
        start_ms: 0.25,
        error: None,
        code: None,
        details: None,
    };
    response::<InvokeRequest>("invoke", &answered);
    let failed = InvokeResponse {
        success: false,
        status: 0,
        headers: Fields::default(),
        body: Body::default(),
        cold_start: ColdStart::None,
        error: Some("TypeError: asked for".into()),
        code: Some(ErrorCode::HandlerError),
        ..answered
    };
    response::<InvokeRequest>("invoke-failed", &failed);
    check("stream-chunk.partial", ipc::PARTIAL, &StreamChunk { body: Body::from(b"chunk".to_vec()) });
    let error = Error::new(ErrorCode::FunctionNotFound, "there is no function `hello`");
    check("error", ipc::ERROR, &error.with_details(json!({ "nearest": "hallo" })));
    response::<ListRequest>("list-empty", &ListResponse { functions: Vec::new(), total: 0, next_cursor: None });
}

fn policy() -> Policy {
    let limits = PolicyLimits {
        error_rate_max: Some(0.5),
        p99_ms_max: Some(200),
        crashes_max: Some(3),
        ..PolicyLimits::default()
    };
    limits.try_into().unwrap()
}

#[test]
fn policies_and_rollouts_are_these_bytes() {
    let (function_id, alias) = ("hello".to_owned(), Some("STAGING".to_owned()));
    let set = SetPolicyRequest { function_id, alias: alias.clone(), policy: Some(policy()), show: false };
    request("set-policy", &set);
    request("show-policy", &SetPolicyRequest { show: true, policy: None, ..set });
    request(
        "start-rollout",
        &StartRolloutRequest {
            function_id: "hello".into(),
            version: VersionRef::Label("v2".into()),
            plan: "10% 5m, 50% 5m, 100%".into(),
            alias: None,
            reason: Some("new parser".into()),
        },
    );
    let action = RolloutAction::Abort;
    request("control-rollout", &ControlRolloutRequest { function_id: "hello".into(), alias, action, reason: None });
    let list = RolloutsRequest { function_id: "hello".into(), limit: Some(1), ..RolloutsRequest::default() };
    request("list-rollouts", &list);
    let function_id: FunctionId = "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap();
    let at = Timestamp::from_millis(1_769_508_000_123);
    let verdict = PolicyVerdict {
        at,
        version: "v3".parse().unwrap(),
        went_back_to: Some("v2".into()),
        reason: "error rate 34.0 % (17 of 50 calls in 60 s) over the limit of 0.5 %".into(),
    };
    let shown = PolicyResponse {
        function_id,
        alias: "STAGING".parse().unwrap(),
        policy: Some(policy()),
        version: "v2".parse().unwrap(),
        counts: PolicyCounts { calls: 50, errors: 2, crashes: 1, slow: 0 },
        rests_until: Some(at),
        last_verdict: Some(verdict),
    };
    response::<SetPolicyRequest>("set-policy", &shown);
    let plan: RolloutPlan = "10% 5m, 50% 5m, 100%".parse().unwrap();
    let rollout = RolloutDetails {
        rollout_id: "rollout-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().unwrap(),
        function_id,
        alias: "LIVE".parse().unwrap(),
        version: "v2".parse().unwrap(),
        number: 2,
        status: RolloutStatus::Running,
        plan: plan.to_string(),
        steps: plan.steps().to_vec(),
        step: 1,
        next_in_ms: Some(299_000),
        actor: "uid:1000".into(),
        reason: Some("new parser".into()),
        outcome: None,
        created_at: at,
        updated_at: at,
        finished_at: None,
    };
    response::<StartRolloutRequest>("start-rollout", &rollout);
    response::<RolloutsRequest>("list-rollouts", &RolloutsResponse { rollouts: vec![rollout], next_cursor: None });
}

#[test]
fn golden_requests_are_read_as_what_they_are() {
    for (_, suffix) in ENCODINGS {
        let mut golden = BytesMut::from(&fs::read(path("register.request", suffix)).unwrap()[..]);
        let frame = frame::decode(&mut golden, 1 << 20).unwrap().unwrap();
        assert!(golden.is_empty() && frame.request_id == ID);
        match Request::decode(frame.tag, &frame.payload) {
            Ok(Request::Register(read)) => assert_eq!(read, register()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn requests_and_answers_about_environments_are_these_bytes() {
    let (qa, parent) = ("qa".to_owned(), Some("staging".to_owned()));
    let create = CreateEnvironmentRequest { name: qa.clone(), parent: parent.clone(), protected: true, allow: true };
    request("create-environment", &create);
    let set = SetEnvironmentRequest { name: qa.clone(), parent, ..SetEnvironmentRequest::default() };
    request("set-parent", &set);
    request("get-environment", &EnvironmentRequest { name: qa.clone() });
    request("delete-environment", &DeleteEnvironmentRequest { name: qa.clone() });
    let (from, to, function_id) = ("staging".to_owned(), "production".to_owned(), Some("hello".to_owned()));
    let compare = CompareEnvironmentsRequest { from: from.clone(), to: to.clone(), function_id: function_id.clone() };
    request("compare-environments", &compare);
    let reason = Some("tested".to_owned());
    let promote = PromoteRequest {
        function_id: "hello".into(),
        from: Some(from.clone()),
        to: Some(to.clone()),
        alias: Some("LIVE".into()),
        from_alias: Some("STAGING".into()),
        reason: reason.clone(),
        dry_run: true,
    };
    request("promote", &promote);
    let (first, second) = (Some(from.clone()), Some(to.clone()));
    request("promote-all", &PromoteAllRequest { from: first, to: second, reason, dry_run: true });

    let at = Timestamp::from_millis(1_769_508_000_123);
    let (parent, warnings) = (Some(from.parse().unwrap()), Vec::new());
    let info =
        EnvironmentInfo { name: qa.parse().unwrap(), parent, protected: true, aliases: 1, created_at: at, warnings };
    response::<CreateEnvironmentRequest>("create-environment", &info);
    let run = EnvironmentRun {
        function: "hello".into(),
        alias: "QA".into(),
        version: "v2".parse().unwrap(),
        number: 2,
        split: Some(SplitInfo { version: "v3".parse().unwrap(), weight: 10 }),
    };
    let details =
        EnvironmentDetails { info, ancestors: vec![from.clone()], children: vec!["eu".into()], runs: vec![run] };
    response::<EnvironmentRequest>("get-environment", &details);
    let side = |alias: &str, number: u32| ComparedSide {
        alias: alias.into(),
        version: format!("v{number}").parse().unwrap(),
        number,
        digest: Digest([0xab; 32]),
        split: None,
    };
    let variable = ComparedVariable { name: "TOKEN".into(), secret: true, from: Some(2), to: None };
    let function = ComparedFunction {
        function: "hello".into(),
        function_id: "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".into(),
        state: ComparedState::Ahead,
        from: Some(side("STAGING", 2)),
        to: Some(side("LIVE", 1)),
        note: None,
        variables: vec![variable],
    };
    let compared = CompareEnvironmentsResponse { from: from.clone(), to: to.clone(), functions: vec![function] };
    response::<CompareEnvironmentsRequest>("compare-environments", &compared);
    let change = ManifestChange {
        function: "hello".into(),
        alias: "LIVE".into(),
        from: Some("v1".into()),
        to: "v2".into(),
        deployments: vec!["deploy-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".into()],
    };
    let skipped = vec![SkippedFunction { function: "other".into(), reason: "STAGING divides its calls".into() }];
    let promoted = PromoteAllResponse { from, to, dry_run: false, changes: vec![change], unchanged: 2, skipped };
    response::<PromoteAllRequest>("promote-all", &promoted);
}

#[test]
fn requests_and_answers_about_previews_are_these_bytes() {
    let function_id = Some("hello".to_owned());
    request(
        "deploy-preview",
        &DeployRequest {
            function_id: "hello".into(),
            version: Some("v2".into()),
            preview: Some("42".into()),
            ttl: Some("24h".into()),
            ..DeployRequest::default()
        },
    );
    request("list-previews", &PreviewsRequest { function_id: function_id.clone(), ..PreviewsRequest::default() });
    request("delete-preview", &DeletePreviewRequest { name: "42".into(), function_id: function_id.clone() });
    let older_than = Some("3d".to_owned());
    request("cleanup-previews", &CleanupPreviewsRequest { function_id, older_than, dry_run: true });
    let at = Timestamp::from_millis(1_769_508_000_123);
    let preview = PreviewInfo {
        function: "hello".into(),
        function_id: "func-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".into(),
        name: "42".into(),
        alias: "preview-42".parse().unwrap(),
        environment: "preview".into(),
        version: "v2".parse().unwrap(),
        number: 2,
        url: Some("http://localhost:8080/functions/hello:preview-42".into()),
        host_url: Some("http://preview-42--hello.localhost:8080/".into()),
        expires_at: Some(at),
        updated_at: at,
    };
    response::<PreviewsRequest>(
        "list-previews",
        &PreviewsResponse { previews: vec![preview.clone()], next_cursor: None },
    );
    let removed = RemovedPreviewsResponse { removed: vec![preview], dry_run: false };
    response::<DeletePreviewRequest>("delete-preview", &removed);
}

/// The golden requests are accepted by a real daemon, and its answers have the golden form.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_takes_and_gives_golden_bytes() {
    for (_, suffix) in ENCODINGS {
        let daemon = TestDaemon::start().await;
        let mut wire = Wire::connect(&daemon.socket());
        wire.send(&fs::read(path("list.request", suffix)).unwrap());
        let answer = wire.answer();
        let golden = fs::read(path("list-empty.answer", suffix)).unwrap();
        assert_eq!(super::wire::frame(answer.id, answer.status, &answer.payload), golden);
        for name in ["register", "deploy", "invoke"] {
            wire.send(&fs::read(path(&format!("{name}.request"), suffix)).unwrap());
            let answer = wire.answer();
            let (_, value) = answer.read();
            assert_eq!((answer.id, answer.status), (ID, SUCCESS), "{name}: {value}");
            // Fields and their order are the same; their values differ from run to run.
            let golden = fs::read(path(&format!("{name}.answer"), suffix)).unwrap();
            let golden = super::wire::Answer { id: ID, status: SUCCESS, payload: golden[17..].to_vec() };
            let names = |value: &serde_json::Value| Vec::from_iter(value.as_object().unwrap().keys().cloned());
            assert_eq!(names(&value), names(&golden.read().1), "{name}");
        }
        daemon.stop().await;
    }
}
