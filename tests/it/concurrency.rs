//! Several invocations in one worker.

use crate::harness::{TestDaemon, get, json, text, until};
use levain::{
    error::ErrorCode,
    model::SettingsPatch,
    protocol::message::{InvokeRequest, LogLine, LogsRequest},
};
use std::time::Duration;

/// The query controls the handler: `?name=a&ms=10&then=throw`. It logs throughout, and goes on for a while after a
/// rejection, which is reported meanwhile.
const TALK: &str = "const id = crypto.randomUUID();
export default async (req, ctx) => {
    const query = new URL(req.url).searchParams;
    const name = query.get('name');
    console.log(`${name} begins`);
    ctx.signal.addEventListener('abort', () => console.log(`${name} aborted`));
    for (let left = Number(query.get('ms') ?? 0); left > 0; left -= 5) {
        await Bun.sleep(5);
        console.log(`${name} goes on`);
        if (query.get('heed') && ctx.signal.aborted) return new Response('gone');
    }
    switch (query.get('then')) {
        case 'throw': throw new Error(`${name} fails`);
        case 'reject': Promise.reject(new Error(`${name} rejects`)); await Bun.sleep(20); break;
        case 'spin': for (;;) {}
    }
    console.log(`${name} ends`);
    return new Response(id);
};";

/// Settings for one worker that runs this many invocations at once.
fn one_worker_of(count: u32) -> SettingsPatch {
    SettingsPatch {
        worker_concurrency: Some(count),
        max_concurrent_executions: Some(count),
        ..SettingsPatch::default()
    }
}

async fn start(settings: SettingsPatch) -> TestDaemon {
    let daemon = TestDaemon::start_with(|config| {
        config.workers.blocked_ms = 200;
        config.workers.kill_grace_ms = 300;
    })
    .await;
    daemon.register_with("talk", settings).await;
    daemon.redeploy_text("talk", None, TALK).await.expect("a good bundle");
    daemon
}

async fn lines_of(daemon: &TestDaemon, execution: &str) -> Vec<LogLine> {
    let request = LogsRequest {
        function_id: "talk".into(),
        execution_id: Some(execution.into()),
        limit: Some(1_000),
        ..LogsRequest::default()
    };
    daemon.call(&request).await.expect("logs").logs
}

#[tokio::test(flavor = "multi_thread")]
async fn interleaved_invocations_have_their_own_logs_and_errors() {
    let daemon = start(one_worker_of(6)).await;
    let plans = [("a", "throw"), ("b", "reject"), ("c", "end"), ("d", "throw"), ("e", "end"), ("f", "reject")];
    let mut calls = Vec::new();
    for (place, (name, then)) in plans.iter().enumerate() {
        let path = format!("/?name={name}&ms={}&then={then}", 30 + 5 * place);
        calls.push((*name, *then, daemon.get_beside("talk", &path).await));
    }
    for (name, then, call) in calls {
        let answer = call.await.expect("it runs").expect("an answer");
        assert_eq!(answer.code, (then == "throw").then_some(ErrorCode::HandlerError), "{name}: {answer:?}");
        if then == "throw" {
            assert!(answer.error.as_deref().is_some_and(|it| it.contains(&format!("{name} fails"))), "{answer:?}");
        }
        let last = if then == "throw" { format!("{name} goes on") } else { format!("{name} ends") };
        daemon.until_logged("talk", &last).await;
        if then == "reject" {
            daemon.until_logged("talk", &format!("{name} rejects")).await;
        }
        let lines = lines_of(&daemon, &answer.execution_id).await;
        assert!(lines.len() > 6, "{name}: {lines:?}");
        let own = |line: &LogLine| line.message.contains(&format!("{name} "));
        assert!(lines.iter().all(own), "{name}: {lines:?}");
    }
    // While several invocations run, the owner of a rejected promise may be unknown, and is then left open.
    let all = daemon.logs("talk").await;
    let strays: Vec<_> = all.iter().filter(|it| it.execution_id.is_none() && it.stream != "system").collect();
    assert!(strays.is_empty(), "{strays:?}");
    assert_eq!(daemon.worker_pids().len(), 1, "they shared one worker");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_cancelled_does_not_disturb_the_others() {
    let daemon = start(one_worker_of(3)).await;
    let first = daemon.get_beside("talk", "/?name=first&ms=300").await;
    let leaves = daemon.get_beside("talk", "/?name=leaves&ms=60000&heed=1").await;
    let last = daemon.get_beside("talk", "/?name=last&ms=300").await;
    daemon.until_pool("talk", "all run", |pool| (pool.busy, pool.running) == (1, 3)).await;
    daemon.until_logged("talk", "leaves begins").await;
    leaves.abort();
    daemon.until_logged("talk", "leaves aborted").await;
    let pid = text(&first.await.expect("it runs").expect("an answer")).to_owned();
    assert_eq!(text(&last.await.expect("it runs").expect("an answer")), pid);
    let messages: Vec<String> = daemon.logs("talk").await.into_iter().map(|line| line.message).collect();
    assert_eq!(messages.iter().filter(|it| it.contains("aborted")).count(), 1, "{messages:?}");
    daemon.until_pool("talk", "its slot is free", |pool| (pool.idle, pool.running) == (1, 0)).await;
    assert_eq!(text(&daemon.get("talk", "/?name=next").await), pid);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_over_its_time_leaves_the_others_their_worker() {
    let daemon = start(one_worker_of(2)).await;
    let goes_on = daemon.get_beside("talk", "/?name=other&ms=1500").await;
    daemon.until_logged("talk", "other begins").await;
    let request = InvokeRequest { timeout_ms: Some(100), ..get("talk", "/?name=late&ms=60000") };
    let late = daemon.invoke_with(request).await.expect("an answer");
    assert_eq!(late.code, Some(ErrorCode::Timeout), "{late:?}");
    // The handler ignores its abort signal: the worker takes no further invocations, and another takes over.
    daemon.until_pool("talk", "the worker retires", |pool| pool.retiring == 1).await;
    let other = daemon.get("talk", "/?name=next").await;
    let answer = goes_on.await.expect("it runs").expect("an answer");
    assert!(answer.success, "{answer:?}");
    assert_ne!(text(&other), text(&answer));
    daemon.until_pool("talk", "it has gone", |pool| (pool.idle, pool.retiring, pool.stopping) == (1, 0, 0)).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_event_loop_gets_no_more_calls_and_ends_at_the_deadline() {
    let daemon = start(one_worker_of(3)).await;
    let beside = daemon.get_beside("talk", "/?name=beside&ms=60000").await;
    daemon.until_logged("talk", "beside begins").await;
    let (client, request) = (daemon.connect().await, get("talk", "/?name=spins&then=spin"));
    let spins = InvokeRequest { timeout_ms: Some(2_000), ..request };
    let spins = tokio::spawn(async move { client.call(&spins).await });
    daemon.until_pool("talk", "the worker retires", |pool| pool.retiring == 1).await;
    assert!(daemon.get("talk", "/?name=next").await.success);
    assert_eq!(daemon.worker_pids().len(), 2, "another worker has answered");
    let spins = spins.await.expect("it runs").expect("an answer");
    assert_eq!(spins.code, Some(ErrorCode::Timeout), "{spins:?}");
    let beside = beside.await.expect("it runs").expect("an answer");
    assert_eq!(beside.code, Some(ErrorCode::WorkerCrashed), "{beside:?}");
    assert!(beside.error.as_deref().is_some_and(|it| it.contains("took too long")), "{beside:?}");
    until("its worker is gone", || async { (daemon.worker_pids().len() == 1).then_some(()) }).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_than_the_function_allows() {
    let settings =
        SettingsPatch { worker_concurrency: Some(2), max_concurrent_executions: Some(3), ..SettingsPatch::default() };
    let daemon = TestDaemon::start().await;
    daemon.register_with("count", settings).await;
    // The handler takes long enough for invocations to overlap.
    let code = "const id = crypto.randomUUID(); export default async (req, ctx) => {
        const start = Date.now();
        await Bun.sleep(40);
        return Response.json([start, Date.now(), id]);
    };";
    daemon.redeploy_text("count", None, code).await.expect("a good bundle");
    let mut calls = Vec::new();
    for _ in 0..12 {
        calls.push(daemon.get_beside("count", "/").await);
    }
    let mut spans = Vec::new();
    for call in calls {
        let span: (u64, u64, String) =
            serde_json::from_value(json(&call.await.expect("it runs").expect("an answer"))).expect("a span");
        spans.push(span);
    }
    let most = |own: &dyn Fn(&str) -> bool| {
        let spans: Vec<_> = spans.iter().filter(|it| own(&it.2)).collect();
        let at_once = |it: &(u64, u64, String)| spans.iter().filter(|other| other.0 <= it.0 && it.0 < other.1).count();
        spans.iter().map(|it| at_once(it)).max().unwrap_or(0)
    };
    assert!(most(&|_| true) <= 3, "{spans:?}");
    for worker in spans.iter().map(|it| it.2.as_str()) {
        assert!(most(&|other| other == worker) <= 2, "{spans:?}");
    }
    assert_eq!(daemon.worker_pids().len(), 2);
    tokio::time::timeout(Duration::from_secs(10), daemon.stop()).await.expect("it stops");
}
