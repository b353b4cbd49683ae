//! Variables: what a function finds in `process.env`, and which of several values of a key applies.

use super::{EnvironmentName, FunctionId, NameError, SecretText};
use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// Prefixes of keys that a function may not set: Levain's own, those that make Bun and its engine run differently from
/// what the daemon expects, and those that make the loader of a program started by the function load other code.
const REFUSED_PREFIXES: [(&str, &str); 8] = [
    ("LEVAIN_", "names that begin with LEVAIN_ are Levain's own"),
    ("BUN_", "Bun reads names that begin with BUN_ and would run differently"),
    ("JSC_", "Bun's engine reads names that begin with JSC_ and would run differently"),
    ("WEBKIT_", "Bun's engine reads names that begin with WEBKIT_ and would run differently"),
    ("MIMALLOC_", "Bun's allocator reads names that begin with MIMALLOC_"),
    ("MALLOC_", "the C library's allocator reads names that begin with MALLOC_"),
    ("LD_", "the system's loader reads names that begin with LD_ and would load other code"),
    ("NODE_CHANNEL_", "Bun reads names that begin with NODE_CHANNEL_ as a channel of its parent"),
];

/// Keys that are refused for the same reasons.
const REFUSED_KEYS: [(&str, &str); 12] = [
    ("NODE_OPTIONS", "it changes how Bun runs"),
    ("NODE_PATH", "it changes where Bun looks for modules"),
    ("NODE_COMPILE_CACHE", "it changes where Bun keeps compiled code"),
    ("NODE_REDIRECT_WARNINGS", "it changes where Bun writes"),
    ("NODE_V8_COVERAGE", "it changes where Bun writes"),
    ("NODE_UNIQUE_ID", "it makes Bun treat the process as a worker of a cluster"),
    ("GLIBC_TUNABLES", "it changes how the C library runs"),
    ("UV_THREADPOOL_SIZE", "it changes how many threads Bun starts"),
    ("HOME", "it is the worker's own folder"),
    ("TMPDIR", "it is the worker's own folder"),
    ("PWD", "it is the worker's own folder"),
    ("__PROTO__", "JavaScript keeps __proto__ for itself: it would never arrive"),
];

/// Name of a variable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct VariableKey(Arc<str>);

/// Why a text cannot be the name of a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text has other characters, begins with a digit, or is too long.
    #[error("a name is 1 to {KEY_BYTES_MAX} of A-Z, a-z, 0-9 and _, and does not begin with a digit")]
    Form,
    /// The name is reserved.
    #[error("{0}")]
    Reserved(&'static str),
}

impl VariableKey {
    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for VariableKey {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for VariableKey {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl FromStr for VariableKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if !is_formed(text) {
            return Err(KeyError::Form);
        }
        // The engine's own names are of mixed case, so case is ignored; no function needs a key that differs only in
        // case.
        let upper = text.to_ascii_uppercase();
        let by_prefix = REFUSED_PREFIXES.iter().find(|(prefix, _)| upper.starts_with(prefix));
        if let Some((_, why)) = by_prefix.or_else(|| REFUSED_KEYS.iter().find(|(key, _)| upper == *key)) {
            return Err(KeyError::Reserved(why));
        }
        Ok(Self(text.into()))
    }
}

/// Whether a text has the form of a key.
pub(super) fn is_formed(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_')
        && text.len() <= KEY_BYTES_MAX
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
}

/// Reads a stored key. A key that could be set once stays readable, even if it is refused since.
impl TryFrom<String> for VariableKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        match is_formed(&text) {
            true => Ok(Self(text.into())),
            false => Err(KeyError::Form),
        }
    }
}

impl From<VariableKey> for String {
    fn from(key: VariableKey) -> Self {
        key.0.as_ref().into()
    }
}

impl Borrow<str> for VariableKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VariableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VariableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Scope of a variable: one function or all, in one environment or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariablePlace {
    /// Function; `None` means all.
    pub function: Option<FunctionId>,
    /// Environment; `None` means all.
    pub environment: Option<EnvironmentName>,
}

impl VariablePlace {
    /// Returns the text form that is bound to a sealed value: `func-…/production`, with `*` for all.
    #[must_use]
    pub fn describe(&self) -> String {
        let function = self.function.map_or_else(|| "*".to_owned(), |it| it.to_string());
        let environment = self.environment.as_ref().map_or("*", EnvironmentName::as_str);
        format!("{function}/{environment}")
    }
}

/// Value of a key in a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableValue {
    /// A text visible to anybody who may list variables.
    Plain(String),
    /// A secret.
    Secret(Sealed),
}

/// A generation of a secret, in its form on disk and in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Number within the secret, from 1.
    pub generation: u32,
    /// Number of the change that created it, never reused. Together with place, key and generation it is bound to both
    /// texts below.
    pub sealed_at: i64,
    /// Value, sealed with a data key of its own.
    pub value: Vec<u8>,
    /// Data key, sealed with the master key.
    pub wrapped_key: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Place it is set in.
    pub place: VariablePlace,
    /// Name of the variable.
    pub key: VariableKey,
    /// Plain value or secret.
    pub value: VariableValue,
    /// Number of the change that set the current value; every new value gets another number.
    pub revision: i64,
    /// Actor who set it last.
    pub actor: Arc<str>,
    /// Time when it was first set.
    pub created_at: super::Timestamp,
    /// Time when it was last set.
    pub updated_at: super::Timestamp,
}

/// New value for a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewValue {
    /// Keeps the kind: a secret stays a secret, and any other variable is plain.
    Kept(SecretText),
    /// A plain text.
    Plain(SecretText),
    /// A secret.
    Secret(SecretText),
    /// Value of this generation of the secret.
    Generation(u32),
}

/// Parent of each environment, from which it takes variables that it does not set.
pub type Parents = HashMap<EnvironmentName, EnvironmentName>;

/// Returns the environment and its ancestors, the nearest first, each once even if they form a cycle.
#[must_use]
pub fn chain(environment: &EnvironmentName, parents: &Parents) -> Vec<EnvironmentName> {
    let mut chain = vec![environment.clone()];
    while let Some(parent) = chain.last().and_then(|it| parents.get(it)) {
        if chain.contains(parent) {
            break;
        }
        chain.push(parent.clone());
    }
    chain
}

/// Returns the places in which a function in an environment looks up a key, in order; the first place that has the key
/// wins.
#[must_use]
pub fn places(function: FunctionId, environment: &EnvironmentName, parents: &Parents) -> Vec<VariablePlace> {
    let chain = chain(environment, parents);
    let of = |function: Option<FunctionId>| {
        let named = chain.iter().map(move |it| VariablePlace { function, environment: Some(it.clone()) });
        named.chain([VariablePlace { function, environment: None }]).collect::<Vec<_>>()
    };
    [of(Some(function)), of(None)].concat()
}

/// Variables by place and key. A changed copy shares the places that did not change.
pub type VariablesByPlace = RedBlackTreeMapSync<VariablePlace, BTreeMap<VariableKey, Arc<Variable>>>;

/// Result of looking up a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Variable that applies.
    pub found: Arc<Variable>,
    /// Variables hidden by it, the next to apply first.
    pub hidden: Vec<Arc<Variable>>,
}

/// Resolves every key over these places, in this order.
#[must_use]
pub fn resolve(all: &VariablesByPlace, places: &[VariablePlace]) -> BTreeMap<VariableKey, Resolved> {
    let mut resolved = BTreeMap::<VariableKey, Resolved>::new();
    for variable in places.iter().filter_map(|place| all.get(place)).flat_map(BTreeMap::values) {
        match resolved.get_mut(&variable.key) {
            Some(there) => there.hidden.push(Arc::clone(variable)),
            None => {
                let found = Resolved { found: Arc::clone(variable), hidden: Vec::new() };
                resolved.insert(variable.key.clone(), found);
            }
        }
    }
    resolved
}

/// Parses the environment of a request, if it names one.
pub fn environment(name: Option<&str>) -> Result<Option<EnvironmentName>, NameError> {
    name.map(str::parse).transpose()
}

#[cfg(test)]
mod tests;
