//! DEPLOY_FUNCTION: validate, store, load, and only then point the alias.
//!
//! A version's number is `v<number>` when it has no label of its own. Whatever fails, the alias stays where it was, and
//! no bundle, row or worker of the new version is left; the failure itself is kept in the audit trail.

use super::{Caller, Context, delete::not_found};
use crate::{
    bundle::{BundleLimits, Staged},
    config::Verify,
    crash_point::crash_point,
    deploy::{self, Source},
    error::{Error, ErrorCode},
    model::{
        self, AliasName, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, EnvironmentName, Timestamp,
        Version, VersionId, VersionLabel,
    },
    protocol::message::{DeployRequest, DeployResponse},
    router::Entry,
    store::{DeploymentCommit, Target},
};
use std::{sync::Arc, time::Instant};

/// Free text that is kept with a version or deployment.
const TEXT_BYTES_MAX: usize = 4096;

/// Tags of a version.
const TAGS_MAX: usize = 32;

pub(super) async fn run(
    context: &Arc<Context>,
    mut request: DeployRequest,
    caller: &Caller,
) -> Result<DeployResponse, Error> {
    check_alias(request.alias.as_deref())?;
    check_texts(&request)?;
    let label = request.version.take().map(|label| label.parse::<VersionLabel>()).transpose()?;
    let source = source(&mut request)?;
    let id = context.router.function(&request.function_id)?.function.id;
    let act = Act::new(context, DeploymentKind::Deploy, caller, request.reason.clone());
    let context = Arc::clone(context);
    let owner = Arc::clone(&context);
    owner
        .to_its_end(async move {
            let _changing = context.changing.lock(id).await;
            if context.stopping.is_cancelled() {
                return Err(super::shutting_down());
            }
            let entry = context.router.function(&id.to_string())?;
            match (source, label) {
                (Some((source, kind)), label) => publish(act, &entry, source, kind, label, request).await,
                (None, Some(label)) => {
                    let version = entry.labelled(label.as_str()).cloned();
                    let version = version.ok_or_else(|| not_found(entry.function.name.as_str(), label.as_str()))?;
                    reuse(act, &entry, &version, &request).await
                }
                (None, None) => Err(Error::invalid(
                    "nothing to deploy: give `bundle_path`, `bundle` or `files`, or the `version` to re-activate",
                )),
            }
        })
        .await
}

/// `LIVE` is the alias there is.
pub(super) fn check_alias(alias: Option<&str>) -> Result<(), Error> {
    match alias {
        None | Some("LIVE") => Ok(()),
        Some(other) => {
            Err(Error::new(ErrorCode::AliasNotFound, format!("there is no alias `{other}`: LIVE is the only one")))
        }
    }
}

fn check_texts(request: &DeployRequest) -> Result<(), Error> {
    let texts = [
        ("description", &request.description),
        ("reason", &request.reason),
        ("git_commit", &request.git_commit),
        ("git_branch", &request.git_branch),
    ];
    for (name, text) in texts {
        if text.as_ref().is_some_and(|it| it.len() > TEXT_BYTES_MAX) {
            return Err(Error::invalid(format!("{name} is longer than {TEXT_BYTES_MAX} bytes")));
        }
    }
    if request.tags.len() > TAGS_MAX || request.tags.iter().any(|it| it.is_empty() || it.len() > 128) {
        return Err(Error::invalid(format!("tags: at most {TAGS_MAX}, each of 1 to 128 bytes")));
    }
    Ok(())
}

fn source(request: &mut DeployRequest) -> Result<Option<(Source, model::Source)>, Error> {
    let path = request.bundle_path.take().map(|path| (Source::Path(path.into()), model::Source::Path));
    let bytes = request.bundle.take().map(|bytes| (Source::Bytes(bytes.0), model::Source::Upload));
    let files = request.files.take().map(|files| {
        let files = files.into_iter().map(|(path, bytes)| (path, bytes.0)).collect();
        (Source::Files(files), model::Source::Upload)
    });
    let mut given = [path, bytes, files].into_iter().flatten();
    let source = given.next();
    if given.next().is_some() {
        return Err(Error::invalid("give one of `bundle_path`, `bundle` and `files`, not several"));
    }
    Ok(source)
}

/// Publishes a bundle as a new version, or finds that it is an existing one.
async fn publish(
    act: Act,
    entry: &Entry,
    source: Source,
    kind: model::Source,
    label: Option<VersionLabel>,
    request: DeployRequest,
) -> Result<DeployResponse, Error> {
    let staged = act.stage(source, request.entry.clone()).await?;
    let same = match &label {
        Some(label) => entry.labelled(label.as_str()),
        // Without a label, what is live already need not be published again.
        None => entry.live().filter(|live| live.digest == staged.digest() && live.entry == staged.entry()),
    };
    if let Some(version) = same.cloned() {
        if version.digest != staged.digest() || version.entry != staged.entry() {
            return Err(Error::new(
                ErrorCode::VersionExists,
                format!(
                    "version `{}` exists with other code: a version does not change, choose another label",
                    version.label
                ),
            ));
        }
        drop(staged);
        return reuse(act, entry, &version, &request).await;
    }
    let function_id = entry.function.id;
    let number = act.context.blocking(move |context| Ok(context.store.next_number(function_id)?)).await?;
    let label = match label {
        Some(label) => label,
        None => free_label(entry, number)?,
    };
    let version = Version {
        id: VersionId::new(),
        function_id,
        label,
        number,
        digest: staged.digest(),
        size: staged.size(),
        entry: staged.entry().to_owned(),
        source: kind,
        git_commit: request.git_commit,
        git_branch: request.git_branch,
        description: request.description,
        tags: request.tags,
        bun_version: act.context.scheduler.spawner().runtime().version.to_string(),
        settings: entry.function.settings,
        created_at: Timestamp::now(),
    };
    match act.introduce(entry, staged, &version, request.warm.unwrap_or(0), request.dry_run).await {
        Ok(()) if request.dry_run => Ok(act.response(entry, &version, None, "checked", false)),
        Ok(()) => act.commit(entry, &version, true, request.activate.unwrap_or(true)).await,
        Err(error) => {
            if !request.dry_run {
                act.record_failure(entry, &version.label, &error).await;
            }
            Err(error)
        }
    }
}

/// Points the alias at a version that exists, if the request wants it moved.
async fn reuse(
    act: Act,
    entry: &Entry,
    version: &Arc<Version>,
    request: &DeployRequest,
) -> Result<DeployResponse, Error> {
    if request.dry_run {
        return Ok(act.response(entry, version, None, "checked", false));
    }
    let is_live = entry.live().is_some_and(|live| live.id == version.id);
    if !is_live && !request.activate.unwrap_or(true) {
        return Ok(act.response(entry, version, None, "built", false));
    }
    act.activate(entry, version, request.warm.unwrap_or(0)).await
}

/// `v<number>`; if somebody has taken that as a label of their own, `v<number>-2` and so on.
fn free_label(entry: &Entry, number: u32) -> Result<VersionLabel, Error> {
    let candidates = std::iter::once(format!("v{number}")).chain((2..).map(|again| format!("v{number}-{again}")));
    let mut free = candidates.filter(|label| entry.labelled(label).is_none());
    Ok(free.next().expect("a function has fewer versions than there are numbers").parse()?)
}

/// One act of pointing an alias at a version.
pub(super) struct Act {
    context: Arc<Context>,
    kind: DeploymentKind,
    actor: Arc<str>,
    reason: Option<String>,
    at: Timestamp,
    started: Instant,
}

impl Act {
    pub(super) fn new(context: &Arc<Context>, kind: DeploymentKind, caller: &Caller, reason: Option<String>) -> Self {
        let (at, started) = (Timestamp::now(), Instant::now());
        Self { context: Arc::clone(context), kind, actor: Arc::clone(&caller.actor), reason, at, started }
    }

    async fn stage(&self, source: Source, entry: Option<String>) -> Result<Staged, Error> {
        self.context
            .blocking(move |context| {
                let limits = context.config.load().limits.clone();
                let files_max = limits.bundle_files_max as usize;
                let (files, entry) = source.files(entry, files_max)?;
                let limits = BundleLimits { bytes_max: limits.bundle_bytes_max.into(), files_max };
                Ok(context.bundles.stage(files, &entry, limits)?)
            })
            .await
    }

    /// Checks a staged bundle, puts it in place and loads it. Nothing of it is left when that fails.
    async fn introduce(
        &self,
        entry: &Entry,
        staged: Staged,
        version: &Version,
        warm: u32,
        dry_run: bool,
    ) -> Result<(), Error> {
        let runtime = self.context.scheduler.spawner().runtime();
        deploy::check(runtime, &staged, &entry.function.handler).await?;
        let (function_id, label) = (version.function_id, version.label.clone());
        self.context
            .blocking(move |_| {
                staged.publish(function_id, &label)?;
                crash_point("bundle.published");
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

    /// Has workers of the version ready: at least one, which shows that the bundle loads.
    async fn warm(&self, entry: &Entry, version: &Version, warm: u32) -> Result<(), Error> {
        let settings = &entry.function.settings;
        let count = warm.max(settings.warm_workers).max(1).min(settings.max_concurrent_executions);
        let pool = self.context.pool(entry, version, &EnvironmentName::production());
        let warmed = pool.warm(count as usize).await;
        match warmed.failure {
            Some(failure) => Err(failure.as_ref().into()),
            None if warmed.closed => Err(super::shutting_down()),
            None if warmed.ready == 0 => {
                Err(Error::new(ErrorCode::WorkerUnavailable, "no worker of the version could be started; try again"))
            }
            None => Ok(()),
        }
    }

    /// Points the alias at a version that is published already.
    pub(super) async fn activate(
        self,
        entry: &Entry,
        version: &Arc<Version>,
        warm: u32,
    ) -> Result<DeployResponse, Error> {
        if entry.live().is_some_and(|live| live.id == version.id) {
            return self.unchanged(entry, version).await;
        }
        let (function_id, label, digest) = (version.function_id, version.label.clone(), version.digest);
        let ready = async {
            self.context.blocking(move |context| Ok(context.bundles.verify(function_id, &label, &digest)?)).await?;
            self.warm(entry, version, warm).await
        };
        match ready.await {
            Ok(()) => self.commit(entry, version, false, true).await,
            Err(error) => {
                self.record_failure(entry, &version.label, &error).await;
                Err(error)
            }
        }
    }

    /// The alias points there already: the answer is that of the deployment which made it so.
    async fn unchanged(self, entry: &Entry, version: &Version) -> Result<DeployResponse, Error> {
        let id = entry.function.id;
        let active = self.context.blocking(move |context| {
            let mut deployments = context.store.deployments(id, 1_000, 0)?;
            deployments.retain(|it| it.status == DeploymentStatus::Active);
            Ok(deployments.into_iter().next())
        });
        let active = active.await?;
        Ok(self.response(entry, version, active.as_ref(), "deployed", false))
    }

    /// Writes the deployment, and the version if it is new; then moves the traffic.
    async fn commit(
        self,
        entry: &Entry,
        version: &Version,
        is_new: bool,
        activate: bool,
    ) -> Result<DeployResponse, Error> {
        let status = if activate { DeploymentStatus::Active } else { DeploymentStatus::Built };
        let deployment = self.deployment(entry, &version.label, Some(version.number), status, None);
        let (row, new_version) = (deployment.clone(), version.clone());
        let function_id = entry.function.id;
        let committed = self.context.blocking(move |context| {
            let target = if is_new { Target::New(&new_version) } else { Target::Existing(new_version.id) };
            context.store.commit_deployment(&DeploymentCommit { target, deployment: &row })?;
            context.refresh(function_id)
        });
        if let Err(error) = committed.await {
            if is_new {
                self.withdraw(version).await;
            }
            return Err(error);
        }
        self.move_traffic(entry, version, activate);
        let status = if activate { "deployed" } else { "built" };
        Ok(self.response(entry, version, Some(&deployment), status, is_new))
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

    /// The router sends new invocations to the version already; its floor and that of the one before change places.
    fn move_traffic(&self, entry: &Entry, version: &Version, activate: bool) {
        let settings = &entry.function.settings;
        let retired = if activate { entry.live().map(|live| live.id) } else { Some(version.id) };
        if let Some(pool) = retired.and_then(|id| self.context.scheduler.existing(id)) {
            pool.retire(settings);
        }
        if let Ok(entry) = self.context.router.function(&entry.function.id.to_string()) {
            self.context.prepare_floor(&entry);
        }
        if activate && let Some(pool) = self.context.scheduler.existing(version.id) {
            pool.set_settings(settings);
        }
        let (function, version, kind) = (&entry.function.name, &version.label, self.kind);
        tracing::info!(%function, %version, ?kind, activate, actor = &*self.actor, "deployed");
    }

    async fn record_failure(&self, entry: &Entry, label: &VersionLabel, error: &Error) {
        let build_log = match &error.details {
            Some(details) => format!("{}: {}\n{details:#}", error.code, error.message),
            None => format!("{}: {}", error.code, error.message),
        };
        let deployment = self.deployment(entry, label, None, DeploymentStatus::Failed, Some(build_log));
        let recorded = self.context.blocking(move |context| Ok(context.store.insert_failed_deployment(&deployment)?));
        if let Err(error) = recorded.await {
            tracing::warn!(%error, "a failed deployment cannot be recorded");
        }
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
            id: DeploymentId::new(),
            function_id: entry.function.id,
            label: label.clone(),
            number,
            alias: AliasName::live(),
            environment: EnvironmentName::production(),
            kind: self.kind,
            status,
            previous: entry.live().map(|live| live.label.clone()),
            actor: self.actor.to_string(),
            reason: self.reason.clone(),
            build_log,
            created_at: self.at,
            finished_at: Timestamp::now(),
        }
    }

    fn response(
        &self,
        entry: &Entry,
        version: &Version,
        deployment: Option<&Deployment>,
        status: &str,
        published: bool,
    ) -> DeployResponse {
        DeployResponse {
            deployment_id: deployment.map_or_else(String::new, |it| it.id.to_string()),
            function_id: entry.function.id.to_string(),
            version: version.label.to_string(),
            number: version.number,
            status: status.into(),
            previous_version: match deployment {
                Some(deployment) => deployment.previous.as_ref().map(ToString::to_string),
                None => entry.live().map(|live| live.label.to_string()),
            },
            published,
            digest: version.digest,
            size: version.size,
            duration_ms: self.started.elapsed().as_secs_f64() * 1e3,
        }
    }
}
