//! SET_TRAFFIC, and the distribution of a split alias's calls.

use crate::harness::{TestDaemon, is_refused, text};
use levain::{
    config::Verify,
    error::{Error, ErrorCode},
    model::{DeploymentKind, DeploymentStatus},
    protocol::{
        field::Fields,
        message::{
            AliasDetails, AliasesRequest, DeleteVersionRequest, DeployResponse, InvokeRequest, MetricsRequest,
            RollbackRequest, SetAliasRequest, SetTrafficRequest, VersionRef,
        },
    },
};
use std::collections::BTreeMap;

/// Answers with its label, and with whether it sees the daemon's own header.
fn says(label: &str) -> String {
    format!("export default (req) => new Response({label:?} + (req.headers.has('x-levain-version') ? ' seen' : ''));")
}

/// Deploys a function `f` with versions v1 to v3; LIVE points at v1.
async fn three_versions() -> TestDaemon {
    let daemon = TestDaemon::start().await;
    daemon.register("f").await;
    for label in ["v1", "v2", "v3"] {
        daemon.redeploy_text("f", None, &says(label)).await.unwrap();
    }
    point(&daemon, "LIVE", "v1").await;
    daemon
}

async fn point(daemon: &TestDaemon, alias: &str, version: &str) -> DeployResponse {
    let request = SetAliasRequest {
        function_id: "f".into(),
        name: alias.into(),
        version: VersionRef::Label(version.into()),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    };
    daemon.call(&request).await.unwrap()
}

fn share(version: &str, weight: u32) -> SetTrafficRequest {
    let version = Some(VersionRef::Label(version.into()));
    SetTrafficRequest { function_id: "f".into(), version, weight: Some(weight), ..SetTrafficRequest::default() }
}

fn sticky(sticky: &str, request: SetTrafficRequest) -> SetTrafficRequest {
    SetTrafficRequest { sticky: Some(sticky.into()), ..request }
}

async fn set(daemon: &TestDaemon, version: &str, weight: u32) -> DeployResponse {
    daemon.call(&share(version, weight)).await.unwrap()
}

async fn alias(daemon: &TestDaemon, name: &str) -> AliasDetails {
    let aliases =
        daemon.call(&AliasesRequest { function_id: "f".into(), ..AliasesRequest::default() }).await.unwrap().aliases;
    aliases.into_iter().find(|it| it.name == name).unwrap()
}

/// Shares of LIVE: `v1`, or `v1 90, v2 10`.
async fn live(daemon: &TestDaemon) -> String {
    let live = alias(daemon, "LIVE").await;
    match live.split {
        Some(split) => format!("{} {}, {} {}", live.version, 100 - split.weight, split.version, split.weight),
        None => live.version.to_string(),
    }
}

/// Returns the version that answers a call with these headers; its code and the answer's stamp must agree.
async fn answerer(daemon: &TestDaemon, function: &str, headers: &[(&str, &str)]) -> Result<String, Error> {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let request =
        InvokeRequest { function_id: function.into(), headers: Some(Fields(headers)), ..InvokeRequest::default() };
    let answer = daemon.invoke_with(request).await?;
    assert_eq!(answer.version, text(&answer), "no other header is seen, and the stamp is right");
    Ok(answer.version.to_string())
}

/// Number of calls that each version answers, out of `calls`.
async fn counts(daemon: &TestDaemon, calls: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..calls {
        *counts.entry(answerer(daemon, "f", &[]).await.unwrap()).or_default() += 1;
    }
    counts
}

/// Whether a count of draws with this share is within five standard deviations: one run in two million is not.
fn is_within(count: usize, of: usize, percent: u32) -> bool {
    let (of, share) = (of as f64, f64::from(percent) / 100.0);
    (count as f64 - of * share).abs() <= 5.0 * (of * share * (1.0 - share)).sqrt()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_divided_by_the_shares() {
    let daemon = three_versions().await;
    let done = set(&daemon, "v2", 10).await;
    assert_eq!((done.status.name(), done.version.as_str(), done.weight), ("deployed", "v2", Some(10)));
    assert_eq!(done.previous_version.as_ref().map(ToString::to_string).as_deref(), Some("v1"));
    assert_eq!(live(&daemon).await, "v1 90, v2 10");
    let counted = counts(&daemon, 1_500).await;
    assert_eq!(counted.keys().collect::<Vec<_>>(), ["v1", "v2"]);
    assert!(is_within(counted["v2"], 1_500, 10), "{counted:?}");
    set(&daemon, "v2", 70).await;
    let counted = counts(&daemon, 1_500).await;
    assert!(is_within(counted["v2"], 1_500, 70), "{counted:?}");
    // The share of the alias's own version determines the other share.
    set(&daemon, "v1", 100 - 25).await;
    assert_eq!(live(&daemon).await, "v1 75, v2 25");
    // Each version has its own figures.
    let request = MetricsRequest { function_id: "f".into(), period: None };
    let metrics = daemon.call(&request).await.unwrap();
    let calls: Vec<_> = metrics.versions.iter().map(|it| (it.version.as_str(), it.figures.invocations)).collect();
    let (first, second) = (calls[0].1, calls[1].1);
    assert_eq!((calls.len(), first + second), (2, 3_000), "{calls:?}");
    assert!(is_within(second as usize, 3_000, 40), "{calls:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_stays_with_its_version_while_the_share_grows() {
    let daemon = three_versions().await;
    daemon.call(&sticky("header:X-User", share("v2", 0))).await.unwrap();
    let mut on_second = Vec::new();
    for weight in [0, 20, 60, 100] {
        set(&daemon, "v2", weight).await;
        let mut now = Vec::new();
        for user in 0..200 {
            let user = format!("user-{user}");
            let first = answerer(&daemon, "f", &[("x-user", &user)]).await.unwrap();
            assert_eq!(answerer(&daemon, "f", &[("X-USER", &user)]).await.unwrap(), first, "{user} at {weight} %");
            if first == "v2" {
                now.push(user);
            }
        }
        assert!(
            on_second.iter().all(|user| now.contains(user)),
            "a caller stays on the new version while its share grows"
        );
        assert!(is_within(now.len(), 200, weight), "{weight} %: {}", now.len());
        on_second = now;
    }
    set(&daemon, "v2", 50).await;
    // Callers without an identity are distributed anew with each call.
    assert_eq!(counts(&daemon, 100).await.len(), 2);
    let details = alias(&daemon, "LIVE").await;
    assert_eq!(details.sticky.as_deref(), Some("header:X-User"));

    daemon.call(&sticky("cookie:sid", share("v2", 50))).await.unwrap();
    let cookie = [("cookie", "theme=dark; sid=42")];
    let first = answerer(&daemon, "f", &cookie).await.unwrap();
    for _ in 0..20 {
        assert_eq!(answerer(&daemon, "f", &cookie).await.unwrap(), first);
    }
    let only = SetTrafficRequest { function_id: "f".into(), ..SetTrafficRequest::default() };
    daemon.call(&sticky("none", only)).await.unwrap();
    assert_eq!((live(&daemon).await.as_str(), alias(&daemon, "LIVE").await.sticky), ("v1 50, v2 50", None));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_without_a_share_answers_who_asks_for_it() {
    let daemon = three_versions().await;
    set(&daemon, "v2", 0).await;
    assert_eq!(counts(&daemon, 50).await.keys().collect::<Vec<_>>(), ["v1"]);
    for name in ["v2", "2"] {
        assert_eq!(answerer(&daemon, "f", &[("X-Levain-Version", name)]).await.unwrap(), "v2");
        assert_eq!(answerer(&daemon, "f:LIVE", &[("x-levain-version", name)]).await.unwrap(), "v2");
    }
    assert_eq!(answerer(&daemon, "f", &[("X-Levain-Version", "v1")]).await.unwrap(), "v1");
    let other = answerer(&daemon, "f", &[("X-Levain-Version", "v3")]).await;
    assert!(is_refused(&other, ErrorCode::VersionNotFound), "the header selects only versions of the alias: {other:?}");
    assert!(other.unwrap_err().message.contains("v1 and v2"));
    assert_eq!(answerer(&daemon, "f:v3", &[]).await.unwrap(), "v3");
    assert_eq!(answerer(&daemon, "f:v3", &[("X-Levain-Version", "v3")]).await.unwrap(), "v3");
    let both = answerer(&daemon, "f:v3", &[("X-Levain-Version", "v2")]).await;
    assert!(is_refused(&both, ErrorCode::InvalidRequest), "{both:?}");
    // Without a split the header can only confirm the version.
    set(&daemon, "v1", 100).await;
    assert_eq!(answerer(&daemon, "f", &[("X-Levain-Version", "v1")]).await.unwrap(), "v1");
    assert!(is_refused(&answerer(&daemon, "f", &[("X-Levain-Version", "v2")]).await, ErrorCode::VersionNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_calls_go_over_and_back_at_once() {
    let daemon = three_versions().await;
    for (weight, expected) in [(0, "v1"), (100, "v2"), (0, "v1"), (100, "v2")] {
        set(&daemon, "v2", weight).await;
        assert_eq!(counts(&daemon, 30).await.keys().collect::<Vec<_>>(), [expected]);
    }
    // A rollback ends the split, whichever version has the calls.
    let back = RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() };
    let back = daemon.call(&back).await.unwrap();
    assert_eq!(
        (back.version.as_str(), back.previous_version.as_ref().map(ToString::to_string).as_deref(), back.weight),
        ("v1", Some("v2"), None)
    );
    assert_eq!(live(&daemon).await, "v1");
    let rows = daemon.deployments("f").await;
    assert_eq!((rows[0].kind, rows[0].status), (DeploymentKind::Rollback, DeploymentStatus::Active));
    assert_eq!(
        (rows[0].previous_version.as_ref().map(ToString::to_string).as_deref(), rows[0].version.as_str()),
        (Some("v2"), "v1")
    );
    let last = &rows[1];
    assert_eq!((last.kind, last.status, last.weight), (DeploymentKind::Traffic, DeploymentStatus::Applied, Some(100)));
    assert!(!last.is_active && rows.iter().filter(|it| it.is_active).count() == 1, "{rows:?}");
    assert_eq!(alias(&daemon, "ROLLBACK").await.version, "v3", "shares do not change what LIVE pointed at before");

    set(&daemon, "v2", 30).await;
    point(&daemon, "LIVE", "v2").await;
    assert_eq!(live(&daemon).await, "v2", "promoted");
    assert_eq!(alias(&daemon, "ROLLBACK").await.version, "v1");
    set(&daemon, "v3", 30).await;
    daemon.redeploy_text("f", None, &says("v4")).await.unwrap();
    assert_eq!(live(&daemon).await, "v4", "a deployment gets all calls");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_divided_is_refused_and_changes_nothing() {
    let daemon = three_versions().await;
    let before = daemon.deployments("f").await.len();
    let nothing = SetTrafficRequest { function_id: "f".into(), ..SetTrafficRequest::default() };
    let of = |alias: &str| SetTrafficRequest { alias: Some(alias.into()), ..share("v2", 10) };
    let cases = [
        (share("v2", 101), ErrorCode::InvalidRequest, "0 to 100"),
        (share("v9", 10), ErrorCode::VersionNotFound, "v9"),
        (share("v1", 40), ErrorCode::InvalidRequest, "name the version that gets the other 60 %"),
        (of("CANARY"), ErrorCode::AliasNotFound, "CANARY"),
        (of("ROLLBACK"), ErrorCode::Conflict, "ROLLBACK"),
        (sticky("X-User", share("v2", 10)), ErrorCode::InvalidRequest, "header:<name>"),
        (nothing, ErrorCode::InvalidRequest, "nothing to change"),
        (SetTrafficRequest { function_id: "g".into(), ..share("v2", 10) }, ErrorCode::FunctionNotFound, "`g`"),
    ];
    for (request, code, part) in cases {
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, code), "{request:?}: {outcome:?}");
        let message = outcome.unwrap_err().message;
        assert!(message.contains(part), "{message}");
    }
    assert_eq!((live(&daemon).await.as_str(), daemon.deployments("f").await.len()), ("v1", before));
    set(&daemon, "v2", 10).await;
    let third = daemon.call(&share("v3", 10)).await;
    assert!(is_refused(&third, ErrorCode::Conflict), "{third:?}");
    let used = daemon.call(&DeleteVersionRequest { function_id: "f".into(), version: "v2".into() }).await;
    assert!(is_refused(&used, ErrorCode::VersionInUse), "{used:?}");
    assert_eq!(live(&daemon).await, "v1 90, v2 10");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_load_gets_no_share() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    daemon.deploy_text("f", &says("v1")).await;
    daemon.redeploy_text("f", None, "export default () => 1; throw new Error('not today');").await.unwrap();
    point(&daemon, "LIVE", "v1").await;
    let outcome = daemon.call(&share("v2", 10)).await;
    assert!(is_refused(&outcome, ErrorCode::BundleLoadError), "{outcome:?}");
    assert_eq!((live(&daemon).await.as_str(), counts(&daemon, 20).await.len()), ("v1", 1));
    let row = daemon.deployments("f").await.remove(0);
    assert_eq!((row.kind, row.status, row.weight), (DeploymentKind::Traffic, DeploymentStatus::Failed, Some(10)));
    assert!(row.build_log.unwrap().contains("not today"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_there_after_a_restart() {
    let mut daemon = three_versions().await;
    daemon.call(&sticky("header:x-user", share("v2", 40))).await.unwrap();
    let before = answerer(&daemon, "f", &[("x-user", "ann")]).await.unwrap();
    daemon.restart().await;
    assert_eq!(live(&daemon).await, "v1 60, v2 40");
    assert_eq!(answerer(&daemon, "f", &[("x-user", "ann")]).await.unwrap(), before);
    daemon.stop().await;
}

/// Invocations do not need the database: they are answered while a command waits for it and holds the daemon's
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_waits_for_the_database() {
    let daemon = three_versions().await;
    set(&daemon, "v2", 50).await;
    let database = rusqlite::Connection::open(daemon.data_dir().join("levain.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let client = daemon.connect().await;
    let command = tokio::spawn(async move { client.call(&share("v2", 60)).await });
    assert_eq!(counts(&daemon, 200).await.len(), 2);
    for function in ["f:v3", "f:LIVE", "f:ROLLBACK"] {
        answerer(&daemon, function, &[]).await.unwrap();
    }
    assert!(!command.is_finished(), "the command waits");
    database.execute_batch("ROLLBACK").unwrap();
    assert_eq!(command.await.unwrap().unwrap().weight, Some(60));
    daemon.stop().await;
}
