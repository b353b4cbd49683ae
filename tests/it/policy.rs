//! SET_POLICY, and automatic rollbacks.

use crate::harness::{Gate, TestDaemon, get, is_refused, refused, repetitions, text, until};
use levain::{
    client::Client,
    error::ErrorCode,
    model::{DeploymentKind, DeploymentStatus, Policy, PolicyAction, SettingsPatch, policy::PolicyLimits},
    protocol::{
        field::{Body, Fields},
        ipc::Encoding,
        message::*,
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// A function that obeys the request's header `x-do`. Its label selects the orders to throw or to be slow that concern
/// it.
fn steered(label: &str) -> String {
    format!(
        "export default async (req) => {{
            const what = req.headers.get('x-do') ?? '';
            if (what.includes('{label}:throw')) throw new Error('asked for');
            if (what.includes('{label}:500')) return new Response('no', {{ status: 503 }});
            if (what.includes('{label}:slow')) await Bun.sleep(60);
            if (what.includes('{label}:hang')) await new Promise(() => {{}});
            if (what.includes('{label}:exit')) process.exit(3);
            if (what.includes('{label}:eat')) {{
                const all = [];
                for (;;) {{ all.push(new Uint8Array(1 << 24).fill(1)); await Bun.sleep(0); }}
            }}
            return new Response('{label}');
        }};"
    )
}

fn limits() -> PolicyLimits {
    PolicyLimits { error_rate_max: Some(5.0), min_requests: 20, ..PolicyLimits::default() }
}

fn request() -> SetPolicyRequest {
    SetPolicyRequest { function_id: "f".into(), ..SetPolicyRequest::default() }
}

async fn set(daemon: &TestDaemon, limits: PolicyLimits) -> PolicyResponse {
    let policy = Some(limits.try_into().expect("a policy"));
    daemon.call(&SetPolicyRequest { policy, ..request() }).await.expect("the policy is set")
}

async fn show(daemon: &TestDaemon) -> PolicyResponse {
    daemon.call(&SetPolicyRequest { show: true, ..request() }).await.expect("the alias is there")
}

/// An invocation of `f` with this order in its header.
fn call(what: &str) -> InvokeRequest {
    InvokeRequest { headers: Some(Fields(vec![("x-do".into(), what.into())])), ..get("f", "/") }
}

/// Pause of a caller: the watch looks a few times in a second, and many calls in between would add nothing.
const PAUSE: Duration = Duration::from_millis(3);

/// Callers that run in the background.
struct Calls {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    /// Answers of each caller, each with the number of answers of all callers before it.
    callers: JoinSet<Vec<(usize, InvokeResponse)>>,
}

impl Calls {
    async fn start(daemon: &TestDaemon, callers: usize, what: &str) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (client, request): (Client, _) = (daemon.connect().await, call(what));
            let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
            set.spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.call(&request).await.map_err(refused).expect("an answer");
                    answers.push((ended.fetch_add(1, Ordering::Relaxed), answer));
                    tokio::time::sleep(PAUSE).await;
                }
                answers
            });
        }
        Self { stop, ended, callers: set }
    }

    async fn until_ended(&self, count: usize) {
        let wanted = self.ended.load(Ordering::Relaxed) + count;
        until("calls end", || async { (self.ended.load(Ordering::Relaxed) >= wanted).then_some(()) }).await;
    }

    /// Returns the answers of all callers, in the order in which they came.
    async fn stop(self) -> Vec<InvokeResponse> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers: Vec<_> = self.callers.join_all().await.into_iter().flatten().collect();
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// Deploys `f` with versions `v1`, `v2` … that obey the header; the last one is live.
async fn with_versions(count: usize) -> TestDaemon {
    with_versions_on(TestDaemon::start().await, count).await
}

async fn with_versions_on(daemon: TestDaemon, count: usize) -> TestDaemon {
    daemon.register("f").await;
    publish(&daemon, 1..=count).await;
    daemon
}

async fn publish(daemon: &TestDaemon, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        daemon.redeploy_text("f", None, &steered(&format!("v{number}"))).await.expect("a good bundle");
    }
}

async fn publish_only(daemon: &TestDaemon, label: &str) {
    let request = DeployRequest {
        function_id: "f".into(),
        bundle: Some(Body::from(steered(label).into_bytes())),
        activate: Some(false),
        ..DeployRequest::default()
    };
    assert_eq!(daemon.call(&request).await.expect("a good bundle").version, label);
}

/// Publishes `v2` and gives it a share of the calls of `LIVE`.
async fn canary(daemon: &TestDaemon, percent: u32) {
    publish_only(daemon, "v2").await;
    let request = SetTrafficRequest {
        function_id: "f".into(),
        version: Some(VersionRef::Label("v2".into())),
        weight: Some(percent),
        ..SetTrafficRequest::default()
    };
    daemon.call(&request).await.expect("the version is there");
}

/// Waits for the automatic rollback that leaves this version.
async fn until_left(daemon: &TestDaemon, version: &str) -> DeploymentInfo {
    until("the alias goes back", || async {
        let last = daemon.deployments("f").await.into_iter().find(|it| it.kind == DeploymentKind::AutoRollback);
        last.filter(|it| it.previous_version.as_ref().map(ToString::to_string).as_deref() == Some(version))
    })
    .await
}

/// Waits until the watch has considered everything counted for `f` so far: until another function, which the watch
/// checks after `f`, has been rolled back.
async fn until_looked_at(daemon: &TestDaemon, witness: &str) {
    daemon.register(witness).await;
    for label in ["v1", "v2"] {
        daemon.redeploy_text(witness, None, &steered(label)).await.expect("a good bundle");
    }
    let policy = Some(limits().try_into().expect("a policy"));
    let set = SetPolicyRequest { function_id: witness.into(), policy, ..SetPolicyRequest::default() };
    daemon.call(&set).await.expect("the policy is set");
    for _ in 0..20 {
        let failing = InvokeRequest { function_id: witness.into(), ..call("v2:throw") };
        daemon.invoke_with(failing).await.expect("an answer");
    }
    until("the witness goes back", || async {
        let last = daemon.deployments(witness).await.remove(0);
        (last.kind == DeploymentKind::AutoRollback).then_some(())
    })
    .await;
}

async fn went_back(daemon: &TestDaemon) -> usize {
    daemon.deployments("f").await.iter().filter(|it| it.kind == DeploymentKind::AutoRollback).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_set_shown_and_removed() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let policy: Policy = limits().try_into().unwrap();
    let wanted = SetPolicyRequest { policy: Some(policy.clone()), ..request() };
    assert!(is_refused(&daemon.call(&wanted).await, ErrorCode::FunctionNotDeployed));
    publish(&daemon, [1]).await;
    assert_eq!(show(&daemon).await.policy, None);
    let response = daemon.call(&wanted).await.unwrap();
    assert_eq!((response.policy.as_ref(), response.version.as_str()), (Some(&policy), "v1"));
    for _ in 0..3 {
        daemon.invoke_with(call("")).await.unwrap();
    }
    daemon.invoke_with(call("v1:throw")).await.unwrap();
    daemon.invoke_with(call("v1:500")).await.unwrap();
    // Neither a pinned invocation nor a refused one counts for the alias.
    daemon.invoke("f:v1").await.unwrap();
    assert!(daemon.invoke_with(InvokeRequest { method: Some("BREW".into()), ..call("") }).await.is_err());
    let shown = show(&daemon).await;
    assert_eq!((shown.counts.calls, shown.counts.errors, shown.last_verdict), (5, 2, None));

    // The policy stays with the alias, and its counts begin anew when the alias moves.
    publish(&daemon, [2]).await;
    let shown = show(&daemon).await;
    assert_eq!((shown.policy.as_ref(), shown.version.as_str(), shown.counts.calls), (Some(&policy), "v2", 0));
    // A change that does not affect the version keeps the counts.
    daemon.invoke_with(call("")).await.unwrap();
    daemon.update("f", SettingsPatch { idle_timeout_seconds: Some(9), ..SettingsPatch::default() }).await.unwrap();
    assert_eq!(show(&daemon).await.counts.calls, 1);

    assert_eq!(daemon.call(&request()).await.unwrap().policy, None);
    assert_eq!(show(&daemon).await.policy, None);

    // The audit trail records who changed the policy; showing it is not recorded.
    let mut rows = daemon.deployments("f").await;
    rows.retain(|it| it.kind == DeploymentKind::Policy);
    let told = |it: &DeploymentInfo| (it.version.clone(), it.alias.clone(), it.reason.clone().unwrap_or_default());
    let set = "rolls back: errors at most 5 % within 60 s from 20 calls on, cooldown 300 s";
    let expected =
        [("v2", "policy removed"), ("v1", set)].map(|(v, it)| (v.parse().unwrap(), "LIVE".parse().unwrap(), it.into()));
    assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), expected);
    let is_ours = |it: &DeploymentInfo| it.actor.starts_with("uid:") && it.environment == "production";
    assert!(rows.iter().all(|it| it.status == DeploymentStatus::Changed && is_ours(it)), "{rows:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_policy_is_refused() {
    let daemon = with_versions(1).await;
    let json = daemon.connect().await.with_encoding(Encoding::Json);
    for (payload, part) in [
        (r#"{"function_id": "f", "policy": {}}"#, "at least one limit"),
        (r#"{"function_id": "f", "policy": {"error_rate_max": 101}}"#, "error_rate_max is 101"),
        (r#"{"function_id": "f", "policy": {"crashes_max": 1, "window_seconds": 5}}"#, "window_seconds is 5"),
        (r#"{"function_id": "f", "policy": {"crashes_max": 1}, "show": true}"#, "not both"),
    ] {
        let (status, answer) = json.call_raw(0x14, payload.as_bytes()).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(status == 1 && answer.contains("INVALID_REQUEST") && answer.contains(part), "{answer}");
    }
    let of = |alias: &str| SetPolicyRequest { alias: Some(alias.into()), show: true, ..request() };
    assert!(is_refused(&daemon.call(&of("STAGING")).await, ErrorCode::AliasNotFound));
    assert!(is_refused(&daemon.call(&of("ROLLBACK")).await, ErrorCode::Conflict));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_loses_its_share_and_the_row_has_the_arithmetic() {
    let daemon = with_versions(1).await;
    canary(&daemon, 10).await;
    set(&daemon, limits()).await;
    let calls = Calls::start(&daemon, 2, "v2:throw").await;
    let row = until_left(&daemon, "v2").await;
    calls.until_ended(100).await;
    let answers = calls.stop().await;
    let failed = answers.iter().filter(|it| !it.success).count();
    assert!(answers.iter().all(|it| it.success == (it.version == "v1")) && failed >= 20, "{failed} failed");
    // About 100 more invocations follow, and v2 answers none of the last 50.
    let last = answers.iter().rev().take(50).all(|it| it.success);
    assert!(last, "the alias's own version has all calls");

    assert_eq!((row.version.as_str(), row.actor.as_str(), row.alias.as_str()), ("v1", "policy", "LIVE"));
    assert_eq!((row.status, row.is_active, row.number), (DeploymentStatus::Active, true, Some(1)));
    let reason = row.reason.as_deref().expect("the rollback has a reason");
    let is_told =
        reason.starts_with("error rate 100.0 % (") && reason.ends_with(" calls in 60 s) over the limit of 5 %");
    assert!(is_told, "{reason}");
    let shown = show(&daemon).await;
    let verdict = shown.last_verdict.expect("a verdict");
    assert_eq!((verdict.version.as_str(), verdict.went_back_to.as_deref()), ("v2", Some("v1")));
    assert_eq!((verdict.reason.as_str(), shown.version.as_str()), (reason, "v1"));
    assert!(shown.rests_until.is_some(), "v1 is in its cooldown after the rollback");
    let line = daemon.until_logged("f", "LIVE goes back to v1: error rate").await;
    assert_eq!((line.stream.as_str(), line.version.as_str()), ("system", "v2"));
    assert_eq!(went_back(&daemon).await, 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_in_a_thousand_is_within_one_percent() {
    let daemon = with_versions(1).await;
    canary(&daemon, 50).await;
    set(&daemon, PolicyLimits { error_rate_max: Some(1.0), ..limits() }).await;
    let client = daemon.connect().await;
    let pinned = |what: &str| {
        let fields = [("x-do", what), ("x-levain-version", "v2")].map(|(name, value)| (name.into(), value.into()));
        InvokeRequest { headers: Some(Fields(fields.into())), ..get("f", "/") }
    };
    // The first invocation of each thousand fails: when the first 30 are judged, 3.3 % have failed.
    for index in 0..repetitions(1_100, 3_000) {
        let what = if index % 1_000 == 0 { "v2:throw" } else { "" };
        assert_eq!(client.call(&pinned(what)).await.expect("an answer").success, what.is_empty());
        if index == 30 {
            until_looked_at(&daemon, "witness-1").await;
        }
    }
    let shown = show(&daemon).await;
    assert!(shown.counts.calls >= 1_000, "{shown:?}");
    assert_eq!((shown.version.as_str(), shown.last_verdict), ("v2", None));
    assert_eq!(went_back(&daemon).await, 0);
    // A real failure still causes a rollback.
    let calls = Calls::start(&daemon, 2, "v2:throw").await;
    until_left(&daemon, "v2").await;
    calls.stop().await;
    daemon.stop().await;
}

/// Checks that a live version with this behaviour is rolled back for this reason.
async fn goes_back(limits: PolicyLimits, settings: SettingsPatch, what: &str, reason: &str) {
    let daemon = TestDaemon::start().await;
    daemon.register_with("f", settings).await;
    publish(&daemon, [1, 2]).await;
    set(&daemon, limits).await;
    let calls = Calls::start(&daemon, 3, what).await;
    let row = until_left(&daemon, "v2").await;
    calls.stop().await;
    assert_eq!(row.version, "v1");
    assert!(row.reason.as_deref().is_some_and(|it| it.contains(reason)), "{row:?}");
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "v1");
    daemon.stop().await;
}

fn crashes_at_most(max: u32) -> PolicyLimits {
    PolicyLimits { crashes_max: Some(max), error_rate_max: None, min_requests: 2, ..PolicyLimits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_count() {
    goes_back(crashes_at_most(2), SettingsPatch::default(), "v2:exit", " crashes (").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_memory_counts_as_a_crash() {
    let settings = SettingsPatch { memory_mb: Some(128), ..SettingsPatch::default() };
    goes_back(crashes_at_most(1), settings, "v2:eat", " crashes (").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_count() {
    let settings = SettingsPatch { timeout_seconds: Some(1), ..SettingsPatch::default() };
    goes_back(PolicyLimits { min_requests: 3, ..limits() }, settings, "v2:hang", "error rate 100.0 % (").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_calls_count() {
    let limits = PolicyLimits { p99_ms_max: Some(40), error_rate_max: None, ..limits() };
    goes_back(limits, SettingsPatch::default(), "v2:slow", "p99 over the limit of 40 ms: 100.0 % (").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_warns_moves_nothing_and_says_so_once() {
    let daemon = with_versions(2).await;
    set(&daemon, PolicyLimits { action: PolicyAction::Warn, ..limits() }).await;
    let calls = Calls::start(&daemon, 2, "v2:500").await;
    let line = daemon.until_logged("f", "error rate 100.0 %").await;
    until_looked_at(&daemon, "witness-2").await;
    calls.stop().await;
    assert_eq!((line.stream.as_str(), line.version.as_str()), ("system", "v2"));
    assert_eq!(daemon.logs("f").await.iter().filter(|it| it.message.contains("error rate")).count(), 1);
    let verdict = show(&daemon).await.last_verdict.expect("a verdict");
    assert_eq!((verdict.version.as_str(), verdict.went_back_to), ("v2", None));
    assert!(verdict.reason.starts_with("error rate 100.0 %"), "{}", verdict.reason);
    assert_eq!((went_back(&daemon).await, daemon.invoke("f").await.unwrap().version), (0, "v2".parse().unwrap()));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_versions_fail_it_does_not_flap() {
    let mut daemon = with_versions(3).await;
    // The shortest possible cooldown, so that the second verdict comes soon.
    set(&daemon, PolicyLimits { cooldown_seconds: 1, ..limits() }).await;
    let all = "v1:throw v2:throw v3:throw v4:throw";
    let calls = Calls::start(&daemon, 2, all).await;
    until_left(&daemon, "v3").await;
    until_left(&daemon, "v2").await;
    let nowhere = daemon.until_logged("f", "there is no version to go back to").await;
    assert_eq!(nowhere.version, "v1");
    calls.until_ended(100).await;
    calls.stop().await;
    assert_eq!((went_back(&daemon).await, daemon.invoke("f").await.unwrap().version), (2, "v1".parse().unwrap()));

    // The verdicts survive a restart: v2 and v3 are not targets for a rollback.
    daemon.restart().await;
    publish(&daemon, [4]).await;
    let calls = Calls::start(&daemon, 2, all).await;
    until_left(&daemon, "v4").await;
    calls.stop().await;
    assert_eq!(daemon.invoke("f").await.unwrap().version, "v1");
    // An explicit rollback to v2 makes it a target again.
    let back = RollbackRequest {
        function_id: "f".into(),
        version: Some(VersionRef::Label("v2".into())),
        ..RollbackRequest::default()
    };
    daemon.call(&back).await.unwrap();
    publish(&daemon, [5]).await;
    let calls = Calls::start(&daemon, 2, "v5:throw").await;
    assert_eq!(until_left(&daemon, "v5").await.version, "v2");
    calls.stop().await;
    assert_eq!(went_back(&daemon).await, 4);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_it_went_back_to_has_rest_also_after_a_restart() {
    let mut daemon = with_versions(3).await;
    set(&daemon, limits()).await;
    let calls = Calls::start(&daemon, 2, "v2:throw v3:throw").await;
    until_left(&daemon, "v3").await;
    calls.until_ended(100).await;
    calls.stop().await;
    daemon.restart().await;
    let shown = show(&daemon).await;
    assert_eq!((shown.policy, shown.version.as_str()), (Some(limits().try_into().unwrap()), "v2"));
    assert!(shown.rests_until.is_some());
    assert_eq!(shown.last_verdict.and_then(|it| it.went_back_to).as_deref(), Some("v2"));
    let calls = Calls::start(&daemon, 2, "v2:throw v3:throw").await;
    calls.until_ended(100).await;
    until_looked_at(&daemon, "witness-3").await;
    assert_eq!(went_back(&daemon).await, 1, "v2 is not judged during its cooldown");
    // A new deployment is judged at once.
    publish(&daemon, [4]).await;
    calls.stop().await;
    let calls = Calls::start(&daemon, 2, "v4:throw").await;
    assert_eq!(until_left(&daemon, "v4").await.version, "v2");
    calls.stop().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_before_the_alias_came_to_a_version_do_not_count() {
    let daemon = with_versions(2).await;
    set(&daemon, PolicyLimits { action: PolicyAction::Warn, ..limits() }).await;
    // v2 really fails; a user rolls it back, and returns to it once it is mended.
    for _ in 0..30 {
        daemon.invoke_with(call("v2:throw")).await.unwrap();
    }
    daemon.until_logged("f", "error rate").await;
    let back = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
    daemon.call(&back).await.unwrap();
    assert_eq!(daemon.call(&back).await.unwrap().version, "v2");
    set(&daemon, limits()).await;
    let calls = Calls::start(&daemon, 2, "").await;
    calls.until_ended(100).await;
    until_looked_at(&daemon, "witness-4").await;
    calls.stop().await;
    let shown = show(&daemon).await;
    assert_eq!((shown.version.as_str(), shown.counts.errors, went_back(&daemon).await), ("v2", 0, 0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deploys_meanwhile_is_not_taken_for_what_was_judged() {
    let daemon = with_versions_on(TestDaemon::start_gated(|_| {}).await, 2).await;
    set(&daemon, limits()).await;
    // A loading deployment holds the function's lock.
    let (client, gate) = (daemon.connect().await, Gate::shut(daemon.data_dir()));
    let code = format!("{}\n{}", gate.wait(), steered("v3"));
    let deploy = tokio::spawn(async move {
        let bundle = Some(Body::from(code.into_bytes()));
        client.call(&DeployRequest { function_id: "f".into(), bundle, ..DeployRequest::default() }).await
    });
    gate.until_reached().await;
    let calls = Calls::start(&daemon, 2, "v2:throw").await;
    calls.until_ended(100).await;
    gate.open();
    assert_eq!(
        deploy.await.unwrap().unwrap().previous_version.as_ref().map(ToString::to_string).as_deref(),
        Some("v2"),
        "the alias did not move meanwhile"
    );
    calls.until_ended(100).await;
    until_looked_at(&daemon, "witness-5").await;
    calls.stop().await;
    assert_eq!((went_back(&daemon).await, daemon.invoke("f").await.unwrap().version), (0, "v3".parse().unwrap()));
    daemon.stop().await;
}
