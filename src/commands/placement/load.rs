//! Loading of a version where it is to run.

use super::{Placement, Plan, plan::AliasOutcome};
use crate::{
    bundle::Staged,
    commands::shutting_down,
    config::Verify,
    deploy,
    error::{Error, ErrorCode},
    model::{Percent, Version, VersionId},
    worker::Blueprint,
};
use std::time::Duration;
use tokio::time::timeout;

/// Time for which a deployment waits until as many workers are ready as the live version has busy.
pub(in crate::commands) const DEPLOY_PATIENCE: Duration = Duration::from_secs(1);

/// Time for which a move to a published version waits for such workers: going back is urgent, and the first workers are
/// enough to begin with.
const ROLLBACK_PATIENCE: Duration = Duration::from_millis(30);

impl Placement {
    /// Checks a staged bundle, puts it in place and loads it. A failure leaves nothing of it behind, and neither does a
    /// dry run.
    pub(in crate::commands) async fn introduce(&self, plan: &Plan, staged: Staged, dry_run: bool) -> Result<(), Error> {
        let (version, spawner) = (&plan.version, self.context.scheduler.spawner());
        self.cancellation.run(deploy::check(spawner, &staged, &plan.entry.function.handler)).await??;
        let (function_id, label) = (version.function_id, version.label.clone());
        self.context
            .blocking(move |_| {
                staged.publish(function_id, &label)?;
                Ok(())
            })
            .await?;
        let loaded = match self.context.config.load().versioning.verify {
            Verify::Load => self.warm(plan, version).await,
            Verify::Syntax => Ok(()),
        };
        if loaded.is_err() || dry_run {
            self.context.scheduler.close(version.id);
            let label = version.label.clone();
            let removed =
                self.context.blocking(move |context| Ok(context.code.bundles.remove(function_id, &label)?)).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "a rejected bundle cannot be removed; the next start removes it");
            }
        }
        loaded
    }

    /// Verifies a published version and prepares its workers.
    pub(in crate::commands) async fn ready(&self, plan: &Plan) -> Result<(), Error> {
        self.verify(&plan.version).await?;
        self.warm(plan, &plan.version).await?;
        self.match_present(plan, ROLLBACK_PATIENCE).await;
        Ok(())
    }

    /// Checks for a dry run that a published version would become ready. Its pools may have invocations, so they are
    /// left alone: the version loads in a worker of its own, unless a worker has it loaded.
    pub(super) async fn check_ready(&self, plan: &Plan) -> Result<(), Error> {
        if !matches!(plan.outcome, AliasOutcome::Waits | AliasOutcome::Moves) {
            return Ok(());
        }
        self.verify(&plan.version).await?;
        let scheduler = &self.context.scheduler;
        let present = scheduler.existing(plan.version.id, &plan.environment);
        if present.is_some_and(|pool| pool.snapshot().counts.ready() > 0) {
            return Ok(());
        }
        let copy = Version { id: VersionId::new(), ..Version::clone(&plan.version) };
        let loaded = self.warm(plan, &copy).await;
        scheduler.close(copy.id);
        loaded
    }

    /// Verifies the version's bundle by reading all of it.
    pub(in crate::commands) async fn verify(&self, version: &Version) -> Result<(), Error> {
        let (function_id, label, digest) = (version.function_id, version.label.clone(), version.digest);
        self.context.blocking(move |context| Ok(context.code.bundles.verify(function_id, &label, &digest)?)).await
    }

    /// Prepares workers of the version: at least one, which proves that the bundle loads.
    async fn warm(&self, plan: &Plan, version: &Version) -> Result<(), Error> {
        if plan.needs_approval {
            return self.cancellation.run(self.load_without_secrets(plan, version)).await?;
        }
        let pool = self.context.pool(&plan.entry, version, &plan.environment);
        let warmed = self.cancellation.run(pool.warm(plan.workers() as usize)).await?;
        match warmed.failure {
            Some(failure) => Err(failure.as_ref().into()),
            None if warmed.closed => Err(shutting_down()),
            None if warmed.ready == 0 => {
                let reason = match warmed.planned {
                    0 => "no worker of the version could be started; try again",
                    _ => {
                        "no worker of the version could be started: all places of the node (workers.workers_max) or its \
                         memory are taken by busy and warm workers; try again, or raise them"
                    }
                };
                Err(Error::new(ErrorCode::WorkerUnavailable, reason))
            }
            None => Ok(()),
        }
    }

    /// Loads a version that is not approved for the environment yet, in a worker that takes no invocations: code that
    /// runs during the load must not have the environment's secrets.
    async fn load_without_secrets(&self, plan: &Plan, version: &Version) -> Result<(), Error> {
        let variables = self.context.variables.without_secrets();
        let blueprint = Blueprint { variables, ..self.context.blueprint(&plan.entry, version, &plan.environment) };
        self.context.scheduler.spawner().rehearse(&blueprint).await.map(drop).map_err(|error| (&error).into())
    }

    /// Prepares as many workers as the alias's versions need at present, or the version's share of them, so that the
    /// moved traffic waits for no start. One worker is ready already, so a failure here, or a wait beyond `patience`,
    /// delays nothing.
    pub(in crate::commands) async fn match_present(&self, plan: &Plan, patience: Duration) {
        let scheduler = &self.context.scheduler;
        let present = plan.wanted.present(&plan.entry).into_iter();
        let pools = present.flat_map(|it| it.targets().filter_map(|(id, _)| scheduler.existing(id, &it.environment)));
        let busy: usize = pools.map(|pool| pool.snapshot().counts.busy).sum();
        let busy = (busy * usize::from(plan.wanted.weight.unwrap_or(Percent::ALL).get())).div_ceil(100);
        // A version without a pool was not loaded, and need not be.
        if let Some(pool) = scheduler.existing(plan.version.id, &plan.environment).filter(|_| busy > 1) {
            let _ = timeout(patience, pool.warm(busy)).await;
        }
    }
}
