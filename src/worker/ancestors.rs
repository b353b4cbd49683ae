//! Ancestors of a process, as `/proc` shows them.

use nix::unistd::Pid;
use std::{fs, iter};

/// Maximum ancestors of a process to examine.
const ANCESTORS_MAX: usize = 64;

/// Returns the process itself, its parent, and so on, as far as this process can see them.
pub(super) fn lineage(process: Pid) -> impl Iterator<Item = Pid> {
    iter::successors(Some(process), |pid| parent(*pid)).take(ANCESTORS_MAX)
}

fn parent(process: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The preceding name is in parentheses and may contain anything.
    let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
    (parent > 0).then(|| Pid::from_raw(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_comes_before_its_parent() {
        let first: Vec<Pid> = lineage(Pid::this()).take(2).collect();
        assert_eq!(first, [Pid::this(), Pid::parent()]);
    }
}
