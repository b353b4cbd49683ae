//! Several invocations in one worker.

use crate::harness::{Gate, TestDaemon, get, json, text, until};
use levain::{
    config::Config,
    error::ErrorCode,
    model::SettingsPatch,
    protocol::message::{InvokeRequest, LogLine, LogsRequest},
};
use std::time::Duration;

/// The query controls the handler: `?name=a&ms=10&then=throw`. It logs throughout, and goes on for a while after a
/// rejection, which is reported meanwhile. `HOLD` stands for code that waits.
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
        case 'hold': HOLD break;
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
    start_with(settings, |_| {}).await.0
}

/// Starts a daemon whose function waits at the gate when it is told to hold.
async fn start_with(settings: SettingsPatch, change: impl FnOnce(&mut Config)) -> (TestDaemon, Gate) {
    let daemon = TestDaemon::start_gated(change).await;
    let gate = Gate::shut(daemon.data_dir());
    daemon.register_with("talk", settings).await;
    let code = TALK.replace("HOLD", &gate.wait());
    daemon.redeploy_text("talk", None, &code).await.expect("a good bundle");
    (daemon, gate)
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
        let lines = lines_of(&daemon, &answer.execution_id.to_string()).await;
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
    let (daemon, gate) = start_with(one_worker_of(3), |_| {}).await;
    let first = daemon.get_beside("talk", "/?name=first&then=hold").await;
    let leaves = daemon.get_beside("talk", "/?name=leaves&ms=60000&heed=1").await;
    let last = daemon.get_beside("talk", "/?name=last&then=hold").await;
    daemon.until_pool("talk", "all run", |pool| (pool.busy, pool.running) == (1, 3)).await;
    daemon.until_logged("talk", "leaves begins").await;
    leaves.abort();
    daemon.until_logged("talk", "leaves aborted").await;
    gate.open();
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
    let (daemon, gate) = start_with(one_worker_of(2), |config| config.workers.kill_grace_ms = 300).await;
    let goes_on = daemon.get_beside("talk", "/?name=other&then=hold").await;
    gate.until_reached().await;
    let request = InvokeRequest { timeout_ms: Some(100), ..get("talk", "/?name=late&ms=60000") };
    let late = daemon.invoke_with(request).await.expect("an answer");
    assert_eq!(late.code, Some(ErrorCode::Timeout), "{late:?}");
    // The handler ignores its abort signal: the worker takes no further invocations, and another takes over.
    daemon.until_pool("talk", "the worker retires", |pool| pool.retiring == 1).await;
    let other = daemon.get("talk", "/?name=next").await;
    gate.open();
    let answer = goes_on.await.expect("it runs").expect("an answer");
    assert!(answer.success, "{answer:?}");
    assert_ne!(text(&other), text(&answer));
    daemon.until_pool("talk", "it has gone", |pool| (pool.idle, pool.retiring, pool.stopping) == (1, 0, 0)).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_event_loop_gets_no_more_calls_and_ends_at_the_deadline() {
    let change = |config: &mut Config| (config.workers.blocked_ms, config.workers.kill_grace_ms) = (200, 300);
    let (daemon, _) = start_with(one_worker_of(3), change).await;
    let before = text(&daemon.get("talk", "/?name=before").await).to_owned();
    let beside = daemon.get_beside("talk", "/?name=beside&ms=60000").await;
    daemon.until_logged("talk", "beside begins").await;
    let (client, request) = (daemon.connect().await, get("talk", "/?name=spins&then=spin"));
    let spins = InvokeRequest { timeout_ms: Some(2_000), ..request };
    let spins = tokio::spawn(async move { client.call(&spins).await });
    daemon.until_pool("talk", "the worker retires", |pool| pool.retiring == 1).await;
    assert_ne!(text(&daemon.get("talk", "/?name=next").await), before, "another worker has answered");
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
