//! Deployments into protected environments: which need approval, and how their wait ends.
//!
//! ```text
//!                      approved ─▶ active or applied: takes effect now, and counts as the latest
//! pending_approval ──┤
//!                      rejected ─▶ rejected: by a user, after too long, or with its function
//! ```
//!
//! A version is approved for an alias in an environment once it took calls of the alias there. A rollback therefore
//! never waits. An environment that was deleted and created again under the same name is a different one: earlier
//! approvals do not count.

use super::value::{Json, Text};
use super::{AliasChange, Store, StoreError, deployments, environments};
use crate::model::{
    Decision, Deployment, DeploymentId, DeploymentStatus, FunctionId, Sticky, StickyError, Timestamp, VersionId,
};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An [`AliasChange`] as it is stored with its waiting deployment. An empty text clears the value.
#[derive(Debug, Default, Serialize, Deserialize)]
struct KeptChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sticky: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lifetime_ms: Option<u64>,
}

impl Store {
    /// Whether a deployment of this version, or of a new one if absent, would have to wait for approval.
    pub fn needs_approval(&self, deployment: &Deployment, version: Option<VersionId>) -> Result<bool, StoreError> {
        self.read(|it| is_needed(it, deployment, version))
    }

    /// Rejects a waiting deployment: its version stays published, and its alias stays where it is.
    pub fn reject(&self, id: DeploymentId, decision: &Decision) -> Result<Deployment, StoreError> {
        self.write(|it| reject(it, id, decision))
    }

    /// Rejects all deployments that began to wait at `until` or before.
    pub fn expire(&self, until: Timestamp, decision: &Decision) -> Result<Vec<Deployment>, StoreError> {
        self.write(|it| {
            let waiting = deployments::waiting(it)?;
            let late = waiting.into_iter().filter(|it| it.finished_at <= until);
            late.map(|row| reject(it, row.id, decision)).collect()
        })
    }
}

/// Whether a deployment has to wait for approval: its environment is protected, and its version is new (`None`) or
/// never took calls of the alias there.
pub(super) fn is_needed(
    connection: &Connection,
    deployment: &Deployment,
    version_id: Option<VersionId>,
) -> Result<bool, StoreError> {
    if !environments::is_protected(connection, &deployment.environment)? {
        return Ok(false);
    }
    let Some(version_id) = version_id else { return Ok(true) };
    let sql = "SELECT 1 FROM function_deployments \
         WHERE version_id = ?1 AND function_id = ?2 AND alias = ?3 AND environment = ?4 \
           AND finished_at >= ?5 AND status IN ('active', 'superseded', 'applied')";
    let Deployment { function_id, alias, environment, .. } = deployment;
    let since = environments::since(connection, environment)?;
    let values = params![Text(version_id), Text(*function_id), Text(alias), Text(environment), since];
    Ok(!connection.prepare_cached(sql)?.exists(values)?)
}

/// Stores the alias changes to make once the deployment is approved.
pub(super) fn keep(connection: &Connection, id: DeploymentId, change: &AliasChange) -> Result<(), StoreError> {
    let kept = KeptChange {
        description: change.description.clone(),
        sticky: change.sticky.as_ref().map(|it| it.as_ref().map(Sticky::to_string).unwrap_or_default()),
        lifetime_ms: change.lifetime.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
    };
    let sql = "UPDATE function_deployments SET alias_change = ?2 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![Text(id), Json(kept)])?;
    Ok(())
}

/// Returns the alias changes that wait with a deployment.
pub(super) fn kept(connection: &Connection, id: DeploymentId) -> Result<AliasChange, StoreError> {
    let kept: Option<Json<KeptChange>> = connection
        .prepare_cached("SELECT alias_change FROM function_deployments WHERE id = ?1")?
        .query_row([Text(id)], |row| row.get(0))?;
    let KeptChange { description, sticky, lifetime_ms } = kept.map(|it| it.0).unwrap_or_default();
    let sticky = sticky.map(|it| if it.is_empty() { Ok(None) } else { it.parse().map(Some) }).transpose();
    let sticky = sticky.map_err(|cause: StickyError| StoreError::Corrupt {
        table: "function_deployments",
        key: id.to_string(),
        column: "alias_change",
        cause: rusqlite::types::FromSqlError::other(cause).into(),
    })?;
    Ok(AliasChange { description, sticky, rollout: None, lifetime: lifetime_ms.map(Duration::from_millis) })
}

/// Returns a waiting deployment and its version.
pub(super) fn waiting(connection: &Connection, id: DeploymentId) -> Result<(Deployment, VersionId), StoreError> {
    let (deployment, version_id) = deployments::one(connection, id)?;
    match version_id {
        // The version exists because the version of a waiting deployment cannot be deleted.
        Some(version_id) if deployment.status == DeploymentStatus::PendingApproval => Ok((deployment, version_id)),
        _ => Err(StoreError::NotPending(Box::new(deployment))),
    }
}

/// Rejects a waiting deployment; its alias stays where it is.
pub(super) fn reject(connection: &Connection, id: DeploymentId, decision: &Decision) -> Result<Deployment, StoreError> {
    let (waiting, _) = waiting(connection, id)?;
    let deployment = Deployment {
        status: DeploymentStatus::Rejected,
        finished_at: decision.at,
        decision: Some(decision.clone()),
        ..waiting
    };
    deployments::settle(connection, &deployment)?;
    Ok(deployment)
}

/// Rejects all waiting deployments of a deleted function.
pub(super) fn reject_all(connection: &Connection, function_id: FunctionId, now: Timestamp) -> Result<(), StoreError> {
    let reason = Some("the function was deleted".to_owned());
    let decision = Decision { by: Decision::DAEMON.into(), reason, at: now };
    let waiting = deployments::waiting(connection)?;
    let mut own = waiting.into_iter().filter(|it| it.function_id == function_id);
    own.try_for_each(|it| reject(connection, it.id, &decision).map(drop))
}
