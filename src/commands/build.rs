//! From what a deployment names to a staged bundle, with a build in between where one is needed.
//!
//! It is done before the deployment has the function for itself: a build takes its time, and a rollback must not wait
//! for it. Deployments of one function wait for each other all the same ([`Context::preparing`]), so that no more than
//! one of them has its files on disk.

use super::{Context, Partials, cancel::Cancellation};
use crate::{
    bundle::{BundleLimits, Staged},
    config::Config,
    deploy::{BuildError, BuildLog, Opened, Source, Wanted},
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
    /// The word for where it comes from.
    pub(super) kind: model::Source,
    /// What its build said, if it was built.
    pub(super) log: Option<String>,
}

/// A source that did not become a bundle.
#[derive(Debug)]
pub(super) struct NotPrepared {
    pub(super) error: Error,
    /// What its build said, if it got so far.
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
    (source, kind): (Source, model::Source),
    wanted: Wanted,
    log: &BuildLog,
    cancellation: &Cancellation,
) -> Result<Prepared, NotPrepared> {
    let (staged, project) = {
        let _turn = cancellation.run(context.scratch.turn()).await?;
        // Writing files cannot be broken off: the turn is over when it has ended.
        let opening = context.blocking(move |context| {
            let config = context.config.load();
            let Opened { files, entry, project, .. } = &source.open(&wanted, &context.scratch, &config.limits)?;
            Ok((context.bundles.stage(files.iter().cloned(), entry, limits(&config))?, project.clone()))
        });
        opening.await?
    };
    cancellation.check()?;
    let Some(project) = project else { return Ok(Prepared { staged, kind, log: None }) };
    let config = context.config.load_full();
    let spawner = context.scheduler.spawner();
    let building = context.builder.build(spawner, &staged, &project, &config.build, log, &context.stopping);
    let failed = |error| NotPrepared { error, log: Some(log.text()) };
    let built = cancellation.run(building).await.map_err(failed)?;
    let built = built.map_err(|error| failed(explain(&error, log)))?;
    let (files, entry) = (built.files.clone(), built.entry.clone());
    let staging = context.blocking(move |context| Ok(context.bundles.stage(files, &entry, limits(&config))?));
    let staged = staging.await.map_err(failed)?;
    Ok(Prepared { staged, kind: model::Source::Build, log: Some(log.text()) })
}

/// The failure with what was said on the way to it.
fn explain(error: &BuildError, log: &BuildLog) -> Error {
    let details = json!({ "step": error.step().map(|it| it.name()), "problems": error.problems(), "log": log.text() });
    Error { details: Some(details), ..Error::from(error) }
}

/// Sends the lines of a log while something goes on, and gives its outcome.
pub(super) async fn tell<T>(
    mut lines: mpsc::UnboundedReceiver<String>,
    partials: &Partials,
    work: impl Future<Output = T>,
) -> T {
    let telling = async {
        while let Some(line) = lines.recv().await {
            if partials.send(&DeployProgress { line }).await.is_err() {
                return;
            }
        }
    };
    // The log's other end goes with the work, so the last lines come before its outcome.
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
