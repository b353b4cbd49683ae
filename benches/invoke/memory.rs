//! Measures the memory of an idle daemon: as it starts, with many functions, and per warm worker.

use crate::{
    Result,
    bun::Bun,
    daemon::{Daemon, get, sample},
    load::Caller,
    process,
    report::Report,
    rounds::{PREWARMED, Plan},
};
use std::time::{Duration, Instant};

/// Time that a process is left alone before its memory is measured.
const SETTLE_TIME: Duration = Duration::from_millis(500);

/// Number of workers whose memory is measured.
const WORKERS_LOOKED_AT: usize = 5;

/// Measures with a daemon of its own.
pub(crate) async fn measure(bun: &Bun, plan: &Plan, report: &mut Report) -> Result<()> {
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
