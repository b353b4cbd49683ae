//! Deletion of old versions: the references to a version in every table, read inside the deleting transaction.

use super::value::{Columns, Text};
use super::{StoreError, aliases, versions};
use crate::model::{AliasName, DeploymentId, FunctionId, Version, VersionId};
use rusqlite::{Connection, Row};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt;

/// Outcome of a cleanup of a function's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Deleted versions, the newest number first.
    pub removed: Vec<Version>,
    /// Kept versions with the reasons, the newest number first.
    pub kept: Vec<(Version, Vec<Hold>)>,
}

/// Reason to keep a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// The version is one of the newest.
    Newest,
    /// An alias sends calls to the version, or may.
    Alias(AliasName),
    /// A running or paused rollout raises its share of this alias's calls.
    Rollout(AliasName),
    /// A deployment of the version waits for approval.
    Approval(DeploymentId),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Alias(name) => write!(f, "alias {name}"),
            Self::Rollout(alias) => write!(f, "rollout of {alias}"),
            Self::Approval(deployment) => write!(f, "approval of {deployment}"),
        }
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
