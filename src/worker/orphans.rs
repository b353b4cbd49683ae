//! Processes of an earlier daemon that outlived it.
//!
//! A worker dies with its daemon by the kernel's doing. What a function has started besides does not, when the daemon is
//! killed; the next one ends it. Such a process is known by its home folder, which it has from its worker.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, os::unix::ffi::OsStrExt, path::Path};

/// Ends every process whose home is below `run_dir`. To be called while no other daemon can use it.
pub(super) fn end(run_dir: &Path) {
    let mut home = b"HOME=".to_vec();
    home.extend_from_slice(run_dir.as_os_str().as_bytes());
    home.push(b'/');
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own) {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&home)) {
            tracing::warn!(pid, "ending a process that a function of an earlier daemon has left behind");
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}
