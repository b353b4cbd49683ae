//! A function with its versions and aliases, as the router keeps it.

use super::guard::{Guard, RolloutProgress};
use crate::{
    error::{Error, ErrorCode},
    model::{
        AliasName, Breach, EnvironmentName, Function, Percent, PolicyAction, Split, Sticky, Timestamp, Version,
        VersionId,
        rollout::{self, WatchAction},
    },
};
use serde_json::json;
use std::{collections::HashSet, ops::Deref, sync::Arc};

/// Limit on names in the details of an error.
const NAMES_MAX: usize = 50;

/// A function with its versions and aliases.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The function itself.
    pub function: Function,
    /// Its versions.
    pub versions: Versions,
    /// Aliases and their targets.
    pub aliases: Vec<Alias>,
    /// Versions that may be invoked by their own name in the environment of `LIVE`; `None` if any version may.
    pub approved: Option<HashSet<VersionId>>,
}

/// Versions of a function, newest first. A copy shares them.
#[derive(Debug, Clone)]
pub struct Versions {
    rows: Arc<[Arc<Version>]>,
    bytes: u64,
}

impl Versions {
    /// Returns these versions and a newer one.
    #[must_use]
    pub fn with(&self, newer: &Arc<Version>) -> Self {
        std::iter::once(newer).chain(self.iter()).cloned().collect()
    }

    /// Returns the total size of their bundles, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Default for Versions {
    fn default() -> Self {
        std::iter::empty().collect()
    }
}

impl FromIterator<Arc<Version>> for Versions {
    fn from_iter<I: IntoIterator<Item = Arc<Version>>>(versions: I) -> Self {
        let rows: Arc<[Arc<Version>]> = versions.into_iter().collect();
        let bytes = rows.iter().map(|it| it.size).sum();
        Self { rows, bytes }
    }
}

impl Deref for Versions {
    type Target = [Arc<Version>];

    fn deref(&self) -> &Self::Target {
        &self.rows
    }
}

/// A movable name for one or two weighted versions.
#[derive(Debug, Clone)]
pub struct Alias {
    /// Name of the alias.
    pub name: AliasName,
    /// Environment in which its versions run.
    pub environment: EnvironmentName,
    /// Its own version.
    pub version: VersionId,
    /// Second version, with its share of the invocations.
    pub split: Option<Split>,
    /// Header or cookie that keeps a caller on one of the two versions.
    pub sticky: Option<Sticky>,
    /// Policy, and the invocations that it judges.
    pub guard: Option<Arc<Guard>>,
    /// Time of its automatic rollback, unless it was moved since.
    pub went_back_at: Option<Timestamp>,
    /// Running rollout.
    pub rollout: Option<Arc<RolloutProgress>>,
}

impl Alias {
    /// Returns the versions that it sends invocations to, its own first, each with its share.
    pub fn targets(&self) -> impl Iterator<Item = (VersionId, Percent)> + use<> {
        let second = self.split.map(|it| (it.version_id, it.weight));
        [(self.version, second.map_or(Percent::ALL, |it| it.1.rest()))].into_iter().chain(second)
    }

    /// Returns the version that a policy judges: the second one if it has a share, else the alias's own.
    #[must_use]
    pub fn under_judgement(&self) -> VersionId {
        self.split.filter(|it| it.weight > Percent::NONE).map_or(self.version, |it| it.version_id)
    }

    /// Whether the alias was recently rolled back by its policy, so that its version is not judged yet.
    fn rests(&self, now: Timestamp) -> bool {
        self.rests_until().is_some_and(|(since, until)| since <= now && now < until)
    }

    /// Returns start and end of the cooldown after an automatic rollback. The start is early enough for a clock that
    /// was set back.
    fn rests_until(&self) -> Option<(Timestamp, Timestamp)> {
        let (guard, at) = (self.guard.as_ref()?, self.went_back_at?.as_millis());
        let cooldown = i64::from(guard.policy.cooldown_seconds) * 1_000;
        Some((Timestamp::from_millis(at - cooldown), Timestamp::from_millis(at + cooldown)))
    }

    /// Returns the end of the cooldown, for an alias in its cooldown.
    #[must_use]
    pub fn rest_ends_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.rests_until().map(|it| it.1).filter(|_| self.rests(now))
    }

    /// Returns the limit that the version under judgement exceeds, unless the alias is in its cooldown.
    #[must_use]
    pub fn breach(&self, now: Timestamp) -> Option<(PolicyAction, Breach)> {
        let guard = self.guard.as_ref().filter(|_| !self.rests(now))?;
        guard.breach()
    }

    /// Whether the alias has a policy or a running rollout.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.guard.is_some() || self.rollout.is_some()
    }

    /// Decides what the watch has to do for the alias now.
    #[must_use]
    pub fn watch_action(&self) -> WatchAction {
        let rollout = self.rollout.as_ref().map(|it| (&it.rollout, it.held()));
        rollout::decide(self.breach(Timestamp::now()), rollout)
    }
}

impl Entry {
    /// Returns the version with this id.
    #[must_use]
    pub fn version(&self, id: VersionId) -> Option<&Arc<Version>> {
        self.versions.iter().find(|it| it.id == id)
    }

    /// Returns the version with this label.
    #[must_use]
    pub fn labelled(&self, label: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|it| it.label.as_str() == label)
    }

    /// Returns the version with this number.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Option<&Arc<Version>> {
        self.versions.iter().find(|it| it.number == number)
    }

    /// Returns the version with this label, or else with this number.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Version>> {
        self.labelled(name).or_else(|| self.numbered(name.parse().ok()?))
    }

    /// Returns the alias with this name.
    #[must_use]
    pub fn alias(&self, name: &str) -> Option<&Alias> {
        self.aliases.iter().find(|it| it.name.as_str() == name)
    }

    /// Returns the version that `LIVE` points at.
    #[must_use]
    pub fn live(&self) -> Option<&Arc<Version>> {
        self.alias(AliasName::LIVE).and_then(|alias| self.version(alias.version))
    }

    /// Returns the environment for a version invoked by its own name: that of `LIVE`.
    #[must_use]
    pub fn environment(&self) -> EnvironmentName {
        self.alias(AliasName::LIVE).map_or_else(EnvironmentName::production, |live| live.environment.clone())
    }

    /// Whether `LIVE` sends invocations to this version and runs in this environment.
    #[must_use]
    pub fn is_live_in(&self, version: VersionId, environment: &EnvironmentName) -> bool {
        let has_calls = |live: &Alias| live.targets().any(|(id, share)| id == version && share > Percent::NONE);
        self.alias(AliasName::LIVE).is_some_and(|live| live.environment == *environment && has_calls(live))
    }

    /// Takes over state from the previous entry where it concerns the same policy or rollout.
    pub(super) fn remember(&mut self, before: &Self) {
        for alias in &mut self.aliases {
            let Some(before) = before.alias(alias.name.as_str()) else { continue };
            if let (Some(new), Some(old)) = (&mut alias.guard, &before.guard) {
                Guard::take_over(new, old);
            }
            if let (Some(new), Some(old)) = (&mut alias.rollout, &before.rollout)
                && new.rollout == old.rollout
            {
                *new = Arc::clone(old);
            }
        }
    }

    /// Returns a `VERSION_NOT_FOUND` error with the existing versions.
    #[must_use]
    pub fn version_not_found(&self, version: &str) -> Error {
        let (name, shown) = (&self.function.name, shown(version));
        let message = format!("`{name}` has no version `{shown}`; `levain versions {name}` shows its versions");
        let labels: Vec<&str> = self.versions.iter().map(|it| it.label.as_str()).take(NAMES_MAX).collect();
        Error::new(ErrorCode::VersionNotFound, message).with_details(json!({ "versions": labels }))
    }

    /// Returns the alias with this name, or the reason why it has no invocations; `LIVE` exists once something was
    /// deployed.
    pub fn served_alias(&self, name: &AliasName) -> Result<&Alias, Error> {
        self.alias(name.as_str()).ok_or_else(|| match name.is_live() {
            true => {
                let message = format!("`{}` has no version that takes traffic: deploy one first", self.function.name);
                Error::new(ErrorCode::FunctionNotDeployed, message)
            }
            false => self.alias_not_found(name.as_str()),
        })
    }

    /// Returns an `ALIAS_NOT_FOUND` error with the existing aliases.
    #[must_use]
    pub fn alias_not_found(&self, alias: &str) -> Error {
        let (name, shown) = (&self.function.name, shown(alias));
        let message = format!("`{name}` has no alias `{shown}`; `levain alias list {name}` shows its aliases");
        let names: Vec<&str> = self.aliases.iter().map(|it| it.name.as_str()).take(NAMES_MAX).collect();
        Error::new(ErrorCode::AliasNotFound, message).with_details(json!({ "alias": shown, "aliases": names }))
    }

    /// Workers that the function keeps warm, if it has a version that takes invocations.
    #[must_use]
    pub fn warm_workers(&self) -> u64 {
        self.live().map_or(0, |_| u64::from(self.function.settings.warm_workers))
    }
}

/// Cuts a name to a length that an error can show.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}
