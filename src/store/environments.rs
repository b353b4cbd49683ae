//! The table `environments`, and what a protected one keeps.

use super::value::{Columns, Millis, Text};
use super::{StoreError, aliases, audit};
use crate::model::environment::{self, Link, Links};
use crate::model::{
    AliasName, EnvironmentError, EnvironmentName, FunctionId, Place, SecretAction, SecretAudit, Timestamp, VersionId,
};
use rusqlite::{Connection, Row, params};
use std::collections::HashSet;
use std::sync::Arc;

/// An environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentRecord {
    /// Its name.
    pub name: EnvironmentName,
    /// The environment it takes variables from where it has none of its own.
    pub parent: Option<EnvironmentName>,
    /// Whether what is new in it needs approval.
    pub protected: bool,
    /// Aliases that run in it, of all functions.
    pub aliases: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The environments there are, by name.
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

/// What changes about an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentChange {
    /// Whether what is new in it needs approval; as before without.
    pub protected: Option<bool>,
    /// The environment it takes variables from; none with `Some(None)`, as before without.
    pub parent: Option<Option<EnvironmentName>>,
    /// Whether environments that nobody guards may take variables from guarded ones by this change.
    pub allow: bool,
}

/// The environments there are, as they take variables from one another.
pub(super) fn links(connection: &Connection) -> Result<Links, StoreError> {
    let link = |it: EnvironmentRecord| (it.name, Link { parent: it.parent, protected: it.protected });
    Ok(all(connection)?.into_iter().map(link).collect())
}

/// Makes an environment.
pub(super) fn create(
    connection: &Connection,
    name: &EnvironmentName,
    change: &EnvironmentChange,
    (actor, now): (&Arc<str>, Timestamp),
) -> Result<(), StoreError> {
    environment::check_new(&links(connection)?, name)?;
    let sql = "INSERT INTO environments (name, created_at) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![Text(name), Millis(now)])?;
    self::change(connection, name, change, (actor, now))
}

/// Changes an environment.
pub(super) fn change(
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
    // To protect an environment is always right, whoever takes variables from it by then.
    let only_protects = change.parent.is_none() && link.protected;
    environment::check_change(&before, &after, change.allow || only_protects)?;
    let sql = "UPDATE environments SET protected = ?2, parent = ?3 WHERE name = ?1";
    connection.prepare_cached(sql)?.execute(params![Text(name), link.protected, Text(link.parent.clone())])?;
    let Some(detail) = before.get(name).and_then(|before| told(before, &link)) else { return Ok(()) };
    let place = Place { function: None, environment: Some(name.clone()) };
    let row = audit::row(SecretAction::ChangeEnvironment, by, &place, None, None);
    audit::add(connection, &SecretAudit { detail: Some(detail), ..row })
}

/// What a change is about, in words; nothing where all is as before.
fn told(before: &Link, after: &Link) -> Option<String> {
    let protection = if after.protected { "protected" } else { "not protected any more" };
    let parent = after.parent.as_ref().map_or_else(|| "no other environment".to_owned(), ToString::to_string);
    let told = [
        (before.protected != after.protected).then(|| protection.to_owned()),
        (before.parent != after.parent).then(|| format!("takes variables from {parent}")),
    ];
    Some(told.into_iter().flatten().collect::<Vec<_>>().join(", ")).filter(|it| !it.is_empty())
}

/// Deletes an environment that nothing uses.
pub(super) fn delete(connection: &Connection, name: &EnvironmentName) -> Result<(), StoreError> {
    if name.is_fixed() {
        return Err(EnvironmentError::Fixed(name.clone()).into());
    }
    let by = uses(connection, name)?;
    if !by.is_empty() {
        return Err(EnvironmentError::InUse { name: name.clone(), by }.into());
    }
    match connection.prepare_cached("DELETE FROM environments WHERE name = ?1")?.execute([Text(name)]) {
        Ok(0) => Err(StoreError::EnvironmentNotFound(name.clone())),
        Ok(_) => Ok(()),
        // What refers to it by a foreign key and is not among the uses keeps it as well.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Err(EnvironmentError::InUse { name: name.clone(), by: vec!["what refers to it".into()] }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Names of one kind in a refusal; of more it says how many there are.
const USES_SHOWN_MAX: usize = 5;

/// What needs an environment, in words: each query gives the names of one kind of thing. Whatever else comes to refer to
/// environments has its line here.
fn uses(connection: &Connection, name: &EnvironmentName) -> Result<Vec<String>, StoreError> {
    let kinds = [
        (
            "alias",
            "SELECT functions.name || ':' || aliases.name FROM aliases JOIN functions ON functions.id = function_id \
             WHERE environment = ?1 ORDER BY 1",
        ),
        ("child", "SELECT name FROM environments WHERE parent = ?1 ORDER BY 1"),
        (
            "deployment that waits",
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
            uses.push(format!("{} more of that", names.len() - USES_SHOWN_MAX));
        }
    }
    Ok(uses)
}

/// The versions of a function that may run in an environment without an alias that is approved: those that took calls of
/// any of its aliases there. Nothing where the environment is not protected, so that all may.
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

/// Since when deployments in an environment are about this one, in milliseconds, and not about one of the same name
/// that was deleted. Those that are there from the start stay, so that no clock that was set can take approvals away there.
pub(super) fn since(connection: &Connection, name: &EnvironmentName) -> Result<i64, StoreError> {
    if name.is_fixed() {
        return Ok(i64::MIN);
    }
    let sql = "SELECT created_at FROM environments WHERE name = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([Text(name)], |row| row.get(0))?)
}

/// Whether what is new in an environment needs approval; in one that is not there nothing does.
pub(super) fn is_protected(connection: &Connection, name: &EnvironmentName) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM environments WHERE name = ?1 AND protected";
    Ok(connection.prepare_cached(sql)?.exists([Text(name)])?)
}

/// Refuses to take an alias out of a protected environment: to move it to another one, or to delete it where `to` is
/// absent.
///
/// No deployment could stand for that and wait: it would leave callers of that environment without what was approved
/// for them. So it takes the same decision as any other change of the rule: to end the protection first.
pub(super) fn may_leave(
    connection: &Connection,
    function_id: FunctionId,
    alias: &AliasName,
    to: Option<&EnvironmentName>,
) -> Result<(), StoreError> {
    match aliases::environment(connection, function_id, alias)? {
        Some(present) if Some(&present) != to && is_protected(connection, &present)? => {
            Err(StoreError::EnvironmentProtected { alias: alias.clone(), environment: present })
        }
        _ => Ok(()),
    }
}
