//! Variables of functions in memory, and the encryption of secrets.
//!
//! [`Variables`] holds the current variables in memory, and workers get theirs from it. Secrets are sealed there as
//! they are on disk, and are opened for an assignment only. [`seal`](mod@seal) seals them with the [`master_key`];
//! [`scrub`] masks them in the output of a function.
//!
//! **Invariants.** A snapshot is consistent: its variables, environments and master key belong together, so a worker
//! gets one consistent set, even while keys are rotated. Opened values are wiped when they are dropped, and no type
//! that holds one shows it in its `Debug` output.

mod error;
pub mod master_key;
pub mod scrub;
pub mod seal;

pub use error::{KeyId, SecretError};
pub use master_key::{KeySource, MasterKey};
pub use scrub::Scrubber;

use crate::model::{
    EnvironmentName, FunctionId, SecretText, Timestamp, Variable, VariableKey, VariablePlace, VariableValue,
    VersionLabel,
    variable::{Parents, Resolved, VariablesByPlace, places, resolve},
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::Notify;

/// Most injections that wait to be written to the audit trail; further ones are dropped.
const INJECTIONS_MAX: usize = 10_000;

/// Value of every secret for code that is not approved yet.
pub const NOT_APPROVED: &str = "[available after approval]";

/// A consistent snapshot of all variables.
#[derive(Debug, Default)]
pub struct VariableSnapshot {
    /// Number of the snapshot, which rises with every new one.
    number: u64,
    /// Variables by place and key.
    pub all: VariablesByPlace,
    /// Parents of the environments.
    pub parents: Parents,
    /// Master key that its secrets are sealed with, if available.
    pub master: Option<Arc<MasterKey>>,
    /// Reason why the master key is not available.
    pub why_no_master: String,
}

impl VariableSnapshot {
    /// Creates a snapshot without variables.
    #[must_use]
    pub fn new(parents: Parents, master: Option<Arc<MasterKey>>, why_no_master: String) -> Self {
        Self { number: 0, all: VariablesByPlace::default(), parents, master, why_no_master }
    }

    /// Returns the snapshot with other variables in one place. All other places are shared with this one.
    #[must_use]
    pub fn with(&self, place: &VariablePlace, variables: Vec<Variable>, master: Option<Arc<MasterKey>>) -> Self {
        let all = match variables.is_empty() {
            true => self.all.remove(place),
            false => {
                let variables = variables.into_iter().map(|it| (it.key.clone(), Arc::new(it))).collect();
                self.all.insert(place.clone(), variables)
            }
        };
        Self { all, ..Self::new(self.parents.clone(), master, self.why_no_master.clone()) }
    }

    /// Resolves the variables that apply to a function in an environment.
    #[must_use]
    pub fn resolve(&self, function: FunctionId, environment: &EnvironmentName) -> BTreeMap<VariableKey, Resolved> {
        resolve(&self.all, &places(function, environment, &self.parents))
    }

    /// Returns the revisions of the resolved variables. Equal sets have equal revisions, and different sets have
    /// different ones.
    fn revisions(&self, function: FunctionId, environment: &EnvironmentName) -> Vec<i64> {
        if self.all.is_empty() {
            return Vec::new();
        }
        self.resolve(function, environment).values().map(|it| it.found.revision).collect()
    }
}

/// Variables for one worker, with the state that tells whether they are still current.
#[derive(Debug)]
pub struct WorkerVariables {
    /// Values by name; wiped on drop.
    pub variables: BTreeMap<String, SecretText>,
    /// Scrubber for its secrets; `None` if there is nothing to mask.
    pub scrubber: Option<Scrubber>,
    /// Identity of this set of variables.
    pub revisions: VariableRevisions,
    /// Secrets in the set, as `KEY@generation`.
    pub secrets: Vec<String>,
}

/// Identity of the set of variables that a worker has.
#[derive(Debug)]
pub struct VariableRevisions {
    revisions: Vec<i64>,
    /// Number of the last snapshot that resolves to the same set.
    snapshot: std::sync::atomic::AtomicU64,
}

/// Record of a worker that received secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Time of the injection.
    pub at: Timestamp,
    /// Function of the worker.
    pub function: FunctionId,
    /// Version that the worker runs.
    pub version: VersionLabel,
    /// Environment that the worker runs in.
    pub environment: EnvironmentName,
    /// Secrets that it received, as `KEY@generation`.
    pub secrets: Vec<String>,
}

/// The current variables. Clones share one state.
#[derive(Clone, Default)]
pub struct Variables(Arc<VariablesInner>);

#[derive(Default)]
struct VariablesInner {
    snapshot: ArcSwap<VariableSnapshot>,
    injections: Mutex<Vec<Injection>>,
    injected: Notify,
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variables").field("snapshot", &self.snapshot().number).finish_non_exhaustive()
    }
}

impl Variables {
    /// Returns the current snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<VariableSnapshot> {
        self.0.snapshot.load_full()
    }

    /// Replaces the current snapshot. Callers must not run concurrently, or two snapshots would get the same number.
    pub fn put(&self, snapshot: VariableSnapshot) {
        let number = self.0.snapshot.load().number + 1;
        self.0.snapshot.store(Arc::new(VariableSnapshot { number, ..snapshot }));
    }

    /// Returns a copy of the current variables with [`NOT_APPROVED`] in place of every secret, for code that is not
    /// approved yet.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let snapshot = self.snapshot();
        let hide = |variable: &Arc<Variable>| match &variable.value {
            VariableValue::Plain(_) => Arc::clone(variable),
            VariableValue::Secret(_) => {
                let value = VariableValue::Plain(NOT_APPROVED.into());
                Arc::new(Variable { value, ..Variable::clone(variable) })
            }
        };
        let all = snapshot.all.iter().map(|(place, variables)| {
            let hidden = variables.iter().map(|(key, variable)| (key.clone(), hide(variable)));
            (place.clone(), hidden.collect())
        });
        let copy = Self::default();
        let all = all.collect();
        copy.put(VariableSnapshot {
            all,
            ..VariableSnapshot::new(snapshot.parents.clone(), None, snapshot.why_no_master.clone())
        });
        copy
    }

    /// Opens the current variables for a worker of a function in an environment.
    pub fn open(&self, function: FunctionId, environment: &EnvironmentName) -> Result<WorkerVariables, SecretError> {
        let snapshot = self.snapshot();
        let resolved = snapshot.resolve(function, environment);
        let mut variables = BTreeMap::new();
        let mut secrets = Vec::new();
        for (key, Resolved { found, .. }) in &resolved {
            let value = match &found.value {
                VariableValue::Plain(text) => text.as_str().into(),
                VariableValue::Secret(sealed) => {
                    let no_key = || SecretError::Locked(snapshot.why_no_master.clone());
                    let master = snapshot.master.as_ref().ok_or_else(no_key)?;
                    secrets.push(format!("{key}@{}", sealed.generation));
                    seal::open(master, &found.place, key, sealed)?
                }
            };
            variables.insert(key.to_string(), value);
        }
        let is_secret = |found: &Variable| matches!(found.value, VariableValue::Secret(_));
        let masked = resolved.iter().filter(|(_, it)| is_secret(&it.found));
        let scrubber = Scrubber::new(masked.filter_map(|(key, _)| Some((key, variables.get(key.as_str())?))));
        let revisions = resolved.values().map(|it| it.found.revision).collect();
        Ok(WorkerVariables {
            variables,
            scrubber,
            revisions: VariableRevisions { revisions, snapshot: snapshot.number.into() },
            secrets,
        })
    }

    /// Returns whether a worker with this set would get the same set now. This costs two atomic loads while nothing
    /// changes.
    #[must_use]
    pub fn is_current(
        &self,
        revisions: &VariableRevisions,
        function: FunctionId,
        environment: &EnvironmentName,
    ) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let snapshot = self.0.snapshot.load();
        if revisions.snapshot.load(Relaxed) == snapshot.number {
            return true;
        }
        let is_same = snapshot.revisions(function, environment) == revisions.revisions;
        if is_same {
            revisions.snapshot.store(snapshot.number, Relaxed);
        }
        is_same
    }

    /// Records that a worker received secrets.
    pub fn record_injection(&self, injection: Injection) {
        let mut injections = self.0.injections.lock();
        if injections.len() < INJECTIONS_MAX {
            injections.push(injection);
        }
        drop(injections);
        self.0.injected.notify_one();
    }

    /// Waits until a worker has received secrets.
    pub async fn injected(&self) {
        self.0.injected.notified().await;
    }

    /// Takes the injections recorded since the last call.
    #[must_use]
    pub fn take_injections(&self) -> Vec<Injection> {
        std::mem::take(&mut *self.0.injections.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(place: &VariablePlace, revision: i64) -> Variable {
        Variable {
            place: place.clone(),
            key: "KEY".parse().expect("a key"),
            value: VariableValue::Plain(revision.to_string()),
            revision,
            actor: "uid:0".into(),
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn a_change_of_one_place_leaves_all_others_as_they_are() {
        let places: Vec<VariablePlace> =
            (0..100).map(|_| VariablePlace { function: Some(FunctionId::new()), environment: None }).collect();
        let mut before = VariableSnapshot::default();
        for (place, revision) in places.iter().zip(0..) {
            before = before.with(place, vec![variable(place, revision)], None);
        }
        let after = before.with(&places[7], vec![variable(&places[7], 1_000)], None);
        let is_new = |place: &&VariablePlace| {
            let of = |snapshot: &VariableSnapshot| snapshot.all.get(*place).and_then(|it| it.get("KEY").cloned());
            of(&before).zip(of(&after)).is_none_or(|(old, new)| !Arc::ptr_eq(&old, &new))
        };
        assert_eq!(places.iter().filter(is_new).collect::<Vec<_>>(), [&places[7]]);
        let without = after.with(&places[7], Vec::new(), None);
        assert_eq!((without.all.get(&places[7]), without.all.size()), (None, 99));
    }
}
