//! Functions that write to their shim's channels: they lose their worker, and other functions are not affected.

use crate::harness::{DaemonProcess, Load, TestDaemon, get, is_refused, repetitions, text, until};
use levain::{
    client::Client,
    error::ErrorCode,
    model::{ColdStart, SettingsPatch},
    protocol::{
        field::Body,
        message::{DeployRequest, InvokeRequest, InvokeResponse, RegisterRequest},
        worker::LogLevel,
    },
};
use std::{
    fs,
    time::{Duration, Instant},
};

const ROGUE: &str = include_str!("rogue/rogue.js");

/// Pause between two calls of a caller beside the rogue.
const PACE: Duration = Duration::from_millis(5);

/// Starts a daemon with the rogue, and with another function that is called all the time.
async fn start() -> (TestDaemon, Load) {
    beside_hello(TestDaemon::start().await).await
}

async fn beside_hello(daemon: TestDaemon) -> (TestDaemon, Load) {
    daemon.deploy_text("rogue", ROGUE).await;
    daemon.deploy_sample("hello").await.unwrap();
    let load = Load::paced(vec![daemon.connect().await], get("hello", "/"), PACE).await;
    (daemon, load)
}

/// Checks that the other function has answered every call from its first worker, and stops the daemon.
async fn stop(daemon: TestDaemon, load: Load) {
    load.until_answered(10).await;
    let answers = load.stop().await;
    assert!(answers.iter().all(|it| it.cold_start == ColdStart::None), "the other function lost its worker");
    daemon.stop().await;
}

/// Name of the worker that answers.
async fn worker(daemon: &TestDaemon) -> String {
    let answer = daemon.get("rogue", "/").await;
    assert!(answer.success && answer.body.0.len() == 36, "{answer:?}");
    text(&answer).to_owned()
}

/// Makes a call that ends its worker: the caller and the log get the reason, and another worker takes over.
async fn ends_its_worker(daemon: &TestDaemon, path: &str, why: &str) {
    let why = format!("it was ended because it broke the protocol: {why}");
    let before = worker(daemon).await;
    let ended = format!("the worker has ended: {why}");
    let ends_before = logged(daemon, &ended).await;
    let answer = daemon.get("rogue", path).await;
    assert_eq!((answer.success, answer.code), (false, Some(ErrorCode::WorkerCrashed)), "{path}: {answer:?}");
    let error = answer.error.as_deref().unwrap_or_default();
    assert!(error.starts_with(&format!("the worker crashed: {why}")), "{path}: {error}");
    // The log contains the worker's end, and the outcome of the invocation.
    until(&format!("{path} is logged"), || async { (logged(daemon, &ended).await > ends_before).then_some(()) }).await;
    let lines = daemon.logs("rogue").await;
    let line = lines.iter().find(|line| line.execution_id.as_ref() == Some(&answer.execution_id)).expect(path);
    assert_eq!((line.level, line.stream.as_str()), (LogLevel::Error, "system"), "{path}");
    assert!(line.message.contains(&why), "{path}: {line:?}");
    assert_ne!(worker(daemon).await, before, "{path}");
}

/// Makes a call that fails by the function's own fault: its worker goes on.
async fn fails_alone(daemon: &TestDaemon, path: &str, why: &str) {
    let before = worker(daemon).await;
    let answer = daemon.get("rogue", path).await;
    assert_eq!((answer.success, answer.code), (false, Some(ErrorCode::HandlerError)), "{path}: {answer:?}");
    assert!(answer.error.as_ref().is_some_and(|it| it.contains(why)), "{path}: {answer:?}");
    // The invocation ends for its caller a moment before it ends for the worker; until then, another worker would be
    // started.
    daemon.until_pool("rogue", "it is free again", |pool| pool.busy == 0).await;
    assert_eq!(worker(daemon).await, before, "{path}");
}

/// Number of lines in the rogue's log that begin like this.
async fn logged(daemon: &TestDaemon, begin: &str) -> usize {
    daemon.logs("rogue").await.iter().filter(|line| line.message.starts_with(begin)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_says_what_no_shim_says_loses_its_worker() {
    let (daemon, load) = start().await;
    for (path, why) in [
        ("garbage", "a line on its control channel is not a valid message"),
        ("binary", "a line on its control channel is not a valid message"),
        ("unknown", "a line on its control channel is not a valid message"),
        ("wrong", "a line on its control channel is not a valid message"),
        ("nested", "a line on its control channel is not a valid message"),
        ("count", "a line on its control channel is not a valid message"),
        ("long", "a line on its control channel is too long"),
        ("spaces", "a line on its control channel is too long"),
        ("ready", "it sent `ready` a second time"),
        ("pong", "it answered a ping that was not sent"),
        ("log?id=nonsense", "it named an invocation that it never had"),
    ] {
        ends_its_worker(&daemon, &format!("/control/{path}"), why).await;
    }
    stop(daemon, load).await;
}

/// A worker's count of dropped lines is believed only as far as it can be true.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_cannot_invent_any_number_of_dropped_lines() {
    let began = Instant::now();
    let (daemon, load) = start().await;
    // Dropped lines are counted once a second, with the line after them.
    let dropped = until("the lines are counted", || async {
        assert_eq!(text(&daemon.get("rogue", "/control/dropped").await), "said");
        Some(daemon.status().await.logs_dropped).filter(|it| *it > 0)
    })
    .await;
    let most = began.elapsed().as_micros() as u64;
    assert!(dropped <= most, "{dropped} lines in {most} µs");
    stop(daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_sends_what_no_server_sends_loses_its_worker() {
    let (daemon, load) = start().await;
    for (path, why) in [
        ("garbage", "its answer is not HTTP: its head does not parse"),
        ("version", "its answer is not HTTP: its head does not parse"),
        ("status", "its answer is not HTTP: its status is not valid"),
        ("both", "its answer is not HTTP: it has a length and a transfer encoding"),
        ("lengths", "its answer is not HTTP: it has two lengths"),
        ("length", "its answer is not HTTP: its length is not a number"),
        ("encoding", "its answer is not HTTP: its transfer encoding is unknown"),
        ("size", "its answer is not HTTP: a chunk has no size"),
        ("chunk", "its answer is not HTTP: a chunk is longer than its size"),
        ("line", "its answer is not HTTP: a line is too long"),
        ("trailers", "its answer is not HTTP: its trailers are too long"),
        ("hints", "its answer is not HTTP: too many informational heads precede it"),
        ("more", "it sent bytes that belong to no answer"),
    ] {
        ends_its_worker(&daemon, &format!("/http/{path}"), why).await;
    }
    stop(daemon, load).await;
}

/// The caller of the other function has left, and its worker is busy until the invocation has settled there.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_the_invocations_of_others() {
    let (daemon, load) = start().await;
    let code = "let open; const gate = new Promise((resolve) => (open = resolve));
        export default async (req) => {
            if (new URL(req.url).pathname === '/open') open(); else { console.log('it waits'); await gate; }
            return new Response('open');
        };";
    let settings = SettingsPatch { worker_concurrency: Some(3), ..SettingsPatch::default() };
    daemon.register_with("gate", settings).await;
    daemon.redeploy_text("gate", None, code).await.unwrap();
    let forge = async |id: &str| {
        for said in ["settled", "log", "rejection"] {
            let path = format!("/control/{said}?id={id}");
            ends_its_worker(&daemon, &path, "it named an invocation that it never had").await;
        }
    };
    let call = daemon.get_beside("gate", "/").await;
    let id = daemon.until_logged("gate", "it waits").await.execution_id.unwrap();
    call.abort();
    forge(&id.to_string()).await;
    assert_eq!(daemon.pools("gate").await[0].busy, 1, "it has not settled");

    let call = daemon.get_beside("gate", "/").await;
    let lines = until("another waits", || async {
        let lines = daemon.logs("gate").await;
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let id = lines.iter().filter_map(|line| line.execution_id.as_ref()).find(|it| **it != id).unwrap();
    forge(&id.to_string()).await;
    assert_eq!(daemon.logs("gate").await.len(), 2, "the forged lines were not added");
    assert!(daemon.logs("rogue").await.iter().all(|line| !line.message.contains("forged")));
    assert_eq!(text(&daemon.get("gate", "/open").await), "open");
    assert_eq!(text(&call.await.unwrap().unwrap()), "open");
    daemon.until_pool("gate", "it is free again", |pool| pool.busy == 0).await;
    stop(daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_there_before_its_call_is_not_given_to_it() {
    let (daemon, load) = start().await;
    for round in 1..=5 {
        let before = worker(&daemon).await;
        assert_eq!(text(&daemon.get("rogue", "/next/smuggled").await), "mine");
        let written = || async { (logged(&daemon, "it is written").await == round).then_some(()) };
        until("it is written", written).await;
        // The next invocation gets another, unharmed worker.
        assert_ne!(worker(&daemon).await, before);
        let why = "the worker has ended: it was ended because it broke the protocol: it sent bytes that belong to no";
        until("its end is logged", || async { (logged(&daemon, why).await == round).then_some(()) }).await;
    }
    stop(daemon, load).await;
}

/// A forged answer in place of the function's own counts as its own. The real answer then arrives unrequested, or is
/// taken for the answer to the next invocation; in that case the next one's answer arrives unrequested.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_answers_twice_loses_its_worker() {
    let (daemon, load) = start().await;
    let before = worker(&daemon).await;
    let answer = daemon.get("rogue", "/next/forged").await;
    match answer.code {
        None => assert_eq!(text(&answer), "forged"),
        Some(code) => assert_eq!(code, ErrorCode::WorkerCrashed, "both answers arrived at once"),
    }
    until("another worker answers", || async {
        let answer = daemon.get("rogue", "/").await;
        let own = answer.code.is_none().then(|| text(&answer).to_owned());
        own.filter(|own| *own != before && own != "mine")
    })
    .await;
    daemon.until_logged("rogue", "it sent bytes that belong to no answer").await;
    stop(daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_harms_only_the_function_itself_does_not_end_its_worker() {
    let (daemon, load) = start().await;
    fails_alone(&daemon, "/own/headers", "more than 128 headers").await;
    fails_alone(&daemon, "/own/large", "more than 256 KiB").await;
    fails_alone(&daemon, "/own/character", "a character that no header may have").await;
    fails_alone(&daemon, "/own/failed", "as I say").await;
    fails_alone(&daemon, "/own/failing", "its report is not readable").await;

    let before = worker(&daemon).await;
    assert_eq!(
        text(&daemon.get("rogue", "/own/rejection").await),
        "fine",
        "the longest lines of a worker are accepted"
    );
    let line = daemon.until_logged("rogue", "unhandled").await;
    assert!(line.message.len() < 17_000, "{} bytes", line.message.len());
    assert_eq!(worker(&daemon).await, before);

    // The function claims that more is to come: the daemon asks the shim, which knows better.
    let answer = daemon.get("rogue", "/own/pending").await;
    assert_eq!(text(&answer), "done");
    assert!(answer.headers.0.iter().all(|(name, _)| !name.starts_with("x-levain-")), "{answer:?}");
    daemon.until_pool("rogue", "it is free again", |pool| pool.busy == 0).await;
    assert_eq!(worker(&daemon).await, before);

    for path in ["/own/short", "/own/slow"] {
        let before = worker(&daemon).await;
        let answer = daemon.invoke_with(InvokeRequest { timeout_ms: Some(500), ..get("rogue", path) }).await.unwrap();
        assert_eq!(answer.code, Some(ErrorCode::Timeout), "{path}: {answer:?}");
        assert_ne!(worker(&daemon).await, before, "{path}");
    }
    stop(daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_breaks_the_protocol_while_it_loads_does_not_go_live() {
    let (daemon, load) = start().await;
    let live = daemon.info("rogue").await.aliases;
    for (act, why) in [
        ("say('nonsense');", "a line on its control channel is not a valid message"),
        ("say({ type: 'ready', bun: '1' });", "it sent `ready` a second time"),
        ("answer('nonsense\\r\\n\\r\\n');", "its head does not parse"),
        ("answer(head('content-length: 1') + 'x');", "the worker broke the protocol"),
        ("answer(head('content-length: 1000000') + '{}'.repeat(500_000));", "the worker broke the protocol"),
    ] {
        let outcome = daemon.redeploy_text("rogue", None, &format!("{ROGUE}\n{act}\nawait never();")).await;
        assert!(is_refused(&outcome, ErrorCode::BundleLoadError), "{act}: {outcome:?}");
        let error = outcome.expect_err(act);
        assert!(error.message.contains(why), "{act}: {error:?}");
    }
    assert_eq!(daemon.info("rogue").await.aliases, live);
    worker(&daemon).await;
    stop(daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_may_not_use_the_command_socket() {
    // With better isolation, the function would not even find the socket.
    let (daemon, load) = beside_hello(TestDaemon::start_unconfined().await).await;
    let path = daemon.socket().to_str().unwrap().to_owned();
    for child in ["", "&child=1"] {
        let answer = daemon.get("rogue", &format!("/command?path={path}{child}")).await;
        assert!(answer.success, "{answer:?}");
        let heard = text(&answer);
        assert!(heard.contains("FORBIDDEN") && heard.contains("functions may not use this socket"), "{heard:?}");
    }
    stop(daemon, load).await;
}

/// CPU time of a process.
fn processor_time(pid: u32) -> Duration {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|it| it.parse::<f64>().unwrap()).sum();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

fn resident_mb(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

async fn deploy(client: &Client, name: &str, code: &str) {
    client.call(&RegisterRequest { name: name.into(), ..RegisterRequest::default() }).await.unwrap();
    let bundle = Some(Body::from(code.as_bytes().to_vec()));
    client.call(&DeployRequest { function_id: name.into(), bundle, ..DeployRequest::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_cost_the_daemon_little_time_and_bounded_memory() {
    let flood_ms = repetitions(1_500, 3_000) as u64;
    // At its begin, a worker may write as much at once as later in a second.
    let share_max = 0.3 * (1.0 + 1_000.0 / flood_ms as f64);
    let data = tempfile::tempdir().unwrap();
    let daemon = DaemonProcess::start(data.path()).await;
    let client = daemon.client().await;
    deploy(&client, "rogue", ROGUE).await;
    deploy(&client, "hello", "export default () => new Response('hello');").await;
    let load = Load::paced(vec![daemon.client().await], get("hello", "/"), PACE).await;
    for path in ["lines", "bytes", "single", "logs", "console", "settled"] {
        let flood = InvokeRequest { timeout_ms: Some(flood_ms), ..get("rogue", &format!("/flood/{path}")) };
        let (before, began) = (processor_time(daemon.pid()), Instant::now());
        let answer: InvokeResponse = client.call(&flood).await.unwrap();
        let share = (processor_time(daemon.pid()) - before).as_secs_f64() / began.elapsed().as_secs_f64();
        assert_eq!(answer.code, Some(ErrorCode::Timeout), "{path}: {answer:?}");
        let memory = resident_mb(daemon.pid());
        assert!(share < share_max, "{path}: {share:.2} of a processor");
        assert!(memory < 150, "{path}: {memory} MiB");
        load.until_answered(10).await;
    }
    load.stop().await;
    daemon.kill().await;
}
