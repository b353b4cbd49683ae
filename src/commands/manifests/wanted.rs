//! Several aliases that move together or not at all.

use crate::{
    commands::{
        Caller, Context,
        aliases::check_name,
        cancel::Cancellation,
        placement::{AliasMove, Placement, Plan, movable_alias},
    },
    error::{Error, ErrorCode},
    model::{
        AliasName, Deployment, DeploymentKind, Digest, EnvironmentName, Percent, Split, Sticky, Version, VersionId,
    },
    protocol::message::{ManifestAlias, ManifestChange},
    router::Entry,
    store::{AliasChange, DeploymentCommit, StoreError, Target},
};
use std::{collections::HashSet, sync::Arc};

/// Wanted state of one alias.
pub(in crate::commands) struct Wanted {
    pub(super) entry: Arc<Entry>,
    pub(super) name: AliasName,
    pub(super) environment: EnvironmentName,
    version: Arc<Version>,
    second: Option<(Arc<Version>, Percent)>,
    sticky: Option<Sticky>,
    description: Option<String>,
}

pub(super) fn shown(entry: &Entry, version: VersionId) -> &str {
    entry.version(version).map_or("?", |it| it.label.as_str())
}

/// Formats targets as `v1`, or `v1 90 %, v2 10 %`.
fn targets(own: &str, second: Option<(&str, Percent)>) -> String {
    match second {
        None => own.to_owned(),
        Some((version, weight)) => format!("{own} {}, {version} {weight}", weight.rest()),
    }
}

/// Finds the version with this digest; among several, the one with the label.
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
    pub(super) fn find(entry: &Arc<Entry>, alias: &ManifestAlias) -> Result<Self, Error> {
        let name = movable_alias(Some(&alias.name))?;
        check_name(entry, &name)?;
        let invalid = |error: String| Error::invalid(error);
        let second = alias.split.as_ref().map(|it| {
            let weight = Percent::try_from(it.weight).map_err(|error| invalid(error.to_string()))?;
            Ok::<_, Error>((version_with(entry, &it.version, it.digest)?, weight))
        });
        let sticky = alias.sticky.as_deref().map(str::parse).transpose();
        let environment: EnvironmentName = alias.environment.parse()?;
        if name.is_live() && environment != name.environment() {
            return Err(invalid(format!("LIVE runs only in {}", name.environment())));
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

    /// Wants the alias to point at this version alone, and to stay as it is otherwise.
    pub(in crate::commands) fn of(
        entry: &Arc<Entry>,
        name: AliasName,
        environment: EnvironmentName,
        version: Arc<Version>,
    ) -> Self {
        let sticky = entry.alias(name.as_str()).and_then(|it| it.sticky.clone());
        let entry = Arc::clone(entry);
        Self { entry, name, environment, version, second: None, sticky, description: None }
    }

    /// Whether the alias is as wanted, apart from its description, which no invocation depends on.
    pub(in crate::commands) fn is_done(&self) -> bool {
        let split = self.second.as_ref().map(|(version, weight)| Split { version_id: version.id, weight: *weight });
        self.entry.alias(self.name.as_str()).is_some_and(|it| {
            it.version == self.version.id
                && it.environment == self.environment
                && it.split == split
                && it.sticky == self.sticky
        })
    }

    pub(in crate::commands) fn change(&self) -> ManifestChange {
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

    /// Moves that lead to the wanted state: of the alias to its own version first, which ends any split, then of the
    /// second version's share.
    fn plans(&self, caller: &Caller, reason: &str) -> Vec<Plan> {
        let plan = |kind, weight, version: &Arc<Version>| {
            let (description, sticky) = (self.description.clone(), Some(self.sticky.clone()));
            let wanted = AliasMove {
                environment: Some(self.environment.clone()),
                weight,
                change: AliasChange { description, sticky, ..AliasChange::default() },
                ..AliasMove::new(kind, self.name.clone(), caller, Some(reason.to_owned()))
            };
            Plan::approved(&self.entry, wanted, Arc::clone(version))
        };
        let own = plan(DeploymentKind::Promote, None, &self.version);
        let second = self.second.as_ref();
        let second = second.map(|(version, weight)| plan(DeploymentKind::Traffic, Some(*weight), version));
        [own].into_iter().chain(second).collect()
    }
}

/// Loads every version, then moves all aliases at once, unless one move would have to wait for approval. A dry run ends
/// before the load.
pub(in crate::commands) async fn apply_all(
    context: &Arc<Context>,
    changed: Vec<Wanted>,
    caller: &Caller,
    reason: &str,
    (dry_run, cancellation): (bool, Cancellation),
) -> Result<Vec<ManifestChange>, Error> {
    let mut changes: Vec<ManifestChange> = changed.iter().map(Wanted::change).collect();
    let moves: Vec<(usize, Plan)> = changed
        .iter()
        .enumerate()
        .flat_map(|(index, wanted)| wanted.plans(caller, reason).into_iter().map(move |it| (index, it)))
        .collect();
    refuse_to_wait(context, &moves).await?;
    if dry_run || moves.is_empty() {
        return Ok(changes);
    }
    let placement = |plan: &Plan| Placement {
        context: Arc::clone(context),
        entry: Arc::clone(&plan.entry),
        cancellation: cancellation.clone(),
    };
    for (_, plan) in &moves {
        let placement = placement(plan);
        placement.check_capacity()?;
        if let Err(error) = placement.ready(plan).await {
            placement.record_failure(plan, &error).await;
            let message =
                format!("nothing is applied: {}:{}: {}", plan.entry.function.name, plan.wanted.alias, error.message);
            return Err(Error { message, ..error });
        }
    }
    commit_all(context, &moves, &cancellation).await?;
    for (index, plan) in &moves {
        placement(plan).move_traffic(plan, true);
        changes[*index].deployments.push(plan.row().id.to_string());
    }
    Ok(changes)
}

/// Refuses moves of which one would have to wait: moves that are made together do not wait.
async fn refuse_to_wait(context: &Arc<Context>, moves: &[(usize, Plan)]) -> Result<(), Error> {
    let rows: Vec<_> = moves.iter().map(|(_, plan)| (plan.row(), plan.version.id)).collect();
    let check = move |context: &Context| {
        for (row, version) in rows {
            if context.store.needs_approval(&row, Some(version))? {
                return Err(StoreError::ApprovalRequired(Box::new(row)).into());
            }
        }
        Ok(())
    };
    context.blocking(check).await
}

/// Commits the moves together.
async fn commit_all(context: &Arc<Context>, moves: &[(usize, Plan)], cancellation: &Cancellation) -> Result<(), Error> {
    let rows: Vec<Deployment> = moves.iter().map(|(_, plan)| plan.row()).collect();
    let changes: Vec<_> = moves.iter().map(|(_, plan)| (plan.version.id, plan.wanted.change.clone())).collect();
    let cancellation = cancellation.clone();
    let commit = move |context: &Context| {
        cancellation.begin_commit()?;
        let commits: Vec<_> = rows
            .iter()
            .zip(changes)
            .map(|(deployment, (version, change))| {
                (DeploymentCommit { target: Target::Existing(version), deployment }, change)
            })
            .collect();
        context.store.commit_all(&commits)?;
        let ids: HashSet<_> = rows.iter().map(|it| it.function_id).collect();
        ids.into_iter().try_for_each(|id| context.refresh_aliases(id, None))?;
        context.leave_manifests(&rows);
        Ok(())
    };
    context.blocking(commit).await
}
