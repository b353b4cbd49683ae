//! Measures first calls: of functions without a worker, of workers without a daemon, of functions new to a peer.

use crate::{
    Result,
    bun::Bun,
    daemon::{Daemon, sample},
    http1::Call,
    load::{Caller, Load},
    report::Report,
    rounds::{PREWARMED, Plan},
    workerd::Workerd,
};
use levain::model::ColdStart;
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Functions without any invocation so far, and a daemon whose cold starts spawn workers.
pub(crate) struct Cold {
    /// Daemon without prewarmed processes.
    spawning: Daemon,
    names: Vec<String>,
    hello: PathBuf,
    /// First calls of each kind in one round.
    calls: usize,
}

impl Cold {
    /// Deploys the functions on both daemons; `daemon` has prewarmed processes.
    pub(crate) async fn start(bun: &Bun, daemon: &Daemon, plan: &Plan) -> Result<Self> {
        let spawning = Daemon::start(bun.path(), 0).await?;
        let hello = sample("hello");
        let names: Vec<String> = (0..(plan.rounds + 1) * plan.colds).map(|number| format!("cold-{number}")).collect();
        daemon.deploy_all(&names, &hello).await?;
        spawning.deploy_all(&names, &hello).await?;
        Ok(Self { spawning, names, hello, calls: plan.colds })
    }

    pub(crate) async fn round(
        &mut self,
        bun: &Bun,
        daemon: &Daemon,
        mut peer: Option<&mut Workerd>,
        report: &mut Report,
    ) -> Result<()> {
        let [mut claimed, mut spawned, mut direct, mut isolates] = [const { Vec::new() }; 4];
        for name in self.names.drain(..self.calls.min(self.names.len())) {
            daemon.until_prewarmed(PREWARMED).await?;
            claimed.push(daemon.call_cold(&name, ColdStart::Prewarmed).await?);
            daemon.delete(&name).await?;
            daemon.until_prewarmed(PREWARMED).await?;

            spawned.push(self.spawning.call_cold(&name, ColdStart::Spawned).await?);
            self.spawning.delete(&name).await?;

            let began = Instant::now();
            let worker = bun.worker(&self.hello).await?;
            worker.caller(Call::get("/")).await?.call().await?;
            direct.push(began.elapsed());
            drop(worker);

            if let Some(peer) = &mut peer {
                // The measurement starts on a processor as quiet as that of a claim.
                daemon.until_prewarmed(PREWARMED).await?;
                isolates.push(peer.isolate().await?);
            }
        }
        report.add("cold.claimed.p50", p50_ms(claimed));
        report.add("cold.spawned.p50", p50_ms(spawned));
        report.add("floor.cold.p50", p50_ms(direct));
        if let Some(peer) = peer {
            report.add("workerd.cold.p50", p50_ms(isolates));
            let (start, isolate) = peer.starts().await?;
            report.add("workerd.start", start.as_secs_f64() * 1e3);
            report.add("workerd.isolate", isolate.as_secs_f64() * 1e3);
        }
        Ok(())
    }
}

fn p50_ms(times: Vec<Duration>) -> f64 {
    Load::new(times, Duration::ZERO).p50_us() / 1e3
}
