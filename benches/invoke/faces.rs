//! Compares one invocation over HTTP and over the command socket.
//!
//! Each caller waits on the sockets of its own face: TCP on loopback, or Unix. The HTTP caller does less than a real
//! client; the command socket's caller is the real client. The daemon's CPU time per invocation depends on neither.

use crate::{
    Result,
    daemon::{Daemon, IpcCaller, get, sample},
    http1::{Call, HttpCaller},
    load::{self, Load},
    report::Report,
    workerd::Workerd,
};
use std::time::Duration;

const FUNCTION: &str = "faces";

/// Number of times that the figures of a single caller take turns in one round.
const TURNS: u32 = 4;

/// Callers of one function, over both faces.
pub(crate) struct Faces {
    ipc_1: Vec<IpcCaller>,
    ipc_64: Vec<IpcCaller>,
    http_1: Vec<HttpCaller>,
    http_64: Vec<HttpCaller>,
}

impl Faces {
    pub(crate) async fn start(daemon: &Daemon) -> Result<Self> {
        daemon.deploy(FUNCTION, &sample("hello")).await?;
        Ok(Self {
            ipc_1: daemon.callers(&get(FUNCTION), 1).await?,
            ipc_64: daemon.callers(&get(FUNCTION), 64).await?,
            http_1: over_http(daemon, 1).await?,
            http_64: over_http(daemon, 64).await?,
        })
    }

    pub(crate) async fn round(
        &mut self,
        daemon: &Daemon,
        peer: Option<&Workerd>,
        slice: Duration,
        report: &mut Report,
    ) -> Result<()> {
        let pid = daemon.pid();
        let [mut ipc, mut http, mut peers] = [const { Vec::new() }; 3];
        let [mut ipc_cpu, mut http_cpu] = [Duration::ZERO; 2];
        for _ in 0..TURNS {
            let (load, cpu) = load::with_cpu(pid, &mut self.ipc_1, slice / 2).await?;
            ipc.push(load);
            ipc_cpu += cpu;
            let (load, cpu) = load::with_cpu(pid, &mut self.http_1, slice / 2).await?;
            http.push(load);
            http_cpu += cpu;
            if let Some(peer) = peer {
                peers.push(load::run(&mut peer.hello_over_tcp(1).await?, slice / 2).await?);
            }
        }
        let [ipc, http] = [ipc, http].map(Load::joined);
        report.add("ipc.1.p50", ipc.p50_us());
        report.add("http.1.p50", http.p50_us());
        report.add("ipc.1.cpu", ipc.per_call_us(ipc_cpu));
        report.add("http.1.cpu", http.per_call_us(http_cpu));
        let (load, cpu) = load::with_cpu(pid, &mut self.ipc_64, slice).await?;
        report.add("ipc.64.p50", load.p50_us());
        report.add("ipc.64.cpu", load.per_call_us(cpu));
        report.add("ipc.64.rate", load.rate());
        let (load, cpu) = load::with_cpu(pid, &mut self.http_64, slice).await?;
        report.add("http.64.p50", load.p50_us());
        report.add("http.64.cpu", load.per_call_us(cpu));
        report.add("http.64.rate", load.rate());
        if let Some(peer) = peer {
            report.add("workerd.http.1.p50", Load::joined(peers).p50_us());
            report.add("workerd.http.64.rate", load::run(&mut peer.hello_over_tcp(64).await?, slice).await?.rate());
        }
        Ok(())
    }
}

async fn over_http(daemon: &Daemon, count: usize) -> Result<Vec<HttpCaller>> {
    let call = Call::get(format!("/functions/{FUNCTION}"));
    let mut callers = Vec::new();
    for _ in 0..count {
        callers.push(HttpCaller::connect_tcp(daemon.http(), &call).await?);
    }
    Ok(callers)
}
