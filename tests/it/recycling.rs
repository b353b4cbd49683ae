//! Workers that are replaced because of their work, their age or their memory.

use crate::harness::{TestDaemon, get, text};
use levain::model::{ColdStart, SettingsPatch};
use std::collections::BTreeSet;
use tokio::task::JoinSet;

/// Answers with a name unique to its worker.
const WHO: &str = "const id = crypto.randomUUID(); export default () => new Response(id);";

async fn start(settings: SettingsPatch, code: &str) -> TestDaemon {
    let daemon = TestDaemon::start_with(|config| config.workers.memory_poll_ms = 20).await;
    daemon.register_with("f", settings).await;
    daemon.redeploy_text("f", None, code).await.expect("a good bundle");
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_replaced_after_so_many_calls_and_none_waits_for_it() {
    let settings = SettingsPatch {
        max_requests_per_worker: Some(20),
        max_concurrent_executions: Some(1),
        ..SettingsPatch::default()
    };
    let daemon = start(settings, WHO).await;
    let mut workers = BTreeSet::new();
    while workers.len() < 4 {
        let answer = daemon.get("f", "/").await;
        assert!(answer.success && answer.cold_start == ColdStart::None, "{answer:?}");
        workers.insert(text(&answer).to_owned());
    }
    daemon.until_pool("f", "one is left", |pool| (pool.idle, pool.stopping + pool.retiring) == (1, 0)).await;
    assert_eq!(daemon.worker_pids().len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_cut_when_workers_are_replaced_under_load() {
    let settings = SettingsPatch {
        max_requests_per_worker: Some(10),
        max_concurrent_executions: Some(4),
        ..SettingsPatch::default()
    };
    let code =
        "const id = crypto.randomUUID(); export default async () => { await Bun.sleep(3); return new Response(id); };";
    let daemon = start(settings, code).await;
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let client = daemon.connect().await;
        callers.spawn(async move {
            let mut workers = BTreeSet::new();
            for _ in 0..60 {
                let answer = client.call(&get("f", "/")).await.expect("an answer");
                assert!(answer.success, "{answer:?}");
                workers.insert(text(&answer).to_owned());
            }
            workers
        });
    }
    let workers: BTreeSet<String> = callers.join_all().await.into_iter().flatten().collect();
    assert!(workers.len() > 4, "{} workers served", workers.len());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_worker_is_replaced_while_it_is_idle_and_expires_all_the_same() {
    let settings =
        SettingsPatch { max_age_seconds: Some(1), idle_timeout_seconds: Some(3), ..SettingsPatch::default() };
    let daemon = start(settings, WHO).await;
    let first = daemon.worker_pids();
    daemon.until_pool("f", "another one is idle", |pool| pool.idle == 1 && daemon.worker_pids() != first).await;
    daemon.until_no_workers().await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_grows_is_replaced_before_it_is_ended() {
    let settings =
        SettingsPatch { memory_mb: Some(96), max_concurrent_executions: Some(1), ..SettingsPatch::default() };
    let code = "const kept = [], id = crypto.randomUUID(); export default async () => {
        kept.push(new Uint8Array(1 << 20).fill(1));
        await Bun.sleep(25);
        return new Response(id);
    };";
    let daemon = start(settings, code).await;
    let mut workers = BTreeSet::new();
    while workers.len() < 2 {
        let answer = daemon.get("f", "/").await;
        assert!(answer.success, "{answer:?}");
        workers.insert(text(&answer).to_owned());
        // The old worker goes on until the new one is ready, however long that takes.
        daemon.until_pool("f", "no worker starts", |pool| pool.starting == 0).await;
    }
    daemon.stop().await;
}
