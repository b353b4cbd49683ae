//! The table `aliases`. `ROLLBACK` has no row: it points where `LIVE` pointed before.

use super::value::{Columns, Json, Millis, Text};
use super::{Store, StoreError, deployments, functions, rollouts, versions};
use crate::model::{
    AliasName, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, EnvironmentName, FunctionId, Percent,
    Policy, Rollout, Split, Sticky, Timestamp, VersionId,
};
use rusqlite::{Connection, Row, params};
use std::time::Duration;

/// An alias and its targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasRecord {
    /// Name of the alias.
    pub name: AliasName,
    /// Environment it runs in.
    pub environment: EnvironmentName,
    /// Version it points at.
    pub version_id: VersionId,
    /// Second version, which gets a share of the calls.
    pub split: Option<Split>,
    /// Part of a request that keeps its caller on one of the two versions.
    pub sticky: Option<Sticky>,
    /// Limits that trigger an automatic rollback.
    pub policy: Option<Policy>,
    /// Time of the automatic rollback, if no later deployment has moved the alias.
    pub went_back_at: Option<Timestamp>,
    /// Running or paused rollout.
    pub rollout: Option<Rollout>,
    /// Version it pointed at before; see [`super::Store::previous_target`].
    pub previous: Option<VersionId>,
    /// Purpose, as free text.
    pub description: Option<String>,
    /// Expiry time.
    pub expires_at: Option<Timestamp>,
    /// Time when it was last pointed at a version.
    pub updated_at: Timestamp,
}

/// Further changes to an alias, made together with a deployment that moves it.
#[derive(Debug, Clone, Default)]
pub struct AliasChange {
    /// Description of the alias; an empty text clears it.
    pub description: Option<String>,
    /// Part of a request that keeps its caller on one of the two versions; `Some(None)` clears it.
    pub sticky: Option<Option<Sticky>>,
    /// State after this deployment of the rollout it belongs to; a new rollout must be at its first step. If the
    /// deployment moves the alias, any other rollout of it is aborted.
    pub rollout: Option<Rollout>,
    /// Lifetime of the alias from now on: [`Duration::ZERO`] means forever, `None` leaves it unchanged.
    pub lifetime: Option<Duration>,
}

impl Store {
    /// Sets an alias's description; an empty text clears it.
    pub fn describe_alias(
        &self,
        function_id: FunctionId,
        name: &AliasName,
        description: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|it| {
            describe(it, function_id, name, description)?;
            functions::touch(it, function_id, now)
        })
    }

    /// Sets an alias's policy for automatic rollback; `None` clears it. The audit trail records the actor.
    pub fn set_policy(
        &self,
        function_id: FunctionId,
        name: &AliasName,
        policy: Option<&Policy>,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|it| {
            let sql = "UPDATE aliases SET policy = ?3 WHERE function_id = ?1 AND name = ?2";
            let changed = it.prepare_cached(sql)?.execute(params![Text(function_id), Text(name), policy.map(Json)])?;
            if changed != 1 {
                return Err(StoreError::AliasNotFound(name.clone()));
            }
            let (row, version_id) = policy_changed(it, function_id, name, policy, (actor, now))?;
            deployments::insert(it, &row, Some(version_id))?;
            functions::touch(it, function_id, now)
        })
    }

    /// Sets an alias to expire after `lifetime` from `now`; [`Duration::ZERO`] means never.
    pub fn renew_alias(
        &self,
        function_id: FunctionId,
        name: &AliasName,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|it| {
            renew(it, function_id, name, lifetime, now)?;
            functions::touch(it, function_id, now)
        })
    }

    /// Returns the expiring aliases and their expiry times, the earliest first. Aliases in protected environments are
    /// left out because they cannot be deleted there.
    pub fn expiring(&self) -> Result<Vec<(FunctionId, AliasName, Timestamp)>, StoreError> {
        self.read(|it| {
            let sql = "SELECT function_id, aliases.name AS name, expires_at FROM aliases \
                 JOIN environments ON environments.name = environment \
                 WHERE expires_at IS NOT NULL AND NOT protected ORDER BY expires_at";
            let read = |row: &Row<'_>| {
                let columns = Columns { table: "aliases", row };
                Ok((columns.text("function_id")?, columns.text("name")?, columns.time("expires_at")?))
            };
            it.prepare_cached(sql)?.query_and_then([], read)?.collect()
        })
    }
}

/// Returns the aliases of a function, by name.
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

/// Points the deployment's alias at a version, in the deployment's environment, and creates the alias if it is missing.
/// The version gets all calls: a second version loses its share.
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

/// Gives a version a share of the alias's calls, replacing any second version. Returns whether this changes where calls
/// go.
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

/// Sets the part of a request that keeps its caller on one of the alias's two versions; `None` clears it.
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

/// Sets the alias's description; an empty text clears it.
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

/// Sets the alias to expire after `lifetime` from `now`; [`Duration::ZERO`] means never.
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

/// Returns the audit row for a changed or removed policy, and the version the alias points at.
pub(super) fn policy_changed(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    policy: Option<&Policy>,
    (actor, at): (&str, Timestamp),
) -> Result<(Deployment, VersionId), StoreError> {
    let reason = policy.map_or_else(|| "policy removed".to_owned(), |it| it.to_string());
    row(connection, function_id, name, (actor, Some(&reason), at))
}

/// Returns an audit row for a policy change of an alias in its current state.
pub(super) fn row(
    connection: &Connection,
    function_id: FunctionId,
    name: &AliasName,
    (actor, reason, at): (&str, Option<&String>, Timestamp),
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
        actor: actor.to_owned(),
        reason: reason.cloned(),
        build_log: None,
        created_at: at,
        finished_at: at,
        decision: None,
    };
    Ok((row, version.id))
}

pub(super) fn delete_all(connection: &Connection, function_id: FunctionId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM aliases WHERE function_id = ?1")?.execute([Text(function_id)])?;
    Ok(())
}

/// Deletes an alias. `LIVE` and `ROLLBACK` cannot be deleted.
pub(super) fn delete(connection: &Connection, function_id: FunctionId, name: &AliasName) -> Result<(), StoreError> {
    if name.is_live() || name.is_rollback() {
        return Err(StoreError::AliasFixed(name.clone()));
    }
    let sql = "DELETE FROM aliases WHERE function_id = ?1 AND name = ?2";
    let deleted = connection.prepare_cached(sql)?.execute(params![Text(function_id), Text(name)])?;
    if deleted == 1 { Ok(()) } else { Err(StoreError::AliasNotFound(name.clone())) }
}
