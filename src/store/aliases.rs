//! The table `aliases`, and `ROLLBACK`, which is no row: it points where `LIVE` pointed before.

use super::value::{Columns, Json, Millis, Text};
use super::{Removal, StoreError, deployments, rollouts, versions};
use crate::model::{
    AliasName, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, EnvironmentName, FunctionId, Percent,
    Policy, Rollout, Split, Sticky, Timestamp, VersionId,
};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::time::Duration;

/// Where an alias points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasRecord {
    /// Its name.
    pub name: AliasName,
    /// The environment it runs in.
    pub environment: EnvironmentName,
    /// The version it points at.
    pub version_id: VersionId,
    /// The second version, which has a share of its calls.
    pub split: Option<Split>,
    /// What keeps a caller with one of the two.
    pub sticky: Option<Sticky>,
    /// By what it goes back by itself.
    pub policy: Option<Policy>,
    /// When it did so, if nobody has moved it since.
    pub went_back_at: Option<Timestamp>,
    /// The rollout that goes on.
    pub rollout: Option<Rollout>,
    /// The version it pointed at before; see [`super::Store::previous_target`].
    pub previous: Option<VersionId>,
    /// What it is for.
    pub description: Option<String>,
    /// When it goes by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last pointed at a version.
    pub updated_at: Timestamp,
}

/// The aliases of a function, by name.
pub(super) fn all(connection: &Connection, function_id: FunctionId) -> Result<Vec<AliasRecord>, StoreError> {
    let sql = "SELECT name, environment, version_id, second_version_id, second_weight, sticky, policy, description, \
         expires_at, updated_at FROM aliases WHERE function_id = ?1";
    let read = |row: &Row<'_>| -> Result<AliasRecord, StoreError> {
        let columns = Columns { table: "aliases", row };
        let name = columns.text("name")?;
        let policy = columns.json_or_null("policy")?;
        let went_back_at = match policy {
            Some(_) => deployments::went_back_at(connection, function_id, &name)?,
            None => None,
        };
        Ok(AliasRecord {
            policy,
            went_back_at,
            rollout: rollouts::going_on(connection, function_id, &name)?,
            environment: columns.text("environment")?,
            version_id: columns.text("version_id")?,
            split: split(&columns)?,
            sticky: columns.text_or_null("sticky")?,
            previous: deployments::previous_target(connection, function_id, &name)?,
            description: columns.plain("description")?,
            expires_at: columns.plain::<Option<i64>>("expires_at")?.map(Timestamp::from_millis),
            updated_at: columns.time("updated_at")?,
            name,
        })
    };
    let mut statement = connection.prepare_cached(sql)?;
    let aliases: Result<Vec<_>, StoreError> = statement.query_and_then([Text(function_id)], read)?.collect();
    let mut aliases = aliases?;
    aliases.extend(aliases.iter().find(|it| it.name.is_live()).and_then(rollback));
    aliases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(aliases)
}

fn split(columns: &Columns<'_>) -> Result<Option<Split>, StoreError> {
    let weight = columns.number_or_null::<Percent>("second_weight")?;
    let version_id = columns.text_or_null("second_version_id")?;
    Ok(version_id.zip(weight).map(|(version_id, weight)| Split { version_id, weight }))
}

fn rollback(live: &AliasRecord) -> Option<AliasRecord> {
    let (name, version_id) = (AliasName::rollback(), live.previous?);
    Some(AliasRecord {
        name,
        environment: live.environment.clone(),
        version_id,
        split: None,
        sticky: None,
        policy: None,
        went_back_at: None,
        rollout: None,
        previous: None,
        description: None,
        expires_at: None,
        updated_at: live.updated_at,
    })
}

/// Where an alias runs, if there is one of this name.
pub(super) fn environment(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
) -> Result<Option<EnvironmentName>, StoreError> {
    let sql = "SELECT environment FROM aliases WHERE function_id = ?1 AND name = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![Text(function_id), Text(name)], |row| row.get::<_, Text<_>>(0));
    Ok(found.optional()?.map(|it| it.0))
}

/// Points the deployment's alias at a version, in the deployment's environment; makes the alias if there is none. The
/// version gets all calls: there is no second one afterwards.
pub(super) fn point(connection: &Connection, deployment: &Deployment, version_id: VersionId) -> Result<(), StoreError> {
    if deployment.alias.is_rollback() {
        return Err(StoreError::AliasFixed(deployment.alias.clone()));
    }
    let mut environment = connection.prepare_cached("SELECT 1 FROM environments WHERE name = ?1")?;
    if !environment.exists([Text(&deployment.environment)])? {
        return Err(StoreError::EnvironmentNotFound(deployment.environment.clone()));
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO aliases (function_id, name, environment, version_id, updated_at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO UPDATE SET environment = ?3, version_id = ?4, updated_at = ?5, \
             second_version_id = NULL, second_weight = NULL",
    )?;
    statement.execute(params![
        Text(deployment.function_id),
        Text(&deployment.alias),
        Text(&deployment.environment),
        Text(version_id),
        Millis(deployment.finished_at),
    ])?;
    Ok(())
}

/// Gives a second version a share of the alias's calls, in place of the second version there was. Says whether that
/// changes who gets calls.
pub(super) fn share(
    connection: &Connection,
    deployment: &Deployment,
    version_id: VersionId,
    weight: Percent,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM aliases \
         WHERE function_id = ?1 AND name = ?2 AND second_version_id = ?3 AND second_weight = ?4";
    let (function_id, name) = (Text(deployment.function_id), Text(&deployment.alias));
    let is_so =
        connection.prepare_cached(sql)?.exists(params![function_id, name, Text(version_id), u32::from(weight)])?;
    let mut statement = connection.prepare_cached(
        "UPDATE aliases SET second_version_id = ?3, second_weight = ?4, updated_at = ?5 \
         WHERE function_id = ?1 AND name = ?2",
    )?;
    let changed = statement.execute(params![
        Text(deployment.function_id),
        Text(&deployment.alias),
        Text(version_id),
        u32::from(weight),
        Millis(deployment.finished_at),
    ])?;
    if changed == 1 { Ok(!is_so) } else { Err(StoreError::AliasNotFound(deployment.alias.clone())) }
}

/// Says what keeps a caller with one of the alias's two versions; nothing where it is absent.
pub(super) fn stick(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    sticky: Option<&Sticky>,
) -> Result<(), StoreError> {
    let sql = "UPDATE aliases SET sticky = ?3 WHERE function_id = ?1 AND name = ?2";
    connection.prepare_cached(sql)?.execute(params![Text(function_id), Text(name), sticky.map(Text)])?;
    Ok(())
}

/// Says by what an alias goes back by itself; by nothing where it is absent.
pub(super) fn set_policy(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    policy: Option<&Policy>,
) -> Result<(), StoreError> {
    let sql = "UPDATE aliases SET policy = ?3 WHERE function_id = ?1 AND name = ?2";
    let changed = connection.prepare_cached(sql)?.execute(params![Text(function_id), Text(name), policy.map(Json)])?;
    if changed == 1 { Ok(()) } else { Err(StoreError::AliasNotFound(name.clone())) }
}

/// Says what an alias is for; an empty text says nothing.
pub(super) fn describe(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    description: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE aliases SET description = NULLIF(?3, '') WHERE function_id = ?1 AND name = ?2";
    let changed = connection.prepare_cached(sql)?.execute(params![Text(function_id), Text(name), description])?;
    if changed == 1 { Ok(()) } else { Err(StoreError::AliasNotFound(name.clone())) }
}

/// Has an alias stay so long from now on; for ever with [`Duration::ZERO`].
pub(super) fn renew(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    lifetime: Duration,
    now: Timestamp,
) -> Result<(), StoreError> {
    let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    let until = (lifetime > 0).then(|| Timestamp::from_millis(now.as_millis().saturating_add(lifetime)));
    let sql = "UPDATE aliases SET expires_at = ?3, updated_at = ?4 WHERE function_id = ?1 AND name = ?2";
    let values = params![Text(function_id), Text(name), until.map(Millis), Millis(now)];
    let changed = connection.prepare_cached(sql)?.execute(values)?;
    if changed == 1 { Ok(()) } else { Err(StoreError::AliasNotFound(name.clone())) }
}

/// The aliases outside protected environments that go by themselves, those first that go first.
pub(super) fn expiring(connection: &Connection) -> Result<Vec<(FunctionId, AliasName, Timestamp)>, StoreError> {
    let sql = "SELECT function_id, aliases.name AS name, expires_at FROM aliases \
         JOIN environments ON environments.name = environment \
         WHERE expires_at IS NOT NULL AND NOT protected ORDER BY expires_at";
    let read = |row: &Row<'_>| {
        let columns = Columns { table: "aliases", row };
        Ok((columns.text("function_id")?, columns.text("name")?, columns.time("expires_at")?))
    };
    connection.prepare_cached(sql)?.query_and_then([], read)?.collect()
}

/// The row of the audit trail that says that an alias is deleted, and the version it points at.
pub(super) fn removed(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    removal: &Removal,
) -> Result<(Deployment, VersionId), StoreError> {
    let (row, version_id) = row(connection, function_id, name, removal)?;
    let (kind, status) = (DeploymentKind::Remove, DeploymentStatus::Removed);
    Ok((Deployment { kind, status, previous: Some(row.label.clone()), ..row }, version_id))
}

/// The row that says that an alias has another policy, or none any more, and the version it points at.
pub(super) fn policy_changed(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    policy: Option<&Policy>,
    (actor, at): (&str, Timestamp),
) -> Result<(Deployment, VersionId), StoreError> {
    let reason = policy.map_or_else(|| "no policy any more".to_owned(), |it| it.to_string());
    row(connection, function_id, name, &Removal { actor: actor.to_owned(), reason: Some(reason), at })
}

/// A row about an alias as it is, whose policy has changed.
fn row(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    act: &Removal,
) -> Result<(Deployment, VersionId), StoreError> {
    let found = all(connection, function_id)?.into_iter().find(|it| it.name == *name);
    let alias = found.ok_or_else(|| StoreError::AliasNotFound(name.clone()))?;
    let version = versions::one(connection, function_id, alias.version_id)?;
    let row = Deployment {
        id: DeploymentId::new(),
        function_id,
        label: version.label,
        number: Some(version.number),
        alias: alias.name,
        environment: alias.environment,
        kind: DeploymentKind::Policy,
        status: DeploymentStatus::Changed,
        weight: None,
        previous: None,
        actor: act.actor.clone(),
        reason: act.reason.clone(),
        build_log: None,
        created_at: act.at,
        finished_at: act.at,
        decision: None,
    };
    Ok((row, version.id))
}

/// Deletes an alias. `LIVE` and `ROLLBACK` stay.
pub(super) fn delete(connection: &Connection, function_id: FunctionId, name: &AliasName) -> Result<(), StoreError> {
    if name.is_live() || name.is_rollback() {
        return Err(StoreError::AliasFixed(name.clone()));
    }
    let sql = "DELETE FROM aliases WHERE function_id = ?1 AND name = ?2";
    let deleted = connection.prepare_cached(sql)?.execute(params![Text(function_id), Text(name)])?;
    if deleted == 1 { Ok(()) } else { Err(StoreError::AliasNotFound(name.clone())) }
}

pub(super) fn delete_all(connection: &Connection, function_id: FunctionId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM aliases WHERE function_id = ?1")?.execute([Text(function_id)])?;
    Ok(())
}
