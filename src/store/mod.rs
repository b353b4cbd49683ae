//! The store: functions, versions, aliases and the audit trail of deployments, in one SQLite database.
//!
//! [`Store`] lists all operations; each submodule holds the SQL of one table. A method that writes is one transaction,
//! on disk when the method returns. All methods block, so an asynchronous caller runs them on a blocking thread
//! (`spawn_blocking`). Invocations never come here: the router serves them from [`Store::catalogue`], read at the
//! start, and [`Store::record`], read after a change.
//!
//! Invariants, most of them also constraints and triggers of the schema, so that no program can break them:
//! - A version never changes, and its number is never used again within its function.
//! - An alias points at an existing version of its own function; `ROLLBACK` points where `LIVE` pointed before.
//! - `functions.active_version_id` is the target of `LIVE`; a function is `deployed` if and only if `LIVE` has a
//!   target.
//! - An alias has at most one active deployment, the one that set its current target.
//! - The version of a running or paused rollout is the alias's second version, with the share of the current step; any
//!   other change of the alias or its shares aborts the rollout in the same transaction.
//! - A row of the audit trail stays when its version or function is deleted. Only the row of a running deployment is
//!   replaced, by its final row.
//! - A deleted function has no alias, does not change and keeps its versions.
//! - In a protected environment an alias sends calls only to versions approved for it there, and an alias that runs
//!   there cannot be moved out or deleted.
//! - The parents of environments form no cycle, and an environment in use is not deleted.
//! - Secrets are stored sealed, and their audit trail holds no values. Variables of a deleted function are gone.
//! - A token's row stays and its permissions never change; a revoked token stays revoked. Its secret is not stored.

mod aliases;
mod approval;
mod audit;
mod deployments;
mod environments;
mod error;
mod functions;
mod idempotency;
mod retention;
mod rollouts;
mod running;
mod sealed;
mod tokens;
mod value;
mod variables;
mod versions;

#[cfg(test)]
mod tests;

pub use aliases::AliasRecord;
pub use deployments::DeploymentQuery;
pub use environments::{EnvironmentChange, EnvironmentRecord};
pub use error::StoreError;
pub use idempotency::{KeptAnswer, RequestDigest};
pub use retention::{Hold, Pruned};
pub use variables::{GenerationRecord, VariableChange, VariableOutcome, VariableRecords};

use crate::crash_point::crash_point;
use crate::model::{
    AliasName, Decision, Deployment, DeploymentId, DeploymentStatus, EnvironmentName, Function, FunctionId,
    FunctionStatus, Policy, Rollout, RolloutId, Settings, Sticky, Timestamp, Version, VersionId, VersionLabel,
};
use crate::sqlite::{self, Durability};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Schema migrations; append only.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/001_functions.sql"),
    include_str!("migrations/002_recycling.sql"),
    include_str!("migrations/003_network.sql"),
    include_str!("migrations/004_alias_descriptions.sql"),
    include_str!("migrations/005_traffic.sql"),
    include_str!("migrations/006_alias_changes.sql"),
    include_str!("migrations/007_tokens.sql"),
    include_str!("migrations/008_environments.sql"),
    include_str!("migrations/009_idempotency.sql"),
    include_str!("migrations/010_variables.sql"),
    include_str!("migrations/011_policy_changes.sql"),
    include_str!("migrations/012_running_deployments.sql"),
];

/// The database of functions; see the module documentation.
#[derive(Debug)]
pub struct Store {
    /// A single connection suffices: SQLite allows one writer, and reads are rare and short.
    connection: Mutex<Connection>,
}

/// A function with its versions and aliases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRecord {
    /// The function itself.
    pub function: Function,
    /// Versions, the newest number first.
    pub versions: Vec<Version>,
    /// Aliases by name.
    pub aliases: Vec<AliasRecord>,
    /// Versions approved for the environment of `LIVE`; `None` if that environment is not protected.
    pub approved: Option<HashSet<VersionId>>,
}

/// Version of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A version published together with this deployment; its bundle is in place.
    New(&'a Version),
    /// A version published earlier.
    Existing(VersionId),
}

/// A deployment that passed its checks, ready to commit.
#[derive(Debug, Clone, Copy)]
pub struct DeploymentCommit<'a> {
    /// Version to deploy.
    pub target: Target<'a>,
    /// Row to write. `Active` points its alias at the version, `Applied` gives the version a share of the alias's
    /// calls, and any other status publishes the version and leaves the alias alone. If `Active` or `Applied` needs
    /// approval, the alias is left alone too and the row is written as `PendingApproval`.
    pub deployment: &'a Deployment,
}

/// Further changes to an alias, made together with a deployment that moves it.
#[derive(Debug, Clone, Copy, Default)]
pub struct AliasChange<'a> {
    /// Description of the alias; an empty text clears it.
    pub description: Option<&'a str>,
    /// Part of a request that keeps its caller on one of the two versions; `Some(None)` clears it.
    pub sticky: Option<Option<&'a Sticky>>,
    /// State after this deployment of the rollout it belongs to; a new rollout must be at its first step. If the
    /// deployment moves the alias, any other rollout of it is aborted.
    pub rollout: Option<&'a Rollout>,
    /// Lifetime of the alias from now on: [`Duration::ZERO`] means forever, `None` leaves it unchanged.
    pub lifetime: Option<Duration>,
}

/// Actor, reason and time of an alias's deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Actor, as the audit trail names it.
    pub actor: String,
    /// Reason given.
    pub reason: Option<String>,
    /// Time of the deletion.
    pub at: Timestamp,
}

impl Store {
    /// Opens the database at `path` and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = sqlite::open(path, Durability::Full, MIGRATIONS)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Writes a copy of the database, as of one instant, to a new file. Commits continue meanwhile.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let own = self.connection.lock().path().map(PathBuf::from);
        Ok(sqlite::copy(&own.unwrap_or_default(), path)?)
    }

    /// Adds a function; its name must be free ([`StoreError::NameTaken`]).
    pub fn insert_function(&self, function: &Function) -> Result<(), StoreError> {
        self.write(|it| functions::insert(it, function))
    }

    /// Returns the functions that are not deleted, by name.
    pub fn functions(&self) -> Result<Vec<Function>, StoreError> {
        self.read(functions::all)
    }

    /// Returns a function that is not deleted.
    pub fn function(&self, id: FunctionId) -> Result<Function, StoreError> {
        self.read(|it| functions::one(it, id))
    }

    /// Replaces a function's settings.
    pub fn update_settings(&self, id: FunctionId, settings: &Settings, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| functions::set_settings(it, id, settings, now))
    }

    /// Marks a function as deleted: its name is free again and its aliases are gone; versions and deployments stay. Its
    /// waiting deployments are rejected. [`StoreError::EnvironmentProtected`] if an alias is in a protected
    /// environment.
    pub fn delete_function(&self, id: FunctionId, actor: &Arc<str>, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            for alias in aliases::all(it, id)? {
                environments::may_leave(it, id, &alias.name, None)?;
            }
            approval::reject_all(it, id, now)?;
            functions::set_target(it, id, FunctionStatus::Deleted, None, now)?;
            aliases::delete_all(it, id)?;
            rollouts::abort(it, id, None, "the function was deleted", now)?;
            variables::delete_all(it, id, (actor, now))?;
            deployments::supersede_all(it, id)
        })
    }

    /// Returns every function that is not deleted, by name, with its versions and aliases, as of one instant.
    pub fn catalogue(&self) -> Result<Vec<FunctionRecord>, StoreError> {
        self.read(|it| functions::all(it)?.into_iter().map(|function| complete(it, function)).collect())
    }

    /// Returns the entry of [`Self::catalogue`] for one function.
    pub fn record(&self, id: FunctionId) -> Result<FunctionRecord, StoreError> {
        self.read(|it| complete(it, functions::one(it, id)?))
    }

    /// Returns a function's versions, the newest number first; also those of a deleted function.
    pub fn versions(&self, function_id: FunctionId) -> Result<Vec<Version>, StoreError> {
        self.read(|it| versions::all(it, function_id))
    }

    /// Returns the version labels of every function, deleted ones included, for comparison with the bundles on disk.
    ///
    /// A function without versions is included, with no label.
    pub fn published(&self) -> Result<HashMap<FunctionId, HashSet<VersionLabel>>, StoreError> {
        self.read(versions::labels)
    }

    /// Returns the number of the function's next version.
    pub fn next_number(&self, function_id: FunctionId) -> Result<u32, StoreError> {
        self.read(|it| functions::next_number(it, function_id))
    }

    /// Publishes the version if it is new, points the alias at it if the deployment is active, and records the
    /// deployment, in one transaction.
    ///
    /// Errors that a caller can handle: [`StoreError::FunctionNotFound`] (it may have been deleted meanwhile),
    /// [`StoreError::VersionNotFound`], [`StoreError::LabelTaken`], [`StoreError::NumberTaken`] (ask
    /// [`Self::next_number`] again), [`StoreError::EnvironmentNotFound`], [`StoreError::EnvironmentProtected`] and
    /// [`StoreError::AliasFixed`] for `ROLLBACK`. Returns the status that was written.
    pub fn commit_deployment(&self, commit: &DeploymentCommit<'_>) -> Result<DeploymentStatus, StoreError> {
        self.commit_with(commit, &AliasChange::default())
    }

    /// Does what [`Self::commit_deployment`] does and makes further changes to the alias, at once or on approval.
    pub fn commit_with(
        &self,
        commit: &DeploymentCommit<'_>,
        change: &AliasChange<'_>,
    ) -> Result<DeploymentStatus, StoreError> {
        self.commit_keeping(commit, change, None)
    }

    /// Commits several deployments in order, all or none. Fails with [`StoreError::ApprovalRequired`] if one would have
    /// to wait.
    pub fn commit_all(&self, commits: &[(DeploymentCommit<'_>, AliasChange<'_>)]) -> Result<(), StoreError> {
        self.write(|it| commits.iter().try_for_each(|(commit, change)| apply_now(it, commit, change)))
    }

    /// Returns the last deployments of all functions that took effect or published something, the latest first.
    pub fn last_deployments(&self, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        self.read(|it| deployments::last(it, limit))
    }

    /// Whether a deployment of this version, or of a new one if absent, would have to wait for approval.
    pub fn needs_approval(&self, deployment: &Deployment, version: Option<VersionId>) -> Result<bool, StoreError> {
        self.read(|it| approval::is_needed(it, deployment, version))
    }

    /// Lets a waiting deployment take effect as the latest of its alias. `previous` is the version that has the alias's
    /// calls so far. Further errors besides those of [`Self::commit_deployment`]: [`StoreError::DeploymentNotFound`]
    /// and [`StoreError::NotPending`].
    pub fn approve(
        &self,
        id: DeploymentId,
        decision: &Decision,
        previous: Option<&VersionLabel>,
    ) -> Result<Deployment, StoreError> {
        self.write(|it| approval::approve(it, id, decision, previous))
    }

    /// Rejects a waiting deployment: its version stays published, and its alias stays where it is.
    pub fn reject(&self, id: DeploymentId, decision: &Decision) -> Result<Deployment, StoreError> {
        self.write(|it| approval::reject(it, id, decision))
    }

    /// Rejects all deployments that began to wait at `until` or before.
    pub fn expire(&self, until: Timestamp, decision: &Decision) -> Result<Vec<Deployment>, StoreError> {
        self.write(|it| approval::expire(it, until, decision))
    }

    /// Returns the deployments that wait for approval, the latest first.
    pub fn waiting(&self) -> Result<Vec<Deployment>, StoreError> {
        self.read(deployments::waiting)
    }

    /// Returns one deployment.
    pub fn deployment(&self, id: DeploymentId) -> Result<Deployment, StoreError> {
        self.read(|it| Ok(deployments::one(it, id)?.0))
    }

    /// Sets an alias's description; an empty text clears it.
    pub fn describe_alias(
        &self,
        function_id: FunctionId,
        name: &AliasName,
        description: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|it| {
            aliases::describe(it, function_id, name, description)?;
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
            aliases::set_policy(it, function_id, name, policy)?;
            let (row, version_id) = aliases::policy_changed(it, function_id, name, policy, (actor, now))?;
            deployments::insert(it, &row, Some(version_id))?;
            functions::touch(it, function_id, now)
        })
    }

    /// Updates a running or paused rollout without a deployment ([`StoreError::RolloutOver`] if it has ended).
    pub fn update_rollout(&self, rollout: &Rollout) -> Result<(), StoreError> {
        self.write(|it| rollouts::update(it, rollout))
    }

    /// Returns a function's rollouts, the latest first, optionally only those `before` the given one; also those of a
    /// deleted function.
    pub fn rollouts(
        &self,
        function_id: FunctionId,
        alias: Option<&AliasName>,
        before: Option<RolloutId>,
        limit: u32,
    ) -> Result<Vec<Rollout>, StoreError> {
        self.read(|it| rollouts::page(it, function_id, alias, before, limit))
    }

    /// Deletes an alias other than `LIVE` and `ROLLBACK` ([`StoreError::AliasFixed`]). Its deployments stay, so that a
    /// new alias of this name still knows what it pointed at before. An alias in a protected environment cannot be
    /// deleted ([`StoreError::EnvironmentProtected`]).
    ///
    /// Returns the audit row that records the deletion.
    pub fn delete_alias(
        &self,
        function_id: FunctionId,
        name: &AliasName,
        removal: &Removal,
    ) -> Result<Deployment, StoreError> {
        self.write(|it| {
            functions::touch(it, function_id, removal.at)?;
            environments::may_leave(it, function_id, name, None)?;
            let (row, version_id) = aliases::removed(it, function_id, name, removal)?;
            aliases::delete(it, function_id, name)?;
            rollouts::abort(it, function_id, Some(name), "the alias was deleted", removal.at)?;
            deployments::supersede(it, function_id, name)?;
            deployments::insert(it, &row, Some(version_id))?;
            Ok(row)
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
            aliases::renew(it, function_id, name, lifetime, now)?;
            functions::touch(it, function_id, now)
        })
    }

    /// Returns the expiring aliases and their expiry times, the earliest first. Aliases in protected environments are
    /// left out because they cannot be deleted there.
    pub fn expiring(&self) -> Result<Vec<(FunctionId, AliasName, Timestamp)>, StoreError> {
        self.read(aliases::expiring)
    }

    /// Returns the environments by name.
    pub fn environments(&self) -> Result<Vec<EnvironmentRecord>, StoreError> {
        self.read(environments::all)
    }

    /// Creates an environment; [`StoreError::Environment`] names the rule it would break.
    pub fn create_environment(
        &self,
        name: &EnvironmentName,
        change: &EnvironmentChange,
        actor: &Arc<str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|it| environments::create(it, name, change, (actor, now)))
    }

    /// Changes an environment ([`StoreError::EnvironmentNotFound`], [`StoreError::Environment`]).
    pub fn change_environment(
        &self,
        name: &EnvironmentName,
        change: &EnvironmentChange,
        actor: &Arc<str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|it| environments::change(it, name, change, (actor, now)))
    }

    /// Deletes an unused environment that is not built in ([`StoreError::Environment`]).
    pub fn delete_environment(&self, name: &EnvironmentName) -> Result<(), StoreError> {
        self.write(|it| environments::delete(it, name))
    }

    /// Checks that an alias may run in this environment from now on: [`StoreError::EnvironmentProtected`] if it runs in
    /// another one that is protected.
    pub fn may_move(&self, id: FunctionId, alias: &AliasName, to: &EnvironmentName) -> Result<(), StoreError> {
        self.read(|it| environments::may_leave(it, id, alias, Some(to)))
    }

    /// Records a failed deployment; nothing else changes.
    pub fn insert_failed_deployment(&self, deployment: &Deployment) -> Result<(), StoreError> {
        self.write(|it| {
            let version_id = versions::by_number(it, deployment.function_id, deployment.number)?;
            deployments::remove_running(it, deployment.id)?;
            deployments::insert(it, deployment, version_id)
        })
    }

    /// Returns the version that an alias pointed at before its current target, if it still exists.
    ///
    /// After a rollback from v2 to v1 that is v2. Deleted versions and deployments of the current target are skipped.
    pub fn previous_target(&self, function_id: FunctionId, alias: &AliasName) -> Result<Option<VersionId>, StoreError> {
        self.read(|it| deployments::previous_target(it, function_id, alias))
    }

    /// Replaces a version's description and tags, the only parts of a version that can change.
    pub fn describe_version(&self, version: &Version, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            versions::one(it, version.function_id, version.id)?;
            versions::describe(it, version)?;
            functions::touch(it, version.function_id, now)
        })
    }

    /// Returns the target of an automatic rollback: as [`Self::previous_target`], but skipping versions that the alias
    /// has left by automatic rollback since somebody pointed it there.
    pub fn automatic_target(
        &self,
        function_id: FunctionId,
        alias: &AliasName,
    ) -> Result<Option<VersionId>, StoreError> {
        self.read(|it| deployments::automatic_target(it, function_id, alias))
    }

    /// Returns an alias's last automatic rollback.
    pub fn last_auto_rollback(&self, id: FunctionId, alias: &AliasName) -> Result<Option<Deployment>, StoreError> {
        self.read(|it| deployments::last_auto_rollback(it, id, alias))
    }

    /// Deletes a version that is not in use ([`StoreError::VersionInUse`]); its deployments stay without the link.
    /// `ROLLBACK` does not count as a use.
    ///
    /// The caller removes the bundle afterwards: a crash in between leaves a bundle without a row, which the next start
    /// removes, and never a row without its bundle.
    pub fn delete_version(&self, function_id: FunctionId, id: VersionId, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            functions::one(it, function_id)?;
            let version = versions::one(it, function_id, id)?;
            let by = retention::reasons_to_keep(it, function_id, id)?;
            if !by.is_empty() {
                return Err(StoreError::VersionInUse { label: version.label, by });
            }
            versions::delete(it, id)?;
            if versions::all(it, function_id)?.is_empty() {
                functions::set_target(it, function_id, FunctionStatus::Registered, None, now)
            } else {
                functions::touch(it, function_id, now)
            }
        })
    }

    /// Deletes all versions of a function except the `keep` newest and those in use, `ROLLBACK` included; their
    /// deployments stay without the link. A dry run returns the result and deletes nothing.
    ///
    /// The caller removes the bundles afterwards, as with [`Self::delete_version`].
    pub fn prune_versions(
        &self,
        function_id: FunctionId,
        keep: u32,
        dry_run: bool,
        now: Timestamp,
    ) -> Result<Pruned, StoreError> {
        let work = |it: &Transaction<'_>| {
            functions::one(it, function_id)?;
            let pruned = retention::prune(it, function_id, keep)?;
            if !pruned.removed.is_empty() {
                functions::touch(it, function_id, now)?;
            }
            Ok(pruned)
        };
        if dry_run { self.try_out(work) } else { self.write(work) }
    }

    /// Returns the result of [`Self::prune_versions`] as of after this deployment; neither is carried out.
    pub fn prune_after(&self, commit: &DeploymentCommit<'_>, keep: u32) -> Result<Pruned, StoreError> {
        self.try_out(|it| {
            apply(it, commit, &AliasChange::default())?;
            retention::prune(it, commit.deployment.function_id, keep)
        })
    }

    /// Returns a function's deployments, the latest first; also those of a deleted function.
    pub fn deployments(&self, function_id: FunctionId, limit: u32, offset: u32) -> Result<Vec<Deployment>, StoreError> {
        self.deployments_of(function_id, &DeploymentQuery { limit, offset, ..DeploymentQuery::default() })
    }

    /// Returns the deployments of a function that match a query.
    pub fn deployments_of(
        &self,
        function_id: FunctionId,
        query: &DeploymentQuery,
    ) -> Result<Vec<Deployment>, StoreError> {
        Ok(self.deployments_page(Some(function_id), query)?.into_iter().map(|it| it.1).collect())
    }

    /// Returns the deployments of one function, or of all that are not deleted, that match a query, each with its
    /// sequence number.
    pub fn deployments_page(
        &self,
        function_id: Option<FunctionId>,
        query: &DeploymentQuery,
    ) -> Result<Vec<(i64, Deployment)>, StoreError> {
        self.read(|it| match function_id {
            Some(id) => deployments::page(it, id, query),
            None => deployments::page_of_all(it, query),
        })
    }

    /// Reads a snapshot of the database: later changes are not seen.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        work(&transaction)
    }

    /// Runs `work` in one transaction; an error rolls everything back.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let outcome = self.write_between_steps(|it| {
            let outcome = work(it)?;
            crash_point("store.before_commit");
            Ok(outcome)
        })?;
        crash_point("store.committed");
        Ok(outcome)
    }

    /// Runs a transaction without crash points, for writes about a running deployment, so that the named steps always
    /// belong to its commit.
    fn write_between_steps<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcome = work(&transaction)?;
        transaction.commit()?;
        Ok(outcome)
    }

    /// Returns the result of [`Self::write`] and rolls everything back.
    fn try_out<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        work(&transaction)
    }
}

/// Applies one deployment within a transaction.
fn apply(
    it: &Transaction<'_>,
    commit: &DeploymentCommit<'_>,
    change: &AliasChange<'_>,
) -> Result<DeploymentStatus, StoreError> {
    let mut deployment = commit.deployment.clone();
    let function = functions::one(it, deployment.function_id)?;
    let (version_id, known) = match commit.target {
        Target::New(version) => {
            functions::take_number(it, function.id, version.number)?;
            versions::insert(it, version)?;
            (version.id, None)
        }
        Target::Existing(id) => (versions::one(it, function.id, id)?.id, Some(id)),
    };
    if deployment.status.takes_effect() {
        environments::may_leave(it, function.id, &deployment.alias, Some(&deployment.environment))?;
        if approval::is_needed(it, &deployment, known)? {
            if change.rollout.is_some() {
                return Err(StoreError::ApprovalRequired(Box::new(deployment)));
            }
            deployment.status = DeploymentStatus::PendingApproval;
        }
    }
    take_effect(it, &deployment, version_id, change)?;
    deployments::remove_running(it, deployment.id)?;
    deployments::insert(it, &deployment, Some(version_id))?;
    if deployment.status == DeploymentStatus::PendingApproval {
        approval::keep(it, deployment.id, change)?;
    }
    note(it, &function, &deployment, version_id)?;
    Ok(deployment.status)
}

/// Applies one deployment that must not wait for approval.
fn apply_now(it: &Transaction<'_>, commit: &DeploymentCommit<'_>, change: &AliasChange<'_>) -> Result<(), StoreError> {
    if apply(it, commit, change)? == commit.deployment.status {
        return Ok(());
    }
    Err(StoreError::ApprovalRequired(Box::new(commit.deployment.clone())))
}

/// Applies a deployment to its alias.
fn take_effect(
    it: &Transaction<'_>,
    deployment: &Deployment,
    version_id: VersionId,
    change: &AliasChange<'_>,
) -> Result<(), StoreError> {
    let (function_id, alias) = (deployment.function_id, &deployment.alias);
    let moves_calls = match (deployment.status, deployment.weight) {
        (DeploymentStatus::Active, _) => {
            deployments::supersede(it, function_id, alias)?;
            aliases::point(it, deployment, version_id)?;
            true
        }
        (DeploymentStatus::Applied, Some(weight)) => aliases::share(it, deployment, version_id, weight)?,
        _ => return Ok(()),
    };
    if let Some(description) = change.description {
        aliases::describe(it, function_id, alias, description)?;
    }
    if let Some(sticky) = change.sticky {
        aliases::stick(it, function_id, alias, sticky)?;
    }
    if let Some(lifetime) = change.lifetime {
        aliases::renew(it, function_id, alias, lifetime, deployment.finished_at)?;
    }
    match change.rollout {
        Some(rollout) => rollouts::put(it, rollout),
        None if moves_calls => {
            let why = rollouts::ended_by(deployment);
            rollouts::abort(it, function_id, Some(alias), &why, deployment.finished_at)
        }
        None => Ok(()),
    }
}

/// Applies a deployment to its function.
fn note(
    it: &Transaction<'_>,
    function: &Function,
    deployment: &Deployment,
    version_id: VersionId,
) -> Result<(), StoreError> {
    let now = deployment.finished_at;
    if deployment.status == DeploymentStatus::Active && deployment.alias.is_live() {
        functions::set_target(it, function.id, FunctionStatus::Deployed, Some(version_id), now)
    } else if function.status == FunctionStatus::Registered {
        functions::set_target(it, function.id, FunctionStatus::Built, None, now)
    } else {
        functions::touch(it, function.id, now)
    }
}

fn complete(connection: &Connection, function: Function) -> Result<FunctionRecord, StoreError> {
    let versions = versions::all(connection, function.id)?;
    let aliases = aliases::all(connection, function.id)?;
    let live = aliases.iter().find(|it| it.name.is_live()).map(|it| &it.environment);
    let environment = live.cloned().unwrap_or_else(EnvironmentName::production);
    let approved = environments::approved(connection, function.id, &environment)?;
    Ok(FunctionRecord { function, versions, aliases, approved })
}
