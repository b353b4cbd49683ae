//! START_ROLLOUT, CONTROL_ROLLOUT and LIST_ROLLOUTS.

use crate::harness::{DaemonProcess, Load, TestDaemon, get, is_refused, until};
use levain::{
    client::Client,
    error::ErrorCode,
    model::{DeploymentKind, DeploymentStatus, PolicyAction, RolloutStatus, policy::PolicyLimits},
    protocol::{field::Body, ipc::CommandRequest, message::*},
};
use std::{collections::BTreeSet, time::Instant};

async fn call<R: CommandRequest>(client: &Client, request: &R) -> R::Response {
    client.call(request).await.expect("an answer")
}

fn start(plan: &str) -> StartRolloutRequest {
    StartRolloutRequest {
        function_id: "f".into(),
        version: VersionRef::Label("v2".into()),
        plan: plan.into(),
        alias: None,
        reason: Some("new parser".into()),
    }
}

fn control(action: RolloutAction) -> ControlRolloutRequest {
    ControlRolloutRequest { function_id: "f".into(), alias: None, action, reason: Some("asked".into()) }
}

fn code(label: &str) -> String {
    format!(
        "export default (req) => {{
            if (req.headers.get('x-do') === '{label}:throw') throw new Error('asked for');
            return new Response('{label}');
        }};"
    )
}

async fn publish(client: &Client, label: &str, activate: bool) {
    let request = DeployRequest {
        function_id: "f".into(),
        bundle: Some(Body::from(code(label).into_bytes())),
        activate: Some(activate),
        ..DeployRequest::default()
    };
    assert_eq!(call(client, &request).await.version, label);
}

/// Deploys `f` with `v1` live and `v2` beside it.
async fn two_versions(client: &Client) {
    call(client, &RegisterRequest { name: "f".into(), ..RegisterRequest::default() }).await;
    publish(client, "v1", true).await;
    publish(client, "v2", false).await;
}

async fn with_two_versions() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    two_versions(daemon.client()).await;
    daemon
}

fn set_alias(name: &str, version: &str) -> SetAliasRequest {
    SetAliasRequest {
        function_id: "f".into(),
        name: name.into(),
        version: VersionRef::Label(version.into()),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    }
}

async fn latest(client: &Client) -> RolloutDetails {
    latest_of(client, "LIVE").await
}

async fn latest_of(client: &Client, alias: &str) -> RolloutDetails {
    let alias = Some(alias.into());
    let request = RolloutsRequest { function_id: "f".into(), alias, ..RolloutsRequest::default() };
    call(client, &request).await.rollouts.into_iter().next().expect("a rollout")
}

async fn until_step(client: &Client, step: u32) -> RolloutDetails {
    until("the rollout is at the step", || async { Some(latest(client).await).filter(|it| it.step == step) }).await
}

async fn until_status(client: &Client, status: RolloutStatus) -> RolloutDetails {
    until("the rollout ends", || async { Some(latest(client).await).filter(|it| it.status == status) }).await
}

async fn deployments(client: &Client) -> Vec<DeploymentInfo> {
    let request = DeploymentsRequest { function_id: "f".into(), ..DeploymentsRequest::default() };
    call(client, &request).await.deployments
}

/// Number of invocations that v2 answers, out of `calls`.
async fn share_of_v2(client: &Client, calls: usize) -> usize {
    let mut count = 0;
    for _ in 0..calls {
        count += usize::from(call(client, &get("f", "/")).await.version == "v2");
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_gets_more_and_more_until_the_alias_points_at_it() {
    let daemon = with_two_versions().await;
    let load = Load::start(&daemon, "f", "/", 2).await;
    let client = daemon.client();
    let started = call(client, &start("10% 1s, 50% 1s, 100%")).await;
    assert_eq!((started.status, started.step, started.version.as_str()), (RolloutStatus::Running, 1, "v2"));
    assert!(started.next_in_ms.is_some_and(|it| it <= 1_000) && started.reason.as_deref() == Some("new parser"));
    let done = until_status(client, RolloutStatus::Done).await;
    load.until_answered(20).await;
    let answers = load.stop().await;
    assert!(answers.iter().rev().take(5).all(|it| it.version == "v2"));
    assert_eq!((done.step, done.outcome, done.next_in_ms), (3, None, None));
    let lasted = done.finished_at.unwrap().as_millis() - done.created_at.as_millis();
    assert!(lasted >= 2_000, "both steps are held: {lasted} ms");

    let rows = deployments(client).await;
    let told = rows.iter().take(3).rev().map(|it| (it.kind, it.status, it.actor.as_str(), it.reason.clone().unwrap()));
    let id = &done.rollout_id;
    let expected = [
        (DeploymentKind::Traffic, DeploymentStatus::Applied, "rollout", format!("step 1 of 3 of {id}")),
        (DeploymentKind::Traffic, DeploymentStatus::Applied, "rollout", format!("step 2 of 3 of {id}")),
        (DeploymentKind::Promote, DeploymentStatus::Active, "rollout", format!("step 3 of 3 of {id}")),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(rows[0].previous_version.as_ref().map(ToString::to_string).as_deref(), Some("v1"));
    assert_eq!(share_of_v2(client, 20).await, 20);
    daemon.stop().await;
}

/// Starts a rollout and pauses it in its first step, however often the machine takes too long for that.
async fn paused_in_first_step(client: &Client, plan: &str) -> RolloutDetails {
    loop {
        call(client, &start(plan)).await;
        let paused = call(client, &control(RolloutAction::Pause)).await;
        if paused.step == 1 {
            return paused;
        }
        call(client, &control(RolloutAction::Abort)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_pauses_resumes_and_is_aborted() {
    let daemon = with_two_versions().await;
    let (client, plan) = (daemon.client(), "50% 1s, 90% 1h, 100%");
    let paused = paused_in_first_step(client, plan).await;
    assert_eq!((paused.status, paused.next_in_ms), (RolloutStatus::Paused, None));
    let uid = nix::unistd::geteuid();
    assert_eq!(paused.outcome, Some(format!("paused by uid:{uid}: asked")));
    assert_eq!(call(client, &control(RolloutAction::Pause)).await, paused, "it is paused already");
    // Its hold would be over before that of a rollout which starts now.
    call(client, &set_alias("DEV", "v1")).await;
    call(client, &StartRolloutRequest { alias: Some("DEV".into()), ..start(plan) }).await;
    until("the other is at its second step", async || (latest_of(client, "DEV").await.step == 2).then_some(())).await;
    assert_eq!(latest(client).await.step, 1);
    let shared = share_of_v2(client, 200).await;
    assert!((50..150).contains(&shared), "it keeps its share of 50 %: {shared} of 200");

    let resumed = call(client, &control(RolloutAction::Resume)).await;
    assert!(resumed.status == RolloutStatus::Running && resumed.outcome.is_none());
    assert!(resumed.next_in_ms.is_some_and(|it| it > 0), "the step is held anew: {resumed:?}");
    assert_eq!(until_step(client, 2).await.status, RolloutStatus::Running);
    let aborted = call(client, &control(RolloutAction::Abort)).await;
    assert_eq!((aborted.status, aborted.step), (RolloutStatus::Aborted, 2));
    assert_eq!(aborted.outcome, Some(format!("aborted by uid:{uid}: asked")));
    assert_eq!(share_of_v2(client, 50).await, 0);
    let row = deployments(client).await.remove(0);
    assert_eq!((row.kind, row.status, row.version.as_str()), (DeploymentKind::Traffic, DeploymentStatus::Active, "v1"));
    assert_eq!(row.previous_version.as_ref().map(ToString::to_string).as_deref(), Some("v2"));
    let outcome = daemon.call(&control(RolloutAction::Resume)).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rolled_out_is_refused() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    let client = daemon.client();
    publish(client, "v1", false).await;
    publish(client, "v2", false).await;
    let plan = "10% 1h, 100%";
    assert!(is_refused(&daemon.call(&start(plan)).await, ErrorCode::FunctionNotDeployed));
    let label = |label: &str| StartRolloutRequest { version: VersionRef::Label(label.into()), ..start(plan) };
    daemon
        .call(&DeployRequest { function_id: "f".into(), version: Some("v1".into()), ..DeployRequest::default() })
        .await
        .unwrap();
    assert!(is_refused(&daemon.call(&label("v1")).await, ErrorCode::Conflict), "the alias points there");
    assert!(is_refused(&daemon.call(&label("v9")).await, ErrorCode::VersionNotFound));
    let staging = StartRolloutRequest { alias: Some("STAGING".into()), ..start(plan) };
    assert!(is_refused(&daemon.call(&staging).await, ErrorCode::AliasNotFound));
    let outcome = daemon.call(&start("10% 5m, 5% 5m, 100%")).await;
    assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains("step 2 of the plan"));
    let request = RolloutsRequest { function_id: "f".into(), ..RolloutsRequest::default() };
    assert!(call(client, &request).await.rollouts.is_empty(), "the refused rollouts were not stored");

    call(client, &start(plan)).await;
    let outcome = daemon.call(&start(plan)).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    let outcome = daemon.call(&DeleteVersionRequest { function_id: "f".into(), version: "v2".into() }).await;
    assert!(is_refused(&outcome, ErrorCode::VersionInUse), "{outcome:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_moves_the_alias_aborts_it() {
    let daemon = with_two_versions().await;
    let client = daemon.client();
    let plan = "10% 1h, 100%";
    // The alias moves to another version.
    call(client, &start(plan)).await;
    publish(client, "v3", true).await;
    let ended = latest(client).await;
    let outcome = ended.outcome.expect("an outcome");
    assert!(ended.status == RolloutStatus::Aborted && ended.finished_at.is_some());
    assert!(outcome.starts_with("ended by a deployment to v3 (deploy-"), "{outcome}");
    assert_eq!(share_of_v2(client, 20).await, 0);
    // The alias is set to the version that it points at.
    call(client, &start(plan)).await;
    call(client, &set_alias("LIVE", "v3")).await;
    let outcome = latest(client).await.outcome.expect("an outcome");
    assert!(outcome.starts_with("ended by a move of the alias to v3 (deploy-"), "{outcome}");
    // The alias is rolled back.
    call(client, &start(plan)).await;
    call(client, &RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() }).await;
    let outcome = latest(client).await.outcome.expect("an outcome");
    assert!(outcome.starts_with("ended by a rollback to v3 (deploy-"), "{outcome}");
    // Another alias has a rollout of its own, which ends when that alias is deleted.
    call(client, &set_alias("DEV", "v1")).await;
    call(client, &StartRolloutRequest { alias: Some("DEV".into()), ..start(plan) }).await;
    call(client, &start(plan)).await;
    call(client, &DeleteAliasRequest { function_id: "f".into(), name: "DEV".into() }).await;
    let all = call(client, &RolloutsRequest { function_id: "f".into(), ..RolloutsRequest::default() }).await.rollouts;
    assert_eq!((all[1].alias.as_str(), all[1].outcome.as_deref()), ("DEV", Some("the alias was deleted")));
    assert_eq!((all[0].alias.as_str(), all[0].status), ("LIVE", RolloutStatus::Running));
    let of_dev = RolloutsRequest { alias: Some("DEV".into()), function_id: "f".into(), ..RolloutsRequest::default() };
    assert_eq!(call(client, &of_dev).await.rollouts.len(), 1);
    // A deployment that does not move the alias leaves the rollout alone.
    publish(client, "v4", false).await;
    assert_eq!(latest(client).await.status, RolloutStatus::Running);
    call(client, &DeleteRequest { function_id: "f".into() }).await;
    daemon.stop().await;
}

async fn policy(client: &Client, action: PolicyAction) {
    let limits = PolicyLimits { error_rate_max: Some(5.0), min_requests: 10, action, ..PolicyLimits::default() };
    let policy = Some(limits.try_into().expect("a policy"));
    call(client, &SetPolicyRequest { function_id: "f".into(), policy, ..SetPolicyRequest::default() }).await;
}

/// Makes failing invocations until the rollout has this status.
async fn fail_until(client: &Client, status: RolloutStatus) -> RolloutDetails {
    let failing = InvokeRequest {
        headers: Some(levain::protocol::field::Fields(vec![("x-do".into(), "v2:throw".into())])),
        ..get("f", "/")
    };
    until("the policy acts", || async {
        for _ in 0..20 {
            call(client, &failing).await;
        }
        Some(latest(client).await).filter(|it| it.status == status)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_breaks_the_policy_is_not_rolled_out() {
    let daemon = with_two_versions().await;
    let client = daemon.client();
    policy(client, PolicyAction::Rollback).await;
    call(client, &start("50% 1h, 100%")).await;
    let ended = fail_until(client, RolloutStatus::Aborted).await;
    let outcome = ended.outcome.expect("an outcome");
    assert!(outcome.starts_with("ended by the policy to v1 (deploy-") && outcome.contains("error rate"), "{outcome}");
    assert_eq!(share_of_v2(client, 30).await, 0);
    assert_eq!(deployments(client).await[0].kind, DeploymentKind::AutoRollback);

    // Under a policy that only warns, a user has to decide.
    policy(client, PolicyAction::Warn).await;
    call(client, &start("50% 1h, 100%")).await;
    let paused = fail_until(client, RolloutStatus::Paused).await;
    assert_eq!(paused.step, 1);
    assert!(paused.outcome.is_some_and(|it| it.starts_with("error rate")), "it says why");
    assert!(share_of_v2(client, 40).await > 0, "it keeps its share");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_begins_the_present_step_anew() {
    const HOLD_MS: u64 = 3_600_000;
    let mut daemon = with_two_versions().await;
    call(daemon.client(), &start("10% 1s, 50% 1h, 100%")).await;
    until_step(daemon.client(), 2).await;
    // Another rollout goes on after the restart.
    call(daemon.client(), &set_alias("DEV", "v1")).await;
    call(daemon.client(), &StartRolloutRequest { alias: Some("DEV".into()), ..start("10% 2s, 100%") }).await;
    let is_held = async || latest(daemon.client()).await.next_in_ms.filter(|left| left + 100 < HOLD_MS);
    until("a part of the hold is over", is_held).await;
    let began = Instant::now();
    daemon.restart().await;
    let present = latest(daemon.client()).await;
    assert_eq!((present.step, present.status), (2, RolloutStatus::Running));
    let (left, elapsed) = (present.next_in_ms.expect("it goes on"), began.elapsed().as_millis() as u64);
    assert!(left + elapsed + 50 > HOLD_MS, "{left} ms are left {elapsed} ms after the restart began");
    let shared = share_of_v2(daemon.client(), 100).await;
    assert!((20..80).contains(&shared), "{shared} of 100");
    let is_done = async || (latest_of(daemon.client(), "DEV").await.status == RolloutStatus::Done).then_some(());
    until("the other rollout is done", is_done).await;
    daemon.stop().await;
}

/// The latest rollout, and the deployments while it was at that step.
async fn of_one_moment(client: &Client) -> (RolloutDetails, Vec<DeploymentInfo>) {
    loop {
        let (before, rows, after) = (latest(client).await, deployments(client).await, latest(client).await);
        if (before.step, before.status) == (after.step, after.status) {
            return (before, rows);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_leaves_step_and_share_in_agreement() {
    let data = tempfile::tempdir().unwrap();
    let mut daemon = DaemonProcess::start(data.path()).await;
    two_versions(&daemon.client().await).await;
    call(&daemon.client().await, &start("20% 1s, 50% 1s, 80% 1s, 100%")).await;
    let mut seen = BTreeSet::new();
    loop {
        let client = daemon.client().await;
        let (rollout, rows) = of_one_moment(&client).await;
        seen.insert(rollout.step);
        assert_eq!(rows[0].reason, Some(format!("step {} of 4 of {}", rollout.step, rollout.rollout_id)));
        if rollout.status == RolloutStatus::Done {
            assert_eq!((rows[0].status, rows.len()), (DeploymentStatus::Active, 6), "each step appears once: {rows:?}");
            assert_eq!(share_of_v2(&client, 20).await, 20);
            break;
        }
        assert_eq!(rollout.status, RolloutStatus::Running);
        until("a step", || async { Some(latest(&client).await).filter(|it| it.step > rollout.step) }).await;
        daemon.kill().await;
        daemon = DaemonProcess::start(data.path()).await;
    }
    assert!(seen.len() >= 2, "{seen:?}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_rolls_out_and_sets_policies() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    two_versions(&daemon.client().await).await;
    let set = daemon.cli(&["policy", "set", "f", "--error-rate", "5", "--p99", "200ms", "--cooldown", "1m"]).await.ok();
    assert!(set.contains("f LIVE rolls back automatically") && set.contains("p99 at most 200 ms"), "{set}");
    let started = daemon.cli(&["rollout", "start", "f", "v2", "--plan", "10% 5m, 100%", "--reason", "why"]).await.ok();
    assert!(started.contains("f LIVE → v2 running") && started.contains("100 % in "), "{started}");
    let shown = daemon.cli(&["policy", "show", "f", "--json"]).await.json();
    assert_eq!((&shown["version"], &shown["policy"]["p99_ms_max"]), (&"v2".into(), &200.into()));
    for (action, status) in [("pause", "paused"), ("resume", "running"), ("abort", "aborted")] {
        let text = daemon.cli(&["rollout", action, "f"]).await.ok();
        assert!(text.contains(status), "{text}");
    }
    assert!(daemon.cli(&["rollout", "show", "f"]).await.ok().contains("aborted by uid:"));
    let list = daemon.cli(&["rollout", "list", "f"]).await.ok();
    assert!(list.contains("10% 5m, 100%") && list.lines().count() == 2, "{list}");
    assert!(daemon.cli(&["policy", "remove", "f"]).await.ok().contains("has no policy"));
    let refused = daemon.cli(&["rollout", "resume", "f"]).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    let wrong = daemon.cli(&["rollout", "start", "f", "v2", "--plan", "10% 5m, 5% 1m, 100%"]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("step 2 of the plan"), "{wrong:?}");
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_approval_is_no_rollout() {
    let daemon = with_two_versions().await;
    let client = daemon.client();
    let protect =
        SetEnvironmentRequest { name: "production".into(), protected: Some(true), ..SetEnvironmentRequest::default() };
    call(client, &protect).await;
    let share = SetTrafficRequest {
        function_id: "f".into(),
        version: Some(VersionRef::Label("v2".into())),
        weight: Some(10),
        ..SetTrafficRequest::default()
    };
    assert_eq!(call(client, &share).await.status.name(), "pending_approval");
    // A plan that begins with the waiting share, and one with another share.
    for plan in ["10% 20s, 100%", "50% 20s, 100%"] {
        let outcome = daemon.call(&start(plan)).await;
        assert!(is_refused(&outcome, ErrorCode::ApprovalRequired), "{plan}: {outcome:?}");
    }
    let none = RolloutsRequest { function_id: "f".into(), ..RolloutsRequest::default() };
    assert!(call(client, &none).await.rollouts.is_empty());
    assert_eq!(share_of_v2(client, 5).await, 0);
    daemon.stop().await;
}
