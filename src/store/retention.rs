//! Deletion of old versions: the references to a version in every table, read inside the deleting transaction.

use super::value::{Columns, Text};
use super::{Hold, Store, StoreError, aliases, functions, versions};
use crate::model::{FunctionId, FunctionStatus, Timestamp, Version, VersionId};
use rusqlite::{Connection, Row, Transaction};
use serde::de::DeserializeOwned;
use std::collections::HashMap;

/// Outcome of a cleanup of a function's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Deleted versions, the newest number first.
    pub removed: Vec<Version>,
    /// Kept versions with the reasons, the newest number first.
    pub kept: Vec<(Version, Vec<Hold>)>,
}

impl Store {
    /// Deletes a version that is not in use ([`StoreError::VersionInUse`]); its deployments stay without the link.
    /// `ROLLBACK` does not count as a use.
    ///
    /// The caller removes the bundle afterwards: a crash in between leaves a bundle without a row, which the next start
    /// removes, and never a row without its bundle.
    pub fn delete_version(&self, function_id: FunctionId, id: VersionId, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            functions::one(it, function_id)?;
            let version = versions::one(it, function_id, id)?;
            let by = reasons_to_keep(it, function_id, id)?;
            if !by.is_empty() {
                return Err(StoreError::VersionInUse { label: version.label, by });
            }
            versions::delete(it, id)?;
            if versions::all(it, function_id)?.is_empty() {
                functions::set_target(it, function_id, FunctionStatus::Registered, None, now)
            } else {
                functions::touch(it, function_id, now)
            }
        })
    }

    /// Deletes all versions of a function except the `keep` newest and those in use, `ROLLBACK` included; their
    /// deployments stay without the link. A dry run returns the result and deletes nothing.
    ///
    /// The caller removes the bundles afterwards, as with [`Self::delete_version`].
    pub fn prune_versions(
        &self,
        function_id: FunctionId,
        keep: u32,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Pruned, StoreError> {
        let work = |it: &Transaction<'_>| {
            functions::one(it, function_id)?;
            let pruned = prune(it, function_id, keep)?;
            if !pruned.removed.is_empty() {
                functions::touch(it, function_id, now)?;
            }
            Ok(pruned)
        };
        if dry_run { self.try_out(work) } else { self.write(work) }
    }
}

/// Returns all references to versions of a function, by version. `ROLLBACK` is included although it has no row.
pub(super) fn holds(
    connection: &Connection,
    function_id: FunctionId,
) -> Result<HashMap<VersionId, Vec<Hold>>, StoreError> {
    let mut holds: HashMap<VersionId, Vec<Hold>> = HashMap::new();
    let mut hold = |version: VersionId, hold: Hold| holds.entry(version).or_default().push(hold);
    for alias in aliases::all(connection, function_id)? {
        for version in [Some(alias.version_id), alias.split.map(|it| it.version_id)].into_iter().flatten() {
            hold(version, Hold::Alias(alias.name.clone()));
        }
    }
    let sql = "SELECT function_versions.id AS id, alias FROM rollouts JOIN function_versions USING (function_id, number) \
         WHERE function_id = ?1 AND rollouts.status IN ('running', 'paused')";
    for (version, alias) in pairs(connection, "rollouts", sql, function_id, "alias")? {
        hold(version, Hold::Rollout(alias));
    }
    let sql = "SELECT version_id AS id, id AS deployment FROM function_deployments \
         WHERE function_id = ?1 AND status = 'pending_approval' AND version_id IS NOT NULL";
    for (version, deployment) in pairs(connection, "function_deployments", sql, function_id, "deployment")? {
        hold(version, Hold::Approval(deployment));
    }
    Ok(holds)
}

/// Reads versions, each with a reference to it.
fn pairs<T: DeserializeOwned>(
    connection: &Connection,
    table: &'static str,
    sql: &str,
    function_id: FunctionId,
    column: &'static str,
) -> Result<Vec<(VersionId, T)>, StoreError> {
    let read = |row: &Row<'_>| {
        let columns = Columns { table, row };
        Ok((columns.text("id")?, columns.text(column)?))
    };
    connection.prepare_cached(sql)?.query_and_then([Text(function_id)], read)?.collect()
}

/// Returns the reasons that prevent the deletion of one given version. `ROLLBACK` is none: it moves on to the version
/// before.
pub(super) fn reasons_to_keep(
    connection: &Connection,
    function_id: FunctionId,
    version: VersionId,
) -> Result<Vec<Hold>, StoreError> {
    let mut holds = holds(connection, function_id)?.remove(&version).unwrap_or_default();
    holds.retain(|hold| !matches!(hold, Hold::Alias(name) if name.is_rollback()));
    Ok(holds)
}

/// Deletes the versions that are neither among the `keep` newest nor in use.
pub(super) fn prune(connection: &Connection, function_id: FunctionId, keep: u32) -> Result<Pruned, StoreError> {
    let mut holds = holds(connection, function_id)?;
    let mut pruned = Pruned { removed: Vec::new(), kept: Vec::new() };
    for (index, version) in versions::all(connection, function_id)?.into_iter().enumerate() {
        let mut why = holds.remove(&version.id).unwrap_or_default();
        if index < keep as usize {
            why.push(Hold::Newest);
        }
        if why.is_empty() {
            versions::delete(connection, version.id)?;
            pruned.removed.push(version);
        } else {
            why.sort();
            pruned.kept.push((version, why));
        }
    }
    Ok(pruned)
}
