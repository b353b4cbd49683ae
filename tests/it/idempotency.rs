//! Idempotency keys of deployments: a repeated request is carried out once.

use crate::harness::{DaemonProcess, Gate, TestDaemon, is_refused, refused};
use levain::{
    client::{Client, ClientError},
    crash_point::CRASH_AT_VARIABLE,
    error::ErrorCode,
    protocol::{
        field::Body,
        message::{CleanupRequest, DeployRequest, DeploymentsRequest, SetEnvironmentRequest},
    },
};
use tokio::task::JoinSet;

fn request(key: &str, code: &str) -> DeployRequest {
    DeployRequest {
        function_id: "f".into(),
        bundle: Some(Body::from(code.as_bytes().to_vec())),
        create: true,
        idempotency_key: Some(key.into()),
        ..DeployRequest::default()
    }
}

const CODE: &str = "export default () => new Response('one')";

async fn rows(client: &Client) -> usize {
    let request = DeploymentsRequest { function_id: "f".into(), ..DeploymentsRequest::default() };
    client.call(&request).await.unwrap().deployments.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_carried_out() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    // The version finishes loading after all requests have arrived.
    let gate = Gate::shut(daemon.data_dir());
    let deploy = request("a", &format!("{} export default () => new Response('slow')", gate.wait()));
    let mut calls = JoinSet::new();
    for _ in 0..16 {
        let (client, deploy) = (daemon.connect().await, deploy.clone());
        calls.spawn(async move { client.call(&deploy).await.map_err(refused) });
    }
    for _ in 1..16 {
        let outcome = calls.join_next().await.expect("a request ends").expect("an outcome");
        assert!(is_refused(&outcome, ErrorCode::Conflict), "{outcome:?}");
    }
    gate.open();
    let answer = calls.join_next().await.expect("the last").expect("an outcome").expect("it is carried out");
    assert_eq!(rows(daemon.client()).await, 1);
    // A later request gets an identical answer.
    assert_eq!(daemon.call(&deploy).await.as_ref(), Ok(&answer));
    assert!(answer.new_function && answer.published);
    assert_eq!(rows(daemon.client()).await, 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_request_also_after_a_restart() {
    let mut daemon = TestDaemon::start().await;
    let first = daemon.call(&request("a", CODE)).await.unwrap();
    let other = "export default () => new Response('two')";
    for again in [false, true] {
        assert_eq!(daemon.call(&request("a", CODE)).await.as_ref(), Ok(&first));
        let mixed = daemon.call(&request("a", other)).await;
        assert!(is_refused(&mixed, ErrorCode::IdempotencyKeyReused), "{mixed:?}");
        if !again {
            daemon.restart().await;
        }
    }
    let second = daemon.call(&request("b", other)).await.unwrap();
    assert_eq!((second.number, second.new_function), (2, false));
    // The answer is the old one, and LIVE does not move.
    assert_eq!(daemon.call(&request("a", CODE)).await.as_ref(), Ok(&first));
    assert_eq!(daemon.info("f").await.active_version.as_deref(), Some("v2"));
    for bad in ["", "ü", "a\nb", &"x".repeat(256)] {
        let outcome = daemon.call(&request(bad, CODE)).await;
        assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{bad}: {outcome:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_may_be_tried_again_and_a_dry_run_takes_no_key() {
    let daemon = TestDaemon::start().await;
    let broken = daemon.call(&request("a", "export default (")).await;
    assert!(is_refused(&broken, ErrorCode::BundleInvalid), "{broken:?}");
    let dry = DeployRequest { dry_run: true, ..request("a", CODE) };
    assert_eq!(daemon.call(&dry).await.unwrap().status.name(), "checked");
    let first = daemon.call(&request("a", CODE)).await.unwrap();
    assert_eq!(first.status.name(), "deployed");
    // The answer to a deployment without any effect is repeated too, whatever has happened since.
    let same = daemon.call(&request("b", CODE)).await.unwrap();
    assert_eq!((same.published, &same.deployment_id), (false, &first.deployment_id));
    daemon.redeploy_text("f", None, "export default () => new Response('two')").await.unwrap();
    assert_eq!(daemon.call(&request("b", CODE)).await, Ok(same));
    assert_eq!(daemon.info("f").await.active_version.as_deref(), Some("v2"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_approval_is_told_so_again() {
    let daemon = TestDaemon::start().await;
    let protect =
        SetEnvironmentRequest { name: "production".into(), protected: Some(true), ..SetEnvironmentRequest::default() };
    daemon.call(&protect).await.unwrap();
    let first = daemon.call(&request("a", CODE)).await.unwrap();
    assert_eq!(first.status.name(), "pending_approval");
    assert_eq!(daemon.call(&request("a", CODE)).await, Ok(first));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_forgotten_when_there_are_too_many() {
    let daemon = TestDaemon::start_with(|config| config.versioning.idempotency_keys_max = 2).await;
    let first = daemon.call(&request("a", CODE)).await.unwrap();
    for key in ["b", "c"] {
        let code = format!("export default () => new Response('{key}')");
        daemon.call(&request(key, &code)).await.unwrap();
        daemon.call(&CleanupRequest { keep: Some(1), ..CleanupRequest::default() }).await.unwrap();
    }
    let again = daemon.call(&request("a", CODE)).await.unwrap();
    assert_ne!(again.deployment_id, first.deployment_id, "a new deployment");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_leaves_both_the_deployment_and_its_key_or_neither() {
    for (step, is_done) in [("store.before_commit", false), ("store.committed", true)] {
        let data = tempfile::tempdir().unwrap();
        let daemon = DaemonProcess::start(data.path()).await;
        let made = DeployRequest { idempotency_key: None, ..request("", "export default () => new Response('zero')") };
        daemon.client().await.call(&made).await.unwrap();
        daemon.kill().await;
        let mut command = DaemonProcess::serve(data.path()).await;
        command.env(CRASH_AT_VARIABLE, step);
        let daemon = DaemonProcess::spawn(command, data.path()).await;
        let outcome = daemon.client().await.call(&request("a", CODE)).await;
        assert!(matches!(outcome, Err(ClientError::Disconnected)), "{step}: {outcome:?}");
        daemon.ended().await;

        let daemon = DaemonProcess::start(data.path()).await;
        let client = daemon.client().await;
        // A deployment that was cut off is listed as failed.
        assert_eq!(rows(&client).await, 2, "{step}");
        let list = DeploymentsRequest { function_id: "f".into(), ..DeploymentsRequest::default() };
        let newest = client.call(&list).await.unwrap().deployments.remove(0);
        let again = client.call(&request("a", CODE)).await.unwrap();
        assert_eq!(newest.deployment_id == again.deployment_id, is_done, "{step}");
        assert!(again.published, "{step}: {again:?}");
        assert_eq!(rows(&client).await, if is_done { 2 } else { 3 }, "{step}");
        daemon.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_a_key() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let path = data.path().join("f.js");
    std::fs::write(&path, CODE).unwrap();
    let arguments = ["deploy", "f", path.to_str().unwrap(), "--idempotency-key", "a", "--json"];
    let first = daemon.cli(&arguments).await.json();
    assert_eq!(daemon.cli(&arguments).await.json(), first);
    std::fs::write(&path, "export default () => new Response('two')").unwrap();
    let mixed = daemon.cli(&arguments).await;
    assert_eq!(mixed.code, Some(4), "{mixed:?}");
    daemon.kill().await;
}
