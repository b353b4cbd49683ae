//! One act of pointing an alias at a version, shared by DEPLOY_FUNCTION, ROLLBACK and SET_ALIAS.
//!
//! Introduce: check, store and load a new bundle. Activate: prepare workers of a published version. Commit: write the
//! deployment and move the traffic. On any failure, the alias stays where it was.

mod answer;
mod floors;
mod load;
mod plan;
mod share;

pub(super) use plan::Draft;

use super::{Caller, Context, cancel::Cancellation, idempotency::Claim};
use crate::{
    bundle::Staged,
    config::Verify,
    deploy,
    error::{Error, ErrorCode},
    model::{
        AliasName, DeployOutcome, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, EnvironmentName, Percent,
        Rollout, Split, Sticky, Timestamp, Version, VersionLabel,
    },
    protocol::message::{DeployResponse, VersionRef},
    router::{Alias, Entry},
    store::{AliasChange, DeploymentCommit, DeploymentQuery, StoreError, Target},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Time for which a deployment waits until as many workers are ready as the live version has busy.
pub(super) const DEPLOY_PATIENCE: Duration = Duration::from_secs(1);

/// Time for which a move to a published version waits for such workers: going back is urgent, and the first workers are
/// enough to begin with.
const ROLLBACK_PATIENCE: Duration = Duration::from_millis(30);

/// One act of pointing an alias at a version.
pub(super) struct Act {
    pub(super) context: Arc<Context>,
    /// Id of the deployment that is recorded.
    id: DeploymentId,
    kind: DeploymentKind,
    alias: AliasName,
    /// Environment that the alias will run in; `None` keeps its present one, or takes the one of its name.
    pub(super) environment: Option<EnvironmentName>,
    /// New description of the alias; `None` keeps the present one.
    pub(super) description: Option<String>,
    /// Share of the alias's invocations for the version; `None` for all of them.
    pub(super) weight: Option<Percent>,
    /// New rule that keeps a caller with one of the alias's two versions; `None` keeps the present one.
    pub(super) sticky: Option<Option<Sticky>>,
    /// State after this act of the rollout that the act belongs to.
    pub(super) rollout: Option<Rollout>,
    /// Lifetime of the alias from then on, or zero for ever; `None` keeps the present one.
    pub(super) lifetime: Option<Duration>,
    /// Log of the version's build, if it was built for this act.
    pub(super) build_log: Option<String>,
    /// Whether the act is a dry run.
    pub(super) dry_run: bool,
    /// Whether the act is an approval.
    pub(super) is_approved: bool,
    /// Idempotency key of the request.
    pub(super) claim: Option<Arc<Claim>>,
    /// Whether the function was created with the act.
    pub(super) new_function: bool,
    /// Whether the request carried the code of a published version.
    pub(super) reused: bool,
    /// Lets the client cancel the act until it commits.
    pub(super) cancellation: Cancellation,
    actor: Arc<str>,
    reason: Option<String>,
    at: Timestamp,
    started: Instant,
}

/// Parses the alias of a request, `LIVE` by default. `ROLLBACK` is refused: it only follows `LIVE`.
pub(super) fn alias(name: Option<&str>) -> Result<AliasName, Error> {
    let alias: AliasName = name.unwrap_or(AliasName::LIVE).parse()?;
    if alias.is_rollback() { Err(StoreError::AliasFixed(alias).into()) } else { Ok(alias) }
}

/// Finds the version with this number or label, or the target of the alias with this name. A text of digits is tried as
/// a label first, then as a number.
pub(super) fn version(entry: &Entry, wanted: &VersionRef) -> Result<Arc<Version>, Error> {
    let (found, shown) = match wanted {
        VersionRef::Number(number) => (entry.numbered(*number), number.to_string()),
        VersionRef::Label(label) => {
            let target = || entry.alias(label).and_then(|alias| entry.version(alias.version));
            (entry.named(label).or_else(target), label.clone())
        }
    };
    found.cloned().ok_or_else(|| entry.version_not_found(&shown))
}

impl Act {
    pub(super) fn new(
        context: &Arc<Context>,
        kind: DeploymentKind,
        alias: AliasName,
        caller: &Caller,
        reason: Option<String>,
    ) -> Self {
        Self {
            context: Arc::clone(context),
            id: DeploymentId::new(),
            kind,
            alias,
            environment: None,
            description: None,
            weight: None,
            sticky: None,
            rollout: None,
            lifetime: None,
            build_log: None,
            dry_run: false,
            is_approved: false,
            claim: None,
            new_function: false,
            reused: false,
            cancellation: Cancellation::default(),
            actor: Arc::clone(&caller.actor),
            reason,
            at: Timestamp::now(),
            started: Instant::now(),
        }
    }

    /// Present state of the alias.
    pub(super) fn present<'a>(&self, entry: &'a Entry) -> Option<&'a Alias> {
        entry.alias(self.alias.as_str())
    }

    /// Present target of the alias.
    pub(super) fn target<'a>(&self, entry: &'a Entry) -> Option<&'a Arc<Version>> {
        self.present(entry).and_then(|alias| entry.version(alias.version))
    }

    /// Deployments that wait for approval to do what this act does, with their versions, the latest first.
    ///
    /// A rollout never waits: it begins or it does not.
    pub(super) async fn waiting(&self, entry: &Entry) -> Result<Vec<(Deployment, Arc<Version>)>, Error> {
        if self.rollout.is_some() {
            return Ok(Vec::new());
        }
        let waiting = self.context.blocking(|context| Ok(context.store.waiting()?)).await?;
        let environment = self.environment(entry);
        let is_same = |it: &Deployment| {
            it.function_id == entry.function.id
                && it.alias == self.alias
                && it.environment == environment
                && it.weight == self.weight
        };
        let version = |it: &Deployment| entry.numbered(it.number?).cloned();
        Ok(waiting.into_iter().filter(is_same).filter_map(|it| version(&it).map(|version| (it, version))).collect())
    }

    /// Label that loses invocations to the deployed version: the alias's target so far, or its second version if that
    /// split ends.
    pub(super) fn previous<'a>(&self, entry: &'a Entry, label: &VersionLabel) -> Option<&'a VersionLabel> {
        let own = &self.target(entry)?.label;
        let second = self.present(entry).and_then(|it| entry.version(it.split?.version_id));
        match second {
            Some(second) if own == label && self.weight.is_none() => Some(&second.label),
            _ => Some(own),
        }
    }

    /// Environment that the alias runs in after the act.
    pub(super) fn environment(&self, entry: &Entry) -> EnvironmentName {
        let present = || self.present(entry).map(|alias| alias.environment.clone());
        self.environment.clone().or_else(present).unwrap_or_else(|| self.alias.environment())
    }

    /// Whether the alias already sends its invocations as wanted, in the wanted environment.
    pub(super) fn is_done(&self, entry: &Entry, version: &Version) -> bool {
        let wanted = self.weight.map(|weight| Split { version_id: version.id, weight });
        // A rollout has its own state to write.
        let is_rollout = self.rollout.is_some();
        self.present(entry).filter(|_| !is_rollout).is_some_and(|it| {
            it.environment == self.environment(entry)
                && it.split == wanted
                && (wanted.is_some() || it.version == version.id)
                && self.sticky.as_ref().is_none_or(|sticky| *sticky == it.sticky)
        })
    }

    /// Checks a staged bundle, puts it in place and loads it. A failure leaves nothing of it behind.
    pub(super) async fn introduce(
        &self,
        entry: &Entry,
        staged: Staged,
        version: &Version,
        warm: u32,
        dry_run: bool,
    ) -> Result<(), Error> {
        let spawner = self.context.scheduler.spawner();
        self.cancellation.run(deploy::check(spawner, &staged, &entry.function.handler)).await??;
        let (function_id, label) = (version.function_id, version.label.clone());
        self.context
            .blocking(move |_| {
                staged.publish(function_id, &label)?;
                Ok(())
            })
            .await?;
        let loaded = match self.context.config.load().versioning.verify {
            Verify::Load => self.warm(entry, version, warm).await,
            Verify::Syntax => Ok(()),
        };
        if loaded.is_err() || dry_run {
            self.context.scheduler.close(version.id);
            let label = version.label.clone();
            let removed = self.context.blocking(move |context| Ok(context.bundles.remove(function_id, &label)?)).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "a rejected bundle cannot be removed; the next start removes it");
            }
        }
        loaded
    }

    /// Number of workers that load the version if `warm` are requested.
    fn count(&self, entry: &Entry, warm: u32) -> u32 {
        let settings = &entry.function.settings;
        let floor = if self.alias.is_live() { settings.warm_workers } else { 0 };
        warm.max(floor).max(1).min(settings.max_concurrent_executions)
    }

    /// Prepares as many workers as the alias's versions need at present, or the act's share of them, so that the moved
    /// traffic waits for no start. One worker is ready already, so a failure here, or a wait beyond `patience`, delays
    /// nothing.
    pub(super) async fn match_present(&self, entry: &Entry, version: &Version, patience: Duration) {
        let scheduler = &self.context.scheduler;
        let present = self.present(entry).into_iter();
        let pools = present.flat_map(|it| it.targets().filter_map(|(id, _)| scheduler.existing(id, &it.environment)));
        let busy: usize = pools.map(|pool| pool.snapshot().counts.busy).sum();
        let busy = (busy * usize::from(self.weight.unwrap_or(Percent::ALL).get())).div_ceil(100);
        // A version without a pool was not loaded, and need not be.
        if let Some(pool) = scheduler.existing(version.id, &self.environment(entry)).filter(|_| busy > 1) {
            let _ = timeout(patience, pool.warm(busy)).await;
        }
    }

    /// Verifies a published version and prepares its workers.
    pub(super) async fn ready(&self, entry: &Entry, version: &Version, warm: u32) -> Result<(), Error> {
        self.verify(version).await?;
        self.warm(entry, version, warm).await?;
        self.match_present(entry, version, ROLLBACK_PATIENCE).await;
        Ok(())
    }

    /// Points the alias at a published version.
    pub(super) async fn activate(
        self,
        entry: &Entry,
        version: &Arc<Version>,
        warm: u32,
    ) -> Result<DeployResponse, Error> {
        if self.dry_run {
            return self.rehearse(entry, version, warm, true).await;
        }
        if self.is_done(entry, version) {
            return self.unchanged(entry, version).await;
        }
        if let Some((waiting, _)) = self.waiting(entry).await?.into_iter().find(|it| it.1.id == version.id) {
            return Ok(self.response(entry, version, Some(&waiting), waiting.status.into(), false));
        }
        match self.ready(entry, version, warm).await {
            Ok(()) => self.commit(entry, version, false, true).await,
            Err(error) => {
                self.record_failure(entry, &version.label, &error).await;
                Err(error)
            }
        }
    }

    /// Verifies the version's bundle by reading all of it.
    pub(super) async fn verify(&self, version: &Version) -> Result<(), Error> {
        let (function_id, label, digest) = (version.function_id, version.label.clone(), version.digest);
        self.context.blocking(move |context| Ok(context.bundles.verify(function_id, &label, &digest)?)).await
    }

    /// Answers for an alias that is already as wanted, with the deployment that made it so.
    async fn unchanged(self, entry: &Entry, version: &Version) -> Result<DeployResponse, Error> {
        let (id, alias, description) = (entry.function.id, self.alias.clone(), self.description.clone());
        let (lifetime, now) = (self.lifetime, Timestamp::now());
        let status = if self.weight.is_some() { DeploymentStatus::Applied } else { DeploymentStatus::Active };
        let cancellation = self.cancellation.clone();
        let active = self.context.blocking(move |context| {
            cancellation.begin_commit()?;
            if let Some(description) = description {
                context.store.describe_alias(id, &alias, &description, now)?;
                context.refresh(id)?;
            }
            if let Some(lifetime) = lifetime {
                context.store.renew_alias(id, &alias, lifetime, now)?;
                context.refresh(id)?;
            }
            let query =
                DeploymentQuery { alias: Some(alias), status: Some(status), limit: 1, ..DeploymentQuery::default() };
            Ok(context.store.deployments_of(id, &query)?.into_iter().next())
        });
        let active = active.await?;
        let response = self.response(entry, version, active.as_ref(), DeployOutcome::Deployed, false);
        Ok(DeployResponse { unchanged: true, ..response })
    }

    /// Writes the deployment, and the version if it is new, then moves the traffic.
    pub(super) async fn commit(
        self,
        entry: &Entry,
        version: &Version,
        is_new: bool,
        activate: bool,
    ) -> Result<DeployResponse, Error> {
        let mut deployment = self.row(entry, version);
        if !activate {
            deployment.status = DeploymentStatus::Built;
        }
        let answer = |status: DeploymentStatus| self.response(entry, version, Some(&deployment), status.into(), is_new);
        let (mut done, mut pending) = (answer(deployment.status), answer(DeploymentStatus::PendingApproval));
        let kept = self.claim.as_ref().map(|it| it.kept(&done, &pending)).transpose()?;
        let is_kept = kept.is_some();
        let (row, new_version) = (deployment.clone(), version.clone());
        let (description, sticky, rollout) = (self.description.clone(), self.sticky.clone(), self.rollout.clone());
        let (function_id, lifetime) = (entry.function.id, self.lifetime);
        let cancellation = self.cancellation.clone();
        let committed = self.context.blocking(move |context| {
            cancellation.begin_commit()?;
            let target = if is_new { Target::New(&new_version) } else { Target::Existing(new_version.id) };
            let change = AliasChange { description, sticky, rollout, lifetime };
            let commit = DeploymentCommit { target, deployment: &row };
            let status = context.store.commit_keeping(&commit, &change, kept.as_ref())?;
            context.refresh(function_id)?;
            if status != DeploymentStatus::PendingApproval {
                context.leave_manifests(&[row]);
            }
            Ok(status)
        });
        let status = match committed.await {
            Ok(status) => status,
            Err(error) => {
                if is_new {
                    self.withdraw(version).await;
                }
                if error.code == ErrorCode::Cancelled {
                    self.record_failure(entry, &version.label, &error).await;
                }
                return Err(error);
            }
        };
        self.move_traffic(entry, version, status.takes_effect());
        let answer = if status == DeploymentStatus::PendingApproval { &mut pending } else { &mut done };
        // A stored answer is identical for every repetition of the request, so its duration stays.
        if !is_kept {
            answer.duration_ms = self.duration_ms();
        }
        Ok(answer.clone())
    }

    /// Removes the remains of a version whose commit has failed. A disk error does not say whether the commit took
    /// effect: the bundle is removed only if its row is certainly absent, otherwise the next start decides.
    async fn withdraw(&self, version: &Version) {
        self.context.scheduler.close(version.id);
        let (id, function_id, label) = (version.id, version.function_id, version.label.clone());
        let withdrawn = self.context.blocking(move |context| {
            let is_published = context.store.versions(function_id)?.iter().any(|it| it.id == id);
            if !is_published {
                context.bundles.remove(function_id, &label)?;
            }
            Ok(())
        });
        if let Err(error) = withdrawn.await {
            tracing::error!(%error, version = %version.label, "cannot tell whether a deployment was committed");
        }
    }

    pub(super) async fn record_failure(&self, entry: &Entry, label: &VersionLabel, error: &Error) {
        let build_log = match &error.details {
            Some(details) => format!("{}: {}\n{details:#}", error.code, error.message),
            None => format!("{}: {}", error.code, error.message),
        };
        let build_log = match &self.build_log {
            // The build log says what is wrong.
            Some(log) if error.code == ErrorCode::BuildFailed => log.clone(),
            Some(log) => format!("{log}{build_log}"),
            None => build_log,
        };
        let deployment = self.deployment(entry, label, None, DeploymentStatus::Failed, Some(build_log));
        let recorded = self.context.blocking(move |context| Ok(context.store.insert_failed_deployment(&deployment)?));
        if let Err(error) = recorded.await {
            tracing::warn!(%error, "a failed deployment cannot be recorded");
        }
    }

    /// Row of the deployment if the act takes effect.
    pub(super) fn row(&self, entry: &Entry, version: &Version) -> Deployment {
        let status = if self.weight.is_some() { DeploymentStatus::Applied } else { DeploymentStatus::Active };
        self.deployment(entry, &version.label, Some(version.number), status, self.build_log.clone())
    }

    /// Row of the deployment while it runs, under the label that it will have, unless another deployment takes that
    /// first.
    pub(super) fn running(&self, entry: &Entry, label: &VersionLabel) -> Deployment {
        self.deployment(entry, label, None, DeploymentStatus::Building, None)
    }

    fn deployment(
        &self,
        entry: &Entry,
        label: &VersionLabel,
        number: Option<u32>,
        status: DeploymentStatus,
        build_log: Option<String>,
    ) -> Deployment {
        Deployment {
            id: self.id,
            function_id: entry.function.id,
            label: label.clone(),
            number,
            alias: self.alias.clone(),
            environment: self.environment(entry),
            kind: self.kind,
            status,
            weight: self.weight,
            previous: self.previous(entry, label).cloned(),
            actor: self.actor.to_string(),
            reason: self.reason.clone(),
            build_log,
            created_at: self.at,
            finished_at: Timestamp::now(),
            decision: None,
        }
    }
}
