//! DECIDE_DEPLOYMENT, and the deployments that wait for it.

use crate::harness::{Load, TestDaemon, is_refused, text, until};
use levain::{
    error::{Error, ErrorCode},
    model::{DeploymentKind, DeploymentStatus, Timestamp},
    protocol::{
        field::Body,
        message::{
            AliasesRequest, ApplyManifestRequest, DecideRequest, DeleteRequest, DeleteVersionRequest, DeployRequest,
            DeployResponse, DeploymentInfo, DeploymentsRequest, ExportManifestRequest, LogsRequest, Manifest,
            RollbackRequest, SetAliasRequest, SetEnvironmentRequest, SetTrafficRequest, SetVariablesRequest,
            VersionRef, WarmupRequest,
        },
    },
};
use rusqlite::Connection;
use std::fs;

fn says(word: &str) -> String {
    format!("export default () => new Response({word:?});")
}

async fn protect(daemon: &TestDaemon, protected: bool) {
    daemon
        .call(&SetEnvironmentRequest {
            name: "production".into(),
            protected: Some(protected),
            ..SetEnvironmentRequest::default()
        })
        .await
        .unwrap();
}

/// A function `f` whose v1 took calls before its environment was protected.
async fn guarded() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &says("v1")).await;
    protect(&daemon, true).await;
    daemon
}

fn deploy(word: &str) -> DeployRequest {
    let bundle = Some(Body::from(says(word).into_bytes()));
    DeployRequest { function_id: "f".into(), bundle, ..DeployRequest::default() }
}

fn share(version: &str, percent: u32) -> DeployRequest {
    DeployRequest { bundle: None, version: Some(version.into()), weight: Some(percent), ..deploy("") }
}

/// Deploys to the protected environment, and checks that the deployment waits for approval.
async fn waits(daemon: &TestDaemon, word: &str) -> DeployResponse {
    let response = daemon.call(&deploy(word)).await.unwrap();
    assert_eq!(response.status.name(), "pending_approval", "{response:?}");
    response
}

async fn decide(daemon: &TestDaemon, id: &str, approve: bool) -> Result<DeployResponse, Error> {
    let reason = Some(if approve { "reviewed" } else { "not today" }.into());
    daemon.call(&DecideRequest { deployment_id: id.into(), approve, reason }).await
}

async fn waiting(daemon: &TestDaemon) -> Vec<DeploymentInfo> {
    let status = Some(DeploymentStatus::PendingApproval);
    daemon.call(&DeploymentsRequest { status, ..DeploymentsRequest::default() }).await.unwrap().deployments
}

async fn deployment(daemon: &TestDaemon, id: &str) -> DeploymentInfo {
    daemon
        .deployments("f")
        .await
        .into_iter()
        .find(|it| it.deployment_id == id)
        .expect("the deployment stays in the history")
}

async fn answer(daemon: &TestDaemon, function: &str) -> String {
    text(&daemon.invoke(function).await.unwrap_or_else(|error| panic!("{function}: {error:?}"))).to_owned()
}

/// Backdates the wait of every waiting deployment to this time.
fn since(daemon: &TestDaemon, millis: i64) {
    let database = Connection::open(daemon.data_dir().join("levain.db")).unwrap();
    let sql = "UPDATE function_deployments SET finished_at = ?1 WHERE status = 'pending_approval'";
    assert!(database.execute(sql, [millis]).unwrap() > 0, "a deployment waits");
}

const TTL_MS: i64 = 72 * 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_to_a_protected_environment_waits_until_it_is_approved() {
    let daemon = guarded().await;
    let asked = waits(&daemon, "v2").await;
    assert_eq!((asked.version.as_str(), asked.published, asked.environment.as_str()), ("v2", true, "production"));
    assert_eq!(answer(&daemon, "f").await, "v1", "LIVE stays");
    assert_eq!(daemon.versions("f").await.len(), 2, "the version is published");
    let listed = waiting(&daemon).await.remove(0);
    assert_eq!((&listed.deployment_id, listed.function.as_str()), (&asked.deployment_id, "f"));
    assert_eq!((listed.function_id.to_string(), listed.is_active), (asked.function_id.to_string(), false));
    let expiry = Timestamp::from_millis(listed.finished_at.as_millis() + TTL_MS);
    assert_eq!((listed.expires_at, listed.decided_by), (Some(expiry), None));

    let approved = decide(&daemon, &asked.deployment_id, true).await.unwrap();
    assert_eq!((approved.status.name(), &approved.deployment_id), ("deployed", &asked.deployment_id));
    assert_eq!(
        (approved.version.as_str(), approved.previous_version.as_ref().map(ToString::to_string).as_deref()),
        ("v2", Some("v1"))
    );
    assert_eq!(answer(&daemon, "f").await, "v2");
    let row = daemon.deployments("f").await.remove(0);
    assert_eq!((row.deployment_id, row.status, row.kind), (asked.deployment_id, DeploymentStatus::Active, listed.kind));
    assert_eq!(row.kind, DeploymentKind::Deploy);
    assert!(row.decided_by.unwrap().starts_with("uid:") && row.actor.starts_with("uid:"));
    assert_eq!((row.decision.as_deref(), row.decided_at.is_some(), row.expires_at), (Some("reviewed"), true, None));
    assert!(waiting(&daemon).await.is_empty());
    // Deployments to an unprotected environment do not wait.
    let staging = DeployRequest { alias: Some("STAGING".into()), ..deploy("v3") };
    assert_eq!(daemon.call(&staging).await.unwrap().status.name(), "deployed");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_may_begin_in_a_protected_environment() {
    let daemon = TestDaemon::start().await;
    protect(&daemon, true).await;
    daemon.register("f").await;
    let asked = waits(&daemon, "v1").await;
    assert!(is_refused(&daemon.invoke("f").await, ErrorCode::FunctionNotDeployed));
    let approved = decide(&daemon, &asked.deployment_id, true).await.unwrap();
    assert_eq!((approved.previous_version, answer(&daemon, "f").await.as_str()), (None, "v1"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_count_from_their_approval_on() {
    let daemon = guarded().await;
    let second = waits(&daemon, "v2").await;
    let third = waits(&daemon, "v3").await;
    decide(&daemon, &third.deployment_id, true).await.unwrap();
    let approved = decide(&daemon, &second.deployment_id, true).await.unwrap();
    assert_eq!(
        approved.previous_version.as_ref().map(ToString::to_string).as_deref(),
        Some("v3"),
        "the previous version is that of the approval, not of the request"
    );
    assert_eq!((answer(&daemon, "f").await.as_str(), answer(&daemon, "f:ROLLBACK").await.as_str()), ("v2", "v3"));
    let labels: Vec<_> = daemon.deployments("f").await.into_iter().map(|it| it.version).collect();
    assert_eq!(labels, ["v2", "v3", "v1"]);
    let back = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
    assert_eq!(daemon.call(&back).await.unwrap().version, "v3");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_waits_for_nobody() {
    let daemon = guarded().await;
    let asked = waits(&daemon, "v2").await;
    decide(&daemon, &asked.deployment_id, true).await.unwrap();
    let back = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
    let label = DeployRequest { bundle: None, version: Some("v2".into()), ..deploy("") };
    let set = SetAliasRequest {
        function_id: "f".into(),
        name: "LIVE".into(),
        version: VersionRef::Number(1),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    };
    for (version, response) in [
        ("v1", daemon.call(&back).await),
        ("v2", daemon.call(&label).await),
        ("v1", daemon.call(&set).await),
        ("v1", daemon.call(&share("v2", 10)).await),
        ("v1", daemon.call(&share("v2", 60)).await),
    ] {
        assert_eq!(response.map(|it| it.status.name()), Ok("deployed"), "{version}");
    }
    // Approval for LIVE is not approval for another alias.
    let other = daemon.call(&SetAliasRequest { name: "canary".into(), ..set }).await.unwrap();
    assert_eq!(other.status.name(), "pending_approval");
    daemon.stop().await;
}

/// The code of an approved version may need the environment's secrets while it loads, in a dry run too.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_loads_an_approved_version_with_its_secrets() {
    let mut daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &says("v1")).await;
    let set = crate::variables::set(Some("f"), Some("production"), &[("KEY", "k")]);
    daemon.call(&SetVariablesRequest { is_secret: Some(true), ..set }).await.unwrap();
    daemon
        .deploy_text("f", "if (!process.env.KEY) throw new Error('no key');\nexport default () => new Response('v2');")
        .await;
    daemon.deploy_text("f", &says("v3")).await;
    protect(&daemon, true).await;
    // No worker has the version loaded.
    daemon.restart().await;
    let back = RollbackRequest { function_id: "f".into(), dry_run: true, ..RollbackRequest::default() };
    let planned = daemon.call(&back).await.unwrap();
    assert_eq!((planned.version.as_str(), planned.status.name()), ("v2", "checked"));
    daemon.call(&RollbackRequest { dry_run: false, ..back }).await.unwrap();
    assert_eq!(answer(&daemon, "f").await, "v2");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_stays_published_and_nothing_is_decided_twice() {
    let daemon = guarded().await;
    let asked = waits(&daemon, "v2").await;
    let rejected = decide(&daemon, &asked.deployment_id, false).await.unwrap();
    assert_eq!((rejected.status.name(), rejected.version.as_str()), ("rejected", "v2"));
    assert_eq!(answer(&daemon, "f").await, "v1");
    let row = deployment(&daemon, &asked.deployment_id).await;
    assert_eq!((row.status, row.decision.as_deref()), (DeploymentStatus::Rejected, Some("not today")));
    for approve in [true, false] {
        let outcome = decide(&daemon, &asked.deployment_id, approve).await;
        assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
        let message = outcome.unwrap_err().message;
        assert!(message.contains("it is rejected, decided by uid:") && message.contains("not today"), "{message}");
    }
    assert_eq!(deployment(&daemon, &asked.deployment_id).await, row);
    let active = daemon.deployments("f").await.into_iter().find(|it| it.is_active).unwrap().deployment_id;
    let outcome = decide(&daemon, &active, true).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict) && outcome.unwrap_err().message.contains("it is active"));
    // A rejected version that is deployed again waits again.
    let label = DeployRequest { bundle: None, version: Some("v2".into()), ..deploy("") };
    assert_eq!(daemon.call(&label).await.unwrap().status.name(), "pending_approval");

    let unknown = decide(&daemon, "deploy-0190c1d2-aaaa-7bbb-8ccc-0123456789ab", true).await;
    assert!(is_refused(&unknown, ErrorCode::DeploymentNotFound), "{unknown:?}");
    assert!(is_refused(&decide(&daemon, "v2", true).await, ErrorCode::DeploymentNotFound));
    let all = daemon.call(&DeploymentsRequest::default()).await;
    assert!(is_refused(&all, ErrorCode::InvalidRequest), "a list of all deployments without a filter is refused");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_decide_at_once_one_does() {
    let daemon = guarded().await;
    for round in 2..6 {
        let asked = waits(&daemon, &format!("v{round}")).await;
        let id = asked.deployment_id.as_str();
        let outcomes = tokio::join!(decide(&daemon, id, true), decide(&daemon, id, false), decide(&daemon, id, true));
        let outcomes = [outcomes.0, outcomes.1, outcomes.2];
        let refused = outcomes.iter().filter(|it| is_refused(it, ErrorCode::Conflict)).count();
        assert_eq!(refused, 2, "{outcomes:?}");
        let status = deployment(&daemon, id).await.status;
        let is_live = answer(&daemon, "f").await == format!("v{round}");
        assert_eq!(is_live, status == DeploymentStatus::Active, "{status:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_asked_again_is_the_same_deployment() {
    let daemon = guarded().await;
    let asked = waits(&daemon, "v2").await;
    let label = DeployRequest { bundle: None, version: Some("v2".into()), ..deploy("") };
    for again in [deploy("v2"), label] {
        let again = daemon.call(&again).await.unwrap();
        assert_eq!((again.status.name(), again.published), ("pending_approval", false));
        assert_eq!(again.deployment_id, asked.deployment_id);
    }
    assert_eq!((waiting(&daemon).await.len(), daemon.versions("f").await.len()), (1, 2));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_load_any_more_goes_on_waiting() {
    let mut daemon = TestDaemon::start_unconfined().await;
    daemon.register("f").await;
    protect(&daemon, true).await;
    let flag = daemon.data_dir().join("broken");
    let code = format!(
        "import {{ existsSync }} from 'node:fs';\nif (existsSync({flag:?})) throw new Error('it is broken');\n{}",
        says("fine")
    );
    let asked = daemon.redeploy_text("f", None, &code).await.unwrap();
    assert_eq!(asked.status.name(), "pending_approval");
    daemon.restart_with(|_| fs::write(&flag, "").unwrap()).await;
    let outcome = decide(&daemon, &asked.deployment_id, true).await;
    assert!(is_refused(&outcome, ErrorCode::BundleLoadError), "{outcome:?}");
    let message = outcome.unwrap_err().message;
    assert!(message.contains("it is broken") && message.contains("still waits for approval"), "{message}");
    assert_eq!(waiting(&daemon).await.len(), 1);
    assert!(is_refused(&daemon.invoke("f").await, ErrorCode::FunctionNotDeployed));
    fs::remove_file(&flag).unwrap();
    let approved = || async { decide(&daemon, &asked.deployment_id, true).await.ok() };
    until("the version loads again", approved).await;
    assert_eq!(answer(&daemon, "f").await, "fine");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_waits_as_well_and_is_checked_again() {
    let daemon = guarded().await;
    let weight = Some(10);
    let asked = daemon.call(&DeployRequest { weight, ..deploy("v2") }).await.unwrap();
    assert_eq!((asked.status.name(), asked.weight), ("pending_approval", weight));
    assert_eq!(waiting(&daemon).await[0].weight, weight);
    let approved = decide(&daemon, &asked.deployment_id, true).await.unwrap();
    assert_eq!((approved.status.name(), approved.weight), ("deployed", weight));
    assert_eq!(deployment(&daemon, &asked.deployment_id).await.status, DeploymentStatus::Applied);
    let load = Load::start(&daemon, "f", "/", 2).await;
    load.until_answered(200).await;
    let answers = load.stop().await;
    let (all, second) = (answers.len(), answers.iter().filter(|it| it.version == "v2").count());
    assert!(second > 0 && second < all / 2, "{second} of {all}");

    // An approval does not take away the share that another version has got meanwhile.
    let build = DeployRequest { activate: Some(false), ..deploy("v3") };
    daemon.call(&build).await.unwrap();
    daemon.call(&DeployRequest { bundle: None, version: Some("v1".into()), ..deploy("") }).await.unwrap();
    let third = daemon.call(&share("v3", 20)).await.unwrap();
    assert_eq!(third.status.name(), "pending_approval");
    daemon.call(&share("v2", 5)).await.unwrap();
    let outcome = decide(&daemon, &third.deployment_id, true).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    let message = outcome.unwrap_err().message;
    assert!(message.contains("`v2` (5 %)") && message.contains("still waits"), "{message}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_comes_too_late_finds_the_deployment_expired() {
    let daemon = guarded().await;
    let asked = waits(&daemon, "v2").await;
    since(&daemon, Timestamp::now().as_millis() - TTL_MS);
    let outcome = decide(&daemon, &asked.deployment_id, true).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    let message = outcome.unwrap_err().message;
    assert!(message.contains("it is rejected, decided by levain: expired after 72 h"), "{message}");
    assert_eq!(answer(&daemon, "f").await, "v1");
    let row = deployment(&daemon, &asked.deployment_id).await;
    assert_eq!((row.status, row.decided_by.as_deref()), (DeploymentStatus::Rejected, Some("levain")));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_decides_is_rejected_at_the_start_and_while_the_daemon_runs() {
    let mut daemon = guarded().await;
    let old = waits(&daemon, "v2").await.deployment_id;
    since(&daemon, 0);
    daemon.restart().await;
    let rejected = until("the old deployment is rejected", || async {
        let row = deployment(&daemon, &old).await;
        (row.status == DeploymentStatus::Rejected).then_some(row)
    })
    .await;
    assert_eq!(rejected.decision.as_deref(), Some("expired after 72 h"));

    // After a restart, only the remaining time counts, and the decision names the newly configured time.
    let young = waits(&daemon, "v3").await.deployment_id;
    let due = Timestamp::now().as_millis() + 1_000;
    since(&daemon, due - 3_600_000);
    daemon.restart_with(|config| config.versioning.approval_ttl_hours = 1).await;
    let rejected = until("the young deployment expires", || async {
        let row = deployment(&daemon, &young).await;
        (row.status == DeploymentStatus::Rejected).then_some(row)
    })
    .await;
    assert_eq!(rejected.decision.as_deref(), Some("expired after 1 h"));
    assert!(rejected.decided_at.unwrap().as_millis() >= due, "not before its time: {rejected:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_waits_is_in_use_and_goes_with_its_function() {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    protect(&daemon, true).await;
    let asked = waits(&daemon, "v1").await;
    let delete = DeleteVersionRequest { function_id: "f".into(), version: "v1".into() };
    let outcome = daemon.call(&delete).await;
    assert!(is_refused(&outcome, ErrorCode::VersionInUse), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains(&asked.deployment_id));
    assert!(daemon.bundle_folder(asked.function_id.to_string(), "v1").exists());
    // The protected environment does not run any version of the function yet, so the function may be deleted.
    daemon.call(&DeleteRequest { function_id: "f".into() }).await.unwrap();
    assert!(waiting(&daemon).await.is_empty());
    let outcome = decide(&daemon, &asked.deployment_id, true).await;
    assert!(outcome.unwrap_err().message.contains("decided by levain: the function was deleted"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_notice_nothing_of_an_approval() {
    let daemon = guarded().await;
    let load = Load::start(&daemon, "f", "/", 3).await;
    for word in ["v2", "v3"] {
        let asked = waits(&daemon, word).await;
        load.until_answered(30).await;
        decide(&daemon, &asked.deployment_id, true).await.unwrap();
        load.until_answered(30).await;
    }
    let answers = load.stop().await;
    assert!(["v1", "v2", "v3"].iter().all(|it| answers.iter().any(|answer| answer.version == **it)));
    assert!(answers.iter().all(|it| it.version == text(it)));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_by_set_traffic_waits_and_a_manifest_is_refused() {
    let daemon = guarded().await;
    let build = DeployRequest { activate: Some(false), ..deploy("v2") };
    daemon.call(&build).await.unwrap();
    let before = daemon.call(&ExportManifestRequest::default()).await.unwrap();
    let mut wanted = before.clone();
    let digest = daemon.versions("f").await[0].digest;
    (wanted.functions[0].aliases[0].version, wanted.functions[0].aliases[0].digest) = ("v2".into(), digest);
    let apply = |manifest: &Manifest, dry_run| {
        let request = ApplyManifestRequest { manifest: manifest.clone(), dry_run, reason: None };
        let daemon = &daemon;
        async move { daemon.call(&request).await }
    };
    for dry_run in [true, false] {
        let outcome = apply(&wanted, dry_run).await;
        assert!(is_refused(&outcome, ErrorCode::ApprovalRequired), "{outcome:?}");
    }
    assert!(waiting(&daemon).await.is_empty());

    let split = SetTrafficRequest {
        function_id: "f".into(),
        version: Some(VersionRef::Number(2)),
        weight: Some(10),
        sticky: Some("header:x-user".into()),
        ..SetTrafficRequest::default()
    };
    let asked = daemon.call(&split).await.unwrap();
    assert_eq!(asked.status.name(), "pending_approval");
    assert!(daemon.info("f").await.aliases[0].split.is_none());
    decide(&daemon, &asked.deployment_id, true).await.unwrap();
    let live = daemon
        .call(&AliasesRequest { function_id: "f".into(), ..AliasesRequest::default() })
        .await
        .unwrap()
        .aliases
        .remove(0);
    assert_eq!(live.split.map(|it| (it.version, it.weight)), Some(("v2".parse().unwrap(), 10)));
    assert_eq!(live.sticky.as_deref(), Some("header:x-user"), "the approved deployment keeps the requested stickiness");
    // Both versions are approved now, for manifests too, and the deployment has left a manifest.
    apply(&wanted, false).await.unwrap();
    apply(&before, false).await.unwrap();
    let of = ExportManifestRequest { deployment_id: Some(asked.deployment_id), ..ExportManifestRequest::default() };
    assert_eq!(daemon.call(&of).await.unwrap().functions[0].aliases[0].split.as_ref().map(|it| it.weight), Some(10));
    daemon.stop().await;
}

/// Covers labels, numbers, and the header that asks for a version.
#[tokio::test(flavor = "multi_thread")]
async fn no_name_of_a_version_leads_past_its_approval() {
    let mut daemon = crate::http::daemon().await;
    daemon.deploy_text("f", &says("v1")).await;
    let build = DeployRequest { activate: Some(false), ..deploy("v2") };
    daemon.call(&build).await.unwrap();
    assert_eq!(answer(&daemon, "f:v2").await, "v2", "in an unprotected environment any version may run");
    protect(&daemon, true).await;
    let by_http = |daemon: &TestDaemon, qualifier: &str| {
        let url = format!("http://{}/functions/f{qualifier}", daemon.http());
        let host = format!(
            "http://{}f.localhost/",
            qualifier.strip_prefix(':').map(|it| format!("{it}--")).unwrap_or_default()
        );
        (url, host)
    };
    for round in 0..2 {
        for name in ["f:v2", "f:2"] {
            let outcome = daemon.invoke(name).await;
            assert!(is_refused(&outcome, ErrorCode::ApprovalRequired), "{round} {name}: {outcome:?}");
            let message = outcome.unwrap_err().message;
            assert!(message.contains("levain alias set f STAGING v2"), "{message}");
            let (url, host) = by_http(&daemon, name.strip_prefix('f').unwrap());
            for url in [url, host] {
                let shown = crate::http::curl(&daemon, &[], &url).await;
                let code = shown.json()["code"].as_str().map(str::to_owned);
                assert_eq!((shown.status(), code.as_deref()), (403, Some("APPROVAL_REQUIRED")), "{url}");
            }
        }
        for name in ["f:v1", "f:1"] {
            assert_eq!(answer(&daemon, name).await, "v1");
            let (url, _) = by_http(&daemon, name.strip_prefix('f').unwrap());
            assert_eq!(crate::http::curl(&daemon, &[], &url).await.text(), "v1");
        }
        let header = ["-H", "X-Levain-Version: v2"];
        assert_eq!(
            crate::http::curl(&daemon, &header, &by_http(&daemon, "").0).await.status(),
            404,
            "LIVE does not point at the version"
        );
        let warm = WarmupRequest { function_id: "f:v2".into(), count: 1, qualifier: None };
        assert!(
            is_refused(&daemon.call(&warm).await, ErrorCode::ApprovalRequired),
            "the version does not load in the protected environment"
        );
        // The logs of the version are still readable.
        let logs = LogsRequest { function_id: "f:v2".into(), ..LogsRequest::default() };
        daemon.call(&logs).await.unwrap();
        daemon.restart().await;
    }
    // In another environment the version runs through an alias of that environment.
    let staging =
        DeployRequest { alias: Some("STAGING".into()), version: Some("v2".into()), bundle: None, ..deploy("") };
    daemon.call(&staging).await.unwrap();
    assert_eq!(answer(&daemon, "f:STAGING").await, "v2");
    assert!(
        is_refused(&daemon.invoke("f:v2").await, ErrorCode::ApprovalRequired),
        "the version's own name stays refused"
    );

    // Approval of a share is approval of the version, and the header reaches a version that has a share.
    let asked = daemon.call(&share("v2", 0)).await.unwrap();
    assert!(is_refused(&daemon.invoke("f:v2").await, ErrorCode::ApprovalRequired), "the share waits for approval");
    decide(&daemon, &asked.deployment_id, true).await.unwrap();
    assert_eq!(answer(&daemon, "f:v2").await, "v2");
    let header = ["-H", "X-Levain-Version: v2"];
    assert_eq!(crate::http::curl(&daemon, &header, &by_http(&daemon, "").0).await.text(), "v2");
    let back = RollbackRequest { function_id: "f".into(), version: Some("v2".into()), ..RollbackRequest::default() };
    for (request, live) in [(back.clone(), "v2"), (RollbackRequest { version: None, ..back }, "v1")] {
        assert_eq!(daemon.call(&request).await.unwrap().status.name(), "deployed", "a rollback needs no approval");
        assert_eq!(answer(&daemon, "f").await, live);
    }
    // Once the protection is lifted, any version may run again.
    daemon.call(&DeployRequest { activate: Some(false), ..deploy("v3") }).await.unwrap();
    assert!(is_refused(&daemon.invoke("f:v3").await, ErrorCode::ApprovalRequired));
    protect(&daemon, false).await;
    assert_eq!(answer(&daemon, "f:v3").await, "v3");
    daemon.stop().await;
}
