//! Workers that stay warm: at the start of the daemon, and after an alias has moved.

use super::{Placement, Plan};
use crate::{
    commands::Context,
    model::{AliasName, Percent},
    router::Entry,
    scheduler::PoolHandle,
};
use tokio::task::JoinSet;

impl Context {
    /// Starts the workers that are always kept, and waits until they are ready or have failed.
    pub async fn warm_floors(&self) {
        let mut floors = JoinSet::new();
        for entry in self.router.functions().iter() {
            let count = entry.function.settings.warm_workers as usize;
            for pool in self.prepare_floor(entry) {
                floors.spawn(async move { pool.warm(count).await });
            }
        }
        while floors.join_next().await.is_some() {}
    }

    /// Creates the pools of the versions that `LIVE` sends invocations to, if they keep workers warm; the scheduler's
    /// next tick fills them.
    pub fn prepare_floor(&self, entry: &Entry) -> Vec<PoolHandle> {
        let mut pools = Vec::new();
        let live = entry.alias(AliasName::LIVE).filter(|_| entry.function.settings.warm_workers > 0);
        for (alias, (id, share)) in live.into_iter().flat_map(|alias| alias.targets().map(move |it| (alias, it))) {
            if let Some(version) = entry.version(id).filter(|_| share > Percent::NONE) {
                pools.push(self.pool(entry, version, &alias.environment));
            }
        }
        pools
    }
}

impl Placement {
    /// Moves the floors after a commit. The router already sends new invocations to their versions.
    pub(in crate::commands) fn move_traffic(&self, plan: &Plan, takes_effect: bool) {
        let (wanted, function, version) = (&plan.wanted, &plan.entry.function, &plan.version.label);
        let (alias, kind, weight, actor) = (&wanted.alias, wanted.kind, wanted.weight, &*wanted.actor);
        let (activate, name) = (takes_effect, &function.name);
        tracing::info!(function = %name, %version, %alias, ?kind, ?weight, activate, actor, "deployed");
        let Ok(entry) = self.context.router.by_id(function.id) else { return };
        if !takes_effect {
            return;
        }
        let kept = self.context.config.load().versioning.rollback_warm();
        for (id, floor) in plan.floors(&entry, kept) {
            if let Some(pool) = self.context.scheduler.existing(id, &plan.environment) {
                pool.set_floor(floor);
            }
        }
        self.context.prepare_floor(&entry);
    }
}
