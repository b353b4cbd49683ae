//! Measures the cost of isolation: a daemon with its sandbox and one without, and the start of a worker from a process
//! with much memory of its own.

use crate::{
    Result,
    bun::Bun,
    daemon::{Daemon, IpcCaller, get, sample},
    load::{self, Load},
    report::Report,
    rounds::{PREWARMED, Plan},
};
use levain::{
    config::{SandboxLevel, SandboxMode},
    model::{ColdStart, Digest, FunctionId, Network},
    telemetry::{LogOptions, Telemetry},
    worker::{Blueprint, BunRuntime, RunFolder, SandboxOptions, SharedNetwork, SpawnLimits, Spawner},
};
use std::{
    hint::black_box,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Memory written to by the starting process.
const BALLAST_BYTES: usize = 500 << 20;

/// Number of times that the callers of the two daemons take turns in one round.
const TURNS: u32 = 4;

/// Daemons with and without isolation of functions, and workers of this process.
pub(crate) struct Sandbox {
    isolated: Pair,
    open: Pair,
    names: Vec<String>,
    calls: usize,
    spawner: Spawner,
    blueprint: Blueprint,
    _telemetry: Telemetry,
    _folder: TempDir,
}

/// One daemon that starts a worker on an invocation, and one with prewarmed processes.
struct Pair {
    spawning: Daemon,
    claiming: Daemon,
    hello: Vec<IpcCaller>,
}

impl Pair {
    async fn start(bun: &Bun, sandbox: SandboxMode, names: &[String]) -> Result<Self> {
        let hello = sample("hello");
        let spawning = Daemon::start_with(bun.path(), 0, sandbox).await?;
        let claiming = Daemon::start_with(bun.path(), PREWARMED, sandbox).await?;
        spawning.deploy_all(names, &hello).await?;
        claiming.deploy_all(names, &hello).await?;
        claiming.deploy("hello", &hello).await?;
        let callers = claiming.callers(&get("hello"), 1).await?;
        Ok(Self { spawning, claiming, hello: callers })
    }

    async fn spawned(&self, name: &str) -> Result<Duration> {
        let took = self.spawning.call_cold(name, ColdStart::Spawned).await?;
        self.spawning.delete(name).await?;
        Ok(took)
    }

    async fn claimed(&self, name: &str) -> Result<Duration> {
        self.claiming.until_prewarmed(PREWARMED).await?;
        let took = self.claiming.call_cold(name, ColdStart::Prewarmed).await?;
        self.claiming.delete(name).await?;
        self.claiming.until_prewarmed(PREWARMED).await?;
        Ok(took)
    }
}

impl Sandbox {
    pub(crate) async fn start(bun: &Bun, plan: &Plan) -> Result<Self> {
        let names: Vec<String> = (0..(plan.rounds + 1) * plan.colds).map(|number| format!("cold-{number}")).collect();
        let (isolated, open) =
            (Pair::start(bun, SandboxMode::Auto, &names).await?, Pair::start(bun, SandboxMode::Off, &names).await?);
        let folder = TempDir::new()?;
        let telemetry = Telemetry::open(&folder.path().join("logs.db"), LogOptions::default())?;
        let limits = SpawnLimits {
            start_timeout: Duration::from_secs(20),
            line_bytes_max: 16 << 10,
            lines_per_second_max: 1_000,
            prewarmed_workers: 0,
        };
        let options = SandboxOptions {
            mode: SandboxMode::Auto,
            level: SandboxLevel::Auto,
            processes_max: 256,
            open_files_max: 1_024,
            tmp_mb: 64,
        };
        let runtime: BunRuntime = bun.runtime().clone();
        let logs = Arc::clone(telemetry.logs());
        let run_folder = RunFolder::clear(&folder.path().join("run"), &options)?;
        let spawner = Spawner::start(runtime, run_folder, logs, limits, options).await?;
        let hello = sample("hello");
        let blueprint = Blueprint {
            function_id: FunctionId::new(),
            function: "hello".parse()?,
            version: "v1".parse()?,
            environment: "production".parse()?,
            digest: Digest([0; 32]),
            bundle: hello.parent().unwrap_or(&hello).to_owned(),
            entry: "index.ts".into(),
            compiled: Default::default(),
            handler: "default".into(),
            memory_max: Arc::new(AtomicU64::new(u64::MAX)),
            network: SharedNetwork::new(Network::On),
            variables: levain::secrets::Variables::default(),
        };
        Ok(Self {
            isolated,
            open,
            names,
            calls: plan.colds,
            spawner,
            blueprint,
            _telemetry: telemetry,
            _folder: folder,
        })
    }

    pub(crate) async fn round(&mut self, slice: Duration, report: &mut Report) -> Result<()> {
        let [mut spawned, mut spawned_open, mut claimed, mut claimed_open] = [const { Vec::new() }; 4];
        for name in self.names.drain(..self.calls.min(self.names.len())) {
            spawned.push(self.isolated.spawned(&name).await?);
            spawned_open.push(self.open.spawned(&name).await?);
            claimed.push(self.isolated.claimed(&name).await?);
            claimed_open.push(self.open.claimed(&name).await?);
        }
        report.add("sandbox.spawned.p50", p50_ms(spawned));
        report.add("open.spawned.p50", p50_ms(spawned_open));
        report.add("sandbox.claimed.p50", p50_ms(claimed));
        report.add("open.claimed.p50", p50_ms(claimed_open));

        let [mut warm, mut warm_open] = [const { Vec::new() }; 2];
        for _ in 0..TURNS {
            warm.push(load::run(&mut self.isolated.hello, slice / 2).await?);
            warm_open.push(load::run(&mut self.open.hello, slice / 2).await?);
        }
        report.add("sandbox.hello.p50", Load::joined(warm).p50_us());
        report.add("open.hello.p50", Load::joined(warm_open).p50_us());

        report.add("small.spawned.p50", self.spawn_some().await?);
        let ballast = black_box(vec![1_u8; BALLAST_BYTES]);
        report.add("large.spawned.p50", self.spawn_some().await?);
        drop(black_box(ballast));
        Ok(())
    }

    /// Starts workers one after the other from this process, and returns the median time in milliseconds.
    async fn spawn_some(&self) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..self.calls {
            let began = Instant::now();
            let worker = self.spawner.spawn(&self.blueprint, ()).await?;
            times.push(began.elapsed());
            worker.kill(levain::worker::KillReason::Stop);
            worker.exited().await;
        }
        Ok(p50_ms(times))
    }
}

fn p50_ms(times: Vec<Duration>) -> f64 {
    Load::new(times, Duration::ZERO).p50_us() / 1e3
}
