//! The tables `secret_generations` and `secret_state`, and reading variables together with their sealed values.

use super::value::{Columns, Text};
use super::{StoreError, audit};
use crate::model::{
    EnvironmentName, FunctionId, Sealed, SecretAction, SecretAudit, Timestamp, Variable, VariableKey, VariablePlace,
    VariableValue,
};
use crate::secrets::{KeyId, MasterKey, SecretError, seal};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A generation of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRecord {
    /// Number, from 1.
    pub generation: u32,
    /// Whether this is the current generation.
    pub is_current: bool,
    /// Actor who set it.
    pub actor: String,
    /// Time when it was set.
    pub created_at: Timestamp,
}

pub(super) fn one(it: &Connection, id: i64, generation: u32) -> Result<Option<Sealed>, StoreError> {
    let sql = "SELECT sealed_at, value, wrapped_key FROM secret_generations WHERE variable_id = ?1 AND generation = ?2";
    let read =
        |row: &Row<'_>| Ok(Sealed { generation, sealed_at: row.get(0)?, value: row.get(1)?, wrapped_key: row.get(2)? });
    Ok(it.prepare_cached(sql)?.query_row(params![id, generation], read).optional()?)
}

pub(super) fn generations(it: &Connection, id: i64, current: Option<u32>) -> Result<Vec<GenerationRecord>, StoreError> {
    let sql =
        "SELECT generation, actor, created_at FROM secret_generations WHERE variable_id = ?1 ORDER BY generation DESC";
    let read = |row: &Row<'_>| {
        let columns = Columns { table: "secret_generations", row };
        let generation = columns.plain("generation")?;
        Ok(GenerationRecord {
            generation,
            is_current: current == Some(generation),
            actor: columns.plain("actor")?,
            created_at: columns.time("created_at")?,
        })
    };
    it.prepare_cached(sql)?.query_and_then([id], read)?.collect()
}

/// Returns the id of the key that secrets are sealed with, if there are any secrets.
pub(super) fn master_key_id(it: &Connection) -> Result<Option<KeyId>, StoreError> {
    let sql = "SELECT CASE WHEN EXISTS (SELECT 1 FROM secret_generations) THEN master_key_id END FROM secret_state";
    Ok(it.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<Text<KeyId>>>(0))?.map(|it| it.0))
}

/// Records the key that secrets are sealed with, once. Another key would leave earlier secrets unreadable.
pub(super) fn keep_master_key_id(it: &Connection, master: &MasterKey) -> Result<(), StoreError> {
    match master_key_id(it)? {
        Some(wanted) if wanted != *master.id() => {
            let found = master.id().clone();
            Err(SecretError::WrongKey { from: "the daemon".into(), found, wanted }.into())
        }
        Some(_) => Ok(()),
        None => set_master_key_id(it, master),
    }
}

fn set_master_key_id(it: &Connection, master: &MasterKey) -> Result<(), StoreError> {
    it.prepare_cached("UPDATE secret_state SET master_key_id = ?1")?.execute([Text(master.id())])?;
    Ok(())
}

/// Seals every data key with another master key. An earlier generation that does not open is lost anyway: it is deleted
/// and the loss recorded, so that it cannot block the change. If a current generation does not open, its secret must be
/// set again first.
pub(super) fn rewrap(it: &Connection, from: &MasterKey, to: &MasterKey) -> Result<usize, StoreError> {
    let sql = "SELECT v.id, v.function_id, v.environment, v.key, v.generation IS g.generation AS is_current, \
         g.generation, g.sealed_at, g.value, g.wrapped_key \
         FROM secret_generations g JOIN variables v ON v.id = g.variable_id";
    let read = |row: &Row<'_>| {
        let columns = Columns { table: "secret_generations", row };
        let (id, is_current) = (columns.plain::<i64>("id")?, columns.plain::<bool>("is_current")?);
        Ok::<_, StoreError>((id, is_current, place(&columns)?, columns.text("key")?, read_sealed(&columns)?))
    };
    let rows: Vec<_> = it.prepare_cached(sql)?.query_and_then([], read)?.collect::<Result<_, _>>()?;
    let mut update =
        it.prepare_cached("UPDATE secret_generations SET wrapped_key = ?3 WHERE variable_id = ?1 AND generation = ?2")?;
    let mut count = 0;
    for (id, is_current, place, key, sealed) in &rows {
        match seal::rewrap((from, to), place, key, sealed) {
            Ok(wrapped) => count += update.execute(params![id, sealed.generation, wrapped])?,
            Err(error @ SecretError::Damaged { .. }) if !is_current => {
                tracing::warn!("{error}; it was an earlier generation and was removed");
                let sql = "DELETE FROM secret_generations WHERE variable_id = ?1 AND generation = ?2";
                it.prepare_cached(sql)?.execute(params![id, sealed.generation])?;
                audit::add(it, &removed(place, key, sealed.generation))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    set_master_key_id(it, to)?;
    Ok(count)
}

fn removed(place: &VariablePlace, key: &VariableKey, generation: u32) -> SecretAudit {
    let now = Timestamp::now();
    SecretAudit {
        at: now,
        action: SecretAction::RotateMasterKey,
        actor: "daemon".into(),
        function: place.function,
        environment: place.environment.clone(),
        key: Some(key.clone()),
        generation: Some(generation),
        detail: Some("this earlier generation was damaged and was removed".into()),
        count: 1,
        last_at: now,
    }
}

fn place(columns: &Columns<'_>) -> Result<VariablePlace, StoreError> {
    Ok(VariablePlace {
        function: columns.text_or_null("function_id")?,
        environment: columns.text_or_null("environment")?,
    })
}

/// A missing row yields values that do not open, so only operations that need the secret fail, with a reason.
fn read_sealed(columns: &Columns<'_>) -> Result<Sealed, StoreError> {
    Ok(Sealed {
        generation: columns.plain("generation")?,
        sealed_at: columns.plain::<Option<_>>("sealed_at")?.unwrap_or_default(),
        value: columns.plain::<Option<_>>("value")?.unwrap_or_default(),
        wrapped_key: columns.plain::<Option<_>>("wrapped_key")?.unwrap_or_default(),
    })
}

/// Columns of a variable, with those of the current generation of a secret.
const VARIABLES: &str = "SELECT v.key, v.function_id, v.environment, v.value AS plain, v.revision, v.actor, \
     v.created_at, v.updated_at, v.generation AS generation, g.sealed_at, g.value, g.wrapped_key FROM variables v \
     LEFT JOIN secret_generations g ON g.variable_id = v.id AND g.generation = v.generation";

pub(super) fn all(it: &Connection) -> Result<Vec<Variable>, StoreError> {
    it.prepare_cached(VARIABLES)?.query_and_then([], variable)?.collect()
}

/// A place in the form of the index of variables, where an empty text stands for all functions or environments.
pub(super) fn indexed(place: &VariablePlace) -> (String, &str) {
    let function = place.function.map(|it| it.to_string()).unwrap_or_default();
    (function, place.environment.as_ref().map_or("", EnvironmentName::as_str))
}

/// Returns the variables of one place.
pub(super) fn of(it: &Connection, place: &VariablePlace) -> Result<Vec<Variable>, StoreError> {
    let sql = format!("{VARIABLES} WHERE IFNULL(v.function_id, '') = ?1 AND IFNULL(v.environment, '') = ?2");
    let (function, environment) = indexed(place);
    it.prepare_cached(&sql)?.query_and_then([&function, environment], variable)?.collect()
}

/// Returns the variables of one function in all environments.
pub(super) fn of_function(it: &Connection, function: FunctionId) -> Result<Vec<Variable>, StoreError> {
    let sql = format!("{VARIABLES} WHERE IFNULL(v.function_id, '') = ?1");
    it.prepare_cached(&sql)?.query_and_then([Text(function)], variable)?.collect()
}

fn variable(row: &Row<'_>) -> Result<Variable, StoreError> {
    let columns = Columns { table: "variables", row };
    let value = match columns.plain::<Option<String>>("plain")? {
        Some(text) => VariableValue::Plain(text),
        None => VariableValue::Secret(read_sealed(&columns)?),
    };
    Ok(Variable {
        place: place(&columns)?,
        key: columns.text("key")?,
        value,
        revision: columns.plain("revision")?,
        actor: columns.plain::<String>("actor")?.into(),
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
    })
}
