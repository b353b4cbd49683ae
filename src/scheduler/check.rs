//! No worker serves with a bundle that is not what was published: the check around every start.
//!
//! A bundle is read through before its first use. Every start then compares what its files look like ([`Stamps`]), and
//! reads the bundle through again where that has changed. A worker is ready only when its files are known to have been
//! the right ones while it loaded them.

use super::Shared;
use crate::{
    bundle::Stamps,
    worker::{Blueprint, KillReason, StartError, Worker},
};
use std::sync::Arc;
use tokio::sync::Mutex;

/// So many files are looked at sooner than another thread could begin to.
const FEW_STAMPS: usize = 16;

/// What is known of one pool's bundle.
#[derive(Debug, Default)]
pub(super) struct BundleCheck {
    /// What it looked like when it was last read through and was what was published; nothing before its first use. It is
    /// locked while the bundle is read.
    seen: Mutex<Option<Arc<Stamps>>>,
}

/// Ends a worker unless it is taken out: a start that is cancelled leaves no process behind.
struct EndUnlessTaken(Option<Worker>);

impl EndUnlessTaken {
    fn take(mut self) -> Worker {
        self.0.take().expect("only this takes it, which consumes the guard")
    }
}

impl Drop for EndUnlessTaken {
    fn drop(&mut self) {
        if let Some(worker) = &self.0 {
            worker.kill(KillReason::Stop);
        }
    }
}

impl BundleCheck {
    /// Starts a worker. A small bundle is looked at before the start and after it, a large one beside it, so that the start
    /// takes no longer.
    pub(super) async fn start(&self, shared: &Shared, blueprint: &Blueprint) -> Result<Worker, StartError> {
        let known = self.seen.lock().await.clone();
        let beside = match known.filter(|it| it.count() > FEW_STAMPS) {
            Some(known) => Some(shared.runtime.spawn_blocking(move || known.still_hold())),
            None => {
                self.verify(shared, blueprint).await?;
                None
            }
        };
        let started = start(shared, blueprint).await.map(|worker| EndUnlessTaken(Some(worker)));
        let is_unchanged = match beside {
            Some(beside) => beside.await.unwrap_or(false),
            None => false,
        };
        // Also where it did not load: a changed file may be why.
        if !is_unchanged {
            self.verify(shared, blueprint).await?;
        }
        started.map(EndUnlessTaken::take)
    }

    /// Sees that the bundle is what was published, by reading it through if its files do not look as they did.
    async fn verify(&self, shared: &Shared, blueprint: &Blueprint) -> Result<(), StartError> {
        let known = self.seen.lock().await.clone();
        if let Some(known) = &known
            && still_hold(shared, known).await?
        {
            return Ok(());
        }
        let mut seen = self.seen.lock().await;
        // Another start may have read it through meanwhile.
        let newer = seen.clone().filter(|it| known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, it)));
        if let Some(newer) = newer
            && still_hold(shared, &newer).await?
        {
            return Ok(());
        }
        let (bundles, blueprint) = (Arc::clone(&shared.bundles), blueprint.clone());
        let read_through = move || {
            let Blueprint { function_id, version, digest, .. } = &blueprint;
            bundles.verify_again(*function_id, version, digest, known.as_deref())
        };
        let found = shared.runtime.spawn_blocking(read_through).await.map_err(|_| panicked())??;
        *seen = Some(Arc::new(found));
        Ok(())
    }
}

/// A prewarmed process that loads the function, or a new one.
async fn start(shared: &Shared, blueprint: &Blueprint) -> Result<Worker, StartError> {
    if let Some(claimed) = shared.spawner.claim(blueprint).await {
        return claimed;
    }
    let starts = shared.starts.load_full();
    let permit = starts.acquire().await.expect("the semaphore is never closed");
    shared.spawner.spawn(blueprint, permit).await
}

async fn still_hold(shared: &Shared, stamps: &Arc<Stamps>) -> Result<bool, StartError> {
    if stamps.count() <= FEW_STAMPS {
        return Ok(stamps.still_hold());
    }
    let stamps = Arc::clone(stamps);
    shared.runtime.spawn_blocking(move || stamps.still_hold()).await.map_err(|_| panicked())
}

fn panicked() -> StartError {
    StartError::Prepare(std::io::Error::other("the check of the bundle panicked"))
}
