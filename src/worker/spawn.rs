//! Turns a [`Blueprint`] into a [`Worker`] that has loaded its function.

use super::{
    Worker,
    blueprint::{Blueprint, SpawnLimits},
    boot::Booted,
    cgroup::Cgroups,
    error::{SpawnerError, StartError},
    exit::KillReason,
    inner::WorkerInner,
    invocations::InvocationTable,
    last_words::LastWords,
    launch::{LaunchSpec, Launcher, MemoryGauge},
    output_pipe::OutputPipe,
    ping::Ping,
    prewarm::PrewarmPool,
    process_mark::ProcessMark,
    run_folder::RunFolder,
    runtime::{BunRuntime, REHEARSAL},
    sandbox::{self, IsolationReport, Role, Sandbox, SandboxOptions, Slot},
    supervise::{Streams, Supervisor},
};
use crate::{
    config::SandboxMode,
    model::{ColdStart, Network},
    protocol::worker::Assigned,
    telemetry::Logs,
};
use arc_swap::ArcSwap;
use nix::{
    fcntl::OFlag,
    unistd::{Pid, getpgid, getsid},
};
use parking_lot::Mutex;
use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::{
    net::{UnixStream, unix::pipe},
    sync::{oneshot, watch},
    task::spawn_blocking,
};
use tokio_util::task::TaskTracker;

/// Starts workers and owns their processes.
#[derive(Debug)]
pub struct Spawner {
    pub(super) launcher: Launcher,
    pub(super) runtime: BunRuntime,
    pub(super) sandbox: Sandbox,
    pub(super) cgroups: Option<Cgroups>,
    /// Mark of every started process.
    mark: Option<ProcessMark>,
    report: IsolationReport,
    logs: Arc<Logs>,
    limits: ArcSwap<SpawnLimits>,
    /// Owns the supervising tasks.
    tasks: TaskTracker,
    /// Prewarmed processes, with a network and without.
    stocks: [PrewarmPool; 2],
    /// Every process, including those that are starting.
    processes: Mutex<Vec<Weak<WorkerInner>>>,
    /// Process ids of the running throw-away processes.
    pub(super) tools: Arc<Mutex<HashSet<u32>>>,
    /// Private memory of all processes in bytes, at the last reading.
    memory: AtomicU64,
}

/// Whether somebody waits for the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// The start yields to everything else.
    Low,
    /// The worker starts like any process.
    Normal,
}

impl Spawner {
    /// Starts the launching thread and finds the best sandbox that works, by starting a worker in it.
    pub async fn start(
        runtime: BunRuntime,
        folder: RunFolder,
        logs: Arc<Logs>,
        limits: SpawnLimits,
        sandbox: SandboxOptions,
    ) -> Result<Self, SpawnerError> {
        let RunFolder { path, mark, cgroups } = folder;
        let mut spawner = Self {
            launcher: Launcher::start()?,
            runtime,
            sandbox: Sandbox::off(&sandbox, &path, mark),
            cgroups: None,
            mark,
            report: IsolationReport::default(),
            logs,
            limits: ArcSwap::from_pointee(limits),
            tasks: TaskTracker::new(),
            stocks: [PrewarmPool::new(limits.prewarmed_workers), PrewarmPool::new(0)],
            processes: Mutex::default(),
            tools: Arc::default(),
            memory: AtomicU64::new(0),
        };
        let mut missing = Vec::new();
        match cgroups {
            Some(Ok(cgroups)) => spawner.cgroups = Some(cgroups),
            Some(Err(error)) => missing.push(format!("limits on all processes of a function together: {error}")),
            None => {}
        }
        spawner.choose_sandbox(&sandbox, &path).await?;
        spawner.report.cgroups = spawner.cgroups.as_ref().map(|it| it.describe().to_string());
        spawner.report.missing.append(&mut missing);
        Ok(spawner)
    }

    async fn choose_sandbox(&mut self, options: &SandboxOptions, run_dir: &Path) -> Result<(), SpawnerError> {
        let mut failed = Vec::new();
        for level in options.levels() {
            let tried = match Sandbox::prepare(level, options, &self.runtime, run_dir, self.mark) {
                Ok(sandbox) => {
                    self.sandbox = sandbox;
                    self.trial().await
                }
                Err(error) => Err(StartError::Prepare(error)),
            };
            let why = match tried {
                Ok(trial) => {
                    self.report = self.sandbox.report(failed);
                    if let Some(unwanted) = self.stocks[0].put(trial) {
                        unwanted.end().await;
                    }
                    return Ok(());
                }
                // A full disk says nothing about what the machine offers.
                Err(StartError::Prepare(source)) if is_no_room(&source) => {
                    return Err(SpawnerError::NoRoom { level: level.name(), source });
                }
                Err(StartError::Prepare(error)) => sandbox::LevelFailure::Refused(error.to_string()),
                Err(error @ StartError::Timeout { .. }) => sandbox::LevelFailure::Slow(error.to_string()),
                Err(error) => sandbox::LevelFailure::Refused(error.to_string()),
            };
            failed.push((level, why));
        }
        self.sandbox = Sandbox::off(options, run_dir, self.mark);
        self.report = self.sandbox.report(failed);
        match options.mode {
            SandboxMode::Strict => Err(SpawnerError::NoSandbox { missing: self.report.missing.clone() }),
            SandboxMode::Auto | SandboxMode::Off => Ok(()),
        }
    }

    /// Starts a worker in the sandbox. A start that takes too long is tried once more: a busy machine is likelier than
    /// one that does not offer what the sandbox needs.
    async fn trial(&self) -> Result<Booted, StartError> {
        match self.boot_ahead(Network::On, Urgency::Normal).await {
            Err(StartError::Timeout { .. }) => self.boot_ahead(Network::On, Urgency::Normal).await,
            tried => tried,
        }
    }

    /// The isolation of workers that is in effect.
    #[must_use]
    pub fn sandbox(&self) -> &IsolationReport {
        &self.report
    }

    /// The Bun runtime of the workers.
    #[must_use]
    pub fn runtime(&self) -> &BunRuntime {
        &self.runtime
    }

    /// Changes the limits of workers that start from now on.
    pub fn set_limits(&self, limits: SpawnLimits) {
        if limits != **self.limits.load() {
            self.limits.store(Arc::new(limits));
            for stock in self.stocks.iter().filter(|stock| stock.is_used()) {
                stock.set_wanted(limits.prewarmed_workers);
            }
        }
    }

    /// Reads the memory of every process, and ends workers that use more than their function may.
    ///
    /// Takes about a microsecond for each process.
    pub fn enforce_memory(&self) {
        let mut total = 0;
        for worker in self.processes() {
            let Some(found) = worker.measure_memory() else { continue };
            total += found;
            // A process without a function contains nothing that could grow.
            let Some(owner) = worker.owner.get() else { continue };
            let max = owner.memory_max.load(Ordering::Relaxed);
            worker.limit_memory(max);
            if worker.has_lost_a_process() {
                worker.kill(KillReason::OutOfMemory { found: max + sandbox::GROUP_OVERHEAD_BYTES, max });
            }
            if found > max {
                worker.kill(KillReason::OutOfMemory { found, max });
            }
        }
        self.memory.store(total, Ordering::Relaxed);
    }

    /// Private memory of all processes in bytes, prewarmed ones included, at the last [`Self::enforce_memory`].
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

    /// Whether a process is a worker or a throw-away process, or was started by one. Its group, session and mark tell:
    /// a worker leads both a group and a session, and its descendants are in them unless they have left both. A process
    /// that has ended cannot be identified any more and counts as one.
    #[must_use]
    pub fn is_worker(&self, process: Pid) -> bool {
        let (Ok(group), Ok(session)) = (getpgid(Some(process)), getsid(Some(process))) else { return true };
        let leads =
            |worker: &Arc<WorkerInner>| [group, session].map(|it| it.as_raw() as u32).contains(&worker.process.pid());
        let is_tool = || {
            let tools = self.tools.lock();
            [group, session].iter().any(|it| tools.contains(&(it.as_raw() as u32)))
        };
        let is_marked = || self.mark.is_some_and(|mark| mark.is_on(process.as_raw().unsigned_abs()));
        self.processes().iter().any(leads) || is_tool() || is_marked()
    }

    /// Reads the private memory of all processes now, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.processes().iter().filter_map(|worker| worker.measure_memory()).sum()
    }

    fn processes(&self) -> Vec<Arc<WorkerInner>> {
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

    /// Waits until the last worker's supervisor has ended; no worker may be started after this.
    pub async fn drained(&self) {
        self.stocks.iter().for_each(PrewarmPool::close);
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Loads the function into a prewarmed process. `None` if no living one is in stock.
    ///
    /// Leaves no process behind when cancelled, like [`Self::spawn`].
    pub async fn claim(&self, blueprint: &Blueprint) -> Option<Result<Worker, StartError>> {
        let (asked, limits) = (Instant::now(), **self.limits.load());
        let stock = self.stock(blueprint.network.get());
        if !stock.is_used() {
            // From now on, processes of this kind have a user.
            stock.set_wanted(limits.prewarmed_workers);
        }
        let worker = stock.take()?.assign(blueprint, &limits, asked, ColdStart::Prewarmed).await;
        // Only after the import, which the start of another process would have slowed down.
        stock.refill();
        // The process may have ended before the claim; a new process tells for sure.
        Some(worker).filter(|worker| !matches!(worker, Err(StartError::Exited(_))))
    }

    fn stock(&self, network: Network) -> &PrewarmPool {
        match network {
            Network::On => &self.stocks[0],
            Network::Off => &self.stocks[1],
        }
    }

    /// Starts a process and loads the function into it.
    ///
    /// `permit` is dropped before the import: the import runs the function's own code, which may take all of the start
    /// time without holding up other starts.
    pub async fn spawn<P>(&self, blueprint: &Blueprint, permit: P) -> Result<Worker, StartError> {
        let (asked, limits) = (Instant::now(), **self.limits.load());
        let booted = self.boot(&limits, blueprint.network.get(), Urgency::Normal).await?;
        drop(permit);
        booted.assign(blueprint, &limits, asked, ColdStart::Spawned).await
    }

    /// Starts a process, loads the function into it and ends it: only the result of loading is of interest.
    pub async fn rehearse(&self, blueprint: &Blueprint) -> Result<Assigned, StartError> {
        let worker = self.spawn(blueprint, ()).await?;
        worker.kill(KillReason::Stop);
        Ok(worker.assigned)
    }

    /// Waits until a prewarmed process is missing; returns its kind.
    pub async fn prewarm_missing(&self) -> Network {
        let [with, without] = &self.stocks;
        tokio::select! {
            () = with.missing() => Network::On,
            () = without.missing() => Network::Off,
        }
    }

    /// Starts one prewarmed process.
    pub async fn prewarm(&self, network: Network) -> Result<(), StartError> {
        let booted = self.boot_ahead(network, Urgency::Low).await?;
        drop(self.stock(network).put(booted));
        Ok(())
    }

    /// Starts a process without a function.
    async fn boot_ahead(&self, network: Network, urgency: Urgency) -> Result<Booted, StartError> {
        let limits = **self.limits.load();
        let booted = self.boot(&limits, network, urgency).await?;
        booted.rehearse(&self.sandbox.shim_folder(&self.runtime).join(REHEARSAL), &limits).await?;
        booted.become_urgent();
        Ok(booted)
    }

    /// Number of processes that wait for a function.
    #[must_use]
    pub fn prewarmed(&self) -> usize {
        self.stocks.iter().map(PrewarmPool::len).sum()
    }

    async fn boot(&self, limits: &SpawnLimits, network: Network, urgency: Urgency) -> Result<Booted, StartError> {
        let slot = Arc::new(self.sandbox.slot(self.cgroups.as_ref())?);
        let (shared, ready) = self.start_process(&slot, limits, network).await?;
        // Only once the process executes Bun: until then the thread that starts all processes waits for it, and on a
        // full machine a process of low priority would hold up every other start.
        if let (Urgency::Low, Some(group)) = (urgency, slot.group())
            && let Err(error) = group.set_low_priority(true)
        {
            tracing::warn!(%error, "cannot lower the priority of a background start");
        }
        let entering = {
            let shared = Arc::clone(&shared);
            // Concurrent with the start of Bun, because it may take as long.
            spawn_blocking(move || shared.enter_group())
        };
        let booted = Booted::new(shared, slot, network, ready, limits).await?;
        entering.await.map_err(io::Error::other)??;
        Ok(booted)
    }

    async fn start_process(
        &self,
        slot: &Arc<Slot>,
        limits: &SpawnLimits,
        network: Network,
    ) -> Result<(Arc<WorkerInner>, oneshot::Receiver<()>), StartError> {
        let (control, stdin) = std::os::unix::net::UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        let control = Arc::new(UnixStream::from_std(control)?);
        let streams = Streams {
            control: Arc::clone(&control),
            stdout: OutputPipe::Open(pipe::Receiver::from_owned_fd(stdout)?),
            stderr: OutputPipe::Open(pipe::Receiver::from_owned_fd(stderr)?),
        };
        let (program, args) = self.sandbox.command(&self.runtime);
        let home = slot.home_inside();
        let process = self
            .launcher
            .launch(LaunchSpec {
                program,
                args,
                environment: environment(&home),
                working_dir: home,
                stdin: stdin.into(),
                stdout: child_stdout,
                stderr: child_stderr,
                limits: self.sandbox.limits(),
                confinement: self.sandbox.confine(slot, &self.runtime, Role::Worker(network))?,
            })
            .await?;
        let shared = Arc::new(WorkerInner {
            gauge: MemoryGauge::open(process.pid()),
            memory: AtomicU64::new(0),
            process,
            group: slot.group().cloned(),
            group_memory_max: AtomicU64::new(0),
            control,
            invocations: InvocationTable::default(),
            ping: Ping::default(),
            owner: OnceLock::new(),
            last_words: LastWords::default(),
            kill_reason: OnceLock::new(),
            exit: watch::Sender::new(None),
        });
        let (ready, is_ready) = oneshot::channel();
        self.processes.lock().push(Arc::downgrade(&shared));
        let (logs, slot) = (Arc::clone(&self.logs), Arc::clone(slot));
        let supervisor = Supervisor::new(Arc::clone(&shared), logs, limits, streams, ready);
        self.tasks.spawn(async move {
            supervisor.run().await;
            drop(slot);
        });
        Ok((shared, is_ready))
    }
}

/// Whether an error comes from a shortage that ends, and not from what the machine does not offer.
fn is_no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | OutOfMemory)
}

/// Returns a worker's environment before its function's variables.
pub(super) fn environment(folder: &Path) -> Vec<(String, String)> {
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
