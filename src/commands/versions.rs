//! GET_FUNCTION_VERSIONS, GET_VERSION, TAG_VERSION and GET_DEPLOYMENTS.

use super::{
    Caller, Command, Context, approval,
    page::{Asked, PAGE_MAX, Page},
    placement,
    texts::{check_tags, check_text},
};
use crate::{
    error::Error,
    model::{Deployment, DeploymentStatus, FunctionId, Timestamp, Version},
    protocol::message::{
        DeploymentInfo, DeploymentsRequest, DeploymentsResponse, TagVersionRequest, VersionInfo, VersionRequest,
        VersionsRequest, VersionsResponse,
    },
    router::Entry,
    store::DeploymentQuery,
};
use std::sync::Arc;

/// Default number of deployments in an answer.
const DEPLOYMENTS_DEFAULT: u32 = 100;

impl Command for VersionsRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<VersionsResponse, Error> {
        let asked = Asked { limit: self.limit, offset: None, cursor: self.cursor.as_deref() };
        let page = Page::<u32>::new(context, "versions", &asked, (PAGE_MAX, PAGE_MAX))?;
        let entry = context.router.function(&self.function_id)?;
        let rows = entry.versions.iter().filter(|it| page.after.is_none_or(|after| it.number < after));
        let (versions, next_cursor) = page.fill(rows, |it| it.number, |it| info(context, &entry, it));
        Ok(VersionsResponse { versions, next_cursor })
    }
}

impl Command for VersionRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<VersionInfo, Error> {
        let entry = context.router.function(&self.function_id)?;
        Ok(info(context, &entry, &*placement::version(&entry, &self.version)?))
    }
}

fn info(context: &Context, entry: &Entry, version: &Version) -> VersionInfo {
    let folder = context.code.bundles.folder(entry.function.id, &version.label);
    let aliases = entry.aliases.iter().filter(|alias| alias.targets().any(|(id, _)| id == version.id));
    VersionInfo {
        id: version.id,
        version: version.label.clone(),
        number: version.number,
        created_at: version.created_at,
        bundle_path: folder.join(&version.entry).to_string_lossy().into_owned(),
        digest: version.digest,
        size: version.size,
        description: version.description.clone(),
        tags: version.tags.clone(),
        aliases: aliases.map(|alias| alias.name.to_string()).collect(),
        git_commit: version.git_commit.clone(),
        git_branch: version.git_branch.clone(),
        source: version.source,
        bun_version: version.bun_version.clone(),
        settings: version.settings,
        bytecode: context.code.bytecode.has(version.id),
    }
}

/// Changes the tags and the description of a version.
impl Command for TagVersionRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<VersionInfo, Error> {
        let TagVersionRequest { function_id, version, add, remove, description } = self;
        check_text("description", description.as_deref())?;
        if add.is_empty() && remove.is_empty() && description.is_none() {
            return Err(Error::invalid("nothing to change: give tags to `add` or `remove`, or a `description`"));
        }
        let id = context.router.function(&function_id)?.function.id;
        let owner = Arc::clone(context);
        context
            .to_its_end(async move {
                let (_changing, entry) = owner.hold(id).await?;
                let mut changed = Version::clone(&*placement::version(&entry, &version)?);
                changed.tags.retain(|it| !remove.contains(it));
                for tag in add {
                    if !changed.tags.contains(&tag) {
                        changed.tags.push(tag);
                    }
                }
                check_tags(&changed.tags)?;
                if let Some(description) = description {
                    changed.description = Some(description).filter(|it| !it.is_empty());
                }
                let (written, id) = (changed.clone(), changed.function_id);
                owner
                    .blocking(move |context| {
                        context.store.describe_version(&written, Timestamp::now())?;
                        context.refresh(id)
                    })
                    .await?;
                Ok(info(&owner, &*owner.router.by_id(id)?, &changed))
            })
            .await
    }
}

impl Command for DeploymentsRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<DeploymentsResponse, Error> {
        let id = match self.function_id.as_str() {
            "" if self.status.is_none() => {
                return Err(Error::invalid(
                    "give `function_id`, or a `status` to list the deployments of all functions",
                ));
            }
            "" => None,
            name => Some(context.router.function(name)?.function.id),
        };
        let asked = Asked { limit: self.limit, offset: self.offset, cursor: self.cursor.as_deref() };
        let page = Page::<i64>::new(context, "deployments", &asked, (DEPLOYMENTS_DEFAULT, PAGE_MAX))?;
        let query = DeploymentQuery {
            alias: self.alias.map(|it| it.parse()).transpose()?,
            status: self.status,
            version: self.version,
            before: page.after,
            // One more row tells whether there is another page.
            limit: page.limit + 1,
            offset: self.offset.unwrap_or(0),
        };
        let reading = context.blocking(move |context| {
            let rows = context.store.deployments_page(id, &query)?;
            rows.into_iter().map(|(place, row)| Ok((place, function_name(context, row.function_id)?, row))).collect()
        });
        let rows: Vec<(i64, String, Deployment)> = reading.await?;
        let (deployments, next_cursor) = page.fill(rows, |it| it.0, |it| deployment_info(context, it.1, it.2));
        Ok(DeploymentsResponse { deployments, next_cursor })
    }
}

/// Milliseconds between two times; zero if the clock was set back in between.
fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millis().saturating_sub(from.as_millis())).unwrap_or(0)
}

/// Name of the function, even if it is deleted.
pub(super) fn function_name(context: &Context, id: FunctionId) -> Result<String, Error> {
    match context.router.by_id(id) {
        Ok(entry) => Ok(entry.function.name.to_string()),
        Err(_) => Ok(context.store.function_name(id)?.to_string()),
    }
}

fn deployment_info(context: &Context, function: String, deployment: Deployment) -> DeploymentInfo {
    let (decided_by, decision, decided_at) = match deployment.decision {
        Some(decision) => (Some(decision.by), decision.reason, Some(decision.at)),
        None => (None, None, None),
    };
    let is_waiting = deployment.status == DeploymentStatus::PendingApproval;
    let is_running = deployment.status == DeploymentStatus::Building;
    let finished_at = if is_running { Timestamp::now() } else { deployment.finished_at };
    DeploymentInfo {
        deployment_id: deployment.id.to_string(),
        version: deployment.label,
        number: deployment.number,
        alias: deployment.alias,
        environment: deployment.environment,
        kind: deployment.kind,
        status: deployment.status,
        is_active: deployment.status == DeploymentStatus::Active,
        weight: deployment.weight.map(u32::from),
        previous_version: deployment.previous,
        created_at: deployment.created_at,
        finished_at,
        duration_ms: millis_between(deployment.created_at, finished_at),
        actor: deployment.actor,
        reason: deployment.reason,
        build_log: deployment.build_log,
        function_id: deployment.function_id,
        function,
        decided_by,
        decision,
        decided_at,
        expires_at: is_waiting.then(|| approval::expiry(context, deployment.finished_at)),
    }
}
