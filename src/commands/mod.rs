//! The commands, whichever face they come through: the command socket or HTTP.
//!
//! [`execute`] is a match on [`Request`]; each command has its file, and a test file of the same name. Commands that
//! change something run to their end once they have begun, even when the caller leaves; those that first load or build
//! something can be cancelled until they commit ([`cancel`]).

mod activate;
mod admin_token;
mod aliases;
mod approval;
mod auth;
mod backup;
mod build;
mod bytecode;
mod call;
mod cancel;
mod cleanup;
mod compare;
mod delete;
mod deploy;
mod environments;
mod explain;
mod failures;
mod functions;
mod idempotency;
mod invoke;
mod locks;
mod logs;
mod manifests;
mod metrics;
mod page;
mod partials;
mod policy;
mod previews;
mod promotion;
mod register;
mod rollback;
mod rollout;
mod room;
mod scopes;
mod secrets;
mod status;
mod tokens;
mod traffic;
mod variables;
mod versions;
mod warmup;

pub use admin_token::{ADMIN_TOKEN_FILE, AdminTokenError, ensure_admin_token};
pub use approval::keep_expiring;
pub use auth::{Authority, Grant, token_missing};
pub use bytecode::keep_compiled;
pub use call::{Call, Failed, call, check_head, check_method};
pub use idempotency::ClaimedKeys;
pub use locks::ChangeLocks;
pub use partials::{CallerGone, Part, Partials};
pub use policy::keep_watch;
pub use previews::{HOST_SEPARATOR, keep_previews};
pub use scopes::{About, Needs, SCOPES, needs};
pub use secrets::{OpenVariablesError, keep_secret_audit, open_variables};
pub use status::disk;
pub use tokens::keep_token_uses;

use crate::{
    bundle::{BundleStore, BytecodeStore, UnixUser},
    config::{self, Config},
    deploy::{Builder, Manifests, Scratch},
    error::{Error, ErrorCode},
    model::{AliasName, Auth, EnvironmentName, FunctionId, Network, Percent, Settings, Version},
    protocol::ipc::{Encoding, Request},
    router::{Alias, Entry, Guard, Progress, Router},
    scheduler::{Floor, PoolHandle, Scheduler},
    secrets::{KeySource, Variables},
    store::{AliasRecord, FunctionRecord, Store},
    telemetry::Telemetry,
    worker::{Blueprint, SharedNetwork},
};
use arc_swap::ArcSwap;
use std::{
    collections::BTreeSet,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};
use tokio::{
    sync::{Notify, OwnedMutexGuard},
    task::JoinSet,
};
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
    /// Code of the versions.
    pub bundles: Arc<BundleStore>,
    /// Folders in which code is unpacked.
    pub scratch: Scratch,
    /// Builder of bundles from projects.
    pub builder: Builder,
    /// Manifests that past deployments have left.
    pub manifests: Manifests,
    /// Compiled bytecode, per version.
    pub bytecode: BytecodeStore,
    /// In-memory index of the store.
    pub router: Router,
    /// Pools of workers.
    pub scheduler: Scheduler,
    /// Variables of functions, in memory.
    pub variables: Variables,
    /// Held by a command that changes variables or the master key.
    pub changing_variables: tokio::sync::Mutex<()>,
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
    /// One lock per function that is being changed.
    pub changing: ChangeLocks,
    /// One lock per function whose code is being prepared; taken before the other.
    pub preparing: ChangeLocks,
    /// Idempotency keys of the running deployments.
    pub claimed_keys: ClaimedKeys,
    /// Wakes the bytecode task when an alias may point at another version.
    pub aliases_moved: Notify,
    /// Wakes the watch when an alias may have gained or lost a policy or a rollout.
    pub watched: Notify,
    /// Wakes the expiry task when an earlier deadline may exist.
    pub expiring: Notify,
    /// Addresses of HTTP, if it is served.
    pub http: Option<HttpPlace>,
}

/// Addresses of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpPlace {
    /// Address of the configuration, with the port that is in use.
    pub address: SocketAddr,
    /// The other loopback address with the same port, if another process has it.
    pub taken: Option<SocketAddr>,
}

/// Client behind a request, with its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name in the audit trail: `uid:1000`, or `token:<name>` over HTTP.
    pub actor: Arc<str>,
    /// Whether the caller may do what needs the scope `admin`.
    pub is_admin: bool,
    /// User whose rights count for the files that the caller names; `None` for those of the daemon.
    pub reads_as: Option<Arc<UnixUser>>,
}

/// Carries out a command, and returns the payload of its answer in the request's encoding.
pub async fn execute(
    context: &Arc<Context>,
    request: Request,
    encoding: Encoding,
    caller: &Caller,
    partials: &Partials,
) -> Result<Vec<u8>, Error> {
    if context.stopping.is_cancelled() && !matches!(request, Request::Status(_)) {
        return Err(shutting_down());
    }
    match request {
        Request::Invoke(request) => {
            let response = invoke::run(context, request, partials).await?;
            encoding.write_with_room(&response, response.body.0.len())
        }
        // Boxed, so that the future of an invocation is not as large as that of a deployment.
        request => Box::pin(manage(context, request, encoding, caller, partials)).await,
    }
}

/// Carries out a request other than an invocation.
async fn manage(
    context: &Arc<Context>,
    request: Request,
    encoding: Encoding,
    caller: &Caller,
    partials: &Partials,
) -> Result<Vec<u8>, Error> {
    match request {
        Request::Invoke(_) => unreachable!("`execute` carries it out"),
        Request::GetLogs(request) => encoding.write(&logs::run(context, request, partials).await?),
        Request::GetMetrics(request) => encoding.write(&metrics::run(context, request).await?),
        Request::Register(request) => encoding.write(&register::run(context, request).await?),
        Request::Deploy(request) => encoding.write(&deploy::run(context, request, caller, partials).await?),
        Request::Delete(request) => encoding.write(&delete::function(context, request, caller).await?),
        Request::DeleteVersion(request) => encoding.write(&delete::version(context, request).await?),
        Request::Versions(request) => encoding.write(&versions::run(context, &request)?),
        Request::Warmup(request) => encoding.write(&warmup::run(context, &request).await?),
        Request::List(request) => encoding.write(&functions::list(context, &request)?),
        Request::Get(request) => encoding.write(&functions::get(context, &request.function_id)?),
        Request::Update(request) => encoding.write(&functions::update(context, request).await?),
        Request::Rollback(request) => encoding.write(&rollback::run(context, request, caller, partials).await?),
        Request::Deployments(request) => encoding.write(&versions::deployments(context, request).await?),
        Request::SetAlias(request) => encoding.write(&aliases::set(context, request, caller, partials).await?),
        Request::Aliases(request) => encoding.write(&aliases::list(context, &request).await?),
        Request::DeleteAlias(request) => encoding.write(&aliases::delete(context, request, caller).await?),
        Request::SetTraffic(request) => encoding.write(&traffic::set(context, request, caller, partials).await?),
        Request::TagVersion(request) => encoding.write(&versions::tag(context, request).await?),
        Request::ExportManifest(request) => encoding.write(&manifests::export(context, request).await?),
        Request::ApplyManifest(request) => encoding.write(&manifests::apply(context, request, caller, partials).await?),
        Request::Cleanup(request) => encoding.write(&cleanup::run(context, request).await?),
        Request::Compare(request) => encoding.write(&compare::run(context, request).await?),
        Request::SetPolicy(request) => encoding.write(&policy::set(context, request, caller).await?),
        Request::StartRollout(request) => encoding.write(&rollout::start(context, request, caller).await?),
        Request::ControlRollout(request) => encoding.write(&rollout::control(context, request, caller).await?),
        Request::Rollouts(request) => encoding.write(&rollout::list(context, request).await?),
        Request::SetEnvironment(request) => encoding.write(&environments::set(context, request, caller).await?),
        Request::CreateEnvironment(request) => encoding.write(&environments::create(context, request, caller).await?),
        Request::GetEnvironment(request) => encoding.write(&environments::get(context, request).await?),
        Request::DeleteEnvironment(request) => encoding.write(&environments::delete(context, request, caller).await?),
        Request::CompareEnvironments(request) => encoding.write(&environments::compare(context, request).await?),
        Request::Promote(request) => encoding.write(&promotion::one(context, request, caller, partials).await?),
        Request::PromoteAll(request) => encoding.write(&promotion::all(context, request, caller, partials).await?),
        Request::Previews(request) => encoding.write(&previews::list(context, request).await?),
        Request::DeletePreview(request) => encoding.write(&previews::delete(context, request, caller).await?),
        Request::CleanupPreviews(request) => encoding.write(&previews::cleanup(context, request, caller).await?),
        Request::Environments(request) => encoding.write(&environments::list(context, &request).await?),
        Request::Decide(request) => encoding.write(&approval::decide(context, request, caller, partials).await?),
        Request::CreateToken(request) => encoding.write(&tokens::create(context, request, caller).await?),
        Request::ListTokens(request) => encoding.write(&tokens::list(context, &request)?),
        Request::RevokeToken(request) => encoding.write(&tokens::revoke(context, request, caller).await?),
        Request::Backup(request) => encoding.write(&backup::run(context, request, caller, partials).await?),
        Request::SetVariables(request) => encoding.write(&variables::set(context, request, caller).await?),
        Request::ListVariables(request) => encoding.write(&variables::list(context, request, caller).await?),
        Request::DeleteVariables(request) => encoding.write(&variables::delete(context, request, caller).await?),
        Request::SecretGenerations(request) => encoding.write(&secrets::generations(context, request).await?),
        Request::SecretAudit(request) => encoding.write(&secrets::audit(context, request).await?),
        Request::RotateMasterKey(request) => encoding.write(&secrets::rotate(context, request, caller).await?),
        Request::Status(_) => encoding.write(&status::run(context).await?),
        Request::Cancel(_) => {
            Err(Error::invalid("CANCEL must be sent on the connection of the command socket that carried the request"))
        }
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorCode::ShuttingDown, "the daemon is stopping; try again when it is back")
}

impl Context {
    /// Runs blocking work, such as SQL, on a blocking thread.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let context = Arc::clone(self);
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
        match self.tasks.spawn(command).await {
            Ok(result) => result,
            Err(error) => Err(Error::internal(error)),
        }
    }

    /// Waits for the function's change lock, and returns the function as it is then. Refused once the daemon stops.
    async fn hold(&self, id: FunctionId) -> Result<(OwnedMutexGuard<()>, Arc<Entry>), Error> {
        let lock = self.changing.lock(id).await;
        if self.stopping.is_cancelled() {
            return Err(shutting_down());
        }
        Ok((lock, self.router.function(&id.to_string())?))
    }

    /// Waits for the change locks of all these functions. Refused once the daemon stops.
    async fn hold_all(&self, ids: impl IntoIterator<Item = FunctionId>) -> Result<Vec<OwnedMutexGuard<()>>, Error> {
        // The order is fixed, so that two commands that change several functions do not wait for each other.
        let ids: BTreeSet<FunctionId> = ids.into_iter().collect();
        let mut locks = Vec::with_capacity(ids.len());
        for id in ids {
            locks.push(self.changing.lock(id).await);
        }
        if self.stopping.is_cancelled() { Err(shutting_down()) } else { Ok(locks) }
    }

    /// Takes a function's committed state into the router. Blocks on SQLite.
    fn refresh(&self, id: FunctionId) -> Result<(), Error> {
        self.router.renew(|| Ok::<_, Error>(entry(self.store.record(id)?)))?;
        self.aliases_moved.notify_one();
        self.watched.notify_one();
        self.expiring.notify_one();
        Ok(())
    }

    /// Starts the workers that are always kept, and waits until they are ready or have failed.
    pub async fn warm_floors(&self) {
        let mut floors = JoinSet::new();
        for entry in self.router.functions() {
            let count = entry.function.settings.warm_workers as usize;
            for pool in self.prepare_floor(&entry) {
                floors.spawn(async move { pool.warm(count).await });
            }
        }
        while floors.join_next().await.is_some() {}
    }

    /// Creates the pools of the versions that `LIVE` sends invocations to, if they keep workers warm; the scheduler's
    /// next tick fills them.
    pub fn prepare_floor(&self, entry: &Entry) -> Vec<PoolHandle> {
        let mut pools = Vec::new();
        let live = entry.alias(AliasName::LIVE).filter(|_| entry.function.settings.warm_workers > 0);
        for (alias, (id, share)) in live.into_iter().flat_map(|alias| alias.targets().map(move |it| (alias, it))) {
            if let Some(version) = entry.version(id).filter(|_| share > Percent::NONE) {
                pools.push(self.pool(entry, version, &alias.environment));
            }
        }
        pools
    }

    /// Pool of a version in an environment. Only `LIVE` keeps workers without invocations.
    fn pool(&self, entry: &Entry, version: &Version, environment: &EnvironmentName) -> PoolHandle {
        self.scheduler.pool(version.id, environment, || {
            let settings = entry.function.settings;
            let is_live = entry.is_live_in(version.id, environment);
            let floor = if is_live { Floor::Settings } else { Floor::Nothing };
            (self.blueprint(entry, version, environment), settings, floor)
        })
    }

    /// Blueprint of a version's workers.
    fn blueprint(&self, entry: &Entry, version: &Version, environment: &EnvironmentName) -> Blueprint {
        Blueprint {
            function_id: entry.function.id,
            function: entry.function.name.clone(),
            version: version.label.clone(),
            environment: environment.clone(),
            digest: version.digest,
            bundle: self.bundles.folder(entry.function.id, &version.label),
            entry: version.entry.clone(),
            compiled: self.bytecode.compiled(version.id),
            handler: entry.function.handler.clone(),
            memory_max: Arc::new(AtomicU64::new(entry.function.settings.memory_bytes())),
            network: SharedNetwork::new(entry.function.settings.network),
            variables: self.variables.clone(),
        }
    }
}

/// Converts a record of the store to the router's form.
#[must_use]
pub fn entry(record: FunctionRecord) -> Entry {
    let alias = |it: AliasRecord| {
        let mut alias = Alias {
            name: it.name,
            environment: it.environment,
            version: it.version_id,
            split: it.split,
            sticky: it.sticky,
            guard: None,
            went_back_at: it.went_back_at,
            rollout: it.rollout.map(|it| Arc::new(Progress::new(it))),
        };
        alias.guard = it.policy.map(|policy| Arc::new(Guard::new(policy, alias.under_judgement())));
        alias
    };
    Entry {
        function: record.function,
        versions: record.versions.into_iter().map(Arc::new).collect(),
        aliases: record.aliases.into_iter().map(alias).collect(),
        approved: record.approved,
    }
}

/// Settings of new functions whose registration names none.
#[must_use]
pub fn default_settings(config: &Config) -> Settings {
    let defaults = &config.functions;
    Settings {
        memory_mb: defaults.memory_mb,
        timeout_seconds: defaults.timeout_seconds,
        max_concurrent_executions: defaults.max_concurrent_executions,
        warm_workers: defaults.warm_workers,
        worker_concurrency: defaults.worker_concurrency,
        idle_timeout_seconds: defaults.idle_timeout_seconds,
        queue_max: defaults.queue_max,
        max_requests_per_worker: defaults.max_requests_per_worker,
        max_age_seconds: defaults.max_age_seconds,
        network: match defaults.network {
            config::Network::On => Network::On,
            config::Network::Off => Network::Off,
        },
        auth: match defaults.auth {
            config::Auth::Public => Auth::Public,
            config::Auth::Token => Auth::Token,
        },
    }
}
