//! Resolves `name[:qualifier]` to the version that answers.
//!
//! The router owns the in-memory state of functions, versions and aliases. Readers take an immutable snapshot without a
//! lock and without SQLite; after a command has committed a change, it puts the function's new entry in with
//! [`Router::put`].
//!
//! **Invariant**: the snapshot contains only committed state. A reader may see the past, but never a future that a
//! crash could undo.

mod entry;
mod guard;
mod traffic;

pub use entry::{Alias, Entry, Versions};
pub use guard::{Guard, RolloutProgress, Warning};
pub use traffic::{CallHeaders, PIN_HEADER};

use crate::{
    error::{Error, ErrorCode},
    model::{AliasName, EnvironmentName, FunctionId, FunctionName, Version, VersionId},
};
use arc_swap::ArcSwap;
use entry::shown;
use parking_lot::Mutex;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};
use serde_json::json;
use std::{ops::Bound, sync::Arc};

/// Destination of an invocation.
#[derive(Debug, Clone)]
pub struct Route {
    /// The function.
    pub entry: Arc<Entry>,
    /// Version that answers.
    pub version: Arc<Version>,
    /// Environment in which it runs.
    pub environment: EnvironmentName,
    /// Guard that counts the invocation, if it came through an alias that judges the version.
    pub guard: Option<Arc<Guard>>,
}

/// All functions at one instant. A copy shares its contents, and a changed copy all but a few nodes.
#[derive(Debug, Clone)]
struct Snapshot {
    by_name: HashTrieMapSync<FunctionName, Arc<Entry>>,
    by_id: HashTrieMapSync<FunctionId, Arc<Entry>>,
    sorted: RedBlackTreeMapSync<FunctionName, Arc<Entry>>,
    totals: Totals,
}

/// Sums over all functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of functions.
    pub functions: usize,
    /// Number of versions.
    pub versions: usize,
    /// Size of all bundles, in bytes.
    pub bundles_bytes: u64,
    /// Workers that functions keep warm.
    pub warm_workers: u64,
}

/// All functions at one instant, sorted by name.
#[derive(Debug, Clone)]
pub struct Functions(RedBlackTreeMapSync<FunctionName, Arc<Entry>>);

impl Functions {
    /// Returns the functions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.values()
    }

    /// Returns the functions as a list of their own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Arc<Entry>> {
        self.iter().cloned().collect()
    }

    /// Returns the functions whose name comes after this one.
    pub fn after(&self, name: &str) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.range::<str, _>((Bound::Excluded(name), Bound::Unbounded)).map(|(_, entry)| entry)
    }
}

/// Routing table of the functions that are not deleted.
#[derive(Debug)]
pub struct Router {
    snapshot: ArcSwap<Snapshot>,
    /// Serializes changes, so that none is lost.
    change: Mutex<()>,
}

impl Router {
    /// Makes a router for these functions.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut snapshot = Snapshot {
            by_name: HashTrieMapSync::new_sync(),
            by_id: HashTrieMapSync::new_sync(),
            sorted: RedBlackTreeMapSync::new_sync(),
            totals: Totals::default(),
        };
        entries.into_iter().for_each(|entry| snapshot.insert(entry));
        Self { snapshot: ArcSwap::from_pointee(snapshot), change: Mutex::default() }
    }

    /// Replaces the entry of a function.
    pub fn put(&self, entry: Entry) {
        self.change(|snapshot| snapshot.insert(entry));
    }

    /// Replaces the entry of a function by the one that `read` makes, given the present one. The lock is held during
    /// the read: of two concurrent changes, the later state wins.
    pub fn renew<E>(&self, id: FunctionId, read: impl FnOnce(Option<Arc<Entry>>) -> Result<Entry, E>) -> Result<(), E> {
        let one_at_a_time = self.change.lock();
        let entry = read(self.snapshot.load().by_id.get(&id).cloned())?;
        self.swap(|snapshot| snapshot.insert(entry));
        drop(one_at_a_time);
        Ok(())
    }

    /// Removes a deleted function.
    pub fn remove(&self, id: FunctionId) {
        self.change(|snapshot| snapshot.remove(id));
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let _one_at_a_time = self.change.lock();
        self.swap(change);
    }

    /// The caller must hold the `change` lock.
    fn swap(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        change(&mut snapshot);
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Returns the function with this id or name.
    pub fn function(&self, id_or_name: &str) -> Result<Arc<Entry>, Error> {
        self.lookup(id_or_name).ok_or_else(|| function_not_found(id_or_name))
    }

    /// Returns the function with this id.
    pub fn by_id(&self, id: FunctionId) -> Result<Arc<Entry>, Error> {
        let found = self.snapshot.load().by_id.get(&id).cloned();
        found.ok_or_else(|| function_not_found(&id.to_string()))
    }

    fn lookup(&self, id_or_name: &str) -> Option<Arc<Entry>> {
        let snapshot = self.snapshot.load();
        match id_or_name.parse::<FunctionId>() {
            Ok(id) => snapshot.by_id.get(&id).cloned(),
            Err(_) => snapshot.by_name.get(id_or_name).cloned(),
        }
    }

    /// Returns all functions.
    #[must_use]
    pub fn functions(&self) -> Functions {
        Functions(self.snapshot.load().sorted.clone())
    }

    /// Returns the sums over all functions.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.snapshot.load().totals
    }

    /// Resolves `function`, which may carry its qualifier after a colon: an alias, or a version's label or number.
    /// Without a qualifier, `LIVE` is resolved. A version named by its label or number runs in the environment of
    /// `LIVE`; if that is protected, the version must be approved for it (`APPROVAL_REQUIRED`).
    ///
    /// A split alias resolves to its own version; [`Self::route`] is for invocations.
    pub fn resolve(&self, function: &str, qualifier: Option<&str>) -> Result<Route, Error> {
        self.find(function, qualifier, |_, alias| Ok(alias.version)).and_then(Resolution::may_run)
    }

    /// Resolves like [`Self::resolve`], but without the check of approvals, for commands that do not run the version.
    pub fn look_up(&self, function: &str, qualifier: Option<&str>) -> Result<Route, Error> {
        self.find(function, qualifier, |_, alias| Ok(alias.version)).map(|it| it.route)
    }

    /// Resolves an invocation with these headers like [`Self::resolve`], but chooses one of the two versions of a split
    /// alias. [`PIN_HEADER`] names the version to take, whatever its share.
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
    ) -> Result<Resolution, Error> {
        let (function, qualifier) = split(function, qualifier)?;
        let entry = self.function(function)?;
        let qualifier = qualifier.unwrap_or(AliasName::LIVE);
        if let Some(alias) = entry.alias(qualifier)
            && let Some(version) = entry.version(choose(&entry, alias)?)
        {
            let (version, environment) = (Arc::clone(version), alias.environment.clone());
            let guard = alias.guard.as_ref().filter(|it| it.version == version.id).cloned();
            return Ok(Resolution { route: Route { entry, version, environment, guard }, by_alias: true });
        }
        if let Some(version) = entry.named(qualifier) {
            let (version, environment) = (Arc::clone(version), entry.environment());
            return Ok(Resolution { route: Route { entry, version, environment, guard: None }, by_alias: false });
        }
        Err(unresolved(&entry, qualifier))
    }
}

impl Snapshot {
    fn insert(&mut self, mut entry: Entry) {
        if let Some(before) = self.by_id.get(&entry.function.id) {
            entry.remember(before);
        }
        self.remove(entry.function.id);
        let (name, entry) = (entry.function.name.clone(), Arc::new(entry));
        self.totals.add(&entry);
        self.by_id.insert_mut(entry.function.id, Arc::clone(&entry));
        self.sorted.insert_mut(name.clone(), Arc::clone(&entry));
        self.by_name.insert_mut(name, entry);
    }

    fn remove(&mut self, id: FunctionId) {
        let Some(entry) = self.by_id.get(&id).cloned() else { return };
        self.by_id.remove_mut(&id);
        self.totals.subtract(&entry);
        // The name may belong to another function by now.
        let name = &entry.function.name;
        if self.by_name.get(name).is_some_and(|it| it.function.id == id) {
            self.by_name.remove_mut(name);
            self.sorted.remove_mut(name);
        }
    }
}

impl Totals {
    fn of(entry: &Entry) -> Self {
        let (bundles_bytes, warm_workers) = (entry.versions.bytes(), entry.warm_workers());
        Self { functions: 1, versions: entry.versions.len(), bundles_bytes, warm_workers }
    }

    fn add(&mut self, entry: &Entry) {
        let other = Self::of(entry);
        self.functions += other.functions;
        self.versions += other.versions;
        self.bundles_bytes += other.bundles_bytes;
        self.warm_workers += other.warm_workers;
    }

    fn subtract(&mut self, entry: &Entry) {
        let other = Self::of(entry);
        self.functions -= other.functions;
        self.versions -= other.versions;
        self.bundles_bytes -= other.bundles_bytes;
        self.warm_workers -= other.warm_workers;
    }
}

/// A route, and whether it was found through an alias.
struct Resolution {
    route: Route,
    by_alias: bool,
}

impl Resolution {
    /// Checks approval for a version invoked by its own name. An alias needs no check here: it sends invocations only
    /// to approved versions.
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
        "`{label}` of `{name}` was never approved for the protected environment {environment}, where a version called \
         by its own name runs: call it through an alias of another environment (`levain alias set {name} STAGING \
         {label}`, then `{name}:STAGING`), or have it approved (`levain alias set {name} LIVE {label}`, then \
         `levain approve {name}`)"
    );
    let details = json!({ "version": label, "environment": environment });
    Error::new(ErrorCode::ApprovalRequired, message).with_details(details)
}

fn function_not_found(id_or_name: &str) -> Error {
    let shown = shown(id_or_name);
    let message = format!("no function is called `{shown}`; `levain list` shows all functions");
    Error::new(ErrorCode::FunctionNotFound, message).with_details(json!({ "function": shown }))
}

/// Splits a function from the qualifier that may follow it after a colon.
pub fn split<'a>(function: &'a str, qualifier: Option<&'a str>) -> Result<(&'a str, Option<&'a str>), Error> {
    match (function.split_once(':'), qualifier) {
        (Some((_, own)), Some(other)) if own != other => {
            Err(Error::invalid(format!("two qualifiers are given, `{own}` and `{other}`: give one")))
        }
        (Some((function, own)), _) => Ok((function, Some(own))),
        (None, qualifier) => Ok((function, qualifier)),
    }
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

/// Whether a qualifier looks like a version: a number, `v` and a number, or text that is no valid alias name.
fn reads_as_version(qualifier: &str) -> bool {
    let number = qualifier.strip_prefix('v').unwrap_or(qualifier);
    number.bytes().all(|it| it.is_ascii_digit()) || qualifier.parse::<AliasName>().is_err()
}

#[cfg(test)]
mod tests;
