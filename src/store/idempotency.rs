//! The table `idempotency_keys`: answers to deployments that came with an idempotency key.

use super::commit::apply;
use super::value::Millis;
use super::{AliasChange, DeploymentCommit, Store, StoreError};
use crate::model::{DeploymentStatus, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

/// SHA-256 of a request.
pub type RequestDigest = [u8; 32];

/// A stored answer for repeated requests with the same key.
#[derive(Debug, Clone)]
pub struct KeptAnswer {
    /// Actor who sent the key.
    pub actor: String,
    /// The key.
    pub key: String,
    /// Digest of the request.
    pub digest: RequestDigest,
    /// Answer as JSON.
    pub answer: String,
    /// Answer if the deployment has to wait for approval, which is decided inside its transaction.
    pub answer_if_pending: String,
    /// Time of storing.
    pub at: Timestamp,
    /// Answers stored at this time or before are deleted.
    pub until: Timestamp,
    /// Largest number of stored answers; the oldest are deleted.
    pub keys_max: u32,
}

impl Store {
    /// Does what [`Store::commit_with`] does, and stores the answer in the same transaction.
    pub fn commit_keeping(
        &self,
        commit: &DeploymentCommit<'_>,
        change: &AliasChange,
        kept: Option<&KeptAnswer>,
    ) -> Result<DeploymentStatus, StoreError> {
        self.write(|it| {
            let status = apply(it, commit, change)?;
            if let Some(kept) = kept {
                put(it, kept, status)?;
            }
            Ok(status)
        })
    }

    /// Stores the answer of a deployment that had nothing to do.
    pub fn keep_answer(&self, kept: &KeptAnswer) -> Result<(), StoreError> {
        self.write(|it| put(it, kept, DeploymentStatus::Active))
    }

    /// Returns the request digest and the answer stored for a key after this time.
    pub fn kept_answer(
        &self,
        actor: &str,
        key: &str,
        after: Timestamp,
    ) -> Result<Option<(RequestDigest, String)>, StoreError> {
        self.read(|it| {
            let sql = "SELECT digest, answer FROM idempotency_keys WHERE actor = ?1 AND key = ?2 AND created_at > ?3";
            let values = params![actor, key, Millis(after)];
            let mut statement = it.prepare_cached(sql)?;
            Ok(statement.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        })
    }
}

fn put(connection: &Connection, kept: &KeptAnswer, status: DeploymentStatus) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM idempotency_keys WHERE created_at <= ?1")?.execute([Millis(kept.until)])?;
    let answer = match status {
        DeploymentStatus::PendingApproval => &kept.answer_if_pending,
        _ => &kept.answer,
    };
    connection
        .prepare_cached(
            "INSERT INTO idempotency_keys (actor, key, digest, answer, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![kept.actor, kept.key, kept.digest, answer, Millis(kept.at)])?;
    let excess = "DELETE FROM idempotency_keys WHERE (actor, key) IN \
         (SELECT actor, key FROM idempotency_keys ORDER BY created_at DESC, actor, key LIMIT -1 OFFSET ?1)";
    connection.prepare_cached(excess)?.execute([kept.keys_max])?;
    Ok(())
}
