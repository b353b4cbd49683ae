//! INVOKE.

use crate::harness::{Gate, TestDaemon, get, is_refused, json, text, until};
use levain::{
    client::Client,
    config::Verify,
    error::ErrorCode,
    model::{ColdStart, SettingsPatch},
    protocol::{
        field::{Body, Fields},
        ipc::Encoding,
        message::{InvokeRequest, StreamChunk, StreamHead, WarmupRequest},
    },
};
use std::time::{Duration, Instant};

/// Returns everything that the function was given.
const INSPECT: &str = "export default async (req, ctx) => {
    const url = new URL(req.url);
    return Response.json({
        method: req.method, path: url.pathname, query: [...url.searchParams], headers: Object.fromEntries(req.headers),
        body: await req.text(), ctx: { ...['invocationId', 'functionName', 'version', 'environment'].map((key) => ctx[key]) },
        left: ctx.deadline - Date.now(),
    });
};";

/// Answers with a name unique to its worker after `?ms=` milliseconds, whether or not the caller waits.
const WHO: &str = "const id = crypto.randomUUID();
export default async (req) => {
    const ms = Number(new URL(req.url).searchParams.get('ms') ?? 0);
    if (ms > 0) {
        console.log('begins');
        await Bun.sleep(ms);
    }
    return new Response(id);
};";

fn fields(pairs: &[(&str, &str)]) -> Option<Fields> {
    Some(Fields(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()))
}

fn one_worker() -> SettingsPatch {
    SettingsPatch { max_concurrent_executions: Some(1), ..SettingsPatch::default() }
}

/// Values of one header.
fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_the_function_whole() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", INSPECT).await;
    let request = InvokeRequest {
        method: Some("patch".into()),
        path: Some("/a/b%20c?x=1".into()),
        query: fields(&[("y", "2 & 3"), ("y", "é"), ("empty", "")]),
        headers: fields(&[
            ("X-Own", "v"),
            ("x-many", "1"),
            ("x-many", "2"),
            ("content-type", "text/plain"),
            ("host", "example.org"),
        ]),
        body: Some(Body::from("tschüß".as_bytes().to_vec())),
        ..get("f", "/")
    };
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        let client = daemon.connect().await.with_encoding(encoding);
        let answer = client.call(&request).await.unwrap();
        assert!(answer.success && answer.status == 200 && answer.error.is_none(), "{answer:?}");
        assert_eq!(answer.version, "v1");
        assert_eq!(values(&answer.headers, "content-type"), ["application/json;charset=utf-8"]);
        let seen = json(&answer);
        assert_eq!((&seen["method"], &seen["path"]), (&"PATCH".into(), &"/a/b%20c".into()));
        assert_eq!(seen["query"], serde_json::json!([["x", "1"], ["y", "2 & 3"], ["y", "é"], ["empty", ""]]));
        let headers = &seen["headers"];
        assert_eq!((&headers["x-own"], &headers["x-many"]), (&"v".into(), &"1, 2".into()));
        assert_eq!((&headers["content-type"], &headers["host"]), (&"text/plain".into(), &"example.org".into()));
        assert_eq!(seen["body"], "tschüß");
        assert_eq!(seen["ctx"], serde_json::json!({"0": answer.execution_id, "1": "f", "2": "v1", "3": "production"}));
        assert!((1.0..=30_000.0).contains(&seen["left"].as_f64().unwrap()), "{seen}");
    }
    // Omitted fields get their defaults.
    let seen = json(&daemon.invoke("f").await.unwrap());
    assert_eq!((&seen["method"], &seen["path"], &seen["body"]), (&"GET".into(), &"/".into(), &"".into()));
    let post = InvokeRequest { method: None, body: Some(Body::from(vec![b'x'])), ..request };
    assert_eq!(json(&daemon.invoke_with(post).await.unwrap())["method"], "POST");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_invocations_id_is_the_daemons_to_give() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", INSPECT).await;
    let headers = fields(&[
        ("X-Invocation-Id", "mine"),
        ("x-levain-deadline", "1"),
        ("X-Levain-Error", "throw"),
        ("x-kept", "1"),
    ]);
    let answer = daemon.invoke_with(InvokeRequest { headers, ..get("f", "/") }).await.unwrap();
    let seen = json(&answer);
    assert_eq!(seen["headers"]["x-invocation-id"], answer.execution_id.to_string());
    let names: Vec<_> = seen["headers"].as_object().unwrap().keys().cloned().collect();
    assert!(names.iter().all(|name| !name.starts_with("x-levain")), "{names:?}");
    assert_eq!(seen["headers"]["x-kept"], "1");
    assert!(seen["left"].as_f64().unwrap() > 1_000.0, "{seen}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answers_head_comes_back_whole() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("headers").await.unwrap();
    let answer = daemon.get("headers", "/?status=418").await;
    assert_eq!((answer.status, answer.success, text(&answer)), (418, true, "status 418"));
    assert_eq!(values(&answer.headers, "set-cookie"), ["first=1; Path=/", "second=2; Path=/; HttpOnly"]);
    assert_eq!(values(&answer.headers, "x-sample"), ["levain"]);
    let empty = daemon.get("headers", "/?status=204").await;
    assert_eq!((empty.status, empty.body.0.len()), (204, 0));
    let redirect = daemon.get("headers", "/redirect").await;
    assert_eq!((redirect.status, values(&redirect.headers, "location")), (302, vec!["/elsewhere"]));
    let failed = daemon.get("headers", "/?status=503").await;
    assert_eq!((failed.status, failed.success), (503, true));
    daemon.deploy_sample("echo").await.unwrap();
    let head = daemon.invoke_with(InvokeRequest { method: Some("HEAD".into()), ..get("echo", "/") }).await.unwrap();
    assert_eq!((head.status, head.body.0.len()), (200, 0));
    // A function cannot set the daemon's own headers.
    let own = "export default () => new Response('x', { headers: { 'x-levain-pending': '1', 'x-levain-version': 'v7', 'keep-alive': '9' } });";
    daemon.deploy_text("own", own).await;
    let answer = daemon.get("own", "/").await;
    let names: Vec<_> = answer.headers.0.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.iter().any(|name| name.starts_with("x-levain") || *name == "keep-alive"), "{names:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bytes_of_any_value_and_size() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("echo").await.unwrap();
    let every_byte: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..1 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        let client = daemon.connect().await.with_encoding(encoding);
        for bytes in [&every_byte, &large] {
            let request = InvokeRequest { body: Some(Body::from(bytes.clone())), ..get("echo", "/") };
            let answer = client.call(&request).await.unwrap();
            assert_eq!((answer.status, answer.body.0.len()), (200, bytes.len()), "{encoding:?}");
            assert!(answer.body.0 == bytes[..], "{encoding:?}: the bytes differ");
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qualifier_chooses_the_version() {
    let daemon = TestDaemon::start().await;
    let deployed = daemon.deploy_text("f", "export default () => new Response('one');").await;
    daemon.redeploy_text("f", Some("2.0"), "export default () => new Response('two');").await.unwrap();
    for (function, word) in
        [("f", "two"), ("f:LIVE", "two"), ("f:v1", "one"), ("f:2.0", "two"), (&deployed.function_id.to_string(), "two")]
    {
        assert_eq!(text(&daemon.invoke(function).await.unwrap()), word, "{function}");
    }
    let qualified = |function: &str, it: &str| InvokeRequest { qualifier: Some(it.into()), ..get(function, "/") };
    assert_eq!(text(&daemon.invoke_with(qualified("f", "v1")).await.unwrap()), "one");
    assert_eq!(text(&daemon.invoke_with(qualified("f:v1", "v1")).await.unwrap()), "one");
    let by_id = qualified(&deployed.function_id.to_string(), "v1");
    assert_eq!(text(&daemon.invoke_with(by_id).await.unwrap()), "one");
    use ErrorCode::{AliasNotFound, FunctionNotDeployed, FunctionNotFound, InvalidRequest, VersionNotFound};
    daemon.register("bare").await;
    for (request, code) in [
        (qualified("f:v1", "2.0"), InvalidRequest),
        (qualified("f", "v9"), VersionNotFound),
        (qualified("f", "9"), VersionNotFound),
        (qualified("f", "3.1"), VersionNotFound),
        (get("f:STAGING", "/"), AliasNotFound),
        (get("g", "/"), FunctionNotFound),
        (get("bare", "/"), FunctionNotDeployed),
    ] {
        let outcome = daemon.invoke_with(request).await;
        assert!(is_refused(&outcome, code), "{code}: {outcome:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_sent_is_refused() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", INSPECT).await;
    let bad = [
        InvokeRequest { method: Some("NO BLANKS".into()), ..get("f", "/") },
        InvokeRequest { headers: fields(&[("a b", "c")]), ..get("f", "/") },
        InvokeRequest { headers: fields(&[("a", "c\r\nd: e")]), ..get("f", "/") },
        InvokeRequest { timeout_ms: Some(0), ..get("f", "/") },
        get("f", "/a b"),
    ];
    for request in bad {
        let outcome = daemon.invoke_with(request.clone()).await;
        assert!(is_refused(&outcome, ErrorCode::InvalidRequest), "{request:?}: {outcome:?}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_shorten_the_timeout_and_not_lengthen_it() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", WHO).await;
    let started = Instant::now();
    let request = InvokeRequest { timeout_ms: Some(100), ..get("f", "/?ms=60000") };
    let answer = daemon.invoke_with(request).await.unwrap();
    assert_eq!((answer.success, answer.code, answer.status), (false, Some(ErrorCode::Timeout), 0));
    assert!(answer.error.as_ref().unwrap().contains("100 ms"), "{answer:?}");
    assert!(answer.execution_time_ms >= 100.0 && started.elapsed() < Duration::from_secs(10));

    daemon.update("f", SettingsPatch { timeout_seconds: Some(1), ..SettingsPatch::default() }).await.unwrap();
    let request = InvokeRequest { timeout_ms: Some(60_000), ..get("f", "/?ms=60000") };
    let answer = daemon.invoke_with(request).await.unwrap();
    assert_eq!(answer.code, Some(ErrorCode::Timeout));
    assert!(answer.error.as_ref().unwrap().contains("1000 ms"), "{answer:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_comes_in_parts_and_ends_with_totals() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    let code = format!(
        "export default () => new Response(new ReadableStream({{
            async start(controller) {{ controller.enqueue('begun'); {} controller.enqueue(', done'); controller.close(); }},
        }}), {{ headers: {{ 'content-type': 'text/plain' }} }});",
        gate.wait()
    );
    daemon.deploy_text("f", &code).await;
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        gate.shut_again();
        let client = daemon.connect().await.with_encoding(encoding);
        let request = InvokeRequest { stream: true, ..get("f", "/") };
        let mut answer = client.call_streaming(&request).unwrap();
        let head: StreamHead = answer.next_partial().await.unwrap().unwrap();
        assert_eq!((head.status, head.version.as_str(), head.cold_start), (200, "v1", ColdStart::None));
        assert_eq!(head.headers.get("content-type"), Some("text/plain"));
        let first: StreamChunk = answer.next_partial().await.unwrap().unwrap();
        assert_eq!(first.body.0, "begun", "it arrives before the function goes on");
        gate.open();
        let mut rest = Vec::new();
        while let Some(part) = answer.next_partial::<StreamChunk>().await.unwrap() {
            rest.extend_from_slice(&part.body.0);
        }
        assert_eq!(rest, b", done");
        let total = answer.finish().await.unwrap();
        assert_eq!((total.success, total.status, total.body.0.len()), (true, 200, 0));
        assert_eq!(total.execution_id, head.execution_id);
        assert!(total.execution_time_ms > 0.0, "{total:?}");
    }
    assert_eq!(text(&daemon.get("f", "/").await), "begun, done", "without `stream`, the answer arrives as a whole");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_or_stalls_ends_with_its_error() {
    let daemon = TestDaemon::start().await;
    let code = "export default (req) => new Response(new ReadableStream({
        async pull(controller) {
            controller.enqueue('begun');
            const path = new URL(req.url).pathname;
            if (path === '/exit') { await Bun.sleep(20); process.exit(4); }
            if (path === '/throw') { await Bun.sleep(20); throw new Error('broken'); }
            await new Promise(() => {});
        },
    }));";
    daemon.deploy_text("f", code).await;
    for (path, code, timeout_ms) in [
        ("/exit", ErrorCode::WorkerCrashed, None),
        ("/throw", ErrorCode::HandlerError, None),
        ("/stall", ErrorCode::Timeout, Some(500)),
    ] {
        for stream in [true, false] {
            let request = InvokeRequest { stream, timeout_ms, ..get("f", path) };
            let answer = daemon.invoke_with(request).await.unwrap();
            assert_eq!((answer.success, answer.code), (false, Some(code)), "{path} {stream}: {answer:?}");
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_large_for_a_frame_can_be_streamed() {
    let daemon = TestDaemon::start_with(|config| config.limits.frame_bytes_max = 131_072).await;
    daemon.deploy_text("f", "export default () => new Response('x'.repeat(300_000));").await;
    let pid = daemon.worker_pids();
    let outcome = daemon.invoke("f").await;
    assert!(is_refused(&outcome, ErrorCode::PayloadTooLarge), "{outcome:?}");
    let message = outcome.unwrap_err().message;
    assert!(message.contains("stream") && message.contains("frame_bytes_max"), "{message}");
    daemon.until_pool("f", "its worker is free again", |pool| pool.idle == 1).await;
    let request = InvokeRequest { stream: true, ..get("f", "/") };
    let mut answer = daemon.client().call_streaming(&request).unwrap();
    let _: StreamHead = answer.next_partial().await.unwrap().unwrap();
    let mut length = 0;
    while let Some(part) = answer.next_partial::<StreamChunk>().await.unwrap() {
        length += part.body.0.len();
    }
    assert_eq!(length, 300_000);
    assert_eq!(daemon.worker_pids(), pid, "the worker is used again");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_at_once_than_the_function_allows() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    let code = format!(
        "export default async () => {{
            const start = Date.now();
            {}
            return Response.json([start, Date.now()]);
        }};",
        gate.wait()
    );
    daemon.deploy_text("f", &code).await;
    daemon.update("f", SettingsPatch { max_concurrent_executions: Some(2), ..SettingsPatch::default() }).await.unwrap();
    let calls: Vec<_> = (0..6).map(|_| tokio::spawn(daemon.client().call(&get("f", "/")))).collect();
    daemon.until_pool("f", "two run and four wait", |pool| (pool.busy, pool.queued) == (2, 4)).await;
    gate.open();
    let mut spans = Vec::new();
    for call in calls {
        let answer = call.await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let span: (u64, u64) = serde_json::from_slice(&answer.body.0).unwrap();
        spans.push(span);
    }
    let most = spans.iter().map(|it| spans.iter().filter(|other| other.0 <= it.0 && it.0 < other.1).count()).max();
    assert_eq!(most, Some(2), "{spans:?}");
    assert_eq!(daemon.worker_pids().len(), 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("sleep").await.unwrap();
    daemon.update("sleep", SettingsPatch { queue_max: Some(1), ..one_worker() }).await.unwrap();
    let running = daemon.get_beside("sleep", "/?ms=60000").await;
    daemon.until_pool("sleep", "it runs", |pool| pool.busy == 1).await;
    let waiting = daemon.get_beside("sleep", "/?ms=1").await;
    daemon.until_pool("sleep", "it waits", |pool| pool.queued == 1).await;
    let outcome = daemon.invoke("sleep").await;
    assert!(is_refused(&outcome, ErrorCode::Overloaded), "{outcome:?}");
    assert!(outcome.unwrap_err().details.unwrap()["retry_after_ms"].as_u64().unwrap() > 0);
    // A caller that leaves the queue makes room, and one that leaves its worker frees it for the next.
    waiting.abort();
    daemon.until_pool("sleep", "nobody waits", |pool| pool.queued == 0).await;
    let waiting = daemon.get_beside("sleep", "/?ms=1").await;
    daemon.until_pool("sleep", "it waits", |pool| pool.queued == 1).await;
    running.abort();
    let answer = waiting.await.unwrap().unwrap();
    assert!(answer.success && answer.queue_ms > 0.0 && answer.cold_start == ColdStart::None, "{answer:?}");
    assert_eq!(daemon.worker_pids().len(), 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_worker_ends_at_the_queue_timeout() {
    let daemon = TestDaemon::start_with(|config| config.workers.queue_timeout_ms = 100).await;
    daemon.deploy_sample("sleep").await.unwrap();
    daemon.update("sleep", one_worker()).await.unwrap();
    let running = daemon.get_beside("sleep", "/?ms=60000").await;
    daemon.until_pool("sleep", "it runs", |pool| pool.busy == 1).await;
    let outcome = daemon.invoke("sleep").await;
    assert!(is_refused(&outcome, ErrorCode::Overloaded), "{outcome:?}");
    let error = outcome.unwrap_err();
    assert!(error.message.contains("100 ms") && error.details.unwrap()["retry_after_ms"].as_u64() > Some(0));
    // The invocation's own deadline counts in the queue too.
    let request = InvokeRequest { timeout_ms: Some(20), ..get("sleep", "/") };
    let answer = daemon.invoke_with(request).await.unwrap();
    assert_eq!(answer.code, Some(ErrorCode::Timeout), "{answer:?}");
    running.abort();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_says_what_it_waited_for() {
    let daemon = TestDaemon::start_with(|config| config.versioning.verify = Verify::Syntax).await;
    daemon.deploy_sample("hello").await.unwrap();
    let cold = daemon.invoke("hello").await.unwrap();
    assert_eq!(cold.cold_start, ColdStart::Spawned);
    assert!(cold.start_ms > 0.0 && cold.execution_time_ms >= cold.start_ms, "{cold:?}");
    let warm = daemon.invoke("hello").await.unwrap();
    assert_eq!((warm.cold_start, warm.start_ms), (ColdStart::None, 0.0));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_used_last_is_used_next() {
    let daemon = TestDaemon::start_gated(|_| {}).await;
    let gate = Gate::shut(daemon.data_dir());
    let code = format!(
        "const id = crypto.randomUUID();
        export default async (req) => {{
            if (new URL(req.url).pathname === '/slow') {{ {} }}
            return new Response(id);
        }};",
        gate.wait()
    );
    daemon.deploy_text("f", &code).await;
    let warmup = WarmupRequest { function_id: "f".into(), count: 4, qualifier: None };
    daemon.call(&warmup).await.unwrap();
    let first = daemon.get("f", "/").await;
    for _ in 0..10 {
        assert_eq!(text(&daemon.get("f", "/").await), text(&first));
    }
    // Two simultaneous invocations take two workers; the worker that ends last is used next.
    let slow = daemon.get_beside("f", "/slow").await;
    gate.until_reached().await;
    let other = daemon.get("f", "/").await;
    assert_ne!(text(&other), text(&first));
    gate.open();
    assert_eq!(text(&slow.await.unwrap().unwrap()), text(&first));
    assert_eq!(text(&daemon.get("f", "/").await), text(&first));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_workers_end_down_to_the_floor() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_sample("hello").await.unwrap();
    let patch = SettingsPatch { idle_timeout_seconds: Some(1), warm_workers: Some(1), ..SettingsPatch::default() };
    daemon.update("hello", patch).await.unwrap();
    let warmup = WarmupRequest { function_id: "hello".into(), count: 3, qualifier: None };
    assert_eq!(daemon.call(&warmup).await.unwrap().warm, 3);
    let before = daemon.worker_pids();
    let left = until("one worker is left", || async { <[u32; 1]>::try_from(daemon.worker_pids()).ok() }).await;
    assert!(before.contains(&left[0]), "the floor is kept, not started anew");
    daemon.update("hello", SettingsPatch { warm_workers: Some(0), ..SettingsPatch::default() }).await.unwrap();
    until("no worker is left", || async { daemon.pools("hello").await.is_empty().then_some(()) }).await;
    assert_eq!(daemon.worker_pids(), [] as [u32; 0]);
    assert_eq!(daemon.invoke("hello").await.unwrap().cold_start, ColdStart::Spawned);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_aborts_the_function_and_its_worker_is_used_again() {
    let daemon = TestDaemon::start().await;
    let code = "export default async (req) => {
        if (new URL(req.url).pathname === '/next') return new Response('next');
        console.log('begun');
        await new Promise((resolve) => req.signal.addEventListener('abort', resolve));
        console.log('aborted');
        return new Response('to nobody');
    };";
    daemon.deploy_text("f", code).await;
    daemon.update("f", one_worker()).await.unwrap();
    let pid = daemon.worker_pids();
    let call = daemon.get_beside("f", "/").await;
    daemon.until_logged("f", "begun").await;
    call.abort();
    let line = daemon.until_logged("f", "aborted").await;
    assert!(line.execution_id.is_some());
    let answer = daemon.get("f", "/next").await;
    assert_eq!((text(&answer), daemon.worker_pids()), ("next", pid));
    // A caller that leaves in the middle of a stream frees its worker too.
    daemon.deploy_sample("stream").await.unwrap();
    daemon.update("stream", one_worker()).await.unwrap();
    let client: Client = daemon.connect().await;
    let request = InvokeRequest { stream: true, ..get("stream", "/?chunks=100000&ms=5") };
    let mut answer = client.call_streaming(&request).unwrap();
    for _ in 0..3 {
        answer.next_partial::<serde::de::IgnoredAny>().await.unwrap().unwrap();
    }
    drop((answer, client));
    assert!(text(&daemon.get("stream", "/?chunks=1").await).starts_with("chunk 1"));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_goes_on_without_its_caller_is_ended_at_the_deadline() {
    let daemon = TestDaemon::start().await;
    daemon.deploy_text("f", WHO).await;
    daemon.update("f", SettingsPatch { timeout_seconds: Some(1), ..one_worker() }).await.unwrap();
    let before = daemon.worker_pids();
    let call = daemon.get_beside("f", "/?ms=60000").await;
    daemon.until_logged("f", "begins").await;
    call.abort();
    until("the worker ends", || async { (!daemon.worker_pids().contains(&before[0])).then_some(()) }).await;
    assert!(daemon.get("f", "/").await.success);
    assert!(!daemon.worker_pids().contains(&before[0]));
    daemon.until_logged("f", "took too long").await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_waited_for_after_the_answer_keeps_the_worker() {
    let daemon = TestDaemon::start_unconfined().await;
    let gate = Gate::shut(daemon.data_dir());
    let code = format!(
        "const id = crypto.randomUUID(); let pending = false;
        const goOn = async (ctx) => {{ {} console.log('after', ctx.invocationId); pending = false; }};
        export default (req, ctx) => {{
            const answer = Response.json({{ id, pending }});
            pending = true;
            ctx.waitUntil(goOn(ctx));
            return answer;
        }};",
        gate.wait()
    );
    daemon.deploy_text("f", &code).await;
    daemon.update("f", one_worker()).await.unwrap();
    let first = daemon.get("f", "/").await;
    assert_eq!(daemon.pools("f").await[0].busy, 1);
    let second = daemon.get_beside("f", "/").await;
    daemon.until_pool("f", "the second waits for the worker", |pool| pool.queued == 1).await;
    gate.open();
    let second = second.await.unwrap().unwrap();
    assert_eq!((&json(&second)["pending"], &json(&second)["id"]), (&false.into(), &json(&first)["id"]));
    let line = daemon.until_logged("f", &format!("after {}", first.execution_id)).await;
    assert_eq!(line.execution_id, Some(first.execution_id));
    daemon.until_pool("f", "the second invocation has settled too", |pool| pool.idle == 1).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_settles_after_the_answer_is_ended_at_the_deadline() {
    let daemon = TestDaemon::start().await;
    let code = "export default (req, ctx) => { ctx.waitUntil(new Promise(() => {})); return new Response('ok'); };";
    daemon.deploy_text("f", code).await;
    daemon.update("f", SettingsPatch { timeout_seconds: Some(1), ..one_worker() }).await.unwrap();
    assert_eq!(text(&daemon.get("f", "/").await), "ok");
    daemon.until_no_workers().await;
    assert_eq!(daemon.get("f", "/").await.cold_start, ColdStart::Spawned);
    daemon.stop().await;
}
