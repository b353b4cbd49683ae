//! CPU time and memory of a process, from `/proc`, and its end.

use crate::Result;
use std::{
    collections::HashMap,
    fs, io,
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// A child process that is ended when this value is dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        command.spawn().map(Self)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time of each thread of a process, in nanoseconds; `stat` would report it in steps of 10 ms.
#[derive(Debug)]
pub(crate) struct CpuTime(HashMap<String, u64>);

impl CpuTime {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?;
            // A thread that has just ended has no file any more.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let on_cpu = text.split(' ').next().unwrap_or_default().parse()?;
            threads.insert(thread.file_name().to_string_lossy().into_owned(), on_cpu);
        }
        Ok(Self(threads))
    }

    /// CPU time added since an earlier reading. A thread that has ended in between counts as zero.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let added = self.0.iter().map(|(thread, now)| now - earlier.0.get(thread).unwrap_or(&0));
        Duration::from_nanos(added.sum())
    }
}

/// Memory that a process does not share with any other, in MiB.
pub(crate) fn private_mib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    let kib = lines.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok());
    Ok(kib.sum::<f64>() / 1024.0)
}

/// Returns the processes that have a mount below a folder or have it as their working directory. The folder is
/// recognised by its name.
pub(crate) fn living_below(folder: &Path) -> Result<Vec<u32>> {
    let folder = folder.canonicalize()?;
    let parts: Vec<_> = folder.iter().rev().take(2).map(|it| it.to_string_lossy().into_owned()).collect();
    let mounted = format!("{}/{}/", parts[1], parts[0]);
    let processes = fs::read_dir("/proc")?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|it| it.starts_with(&folder))
            || fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|it| it.contains(&mounted))
    };
    Ok(pids.filter(is_one).collect())
}

/// Time that a process may take to start.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// Retries until the attempt succeeds, for as long as a start may take.
pub(crate) async fn retry<T, E, F>(mut attempt: impl FnMut() -> F) -> std::result::Result<T, E>
where
    F: Future<Output = std::result::Result<T, E>>,
{
    let began = Instant::now();
    loop {
        match attempt().await {
            Err(_) if began.elapsed() < START_TIME_MAX => tokio::time::sleep(Duration::from_millis(1)).await,
            outcome => return outcome,
        }
    }
}
