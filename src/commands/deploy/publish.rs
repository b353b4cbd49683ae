//! From prepared code to a version, new or existing.
//!
//! A version without a label of its own is called `v<number>`.

use crate::{
    bundle::Staged,
    commands::{
        activate::{Act, DEPLOY_PATIENCE, Draft},
        build::{NotPrepared, Prepared},
        cleanup,
    },
    error::{Error, ErrorCode},
    model::{AliasName, DeployOutcome, Timestamp, Version, VersionId, VersionLabel, VersionSource},
    protocol::message::{DeployRequest, DeployResponse},
    router::Entry,
};
use std::{path::Path, sync::Arc};

/// Publishes a bundle as a new version, unless an existing version has this code.
pub(super) async fn publish(
    mut act: Act,
    entry: &Entry,
    Prepared { staged, kind, log }: Prepared,
    label: Option<VersionLabel>,
    request: DeployRequest,
) -> Result<DeployResponse, Error> {
    act.build_log = log;
    if let Some(version) = published(&act, entry, &staged, label.as_ref(), kind).await? {
        drop(staged);
        act.reused = true;
        return reuse(act, entry, &version, &request).await;
    }
    act.check_share(entry, None)?;
    let (dry_run, warm, activate) = (request.dry_run, request.warm.unwrap_or(0), request.activate.unwrap_or(true));
    let version = new_version(&act, entry, &staged, kind, label, request).await?;
    match act.introduce(entry, staged, &version, warm, dry_run).await {
        Ok(()) if dry_run => act.planned(entry, Draft { version: &version, is_new: true, activate, warm }).await,
        Ok(()) => {
            if activate {
                act.match_present(entry, &version, DEPLOY_PATIENCE).await;
            }
            let context = Arc::clone(&act.context);
            let published = act.commit(entry, &version, true, activate).await?;
            cleanup::after_deployment(&context, entry.function.id);
            Ok(published)
        }
        Err(error) => {
            if !dry_run {
                act.record_failure(entry, &version.label, &error).await;
            }
            Err(error)
        }
    }
}

/// Finds the existing version of this bundle. A label that stands for other code is refused.
async fn published(
    act: &Act,
    entry: &Entry,
    staged: &Staged,
    label: Option<&VersionLabel>,
    kind: VersionSource,
) -> Result<Option<Arc<Version>>, Error> {
    let extension = |entry: &str| Path::new(entry).extension().map(ToOwned::to_owned);
    // A file that is deployed by its path has no name within a bundle; its digest does not depend on its name either.
    let is_nameless = kind == VersionSource::Path && staged.is_one_file();
    let is_renamed = |it: &str| is_nameless && extension(it) == extension(staged.entry());
    let is_same =
        |it: &Arc<Version>| it.digest == staged.digest() && (it.entry == staged.entry() || is_renamed(&it.entry));
    let Some(label) = label else { return same_code(act, entry, is_same).await };
    match entry.labelled(label.as_str()) {
        Some(version) if !is_same(version) => Err(Error::new(
            ErrorCode::VersionExists,
            format!("version `{label}` exists with other code and cannot change: choose another label"),
        )),
        version => Ok(version.cloned()),
    }
}

/// Without a label, published code is not published again. The alias's target comes first, then the versions that wait
/// to become it, then the newest version with this code. A damaged version does not count: its code is published anew.
async fn same_code(
    act: &Act,
    entry: &Entry,
    is_same: impl Fn(&Arc<Version>) -> bool,
) -> Result<Option<Arc<Version>>, Error> {
    if let Some(version) = act.target(entry).filter(|it| is_same(it)) {
        return Ok(Some(Arc::clone(version)));
    }
    if let Some((_, version)) = act.waiting(entry).await?.into_iter().find(|it| is_same(&it.1)) {
        return Ok(Some(version));
    }
    for version in entry.versions.iter().filter(|it| is_same(it)) {
        match act.verify(version).await {
            Ok(()) => return Ok(Some(Arc::clone(version))),
            Err(error) => tracing::warn!(%error, version = %version.label, "its code is published as a new version"),
        }
    }
    Ok(None)
}

/// Creates the version of a bundle, with the requested label or a free one.
async fn new_version(
    act: &Act,
    entry: &Entry,
    staged: &Staged,
    source: VersionSource,
    label: Option<VersionLabel>,
    request: DeployRequest,
) -> Result<Version, Error> {
    let number = next_number(act, entry).await?;
    let label = match label {
        Some(label) if is_alias(entry, label.as_str()) => {
            return Err(Error::new(
                ErrorCode::Conflict,
                format!("`{label}` is an alias, which would hide a version of that label: choose another label"),
            ));
        }
        Some(label) if label.number().is_some_and(|it| it != number) => return Err(another_number(&label, number)),
        Some(label) => label,
        None => free_label(entry, number)?,
    };
    Ok(Version {
        id: VersionId::new(),
        function_id: entry.function.id,
        label,
        number,
        digest: staged.digest(),
        size: staged.size(),
        entry: staged.entry().to_owned(),
        source,
        git_commit: request.git_commit,
        git_branch: request.git_branch,
        description: request.description,
        tags: request.tags,
        bun_version: act.context.scheduler.spawner().runtime().version.to_string(),
        settings: entry.function.settings,
        created_at: Timestamp::now(),
    })
}

fn another_number(label: &VersionLabel, number: u32) -> Error {
    Error::invalid(format!(
        "the label `{label}` reads as the number of another version, and this one is number {number}: choose a label \
         that is not a number, or leave it out"
    ))
}

/// Points the alias at an existing version, if the request wants it moved.
pub(super) async fn reuse(
    act: Act,
    entry: &Entry,
    version: &Arc<Version>,
    request: &DeployRequest,
) -> Result<DeployResponse, Error> {
    let (warm, activate) = (request.warm.unwrap_or(0), request.activate.unwrap_or(true));
    act.check_share(entry, Some(version.id))?;
    if request.dry_run {
        return act.rehearse(entry, version, warm, activate).await;
    }
    if !act.is_done(entry, version) && !activate {
        return Ok(act.response(entry, version, None, DeployOutcome::Built, false));
    }
    act.activate(entry, version, warm).await
}

/// Records a failed build, and returns its error. Other code that is not a bundle is not worth a record.
pub(super) async fn not_built(mut act: Act, entry: &Entry, failed: NotPrepared, label: Option<VersionLabel>) -> Error {
    let NotPrepared { mut error, log } = failed;
    if error.code != ErrorCode::BuildFailed || act.dry_run {
        return error;
    }
    let label = match label {
        Some(label) => Ok(label),
        None => next_label(&act, entry).await,
    };
    if let Ok(label) = label {
        act.build_log = log;
        // The details are the log and its problems.
        let details = error.details.take();
        act.record_failure(entry, &label, &error).await;
        error.details = details;
    }
    error
}

/// Label of the next version if none is requested.
pub(super) async fn next_label(act: &Act, entry: &Entry) -> Result<VersionLabel, Error> {
    free_label(entry, next_number(act, entry).await?)
}

/// Number of the next version.
async fn next_number(act: &Act, entry: &Entry) -> Result<u32, Error> {
    let function_id = entry.function.id;
    match entry.versions.is_empty() && act.context.router.function(&function_id.to_string()).is_err() {
        // Dry run for a function that does not exist yet.
        true => Ok(1),
        false => act.context.blocking(move |context| Ok(context.store.next_number(function_id)?)).await,
    }
}

fn is_alias(entry: &Entry, label: &str) -> bool {
    entry.alias(label).is_some() || [AliasName::LIVE, AliasName::ROLLBACK].contains(&label)
}

/// `v<number>`, or `v<number>-2` and so on if a user has taken that label.
fn free_label(entry: &Entry, number: u32) -> Result<VersionLabel, Error> {
    let candidates = std::iter::once(format!("v{number}")).chain((2..).map(|again| format!("v{number}-{again}")));
    let mut free = candidates.filter(|label| entry.labelled(label).is_none() && !is_alias(entry, label));
    Ok(free.next().expect("a function has fewer versions than there are numbers").parse()?)
}
