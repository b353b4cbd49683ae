//! The table `variables`, and changes to it together with the sealed values.

use super::audit;
use super::value::{Millis, Text};
use super::{GenerationRecord, Store, StoreError, environments, functions, sealed};
use crate::crash_point::crash_point;
use crate::model::{
    EnvironmentName, FunctionId, Sealed, SecretAction, SecretAudit, SecretText, Timestamp, Variable, VariableKey,
    VariablePlace, VariableValue, environment, variable::NewValue, variable::Parents,
};
use crate::secrets::{KeyId, MasterKey, seal};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;

/// Variables as of one instant.
#[derive(Debug)]
pub struct VariableRecords {
    /// Every variable.
    pub variables: Vec<Variable>,
    /// Parent of each environment.
    pub parents: Parents,
    /// Id of the master key that seals the secrets' data keys; absent without secrets.
    pub master_key_id: Option<KeyId>,
}

/// A change to one place's variables, applied as a whole or not at all.
#[derive(Debug)]
pub struct VariableChange<'a> {
    /// Place of the variables.
    pub place: &'a VariablePlace,
    /// Values to set, each key once.
    pub set: &'a [(VariableKey, NewValue)],
    /// Keys to delete.
    pub delete: &'a [VariableKey],
    /// Key that seals secrets.
    pub master: Option<&'a MasterKey>,
    /// Actor of the change.
    pub actor: Arc<str>,
    /// Whether the actor may change variables that a protected environment takes.
    pub is_admin: bool,
    /// Time of the change.
    pub now: Timestamp,
    /// Number of generations of a secret to keep.
    pub generations_kept: u32,
    /// Largest number of variables in the place.
    pub variables_max: usize,
    /// Largest total length of their keys and values, in bytes.
    pub bytes_max: usize,
    /// Number of rows of the audit trail to keep.
    pub audit_rows_max: u32,
}

/// Outcome of a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct VariableOutcome {
    /// Keys that did not exist before.
    pub created: Vec<VariableKey>,
    /// Keys whose value changed.
    pub changed: Vec<VariableKey>,
    /// Keys that already had the value.
    pub unchanged: Vec<VariableKey>,
    /// Keys that were deleted.
    pub deleted: Vec<VariableKey>,
    /// Whether old values must be erased from the disk.
    purge: bool,
}

impl Store {
    /// Returns the variables as of one instant.
    pub fn variables(&self) -> Result<VariableRecords, StoreError> {
        self.read(|it| {
            let parents = environments::all(it)?.into_iter().filter_map(|it| Some((it.name, it.parent?))).collect();
            Ok(VariableRecords { variables: sealed::all(it)?, parents, master_key_id: sealed::master_key_id(it)? })
        })
    }

    /// Returns the variables of one place.
    pub fn variables_of(&self, place: &VariablePlace) -> Result<Vec<Variable>, StoreError> {
        self.read(|it| sealed::of(it, place))
    }

    /// Changes the variables of a place. Besides database errors: [`StoreError::IsSecret`],
    /// [`StoreError::VariableNotFound`], [`StoreError::GenerationNotFound`], [`StoreError::TooManyVariables`],
    /// [`StoreError::EnvironmentNotFound`], [`StoreError::FunctionNotFound`], [`StoreError::Guarded`],
    /// [`StoreError::EmptySecret`], [`StoreError::Secret`].
    pub fn change_variables(&self, change: &VariableChange<'_>) -> Result<VariableOutcome, StoreError> {
        let outcome = self.write(|it| apply(it, change))?;
        if outcome.purge {
            self.purge()?;
        }
        Ok(outcome)
    }

    /// Seals all data keys with another master key, all or none. Returns their number.
    pub fn rewrap_secrets(
        &self,
        (from, to): (&MasterKey, &MasterKey),
        actor: &Arc<str>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let count = self.write(|it| {
            let count = sealed::rewrap(it, from, to)?;
            let detail = format!("{} to {}: {count} data keys", from.id(), to.id());
            let place = VariablePlace::default();
            let audit = audit::row(SecretAction::RotateMasterKey, (actor, now), &place, None, None);
            audit::add(it, &SecretAudit { detail: Some(detail), ..audit })?;
            crash_point("secrets.rewrapped");
            Ok(count)
        })?;
        self.purge()?;
        Ok(count)
    }

    /// Returns the kept generations of a secret, the latest first.
    pub fn secret_generations(
        &self,
        place: &VariablePlace,
        key: &VariableKey,
    ) -> Result<Vec<GenerationRecord>, StoreError> {
        self.read(|it| {
            let not_found = || StoreError::VariableNotFound(vec![key.clone()]);
            let row = find(it, place, key)?.ok_or_else(not_found)?;
            sealed::generations(it, row.id, row.generation)
        })
    }

    /// Erases deleted values from the write-ahead log too. A reader on another connection, such as a backup, may delay
    /// that until the next checkpoint.
    fn purge(&self) -> Result<(), StoreError> {
        let connection = self.connection.lock();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

/// Deletes the variables of a deleted function.
pub(super) fn delete_all(
    connection: &Connection,
    function: FunctionId,
    by: (&Arc<str>, Timestamp),
) -> Result<(), StoreError> {
    for variable in sealed::of_function(connection, function)? {
        let VariableValue::Secret(Sealed { generation, .. }) = variable.value else { continue };
        let (place, key) = (&variable.place, Some(&variable.key));
        let audit = audit::row(SecretAction::Delete, by, place, key, Some(generation));
        audit::add(connection, &SecretAudit { detail: Some("the function was deleted".into()), ..audit })?;
    }
    connection.prepare_cached("DELETE FROM variables WHERE IFNULL(function_id, '') = ?1")?.execute([Text(function)])?;
    Ok(())
}

/// Existing variable, as far as a change needs to know it.
struct Found {
    id: i64,
    value: Option<String>,
    generation: Option<u32>,
}

fn apply(it: &Connection, change: &VariableChange<'_>) -> Result<VariableOutcome, StoreError> {
    if let Some(function) = change.place.function {
        functions::one(it, function)?;
    }
    if let Some(environment) = &change.place.environment {
        exists(it, environment)?;
    }
    if let Some(guarded) = environment::guarded(&environments::links(it)?, change.place.environment.as_ref())
        && !change.is_admin
    {
        return Err(StoreError::Guarded(guarded.clone()));
    }
    let mut outcome = VariableOutcome::default();
    let (mut missing, mut plain, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    for key in change.delete {
        match find(it, change.place, key)? {
            None => missing.push(key.clone()),
            Some(found) => {
                it.prepare_cached("DELETE FROM variables WHERE id = ?1")?.execute([found.id])?;
                if found.generation.is_some() {
                    audit_of_change(it, change, SecretAction::Delete, key, found.generation)?;
                }
                outcome.purge = true;
                outcome.deleted.push(key.clone());
            }
        }
    }
    if !missing.is_empty() {
        return Err(StoreError::VariableNotFound(missing));
    }
    for (key, value) in change.set {
        let found = find(it, change.place, key)?;
        let is_secret = found.as_ref().is_some_and(|it| it.generation.is_some());
        match value {
            NewValue::Plain(_) if is_secret => plain.push(key.clone()),
            NewValue::Kept(text) if is_secret && text.is_empty() => empty.push(key.clone()),
            NewValue::Kept(text) if is_secret => put_secret(it, change, key, found, text, &mut outcome)?,
            NewValue::Kept(text) | NewValue::Plain(text) => put_plain(it, change, key, found, text, &mut outcome)?,
            NewValue::Secret(text) => put_secret(it, change, key, found, text, &mut outcome)?,
            NewValue::Generation(generation) => {
                let text = former(it, change, key, found.as_ref(), *generation)?;
                put_secret(it, change, key, found, &text, &mut outcome)?;
            }
        }
    }
    if !plain.is_empty() {
        return Err(StoreError::IsSecret(plain));
    }
    if !empty.is_empty() {
        return Err(StoreError::EmptySecret(empty));
    }
    check_limits(it, change)?;
    audit::trim(it, change.audit_rows_max)?;
    Ok(outcome)
}

fn exists(it: &Connection, environment: &EnvironmentName) -> Result<(), StoreError> {
    match it.prepare_cached("SELECT 1 FROM environments WHERE name = ?1")?.exists([Text(environment)])? {
        true => Ok(()),
        false => Err(StoreError::EnvironmentNotFound(environment.clone())),
    }
}

fn check_limits(it: &Connection, change: &VariableChange<'_>) -> Result<(), StoreError> {
    let sql = "SELECT count(*), IFNULL(sum(length(CAST(v.key AS BLOB)) + \
         IFNULL(length(CAST(v.value AS BLOB)), length(g.value))), 0) FROM variables v \
         LEFT JOIN secret_generations g ON g.variable_id = v.id AND g.generation = v.generation \
         WHERE IFNULL(v.function_id, '') = ?1 AND IFNULL(v.environment, '') = ?2";
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    let (function, environment) = sealed::indexed(change.place);
    let (found, bytes) = it.prepare_cached(sql)?.query_row([&function, environment], read)?;
    let (found, bytes) = (found as usize, bytes as usize);
    let (max, bytes_max) = (change.variables_max, change.bytes_max);
    // A change that only deletes is always allowed, even over the limits.
    if !change.set.is_empty() && (found > max || bytes > bytes_max) {
        return Err(StoreError::TooManyVariables { found, bytes, max, bytes_max });
    }
    Ok(())
}

fn find(it: &Connection, place: &VariablePlace, key: &VariableKey) -> Result<Option<Found>, StoreError> {
    let sql = "SELECT id, value, generation FROM variables \
         WHERE IFNULL(function_id, '') = ?1 AND IFNULL(environment, '') = ?2 AND key = ?3";
    let read = |row: &Row<'_>| Ok(Found { id: row.get(0)?, value: row.get(1)?, generation: row.get(2)? });
    let (function, environment) = sealed::indexed(place);
    Ok(it.prepare_cached(sql)?.query_row(params![function, environment, Text(key)], read).optional()?)
}

fn next_revision(it: &Connection) -> Result<i64, StoreError> {
    let sql = "UPDATE secret_state SET revision = revision + 1 RETURNING revision";
    Ok(it.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

fn put_plain(
    it: &Connection,
    change: &VariableChange<'_>,
    key: &VariableKey,
    found: Option<Found>,
    text: &SecretText,
    outcome: &mut VariableOutcome,
) -> Result<(), StoreError> {
    match &found {
        Some(Found { value: Some(value), .. }) if value == text.expose() => {
            outcome.unchanged.push(key.clone());
            return Ok(());
        }
        Some(_) => outcome.changed.push(key.clone()),
        None => outcome.created.push(key.clone()),
    }
    put(it, change, key, found.map(|it| it.id), Some(text.expose()), None)?;
    Ok(())
}

/// Writes the row of a variable; returns its id and the number of the change.
fn put(
    it: &Connection,
    change: &VariableChange<'_>,
    key: &VariableKey,
    id: Option<i64>,
    value: Option<&str>,
    generation: Option<u32>,
) -> Result<(i64, i64), StoreError> {
    let revision = next_revision(it)?;
    let (actor, now) = (&*change.actor, Millis(change.now));
    if let Some(id) = id {
        let sql = "UPDATE variables SET value = ?2, generation = ?3, revision = ?4, actor = ?5, updated_at = ?6 WHERE id = ?1";
        it.prepare_cached(sql)?.execute(params![id, value, generation, revision, actor, now])?;
        return Ok((id, revision));
    }
    let mut statement = it.prepare_cached(
        "INSERT INTO variables (function_id, environment, key, value, generation, revision, actor, created_at, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
    )?;
    let (function, environment) = (change.place.function.map(Text), change.place.environment.as_ref().map(Text));
    let id = statement.insert(params![function, environment, Text(key), value, generation, revision, actor, now])?;
    Ok((id, revision))
}

fn put_secret(
    it: &Connection,
    change: &VariableChange<'_>,
    key: &VariableKey,
    found: Option<Found>,
    text: &SecretText,
    outcome: &mut VariableOutcome,
) -> Result<(), StoreError> {
    let no_key = || crate::secrets::SecretError::NoKey { from: "the daemon".into() };
    let master = change.master.ok_or_else(no_key)?;
    sealed::keep_master_key_id(it, master)?;
    let before = found.as_ref().and_then(|it| it.generation);
    let generation = before.unwrap_or(0) + 1;
    match &found {
        Some(_) => outcome.changed.push(key.clone()),
        None => outcome.created.push(key.clone()),
    }
    outcome.purge |= found.is_some();
    let (id, sealed_at) = put(it, change, key, found.map(|it| it.id), None, Some(generation))?;
    let sealed = seal::seal(master, change.place, key, (generation, sealed_at), text)?;
    let mut statement = it.prepare_cached(
        "INSERT INTO secret_generations (variable_id, generation, sealed_at, value, wrapped_key, actor, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let now = Millis(change.now);
    statement.execute(params![id, generation, sealed_at, sealed.value, sealed.wrapped_key, &*change.actor, now])?;
    let oldest = generation.saturating_sub(change.generations_kept.max(1));
    let sql = "DELETE FROM secret_generations WHERE variable_id = ?1 AND generation <= ?2";
    it.prepare_cached(sql)?.execute(params![id, oldest])?;
    let action = if before.is_some() { SecretAction::Rotate } else { SecretAction::Set };
    audit_of_change(it, change, action, key, Some(generation))
}

/// Opens a kept generation of a secret.
fn former(
    it: &Connection,
    change: &VariableChange<'_>,
    key: &VariableKey,
    found: Option<&Found>,
    generation: u32,
) -> Result<SecretText, StoreError> {
    let not_found = || StoreError::GenerationNotFound(key.clone(), generation);
    let (found, master) = (found.ok_or_else(not_found)?, change.master);
    let sealed = sealed::one(it, found.id, generation)?.ok_or_else(not_found)?;
    let no_key = || crate::secrets::SecretError::NoKey { from: "the daemon".into() };
    Ok(seal::open(master.ok_or_else(no_key)?, change.place, key, &sealed)?)
}

fn audit_of_change(
    it: &Connection,
    change: &VariableChange<'_>,
    action: SecretAction,
    key: &VariableKey,
    generation: Option<u32>,
) -> Result<(), StoreError> {
    audit::add(it, &audit::row(action, (&change.actor, change.now), change.place, Some(key), generation))
}
