//! Common parts of the tests: a daemon in this process, or the real binary; a client; the sample functions.

mod bun;
mod daemon;
mod gate;
mod load;
mod process;
pub mod samples;
mod wait;

pub use bun::bun;
pub use daemon::{TestDaemon, get, is_refused, json, refused, text};
pub use gate::Gate;
pub use load::Load;
pub use process::{DaemonProcess, Output};
pub use wait::until;

use std::{fs, path::Path};

/// Number of repetitions: the long one if the variable `LEVAIN_LONG_TESTS` is set, which finds rarer faults.
pub fn repetitions(short: usize, long: usize) -> usize {
    if std::env::var_os("LEVAIN_LONG_TESTS").is_some() { long } else { short }
}

/// Processes of a data directory's workers and their children: they run in one of its folders, or have one mounted.
pub fn workers_of(data_dir: &Path) -> Vec<u32> {
    let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let run = data_dir.join("run");
    // A mount is named relative to its file system: the path begins with the test's own folder. A daemon beside the
    // tests may have a folder `data` as well.
    let parts: Vec<_> = data_dir.iter().map(|it| it.to_str().unwrap()).collect();
    let begin = parts.iter().position(|it| it.starts_with(".tmp")).unwrap_or(parts.len() - 1);
    let mounted = format!("{}/run/", parts[begin..].join("/"));
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // The kernel takes long to list mounts, so those of this process's own namespace are left out.
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = namespace("self");
    let has_mount = |pid: &u32| {
        let other = namespace(&pid.to_string()).filter(|it| Some(it) != own.as_ref());
        let mounts = other.and_then(|_| fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok());
        mounts.is_some_and(|mounts| mounts.contains(&mounted))
    };
    // A zombie has no working directory any more, and a removed one is shown as «… (deleted)».
    let is_one =
        |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&run)) || has_mount(pid);
    pids.filter(is_one).collect()
}
