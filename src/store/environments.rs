//! The table `environments`, and the rules of protected environments.

use super::value::{Columns, Millis, Text};
use super::{Store, StoreError, audit};
use crate::model::environment::{self, EnvironmentLink, EnvironmentLinks};
use crate::model::{
    AliasName, EnvironmentError, EnvironmentName, FunctionId, SecretAction, SecretAudit, Timestamp, VariablePlace,
    VersionId,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashSet;
use std::sync::Arc;

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentRecord {
    /// Name of the environment.
    pub name: EnvironmentName,
    /// Environment whose variables apply where this one sets none.
    pub parent: Option<EnvironmentName>,
    /// Whether new versions in it need approval.
    pub protected: bool,
    /// Number of aliases that run in it, over all functions.
    pub aliases: u32,
    /// Creation time.
    pub created_at: Timestamp,
}

impl Store {
    /// Returns the environments by name.
    pub fn environments(&self) -> Result<Vec<EnvironmentRecord>, StoreError> {
        self.read(all)
    }

    /// Creates an environment; [`StoreError::Environment`] names the rule it would break.
    pub fn create_environment(
        &self,
        name: &EnvironmentName,
        change: &EnvironmentChange,
        actor: &Arc<str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|it| {
            environment::check_new(&links(it)?, name)?;
            let sql = "INSERT INTO environments (name, created_at) VALUES (?1, ?2)";
            it.prepare_cached(sql)?.execute(params![Text(name), Millis(now)])?;
            alter(it, name, change, (actor, now))
        })
    }

    /// Changes an environment ([`StoreError::EnvironmentNotFound`], [`StoreError::Environment`]).
    pub fn change_environment(
        &self,
        name: &EnvironmentName,
        change: &EnvironmentChange,
        actor: &Arc<str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|it| alter(it, name, change, (actor, now)))
    }

    /// Deletes an unused environment that is not built in ([`StoreError::Environment`]).
    pub fn delete_environment(&self, name: &EnvironmentName) -> Result<(), StoreError> {
        self.write(|it| {
            if name.is_fixed() {
                return Err(EnvironmentError::Fixed(name.clone()).into());
            }
            let by = uses(it, name)?;
            if !by.is_empty() {
                return Err(EnvironmentError::InUse { name: name.clone(), by }.into());
            }
            match it.prepare_cached("DELETE FROM environments WHERE name = ?1")?.execute([Text(name)]) {
                Ok(0) => Err(StoreError::EnvironmentNotFound(name.clone())),
                Ok(_) => Ok(()),
                // A foreign key that `uses` does not cover also prevents the deletion.
                Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                    Err(EnvironmentError::InUse { name: name.clone(), by: vec!["other references".into()] }.into())
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Checks that an alias may run in this environment from now on: [`StoreError::EnvironmentProtected`] if it runs in
    /// another one that is protected.
    pub fn may_move(&self, id: FunctionId, alias: &AliasName, to: &EnvironmentName) -> Result<(), StoreError> {
        self.read(|it| may_leave(it, id, alias, Some(to)))
    }
}

/// Returns the environments by name.
pub(super) fn all(connection: &Connection) -> Result<Vec<EnvironmentRecord>, StoreError> {
    let sql = "SELECT name, parent, protected, created_at, \
         (SELECT count(*) FROM aliases WHERE environment = environments.name) AS aliases \
         FROM environments ORDER BY name";
    let read = |row: &Row<'_>| {
        let columns = Columns { table: "environments", row };
        Ok(EnvironmentRecord {
            name: columns.text("name")?,
            parent: columns.text_or_null("parent")?,
            protected: columns.plain("protected")?,
            aliases: columns.plain("aliases")?,
            created_at: columns.time("created_at")?,
        })
    };
    connection.prepare_cached(sql)?.query_and_then([], read)?.collect()
}

/// Changes to an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentChange {
    /// Whether new versions in it need approval; `None` leaves that unchanged.
    pub protected: Option<bool>,
    /// Environment to take variables from: `Some(None)` for no parent, `None` for no change.
    pub parent: Option<Option<EnvironmentName>>,
    /// Whether the change may let unprotected environments take variables from guarded ones.
    pub allow: bool,
}

/// Returns the environments and their parents.
pub(super) fn links(connection: &Connection) -> Result<EnvironmentLinks, StoreError> {
    let link = |it: EnvironmentRecord| (it.name, EnvironmentLink { parent: it.parent, protected: it.protected });
    Ok(all(connection)?.into_iter().map(link).collect())
}

/// Changes an environment.
fn alter(
    connection: &Connection,
    name: &EnvironmentName,
    change: &EnvironmentChange,
    by: (&Arc<str>, Timestamp),
) -> Result<(), StoreError> {
    let before = links(connection)?;
    let mut after = before.clone();
    if let Some(Some(missing)) =
        change.parent.as_ref().filter(|it| it.as_ref().is_some_and(|it| !before.contains_key(it)))
    {
        return Err(StoreError::EnvironmentNotFound(missing.clone()));
    }
    let link = after.get_mut(name).ok_or_else(|| StoreError::EnvironmentNotFound(name.clone()))?;
    link.protected = change.protected.unwrap_or(link.protected);
    link.parent = change.parent.clone().unwrap_or_else(|| link.parent.take());
    let link = link.clone();
    // Protecting an environment is always allowed, even if others already take variables from it.
    let only_protects = change.parent.is_none() && link.protected;
    environment::check_change(&before, &after, change.allow || only_protects)?;
    let sql = "UPDATE environments SET protected = ?2, parent = ?3 WHERE name = ?1";
    connection.prepare_cached(sql)?.execute(params![Text(name), link.protected, Text(link.parent.clone())])?;
    let Some(detail) = before.get(name).and_then(|before| told(before, &link)) else { return Ok(()) };
    let place = VariablePlace { function: None, environment: Some(name.clone()) };
    let row = audit::row(SecretAction::ChangeEnvironment, by, &place, None, None);
    audit::add(connection, &SecretAudit { detail: Some(detail), ..row })
}

/// Describes a change in words; `None` if nothing changed.
fn told(before: &EnvironmentLink, after: &EnvironmentLink) -> Option<String> {
    let protection = if after.protected { "protected" } else { "no longer protected" };
    let parent = after.parent.as_ref().map_or_else(|| "no other environment".to_owned(), ToString::to_string);
    let told = [
        (before.protected != after.protected).then(|| protection.to_owned()),
        (before.parent != after.parent).then(|| format!("takes variables from {parent}")),
    ];
    Some(told.into_iter().flatten().collect::<Vec<_>>().join(", ")).filter(|it| !it.is_empty())
}

/// Names of one kind listed in a refusal; of the rest, only the number is given.
const USES_SHOWN_MAX: usize = 5;

/// Lists the users of an environment in words: each query returns the names of one kind. A new table that refers to
/// environments gets a line here.
fn uses(connection: &Connection, name: &EnvironmentName) -> Result<Vec<String>, StoreError> {
    let kinds = [
        (
            "alias",
            "SELECT functions.name || ':' || aliases.name FROM aliases JOIN functions ON functions.id = function_id \
             WHERE environment = ?1 ORDER BY 1",
        ),
        ("child", "SELECT name FROM environments WHERE parent = ?1 ORDER BY 1"),
        (
            "waiting deployment",
            "SELECT id FROM function_deployments WHERE environment = ?1 AND status = 'pending_approval' ORDER BY 1",
        ),
        (
            "variable",
            "SELECT IFNULL(functions.name || ':', '') || key FROM variables LEFT JOIN functions ON functions.id = function_id \
             WHERE environment = ?1 ORDER BY 1",
        ),
    ];
    let mut uses = Vec::new();
    for (kind, sql) in kinds {
        let mut statement = connection.prepare_cached(sql)?;
        let names = statement.query_map([Text(name)], |row| row.get::<_, String>(0))?;
        let names = names.collect::<Result<Vec<_>, _>>()?;
        uses.extend(names.iter().take(USES_SHOWN_MAX).map(|it| format!("{kind} {it}")));
        if names.len() > USES_SHOWN_MAX {
            uses.push(format!("{} more", names.len() - USES_SHOWN_MAX));
        }
    }
    Ok(uses)
}

/// Returns the versions of a function that may run in an environment without an approved alias: those that took calls
/// of any of its aliases there. `None` means that the environment is not protected and any version may run.
pub(super) fn approved(
    connection: &Connection,
    function_id: FunctionId,
    environment: &EnvironmentName,
) -> Result<Option<HashSet<VersionId>>, StoreError> {
    if !is_protected(connection, environment)? {
        return Ok(None);
    }
    let sql = "SELECT DISTINCT version_id FROM function_deployments WHERE function_id = ?1 AND environment = ?2 \
         AND finished_at >= ?3 AND version_id IS NOT NULL AND status IN ('active', 'superseded', 'applied')";
    let mut statement = connection.prepare_cached(sql)?;
    let since = since(connection, environment)?;
    let ids = statement.query_map(params![Text(function_id), Text(environment), since], |row| {
        row.get::<_, Text<VersionId>>(0).map(|it| it.0)
    })?;
    Ok(Some(ids.collect::<Result<_, _>>()?))
}

/// Returns the time, in milliseconds, from which deployments count for this environment rather than for a deleted one
/// of the same name. Built-in environments cannot be deleted, so a changed clock cannot take approvals away there.
pub(super) fn since(connection: &Connection, name: &EnvironmentName) -> Result<i64, StoreError> {
    if name.is_fixed() {
        return Ok(i64::MIN);
    }
    let sql = "SELECT created_at FROM environments WHERE name = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([Text(name)], |row| row.get(0))?)
}

/// Whether new versions in an environment need approval; false for an unknown environment.
pub(super) fn is_protected(connection: &Connection, name: &EnvironmentName) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM environments WHERE name = ?1 AND protected";
    Ok(connection.prepare_cached(sql)?.exists([Text(name)])?)
}

/// Refuses to take an alias out of a protected environment: to move it to another one or, if `to` is absent, to delete
/// it.
///
/// No deployment can wait for approval of that: it would leave callers of that environment without the version approved
/// for them. Somebody who may change the protection has to end it first.
pub(super) fn may_leave(
    connection: &Connection,
    function_id: FunctionId,
    alias: &AliasName,
    to: Option<&EnvironmentName>,
) -> Result<(), StoreError> {
    match environment_of(connection, function_id, alias)? {
        Some(present) if Some(&present) != to && is_protected(connection, &present)? => {
            Err(StoreError::EnvironmentProtected { alias: alias.clone(), environment: present })
        }
        _ => Ok(()),
    }
}

/// Returns the environment of an alias, if the alias exists.
fn environment_of(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
) -> Result<Option<EnvironmentName>, StoreError> {
    let sql = "SELECT environment FROM aliases WHERE function_id = ?1 AND name = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![Text(function_id), Text(name)], |row| row.get::<_, Text<_>>(0));
    Ok(found.optional()?.map(|it| it.0))
}
