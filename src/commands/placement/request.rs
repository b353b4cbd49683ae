//! The request to move an alias: a value that never changes, and its questions to the function's present state.

use crate::{
    commands::Caller,
    error::{Error, ErrorCode},
    model::{
        AliasName, Deployment, DeploymentId, DeploymentKind, DeploymentStatus, EnvironmentName, Percent, Split,
        Timestamp, Version, VersionId, VersionLabel,
    },
    protocol::message::VersionRef,
    router::{Alias, Entry},
    store::{AliasChange, StoreError},
};
use std::{sync::Arc, time::Instant};

/// Request to point an alias at a version, or to give the version a share of the alias's invocations.
#[derive(Debug, Clone)]
pub(in crate::commands) struct AliasMove {
    pub(in crate::commands) kind: DeploymentKind,
    pub(in crate::commands) alias: AliasName,
    /// Environment that the alias will run in; `None` keeps its present one, or takes the one of its name.
    pub(in crate::commands) environment: Option<EnvironmentName>,
    /// Share of the alias's invocations for the version; `None` for all of them.
    pub(in crate::commands) weight: Option<Percent>,
    /// Further changes to the alias.
    pub(in crate::commands) change: AliasChange,
    /// Id of the deployment that is recorded.
    pub(in crate::commands) id: DeploymentId,
    pub(in crate::commands) actor: Arc<str>,
    pub(in crate::commands) reason: Option<String>,
    pub(in crate::commands) at: Timestamp,
    pub(in crate::commands) started: Instant,
}

/// Parses the alias of a request, `LIVE` by default. `ROLLBACK` is refused: it only follows `LIVE`.
pub(in crate::commands) fn movable_alias(name: Option<&str>) -> Result<AliasName, Error> {
    let alias: AliasName = name.unwrap_or(AliasName::LIVE).parse()?;
    if alias.is_rollback() { Err(StoreError::AliasFixed(alias).into()) } else { Ok(alias) }
}

/// Finds the version with this number or label, or the target of the alias with this name. A text of digits is tried as
/// a label first, then as a number.
pub(in crate::commands) fn version(entry: &Entry, wanted: &VersionRef) -> Result<Arc<Version>, Error> {
    let (found, shown) = match wanted {
        VersionRef::Number(number) => (entry.numbered(*number), number.to_string()),
        VersionRef::Label(label) => {
            let target = || entry.alias(label).and_then(|alias| entry.version(alias.version));
            (entry.named(label).or_else(target), label.clone())
        }
    };
    found.cloned().ok_or_else(|| entry.version_not_found(&shown))
}

impl AliasMove {
    pub(in crate::commands) fn new(
        kind: DeploymentKind,
        alias: AliasName,
        caller: &Caller,
        reason: Option<String>,
    ) -> Self {
        Self {
            kind,
            alias,
            environment: None,
            weight: None,
            change: AliasChange::default(),
            id: DeploymentId::new(),
            actor: Arc::clone(&caller.actor),
            reason,
            at: Timestamp::now(),
            started: Instant::now(),
        }
    }

    /// Time since the request, in milliseconds.
    pub(super) fn duration_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1e3
    }

    /// Present state of the alias.
    pub(in crate::commands) fn present<'a>(&self, entry: &'a Entry) -> Option<&'a Alias> {
        entry.alias(self.alias.as_str())
    }

    /// Present target of the alias.
    pub(in crate::commands) fn target<'a>(&self, entry: &'a Entry) -> Option<&'a Arc<Version>> {
        self.present(entry).and_then(|alias| entry.version(alias.version))
    }

    /// Environment that the alias runs in after the move.
    pub(in crate::commands) fn environment(&self, entry: &Entry) -> EnvironmentName {
        let present = || self.present(entry).map(|alias| alias.environment.clone());
        self.environment.clone().or_else(present).unwrap_or_else(|| self.alias.environment())
    }

    /// Label that loses invocations to the deployed version: the alias's target so far, or its second version if that
    /// split ends.
    pub(super) fn previous<'a>(&self, entry: &'a Entry, label: &VersionLabel) -> Option<&'a VersionLabel> {
        let own = &self.target(entry)?.label;
        let second = self.present(entry).and_then(|it| entry.version(it.split?.version_id));
        match second {
            Some(second) if own == label && self.weight.is_none() => Some(&second.label),
            _ => Some(own),
        }
    }

    /// Whether the alias already sends its invocations as wanted, in the wanted environment.
    pub(super) fn is_done(&self, entry: &Entry, version: &Version) -> bool {
        let wanted = self.weight.map(|weight| Split { version_id: version.id, weight });
        // A rollout has its own state to write.
        let is_rollout = self.change.rollout.is_some();
        self.present(entry).filter(|_| !is_rollout).is_some_and(|it| {
            it.environment == self.environment(entry)
                && it.split == wanted
                && (wanted.is_some() || it.version == version.id)
                && self.change.sticky.as_ref().is_none_or(|sticky| *sticky == it.sticky)
        })
    }

    /// Whether a deployment of the function makes the same move.
    pub(super) fn is_same_as(&self, entry: &Entry, deployment: &Deployment) -> bool {
        deployment.function_id == entry.function.id
            && deployment.alias == self.alias
            && deployment.environment == self.environment(entry)
            && deployment.weight == self.weight
    }

    /// Refuses a share that the alias cannot give to the version, or to a new one if `version` is `None`.
    pub(in crate::commands) fn check_share(&self, entry: &Entry, version: Option<VersionId>) -> Result<(), Error> {
        let (function, name) = (&entry.function.name, &self.alias);
        let Some(alias) = self.weight.and(entry.alias(name.as_str())) else {
            let code = if name.is_live() { ErrorCode::FunctionNotDeployed } else { ErrorCode::AliasNotFound };
            let message = format!("{name} of `{function}` has no calls to share: point it at a version first");
            return if self.weight.is_none() { Ok(()) } else { Err(Error::new(code, message)) };
        };
        let label = |id| entry.version(id).map(|it| it.label.to_string()).unwrap_or_default();
        if version == Some(alias.version) {
            let message =
                format!("{name} points at `{}` already: give a share to another version", label(alias.version));
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        match alias.split {
            Some(split) if Some(split.version_id) != version => {
                let (first, second) = (label(alias.version), label(split.version_id));
                let message = format!(
                    "{name} is split between `{first}` and `{second}` ({}) already: end that first, with `levain \
                     traffic clear {function}` or `levain traffic promote {function}`",
                    split.weight
                );
                Err(Error::new(ErrorCode::Conflict, message))
            }
            _ => Ok(()),
        }
    }

    /// Status of the deployment if the move takes effect.
    pub(super) fn status(&self) -> DeploymentStatus {
        if self.weight.is_some() { DeploymentStatus::Applied } else { DeploymentStatus::Active }
    }

    /// Row of the deployment if the move takes effect.
    pub(in crate::commands) fn row(&self, entry: &Entry, version: &Version) -> Deployment {
        Deployment { number: Some(version.number), ..self.deployment(entry, version.label.clone(), self.status()) }
    }

    /// Row of the deployment in a state before it has a version. The label is the one that the version will have,
    /// unless another deployment takes it first.
    pub(in crate::commands) fn deployment(
        &self,
        entry: &Entry,
        label: VersionLabel,
        status: DeploymentStatus,
    ) -> Deployment {
        Deployment {
            id: self.id,
            function_id: entry.function.id,
            number: None,
            alias: self.alias.clone(),
            environment: self.environment(entry),
            kind: self.kind,
            status,
            weight: self.weight,
            previous: self.previous(entry, &label).cloned(),
            label,
            actor: self.actor.to_string(),
            reason: self.reason.clone(),
            build_log: None,
            created_at: self.at,
            finished_at: Timestamp::now(),
            decision: None,
        }
    }
}
