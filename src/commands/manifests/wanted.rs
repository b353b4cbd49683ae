//! Several aliases that move together or not at all.

use crate::{
    commands::{
        Caller, Context,
        activate::{self, Act},
        aliases::check_name,
        cancel::Cancellation,
        room,
    },
    error::{Error, ErrorCode},
    model::{
        AliasName, Deployment, DeploymentKind, Digest, EnvironmentName, Percent, Split, Sticky, Version, VersionId,
    },
    protocol::message::{ManifestAlias, ManifestChange},
    router::Entry,
    store::{AliasChange, DeploymentCommit, Target},
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

    /// The function, as it was when the state was wanted.
    pub(in crate::commands) fn entry(&self) -> &Entry {
        &self.entry
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

    /// Acts that lead to the wanted state, each with its version: the alias's own first, which ends any split, then the
    /// second.
    pub(in crate::commands) fn acts(
        &self,
        context: &Arc<Context>,
        caller: &Caller,
        reason: &str,
    ) -> Vec<(Act, Arc<Version>)> {
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

/// Loads every version, then moves all aliases at once. Returns the deployments of each change.
pub(in crate::commands) async fn carry_out(
    context: &Arc<Context>,
    changed: &[Wanted],
    caller: &Caller,
    reason: &str,
    cancellation: &Cancellation,
) -> Result<Vec<Vec<String>>, Error> {
    let mut acts = Vec::new();
    for (index, wanted) in changed.iter().enumerate() {
        room::check(context, &wanted.entry, &wanted.entry.function.settings)?;
        for (mut act, version) in wanted.acts(context, caller, reason) {
            act.cancellation = cancellation.clone();
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
    let (committed, cancellation) = (rows.clone(), cancellation.clone());
    context
        .blocking(move |context| {
            cancellation.begin_commit()?;
            let commits: Vec<_> = rows
                .iter()
                .zip(&changes)
                .map(|(deployment, (version, description, sticky))| {
                    let commit = DeploymentCommit { target: Target::Existing(*version), deployment };
                    let (description, sticky) = (description.clone(), sticky.clone());
                    (commit, AliasChange { description, sticky, ..AliasChange::default() })
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
