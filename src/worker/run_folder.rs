//! The folder of a daemon's workers, and the removal of what an earlier daemon left there.

use super::{
    cgroup::{self, Cgroups},
    folder, orphans,
    process_mark::ProcessMark,
    sandbox::{self, SandboxOptions},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The folder of the workers, free of processes, control groups and files of an earlier daemon.
///
/// A daemon prepares this folder before anything else but the lock of its data directory: a process that outlived an
/// earlier daemon may hold the address that is bound next.
#[derive(Debug)]
pub struct RunFolder {
    pub(super) path: PathBuf,
    /// The mark of all processes that are started from now on.
    pub(super) mark: Option<ProcessMark>,
    /// Control groups for workers, or the reason why they are unavailable; `None` without a sandbox.
    pub(super) cgroups: Option<Result<Cgroups, cgroup::Unavailable>>,
}

impl RunFolder {
    /// Ends what is left of an earlier daemon and empties the folder, which lies in the data directory. The caller must
    /// hold the lock of that directory.
    ///
    /// Blocks: some milliseconds, or with left-overs until they are dead, four seconds at most.
    ///
    /// # Errors
    /// When the folder cannot be created or the data directory cannot be read.
    pub fn clear(path: &Path, sandbox: &SandboxOptions) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        // Comes first, because a group ends processes that start others faster than they can be found one by one.
        let cgroups = sandbox::find_cgroups(sandbox, &path);
        let mark = ProcessMark::of(path.parent().unwrap_or(Path::new("/")))?;
        match mark {
            Some(mark) => orphans::end(mark),
            None => tracing::warn!(
                "cannot mark the processes of functions, so those that outlive a killed daemon will not be found at \
                 the next start: remove the limits on resident memory and file locks (`ulimit -Hm`, LimitRSS=, \
                 LimitLOCKS=)"
            ),
        }
        folder::make_empty(&path)?;
        Ok(Self { path, mark, cgroups })
    }
}
