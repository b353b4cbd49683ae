//! From the source of a deployment to a staged bundle, with a build in between if one is needed.
//!
//! The preparation precedes the deployment's lock on the function: a build takes its time, and a rollback must not wait
//! for it. Deployments of one function still wait for each other ([`Locks::preparing`](super::Locks)), so that at most one of them
//! has its files on disk.

use super::{Caller, Context, cancel::Cancellation};
use crate::{
    bundle::{BundleLimits, Staged},
    config::Config,
    deploy::{BuildError, BuildLog, OpenedSource, Source, SourceOptions},
    error::Error,
    model,
    protocol::message::DeployProgress,
};
use serde_json::json;
use std::{future::Future, sync::Arc};
use tokio::sync::mpsc;

/// A bundle that is ready to be published.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) staged: Staged,
    /// Kind of source, as it is recorded.
    pub(super) kind: model::VersionSource,
    /// Build log, if the bundle was built.
    pub(super) log: Option<String>,
}

/// A source that did not become a bundle.
#[derive(Debug)]
pub(super) struct NotPrepared {
    pub(super) error: Error,
    /// Build log, if the build began.
    pub(super) log: Option<String>,
}

impl<E: Into<Error>> From<E> for NotPrepared {
    fn from(error: E) -> Self {
        Self { error: error.into(), log: None }
    }
}

fn limits(config: &Config) -> BundleLimits {
    let limits = &config.limits;
    BundleLimits { bytes_max: limits.bundle_bytes_max.into(), files_max: limits.bundle_files_max as usize }
}

/// Stages a source, and builds it first if it is a project.
pub(super) async fn prepare(
    context: &Arc<Context>,
    (source, kind): (Source, model::VersionSource),
    wanted: SourceOptions,
    log: &BuildLog,
    cancellation: &Cancellation,
) -> Result<Prepared, NotPrepared> {
    let (staged, project) = {
        let _turn = cancellation.run(context.code.scratch.turn()).await?;
        // Writing files cannot be interrupted: the turn lasts until it has ended.
        let opening = context.blocking(move |context| {
            let config = context.config.load();
            let OpenedSource { files, entry, project, .. } =
                &source.open(&wanted, &context.code.scratch, &config.limits)?;
            Ok((context.code.bundles.stage(files.iter().cloned(), entry, limits(&config))?, project.clone()))
        });
        opening.await?
    };
    cancellation.check()?;
    let Some(project) = project else { return Ok(Prepared { staged, kind, log: None }) };
    let config = context.config.load_full();
    let spawner = context.scheduler.spawner();
    let building = context.code.builder.build(spawner, &staged, &project, &config.build, log, &context.stopping);
    let failed = |error| NotPrepared { error, log: Some(log.text()) };
    let built = cancellation.run(building).await.map_err(failed)?;
    let built = built.map_err(|error| failed(explain(&error, log)))?;
    let (files, entry) = (built.files.clone(), built.entry.clone());
    let staging = context.blocking(move |context| Ok(context.code.bundles.stage(files, &entry, limits(&config))?));
    let staged = staging.await.map_err(failed)?;
    Ok(Prepared { staged, kind: model::VersionSource::Build, log: Some(log.text()) })
}

/// Adds the failed step, its problems and the build log to a failure.
fn explain(error: &BuildError, log: &BuildLog) -> Error {
    let details = json!({ "step": error.step().map(|it| it.name()), "problems": error.problems(), "log": log.text() });
    Error { details: Some(details), ..Error::from(error) }
}

/// Sends the lines of a log while the work goes on, and returns its outcome.
pub(super) async fn tell<T>(
    mut lines: mpsc::UnboundedReceiver<String>,
    caller: &Caller,
    work: impl Future<Output = T>,
) -> T {
    let telling = async {
        while let Some(line) = lines.recv().await {
            if caller.send(&DeployProgress { line }).await.is_err() {
                return;
            }
        }
    };
    // The work owns the log's other end, so the last lines come before its outcome.
    let mut work = std::pin::pin!(work);
    let mut telling = std::pin::pin!(telling);
    tokio::select! {
        biased;
        () = &mut telling => work.await,
        outcome = &mut work => {
            telling.await;
            outcome
        }
    }
}
