//! State shared by a worker and its supervisor.

use super::{
    cgroup::ControlGroup,
    exit::{Exit, KillReason},
    invocations::InvocationTable,
    last_words::LastWords,
    launch,
    ping::Ping,
    sandbox,
};
use crate::{
    model::{FunctionId, VersionLabel},
    protocol::worker::ToWorker,
    secrets::Scrubber,
};
use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{net::UnixStream, sync::watch};

/// State shared by a worker and its supervisor.
#[derive(Debug)]
pub(super) struct WorkerInner {
    pub(super) process: launch::LaunchedProcess,
    /// Control group that limits the process and everything it has started.
    pub(super) group: Option<Arc<ControlGroup>>,
    /// The private-memory limit that the group was last given; 0 before there is a function.
    pub(super) group_memory_max: AtomicU64,
    /// The daemon's end of the control channel.
    pub(super) control: Arc<UnixStream>,
    pub(super) invocations: InvocationTable,
    pub(super) ping: Ping,
    pub(super) gauge: Option<launch::MemoryGauge>,
    /// Private memory in bytes at the last reading of the gauge; 0 before.
    pub(super) memory: AtomicU64,
    /// Set when the function is assigned.
    pub(super) owner: OnceLock<Owner>,
    pub(super) last_words: LastWords,
    /// Reason for the kill, if any: set before the signal is sent.
    pub(super) kill_reason: OnceLock<KillReason>,
    /// Set once, when the process has been reaped.
    pub(super) exit: watch::Sender<Option<Exit>>,
}

/// The function a worker belongs to.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) function_id: FunctionId,
    pub(super) version: VersionLabel,
    /// Limit of private memory in bytes; shared with the pool, so that it follows the function's settings.
    pub(super) memory_max: Arc<AtomicU64>,
    /// Masks the function's secrets in the worker's output, if it has any.
    pub(super) scrubber: Option<Scrubber>,
}

impl WorkerInner {
    pub(super) fn kill(&self, reason: KillReason) {
        let _ = self.kill_reason.set(reason);
        self.process.kill_tree();
        // Reaches processes that left the process group, where no namespace ends with the process.
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// Moves the process into its control group, so that the group's limits apply to it and to everything it starts
    /// from then on.
    pub(super) fn enter_group(&self) -> io::Result<()> {
        let entered = self.group.as_ref().and_then(|group| self.process.with_pid(|pid| group.add(pid)));
        entered.unwrap_or(Ok(()))
    }

    /// Sets the kernel's limit of private memory, if the process has a control group: between two readings a process
    /// can allocate any amount.
    pub(super) fn limit_memory(&self, max: u64) {
        let Some(group) = &self.group else { return };
        if self.group_memory_max.swap(max, Ordering::Relaxed) == max {
            return;
        }
        if let Err(error) = group.set_memory_max(max.saturating_add(sandbox::GROUP_OVERHEAD_BYTES)) {
            tracing::debug!(pid = self.process.pid(), %error, "cannot change a worker's group memory limit");
        }
    }

    /// Whether the kernel has killed a process of this group for the group's memory while an invocation runs.
    pub(super) fn has_lost_a_process(&self) -> bool {
        self.invocations.is_running() && self.group.as_ref().is_some_and(|group| group.out_of_memory_kills() > 0)
    }

    /// Reason why the worker was ended: by the daemon, or by the kernel for its memory.
    pub(super) fn end_reason(&self, status: ExitStatus) -> Option<KillReason> {
        if status.signal() == Some(libc::SIGKILL) && self.group.as_ref().is_some_and(|it| it.out_of_memory_kills() > 0)
        {
            let max = self.group_memory_max.load(Ordering::Relaxed);
            let found = max + sandbox::GROUP_OVERHEAD_BYTES;
            let _ = self.kill_reason.set(KillReason::OutOfMemory { found, max });
        }
        self.kill_reason.get().copied()
    }

    /// Writes a message to the control channel, as a whole or not at all.
    pub(super) fn tell(&self, message: &ToWorker) -> io::Result<()> {
        let mut line = serde_json::to_vec(message).expect("plain data serialises");
        line.push(b'\n');
        self.control.try_write(&line).map(drop)
    }

    pub(super) async fn exited(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        let exit = exit.wait_for(Option::is_some).await.expect("the sender lives in the same Arc");
        exit.clone().expect("it was waited for")
    }

    /// Reads and stores the private memory of the process, in bytes; `None` once the process is gone.
    pub(super) fn measure_memory(&self) -> Option<u64> {
        let found = self.gauge.as_ref()?.private_bytes()?;
        self.memory.store(found, Ordering::Relaxed);
        Some(found)
    }

    pub(super) fn scrubber(&self) -> Option<&Scrubber> {
        self.owner.get().and_then(|it| it.scrubber.as_ref())
    }
}
