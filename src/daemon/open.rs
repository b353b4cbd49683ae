//! The data directory's files, opened in order, and the state in memory that is built from them.

use super::{
    StartError,
    derive::{log_options, report_sandbox, sandbox_options, scheduler_limits, spawn_limits},
};
use crate::{
    bundle::{BundleStore, BytecodeStore},
    commands::{self, Authority, Code, Context, HttpPlace, Locks, Wakes},
    config::{Bytecode, Config},
    deploy::{Builder, Manifests, Scratch},
    model::Timestamp,
    router::Router,
    scheduler::Scheduler,
    store::Store,
    telemetry::Telemetry,
    worker::{BunRuntime, RunFolder, Spawner},
};
use arc_swap::ArcSwap;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Opens the files of the data directory and builds the state in memory.
pub(super) async fn open(
    config: Config,
    data_dir: PathBuf,
    runtime: BunRuntime,
    run_folder: RunFolder,
    http: Option<HttpPlace>,
    stopping: CancellationToken,
) -> Result<Arc<Context>, StartError> {
    let store = Store::open(&data_dir.join("levain.db"))?;
    let (variables, key_source) = commands::open_variables(&store, &config, &data_dir)?;
    end_interrupted(&store)?;
    let bundles = Arc::new(open_bundles(&store, &data_dir)?);
    let telemetry = Telemetry::open(&data_dir.join("logs.db"), log_options(&config))?;
    let logs = Arc::clone(telemetry.logs());
    let (limits, sandbox) = (spawn_limits(&config), sandbox_options(&config));
    let spawner = Spawner::start(runtime, run_folder, logs, limits, sandbox).await?;
    report_sandbox(&config, spawner.sandbox());
    commands::ensure_admin_token(&store, &data_dir, Timestamp::now())?;
    let authority = Authority::new(store.tokens()?);
    let catalogue = store.catalogue()?;
    let versions = catalogue.iter().flat_map(|it| it.versions.iter().map(|version| version.id)).collect();
    let name = Some(spawner.runtime().name()).filter(|_| config.versioning.bytecode == Bytecode::Auto);
    let bytecode = BytecodeStore::open(&data_dir.join("bytecode"), name.as_deref(), &versions);
    let builds_max = config.build.builds_max as usize;
    let scratch = open_folder(data_dir.join("incoming"), Scratch::open)?;
    let builder = open_folder(data_dir.join("packages"), |folder| Builder::open(folder, builds_max))?;
    let manifests = open_folder(data_dir.join("deployments"), Manifests::open)?;
    Ok(Arc::new(Context {
        router: Router::new(catalogue.into_iter().map(commands::entry).collect()),
        scheduler: Scheduler::new(spawner, Arc::clone(&bundles), scheduler_limits(&config)),
        authority,
        variables,
        key_source,
        config: ArcSwap::from_pointee(config),
        data_dir,
        store,
        code: Code { bundles, scratch, builder, manifests, bytecode },
        telemetry,
        tasks: TaskTracker::new(),
        started: Instant::now(),
        stopping,
        locks: Locks::default(),
        wakes: Wakes::default(),
        http,
    }))
}

/// Marks deployments as failed that were running when a daemon was killed.
fn end_interrupted(store: &Store) -> Result<(), StartError> {
    for deployment in store.end_interrupted_deployments(Timestamp::now())? {
        tracing::warn!(deployment = %deployment.id, version = %deployment.label, "a deployment was interrupted: failed");
    }
    Ok(())
}

/// Opens the bundles, and repairs the remains of interrupted deployments.
fn open_bundles(store: &Store, data_dir: &Path) -> Result<BundleStore, StartError> {
    let mut bundles = BundleStore::open(&data_dir.join("bundles"))?;
    let reconciled = bundles.reconcile(&store.published()?)?;
    for (function, version) in &reconciled.removed {
        tracing::warn!(%function, %version, "removed a bundle that an interrupted deployment left behind");
    }
    for (function, version) in &reconciled.missing {
        tracing::error!(%function, %version, "the bundle of a version is missing: restore it from a backup");
    }
    Ok(bundles)
}

fn open_folder<T>(path: PathBuf, open: impl FnOnce(PathBuf) -> io::Result<T>) -> Result<T, StartError> {
    open(path.clone()).map_err(|source| StartError::DataDir { path, source })
}
