//! DELETE_FUNCTION and DELETE_VERSION.

use super::Context;
use crate::{
    error::Error,
    model::{FunctionStatus, Timestamp},
    protocol::message::{DeleteRequest, DeleteResponse, DeleteVersionRequest, DeleteVersionResponse},
};
use std::sync::Arc;

pub(super) async fn function(context: &Arc<Context>, request: DeleteRequest) -> Result<DeleteResponse, Error> {
    let id = context.router.function(&request.function_id)?.function.id;
    let owner = Arc::clone(context);
    context
        .to_its_end(async move {
            let _changing = owner.changing.lock(id).await;
            let entry = owner.router.function(&id.to_string())?;
            owner.blocking(move |context| Ok(context.store.delete_function(id, Timestamp::now())?)).await?;
            owner.router.remove(id);
            for version in &entry.versions {
                owner.scheduler.close(version.id);
            }
            let remove = move |context: &Context| {
                entry.versions.iter().for_each(|version| context.bytecode.remove(version.id));
                Ok(())
            };
            owner.blocking(remove).await?;
            Ok(DeleteResponse { function_id: id.to_string(), status: FunctionStatus::Deleted })
        })
        .await
}

pub(super) async fn version(
    context: &Arc<Context>,
    request: DeleteVersionRequest,
) -> Result<DeleteVersionResponse, Error> {
    let id = context.router.function(&request.function_id)?.function.id;
    let owner = Arc::clone(context);
    context
        .to_its_end(async move {
            let _changing = owner.changing.lock(id).await;
            let entry = owner.router.function(&id.to_string())?;
            let Some(version) = entry.labelled(&request.version).cloned() else {
                return Err(entry.version_not_found(&request.version));
            };
            let (version_id, label) = (version.id, version.label.clone());
            owner
                .blocking(move |context| {
                    context.store.delete_version(id, version_id, Timestamp::now())?;
                    context.refresh(id)?;
                    // The row is gone, so nothing can need the code; what a crash leaves here goes at the next start.
                    context.scheduler.close(version_id);
                    context.bytecode.remove(version_id);
                    context.bundles.remove(id, &label)?;
                    Ok(())
                })
                .await?;
            Ok(DeleteVersionResponse { function_id: id.to_string(), version: version.label.to_string() })
        })
        .await
}
