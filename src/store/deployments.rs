//! The table `function_deployments`: the audit trail, which is also the history of every alias.

use super::value::{Columns, Millis, Text};
use super::{Store, StoreError, versions};
use crate::model::{
    AliasName, Decision, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, FunctionId, Timestamp, VersionId,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "id, function_id, version, number, alias, environment, kind, status, weight, previous_version, \
     actor, reason, build_log, created_at, finished_at, decided_by, decision, decided_at";

impl Store {
    /// Returns the last deployments of all functions that took effect or published something, the latest first.
    pub fn last_deployments(&self, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        self.read(|it| {
            let sql = format!(
                "SELECT {COLUMNS} FROM function_deployments WHERE status NOT IN ('building', 'pending_approval', 'failed', 'rejected', 'changed') \
                 ORDER BY sequence DESC LIMIT ?1"
            );
            it.prepare_cached(&sql)?.query_and_then([limit], read)?.collect()
        })
    }

    /// Returns the deployments that wait for approval, the latest first.
    pub fn waiting(&self) -> Result<Vec<Deployment>, StoreError> {
        self.read(waiting)
    }

    /// Returns one deployment.
    pub fn deployment(&self, id: DeploymentId) -> Result<Deployment, StoreError> {
        self.read(|it| Ok(one(it, id)?.0))
    }

    /// Records a failed deployment; nothing else changes.
    pub fn insert_failed_deployment(&self, deployment: &Deployment) -> Result<(), StoreError> {
        self.write(|it| {
            let version_id = versions::by_number(it, deployment.function_id, deployment.number)?;
            remove_running(it, deployment.id)?;
            insert(it, deployment, version_id)
        })
    }

    /// Returns the version that an alias pointed at before its current target, if it still exists.
    ///
    /// After a rollback from v2 to v1 that is v2. Deleted versions and deployments of the current target are skipped.
    pub fn previous_target(&self, function_id: FunctionId, alias: &AliasName) -> Result<Option<VersionId>, StoreError> {
        self.read(|it| previous_target(it, function_id, alias))
    }

    /// Returns the target of an automatic rollback: as [`Self::previous_target`], but skipping versions that the alias
    /// has left by automatic rollback since somebody pointed it there.
    pub fn automatic_target(
        &self,
        function_id: FunctionId,
        alias: &AliasName,
    ) -> Result<Option<VersionId>, StoreError> {
        self.read(|it| {
            // The version that was left is identified by its label, the version the alias was pointed at by its id.
            let sql = "SELECT version_id FROM function_deployments AS target \
                 WHERE function_id = ?1 AND alias = ?2 AND status IN ('active', 'superseded') \
                   AND version_id <> (SELECT version_id FROM aliases WHERE function_id = ?1 AND name = ?2) \
                   AND NOT EXISTS ( \
                       SELECT 1 FROM function_deployments AS leaving \
                       WHERE function_id = ?1 AND alias = ?2 AND kind = 'auto_rollback' AND status IN ('active', 'superseded') \
                         AND previous_version = target.version \
                         AND sequence > (SELECT COALESCE(MAX(sequence), 0) FROM function_deployments \
                             WHERE function_id = ?1 AND alias = ?2 AND version_id = target.version_id \
                               AND kind <> 'auto_rollback' AND status IN ('active', 'superseded'))) \
                 ORDER BY sequence DESC LIMIT 1";
            let mut statement = it.prepare_cached(sql)?;
            let id = statement.query_row(params![Text(function_id), Text(alias)], |row| row.get::<_, Text<VersionId>>(0));
            Ok(id.optional()?.map(|it| it.0))
        })
    }

    /// Returns an alias's last automatic rollback.
    pub fn last_auto_rollback(&self, id: FunctionId, alias: &AliasName) -> Result<Option<Deployment>, StoreError> {
        self.read(|it| {
            let sql = format!(
                "SELECT {COLUMNS} FROM function_deployments WHERE function_id = ?1 AND alias = ?2 AND kind = 'auto_rollback' \
                   AND status IN ('active', 'superseded') ORDER BY sequence DESC LIMIT 1"
            );
            let mut statement = it.prepare_cached(&sql)?;
            statement.query_and_then(params![Text(id), Text(alias)], read)?.next().transpose()
        })
    }

    /// Returns a function's deployments, the latest first; also those of a deleted function.
    pub fn deployments(&self, function_id: FunctionId, limit: u32, offset: u32) -> Result<Vec<Deployment>, StoreError> {
        self.deployments_of(function_id, &DeploymentQuery { limit, offset, ..DeploymentQuery::default() })
    }

    /// Returns the deployments of a function that match a query.
    pub fn deployments_of(
        &self,
        function_id: FunctionId,
        query: &DeploymentQuery,
    ) -> Result<Vec<Deployment>, StoreError> {
        Ok(self.deployments_page(Some(function_id), query)?.into_iter().map(|it| it.1).collect())
    }

    /// Returns the deployments of one function, or of all that are not deleted, that match a query, each with its
    /// sequence number.
    pub fn deployments_page(
        &self,
        function_id: Option<FunctionId>,
        query: &DeploymentQuery,
    ) -> Result<Vec<(i64, Deployment)>, StoreError> {
        self.read(|it| match function_id {
            Some(id) => page(it, id, query),
            None => page_of_all(it, query),
        })
    }
}

fn read(row: &Row<'_>) -> Result<Deployment, StoreError> {
    let columns = Columns { table: "function_deployments", row };
    Ok(Deployment {
        id: columns.text("id")?,
        function_id: columns.text("function_id")?,
        label: columns.text("version")?,
        number: columns.plain("number")?,
        alias: columns.text("alias")?,
        environment: columns.text("environment")?,
        kind: columns.text("kind")?,
        status: columns.text("status")?,
        weight: columns.number_or_null("weight")?,
        previous: columns.text_or_null("previous_version")?,
        actor: columns.plain("actor")?,
        reason: columns.plain("reason")?,
        build_log: columns.plain("build_log")?,
        created_at: columns.time("created_at")?,
        finished_at: match columns.time_or_null("finished_at")? {
            Some(at) => at,
            None => columns.time("created_at")?,
        },
        decision: decision(&columns)?,
    })
}

/// Reads a deployment and its sequence number.
fn placed(row: &Row<'_>) -> Result<(i64, Deployment), StoreError> {
    Ok((Columns { table: "function_deployments", row }.plain("sequence")?, read(row)?))
}

fn decision(columns: &Columns<'_>) -> Result<Option<Decision>, StoreError> {
    let Some(by) = columns.plain("decided_by")? else { return Ok(None) };
    Ok(Some(Decision { by, reason: columns.plain("decision")?, at: columns.time("decided_at")? }))
}

/// Returns the deployment with this id, and its version unless that is unpublished or deleted.
pub(super) fn one(connection: &Connection, id: DeploymentId) -> Result<(Deployment, Option<VersionId>), StoreError> {
    let sql = format!("SELECT {COLUMNS}, version_id FROM function_deployments WHERE id = ?1");
    let read = |row: &Row<'_>| {
        let version_id = Columns { table: "function_deployments", row }.text_or_null("version_id")?;
        Ok((read(row)?, version_id))
    };
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_and_then([Text(id)], read)?.next().unwrap_or(Err(StoreError::DeploymentNotFound(id)))
}

/// Returns the deployments that wait for approval, the latest first.
pub(super) fn waiting(connection: &Connection) -> Result<Vec<Deployment>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM function_deployments WHERE status = 'pending_approval' ORDER BY sequence DESC");
    connection.prepare_cached(&sql)?.query_and_then([], read)?.collect()
}

/// Filter and page for a function's deployments, the latest first.
#[derive(Debug, Clone, Default)]
pub struct DeploymentQuery {
    /// Only deployments of this alias.
    pub alias: Option<AliasName>,
    /// Only deployments in this state.
    pub status: Option<DeploymentStatus>,
    /// Only deployments of this version, by its label or number.
    pub version: Option<String>,
    /// Only deployments with a smaller sequence number, which are earlier.
    pub before: Option<i64>,
    /// Largest number of rows.
    pub limit: u32,
    /// Number of the latest rows to skip.
    pub offset: u32,
}

/// Returns a page of the deployments of all functions that are not deleted, the latest first. Failed deployments are
/// included even if their function is gone, as long as it never had a version.
pub(super) fn page_of_all(
    connection: &Connection,
    query: &DeploymentQuery,
) -> Result<Vec<(i64, Deployment)>, StoreError> {
    let status = with_status(query);
    // A first deployment that fails deletes its function; it is still listed.
    let or_never_published = match query.status {
        Some(DeploymentStatus::Failed) => "OR last_version_number = 0",
        _ => "",
    };
    let sql = format!(
        "SELECT {COLUMNS}, sequence FROM function_deployments WHERE {status} (?1 IS NULL OR alias = ?1) \
           AND (?4 IS NULL OR sequence < ?4) AND (?5 IS NULL OR version = ?5 OR CAST(number AS TEXT) = ?5) \
           AND EXISTS (SELECT 1 FROM functions WHERE functions.id = function_id \
               AND (functions.status <> 'deleted' {or_never_published})) \
         ORDER BY sequence DESC LIMIT ?2 OFFSET ?3"
    );
    let values = params![Text(&query.alias), query.limit, query.offset, query.before, query.version];
    connection.prepare_cached(&sql)?.query_and_then(values, placed)?.collect()
}

/// Condition on the status. It is part of the SQL text so that SQLite uses an index of the status.
fn with_status(query: &DeploymentQuery) -> String {
    query.status.map(|it| format!("status = '{}' AND", it.name())).unwrap_or_default()
}

/// Returns a page of a function's deployments, the latest first.
pub(super) fn page(
    connection: &Connection,
    function_id: FunctionId,
    query: &DeploymentQuery,
) -> Result<Vec<(i64, Deployment)>, StoreError> {
    let status = with_status(query);
    let sql = format!(
        "SELECT {COLUMNS}, sequence FROM function_deployments \
         WHERE {status} function_id = ?1 AND (?2 IS NULL OR alias = ?2) AND (?5 IS NULL OR sequence < ?5) \
           AND (?6 IS NULL OR version = ?6 OR CAST(number AS TEXT) = ?6) \
         ORDER BY sequence DESC LIMIT ?3 OFFSET ?4"
    );
    let alias = Text(&query.alias);
    let values = params![Text(function_id), alias, query.limit, query.offset, query.before, query.version];
    connection.prepare_cached(&sql)?.query_and_then(values, placed)?.collect()
}

/// Returns the running deployments in the order in which they began.
pub(super) fn running(connection: &Connection) -> Result<Vec<Deployment>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM function_deployments WHERE status = 'building' ORDER BY sequence");
    connection.prepare_cached(&sql)?.query_and_then([], read)?.collect()
}

/// Removes the row of a running deployment to make room for its final row. Returns whether it was running.
pub(super) fn remove_running(connection: &Connection, id: DeploymentId) -> Result<bool, StoreError> {
    let sql = "DELETE FROM function_deployments WHERE id = ?1 AND status = 'building'";
    Ok(connection.prepare_cached(sql)?.execute([Text(id)])? == 1)
}

pub(super) fn insert(
    connection: &Connection,
    deployment: &Deployment,
    version_id: Option<VersionId>,
) -> Result<(), StoreError> {
    let sql = format!(
        "INSERT INTO function_deployments ({COLUMNS}, version_id) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, \
         ?17, ?18, ?19)"
    );
    connection.prepare_cached(&sql)?.execute(params![
        Text(deployment.id),
        Text(deployment.function_id),
        Text(&deployment.label),
        deployment.number,
        Text(&deployment.alias),
        Text(&deployment.environment),
        Text(deployment.kind),
        Text(deployment.status),
        deployment.weight.map(u32::from),
        Text(&deployment.previous),
        deployment.actor,
        deployment.reason,
        deployment.build_log,
        Millis(deployment.created_at),
        (deployment.status != DeploymentStatus::Building).then_some(Millis(deployment.finished_at)),
        deployment.decision.as_ref().map(|it| &it.by),
        deployment.decision.as_ref().and_then(|it| it.reason.as_ref()),
        deployment.decision.as_ref().map(|it| Millis(it.at)),
        version_id.map(Text),
    ])?;
    Ok(())
}

/// Writes the outcome of a waiting deployment. The row moves to the end of the order because it takes effect after
/// everything that took effect while it waited.
pub(super) fn settle(connection: &Connection, deployment: &Deployment) -> Result<(), StoreError> {
    let sql = "UPDATE function_deployments SET sequence = (SELECT max(sequence) + 1 FROM function_deployments), \
         status = ?2, previous_version = ?3, decided_by = ?4, decision = ?5, decided_at = ?6, finished_at = ?7 \
         WHERE id = ?1 AND status = 'pending_approval'";
    let decision = deployment.decision.as_ref();
    connection.prepare_cached(sql)?.execute(params![
        Text(deployment.id),
        Text(deployment.status),
        Text(&deployment.previous),
        decision.map(|it| &it.by),
        decision.and_then(|it| it.reason.as_ref()),
        decision.map(|it| Millis(it.at)),
        Millis(deployment.finished_at),
    ])?;
    Ok(())
}

/// Marks the alias's active deployment as superseded.
pub(super) fn supersede(connection: &Connection, function_id: FunctionId, alias: &AliasName) -> Result<(), StoreError> {
    let sql = "UPDATE function_deployments SET status = 'superseded' \
         WHERE function_id = ?1 AND alias = ?2 AND status = 'active'";
    connection.prepare_cached(sql)?.execute(params![Text(function_id), Text(alias)])?;
    Ok(())
}

/// Marks the active deployments of all aliases of a function as superseded.
pub(super) fn supersede_all(connection: &Connection, function_id: FunctionId) -> Result<(), StoreError> {
    let sql = "UPDATE function_deployments SET status = 'superseded' WHERE function_id = ?1 AND status = 'active'";
    connection.prepare_cached(sql)?.execute([Text(function_id)])?;
    Ok(())
}

/// See [`super::Store::previous_target`].
pub(super) fn previous_target(
    connection: &Connection,
    function_id: FunctionId,
    alias: &AliasName,
) -> Result<Option<VersionId>, StoreError> {
    // Without an alias the comparison is with NULL, which no row passes. Rows of deleted versions have no `version_id`.
    let sql = "SELECT version_id FROM function_deployments \
         WHERE function_id = ?1 AND alias = ?2 AND status IN ('active', 'superseded') \
           AND version_id <> (SELECT version_id FROM aliases WHERE function_id = ?1 AND name = ?2) \
         ORDER BY sequence DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let id = statement.query_row(params![Text(function_id), Text(alias)], |row| row.get::<_, Text<VersionId>>(0));
    Ok(id.optional()?.map(|it| it.0))
}

/// Returns the time of the alias's automatic rollback, if no later deployment has moved the alias or its shares.
pub(super) fn went_back_at(
    connection: &Connection,
    function_id: FunctionId,
    alias: &AliasName,
) -> Result<Option<Timestamp>, StoreError> {
    let sql = "SELECT kind, finished_at FROM function_deployments \
         WHERE function_id = ?1 AND alias = ?2 AND status IN ('active', 'superseded', 'applied') \
         ORDER BY sequence DESC LIMIT 1";
    let read = |row: &Row<'_>| Ok((row.get::<_, Text<DeploymentKind>>(0)?.0, row.get::<_, Millis>(1)?.0));
    let last = connection.prepare_cached(sql)?.query_row(params![Text(function_id), Text(alias)], read).optional()?;
    Ok(last.filter(|(kind, _)| *kind == DeploymentKind::AutoRollback).map(|(_, at)| at))
}
