//! The table `secret_audit`.

use super::value::{Columns, Millis, Text};
use super::{Store, StoreError};
use crate::model::{FunctionId, SecretAction, SecretAudit, Timestamp, VariableKey, VariablePlace};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;

impl Store {
    /// Adds rows to the audit trail, and trims it to the newest `rows_max` rows overall.
    pub fn audit_secrets(&self, rows: &[SecretAudit], rows_max: u32) -> Result<(), StoreError> {
        self.write(|it| {
            rows.iter().try_for_each(|row| add(it, row))?;
            trim(it, rows_max)
        })
    }

    /// Returns the newest rows, optionally of one function only, the newest first.
    pub fn secret_audit(&self, function: Option<FunctionId>, limit: u32) -> Result<Vec<SecretAudit>, StoreError> {
        self.read(|it| {
            let sql = "SELECT action, at, actor, function_id, environment, key, generation, detail, count, last_at \
                 FROM secret_audit WHERE ?1 IS NULL OR function_id = ?1 ORDER BY at DESC, sequence DESC LIMIT ?2";
            it.prepare_cached(sql)?.query_and_then(params![function.map(Text), limit], read)?.collect()
        })
    }
}

/// Creates a row about a place.
pub(super) fn row(
    action: SecretAction,
    (actor, now): (&Arc<str>, Timestamp),
    place: &VariablePlace,
    key: Option<&VariableKey>,
    generation: Option<u32>,
) -> SecretAudit {
    SecretAudit {
        at: now,
        action,
        actor: Arc::clone(actor),
        function: place.function,
        environment: place.environment.clone(),
        key: key.cloned(),
        generation,
        detail: None,
        count: 1,
        last_at: now,
    }
}

/// Adds a row. An injection equal to the last one of its function in that environment only raises that row's count.
pub(super) fn add(connection: &Connection, audit: &SecretAudit) -> Result<(), StoreError> {
    if audit.action == SecretAction::Inject && count(connection, audit)? {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO secret_audit (at, action, actor, function_id, environment, key, generation, detail, count, last_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    statement.execute(params![
        Millis(audit.at),
        Text(audit.action),
        &*audit.actor,
        audit.function.map(Text),
        audit.environment.as_ref().map(Text),
        audit.key.as_ref().map(Text),
        audit.generation,
        audit.detail,
        audit.count,
        Millis(audit.last_at),
    ])?;
    Ok(())
}

/// Adds the injection to the last row if the two are equal. Returns whether it did.
fn count(connection: &Connection, audit: &SecretAudit) -> Result<bool, StoreError> {
    let mut last = connection.prepare_cached(
        "SELECT sequence, detail FROM secret_audit WHERE action = 'inject' AND function_id IS ?1 AND environment IS ?2 \
         ORDER BY sequence DESC LIMIT 1",
    )?;
    let (function, environment) = (audit.function.map(Text), audit.environment.as_ref().map(Text));
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?));
    let last = last.query_row(params![function, environment], read).optional()?;
    let Some((sequence, _)) = last.filter(|(_, detail)| *detail == audit.detail) else { return Ok(false) };
    let sql = "UPDATE secret_audit SET count = count + ?2, last_at = ?3 WHERE sequence = ?1";
    connection.prepare_cached(sql)?.execute(params![sequence, audit.count, Millis(audit.last_at)])?;
    Ok(true)
}

pub(super) fn trim(connection: &Connection, rows_max: u32) -> Result<(), StoreError> {
    let sql = "DELETE FROM secret_audit WHERE sequence <= \
         (SELECT sequence FROM secret_audit ORDER BY sequence DESC LIMIT 1 OFFSET ?1)";
    connection.prepare_cached(sql)?.execute([rows_max])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<SecretAudit, StoreError> {
    let columns = Columns { table: "secret_audit", row };
    let time = |column| -> Result<Timestamp, StoreError> { columns.time(column) };
    Ok(SecretAudit {
        at: time("at")?,
        action: columns.text("action")?,
        actor: columns.plain::<String>("actor")?.into(),
        function: columns.text_or_null("function_id")?,
        environment: columns.text_or_null("environment")?,
        key: columns.text_or_null("key")?,
        generation: columns.plain("generation")?,
        detail: columns.plain("detail")?,
        count: columns.plain("count")?,
        last_at: time("last_at")?,
    })
}
