//! The table `idempotency_keys`: what was answered to deployments that came with a key.

use super::value::Millis;
use super::{AliasChange, DeploymentCommit, Store, StoreError, apply};
use crate::model::{DeploymentStatus, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

/// SHA-256 of a request.
pub type RequestDigest = [u8; 32];

/// An answer that is kept for whoever comes with the same key.
#[derive(Debug, Clone)]
pub struct KeptAnswer {
    /// Whose key it is.
    pub actor: String,
    /// The key.
    pub key: String,
    /// What was asked.
    pub digest: RequestDigest,
    /// What is answered, as JSON.
    pub answer: String,
    /// The same where the deployment has to wait for approval, which its transaction decides.
    pub answer_if_pending: String,
    /// When it is kept.
    pub at: Timestamp,
    /// What was kept at this time or before goes.
    pub until: Timestamp,
    /// How many stay at most; the oldest go.
    pub keys_max: u32,
}

impl Store {
    /// [`Store::commit_with`], and the answer is kept with it or not at all.
    pub fn commit_keeping(
        &self,
        commit: &DeploymentCommit<'_>,
        change: &AliasChange<'_>,
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

    /// Keeps the answer of a deployment that had nothing to do.
    pub fn keep_answer(&self, kept: &KeptAnswer) -> Result<(), StoreError> {
        self.write(|it| put(it, kept, DeploymentStatus::Active))
    }

    /// What was asked with a key after this time, and answered.
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
