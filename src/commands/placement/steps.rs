//! The steps of a plan, which a dry run shows.
//!
//! A dry run takes the path of the move itself up to its commit: the same checks, and the same load, in workers that
//! are then ended. The effects of the commit are the differences between the function as it is and as it would be.

use super::{Placement, Plan, plan::AliasOutcome};
use crate::{
    config::{Switch, Verify},
    error::Error,
    model::{AliasName, DeployOutcome, EnvironmentName, Split, Version, VersionId},
    protocol::message::{DeployResponse, PlanAction, PlanStep},
    router::{Alias, Entry},
    scheduler::Floor,
    store::{DeploymentCommit, Target},
};
use std::sync::Arc;

impl Placement {
    /// Checks what carrying out the plan would check, and answers with its steps. Nothing moves.
    pub(super) async fn rehearse(&self, plan: &Plan) -> Result<DeployResponse, Error> {
        self.check_ready(plan).await?;
        self.show(plan).await
    }

    /// Answers with the steps of a plan.
    pub(in crate::commands) async fn show(&self, plan: &Plan) -> Result<DeployResponse, Error> {
        let versioning = self.context.config.load().versioning.clone();
        let mut steps = plan.first_steps(versioning.verify == Verify::Load);
        if let AliasOutcome::Moves = plan.outcome {
            let after = plan.after();
            steps.extend(plan.changes(&after));
            let floors = plan.floors(&after, versioning.rollback_warm()).into_iter();
            let kept = floors.filter(|(id, floor)| {
                matches!(floor, Floor::OneUntil(_)) && self.context.scheduler.existing(*id, &plan.environment).is_some()
            });
            let (entry, seconds) = (&plan.entry, versioning.rollback_warm_seconds);
            let detail = |id| format!("one worker of {} is kept warm for {seconds} s", label(entry, id));
            steps.extend(kept.map(|(id, _)| step(PlanAction::KeepWarm, detail(id))));
        }
        if plan.delivery.is_new && !plan.delivery.new_function && versioning.auto_cleanup == Switch::On {
            steps.extend(self.cleanup_steps(plan, versioning.keep_versions).await?);
        }
        Ok(DeployResponse { plan: steps, ..self.answer(plan, None, DeployOutcome::Checked) })
    }

    /// Versions that the cleanup after the deployment would remove, found by trying both.
    async fn cleanup_steps(&self, plan: &Plan, keep: u32) -> Result<Vec<PlanStep>, Error> {
        let (row, version) = (plan.row(), Arc::clone(&plan.version));
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
}

impl Plan {
    /// Steps before the alias moves, and why it stays if it does.
    fn first_steps(&self, loads_new: bool) -> Vec<PlanStep> {
        let Version { label, number, size, digest, .. } = &*self.version;
        let mut steps = Vec::new();
        if self.delivery.new_function {
            steps.push(step(PlanAction::Register, format!("the function `{}` is created", self.entry.function.name)));
        }
        let is_loaded = if self.delivery.is_new {
            let detail = format!("version {number} is published as {label}: {size} bytes, SHA-256 {digest}");
            steps.push(step(PlanAction::Publish, detail));
            loads_new
        } else {
            steps.push(step(PlanAction::Reuse, format!("{label} is published already, as version {number}")));
            matches!(self.outcome, AliasOutcome::Waits | AliasOutcome::Moves)
        };
        if is_loaded {
            let count = self.workers();
            let workers = if count == 1 { "a worker".to_owned() } else { format!("{count} workers") };
            steps.push(step(PlanAction::Load, format!("{label} loads in {workers} before anything moves")));
        }
        let (alias, environment) = (&self.wanted.alias, &self.environment);
        let waits = |waits: &str| {
            let stays = self.stays();
            let detail = format!(
                "{environment} is protected and {label} is new to {alias} there: {waits} for approval; {stays}"
            );
            step(PlanAction::WaitForApproval, detail)
        };
        match &self.outcome {
            AliasOutcome::Unchanged | AliasOutcome::NotMeant => {
                steps.push(step(PlanAction::Stay, self.stays()));
                // A new description alone is not part of a move.
                steps.extend(self.describes());
            }
            AliasOutcome::Waits => steps.push(waits("it waits")),
            AliasOutcome::WaitsAlready(_) => steps.push(waits("it waits already")),
            AliasOutcome::Moves => {}
        }
        steps
    }

    fn stays(&self) -> String {
        let alias = &self.wanted.alias;
        match self.wanted.present(&self.entry) {
            Some(present) => format!("{alias} stays as it is: {}", shown(&self.entry, present)),
            None => format!("{alias} points at nothing, as before"),
        }
    }

    /// Changes of the alias from the function's present state to `after`.
    fn changes(&self, after: &Entry) -> Vec<PlanStep> {
        let (entry, name) = (&self.entry, &self.wanted.alias);
        let (old, Some(new)) = (self.wanted.present(entry), after.alias(name.as_str())) else { return Vec::new() };
        let mut steps = Vec::new();
        match old {
            None => steps.push(step(PlanAction::Make, format!("{name} is created: {}", shown(after, new)))),
            Some(old) => {
                if let Some(progress) = &old.rollout {
                    let detail = format!("the rollout of {} to {name} is aborted", progress.rollout.label);
                    steps.push(step(PlanAction::EndRollout, detail));
                }
                if let Some(split) = old.split.filter(|_| new.split.is_none()) {
                    let detail = format!("the split of {name} with {} ends", second(entry, &split));
                    steps.push(step(PlanAction::EndSplit, detail));
                }
                if (old.version, &old.environment) != (new.version, &new.environment) {
                    let old = (label(entry, old.version), &old.environment);
                    let new = (label(after, new.version), &new.environment);
                    steps.push(step(PlanAction::Move, moved(name, old, new)));
                }
            }
        }
        if let Some(split) = new.split.filter(|split| old.and_then(|it| it.split) != Some(*split)) {
            let instead = old.and_then(|it| it.split).map(|it| format!(" instead of {}", it.weight));
            let (second, weight, instead) = (label(after, split.version_id), split.weight, instead.unwrap_or_default());
            let (first, rest) = (label(after, new.version), split.weight.rest());
            let detail = format!("{second} gets {weight} of the calls of {name}{instead}, {first} keeps {rest}");
            steps.push(step(PlanAction::Share, detail));
        }
        let sticky = self.wanted.change.sticky.as_ref();
        if let Some(sticky) = sticky.filter(|it| old.is_none_or(|old| old.sticky != **it)) {
            let detail = match sticky {
                Some(sticky) => format!("callers of {name} stay with their version by {sticky}"),
                None => format!("callers of {name} no longer stay with their version"),
            };
            steps.push(step(PlanAction::Stick, detail));
        }
        steps.extend(self.describes());
        if let Some(before) = old.filter(|old| name.is_live() && old.version != new.version) {
            let detail = format!("{} follows and points at {}", AliasName::ROLLBACK, label(entry, before.version));
            steps.push(step(PlanAction::Follow, detail));
        }
        steps
    }

    fn describes(&self) -> Option<PlanStep> {
        let description = self.wanted.change.description.as_ref()?;
        Some(step(PlanAction::Describe, format!("{} is described as “{description}”", self.wanted.alias)))
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
