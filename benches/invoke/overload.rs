//! Measures an overload: three times as many callers as a function has places for, workers and queue together.
//!
//! A refused caller tries again far sooner than it is told to: the daemon has to protect itself and the callers it has
//! accepted.

use crate::{
    Result,
    daemon::{Daemon, IpcCaller, get, sample},
    load::{self, Load},
    process,
    report::Report,
};
use futures_util::future::try_join_all;
use levain::{error::ErrorCode, model::SettingsPatch, protocol::message::InvokeRequest};
use std::time::{Duration, Instant};

const WORKERS: u32 = 4;
const QUEUE: u32 = 28;
const CALLERS: usize = 3 * (WORKERS + QUEUE) as usize;

/// Time that a refused caller waits, although it is told to wait half a second.
const PATIENCE: Duration = Duration::from_millis(10);

/// Interval between measurements of the daemon's memory; one costs the daemon half a millisecond.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Callers of a function that takes 1 ms of CPU.
pub(crate) struct Overload {
    callers: Vec<IpcCaller>,
    alone: Vec<IpcCaller>,
}

impl Overload {
    pub(crate) async fn start(daemon: &Daemon) -> Result<Self> {
        let settings = SettingsPatch {
            max_concurrent_executions: Some(WORKERS),
            queue_max: Some(QUEUE),
            ..SettingsPatch::default()
        };
        daemon.deploy_with("crowded", &sample("cpu"), settings).await?;
        let call = InvokeRequest { path: Some("/?ms=1".into()), ..get("crowded") };
        Ok(Self { callers: daemon.callers(&call, CALLERS).await?, alone: daemon.callers(&call, 1).await? })
    }

    pub(crate) async fn round(&mut self, daemon: &Daemon, slice: Duration, report: &mut Report) -> Result<()> {
        let before = load::run(&mut self.alone, slice).await?;
        report.add("overload.memory.before", process::private_mib(daemon.pid())?);

        let end = Instant::now() + 2 * slice;
        let crowd = try_join_all(self.callers.iter_mut().map(|caller| insist(caller, end)));
        let (crowd, memory) = tokio::try_join!(crowd, memory_until(daemon.pid(), end))?;
        let refused: usize = crowd.iter().map(|(_, refused)| refused).sum();
        let answered = Load::new(crowd.into_iter().flat_map(|(latencies, _)| latencies).collect(), 2 * slice);
        report.add("overload.refused", 100.0 * refused as f64 / (refused + answered.calls()) as f64);
        report.add("overload.rate", answered.rate());
        report.add("overload.p99", answered.p99_us() / 1e3);
        report.add("overload.memory.during", memory);

        let after = load::run(&mut self.alone, slice).await?;
        report.add("overload.memory.after", process::private_mib(daemon.pid())?);
        report.add("overload.p50.before", before.p50_us());
        report.add("overload.p50.after", after.p50_us());
        Ok(())
    }
}

/// Calls until the time is over, and returns the latencies of the answers and the number of refusals.
async fn insist(caller: &mut IpcCaller, end: Instant) -> Result<(Vec<Duration>, usize)> {
    let (mut latencies, mut refused) = (Vec::new(), 0);
    while Instant::now() < end {
        let sent = Instant::now();
        if caller.call_or(ErrorCode::Overloaded).await? {
            latencies.push(sent.elapsed());
        } else {
            refused += 1;
            tokio::time::sleep(PATIENCE).await;
        }
    }
    Ok((latencies, refused))
}

/// Returns the highest private memory of a process until `end`.
async fn memory_until(pid: u32, end: Instant) -> Result<f64> {
    let mut most = 0.0_f64;
    while Instant::now() < end {
        most = most.max(process::private_mib(pid)?);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(most)
}
