//! The commit of a plan, and the record of a move that failed.

use super::{AliasMove, Placement, Plan};
use crate::{
    error::{Error, ErrorCode},
    model::{DeployOutcome, DeploymentStatus, Timestamp, Version, VersionLabel},
    protocol::message::DeployResponse,
    store::{DeploymentCommit, DeploymentQuery, KeptAnswer, Target},
};
use std::sync::Arc;

impl Placement {
    /// Writes the deployment, and the version if it is new, then moves the traffic.
    pub(in crate::commands) async fn commit(&self, plan: &Plan) -> Result<DeployResponse, Error> {
        let row = plan.row();
        let answer = |status: DeploymentStatus| self.answer(plan, Some(&row), status.into());
        let (done, pending) = (answer(row.status), answer(DeploymentStatus::PendingApproval));
        let kept = plan.delivery.claim.as_ref().map(|it| it.kept(&done, &pending)).transpose()?;
        let is_kept = kept.is_some();
        let status = match self.write(plan, kept).await {
            Ok(status) => status,
            Err(error) => {
                if plan.delivery.is_new {
                    self.withdraw(&plan.version).await;
                }
                if error.code == ErrorCode::Cancelled {
                    self.record_failure(plan, &error).await;
                }
                return Err(error);
            }
        };
        self.move_traffic(plan, status.takes_effect());
        let answer = if status == DeploymentStatus::PendingApproval { pending } else { done };
        // A stored answer is identical for every repetition of the request, so its duration stays.
        let duration_ms = if is_kept { answer.duration_ms } else { plan.wanted.duration_ms() };
        Ok(DeployResponse { duration_ms, ..answer })
    }

    async fn write(&self, plan: &Plan, kept: Option<KeptAnswer>) -> Result<DeploymentStatus, Error> {
        let (row, change, is_new) = (plan.row(), plan.wanted.change.clone(), plan.delivery.is_new);
        let (version, cancellation) = (Arc::clone(&plan.version), self.cancellation.clone());
        let writing = self.context.blocking(move |context| {
            cancellation.begin_commit()?;
            let target = if is_new { Target::New(&version) } else { Target::Existing(version.id) };
            let commit = DeploymentCommit { target, deployment: &row };
            let status = context.store.commit_keeping(&commit, &change, kept.as_ref())?;
            context.refresh_aliases(row.function_id, is_new.then_some(&version))?;
            if status != DeploymentStatus::PendingApproval {
                context.leave_manifests(&[row]);
            }
            Ok(status)
        });
        writing.await
    }

    /// Answers for an alias that is already as wanted, with the deployment that made it so.
    pub(super) async fn keep(&self, plan: &Plan) -> Result<DeployResponse, Error> {
        let (id, alias, status) = (plan.entry.function.id, plan.wanted.alias.clone(), plan.wanted.status());
        let (change, now, cancellation) = (plan.wanted.change.clone(), Timestamp::now(), self.cancellation.clone());
        let active = self.context.blocking(move |context| {
            cancellation.begin_commit()?;
            if let Some(description) = &change.description {
                context.store.describe_alias(id, &alias, description, now)?;
                context.refresh_aliases(id, None)?;
            }
            if let Some(lifetime) = change.lifetime {
                context.store.renew_alias(id, &alias, lifetime, now)?;
                context.refresh_aliases(id, None)?;
            }
            let query =
                DeploymentQuery { alias: Some(alias), status: Some(status), limit: 1, ..DeploymentQuery::default() };
            Ok(context.store.deployments_of(id, &query)?.into_iter().next())
        });
        let active = active.await?;
        let response = self.answer(plan, active.as_ref(), DeployOutcome::Deployed);
        Ok(DeployResponse { unchanged: true, ..response })
    }

    /// Removes the remains of a version whose commit has failed. A disk error does not say whether the commit took
    /// effect: the bundle is removed only if its row is certainly absent, otherwise the next start decides.
    async fn withdraw(&self, version: &Version) {
        self.context.scheduler.close(version.id);
        let (id, function_id, label) = (version.id, version.function_id, version.label.clone());
        let withdrawn = self.context.blocking(move |context| {
            let is_published = context.store.versions(function_id)?.iter().any(|it| it.id == id);
            if !is_published {
                context.code.bundles.remove(function_id, &label)?;
            }
            Ok(())
        });
        if let Err(error) = withdrawn.await {
            tracing::error!(%error, version = %version.label, "cannot tell whether a deployment was committed");
        }
    }

    /// Records that a plan failed.
    pub(in crate::commands) async fn record_failure(&self, plan: &Plan, error: &Error) {
        let log = plan.delivery.build_log.as_deref();
        self.record_failed_move(&plan.wanted, plan.version.label.clone(), log, error).await;
    }

    /// Records that a move failed, perhaps before its version was made.
    pub(in crate::commands) async fn record_failed_move(
        &self,
        wanted: &AliasMove,
        label: VersionLabel,
        build_log: Option<&str>,
        error: &Error,
    ) {
        let failure = match &error.details {
            Some(details) => format!("{}: {}\n{details:#}", error.code, error.message),
            None => format!("{}: {}", error.code, error.message),
        };
        let text = match build_log {
            // The build log says what is wrong.
            Some(log) if error.code == ErrorCode::BuildFailed => log.to_owned(),
            Some(log) => format!("{log}{failure}"),
            None => failure,
        };
        let mut row = wanted.deployment(&self.entry, label, DeploymentStatus::Failed);
        row.build_log = Some(text);
        let recorded = self.context.blocking(move |context| Ok(context.store.insert_failed_deployment(&row)?));
        if let Err(error) = recorded.await {
            tracing::warn!(%error, "a failed deployment cannot be recorded");
        }
    }
}
