//! Processes of an earlier daemon that outlived it.
//!
//! A worker dies with its daemon by the kernel's doing. What a function has started besides does not where it shares its
//! numbers with the machine's processes, when the daemon is killed; the next one ends it. Such a process is known by the
//! daemon's [`Mark`].
#![allow(unsafe_code, reason = "pidfd_open and pidfd_send_signal have no safe wrapper")]

use super::mark::Mark;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::{Pid, getpgid, getpgrp},
};
use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    time::{Duration, Instant},
};

/// How long their end is waited for. A process may hang in the kernel.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often in a row none must be found before none is left: one that starts another and ends may be between two numbers
/// that are read.
const EMPTY_PASSES: u32 = 2;

/// A process, whoever gets its number later.
struct Orphan {
    pid: Pid,
    handle: OwnedFd,
}

/// Ends every process that bears the mark and waits until each is dead: it may hold the port that is bound next. To be
/// called while no other daemon can have the mark.
pub(super) fn end(mark: Mark) {
    let deadline = Instant::now() + PATIENCE;
    let (mut empty, mut ended) = (0, 0);
    while empty < EMPTY_PASSES {
        let found = find(mark);
        for orphan in &found {
            tracing::warn!(
                pid = orphan.pid.as_raw(),
                "ending a process that a function of an earlier daemon has left behind"
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
                "what functions of an earlier daemon have left behind does not end"
            );
        }
    }
}

/// Those that are not dead. Takes 20 µs for each process of the machine.
fn find(mark: Mark) -> Vec<Orphan> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let marked = pids.filter(|pid| *pid != own && mark.is_on(*pid));
    // With a handle, and not before, it is certain whom the number means: it is looked at again.
    let handles = marked.filter_map(|pid| Some((pid, open(pid).ok()?))).filter(|(pid, _)| mark.is_on(*pid));
    let orphans = handles.map(|(pid, handle)| Orphan { pid: Pid::from_raw(pid as i32), handle });
    orphans.filter(|it| !it.is_dead_by(PollTimeout::ZERO)).collect()
}

/// A descriptor of a process, which can be read from when all its threads have ended.
fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a call without memory.
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0 as libc::c_uint) };
    if handle == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(handle as RawFd) })
}

impl Orphan {
    /// Ends it with its group, so that what it is just starting ends as well. A worker leads a session, and so all of the
    /// group has come from that worker.
    fn kill(&self) {
        let group = getpgid(Some(self.pid)).ok().filter(|group| *group != getpgrp());
        let (handle, none) = (self.handle.as_raw_fd(), ptr::null::<libc::siginfo_t>());
        // SAFETY: without details of the signal it is a call without memory.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle, libc::SIGKILL, none, 0 as libc::c_uint) };
        let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    }

    fn wait_until(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        self.is_dead_by(PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
    }

    /// Whether it and all its threads have ended: then it holds no file any more.
    fn is_dead_by(&self, timeout: PollTimeout) -> bool {
        let mut files = [PollFd::new(self.handle.as_fd(), PollFlags::POLLIN)];
        poll(&mut files, timeout).is_ok_and(|ready| ready > 0)
    }
}
