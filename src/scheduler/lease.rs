//! A worker while one invocation has it.

use super::{Shared, cell::Cell, pool::Event};
use crate::{
    model::{Invocation, InvocationId, WorkerId},
    worker::{Answer, ExchangeError, KillReason, Worker},
};
use std::{sync::Arc, time::Instant};

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

    /// The invocation is over and the worker may have another.
    pub(super) fn release(mut self) {
        self.use_ = Use::Over;
        self.worker.ended(self.invocation);
        self.shared.apply(&self.cell, Event::Release(self.id));
    }

    /// The invocation is over and so is the worker.
    pub(super) fn kill(mut self, reason: KillReason) {
        self.use_ = Use::Over;
        self.worker.kill(reason);
        self.shared.apply(&self.cell, Event::Kill(self.id));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.use_ {
            Use::Over => {}
            Use::Unused => self.shared.apply(&self.cell, Event::Release(self.id)),
            Use::Running { deadline } => {
                // The caller has left, or the function has promises pending. The handler may run on: the worker is
                // free when it says so, and ended when it does not say so in time.
                let settled = self.worker.settled(self.invocation);
                self.worker.dropped(self.invocation);
                let (shared, cell) = (Arc::clone(&self.shared), Arc::clone(&self.cell));
                let (id, worker, invocation) = (self.id, Arc::clone(&self.worker), self.invocation);
                let settle = async move {
                    let lease = Self { shared, cell, id, worker, invocation, use_: Use::Over };
                    let over = async {
                        tokio::select! {
                            _ = settled => {}
                            _ = lease.worker.exited() => {}
                        }
                    };
                    match tokio::time::timeout_at(deadline.into(), over).await {
                        Ok(()) => lease.release(),
                        Err(_) => lease.kill(KillReason::Deadline),
                    }
                };
                self.shared.tasks.spawn_on(settle, &self.shared.runtime);
            }
        }
    }
}
