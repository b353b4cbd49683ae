//! Cancelling a command that loads or builds something before it commits.
//!
//! ```text
//!              the client leaves, or sends CANCEL
//! running ────────────────────────────────────────▶ cancelled: nothing is committed
//!    │
//!    └── begin_commit ──▶ committing: it runs to its end, and cancelling changes nothing
//! ```
//!
//! **Invariant.** A command is either cancelled or begins to commit: one lock decides which comes first. A cancelled
//! command removes what it has created before it answers.

use super::{Caller, Command, Context, context::boxed};
use crate::{
    error::{Error, ErrorCode},
    protocol::message::{CancelRequest, CancelResponse},
};
use parking_lot::Mutex;
use std::{future::Future, pin::pin, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Message for the client and the audit trail.
const CANCELLED: &str = "cancelled by its client: nothing was changed";

/// State shared by a command and its canceller. The default is never cancelled.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancellation(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    cancelled: CancellationToken,
    is_committing: Mutex<bool>,
}

impl Cancellation {
    /// Cancels the command, unless it has begun to commit.
    fn cancel(&self) {
        let is_committing = self.0.is_committing.lock();
        if !*is_committing {
            self.0.cancelled.cancel();
        }
    }

    /// Must be called right before the commit, which must not happen if this fails.
    pub(super) fn begin_commit(&self) -> Result<(), Error> {
        let mut is_committing = self.0.is_committing.lock();
        self.check()?;
        *is_committing = true;
        Ok(())
    }

    /// Fails once the command is cancelled.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.0.cancelled.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Runs work that can be dropped at any time, and drops it when the command is cancelled.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        self.0.cancelled.run_until_cancelled(work).await.ok_or_else(cancelled)
    }
}

impl Command for CancelRequest {
    async fn run(self, _: &Arc<Context>, _: &Caller) -> Result<CancelResponse, Error> {
        Err(Error::invalid("CANCEL must be sent on the connection of the command socket that carried the request"))
    }
}

fn cancelled() -> Error {
    Error::new(ErrorCode::Cancelled, CANCELLED)
}

/// Cancels the command when the future that waits for it is dropped, because its client has left.
struct CancelOnDrop(Cancellation);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Context {
    /// Runs a command that its client may cancel until it commits. The command has a task of its own, which cleans up
    /// after a cancellation and finishes a commit that has begun.
    pub(super) async fn until_cancelled<T, F>(
        &self,
        caller: &Caller,
        command: impl FnOnce(Cancellation) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let cancel = CancelOnDrop(Cancellation::default());
        let mut running = pin!(self.tasks.spawn(boxed(command(cancel.0.clone()))));
        let outcome = tokio::select! {
            outcome = &mut running => outcome,
            () = caller.cancelled() => {
                cancel.0.cancel();
                running.await
            }
        };
        outcome.unwrap_or_else(|error| Err(Error::internal(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_cancelled_or_commits_whichever_comes_first() {
        let late = Cancellation::default();
        assert_eq!(late.begin_commit(), Ok(()));
        late.cancel();
        assert_eq!(late.check(), Ok(()));
        let early = Cancellation::default();
        early.cancel();
        assert_eq!(early.begin_commit().map_err(|it| it.code), Err(ErrorCode::Cancelled));
    }

    #[test]
    fn of_two_threads_exactly_one_has_its_way() {
        for _ in 0..1_000 {
            let cancellation = Cancellation::default();
            let other = cancellation.clone();
            let cancels = std::thread::spawn(move || other.cancel());
            let commits = cancellation.begin_commit().is_ok();
            cancels.join().expect("it only cancels");
            assert_eq!(commits, cancellation.check().is_ok());
        }
    }
}
