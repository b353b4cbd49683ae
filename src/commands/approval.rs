//! DECIDE_DEPLOYMENT.
//!
//! A deployment into a protected environment has done everything but move its alias: its version is checked, published
//! and has loaded. Approval does the rest: the version loads again, then one transaction moves the alias. A version
//! that was approved for the alias before needs no approval: going back in an emergency does not wait.

use super::{
    Caller, Command, Context,
    placement::{AliasMove, Placement, Plan},
    texts::check_text,
};
use crate::{
    error::{Error, ErrorCode},
    model::{Decision, DeployOutcome, Deployment, DeploymentId, DeploymentStatus, FunctionId, Timestamp},
    protocol::message::{DecideRequest, DeployResponse},
    store::StoreError,
};
use serde_json::json;
use std::sync::Arc;

/// Shortest ending of an id that identifies a deployment.
const ENDING_MIN: usize = 4;

impl Command for DecideRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<DeployResponse, Error> {
        check_text("reason", self.reason.as_deref())?;
        let wanted = self.deployment_id;
        let (id, function_id) = context.blocking(move |context| find(context, &wanted)).await?;
        let (context, by) = (Arc::clone(context), caller.clone());
        let owner = Arc::clone(&context);
        owner
            .until_cancelled(caller, |cancellation| async move {
                // Not `hold`: of a deleted function, the deployment itself says why it no longer waits.
                let _changing = cancellation.run(context.locks.changing.lock(function_id)).await?;
                if context.stopping.is_cancelled() {
                    return Err(super::shutting_down());
                }
                let waiting = context.blocking(move |context| waiting(context, id)).await?;
                let entry = context.router.by_id(function_id)?;
                let version = waiting.number.and_then(|it| entry.numbered(it)).cloned();
                let version = version.ok_or_else(|| entry.version_not_found(waiting.label.as_str()))?;
                let wanted = AliasMove {
                    environment: Some(waiting.environment.clone()),
                    weight: waiting.weight,
                    ..AliasMove::new(waiting.kind, waiting.alias.clone(), &by, waiting.reason.clone())
                };
                let plan = Plan::approved(&entry, wanted, version);
                let placement = Placement { context: Arc::clone(&context), entry, cancellation: cancellation.clone() };
                let ready = async { if self.approve { check_and_load(&placement, &plan).await } else { Ok(()) } };
                ready.await.map_err(|error| still_waiting(&waiting, error))?;
                let previous = plan.previous().cloned();
                let decision = Decision { by: by.actor.to_string(), reason: self.reason, at: Timestamp::now() };
                cancellation.begin_commit().map_err(|error| still_waiting(&waiting, error))?;
                let deciding = context.blocking(move |context| {
                    if !self.approve {
                        return Ok(context.store.reject(id, &decision)?);
                    }
                    let deployment = context.store.approve(id, &decision, previous.as_ref())?;
                    context.refresh_aliases(function_id, None)?;
                    context.leave_manifests(std::slice::from_ref(&deployment));
                    Ok(deployment)
                });
                let deployment = deciding.await?;
                tracing::info!(deployment = %id, status = deployment.status.name(), actor = &*by.actor, "decided");
                if self.approve {
                    placement.move_traffic(&plan, true);
                    return Ok(placement.answer(&plan, Some(&deployment), DeployOutcome::Deployed));
                }
                Ok(placement.answer(&plan, Some(&deployment), deployment.status.into()))
            })
            .await
    }
}

/// Finds the deployment that `wanted` names: by its id; or, if it waits for approval, by a unique part of its id or by
/// its function.
fn find(context: &Context, wanted: &str) -> Result<(DeploymentId, FunctionId), Error> {
    if let Ok(id) = wanted.parse() {
        return Ok((id, context.store.deployment(id)?.function_id));
    }
    let function = context.router.function(wanted).ok().map(|it| it.function.id);
    let waiting = context.store.waiting()?;
    let of_function = waiting.iter().filter(|it| Some(it.function_id) == function);
    // The name of a function takes precedence over parts of ids.
    let mut found: Vec<_> = of_function.map(|it| (it.id, it.function_id)).collect();
    let is_function = !found.is_empty();
    if !is_function {
        found.extend(waiting.iter().filter(|it| is_part(wanted, it.id)).map(|it| (it.id, it.function_id)));
    }
    let shown: String = wanted.chars().take(80).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let message = format!("no deployment `{shown}` waits for approval; `levain approvals` lists those that do");
            Err(Error::new(ErrorCode::DeploymentNotFound, message))
        }
        several => {
            let count = several.len();
            let message = match is_function {
                true => format!("{count} deployments of `{shown}` wait for approval: give the id of one"),
                false => format!("{count} waiting deployments match `{shown}`: give more of the id"),
            };
            let ids: Vec<_> = several.iter().map(|it| it.0.to_string()).collect();
            Err(Error::new(ErrorCode::Conflict, message).with_details(json!({ "deployments": ids })))
        }
    }
}

/// Whether a text is the beginning of an id, with or without its prefix, or its end.
fn is_part(text: &str, id: DeploymentId) -> bool {
    let id = id.to_string();
    let uuid = id.split_once('-').map_or(id.as_str(), |it| it.1);
    let is_end = text.len() >= ENDING_MIN && uuid.ends_with(text);
    !text.is_empty() && (id.starts_with(text) || uuid.starts_with(text) || is_end)
}

/// Returns a deployment that waits for approval. One that has waited too long is rejected here.
fn waiting(context: &Context, id: DeploymentId) -> Result<Deployment, Error> {
    let deployment = context.store.deployment(id)?;
    let now = Timestamp::now();
    if deployment.status != DeploymentStatus::PendingApproval {
        return Err(StoreError::NotPending(Box::new(deployment)).into());
    }
    if expiry(context, deployment.finished_at) <= now {
        let deployment = context.store.reject(id, &expired(context, now))?;
        return Err(StoreError::NotPending(Box::new(deployment)).into());
    }
    Ok(deployment)
}

async fn check_and_load(placement: &Placement, plan: &Plan) -> Result<(), Error> {
    let Plan { entry, wanted, version, environment, .. } = plan;
    wanted.check_share(entry, Some(version.id))?;
    let alias = wanted.present(entry).filter(|it| wanted.weight.is_some() && it.environment != *environment);
    if let Some(alias) = alias {
        let message = format!("{} now runs in {}, not in {environment}", alias.name, alias.environment);
        return Err(Error::new(ErrorCode::Conflict, message));
    }
    placement.check_capacity()?;
    placement.ready(plan).await
}

fn still_waiting(waiting: &Deployment, error: Error) -> Error {
    let message = format!("{}; {} still waits for approval", error.message, waiting.id);
    Error { message, ..error }
}

/// Time at which a deployment that has waited since `since` is rejected.
pub(super) fn expiry(context: &Context, since: Timestamp) -> Timestamp {
    Timestamp::from_millis(since.as_millis().saturating_add(ttl_ms(context)))
}

pub(super) fn ttl_ms(context: &Context) -> i64 {
    i64::from(context.config.load().versioning.approval_ttl_hours) * 3_600_000
}

pub(super) fn expired(context: &Context, at: Timestamp) -> Decision {
    let hours = context.config.load().versioning.approval_ttl_hours;
    Decision { by: Decision::DAEMON.into(), reason: Some(format!("expired after {hours} h")), at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_id_is_its_beginning_or_its_end() {
        let id = "deploy-0190c1d2-aaaa-7bbb-8ccc-0123456789ab".parse().expect("an id");
        for part in ["deploy-0190c1d2-aaaa", "0190c1d2-aaaa", "0190", "89ab", "deploy-"] {
            assert!(is_part(part, id), "{part}");
        }
        for other in ["", "9ab", "aaaa", "fedcba987654"] {
            assert!(!is_part(other, id), "{other}");
        }
    }
}
