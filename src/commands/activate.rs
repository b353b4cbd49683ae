//! One act of pointing an alias at a version, shared by DEPLOY_FUNCTION, ROLLBACK and SET_ALIAS.
//!
//! Introduce: check, store and load a new bundle. Activate: have workers of a published version ready. Commit: write the
//! deployment and move the traffic. Whatever fails, the alias stays where it was.

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
        AliasName, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, EnvironmentName, Percent, Rollout,
        Split, Sticky, Timestamp, Version, VersionLabel,
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

/// How long a deployment waits until as many workers are ready as the live version has busy. It is in no hurry.
pub(super) const DEPLOY_PATIENCE: Duration = Duration::from_secs(1);

/// The same for a version that is there already: going back is urgent, and the first workers are enough to begin with.
const ROLLBACK_PATIENCE: Duration = Duration::from_millis(30);

/// One act of pointing an alias at a version.
pub(super) struct Act {
    pub(super) context: Arc<Context>,
    /// The deployment that is recorded.
    id: DeploymentId,
    kind: DeploymentKind,
    alias: AliasName,
    /// Where the alias shall run; as before, or as its name says, without.
    pub(super) environment: Option<EnvironmentName>,
    /// What the alias shall be described as; as before without.
    pub(super) description: Option<String>,
    /// The share of the alias's calls that the version gets; all of them without.
    pub(super) weight: Option<Percent>,
    /// What shall keep a caller with one of the alias's two versions; as before without.
    pub(super) sticky: Option<Option<Sticky>>,
    /// The rollout that this is an act of, as it is afterwards.
    pub(super) rollout: Option<Rollout>,
    /// How long the alias stays from then on, for ever with zero; as before without.
    pub(super) lifetime: Option<Duration>,
    /// What the build of the version said, if it was built for this act.
    pub(super) build_log: Option<String>,
    /// Whether it only says what it would do.
    pub(super) dry_run: bool,
    /// Whether it is an approval.
    pub(super) is_approved: bool,
    /// The idempotency key that it came with.
    pub(super) claim: Option<Arc<Claim>>,
    /// Whether the function was made with it.
    pub(super) new_function: bool,
    /// Whether it came with the code of a version that is published already.
    pub(super) reused: bool,
    /// By what its client cancels it until it commits.
    pub(super) cancellation: Cancellation,
    actor: Arc<str>,
    reason: Option<String>,
    at: Timestamp,
    started: Instant,
}

/// The alias a request means, `LIVE` without any. `ROLLBACK` is refused: nobody moves it.
pub(super) fn alias(name: Option<&str>) -> Result<AliasName, Error> {
    let alias: AliasName = name.unwrap_or(AliasName::LIVE).parse()?;
    if alias.is_rollback() { Err(StoreError::AliasFixed(alias).into()) } else { Ok(alias) }
}

/// The version with this number or label, or the one that the alias of this name points at. A text of digits is a label
/// first, then a number.
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

    /// The alias so far.
    pub(super) fn present<'a>(&self, entry: &'a Entry) -> Option<&'a Alias> {
        entry.alias(self.alias.as_str())
    }

    /// What the alias points at so far.
    pub(super) fn target<'a>(&self, entry: &'a Entry) -> Option<&'a Arc<Version>> {
        self.present(entry).and_then(|alias| entry.version(alias.version))
    }

    /// The deployments that wait for approval to do the same as this act, with their versions, the latest first.
    ///
    /// A rollout is none of them: it begins or it does not.
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

    /// The label that gives calls to the one that is deployed: what the alias pointed at before, or its second version
    /// where that split ends.
    pub(super) fn previous<'a>(&self, entry: &'a Entry, label: &VersionLabel) -> Option<&'a VersionLabel> {
        let own = &self.target(entry)?.label;
        let second = self.present(entry).and_then(|it| entry.version(it.split?.version_id));
        match second {
            Some(second) if own == label && self.weight.is_none() => Some(&second.label),
            _ => Some(own),
        }
    }

    /// The environment the alias runs in afterwards.
    pub(super) fn environment(&self, entry: &Entry) -> EnvironmentName {
        let present = || self.present(entry).map(|alias| alias.environment.clone());
        self.environment.clone().or_else(present).unwrap_or_else(|| self.alias.environment())
    }

    /// Whether the alias sends its calls as wanted already, in its environment.
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

    /// Checks a staged bundle, puts it in place and loads it. Nothing of it is left when that fails.
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
                tracing::warn!(%error, "a bundle that did not pass cannot be removed; the next start will");
            }
        }
        loaded
    }

    /// How many workers load the version where `warm` are asked for.
    fn count(&self, entry: &Entry, warm: u32) -> u32 {
        let settings = &entry.function.settings;
        let floor = if self.alias.is_live() { settings.warm_workers } else { 0 };
        warm.max(floor).max(1).min(settings.max_concurrent_executions)
    }

    /// Has as many workers ready as the alias's versions need at present, or its share of them, so that the traffic that
    /// moves waits for no start. One is ready already, so whatever fails here, or takes longer than `patience`, holds
    /// nothing up.
    pub(super) async fn match_present(&self, entry: &Entry, version: &Version, patience: Duration) {
        let scheduler = &self.context.scheduler;
        let present = self.present(entry).into_iter();
        let pools = present.flat_map(|it| it.targets().filter_map(|(id, _)| scheduler.existing(id, &it.environment)));
        let busy: usize = pools.map(|pool| pool.snapshot().counts.busy).sum();
        let busy = (busy * usize::from(self.weight.unwrap_or(Percent::ALL).get())).div_ceil(100);
        // Without a pool it was not loaded, and need not be.
        if let Some(pool) = scheduler.existing(version.id, &self.environment(entry)).filter(|_| busy > 1) {
            let _ = timeout(patience, pool.warm(busy)).await;
        }
    }

    /// Has a version that is published already ready for its calls.
    pub(super) async fn ready(&self, entry: &Entry, version: &Version, warm: u32) -> Result<(), Error> {
        self.verify(version).await?;
        self.warm(entry, version, warm).await?;
        self.match_present(entry, version, ROLLBACK_PATIENCE).await;
        Ok(())
    }

    /// Points the alias at a version that is published already.
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
            return Ok(self.response(entry, version, Some(&waiting), waiting.status.name(), false));
        }
        match self.ready(entry, version, warm).await {
            Ok(()) => self.commit(entry, version, false, true).await,
            Err(error) => {
                self.record_failure(entry, &version.label, &error).await;
                Err(error)
            }
        }
    }

    /// Reads the version's bundle through.
    pub(super) async fn verify(&self, version: &Version) -> Result<(), Error> {
        let (function_id, label, digest) = (version.function_id, version.label.clone(), version.digest);
        self.context.blocking(move |context| Ok(context.bundles.verify(function_id, &label, &digest)?)).await
    }

    /// The alias points there already: the answer is that of the deployment which made it so.
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
        let response = self.response(entry, version, active.as_ref(), "deployed", false);
        Ok(DeployResponse { unchanged: true, ..response })
    }

    /// Writes the deployment, and the version if it is new; then moves the traffic.
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
        let answer = |status: DeploymentStatus| {
            let status = if status.takes_effect() { "deployed" } else { status.name() };
            self.response(entry, version, Some(&deployment), status, is_new)
        };
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
            let change = AliasChange {
                description: description.as_deref(),
                sticky: sticky.as_ref().map(Option::as_ref),
                rollout: rollout.as_ref(),
                lifetime,
            };
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
        // One that is kept is the same for whoever gets it.
        if !is_kept {
            answer.duration_ms = self.duration_ms();
        }
        Ok(answer.clone())
    }

    /// Removes what there is of a version whose commit has failed. An error of the disk does not say whether the commit
    /// took effect: a bundle goes only if its row is certainly not there, else the next start decides.
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
            tracing::error!(%error, version = %version.label, "it is not known whether a deployment was committed");
        }
    }

    pub(super) async fn record_failure(&self, entry: &Entry, label: &VersionLabel, error: &Error) {
        let build_log = match &error.details {
            Some(details) => format!("{}: {}\n{details:#}", error.code, error.message),
            None => format!("{}: {}", error.code, error.message),
        };
        let build_log = match &self.build_log {
            // What is wrong stands in it.
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

    /// The row of the act where it takes effect.
    pub(super) fn row(&self, entry: &Entry, version: &Version) -> Deployment {
        let status = if self.weight.is_some() { DeploymentStatus::Applied } else { DeploymentStatus::Active };
        self.deployment(entry, &version.label, Some(version.number), status, self.build_log.clone())
    }

    /// Its row while it runs: under the label that it will have, if no other deployment takes that first.
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
