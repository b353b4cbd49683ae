//! What functions' variables are, and how secrets among them are kept.
//!
//! [`Variables`] is the picture in memory that workers are given theirs from; secrets lie in it as sealed as on disk, and
//! are opened for an assignment only. [`seal`](mod@seal) and [`master_key`] are how they are sealed and with what;
//! [`scrub`] masks them in what a function writes.
//!
//! **Invariants.** A picture is whole: variables, environments and the master key in it belong together, so a worker
//! gets one consistent set, also while keys are rotated. What is opened is wiped when it is dropped, and no type that
//! holds it shows it.

pub mod master_key;
pub mod scrub;
pub mod seal;

pub use master_key::{KeyId, KeySource, MasterKey};
pub use scrub::Scrubber;

use crate::model::{
    EnvironmentName, FunctionId, SecretText, Timestamp, Variable, VariableKey, VariableValue, VersionLabel,
    variable::{Parents, Resolved, VariablesByPlace, places, resolve},
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Notify;

/// Injections that wait to be written down; further ones are counted only.
const INJECTIONS_MAX: usize = 10_000;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// Longer than the cipher takes.
    #[error("the value is too long to be sealed")]
    TooLong,
    /// The sealed row is not what this program wrote there, or was sealed with another master key.
    #[error(
        "the secret {key} ({place}, generation {generation}) does not open: its row was damaged, changed or moved; set it again"
    )]
    Damaged {
        /// Its key.
        key: VariableKey,
        /// For whom it is.
        place: String,
        /// Its generation.
        generation: u32,
    },
    /// There is no master key.
    #[error("secrets cannot be opened without the master key, which is not in {from}: restore it, and start again")]
    NoKey {
        /// Where it was looked for.
        from: String,
    },
    /// The daemon was started without the right master key.
    #[error("secrets are not available: {0}")]
    Locked(String),
    /// The key is not the one that secrets were sealed with.
    #[error(
        "the master key in {from} is not the one that secrets were sealed with (it is {found}, they need {wanted}): \
         restore that one; nothing has been changed"
    )]
    WrongKey {
        /// Where it is from.
        from: String,
        /// Its id.
        found: KeyId,
        /// The id of the one that is needed.
        wanted: KeyId,
    },
    /// The key's file or variable holds something else, or is open to others.
    #[error("the master key in {from} cannot be used: {what}")]
    Unreadable {
        /// Where it is from.
        from: String,
        /// What is wrong with it.
        what: String,
    },
    /// The key's file cannot be reached.
    #[error("the master key's file {} cannot be reached: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// A rotation needs another key in the given file.
    #[error("{} holds the present master key: put the new one there first, and keep the old one until this has worked", .0.display())]
    SameKey(PathBuf),
    /// A variable of a process does not change.
    #[error(
        "the master key comes from {}, which does not change while the daemon runs: give it in a file instead",
        master_key::KEY_VARIABLE
    )]
    FixedKey,
}

impl SecretError {
    fn file(path: &Path, cause: io::Error) -> Self {
        Self::File { path: path.to_owned(), cause }
    }
}

/// What code that is not approved yet finds in the place of a secret.
pub const NOT_APPROVED: &str = "[given once it is approved]";

/// All variables as of one instant.
#[derive(Debug, Default)]
pub struct Picture {
    /// The number of the picture; the next one has a higher one.
    number: u64,
    /// By place and key.
    pub all: VariablesByPlace,
    /// What environments inherit from.
    pub parents: Parents,
    /// What the secrets in it are sealed with, if it is there.
    pub master: Option<Arc<MasterKey>>,
    /// Why it is not there.
    pub why_no_master: String,
}

impl Picture {
    /// One without variables.
    #[must_use]
    pub fn new(parents: Parents, master: Option<Arc<MasterKey>>, why_no_master: String) -> Self {
        Self { number: 0, all: VariablesByPlace::new(), parents, master, why_no_master }
    }

    /// What each key comes to for a function in an environment.
    #[must_use]
    pub fn resolve(&self, function: FunctionId, environment: &EnvironmentName) -> BTreeMap<VariableKey, Resolved> {
        resolve(&self.all, &places(function, environment, &self.parents))
    }

    /// The same set has the same revisions, and another one has others.
    fn revisions(&self, function: FunctionId, environment: &EnvironmentName) -> Vec<i64> {
        if self.all.is_empty() {
            return Vec::new();
        }
        self.resolve(function, environment).values().map(|it| it.found.revision).collect()
    }
}

/// What a worker is given, and how to tell whether it is still right.
#[derive(Debug)]
pub struct Given {
    /// Name and value of each. Wiped when this is dropped.
    pub variables: BTreeMap<String, SecretText>,
    /// What masks the secrets among them; none where there is none.
    pub scrubber: Option<Scrubber>,
    /// Which set it is.
    pub worn: Worn,
    /// The secrets among them: `KEY@generation`.
    pub secrets: Vec<String>,
}

/// Which set of variables a worker has.
#[derive(Debug)]
pub struct Worn {
    revisions: Vec<i64>,
    /// The last picture that said the same.
    picture: std::sync::atomic::AtomicU64,
}

/// A worker got secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// When.
    pub at: Timestamp,
    /// The worker's function.
    pub function: FunctionId,
    /// The version it runs.
    pub version: VersionLabel,
    /// The environment it runs in.
    pub environment: EnvironmentName,
    /// `KEY@generation` of each.
    pub secrets: Vec<String>,
}

/// The variables as they are at present; all who hold it see the same.
#[derive(Clone, Default)]
pub struct Variables(Arc<Shared>);

#[derive(Default)]
struct Shared {
    picture: ArcSwap<Picture>,
    injections: Mutex<Vec<Injection>>,
    injected: Notify,
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Variables").field("picture", &self.picture().number).finish_non_exhaustive()
    }
}

impl Variables {
    /// The present picture.
    #[must_use]
    pub fn picture(&self) -> Arc<Picture> {
        self.0.picture.load_full()
    }

    /// Puts another picture in its place. One caller at a time, or a number would be given twice.
    pub fn put(&self, picture: Picture) {
        let number = self.0.picture.load().number + 1;
        self.0.picture.store(Arc::new(Picture { number, ..picture }));
    }

    /// The same as they are at present, with a text in the place of every secret: for code that is not approved yet.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let picture = self.picture();
        let hide = |variable: &Arc<Variable>| match &variable.value {
            VariableValue::Plain(_) => Arc::clone(variable),
            VariableValue::Secret(_) => {
                let value = VariableValue::Plain(NOT_APPROVED.into());
                Arc::new(Variable { value, ..Variable::clone(variable) })
            }
        };
        let all = picture.all.iter().map(|(place, variables)| {
            let hidden = variables.iter().map(|(key, variable)| (key.clone(), hide(variable)));
            (place.clone(), hidden.collect())
        });
        let copy = Self::default();
        let all = all.collect();
        copy.put(Picture { all, ..Picture::new(picture.parents.clone(), None, picture.why_no_master.clone()) });
        copy
    }

    /// What a worker of a function in an environment is given now.
    pub fn open(&self, function: FunctionId, environment: &EnvironmentName) -> Result<Given, SecretError> {
        let picture = self.picture();
        let resolved = picture.resolve(function, environment);
        let mut variables = BTreeMap::new();
        let mut secrets = Vec::new();
        for (key, Resolved { found, .. }) in &resolved {
            let value = match &found.value {
                VariableValue::Plain(text) => text.as_str().into(),
                VariableValue::Secret(sealed) => {
                    let no_key = || SecretError::Locked(picture.why_no_master.clone());
                    let master = picture.master.as_ref().ok_or_else(no_key)?;
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
        Ok(Given { variables, scrubber, worn: Worn { revisions, picture: picture.number.into() }, secrets })
    }

    /// Whether a worker that was given this set would be given the same one now. Costs two loads as long as nothing changes.
    #[must_use]
    pub fn still(&self, worn: &Worn, function: FunctionId, environment: &EnvironmentName) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        let picture = self.0.picture.load();
        if worn.picture.load(Relaxed) == picture.number {
            return true;
        }
        let is_same = picture.revisions(function, environment) == worn.revisions;
        if is_same {
            worn.picture.store(picture.number, Relaxed);
        }
        is_same
    }

    /// Notes that a worker was given secrets.
    pub fn note(&self, injection: Injection) {
        let mut injections = self.0.injections.lock();
        if injections.len() < INJECTIONS_MAX {
            injections.push(injection);
        }
        drop(injections);
        self.0.injected.notify_one();
    }

    /// Waits until a worker was given secrets.
    pub async fn injected(&self) {
        self.0.injected.notified().await;
    }

    /// What was noted since the last time.
    #[must_use]
    pub fn take_injections(&self) -> Vec<Injection> {
        std::mem::take(&mut *self.0.injections.lock())
    }
}
