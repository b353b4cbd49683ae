//! Bytecode for the versions that aliases point at. No command waits for it.
//!
//! One version at a time is examined: at the start, and whenever an alias has moved. Bytecode that the same runtime
//! compiled before is read through and used; otherwise [`deploy::compile`] compiles the bundle. Until then, and if that
//! fails, workers load the bundle itself.

use crate::{
    commands::Context,
    deploy::{self, NotCompiled},
    error::Error,
    model::{EnvironmentName, Version, VersionId},
    router::Entry,
};
use std::{collections::HashSet, sync::Arc};

/// Keeps the versions of aliases compiled, until the daemon stops.
pub async fn keep_compiled(context: Arc<Context>) {
    let keep = async {
        let mut seen = HashSet::new();
        loop {
            match next(&context, &mut seen) {
                Some((entry, version)) => look_at(&context, &entry, &version).await,
                None => context.wakes.aliases_moved.notified().await,
            }
        }
    };
    if context.code.bytecode.is_on() {
        // A trial worker must not delay the stop.
        context.stopping.run_until_cancelled(keep).await;
    }
}

/// Next version that an alias points at and that was not examined since.
fn next(context: &Context, seen: &mut HashSet<VersionId>) -> Option<(Arc<Entry>, Arc<Version>)> {
    let entries = context.router.functions();
    let aliases = entries.iter().flat_map(|entry| entry.aliases.iter().map(move |alias| (entry, alias)));
    let live = aliases.flat_map(|(entry, alias)| alias.targets().map(move |(id, _)| (entry, id)));
    let live: Vec<_> = live.filter(|(_, id)| !context.code.bytecode.has(*id)).collect();
    let ids: HashSet<_> = live.iter().map(|(_, id)| *id).collect();
    // A version that is live again is examined again: the obstacle may be gone.
    seen.retain(|id| ids.contains(id));
    live.into_iter().find_map(|(entry, id)| {
        let version = entry.version(id).filter(|it| seen.insert(it.id))?;
        deploy::is_candidate(&version.entry, version.size).then(|| (Arc::clone(entry), Arc::clone(version)))
    })
}

async fn look_at(context: &Arc<Context>, entry: &Entry, version: &Version) {
    let (function, label, id) = (&entry.function.name, &version.label, version.id);
    match context.blocking(move |context| Ok(context.code.bytecode.find(id))).await {
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => return tracing::warn!(%function, version = %label, "cannot look for bytecode: {error}"),
    }
    match compile(context, entry, version).await {
        Ok(()) => tracing::info!(%function, version = %label, "its bundle is compiled"),
        Err(reason) => tracing::info!(%function, version = %label, "its bundle is not compiled: {reason}"),
    }
}

async fn compile(context: &Arc<Context>, entry: &Entry, version: &Version) -> Result<(), NotCompiled> {
    let blueprint = context.blueprint(entry, version, &EnvironmentName::production());
    let draft = deploy::compile(context.scheduler.spawner(), &context.code.bytecode, &blueprint).await?;
    let (function, id) = (entry.function.id, version.id);
    // The version cannot be deleted from here on; an earlier deletion has removed its bytecode.
    let _changing = context.locks.changing.lock(function).await;
    let exists = context.router.by_id(function).is_ok_and(|entry| entry.version(id).is_some());
    if exists {
        let kept =
            context.blocking(move |context| context.code.bytecode.keep(&draft, id).map_err(Error::internal)).await;
        kept.map_err(|error| NotCompiled::Refused(error.message))?;
    }
    Ok(())
}
