//! Control groups of version 2: one hierarchy, in which a group hands its controllers down to those below it.
//!
//! A group that hands controllers down may not hold processes itself. A daemon that is alone in its group therefore
//! moves into a leaf below it, and the workers' groups become that leaf's siblings:
//!
//! ```text
//! levain.service            the daemon's group at its start; hands down memory, pids, cpu
//! ├── levain-daemon         the daemon and what it runs besides workers; all daemons of this group share it
//! ├── <name>.<slot>.<n>     a worker
//! └── …
//! ```

use super::{CgroupVersion, Controllers, Tree, Unavailable, make_probe, place::V2Place, remove, write};
use crate::worker::ancestors::lineage;
use nix::{errno::Errno, unistd::Pid};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Group that the daemon moves into.
const DAEMON_LEAF: &str = "levain-daemon";

/// Maximum rounds of looking for processes that were forked while their parents were moved.
const MOVES_MAX: u32 = 8;

/// Prepares the group whose children the workers' groups may be; this process may have been moved.
pub(super) fn find(place: &V2Place, name: &str, wanted: Controllers) -> Result<Tree, Unavailable> {
    let base = base(&place.directory);
    let on_offer = fs::read_to_string(base.join("cgroup.controllers"))
        .map_err(|source| Unavailable::NotWritable { group: base.clone(), source })?;
    let on_offer = wanted.among(on_offer.split_whitespace());
    if on_offer.is_empty() {
        return Err(Unavailable::NoControllers { group: base });
    }
    // Only the root of the machine has no type; the rule does not apply there. Elsewhere the move comes first: a group
    // with processes to which only pids and cpu are handed down would let no process into the groups below it.
    if base.join("cgroup.type").exists() {
        move_to_leaf(&base, place.is_root)?;
    }
    let probed =
        hand_down(&base, on_offer).and_then(|controllers| make_probe(&base, name, CgroupVersion::V2, controllers));
    probed.map_err(|source| Unavailable::NotWritable { group: base, source })
}

/// Returns the group that this process was in before it, or the process that started it, moved into the leaf.
fn base(own: &Path) -> PathBuf {
    match own.parent() {
        Some(parent) if own.ends_with(DAEMON_LEAF) => parent.into(),
        _ => own.into(),
    }
}

/// Enables the controllers for every group below `base`. Returns those that worked, or an error if none did.
fn hand_down(base: &Path, wanted: Controllers) -> io::Result<Controllers> {
    let control = base.join("cgroup.subtree_control");
    let present = fs::read_to_string(&control)?;
    let mut enabled = Controllers::default();
    let mut failure = io::Error::from(io::ErrorKind::Unsupported);
    for name in wanted.names() {
        // One at a time: the kernel refuses cpu, but not the others, while there are processes with real-time priority.
        match present.split_whitespace().any(|it| it == name) {
            true => enabled.add(name),
            false => match write(&control, &format!("+{name}")) {
                Ok(()) => enabled.add(name),
                Err(error) => failure = error,
            },
        }
    }
    if enabled.is_empty() { Err(failure) } else { Ok(enabled) }
}

/// Moves this process and its descendants out of `base`; at the root of a container, everything that is there.
///
/// Moves nothing if a foreign process would stay: a daemon must not move another's shell or terminal.
fn move_to_leaf(base: &Path, all: bool) -> Result<(), Unavailable> {
    let not_writable = |source| Unavailable::NotWritable { group: base.into(), source };
    let leaf = base.join(DAEMON_LEAF);
    let us = Pid::this();
    for attempt in 0..MOVES_MAX {
        let processes = remove::processes(base).map_err(not_writable)?;
        if let Some(stranger) = processes.iter().find(|pid| !all && lineage(**pid).all(|it| it != us)) {
            let command = fs::read_to_string(format!("/proc/{stranger}/comm")).unwrap_or_default();
            return Err(Unavailable::Shared {
                group: base.into(),
                process: format!("process {stranger} ({})", command.trim()),
            });
        }
        if processes.is_empty() {
            break;
        }
        if attempt == 0 {
            super::make_dir(&leaf).map_err(not_writable)?;
        }
        for process in processes {
            match write(&leaf.join("cgroup.procs"), &process.to_string()) {
                // The process has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                result => result.map_err(not_writable)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
