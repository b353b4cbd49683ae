//! Measures invocations of warm workers: latency, throughput, and the daemon's CPU time for each.

use crate::{
    Result,
    bun::{Bun, Process},
    daemon::{Daemon, IpcCaller, get, sample},
    floor::{Frames, Pair},
    http1::{Call, HttpCaller},
    load::{self, Caller, Load},
    report::Report,
    workerd::Workerd,
};
use bytes::Bytes;
use http::Method;
use levain::{
    model::SettingsPatch,
    protocol::{field::Body, message::InvokeRequest},
};
use std::{path::Path, time::Duration};
use tempfile::TempDir;

/// Number of times that the figures of a single caller take turns in one round: their wake-ups depend on which
/// processor each process happens to be on, which changes within seconds.
const TURNS: u32 = 4;

/// Number of bare Bun processes: one for each processor of the machine that the targets were set on.
const BARE_PROCESSES: usize = 2;

/// Number of workers that a user would choose for a function that computes: one for each of those processors, and one
/// that takes its request meanwhile.
const CPU_WORKERS: u32 = 3;

const ECHO_BYTES: usize = 1 << 20;

/// Callers of all kinds.
pub(crate) struct Warm {
    pair: [Pair; 1],
    frames: [Frames; 1],
    worker: [HttpCaller; 1],
    hello_1: Vec<IpcCaller>,
    hello_16: Vec<IpcCaller>,
    hello_64: Vec<IpcCaller>,
    hello_shared: Vec<IpcCaller>,
    hello_bare: Vec<HttpCaller>,
    cpu: Vec<IpcCaller>,
    cpu_few: Vec<IpcCaller>,
    cpu_bare: Vec<HttpCaller>,
    echo: Vec<IpcCaller>,
    echo_bare: Vec<HttpCaller>,
    _processes: Vec<Process>,
    _folder: TempDir,
}

impl Warm {
    pub(crate) async fn start(bun: &Bun, daemon: &Daemon) -> Result<Self> {
        let [hello, cpu, echo] = ["hello", "cpu", "echo"].map(sample);
        for (name, sample) in [("hello", &hello), ("cpu", &cpu), ("echo", &echo)] {
            daemon.deploy(name, sample).await?;
        }
        let few = SettingsPatch { max_concurrent_executions: Some(CPU_WORKERS), ..SettingsPatch::default() };
        daemon.deploy_with("cpu-few", &cpu, few).await?;
        let call_hello = get("hello");
        let call_cpu = InvokeRequest { path: Some("/?ms=1".into()), ..get("cpu") };
        let call_cpu_few = InvokeRequest { path: Some("/?ms=1".into()), ..get("cpu-few") };
        let body = Bytes::from(vec![b'x'; ECHO_BYTES]);
        let call_echo = InvokeRequest { body: Some(Body(body.clone())), ..get("echo") };
        let bare_echo = Call { method: Method::POST, target: "/".into(), body, answer_bytes_min: ECHO_BYTES as u64 };

        let sizes = daemon.sizes(&call_hello).await?;
        let folder = TempDir::new()?;
        let mut processes = vec![bun.worker(&hello).await?];
        let worker = [used(&processes[0], &Call::get("/")).await?];
        Ok(Self {
            pair: [Pair::start(sizes)?],
            frames: [Frames::start(sizes, &folder.path().join("s")).await?],
            worker,
            hello_1: daemon.callers(&call_hello, 1).await?,
            hello_16: daemon.callers(&call_hello, 16).await?,
            hello_64: daemon.callers(&call_hello, 64).await?,
            hello_shared: daemon.callers_on_one(&call_hello, 64).await?,
            hello_bare: bare(bun, &hello, &Call::get("/"), 64, &mut processes).await?,
            cpu: daemon.callers(&call_cpu, 16).await?,
            cpu_few: daemon.callers(&call_cpu_few, 16).await?,
            cpu_bare: bare(bun, &cpu, &Call::get("/?ms=1"), 16, &mut processes).await?,
            echo: daemon.callers(&call_echo, 4).await?,
            echo_bare: bare(bun, &echo, &bare_echo, 4, &mut processes).await?,
            _processes: processes,
            _folder: folder,
        })
    }

    /// Takes every figure once. Compared figures are taken next to each other.
    pub(crate) async fn round(
        &mut self,
        daemon: &Daemon,
        peer: Option<&Workerd>,
        slice: Duration,
        report: &mut Report,
    ) -> Result<()> {
        let pid = daemon.pid();
        self.single_caller(pid, peer, slice / 2, report).await?;

        let load = load::run(&mut self.hello_16, slice).await?;
        report.add("hello.16.p50", load.p50_us());
        report.add("hello.16.p99", load.p99_us());
        report.add("hello.16.rate", load.rate());

        let (load, cpu) = load::with_cpu(pid, &mut self.hello_64, slice).await?;
        report.add("hello.64.p50", load.p50_us());
        report.add("hello.64.p99", load.p99_us());
        report.add("hello.64.cpu", load.per_call_us(cpu));
        report.add("hello.64.rate", load.rate());
        report.add("bare.hello.rate", load::run(&mut self.hello_bare, slice).await?.rate());
        if let Some(peer) = peer {
            report.add("workerd.hello.rate", load::run(&mut peer.hello(64).await?, slice).await?.rate());
        }
        report.add("hello.shared.rate", load::run(&mut self.hello_shared, slice).await?.rate());

        let (load, cpu) = load::with_cpu(pid, &mut self.cpu, slice).await?;
        report.add("cpu.cpu", load.per_call_us(cpu));
        report.add("cpu.rate", load.rate());
        report.add("cpu.few.rate", load::run(&mut self.cpu_few, slice).await?.rate());
        report.add("bare.cpu.rate", load::run(&mut self.cpu_bare, slice).await?.rate());
        if let Some(peer) = peer {
            report.add("workerd.cpu.rate", load::run(&mut peer.cpu(16).await?, slice).await?.rate());
        }
        report.add("echo.rate", load::run(&mut self.echo, slice).await?.rate());
        report.add("bare.echo.rate", load::run(&mut self.echo_bare, slice).await?.rate());
        Ok(())
    }

    async fn single_caller(
        &mut self,
        pid: u32,
        peer: Option<&Workerd>,
        slice: Duration,
        report: &mut Report,
    ) -> Result<()> {
        let [mut pair, mut frames, mut worker, mut hello, mut peers] = [const { Vec::new() }; 5];
        let mut cpu = Duration::ZERO;
        for _ in 0..TURNS {
            pair.push(load::run(&mut self.pair, slice).await?);
            frames.push(load::run(&mut self.frames, slice).await?);
            worker.push(load::run(&mut self.worker, slice).await?);
            let (load, added) = load::with_cpu(pid, &mut self.hello_1, slice).await?;
            hello.push(load);
            cpu += added;
            if let Some(peer) = peer {
                peers.push(load::run(&mut peer.hello(1).await?, slice).await?);
            }
        }
        let [pair, frames, worker, hello] = [pair, frames, worker, hello].map(Load::joined);
        report.add("floor.pair.p50", pair.p50_us());
        report.add("floor.frames.p50", frames.p50_us());
        report.add("floor.worker.p50", worker.p50_us());
        report.add("hello.1.p50", hello.p50_us());
        report.add("hello.1.p99", hello.p99_us());
        report.add("hello.1.cpu", hello.per_call_us(cpu));
        if peer.is_some() {
            report.add("workerd.hello.p50", Load::joined(peers).p50_us());
        }
        Ok(())
    }
}

/// Returns a caller that has called once: Bun closes connections that were never used after twelve seconds, regardless
/// of `idleTimeout`, and it may take longer until all is set up.
async fn used(process: &Process, call: &Call) -> Result<HttpCaller> {
    let mut caller = process.caller(call.clone()).await?;
    caller.call().await?;
    Ok(caller)
}

/// Returns callers of bare Bun processes, an equal number for each.
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
            callers.push(used(&process, call).await?);
        }
        processes.push(process);
    }
    Ok(callers)
}
