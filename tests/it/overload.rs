//! More callers than the function can serve.

use crate::harness::{DaemonProcess, TestDaemon, get, refused, repetitions};
use levain::{
    error::ErrorCode,
    model::{ColdStart, SettingsPatch},
    protocol::{
        field::Body,
        message::{DeployRequest, InvokeRequest, RegisterRequest, StatusRequest},
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Invocations that the function accepts at once: those that run and those that wait.
const RUNNING: u32 = 4;
const WAITING: u32 = 28;

/// Number of callers: three times as many.
const CALLERS: usize = 3 * (RUNNING + WAITING) as usize;

/// Time limit of each call.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Memory that the daemon may gain, in bytes: less than a kilobyte for each of ten thousand calls.
const MEMORY_MAX: u64 = 8 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_gets_an_answer_or_a_refusal_and_nothing_is_left_of_it() {
    let data = tempfile::tempdir().expect("a folder");
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    let settings = SettingsPatch {
        max_concurrent_executions: Some(RUNNING),
        queue_max: Some(WAITING),
        ..SettingsPatch::default()
    };
    let register = RegisterRequest { name: "f".into(), settings: Some(settings), ..RegisterRequest::default() };
    client.call(&register).await.expect("the name is free");
    let code = "export default async () => { await Bun.sleep(3); return new Response('x'.repeat(1000)); };";
    let bundle = Some(Body::from(code.as_bytes().to_vec()));
    let deploy = DeployRequest { function_id: "f".into(), bundle, warm: Some(RUNNING), ..DeployRequest::default() };
    client.call(&deploy).await.expect("a good bundle");
    let memory = async || client.call(&StatusRequest {}).await.expect("a status").memory_bytes;
    for _ in 0..200 {
        client.call(&get("f", "/")).await.expect("an answer");
    }
    let before = memory().await;

    let calls = repetitions(4_000, 10_000);
    let (left, most) = (Arc::new(AtomicUsize::new(calls)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (client, left) = (daemon.client().await, Arc::clone(&left));
        callers.spawn(async move {
            let (mut answered, mut turned_away) = (0, 0);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let asked = Instant::now();
                let request = InvokeRequest { timeout_ms: Some(TIMEOUT.as_millis() as u64), ..get("f", "/") };
                match client.call(&request).await.map_err(refused) {
                    Ok(answer) if answer.success => answered += 1,
                    Err(error) if error.code == ErrorCode::Overloaded => {
                        assert!(error.details.expect("details")["retry_after_ms"].as_u64() > Some(0));
                        turned_away += 1;
                    }
                    other => panic!("neither an answer nor a refusal: {other:?}"),
                }
                assert!(asked.elapsed() < TIMEOUT, "{:?}", asked.elapsed());
            }
            (answered, turned_away)
        });
    }
    let watch = {
        let (client, most) = (daemon.client().await, Arc::clone(&most));
        tokio::spawn(async move {
            loop {
                let status = client.call(&StatusRequest {}).await.expect("a status");
                let queued = status.pools.iter().map(|pool| pool.queued).sum::<u32>() as usize;
                most.fetch_max(queued, Ordering::Relaxed);
            }
        })
    };
    let (answered, turned_away) =
        callers.join_all().await.into_iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    watch.abort();
    assert_eq!(answered + turned_away, calls);
    assert!(answered > 100 && turned_away > 100, "{answered} answered, {turned_away} turned away");
    let most = most.load(Ordering::Relaxed);
    assert!((1..=WAITING as usize).contains(&most), "{most} waited");

    let status = client.call(&StatusRequest {}).await.expect("a status");
    assert!(status.pools.iter().all(|pool| pool.queued + pool.busy == 0), "{:?}", status.pools);
    let after = memory().await;
    assert!(after < before + MEMORY_MAX, "the daemon had {before} bytes, and has {after}");
    // A busy machine may delay a single invocation; with a queue that is still there, each would wait longer than it
    // runs.
    let mut waits = Vec::new();
    for _ in 0..20 {
        let answer = client.call(&get("f", "/")).await.expect("an answer");
        assert!(answer.success && answer.cold_start == ColdStart::None, "{answer:?}");
        waits.push((answer.queue_ms, answer.execution_time_ms - answer.queue_ms));
    }
    assert!(waits.iter().any(|(queued, ran)| queued < ran), "each call waited: {waits:?}");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_leave_make_room_at_once() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("sleep").await.expect("a good bundle");
    let settings = SettingsPatch { max_concurrent_executions: Some(1), queue_max: Some(3), ..SettingsPatch::default() };
    daemon.update("sleep", settings).await.expect("good settings");
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(daemon.get_beside("sleep", "/?ms=60000").await);
    }
    daemon.until_pool("sleep", "three wait", |pool| (pool.busy, pool.queued) == (1, 3)).await;
    calls.drain(..).for_each(|call| call.abort());
    daemon.until_pool("sleep", "none is left", |pool| (pool.busy, pool.queued) == (0, 0)).await;
    assert!(daemon.get("sleep", "/?ms=1").await.success);
    daemon.stop().await;
}
