//! Prewarmed processes: a cold start is a claim and an import.

use crate::harness::{TestDaemon, get, is_refused, text, until, workers_of};
use levain::{
    error::ErrorCode,
    model::ColdStart,
    protocol::message::{StatusRequest, StatusResponse},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const HELLO: &str = "export default () => { console.log('said'); return new Response('hello'); };";

/// Starts a daemon with this many prewarmed processes whose deployments load nothing, so that first invocations are
/// cold.
async fn start(prewarmed: u32) -> TestDaemon {
    let daemon = TestDaemon::start_with(|config| {
        config.workers.prewarmed_workers = prewarmed;
        config.versioning.verify = levain::config::Verify::Syntax;
    })
    .await;
    until_prewarmed(&daemon, prewarmed).await;
    daemon
}

async fn status(daemon: &TestDaemon) -> StatusResponse {
    daemon.client().call(&StatusRequest {}).await.expect("a status")
}

async fn until_prewarmed(daemon: &TestDaemon, count: u32) {
    until("the prewarmed processes wait", || async { (status(daemon).await.prewarmed == count).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_call_claims_a_waiting_process_and_another_takes_its_place() {
    let daemon = start(2).await;
    let waiting = workers_of(daemon.data_dir());
    daemon.deploy_text("hello", HELLO).await;
    let answer = daemon.invoke("hello").await.expect("an answer");
    assert_eq!((answer.cold_start, text(&answer)), (ColdStart::Prewarmed, "hello"));
    assert!(answer.start_ms > 0.0);
    assert_eq!(daemon.invoke("hello").await.expect("an answer").cold_start, ColdStart::None);
    until_prewarmed(&daemon, 2).await;
    let now = workers_of(daemon.data_dir());
    assert_eq!((now.len(), waiting.iter().filter(|pid| now.contains(pid)).count()), (3, 2), "{waiting:?} {now:?}");
    let line = daemon.until_logged("hello", "said").await;
    assert_eq!(line.execution_id, Some(answer.execution_id), "the process's lines belong to the function");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_prewarmed_processes_one_is_spawned() {
    let daemon = start(0).await;
    daemon.deploy_text("hello", HELLO).await;
    assert_eq!(daemon.invoke("hello").await.expect("an answer").cold_start, ColdStart::Spawned);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_process_that_dies_is_replaced_and_never_claimed() {
    let daemon = start(2).await;
    daemon.deploy_text("hello", HELLO).await;
    for pid in workers_of(daemon.data_dir()) {
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("the process belongs to this user");
    }
    assert_eq!(text(&daemon.invoke("hello").await.expect("an answer")), "hello");
    until_prewarmed(&daemon, 2).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_does_not_load_into_a_waiting_process_says_why() {
    let daemon = start(1).await;
    daemon
        .deploy_text("bad", "console.error('about to fail'); throw new Error('no luck'); export default () => {};")
        .await;
    let outcome = daemon.invoke("bad").await;
    assert!(is_refused(&outcome, ErrorCode::BundleLoadError), "{outcome:?}");
    let error = outcome.expect_err("it throws");
    assert!(error.message.contains("no luck"), "{error:?}");
    assert!(error.details.expect("details")["boot_log"].to_string().contains("about to fail"));
    until_prewarmed(&daemon, 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_cold_starts_at_once_use_what_waits_and_spawn_the_rest() {
    let daemon = start(2).await;
    for name in ["a", "b", "c", "d", "e"] {
        daemon.deploy_text(name, HELLO).await;
    }
    let calls = ["a", "b", "c", "d", "e"].map(|name| daemon.invoke_with(get(name, "/")));
    let answers = futures_util::future::join_all(calls).await;
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().expect("an answer").cold_start).collect();
    assert!(kinds.contains(&ColdStart::Prewarmed) && !kinds.contains(&ColdStart::None), "{kinds:?}");
    daemon.stop().await;
}
