//! Tests that need the real binary: signals, `kill -9`, its files, its configuration, its command line.

mod cli;
mod configuration;
pub mod crash;
mod docs;
mod everyday;
mod files;
mod history;
mod orphans;
mod start;
mod stop;

use crate::harness::{DaemonProcess, Gate, refused, until};
use levain::{
    client::{Client, ClientError},
    error::{Error, ErrorCode},
    protocol::{
        field::Body,
        message::{DeployRequest, DeployResponse, InvokeRequest, InvokeResponse, RegisterRequest, StatusRequest},
    },
};
use nix::sys::signal::Signal;
use std::{fs, process::Command};
use tokio::task::JoinHandle;

pub async fn register(client: &Client, name: &str) {
    client.call(&RegisterRequest { name: name.into(), ..RegisterRequest::default() }).await.unwrap();
}

pub fn deploy_request(name: &str, version: &str, code: &str) -> DeployRequest {
    DeployRequest {
        function_id: name.into(),
        version: Some(version.into()),
        bundle: Some(Body::from(code.as_bytes().to_vec())),
        ..DeployRequest::default()
    }
}

async fn deploy(client: &Client, name: &str, version: &str, code: &str) -> Result<DeployResponse, ClientError> {
    client.call(&deploy_request(name, version, code)).await
}

pub async fn invoke(client: &Client, name: &str) -> Result<InvokeResponse, ClientError> {
    client.call(&InvokeRequest { function_id: name.into(), ..InvokeRequest::default() }).await
}

/// Invokes in the background.
fn begin(client: &Client, name: &'static str) -> JoinHandle<Result<InvokeResponse, ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { invoke(&client, name).await })
}

/// Waits until this many invocations run.
async fn until_busy(daemon: &DaemonProcess, count: u32) {
    let client = &daemon.client().await;
    until("the invocations run", || async move {
        let status = client.call(&StatusRequest {}).await.unwrap();
        (status.pools.iter().map(|pool| pool.busy).sum::<u32>() == count).then_some(())
    })
    .await;
}

async fn a_signal_lets_what_runs_finish(signal: Signal) {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start_unconfined(data.path()).await;
    let client = daemon.client().await;
    let gate = Gate::shut(data.path());
    register(&client, "gate").await;
    deploy(&client, "gate", "v1", &gate.function()).await.unwrap();
    let running: Vec<_> = (0..3).map(|_| begin(&client, "gate")).collect();
    until_busy(&daemon, 3).await;
    let other = daemon.client().await;
    daemon.signal(signal);
    let socket = daemon.socket();
    until("the socket is gone", || async { (!socket.exists()).then_some(()) }).await;
    // On an existing connection a new request is refused or not read any more; new connections are not accepted.
    match invoke(&other, "gate").await {
        Err(ClientError::Disconnected | ClientError::Refused(Error { code: ErrorCode::ShuttingDown, .. })) => {}
        outcome => panic!("{outcome:?}"),
    }
    assert!(matches!(Client::connect(&socket).await, Err(ClientError::Connect { .. })));
    gate.open();
    for call in running {
        let answer = call.await.unwrap().unwrap();
        assert_eq!((answer.status, &answer.body.0[..]), (200, &b"through"[..]));
    }
    let status = daemon.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_what_runs_finish() {
    a_signal_lets_what_runs_finish(Signal::SIGTERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_lets_what_runs_finish() {
    a_signal_lets_what_runs_finish(Signal::SIGINT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_longer_than_the_grace_period_is_ended() {
    let data = tempfile::tempdir().unwrap();
    let mut command = DaemonProcess::serve(data.path()).await;
    command.env("LEVAIN_DAEMON_SHUTDOWN_GRACE_MS", "50");
    let daemon = DaemonProcess::spawn(command, data.path()).await;
    let client = daemon.client().await;
    register(&client, "loops").await;
    deploy(&client, "loops", "v1", "export default () => { for (;;); };").await.unwrap();
    let running = begin(&client, "loops");
    until_busy(&daemon, 1).await;
    daemon.signal(Signal::SIGTERM);
    let socket = daemon.socket();
    let status = daemon.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!socket.exists());
    let error = refused(running.await.unwrap().expect_err("it never returns"));
    assert_eq!(error.code, ErrorCode::ShuttingDown, "{error}");
}

/// A daemon that is told to stop while it is starting stops as well, and leaves no socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_start_is_obeyed() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let data = tempfile::tempdir().unwrap();
        // The daemon counts as started when its socket exists, which is long before it is ready.
        let daemon = DaemonProcess::start(data.path()).await;
        daemon.signal(Signal::SIGHUP);
        daemon.signal(signal);
        let socket = daemon.socket();
        let status = daemon.ended().await;
        assert_eq!((status.code(), socket.exists()), (Some(0), false), "{status}");
    }
}

/// The kernel ends the workers of a killed daemon, even a worker that never looks at its pipes.
#[tokio::test(flavor = "multi_thread")]
async fn no_worker_outlives_a_daemon_that_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    register(&client, "loops").await;
    deploy(&client, "loops", "v1", "export default () => { for (;;); };").await.unwrap();
    let running = begin(&client, "loops");
    until_busy(&daemon, 1).await;
    assert!(!crate::harness::workers_of(data.path()).is_empty());
    let socket = daemon.socket();
    daemon.kill().await;
    assert!(matches!(running.await.unwrap(), Err(ClientError::Disconnected)));
    // The socket file remains, and does not prevent the next start.
    assert!(socket.exists());
    let daemon = DaemonProcess::start(data.path()).await;
    let answer = deploy(&daemon.client().await, "loops", "v2", "export default () => new Response('well');").await;
    assert_eq!(answer.unwrap().previous_version.as_ref().map(ToString::to_string).as_deref(), Some("v1"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
}

/// Checks that a command fails at once, with one message on standard error that contains all of `parts`.
async fn fails(command: Command, code: i32, parts: &[&str]) {
    let output = DaemonProcess::output(command).await;
    assert_eq!(output.code, Some(code), "{output:?}");
    let messages: Vec<_> = output.stderr.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(messages.len(), 1, "{output:?}");
    for part in parts {
        assert!(messages[0].contains(part), "`{part}` is missing: {output:?}");
    }
}

/// The kernel ends a worker with its daemon, but not the other processes that its function has started.
#[tokio::test(flavor = "multi_thread")]
async fn what_functions_have_started_is_ended_by_the_daemon_after_the_one_that_was_killed() {
    // A zombie, which only its parent can reap, has no command line any more.
    let runs = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|it| !it.is_empty());
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start_unconfined(data.path()).await;
    let client = daemon.client().await;
    register(&client, "parent").await;
    let code = "export default () => new Response(String(Bun.spawn(['sleep', '1000'], { stdio: ['ignore', 'ignore', 'ignore'] }).pid));";
    deploy(&client, "parent", "v1", code).await.unwrap();
    let answer = invoke(&client, "parent").await.unwrap();
    let pid = String::from_utf8(answer.body.0.to_vec()).unwrap();
    until("the process runs", || async { runs(&pid).then_some(()) }).await;
    daemon.signal(Signal::SIGKILL);
    drop(daemon);
    let next = DaemonProcess::start(data.path()).await;
    until("the process has ended", || async { (!runs(&pid)).then_some(()) }).await;
    next.signal(Signal::SIGTERM);
    assert!(next.ended().await.success());
}
