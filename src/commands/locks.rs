//! Locks of functions, held by the commands that change them.

use crate::model::FunctionId;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};
use tokio::sync::OwnedMutexGuard;

/// Locks that let one command at a time change a function; different functions change side by side.
#[derive(Debug, Default)]
pub struct ChangeLocks(Mutex<HashMap<FunctionId, Weak<tokio::sync::Mutex<()>>>>);

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
