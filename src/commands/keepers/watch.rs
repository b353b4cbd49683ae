//! The watch over the aliases that have a policy or a rollout.
//!
//! Each invocation is counted where it ends (`router::guard`). The watch looks four times a second, while there is
//! something to watch, and asks the store only if there is something to do. [`Alias::watch_action`] decides what an
//! alias needs, and does so again under the function's lock, on the alias's state at that time. Going back is a move
//! like any rollback.
//!
//! **It never flaps.** After an automatic rollback, the alias's version is not judged for the cooldown, and the version
//! that was left is no target of another one until a caller points the alias at it again. Both follow from the table of
//! deployments, so a restart forgets neither.

use crate::{
    commands::{
        Caller, Context,
        placement::{AliasMove, Placement},
        rollout::{advance, pause},
    },
    model::{AliasName, DeploymentKind, FunctionId, Timestamp, rollout::WatchAction},
    protocol::worker::LogLevel,
    router::{Alias, Entry, Guard, Warning},
    telemetry::{LogRecord, Stream},
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Interval between looks at the watched aliases.
const LOOK: Duration = Duration::from_millis(250);

/// Time between a failed rollback and the next try.
const RETRY: Duration = Duration::from_secs(5);

/// Actor in the audit trail.
const ACTOR: &str = "policy";

/// An alias that is watched.
type Watched = (FunctionId, AliasName);

/// Rolls aliases back by their policies and advances their rollouts, until the daemon stops.
pub async fn keep_watch(context: Arc<Context>) {
    let watch = async {
        let entries = context.router.functions();
        let mut aliases: Vec<Watched> = entries.iter().flat_map(|it| watched(it)).collect();
        // At most one act per alias runs at a time.
        let mut acts: HashMap<Watched, JoinHandle<()>> = HashMap::new();
        loop {
            tokio::select! {
                changed = context.wakes.watched.take() => {
                    aliases.retain(|(id, _)| !changed.contains(id));
                    let entries = changed.iter().filter_map(|id| context.router.by_id(*id).ok());
                    aliases.extend(entries.flat_map(|it| watched(&it)));
                }
                () = tokio::time::sleep(LOOK), if !aliases.is_empty() => {}
            }
            acts.retain(|_, act| !act.is_finished());
            aliases.retain(|(id, name)| {
                let Ok(entry) = context.router.by_id(*id) else { return false };
                let Some(alias) = entry.alias(name.as_str()).filter(|it| it.is_watched()) else { return false };
                let key = (*id, name.clone());
                if !acts.contains_key(&key)
                    && let Some(act) = look_at(&context, &entry, alias)
                {
                    acts.insert(key, act);
                }
                true
            });
        }
    };
    context.stopping.run_until_cancelled(watch).await;
}

fn watched(entry: &Entry) -> Vec<Watched> {
    let aliases = entry.aliases.iter().filter(|alias| alias.is_watched());
    aliases.map(|alias| (entry.function.id, alias.name.clone())).collect()
}

/// Starts what an alias needs, if it needs anything.
fn look_at(context: &Arc<Context>, entry: &Entry, alias: &Alias) -> Option<JoinHandle<()>> {
    let (owner, id, name) = (Arc::clone(context), entry.function.id, alias.name.clone());
    let tasks = &context.tasks;
    match (alias.watch_action(), &alias.guard, &alias.rollout) {
        (WatchAction::GoBack(_), Some(guard), _) if guard.may_try(RETRY) => {
            let guard = Arc::clone(guard);
            Some(tasks.spawn(async move { go_back(&owner, id, name, &guard).await }))
        }
        (WatchAction::Advance, _, Some(progress)) => {
            let progress = Arc::clone(progress);
            Some(tasks.spawn(async move { advance(&owner, id, name, &progress).await }))
        }
        (WatchAction::Pause(breach), Some(guard), Some(progress)) => {
            warn(context, entry, alias, guard, breach.to_string());
            let progress = Arc::clone(progress);
            Some(tasks.spawn(async move { pause(&owner, id, name, &progress, breach.to_string()).await }))
        }
        (WatchAction::Warn(breach), Some(guard), _) => {
            warn(context, entry, alias, guard, breach.to_string());
            None
        }
        _ => None,
    }
}

/// Warns of the version under judgement, unless it was warned of just now.
fn warn(context: &Context, entry: &Entry, alias: &Alias, guard: &Guard, text: String) {
    let Some(version) = entry.version(guard.version) else { return };
    let warning = Warning {
        version: version.label.clone(),
        text: text.into(),
        at: Timestamp::now(),
        version_id: version.id,
        said: Instant::now(),
    };
    let (function, alias, text) = (&entry.function.name, &alias.name, Arc::clone(&warning.text));
    if guard.warn(warning) {
        tracing::warn!(%function, %alias, version = %version.label, "a version violates the policy: {text}");
        log(context, entry, guard, format!("{alias}: {text}"));
    }
}

/// Writes a line about the version under judgement into the function's log.
fn log(context: &Context, entry: &Entry, guard: &Guard, message: String) {
    let Some(version) = entry.version(guard.version) else { return };
    context.telemetry.logs().push(LogRecord {
        at: Timestamp::now(),
        function_id: entry.function.id,
        version: version.label.clone(),
        invocation: None,
        worker: 0,
        stream: Stream::System,
        level: LogLevel::Warn,
        message,
    });
}

/// Rolls an alias back if its judged state is still the present one, and still violates its policy.
async fn go_back(context: &Arc<Context>, id: FunctionId, name: AliasName, judged: &Arc<Guard>) {
    let Ok((_changing, entry)) = context.hold(id).await else { return };
    let Some(alias) = entry.alias(name.as_str()) else { return };
    let is_same = alias.guard.as_ref().is_some_and(|it| Arc::ptr_eq(it, judged));
    let WatchAction::GoBack(breach) = alias.watch_action() else { return };
    if !is_same {
        return;
    }
    let wanted = name.clone();
    let target = match alias.under_judgement() == alias.version {
        false => Ok(Some(alias.version)),
        true => context.blocking(move |context| Ok(context.store.automatic_target(id, &wanted)?)).await,
    };
    let target = match target {
        Ok(target) => target.and_then(|id| entry.version(id)),
        Err(error) => return tracing::error!(%error, "an alias cannot be rolled back by its policy"),
    };
    let Some(target) = target else {
        let text = format!("{breach}; there is no version to go back to");
        return warn(context, &entry, alias, judged, text);
    };
    let caller = Caller::new(ACTOR, false);
    let wanted = AliasMove::new(DeploymentKind::AutoRollback, name.clone(), &caller, Some(breach.to_string()));
    match Placement::new(context, &entry).apply(wanted, Arc::clone(target), false).await {
        Ok(_) => log(context, &entry, judged, format!("{name} goes back to {}: {breach}", target.label)),
        Err(error) => {
            let text = format!("{breach}; going back to {} failed: {}: {error}", target.label, error.code);
            warn(context, &entry, alias, judged, text);
        }
    }
}
