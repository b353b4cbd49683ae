//! Options of the daemon's parts, derived from the configuration.

use crate::{
    config::{Config, SandboxMode},
    scheduler::{self, node::Caps},
    telemetry::LogOptions,
    worker::{
        SandboxOptions, SpawnLimits,
        sandbox::{self, IsolationLevel},
    },
};
use std::thread;

pub(super) fn scheduler_limits(config: &Config) -> scheduler::Limits {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let starts_max = match config.workers.starts_max as usize {
        0 => 2 * cores,
        given => given,
    };
    let workers = &config.workers;
    let memory_max = match u64::from(workers.memory_mb_max) << 20 {
        0 => machine_memory() / 4 * 3,
        given => given,
    };
    scheduler::Limits {
        starts_max,
        queue_timeout: workers.queue_timeout(),
        kill_grace: workers.kill_grace(),
        blocked: workers.blocked(),
        memory_soft_percent: workers.memory_soft_percent.into(),
        caps: Caps { workers_max: workers.workers_max as usize, memory_max },
    }
}

/// Memory of this machine in bytes; unlimited if the system does not report it.
fn machine_memory() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(u64::MAX, |info| info.ram_total())
}

pub(super) fn spawn_limits(config: &Config) -> SpawnLimits {
    SpawnLimits {
        start_timeout: config.workers.start_timeout(),
        line_bytes_max: config.logs.line_bytes_max as usize,
        lines_per_second_max: config.logs.lines_per_second_max,
        prewarmed_workers: config.workers.prewarmed_workers as usize,
    }
}

pub(super) fn sandbox_options(config: &Config) -> SandboxOptions {
    let sandbox = &config.sandbox;
    SandboxOptions {
        mode: sandbox.mode,
        level: sandbox.level,
        processes_max: sandbox.processes_max,
        open_files_max: sandbox.open_files_max,
        tmp_mb: sandbox.tmp_mb,
    }
}

/// Logs the level of isolation, and what prevents a better one.
pub(super) fn report_sandbox(config: &Config, report: &sandbox::IsolationReport) {
    let (level, missing) = (report.level.name(), report.missing.join("; "));
    match report.level {
        IsolationLevel::Off if config.sandbox.mode == SandboxMode::Off => {
            tracing::warn!("functions are not isolated: each can do all that this daemon can (sandbox.mode is off)");
        }
        IsolationLevel::Off => {
            tracing::warn!(missing, "functions are not isolated: each can do all that this daemon can")
        }
        _ if missing.is_empty() => tracing::info!(level, "functions are isolated"),
        _ => tracing::info!(level, missing, "functions are isolated"),
    }
}

pub(super) fn log_options(config: &Config) -> LogOptions {
    LogOptions {
        buffer_records_max: config.logs.buffer_records_max as usize,
        flush_interval: config.logs.flush_interval(),
        retention: config.logs.retention(),
        database_bytes_max: config.logs.database_bytes_max(),
        ..LogOptions::default()
    }
}
