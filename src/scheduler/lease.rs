//! A worker while one invocation has it.

use super::{Shared, cell::Cell, pool::Event};
use crate::{
    model::{Invocation, InvocationId, WorkerId},
    worker::{Answer, ExchangeError, Exit, KillReason, Worker},
};
use std::{pin::pin, sync::Arc, time::Instant};
use tokio::{
    sync::oneshot,
    time::{timeout, timeout_at},
};

/// The right to one worker. Its drop gives the worker back; if the invocation was sent, only when it has settled.
#[derive(Debug)]
pub(super) struct Lease {
    shared: Arc<Shared>,
    cell: Arc<Cell>,
    id: WorkerId,
    worker: Arc<Worker>,
    invocation: InvocationId,
    use_: Use,
}

/// What the worker has been used for.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// Nothing was sent.
    Unused,
    /// The invocation runs in it, until this deadline at most.
    Running { deadline: Instant },
    /// The pool knows.
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
    pub(super) async fn exchange(&mut self, invocation: &Invocation) -> Result<Answer, ExchangeError> {
        self.use_ = Use::Running { deadline: invocation.deadline() };
        self.worker.exchange(invocation).await
    }

    /// Waits for the end of the worker, for the report to this invocation's caller.
    pub(super) async fn exited(&self) -> Exit {
        self.worker.exited_during(self.invocation).await
    }

    /// The invocation is over and the worker may have another.
    pub(super) fn release(mut self) {
        self.use_ = Use::Over;
        self.worker.ended(self.invocation);
        self.shared.apply(&self.cell, Event::Release(self.id));
    }

    /// The invocation took too long and nobody waits for it: its connection is dropped, or about to be.
    ///
    /// A worker that runs nothing else is ended. One that does gets a moment to end the invocation by itself.
    pub(super) fn overtime(mut self) {
        match self.cell.concurrency() {
            1 => self.kill(KillReason::Deadline),
            _ => self.use_ = Use::Running { deadline: Instant::now() },
        }
    }

    /// The invocation is over and so is the worker.
    pub(super) fn kill(mut self, reason: KillReason) {
        self.use_ = Use::Over;
        self.worker.kill(reason);
        self.shared.apply(&self.cell, Event::Kill(self.id));
    }
}

/// Waits until an invocation has settled whose caller has left, or which has promises pending. The handler may run on:
/// the worker is free when it says so, and ended when it does not say so in time.
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
    // Others run in this worker. If it answers, they may end there; if it does not, it holds them up as well.
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
