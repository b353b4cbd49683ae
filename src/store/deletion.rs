//! Deletion of functions and aliases, with all that depends on them.

use super::{Store, StoreError, aliases, approval, deployments, environments, functions, rollouts, variables};
use crate::model::{
    AliasName, Deployment, DeploymentKind, DeploymentStatus, FunctionId, FunctionStatus, Timestamp, VersionId,
};
use rusqlite::Connection;
use std::sync::Arc;

/// Actor, reason and time of an alias's deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Actor, as the audit trail names it.
    pub actor: String,
    /// Reason given.
    pub reason: Option<String>,
    /// Time of the deletion.
    pub at: Timestamp,
}

impl Store {
    /// Marks a function as deleted: its name is free again and its aliases are gone; versions and deployments stay. Its
    /// waiting deployments are rejected. [`StoreError::EnvironmentProtected`] if an alias is in a protected
    /// environment.
    pub fn delete_function(&self, id: FunctionId, actor: &Arc<str>, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            for alias in aliases::all(it, id)? {
                environments::may_leave(it, id, &alias.name, None)?;
            }
            approval::reject_all(it, id, now)?;
            functions::set_target(it, id, FunctionStatus::Deleted, None, now)?;
            aliases::delete_all(it, id)?;
            rollouts::abort(it, id, None, "the function was deleted", now)?;
            variables::delete_all(it, id, (actor, now))?;
            deployments::supersede_all(it, id)
        })
    }

    /// Deletes an alias other than `LIVE` and `ROLLBACK` ([`StoreError::AliasFixed`]). Its deployments stay, so that a
    /// new alias of this name still knows what it pointed at before. An alias in a protected environment cannot be
    /// deleted ([`StoreError::EnvironmentProtected`]).
    ///
    /// Returns the audit row that records the deletion.
    pub fn delete_alias(
        &self,
        function_id: FunctionId,
        name: &AliasName,
        removal: &Removal,
    ) -> Result<Deployment, StoreError> {
        self.write(|it| {
            functions::touch(it, function_id, removal.at)?;
            environments::may_leave(it, function_id, name, None)?;
            let (row, version_id) = alias_removed(it, function_id, name, removal)?;
            aliases::delete(it, function_id, name)?;
            rollouts::abort(it, function_id, Some(name), "the alias was deleted", removal.at)?;
            deployments::supersede(it, function_id, name)?;
            deployments::insert(it, &row, Some(version_id))?;
            Ok(row)
        })
    }
}

/// Returns the audit row for the deletion of an alias, and the version it points at.
fn alias_removed(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    removal: &Removal,
) -> Result<(Deployment, VersionId), StoreError> {
    let (row, version_id) =
        aliases::row(connection, function_id, name, (&removal.actor, removal.reason.as_ref(), removal.at))?;
    let (kind, status) = (DeploymentKind::Remove, DeploymentStatus::Removed);
    Ok((Deployment { kind, status, previous: Some(row.label.clone()), ..row }, version_id))
}
