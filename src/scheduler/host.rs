//! The daemon as the host of its pools: Bun processes, the clock, and one task for each worker and each invocation that
//! runs on without its caller.

use super::{
    DaemonHost,
    check::BundleCheck,
    driver::{Cell, Driver, Host, Lease},
    node::PoolId,
    pool::Event,
};
use crate::{
    model::WorkerId,
    worker::{Blueprint, KillReason, Worker},
};
use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::{
    sync::oneshot,
    time::{timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Code and environment of a pool's workers.
#[derive(Debug)]
pub(super) struct PoolCode {
    pub(super) blueprint: Blueprint,
    /// Verifies that the bundle is still the published one.
    pub(super) check: BundleCheck,
}

impl Host for DaemonHost {
    type Worker = Worker;
    type Start = CancellationToken;
    type Code = PoolCode;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn plan_start(&self, _pool: PoolId, _worker: WorkerId) -> CancellationToken {
        CancellationToken::new()
    }

    fn start(driver: &Arc<Driver<Self>>, cell: &Arc<Cell<Self>>, id: WorkerId, start: CancellationToken) {
        let host = &driver.host;
        host.tasks.spawn_on(run_worker(Arc::clone(driver), Arc::clone(cell), id, start), &host.runtime);
    }

    fn cancel(&self, start: &CancellationToken) {
        start.cancel();
    }

    fn stop(&self, worker: &Worker) {
        worker.kill(KillReason::Stop);
    }

    fn settle(lease: Lease<Self>, deadline: Instant) {
        let settled = lease.worker.settled(lease.invocation);
        lease.worker.dropped(lease.invocation);
        let driver = Arc::clone(&lease.driver);
        driver.host.tasks.spawn_on(settle(lease, settled, deadline), &driver.host.runtime);
    }

    fn is_blocked(&self, worker: &Worker) -> bool {
        let is_blocked = worker.blocked_for(self.now()).is_some_and(|it| it >= self.limits.load().blocked);
        if !is_blocked && worker.is_busy() {
            worker.ping();
        }
        is_blocked
    }

    fn is_worn(&self, cell: &Cell<Self>, worker: &Worker) -> bool {
        let blueprint = &cell.code.blueprint;
        let soft = blueprint.memory_max.load(Ordering::Relaxed) / 100 * self.limits.load().memory_soft_percent;
        // A process cannot change its network, so a changed setting needs new processes.
        worker.network != blueprint.network.get()
            || !blueprint.has_current_variables(&worker.revisions)
            || worker.has_grown_to(soft)
    }
}

/// Runs a worker's life as its pool sees it.
async fn run_worker(
    driver: Arc<Driver<DaemonHost>>,
    cell: Arc<Cell<DaemonHost>>,
    id: WorkerId,
    cancelled: CancellationToken,
) {
    let blueprint = &cell.code.blueprint;
    let started = tokio::select! {
        () = cancelled.cancelled() => return driver.gone(&cell, id, None),
        started = cell.code.check.start(&driver.host, blueprint) => started,
    };
    let worker = match started {
        Ok(worker) => Arc::new(worker),
        Err(error) => {
            tracing::info!(function = %blueprint.function, version = %blueprint.version, "a worker did not start: {error}");
            return driver.gone(&cell, id, Some(error));
        }
    };
    driver.ready(&cell, id, &worker);
    // The function's variables may have changed during the start.
    if !blueprint.has_current_variables(&worker.revisions) {
        driver.apply(&cell, Event::Worn(id));
    }
    worker.exited().await;
    driver.gone(&cell, id, None);
}

/// Waits until an invocation whose caller has left, or which has promises pending, has settled. The handler may run on:
/// the worker reports when it is free, and is killed if it does not report in time.
async fn settle(lease: Lease<DaemonHost>, settled: oneshot::Receiver<()>, deadline: Instant) {
    let worker = Arc::clone(&lease.worker);
    let over = async {
        tokio::select! {
            _ = settled => {}
            _ = worker.exited() => {}
        }
    };
    let mut over = pin!(over);
    if timeout_at(deadline.into(), &mut over).await.is_ok() {
        return lease.release();
    }
    if lease.cell.concurrency() == 1 {
        return lease.kill(KillReason::Deadline);
    }
    // Other invocations run in this worker. If it responds to a ping, they may end there; if not, it blocks them as
    // well.
    let asked = Instant::now();
    worker.ping();
    if timeout(lease.driver.host.limits.load().kill_grace, &mut over).await.is_ok() {
        return lease.release();
    }
    match worker.blocked_for(Instant::now()) {
        Some(blocked) if blocked >= asked.elapsed() => lease.kill(KillReason::Deadline),
        _ => lease.end(Event::Abandon),
    }
}

impl Lease<DaemonHost> {
    /// Ends the lease after its invocation; the worker may take another.
    pub(super) fn release(self) {
        self.worker.ended(self.invocation);
        self.end(Event::Release);
    }

    /// Ends the lease of an invocation that took too long and has no caller: its connection is dropped, or about to be.
    ///
    /// A worker that runs nothing else is killed. One that runs others gets a moment to end the invocation by itself.
    pub(super) fn overtime(mut self) {
        match self.cell.concurrency() {
            1 => self.kill(KillReason::Deadline),
            _ => self.run_until(Instant::now()),
        }
    }

    /// Ends the lease and kills the worker.
    pub(super) fn kill(self, reason: KillReason) {
        self.worker.kill(reason);
        self.end(Event::Kill);
    }
}
