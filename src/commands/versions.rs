//! GET_FUNCTION_VERSIONS and GET_DEPLOYMENTS.

use super::Context;
use crate::{
    error::Error,
    model::{Deployment, DeploymentStatus, Timestamp, Version},
    protocol::message::{
        DeploymentInfo, DeploymentsRequest, DeploymentsResponse, VersionInfo, VersionsRequest, VersionsResponse,
    },
    router::Entry,
    store::DeploymentQuery,
};
use std::sync::Arc;

/// Deployments in an answer when the request does not say.
const DEPLOYMENTS_DEFAULT: u32 = 100;

pub(super) fn run(context: &Context, request: &VersionsRequest) -> Result<VersionsResponse, Error> {
    let entry = context.router.function(&request.function_id)?;
    Ok(VersionsResponse { versions: entry.versions.iter().map(|version| info(context, &entry, version)).collect() })
}

fn info(context: &Context, entry: &Entry, version: &Version) -> VersionInfo {
    let folder = context.bundles.folder(entry.function.id, &version.label);
    let aliases = entry.aliases.iter().filter(|alias| alias.targets().any(|(id, _)| id == version.id));
    VersionInfo {
        id: version.id.to_string(),
        version: version.label.to_string(),
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
        bun_version: version.bun_version.clone(),
        settings: version.settings,
        bytecode: context.bytecode.has(version.id),
    }
}

pub(super) async fn deployments(
    context: &Arc<Context>,
    request: DeploymentsRequest,
) -> Result<DeploymentsResponse, Error> {
    let id = context.router.function(&request.function_id)?.function.id;
    let query = DeploymentQuery {
        alias: request.alias.map(|it| it.parse()).transpose()?,
        status: request.status,
        limit: request.limit.unwrap_or(DEPLOYMENTS_DEFAULT),
        offset: request.offset.unwrap_or(0),
    };
    let deployments = context.blocking(move |context| Ok(context.store.deployments_of(id, &query)?)).await?;
    Ok(DeploymentsResponse { deployments: deployments.into_iter().map(deployment_info).collect() })
}

/// The clock may have been set back in between.
fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millis().saturating_sub(from.as_millis())).unwrap_or(0)
}

fn deployment_info(deployment: Deployment) -> DeploymentInfo {
    DeploymentInfo {
        deployment_id: deployment.id.to_string(),
        version: deployment.label.to_string(),
        number: deployment.number,
        alias: deployment.alias.to_string(),
        environment: deployment.environment.to_string(),
        kind: deployment.kind,
        status: deployment.status,
        is_active: deployment.status == DeploymentStatus::Active,
        weight: deployment.weight.map(u32::from),
        previous_version: deployment.previous.map(|it| it.to_string()),
        created_at: deployment.created_at,
        finished_at: deployment.finished_at,
        duration_ms: millis_between(deployment.created_at, deployment.finished_at),
        actor: deployment.actor,
        reason: deployment.reason,
        build_log: deployment.build_log,
    }
}
