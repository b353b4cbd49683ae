//! Bytecode for the versions that aliases point at. No command waits for it.
//!
//! One version at a time is examined: at the start, and whenever an alias has moved. Bytecode that the same runtime
//! compiled before is read through and used; otherwise [`deploy::compile`] compiles the bundle. Until then, and if that
//! fails, workers load the bundle itself.

use crate::{
    commands::Context,
    deploy::{self, NotCompiled},
    error::Error,
    model::{EnvironmentName, FunctionId, Version, VersionId},
    router::{Alias, Entry},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Keeps the versions of aliases compiled, until the daemon stops.
pub async fn keep_compiled(context: Arc<Context>) {
    let keep = async {
        // Versions that were examined and have no bytecode, of each function.
        let mut seen: HashMap<FunctionId, HashSet<VersionId>> = HashMap::new();
        let entries = context.router.functions();
        let mut waiting: HashSet<FunctionId> = entries.iter().map(|it| it.function.id).collect();
        drop(entries);
        loop {
            for id in std::mem::take(&mut waiting) {
                while let Some((entry, version)) = next(&context, id, seen.entry(id).or_default()) {
                    look_at(&context, &entry, &version).await;
                }
                if seen.get(&id).is_some_and(HashSet::is_empty) {
                    seen.remove(&id);
                }
            }
            waiting = context.wakes.moved.take().await;
        }
    };
    if context.code.bytecode.is_on() {
        // A trial worker must not delay the stop.
        context.stopping.run_until_cancelled(keep).await;
    }
}

/// Next version of a function that an alias points at and that was not examined since.
fn next(context: &Context, id: FunctionId, seen: &mut HashSet<VersionId>) -> Option<(Arc<Entry>, Arc<Version>)> {
    let Ok(entry) = context.router.by_id(id) else {
        seen.clear();
        return None;
    };
    let live = entry.aliases.iter().flat_map(Alias::targets).map(|(id, _)| id);
    let live: HashSet<_> = live.filter(|id| !context.code.bytecode.has(*id)).collect();
    // A version that is live again is examined again: the obstacle may be gone.
    seen.retain(|id| live.contains(id));
    let version = live.into_iter().find_map(|id| {
        let version = entry.version(id).filter(|it| seen.insert(it.id))?;
        deploy::is_candidate(&version.entry, version.size).then(|| Arc::clone(version))
    })?;
    Some((entry, version))
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
