//! The mark that every process of a daemon bears and cannot remove.
//!
//! The mark is two resource limits without effect since Linux 2.6: those on resident memory and on file locks. An
//! unprivileged process can lower such a limit but never raise it, inherits it from its parent for ever, and anybody
//! may read it. The two values identify the daemon and have the same sum for all daemons: to be taken for another
//! daemon's, a process would have to raise one of them. A changed environment, name or program, another session or a
//! dead parent does not affect the mark.
//!
//! ```text
//! resident memory = BASE + n        file locks = BASE + (SPAN - n)        n = hash of the data directory
//! ```
//!
//! A process that has lowered a limit is still recognised: both limits are set, and their sum is wrong. A process with
//! `CAP_SYS_RESOURCE` can remove the mark: functions have that at the level `off` if the daemon is root.

use super::launch::{Limit, Resource};
use nix::{libc::RLIM_INFINITY, sys::resource::getrlimit};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::UNIX_EPOCH,
};

/// Lowest value of either limit: more than any machine has bytes, and less than what counts as a negative number.
const BASE: u64 = 1 << 61;

/// Number of different marks, less one.
const SPAN: u64 = 1 << 60;

/// Sum of the two limits of an unchanged mark.
const SUM: u64 = 2 * BASE + SPAN;

/// The mark of one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessMark {
    memory: u64,
    locks: u64,
}

/// Relation of a process to the daemon, as its limits show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MarkMatch {
    /// Not a process of this daemon.
    Foreign,
    /// The process bears the mark, or one half of it.
    Marked,
    /// Both limits are set but are not a mark: a process may have lowered those of this daemon.
    Altered,
}

impl ProcessMark {
    /// Returns the mark of the daemon with this data directory; `None` if this process already has such limits. In that
    /// case a function started it, and everything that it starts bears the mark of that function's daemon.
    ///
    /// The directory is identified by its place on the disk and its time of creation: the path in another machine or
    /// container may be the same, and a copy has the same files.
    ///
    /// # Errors
    /// When the metadata of the directory or the limits cannot be read.
    pub(super) fn of(data_dir: &Path) -> io::Result<Option<Self>> {
        for resource in [Resource::RLIMIT_RSS, Resource::RLIMIT_LOCKS] {
            if getrlimit(resource)?.1 != RLIM_INFINITY {
                return Ok(None);
            }
        }
        let found = fs::metadata(data_dir)?;
        let born = found.created().ok().and_then(|it| it.duration_since(UNIX_EPOCH).ok());
        let mut hasher = DefaultHasher::new();
        (found.dev(), found.ino(), born).hash(&mut hasher);
        Ok(Some(Self::numbered(hasher.finish())))
    }

    fn numbered(number: u64) -> Self {
        let number = number % SPAN;
        Self { memory: BASE + number, locks: BASE + SPAN - number }
    }

    /// Returns the limits that give a process this mark.
    pub(super) fn limits(self) -> [Limit; 2] {
        [Limit::fixed(Resource::RLIMIT_RSS, self.memory), Limit::fixed(Resource::RLIMIT_LOCKS, self.locks)]
    }

    /// Whether a living process bears the mark.
    pub(super) fn is_on(self, pid: u32) -> bool {
        let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else { return false };
        match self.bearing(&limits) {
            MarkMatch::Foreign => false,
            MarkMatch::Marked => true,
            MarkMatch::Altered => fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|it| may_be_ours(&it)),
        }
    }

    fn bearing(self, limits: &str) -> MarkMatch {
        let (memory, locks) = (hard_limit(limits, "Max resident set"), hard_limit(limits, "Max file locks"));
        let (Some(memory), Some(locks)) = (memory, locks) else { return MarkMatch::Foreign };
        if memory == self.memory || locks == self.locks {
            return MarkMatch::Marked;
        }
        let is_lowered = memory < self.memory && locks < self.locks && memory.checked_add(locks) != Some(SUM);
        if is_lowered { MarkMatch::Altered } else { MarkMatch::Foreign }
    }
}

/// Returns the hard limit with this name, if it is a number.
fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process has the daemon's user and can gain no privileges, like all processes of a daemon and few others.
fn may_be_ours(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let user = field("Uid:").and_then(|it| it.split_whitespace().next()?.parse().ok());
    user == Some(nix::unistd::getuid().as_raw()) && field("NoNewPrivs:").is_some_and(|it| it.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(memory: u64, locks: u64) -> String {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max resident set          {memory:<20} {memory:<20} bytes     \n\
             Max file locks            {locks:<20} {locks:<20} locks     \n"
        )
    }

    #[test]
    fn limits_that_nobody_has_set_are_no_mark() {
        let mark = ProcessMark::numbered(7);
        let own = fs::read_to_string("/proc/self/limits").expect("the limits of this process");
        assert_eq!(mark.bearing(&own), MarkMatch::Foreign);
        let one = shown(1, 2).replace("2                   ", "unlimited           ");
        assert_eq!(mark.bearing(&one), MarkMatch::Foreign);
    }

    #[test]
    fn a_folder_keeps_its_mark_and_shares_it_with_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = tempfile::tempdir().expect("a folder");
        let mark = |path| ProcessMark::of(path).expect("metadata");
        assert_eq!(mark(folder.path()), mark(folder.path()));
        assert_ne!(mark(folder.path()), mark(other.path()));
    }

    proptest! {
        /// Lowered limits are recognised, and never taken for the mark of another daemon.
        #[test]
        fn no_mark_is_lowered_to_another(number: u64, other: u64, by in 0..=SUM, and_by in 0..=SUM) {
            let (mark, other) = (ProcessMark::numbered(number), ProcessMark::numbered(other));
            prop_assume!(mark != other);
            prop_assert_eq!(mark.bearing(&shown(mark.memory, mark.locks)), MarkMatch::Marked);
            prop_assert_eq!(mark.bearing(&shown(other.memory, other.locks)), MarkMatch::Foreign);
            let (memory, locks) = (mark.memory.saturating_sub(by), mark.locks.saturating_sub(and_by));
            prop_assert_ne!(mark.bearing(&shown(memory, locks)), MarkMatch::Foreign);
        }
    }
}
