//! The store: functions, versions, aliases and the audit trail of deployments, in one SQLite database.
//!
//! Each submodule holds the SQL of one table and the methods of [`Store`] for it; [`commit`] holds the commit of a
//! deployment, which touches several. A method that writes is one transaction, on disk when the method returns. All methods block, so an asynchronous caller runs them on a blocking thread
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
mod catalogue;
mod commit;
mod deletion;
mod deployments;
mod environments;
mod error;
mod functions;
mod hold;
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

pub use aliases::{AliasChange, AliasRecord};
pub use catalogue::{FunctionRecord, FunctionState};
pub use commit::{DeploymentCommit, Target};
pub use deletion::Removal;
pub use deployments::DeploymentQuery;
pub use environments::{EnvironmentChange, EnvironmentRecord};
pub use error::StoreError;
pub use hold::Hold;
pub use idempotency::{KeptAnswer, RequestDigest};
pub use retention::Pruned;
pub use sealed::GenerationRecord;
pub use variables::{VariableChange, VariableOutcome, VariableRecords};

use crate::crash_point::crash_point;
use crate::sqlite::{self, Durability};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

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
    include_str!("migrations/013_indexes.sql"),
];

/// The database of functions; see the module documentation.
#[derive(Debug)]
pub struct Store {
    /// A single connection suffices: SQLite allows one writer, and reads are rare and short.
    connection: Mutex<Connection>,
    path: PathBuf,
    /// Whether the file is marked as whole when the store is dropped.
    is_marked: AtomicBool,
    /// Whether a transaction has found the database damaged. Then the next start checks it.
    is_damaged: AtomicBool,
}

impl Drop for Store {
    fn drop(&mut self) {
        if !*self.is_marked.get_mut() || *self.is_damaged.get_mut() {
            return;
        }
        let Ok(none) = Connection::open_in_memory() else { return };
        let connection = std::mem::replace(self.connection.get_mut(), none);
        if let Err(error) = sqlite::close(connection, &self.path) {
            tracing::warn!(%error, "the next start checks the database");
        }
    }
}

impl Store {
    /// Opens the database at `path` and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = sqlite::open(path, Durability::Full, MIGRATIONS)?;
        Ok(Self {
            connection: Mutex::new(connection),
            path: path.to_owned(),
            is_marked: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
        })
    }

    /// Has the file marked as whole once the store is dropped, so that the next start need not check all of it. For a
    /// daemon that stops in good order.
    pub fn mark_when_closed(&self) {
        self.is_marked.store(true, Ordering::Relaxed);
    }

    /// Writes a copy of the database, as of one instant, to a new file. Commits continue meanwhile.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        Ok(sqlite::copy(&self.path, path)?)
    }

    /// Reads a snapshot of the database: later changes are not seen.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.transact(TransactionBehavior::Deferred, |it| work(&it))
    }

    /// Runs `work` in a transaction, and remembers whether it has found the database damaged.
    fn transact<T>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        let begun = connection.transaction_with_behavior(behavior).map_err(StoreError::from);
        let outcome = begun.and_then(work);
        let is_damage = match &outcome {
            Err(StoreError::Sqlite(cause)) => sqlite::is_damage(cause),
            Err(StoreError::Corrupt { .. }) => true,
            _ => false,
        };
        if is_damage {
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        outcome
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
        self.transact(TransactionBehavior::Immediate, |it| {
            let outcome = work(&it)?;
            it.commit()?;
            Ok(outcome)
        })
    }

    /// Returns the result of [`Self::write`] and rolls everything back.
    fn try_out<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.transact(TransactionBehavior::Immediate, |it| work(&it))
    }
}
