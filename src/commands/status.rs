//! STATUS.

use super::{
    Caller, Command, Context,
    functions::{is_in_use, pool_info},
};
use crate::{
    error::Error,
    protocol::message::{DiskInfo, SandboxInfo, StatusRequest, StatusResponse},
    worker::launch::private_memory_bytes,
};
use nix::sys::statvfs::statvfs;
use std::{fs, sync::Arc};

impl Command for StatusRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<StatusResponse, Error> {
        let runtime = context.scheduler.spawner().runtime();
        let sandbox = context.scheduler.spawner().sandbox();
        let pid = std::process::id();
        let node = context.scheduler.node();
        let mut pools: Vec<_> = context.scheduler.snapshot().iter().map(pool_info).filter(is_in_use).collect();
        pools.sort_by(|a, b| (&a.function, &a.version).cmp(&(&b.function, &b.version)));
        let disk = context.blocking(|context| Ok(disk(context))).await?;
        Ok(StatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            bun_version: runtime.version.to_string(),
            bun_path: runtime.bun.to_string_lossy().into_owned(),
            pid,
            uptime_ms: context.started.elapsed().as_millis() as u64,
            data_dir: context.data_dir.to_string_lossy().into_owned(),
            functions: context.router.totals().functions as u32,
            pools,
            prewarmed: context.scheduler.spawner().prewarmed() as u32,
            memory_bytes: private_memory_bytes(pid).unwrap_or(0),
            workers: node.workers as u32,
            workers_max: node.caps.workers_max as u32,
            workers_memory_bytes: context.scheduler.spawner().memory(),
            workers_memory_bytes_max: node.caps.memory_max,
            disk,
            logs_dropped: context.telemetry.logs().dropped_total(),
            sandbox: SandboxInfo {
                level: sandbox.level.name().into(),
                cgroups: sandbox.cgroups.clone(),
                missing: sandbox.missing.clone(),
            },
            secrets_unavailable: Some(context.variables.snapshot().why_no_master.clone()).filter(|it| !it.is_empty()),
            http_url: context.http.map(|it| it.url(&context.config.load())),
            http_taken: context.http.and_then(|it| it.taken).map(|it| it.to_string()),
        })
    }
}

/// Disk usage. It takes a few file system calls and no directory walk, because the sizes of versions are in memory.
#[must_use]
pub fn disk(context: &Context) -> DiskInfo {
    // Includes data that is written and not yet in the file itself.
    let database = |name: &str| -> u64 {
        let files = ["", "-wal"].map(|end| context.data_dir.join(format!("{name}{end}")));
        files.iter().filter_map(|path| fs::metadata(path).ok()).map(|it| it.len()).sum()
    };
    DiskInfo {
        bundles_bytes: context.router.totals().bundles_bytes,
        bytecode_bytes: context.code.bytecode.bytes(),
        store_bytes: database("levain.db"),
        logs_bytes: database("logs.db"),
        // Space that this user may fill, without what the system keeps for root.
        free_bytes: statvfs(&context.data_dir).ok().map(|it| it.blocks_available() * it.fragment_size()),
    }
}
