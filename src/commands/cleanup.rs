//! CLEANUP: removes old versions that nothing refers to, with their bundles and bytecode.
//!
//! The transaction that deletes the versions also selects them ([`crate::store::Store::prune_versions`]), so no alias
//! can be pointed at one in between. The function's change lock is held until the code is gone from the disk too, so
//! that a deployment does not find a bundle of its label in its way.

use super::{Caller, Command, Context, delete};
use crate::{
    config::{KEEP_VERSIONS, Switch},
    error::{Error, ErrorCode},
    model::{FunctionId, Timestamp},
    protocol::message::{CleanupRequest, CleanupResponse, FunctionCleanup, KeptVersion, RemovedVersion},
    router::Entry,
    store::Pruned,
};
use std::sync::Arc;

impl Command for CleanupRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<CleanupResponse, Error> {
        let CleanupRequest { function_id, keep, dry_run } = self;
        let (min, max) = KEEP_VERSIONS;
        let keep = keep.unwrap_or_else(|| context.config.load().versioning.keep_versions);
        if !(min..=max).contains(&keep) {
            return Err(Error::invalid(format!("keep is {keep}: it must be from {min} to {max}")));
        }
        let is_one = function_id.is_some();
        let entries = match function_id {
            Some(function) => vec![context.router.function(&function)?],
            None => context.router.functions().to_vec(),
        };
        let owner = Arc::clone(context);
        context
            .to_its_end(async move {
                let mut response = CleanupResponse { functions: Vec::new(), freed_bytes: 0, dry_run };
                for entry in entries {
                    match clean(&owner, entry.function.id, keep, dry_run).await {
                        Ok(pruned) => add(&mut response, &entry, &pruned),
                        // The function was deleted while others were cleaned up.
                        Err(error) if !is_one && error.code == ErrorCode::FunctionNotFound => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(response)
            })
            .await
    }
}

fn add(response: &mut CleanupResponse, entry: &Entry, pruned: &Pruned) {
    response.freed_bytes += pruned.removed.iter().map(|version| version.size).sum::<u64>();
    let removed = pruned.removed.iter().map(|version| RemovedVersion {
        version: version.label.clone(),
        number: version.number,
        size: version.size,
    });
    let kept = pruned.kept.iter().map(|(version, holds)| KeptVersion {
        version: version.label.clone(),
        number: version.number,
        why: holds.iter().map(ToString::to_string).collect(),
    });
    response.functions.push(FunctionCleanup {
        function: entry.function.name.to_string(),
        function_id: entry.function.id,
        removed: removed.collect(),
        kept: kept.collect(),
    });
}

async fn clean(context: &Arc<Context>, id: FunctionId, keep: u32, dry_run: bool) -> Result<Pruned, Error> {
    // A dry run only reads, so it need not wait for a deployment.
    let _changing = if dry_run { None } else { Some(context.hold(id).await?) };
    context
        .blocking(move |context| {
            let pruned = context.store.prune_versions(id, keep, dry_run, Timestamp::now())?;
            if !dry_run && !pruned.removed.is_empty() {
                delete::forget(context, id, &pruned.removed)?;
                let versions = pruned.removed.iter().map(|it| it.label.as_str()).collect::<Vec<_>>().join(", ");
                tracing::info!(function = %id, versions, keep, "old versions are removed");
            }
            Ok(pruned)
        })
        .await
}

/// Cleans up after a deployment that published a version, if the configuration says so. No command waits for this: it
/// begins when the deployment has released its lock, and ends before the daemon does.
pub(super) fn after_deployment(context: &Arc<Context>, id: FunctionId) {
    let versioning = context.config.load().versioning.clone();
    if versioning.auto_cleanup == Switch::Off {
        return;
    }
    let owner = Arc::clone(context);
    context.tasks.spawn(async move {
        match clean(&owner, id, versioning.keep_versions, false).await {
            // A daemon that stops leaves them to the next deployment.
            Err(error) if !matches!(error.code, ErrorCode::FunctionNotFound | ErrorCode::ShuttingDown) => {
                tracing::warn!(function = %id, %error, "old versions are not removed");
            }
            _ => {}
        }
    });
}
