//! Closed loops: each caller sends its next call when the last one has ended.

use crate::{Result, process::CpuTime};
use futures_util::future::try_join_all;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// A caller that makes one call at a time.
pub(crate) trait Caller {
    /// Makes one call and checks its answer.
    async fn call(&mut self) -> Result<()>;
}

/// Latencies seen by the callers of one slice of time.
#[derive(Debug)]
pub(crate) struct Load {
    /// Latencies in ascending order.
    latencies: Vec<Duration>,
    elapsed: Duration,
}

/// Runs all callers side by side on this thread until the time is over.
pub(crate) async fn run<C: Caller>(callers: &mut [C], time: Duration) -> Result<Load> {
    let began = Instant::now();
    let latencies = try_join_all(callers.iter_mut().map(|caller| until(began + time, caller))).await?;
    Ok(Load::new(latencies.concat(), began.elapsed()))
}

/// Runs all callers at an interval: each calls when the interval since its last call is over, or once that call has
/// ended. A latency begins when the call is sent, however late that is.
pub(crate) async fn run_paced<C: Caller>(callers: &mut [C], interval: Duration, time: Duration) -> Result<Load> {
    let began = Instant::now();
    let count = callers.len() as u32;
    let staggered = callers.iter_mut().zip(0..).map(|(caller, index)| async move {
        let mut ticks = tokio::time::interval_at((began + interval * index / count).into(), interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut latencies = Vec::new();
        while began.elapsed() < time {
            ticks.tick().await;
            let sent = Instant::now();
            caller.call().await?;
            latencies.push(sent.elapsed());
        }
        Result::Ok(latencies)
    });
    let latencies = try_join_all(staggered).await?;
    Ok(Load::new(latencies.concat(), began.elapsed()))
}

/// Runs all callers and measures the CPU time of a process meanwhile.
pub(crate) async fn with_cpu<C: Caller>(pid: u32, callers: &mut [C], time: Duration) -> Result<(Load, Duration)> {
    let before = CpuTime::of(pid)?;
    let load = run(callers, time).await?;
    Ok((load, CpuTime::of(pid)?.since(&before)))
}

async fn until<C: Caller>(end: Instant, caller: &mut C) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut sent = Instant::now();
    while sent < end {
        caller.call().await?;
        let answered = Instant::now();
        latencies.push(answered - sent);
        sent = answered;
    }
    Ok(latencies)
}

impl Load {
    /// Sorts the latencies.
    pub(crate) fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, elapsed }
    }

    /// Joins several slices into one.
    pub(crate) fn joined(slices: Vec<Self>) -> Self {
        let elapsed = slices.iter().map(|it| it.elapsed).sum();
        Self::new(slices.into_iter().flat_map(|it| it.latencies).collect(), elapsed)
    }

    /// Number of answered calls.
    pub(crate) fn calls(&self) -> usize {
        self.latencies.len()
    }

    /// Answered calls per second.
    pub(crate) fn rate(&self) -> f64 {
        self.calls() as f64 / self.elapsed.as_secs_f64()
    }

    /// This CPU time divided by the number of calls, in microseconds.
    pub(crate) fn per_call_us(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.calls() as f64
    }

    /// Median latency in microseconds.
    pub(crate) fn p50_us(&self) -> f64 {
        self.quantile_us(0.5)
    }

    /// 99th percentile of the latency, in microseconds.
    pub(crate) fn p99_us(&self) -> f64 {
        self.quantile_us(0.99)
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        let index = (self.latencies.len() as f64 * quantile) as usize;
        let latency = self.latencies.get(index.min(self.latencies.len().saturating_sub(1)));
        latency.map_or(f64::NAN, |it| it.as_secs_f64() * 1e6)
    }
}
