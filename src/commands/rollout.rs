//! START_ROLLOUT, CONTROL_ROLLOUT and LIST_ROLLOUTS, and the steps of a rollout.
//!
//! Each step is a deployment: the version loads first, then one transaction gives it its share and notes the step. The
//! last step points the alias at the version. The watch (`commands::keepers`) starts the steps. The time for which a
//! step was held is in memory only: a restarted daemon holds the present step from its start, because the version was
//! not watched meanwhile, and had no invocations to be judged by.

use super::{
    Caller, Command, Context,
    page::{Asked, PAGE_MAX, Page},
    placement::{self, AliasMove, Placement, movable_alias},
    texts::check_text,
};
use crate::{
    error::{Error, ErrorCode},
    model::{
        AliasName, DeploymentKind, FunctionId, Percent, Rollout, RolloutId, RolloutStatus, Timestamp,
        rollout::{RolloutPlan, WatchAction},
    },
    protocol::message::{
        ControlRolloutRequest, RolloutAction, RolloutDetails, RolloutsRequest, RolloutsResponse, StartRolloutRequest,
    },
    router::{Alias, Entry, RolloutProgress},
    store::{AliasChange, StoreError},
};
use std::{sync::Arc, time::Duration};

/// Actor of the steps in the audit trail, which also names the actor who started the rollout.
const ACTOR: &str = "rollout";

/// Default number of rollouts in an answer.
const ROLLOUTS_DEFAULT: u32 = 100;

impl Command for StartRolloutRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<RolloutDetails, Error> {
        let name = movable_alias(self.alias.as_deref())?;
        check_text("reason", self.reason.as_deref())?;
        let plan: RolloutPlan = self
            .plan
            .parse()
            .map_err(|error: crate::model::rollout::RolloutPlanError| Error::invalid(error.to_string()))?;
        let id = context.router.function(&self.function_id)?.function.id;
        let (owner, caller) = (Arc::clone(context), caller.clone());
        context
            .to_its_end(async move {
                let (_changing, entry) = owner.hold(id).await?;
                let version = placement::version(&entry, &self.version)?;
                check(&entry, &name, version.id)?;
                let placement = Placement::new(&owner, &entry);
                placement.check_capacity()?;
                let now = Timestamp::now();
                let rollout = Rollout {
                    id: RolloutId::new(),
                    function_id: id,
                    alias: name.clone(),
                    label: version.label.clone(),
                    number: version.number,
                    plan,
                    step: 0,
                    status: RolloutStatus::Running,
                    actor: caller.actor.to_string(),
                    reason: self.reason,
                    outcome: None,
                    created_at: now,
                    updated_at: now,
                    finished_at: None,
                };
                apply(&placement, rollout.clone()).await?;
                Ok(details(&owner, &rollout))
            })
            .await
    }
}

/// Refuses a rollout of this version that cannot begin.
fn check(entry: &Entry, name: &AliasName, version: crate::model::VersionId) -> Result<(), Error> {
    let alias = entry.served_alias(name)?;
    let conflict = |message: String| Err(Error::new(ErrorCode::Conflict, message));
    if alias.rollout.is_some() {
        return Err(StoreError::RolloutGoesOn(name.clone()).into());
    }
    if alias.version == version {
        return conflict(format!("{name} points at that version already: roll out another one"));
    }
    match alias.split.filter(|it| it.version_id != version && it.weight > Percent::NONE) {
        Some(split) => {
            let (other, weight) = (entry.version(split.version_id).map(|it| it.label.as_str()), split.weight);
            let other = other.unwrap_or("another version");
            conflict(format!("{name} sends {weight} of its calls to {other}: end that split first"))
        }
        None => Ok(()),
    }
}

/// Gives a rollout's version the share of its present step, or all invocations if the rollout is done.
async fn apply(placement: &Placement, rollout: Rollout) -> Result<(), Error> {
    let entry = &placement.entry;
    let version = entry.numbered(rollout.number).ok_or_else(|| entry.version_not_found(rollout.label.as_str()))?;
    let (kind, weight) = match rollout.status {
        RolloutStatus::Done => (DeploymentKind::Promote, None),
        _ => (DeploymentKind::Traffic, Some(rollout.present().percent)),
    };
    let caller = Caller::new(ACTOR, false);
    let wanted = AliasMove::new(kind, rollout.alias.clone(), &caller, Some(rollout.step_text()));
    let change = AliasChange { rollout: Some(rollout), ..AliasChange::default() };
    placement.apply(AliasMove { weight, change, ..wanted }, Arc::clone(version), false).await.map(drop)
}

impl Command for ControlRolloutRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<RolloutDetails, Error> {
        let name = movable_alias(self.alias.as_deref())?;
        check_text("reason", self.reason.as_deref())?;
        let id = context.router.function(&self.function_id)?.function.id;
        let (owner, caller) = (Arc::clone(context), caller.clone());
        context
        .to_its_end(async move {
            let (_changing, entry) = owner.hold(id).await?;
            let alias = entry.served_alias(&name)?;
            let Some(progress) = &alias.rollout else {
                let message = format!("no rollout of {name} is running; `levain rollout list` shows earlier ones");
                return Err(Error::new(ErrorCode::Conflict, message));
            };
            let rollout = &progress.rollout;
            let because = self.reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
            let by = |what: &str| format!("{what} by {}{because}", caller.actor);
            let changed = match (self.action, rollout.status) {
                (RolloutAction::Pause, RolloutStatus::Running) => {
                    let paused = rollout.held(RolloutStatus::Paused, Some(by("paused")), Timestamp::now());
                    update(&owner, paused).await?
                }
                (RolloutAction::Resume, RolloutStatus::Paused) => {
                    update(&owner, rollout.held(RolloutStatus::Running, None, Timestamp::now())).await?
                }
                (RolloutAction::Pause | RolloutAction::Resume, _) => rollout.clone(),
                (RolloutAction::Abort, _) => {
                    let own = entry.version(alias.version).ok_or_else(|| entry.version_not_found("its own"))?;
                    let aborted = rollout.ended(RolloutStatus::Aborted, Some(by("aborted")), Timestamp::now());
                    let reason = Some(format!("{} is aborted{because}", rollout.id));
                    let wanted = AliasMove::new(DeploymentKind::Traffic, name, &caller, reason);
                    let change = AliasChange { rollout: Some(aborted.clone()), ..AliasChange::default() };
                    let placement = Placement::new(&owner, &entry);
                    placement.apply(AliasMove { change, ..wanted }, Arc::clone(own), false).await?;
                    aborted
                }
            };
            tracing::info!(rollout = %rollout.id, status = ?changed.status, actor = &*caller.actor, "rollout controlled");
            Ok(details(&owner, &changed))
        })
        .await
    }
}

/// Stores the state of a rollout whose share stays as it is.
async fn update(context: &Arc<Context>, rollout: Rollout) -> Result<Rollout, Error> {
    let change = move |context: &Context| {
        context.store.update_rollout(&rollout)?;
        context.refresh_aliases(rollout.function_id, None)?;
        Ok(rollout)
    };
    context.blocking(change).await
}

impl Command for RolloutsRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<RolloutsResponse, Error> {
        let id = context.router.function(&self.function_id)?.function.id;
        let alias = self.alias.map(|it| it.parse::<AliasName>()).transpose()?;
        let asked = Asked { limit: self.limit, offset: None, cursor: self.cursor.as_deref() };
        let page = Page::<RolloutId>::new(context, "rollouts", &asked, (ROLLOUTS_DEFAULT, PAGE_MAX))?;
        // One more row tells whether there is another page.
        let (before, limit) = (page.after, page.limit + 1);
        let read = move |context: &Context| Ok(context.store.rollouts(id, alias.as_ref(), before, limit)?);
        let rows = context.blocking(read).await?;
        let (rollouts, next_cursor) = page.fill(&rows, |it| it.id, |it| details(context, it));
        Ok(RolloutsResponse { rollouts, next_cursor })
    }
}

/// A rollout in wire form.
fn details(context: &Context, rollout: &Rollout) -> RolloutDetails {
    let entry = context.router.by_id(rollout.function_id);
    let entry = entry.ok().filter(|_| rollout.status == RolloutStatus::Running);
    let progress = entry.as_ref().and_then(|it| it.alias(rollout.alias.as_str())?.rollout.as_ref());
    let hold = Duration::from_secs(rollout.present().hold_seconds.into());
    let left = progress.filter(|it| it.rollout.id == rollout.id).map(|it| hold.saturating_sub(it.held()));
    RolloutDetails {
        rollout_id: rollout.id,
        function_id: rollout.function_id,
        alias: rollout.alias.clone(),
        version: rollout.label.clone(),
        number: rollout.number,
        status: rollout.status,
        plan: rollout.plan.to_string(),
        steps: rollout.plan.steps().to_vec(),
        step: rollout.step + 1,
        next_in_ms: left.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
        actor: rollout.actor.clone(),
        reason: rollout.reason.clone(),
        outcome: rollout.outcome.clone(),
        created_at: rollout.created_at,
        updated_at: rollout.updated_at,
        finished_at: rollout.finished_at,
    }
}

/// Returns the alias, if its rollout has not changed since something was decided about it.
fn unchanged<'a>(entry: &'a Entry, name: &AliasName, seen: &Arc<RolloutProgress>) -> Option<&'a Alias> {
    entry.alias(name.as_str()).filter(|alias| alias.rollout.as_ref().is_some_and(|it| Arc::ptr_eq(it, seen)))
}

/// Takes the next step, if the alias still needs it. A step that fails pauses the rollout.
pub(super) async fn advance(context: &Arc<Context>, id: FunctionId, name: AliasName, seen: &Arc<RolloutProgress>) {
    let Ok((_changing, entry)) = context.hold(id).await else { return };
    if unchanged(&entry, &name, seen).map(Alias::watch_action) != Some(WatchAction::Advance) {
        return;
    }
    let next = seen.rollout.stepped(Timestamp::now());
    let text = next.step_text();
    let Err(error) = apply(&Placement::new(context, &entry), next).await else { return };
    if error.code != ErrorCode::ShuttingDown {
        hold(context, &seen.rollout, format!("{text} failed: {}: {error}", error.code)).await;
    }
}

/// Holds the present share until the rollout is resumed.
pub(super) async fn pause(
    context: &Arc<Context>,
    id: FunctionId,
    name: AliasName,
    seen: &Arc<RolloutProgress>,
    outcome: String,
) {
    let Ok((_changing, entry)) = context.hold(id).await else { return };
    if unchanged(&entry, &name, seen).is_some() {
        hold(context, &seen.rollout, outcome).await;
    }
}

async fn hold(context: &Arc<Context>, rollout: &Rollout, outcome: String) {
    let (id, alias) = (rollout.id, &rollout.alias);
    tracing::warn!(rollout = %id, %alias, "the rollout is paused: {outcome}");
    let paused = rollout.held(RolloutStatus::Paused, Some(outcome), Timestamp::now());
    if let Err(error) = update(context, paused).await {
        tracing::error!(rollout = %id, %error, "the rollout cannot be paused");
    }
}
