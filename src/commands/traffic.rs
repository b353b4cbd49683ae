//! SET_TRAFFIC: the shares of an alias's two versions.

use super::{
    Caller, Command, Context,
    placement::{self, AliasMove, movable_alias},
    texts::check_text,
};
use crate::{
    error::{Error, ErrorCode},
    model::{DeploymentKind, Percent, Sticky, Version},
    protocol::message::{DeployResponse, SetTrafficRequest, VersionRef},
    router::{Alias, Entry},
    store::AliasChange,
};
use std::sync::Arc;

/// Value of `sticky` that removes the stickiness.
const NOT_STICKY: &str = "none";

impl Command for SetTrafficRequest {
    async fn run(self, context: &Arc<Context>, caller: &Caller) -> Result<DeployResponse, Error> {
        let name = movable_alias(self.alias.as_deref())?;
        check_text("reason", self.reason.as_deref())?;
        let weight = self.weight.map(|it| Percent::try_from(it).map_err(|error| Error::invalid(error.to_string())));
        let wanted = Wanted { version: self.version, weight: weight.transpose()? };
        let sticky = self.sticky.as_deref().map(sticky).transpose()?;
        if wanted.weight.is_none() && sticky.is_none() {
            return Err(Error::invalid("nothing to change: give `weight`, `sticky` or both"));
        }
        let id = context.router.function(&self.function_id)?.function.id;
        let request = AliasMove {
            change: AliasChange { sticky, ..AliasChange::default() },
            ..AliasMove::new(DeploymentKind::Traffic, name.clone(), caller, self.reason)
        };
        context
            .place(caller, id, async move |placement| {
                let entry = &placement.entry;
                let alias = entry.alias(name.as_str()).ok_or_else(|| entry.alias_not_found(name.as_str()))?;
                let (version, weight) = wanted.shares(entry, alias)?;
                placement.check_capacity()?;
                placement.apply(AliasMove { weight, ..request }, version, false).await
            })
            .await
    }
}

fn sticky(text: &str) -> Result<Option<Sticky>, Error> {
    match text {
        NOT_STICKY => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error: crate::model::StickyError| Error::invalid(format!("sticky: {error}, or `{NOT_STICKY}`"))),
    }
}

/// Shares that a request names.
struct Wanted {
    version: Option<VersionRef>,
    weight: Option<Percent>,
}

impl Wanted {
    /// Returns the version to activate, and the share that it gets as the alias's second one.
    fn shares(&self, entry: &Entry, alias: &Alias) -> Result<(Arc<Version>, Option<Percent>), Error> {
        let known = |id| entry.version(id).cloned().ok_or_else(|| entry.alias_not_found(alias.name.as_str()));
        let own = known(alias.version)?;
        let second = alias.split.map(|it| known(it.version_id).map(|version| (version, it.weight))).transpose()?;
        let named = self.version.as_ref().map(|it| placement::version(entry, it)).transpose()?;
        let other = named.filter(|it| it.id != own.id);
        match (self.weight, second, other) {
            (None, Some((second, weight)), _) => Ok((second, Some(weight))),
            (None, None, _) | (Some(Percent::ALL), _, None) => Ok((own, None)),
            (Some(weight), Some((second, _)), None) => Ok((second, Some(weight.rest()))),
            (Some(weight), None, Some(other)) => Ok((other, Some(weight))),
            (Some(weight), Some((second, _)), Some(other)) if second.id == other.id => Ok((other, Some(weight))),
            (Some(_), Some((second, _)), Some(other)) => Err(third(entry, alias, &own, &second, &other)),
            (Some(weight), None, None) => Err(Error::invalid(format!(
                "{} points at `{}` alone: name the version that gets the other {}",
                alias.name,
                own.label,
                weight.rest(),
            ))),
        }
    }
}

fn third(entry: &Entry, alias: &Alias, own: &Version, second: &Version, other: &Version) -> Error {
    let (function, name) = (&entry.function.name, &alias.name);
    Error::new(
        ErrorCode::Conflict,
        format!(
            "{name} is split between `{}` and `{}`, and `{}` would be a third: end that first, with `levain traffic \
             clear {function}` or `levain traffic promote {function}`",
            own.label, second.label, other.label,
        ),
    )
}
