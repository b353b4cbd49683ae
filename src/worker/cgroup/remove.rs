//! Kills the processes in a group and removes it.

use super::{NAME_PREFIX, write};
use nix::{
    sys::signal::{Signal, kill as signal},
    unistd::Pid,
};
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// Maximum passes over a group for processes that were forked while it was killed.
const PASSES_MAX: u32 = 16;

/// Delay before a failed removal is retried; it doubles each time, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(1);

/// Longest delay: a process that hangs in the kernel may take any time.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Longest wait for pending removals, when the daemon stops and when it starts.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Age from which an empty group of another daemon cannot be waiting for its process, which takes milliseconds.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Maximum groups beside the daemon's own that are examined when it starts.
const BESIDE_MAX: usize = 1_024;

/// Directories of one group, one in each hierarchy; processes enter the first one first.
#[derive(Debug, Default)]
pub(super) struct Directories {
    pub(super) paths: Vec<PathBuf>,
    /// Index in `paths` of the directory with `pids.max`.
    pub(super) pids: Option<usize>,
}

impl Directories {
    /// Ends every process in the group, one by one if need be. The group cannot be used any more.
    pub(super) fn kill(&self) {
        let Some(first) = self.paths.first() else { return };
        // Absent in version 1, and before Linux 5.14.
        if write(&first.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        // Without new processes, two of the passes below are enough.
        if let Some(path) = self.pids.and_then(|it| self.paths.get(it)) {
            let _ = write(&path.join("pids.max"), "0");
        }
        let mut signalled = HashSet::new();
        for _ in 0..PASSES_MAX {
            let before = signalled.len();
            for process in processes(first).unwrap_or_default() {
                if signalled.insert(process) {
                    // The number cannot have been reused since it was read: the kernel assigns numbers in turn.
                    let _ = signal(process, Signal::SIGKILL);
                }
            }
            if signalled.len() == before {
                return;
            }
        }
    }

    /// Removes the empty directories. Returns whether all are gone.
    fn try_remove(&self) -> bool {
        let mut all = true;
        for path in &self.paths {
            match fs::remove_dir(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => all = false,
            }
        }
        all
    }
}

/// Lists the processes of a group, by their numbers in this process's namespace; those without one are left out.
pub(super) fn processes(group: &Path) -> io::Result<Vec<Pid>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    // A process outside this namespace is shown as 0, and a signal to 0 would go to the daemon's own process group.
    Ok(text.lines().filter_map(|it| it.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw).collect())
}

/// Kills and removes the groups directly below `base` whose names begin with `prefix`. Returns their number.
pub(super) fn remove_all(base: &Path, prefix: &str) -> usize {
    let names = below(base).filter(|it| it.file_name().is_some_and(|it| it.to_string_lossy().starts_with(prefix)));
    let mut left: Vec<_> = names.map(|it| Directories { paths: vec![it], pids: None }).collect();
    let found = left.len();
    let start = Instant::now();
    let mut retry = RETRY_MIN;
    loop {
        left.retain(|group| {
            // Groups made by processes of this group; workers cannot make any, but root can.
            remove_below(&group.paths[0]);
            group.kill();
            !group.try_remove()
        });
        if left.is_empty() || start.elapsed() > WAIT_MAX {
            break;
        }
        thread::sleep(retry);
        retry = (retry * 2).min(RETRY_MAX);
    }
    for group in left {
        tracing::warn!(group = %group.paths[0].display(), "cannot remove a control group of an earlier daemon");
    }
    found
}

fn remove_below(group: &Path) {
    for path in below(group) {
        remove_below(&path);
        let group = Directories { paths: vec![path], pids: None };
        group.kill();
        group.try_remove();
    }
}

/// Removes the empty groups directly below `base` of daemons that are gone for good. Returns their number.
///
/// A daemon in another container cannot be seen, but a running one has no empty group for long.
pub(super) fn remove_forgotten(base: &Path, age: Duration) -> usize {
    // `levain-<folder>.<slot>.<number>`: a systemd unit may have the same prefix, but it ends differently.
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut parts = name.split('.');
        let is_named = parts.next().is_some_and(|it| it.starts_with(NAME_PREFIX)) && parts.next().is_some();
        is_named && parts.next().is_some_and(|it| it.parse::<u64>().is_ok()) && parts.next().is_none()
    };
    // The kernel keeps no time of creation: the time is that of a cache entry, which is never older than the folder.
    let is_old = |path: &PathBuf| {
        let changed = path.metadata().and_then(|it| it.modified()).ok();
        changed.and_then(|it| it.elapsed().ok()).is_some_and(|it| it >= age)
    };
    // Removal fails for a group that contains a process or another group.
    below(base).filter(|path| is_ours(path) && is_old(path) && fs::remove_dir(path).is_ok()).count()
}

/// Removes the empty groups of daemons that ran in a group beside `own`, this daemon's group: a daemon that starts in a
/// new group each time, and is killed, never finds its left-overs again. Version 1 only. Returns their number.
///
/// With version 1 a daemon stays in the group below which it makes its own ([`super::v1`]): a group without processes
/// has no daemon. A daemon of another container cannot be seen, and is safe for the reason given at
/// [`remove_forgotten`].
pub(super) fn remove_beside(own: &Path, age: Duration) -> usize {
    // Above the root of a hierarchy are other hierarchies, and the daemon is not in the groups that it sees there.
    let Some(parent) = own.parent().filter(|it| it.join("cgroup.procs").exists()) else { return 0 };
    let is_deserted = |group: &PathBuf| processes(group).is_ok_and(|it| it.is_empty());
    let beside = below(parent).take(BESIDE_MAX).filter(|group| group != own && is_deserted(group));
    beside.map(|group| remove_forgotten(&group, age)).sum()
}

/// Lists the groups directly below a group.
fn below(group: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path())
}

/// The thread that removes groups: a group cannot be removed before the last of its processes is dead.
///
/// Dropping it waits for pending removals, two seconds at most.
#[derive(Debug)]
pub(super) struct Remover {
    /// `None` only during the drop.
    inbox: Option<mpsc::Sender<Directories>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Remover {
    pub(super) fn start() -> io::Result<Self> {
        let (inbox, groups) = mpsc::channel();
        let thread = thread::Builder::new().name("levain-cgroups".into()).spawn(move || run(&groups))?;
        Ok(Self { inbox: Some(inbox), thread: Some(thread) })
    }

    /// Queues a group to be killed and removed.
    pub(super) fn remove(&self, group: Directories) {
        if let Some(inbox) = &self.inbox {
            let _ = inbox.send(group);
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(groups: &mpsc::Receiver<Directories>) {
    let mut dying: Vec<Directories> = Vec::new();
    let mut retry = RETRY_MIN;
    let mut stopped_at = None;
    loop {
        let received = match (dying.is_empty(), stopped_at) {
            (true, Some(_)) => return,
            (true, None) => groups.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (false, None) => groups.recv_timeout(retry),
            (false, Some(_)) => {
                thread::sleep(retry);
                Err(RecvTimeoutError::Timeout)
            }
        };
        match received {
            Ok(group) => {
                dying.push(group);
                dying.extend(groups.try_iter());
                retry = RETRY_MIN;
            }
            Err(RecvTimeoutError::Timeout) => retry = (retry * 2).min(RETRY_MAX),
            Err(RecvTimeoutError::Disconnected) => {
                stopped_at = Some(Instant::now());
                retry = RETRY_MIN;
            }
        }
        dying.retain(|group| {
            // Most groups are empty when they arrive here. A process may enter between the two calls; the next round
            // ends it.
            if group.try_remove() {
                return false;
            }
            group.kill();
            true
        });
        if stopped_at.is_some_and(|it: Instant| it.elapsed() > WAIT_MAX) {
            tracing::warn!(groups = dying.len(), "processes of workers hang in the kernel; their control groups stay");
            return;
        }
    }
}
