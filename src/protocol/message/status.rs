//! What STATUS answers, and the workers of a version wherever they are shown.

use crate::model::{EnvironmentName, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// STATUS.
    StatusRequest {}
}

messages! {
    /// STATUS.
    StatusResponse {
        /// The daemon's version.
        version: String,
        /// The Bun version of its workers.
        bun_version: String,
        /// The Bun binary.
        bun_path: String,
        /// The daemon's process.
        pid: u32,
        /// Since its start.
        uptime_ms: u64,
        /// The data directory.
        data_dir: String,
        /// Functions that are not deleted.
        functions: u32,
        /// All pools that have a worker or a waiting invocation.
        pools: Vec<PoolInfo>,
        /// Processes that wait for a function.
        prewarmed: u32,
        /// The daemon's own memory that it shares with nobody, in bytes.
        memory_bytes: u64,
        /// Workers with a function, in any state.
        workers: u32,
        /// The most there may be (`workers.workers_max`).
        workers_max: u32,
        /// Private memory of all workers, in bytes.
        workers_memory_bytes: u64,
        /// The most they may have together (`workers.memory_mb_max`), in bytes.
        workers_memory_bytes_max: u64,
        /// What lies on the disk.
        disk: DiskInfo,
        /// Log lines dropped since the start.
        logs_dropped: u64,
        /// How far functions are kept from the rest of the machine.
        sandbox: SandboxInfo,
        /// Why no secret can be opened (`secrets.allow_missing_key`); absent where that is not so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secrets_unavailable: Option<String>,
        /// The other loopback address with the port of HTTP, if another process listens there: `localhost` may lead to
        /// that one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http_taken: Option<String>,
    }
    /// How far functions are kept from the rest of the machine.
    SandboxInfo {
        /// `privileged`, `user-namespace`, `shared-proc`, `landlock` or `off`.
        level: String,
        /// The control groups of workers, and what they limit; absent without any.
        cgroups: Option<String>,
        /// What this machine does not offer, and how to get it.
        missing: Vec<String>,
    }
    /// What lies on the disk, in bytes.
    DiskInfo {
        /// Bundles of the versions there are.
        bundles_bytes: u64,
        /// What of them is compiled.
        bytecode_bytes: u64,
        /// The database of functions, versions and deployments.
        store_bytes: u64,
        /// The database of logs and metrics.
        logs_bytes: u64,
        /// What is free on the file system of the data directory; absent where the system does not say.
        free_bytes: Option<u64>,
    }
    /// The workers of one version.
    PoolInfo {
        /// The function's name.
        function: String,
        /// The version's label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The environment.
        #[schemars(with = "EnvironmentName")]
        environment: String,
        /// Workers that wait for a place on the node.
        planned: u32,
        /// Workers on their way up.
        starting: u32,
        /// Workers waiting for work.
        idle: u32,
        /// Workers that run invocations and may take more.
        busy: u32,
        /// Workers that finish what they run and then stop.
        retiring: u32,
        /// Workers on their way down.
        stopping: u32,
        /// Invocations that the busy workers run.
        running: u32,
        /// Invocations waiting for a worker.
        queued: u32,
        /// Starts that have failed in a row; while there are any, calls that need a start fail with the last one's error
        /// until `retry_in_ms` is over.
        failed_starts: u32,
        /// When the next start is tried, in milliseconds; 0 while starts work.
        retry_in_ms: u64,
    }
}
