//! From prepared code to a version, new or existing.
//!
//! A version without a label of its own is called `v<number>`.

use crate::{
    bundle::Staged,
    commands::{
        Context,
        build::{NotPrepared, Prepared},
        cleanup,
        placement::{AliasMove, DEPLOY_PATIENCE, Delivery, Placement},
    },
    error::{Error, ErrorCode},
    model::{AliasName, Timestamp, Version, VersionId, VersionLabel, VersionSource},
    protocol::message::{DeployRequest, DeployResponse},
    router::Entry,
};
use std::{path::Path, sync::Arc};

/// Publishes a bundle as a new version, unless an existing version has this code.
pub(super) async fn publish(
    placement: &Placement,
    wanted: AliasMove,
    delivery: Delivery,
    Prepared { staged, kind, log }: Prepared,
    label: Option<VersionLabel>,
    request: DeployRequest,
) -> Result<DeployResponse, Error> {
    let (entry, dry_run) = (&placement.entry, request.dry_run);
    let delivery = Delivery { build_log: log, ..delivery };
    if let Some(version) = published(placement, &wanted, &staged, label.as_ref(), kind).await? {
        drop(staged);
        wanted.check_share(entry, Some(version.id))?;
        let delivery = Delivery { reused: true, ..delivery };
        return placement.apply_delivered(wanted, version, delivery, dry_run).await;
    }
    wanted.check_share(entry, None)?;
    let version = new_version(&placement.context, entry, &staged, kind, label, request).await?;
    let plan = placement.plan(wanted, Arc::new(version), Delivery { is_new: true, ..delivery }).await?;
    match placement.introduce(&plan, staged, dry_run).await {
        Ok(()) if dry_run => placement.show(&plan).await,
        Ok(()) => {
            if !plan.delivery.stays {
                placement.match_present(&plan, DEPLOY_PATIENCE).await;
            }
            let published = placement.commit(&plan).await?;
            cleanup::after_deployment(&placement.context, entry.function.id);
            Ok(published)
        }
        Err(error) => {
            if !dry_run {
                placement.record_failure(&plan, &error).await;
            }
            Err(error)
        }
    }
}

/// Finds the existing version of this bundle. A label that stands for other code is refused.
async fn published(
    placement: &Placement,
    wanted: &AliasMove,
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
    let Some(label) = label else { return same_code(placement, wanted, is_same).await };
    match placement.entry.labelled(label.as_str()) {
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
    placement: &Placement,
    wanted: &AliasMove,
    is_same: impl Fn(&Arc<Version>) -> bool,
) -> Result<Option<Arc<Version>>, Error> {
    let entry = &placement.entry;
    if let Some(version) = wanted.target(entry).filter(|it| is_same(it)) {
        return Ok(Some(Arc::clone(version)));
    }
    if let Some((_, version)) = placement.waiting(wanted).await?.into_iter().find(|it| is_same(&it.1)) {
        return Ok(Some(version));
    }
    for version in entry.versions.iter().filter(|it| is_same(it)) {
        match placement.verify(version).await {
            Ok(()) => return Ok(Some(Arc::clone(version))),
            Err(error) => tracing::warn!(%error, version = %version.label, "its code is published as a new version"),
        }
    }
    Ok(None)
}

/// Creates the version of a bundle, with the requested label or a free one.
async fn new_version(
    context: &Arc<Context>,
    entry: &Entry,
    staged: &Staged,
    source: VersionSource,
    label: Option<VersionLabel>,
    request: DeployRequest,
) -> Result<Version, Error> {
    let number = next_number(context, entry).await?;
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
        bun_version: context.scheduler.spawner().runtime().version.to_string(),
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

/// Records a failed build, and returns its error. Other code that is not a bundle is not worth a record.
pub(super) async fn not_built(
    placement: &Placement,
    wanted: &AliasMove,
    failed: NotPrepared,
    label: Option<VersionLabel>,
) -> Error {
    let NotPrepared { error, log } = failed;
    if error.code != ErrorCode::BuildFailed {
        return error;
    }
    let label = match label {
        Some(label) => Ok(label),
        None => next_label(&placement.context, &placement.entry).await,
    };
    if let Ok(label) = label {
        placement.record_failed_move(wanted, label, log.as_deref(), &error).await;
    }
    error
}

/// Label of the next version if none is requested.
pub(super) async fn next_label(context: &Arc<Context>, entry: &Entry) -> Result<VersionLabel, Error> {
    free_label(entry, next_number(context, entry).await?)
}

/// Number of the next version.
async fn next_number(context: &Arc<Context>, entry: &Entry) -> Result<u32, Error> {
    let function_id = entry.function.id;
    match entry.versions.is_empty() && context.router.by_id(function_id).is_err() {
        // Dry run for a function that does not exist yet.
        true => Ok(1),
        false => context.blocking(move |context| Ok(context.store.next_number(function_id)?)).await,
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
