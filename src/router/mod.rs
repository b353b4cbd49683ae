//! From `name[:qualifier]` to the version that answers.
//!
//! It owns the in-memory picture of functions, versions and aliases. Readers take an immutable snapshot without a lock
//! and without SQLite; a command that has committed a change puts the function's new picture in with [`Router::put`].
//!
//! **Invariant**: what the snapshot says has been committed before. A reader may see the past, never a future that a
//! crash could take back.

mod guard;
mod traffic;

pub use guard::{Guard, Progress, Warning};
pub use traffic::{CallHeaders, PIN_HEADER};

use crate::{
    error::{Error, ErrorCode},
    model::{
        AliasName, EnvironmentName, Function, FunctionId, FunctionName, Percent, Split, Sticky, Timestamp, Version,
        VersionId,
    },
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// A function with everything that is known of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The function itself.
    pub function: Function,
    /// Its versions, newest first.
    pub versions: Vec<Arc<Version>>,
    /// Where its aliases point.
    pub aliases: Vec<Alias>,
    /// The versions that may run in the environment of `LIVE` when they are called by their own name; all of them without.
    pub approved: Option<HashSet<VersionId>>,
}

/// A movable name for a version.
#[derive(Debug, Clone)]
pub struct Alias {
    /// Its name.
    pub name: AliasName,
    /// The environment it runs in.
    pub environment: EnvironmentName,
    /// What it points at.
    pub version: VersionId,
    /// The second version, which has a share of its calls.
    pub split: Option<Split>,
    /// What keeps a caller with one of the two.
    pub sticky: Option<Sticky>,
    /// Its policy, and the calls that are judged by it.
    pub guard: Option<Arc<Guard>>,
    /// When it went back by its policy, if nobody has moved it since.
    pub went_back_at: Option<Timestamp>,
    /// The rollout that goes on.
    pub rollout: Option<Arc<Progress>>,
}

impl Alias {
    /// The versions it sends calls to, its own first, each with its share.
    pub fn targets(&self) -> impl Iterator<Item = (VersionId, Percent)> + use<> {
        let second = self.split.map(|it| (it.version_id, it.weight));
        [(self.version, second.map_or(Percent::ALL, |it| it.1.rest()))].into_iter().chain(second)
    }
}

/// Where an invocation goes.
#[derive(Debug, Clone)]
pub struct Route {
    /// The function.
    pub entry: Arc<Entry>,
    /// The version that answers.
    pub version: Arc<Version>,
    /// The environment it runs in.
    pub environment: EnvironmentName,
    /// Who counts the call, if it came through an alias that judges the version.
    pub guard: Option<Arc<Guard>>,
}

impl Entry {
    /// The version with this id.
    #[must_use]
    pub fn version(&self, id: VersionId) -> Option<&Arc<Version>> {
        self.versions.iter().find(|it| it.id == id)
    }

    /// The version with this label.
    #[must_use]
    pub fn labelled(&self, label: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|it| it.label.as_str() == label)
    }

    /// The version with this number.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Option<&Arc<Version>> {
        self.versions.iter().find(|it| it.number == number)
    }

    /// The version with this label, or else with this number.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Version>> {
        self.labelled(name).or_else(|| self.numbered(name.parse().ok()?))
    }

    /// The alias with this name.
    #[must_use]
    pub fn alias(&self, name: &str) -> Option<&Alias> {
        self.aliases.iter().find(|it| it.name.as_str() == name)
    }

    /// What `LIVE` points at.
    #[must_use]
    pub fn live(&self) -> Option<&Arc<Version>> {
        self.alias(AliasName::LIVE).and_then(|alias| self.version(alias.version))
    }

    /// Where a version runs that is called by its own name: where `LIVE` does.
    #[must_use]
    pub fn environment(&self) -> EnvironmentName {
        self.alias(AliasName::LIVE).map_or_else(EnvironmentName::production, |live| live.environment.clone())
    }

    /// Whether `LIVE` sends calls to this version, and runs in this environment.
    #[must_use]
    pub fn is_live_in(&self, version: VersionId, environment: &EnvironmentName) -> bool {
        let has_calls = |live: &Alias| live.targets().any(|(id, share)| id == version && share > Percent::NONE);
        self.alias(AliasName::LIVE).is_some_and(|live| live.environment == *environment && has_calls(live))
    }
}

#[derive(Debug, Clone, Default)]
struct Snapshot {
    by_name: HashMap<FunctionName, Arc<Entry>>,
    by_id: HashMap<FunctionId, Arc<Entry>>,
}

/// The functions that are not deleted, and where their aliases point.
#[derive(Debug, Default)]
pub struct Router {
    snapshot: ArcSwap<Snapshot>,
    /// Keeps two changes from losing one another.
    change: Mutex<()>,
}

impl Router {
    /// A router that knows these functions.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut snapshot = Snapshot::default();
        for entry in entries.into_iter().map(Arc::new) {
            snapshot.by_name.insert(entry.function.name.clone(), Arc::clone(&entry));
            snapshot.by_id.insert(entry.function.id, entry);
        }
        Self { snapshot: ArcSwap::from_pointee(snapshot), change: Mutex::default() }
    }

    /// Takes in a function's new picture.
    pub fn put(&self, entry: Entry) {
        self.change(|snapshot| insert(snapshot, entry));
    }

    /// Takes in a function's picture as `read` finds it. No other change comes between the reading and this one, so
    /// that of two who read at once the later picture stays.
    pub fn renew<E>(&self, read: impl FnOnce() -> Result<Entry, E>) -> Result<(), E> {
        let one_at_a_time = self.change.lock();
        let entry = read()?;
        self.swap(|snapshot| insert(snapshot, entry));
        drop(one_at_a_time);
        Ok(())
    }

    /// Forgets a deleted function.
    pub fn remove(&self, id: FunctionId) {
        self.change(|snapshot| {
            let name = snapshot.by_id.remove(&id).map(|it| it.function.name.clone());
            // Its name may be another function's already.
            let is_own = |name: &FunctionName| snapshot.by_name.get(name).is_some_and(|it| it.function.id == id);
            if let Some(name) = name.filter(is_own) {
                snapshot.by_name.remove(&name);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let _one_at_a_time = self.change.lock();
        self.swap(change);
    }

    /// Called by who has the lock.
    fn swap(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        change(&mut snapshot);
        self.snapshot.store(Arc::new(snapshot));
    }

    /// The function with this id or name.
    pub fn function(&self, id_or_name: &str) -> Result<Arc<Entry>, Error> {
        self.lookup(id_or_name).ok_or_else(|| {
            let shown: String = id_or_name.chars().take(80).collect();
            Error::new(
                ErrorCode::FunctionNotFound,
                format!("no function is called `{shown}`; `levain list` shows those there are"),
            )
        })
    }

    fn lookup(&self, id_or_name: &str) -> Option<Arc<Entry>> {
        let snapshot = self.snapshot.load();
        match id_or_name.parse::<FunctionId>() {
            Ok(id) => snapshot.by_id.get(&id).cloned(),
            Err(_) => snapshot.by_name.get(id_or_name).cloned(),
        }
    }

    /// All functions, by name.
    #[must_use]
    pub fn functions(&self) -> Vec<Arc<Entry>> {
        let mut functions: Vec<_> = self.snapshot.load().by_id.values().cloned().collect();
        functions.sort_by(|a, b| a.function.name.cmp(&b.function.name));
        functions
    }

    /// Resolves `function`, which may carry its qualifier after a colon: an alias, or a version's label or number. No
    /// qualifier means `LIVE`. A version that is named itself runs where `LIVE` does; where that is a protected
    /// environment only what was approved for it runs (`APPROVAL_REQUIRED`).
    ///
    /// An alias that is split means its own version here; [`Self::route`] is for calls.
    pub fn resolve(&self, function: &str, qualifier: Option<&str>) -> Result<Route, Error> {
        self.find(function, qualifier, |_, alias| Ok(alias.version)).and_then(Found::may_run)
    }

    /// The same for who only asks about a version and does not run it.
    pub fn look_up(&self, function: &str, qualifier: Option<&str>) -> Result<Route, Error> {
        self.find(function, qualifier, |_, alias| Ok(alias.version)).map(|it| it.route)
    }

    /// Where a call with these headers goes: as [`Self::resolve`] says, where an alias is split to one of its two
    /// versions. [`PIN_HEADER`] names the one to take, whatever its share.
    pub fn route<H: CallHeaders>(
        &self,
        function: &str,
        qualifier: Option<&str>,
        headers: Option<&H>,
    ) -> Result<Route, Error> {
        let pinned = headers.and_then(|headers| headers.first(PIN_HEADER));
        let found = self.find(function, qualifier, |entry, alias| match (pinned, &alias.split) {
            (Some(pinned), _) => traffic::pinned(entry, alias, pinned),
            (None, None) => Ok(alias.version),
            (None, Some(split)) => Ok(traffic::choose(entry.function.id, alias, split, headers)),
        })?;
        let route = found.may_run()?;
        match pinned {
            Some(pinned) if !route.version.is_called(pinned) => Err(traffic::contradicts(&route.entry, pinned)),
            _ => Ok(route),
        }
    }

    fn find(
        &self,
        function: &str,
        qualifier: Option<&str>,
        choose: impl FnOnce(&Entry, &Alias) -> Result<VersionId, Error>,
    ) -> Result<Found, Error> {
        let (function, qualifier) = split(function, qualifier)?;
        let entry = self.function(function)?;
        let qualifier = qualifier.unwrap_or(AliasName::LIVE);
        if let Some(alias) = entry.alias(qualifier)
            && let Some(version) = entry.version(choose(&entry, alias)?)
        {
            let (version, environment) = (Arc::clone(version), alias.environment.clone());
            let guard = alias.guard.as_ref().filter(|it| it.version == version.id).cloned();
            return Ok(Found { route: Route { entry, version, environment, guard }, by_alias: true });
        }
        if let Some(version) = entry.named(qualifier) {
            let (version, environment) = (Arc::clone(version), entry.environment());
            return Ok(Found { route: Route { entry, version, environment, guard: None }, by_alias: false });
        }
        Err(unresolved(&entry, qualifier))
    }
}

fn insert(snapshot: &mut Snapshot, mut entry: Entry) {
    if let Some(before) = snapshot.by_id.get(&entry.function.id) {
        entry.remember(before);
    }
    let entry = Arc::new(entry);
    snapshot.by_name.insert(entry.function.name.clone(), Arc::clone(&entry));
    snapshot.by_id.insert(entry.function.id, entry);
}

/// A route, and whether an alias led to it.
struct Found {
    route: Route,
    by_alias: bool,
}

impl Found {
    /// An alias sends calls only to what was approved for it; a version that is called by its own name comes past it.
    fn may_run(self) -> Result<Route, Error> {
        let Route { entry, version, .. } = &self.route;
        match &entry.approved {
            Some(approved) if !self.by_alias && !approved.contains(&version.id) => Err(not_approved(&self.route)),
            _ => Ok(self.route),
        }
    }
}

fn not_approved(route: &Route) -> Error {
    let Route { entry, version, environment, .. } = route;
    let (name, label) = (&entry.function.name, &version.label);
    let message = format!(
        "`{label}` of `{name}` was never approved for {environment}, which is protected, and a version that is called by \
         its own name runs there: call it by an alias of another environment (`levain alias set {name} STAGING \
         {label}`, then `{name}:STAGING`), or have it approved (`levain alias set {name} LIVE {label}`, then \
         `levain approve {name}`)"
    );
    let details = json!({ "version": label, "environment": environment });
    Error::new(ErrorCode::ApprovalRequired, message).with_details(details)
}

/// The function and the qualifier, which may stand behind it after a colon.
pub fn split<'a>(function: &'a str, qualifier: Option<&'a str>) -> Result<(&'a str, Option<&'a str>), Error> {
    match (function.split_once(':'), qualifier) {
        (Some((_, own)), Some(other)) if own != other => {
            Err(Error::invalid(format!("two qualifiers are given, `{own}` and `{other}`: give one")))
        }
        (Some((function, own)), _) => Ok((function, Some(own))),
        (None, qualifier) => Ok((function, qualifier)),
    }
}

/// Names in the details of an error.
const NAMES_MAX: usize = 50;

impl Entry {
    /// `VERSION_NOT_FOUND`, with the versions there are.
    #[must_use]
    pub fn version_not_found(&self, version: &str) -> Error {
        let (name, shown) = (&self.function.name, shown(version));
        let message = format!("`{name}` has no version `{shown}`; `levain versions {name}` shows those there are");
        let labels: Vec<&str> = self.versions.iter().map(|it| it.label.as_str()).take(NAMES_MAX).collect();
        Error::new(ErrorCode::VersionNotFound, message).with_details(json!({ "versions": labels }))
    }

    /// `ALIAS_NOT_FOUND`, with the aliases there are.
    #[must_use]
    pub fn alias_not_found(&self, alias: &str) -> Error {
        let (name, shown) = (&self.function.name, shown(alias));
        let message = format!("`{name}` has no alias `{shown}`; `levain alias list {name}` shows those there are");
        let names: Vec<&str> = self.aliases.iter().map(|it| it.name.as_str()).take(NAMES_MAX).collect();
        Error::new(ErrorCode::AliasNotFound, message).with_details(json!({ "aliases": names }))
    }

    /// Bytes of the bundles of its versions.
    #[must_use]
    pub fn bundles_bytes(&self) -> u64 {
        self.versions.iter().map(|version| version.size).sum()
    }
}

fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

fn unresolved(entry: &Entry, qualifier: &str) -> Error {
    let name = &entry.function.name;
    if qualifier == AliasName::LIVE {
        return Error::new(
            ErrorCode::FunctionNotDeployed,
            format!("`{name}` has no version that takes traffic; deploy one with `levain deploy {name} <path>`"),
        );
    }
    if reads_as_version(qualifier) { entry.version_not_found(qualifier) } else { entry.alias_not_found(qualifier) }
}

/// Whether somebody who writes this means a version: a number, `v` and a number, or what no alias can be called.
fn reads_as_version(qualifier: &str) -> bool {
    let number = qualifier.strip_prefix('v').unwrap_or(qualifier);
    number.bytes().all(|it| it.is_ascii_digit()) || qualifier.parse::<AliasName>().is_err()
}
