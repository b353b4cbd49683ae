//! The table `function_versions`.

use super::value::{Columns, Json, Millis, Text};
use super::{Store, StoreError, functions};
use crate::model::{FunctionId, Timestamp, Version, VersionId, VersionLabel};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{HashMap, HashSet};

const COLUMNS: &str = "id, function_id, version, number, digest, size, entry, source, git_commit, git_branch, \
     description, tags, bun_version, settings, created_at";

impl Store {
    /// Returns a function's versions, the newest number first; also those of a deleted function.
    pub fn versions(&self, function_id: FunctionId) -> Result<Vec<Version>, StoreError> {
        self.read(|it| all(it, function_id))
    }

    /// Returns the version labels of every function, deleted ones included, for comparison with the bundles on disk.
    ///
    /// A function without versions is included, with no label.
    pub fn published(&self) -> Result<HashMap<FunctionId, HashSet<VersionLabel>>, StoreError> {
        self.read(labels)
    }

    /// Replaces a version's description and tags, the only parts of a version that can change.
    pub fn describe_version(&self, version: &Version, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            one(it, version.function_id, version.id)?;
            let sql = "UPDATE function_versions SET description = ?2, tags = ?3 WHERE id = ?1";
            it.prepare_cached(sql)?.execute(params![Text(version.id), version.description, Json(&version.tags)])?;
            functions::touch(it, version.function_id, now)
        })
    }
}

fn read(row: &Row<'_>) -> Result<Version, StoreError> {
    let columns = Columns { table: "function_versions", row };
    Ok(Version {
        id: columns.text("id")?,
        function_id: columns.text("function_id")?,
        label: columns.text("version")?,
        number: columns.plain("number")?,
        digest: columns.text("digest")?,
        size: columns.plain::<i64>("size")?.unsigned_abs(),
        entry: columns.plain("entry")?,
        source: columns.text("source")?,
        git_commit: columns.plain("git_commit")?,
        git_branch: columns.plain("git_branch")?,
        description: columns.plain("description")?,
        tags: columns.json("tags")?,
        bun_version: columns.plain("bun_version")?,
        settings: columns.json("settings")?,
        created_at: columns.time("created_at")?,
    })
}

/// Returns the versions of a function, the newest number first.
pub(super) fn all(connection: &Connection, function_id: FunctionId) -> Result<Vec<Version>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM function_versions WHERE function_id = ?1 ORDER BY number DESC");
    connection.prepare_cached(&sql)?.query_and_then([Text(function_id)], read)?.collect()
}

pub(super) fn one(connection: &Connection, function_id: FunctionId, id: VersionId) -> Result<Version, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM function_versions WHERE function_id = ?1 AND id = ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query_and_then(params![Text(function_id), Text(id)], read)?;
    rows.next().unwrap_or(Err(StoreError::VersionNotFound(id)))
}

/// Returns the version with this number, unless it is missing or deleted.
pub(super) fn by_number(
    connection: &Connection,
    function_id: FunctionId,
    number: Option<u32>,
) -> Result<Option<VersionId>, StoreError> {
    let sql = "SELECT id FROM function_versions WHERE function_id = ?1 AND number = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let id = statement.query_row(params![Text(function_id), number], |row| row.get::<_, Text<VersionId>>(0));
    Ok(id.optional()?.map(|it| it.0))
}

/// Returns the labels of all functions, deleted ones included.
pub(super) fn labels(connection: &Connection) -> Result<HashMap<FunctionId, HashSet<VersionLabel>>, StoreError> {
    let mut labels: HashMap<FunctionId, HashSet<VersionLabel>> = HashMap::new();
    let sql = "SELECT functions.id AS id, version FROM functions \
         LEFT JOIN function_versions ON function_id = functions.id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let columns = Columns { table: "function_versions", row };
        labels.entry(columns.text("id")?).or_default().extend(columns.text_or_null::<VersionLabel>("version")?);
    }
    Ok(labels)
}

pub(super) fn insert(connection: &Connection, version: &Version) -> Result<(), StoreError> {
    let mut taken =
        connection.prepare_cached("SELECT 1 FROM function_versions WHERE function_id = ?1 AND version = ?2")?;
    if taken.exists(params![Text(version.function_id), Text(&version.label)])? {
        return Err(StoreError::LabelTaken(version.label.clone()));
    }
    let sql = format!(
        "INSERT INTO function_versions ({COLUMNS}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    );
    connection.prepare_cached(&sql)?.execute(params![
        Text(version.id),
        Text(version.function_id),
        Text(&version.label),
        version.number,
        Text(version.digest),
        i64::try_from(version.size).map_err(|cause| rusqlite::Error::ToSqlConversionFailure(cause.into()))?,
        version.entry,
        Text(version.source),
        version.git_commit,
        version.git_branch,
        version.description,
        Json(&version.tags),
        version.bun_version,
        Json(version.settings),
        Millis(version.created_at),
    ])?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, id: VersionId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM function_versions WHERE id = ?1")?.execute([Text(id)])?;
    Ok(())
}
