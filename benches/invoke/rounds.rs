//! What is measured, in which order.

use crate::{
    Result,
    bun::{Bun, Call, HttpCaller, Process},
    daemon::{Daemon, IpcCaller, get, sample},
    floor::{Frames, Pair},
    load::{self, Caller, Load},
    process::{self, CpuTime},
    report::Report,
};
use bytes::Bytes;
use http::Method;
use levain::{
    model::ColdStart,
    protocol::{field::Body, message::InvokeRequest},
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How much is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// How long one figure is measured in one round; those of a single caller, which take turns, twice as long.
    pub(crate) slice: Duration,
    /// Cold starts of either kind in one round.
    colds: usize,
    /// Functions whose deployment the daemon's memory is measured with.
    pub(crate) functions: usize,
}

impl Plan {
    pub(crate) const FULL: Self = Self { rounds: 8, slice: Duration::from_millis(500), colds: 10, functions: 2_000 };
    pub(crate) const QUICK: Self = Self { rounds: 3, slice: Duration::from_millis(120), colds: 5, functions: 200 };
}

/// How long a process is left alone before its memory is looked at.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Workers whose memory is looked at.
const WORKERS_LOOKED_AT: usize = 5;

/// How often the figures of a single caller take turns in one round: their wake-ups depend on which processor each
/// process happens to be on, which changes within seconds.
const TURNS: u32 = 4;

/// Bare Bun processes: one for each processor of the machine that the targets were set on.
const BARE_PROCESSES: usize = 2;

const ECHO_BYTES: usize = 1 << 20;

/// Processes that wait for a function, as by default.
const PREWARMED: u32 = 2;

/// Measures everything.
pub(crate) async fn run(plan: &Plan) -> Result<Report> {
    let bun = Bun::prepare().await?;
    let mut report = Report::default();
    report.set_conditions(plan, bun.version());
    eprintln!("starting two daemons, floors and bare Bun processes");
    let mut setup = Setup::start(&bun, plan).await?;
    for round in 0..=plan.rounds {
        match round {
            0 => eprintln!("a round that does not count, for everything to get warm"),
            round => eprintln!("round {round} of {}", plan.rounds),
        }
        if round == 1 {
            report.clear();
        }
        setup.round(plan, &mut report).await?;
    }
    drop(setup);
    eprintln!("memory, with {} functions", plan.functions);
    memory(&bun, plan, &mut report).await?;
    Ok(report)
}

/// Everything that runs while the rounds are taken.
struct Setup<'a> {
    bun: &'a Bun,
    daemon: Daemon,
    /// One that has no prewarmed processes.
    spawning: Daemon,
    /// Functions that were never called.
    cold: Vec<String>,
    hello: PathBuf,
    pair: [Pair; 1],
    frames: [Frames; 1],
    worker: [HttpCaller; 1],
    hello_1: Vec<IpcCaller>,
    hello_16: Vec<IpcCaller>,
    hello_64: Vec<IpcCaller>,
    hello_shared: Vec<IpcCaller>,
    hello_bare: Vec<HttpCaller>,
    cpu: Vec<IpcCaller>,
    cpu_bare: Vec<HttpCaller>,
    echo: Vec<IpcCaller>,
    echo_bare: Vec<HttpCaller>,
    _processes: Vec<Process>,
    _folder: TempDir,
}

impl<'a> Setup<'a> {
    async fn start(bun: &'a Bun, plan: &Plan) -> Result<Self> {
        let daemon = Daemon::start(bun.path(), PREWARMED).await?;
        let spawning = Daemon::start(bun.path(), 0).await?;
        let [hello, cpu, echo] = ["hello", "cpu", "echo"].map(sample);
        for (name, sample) in [("hello", &hello), ("cpu", &cpu), ("echo", &echo)] {
            daemon.deploy(name, sample).await?;
        }
        let cold: Vec<String> = (0..(plan.rounds + 1) * plan.colds).map(|number| format!("cold-{number}")).collect();
        daemon.deploy_all(&cold, &hello).await?;
        spawning.deploy_all(&cold, &hello).await?;

        let call_hello = get("hello");
        let call_cpu = InvokeRequest { path: Some("/?ms=1".into()), ..get("cpu") };
        let body = Bytes::from(vec![b'x'; ECHO_BYTES]);
        let call_echo = InvokeRequest { body: Some(Body(body.clone())), ..get("echo") };
        let bare_get = |target| Call { method: Method::GET, target, body: Bytes::new(), answer_bytes_min: 2 };
        let bare_echo = Call { method: Method::POST, target: "/", body, answer_bytes_min: ECHO_BYTES as u64 };

        let sizes = daemon.sizes(&call_hello).await?;
        let folder = TempDir::new()?;
        let mut processes = vec![bun.worker(&hello).await?];
        let worker = [processes[0].caller(bare_get("/")).await?];
        Ok(Self {
            bun,
            cold,
            pair: [Pair::start(sizes)?],
            frames: [Frames::start(sizes, &folder.path().join("s")).await?],
            worker,
            hello_1: daemon.callers(&call_hello, 1).await?,
            hello_16: daemon.callers(&call_hello, 16).await?,
            hello_64: daemon.callers(&call_hello, 64).await?,
            hello_shared: daemon.callers_on_one(&call_hello, 64).await?,
            hello_bare: bare(bun, &hello, &bare_get("/"), 64, &mut processes).await?,
            cpu: daemon.callers(&call_cpu, 16).await?,
            cpu_bare: bare(bun, &cpu, &bare_get("/?ms=1"), 16, &mut processes).await?,
            echo: daemon.callers(&call_echo, 4).await?,
            echo_bare: bare(bun, &echo, &bare_echo, 4, &mut processes).await?,
            hello,
            daemon,
            spawning,
            _processes: processes,
            _folder: folder,
        })
    }

    /// Takes every figure once. What is compared stands side by side.
    async fn round(&mut self, plan: &Plan, report: &mut Report) -> Result<()> {
        let (pid, slice) = (self.daemon.pid(), plan.slice);
        self.single_caller(slice / 2, report).await?;

        let load = load::run(&mut self.hello_16, slice).await?;
        report.add("hello.16.p50", load.p50_us());
        report.add("hello.16.p99", load.p99_us());
        report.add("hello.16.rate", load.rate());

        let before = CpuTime::of(pid)?;
        let load = load::run(&mut self.hello_64, slice).await?;
        let cpu = CpuTime::of(pid)?.since(&before);
        report.add("hello.64.p50", load.p50_us());
        report.add("hello.64.p99", load.p99_us());
        report.add("hello.64.cpu", per_call_us(cpu, &load));
        report.add("hello.64.rate", load.rate());
        report.add("bare.hello.rate", load::run(&mut self.hello_bare, slice).await?.rate());
        report.add("hello.shared.rate", load::run(&mut self.hello_shared, slice).await?.rate());

        let before = CpuTime::of(pid)?;
        let load = load::run(&mut self.cpu, slice).await?;
        let cpu = CpuTime::of(pid)?.since(&before);
        report.add("cpu.cpu", per_call_us(cpu, &load));
        report.add("cpu.rate", load.rate());
        report.add("bare.cpu.rate", load::run(&mut self.cpu_bare, slice).await?.rate());
        report.add("echo.rate", load::run(&mut self.echo, slice).await?.rate());
        report.add("bare.echo.rate", load::run(&mut self.echo_bare, slice).await?.rate());
        self.cold_starts(plan.colds, report).await
    }

    async fn single_caller(&mut self, slice: Duration, report: &mut Report) -> Result<()> {
        let pid = self.daemon.pid();
        let [mut pair, mut frames, mut worker, mut hello] = [const { Vec::new() }; 4];
        let mut cpu = Duration::ZERO;
        for _ in 0..TURNS {
            pair.push(load::run(&mut self.pair, slice).await?);
            frames.push(load::run(&mut self.frames, slice).await?);
            worker.push(load::run(&mut self.worker, slice).await?);
            let before = CpuTime::of(pid)?;
            hello.push(load::run(&mut self.hello_1, slice).await?);
            cpu += CpuTime::of(pid)?.since(&before);
        }
        let [pair, frames, worker, hello] = [pair, frames, worker, hello].map(Load::joined);
        report.add("floor.pair.p50", pair.p50_us());
        report.add("floor.frames.p50", frames.p50_us());
        report.add("floor.worker.p50", worker.p50_us());
        report.add("hello.1.p50", hello.p50_us());
        report.add("hello.1.p99", hello.p99_us());
        report.add("hello.1.cpu", per_call_us(cpu, &hello));
        Ok(())
    }

    async fn cold_starts(&mut self, count: usize, report: &mut Report) -> Result<()> {
        let (mut claimed, mut spawned, mut direct) = (Vec::new(), Vec::new(), Vec::new());
        for name in self.cold.drain(..count.min(self.cold.len())) {
            self.daemon.until_prewarmed(PREWARMED).await?;
            claimed.push(self.daemon.call_cold(&name, ColdStart::Prewarmed).await?);
            self.daemon.delete(&name).await?;
            self.daemon.until_prewarmed(PREWARMED).await?;

            spawned.push(self.spawning.call_cold(&name, ColdStart::Spawned).await?);
            self.spawning.delete(&name).await?;

            let began = Instant::now();
            let worker = self.bun.worker(&self.hello).await?;
            let call = Call { method: Method::GET, target: "/", body: Bytes::new(), answer_bytes_min: 2 };
            worker.caller(call).await?.call().await?;
            direct.push(began.elapsed());
        }
        for (id, times) in [("cold.claimed.p50", claimed), ("cold.spawned.p50", spawned), ("floor.cold.p50", direct)] {
            report.add(id, Load::new(times, Duration::ZERO).p50_us() / 1e3);
        }
        Ok(())
    }
}

/// Callers of bare Bun processes, an equal number for each.
async fn bare(
    bun: &Bun,
    entry: &Path,
    call: &Call,
    count: usize,
    processes: &mut Vec<Process>,
) -> Result<Vec<HttpCaller>> {
    let mut callers = Vec::new();
    for _ in 0..BARE_PROCESSES {
        let process = bun.bare(entry).await?;
        for _ in 0..count / BARE_PROCESSES {
            callers.push(process.caller(call.clone()).await?);
        }
        processes.push(process);
    }
    Ok(callers)
}

fn per_call_us(cpu: Duration, load: &Load) -> f64 {
    cpu.as_secs_f64() * 1e6 / load.calls() as f64
}

/// A daemon that nobody calls: as it starts, with many functions, and what a worker adds.
async fn memory(bun: &Bun, plan: &Plan, report: &mut Report) -> Result<()> {
    let daemon = Daemon::start(bun.path(), PREWARMED).await?;
    tokio::time::sleep(SETTLE_TIME).await;
    report.add("memory.empty", process::private_mib(daemon.pid())?);

    let names: Vec<String> = (0..plan.functions).map(|number| format!("hello-{number}")).collect();
    let began = Instant::now();
    daemon.deploy_all(&names, &sample("hello")).await?;
    report.add("memory.deploys", names.len() as f64 / began.elapsed().as_secs_f64());
    tokio::time::sleep(SETTLE_TIME).await;
    report.add("memory.deployed", process::private_mib(daemon.pid())?);

    for name in &names[..WORKERS_LOOKED_AT] {
        daemon.warm(name).await?;
        daemon.callers(&get(name), 1).await?.remove(0).call().await?;
    }
    tokio::time::sleep(SETTLE_TIME).await;
    for pid in daemon.workers()? {
        report.add("memory.worker", process::private_mib(pid)?);
    }
    Ok(())
}
