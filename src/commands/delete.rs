//! DELETE_FUNCTION and DELETE_VERSION.

use super::{Caller, Command, Context, placement};
use crate::{
    error::Error,
    model::{FunctionId, FunctionStatus, Timestamp, Version},
    protocol::message::{DeleteRequest, DeleteResponse, DeleteVersionRequest, DeleteVersionResponse},
};
use std::sync::Arc;

impl Command for DeleteRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<DeleteResponse, Error> {
        let id = context.router.function(&self.function_id)?.function.id;
        let (owner, actor) = (Arc::clone(context), Arc::clone(&caller.actor));
        context
            .to_its_end(async move {
                let (_changing, entry) = owner.hold(id).await?;
                let delete =
                    move |context: &Context| Ok(context.store.delete_function(id, &actor, Timestamp::now())?);
                owner.blocking(delete).await?;
                owner.router.remove(id);
                for version in entry.versions.iter() {
                    owner.scheduler.close(version.id);
                }
                let remove = move |context: &Context| {
                    entry.versions.iter().for_each(|version| context.code.bytecode.remove(version.id));
                    Ok(())
                };
                owner.blocking(remove).await?;
                owner.reload_variables().await?;
                Ok(DeleteResponse { function_id: id, status: FunctionStatus::Deleted })
            })
            .await
    }
}

impl Command for DeleteVersionRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<DeleteVersionResponse, Error> {
        let id = context.router.function(&self.function_id)?.function.id;
        let owner = Arc::clone(context);
        context
            .to_its_end(async move {
                let (_changing, entry) = owner.hold(id).await?;
                let version = placement::version(&entry, &self.version)?;
                let label = version.label.clone();
                owner
                    .blocking(move |context| {
                        context.store.delete_version(id, version.id, Timestamp::now())?;
                        forget(context, id, [&*version])
                    })
                    .await?;
                Ok(DeleteVersionResponse { function_id: id, version: label })
            })
            .await
    }
}

/// Ends the workers of versions whose rows are gone, and removes their code, which nothing can need any more. Files
/// that a crash leaves here are removed at the next start. Blocks on the disk.
pub(super) fn forget<'a>(
    context: &Context,
    function_id: FunctionId,
    gone: impl IntoIterator<Item = &'a Version>,
) -> Result<(), Error> {
    context.refresh(function_id)?;
    let mut outcome = Ok(());
    for version in gone {
        context.scheduler.close(version.id);
        context.code.bytecode.remove(version.id);
        outcome = outcome.and(context.code.bundles.remove(function_id, &version.label).map_err(Error::from));
    }
    outcome
}
