//! The folder of a daemon's workers, and what an earlier daemon has left of them.

use super::{
    cgroup::{self, Cgroups},
    folder,
    mark::Mark,
    orphans,
    sandbox::{self, SandboxOptions},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The folder of the workers: no process, control group or file of an earlier daemon is left.
///
/// To have one comes before all else that a daemon does but the lock of its data directory: what has outlived an earlier
/// daemon may hold the address that is bound next.
#[derive(Debug)]
pub struct RunFolder {
    pub(super) path: PathBuf,
    /// What the processes bear that are started from now on.
    pub(super) mark: Option<Mark>,
    /// The control groups for workers, or why there are none; not looked for without a sandbox.
    pub(super) cgroups: Option<Result<Cgroups, cgroup::Unavailable>>,
}

impl RunFolder {
    /// Ends what is left of an earlier daemon and empties the folder, which lies in the data directory. To be called by
    /// who has the lock of that.
    ///
    /// Blocks: some milliseconds, with left-overs until they are dead, for four seconds at most.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn clear(path: &Path, sandbox: &SandboxOptions) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        // First, because a group ends what starts processes faster than they can be found one by one.
        let cgroups = sandbox::find_cgroups(sandbox, &path);
        let mark = Mark::of(path.parent().unwrap_or(Path::new("/")))?;
        match mark {
            Some(mark) => orphans::end(mark),
            None => tracing::warn!(
                "what functions leave behind when this daemon is killed cannot be found at its next start: limits on \
                 resident memory or on file locks are set already (`ulimit -Hm`, LimitRSS=, LimitLOCKS=); remove them"
            ),
        }
        folder::make_empty(&path)?;
        Ok(Self { path, mark, cgroups })
    }
}
