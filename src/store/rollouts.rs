//! The table `rollouts`: plans that raise a version's share of an alias's calls in steps.

use super::value::{Columns, Json, Millis, Text};
use super::{Store, StoreError};
use crate::model::{AliasName, Deployment, DeploymentKind, FunctionId, Rollout, RolloutId, Timestamp};
use rusqlite::{Connection, Row, params};

const COLUMNS: &str = "id, function_id, alias, version, number, steps, step, status, actor, reason, outcome, created_at, \
     updated_at, finished_at";

const GOING_ON: &str = "status IN ('running', 'paused')";

impl Store {
    /// Updates a running or paused rollout without a deployment ([`StoreError::RolloutOver`] if it has ended).
    pub fn update_rollout(&self, rollout: &Rollout) -> Result<(), StoreError> {
        self.write(|it| update(it, rollout))
    }

    /// Returns a function's rollouts, the latest first, optionally only those `before` the given one; also those of a
    /// deleted function.
    pub fn rollouts(
        &self,
        function_id: FunctionId,
        alias: Option<&AliasName>,
        before: Option<RolloutId>,
        limit: u32,
    ) -> Result<Vec<Rollout>, StoreError> {
        self.read(|it| {
            // Ids sort by creation time.
            let sql = format!(
                "SELECT {COLUMNS} FROM rollouts WHERE function_id = ?1 AND (?2 IS NULL OR alias = ?2) \
                   AND (?3 IS NULL OR id < ?3) ORDER BY id DESC LIMIT ?4"
            );
            let mut statement = it.prepare_cached(&sql)?;
            statement
                .query_and_then(params![Text(function_id), alias.map(Text), before.map(Text), limit], read)?
                .collect()
        })
    }
}

fn read(row: &Row<'_>) -> Result<Rollout, StoreError> {
    let columns = Columns { table: "rollouts", row };
    Ok(Rollout {
        id: columns.text("id")?,
        function_id: columns.text("function_id")?,
        alias: columns.text("alias")?,
        label: columns.text("version")?,
        number: columns.plain("number")?,
        plan: columns.json("steps")?,
        step: columns.plain("step")?,
        status: columns.text("status")?,
        actor: columns.plain("actor")?,
        reason: columns.plain("reason")?,
        outcome: columns.plain("outcome")?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
        finished_at: columns.time_or_null("finished_at")?,
    })
}

/// Returns the running or paused rollout of an alias.
pub(super) fn going_on(
    connection: &Connection,
    function_id: FunctionId,
    alias: &AliasName,
) -> Result<Option<Rollout>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM rollouts WHERE function_id = ?1 AND alias = ?2 AND {GOING_ON}");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_and_then(params![Text(function_id), Text(alias)], read)?.next().transpose()
}

/// Inserts a new rollout, or updates a running or paused one.
pub(super) fn put(connection: &Connection, rollout: &Rollout) -> Result<(), StoreError> {
    let present = going_on(connection, rollout.function_id, &rollout.alias)?;
    let is_known = || connection.prepare_cached("SELECT 1 FROM rollouts WHERE id = ?1")?.exists([Text(rollout.id)]);
    match present {
        Some(present) if present.id != rollout.id => Err(StoreError::RolloutGoesOn(rollout.alias.clone())),
        None if !is_known()? => insert(connection, rollout),
        _ => update(connection, rollout),
    }
}

fn insert(connection: &Connection, rollout: &Rollout) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO rollouts ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
    );
    connection.prepare_cached(&sql)?.execute(params![
        Text(rollout.id),
        Text(rollout.function_id),
        Text(&rollout.alias),
        Text(&rollout.label),
        rollout.number,
        Json(&rollout.plan),
        rollout.step,
        Text(rollout.status),
        rollout.actor,
        rollout.reason,
        rollout.outcome,
        Millis(rollout.created_at),
        Millis(rollout.updated_at),
        rollout.finished_at.map(Millis),
    ])?;
    Ok(())
}

/// Updates a running or paused rollout.
pub(super) fn update(connection: &Connection, rollout: &Rollout) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE rollouts SET step = ?2, status = ?3, outcome = ?4, updated_at = ?5, finished_at = ?6 \
         WHERE id = ?1 AND {GOING_ON}"
    );
    let changed = connection.prepare_cached(&sql)?.execute(params![
        Text(rollout.id),
        rollout.step,
        Text(rollout.status),
        rollout.outcome,
        Millis(rollout.updated_at),
        rollout.finished_at.map(Millis),
    ])?;
    if changed == 1 { Ok(()) } else { Err(StoreError::RolloutOver(rollout.id)) }
}

/// Aborts the rollout of an alias or, without one, those of all aliases of the function.
pub(super) fn abort(
    connection: &Connection,
    function_id: FunctionId,
    alias: Option<&AliasName>,
    outcome: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE rollouts SET status = 'aborted', outcome = ?3, updated_at = ?4, finished_at = ?4 \
         WHERE function_id = ?1 AND (?2 IS NULL OR alias = ?2) AND {GOING_ON}"
    );
    connection.prepare_cached(&sql)?.execute(params![Text(function_id), alias.map(Text), outcome, Millis(now)])?;
    Ok(())
}

/// Returns the outcome of a rollout that a deployment has ended.
pub(super) fn ended_by(deployment: &Deployment) -> String {
    let kind = match deployment.kind {
        DeploymentKind::Deploy => "a deployment",
        DeploymentKind::Rollback => "a rollback",
        DeploymentKind::Promote => "a move of the alias",
        DeploymentKind::Traffic => "a change of the shares",
        DeploymentKind::AutoRollback => "the policy",
        DeploymentKind::Remove => "the deletion of the alias",
        DeploymentKind::Policy => "a change of the policy",
    };
    let Deployment { id, label, actor, .. } = deployment;
    let reason = deployment.reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
    format!("ended by {kind} to {label} ({id} by {actor}){reason}")
}
