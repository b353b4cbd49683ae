//! What the kernel limits for each process of a worker, and for all in its user namespace. What it limits for all processes
//! of a worker together, control groups say ([`super::super::cgroup`]).

use super::{
    super::{
        launch::{Limit, Resource, Step},
        mark::Mark,
    },
    Level, Sandbox,
};
use std::path::Path;

/// Files that a throw-away process may have open: an installation unpacks many packages at once.
const TOOL_OPEN_FILES_MAX: u32 = 4096;

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Bytes that a worker may keep from being swapped out.
const LOCKED_BYTES_MAX: u64 = 64 << 10;

/// What the kernel counts for all processes of a user, and what of it a user namespace may have: else one worker would
/// have all that is left to the daemon and to other workers, which are the same user. Bun needs one instance to watch
/// files, and a watch for each file or folder.
const TABLES: [(&str, &str); 2] =
    [("/proc/sys/user/max_inotify_instances", "16"), ("/proc/sys/user/max_inotify_watches", "4096")];

/// The steps of a process in a user namespace of its own that limit those tables. Some containers have the files for
/// reading only.
pub(super) fn of_tables() -> impl Iterator<Item = Step> {
    TABLES.into_iter().map(|(file, most)| Step::write_if_possible(Path::new(file), most))
}

impl Sandbox {
    /// The resources of a worker.
    pub(in super::super) fn limits(&self) -> Vec<Limit> {
        self.limits_with(self.processes_max, self.open_files_max)
    }

    /// The resources of a throw-away process that may start so many others and threads.
    pub(in super::super) fn tool_limits(&self, processes_max: u32) -> Vec<Limit> {
        self.limits_with(processes_max, TOOL_OPEN_FILES_MAX)
    }

    fn limits_with(&self, processes_max: u32, open_files_max: u32) -> Vec<Limit> {
        let mut limits = vec![Limit::fixed(Resource::RLIMIT_NOFILE, open_files_max.into())];
        limits.extend(self.mark.into_iter().flat_map(Mark::limits));
        if self.level != Level::Off {
            limits.push(Limit::fixed(Resource::RLIMIT_FSIZE, FILE_BYTES_MAX));
            limits.push(Limit::fixed(Resource::RLIMIT_MEMLOCK, LOCKED_BYTES_MAX));
            limits.push(Limit::fixed(Resource::RLIMIT_MSGQUEUE, 0));
        }
        // Counted for each user of each user namespace: where a worker is the daemon's user, so is everything else.
        if self.root.is_some() {
            limits.push(Limit::fixed(Resource::RLIMIT_NPROC, processes_max.into()));
        }
        limits
    }
}
