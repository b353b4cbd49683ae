//! The daemon: starts its parts in order, owns every task, and stops them in the opposite order.
//!
//! ```text
//! start: folder → lock → leftovers of a killed daemon end → sockets are bound, HTTP (not ready) → Bun → store
//!        → bundles → logs → workers → router → socket is served → warm workers
//! stop:  socket closes → running invocations finish (shutdown_grace) → workers end → HTTP closes → logs are written
//!        → lock is freed
//! ```
//!
//! **Invariant.** Dropping or killing the daemon at any instant leaves no worker (the kernel ends them with their
//! parent) and no state but what was committed.

mod derive;
mod lock;
mod open;
mod process;
mod restore;

pub use restore::{FailedRestore, Restored, restore};

use crate::{
    bundle::BundleError,
    commands::{self, AdminTokenError, Context, OpenVariablesError},
    config::{Config, ConfigError, Effective},
    http,
    ipc::{self, BindError},
    lanes::Lanes,
    logging::LevelHandle,
    scheduler::{self},
    store::StoreError,
    telemetry::TelemetryError,
    watch,
    worker::{
        BunRuntime, RunFolder, SpawnerError,
        runtime::{self, RuntimeError},
    },
};
use derive::{log_options, sandbox_options, scheduler_limits, spawn_limits};
use lock::{DataLock, lock};
use open::open;
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A path of the configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A restore into the directory was interrupted.
    #[error("a restore into {} was interrupted: run `levain restore` again to start over", data_dir.display())]
    Restoring {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The database is missing, but other parts of its node exist.
    #[error(
        "the database {} is missing or empty, and other parts of its node are there ({}): put it back, or restore a \
         backup into another directory; to begin with an empty node, move {} away first",
        data_dir.join("levain.db").display(), found.join(", "), if found.len() == 1 { "that" } else { "all of these" }
    )]
    NoDatabase {
        /// The data directory.
        data_dir: PathBuf,
        /// The parts found.
        found: Vec<&'static str>,
    },
    /// A file or folder of the data directory is unusable.
    #[error("cannot use the data directory: {}: {source}; check its owner and permissions, or choose another with --data-dir", path.display())]
    DataDir {
        /// The file or folder.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Another daemon uses the data directory.
    #[error("the data directory {} is in use by another daemon{holder}: stop it with `levain stop`, or choose another directory with --data-dir", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Process of that daemon, if known, as part of the message.
        holder: String,
    },
    /// Bun cannot be found or used.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The secrets cannot be opened.
    #[error(transparent)]
    Variables(#[from] OpenVariablesError),
    /// The bundles cannot be opened.
    #[error(transparent)]
    Bundles(#[from] BundleError),
    /// The log database cannot be opened.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// HTTP cannot be served as configured.
    #[error(transparent)]
    Http(#[from] http::BindError),
    /// The threads that serve connections cannot be started.
    #[error("cannot start the threads that serve connections: {0}")]
    Threads(#[source] io::Error),
    /// Workers cannot be started.
    #[error(transparent)]
    Workers(#[from] SpawnerError),
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] io::Error),
}

impl From<AdminTokenError> for StartError {
    fn from(error: AdminTokenError) -> Self {
        match error {
            AdminTokenError::File { path, source } => Self::DataDir { path, source },
            AdminTokenError::Store(error) => Self::Store(error),
        }
    }
}

/// Reads the configuration again.
pub type Reload = Arc<dyn Fn() -> Result<Effective, ConfigError> + Send + Sync>;

/// Options of a daemon.
pub struct Options {
    /// The effective configuration.
    pub config: Config,
    /// The file to watch, and the function that reads the configuration again. Without it, SIGHUP has no effect.
    pub reload: Option<(Option<PathBuf>, Reload)>,
    /// Handle of the log, whose level follows the configuration.
    pub log_level: Option<LevelHandle>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("config", &self.config).finish_non_exhaustive()
    }
}

impl From<Config> for Options {
    fn from(config: Config) -> Self {
        Self { config, reload: None, log_level: None }
    }
}

/// The signals that stop a daemon. They are received from the creation of this value on; created before the start, it
/// keeps a signal that arrives during the start.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to receive the signals, which no longer end the process.
    pub fn listen() -> Result<Self, StartError> {
        let listen = |kind| signal(kind).map_err(StartError::Signals);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    context: Arc<Context>,
    socket: PathBuf,
    http: Option<SocketAddr>,
    face: Option<Arc<http::Face>>,
    /// Servers of the command socket and of HTTP.
    servers: JoinSet<()>,
    /// Background tasks of the daemon.
    helpers: JoinSet<()>,
    /// Held until everything else has ended.
    _lock: Arc<DataLock>,
}

impl Daemon {
    /// Starts a daemon within the current tokio runtime. If any step fails, nothing is left running.
    pub async fn start(options: impl Into<Options>) -> Result<Self, StartError> {
        let Options { config, reload, log_level } = options.into();
        let config = config.absolute()?;
        // Registered before anybody can know that the daemon runs: until then a SIGHUP would end the process.
        let reload = match reload {
            Some(reload) => Some((signal(SignalKind::hangup()).map_err(StartError::Signals)?, reload)),
            None => None,
        };
        process::raise_file_limit();
        process::keep_freed_memory();
        process::leave_no_core();
        let data_dir = config.data_dir().to_owned();
        let lock = Arc::new(lock(&data_dir)?);
        restore::finish(&data_dir)?;
        restore::refuse_remains(&data_dir)?;
        // Ends leftovers of a killed daemon before an address is bound, which one of them may have taken.
        let run_folder =
            RunFolder::clear(&data_dir.join("run"), &sandbox_options(&config)).map_err(SpawnerError::from)?;
        let socket = config.socket_path();
        // Bound before anything slow, so that a second daemon on the same socket fails at once.
        let shared = !(config.daemon.allowed_uids.is_empty() && config.daemon.allowed_gids.is_empty());
        let lanes = Arc::new(Lanes::start().map_err(StartError::Threads)?);
        let server = ipc::Server::bind(&socket, shared, Arc::clone(&lanes)).await?;
        let stopping = CancellationToken::new();
        let http = http::Server::bind(&config, lanes, stopping.clone()).await?;
        let http_place = http.as_ref().map(http::Server::place);
        let http_address = http_place.map(|it| it.address);
        let shown = http_address.map_or_else(|| "off".to_owned(), |it| it.to_string());
        let face = http.as_ref().map(http::Server::face);
        let mut servers = JoinSet::new();
        if let Some(http) = http {
            // Served from the beginning, so that load balancers see that the daemon is not ready.
            servers.spawn(http.run());
            tracing::info!(http = shown, "starting");
        }
        let found = runtime::find(config.bun_path(), &data_dir).await?;
        let runtime = BunRuntime::new(found, &data_dir)?;
        tracing::info!(bun = %runtime.bun.display(), version = %runtime.version, "found Bun");
        let context = open(config, data_dir, runtime, run_folder, http_place, stopping).await?;
        context.leave_missing_manifests();
        let mut helpers = start_helpers(&context, face.clone());
        helpers.spawn(lock::keep(Arc::downgrade(&lock)));
        if let Some((hangup, (file, reload))) = reload {
            let apply = {
                let (context, face) = (Arc::clone(&context), face.clone());
                move || reload_config(&context, face.as_deref(), &reload, log_level.as_ref())
            };
            helpers.spawn(watch::config(file, hangup, apply));
        }
        servers.spawn(server.run(Arc::clone(&context)));
        if let Some(face) = &face {
            face.open(Arc::clone(&context));
            let (files, renewed) = (face.certificate_files(), Arc::clone(face));
            helpers.spawn(watch::folders(files, move || renewed.reload_certificate()));
        }
        let (functions, pid) = (context.router.totals().functions, std::process::id());
        tracing::info!(socket = %socket.display(), http = shown, functions, pid, "ready");
        Ok(Self { context, socket, http: http_address, face, servers, helpers, _lock: lock })
    }

    /// Path of the command socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Address of the HTTP server, if HTTP is on.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Serves until SIGTERM or SIGINT, then shuts down.
    pub async fn run(self, mut signals: Signals) {
        let name = tokio::select! {
            _ = signals.terminate.recv() => "SIGTERM",
            _ = signals.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping; a second signal ends running invocations at once");
        let context = Arc::clone(&self.context);
        let mut shutdown = pin!(self.shutdown());
        let again = async {
            tokio::select! {
                _ = signals.terminate.recv() => {}
                _ = signals.interrupt.recv() => {}
            }
        };
        tokio::select! {
            () = &mut shutdown => return,
            () = again => context.scheduler.kill_all(),
        }
        shutdown.await;
    }

    /// Stops taking requests, lets running ones finish within the grace period, and ends everything.
    pub async fn shutdown(mut self) {
        let grace = self.context.config.load().daemon.shutdown_grace();
        self.context.stopping.cancel();
        self.context.scheduler.shutdown(grace).await;
        self.context.tasks.close();
        self.context.tasks.wait().await;
        if let Some(face) = &self.face {
            face.close();
        }
        // A connection that is still open here has a client that does not read its answers.
        let served = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(FLUSH_GRACE, served).await.is_err() {
            self.servers.shutdown().await;
        }
        self.helpers.shutdown().await;
        if let Err(error) = self.context.write_token_uses().await {
            tracing::error!(%error, "cannot write when tokens were last used");
        }
        if let Err(error) = self.context.write_injections().await {
            tracing::error!(%error, "cannot write which workers were given secrets");
        }
        let (context, face) = (Arc::clone(&self.context), self.face.take());
        let finish = move || {
            context.telemetry.close();
            face.inspect(|face| face.finish());
        };
        let _ = tokio::task::spawn_blocking(finish).await;
        self.context.store.mark_when_closed();
        tracing::info!("stopped");
    }
}

/// Time that clients get to read their last answers.
const FLUSH_GRACE: Duration = Duration::from_secs(2);

/// Starts the background tasks.
fn start_helpers(context: &Arc<Context>, face: Option<Arc<http::Face>>) -> JoinSet<()> {
    let mut helpers = JoinSet::new();
    let scheduler = context.scheduler.clone();
    helpers.spawn(async move { scheduler.keep_prewarmed().await });
    helpers.spawn(tick(Arc::clone(context)));
    helpers.spawn(enforce_memory(Arc::clone(context)));
    helpers.spawn(warm(Arc::clone(context), face));
    helpers.spawn(commands::keep_compiled(Arc::clone(context)));
    helpers.spawn(commands::keep_watch(Arc::clone(context)));
    helpers.spawn(commands::keep_expiring(Arc::clone(context)));
    helpers.spawn(commands::keep_previews(Arc::clone(context)));
    helpers.spawn(commands::keep_token_uses(Arc::clone(context)));
    helpers.spawn(commands::keep_secret_audit(Arc::clone(context)));
    helpers
}

/// Starts the workers that are always kept, and notes when they are warm.
async fn warm(context: Arc<Context>, face: Option<Arc<http::Face>>) {
    context.warm_floors().await;
    face.inspect(|face| face.warmed());
}

async fn tick(context: Arc<Context>) {
    let mut interval = tokio::time::interval(scheduler::TICK);
    loop {
        interval.tick().await;
        context.scheduler.tick();
    }
}

async fn enforce_memory(context: Arc<Context>) {
    loop {
        let interval = context.config.load().workers.memory_poll();
        tokio::time::sleep(interval).await;
        context.scheduler.enforce_memory();
    }
}

/// Reads the configuration again and applies its live keys.
fn reload_config(context: &Context, face: Option<&http::Face>, reload: &Reload, log_level: Option<&LevelHandle>) {
    let config = match reload() {
        Ok(effective) => effective.config,
        Err(error) => {
            // The access log is reopened all the same: rotating it must not depend on a valid configuration.
            face.inspect(|face| face.reload(&context.config.load()));
            return tracing::error!("the configuration is not reloaded, the old one stays in use: {error}");
        }
    };
    let changes = crate::config::diff(&context.config.load(), &config);
    if let Some(log_level) = log_level
        && let Err(error) = log_level.set(&config.daemon.log_level)
    {
        return tracing::error!("the configuration is not reloaded, the old one stays in use: {error}");
    }
    context.scheduler.set_limits(scheduler_limits(&config));
    context.scheduler.spawner().set_limits(spawn_limits(&config));
    context.telemetry.logs().set_options(log_options(&config));
    context.config.store(Arc::new(context.config.load().reloaded(&config)));
    face.inspect(|face| face.reload(&config));
    if !changes.live.is_empty() {
        tracing::info!(keys = changes.live.join(", "), "the configuration is reloaded");
    }
    if !changes.restart.is_empty() {
        tracing::warn!(keys = changes.restart.join(", "), "these changes take effect at the next start");
    }
}
