//! STATUS.

use super::{
    Context,
    functions::{is_in_use, pool_info},
};
use crate::{
    error::Error,
    protocol::message::{SandboxInfo, StatusResponse},
    worker::launch::private_memory_bytes,
};
use std::sync::Arc;

pub(super) async fn run(context: &Arc<Context>) -> Result<StatusResponse, Error> {
    let runtime = context.scheduler.spawner().runtime();
    let sandbox = context.scheduler.spawner().sandbox();
    let pid = std::process::id();
    let node = context.scheduler.node();
    let mut pools: Vec<_> = context.scheduler.snapshot().iter().map(pool_info).filter(is_in_use).collect();
    pools.sort_by(|a, b| (&a.function, &a.version).cmp(&(&b.function, &b.version)));
    Ok(StatusResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        bun_version: runtime.version.to_string(),
        bun_path: runtime.bun.to_string_lossy().into_owned(),
        pid,
        uptime_ms: context.started.elapsed().as_millis() as u64,
        data_dir: context.data_dir.to_string_lossy().into_owned(),
        functions: context.router.functions().len() as u32,
        pools,
        prewarmed: context.scheduler.spawner().prewarmed() as u32,
        memory_bytes: private_memory_bytes(pid).unwrap_or(0),
        workers: node.workers as u32,
        workers_max: node.caps.workers_max as u32,
        workers_memory_bytes: context.scheduler.spawner().memory(),
        workers_memory_bytes_max: node.caps.memory_max,
        logs_dropped: context.telemetry.logs().dropped_total(),
        sandbox: SandboxInfo {
            level: sandbox.level.name().into(),
            cgroups: sandbox.cgroups.clone(),
            missing: sandbox.missing.clone(),
        },
    })
}
