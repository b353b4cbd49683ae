//! Messages of STATUS, and the description of a pool, which other answers use too.

use crate::model::{EnvironmentName, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// STATUS.
    StatusRequest {}
}

messages! {
    /// STATUS.
    StatusResponse {
        /// Version of the daemon.
        version: String,
        /// Bun version of the workers.
        bun_version: String,
        /// Path of the Bun binary.
        bun_path: String,
        /// Process id of the daemon.
        pid: u32,
        /// Time since the daemon started, in milliseconds.
        uptime_ms: u64,
        /// Path of the data directory.
        data_dir: String,
        /// Number of functions, without deleted ones.
        functions: u32,
        /// Pools that have a worker or a waiting invocation.
        pools: Vec<PoolInfo>,
        /// Number of prewarmed workers.
        prewarmed: u32,
        /// Private memory of the daemon, in bytes.
        memory_bytes: u64,
        /// Number of workers with a function, in any state.
        workers: u32,
        /// Limit on that number (`workers.workers_max`).
        workers_max: u32,
        /// Private memory of all workers, in bytes.
        workers_memory_bytes: u64,
        /// Limit on that memory (`workers.memory_mb_max`), in bytes.
        workers_memory_bytes_max: u64,
        /// Disk usage of the data directory.
        disk: DiskInfo,
        /// Number of log lines dropped since the daemon started.
        logs_dropped: u64,
        /// Isolation of functions from the rest of the machine.
        sandbox: SandboxInfo,
        /// Reason why secrets cannot be decrypted (`secrets.allow_missing_key`); absent if they can.
        secrets_unavailable?: String,
        /// Base URL of HTTP; absent if it is off.
        http_url?: String,
        /// The other loopback address with HTTP's port, if another process listens there. `localhost` may then reach
        /// that process instead.
        http_taken?: String,
    }
    /// Isolation of functions from the rest of the machine.
    SandboxInfo {
        /// `privileged`, `user-namespace`, `shared-proc`, `landlock` or `off`.
        level: String,
        /// Control groups of the workers, and their limits; absent without control groups.
        cgroups: Option<String>,
        /// Isolation features that this machine lacks, and how to get them.
        missing: Vec<String>,
    }
    /// Disk usage of the data directory, in bytes.
    DiskInfo {
        /// Bundles of all versions.
        bundles_bytes: u64,
        /// Compiled bytecode of the bundles.
        bytecode_bytes: u64,
        /// The database of functions, versions and deployments.
        store_bytes: u64,
        /// The database of logs and metrics.
        logs_bytes: u64,
        /// Free space on the file system of the data directory; absent if the system does not report it.
        free_bytes: Option<u64>,
    }
    /// A pool: the workers of one version in one environment.
    PoolInfo {
        /// Name of the function.
        function: String,
        /// Label of the version.
        version: VersionLabel,
        /// Name of the environment.
        environment: EnvironmentName,
        /// Number of workers that wait for room on the node.
        planned: u32,
        /// Number of workers that are starting.
        starting: u32,
        /// Number of idle workers.
        idle: u32,
        /// Number of workers that run invocations and may accept more.
        busy: u32,
        /// Number of workers that finish their invocations and then stop.
        retiring: u32,
        /// Number of workers that are stopping.
        stopping: u32,
        /// Number of invocations that the busy workers run.
        running: u32,
        /// Number of invocations that wait for a worker.
        queued: u32,
        /// Number of consecutive failed starts. After a failure, invocations that need a start fail with the last
        /// start's error until `retry_in_ms` is over.
        failed_starts: u32,
        /// Time until the next start is tried, in milliseconds; 0 while starts succeed.
        retry_in_ms: u64,
    }
}
