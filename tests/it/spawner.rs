//! Workers without a scheduler: concurrent invocations in one process, and the daemon's requests beside them.

use crate::harness::{bun, until};
use http::{HeaderMap, Method};
use levain::{
    config::{SandboxLevel, SandboxMode},
    model::{
        Digest, EnvironmentName, FunctionId, FunctionName, Invocation, InvocationId, Network, RequestBody, VersionLabel,
    },
    telemetry::{LogOptions, LogQuery, LogRecord, Telemetry},
    worker::{
        Blueprint, BunRuntime, ExchangeError, KillReason, RunFolder, SandboxOptions, SharedNetwork, SpawnLimits,
        Spawner, Violation, Worker, runtime,
    },
};
use std::{
    fs,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Starts workers in a folder of its own.
struct Workshop {
    spawner: Spawner,
    telemetry: Telemetry,
    blueprint: Blueprint,
    _data: TempDir,
}

impl Workshop {
    /// Creates a workshop for workers of this function.
    async fn new(code: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let bundle = data.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        fs::write(bundle.join("index.js"), code).unwrap();
        let found = runtime::find(Some(bun().await), data.path()).await.unwrap();
        let options = LogOptions { flush_interval: Duration::from_millis(10), ..LogOptions::default() };
        let telemetry = Telemetry::open(&data.path().join("logs.db"), options).unwrap();
        let limits = SpawnLimits {
            start_timeout: Duration::from_secs(20),
            line_bytes_max: 16 * 1024,
            lines_per_second_max: 1_000_000,
            prewarmed_workers: 2,
        };
        let sandbox = SandboxOptions {
            mode: SandboxMode::Auto,
            level: SandboxLevel::Auto,
            processes_max: 256,
            open_files_max: 1_024,
            tmp_mb: 64,
        };
        let runtime = BunRuntime::new(found, data.path()).unwrap();
        let folder = RunFolder::clear(&data.path().join("run"), &sandbox).unwrap();
        let logs = Arc::clone(telemetry.logs());
        let blueprint = Blueprint {
            function_id: FunctionId::new(),
            function: "f".parse::<FunctionName>().unwrap(),
            version: "v1".parse::<VersionLabel>().unwrap(),
            environment: "production".parse::<EnvironmentName>().unwrap(),
            digest: Digest([0; 32]),
            bundle,
            entry: "index.js".into(),
            handler: "default".into(),
            memory_max: Arc::new(AtomicU64::new(u64::MAX)),
            compiled: Default::default(),
            network: SharedNetwork::new(Network::On),
            variables: levain::secrets::Variables::default(),
        };
        Self {
            spawner: Spawner::start(runtime, folder, logs, limits, sandbox).await.unwrap(),
            telemetry,
            blueprint,
            _data: data,
        }
    }

    async fn spawn(&self) -> Worker {
        self.spawner.spawn(&self.blueprint, ()).await.unwrap()
    }

    /// Log lines of the function so far, oldest first.
    fn lines(&self) -> Vec<LogRecord> {
        let query = LogQuery { limit: LogQuery::LIMIT_MAX, ..LogQuery::new(self.blueprint.function_id) };
        let page = self.telemetry.logs().query(&query).unwrap();
        page.entries.into_iter().rev().map(|entry| entry.record).collect()
    }

    async fn until_logged(&self, part: &str) -> LogRecord {
        until(part, || async { self.lines().into_iter().find(|line| line.message.contains(part)) }).await
    }

    async fn close(self) {
        self.spawner.kill_all();
        self.spawner.drained().await;
    }
}

/// A `GET` of this path.
fn get(path: &str) -> Invocation {
    Invocation {
        id: InvocationId::new(),
        method: Method::GET,
        target: path.parse().unwrap(),
        headers: HeaderMap::new(),
        body: RequestBody::default(),
        received: Instant::now(),
        timeout: Duration::from_secs(20),
    }
}

/// Invokes a worker as the scheduler does.
async fn call(worker: &Worker, invocation: &Invocation) -> Result<String, ExchangeError> {
    let mut answer = worker.exchange(invocation).await?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
    }
    worker.ended(invocation.id);
    Ok(String::from_utf8(body).unwrap())
}

/// Pings a worker and waits for its answer.
async fn until_it_answers(worker: &Worker) {
    worker.ping();
    until("the ping is answered", || async { worker.blocked_for(Instant::now()).is_none().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_while_invocations_wait_and_not_while_one_blocks_the_rest() {
    let workshop = Workshop::new(
        "import { existsSync } from 'node:fs';
         let open; const gate = new Promise((resolve) => (open = resolve));
         export default async (req) => {
             const path = new URL(req.url).pathname;
             if (path === '/open') open();
             if (path === '/wait') { console.log('it waits'); await gate; }
             if (path === '/block') { console.log('it blocks'); while (!existsSync('unblock')); }
             return new Response(path);
         }",
    )
    .await;
    let worker = workshop.spawn().await;
    assert_eq!(worker.blocked_for(Instant::now()), None, "no ping was sent");
    let (wait, block, open) = (get("/wait"), get("/block"), get("/open"));
    let folder = PathBuf::from(format!("/proc/{}/cwd", worker.pid()));
    let steer = async {
        workshop.until_logged("it waits").await;
        until_it_answers(&worker).await;
        let (blocked, unblock) = tokio::join!(call(&worker, &block), async {
            workshop.until_logged("it blocks").await;
            worker.ping();
            let moment = Duration::from_millis(100);
            until("the worker counts as blocked", || async {
                worker.blocked_for(Instant::now()).filter(|it| *it > moment)
            })
            .await;
            worker.ping();
            assert!(worker.blocked_for(Instant::now()).is_some_and(|it| it > moment), "a second ping is not sent");
            fs::write(folder.join("unblock"), "")
        });
        unblock.unwrap();
        assert_eq!(blocked.unwrap(), "/block");
        until("the ping is answered", || async { worker.blocked_for(Instant::now()).is_none().then_some(()) }).await;
        call(&worker, &open).await.unwrap()
    };
    let (waited, opened) = tokio::join!(call(&worker, &wait), steer);
    assert_eq!((waited.unwrap().as_str(), opened.as_str()), ("/wait", "/open"));
    workshop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pongs_that_nobody_asked_for_end_the_worker() {
    // A number that will be used, and some invalid ones.
    for numbers in ["[1]", "[-1]", "[1e400]", "['null']"] {
        let code = format!(
            r#"import {{ writeSync }} from "node:fs";
               export default async () => {{
                   for (const number of {numbers}) writeSync(0, `{{"type":"pong","number":${{number}}}}\n`);
                   await new Promise(() => {{}});
               }}"#
        );
        let workshop = Workshop::new(&code).await;
        let worker = workshop.spawn().await;
        let outcome = call(&worker, &get("/")).await;
        assert!(matches!(outcome, Err(ExchangeError::Broken(_))), "{numbers}: {outcome:?}");
        let reason = worker.exited().await.reason;
        let right = if numbers == "[1]" { Violation::PongUnasked } else { Violation::NoMessage };
        assert_eq!(reason, Some(KillReason::Protocol(right)), "{numbers}");
        worker.ping();
        assert!(worker.blocked_for(Instant::now()).is_some(), "an ended worker does not answer");
        workshop.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_invocations_that_run_beside_each_other_have_the_right_owner_or_none() {
    let workshop = Workshop::new(
        "const gates = new Map();
         export default async (req, ctx) => {
             const name = new URL(req.url).pathname.slice(1);
             if (name === 'open') { gates.forEach((open) => open()); return new Response(name); }
             console.log('console', ctx.invocationId);
             process.stdout.write(`raw ${ctx.invocationId}\\n`);
             await new Promise((resolve) => gates.set(name, resolve));
             setTimeout(() => { throw new Error('thrown ' + ctx.invocationId); }, 1);
             (async () => { await Bun.sleep(1); throw new Error('rejected ' + ctx.invocationId); })();
             await Bun.sleep(2);
             console.log('console', ctx.invocationId);
             return new Response(name);
         }",
    )
    .await;
    let worker = workshop.spawn().await;
    let (calls, open) = (["/a", "/b", "/c"].map(get), get("/open"));
    let all = futures_util::future::join_all(calls.iter().map(|invocation| call(&worker, invocation)));
    let steer = async {
        until("all wait", || async { (workshop.lines().len() >= 6).then_some(()) }).await;
        call(&worker, &open).await
    };
    let (answers, opened) = tokio::join!(all, steer);
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["a", "b", "c"]);
    opened.unwrap();
    let lines = until("all is logged", || async {
        let lines = workshop.lines();
        (lines.len() >= 15).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 15, "{lines:?}");
    // The first raw line may have been read before the second invocation began.
    let is_first = |line: &LogRecord| line.message.contains(&calls[0].id.to_string());
    for line in lines.iter().filter(|line| !(line.message.starts_with("raw") && is_first(line))) {
        let named = calls.iter().find(|it| line.message.contains(&it.id.to_string())).map(|it| it.id);
        let is_known = line.message.starts_with("console") || line.message.contains("thrown");
        assert_eq!(line.invocation, named.filter(|_| is_known), "{line:?}");
    }
    workshop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_known_of_each_worker_and_of_all_processes_as_last_read() {
    let code = "globalThis.kept = []; export default () => {
        kept.push(new Uint8Array(64 << 20).fill(1));
        return new Response('more');
    };";
    let workshop = Workshop::new(code).await;
    let spawner = &workshop.spawner;
    let (large, small) = tokio::join!(workshop.spawn(), workshop.spawn());
    spawner.prewarm(Network::On).await.unwrap();
    assert_eq!((large.memory_bytes(), spawner.measured_memory()), (0, 0), "the memory is not known yet");
    spawner.enforce_memory();
    let before = (large.memory_bytes(), small.memory_bytes(), spawner.measured_memory());
    assert!(before.0 > 0 && before.1 > 0 && before.2 > before.0 + before.1, "{before:?} and one that is prewarmed");
    call(&large, &get("/")).await.unwrap();
    assert_eq!(large.memory_bytes(), before.0, "reading the figure does not refresh it");
    spawner.enforce_memory();
    let grown = large.memory_bytes();
    assert!(grown > before.0 + (60 << 20), "{before:?} {grown}");
    assert!(spawner.measured_memory() > grown + small.memory_bytes());
    large.kill(KillReason::Stop);
    large.exited().await;
    spawner.enforce_memory();
    let left = spawner.measured_memory();
    assert!(left > small.memory_bytes() && left < grown, "{left} {grown}");
    assert_eq!(large.memory_bytes(), grown, "the last known memory");
    workshop.close().await;
}
