//! The table `functions`.

use super::StoreError;
use super::value::{Columns, Millis, Text};
use crate::model::{Function, FunctionId, FunctionName, FunctionStatus, Settings, Timestamp, VersionId};
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "id, name, runtime, handler, status, memory_mb, timeout_seconds, max_concurrent_executions, \
     warm_workers, worker_concurrency, idle_timeout_seconds, queue_max, max_requests_per_worker, max_age_seconds, \
     network, auth, created_at, updated_at";

fn read(row: &Row<'_>) -> Result<Function, StoreError> {
    let columns = Columns { table: "functions", row };
    Ok(Function {
        id: columns.text("id")?,
        name: columns.text("name")?,
        runtime: columns.plain("runtime")?,
        handler: columns.plain("handler")?,
        status: columns.text("status")?,
        settings: Settings {
            memory_mb: columns.plain("memory_mb")?,
            timeout_seconds: columns.plain("timeout_seconds")?,
            max_concurrent_executions: columns.plain("max_concurrent_executions")?,
            warm_workers: columns.plain("warm_workers")?,
            worker_concurrency: columns.plain("worker_concurrency")?,
            idle_timeout_seconds: columns.plain("idle_timeout_seconds")?,
            queue_max: columns.plain("queue_max")?,
            max_requests_per_worker: columns.plain("max_requests_per_worker")?,
            max_age_seconds: columns.plain("max_age_seconds")?,
            network: columns.text("network")?,
            auth: columns.text("auth")?,
        },
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}

pub(super) fn all(connection: &Connection) -> Result<Vec<Function>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM functions WHERE status <> 'deleted' ORDER BY name");
    connection.prepare_cached(&sql)?.query_and_then([], read)?.collect()
}

pub(super) fn one(connection: &Connection, id: FunctionId) -> Result<Function, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM functions WHERE id = ?1 AND status <> 'deleted'");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_and_then([Text(id)], read)?.next().unwrap_or(Err(StoreError::FunctionNotFound(id)))
}

pub(super) fn insert(connection: &Connection, function: &Function) -> Result<(), StoreError> {
    let mut taken = connection.prepare_cached("SELECT 1 FROM functions WHERE name = ?1 AND status <> 'deleted'")?;
    if taken.exists([Text(&function.name)])? {
        return Err(StoreError::NameTaken(function.name.clone()));
    }
    let settings = &function.settings;
    let sql = format!(
        "INSERT INTO functions ({COLUMNS}) VALUES \
         (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)"
    );
    connection.prepare_cached(&sql)?.execute(params![
        Text(function.id),
        Text(&function.name),
        function.runtime,
        function.handler,
        Text(function.status),
        settings.memory_mb,
        settings.timeout_seconds,
        settings.max_concurrent_executions,
        settings.warm_workers,
        settings.worker_concurrency,
        settings.idle_timeout_seconds,
        settings.queue_max,
        settings.max_requests_per_worker,
        settings.max_age_seconds,
        settings.network.name(),
        settings.auth.name(),
        Millis(function.created_at),
        Millis(function.updated_at),
    ])?;
    Ok(())
}

pub(super) fn set_settings(
    connection: &Connection,
    id: FunctionId,
    settings: &Settings,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE functions SET memory_mb = ?2, timeout_seconds = ?3, max_concurrent_executions = ?4, warm_workers = ?5, \
         worker_concurrency = ?6, idle_timeout_seconds = ?7, queue_max = ?8, max_requests_per_worker = ?9, \
         max_age_seconds = ?10, network = ?11, auth = ?12, updated_at = ?13 \
         WHERE id = ?1 AND status <> 'deleted'",
    )?;
    let changed = statement.execute(params![
        Text(id),
        settings.memory_mb,
        settings.timeout_seconds,
        settings.max_concurrent_executions,
        settings.warm_workers,
        settings.worker_concurrency,
        settings.idle_timeout_seconds,
        settings.queue_max,
        settings.max_requests_per_worker,
        settings.max_age_seconds,
        settings.network.name(),
        settings.auth.name(),
        Millis(now),
    ])?;
    found(changed, id)
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
           AND NOT EXISTS (SELECT 1 FROM variables WHERE function_id = ?1)";
    Ok(connection.prepare_cached(sql)?.execute(params![Text(id), Millis(now)])? == 1)
}

/// Returns a function's name, also of a deleted one.
pub(super) fn name(connection: &Connection, id: FunctionId) -> Result<FunctionName, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name FROM functions WHERE id = ?1")?;
    let name = statement.query_row([Text(id)], |row| row.get::<_, Text<FunctionName>>(0)).optional()?;
    name.map(|it| it.0).ok_or(StoreError::FunctionNotFound(id))
}

pub(super) fn next_number(connection: &Connection, id: FunctionId) -> Result<u32, StoreError> {
    let sql = "SELECT last_version_number + 1 FROM functions WHERE id = ?1 AND status <> 'deleted'";
    let number = connection.prepare_cached(sql)?.query_row([Text(id)], |row| row.get(0)).optional()?;
    number.ok_or(StoreError::FunctionNotFound(id))
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
