//! Workers that stay warm after an alias has moved.

use super::Act;
use crate::{
    model::{Percent, Version, VersionId},
    router::{Alias, Entry},
    scheduler::Floor,
};
use std::time::Instant;

impl Act {
    /// The router already sends new invocations to their versions. The floors follow: versions that `LIVE` sends
    /// invocations to have the floor of the settings; versions that it left keep one worker for a while, so that going
    /// back is as fast as going forward. Versions of other aliases keep none: their workers expire when unused.
    pub(in crate::commands) fn move_traffic(&self, before: &Entry, version: &Version, activate: bool) {
        let (function, alias, kind) = (&before.function.name, &self.alias, self.kind);
        let (label, weight) = (&version.label, self.weight);
        tracing::info!(%function, version = %label, %alias, ?kind, ?weight, activate, actor = &*self.actor, "deployed");
        let Ok(entry) = self.context.router.function(&before.function.id.to_string()) else { return };
        if !activate {
            return;
        }
        let environment = self.environment(&entry);
        for (id, floor) in self.floors(before, &entry) {
            if let Some(pool) = self.context.scheduler.existing(id, &environment) {
                pool.set_floor(floor);
            }
        }
        self.context.prepare_floor(&entry);
    }

    /// Floor of each version when the function changes from `before` to `after`.
    pub(super) fn floors(&self, before: &Entry, after: &Entry) -> Vec<(VersionId, Floor)> {
        let called = |entry: &Entry| -> Vec<VersionId> {
            let targets = self.present(entry).into_iter().flat_map(Alias::targets);
            targets.filter(|(_, share)| *share > Percent::NONE).map(|(id, _)| id).collect()
        };
        let (old, new, environment, is_live) =
            (called(before), called(after), self.environment(after), self.alias.is_live());
        let kept = self.context.config.load().versioning.rollback_warm();
        let floor = |id: VersionId| match (new.contains(&id), old.contains(&id)) {
            // `LIVE` alone decides the floors of its versions.
            _ if !is_live && after.is_live_in(id, &environment) => None,
            (true, _) => is_live.then_some(Floor::Settings),
            (false, true) if !kept.is_zero() => Some(Floor::OneUntil(Instant::now() + kept)),
            (false, _) => is_live.then_some(Floor::Nothing),
        };
        after.versions.iter().filter_map(|it| Some((it.id, floor(it.id)?))).collect()
    }
}
