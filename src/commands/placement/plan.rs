//! The plan of a move: a pure function of the request, the function's present state and two facts of the store.
//!
//! A dry run shows the plan, the real run carries it out.

use super::AliasMove;
use crate::{
    commands::idempotency::Claim,
    model::{Deployment, DeploymentStatus, EnvironmentName, Percent, Split, Version, VersionId, VersionLabel},
    router::{Alias, Entry},
    scheduler::Floor,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Facts that only the store knows.
#[derive(Default)]
pub(in crate::commands) struct Facts {
    /// Deployment that waits for approval to do the same.
    pub(super) waiting: Option<Deployment>,
    /// Whether the environment is protected and the version is new to the alias there.
    pub(super) needs_approval: bool,
}

/// Part of a plan that only deployments of code have.
#[derive(Default, Clone)]
pub(in crate::commands) struct Delivery {
    /// Whether the version is published with the move.
    pub(in crate::commands) is_new: bool,
    /// Whether the request carried the code of a version that is published already.
    pub(in crate::commands) reused: bool,
    /// Whether the alias is not meant to move.
    pub(in crate::commands) stays: bool,
    /// Number of workers that the request wants warm.
    pub(in crate::commands) warm: u32,
    /// Whether the function was created with the deployment.
    pub(in crate::commands) new_function: bool,
    /// Log of the version's build.
    pub(in crate::commands) build_log: Option<String>,
    /// Idempotency key of the request.
    pub(in crate::commands) claim: Option<Arc<Claim>>,
}

/// Outcome for the alias.
pub(super) enum AliasOutcome {
    /// The alias stays, because it is as wanted.
    Unchanged,
    /// The alias stays, because it is not meant to move.
    NotMeant,
    /// The alias stays until the deployment is approved.
    Waits,
    /// The alias stays, and this deployment waits for approval to do the same.
    WaitsAlready(Box<Deployment>),
    /// The alias moves, or divides its invocations in another way.
    Moves,
}

/// A move before it happens.
pub(in crate::commands) struct Plan {
    /// The function before the move.
    pub(in crate::commands) entry: Arc<Entry>,
    pub(in crate::commands) wanted: AliasMove,
    pub(in crate::commands) version: Arc<Version>,
    pub(in crate::commands) delivery: Delivery,
    /// Environment that the alias runs in after the move.
    pub(in crate::commands) environment: EnvironmentName,
    /// Whether the version must not have the environment's secrets while it loads.
    pub(super) needs_approval: bool,
    pub(super) outcome: AliasOutcome,
}

impl Plan {
    pub(in crate::commands) fn of(
        entry: &Arc<Entry>,
        wanted: AliasMove,
        version: Arc<Version>,
        Facts { waiting, needs_approval }: Facts,
        delivery: Delivery,
    ) -> Self {
        let outcome = match waiting {
            _ if wanted.is_done(entry, &version) => AliasOutcome::Unchanged,
            _ if delivery.stays => AliasOutcome::NotMeant,
            Some(waiting) => AliasOutcome::WaitsAlready(Box::new(waiting)),
            None if needs_approval => AliasOutcome::Waits,
            None => AliasOutcome::Moves,
        };
        let environment = wanted.environment(entry);
        Self { entry: Arc::clone(entry), wanted, version, delivery, environment, needs_approval, outcome }
    }

    /// Plan of a move that needs no approval, or has it.
    pub(in crate::commands) fn approved(entry: &Arc<Entry>, wanted: AliasMove, version: Arc<Version>) -> Self {
        Self::of(entry, wanted, version, Facts::default(), Delivery::default())
    }

    /// Row of the deployment if the plan takes effect without an approval.
    pub(in crate::commands) fn row(&self) -> Deployment {
        let row = self.wanted.row(&self.entry, &self.version);
        let status = if self.delivery.stays { DeploymentStatus::Built } else { row.status };
        Deployment { status, build_log: self.delivery.build_log.clone(), ..row }
    }

    /// Label that loses invocations to the version.
    pub(in crate::commands) fn previous(&self) -> Option<&VersionLabel> {
        self.wanted.previous(&self.entry, &self.version.label)
    }

    /// Share that the alias's second version had, if the alias's own version gets all invocations back.
    pub(super) fn ended_share(&self) -> Option<Percent> {
        let alias = self.wanted.present(&self.entry).filter(|it| it.version == self.version.id)?;
        alias.split.filter(|_| self.wanted.weight.is_none()).map(|it| it.weight)
    }

    /// Number of workers that load the version.
    pub(super) fn workers(&self) -> u32 {
        let settings = &self.entry.function.settings;
        let floor = if self.wanted.alias.is_live() { settings.warm_workers } else { 0 };
        self.delivery.warm.max(floor).max(1).min(settings.max_concurrent_executions)
    }

    /// The function as it would be after the move.
    pub(super) fn after(&self) -> Entry {
        let mut after = Entry::clone(&self.entry);
        if after.version(self.version.id).is_none() {
            after.versions = after.versions.with(&self.version);
        }
        let name = &self.wanted.alias;
        let old = after.aliases.iter().position(|it| it.name == *name).map(|at| after.aliases.remove(at));
        let sticky = self.wanted.change.sticky.clone();
        let split = self.wanted.weight.map(|weight| Split { version_id: self.version.id, weight });
        after.aliases.push(Alias {
            name: name.clone(),
            environment: self.environment.clone(),
            sticky: sticky.unwrap_or_else(|| old.as_ref().and_then(|it| it.sticky.clone())),
            version: old.map(|it| it.version).filter(|_| split.is_some()).unwrap_or(self.version.id),
            split,
            guard: None,
            went_back_at: None,
            rollout: None,
        });
        after
    }

    /// Floors that change with the function from its state before the move to `after`. Versions that `LIVE` sends
    /// invocations to have the floor of the settings; versions that the alias left keep one worker for the time
    /// `kept`, so that going back is as fast as going forward. Versions of other aliases keep none: their workers
    /// expire when unused.
    pub(super) fn floors(&self, after: &Entry, kept: Duration) -> Vec<(VersionId, Floor)> {
        let serving = |entry: &Entry| -> Vec<VersionId> {
            let targets = self.wanted.present(entry).into_iter().flat_map(Alias::targets);
            targets.filter(|(_, share)| *share > Percent::NONE).map(|(id, _)| id).collect()
        };
        let (old, new, is_live) = (serving(&self.entry), serving(after), self.wanted.alias.is_live());
        let floor = |id: VersionId| match (new.contains(&id), old.contains(&id)) {
            // `LIVE` alone decides the floors of its versions.
            _ if !is_live && after.is_live_in(id, &self.environment) => None,
            (true, _) => is_live.then_some(Floor::Settings),
            (false, true) if !kept.is_zero() => Some(Floor::OneUntil(Instant::now() + kept)),
            (false, _) => is_live.then_some(Floor::Nothing),
        };
        after.versions.iter().filter_map(|it| Some((it.id, floor(it.id)?))).collect()
    }
}
