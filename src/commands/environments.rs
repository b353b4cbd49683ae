//! SET_ENVIRONMENT and LIST_ENVIRONMENTS.

use super::{Caller, Context};
use crate::{
    error::Error,
    model::EnvironmentName,
    protocol::message::{EnvironmentInfo, EnvironmentsResponse, SetEnvironmentRequest},
    store::{EnvironmentRecord, StoreError},
};
use std::sync::Arc;

pub(super) async fn set(
    context: &Arc<Context>,
    request: SetEnvironmentRequest,
    caller: &Caller,
) -> Result<EnvironmentInfo, Error> {
    let name: EnvironmentName = request.name.parse()?;
    let (owner, actor, protected) = (Arc::clone(context), Arc::clone(&caller.actor), request.protected);
    context
        .to_its_end(async move {
            let changed = name.clone();
            let records = owner.blocking(move |context| {
                match context.store.protect(&changed, protected) {
                    // Told below, with the environments there are.
                    Ok(()) | Err(StoreError::EnvironmentNotFound(_)) => Ok(context.store.environments()?),
                    Err(error) => Err(error.into()),
                }
            });
            let records = records.await?;
            let Some(record) = records.iter().find(|it| it.name == name) else { return Err(not_found(name, &records)) };
            tracing::info!(environment = %name, protected, actor = &*actor, "environment changed");
            Ok(info(record))
        })
        .await
}

/// An environment that is not there, with those that are.
pub(super) fn not_found(name: EnvironmentName, records: &[EnvironmentRecord]) -> Error {
    let there: Vec<_> = records.iter().map(|it| &it.name).collect();
    Error::from(StoreError::EnvironmentNotFound(name)).with_details(serde_json::json!({ "environments": there }))
}

pub(super) async fn list(context: &Arc<Context>) -> Result<EnvironmentsResponse, Error> {
    let records = context.blocking(|context| Ok(context.store.environments()?)).await?;
    Ok(EnvironmentsResponse { environments: records.iter().map(info).collect() })
}

fn info(record: &EnvironmentRecord) -> EnvironmentInfo {
    EnvironmentInfo {
        name: record.name.to_string(),
        parent: record.parent.as_ref().map(ToString::to_string),
        protected: record.protected,
        aliases: record.aliases,
        created_at: record.created_at,
    }
}
