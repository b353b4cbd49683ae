//! ROLLBACK.

use crate::harness::{Load, TestDaemon, is_refused, text, until};
use levain::{
    error::ErrorCode,
    model::{ColdStart, DeploymentKind, DeploymentStatus},
    protocol::{
        ipc::Encoding,
        message::{DeployRequest, PoolInfo, RollbackRequest, SetAliasRequest, StatusRequest, VersionRef},
    },
};
use std::{fs, os::unix::fs::PermissionsExt};

fn request() -> RollbackRequest {
    RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() }
}

fn to_label(label: &str) -> RollbackRequest {
    RollbackRequest { version: Some(VersionRef::Label(label.into())), ..request() }
}

/// Deploys a function `f` with three versions that answer with their own label; the last is live.
async fn with_three_versions() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    for label in ["one", "two", "three"] {
        let code = format!("export default () => new Response({label:?});");
        daemon.redeploy_text("f", Some(label), &code).await.unwrap();
    }
    daemon
}

async fn live(daemon: &TestDaemon) -> String {
    let answer = daemon.invoke("f").await.unwrap();
    assert_eq!(answer.version, text(&answer));
    answer.version.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_version_it_goes_to_the_previous_one_and_back() {
    let daemon = with_three_versions().await;
    let back = daemon.call(&RollbackRequest { reason: Some("too slow".into()), ..request() }).await.unwrap();
    assert_eq!((back.version.as_str(), back.number, back.published), ("two", 2, false));
    assert_eq!(
        (back.status.name(), back.previous_version.as_ref().map(ToString::to_string).as_deref()),
        ("deployed", Some("three"))
    );
    assert_eq!(live(&daemon).await, "two");

    let deployments = daemon.deployments("f").await;
    let last = &deployments[0];
    assert_eq!((last.kind, last.status, last.is_active), (DeploymentKind::Rollback, DeploymentStatus::Active, true));
    assert_eq!(
        (&last.deployment_id, last.previous_version.as_ref().map(ToString::to_string).as_deref()),
        (&back.deployment_id, Some("three"))
    );
    assert_eq!(
        (last.actor.clone(), last.reason.as_deref()),
        (format!("uid:{}", nix::unistd::geteuid()), Some("too slow"))
    );
    assert_eq!((last.alias.as_str(), last.environment.as_str()), ("LIVE", "production"));
    assert_eq!(deployments.iter().filter(|it| it.is_active).count(), 1);

    assert_eq!(daemon.call(&request()).await.unwrap().version, "three");
    assert_eq!(live(&daemon).await, "three");
    assert_eq!(daemon.call(&request()).await.unwrap().version, "two");
    assert_eq!(live(&daemon).await, "two");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_named_by_label_or_number() {
    let daemon = with_three_versions().await;
    for (version, label) in [
        (VersionRef::Label("one".into()), "one"),
        (VersionRef::Number(3), "three"),
        (VersionRef::Label("2".into()), "two"),
        (VersionRef::Number(1), "one"),
    ] {
        let named = RollbackRequest { version: Some(version), ..request() };
        assert_eq!(daemon.call(&named).await.unwrap().version, label, "{named:?}");
        assert_eq!(live(&daemon).await, label);
    }
    let json = daemon.connect().await.with_encoding(Encoding::Json);
    let (status, payload) = json.call_raw(0x0D, br#"{"function_id": "f", "version": 2}"#).await.unwrap();
    assert_eq!((status, live(&daemon).await.as_str()), (0, "two"), "{payload:?}");
    for version in [VersionRef::Number(9), VersionRef::Label("nine".into()), VersionRef::Number(0)] {
        let outcome = daemon.call(&RollbackRequest { version: Some(version), ..request() }).await;
        assert!(is_refused(&outcome, ErrorCode::VersionNotFound), "{outcome:?}");
    }
    let outcome = daemon.call(&RollbackRequest { alias: Some("STAGING".into()), ..request() }).await;
    assert!(is_refused(&outcome, ErrorCode::AliasNotFound), "{outcome:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_alias_goes_back_by_itself() {
    let daemon = with_three_versions().await;
    for number in [3, 1] {
        let set = SetAliasRequest {
            function_id: "f".into(),
            name: "STAGING".into(),
            version: VersionRef::Number(number),
            environment: None,
            description: None,
            reason: None,
            dry_run: false,
        };
        daemon.call(&set).await.unwrap();
    }
    let staging = || RollbackRequest { alias: Some("STAGING".into()), ..request() };
    let back = daemon.call(&staging()).await.unwrap();
    assert_eq!((back.alias.as_str(), back.version.as_str()), ("STAGING", "three"));
    assert_eq!(back.previous_version.as_ref().map(ToString::to_string).as_deref(), Some("one"));
    let back = RollbackRequest { version: Some(VersionRef::Label("2".into())), ..staging() };
    assert_eq!(daemon.call(&back).await.unwrap().version, "two");
    assert_eq!(text(&daemon.invoke("f:STAGING").await.unwrap()), "two");
    assert_eq!(live(&daemon).await, "three");
    let last = daemon.deployments("f").await.remove(0);
    assert_eq!((last.kind, last.alias.as_str()), (DeploymentKind::Rollback, "STAGING"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_to_what_is_live_changes_nothing() {
    let daemon = with_three_versions().await;
    let before = daemon.deployments("f").await;
    let same = daemon.call(&to_label("three")).await.unwrap();
    assert_eq!((same.version.as_str(), same.deployment_id.as_str()), ("three", before[0].deployment_id.as_str()));
    assert_eq!(daemon.deployments("f").await.len(), before.len());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_previous_version_there_is_nothing_to_go_back_to() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    assert!(is_refused(&daemon.call(&request()).await, ErrorCode::VersionNotFound));
    daemon.redeploy_text("f", None, "export default () => new Response('v1');").await.unwrap();
    // A version that failed to load was never live.
    daemon.redeploy_text("f", None, "throw 1; export default () => {};").await.unwrap_err();
    assert!(is_refused(&daemon.call(&request()).await, ErrorCode::VersionNotFound));
    assert_eq!(live(&daemon).await, "v1");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_code_was_changed_on_disk_is_refused() {
    let mut daemon = with_three_versions().await;
    let version = daemon.versions("f").await.into_iter().find(|it| it.version == "one").unwrap();
    let file = &version.bundle_path;
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(file, "export default () => new Response('changed');").unwrap();
    // A bundle is compared with its digest before its first use after a start.
    daemon.restart().await;
    let outcome = daemon.call(&to_label("one")).await;
    assert!(is_refused(&outcome, ErrorCode::BundleInvalid), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains("changed after it was published"));
    assert_eq!(live(&daemon).await, "three");
    let failed = daemon.deployments("f").await.remove(0);
    assert_eq!((failed.kind, failed.status), (DeploymentKind::Rollback, DeploymentStatus::Failed));
    // A deployment of the label is refused too.
    let deploy = DeployRequest { function_id: "f".into(), version: Some("one".into()), ..DeployRequest::default() };
    assert!(is_refused(&daemon.call(&deploy).await, ErrorCode::BundleInvalid));
    assert_eq!(live(&daemon).await, "three");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_is_warm_before_the_traffic_moves() {
    let daemon = with_three_versions().await;
    daemon.call(&to_label("one")).await.unwrap();
    let answer = daemon.invoke("f").await.unwrap();
    assert_eq!((answer.version.as_str(), answer.cold_start), ("one", levain::model::ColdStart::None));
    daemon.stop().await;
}

/// Starts a daemon with two versions of `f`, whose idle workers expire after a second, except the one kept for a
/// rollback.
async fn with_kept_worker(rollback_warm_seconds: u32) -> TestDaemon {
    let daemon = TestDaemon::start_with(|config| {
        config.versioning.rollback_warm_seconds = rollback_warm_seconds;
        config.functions.idle_timeout_seconds = 1;
    })
    .await;
    daemon.deploy_text("f", "export default () => new Response('one');").await;
    daemon.redeploy_text("f", None, "export default () => new Response('two');").await.expect("a good bundle");
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_stays_warm_for_a_rollback() {
    let daemon = with_kept_worker(60).await;
    until("only the kept worker is left", || async {
        let pools = daemon.pools("f").await;
        matches!(&pools[..], [only] if only.version == "v1" && only.idle == 1).then_some(())
    })
    .await;
    daemon.client().call(&request()).await.expect("there is a version before");
    let answer = daemon.invoke("f").await.expect("an answer");
    assert_eq!((text(&answer), answer.cold_start), ("one", ColdStart::None));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_does_not_stay_warm_for_ever() {
    let daemon = with_kept_worker(1).await;
    daemon.until_no_workers().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_nothing_fails_and_no_call_waits_for_a_process_to_be_spawned() {
    let daemon = TestDaemon::start_with(|config| {
        config.versioning.rollback_warm_seconds = 600;
        config.workers.prewarmed_workers = 2;
        config.functions.idle_timeout_seconds = 1;
    })
    .await;
    daemon.register("f").await;
    for label in ["one", "two"] {
        let code = format!("export default async () => {{ await Bun.sleep(2); return new Response({label:?}); }};");
        daemon.redeploy_text("f", Some(label), &code).await.unwrap();
    }
    let load = Load::start(&daemon, "f", "/", 3).await;
    // All other workers of the version expire; one is kept for a rollback.
    let kept = |pools: Vec<PoolInfo>| pools.iter().any(|pool| pool.version == "one" && pool.idle == 1);
    until("one worker of the version before is kept", || async { kept(daemon.pools("f").await).then_some(()) }).await;
    let all = |pools: Vec<PoolInfo>| pools.iter().any(|pool| pool.idle + pool.busy == 3 && pool.starting == 0);
    until("three workers are ready", || async { all(daemon.pools("f").await).then_some(()) }).await;
    load.stop().await;
    let load = Load::start(&daemon, "f", "/", 3).await;
    until("all are busy", || async { daemon.pools("f").await.iter().any(|it| it.busy == 3).then_some(()) }).await;
    let prewarmed = async || daemon.call(&StatusRequest {}).await.unwrap().prewarmed;
    until("processes wait for a function", || async { (prewarmed().await == 2).then_some(()) }).await;
    for version in ["one", "two", "one"] {
        let back = daemon.call(&request()).await.unwrap();
        assert_eq!(back.version, version);
        load.until_answered(50).await;
    }
    let answers = load.stop().await;
    assert!(answers.iter().filter(|it| it.version == "one").count() > 50, "both versions had traffic");
    let spawned = answers.iter().filter(|it| it.cold_start == ColdStart::Spawned).count();
    assert_eq!(spawned, 0, "of {} calls", answers.len());
    assert!(answers.iter().all(|it| it.version == text(it)), "each answer names its version");
    daemon.stop().await;
}
