//! Plan of an act, for a dry run.
//!
//! A dry run takes the path of the act itself up to its commit: the same checks, and the same load, in workers that are
//! then ended. The effects of the commit are the differences between two pictures of the function: the present one, and
//! the one that the router would have afterwards.

use super::Act;
use crate::{
    config::{Switch, Verify},
    error::Error,
    model::{AliasName, DeployOutcome, DeploymentStatus, EnvironmentName, Split, Version, VersionId},
    protocol::message::{DeployResponse, PlanAction, PlanStep},
    router::{Alias, Entry},
    scheduler::Floor,
    store::{DeploymentCommit, Target},
};
use std::sync::Arc;

/// An act before it happens.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Draft<'a> {
    /// Version that the alias is to point at.
    pub(in crate::commands) version: &'a Version,
    /// Whether the version would be published.
    pub(in crate::commands) is_new: bool,
    /// Whether the alias is meant to move.
    pub(in crate::commands) activate: bool,
    /// Number of workers requested.
    pub(in crate::commands) warm: u32,
}

/// Outcome for the alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The alias stays: it is already there, or is not meant to move.
    Stays,
    /// The alias stays until the deployment is approved.
    Waits,
    /// The alias stays, and a deployment that would do this already waits for approval.
    WaitsAlready,
    /// The alias moves, or divides its invocations in another way.
    Moves,
}

impl Act {
    /// Checks what activating a published version would check, and returns the plan without moving anything.
    pub(in crate::commands) async fn rehearse(
        &self,
        entry: &Entry,
        version: &Arc<Version>,
        warm: u32,
        activate: bool,
    ) -> Result<DeployResponse, Error> {
        if activate && !self.is_done(entry, version) {
            self.verify(version).await?;
            self.try_load(entry, version).await?;
        }
        self.planned(entry, Draft { version, is_new: false, activate, warm }).await
    }

    /// Loads a published version in a worker of its own, unless a worker has it loaded. The version's pools may have
    /// invocations, so they are left alone.
    async fn try_load(&self, entry: &Entry, version: &Version) -> Result<(), Error> {
        let scheduler = &self.context.scheduler;
        let present = scheduler.existing(version.id, &self.environment(entry));
        if present.is_some_and(|pool| pool.snapshot().counts.ready() > 0) {
            return Ok(());
        }
        let copy = Version { id: VersionId::new(), ..version.clone() };
        let loaded = self.warm(entry, &copy, 0).await;
        scheduler.close(copy.id);
        loaded
    }

    /// Response of a dry run.
    pub(in crate::commands) async fn planned(&self, entry: &Entry, draft: Draft<'_>) -> Result<DeployResponse, Error> {
        let fate = self.fate(entry, draft).await?;
        let mut plan = self.before_the_move(entry, draft, fate);
        match fate {
            Fate::Stays => plan.push(self.stays(entry)),
            Fate::Waits | Fate::WaitsAlready => {
                let (alias, version, environment) = (&self.alias, &draft.version.label, self.environment(entry));
                let waits = if fate == Fate::Waits { "it waits" } else { "it waits already" };
                let stays = self.stays(entry).detail;
                let detail = format!(
                    "{environment} is protected and {version} is new to {alias} there: {waits} for approval; {stays}"
                );
                plan.push(step(PlanAction::WaitForApproval, detail));
            }
            Fate::Moves => plan.extend(self.moves(entry, draft.version)),
        }
        // A new description alone is not part of a move.
        plan.extend(self.describes().filter(|_| fate == Fate::Stays));
        plan.extend(self.cleans_up(entry, draft).await?);
        Ok(DeployResponse { plan, ..self.response(entry, draft.version, None, DeployOutcome::Checked, false) })
    }

    async fn fate(&self, entry: &Entry, draft: Draft<'_>) -> Result<Fate, Error> {
        let Draft { version, is_new, activate, .. } = draft;
        if !activate || self.is_done(entry, version) {
            return Ok(Fate::Stays);
        }
        if self.waiting(entry).await?.iter().any(|it| it.1.id == version.id) {
            return Ok(Fate::WaitsAlready);
        }
        let row = self.row(entry, version);
        let known = (!is_new).then_some(version.id);
        let waits = self.context.blocking(move |context| Ok(context.store.needs_approval(&row, known)?)).await?;
        Ok(if waits { Fate::Waits } else { Fate::Moves })
    }

    fn before_the_move(&self, entry: &Entry, draft: Draft<'_>, fate: Fate) -> Vec<PlanStep> {
        let Draft { version, is_new, warm, .. } = draft;
        let Version { label, number, size, digest, .. } = version;
        let mut plan = Vec::new();
        if self.context.router.function(&entry.function.id.to_string()).is_err() {
            plan.push(step(PlanAction::Register, format!("the function `{}` is created", entry.function.name)));
        }
        if is_new {
            let detail = format!("version {number} is published as {label}: {size} bytes, SHA-256 {digest}");
            plan.push(step(PlanAction::Publish, detail));
        } else {
            plan.push(step(PlanAction::Reuse, format!("{label} is published already, as version {number}")));
        }
        let is_loaded = match is_new {
            true => self.context.config.load().versioning.verify == Verify::Load,
            false => matches!(fate, Fate::Waits | Fate::Moves),
        };
        if is_loaded {
            let count = self.count(entry, warm);
            let workers = if count == 1 { "a worker".to_owned() } else { format!("{count} workers") };
            plan.push(step(PlanAction::Load, format!("{label} loads in {workers} before anything moves")));
        }
        plan
    }

    fn stays(&self, entry: &Entry) -> PlanStep {
        let alias = &self.alias;
        let detail = match entry.alias(alias.as_str()) {
            Some(present) => format!("{alias} stays as it is: {}", shown(entry, present)),
            None => format!("{alias} points at nothing, as before"),
        };
        step(PlanAction::Stay, detail)
    }

    fn moves(&self, entry: &Entry, version: &Version) -> Vec<PlanStep> {
        let after = self.after(entry, version);
        let name = &self.alias;
        let Some(new) = after.alias(name.as_str()) else { return Vec::new() };
        let old = entry.alias(name.as_str());
        let mut plan = Vec::new();
        match old {
            None => plan.push(step(PlanAction::Make, format!("{name} is created: {}", shown(&after, new)))),
            Some(old) => {
                if let Some(progress) = &old.rollout {
                    let detail = format!("the rollout of {} to {name} is aborted", progress.rollout.label);
                    plan.push(step(PlanAction::EndRollout, detail));
                }
                if let Some(split) = old.split.filter(|_| new.split.is_none()) {
                    let detail = format!("the split of {name} with {} ends", second(entry, &split));
                    plan.push(step(PlanAction::EndSplit, detail));
                }
                if (old.version, &old.environment) != (new.version, &new.environment) {
                    let old = (label(entry, old.version), &old.environment);
                    let new = (label(&after, new.version), &new.environment);
                    plan.push(step(PlanAction::Move, moved(name, old, new)));
                }
            }
        }
        if let Some(split) = new.split.filter(|split| old.and_then(|it| it.split) != Some(*split)) {
            let instead = old.and_then(|it| it.split).map(|it| format!(" instead of {}", it.weight));
            let (second, weight, instead) =
                (label(&after, split.version_id), split.weight, instead.unwrap_or_default());
            let (first, rest) = (label(&after, new.version), split.weight.rest());
            let detail = format!("{second} gets {weight} of the calls of {name}{instead}, {first} keeps {rest}");
            plan.push(step(PlanAction::Share, detail));
        }
        if let Some(sticky) = self.sticky.as_ref().filter(|it| old.is_none_or(|old| old.sticky != **it)) {
            let detail = match sticky {
                Some(sticky) => format!("callers of {name} stay with their version by {sticky}"),
                None => format!("callers of {name} no longer stay with their version"),
            };
            plan.push(step(PlanAction::Stick, detail));
        }
        plan.extend(self.describes());
        if let Some(before) = old.filter(|old| name.is_live() && old.version != new.version) {
            let detail = format!("{} follows and points at {}", AliasName::ROLLBACK, label(entry, before.version));
            plan.push(step(PlanAction::Follow, detail));
        }
        plan.extend(self.keeps(entry, &after));
        plan
    }

    /// Versions that the cleanup after the deployment would remove, found by trying both.
    async fn cleans_up(&self, entry: &Entry, draft: Draft<'_>) -> Result<Vec<PlanStep>, Error> {
        let versioning = self.context.config.load().versioning.clone();
        let is_there = self.context.router.function(&entry.function.id.to_string()).is_ok();
        if !draft.is_new || !is_there || versioning.auto_cleanup == Switch::Off {
            return Ok(Vec::new());
        }
        let mut row = self.row(entry, draft.version);
        if !draft.activate {
            row.status = DeploymentStatus::Built;
        }
        let (version, keep) = (draft.version.clone(), versioning.keep_versions);
        let pruned = self.context.blocking(move |context| {
            let commit = DeploymentCommit { target: Target::New(&version), deployment: &row };
            Ok(context.store.prune_after(&commit, keep)?)
        });
        let removed = pruned.await?.removed.into_iter().map(|it| {
            let detail =
                format!("{} is removed: it is not among the {keep} newest, and nothing refers to it", it.label);
            step(PlanAction::CleanUp, detail)
        });
        Ok(removed.collect())
    }

    fn describes(&self) -> Option<PlanStep> {
        let description = self.description.as_ref()?;
        let detail = format!("{} is described as “{description}”", self.alias);
        Some(step(PlanAction::Describe, detail))
    }

    /// The function as it would be after the act.
    fn after(&self, entry: &Entry, version: &Version) -> Entry {
        let mut after = entry.clone();
        if after.version(version.id).is_none() {
            after.versions.insert(0, Arc::new(version.clone()));
        }
        let environment = self.environment(entry);
        let old = after.aliases.iter().position(|it| it.name == self.alias).map(|at| after.aliases.remove(at));
        let sticky = self.sticky.clone().unwrap_or_else(|| old.as_ref().and_then(|it| it.sticky.clone()));
        let split = self.weight.map(|weight| Split { version_id: version.id, weight });
        let first = old.map(|it| it.version).filter(|_| split.is_some()).unwrap_or(version.id);
        after.aliases.push(Alias {
            name: self.alias.clone(),
            environment,
            version: first,
            split,
            sticky,
            guard: None,
            went_back_at: None,
            rollout: None,
        });
        after
    }

    /// Steps for the workers that would be kept warm for a way back.
    fn keeps(&self, entry: &Entry, after: &Entry) -> Vec<PlanStep> {
        let seconds = self.context.config.load().versioning.rollback_warm_seconds;
        let environment = self.environment(entry);
        let kept = self.floors(entry, after).into_iter().filter(|(id, floor)| {
            matches!(floor, Floor::OneUntil(_)) && self.context.scheduler.existing(*id, &environment).is_some()
        });
        let detail = |id| format!("one worker of {} is kept warm for {seconds} s", label(entry, id));
        kept.map(|(id, _)| step(PlanAction::KeepWarm, detail(id))).collect()
    }
}

fn step(action: PlanAction, detail: String) -> PlanStep {
    PlanStep { action, detail }
}

fn label(entry: &Entry, id: VersionId) -> &str {
    entry.version(id).map_or("a deleted version", |it| it.label.as_str())
}

fn second(entry: &Entry, split: &Split) -> String {
    format!("{} ({})", label(entry, split.version_id), split.weight)
}

/// Describes where an alias points.
fn shown(entry: &Entry, alias: &Alias) -> String {
    let split = alias.split.map(|it| format!(" and at {}", second(entry, &it))).unwrap_or_default();
    format!("it points at {}{split} in {}", label(entry, alias.version), alias.environment)
}

fn moved(name: &AliasName, old: (&str, &EnvironmentName), new: (&str, &EnvironmentName)) -> String {
    match (old.0 == new.0, old.1 == new.1) {
        (_, true) => format!("{name} moves from {} to {} in {}", old.0, new.0, new.1),
        (true, _) => format!("{name} moves from {} to {} with {}", old.1, new.1, new.0),
        _ => format!("{name} moves from {} in {} to {} in {}", old.0, old.1, new.0, new.1),
    }
}
