//! Throw-away processes: Bun on untrusted code, to inspect, build or compile it.
//!
//! A [`Workplace`] is a folder that is removed with the value. Processes run in it one after the other, each confined
//! like a worker, except that it may be allowed to write to the folder. A process is ended early if it exceeds its
//! time, memory or disk limit, or if its result is not wanted any more; everything it has started ends with it.
//!
//! **Invariant.** When [`Workplace::run`] returns, or is dropped, nothing runs in the workplace. (Without a sandbox a
//! process that has left its group lives on; the daemon's next start ends it.)

mod usage;

use super::{
    cgroup::{self, ControlGroup},
    launch::{LaunchError, LaunchSpec, LaunchedProcess, MemoryGauge},
    sandbox::{GROUP_OVERHEAD_BYTES, Role, Slot, View},
    spawn::{Spawner, environment},
};
use crate::model::Network;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use parking_lot::Mutex;
use std::{
    collections::HashSet,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout_at},
};
use usage::Usage;
pub use usage::count as tree_bytes;
use uuid::Uuid;

/// Interval at which the files of a process are measured.
const DISK_INTERVAL: Duration = Duration::from_millis(250);

/// Interval at which the memory of a process is read.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

/// Time in which the last output of an ended process must arrive.
const LAST_WORDS_GRACE: Duration = Duration::from_millis(500);

/// Limits for the processes of a workplace.
#[derive(Debug, Clone, Copy)]
pub struct WorkplaceLimits {
    /// Bytes of private memory.
    pub memory_max: u64,
    /// Processes and threads.
    pub processes_max: u32,
    /// Bytes of files in the workplace.
    pub disk_max: u64,
}

/// A folder in which throw-away processes run.
#[derive(Debug)]
pub struct Workplace<'a> {
    spawner: &'a Spawner,
    slot: Arc<Slot>,
    limits: WorkplaceLimits,
}

/// Fills a workplace, on a thread that may block.
#[derive(Debug)]
pub struct Filler(Arc<Slot>);

impl Filler {
    /// Copies a folder into the workplace; the processes own the copy. Blocks on the disk.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn fill(&self, name: &str, from: &Path) -> io::Result<()> {
        self.0.fill(name, from)
    }
}

/// A process to run.
#[derive(Debug)]
pub struct ToolJob<'a> {
    /// Arguments of Bun.
    pub args: Vec<OsString>,
    /// Variables added to those that every process has, or replacing them.
    pub environment: Vec<(String, String)>,
    /// Working directory, relative to the workplace.
    pub folder: &'a Path,
    /// Network access of the process.
    pub network: Network,
    /// Whether the process may write to the workplace.
    pub is_writable: bool,
    /// A folder of the daemon's to show read-only, and its place in the workplace.
    pub shown: Option<(&'a Path, &'a Path)>,
    /// Time at which the process is ended.
    pub deadline: Instant,
}

/// Reason why a process did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The process was not started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The workplace could not be prepared, or the output could not be read.
    #[error("cannot prepare a process: {0}")]
    Io(#[from] io::Error),
    /// The time limit was exceeded.
    #[error("it took too long")]
    Timeout,
    /// The memory limit was exceeded.
    #[error("it needed more than {} MiB of memory", .0 >> 20)]
    OutOfMemory(u64),
    /// The disk limit was exceeded.
    #[error("it wrote more than {} MiB of files", .0 >> 20)]
    DiskFull(u64),
}

impl Spawner {
    /// Creates an empty workplace.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn workplace(&self, limits: WorkplaceLimits) -> io::Result<Workplace<'_>> {
        Ok(Workplace { spawner: self, slot: Arc::new(self.sandbox.tool_slot()?), limits })
    }

    /// Whether folders of the daemon's can be shown to processes ([`ToolJob::shown`]).
    #[must_use]
    pub fn can_show(&self) -> bool {
        self.sandbox.view() == View::OwnRoot
    }
}

impl Workplace<'_> {
    /// Returns a filler for the workplace. Use it while nothing runs there.
    #[must_use]
    pub fn filler(&self) -> Filler {
        Filler(Arc::clone(&self.slot))
    }

    /// Puts all files of a folder into the workplace, for processes that may not write there.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub async fn deliver(&self, folder: &Path) -> io::Result<()> {
        self.slot.deliver(folder).await
    }

    /// Creates an empty folder with an unused name in the workplace; the processes own it. Call this while nothing runs
    /// there.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn make_folder(&self, relative: &Path) -> io::Result<()> {
        self.slot.make_folder(relative)
    }

    /// Path of a file in the workplace, as the daemon sees it.
    #[must_use]
    pub fn outside(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.slot.bundle().join(relative)
    }

    /// Path of a file in the workplace, as a process sees it.
    #[must_use]
    pub fn inside(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.slot.bundle_inside().join(relative)
    }

    /// Path of a shim file, as a process sees it.
    #[must_use]
    pub fn shim(&self, name: &str) -> PathBuf {
        self.spawner.sandbox.shim_folder(&self.spawner.runtime).join(name)
    }

    /// Runs Bun to its end. Its output on either stream goes to `print` as it arrives.
    ///
    /// # Errors
    /// See [`ToolError`]. A process that exits with a failure is not an error.
    pub async fn run(&self, job: ToolJob<'_>, mut print: impl FnMut(&[u8])) -> Result<ExitStatus, ToolError> {
        let deadline = job.deadline;
        let (running, output) = self.start(job).await?;
        let mut watch = UsageWatch::new(self, &running);
        let watched = async {
            let mut output = Some(output);
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let next = async {
                    match &mut output {
                        Some(output) => output.read(&mut buffer).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    read = next => match read {
                        Ok(0) | Err(_) => output = None,
                        Ok(length) => print(&buffer[..length]),
                    },
                    ended = running.process.wait() => break Ok((ended?, output)),
                    excess = watch.excess() => break Err(excess),
                    () = sleep_until(deadline) => break Err(ToolError::Timeout),
                }
            }
        };
        let (status, output) = watched.await?;
        running.end();
        if let Some(mut output) = output {
            let patience = Instant::now() + LAST_WORDS_GRACE;
            let mut buffer = vec![0; 16 * 1024];
            // Bounded by the pipe: every process that could write to it has ended.
            while let Ok(Ok(length @ 1..)) = timeout_at(patience, output.read(&mut buffer)).await {
                print(&buffer[..length]);
            }
        }
        if status.signal() == Some(libc::SIGKILL) && running.has_exceeded_memory() {
            return Err(ToolError::OutOfMemory(self.limits.memory_max));
        }
        Ok(status)
    }

    /// Creates the control group of the next process, which is of no use after that.
    fn group(&self) -> io::Result<Option<ControlGroup>> {
        let limits = cgroup::GroupLimits {
            memory_max: self.limits.memory_max.saturating_add(GROUP_OVERHEAD_BYTES),
            processes_max: self.limits.processes_max.into(),
        };
        let name = Uuid::now_v7().simple().to_string();
        self.spawner.cgroups.as_ref().map(|cgroups| cgroups.group(&name, &limits)).transpose()
    }

    async fn start(&self, job: ToolJob<'_>) -> Result<(RunningTool, pipe::Receiver), ToolError> {
        let stdin = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(io::Error::from)?;
        let (output, stdout) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
        let stderr: OwnedFd = stdout.try_clone()?;
        let output = pipe::Receiver::from_owned_fd(output)?;
        let Spawner { sandbox, runtime, launcher, .. } = self.spawner;
        let group = self.group()?.map(Arc::new);
        let mut environment = environment(&self.slot.home_inside());
        environment.retain(|(name, _)| job.environment.iter().all(|it| it.0 != *name));
        environment.extend(job.environment);
        let role = Role::Tool {
            network: job.network,
            group: group.as_deref(),
            is_writable: job.is_writable,
            shown: job.shown,
        };
        let spec = LaunchSpec {
            program: sandbox.bun(runtime),
            args: job.args,
            environment,
            working_dir: self.inside(job.folder),
            stdin,
            stdout,
            stderr,
            limits: sandbox.tool_limits(self.limits.processes_max),
            confinement: sandbox.confine(&self.slot, runtime, role)?,
        };
        let process = Arc::new(launcher.launch(spec).await?);
        let tools = Arc::clone(&self.spawner.tools);
        tools.lock().insert(process.pid());
        let running = RunningTool { process, group, tools };
        let entering = (Arc::clone(&running.process), running.group.clone());
        // Entering may take milliseconds.
        let entered = spawn_blocking(move || {
            let (process, group) = entering;
            group.and_then(|group| process.with_pid(|pid| group.add(pid)))
        });
        match entered.await.map_err(io::Error::other)? {
            // A process that has ended already needs no limits.
            Some(Err(error)) if error.raw_os_error() != Some(libc::ESRCH) => Err(error.into()),
            _ => Ok((running, output)),
        }
    }
}

/// A process of a workplace. Dropping it ends it with everything it has started.
struct RunningTool {
    process: Arc<LaunchedProcess>,
    group: Option<Arc<ControlGroup>>,
    /// Contains this process as long as it runs: none of them may command the daemon.
    tools: Arc<Mutex<HashSet<u32>>>,
}

impl RunningTool {
    fn end(&self) {
        self.process.kill_tree();
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    fn has_exceeded_memory(&self) -> bool {
        self.group.as_ref().is_some_and(|it| it.out_of_memory_kills() > 0)
    }
}

impl Drop for RunningTool {
    fn drop(&mut self) {
        self.end();
        self.tools.lock().remove(&self.process.pid());
    }
}

/// Monitors the consumption of a process.
struct UsageWatch {
    limits: WorkplaceLimits,
    folder: PathBuf,
    gauge: Option<MemoryGauge>,
    group: Option<Arc<ControlGroup>>,
    memory_due: Instant,
    disk_due: Instant,
}

impl UsageWatch {
    fn new(place: &Workplace<'_>, running: &RunningTool) -> Self {
        let now = Instant::now();
        Self {
            limits: place.limits,
            folder: place.slot.bundle(),
            gauge: MemoryGauge::open(running.process.pid()),
            group: running.group.clone(),
            memory_due: now + MEMORY_INTERVAL,
            disk_due: now + DISK_INTERVAL,
        }
    }

    /// Waits until the process exceeds a limit. Cancel-safe: the next call continues.
    async fn excess(&mut self) -> ToolError {
        loop {
            sleep_until(self.memory_due.min(self.disk_due)).await;
            let now = Instant::now();
            if self.memory_due <= now {
                self.memory_due = now + MEMORY_INTERVAL;
                let bytes = self.gauge.as_ref().and_then(MemoryGauge::private_bytes).unwrap_or(0);
                let has_lost_one = self.group.as_ref().is_some_and(|it| it.out_of_memory_kills() > 0);
                if bytes > self.limits.memory_max || has_lost_one {
                    return ToolError::OutOfMemory(self.limits.memory_max);
                }
            }
            if self.disk_due <= now {
                let folder = self.folder.clone();
                let max = self.limits.disk_max;
                let usage = spawn_blocking(move || Usage::of(&folder, max)).await.unwrap_or(Usage::Over);
                // Counted from now, so that a tree that takes long to measure is not measured all the time.
                self.disk_due = Instant::now() + DISK_INTERVAL;
                if usage == Usage::Over {
                    return ToolError::DiskFull(max);
                }
            }
        }
    }
}
