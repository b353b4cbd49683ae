//! Row of a running deployment, and the end of one that commits nothing.
//!
//! A function that the deployment creates exists from the beginning, because the row needs it. It is removed again if
//! the deployment fails and no other command has asked for the function.

use super::{Order, publish::next_label, without_versions};
use crate::{
    commands::{Context, register},
    deploy::BuildLog,
    error::{Error, ErrorCode},
    model::{Deployment, DeploymentStatus, Timestamp},
    store::StoreError,
};
use std::sync::Arc;

/// Attempts to find or create a function that other commands create or remove at the same time.
const TRIES: usize = 8;

/// A running deployment, which is listed as such.
pub(super) struct Running {
    context: Arc<Context>,
    pub(super) row: Deployment,
    /// Whether the deployment created the function.
    pub(super) new_function: bool,
    log: Arc<BuildLog>,
}

impl Running {
    /// Records that a deployment runs, and creates its function if it is missing.
    pub(super) async fn begin(order: &Order) -> Result<Self, Error> {
        let (context, log) = (Arc::clone(&order.context), Arc::clone(&order.log));
        for _ in 0..TRIES {
            let new = order.function_to_make()?;
            let entry = match &new {
                Some(function) => Arc::new(without_versions(function.clone())),
                None => context.router.function(&order.request.function_id)?,
            };
            let label = match &order.label {
                Some(label) => label.clone(),
                None => next_label(&context, &entry).await?,
            };
            let row = order.wanted.deployment(&entry, label, DeploymentStatus::Building);
            let (written, new_function) = (row.clone(), new.is_some());
            let begun = context.blocking(move |context| {
                let begun = context.store.begin_deployment(&written, new.as_ref());
                match (&begun, new) {
                    (Ok(()), Some(function)) => context.refresh(function.id)?,
                    // Another command creates the function as well, or a failed deployment has just removed it.
                    (Err(StoreError::NameTaken(name)), _) => drop(register::named(context, name)),
                    (Err(StoreError::FunctionNotFound(id)), _) => context.router.remove(*id),
                    _ => {}
                }
                Ok(begun)
            });
            match begun.await? {
                Ok(()) => return Ok(Self { context, row, new_function, log }),
                Err(StoreError::NameTaken(_) | StoreError::FunctionNotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!("other commands keep creating and removing `{}`: try again", order.request.function_id);
        Err(Error::new(ErrorCode::Conflict, message))
    }

    /// Ends the row of a deployment that has not recorded its end: one that failed early, or that had nothing to
    /// commit. Its new function is removed too, unless another command has asked for it.
    pub(super) async fn end(self, error: Option<&Error>) {
        let Self { context, row, log, .. } = self;
        let now = Timestamp::now();
        // Code that is not a bundle is not worth a row.
        let is_kept = |it: &&Error| matches!(it.code, ErrorCode::Cancelled | ErrorCode::ShuttingDown);
        let failed = error.filter(is_kept).map(|error| {
            let build_log = Some(format!("{}{}: {}", log.text(), error.code, error.message));
            Deployment { status: DeploymentStatus::Failed, build_log, finished_at: now, ..row.clone() }
        });
        let ended = context.blocking(move |context| {
            if context.store.end_deployment(row.function_id, row.id, failed.as_ref(), now)? {
                context.router.remove(row.function_id);
            }
            Ok(())
        });
        if let Err(error) = ended.await {
            tracing::warn!(%error, "the end of a deployment cannot be recorded: the next start of the daemon records it");
        }
    }
}
