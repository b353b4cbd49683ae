//! Ends processes of an earlier daemon that outlived it.
//!
//! The kernel ends a worker with its daemon. Where functions share the machine's process numbers, the processes that a
//! function has started besides survive a killed daemon, and the next daemon ends them. They are recognised by the
//! daemon's [`ProcessMark`].

use super::process_mark::ProcessMark;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::{Pid, getpgid, getpgrp},
};
use rustix::process;
use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

/// Longest wait for the processes to end. A process may hang in the kernel.
const PATIENCE: Duration = Duration::from_secs(2);

/// Consecutive searches that must find no process before the job is done: a process that starts another and ends may
/// slip between two numbers that are read.
const EMPTY_PASSES: u32 = 2;

/// A process, identified by a handle even when its number is reused.
struct Orphan {
    pid: Pid,
    handle: OwnedFd,
}

/// Ends every process that bears the mark and waits until each is dead: one may hold the port that is bound next. Call
/// this only while no other daemon can have the mark.
pub(super) fn end(mark: ProcessMark) {
    let deadline = Instant::now() + PATIENCE;
    let (mut empty, mut ended) = (0, 0);
    while empty < EMPTY_PASSES {
        let found = find(mark);
        for orphan in &found {
            tracing::warn!(
                pid = orphan.pid.as_raw(),
                "ending a process that a function of an earlier daemon left behind"
            );
            orphan.kill();
        }
        found.iter().for_each(|it| it.wait_until(deadline));
        ended += found.len();
        empty = if found.is_empty() { empty + 1 } else { 0 };
        if ended == 0 {
            return;
        }
        if Instant::now() >= deadline {
            return tracing::error!(
                processes = ended,
                "processes that functions of an earlier daemon left behind do not end"
            );
        }
    }
}

/// Finds the marked processes that are not dead. Takes 20 µs for each process of the machine.
fn find(mark: ProcessMark) -> Vec<Orphan> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let marked = pids.filter(|pid| *pid != own && mark.is_on(*pid));
    // The number certainly means this process only once there is a handle, so the mark is checked again.
    let handles = marked.filter_map(|pid| Some((pid, open(pid)?))).filter(|(pid, _)| mark.is_on(*pid));
    let orphans = handles.map(|(pid, handle)| Orphan { pid: Pid::from_raw(pid as i32), handle });
    orphans.filter(|it| !it.is_dead_by(PollTimeout::ZERO)).collect()
}

/// Opens a descriptor of a process, which becomes readable when all its threads have ended.
fn open(pid: u32) -> Option<OwnedFd> {
    let pid = process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    process::pidfd_open(pid, process::PidfdFlags::empty()).ok()
}

impl Orphan {
    /// Ends the process with its group, so that a process it is just starting ends as well. A worker leads a session,
    /// so everything in the group came from that worker.
    fn kill(&self) {
        let group = getpgid(Some(self.pid)).ok().filter(|group| *group != getpgrp());
        let _ = process::pidfd_send_signal(&self.handle, process::Signal::KILL);
        let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    }

    fn wait_until(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        self.is_dead_by(PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
    }

    /// Whether all threads of the process have ended: only then does it hold no file any more.
    fn is_dead_by(&self, timeout: PollTimeout) -> bool {
        let mut files = [PollFd::new(self.handle.as_fd(), PollFlags::POLLIN)];
        poll(&mut files, timeout).is_ok_and(|ready| ready > 0)
    }
}
