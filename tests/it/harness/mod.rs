//! What every test begins with: a daemon in this process, or the real binary; a client; the sample functions.

mod bun;
mod daemon;
mod load;
mod process;
pub mod samples;
mod wait;

pub use bun::bun;
pub use daemon::{TestDaemon, get, is_refused, json, refused, text};
pub use load::Load;
pub use process::{DaemonProcess, Output};
pub use wait::until;

use std::{fs, path::Path};

/// The processes that run in a worker's folder below this data directory.
pub fn workers_of(data_dir: &Path) -> Vec<u32> {
    let run = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned()).join("run");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A zombie has no folder any more, and one whose folder was removed is shown as «… (deleted)».
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&run))).collect()
}
