//! Resource limits of each process of a worker. Control groups ([`super::super::cgroup`]) limit all its processes together.

use super::{
    super::{
        launch::{Limit, Resource},
        process_mark::ProcessMark,
    },
    IsolationLevel, Sandbox,
};

/// Open files of a throw-away process: an installation unpacks many packages at once.
const TOOL_OPEN_FILES_MAX: u32 = 4096;

/// Maximum size of one file in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Bytes that a worker may lock into memory.
const LOCKED_BYTES_MAX: u64 = 64 << 10;

impl Sandbox {
    /// Returns the resource limits of a worker.
    pub(in super::super) fn limits(&self) -> Vec<Limit> {
        self.limits_with(self.processes_max, self.open_files_max)
    }

    /// Returns the resource limits of a throw-away process that may start `processes_max` processes and threads.
    pub(in super::super) fn tool_limits(&self, processes_max: u32) -> Vec<Limit> {
        self.limits_with(processes_max, TOOL_OPEN_FILES_MAX)
    }

    fn limits_with(&self, processes_max: u32, open_files_max: u32) -> Vec<Limit> {
        let mut limits = vec![Limit::fixed(Resource::RLIMIT_NOFILE, open_files_max.into())];
        limits.extend(self.mark.into_iter().flat_map(ProcessMark::limits));
        if self.level != IsolationLevel::Off {
            limits.push(Limit::fixed(Resource::RLIMIT_FSIZE, FILE_BYTES_MAX));
            limits.push(Limit::fixed(Resource::RLIMIT_MEMLOCK, LOCKED_BYTES_MAX));
            limits.push(Limit::fixed(Resource::RLIMIT_MSGQUEUE, 0));
        }
        // Counted per user and user namespace: where a worker has the daemon's user, everything else of that user
        // counts too.
        if self.root.is_some() {
            limits.push(Limit::fixed(Resource::RLIMIT_NPROC, processes_max.into()));
        }
        limits
    }
}
