//! PROMOTE and PROMOTE_ALL.

use crate::harness::{Load, TestDaemon, is_refused, text, until};
use levain::{
    error::{Error, ErrorCode},
    model::{DeploymentKind, DeploymentStatus, SettingsPatch},
    protocol::{
        field::Body,
        message::{
            CreateEnvironmentRequest, DecideRequest, DeployRequest, DeployResponse, PlanAction, PromoteAllRequest,
            PromoteAllResponse, PromoteRequest, RollbackRequest, SetAliasRequest, SetEnvironmentRequest,
            SetTrafficRequest, VersionRef,
        },
    },
};

fn says(word: &str) -> String {
    format!("export default (req, ctx) => new Response({word:?} + ' ' + ctx.environment);")
}

async fn deploy(daemon: &TestDaemon, function: &str, alias: &str, word: &str) -> DeployResponse {
    let bundle = Some(Body::from(says(word).into_bytes()));
    let (function_id, alias) = (function.to_owned(), Some(alias.to_owned()));
    let request = DeployRequest { function_id, bundle, alias, create: true, ..DeployRequest::default() };
    daemon.call(&request).await.unwrap()
}

/// Deploys a function `f` with v1 live and v2 on STAGING.
async fn staged() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    deploy(&daemon, "f", "LIVE", "v1").await;
    deploy(&daemon, "f", "STAGING", "v2").await;
    daemon
}

fn promote() -> PromoteRequest {
    PromoteRequest { function_id: "f".into(), ..PromoteRequest::default() }
}

fn between(from: &str, to: &str) -> PromoteRequest {
    PromoteRequest { from: Some(from.into()), to: Some(to.into()), ..promote() }
}

async fn answer(daemon: &TestDaemon, function: &str) -> String {
    text(&daemon.invoke(function).await.unwrap_or_else(|error| panic!("{function}: {error:?}"))).to_owned()
}

async fn set(daemon: &TestDaemon, alias: &str, version: u32, environment: &str) {
    let request = SetAliasRequest {
        function_id: "f".into(),
        name: alias.into(),
        version: VersionRef::Number(version),
        environment: Some(environment.into()),
        description: None,
        reason: None,
        dry_run: false,
    };
    daemon.call(&request).await.unwrap();
}

async fn protect(daemon: &TestDaemon, protected: bool) {
    let (name, protected) = ("production".into(), Some(protected));
    daemon.call(&SetEnvironmentRequest { name, protected, ..SetEnvironmentRequest::default() }).await.unwrap();
}

async fn decide(daemon: &TestDaemon, id: &str, approve: bool) -> Result<DeployResponse, Error> {
    daemon.call(&DecideRequest { deployment_id: id.into(), approve, reason: None }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_staged_becomes_live_as_it_is() {
    let daemon = staged().await;
    let planned = daemon.call(&PromoteRequest { dry_run: true, ..promote() }).await.unwrap();
    assert_eq!((planned.status.name(), planned.version.as_str(), planned.alias.as_str()), ("checked", "v2", "LIVE"));
    assert!(planned.plan.iter().any(|it| it.action == PlanAction::Move), "{:?}", planned.plan);
    assert_eq!(answer(&daemon, "f").await, "v1 production", "a dry run moves nothing");

    let before = daemon.versions("f").await;
    let promoted = daemon.call(&PromoteRequest { reason: Some("tested".into()), ..promote() }).await.unwrap();
    assert_eq!(
        (promoted.status.name(), promoted.published, promoted.environment.as_str()),
        ("deployed", false, "production")
    );
    assert_eq!(
        (promoted.version.as_str(), promoted.previous_version.as_ref().map(ToString::to_string).as_deref()),
        ("v2", Some("v1"))
    );
    assert_eq!((promoted.digest, daemon.versions("f").await.len()), (before[0].digest, 2), "nothing is built");
    assert_eq!(answer(&daemon, "f").await, "v2 production");
    assert_eq!(answer(&daemon, "f:STAGING").await, "v2 staging", "it stays where it was");
    let row = daemon.deployments("f").await.remove(0);
    assert_eq!(
        (row.kind, row.status, row.deployment_id),
        (DeploymentKind::Promote, DeploymentStatus::Active, promoted.deployment_id.clone())
    );
    assert_eq!(row.reason.as_deref(), Some("tested (from STAGING in staging)"));

    // A repeated promotion is done already, and a rollback is possible.
    let again = daemon.call(&promote()).await.unwrap();
    assert_eq!((again.status.name(), again.deployment_id), ("deployed", promoted.deployment_id));
    let back = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
    assert_eq!(daemon.call(&back).await.unwrap().version, "v1");
    assert_eq!(answer(&daemon, "f").await, "v1 production");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_two_places_do_and_aliases_say_where() {
    let daemon = staged().await;
    deploy(&daemon, "f", "DEV", "v3").await;
    let staged = daemon.call(&between("dev", "staging")).await.unwrap();
    assert_eq!((staged.alias.as_str(), staged.version.as_str()), ("STAGING", "v3"));
    // An environment without an alias gets one with its name; a single alias is used as it is.
    daemon.call(&CreateEnvironmentRequest { name: "qa".into(), ..CreateEnvironmentRequest::default() }).await.unwrap();
    let made = daemon.call(&between("staging", "qa")).await.unwrap();
    assert_eq!((made.alias.as_str(), made.environment.as_str()), ("QA", "qa"));
    assert_eq!(answer(&daemon, "f:QA").await, "v3 qa");
    set(&daemon, "canary", 2, "dev").await;
    for request in [
        between("canary", "LIVE"),
        PromoteRequest { from_alias: Some("canary".into()), ..between("dev", "production") },
    ] {
        daemon.call(&between("qa", "LIVE")).await.unwrap();
        assert_eq!(answer(&daemon, "f").await, "v3 production");
        assert_eq!(daemon.call(&request).await.unwrap().version, "v2");
        assert_eq!(answer(&daemon, "f").await, "v2 production");
    }
    let named = PromoteRequest { alias: Some("blue".into()), ..between("qa", "production") };
    let blue = daemon.call(&named).await.unwrap();
    assert_eq!((blue.alias.as_str(), blue.environment.as_str()), ("blue", "production"));
    assert_eq!(answer(&daemon, "f:blue").await, "v3 production");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_clear_is_refused_and_moves_nothing() {
    let daemon = staged().await;
    set(&daemon, "one", 1, "preview").await;
    set(&daemon, "two", 2, "preview").await;
    let cases = [
        (between("dev", "production"), ErrorCode::AliasNotFound, "--alias DEV"),
        (between("moon", "production"), ErrorCode::EnvironmentNotFound, "moon"),
        (between("staging", "moon"), ErrorCode::EnvironmentNotFound, "moon"),
        (between("staging", "staging"), ErrorCode::InvalidRequest, "itself"),
        (between("LIVE", "LIVE"), ErrorCode::InvalidRequest, "itself"),
        (between("preview", "production"), ErrorCode::InvalidRequest, "one, two"),
        (between("staging", "preview"), ErrorCode::InvalidRequest, "one, two"),
        (PromoteRequest { alias: Some("one".into()), ..promote() }, ErrorCode::Conflict, "runs in preview"),
        (PromoteRequest { from_alias: Some("LIVE".into()), ..promote() }, ErrorCode::Conflict, "runs in production"),
        (PromoteRequest { from_alias: Some("none".into()), ..promote() }, ErrorCode::AliasNotFound, "none"),
        (PromoteRequest { alias: Some("LIVE".into()), ..between("LIVE", "dev") }, ErrorCode::InvalidRequest, "LIVE"),
        (PromoteRequest { alias: Some("ROLLBACK".into()), ..promote() }, ErrorCode::Conflict, "ROLLBACK"),
        (PromoteRequest { alias: Some("v1".into()), ..promote() }, ErrorCode::Conflict, "label"),
        (PromoteRequest { function_id: "nobody".into(), ..promote() }, ErrorCode::FunctionNotFound, "nobody"),
    ];
    for (request, code, part) in cases {
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, code), "{request:?}: {outcome:?}");
        assert!(outcome.as_ref().is_err_and(|it| it.message.contains(part)), "{part}: {outcome:?}");
    }
    let share = SetTrafficRequest {
        function_id: "f".into(),
        alias: Some("STAGING".into()),
        version: Some(VersionRef::Number(1)),
        weight: Some(30),
        ..SetTrafficRequest::default()
    };
    daemon.call(&share).await.unwrap();
    let outcome = daemon.call(&promote()).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains("traffic promote f --alias STAGING"));
    assert_eq!(answer(&daemon, "f").await, "v1 production");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_protected_environment_it_waits_for_approval() {
    let daemon = staged().await;
    protect(&daemon, true).await;
    let asked = daemon.call(&promote()).await.unwrap();
    assert_eq!((asked.status.name(), asked.alias.as_str()), ("pending_approval", "LIVE"));
    assert_eq!(answer(&daemon, "f").await, "v1 production");
    assert_eq!(daemon.call(&promote()).await.unwrap().deployment_id, asked.deployment_id, "it waits already");
    assert_eq!(decide(&daemon, &asked.deployment_id, false).await.unwrap().status.name(), "rejected");
    assert_eq!(answer(&daemon, "f").await, "v1 production");

    let asked = daemon.call(&promote()).await.unwrap();
    let approved = decide(&daemon, &asked.deployment_id, true).await.unwrap();
    assert_eq!(
        (approved.status.name(), approved.previous_version.as_ref().map(ToString::to_string).as_deref()),
        ("deployed", Some("v1"))
    );
    assert_eq!(answer(&daemon, "f").await, "v2 production");
    let row = daemon.deployments("f").await.remove(0);
    assert_eq!((row.kind, row.status), (DeploymentKind::Promote, DeploymentStatus::Active));
    assert_eq!(row.reason.as_deref(), Some("from STAGING in staging"));
    // A version that was live before needs no approval for a rollback, nor for the way forth again.
    let back = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
    assert_eq!(daemon.call(&back).await.unwrap().status.name(), "deployed");
    assert_eq!(daemon.call(&promote()).await.unwrap().status.name(), "deployed");
    daemon.stop().await;
}

async fn promote_all(daemon: &TestDaemon, dry_run: bool) -> Result<PromoteAllResponse, Error> {
    daemon.call(&PromoteAllRequest { dry_run, ..PromoteAllRequest::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_differ_are_promoted_or_none() {
    let daemon = staged().await;
    deploy(&daemon, "new", "STAGING", "v1").await;
    deploy(&daemon, "same", "STAGING", "v1").await;
    deploy(&daemon, "same", "LIVE", "v1").await;
    deploy(&daemon, "other", "LIVE", "v1").await;
    deploy(&daemon, "split", "STAGING", "v1").await;
    deploy(&daemon, "split", "LIVE", "v2").await;
    let share = SetTrafficRequest {
        function_id: "split".into(),
        alias: Some("STAGING".into()),
        version: Some("v2".into()),
        weight: Some(10),
        ..SetTrafficRequest::default()
    };
    daemon.call(&share).await.unwrap();
    for (dry_run, live) in [(true, "v1 production"), (false, "v2 production")] {
        let response = promote_all(&daemon, dry_run).await.unwrap();
        let changes: Vec<_> = response
            .changes
            .iter()
            .map(|it| (it.function.as_str(), it.alias.as_str(), it.from.as_deref(), it.to.as_str()))
            .collect();
        assert_eq!(changes, [("f", "LIVE", Some("v1"), "v2"), ("new", "LIVE", None, "v1")]);
        assert_eq!((response.unchanged, response.skipped.len(), response.dry_run), (1, 1, dry_run));
        assert_eq!(response.skipped[0].function, "split");
        assert!(response.changes.iter().all(|it| it.deployments.is_empty() == dry_run), "{response:?}");
        assert_eq!(answer(&daemon, "f").await, live);
    }
    assert_eq!(answer(&daemon, "new").await, "v1 production");
    let row = daemon.deployments("new").await.remove(0);
    assert_eq!((row.kind, row.reason.as_deref()), (DeploymentKind::Promote, Some("from staging")));
    assert_eq!(promote_all(&daemon, false).await.unwrap().unchanged, 3);

    // One function that would have to wait stops the whole promotion.
    deploy(&daemon, "f", "STAGING", "v3").await;
    deploy(&daemon, "same", "STAGING", "v2").await;
    protect(&daemon, true).await;
    for dry_run in [true, false] {
        let outcome = promote_all(&daemon, dry_run).await;
        assert!(is_refused(&outcome, ErrorCode::ApprovalRequired), "{outcome:?}");
    }
    assert_eq!(
        (answer(&daemon, "f").await, answer(&daemon, "same").await),
        ("v2 production".into(), "v1 production".into())
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_callers_notice_nothing_of_promotions() {
    let daemon = TestDaemon::start().await;
    daemon.register_with("f", SettingsPatch { max_concurrent_executions: Some(4), ..SettingsPatch::default() }).await;
    deploy(&daemon, "f", "LIVE", "v1").await;
    let load = Load::start(&daemon, "f", "/", 16).await;
    load.until_answered(64).await;
    for number in 2..=5 {
        deploy(&daemon, "f", "STAGING", &format!("v{number}")).await;
        daemon.call(&promote()).await.unwrap();
        load.until_answered(64).await;
    }
    // Every call has succeeded, and each answer names the version that gave it.
    let answers = load.stop().await;
    assert!(answers.iter().all(|it| text(it) == format!("{} production", it.version)));
    for number in 1..=5 {
        let version = format!("v{number}");
        assert!(answers.iter().any(|it| it.version == version.as_str()), "{version} had calls");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_ends_a_rollout_and_a_split_as_any_move_does() {
    let daemon = staged().await;
    deploy(&daemon, "f", "DEV", "v3").await;
    let share = SetTrafficRequest {
        function_id: "f".into(),
        version: Some("v3".into()),
        weight: Some(10),
        ..SetTrafficRequest::default()
    };
    daemon.call(&share).await.unwrap();
    let plan = daemon.call(&PromoteRequest { dry_run: true, ..promote() }).await.unwrap().plan;
    assert!(plan.iter().any(|it| it.action == PlanAction::EndSplit), "{plan:?}");
    daemon.call(&promote()).await.unwrap();
    let live =
        || async { daemon.info("f").await.aliases.into_iter().find(|it| it.name == "LIVE" && it.split.is_none()) };
    assert_eq!(until("the split has ended", live).await.version, "v2");
    daemon.stop().await;
}
