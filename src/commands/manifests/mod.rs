//! EXPORT_MANIFEST and APPLY_MANIFEST, and the manifests that deployments leave.
//!
//! A digest identifies a version: a label with other code is another version. To apply is all or nothing: first
//! everything is found, then every version is loaded, then one transaction moves all aliases.

mod wanted;

pub(super) use wanted::{Wanted, apply_all};

use super::{Caller, Command, Context, aliases::check_environment, texts::check_text};
use crate::{
    error::{Error, ErrorCode},
    model::{Deployment, DeploymentId, Function, FunctionId, Split, Timestamp, Version, VersionId},
    protocol::message::{
        ApplyManifestRequest, ApplyManifestResponse, ExportManifestRequest, Manifest, ManifestAlias,
        ManifestDeployment, ManifestFunction, ManifestOther, ManifestSplit,
    },
    router::Alias,
    store::AliasRecord,
};
use serde_json::json;
use std::{collections::HashSet, sync::Arc};
use wanted::shown;

/// Form of the manifests that are written, and the only one that is read.
const FORM: u32 = 1;

/// Deployments that are examined when the daemon starts: a crash may have prevented their manifests.
const LAST_DEPLOYMENTS: u32 = 64;

impl Command for ExportManifestRequest {
    async fn run(self, context: &Arc<Context>, _: &Caller) -> Result<Manifest, Error> {
        if let Some(id) = self.deployment_id {
            let id: DeploymentId = id.parse().map_err(|error| Error::invalid(format!("deployment_id: {error}")))?;
            let found =
                context.blocking(move |context| context.code.manifests.read(id).map_err(Error::internal)).await?;
            return found.ok_or_else(|| {
                let why = "it moved nothing, or versioning.manifests_max later manifests were written";
                Error::new(ErrorCode::DeploymentNotFound, format!("no manifest of {id} is kept: {why}"))
            });
        }
        let only = self.function_id.map(|it| context.router.function(&it)).transpose()?.map(|it| it.function.id);
        context
            .blocking(move |context| {
                let records = match only {
                    Some(id) => vec![context.store.record(id)?],
                    None => context.store.catalogue()?,
                };
                let functions = records.iter().map(|it| {
                    described(&it.function, &it.aliases, |id| it.versions.iter().find(|version| version.id == id))
                });
                Ok(manifest(functions.collect(), None))
            })
            .await
    }
}

fn manifest(functions: Vec<ManifestFunction>, deployment: Option<ManifestDeployment>) -> Manifest {
    Manifest { manifest: FORM, created_at: Timestamp::now(), deployment, functions }
}

/// A function in a manifest: its aliases, with the versions that `version` finds for them.
fn described<'a>(
    function: &Function,
    aliases: &[AliasRecord],
    version: impl Fn(VersionId) -> Option<&'a Version>,
) -> ManifestFunction {
    let aliases = aliases.iter().filter(|it| !it.name.is_rollback()).filter_map(|alias| {
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
    ManifestFunction { name: function.name.to_string(), aliases: aliases.collect() }
}

impl Context {
    /// Writes the manifests of deployments that were committed together. They are documents: no command fails because
    /// of them.
    pub(super) fn leave_manifests(&self, deployments: &[Deployment]) {
        let ids: HashSet<FunctionId> = deployments.iter().map(|it| it.function_id).collect();
        let written = || -> Result<(), Error> {
            let read = |id| Ok::<_, Error>((self.store.state(id)?, self.router.by_id(id)?));
            let mut states = ids.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
            states.sort_by(|(a, _), (b, _)| a.function.name.cmp(&b.function.name));
            let functions = states.iter().map(|(state, entry)| {
                described(&state.function, &state.aliases, |id| entry.version(id).map(AsRef::as_ref))
            });
            let functions: Vec<_> = functions.collect();
            for deployment in deployments {
                let of = states.iter().find(|(it, _)| it.function.id == deployment.function_id);
                let function = of.map(|(it, _)| it.function.name.to_string()).unwrap_or_default();
                let document = manifest(functions.clone(), Some(about(function, deployment)));
                self.code.manifests.write(deployment.id, &document).map_err(Error::internal)?;
            }
            self.code.manifests.prune(self.config.load().versioning.manifests_max as usize).map_err(Error::internal)
        };
        if let Err(error) = written() {
            tracing::warn!(%error, "the manifest of a deployment cannot be written");
        }
    }

    /// Writes the manifests that a crash after a commit has prevented: of each function's last deployment, whose state
    /// is still the present one. Blocks.
    pub fn leave_missing_manifests(&self) {
        let last = match self.store.last_deployments(LAST_DEPLOYMENTS) {
            Ok(last) => last,
            Err(error) => return tracing::warn!(%error, "cannot look for missing manifests"),
        };
        let mut seen = HashSet::new();
        for deployment in last.into_iter().filter(|it| seen.insert(it.function_id)) {
            let is_there = self.router.by_id(deployment.function_id).is_ok();
            if is_there && !self.code.manifests.has(deployment.id) {
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

impl Command for ApplyManifestRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<ApplyManifestResponse, Error> {
        check_text("reason", self.reason.as_deref())?;
        if self.manifest.manifest != FORM {
            let found = self.manifest.manifest;
            return Err(Error::invalid(format!("the manifest has form {found}, and this daemon reads form {FORM}")));
        }
        let reason = self.reason.unwrap_or_else(|| format!("manifest of {}", self.manifest.created_at));
        let (functions, dry_run) = (self.manifest.functions, self.dry_run);
        let (owner, by) = (Arc::clone(context), caller.clone());
        context
            .until_cancelled(caller, |cancellation| async move {
                let entries = functions.iter().filter_map(|it| owner.router.function(&it.name).ok());
                let _changing = cancellation.run(owner.hold_all(entries.map(|it| it.function.id))).await??;
                let wanted = find(&owner, &functions).await?;
                let (unchanged, changed): (Vec<Wanted>, Vec<Wanted>) = wanted.into_iter().partition(Wanted::is_done);
                Ok(ApplyManifestResponse {
                    dry_run,
                    others: others(&owner, &functions),
                    unchanged: unchanged.len() as u32,
                    changes: apply_all(&owner, changed, &by, &reason, (dry_run, cancellation)).await?,
                })
            })
            .await
    }
}

/// Finds everything that the manifest names, or reports all problems at once.
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
                Ok(found) => Err(Error::invalid(format!("{} appears twice in the manifest", found.name))),
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
            let message = format!("nothing is applied because of {count} problems: {}; …", first.message);
            Err(Error::new(first.code, message).with_details(json!({ "problems": all })))
        }
    }
}

/// Existing aliases that the manifest does not name.
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
