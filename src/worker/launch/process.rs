//! A launched process: waiting for it, ending it, and reading its memory.
#![allow(unsafe_code, reason = "sysconf, and an AsyncFd whose descriptor has another owner too")]

use super::LaunchRequest;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::{fs::FileExt, process::ExitStatusExt};
use std::process::ExitStatus;
use std::sync::{Arc, LazyLock, mpsc};
use tokio::io::{Interest, unix::AsyncFd};

/// A started process. Dropping it kills it with its group; it is reaped in the background.
#[derive(Debug)]
pub struct LaunchedProcess {
    exit: AsyncFd<Arc<Child>>,
    child: KillOnDrop,
}

impl LaunchedProcess {
    /// Must be called in the context of the runtime that will wait for the process.
    pub(super) fn new(child: KillOnDrop) -> io::Result<Self> {
        let descriptor = Arc::clone(&child.child);
        // SAFETY: the descriptor belongs to the `Child`, which never changes it and closes it when its last owner is
        // gone; the `AsyncFd` is one of the owners.
        let exit = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        Ok(Self { exit, child })
    }

    /// Process id, which is also the id of the session and the group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.child.pid.as_raw().unsigned_abs()
    }

    /// Calls `act` with the process id while no other process can get that number; `None` if the process has been
    /// reaped.
    pub fn with_pid<T>(&self, act: impl FnOnce(u32) -> T) -> Option<T> {
        let status = self.child.child.status.lock();
        status.is_none().then(|| act(self.pid()))
    }

    /// Kills the process and everything it started that is still in its group. Does nothing after its end.
    pub fn kill_tree(&self) {
        self.child.child.kill_tree();
    }

    /// Waits for the process to end, and kills what is left of its group. May be called again, and by several tasks.
    ///
    /// # Errors
    /// When the runtime is shutting down, or other code of the daemon has taken the exit status.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            let mut ready = self.exit.readable().await?;
            if let Some(status) = self.child.child.try_reap()? {
                return Ok(status);
            }
            ready.clear_ready();
        }
    }
}

/// Guarantees that a child does not outlive its owner.
#[derive(Debug)]
pub(super) struct KillOnDrop {
    child: Arc<Child>,
    reaper: mpsc::Sender<LaunchRequest>,
}

impl KillOnDrop {
    pub(super) fn new(child: Child, reaper: mpsc::Sender<LaunchRequest>) -> Self {
        Self { child: Arc::new(child), reaper }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.child.kill_tree();
        // Dying takes a moment, which must not block a thread of the runtime. The exception is a launcher that is gone,
        // which has killed everything already.
        if !matches!(self.child.try_reap(), Ok(None)) {
            return;
        }
        if self.reaper.send(LaunchRequest::Reap(Arc::clone(&self.child))).is_err() {
            self.child.reap_blocking();
        }
    }
}

/// A child process until it is reaped.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    /// Set when the process is reaped. The lock keeps the reaping and a signal to the group apart.
    status: Mutex<Option<ExitStatus>>,
}

impl AsRawFd for Child {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Child {
    /// Wraps a child of this process, which leads a group, and its descriptor.
    pub(super) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, status: Mutex::new(None) }
    }

    fn kill_tree(&self) {
        let status = self.status.lock();
        // The second condition holds unless foreign code has reaped the process: then its number may be another's.
        if status.is_none() && self.waitid(WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT).is_ok() {
            // Includes the process itself: the leader of a session cannot leave its group.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }

    /// Reaps the process if it has ended, after killing its group: until then the zombie holds the group's number.
    pub(super) fn try_reap(&self) -> io::Result<Option<ExitStatus>> {
        let mut status = self.status.lock();
        if status.is_none() && self.waitid(WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)?.is_some() {
            let _ = killpg(self.pid, Signal::SIGKILL);
            *status = self.waitid(WaitIdOptions::NOHANG)?;
        }
        Ok(*status)
    }

    /// Waits for a process that is certain to end, and reaps it.
    pub(super) fn reap_blocking(&self) {
        let _ = self.waitid(WaitIdOptions::NOWAIT);
        let _ = self.try_reap();
    }

    fn waitid(&self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        let wait = || waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | options);
        let status = rustix::io::retry_on_intr(wait)?;
        // Back to the encoding of `wait`, which `ExitStatus` expects.
        let raw = |status: WaitIdStatus| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => (code & 0xff) << 8,
            (None, signal) => signal.unwrap_or_default() | if status.dumped() { 0x80 } else { 0 },
        };
        Ok(status.map(raw).map(ExitStatus::from_raw))
    }
}

/// Bytes of a page of memory.
pub(super) fn page_bytes() -> usize {
    // SAFETY: a query that touches no memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

static PAGE_BYTES: LazyLock<u64> = LazyLock::new(|| page_bytes() as u64);

/// An open file from which the memory of one process is read repeatedly.
///
/// Opening takes four times as long as reading, which takes about a microsecond, and the memory of all workers is
/// polled. The gauge stays bound to its process, even when the number is given to another.
#[derive(Debug)]
pub struct MemoryGauge(File);

impl MemoryGauge {
    /// Opens the gauge of a process; `None` if there is no such process.
    #[must_use]
    pub fn open(pid: u32) -> Option<Self> {
        File::open(format!("/proc/{pid}/statm")).ok().map(Self)
    }

    /// Resident bytes that the process shares with no other; `None` once it has ended.
    ///
    /// The resident size alone counts Bun's own pages, which all workers share, in full for each of them.
    #[must_use]
    pub fn private_bytes(&self) -> Option<u64> {
        let mut text = [0; 128];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        // Pages: total, resident, shared, and more.
        let mut pages = text.split_ascii_whitespace().skip(1).map_while(|it| it.parse::<u64>().ok());
        let (resident, shared) = (pages.next()?, pages.next()?);
        Some(resident.saturating_sub(shared) * *PAGE_BYTES)
    }
}

/// Reads [`MemoryGauge::private_bytes`] once.
#[must_use]
pub fn private_memory_bytes(pid: u32) -> Option<u64> {
    MemoryGauge::open(pid)?.private_bytes()
}
