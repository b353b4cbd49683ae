//! Idempotency keys of deployments: a client that repeats a request, because the first answer was lost, deploys once.
//!
//! A key belongs to its actor, and stands for one request: all of its fields, code included. Code at a path counts with
//! its path. While a deployment runs, its key is claimed in memory; its answer is stored in the transaction of the
//! deployment, so that no `kill -9` comes between the two. A failure is not stored: it may be retried with the same
//! key. A dry run ignores its key.

use super::{Caller, Context, locks::KeyName};
use crate::{
    error::{Error, ErrorCode},
    model::Timestamp,
    protocol::message::{DeployRequest, DeployResponse},
    store::{KeptAnswer, RequestDigest},
};
use sha2::{Digest, Sha256};
use std::{io, sync::Arc};

/// Maximum bytes of a key.
const KEY_BYTES_MAX: usize = 255;

/// Key of a running deployment, released on drop.
pub(super) struct Claim {
    context: Arc<Context>,
    name: KeyName,
    digest: RequestDigest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.context.locks.claimed_keys.release(&self.name);
    }
}

/// Outcome of taking a request's key.
pub(super) enum Begun {
    /// The deployment goes on without a key.
    Plain,
    /// The deployment goes on, and owns its key.
    Claimed(Arc<Claim>),
    /// The deployment was carried out before, with this answer.
    Answered(Box<DeployResponse>),
}

/// Takes the key of a request.
pub(super) async fn begin(
    context: &Arc<Context>,
    request: &mut DeployRequest,
    caller: &Caller,
) -> Result<Begun, Error> {
    let Some(key) = request.idempotency_key.take() else { return Ok(Begun::Plain) };
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(|it| (b' '..=b'~').contains(&it)) {
        let message = format!("an idempotency key has 1 to {KEY_BYTES_MAX} visible ASCII characters");
        return Err(Error::invalid(message));
    }
    if request.dry_run {
        return Ok(Begun::Plain);
    }
    let (name, digest) = ((Arc::clone(&caller.actor), key), digest(request)?);
    if let Err(of) = context.locks.claimed_keys.claim(&name, digest) {
        let message = "a deployment with this idempotency key is still running: try again when it has ended";
        return Err(if of == digest { Error::new(ErrorCode::Conflict, message) } else { reused(&name.1) });
    }
    let claim = Claim { context: Arc::clone(context), name, digest };
    match claim.answered().await? {
        Some((of, answer)) if of == digest => {
            let answer = serde_json::from_str(&answer).map_err(Error::internal)?;
            Ok(Begun::Answered(Box::new(answer)))
        }
        Some(_) => Err(reused(&claim.name.1)),
        None => Ok(Begun::Claimed(Arc::new(claim))),
    }
}

fn reused(key: &str) -> Error {
    let message = format!("the idempotency key `{key}` was used with another request: choose a new one");
    Error::new(ErrorCode::IdempotencyKeyReused, message)
}

impl Claim {
    /// Time from which on keys count.
    fn since(&self) -> Timestamp {
        let seconds = self.context.config.load().versioning.idempotency_key_seconds;
        Timestamp::from_millis(Timestamp::now().as_millis() - i64::from(seconds) * 1_000)
    }

    async fn answered(&self) -> Result<Option<(RequestDigest, String)>, Error> {
        let ((actor, key), since) = (self.name.clone(), self.since());
        self.context.blocking(move |context| Ok(context.store.kept_answer(&actor, &key, since)?)).await
    }

    /// The record of an answer, and of the alternative if the deployment has to wait for approval.
    pub(super) fn kept(&self, answer: &DeployResponse, if_pending: &DeployResponse) -> Result<KeptAnswer, Error> {
        let text = |answer| serde_json::to_string(answer).map_err(Error::internal);
        let (actor, key) = &self.name;
        Ok(KeptAnswer {
            actor: actor.to_string(),
            key: key.clone(),
            digest: self.digest,
            answer: text(answer)?,
            answer_if_pending: text(if_pending)?,
            at: Timestamp::now(),
            until: self.since(),
            keys_max: self.context.config.load().versioning.idempotency_keys_max,
        })
    }

    /// Stores the answer of a deployment that had nothing to commit.
    pub(super) async fn keep(&self, answer: &DeployResponse) -> Result<(), Error> {
        if self.answered().await?.is_some() {
            return Ok(());
        }
        let kept = self.kept(answer, answer)?;
        self.context.blocking(move |context| Ok(context.store.keep_answer(&kept)?)).await
    }
}

/// SHA-256 of all fields of a request.
fn digest(request: &DeployRequest) -> Result<RequestDigest, Error> {
    struct Hash(Sha256);
    impl io::Write for Hash {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hash = Hash(Sha256::new());
    rmp_serde::encode::write_named(&mut hash, request).map_err(Error::internal)?;
    Ok(hash.0.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::field::Body;

    #[test]
    fn a_request_is_another_one_where_anything_in_it_is() {
        let request =
            DeployRequest { function_id: "f".into(), bundle: Some(Body::from(vec![1])), ..Default::default() };
        let of = |it: &DeployRequest| digest(it).expect("plain data");
        assert_eq!(of(&request), of(&request.clone()));
        let others = [
            DeployRequest { function_id: "g".into(), ..request.clone() },
            DeployRequest { bundle: Some(Body::from(vec![2])), ..request.clone() },
            DeployRequest { archive: request.bundle.clone(), bundle: None, ..request.clone() },
            DeployRequest { reason: Some(String::new()), ..request.clone() },
        ];
        assert!(others.iter().all(|it| of(it) != of(&request)));
    }
}
