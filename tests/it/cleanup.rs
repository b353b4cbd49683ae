//! CLEANUP, and the cleanup after a deployment.

use crate::{
    bytecode::{cached, large, until_compiled},
    harness::{Gate, Load, TestDaemon, get, is_refused, text, until},
};
use levain::{
    config::{Switch, Verify},
    error::{Error, ErrorCode},
    model::SettingsPatch,
    protocol::message::{
        CleanupRequest, CleanupResponse, DeployRequest, FunctionCleanup, RollbackRequest, SetAliasRequest,
        SetTrafficRequest,
    },
};
use std::{fs, path::Path, time::Duration};

fn says(word: &str) -> String {
    format!("export default () => new Response({word:?});")
}

/// Deploys a function with versions v1, v2 … that each were live.
async fn with_versions(daemon: &TestDaemon, name: &str, count: u32) -> String {
    daemon.register(name).await;
    for number in 1..=count {
        daemon.redeploy_text(name, None, &says(&format!("v{number}"))).await.unwrap();
    }
    daemon.info(name).await.function_id.to_string()
}

async fn set(daemon: &TestDaemon, alias: &str, version: &str) {
    let request = SetAliasRequest {
        function_id: "f".into(),
        name: alias.into(),
        version: version.into(),
        environment: None,
        description: None,
        reason: None,
        dry_run: false,
    };
    daemon.call(&request).await.unwrap();
}

async fn cleanup(daemon: &TestDaemon, keep: u32, dry_run: bool) -> Result<CleanupResponse, Error> {
    daemon.call(&CleanupRequest { function_id: Some("f".into()), keep: Some(keep), dry_run }).await
}

/// Formats a cleanup's outcome: `-v1 +v2(alias LIVE)`.
fn shown(function: &FunctionCleanup) -> String {
    let removed = function.removed.iter().map(|it| format!("-{}", it.version));
    let kept = function.kept.iter().map(|it| format!("+{}({})", it.version, it.why.join(", ")));
    removed.chain(kept).collect::<Vec<_>>().join(" ")
}

async fn labels(daemon: &TestDaemon, name: &str) -> Vec<String> {
    daemon.versions(name).await.into_iter().map(|it| it.version.to_string()).collect()
}

/// Every file and folder below a folder.
fn tree(folder: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        paths.push(path.display().to_string());
        if path.is_dir() {
            paths.extend(tree(&path));
        }
    }
    paths.sort();
    paths
}

fn bundles(daemon: &TestDaemon, function_id: &str) -> Vec<String> {
    let folder = daemon.data_dir().join("bundles").join(function_id);
    let names = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_go_and_what_something_refers_to_stays() {
    let mut daemon = TestDaemon::start().await;
    let id = with_versions(&daemon, "f", 8).await;
    set(&daemon, "STAGING", "v2").await;
    set(&daemon, "DEV", "v3").await;
    let traffic = SetTrafficRequest {
        function_id: "f".into(),
        alias: Some("DEV".into()),
        version: Some("v4".into()),
        weight: Some(0),
        ..SetTrafficRequest::default()
    };
    daemon.call(&traffic).await.unwrap();
    let size = daemon.versions("f").await[0].size;

    let response = cleanup(&daemon, 2, false).await.unwrap();
    let [function] = response.functions.as_slice() else { panic!("{response:?}") };
    assert_eq!((function.function.as_str(), function.function_id.to_string()), ("f", id.clone()));
    let expected = "-v6 -v5 -v1 +v8(newest, alias LIVE) +v7(newest, alias ROLLBACK) +v4(alias DEV) +v3(alias DEV) \
                    +v2(alias STAGING)";
    assert_eq!(shown(function), expected);
    assert_eq!((response.freed_bytes, response.dry_run), (3 * size, false));
    assert_eq!(function.removed.iter().map(|it| (it.number, it.size)).next(), Some((6, size)));
    assert_eq!(labels(&daemon, "f").await, ["v8", "v7", "v4", "v3", "v2"]);
    assert_eq!(bundles(&daemon, &id), ["v2", "v3", "v4", "v7", "v8"]);
    assert!(is_refused(&daemon.invoke("f:v5").await, ErrorCode::VersionNotFound));
    let again = cleanup(&daemon, 2, false).await.unwrap();
    assert_eq!((again.functions[0].removed.len(), again.freed_bytes), (0, 0));

    // LIVE goes back to an old version, although newer ones exist.
    let rollback =
        RollbackRequest { function_id: "f".into(), version: Some("v2".into()), ..RollbackRequest::default() };
    daemon.call(&rollback).await.unwrap();
    let response = cleanup(&daemon, 1, false).await.unwrap();
    let expected = "-v7 +v8(newest, alias ROLLBACK) +v4(alias DEV) +v3(alias DEV) +v2(alias LIVE, alias STAGING)";
    assert_eq!(shown(&response.functions[0]), expected);
    daemon.restart().await;
    for (call, answer) in [("f", "v2"), ("f:ROLLBACK", "v8"), ("f:DEV", "v3"), ("f:v4", "v4")] {
        assert_eq!(text(&daemon.invoke(call).await.unwrap()), answer);
    }
    // Only the history mentions removed versions, and their numbers are not used again.
    assert_eq!(daemon.deployments("f").await.len(), 12);
    assert_eq!(daemon.redeploy_text("f", None, &says("v9")).await.unwrap().number, 9);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_the_same_and_changes_nothing() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", &large()).await;
    until_compiled(&daemon, "f").await;
    for number in 2..=4 {
        daemon.redeploy_text("f", None, &says(&format!("v{number}"))).await.unwrap();
    }
    let picture = async || {
        let trees = [tree(&daemon.data_dir().join("bundles")), tree(&daemon.data_dir().join("bytecode"))];
        let info = daemon.info("f").await;
        (trees, daemon.versions("f").await, daemon.deployments("f").await, info.updated_at, info.disk_bytes)
    };
    let before = picture().await;
    assert!(before.0.iter().all(|tree| !tree.is_empty()) && before.1[3].bytecode);
    let would = cleanup(&daemon, 1, true).await.unwrap();
    assert!(would.dry_run && shown(&would.functions[0]).starts_with("-v2 -v1 +v4"), "{would:?}");
    assert_eq!(picture().await, before);

    let does = cleanup(&daemon, 1, false).await.unwrap();
    assert_eq!(CleanupResponse { dry_run: true, ..does }, would);
    assert_eq!(cached(daemon.data_dir()), [] as [std::path::PathBuf; 0], "its bytecode is gone, too");
    let after = picture().await;
    assert_eq!(after.1.len(), 2);
    assert!(after.3 > before.3 && after.4 + would.freed_bytes == before.4);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_it_is_about_all_functions_and_without_a_number_as_configured() {
    let daemon = TestDaemon::start_with(|config| config.versioning.keep_versions = 3).await;
    with_versions(&daemon, "f", 5).await;
    with_versions(&daemon, "g", 4).await;
    daemon.register("empty").await;
    let response = daemon.call(&CleanupRequest::default()).await.unwrap();
    let all: Vec<_> = response.functions.iter().map(|it| format!("{}: {}", it.function, shown(it))).collect();
    let kept = |newest: u32| {
        format!("+v{newest}(newest, alias LIVE) +v{}(newest, alias ROLLBACK) +v{}(newest)", newest - 1, newest - 2)
    };
    assert_eq!(all, ["empty: ".into(), format!("f: -v2 -v1 {}", kept(5)), format!("g: -v1 {}", kept(4))]);
    assert_eq!(
        response.freed_bytes,
        response.functions.iter().flat_map(|it| &it.removed).map(|it| it.size).sum::<u64>()
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused() {
    let daemon = TestDaemon::start().await;
    with_versions(&daemon, "f", 2).await;
    for keep in [0, 10_001] {
        assert!(is_refused(&cleanup(&daemon, keep, false).await, ErrorCode::InvalidRequest), "{keep}");
    }
    let nobody = CleanupRequest { function_id: Some("nobody".into()), ..CleanupRequest::default() };
    assert!(is_refused(&daemon.call(&nobody).await, ErrorCode::FunctionNotFound));
    assert_eq!(labels(&daemon, "f").await, ["v2", "v1"]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_clean_up_behind_them_if_they_are_told_to() {
    let daemon = TestDaemon::start_with(|config| {
        config.versioning.auto_cleanup = Switch::On;
        config.versioning.keep_versions = 2;
    })
    .await;
    let id = with_versions(&daemon, "f", 1).await;
    set(&daemon, "STAGING", "v1").await;
    for number in 2..=5 {
        daemon.redeploy_text("f", None, &says(&format!("v{number}"))).await.unwrap();
    }
    let are_left = async |expected: &[&str]| {
        until("old versions go", || async { (labels(&daemon, "f").await == expected).then_some(()) }).await;
        until("their bundles go", || async { (bundles(&daemon, &id).len() == expected.len()).then_some(()) }).await;
    };
    are_left(&["v5", "v4", "v1"]).await;
    // Only a deployment that publishes a version cleans up.
    let failed = daemon.redeploy_text("f", None, "throw 1; export default () => {};").await;
    assert!(is_refused(&failed, ErrorCode::BundleLoadError));
    set(&daemon, "STAGING", "v5").await;
    daemon.call(&RollbackRequest { function_id: "f".into(), ..RollbackRequest::default() }).await.unwrap();
    are_left(&["v5", "v4", "v1"]).await;
    let built = DeployRequest {
        function_id: "f".into(),
        bundle: Some(says("v6").into_bytes().into()),
        activate: Some(false),
        ..DeployRequest::default()
    };
    daemon.call(&built).await.unwrap();
    // LIVE is at v4, and ROLLBACK at v5.
    are_left(&["v6", "v5", "v4"]).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_itself_nothing_goes() {
    let daemon = TestDaemon::start_with(|config| config.versioning.keep_versions = 1).await;
    with_versions(&daemon, "f", 4).await;
    assert_eq!(labels(&daemon, "f").await.len(), 4);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_calls_an_alias_notices_a_cleanup() {
    let daemon = TestDaemon::start().await;
    let slow =
        |word: &str| format!("export default async () => {{ await Bun.sleep(15); return new Response({word:?}); }}");
    // Callers wait for one another, so that some always wait for a version that is about to be removed.
    let one = SettingsPatch { max_concurrent_executions: Some(1), ..SettingsPatch::default() };
    daemon.register_with("f", one).await;
    daemon.redeploy_text("f", None, &slow("v1")).await.unwrap();
    set(&daemon, "STAGING", "v1").await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(daemon.connect().await);
    }
    let live = Load::paced(clients, get("f", "/"), Duration::ZERO).await;
    let staging = Load::start(&daemon, "f:STAGING", "/", 2).await;
    for number in 2..=8 {
        daemon.redeploy_text("f", None, &slow(&format!("v{number}"))).await.unwrap();
        if number % 2 == 0 {
            set(&daemon, "STAGING", &format!("v{number}")).await;
        }
        cleanup(&daemon, 1, false).await.unwrap();
        live.until_answered(4).await;
    }
    let answers = live.stop().await.into_iter().chain(staging.stop().await);
    let mut seen: Vec<_> = answers.map(|it| (text(&it).to_owned(), it.version)).collect();
    assert!(seen.iter().all(|(said, version)| *version == said.as_str()), "{seen:?}");
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 4, "{seen:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_a_version_that_goes_follows_its_alias() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    let one = SettingsPatch { max_concurrent_executions: Some(1), ..SettingsPatch::default() };
    daemon.register_with("f", one).await;
    daemon.redeploy_text("f", None, &gate.function()).await.unwrap();
    let running = daemon.get_beside("f", "/").await;
    gate.until_reached().await;
    let follows = daemon.get_beside("f", "/").await;
    let stays = daemon.get_beside("f:v1", "/").await;
    daemon.until_pool("f", "they wait", |pool| pool.queued == 2).await;
    for word in ["two", "three"] {
        daemon.redeploy_text("f", None, &says(word)).await.unwrap();
    }
    let response = cleanup(&daemon, 1, false).await.unwrap();
    assert!(shown(&response.functions[0]).starts_with("-v1 +v3"), "{response:?}");
    let answer = follows.await.unwrap().unwrap();
    assert_eq!((text(&answer), answer.version.as_str()), ("three", "v3"));
    assert!(answer.queue_ms > 0.0, "the wait for the removed version counts: {answer:?}");
    let refused = stays.await.unwrap();
    assert!(refused.is_err(), "a direct invocation of the removed version is refused: {refused:?}");
    gate.open();
    let answer = running.await.unwrap().unwrap();
    assert!(answer.success && answer.version == "v1", "the running invocation finishes: {answer:?}");
    until("the worker of v1 ends", || async { (daemon.worker_pids().len() <= 2).then_some(()) }).await;
    let pools = daemon.pools("f").await;
    assert!(pools.iter().all(|pool| pool.version != "v1"), "no pool is left: {pools:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanups_and_deployments_of_one_function_take_turns() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    let id = with_versions(&daemon, "f", 2).await;
    // Two later versions make a label removable; it is then deployed again.
    let labelled = ["x", "y", "z"];
    let deploying = async {
        for label in (0..15).flat_map(|_| labelled) {
            daemon.redeploy_text("f", Some(label), &says(label)).await.unwrap();
        }
    };
    let clients = [daemon.connect().await, daemon.connect().await];
    let cleaning = clients.each_ref().map(|client| async move {
        loop {
            let request = CleanupRequest { function_id: None, keep: Some(1), dry_run: false };
            client.call(&request).await.unwrap();
        }
    });
    let [one, other] = cleaning;
    tokio::select! {
        () = deploying => {}
        () = one => {}
        () = other => {}
    }
    cleanup(&daemon, 1, false).await.unwrap();
    let mut left = labels(&daemon, "f").await;
    left.sort();
    assert_eq!(bundles(&daemon, &id), left);
    for label in &left {
        assert_eq!(text(&daemon.invoke(&format!("f:{label}")).await.unwrap()), label);
    }
    daemon.stop().await;
}
