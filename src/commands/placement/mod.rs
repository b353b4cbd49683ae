//! Pointing an alias at a version, the work that DEPLOY_FUNCTION, ROLLBACK, SET_ALIAS, SET_TRAFFIC, PROMOTE, approvals,
//! rollouts, policies and manifests share.
//!
//! ```text
//! AliasMove + Entry + Version ──▶ Plan ──▶ load ──▶ commit ──▶ DeployResponse
//!   a request, immutable          pure      │
//!                                           └──▶ rehearse: a dry run ends here, and nothing is kept
//! ```
//!
//! On any failure before the commit, the alias stays where it was.

mod answer;
mod capacity;
mod commit;
mod floors;
mod load;
mod plan;
mod request;
mod steps;
#[cfg(test)]
mod tests;

pub(super) use capacity::check as check_capacity;
pub(super) use load::DEPLOY_PATIENCE;
pub(super) use plan::{Delivery, Plan};
pub(super) use request::{AliasMove, movable_alias, version};

use super::{Caller, Context, cancel::Cancellation};
use crate::{
    error::Error,
    model::{DeployOutcome, Deployment, FunctionId, Version},
    protocol::message::DeployResponse,
    router::Entry,
};
use plan::{AliasOutcome, Facts};
use std::{future::Future, sync::Arc};

/// A function whose aliases are moved. The holder of this must hold the function's change lock.
pub(super) struct Placement {
    pub(super) context: Arc<Context>,
    /// The function before the move.
    pub(super) entry: Arc<Entry>,
    /// Lets the client cancel the move until it commits.
    pub(super) cancellation: Cancellation,
}

impl Context {
    /// Runs a command that moves aliases of a function, under the function's change lock. Its client may cancel it
    /// until it commits.
    pub(super) async fn place<T, F>(
        self: &Arc<Self>,
        caller: &Caller,
        id: FunctionId,
        command: impl FnOnce(Placement) -> F + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send,
    {
        let context = Arc::clone(self);
        self.until_cancelled(caller, |cancellation| async move {
            let (_changing, entry) = cancellation.run(context.hold(id)).await??;
            command(Placement { context, entry, cancellation }).await
        })
        .await
    }
}

impl Placement {
    /// A placement that runs to its end.
    pub(super) fn new(context: &Arc<Context>, entry: &Arc<Entry>) -> Self {
        Self { context: Arc::clone(context), entry: Arc::clone(entry), cancellation: Cancellation::default() }
    }

    /// Refuses a function whose settings can never run on this node.
    pub(super) fn check_capacity(&self) -> Result<(), Error> {
        check_capacity(&self.context, &self.entry, &self.entry.function.settings)
    }

    /// Points the alias at a published version, or only plans to.
    pub(super) async fn apply(
        &self,
        wanted: AliasMove,
        version: Arc<Version>,
        dry_run: bool,
    ) -> Result<DeployResponse, Error> {
        self.apply_delivered(wanted, version, Delivery::default(), dry_run).await
    }

    /// Does what [`Self::apply`] does for a version whose deployment has more to say.
    pub(super) async fn apply_delivered(
        &self,
        wanted: AliasMove,
        version: Arc<Version>,
        delivery: Delivery,
        dry_run: bool,
    ) -> Result<DeployResponse, Error> {
        let plan = self.plan(wanted, version, delivery).await?;
        if dry_run { self.rehearse(&plan).await } else { self.carry_out(&plan).await }
    }

    /// Plans a move on the function's present state.
    pub(super) async fn plan(
        &self,
        wanted: AliasMove,
        version: Arc<Version>,
        delivery: Delivery,
    ) -> Result<Plan, Error> {
        let facts = match wanted.is_done(&self.entry, &version) {
            true => Facts::default(),
            false => {
                let waiting = self.waiting(&wanted).await?.into_iter().find(|it| it.1.id == version.id);
                let (row, known) = (wanted.row(&self.entry, &version), (!delivery.is_new).then_some(version.id));
                let asking = self.context.blocking(move |context| Ok(context.store.needs_approval(&row, known)?));
                Facts { waiting: waiting.map(|it| it.0), needs_approval: asking.await? }
            }
        };
        Ok(Plan::of(&self.entry, wanted, version, facts, delivery))
    }

    /// Deployments that wait for approval to make the same move, with their versions, the latest first.
    ///
    /// A rollout never waits: it begins or it does not.
    pub(super) async fn waiting(&self, wanted: &AliasMove) -> Result<Vec<(Deployment, Arc<Version>)>, Error> {
        if wanted.change.rollout.is_some() {
            return Ok(Vec::new());
        }
        let waiting = self.context.blocking(|context| Ok(context.store.waiting()?)).await?;
        let version = |it: &Deployment| self.entry.numbered(it.number?).cloned();
        let same = waiting.into_iter().filter(|it| wanted.is_same_as(&self.entry, it));
        Ok(same.filter_map(|it| version(&it).map(|version| (it, version))).collect())
    }

    async fn carry_out(&self, plan: &Plan) -> Result<DeployResponse, Error> {
        match &plan.outcome {
            AliasOutcome::Unchanged => self.keep(plan).await,
            AliasOutcome::NotMeant => Ok(self.answer(plan, None, DeployOutcome::Built)),
            AliasOutcome::WaitsAlready(waiting) => Ok(self.answer(plan, Some(waiting), waiting.status.into())),
            AliasOutcome::Waits | AliasOutcome::Moves => match self.ready(plan).await {
                Ok(()) => self.commit(plan).await,
                Err(error) => {
                    self.record_failure(plan, &error).await;
                    Err(error)
                }
            },
        }
    }
}
