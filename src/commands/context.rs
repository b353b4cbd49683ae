//! State that the commands share, and the work that is common to them.

use super::{access::Authority, locks::Locks};
use crate::{
    bundle::{BundleStore, BytecodeStore},
    config::Config,
    deploy::{Builder, Manifests, Scratch},
    error::{Error, ErrorCode},
    model::{EnvironmentName, FunctionId, VariablePlace, Version, variable},
    router::{Alias, Entry, Guard, RolloutProgress, Router, Versions},
    scheduler::{Floor, PoolHandle, Scheduler},
    secrets::{KeySource, Variables},
    store::{AliasRecord, FunctionRecord, FunctionState, Store},
    telemetry::Telemetry,
    worker::{Blueprint, SharedNetwork},
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashSet},
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// State that the commands share.
#[derive(Debug)]
pub struct Context {
    /// The effective configuration, swapped at a reload.
    pub config: ArcSwap<Config>,
    /// Directory of all files of the daemon.
    pub data_dir: PathBuf,
    /// Functions, versions, aliases and deployments on disk.
    pub store: Store,
    /// Code of the versions, and what makes and describes it.
    pub code: Code,
    /// In-memory index of the store.
    pub router: Router,
    /// Pools of workers.
    pub scheduler: Scheduler,
    /// Variables of functions, in memory.
    pub variables: Variables,
    /// Source of the key that seals secrets.
    pub key_source: KeySource,
    /// Tokens for HTTP.
    pub authority: Authority,
    /// Logs and metrics.
    pub telemetry: Telemetry,
    /// Tracks the commands that run to their end.
    pub tasks: TaskTracker,
    /// Start of the daemon.
    pub started: Instant,
    /// Cancelled when the daemon begins to stop.
    pub stopping: CancellationToken,
    /// Locks that commands hold while they change something.
    pub locks: Locks,
    /// Wakes the keepers.
    pub wakes: Wakes,
    /// Addresses of HTTP, if it is served.
    pub http: Option<HttpPlace>,
}

/// Code of the versions on disk.
#[derive(Debug)]
pub struct Code {
    /// Bundles of the versions.
    pub bundles: Arc<BundleStore>,
    /// Folders in which code is unpacked.
    pub scratch: Scratch,
    /// Builder of bundles from projects.
    pub builder: Builder,
    /// Manifests that past deployments have left.
    pub manifests: Manifests,
    /// Compiled bytecode, per version.
    pub bytecode: BytecodeStore,
}

/// Wakes the keepers before their next look.
#[derive(Debug, Default)]
pub struct Wakes {
    /// Functions of which an alias may point at another version.
    pub(super) moved: Changes,
    /// Functions of which an alias may have gained or lost a policy or a rollout.
    pub(super) watched: Changes,
    /// Wakes the expiry task when an earlier deadline may exist.
    pub(super) expiring: Notify,
}

impl Wakes {
    fn function_changed(&self, id: FunctionId) {
        self.moved.add(id);
        self.watched.add(id);
        self.expiring.notify_one();
    }
}

/// Functions that have changed since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Changes {
    functions: Mutex<HashSet<FunctionId>>,
    added: Notify,
}

impl Changes {
    fn add(&self, id: FunctionId) {
        self.functions.lock().insert(id);
        self.added.notify_one();
    }

    /// Waits for changed functions, and takes them.
    pub(super) async fn take(&self) -> HashSet<FunctionId> {
        self.added.notified().await;
        std::mem::take(&mut *self.functions.lock())
    }
}

/// Addresses of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpPlace {
    /// Address of the configuration, with the port that is in use.
    pub address: SocketAddr,
    /// The other loopback address with the same port, if another process has it.
    pub taken: Option<SocketAddr>,
}

/// Blocking work of a command.
type Work<T> = Box<dyn FnOnce(&Context) -> Result<T, Error> + Send>;

impl HttpPlace {
    /// Base URL that leads to the daemon, without a slash at its end.
    pub(super) fn url(&self, config: &Config) -> String {
        // An IP address leads only to the daemon, while a name may have several addresses.
        let ip = match self.address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("{}://{}", Self::scheme(config), SocketAddr::new(ip, self.address.port()))
    }

    pub(super) fn scheme(config: &Config) -> &'static str {
        if config.http.tls_files().is_some() { "https" } else { "http" }
    }
}

pub(super) fn shutting_down() -> Error {
    Error::new(ErrorCode::ShuttingDown, "the daemon is stopping; try again when it is back")
}

impl Context {
    /// Runs blocking work, such as SQL, on a blocking thread.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let context = Arc::clone(self);
        // Boxed, like the commands below: the runtime would otherwise have a copy of its code for each kind of work.
        let work: Work<T> = Box::new(work);
        match tokio::task::spawn_blocking(move || work(&context)).await {
            Ok(result) => result,
            Err(error) => Err(Error::internal(error)),
        }
    }

    /// Runs a command to its end, even if its caller leaves.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        command: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match self.tasks.spawn(boxed(command)).await {
            Ok(result) => result,
            Err(error) => Err(Error::internal(error)),
        }
    }

    /// Waits for the function's change lock, and returns the function as it is then. Refused once the daemon stops.
    pub(super) async fn hold(&self, id: FunctionId) -> Result<(OwnedMutexGuard<()>, Arc<Entry>), Error> {
        let lock = self.locks.changing.lock(id).await;
        if self.stopping.is_cancelled() {
            return Err(shutting_down());
        }
        Ok((lock, self.router.by_id(id)?))
    }

    /// Waits for the change locks of all these functions. Refused once the daemon stops.
    pub(super) async fn hold_all(
        &self,
        ids: impl IntoIterator<Item = FunctionId>,
    ) -> Result<Vec<OwnedMutexGuard<()>>, Error> {
        // The order is fixed, so that two commands that change several functions do not wait for each other.
        let ids: BTreeSet<FunctionId> = ids.into_iter().collect();
        let mut locks = Vec::with_capacity(ids.len());
        for id in ids {
            locks.push(self.locks.changing.lock(id).await);
        }
        if self.stopping.is_cancelled() { Err(shutting_down()) } else { Ok(locks) }
    }

    /// Returns the place of variables that a request names.
    pub(super) fn variable_place(
        &self,
        function: Option<&str>,
        environment: Option<&str>,
    ) -> Result<VariablePlace, Error> {
        let function = function.map(|it| self.router.function(it)).transpose()?.map(|it| it.function.id);
        Ok(VariablePlace { function, environment: variable::environment(environment)? })
    }

    /// Takes a function's committed state into the router. Blocks on SQLite.
    pub(super) fn refresh(&self, id: FunctionId) -> Result<(), Error> {
        self.router.renew(id, |_| Ok::<_, Error>(entry(self.store.record(id)?)))?;
        self.wakes.function_changed(id);
        Ok(())
    }

    /// Takes the committed state of a function's aliases into the router, and a version that is new. Other versions
    /// are not read: their number may be large, and they never change. Blocks on SQLite.
    pub(super) fn refresh_aliases(&self, id: FunctionId, new: Option<&Arc<Version>>) -> Result<(), Error> {
        self.router.renew(id, |present| {
            let Some(present) = present else { return Ok(entry(self.store.record(id)?)) };
            let versions = match new {
                Some(new) => present.versions.with(new),
                None => present.versions.clone(),
            };
            Ok::<_, Error>(entry_of(self.store.state(id)?, versions))
        })?;
        self.wakes.function_changed(id);
        Ok(())
    }

    /// Pool of a version in an environment. Only `LIVE` keeps workers without invocations.
    pub(super) fn pool(&self, entry: &Entry, version: &Version, environment: &EnvironmentName) -> PoolHandle {
        self.scheduler.pool(version.id, environment, || {
            let settings = entry.function.settings;
            let is_live = entry.is_live_in(version.id, environment);
            let floor = if is_live { Floor::Settings } else { Floor::Nothing };
            (self.blueprint(entry, version, environment), settings, floor)
        })
    }

    /// Blueprint of a version's workers.
    pub(super) fn blueprint(&self, entry: &Entry, version: &Version, environment: &EnvironmentName) -> Blueprint {
        Blueprint {
            function_id: entry.function.id,
            function: entry.function.name.clone(),
            version: version.label.clone(),
            environment: environment.clone(),
            digest: version.digest,
            bundle: self.code.bundles.folder(entry.function.id, &version.label),
            entry: version.entry.clone(),
            compiled: self.code.bytecode.compiled(version.id),
            handler: entry.function.handler.clone(),
            memory_max: Arc::new(AtomicU64::new(entry.function.settings.memory_bytes())),
            network: SharedNetwork::new(entry.function.settings.network),
            variables: self.variables.clone(),
        }
    }
}

/// Puts a command on the heap, behind one type for all commands with this result.
pub(super) fn boxed<'a, T>(
    command: impl Future<Output = Result<T, Error>> + Send + 'a,
) -> Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>> {
    Box::pin(command)
}

/// Converts a record of the store to the router's form.
#[must_use]
pub fn entry(record: FunctionRecord) -> Entry {
    let FunctionRecord { function, versions, aliases, approved } = record;
    entry_of(FunctionState { function, aliases, approved }, versions.into_iter().map(Arc::new).collect())
}

fn entry_of(state: FunctionState, versions: Versions) -> Entry {
    let alias = |it: AliasRecord| {
        let mut alias = Alias {
            name: it.name,
            environment: it.environment,
            version: it.version_id,
            split: it.split,
            sticky: it.sticky,
            guard: None,
            went_back_at: it.went_back_at,
            rollout: it.rollout.map(|it| Arc::new(RolloutProgress::new(it))),
        };
        alias.guard = it.policy.map(|policy| Arc::new(Guard::new(policy, alias.under_judgement())));
        alias
    };
    Entry {
        function: state.function,
        versions,
        aliases: state.aliases.into_iter().map(alias).collect(),
        approved: state.approved,
    }
}
