//! Sets the identity of a process in a new user namespace, where it differs from the daemon's.
//!
//! Only a process outside may set it, but the thread that created the child is suspended until the child executes its
//! program (`CLONE_VFORK`): so another thread sets it, and the child waits.
//!
//! ```text
//! launching thread: clone ·····················································▶ goes on
//! child:                  ── "born" ──▶ waits         ── "mapped" ──▶ … execve
//! this thread:      waits               uid_map, gid_map
//! ```

use super::confine::UserMap;
use std::{
    fs,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicI32, Ordering},
};

/// Both ends of the channel between the child and the mapping thread, which exchange a byte each.
pub(super) struct Gate {
    outside: UnixStream,
    inside: OwnedFd,
}

/// The descriptors for the child: the end that it uses, and the other one, which it closes.
#[derive(Clone, Copy)]
pub(super) struct GateFiles {
    pub(super) inside: RawFd,
    pub(super) outside: RawFd,
}

impl Gate {
    pub(super) fn new() -> io::Result<Self> {
        let (outside, inside) = UnixStream::pair()?;
        let (outside, inside) = (above_stdio(outside.into())?, above_stdio(inside.into())?);
        Ok(Self { outside: outside.into(), inside })
    }

    pub(super) fn files(&self) -> GateFiles {
        GateFiles { inside: self.inside.as_raw_fd(), outside: self.outside.as_raw_fd() }
    }

    /// Splits the ends: one for the mapping thread, one to close once the child does not need it any more.
    pub(super) fn split(self) -> (UnixStream, OwnedFd) {
        (self.outside, self.inside)
    }
}

/// Waits until the child exists, writes its maps and releases it; on failure the child is not released. `pidfd` holds
/// the child's descriptor from its creation on.
pub(super) fn map(mut gate: UnixStream, pidfd: &AtomicI32, map: UserMap) -> io::Result<()> {
    let mut born = [0];
    gate.read_exact(&mut born)?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.load(Ordering::Acquire)))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    let pid = pid.ok_or_else(|| io::Error::other("the kernel does not show the number of a new process"))?;
    let line = format!("{} {} 1", map.inside, map.outside);
    fs::write(format!("/proc/{pid}/gid_map"), &line)?;
    fs::write(format!("/proc/{pid}/uid_map"), &line)?;
    gate.write_all(&[0])
}

/// Moves a file to a descriptor that `dup2` to 0, 1 and 2 does not overwrite.
pub(super) fn above_stdio(file: OwnedFd) -> io::Result<OwnedFd> {
    // The standard library duplicates to 3 and above.
    if file.as_raw_fd() > 2 { Ok(file) } else { file.try_clone() }
}
