//! The parts of an invocation and of a deployment by themselves, without a process or a socket.
//!
//! `cargo bench --bench micro` runs all; with `-- pool` only the benchmarks whose name has `pool` in it.

#![allow(missing_docs, reason = "criterion_group makes undocumented functions")]

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use levain::{
    model::{
        AliasName, ColdStart, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, Digest, EnvironmentName,
        Function, FunctionId, FunctionStatus, InvocationId, Percent, Settings, Split, Timestamp, Timing, Version,
        VersionId, VersionSource, WorkerId,
    },
    protocol::{
        field::{Body, Fields},
        frame,
        ipc::{CommandRequest, Encoding, Request},
        message::{InvokeRequest, InvokeResponse},
        worker::LogLevel,
    },
    router::{Alias, Entry, Router},
    scheduler::pool::{Action, Event, Limits, Pool},
    store::{DeploymentCommit, Store, Target},
    telemetry::{LogOptions, LogRecord, Observation, Stream, Telemetry},
};
use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const FRAME_BYTES_MAX: usize = 16 << 20;

/// Reason in every `expect` on a parsed constant.
const VALID: &str = "a valid constant";

const WARM: Timing = Timing {
    queue: Duration::from_micros(3),
    start: Duration::ZERO,
    run: Duration::from_micros(40),
    cold_start: ColdStart::None,
};

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for (name, bytes) in [("300 B", 300), ("64 KiB", 64 << 10)] {
        let payload = vec![7; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut out = BytesMut::new();
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                frame::encode(1, 0, black_box(&payload), &mut out);
            });
        });
        let encoded = out.freeze();
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            let input = || BytesMut::from(&encoded[..]);
            bencher.iter_batched_ref(input, |it| frame::decode(it, FRAME_BYTES_MAX), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// An invocation with the usual headers and a small body.
fn invoke_request() -> InvokeRequest {
    let fields =
        |pairs: &[(&str, &str)]| Fields(pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect());
    InvokeRequest {
        function_id: "hello".into(),
        method: Some("POST".into()),
        path: Some("/greet".into()),
        headers: Some(fields(&[("content-type", "application/json"), ("accept", "*/*"), ("user-agent", "bench/1")])),
        query: Some(fields(&[("name", "world")])),
        body: Some(Body::from(br#"{"message":"hello"}"#.to_vec())),
        ..InvokeRequest::default()
    }
}

fn invoke_response() -> InvokeResponse {
    let headers = [
        ("content-type", "application/json;charset=utf-8"),
        ("date", "Sat, 01 Jan 2000 00:00:00 GMT"),
        ("content-length", "92"),
    ];
    InvokeResponse {
        success: true,
        status: 200,
        headers: Fields(headers.map(|(name, value)| (name.into(), value.into())).into()),
        body: Body(Bytes::from(vec![b'x'; 92])),
        execution_time_ms: 0.051,
        execution_id: InvocationId::new(),
        version: "v1".parse().expect("valid"),
        cold_start: ColdStart::None,
        queue_ms: 0.001,
        start_ms: 0.0,
        error: None,
        code: None,
        details: None,
    }
}

fn payloads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("payload");
    for (name, encoding) in [("JSON", Encoding::Json), ("MessagePack", Encoding::MessagePack)] {
        let payload = encoding.write(&invoke_request()).expect("plain data");
        group.bench_function(BenchmarkId::new("read INVOKE", name), |bencher| {
            bencher.iter(|| Request::decode(InvokeRequest::COMMAND, black_box(&payload)));
        });
        let response = invoke_response();
        group.bench_function(BenchmarkId::new("write its answer", name), |bencher| {
            bencher.iter(|| encoding.write(black_box(&response)));
        });
    }
    group.finish();
}

/// A pool and its actions. The vector is reused, as the scheduler reuses its own.
struct Bench {
    pool: Pool,
    now: Instant,
    actions: Vec<Action>,
}

impl Bench {
    /// Creates a pool with this many idle workers, each with this concurrency.
    fn warm(workers: usize, concurrency: usize) -> Self {
        let limits = Limits {
            workers_max: workers,
            concurrency,
            executions_max: workers * concurrency,
            queue_max: 128,
            workers_min: 0,
            idle_timeout: Duration::from_secs(300),
            requests_max: 0,
            age_max: Duration::ZERO,
        };
        let mut bench = Self { pool: Pool::new(limits), now: Instant::now(), actions: Vec::new() };
        bench.handle(Event::Warm(workers));
        for worker in (1..=workers as u64).map(WorkerId) {
            bench.handle(Event::Granted(worker));
            bench.handle(Event::Ready(worker));
        }
        assert_eq!(bench.pool.counts().idle, workers, "all are ready");
        bench
    }

    /// Handles an event and returns the actions.
    fn handle(&mut self, event: Event) -> &[Action] {
        self.actions.clear();
        self.pool.handle(event, self.now, &mut self.actions);
        &self.actions
    }

    fn invoke(&mut self, invocation: InvocationId) -> WorkerId {
        dispatched(self.handle(Event::Invoke(invocation)))
    }
}

fn dispatched(actions: &[Action]) -> WorkerId {
    match actions {
        [Action::Dispatch { worker, .. }] => *worker,
        other => panic!("a worker with room takes the call, and nothing else happens: {other:?}"),
    }
}

fn pools(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool");
    let invocation = InvocationId::new();
    for workers in [1, 10, 100] {
        let mut bench = Bench::warm(workers, 1);
        group.bench_function(BenchmarkId::new("take a worker and give it back, of", workers), |bencher| {
            bencher.iter(|| {
                let worker = bench.invoke(black_box(invocation));
                bench.handle(Event::Release(worker)).len()
            });
        });
    }
    // All workers are busy, and each has room for another.
    for workers in [1, 10, 100] {
        let mut bench = Bench::warm(workers, 2);
        for _ in 0..workers {
            bench.invoke(InvocationId::new());
        }
        group.bench_function(
            BenchmarkId::new("take a slot of a busy worker and give it back, of", workers),
            |bencher| {
                bencher.iter(|| {
                    let worker = bench.invoke(black_box(invocation));
                    bench.handle(Event::Release(worker)).len()
                });
            },
        );
    }
    // All workers are busy and callers wait: a release hands the worker to the first caller.
    let mut bench = Bench::warm(10, 1);
    let mut busy: Vec<WorkerId> = (0..10).map(|_| bench.invoke(InvocationId::new())).collect();
    for _ in 0..54 {
        bench.handle(Event::Invoke(InvocationId::new()));
    }
    group.bench_function("a busy worker to the next of 54 waiting, and one more waits", |bencher| {
        bencher.iter(|| {
            busy[0] = dispatched(bench.handle(Event::Release(busy[0])));
            bench.handle(Event::Invoke(black_box(invocation))).len()
        });
    });
    group.finish();
}

fn function(name: &str) -> Function {
    let now = Timestamp::now();
    Function {
        id: FunctionId::new(),
        name: name.parse().expect(VALID),
        runtime: "bun".into(),
        handler: "default".into(),
        status: FunctionStatus::Registered,
        settings: Settings::default(),
        created_at: now,
        updated_at: now,
    }
}

fn version(function_id: FunctionId, number: u32) -> Version {
    Version {
        id: VersionId::new(),
        function_id,
        label: format!("v{number}").parse().expect(VALID),
        number,
        digest: Digest([7; 32]),
        size: 300,
        entry: "index.ts".into(),
        source: VersionSource::Upload,
        git_commit: None,
        git_branch: None,
        description: None,
        tags: Vec::new(),
        bun_version: "1.4.5".into(),
        settings: Settings::default(),
        created_at: Timestamp::now(),
    }
}

/// A function with five versions; the last is live.
fn entry(name: &str) -> Entry {
    let function = function(name);
    let versions: Vec<_> = (1..=5).rev().map(|number| Arc::new(version(function.id, number))).collect();
    let live = Alias {
        name: AliasName::live(),
        environment: EnvironmentName::production(),
        version: versions[0].id,
        split: None,
        sticky: None,
        guard: None,
        went_back_at: None,
        rollout: None,
    };
    Entry { function, versions: versions.into_iter().collect(), aliases: vec![live], approved: None }
}

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router");
    for functions in [10, 2_000] {
        let mut entries: Vec<_> = (0..functions).map(|number| entry(&format!("function-{number}"))).collect();
        let second = entries[8].versions[1].id;
        entries[8].aliases[0].split = Percent::try_from(10).ok().map(|weight| Split { version_id: second, weight });
        let (changed, id) = (entries[7].clone(), entries[7].function.id.to_string());
        let router = Router::new(entries);
        group.bench_function(BenchmarkId::new("resolve a name, of", functions), |bencher| {
            bencher.iter(|| router.resolve(black_box("function-7"), None));
        });
        group.bench_function(BenchmarkId::new("resolve an id, of", functions), |bencher| {
            bencher.iter(|| router.resolve(black_box(&id), None));
        });
        group.bench_function(BenchmarkId::new("route a call of a divided alias, of", functions), |bencher| {
            bencher.iter(|| router.route::<Fields>(black_box("function-8"), None, None));
        });
        group.bench_function(BenchmarkId::new("take in a change, of", functions), |bencher| {
            bencher.iter_batched(|| changed.clone(), |entry| router.put(entry), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Measures the commit of a version's deployment on disk.
fn stores(criterion: &mut Criterion) {
    let folder = TempDir::new().expect("a folder");
    let store = Store::open(&folder.path().join("levain.db")).expect("a new database");
    let function = function("hello");
    store.insert_function(&function).expect("its name is free");
    let mut number = 0;
    let mut next = || {
        number += 1;
        let version = version(function.id, number);
        let deployment = Deployment {
            id: DeploymentId::new(),
            function_id: function.id,
            label: version.label.clone(),
            number: Some(number),
            alias: AliasName::live(),
            environment: EnvironmentName::production(),
            kind: DeploymentKind::Deploy,
            status: DeploymentStatus::Active,
            weight: None,
            previous: None,
            actor: "uid:0".into(),
            reason: None,
            build_log: None,
            created_at: version.created_at,
            finished_at: version.created_at,
            decision: None,
        };
        (version, deployment)
    };
    let mut group = criterion.benchmark_group("store");
    group.sample_size(20);
    group.bench_function("commit a deployment", |bencher| {
        bencher.iter_batched(
            &mut next,
            |(version, deployment)| {
                let commit = DeploymentCommit { target: Target::New(&version), deployment: &deployment };
                store.commit_deployment(&commit).expect("numbers rise");
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Lines pushed between two flushes: fewer than the queue takes, so that lines are not dropped, which would be cheaper.
const LINES: u64 = 5_000;

fn telemetry(criterion: &mut Criterion) {
    let folder = TempDir::new().expect("a folder");
    let telemetry = Telemetry::open(&folder.path().join("logs.db"), LogOptions::default()).expect("a new database");
    let version = version(FunctionId::new(), 1);
    let at = Timestamp::now();

    let observation = Observation {
        function_id: version.function_id,
        version_id: version.id,
        version: &version.label,
        outcome: Ok(200),
        timing: WARM,
        at,
    };
    criterion.bench_function("metrics/record a call", |bencher| {
        bencher.iter(|| telemetry.metrics().record(black_box(&observation)));
    });

    let record = LogRecord {
        at,
        function_id: version.function_id,
        version: version.label.clone(),
        invocation: Some(InvocationId::new()),
        worker: 1,
        stream: Stream::Console,
        level: LogLevel::Info,
        message: "the order 4711 was taken and its receipt is on the way".into(),
    };
    let logs = telemetry.logs();
    let mut group = criterion.benchmark_group("logs");
    // The writer takes a hundred times as long for a line as the push does; the wait for it is outside the measured
    // time.
    group.sample_size(10).warm_up_time(Duration::from_millis(2)).measurement_time(Duration::from_millis(20));
    group.bench_function("push a line", |bencher| {
        bencher.iter_custom(|mut left| {
            let mut time = Duration::ZERO;
            while left > 0 {
                let lines = vec![record.clone(); left.min(LINES) as usize];
                left -= lines.len() as u64;
                let began = Instant::now();
                lines.into_iter().for_each(|line| logs.push(line));
                time += began.elapsed();
                assert!(logs.flush(), "the writer keeps up");
            }
            time
        });
    });
    group.finish();
    assert_eq!(logs.dropped_total(), 0, "a dropped line is cheaper than a kept one");
}

criterion_group!(benches, frames, payloads, pools, routes, stores, telemetry);
criterion_main!(benches);
