//! From a [`Blueprint`] to a [`Worker`] that has loaded its function.

use super::{
    Exit, KillReason, LAST_WORDS_MAX, Launcher, Runtime, Shared, Worker,
    boot::Booted,
    calls::Calls,
    folder::{self, Folder},
    launch::{LaunchError, LaunchSpec, Limit, MemoryGauge, Resource},
    link::{Link, SOCKET_NAME, SocketPath},
    orphans,
    ping::Ping,
    prewarm::Stock,
    supervise::{Streams, Supervisor},
};
use crate::{
    bundle::{BundleError, Compiled},
    model::{ColdStart, Digest, EnvironmentName, FunctionId, FunctionName, VersionLabel},
    protocol::worker::{Assigned, LoadError},
    telemetry::Logs,
};
use arc_swap::ArcSwap;
use nix::fcntl::OFlag;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::{UnixStream, unix::pipe},
    sync::{oneshot, watch},
};
use tokio_util::task::TaskTracker;

/// Files a worker may have open.
const OPEN_FILES_MAX: u64 = 4096;

/// What the workers of one pool are made of.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// The function's id.
    pub function_id: FunctionId,
    /// The function's name.
    pub function: FunctionName,
    /// The version they run.
    pub version: VersionLabel,
    /// The environment they run in.
    pub environment: EnvironmentName,
    /// What its bundle hashes to.
    pub digest: Digest,
    /// The file they import, absolute.
    pub entry: PathBuf,
    /// What they import instead, once it is there.
    pub compiled: Compiled,
    /// The export they call.
    pub handler: String,
    /// Bytes of private memory one of them may have, at present.
    pub memory_max: Arc<AtomicU64>,
}

/// What bounds starts and the output of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnLimits {
    /// From the spawn until the function is loaded.
    pub start_timeout: Duration,
    /// A log line is cut to this many bytes.
    pub line_bytes_max: usize,
    /// Log lines of one worker that are kept in a second.
    pub lines_per_second_max: u32,
    /// Processes that wait for a function.
    pub prewarmed_workers: usize,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be made.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Its folder, socket or pipes could not be made.
    #[error("cannot prepare a worker: {0}")]
    Prepare(#[from] io::Error),
    /// The bundle could not be imported.
    #[error("the bundle cannot be loaded: {}", .error.message)]
    Load {
        /// What the import said.
        error: Box<LoadError>,
        /// The last lines the worker wrote.
        boot_log: Vec<String>,
    },
    /// The process ended before the function was loaded.
    #[error("the worker ended while it was starting: {0}")]
    Exited(Exit),
    /// The process did not get there in time.
    #[error("the worker was not ready after {} ms", .after.as_millis())]
    Timeout {
        /// The time it had.
        after: Duration,
        /// The last lines the worker wrote.
        boot_log: Vec<String>,
    },
    /// The bundle is not what was published.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The worker said what it must not say.
    #[error("the worker broke the protocol: {0}")]
    Protocol(String),
}

impl StartError {
    /// What the worker wrote before it failed.
    #[must_use]
    pub fn boot_log(&self) -> &[String] {
        match self {
            Self::Load { boot_log, .. } | Self::Timeout { boot_log, .. } => boot_log,
            Self::Exited(exit) => &exit.last_words,
            Self::Launch(_) | Self::Prepare(_) | Self::Bundle(_) | Self::Protocol(_) => &[],
        }
    }
}

/// Makes workers.
#[derive(Debug)]
pub struct Spawner {
    launcher: Launcher,
    runtime: Runtime,
    /// Holds one folder for each worker.
    run_dir: PathBuf,
    next_folder: AtomicU64,
    logs: Arc<Logs>,
    limits: ArcSwap<SpawnLimits>,
    /// Owns the supervising tasks.
    tasks: TaskTracker,
    stock: Stock,
    /// Every process there is, those that start included.
    processes: Mutex<Vec<Weak<Shared>>>,
    /// Bytes of private memory that all of them had when it was last read.
    memory: AtomicU64,
}

impl Spawner {
    /// Starts the launching thread, empties `run_dir`, and ends what functions of a killed daemon have left running.
    pub fn new(runtime: Runtime, run_dir: &Path, logs: Arc<Logs>, limits: SpawnLimits) -> io::Result<Self> {
        let run_dir = std::path::absolute(run_dir)?;
        orphans::end(&run_dir);
        folder::make_empty(&run_dir)?;
        Ok(Self {
            launcher: Launcher::start()?,
            runtime,
            run_dir,
            next_folder: AtomicU64::new(1),
            logs,
            limits: ArcSwap::from_pointee(limits),
            tasks: TaskTracker::new(),
            stock: Stock::new(limits.prewarmed_workers),
            processes: Mutex::default(),
            memory: AtomicU64::new(0),
        })
    }

    /// The Bun that workers run on.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Changes the limits of workers that start from now on.
    pub fn set_limits(&self, limits: SpawnLimits) {
        if limits != **self.limits.load() {
            self.limits.store(Arc::new(limits));
            self.stock.set_wanted(limits.prewarmed_workers);
        }
    }

    /// Reads the memory of every process, and ends workers that have more than their function may have.
    ///
    /// Takes about a microsecond for each process.
    pub fn enforce_memory(&self) {
        let mut total = 0;
        for worker in self.processes() {
            let Some(found) = worker.measure_memory() else { continue };
            total += found;
            // A process without a function has nothing in it that could grow.
            let Some(owner) = worker.owner.get() else { continue };
            let max = owner.memory_max.load(Ordering::Relaxed);
            if found > max {
                worker.kill(KillReason::OutOfMemory { found, max });
            }
        }
        self.memory.store(total, Ordering::Relaxed);
    }

    /// Private memory of all processes in bytes, the prewarmed included, as [`Self::enforce_memory`] last found it.
    #[must_use]
    pub fn measured_memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Ends every worker at once.
    pub fn kill_all(&self) {
        for worker in self.processes() {
            worker.kill(KillReason::Stop);
        }
    }

    /// Private memory of all processes in bytes, read now.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.processes().iter().filter_map(|worker| worker.measure_memory()).sum()
    }

    fn processes(&self) -> Vec<Arc<Shared>> {
        let mut processes = self.processes.lock();
        let mut alive = Vec::with_capacity(processes.len());
        processes.retain(|process| match process.upgrade() {
            Some(process) if process.exit.borrow().is_none() => {
                alive.push(process);
                true
            }
            _ => false,
        });
        alive
    }

    /// Waits until the last worker's supervisor has ended; no worker may be started any more.
    pub async fn drained(&self) {
        self.stock.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Loads the function into a prewarmed process. `None` if there is none, or none that lives.
    ///
    /// Like [`Self::spawn`], cancelled it leaves no process behind.
    pub async fn claim(&self, blueprint: &Blueprint) -> Option<Result<Worker, StartError>> {
        let (asked, limits) = (Instant::now(), **self.limits.load());
        let worker = self.stock.take()?.assign(blueprint, &limits, asked, ColdStart::Prewarmed).await;
        // Only now: the start of another process would have slowed down this import.
        self.stock.refill();
        // One that has ended may have done so before it was claimed; a new process tells for sure.
        Some(worker).filter(|worker| !matches!(worker, Err(StartError::Exited(_))))
    }

    /// Starts a process and loads the function into it.
    ///
    /// `permit` is dropped before the import: that is the function's own code, and may take as long as it likes within
    /// the start's time without holding up the starts of others.
    pub async fn spawn<P>(&self, blueprint: &Blueprint, permit: P) -> Result<Worker, StartError> {
        let (asked, limits) = (Instant::now(), **self.limits.load());
        let booted = self.boot(&limits).await?;
        drop(permit);
        booted.assign(blueprint, &limits, asked, ColdStart::Spawned).await
    }

    /// Starts a process, loads the function into it and ends it: only what loading it was like is of interest.
    pub async fn rehearse(&self, blueprint: &Blueprint) -> Result<Assigned, StartError> {
        let worker = self.spawn(blueprint, ()).await?;
        worker.kill(KillReason::Stop);
        Ok(worker.assigned)
    }

    /// Waits until a prewarmed process is missing.
    pub async fn prewarm_missing(&self) {
        self.stock.missing().await;
    }

    /// Makes one prewarmed process.
    pub async fn prewarm(&self) -> Result<(), StartError> {
        let limits = **self.limits.load();
        self.stock.put(self.boot(&limits).await?);
        Ok(())
    }

    /// How many processes wait for a function.
    #[must_use]
    pub fn prewarmed(&self) -> usize {
        self.stock.len()
    }

    async fn boot(&self, limits: &SpawnLimits) -> Result<Booted, StartError> {
        let folder = Folder::new(&self.run_dir.join(self.next_folder.fetch_add(1, Ordering::Relaxed).to_string()))?;
        let link = Link::new(SocketPath::new(folder.open()?));
        let (shared, ready) = self.start_process(folder, limits).await?;
        Booted::new(shared, link, ready, limits).await
    }

    async fn start_process(
        &self,
        folder: Folder,
        limits: &SpawnLimits,
    ) -> Result<(Arc<Shared>, oneshot::Receiver<()>), StartError> {
        let (control, stdin) = std::os::unix::net::UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        let control = Arc::new(UnixStream::from_std(control)?);
        let streams = Streams {
            control: Arc::clone(&control),
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            stderr: pipe::Receiver::from_owned_fd(stderr)?,
        };
        let process = self
            .launcher
            .launch(LaunchSpec {
                program: self.runtime.bun.clone(),
                args: self.runtime.worker_args(SOCKET_NAME),
                environment: environment(&folder.path),
                working_dir: folder.path.clone(),
                stdin: stdin.into(),
                stdout: child_stdout,
                stderr: child_stderr,
                limits: vec![Limit { resource: Resource::RLIMIT_NOFILE, soft: OPEN_FILES_MAX, hard: OPEN_FILES_MAX }],
            })
            .await?;
        let shared = Arc::new(Shared {
            gauge: MemoryGauge::open(process.pid()),
            memory: AtomicU64::new(0),
            process,
            control,
            calls: Calls::default(),
            ping: Ping::default(),
            owner: OnceLock::new(),
            last_words: Mutex::new(VecDeque::with_capacity(LAST_WORDS_MAX)),
            kill_reason: OnceLock::new(),
            exit: watch::Sender::new(None),
        });
        let (ready, is_ready) = oneshot::channel();
        self.processes.lock().push(Arc::downgrade(&shared));
        let logs = Arc::clone(&self.logs);
        let supervisor = Supervisor::new(Arc::clone(&shared), logs, limits, streams, ready);
        self.tasks.spawn(async move {
            supervisor.run().await;
            drop(folder);
        });
        Ok((shared, is_ready))
    }
}

/// Everything in a worker's environment before its function's variables.
fn environment(folder: &Path) -> Vec<(String, String)> {
    let folder = folder.to_string_lossy();
    [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", &folder),
        ("TMPDIR", &folder),
        // Bun would otherwise keep transpiled sources in the home folder.
        ("BUN_RUNTIME_TRANSPILER_CACHE_PATH", "0"),
        ("DO_NOT_TRACK", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}
