//! From a [`Blueprint`] to a [`Worker`] that has loaded its function.

use super::{
    Exit, KillReason, LAST_WORDS_MAX, Launcher, Runtime, Shared, Worker,
    calls::Calls,
    folder::{self, Folder},
    launch::{LaunchError, LaunchSpec, Limit, Resource},
    link::{ExchangeError, Link, SOCKET_NAME, SocketPath},
    orphans,
    supervise::{Streams, Supervisor},
};
use crate::{
    bundle::BundleError,
    model::{Digest, EnvironmentName, FunctionId, FunctionName, VersionLabel},
    protocol::worker::{ASSIGN_PATH, AssignFailed, Assigned, Assignment, LoadError},
    telemetry::Logs,
};
use arc_swap::ArcSwap;
use http::{Method, StatusCode};
use nix::fcntl::OFlag;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
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

/// The most bytes of an answer to an assignment that are read.
const ASSIGN_ANSWER_BYTES_MAX: usize = 64 * 1024;

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
    /// The export they call.
    pub handler: String,
    /// Bytes of private memory one of them may have, at present.
    pub memory_max: Arc<AtomicU64>,
}

/// What bounds a start and the output of a worker.
#[derive(Debug, Clone, Copy)]
pub struct SpawnLimits {
    /// From the spawn until the function is loaded.
    pub start_timeout: Duration,
    /// A log line is cut to this many bytes.
    pub line_bytes_max: usize,
    /// Log lines of one worker that are kept in a second.
    pub lines_per_second_max: u32,
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
    /// Every process there is, those that start included.
    processes: Mutex<Vec<Weak<Shared>>>,
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
            processes: Mutex::default(),
        })
    }

    /// The Bun that workers run on.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Changes the limits of workers that start from now on.
    pub fn set_limits(&self, limits: SpawnLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// Ends workers that have more memory than their function may have.
    pub fn enforce_memory(&self) {
        for worker in self.processes() {
            let max = worker.memory_max.load(Ordering::Relaxed);
            if let Some(found) = worker.private_memory().filter(|found| *found > max) {
                worker.kill(KillReason::OutOfMemory { found, max });
            }
        }
    }

    /// Ends every worker at once.
    pub fn kill_all(&self) {
        for worker in self.processes() {
            worker.kill(KillReason::Stop);
        }
    }

    /// Private memory of all workers, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.processes().iter().filter_map(|worker| worker.private_memory()).sum()
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
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Starts a worker and loads the function into it. Cancelled, it leaves no process behind.
    ///
    /// `permit` is dropped before the import: that is the function's own code, and may take as long as it likes within
    /// the start's time without holding up the starts of others.
    pub async fn spawn<P>(&self, blueprint: &Blueprint, permit: P) -> Result<Worker, StartError> {
        let started = Instant::now();
        let limits = **self.limits.load();
        let folder = Folder::new(&self.run_dir.join(self.next_folder.fetch_add(1, Ordering::Relaxed).to_string()))?;
        let socket = SocketPath::new(folder.open()?);
        let (shared, ready) = self.start_process(folder, blueprint, &limits).await?;
        // Until the worker is handed out, losing this future must not lose the process.
        let guard = KillGuard(&shared);
        let link = Link::new(socket);
        let assigned = async {
            ready.await.map_err(|_| None)?;
            drop(permit);
            assign(&link, blueprint, &limits).await.map_err(Some)
        };
        let exit = shared.exit.subscribe();
        match tokio::time::timeout(limits.start_timeout, assigned).await {
            Ok(Ok(())) => {
                std::mem::forget(guard);
                Ok(Worker {
                    shared: Arc::clone(&shared),
                    link,
                    start_time: started.elapsed(),
                    ready_at: Instant::now(),
                })
            }
            Ok(Err(Some(StartError::Load { error, .. }))) => {
                shared.kill(KillReason::Stop);
                let boot_log = wait_for_exit(exit).await.last_words;
                Err(StartError::Load { error, boot_log })
            }
            // Without an answer the process has ended, or is about to; if not, it is of no use.
            Ok(Err(None | Some(StartError::Protocol(_))))
                if tokio::time::timeout(EXIT_GRACE, wait_for_exit(exit.clone())).await.is_ok() =>
            {
                Err(StartError::Exited(wait_for_exit(exit).await))
            }
            Ok(Err(other)) => {
                Err(other.unwrap_or_else(|| StartError::Protocol("it closed its control channel".into())))
            }
            Err(_) => {
                shared.kill(KillReason::StartTimeout);
                let boot_log = wait_for_exit(exit).await.last_words;
                Err(StartError::Timeout { after: limits.start_timeout, boot_log })
            }
        }
    }

    async fn start_process(
        &self,
        folder: Folder,
        blueprint: &Blueprint,
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
            process,
            control,
            calls: Calls::default(),
            memory_max: Arc::clone(&blueprint.memory_max),
            last_words: Mutex::new(VecDeque::with_capacity(LAST_WORDS_MAX)),
            kill_reason: OnceLock::new(),
            exit: watch::Sender::new(None),
        });
        let (ready, is_ready) = oneshot::channel();
        self.processes.lock().push(Arc::downgrade(&shared));
        let logs = Arc::clone(&self.logs);
        let supervisor = Supervisor::new(Arc::clone(&shared), logs, blueprint, limits, streams, ready);
        self.tasks.spawn(async move {
            supervisor.run().await;
            drop(folder);
        });
        Ok((shared, is_ready))
    }
}

/// How long a worker that has closed its channel may take to be gone.
const EXIT_GRACE: Duration = Duration::from_millis(500);

async fn wait_for_exit(mut exit: watch::Receiver<Option<Exit>>) -> Exit {
    let exit = exit.wait_for(Option::is_some).await.expect("the supervisor always reports an exit");
    exit.clone().expect("it was waited for")
}

struct KillGuard<'a>(&'a Shared);

impl Drop for KillGuard<'_> {
    fn drop(&mut self) {
        self.0.kill(KillReason::Stop);
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

async fn assign(link: &Link, blueprint: &Blueprint, limits: &SpawnLimits) -> Result<(), StartError> {
    let assignment = Assignment {
        function: blueprint.function.to_string(),
        function_id: blueprint.function_id.to_string(),
        version: blueprint.version.to_string(),
        environment: blueprint.environment.to_string(),
        entry: blueprint.entry.to_string_lossy().into_owned(),
        handler: blueprint.handler.clone(),
        variables: BTreeMap::new(),
        log_line_bytes_max: u32::try_from(limits.line_bytes_max).unwrap_or(u32::MAX),
        levain: env!("CARGO_PKG_VERSION").into(),
    };
    let body = serde_json::to_vec(&assignment).expect("plain data serialises");
    let protocol = |error: &dyn std::fmt::Display| StartError::Protocol(error.to_string());
    let answer = link.call(&Method::PUT, ASSIGN_PATH, body.into(), ASSIGN_ANSWER_BYTES_MAX).await;
    let (status, answer) = answer.map_err(|error: ExchangeError| protocol(&error))?;
    if status == StatusCode::OK {
        let _: Assigned = serde_json::from_slice(&answer).map_err(|error| protocol(&error))?;
        return Ok(());
    }
    let AssignFailed { error } = serde_json::from_slice(&answer).map_err(|error| protocol(&error))?;
    Err(StartError::Load { error: Box::new(error), boot_log: Vec::new() })
}
