//! EXPORT_MANIFEST and APPLY_MANIFEST, and the manifests that deployments leave.
//!
//! A version is meant by its digest: a label that has other code here is another version. To apply is all or nothing:
//! first everything is found, then every version is loaded, then one transaction moves all aliases.

use super::{
    Caller, Context,
    activate::{self, Act},
    aliases::{check_environment, check_name},
    approval::refuse_to_wait,
    deploy::check_text,
    room,
};
use crate::{
    error::{Error, ErrorCode},
    model::{
        AliasName, Deployment, DeploymentId, DeploymentKind, Digest, EnvironmentName, FunctionId, Percent, Split,
        Sticky, Timestamp, Version,
    },
    protocol::message::{
        ApplyManifestRequest, ApplyManifestResponse, ExportManifestRequest, Manifest, ManifestAlias, ManifestChange,
        ManifestDeployment, ManifestFunction, ManifestOther, ManifestSplit,
    },
    router::{Alias, Entry},
    store::{AliasChange, DeploymentCommit, FunctionRecord, Target},
};
use serde_json::json;
use std::{collections::HashSet, sync::Arc};

/// The form that is written, and the only one that is read.
const FORM: u32 = 1;

/// Deployments that are looked at when the daemon starts: those whose manifests a crash can have prevented.
const LAST_DEPLOYMENTS: u32 = 64;

pub(super) async fn export(context: &Arc<Context>, request: ExportManifestRequest) -> Result<Manifest, Error> {
    if let Some(id) = request.deployment_id {
        let id: DeploymentId = id.parse().map_err(|error| Error::invalid(format!("deployment_id: {error}")))?;
        let found = context.blocking(move |context| context.manifests.read(id).map_err(Error::internal)).await?;
        return found.ok_or_else(|| {
            Error::invalid(format!(
                "no manifest of {id} is kept: it moved nothing, or versioning.manifests_max later ones were written"
            ))
        });
    }
    let only = request.function_id.map(|it| context.router.function(&it)).transpose()?.map(|it| it.function.id);
    context
        .blocking(move |context| {
            let records = match only {
                Some(id) => vec![context.store.record(id)?],
                None => context.store.catalogue()?,
            };
            Ok(manifest(&records, None))
        })
        .await
}

fn manifest(records: &[FunctionRecord], deployment: Option<ManifestDeployment>) -> Manifest {
    let functions = records.iter().map(|record| {
        let version = |id| record.versions.iter().find(|it| it.id == id);
        let aliases = record.aliases.iter().filter(|it| !it.name.is_rollback()).filter_map(|alias| {
            let target = version(alias.version_id)?;
            let split = |it: Split| {
                let second = version(it.version_id)?;
                let (version, digest) = (second.label.to_string(), second.digest);
                Some(ManifestSplit { version, digest, weight: it.weight.into() })
            };
            Some(ManifestAlias {
                name: alias.name.to_string(),
                environment: alias.environment.to_string(),
                version: target.label.to_string(),
                number: target.number,
                digest: target.digest,
                split: alias.split.and_then(split),
                sticky: alias.sticky.as_ref().map(ToString::to_string),
                description: alias.description.clone(),
            })
        });
        ManifestFunction { name: record.function.name.to_string(), aliases: aliases.collect() }
    });
    Manifest { manifest: FORM, created_at: Timestamp::now(), deployment, functions: functions.collect() }
}

impl Context {
    /// Writes the manifests of deployments that were committed together. They document; nothing fails with them.
    pub(super) fn leave_manifests(&self, deployments: &[Deployment]) {
        let ids: HashSet<FunctionId> = deployments.iter().map(|it| it.function_id).collect();
        let written = || -> Result<(), Error> {
            let mut records =
                ids.into_iter().map(|id| self.store.record(id)).collect::<Result<Vec<FunctionRecord>, _>>()?;
            records.sort_by(|a, b| a.function.name.cmp(&b.function.name));
            for deployment in deployments {
                let of = records.iter().find(|it| it.function.id == deployment.function_id);
                let function = of.map(|it| it.function.name.to_string()).unwrap_or_default();
                let document = manifest(&records, Some(about(function, deployment)));
                self.manifests.write(deployment.id, &document).map_err(Error::internal)?;
            }
            self.manifests.prune(self.config.load().versioning.manifests_max as usize).map_err(Error::internal)
        };
        if let Err(error) = written() {
            tracing::warn!(%error, "the manifest of a deployment cannot be written");
        }
    }

    /// Writes what a crash between a commit and its manifest has prevented: of each function's last deployment, whose
    /// state is still the present one. Blocks.
    pub fn leave_missing_manifests(&self) {
        let last = match self.store.last_deployments(LAST_DEPLOYMENTS) {
            Ok(last) => last,
            Err(error) => return tracing::warn!(%error, "cannot look for missing manifests"),
        };
        let mut seen = HashSet::new();
        for deployment in last.into_iter().filter(|it| seen.insert(it.function_id)) {
            let is_there = self.router.function(&deployment.function_id.to_string()).is_ok();
            if is_there && !self.manifests.has(deployment.id) {
                self.leave_manifests(&[deployment]);
            }
        }
    }
}

fn about(function: String, deployment: &Deployment) -> ManifestDeployment {
    ManifestDeployment {
        deployment_id: deployment.id.to_string(),
        function,
        version: deployment.label.to_string(),
        alias: deployment.alias.to_string(),
        kind: deployment.kind,
        previous_version: deployment.previous.as_ref().map(ToString::to_string),
        actor: deployment.actor.clone(),
        reason: deployment.reason.clone(),
    }
}

/// What a manifest wants of one alias.
struct Wanted {
    entry: Arc<Entry>,
    name: AliasName,
    environment: EnvironmentName,
    version: Arc<Version>,
    second: Option<(Arc<Version>, Percent)>,
    sticky: Option<Sticky>,
    description: Option<String>,
}

pub(super) async fn apply(
    context: &Arc<Context>,
    request: ApplyManifestRequest,
    caller: &Caller,
) -> Result<ApplyManifestResponse, Error> {
    check_text("reason", request.reason.as_deref())?;
    if request.manifest.manifest != FORM {
        let found = request.manifest.manifest;
        return Err(Error::invalid(format!("the manifest has form {found}, and this daemon reads form {FORM}")));
    }
    let reason = request.reason.unwrap_or_else(|| format!("manifest of {}", request.manifest.created_at));
    let (functions, dry_run) = (request.manifest.functions, request.dry_run);
    let (owner, caller) = (Arc::clone(context), caller.clone());
    context
        .to_its_end(async move {
            let mut ids: Vec<FunctionId> = functions
                .iter()
                .filter_map(|it| owner.router.function(&it.name).ok())
                .map(|it| it.function.id)
                .collect();
            // Always in the same order, so that two who apply manifests do not wait for each other.
            ids.sort();
            ids.dedup();
            let mut changing = Vec::with_capacity(ids.len());
            for id in ids {
                changing.push(owner.changing.lock(id).await);
            }
            if owner.stopping.is_cancelled() {
                return Err(super::shutting_down());
            }
            let wanted = find(&owner, &functions).await?;
            let (unchanged, changed): (Vec<Wanted>, Vec<Wanted>) = wanted.into_iter().partition(Wanted::is_done);
            let mut response = ApplyManifestResponse {
                dry_run,
                changes: changed.iter().map(Wanted::change).collect(),
                unchanged: unchanged.len() as u32,
                others: others(&owner, &functions),
            };
            for wanted in &changed {
                for (act, version) in wanted.acts(&owner, &caller, &reason) {
                    refuse_to_wait(&owner, act.row(&wanted.entry, &version), version.id).await?;
                }
            }
            if !dry_run && !changed.is_empty() {
                let done = carry_out(&owner, &changed, &caller, &reason).await?;
                for (change, deployments) in response.changes.iter_mut().zip(done) {
                    change.deployments = deployments;
                }
            }
            Ok(response)
        })
        .await
}

/// Everything the manifest names, or all that is wrong with it at once.
async fn find(context: &Arc<Context>, functions: &[ManifestFunction]) -> Result<Vec<Wanted>, Error> {
    let (mut wanted, mut problems, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for function in functions {
        let entry = match context.router.function(&function.name) {
            Ok(entry) => entry,
            Err(error) => {
                problems.push(error);
                continue;
            }
        };
        for alias in &function.aliases {
            let found = Wanted::find(&entry, alias);
            let found = match found {
                Ok(found) if seen.insert((entry.function.id, found.name.clone())) => {
                    let (id, environment) = (entry.function.id, found.environment.clone());
                    check_environment(context, id, &found.name, environment).await.map(|()| found)
                }
                Ok(found) => Err(Error::invalid(format!("{} stands twice in the manifest", found.name))),
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => wanted.push(found),
                Err(error) => {
                    let message = format!("{}:{}: {}", function.name, alias.name, error.message);
                    problems.push(Error { message, ..error });
                }
            }
        }
    }
    match problems.len() {
        0 => Ok(wanted),
        1 => Err(problems.remove(0)),
        count => {
            let all: Vec<_> = problems.iter().map(|it| json!({ "code": it.code, "error": it.message })).collect();
            let first = problems.remove(0);
            let message = format!("nothing is applied, {count} things are wrong: {}; …", first.message);
            Err(Error::new(first.code, message).with_details(json!({ "problems": all })))
        }
    }
}

/// Aliases that there are and the manifest does not name.
fn others(context: &Context, functions: &[ManifestFunction]) -> Vec<ManifestOther> {
    let mut others = Vec::new();
    for function in functions {
        let Ok(entry) = context.router.function(&function.name) else { continue };
        let is_named = |alias: &&Alias| function.aliases.iter().any(|it| it.name == alias.name.as_str());
        for alias in entry.aliases.iter().filter(|it| !it.name.is_rollback() && !is_named(it)) {
            others.push(ManifestOther {
                function: function.name.clone(),
                alias: alias.name.to_string(),
                version: shown(&entry, alias.version).to_owned(),
            });
        }
    }
    others
}

fn shown(entry: &Entry, version: crate::model::VersionId) -> &str {
    entry.version(version).map_or("?", |it| it.label.as_str())
}

/// `v1`, or `v1 90 %, v2 10 %`.
fn targets(own: &str, second: Option<(&str, Percent)>) -> String {
    match second {
        None => own.to_owned(),
        Some((version, weight)) => format!("{own} {}, {version} {weight}", weight.rest()),
    }
}

/// The version with this digest; among several the one with the label.
fn version_with(entry: &Entry, label: &str, digest: Digest) -> Result<Arc<Version>, Error> {
    let labelled = entry.labelled(label);
    let same =
        labelled.filter(|it| it.digest == digest).or_else(|| entry.versions.iter().find(|it| it.digest == digest));
    same.cloned().ok_or_else(|| match labelled {
        Some(_) => Error::new(
            ErrorCode::VersionNotFound,
            format!(
                "`{label}` of `{}` has other code here, and no version has the code of the manifest",
                entry.function.name
            ),
        ),
        None => entry.version_not_found(label),
    })
}

impl Wanted {
    fn find(entry: &Arc<Entry>, alias: &ManifestAlias) -> Result<Self, Error> {
        let name = activate::alias(Some(&alias.name))?;
        check_name(entry, &name)?;
        let invalid = |error: String| Error::invalid(error);
        let second = alias.split.as_ref().map(|it| {
            let weight = Percent::try_from(it.weight).map_err(|error| invalid(error.to_string()))?;
            Ok::<_, Error>((version_with(entry, &it.version, it.digest)?, weight))
        });
        let sticky = alias.sticky.as_deref().map(str::parse).transpose();
        let environment: EnvironmentName = alias.environment.parse()?;
        if name.is_live() && environment != name.environment() {
            return Err(invalid(format!("LIVE runs in {} and nowhere else", name.environment())));
        }
        Ok(Self {
            entry: Arc::clone(entry),
            name,
            environment,
            version: version_with(entry, &alias.version, alias.digest)?,
            second: second.transpose()?,
            sticky: sticky.map_err(|error: crate::model::StickyError| invalid(error.to_string()))?,
            description: alias.description.clone(),
        })
    }

    /// Whether the alias is as it shall be; its description aside, which no call depends on.
    fn is_done(&self) -> bool {
        let split = self.second.as_ref().map(|(version, weight)| Split { version_id: version.id, weight: *weight });
        self.entry.alias(self.name.as_str()).is_some_and(|it| {
            it.version == self.version.id
                && it.environment == self.environment
                && it.split == split
                && it.sticky == self.sticky
        })
    }

    fn change(&self) -> ManifestChange {
        let present = self.entry.alias(self.name.as_str());
        let from = present.map(|it| {
            let second = it.split.map(|split| (shown(&self.entry, split.version_id), split.weight));
            targets(shown(&self.entry, it.version), second)
        });
        let second = self.second.as_ref().map(|(version, weight)| (version.label.as_str(), *weight));
        ManifestChange {
            function: self.entry.function.name.to_string(),
            alias: self.name.to_string(),
            from,
            to: targets(self.version.label.as_str(), second),
            deployments: Vec::new(),
        }
    }

    /// The acts that make it so, each with its version: the alias's own first, which ends any split, then the second.
    fn acts(&self, context: &Arc<Context>, caller: &Caller, reason: &str) -> Vec<(Act, Arc<Version>)> {
        let act = |kind, weight| {
            let mut act = Act::new(context, kind, self.name.clone(), caller, Some(reason.to_owned()));
            act.environment = Some(self.environment.clone());
            act.description.clone_from(&self.description);
            (act.sticky, act.weight) = (Some(self.sticky.clone()), weight);
            act
        };
        let own = (act(DeploymentKind::Promote, None), Arc::clone(&self.version));
        let second = self.second.as_ref();
        let second = second.map(|(version, weight)| (act(DeploymentKind::Traffic, Some(*weight)), Arc::clone(version)));
        [own].into_iter().chain(second).collect()
    }
}

/// Loads every version, then moves all aliases at once. Gives the deployments of each change.
async fn carry_out(
    context: &Arc<Context>,
    changed: &[Wanted],
    caller: &Caller,
    reason: &str,
) -> Result<Vec<Vec<String>>, Error> {
    let mut acts = Vec::new();
    for (index, wanted) in changed.iter().enumerate() {
        room::check(context, &wanted.entry, &wanted.entry.function.settings)?;
        for (act, version) in wanted.acts(context, caller, reason) {
            if let Err(error) = act.ready(&wanted.entry, &version, 0).await {
                act.record_failure(&wanted.entry, &version.label, &error).await;
                let message =
                    format!("nothing is applied: {}:{}: {}", wanted.entry.function.name, wanted.name, error.message);
                return Err(Error { message, ..error });
            }
            acts.push((index, act, version));
        }
    }
    let rows: Vec<Deployment> =
        acts.iter().map(|(index, act, version)| act.row(&changed[*index].entry, version)).collect();
    let changes: Vec<_> =
        acts.iter().map(|(_, act, version)| (version.id, act.description.clone(), act.sticky.clone())).collect();
    let committed = rows.clone();
    context
        .blocking(move |context| {
            let commits: Vec<_> = rows
                .iter()
                .zip(&changes)
                .map(|(deployment, (version, description, sticky))| {
                    let commit = DeploymentCommit { target: Target::Existing(*version), deployment };
                    let sticky = sticky.as_ref().map(Option::as_ref);
                    (commit, AliasChange { description: description.as_deref(), sticky, rollout: None })
                })
                .collect();
            context.store.commit_all(&commits)?;
            let ids: HashSet<_> = rows.iter().map(|it| it.function_id).collect();
            ids.into_iter().try_for_each(|id| context.refresh(id))?;
            context.leave_manifests(&rows);
            Ok(())
        })
        .await?;
    let mut deployments = vec![Vec::new(); changed.len()];
    for ((index, act, version), row) in acts.iter().zip(committed) {
        act.move_traffic(&changed[*index].entry, version, true);
        deployments[*index].push(row.id.to_string());
    }
    Ok(deployments)
}
