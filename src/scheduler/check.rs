//! Checks the bundle around every start: no worker serves with a bundle other than the published one.
//!
//! A bundle is read through before its first use. Every start then compares the metadata of its files ([`Stamps`]), and
//! reads the bundle through again if that has changed. A worker is ready only when its files are known to have been
//! correct while it loaded them.

use super::DaemonHost;
use crate::{
    bundle::Stamps,
    worker::{Blueprint, KillReason, StartError, Worker},
};
use std::sync::Arc;
use tokio::sync::Mutex;

/// File count up to which checking inline takes less time than handing the check to another thread.
const FEW_STAMPS: usize = 16;

/// Result of the latest check of one pool's bundle.
#[derive(Debug, Default)]
pub(super) struct BundleCheck {
    /// File metadata from the last time the bundle was read through and matched what was published; `None` before its
    /// first use. Locked while the bundle is read.
    seen: Mutex<Option<Arc<Stamps>>>,
}

/// Kills a worker unless it is taken out: a cancelled start leaves no process behind.
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
    /// Starts a worker. A small bundle is checked before and after the start; a large one is checked in parallel, so
    /// that the start takes no longer.
    pub(super) async fn start(&self, host: &DaemonHost, blueprint: &Blueprint) -> Result<Worker, StartError> {
        let known = self.seen.lock().await.clone();
        let beside = match known.filter(|it| it.count() > FEW_STAMPS) {
            Some(known) => Some(host.runtime.spawn_blocking(move || known.still_hold())),
            None => {
                self.verify(host, blueprint).await?;
                None
            }
        };
        let started = start(host, blueprint).await.map(|worker| EndUnlessTaken(Some(worker)));
        let is_unchanged = match beside {
            Some(beside) => beside.await.unwrap_or(false),
            None => false,
        };
        // Runs also after a failed load: a changed file may be the cause.
        if !is_unchanged {
            self.verify(host, blueprint).await?;
        }
        started.map(EndUnlessTaken::take)
    }

    /// Verifies that the bundle is the published one; reads it through if the metadata of its files has changed.
    async fn verify(&self, host: &DaemonHost, blueprint: &Blueprint) -> Result<(), StartError> {
        let known = self.seen.lock().await.clone();
        if let Some(known) = &known
            && still_hold(host, known).await?
        {
            return Ok(());
        }
        let mut seen = self.seen.lock().await;
        // Another start may have read the bundle through in the meantime.
        let newer = seen.clone().filter(|it| known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, it)));
        if let Some(newer) = newer
            && still_hold(host, &newer).await?
        {
            return Ok(());
        }
        let (bundles, blueprint) = (Arc::clone(&host.bundles), blueprint.clone());
        let read_through = move || {
            let Blueprint { function_id, version, digest, .. } = &blueprint;
            bundles.verify_again(*function_id, version, digest, known.as_deref())
        };
        let found = host.runtime.spawn_blocking(read_through).await.map_err(|_| panicked())??;
        *seen = Some(Arc::new(found));
        Ok(())
    }
}

/// Takes a prewarmed process that loads the function, or starts a new one.
async fn start(host: &DaemonHost, blueprint: &Blueprint) -> Result<Worker, StartError> {
    if let Some(claimed) = host.spawner.claim(blueprint).await {
        return claimed;
    }
    let starts = host.starts.load_full();
    let permit = starts.acquire().await.expect("the semaphore is never closed");
    host.spawner.spawn(blueprint, permit).await
}

async fn still_hold(host: &DaemonHost, stamps: &Arc<Stamps>) -> Result<bool, StartError> {
    if stamps.count() <= FEW_STAMPS {
        return Ok(stamps.still_hold());
    }
    let stamps = Arc::clone(stamps);
    host.runtime.spawn_blocking(move || stamps.still_hold()).await.map_err(|_| panicked())
}

fn panicked() -> StartError {
    StartError::Prepare(std::io::Error::other("the check of the bundle panicked"))
}
