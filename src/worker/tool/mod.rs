//! Throw-away processes: Bun on code that nobody trusts, to make something of it.
//!
//! A [`Workplace`] is a folder that goes with the value, and in it one process after the other may run, each confined as
//! workers are, but that it may be allowed to write to the folder. What ends a process early is its time, its memory, what it has
//! written, or that nobody wants its result any more; with it ends whatever it has started.
//!
//! **Invariant.** When [`Workplace::run`] returns, or is dropped, nothing runs in the workplace. (Without a sandbox a
//! process that has left its group lives on; a daemon's next start ends it.)

mod usage;

use super::{
    Spawner,
    cgroup::{self, Group},
    launch::{LaunchError, LaunchSpec, MemoryGauge, Process},
    sandbox::{GROUP_OVERHEAD_BYTES, Role, Slot, View},
    spawn::environment,
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

/// How often it is looked what a process has written.
const DISK_INTERVAL: Duration = Duration::from_millis(250);

/// How often its memory is read.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);

/// How long the last words of a process may be on their way when it has ended.
const LAST_WORDS_GRACE: Duration = Duration::from_millis(500);

/// What the processes of a workplace may have.
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
    /// Makes a folder in it, of the files of another folder; the processes own it.
    ///
    /// # Errors
    /// What the system says. Blocks on the disk.
    pub fn fill(&self, name: &str, from: &Path) -> io::Result<()> {
        self.0.fill(name, from)
    }
}

/// What a process is to do.
#[derive(Debug)]
pub struct Job<'a> {
    /// Arguments of Bun.
    pub args: Vec<OsString>,
    /// Variables besides those that every process has, or in place of them.
    pub environment: Vec<(String, String)>,
    /// Where it starts, relative to the workplace.
    pub folder: &'a Path,
    /// Whether it reaches anything.
    pub network: Network,
    /// Whether it may write to the workplace.
    pub is_writable: bool,
    /// A folder of the daemon's, and where in the workplace the process finds it, for reading.
    pub shown: Option<(&'a Path, &'a Path)>,
    /// When it is ended.
    pub deadline: Instant,
}

/// Why a process did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It was not started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its place could not be made, or it could not be listened to.
    #[error("cannot prepare a process: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// It had too much memory.
    #[error("it needed more than {} MiB of memory", .0 >> 20)]
    OutOfMemory(u64),
    /// It had written too much.
    #[error("it wrote more than {} MiB of files", .0 >> 20)]
    DiskFull(u64),
}

impl Spawner {
    /// An empty workplace.
    ///
    /// # Errors
    /// What the system says.
    pub fn workplace(&self, limits: WorkplaceLimits) -> io::Result<Workplace<'_>> {
        Ok(Workplace { spawner: self, slot: Arc::new(self.sandbox.tool_slot()?), limits })
    }

    /// Whether processes can be shown folders of the daemon's ([`Job::shown`]).
    #[must_use]
    pub fn can_show(&self) -> bool {
        self.sandbox.view() == View::OwnRoot
    }
}

impl Workplace<'_> {
    /// Fills it. To be done while nothing runs in it.
    #[must_use]
    pub fn filler(&self) -> Filler {
        Filler(Arc::clone(&self.slot))
    }

    /// Puts all files of a folder into it, for processes that may not write there.
    ///
    /// # Errors
    /// What the system says.
    pub async fn deliver(&self, folder: &Path) -> io::Result<()> {
        self.slot.deliver(folder).await
    }

    /// Makes an empty folder in it, whose name is free; the processes own it. To be called while nothing runs in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn make_folder(&self, relative: &Path) -> io::Result<()> {
        self.slot.make_folder(relative)
    }

    /// Where something of it is.
    #[must_use]
    pub fn outside(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.slot.bundle().join(relative)
    }

    /// The same as a process sees it.
    #[must_use]
    pub fn inside(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.slot.bundle_inside().join(relative)
    }

    /// A file of the shim, as a process sees it.
    #[must_use]
    pub fn shim(&self, name: &str) -> PathBuf {
        self.spawner.sandbox.shim_folder(&self.spawner.runtime).join(name)
    }

    /// Runs Bun to its end. What it prints, on either stream, goes to `print` as it comes.
    ///
    /// # Errors
    /// See [`ToolError`]. A process that says itself that it failed is no error.
    pub async fn run(&self, job: Job<'_>, mut print: impl FnMut(&[u8])) -> Result<ExitStatus, ToolError> {
        let deadline = job.deadline;
        let (running, output) = self.start(job).await?;
        let mut watch = Watch::new(self, &running);
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
            // Bounded by the pipe: all that could write to it has ended.
            while let Ok(Ok(length @ 1..)) = timeout_at(patience, output.read(&mut buffer)).await {
                print(&buffer[..length]);
            }
        }
        if status.signal() == Some(libc::SIGKILL) && running.has_exceeded_memory() {
            return Err(ToolError::OutOfMemory(self.limits.memory_max));
        }
        Ok(status)
    }

    /// What limits the next process, and is of no more use when that has ended.
    fn group(&self) -> io::Result<Option<Group>> {
        let limits = cgroup::Limits {
            memory_max: self.limits.memory_max.saturating_add(GROUP_OVERHEAD_BYTES),
            processes_max: self.limits.processes_max.into(),
        };
        let name = Uuid::now_v7().simple().to_string();
        self.spawner.cgroups.as_ref().map(|cgroups| cgroups.group(&name, &limits)).transpose()
    }

    async fn start(&self, job: Job<'_>) -> Result<(Running, pipe::Receiver), ToolError> {
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
        let running = Running { process, group, tools };
        let entering = (Arc::clone(&running.process), running.group.clone());
        // May take milliseconds.
        let entered = spawn_blocking(move || {
            let (process, group) = entering;
            group.and_then(|group| process.with_pid(|pid| group.add(pid)))
        });
        match entered.await.map_err(io::Error::other)? {
            // One that has ended already needs no limits.
            Some(Err(error)) if error.raw_os_error() != Some(libc::ESRCH) => Err(error.into()),
            _ => Ok((running, output)),
        }
    }
}

/// A process of a workplace. Dropped, it is ended with all it has started.
struct Running {
    process: Arc<Process>,
    group: Option<Arc<Group>>,
    /// It is among these as long as it runs: nobody of them may command the daemon.
    tools: Arc<Mutex<HashSet<u32>>>,
}

impl Running {
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

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        self.tools.lock().remove(&self.process.pid());
    }
}

/// Looks at what a process has taken.
struct Watch {
    limits: WorkplaceLimits,
    folder: PathBuf,
    gauge: Option<MemoryGauge>,
    group: Option<Arc<Group>>,
    memory_due: Instant,
    disk_due: Instant,
}

impl Watch {
    fn new(place: &Workplace<'_>, running: &Running) -> Self {
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

    /// Waits until it has taken too much of something. Cancelled, it goes on where it was.
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
                // From now on, so that a tree that takes long to look through is not looked through all the time.
                self.disk_due = Instant::now() + DISK_INTERVAL;
                if usage == Usage::Over {
                    return ToolError::DiskFull(max);
                }
            }
        }
    }
}
