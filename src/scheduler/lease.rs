//! A worker while one invocation holds it.

use super::{Shared, cell::Cell, pool::Event};
use crate::{
    model::{Invocation, InvocationId, WorkerId},
    worker::{ExchangeError, Exit, KillReason, Worker, WorkerAnswer},
};
use std::{pin::pin, sync::Arc, time::Instant};
use tokio::{
    sync::oneshot,
    time::{timeout, timeout_at},
};

/// The right to one slot of a worker. Its drop gives the slot back: at once if nothing was sent, else when the
/// invocation has settled.
#[derive(Debug)]
pub(super) struct Lease {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    id: WorkerId,
    worker: Arc<Worker>,
    invocation: InvocationId,
    use_: Use,
}

/// State of the lease's use of its worker.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// The invocation was not sent.
    Unused,
    /// The invocation runs in the worker, until this deadline at most.
    Running { deadline: Instant },
    /// The pool has been told of the end.
    Over,
}

impl Lease {
    pub(super) fn new(
        shared: Arc<Shared>,
        cell: Arc<Cell>,
        id: WorkerId,
        worker: Arc<Worker>,
        invocation: InvocationId,
    ) -> Self {
        Self { shared, cell, id, worker, invocation, use_: Use::Unused }
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Sends the invocation and waits for the head of the answer.
    pub(super) async fn exchange(&mut self, invocation: &Invocation) -> Result<WorkerAnswer, ExchangeError> {
        self.use_ = Use::Running { deadline: invocation.deadline() };
        self.worker.exchange(invocation).await
    }

    /// Waits for the worker's exit, to report it to this invocation's caller.
    pub(super) async fn exited(&self) -> Exit {
        self.worker.exited_during(self.invocation).await
    }

    /// Ends the lease after its invocation; the worker may take another.
    pub(super) fn release(mut self) {
        self.use_ = Use::Over;
        self.worker.ended(self.invocation);
        self.shared.apply(&self.cell, Event::Release(self.id));
    }

    /// Ends the lease of an invocation that took too long and has no caller: its connection is dropped, or about to be.
    ///
    /// A worker that runs nothing else is killed. One that runs others gets a moment to end the invocation by itself.
    pub(super) fn overtime(mut self) {
        match self.cell.concurrency() {
            1 => self.kill(KillReason::Deadline),
            _ => self.use_ = Use::Running { deadline: Instant::now() },
        }
    }

    /// Ends the lease and kills the worker.
    pub(super) fn kill(mut self, reason: KillReason) {
        self.use_ = Use::Over;
        self.worker.kill(reason);
        self.shared.apply(&self.cell, Event::Kill(self.id));
    }
}

/// Waits until an invocation whose caller has left, or which has promises pending, has settled. The handler may run on:
/// the worker reports when it is free, and is killed if it does not report in time.
async fn settle(lease: Lease, settled: oneshot::Receiver<()>, deadline: Instant) {
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
    if timeout(lease.shared.limits.load().kill_grace, &mut over).await.is_ok() {
        return lease.release();
    }
    match worker.blocked_for(Instant::now()) {
        Some(blocked) if blocked >= asked.elapsed() => lease.kill(KillReason::Deadline),
        _ => lease.shared.apply(&lease.cell, Event::Abandon(lease.id)),
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.use_ {
            Use::Over => {}
            Use::Unused => self.shared.apply(&self.cell, Event::Release(self.id)),
            Use::Running { deadline } => {
                let settled = self.worker.settled(self.invocation);
                self.worker.dropped(self.invocation);
                let (shared, cell) = (Arc::clone(&self.shared), Arc::clone(&self.cell));
                let (id, worker, invocation) = (self.id, Arc::clone(&self.worker), self.invocation);
                let lease = Self { shared, cell, id, worker, invocation, use_: Use::Over };
                self.shared.tasks.spawn_on(settle(lease, settled, deadline), &self.shared.runtime);
            }
        }
    }
}
