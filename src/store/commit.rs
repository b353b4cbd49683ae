//! The commit of a deployment: the version, its alias, the row of the audit trail and the rollout change together.

use super::{
    AliasChange, Pruned, Store, StoreError, aliases, approval, deployments, environments, functions, retention,
    rollouts, versions,
};
use crate::model::{
    Decision, Deployment, DeploymentId, DeploymentStatus, Function, FunctionStatus, Version, VersionId, VersionLabel,
};
use rusqlite::Transaction;

/// Version of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A version published together with this deployment; its bundle is in place.
    New(&'a Version),
    /// A version published earlier.
    Existing(VersionId),
}

/// A deployment that passed its checks, ready to commit.
#[derive(Debug, Clone, Copy)]
pub struct DeploymentCommit<'a> {
    /// Version to deploy.
    pub target: Target<'a>,
    /// Row to write. `Active` points its alias at the version, `Applied` gives the version a share of the alias's
    /// calls, and any other status publishes the version and leaves the alias alone. If `Active` or `Applied` needs
    /// approval, the alias is left alone too and the row is written as `PendingApproval`.
    pub deployment: &'a Deployment,
}

impl Store {
    /// Publishes the version if it is new, points the alias at it if the deployment is active, and records the
    /// deployment, in one transaction.
    ///
    /// Errors that a caller can handle: [`StoreError::FunctionNotFound`] (it may have been deleted meanwhile),
    /// [`StoreError::VersionNotFound`], [`StoreError::LabelTaken`], [`StoreError::NumberTaken`] (ask
    /// [`Self::next_number`] again), [`StoreError::EnvironmentNotFound`], [`StoreError::EnvironmentProtected`] and
    /// [`StoreError::AliasFixed`] for `ROLLBACK`. Returns the status that was written.
    pub fn commit_deployment(&self, commit: &DeploymentCommit<'_>) -> Result<DeploymentStatus, StoreError> {
        self.commit_with(commit, &AliasChange::default())
    }

    /// Does what [`Self::commit_deployment`] does and makes further changes to the alias, at once or on approval.
    pub fn commit_with(
        &self,
        commit: &DeploymentCommit<'_>,
        change: &AliasChange,
    ) -> Result<DeploymentStatus, StoreError> {
        self.commit_keeping(commit, change, None)
    }

    /// Commits several deployments in order, all or none. Fails with [`StoreError::ApprovalRequired`] if one would have
    /// to wait.
    pub fn commit_all(&self, commits: &[(DeploymentCommit<'_>, AliasChange)]) -> Result<(), StoreError> {
        self.write(|it| commits.iter().try_for_each(|(commit, change)| apply_now(it, commit, change)))
    }

    /// Lets a waiting deployment take effect as the latest of its alias. `previous` is the version that has the alias's
    /// calls so far. Further errors besides those of [`Self::commit_deployment`]: [`StoreError::DeploymentNotFound`]
    /// and [`StoreError::NotPending`].
    pub fn approve(
        &self,
        id: DeploymentId,
        decision: &Decision,
        previous: Option<&VersionLabel>,
    ) -> Result<Deployment, StoreError> {
        self.write(|it| {
            let (waiting, version_id) = approval::waiting(it, id)?;
            let function = functions::one(it, waiting.function_id)?;
            let deployment = Deployment {
                status: if waiting.weight.is_some() { DeploymentStatus::Applied } else { DeploymentStatus::Active },
                previous: previous.cloned(),
                finished_at: decision.at,
                decision: Some(decision.clone()),
                ..waiting
            };
            environments::may_leave(it, function.id, &deployment.alias, Some(&deployment.environment))?;
            take_effect(it, &deployment, version_id, &approval::kept(it, id)?)?;
            deployments::settle(it, &deployment)?;
            note(it, &function, &deployment, version_id)?;
            Ok(deployment)
        })
    }

    /// Returns the result of [`Self::prune_versions`] as of after this deployment; neither is carried out.
    pub fn prune_after(&self, commit: &DeploymentCommit<'_>, keep: u32) -> Result<Pruned, StoreError> {
        self.try_out(|it| {
            apply(it, commit, &AliasChange::default())?;
            retention::prune(it, commit.deployment.function_id, keep)
        })
    }
}

/// Applies one deployment within a transaction.
pub(super) fn apply(
    it: &Transaction<'_>,
    commit: &DeploymentCommit<'_>,
    change: &AliasChange,
) -> Result<DeploymentStatus, StoreError> {
    let mut deployment = commit.deployment.clone();
    let function = functions::one(it, deployment.function_id)?;
    let (version_id, known) = match commit.target {
        Target::New(version) => {
            functions::take_number(it, function.id, version.number)?;
            versions::insert(it, version)?;
            (version.id, None)
        }
        Target::Existing(id) => (versions::one(it, function.id, id)?.id, Some(id)),
    };
    if deployment.status.takes_effect() {
        environments::may_leave(it, function.id, &deployment.alias, Some(&deployment.environment))?;
        if approval::is_needed(it, &deployment, known)? {
            if change.rollout.is_some() {
                return Err(StoreError::ApprovalRequired(Box::new(deployment)));
            }
            deployment.status = DeploymentStatus::PendingApproval;
        }
    }
    take_effect(it, &deployment, version_id, change)?;
    deployments::remove_running(it, deployment.id)?;
    deployments::insert(it, &deployment, Some(version_id))?;
    if deployment.status == DeploymentStatus::PendingApproval {
        approval::keep(it, deployment.id, change)?;
    }
    note(it, &function, &deployment, version_id)?;
    Ok(deployment.status)
}

/// Applies one deployment that must not wait for approval.
fn apply_now(it: &Transaction<'_>, commit: &DeploymentCommit<'_>, change: &AliasChange) -> Result<(), StoreError> {
    if apply(it, commit, change)? == commit.deployment.status {
        return Ok(());
    }
    Err(StoreError::ApprovalRequired(Box::new(commit.deployment.clone())))
}

/// Applies a deployment to its alias.
pub(super) fn take_effect(
    it: &Transaction<'_>,
    deployment: &Deployment,
    version_id: VersionId,
    change: &AliasChange,
) -> Result<(), StoreError> {
    let (function_id, alias) = (deployment.function_id, &deployment.alias);
    let moves_calls = match (deployment.status, deployment.weight) {
        (DeploymentStatus::Active, _) => {
            deployments::supersede(it, function_id, alias)?;
            aliases::point(it, deployment, version_id)?;
            true
        }
        (DeploymentStatus::Applied, Some(weight)) => aliases::share(it, deployment, version_id, weight)?,
        _ => return Ok(()),
    };
    if let Some(description) = &change.description {
        aliases::describe(it, function_id, alias, description)?;
    }
    if let Some(sticky) = &change.sticky {
        aliases::stick(it, function_id, alias, sticky.as_ref())?;
    }
    if let Some(lifetime) = change.lifetime {
        aliases::renew(it, function_id, alias, lifetime, deployment.finished_at)?;
    }
    match &change.rollout {
        Some(rollout) => rollouts::put(it, rollout),
        None if moves_calls => {
            let why = rollouts::ended_by(deployment);
            rollouts::abort(it, function_id, Some(alias), &why, deployment.finished_at)
        }
        None => Ok(()),
    }
}

/// Applies a deployment to its function.
pub(super) fn note(
    it: &Transaction<'_>,
    function: &Function,
    deployment: &Deployment,
    version_id: VersionId,
) -> Result<(), StoreError> {
    let now = deployment.finished_at;
    if deployment.status == DeploymentStatus::Active && deployment.alias.is_live() {
        functions::set_target(it, function.id, FunctionStatus::Deployed, Some(version_id), now)
    } else if function.status == FunctionStatus::Registered {
        functions::set_target(it, function.id, FunctionStatus::Built, None, now)
    } else {
        functions::touch(it, function.id, now)
    }
}
