//! DEPLOY_FUNCTION with a preview, LIST_PREVIEWS, DELETE_PREVIEW, CLEANUP_PREVIEWS, and the removal of expired
//! previews.

use crate::{
    harness::{DaemonProcess, Gate, TestDaemon, is_refused, text, until},
    http,
    process::{deploy_request, invoke, register},
};
use levain::{
    client::{Client, ClientError},
    config::Config,
    crash_point::CRASH_AT_VARIABLE,
    error::{Error, ErrorCode},
    model::{DeploymentKind, DeploymentStatus, Timestamp},
    protocol::{
        field::Body,
        message::{
            AliasesRequest, CleanupPreviewsRequest, CleanupRequest, DecideRequest, DeletePreviewRequest, DeployRequest,
            DeployResponse, DeploymentsRequest, PreviewInfo, PreviewsRequest, RemovedPreviewsResponse, RollbackRequest,
            SetEnvironmentRequest,
        },
    },
};
use rusqlite::Connection;
use std::{fs, os::unix::process::ExitStatusExt, path::Path};

fn says(word: &str) -> Option<Body> {
    let code = format!("export default (req, ctx) => new Response({word:?} + ' ' + ctx.environment);");
    Some(Body::from(code.into_bytes()))
}

fn preview(name: &str, word: &str, ttl: Option<&str>) -> DeployRequest {
    let (preview, ttl) = (Some(name.to_owned()), ttl.map(str::to_owned));
    DeployRequest { function_id: "f".into(), bundle: says(word), preview, ttl, ..DeployRequest::default() }
}

async fn deploy(daemon: &TestDaemon, name: &str, word: &str, ttl: Option<&str>) -> DeployResponse {
    daemon.call(&preview(name, word, ttl)).await.unwrap()
}

/// Deploys a live version of the function `f`.
async fn with_live(daemon: &TestDaemon) {
    daemon.register("f").await;
    let request = DeployRequest { function_id: "f".into(), bundle: says("live"), ..DeployRequest::default() };
    daemon.call(&request).await.unwrap();
}

async fn previews(daemon: &TestDaemon) -> Vec<PreviewInfo> {
    daemon.call(&PreviewsRequest::default()).await.unwrap().previews
}

async fn names(daemon: &TestDaemon) -> Vec<String> {
    previews(daemon).await.into_iter().map(|it| it.name).collect()
}

async fn answer(daemon: &TestDaemon, function: &str) -> String {
    text(&daemon.invoke(function).await.unwrap_or_else(|error| panic!("{function}: {error:?}"))).to_owned()
}

async fn delete(daemon: &TestDaemon, name: &str) -> Result<RemovedPreviewsResponse, Error> {
    daemon.call(&DeletePreviewRequest { name: name.into(), function_id: None }).await
}

/// Sets the expiry of every preview to this time.
fn expires(data_dir: &Path, at: i64) {
    let database = Connection::open(data_dir.join("levain.db")).unwrap();
    assert!(database.execute("UPDATE aliases SET expires_at = ?1 WHERE expires_at IS NOT NULL", [at]).unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_made_moved_and_deleted_and_live_stays() {
    let daemon = TestDaemon::start().await;
    with_live(&daemon).await;
    let made = deploy(&daemon, "42", "one", None).await;
    assert_eq!(
        (made.alias.as_str(), made.environment.as_str(), made.status.name()),
        ("preview-42", "preview", "deployed")
    );
    assert_eq!((made.url, made.host_url), (None, None), "HTTP is off");
    let week = 168 * 3_600_000;
    let left = made.expires_at.unwrap().as_millis() - Timestamp::now().as_millis();
    assert!((week - 60_000..=week).contains(&left), "{left}");
    let moved = deploy(&daemon, "42", "two", Some("0")).await;
    assert_eq!(
        (moved.previous_version.as_ref().map(ToString::to_string).as_deref(), moved.expires_at),
        (Some("v2"), None)
    );
    assert_eq!(answer(&daemon, "f:preview-42").await, "two preview");
    assert_eq!(answer(&daemon, "f").await, "live production");
    // A preview's alias can be rolled back like any other.
    let back =
        RollbackRequest { function_id: "f".into(), alias: Some("preview-42".into()), ..RollbackRequest::default() };
    daemon.call(&back).await.unwrap();
    assert_eq!(answer(&daemon, "f:preview-42").await, "one preview");
    let listed = previews(&daemon).await.remove(0);
    assert_eq!((listed.function.as_str(), listed.name.as_str(), listed.version.as_str()), ("f", "42", "v2"));
    assert_eq!(
        (listed.alias.as_str(), listed.environment.as_str(), listed.expires_at),
        ("preview-42", "preview", None)
    );

    let removed = delete(&daemon, "42").await.unwrap().removed;
    assert_eq!((removed.len(), removed[0].version.as_str()), (1, "v2"));
    assert!(is_refused(&daemon.invoke("f:preview-42").await, ErrorCode::AliasNotFound));
    assert!(is_refused(&delete(&daemon, "42").await, ErrorCode::AliasNotFound));
    let row = daemon.deployments("f").await.remove(0);
    assert_eq!(
        (row.kind, row.status, row.alias.as_str()),
        (DeploymentKind::Remove, DeploymentStatus::Removed, "preview-42")
    );
    assert_eq!((row.version.as_str(), row.actor.starts_with("uid:")), ("v2", true));
    // A removed preview's versions can be cleaned up like any others.
    let keep = CleanupRequest { function_id: Some("f".into()), keep: Some(1), dry_run: false };
    let cleaned = daemon.call(&keep).await.unwrap().functions.remove(0);
    assert_eq!(cleaned.removed.iter().map(|it| it.version.as_str()).collect::<Vec<_>>(), ["v2"]);
    assert_eq!(answer(&daemon, "f").await, "live production");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_may_begin_with_a_preview_and_a_dry_run_makes_none() {
    let daemon = TestDaemon::start().await;
    let request = DeployRequest { create: true, ..preview("first", "one", Some("1h")) };
    let planned = daemon.call(&DeployRequest { dry_run: true, ..request.clone() }).await.unwrap();
    assert_eq!((planned.status.name(), planned.expires_at), ("checked", None));
    assert!(previews(&daemon).await.is_empty());
    daemon.call(&request).await.unwrap();
    assert_eq!(answer(&daemon, "f:preview-first").await, "one preview");
    assert!(is_refused(&daemon.invoke("f").await, ErrorCode::FunctionNotDeployed));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_preview_is_refused() {
    let daemon = TestDaemon::start().await;
    with_live(&daemon).await;
    let names = ["", "A", "a_b", "-a", "a--b", "a/b", &"x".repeat(49)];
    let mut requests: Vec<_> = names.iter().map(|name| preview(name, "one", None)).collect();
    requests.extend(["1", "-1h", "soon", "0s", "9999d"].map(|ttl| preview("a", "one", Some(ttl))));
    requests.extend([
        DeployRequest { alias: Some("STAGING".into()), ..preview("a", "one", None) },
        DeployRequest { weight: Some(10), ..preview("a", "one", None) },
        DeployRequest { activate: Some(false), ..preview("a", "one", None) },
        DeployRequest { preview: None, ..preview("a", "one", Some("1h")) },
    ]);
    for request in requests {
        let outcome = daemon.call(&request).await;
        assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{request:?}: {outcome:?}");
    }
    assert_eq!(daemon.versions("f").await.len(), 1);
    let age = CleanupPreviewsRequest { older_than: Some("long".into()), ..CleanupPreviewsRequest::default() };
    assert!(is_refused(&daemon.call(&age).await, ErrorCode::InvalidRequest));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_has_a_url_by_path_and_by_host() {
    let daemon = http::daemon().await;
    with_live(&daemon).await;
    let made = deploy(&daemon, "pr-42", "one", None).await;
    let port = daemon.http().port();
    assert_eq!(made.url, Some(format!("http://127.0.0.1:{port}/functions/f:preview-pr-42")));
    assert_eq!(made.host_url, Some(format!("http://preview-pr-42--f.localhost:{port}/")));
    for url in [made.url.unwrap(), made.host_url.unwrap()] {
        let shown = http::curl(&daemon, &[], &url).await;
        assert_eq!((shown.status(), shown.text()), (200, "one preview"), "{url}: {shown:?}");
    }
    let listed = previews(&daemon).await.remove(0);
    assert_eq!(listed.host_url, Some(format!("http://preview-pr-42--f.localhost:{port}/")));
    // A function with exactly this name comes first, and other hosts lead where they did before.
    for (host, status, body) in [("f", 200, "live production"), ("v1--f", 200, "live production"), ("none--f", 404, "")]
    {
        let shown = http::curl(&daemon, &[], &format!("http://{host}.localhost/")).await;
        assert_eq!((shown.status(), shown.text().contains(body)), (status, true), "{host}: {shown:?}");
    }
    daemon.deploy_text("v1--f", "export default () => new Response('its own');").await;
    assert_eq!(http::curl(&daemon, &[], "http://v1--f.localhost/").await.text(), "its own");
    // Functions whose names are not valid host names are reached by their path.
    let request = DeployRequest { function_id: "F_1".into(), create: true, ..preview("a", "one", None) };
    let made = daemon.call(&request).await.unwrap();
    assert_eq!(made.host_url, None);
    assert_eq!(http::curl(&daemon, &[], &made.url.unwrap()).await.text(), "one preview");
    daemon.stop().await;
    // With a domain for functions, the host is below that domain.
    let daemon = http::daemon_with(|config| config.http.functions_domain = "example.com".into()).await;
    with_live(&daemon).await;
    let url = deploy(&daemon, "pr-42", "one", None).await.host_url.unwrap();
    assert_eq!(url, format!("http://preview-pr-42--f.example.com:{}/", daemon.http().port()));
    assert_eq!(http::curl(&daemon, &[], &url).await.text(), "one preview");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_are_managed_over_http() {
    let daemon = http::daemon().await;
    let token = fs::read_to_string(daemon.data_dir().join("admin.token")).unwrap();
    let header = format!("Authorization: Bearer {}", token.trim());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.js");
    fs::write(&file, "export default () => new Response('by a form');").unwrap();
    let files = format!("files=@{}", file.display());
    let form = ["-H", &header, "-F", &files, "-F", "entry=f.js", "-F", "preview=pr-7", "-F", "ttl=1h"];
    let made = http::curl(&daemon, &form, "/api/functions/f/deploy").await;
    assert_eq!((made.status(), made.json()["alias"].as_str()), (201, Some("preview-pr-7")), "{made:?}");
    let url = made.json()["url"].as_str().unwrap().to_owned();
    assert_eq!(http::curl(&daemon, &[], &url).await.text(), "by a form");
    assert!(made.json()["expires_at"].is_string());
    for path in ["/api/previews", "/api/functions/f/previews"] {
        let listed = http::curl(&daemon, &["-H", &header], path).await.json();
        assert_eq!(listed["previews"][0]["url"].as_str(), Some(url.as_str()), "{path}: {listed}");
    }
    let body = ["-H", &header, "-d", r#"{"older_than": "1d"}"#];
    let cleaned = http::curl(&daemon, &body, "/api/cleanup/previews").await.json();
    assert_eq!(cleaned["removed"].as_array().map(Vec::len), Some(0), "{cleaned}");
    let path = "/api/functions/f/previews/pr-7";
    let removed = http::curl(&daemon, &["-H", &header, "-X", "DELETE"], path).await;
    assert_eq!((removed.status(), removed.json()["removed"][0]["name"].as_str()), (200, Some("pr-7")), "{removed:?}");
    let again = http::curl(&daemon, &["-H", &header, "-X", "DELETE"], "/api/previews/pr-7").await;
    assert_eq!((again.status(), again.json()["code"].as_str()), (404, Some("ALIAS_NOT_FOUND")));
    assert_eq!(http::curl(&daemon, &[], &url).await.status(), 404);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_goes_by_itself_unless_a_deploy_begins_its_time_anew() {
    let daemon = TestDaemon::start().await;
    with_live(&daemon).await;
    deploy(&daemon, "short", "one", Some("1s")).await;
    deploy(&daemon, "renewed", "two", Some("2s")).await;
    // An unchanged deployment publishes no version, but extends the preview's time.
    let again = deploy(&daemon, "renewed", "two", Some("1h")).await;
    assert_eq!((again.version.as_str(), again.published, again.expires_at.is_some()), ("v3", false, true));
    let row = until("it is gone", || async {
        let row = daemon.deployments("f").await.remove(0);
        (row.kind == DeploymentKind::Remove).then_some(row)
    })
    .await;
    assert_eq!((row.alias.as_str(), row.actor.as_str(), row.version.as_str()), ("preview-short", "ttl", "v2"));
    assert!(row.reason.unwrap().starts_with("expired at "));
    assert!(is_refused(&daemon.invoke("f:preview-short").await, ErrorCode::AliasNotFound));
    // Without its renewal, the first preview would have expired by now too.
    let later = deploy(&daemon, "third", "three", Some("2s")).await;
    until("another one is gone", || async { (names(&daemon).await == ["renewed"]).then_some(()) }).await;
    assert!(later.expires_at.is_some());
    assert_eq!(answer(&daemon, "f:preview-renewed").await, "two preview");
    assert_eq!(answer(&daemon, "f").await, "live production");
    daemon.stop().await;
}

/// A preview expires while a deployment of it loads: the deployment's own time counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_goes_on_when_the_time_is_over_keeps_the_preview() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    daemon.register("f").await;
    let first = deploy(&daemon, "a", "one", Some("1s")).await.expires_at.unwrap();
    let slow = format!("{} export default (req, ctx) => new Response('two ' + ctx.environment);", gate.wait());
    let slow = DeployRequest { bundle: Some(Body::from(slow.into_bytes())), ..preview("a", "", Some("1h")) };
    let passing = async {
        gate.until_reached().await;
        until("the first expiry passes", async || (Timestamp::now() > first).then_some(())).await;
        gate.open();
    };
    tokio::join!(daemon.call(&slow), passing).0.unwrap();
    assert_eq!(answer(&daemon, "f:preview-a").await, "two preview");
    // The removal of a later preview shows that the expiry task has run.
    deploy(&daemon, "b", "three", Some("1s")).await;
    until("the other one is gone", || async { (names(&daemon).await == ["a"]).then_some(()) }).await;
    assert_eq!(answer(&daemon, "f:preview-a").await, "two preview");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_while_the_daemon_is_down_goes_when_it_starts() {
    let mut daemon = TestDaemon::start_with(|config: &mut Config| config.previews.ttl_hours = 1).await;
    with_live(&daemon).await;
    let made = deploy(&daemon, "old", "one", None).await;
    deploy(&daemon, "kept", "two", Some("0")).await;
    daemon.restart().await;
    assert_eq!(names(&daemon).await, ["kept", "old"]);
    assert_eq!(answer(&daemon, "f:preview-old").await, "one preview");
    let listed = previews(&daemon).await.remove(1).expires_at.unwrap();
    let apart = listed.as_millis() - made.expires_at.unwrap().as_millis();
    assert!(apart.abs() < 60_000, "the preview's time does not start again: {apart} ms apart");
    let data = daemon.data_dir().to_owned();
    daemon.restart_with(|_| expires(&data, 1)).await;
    until("it is gone", || async { (names(&daemon).await == ["kept"]).then_some(()) }).await;
    let rows = daemon.deployments("f").await;
    assert_eq!(rows.iter().filter(|it| it.kind == DeploymentKind::Remove).count(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_takes_what_is_old_and_says_so_before() {
    let daemon = TestDaemon::start().await;
    with_live(&daemon).await;
    for name in ["a", "b"] {
        deploy(&daemon, name, name, Some("0")).await;
    }
    let database = Connection::open(daemon.data_dir().join("levain.db")).unwrap();
    database.execute("UPDATE aliases SET updated_at = 1 WHERE name = 'preview-a'", []).unwrap();
    let cleanup = |older_than: Option<&str>, dry_run| {
        let older_than = older_than.map(str::to_owned);
        let request = CleanupPreviewsRequest { older_than, dry_run, ..CleanupPreviewsRequest::default() };
        let daemon = &daemon;
        async move { daemon.call(&request).await.unwrap().removed.into_iter().map(|it| it.name).collect::<Vec<_>>() }
    };
    assert!(cleanup(None, false).await.is_empty(), "nothing has expired");
    assert_eq!(cleanup(Some("3d"), true).await, ["a"]);
    assert_eq!(names(&daemon).await, ["a", "b"], "a dry run deletes nothing");
    assert_eq!(cleanup(Some("3d"), false).await, ["a"]);
    assert_eq!(names(&daemon).await, ["b"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_previews_are_as_many_as_there_may_be() {
    let daemon = TestDaemon::start().await;
    with_live(&daemon).await;
    // All previews are of one version, so that a hundred bundles need not be built.
    let request =
        |name: String| DeployRequest { bundle: None, version: Some("v1".into()), ..preview(&name, "", Some("1h")) };
    for number in 0..100 {
        daemon.call(&request(format!("n{number}"))).await.unwrap();
    }
    assert_eq!(previews(&daemon).await.len(), 100);
    let outcome = daemon.call(&request("more".into())).await;
    assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    assert!(outcome.unwrap_err().message.contains("previews.per_function_max"));
    assert_eq!(
        daemon.call(&request("n7".into())).await.unwrap().status.name(),
        "deployed",
        "an existing preview may be deployed again at the limit"
    );
    assert_eq!(answer(&daemon, "f:preview-n99").await, "live preview");
    expires(daemon.data_dir(), 1);
    // Any change of previews wakes the expiry task.
    daemon.call(&DeletePreviewRequest { name: "n7".into(), function_id: Some("f".into()) }).await.unwrap();
    until("all are gone", || async { previews(&daemon).await.is_empty().then_some(()) }).await;
    assert_eq!(answer(&daemon, "f").await, "live production");
    daemon.call(&request("more".into())).await.unwrap();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_previews_are_protected_they_wait_and_stay() {
    let daemon = TestDaemon::start().await;
    with_live(&daemon).await;
    deploy(&daemon, "open", "one", Some("1h")).await;
    let protect = |protected| SetEnvironmentRequest {
        name: "preview".into(),
        protected: Some(protected),
        ..SetEnvironmentRequest::default()
    };
    daemon.call(&protect(true)).await.unwrap();
    let asked = deploy(&daemon, "a", "two", Some("1h")).await;
    assert_eq!((asked.status.name(), asked.expires_at), ("pending_approval", None));
    let decide = DecideRequest { deployment_id: asked.deployment_id, approve: true, reason: None };
    daemon.call(&decide).await.unwrap();
    let listed = previews(&daemon).await.remove(0);
    let left = listed.expires_at.unwrap().as_millis() - Timestamp::now().as_millis();
    assert!(
        listed.name == "a" && (1..=3_600_000).contains(&left),
        "the preview's time begins with its approval: {listed:?}"
    );
    // Previews of a protected environment are not removed, neither by users nor on expiry.
    expires(daemon.data_dir(), 1);
    assert!(is_refused(&delete(&daemon, "a").await, ErrorCode::ApprovalRequired));
    assert_eq!(names(&daemon).await, ["a", "open"]);
    daemon.call(&protect(false)).await.unwrap();
    until("they are gone", || async { previews(&daemon).await.is_empty().then_some(()) }).await;
    daemon.stop().await;
}

async fn aliases(client: &Client) -> Vec<String> {
    let request = AliasesRequest { function_id: "f".into(), ..AliasesRequest::default() };
    client.call(&request).await.unwrap().aliases.into_iter().map(|it| it.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_around_a_previews_commit_leaves_it_whole_or_not_there() {
    for (step, is_there) in [("bundle.published", false), ("store.before_commit", false), ("store.committed", true)] {
        let data = tempfile::tempdir().unwrap();
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        register(&client, "f").await;
        client.call(&deploy_request("f", "live", "export default () => new Response('live');")).await.unwrap();
        daemon.kill().await;
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env(CRASH_AT_VARIABLE, step);
        let daemon = DaemonProcess::spawn(command, data.path()).await;
        let outcome = daemon.client().await.call(&preview("42", "one", Some("1h"))).await;
        assert!(matches!(outcome, Err(ClientError::Disconnected)), "{step}: {outcome:?}");
        assert_eq!(daemon.ended().await.signal(), Some(9), "{step}");

        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        let found = client.call(&PreviewsRequest::default()).await.unwrap().previews;
        assert_eq!(found.len(), usize::from(is_there), "{step}");
        if is_there {
            assert!(found[0].expires_at.is_some(), "the expiry is part of the commit");
            assert_eq!(invoke(&client, "f:preview-42").await.unwrap().body.0, "one preview");
        }
        assert_eq!(invoke(&client, "f").await.unwrap().body.0, "live");
        assert_eq!(client.call(&preview("42", "one", None)).await.unwrap().status.name(), "deployed", "{step}");
        daemon.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_around_an_expiry_deletes_once_and_says_so_once() {
    for step in ["store.before_commit", "store.committed"] {
        let data = tempfile::tempdir().unwrap();
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        register(&client, "f").await;
        client.call(&preview("42", "one", Some("1h"))).await.unwrap();
        assert_eq!(aliases(&client).await, ["preview-42"]);
        daemon.kill().await;
        expires(data.path(), 1);
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env(CRASH_AT_VARIABLE, step);
        // The daemon may answer before it handles expired previews.
        if let Ok(daemon) = DaemonProcess::try_spawn(command, data.path()).await {
            assert_eq!(daemon.ended().await.signal(), Some(9), "{step}");
        }
        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        until("it is gone", || async { aliases(&client).await.is_empty().then_some(()) }).await;
        let request = DeploymentsRequest { function_id: "f".into(), ..DeploymentsRequest::default() };
        let rows = client.call(&request).await.unwrap().deployments;
        let kinds: Vec<_> = rows.iter().map(|it| (it.kind, it.status, it.actor == "ttl")).collect();
        let expected = [
            (DeploymentKind::Remove, DeploymentStatus::Removed, true),
            (DeploymentKind::Deploy, DeploymentStatus::Superseded, false),
        ];
        assert_eq!(kinds, expected, "{step}");
        daemon.kill().await;
    }
}
