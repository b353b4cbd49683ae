//! ROLLBACK.
//!
//! A rollback to a version that already took invocations of the alias needs no approval, even in a protected
//! environment: an emergency does not wait. A deployment of its label and a rollback by policy need none either.

use super::{
    Caller, Command, Context,
    placement::{self, AliasMove, movable_alias},
    texts::check_text,
};
use crate::{
    error::{Error, ErrorCode},
    model::{AliasName, DeploymentKind, Version},
    protocol::message::{DeployResponse, RollbackRequest},
    router::Entry,
};
use std::sync::Arc;

impl Command for RollbackRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<DeployResponse, Error> {
        let alias = movable_alias(self.alias.as_deref())?;
        check_text("reason", self.reason.as_deref())?;
        let id = context.router.function(&self.function_id)?.function.id;
        let wanted = AliasMove::new(DeploymentKind::Rollback, alias.clone(), caller, self.reason);
        context
            .place(caller, id, async move |placement| {
                let entry = &placement.entry;
                // `LIVE` exists for every function; if it points at nothing yet, a later check says so.
                if !alias.is_live() && entry.alias(alias.as_str()).is_none() {
                    return Err(entry.alias_not_found(alias.as_str()));
                }
                let version = match &self.version {
                    Some(wanted) => placement::version(entry, wanted)?,
                    None => match split_from(entry, alias.as_str()) {
                        Some(own) => own,
                        None => previous(&placement.context, entry, alias).await?,
                    },
                };
                placement.apply(wanted, version, self.dry_run).await
            })
            .await
    }
}

/// While an alias is split, going back ends the split: the alias's own version gets all invocations again.
fn split_from(entry: &Entry, alias: &str) -> Option<Arc<Version>> {
    let alias = entry.alias(alias).filter(|it| it.split.is_some())?;
    entry.version(alias.version).cloned()
}

async fn previous(context: &Arc<Context>, entry: &Entry, alias: AliasName) -> Result<Arc<Version>, Error> {
    let (id, name) = (entry.function.id, alias.clone());
    let previous = context.blocking(move |context| Ok(context.store.previous_target(id, &name)?)).await?;
    previous.and_then(|id| entry.version(id)).cloned().ok_or_else(|| {
        let name = &entry.function.name;
        Error::new(
            ErrorCode::VersionNotFound,
            format!("`{name}` has no version to roll back to: {alias} has pointed at one version only"),
        )
    })
}
