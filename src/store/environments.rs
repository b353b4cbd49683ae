//! The table `environments`, and what a protected one keeps.

use super::value::{Columns, Text};
use super::{StoreError, aliases};
use crate::model::{AliasName, EnvironmentName, FunctionId, Timestamp};
use rusqlite::{Connection, Row, params};

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

/// Says whether what is new in an environment needs approval.
pub(super) fn protect(connection: &Connection, name: &EnvironmentName, protected: bool) -> Result<(), StoreError> {
    let sql = "UPDATE environments SET protected = ?2 WHERE name = ?1";
    let changed = connection.prepare_cached(sql)?.execute(params![Text(name), protected])?;
    if changed == 1 { Ok(()) } else { Err(StoreError::EnvironmentNotFound(name.clone())) }
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
