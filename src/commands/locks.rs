//! Locks of functions, held by the commands that change them, and idempotency keys claimed by deployments.

use crate::{model::FunctionId, store::RequestDigest};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Weak},
};
use tokio::sync::OwnedMutexGuard;

/// Locks that commands hold while they change something.
#[derive(Debug, Default)]
pub struct Locks {
    /// One lock per function that is being changed.
    pub(super) changing: ChangeLocks,
    /// One lock per function whose code is being prepared; taken before the other.
    pub(super) preparing: ChangeLocks,
    /// Held by a command that changes variables or the master key.
    pub(super) variables: tokio::sync::Mutex<()>,
    /// Idempotency keys of the running deployments.
    pub(super) claimed_keys: ClaimedKeys,
}

/// Locks that let one command at a time change a function; different functions change side by side.
#[derive(Debug, Default)]
pub(super) struct ChangeLocks(Mutex<HashMap<FunctionId, Weak<tokio::sync::Mutex<()>>>>);

impl ChangeLocks {
    /// Waits until no other command holds the function's lock.
    pub(super) async fn lock(&self, id: FunctionId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = locks.get(&id).and_then(Weak::upgrade).unwrap_or_default();
            locks.insert(id, Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }
}

/// Owner of an idempotency key, and the key.
pub(super) type KeyName = (Arc<str>, String);

/// Idempotency keys of the running deployments, each with the digest of its request.
#[derive(Debug, Default)]
pub(super) struct ClaimedKeys(Mutex<HashMap<KeyName, RequestDigest>>);

impl ClaimedKeys {
    /// Claims a key for a request, unless a running deployment has it: then the digest of that one's request is
    /// returned.
    pub(super) fn claim(&self, name: &KeyName, digest: RequestDigest) -> Result<(), RequestDigest> {
        match self.0.lock().entry(name.clone()) {
            Entry::Occupied(claimed) => Err(*claimed.get()),
            Entry::Vacant(free) => {
                free.insert(digest);
                Ok(())
            }
        }
    }

    /// Frees a key.
    pub(super) fn release(&self, name: &KeyName) {
        self.0.lock().remove(name);
    }
}
