//! ROLLBACK.

use super::{Caller, Context, activate::Act, delete::not_found, deploy::check_alias};
use crate::{
    error::{Error, ErrorCode},
    model::{AliasName, DeploymentKind, Version},
    protocol::message::{DeployResponse, RollbackRequest, VersionRef},
    router::Entry,
};
use std::sync::Arc;

pub(super) async fn run(
    context: &Arc<Context>,
    request: RollbackRequest,
    caller: &Caller,
) -> Result<DeployResponse, Error> {
    check_alias(request.alias.as_deref())?;
    let id = context.router.function(&request.function_id)?.function.id;
    let act = Act::new(context, DeploymentKind::Rollback, caller, request.reason);
    let context = Arc::clone(context);
    let owner = Arc::clone(&context);
    owner
        .to_its_end(async move {
            let _changing = context.changing.lock(id).await;
            let entry = context.router.function(&id.to_string())?;
            let version = match &request.version {
                Some(wanted) => named(&entry, wanted)?,
                None => previous(&context, &entry).await?,
            };
            act.activate(&entry, &version, 0).await
        })
        .await
}

/// The version with this number or label. A text of digits is a label first, then a number.
fn named(entry: &Entry, wanted: &VersionRef) -> Result<Arc<Version>, Error> {
    let by_number = |number: u32| entry.versions.iter().find(|it| it.number == number);
    let (found, shown) = match wanted {
        VersionRef::Number(number) => (by_number(*number), number.to_string()),
        VersionRef::Label(label) => {
            let by_label = entry.labelled(label);
            (by_label.or_else(|| label.parse().ok().and_then(by_number)), label.clone())
        }
    };
    found.cloned().ok_or_else(|| not_found(entry.function.name.as_str(), &shown))
}

async fn previous(context: &Arc<Context>, entry: &Entry) -> Result<Arc<Version>, Error> {
    let id = entry.function.id;
    let previous = context.blocking(move |context| Ok(context.store.previous_target(id, &AliasName::live())?)).await?;
    previous.and_then(|id| entry.version(id)).cloned().ok_or_else(|| {
        let name = &entry.function.name;
        Error::new(
            ErrorCode::VersionNotFound,
            format!("`{name}` has no version to roll back to: LIVE has pointed at one version only"),
        )
    })
}
