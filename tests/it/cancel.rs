//! Commands that are cancelled before they commit: by a client that disconnects, by CANCEL, or by the daemon's stop.

use crate::{
    build::project::{at, nothing_is_left, with_macro},
    harness::{DaemonProcess, Gate, TestDaemon, get, is_refused, refused, repetitions, text, until},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use levain::{
    client::Client,
    error::{Error, ErrorCode},
    model::{DeploymentStatus, FunctionStatus},
    protocol::{
        field::Body,
        ipc::CommandRequest,
        message::{
            CancelRequest, DeployRequest, DeploymentInfo, DeploymentsRequest, GetRequest, PromoteRequest,
            RegisterRequest, RollbackRequest, SetAliasRequest, VersionRef,
        },
    },
};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle};

const CANCELLED: &str = "cancelled by its client";

fn code(text: &str) -> DeployRequest {
    let bundle = Some(Body::from(text.as_bytes().to_vec()));
    DeployRequest { function_id: "f".into(), bundle, create: true, ..DeployRequest::default() }
}

fn says(word: &str) -> String {
    format!("export default () => new Response({word:?});")
}

/// Code that finishes loading when the gate is open.
fn slow(gate: &Gate, word: &str) -> String {
    format!("{} {}", gate.wait(), says(word))
}

/// Sends a request on a connection of its own. Aborting the task disconnects the client.
async fn beside<R>(daemon: &TestDaemon, request: R) -> JoinHandle<Result<R::Response, Error>>
where
    R: CommandRequest + Send + Sync + 'static,
    R::Response: Send,
{
    let client = daemon.connect().await;
    tokio::spawn(async move { client.call(&request).await.map_err(refused) })
}

fn status(row: &DeploymentInfo) -> Value {
    serde_json::to_value(row.status).unwrap()
}

/// Waits until the last deployment has ended as cancelled.
async fn until_cancelled(daemon: &TestDaemon, name: &str) -> DeploymentInfo {
    until("the deployment is cancelled", || async {
        let row = daemon.deployments(name).await.into_iter().next()?;
        (row.status == DeploymentStatus::Failed).then_some(row)
    })
    .await
}

async fn failed_of_all(client: &Client) -> Vec<DeploymentInfo> {
    let request = DeploymentsRequest { status: Some(DeploymentStatus::Failed), ..DeploymentsRequest::default() };
    client.call(&request).await.unwrap().deployments
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_whose_client_leaves_while_it_loads_changes_nothing() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let first = daemon.deploy_text("f", &says("one")).await;
    let gate = Gate::shut(daemon.data_dir());
    let deploy = beside(&daemon, code(&slow(&gate, "two"))).await;
    gate.until_reached().await;
    let rows = daemon.deployments("f").await;
    assert_eq!((rows.len(), status(&rows[0])), (2, "building".into()), "a running deployment is listed");
    assert_eq!((rows[0].version.as_str(), rows[0].number, rows[0].is_active), ("v2", None, false));
    deploy.abort();
    let cancelled = until_cancelled(&daemon, "f").await;
    assert_eq!(cancelled.deployment_id, rows[0].deployment_id);
    assert!(cancelled.build_log.as_ref().unwrap().contains(CANCELLED), "{cancelled:?}");
    until("its bundle is gone", || async {
        (!daemon.bundle_folder(first.function_id.to_string(), "v2").exists()).then_some(())
    })
    .await;
    until("its worker is gone", || async { (daemon.worker_pids().len() == 1).then_some(()) }).await;
    gate.open();
    assert_eq!((daemon.versions("f").await.len(), daemon.deployments("f").await.len()), (1, 2));
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "one");
    // The version's number is free again.
    assert_eq!(daemon.redeploy_text("f", None, &says("three")).await.unwrap().version, "v2");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_ends_with_its_client() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    let folder = with_macro(&format!("console.log('it builds'); {} return 'built';", gate.wait()));
    daemon.register("f").await;
    let deploy = beside(&daemon, at("f", &folder)).await;
    gate.until_reached().await;
    // A second deployment waits for its turn, and its client disconnects.
    let waiting = beside(&daemon, code(&says("waiting"))).await;
    until("both are listed", || async {
        let rows = daemon.deployments("f").await;
        (rows.iter().filter(|it| status(it) == "building").count() == 2).then_some(())
    })
    .await;
    waiting.abort();
    until("the second is cancelled", || async {
        let rows = daemon.deployments("f").await;
        (rows.iter().filter(|it| status(it) == "building").count() == 1).then_some(())
    })
    .await;
    deploy.abort();
    until("the first is cancelled", || async {
        let rows = daemon.deployments("f").await;
        rows.iter().all(|it| it.status == DeploymentStatus::Failed).then_some(())
    })
    .await;
    nothing_is_left(&daemon).await;
    let rows = daemon.deployments("f").await;
    let logs: Vec<_> = rows.iter().map(|it| it.build_log.clone().unwrap_or_default()).collect();
    assert!(logs.iter().all(|it| it.contains(CANCELLED)), "{logs:?}");
    assert!(logs.iter().any(|it| it.contains("it builds")), "the build's log stays: {logs:?}");
    assert_eq!(
        daemon.info("f").await.status,
        FunctionStatus::Registered,
        "the function was registered before, and stays"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_a_client_that_leaves_cancels_as_well() {
    let daemon = TestDaemon::start_gated(|config| config.http.address = "127.0.0.1:0".into()).await;
    let token = std::fs::read_to_string(daemon.data_dir().join("admin.token")).unwrap();
    let gate = Gate::shut(daemon.data_dir());
    let body = serde_json::json!({ "name": "f", "bundle": STANDARD.encode(slow(&gate, "one")) }).to_string();
    let mut stream = TcpStream::connect(daemon.http()).await.unwrap();
    let head = format!(
        "POST /api/functions/deploy HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    gate.until_reached().await;
    assert_eq!(status(&daemon.deployments("f").await[0]), "building");
    drop(stream);
    let row = until("it is cancelled", || async { failed_of_all(daemon.client()).await.into_iter().next() }).await;
    assert!(row.build_log.unwrap().contains(CANCELLED));
    until("its function is gone", || async {
        is_refused(&daemon.call(&GetRequest { function_id: "f".into() }).await, ErrorCode::FunctionNotFound)
            .then_some(())
    })
    .await;
    nothing_is_left(&daemon).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_that_load_a_worker_are_cancelled_until_they_commit() {
    let mut daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    gate.open();
    daemon.deploy_text("f", &slow(&gate, "one")).await;
    let staging = DeployRequest { alias: Some("STAGING".into()), ..code(&slow(&gate, "two")) };
    daemon.call(&staging).await.unwrap();
    daemon.redeploy_text("f", None, &says("three")).await.unwrap();
    // Without workers of the old versions, each move loads one.
    daemon.restart().await;
    let name = || "f".to_owned();
    gate.shut_again();
    let before = daemon.deployments("f").await.len();
    let rollback = beside(&daemon, RollbackRequest { function_id: name(), ..RollbackRequest::default() }).await;
    gate.until_reached().await;
    rollback.abort();
    let rows = until("the rollback is cancelled", || async {
        Some(daemon.deployments("f").await).filter(|it| it.len() == before + 1)
    })
    .await;
    assert!(rows[0].build_log.as_ref().unwrap().contains(CANCELLED), "{:?}", rows[0]);
    gate.shut_again();
    let promote = beside(&daemon, PromoteRequest { function_id: name(), ..PromoteRequest::default() }).await;
    gate.until_reached().await;
    promote.abort();
    until("the promotion is cancelled", || async { (daemon.deployments("f").await.len() == before + 2).then_some(()) })
        .await;
    gate.shut_again();
    let set = SetAliasRequest {
        function_id: name(),
        name: "canary".into(),
        version: VersionRef::Number(1),
        environment: Some("dev".into()),
        description: None,
        reason: None,
        dry_run: false,
    };
    let set = beside(&daemon, set).await;
    gate.until_reached().await;
    set.abort();
    let rows = until("the move is cancelled", || async {
        Some(daemon.deployments("f").await).filter(|it| it.len() == before + 3)
    })
    .await;
    assert!(rows[..3].iter().all(|it| it.status == DeploymentStatus::Failed), "{rows:?}");
    gate.open();
    assert_eq!(text(&daemon.invoke("f").await.unwrap()), "three");
    assert_eq!(text(&daemon.invoke("f:STAGING").await.unwrap()), "two");
    assert!(is_refused(&daemon.invoke("f:canary").await, ErrorCode::AliasNotFound));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deployment_that_does_not_end_well_takes_its_function_with_it() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gone = || async {
        is_refused(&daemon.call(&GetRequest { function_id: "f".into() }).await, ErrorCode::FunctionNotFound)
    };
    let failed = daemon.call(&code("throw new Error('no database'); export default 1")).await;
    assert!(is_refused(&failed, ErrorCode::BundleLoadError), "{failed:?}");
    assert!(gone().await, "the function is removed with the deployment that created it");
    let rows = failed_of_all(daemon.client()).await;
    assert_eq!((rows.len(), rows[0].function.as_str(), rows[0].version.as_str()), (1, "f", "v1"));
    assert!(rows[0].build_log.as_ref().unwrap().contains("no database"), "{rows:?}");
    // A source that is not a bundle leaves no trace at all.
    assert!(is_refused(&daemon.call(&code("export default ( => 1")).await, ErrorCode::BundleInvalid));
    let not_there = DeployRequest { bundle: None, bundle_path: Some("/nowhere/f.js".into()), ..code("") };
    assert!(is_refused(&daemon.call(&not_there).await, ErrorCode::BundleNotFound));
    assert!(gone().await);

    // A function that another client registers meanwhile belongs to that client, and stays.
    let gate = Gate::shut(daemon.data_dir());
    let deploy = beside(&daemon, code(&slow(&gate, "one"))).await;
    gate.until_reached().await;
    let registered = RegisterRequest { name: "f".into(), ..RegisterRequest::default() };
    let registered = daemon.call(&registered).await.unwrap();
    deploy.abort();
    let row = until_cancelled(&daemon, "f").await;
    assert_eq!(row.function_id, registered.function_id);
    assert_eq!(daemon.info("f").await.status, FunctionStatus::Registered);
    assert!(is_refused(&daemon.call(&code("throw 1; export default 1")).await, ErrorCode::BundleLoadError));
    assert_eq!(daemon.info("f").await.status, FunctionStatus::Registered);

    // If two deployments create the same function and the first is cancelled, the second goes on with it.
    let gate = Gate::shut(tempfile::tempdir_in(daemon.data_dir()).unwrap().keep().as_path());
    let of_g = |text: &str| DeployRequest { function_id: "g".into(), ..code(text) };
    let leaves = beside(&daemon, of_g(&slow(&gate, "one"))).await;
    gate.until_reached().await;
    let stays = beside(&daemon, of_g(&says("two"))).await;
    until("both are listed", || async { (daemon.deployments("g").await.len() == 2).then_some(()) }).await;
    leaves.abort();
    assert_eq!(stays.await.unwrap().unwrap().version, "v1");
    assert_eq!(text(&daemon.get("g", "/").await), "two");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_daemon_was_deploying_has_failed_at_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start_unconfined(data.path()).await;
    let client = daemon.client().await;
    let registered = RegisterRequest { name: "registered".into(), ..RegisterRequest::default() };
    client.call(&registered).await.unwrap();
    let mut running = Vec::new();
    for name in ["f", "registered"] {
        let folder = data.path().join(format!("gate-of-{name}"));
        std::fs::create_dir(&folder).unwrap();
        let gate = Gate::shut(&folder);
        let request = DeployRequest { function_id: name.into(), ..code(&slow(&gate, "one")) };
        let client = daemon.client().await;
        running.push(tokio::spawn(async move { client.call(&request).await }));
        gate.until_reached().await;
    }
    daemon.kill().await;
    for running in running {
        assert!(running.await.unwrap().is_err());
    }
    let daemon = DaemonProcess::start_unconfined(data.path()).await;
    let client = daemon.client().await;
    let rows = failed_of_all(&client).await;
    let mut names: Vec<_> = rows.iter().map(|it| it.function.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["f", "registered"]);
    assert!(rows.iter().all(|it| it.build_log.as_ref().is_some_and(|it| it.contains("interrupted"))), "{rows:?}");
    let get = |name: &str| GetRequest { function_id: name.into() };
    assert!(is_refused(&client.call(&get("f")).await.map_err(refused), ErrorCode::FunctionNotFound));
    let kept = client.call(&get("registered")).await.unwrap();
    assert_eq!(kept.status, FunctionStatus::Registered);
    daemon.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_dry_run_end_with_their_client() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    let keyed = DeployRequest { idempotency_key: Some("k".into()), ..code(&slow(&gate, "one")) };
    let dry = DeployRequest { dry_run: true, ..code(&slow(&gate, "one")) };
    for request in [&dry, &keyed] {
        gate.shut_again();
        let deploy = beside(&daemon, request.clone()).await;
        gate.until_reached().await;
        deploy.abort();
        nothing_is_left(&daemon).await;
    }
    until("it is kept as failed", || async { (failed_of_all(daemon.client()).await.len() == 1).then_some(()) }).await;
    gate.open();
    // The idempotency key is not taken yet.
    let first = until("the key is free", || async { daemon.call(&keyed).await.ok() }).await;
    assert_eq!((first.version.as_str(), first.new_function), ("v1", true));
    assert_eq!(daemon.call(&keyed).await.as_ref(), Ok(&first));
    assert_eq!(text(&daemon.invoke_with(get("f", "/")).await.unwrap()), "one");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stays_is_told_what_became_of_its_deployment() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    daemon.deploy_text("f", &says("one")).await;
    let gate = Gate::shut(daemon.data_dir());
    let answer = daemon.client().call_streaming(&code(&slow(&gate, "two"))).unwrap();
    gate.until_reached().await;
    answer.cancel().unwrap();
    let outcome = answer.finish().await.map_err(refused);
    assert!(is_refused(&outcome, ErrorCode::Cancelled), "{outcome:?}");
    // The cancelled deployment has been cleaned up before the answer.
    assert_eq!(status(&daemon.deployments("f").await[0]), "failed");
    let function = daemon.info("f").await.function_id;
    assert!(!daemon.bundle_folder(function.to_string(), "v2").exists());
    let nothing = daemon.call(&CancelRequest { request_id: 4711 }).await.unwrap();
    assert!(!nothing.found);

    // At any point of cancellation, the answer, the audit trail and the alias agree.
    let (mut ends, rounds) = (Vec::new(), repetitions(8, 24));
    for round in 0..rounds {
        let before = text(&daemon.invoke("f").await.unwrap()).to_owned();
        let word = format!("round {round}");
        let answer = daemon.client().call_streaming(&code(&says(&word))).unwrap();
        let other = daemon.connect().await;
        let list = DeploymentsRequest { function_id: "f".into(), limit: Some(1), ..DeploymentsRequest::default() };
        for _ in 0..round * 192 / rounds {
            other.call(&list).await.unwrap();
        }
        answer.cancel().unwrap();
        let outcome = answer.finish().await.map_err(refused);
        let row = daemon.deployments("f").await.remove(0);
        let live = text(&daemon.invoke("f").await.unwrap()).to_owned();
        match &outcome {
            Ok(done) => {
                assert_eq!((&row.deployment_id, row.status), (&done.deployment_id, DeploymentStatus::Active));
                assert_eq!(live, word);
            }
            Err(error) => {
                assert_eq!((error.code, row.status), (ErrorCode::Cancelled, DeploymentStatus::Failed), "{error:?}");
                assert_eq!(live, before);
            }
        }
        ends.push(outcome.is_ok());
    }
    assert!(ends.contains(&false), "a deployment that is cancelled at once does not commit: {ends:?}");
    daemon.stop().await;
}
