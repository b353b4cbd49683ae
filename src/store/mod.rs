//! The store: functions, versions, aliases and the audit trail of deployments, in one SQLite database.
//!
//! [`Store`] is the list of what can be asked of it; the modules below hold the SQL of one table each. A method that
//! writes is one transaction, on disk when the method returns. All methods block: an asynchronous caller gives them a
//! thread (`spawn_blocking`). Invocations never come here: the router serves them from what [`Store::catalogue`] says at
//! the start and [`Store::record`] after a change.
//!
//! Invariants, most of them also constraints and triggers of the schema, so that no program can break them:
//! - A version never changes, and its number is never used again within its function.
//! - An alias points at a version of its own function that exists; `ROLLBACK` at what `LIVE` pointed at before.
//! - `functions.active_version_id` is what `LIVE` points at, and a function is `deployed` if and only if there is one.
//! - An alias has at most one active deployment, the one that made it point where it points.
//! - A rollout that goes on has its version as the alias's second one, with the share of its present step: whatever else
//!   moves the alias or its shares aborts it in the same transaction.
//! - A row of the audit trail stays when its version or function is deleted. Only that of a deployment that runs is
//!   replaced, by the row of its end.
//! - A deleted function has no alias, does not change and keeps its versions.
//! - In a protected environment nothing takes calls of an alias that was not approved for it there, and nothing that runs
//!   there is taken out of it.
//! - Environments take variables from one another in no circle, and one that something uses is not deleted.
//! - What is a secret lies here sealed, and its audit trail names no value. Variables of a deleted function are gone.
//! - A token stays, and what it may do never changes; a revoked one stays revoked. Its secret is not here.

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

/// The schema; append only.
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

/// The database of functions; see the module.
#[derive(Debug)]
pub struct Store {
    /// One connection, because one writer is all SQLite has, and reads are rare and short.
    connection: Mutex<Connection>,
}

/// A function with everything that is about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRecord {
    /// The function.
    pub function: Function,
    /// Its versions, the newest number first.
    pub versions: Vec<Version>,
    /// Its aliases by name.
    pub aliases: Vec<AliasRecord>,
    /// The versions that were approved for the environment of `LIVE`; nothing where that is not protected.
    pub approved: Option<HashSet<VersionId>>,
}

/// Which version a deployment is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// One that is published with this deployment; its bundle is in place.
    New(&'a Version),
    /// One that is published already.
    Existing(VersionId),
}

/// A deployment that passed its checks.
#[derive(Debug, Clone, Copy)]
pub struct DeploymentCommit<'a> {
    /// Its version.
    pub target: Target<'a>,
    /// Its row. `Active` points its alias at the version, `Applied` gives the version a share of the alias's calls, and
    /// anything else publishes the version and leaves the alias alone. So do the first two where they need approval:
    /// the row is then written as `PendingApproval`.
    pub deployment: &'a Deployment,
}

/// What else changes about an alias together with a deployment that moves it.
#[derive(Debug, Clone, Copy, Default)]
pub struct AliasChange<'a> {
    /// What it is for; an empty text takes that away.
    pub description: Option<&'a str>,
    /// What keeps a caller with one of its two versions; `Some(None)` takes that away.
    pub sticky: Option<Option<&'a Sticky>>,
    /// The rollout that the deployment is an act of, as it is afterwards; one that is new must be its first step. Any
    /// other that goes on is aborted by a deployment that moves the alias.
    pub rollout: Option<&'a Rollout>,
    /// How long it stays from then on; for ever with [`Duration::ZERO`], and as it was without.
    pub lifetime: Option<Duration>,
}

/// Who deletes an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// As the audit trail names it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Opens the database at `path` and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = sqlite::open(path, Durability::Full, MIGRATIONS)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Writes a copy of the database, as it is at one instant, to a new file. Commits go on meanwhile.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let own = self.connection.lock().path().map(PathBuf::from);
        Ok(sqlite::copy(&own.unwrap_or_default(), path)?)
    }

    /// Adds a function; its name must be free ([`StoreError::NameTaken`]).
    pub fn insert_function(&self, function: &Function) -> Result<(), StoreError> {
        self.write(|it| functions::insert(it, function))
    }

    /// The functions that are not deleted, by name.
    pub fn functions(&self) -> Result<Vec<Function>, StoreError> {
        self.read(functions::all)
    }

    /// One function that is not deleted.
    pub fn function(&self, id: FunctionId) -> Result<Function, StoreError> {
        self.read(|it| functions::one(it, id))
    }

    /// Replaces a function's settings.
    pub fn update_settings(&self, id: FunctionId, settings: &Settings, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| functions::set_settings(it, id, settings, now))
    }

    /// Marks a function as deleted: its name is free again and its aliases are gone; versions and deployments stay. What
    /// waited for approval is rejected. [`StoreError::EnvironmentProtected`] if an alias is in a protected environment.
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

    /// Every function that is not deleted, by name, with its versions and aliases, as of one instant.
    pub fn catalogue(&self) -> Result<Vec<FunctionRecord>, StoreError> {
        self.read(|it| functions::all(it)?.into_iter().map(|function| complete(it, function)).collect())
    }

    /// What [`Self::catalogue`] says about one function.
    pub fn record(&self, id: FunctionId) -> Result<FunctionRecord, StoreError> {
        self.read(|it| complete(it, functions::one(it, id)?))
    }

    /// A function's versions, the newest number first; also those of a deleted function.
    pub fn versions(&self, function_id: FunctionId) -> Result<Vec<Version>, StoreError> {
        self.read(|it| versions::all(it, function_id))
    }

    /// The labels of every function, deleted ones included: what must have a bundle, and what may have one.
    ///
    /// A function without versions is in it with no label.
    pub fn published(&self) -> Result<HashMap<FunctionId, HashSet<VersionLabel>>, StoreError> {
        self.read(versions::labels)
    }

    /// The number the function's next version gets.
    pub fn next_number(&self, function_id: FunctionId) -> Result<u32, StoreError> {
        self.read(|it| functions::next_number(it, function_id))
    }

    /// Publishes the version if it is new, points the alias at it if the deployment is active, and records it: all of
    /// it or nothing.
    ///
    /// Errors a caller can do something about: [`StoreError::FunctionNotFound`] (it may have been deleted meanwhile),
    /// [`StoreError::VersionNotFound`], [`StoreError::LabelTaken`], [`StoreError::NumberTaken`] (ask
    /// [`Self::next_number`] again), [`StoreError::EnvironmentNotFound`], [`StoreError::EnvironmentProtected`] and
    /// [`StoreError::AliasFixed`] for `ROLLBACK`. The answer is the status that was written.
    pub fn commit_deployment(&self, commit: &DeploymentCommit<'_>) -> Result<DeploymentStatus, StoreError> {
        self.commit_with(commit, &AliasChange::default())
    }

    /// The same, and what else changes about the alias, at once or when the deployment is approved.
    pub fn commit_with(
        &self,
        commit: &DeploymentCommit<'_>,
        change: &AliasChange<'_>,
    ) -> Result<DeploymentStatus, StoreError> {
        self.commit_keeping(commit, change, None)
    }

    /// Several deployments in their order, all of them or none: none can wait ([`StoreError::ApprovalRequired`]).
    pub fn commit_all(&self, commits: &[(DeploymentCommit<'_>, AliasChange<'_>)]) -> Result<(), StoreError> {
        self.write(|it| commits.iter().try_for_each(|(commit, change)| apply_now(it, commit, change)))
    }

    /// The last deployments of all functions that took effect or published something, the latest first.
    pub fn last_deployments(&self, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        self.read(|it| deployments::last(it, limit))
    }

    /// Whether a deployment with this version, absent where it is new, would have to wait for approval.
    pub fn needs_approval(&self, deployment: &Deployment, version: Option<VersionId>) -> Result<bool, StoreError> {
        self.read(|it| approval::is_needed(it, deployment, version))
    }

    /// Lets a deployment that waits take effect, as the latest of its alias, whose calls `previous` has so far. Besides
    /// what [`Self::commit_deployment`] can say: [`StoreError::DeploymentNotFound`] and [`StoreError::NotPending`].
    pub fn approve(
        &self,
        id: DeploymentId,
        decision: &Decision,
        previous: Option<&VersionLabel>,
    ) -> Result<Deployment, StoreError> {
        self.write(|it| approval::approve(it, id, decision, previous))
    }

    /// Ends the wait of a deployment: its version stays published, its alias where it is.
    pub fn reject(&self, id: DeploymentId, decision: &Decision) -> Result<Deployment, StoreError> {
        self.write(|it| approval::reject(it, id, decision))
    }

    /// The same for all that began to wait at this time or before.
    pub fn expire(&self, until: Timestamp, decision: &Decision) -> Result<Vec<Deployment>, StoreError> {
        self.write(|it| approval::expire(it, until, decision))
    }

    /// Every deployment that waits for approval, the latest first.
    pub fn waiting(&self) -> Result<Vec<Deployment>, StoreError> {
        self.read(deployments::waiting)
    }

    /// One deployment.
    pub fn deployment(&self, id: DeploymentId) -> Result<Deployment, StoreError> {
        self.read(|it| Ok(deployments::one(it, id)?.0))
    }

    /// Says what an alias is for; an empty text says nothing.
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

    /// Says by what an alias goes back by itself; by nothing where it is absent. The audit trail says by whom.
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

    /// Replaces what is known of a rollout that goes on, where no deployment goes with it
    /// ([`StoreError::RolloutOver`] if it does not go on any more).
    pub fn update_rollout(&self, rollout: &Rollout) -> Result<(), StoreError> {
        self.write(|it| rollouts::update(it, rollout))
    }

    /// The rollouts of a function, the latest first, only those `before` this one; also those of a deleted function.
    pub fn rollouts(
        &self,
        function_id: FunctionId,
        alias: Option<&AliasName>,
        before: Option<RolloutId>,
        limit: u32,
    ) -> Result<Vec<Rollout>, StoreError> {
        self.read(|it| rollouts::page(it, function_id, alias, before, limit))
    }

    /// Deletes an alias other than `LIVE` and `ROLLBACK` ([`StoreError::AliasFixed`]). Its deployments stay, so that an
    /// alias that is made anew with this name still knows what it pointed at before. One in a protected environment stays
    /// ([`StoreError::EnvironmentProtected`]).
    ///
    /// The answer is the row that says who deleted it.
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

    /// Has an alias stay so long from now on; for ever with [`Duration::ZERO`].
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

    /// The aliases that go by themselves, with when they do; those that go first come first. None of a protected
    /// environment is among them: nothing is taken out of it.
    pub fn expiring(&self) -> Result<Vec<(FunctionId, AliasName, Timestamp)>, StoreError> {
        self.read(aliases::expiring)
    }

    /// The environments there are, by name.
    pub fn environments(&self) -> Result<Vec<EnvironmentRecord>, StoreError> {
        self.read(environments::all)
    }

    /// Makes an environment; [`StoreError::Environment`] says what about it cannot be.
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

    /// Deletes an environment that nothing uses, and that was not there from the start ([`StoreError::Environment`]).
    pub fn delete_environment(&self, name: &EnvironmentName) -> Result<(), StoreError> {
        self.write(|it| environments::delete(it, name))
    }

    /// Whether an alias may run in this environment from now on: [`StoreError::EnvironmentProtected`] if it runs in
    /// another one that is protected.
    pub fn may_move(&self, id: FunctionId, alias: &AliasName, to: &EnvironmentName) -> Result<(), StoreError> {
        self.read(|it| environments::may_leave(it, id, alias, Some(to)))
    }

    /// Records a deployment that did not pass; nothing else changes.
    pub fn insert_failed_deployment(&self, deployment: &Deployment) -> Result<(), StoreError> {
        self.write(|it| {
            let version_id = versions::by_number(it, deployment.function_id, deployment.number)?;
            deployments::remove_running(it, deployment.id)?;
            deployments::insert(it, deployment, version_id)
        })
    }

    /// The version an alias pointed at before the one it points at now, if it still exists.
    ///
    /// After a rollback from v2 to v1 that is v2. Versions that are deleted since, and deployments of the present one,
    /// are passed over.
    pub fn previous_target(&self, function_id: FunctionId, alias: &AliasName) -> Result<Option<VersionId>, StoreError> {
        self.read(|it| deployments::previous_target(it, function_id, alias))
    }

    /// Replaces a version's description and tags by those given here: the only things about it that change.
    pub fn describe_version(&self, version: &Version, now: Timestamp) -> Result<(), StoreError> {
        self.write(|it| {
            versions::one(it, version.function_id, version.id)?;
            versions::describe(it, version)?;
            functions::touch(it, version.function_id, now)
        })
    }

    /// Where an alias goes back to by itself: as [`Self::previous_target`], but no version that it has left by itself
    /// since somebody pointed it there.
    pub fn automatic_target(
        &self,
        function_id: FunctionId,
        alias: &AliasName,
    ) -> Result<Option<VersionId>, StoreError> {
        self.read(|it| deployments::automatic_target(it, function_id, alias))
    }

    /// The last deployment by which an alias went back by its policy.
    pub fn last_auto_rollback(&self, id: FunctionId, alias: &AliasName) -> Result<Option<Deployment>, StoreError> {
        self.read(|it| deployments::last_auto_rollback(it, id, alias))
    }

    /// Deletes a version that nothing refers to ([`StoreError::VersionInUse`]); its deployments stay without the link.
    /// `ROLLBACK` keeps none.
    ///
    /// The caller removes the bundle afterwards: a crash in between leaves a bundle no row refers to, which the next
    /// start removes, and never a row without its bundle.
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

    /// Deletes all versions of a function but the `keep` newest and those that something refers to, `ROLLBACK` included;
    /// their deployments stay without the link. A dry run says the same and deletes nothing.
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

    /// What [`Self::prune_versions`] would say after this deployment; neither happens.
    pub fn prune_after(&self, commit: &DeploymentCommit<'_>, keep: u32) -> Result<Pruned, StoreError> {
        self.try_out(|it| {
            apply(it, commit, &AliasChange::default())?;
            retention::prune(it, commit.deployment.function_id, keep)
        })
    }

    /// A function's deployments, the latest first; also those of a deleted function.
    pub fn deployments(&self, function_id: FunctionId, limit: u32, offset: u32) -> Result<Vec<Deployment>, StoreError> {
        self.deployments_of(function_id, &DeploymentQuery { limit, offset, ..DeploymentQuery::default() })
    }

    /// Some of them.
    pub fn deployments_of(
        &self,
        function_id: FunctionId,
        query: &DeploymentQuery,
    ) -> Result<Vec<Deployment>, StoreError> {
        Ok(self.deployments_page(Some(function_id), query)?.into_iter().map(|it| it.1).collect())
    }

    /// Some deployments of a function, or of all that are not deleted, each with its place in the order.
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

    /// One instant of the database: what happens meanwhile is not seen.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        work(&transaction)
    }

    /// All of `work` or nothing; dropping the transaction takes everything back.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let outcome = self.write_between_steps(|it| {
            let outcome = work(it)?;
            crash_point("store.before_commit");
            Ok(outcome)
        })?;
        crash_point("store.committed");
        Ok(outcome)
    }

    /// The same for what is only about a deployment that runs, so that the named steps are those of its commit.
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

    /// What [`Self::write`] would give; everything is taken back.
    fn try_out<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        work(&transaction)
    }
}

/// One deployment within a transaction.
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

/// The same for one that cannot wait for approval.
fn apply_now(it: &Transaction<'_>, commit: &DeploymentCommit<'_>, change: &AliasChange<'_>) -> Result<(), StoreError> {
    if apply(it, commit, change)? == commit.deployment.status {
        return Ok(());
    }
    Err(StoreError::ApprovalRequired(Box::new(commit.deployment.clone())))
}

/// What a deployment does to its alias.
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

/// What a deployment does to its function.
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
