//! The table `functions`.

use super::value::{Columns, Millis, Text};
use super::{Store, StoreError};
use crate::model::{Function, FunctionId, FunctionName, FunctionStatus, Settings, Timestamp, VersionId};
use rusqlite::types::{FromSqlError, Value};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};

/// Returns the columns of a function, of which its settings are the last.
fn columns() -> String {
    let own = ["id, name, runtime, handler, status, created_at, updated_at"];
    own.into_iter().chain(Settings::ALL.iter().map(|it| it.key)).collect::<Vec<_>>().join(", ")
}

impl Store {
    /// Adds a function; its name must be free ([`StoreError::NameTaken`]).
    pub fn insert_function(&self, function: &Function) -> Result<(), StoreError> {
        self.write(|it| insert(it, function))
    }

    /// Returns the functions that are not deleted, by name.
    pub fn functions(&self) -> Result<Vec<Function>, StoreError> {
        self.read(all)
    }

    /// Returns the function of this name that is not deleted, if there is one.
    pub fn function_named(&self, name: &FunctionName) -> Result<Option<Function>, StoreError> {
        self.read(|it| {
            let sql = format!("SELECT {} FROM functions WHERE name = ?1 AND status <> 'deleted'", columns());
            it.prepare_cached(&sql)?.query_and_then([Text(name)], read)?.next().transpose()
        })
    }

    /// Returns a function that is not deleted.
    pub fn function(&self, id: FunctionId) -> Result<Function, StoreError> {
        self.read(|it| one(it, id))
    }

    /// Replaces a function's settings.
    pub fn update_settings(&self, id: FunctionId, settings: &Settings, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            let changes: String = Settings::ALL.iter().map(|it| format!("{} = ?, ", it.key)).collect();
            let sql = format!("UPDATE functions SET {changes}updated_at = ? WHERE id = ? AND status <> 'deleted'");
            let values = values(settings).chain([Value::Integer(now.as_millis()), Value::Text(id.to_string())]);
            found(it.prepare_cached(&sql)?.execute(params_from_iter(values))?, id)
        })
    }

    /// Returns the number of the function's next version.
    pub fn next_number(&self, function_id: FunctionId) -> Result<u32, StoreError> {
        self.read(|it| {
            let sql = "SELECT last_version_number + 1 FROM functions WHERE id = ?1 AND status <> 'deleted'";
            let number = it.prepare_cached(sql)?.query_row([Text(function_id)], |row| row.get(0)).optional()?;
            number.ok_or(StoreError::FunctionNotFound(function_id))
        })
    }
}

fn read(row: &Row<'_>) -> Result<Function, StoreError> {
    let columns = Columns { table: "functions", row };
    Ok(Function {
        id: columns.text("id")?,
        name: columns.text("name")?,
        runtime: columns.plain("runtime")?,
        handler: columns.plain("handler")?,
        status: columns.text("status")?,
        settings: settings(&columns)?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}

fn settings(columns: &Columns<'_>) -> Result<Settings, StoreError> {
    let mut settings = Settings::default();
    for setting in Settings::ALL {
        let value = match columns.plain(setting.key)? {
            Value::Integer(number) => number.into(),
            Value::Text(word) => word.into(),
            _ => serde_json::Value::Null,
        };
        let read = settings.with_value(setting.key, value);
        settings = read.map_err(|cause| columns.corrupt(setting.key, FromSqlError::other(cause).into()))?;
    }
    Ok(settings)
}

/// Returns the values of the columns of settings.
fn values(settings: &Settings) -> impl Iterator<Item = Value> {
    settings.values().map(|(_, value)| match value.as_i64() {
        Some(number) => Value::Integer(number),
        None => Value::Text(value.as_str().unwrap_or_default().to_owned()),
    })
}

pub(super) fn all(connection: &Connection) -> Result<Vec<Function>, StoreError> {
    let sql = format!("SELECT {} FROM functions WHERE status <> 'deleted' ORDER BY name", columns());
    connection.prepare_cached(&sql)?.query_and_then([], read)?.collect()
}

pub(super) fn one(connection: &Connection, id: FunctionId) -> Result<Function, StoreError> {
    let sql = format!("SELECT {} FROM functions WHERE id = ?1 AND status <> 'deleted'", columns());
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_and_then([Text(id)], read)?.next().unwrap_or(Err(StoreError::FunctionNotFound(id)))
}

pub(super) fn insert(connection: &Connection, function: &Function) -> Result<(), StoreError> {
    let mut taken = connection.prepare_cached("SELECT 1 FROM functions WHERE name = ?1 AND status <> 'deleted'")?;
    if taken.exists([Text(&function.name)])? {
        return Err(StoreError::NameTaken(function.name.clone()));
    }
    let own: [&dyn ToSql; 7] = [
        &Text(function.id),
        &Text(&function.name),
        &function.runtime,
        &function.handler,
        &Text(function.status),
        &Millis(function.created_at),
        &Millis(function.updated_at),
    ];
    let settings: Vec<Value> = values(&function.settings).collect();
    let all: Vec<&dyn ToSql> = own.into_iter().chain(settings.iter().map(|it| it as &dyn ToSql)).collect();
    let places = vec!["?"; all.len()].join(", ");
    let sql = format!("INSERT INTO functions ({}) VALUES ({places})", columns());
    connection.prepare_cached(&sql)?.execute(all.as_slice())?;
    Ok(())
}

/// Sets the function's status and the target of `LIVE`.
pub(super) fn set_target(
    connection: &Connection,
    id: FunctionId,
    status: FunctionStatus,
    target: Option<VersionId>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE functions SET status = ?2, active_version_id = ?3, updated_at = ?4 WHERE id = ?1 AND status <> 'deleted'",
    )?;
    found(statement.execute(params![Text(id), Text(status), target.map(Text), Millis(now)])?, id)
}

/// Sets the time of the function's last change.
pub(super) fn touch(connection: &Connection, id: FunctionId, now: Timestamp) -> Result<(), StoreError> {
    let sql = "UPDATE functions SET updated_at = ?2 WHERE id = ?1 AND status <> 'deleted'";
    found(connection.prepare_cached(sql)?.execute(params![Text(id), Millis(now)])?, id)
}

/// Marks a function as provisional: it was made by its first deployment, and nobody else has asked for it.
pub(super) fn set_provisional(connection: &Connection, id: FunctionId) -> Result<(), StoreError> {
    connection.prepare_cached("UPDATE functions SET is_provisional = 1 WHERE id = ?1")?.execute([Text(id)])?;
    Ok(())
}

/// Clears the provisional mark because somebody else has asked for the function.
pub(super) fn claim(connection: &Connection, id: FunctionId) -> Result<(), StoreError> {
    one(connection, id)?;
    let sql = "UPDATE functions SET is_provisional = 0 WHERE id = ?1 AND is_provisional = 1";
    connection.prepare_cached(sql)?.execute([Text(id)])?;
    Ok(())
}

/// Returns the provisional functions: those made by a deployment that has not succeeded so far.
pub(super) fn provisional(connection: &Connection) -> Result<Vec<FunctionId>, StoreError> {
    let sql = "SELECT id FROM functions WHERE is_provisional = 1 AND status <> 'deleted'";
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map([], |row| row.get::<_, Text<FunctionId>>(0))?;
    ids.map(|id| Ok(id?.0)).collect()
}

/// Deletes a provisional function unless a deployment still runs for it or somebody has given it a variable.
pub(super) fn remove_provisional(connection: &Connection, id: FunctionId, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "UPDATE functions SET status = 'deleted', updated_at = ?2 \
         WHERE id = ?1 AND is_provisional = 1 AND status = 'registered' \
           AND NOT EXISTS (SELECT 1 FROM function_deployments WHERE function_id = ?1 AND status = 'building') \
           AND NOT EXISTS (SELECT 1 FROM variables WHERE IFNULL(function_id, '') = ?1)";
    Ok(connection.prepare_cached(sql)?.execute(params![Text(id), Millis(now)])? == 1)
}

/// Returns a function's name, also of a deleted one.
pub(super) fn name(connection: &Connection, id: FunctionId) -> Result<FunctionName, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name FROM functions WHERE id = ?1")?;
    let name = statement.query_row([Text(id)], |row| row.get::<_, Text<FunctionName>>(0)).optional()?;
    name.map(|it| it.0).ok_or(StoreError::FunctionNotFound(id))
}

/// Reserves a version number, which must be above all earlier ones.
pub(super) fn take_number(connection: &Connection, id: FunctionId, number: u32) -> Result<(), StoreError> {
    let sql = "UPDATE functions SET last_version_number = ?2 WHERE id = ?1 AND last_version_number < ?2";
    let changed = connection.prepare_cached(sql)?.execute(params![Text(id), number])?;
    if changed == 1 { Ok(()) } else { Err(StoreError::NumberTaken(number)) }
}

fn found(changed: usize, id: FunctionId) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::FunctionNotFound(id)) }
}
