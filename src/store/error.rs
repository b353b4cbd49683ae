//! What can go wrong in the store.

use super::Hold;
use crate::model::{
    AliasName, Deployment, DeploymentId, EnvironmentError, EnvironmentName, FunctionId, FunctionName, RolloutId,
    TokenId, TokenName, VariableKey, VersionId, VersionLabel,
};
use crate::secrets::SecretError;
use crate::sqlite::SqliteError;

/// A command the store did not carry out; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another function has the name.
    #[error("the name `{0}` is taken by another function: choose another name, or delete that function first")]
    NameTaken(FunctionName),
    /// Another version of the function has the label.
    #[error("version `{0}` exists already: a version does not change, choose another label")]
    LabelTaken(VersionLabel),
    /// The number is not above all that the function has used.
    #[error("version number {0} is used already")]
    NumberTaken(u32),
    /// Something refers to the version.
    #[error("version `{label}` is in use by {}", in_use(by))]
    VersionInUse {
        /// The version.
        label: VersionLabel,
        /// What it is.
        by: Vec<Hold>,
    },
    /// The alias is in a protected environment, out of which nothing is taken.
    #[error(
        "{alias} runs in {environment}, which is protected: nothing is taken out of it; `levain environments unprotect {environment}` ends that"
    )]
    EnvironmentProtected {
        /// The alias.
        alias: AliasName,
        /// Where it runs.
        environment: EnvironmentName,
    },
    /// The version is new to the alias in a protected environment, and this command cannot wait.
    #[error(
        "{} is new to {} in {}, which is protected: point that alias at it by itself, and have it approved first",
        .0.label, .0.alias, .0.environment
    )]
    ApprovalRequired(Box<Deployment>),
    /// There is no such deployment.
    #[error("there is no deployment {0}; `levain approvals` shows those that wait")]
    DeploymentNotFound(DeploymentId),
    /// The deployment does not wait for approval, or no more.
    #[error("{} waits for nobody's approval: it is {}{}", .0.id, .0.status.name(), decided(.0))]
    NotPending(Box<Deployment>),
    /// There is no such function, or it is deleted.
    #[error("there is no function {0}")]
    FunctionNotFound(FunctionId),
    /// The function has no such version.
    #[error("the function has no version {0}")]
    VersionNotFound(VersionId),
    /// The function has no such alias.
    #[error("the function has no alias `{0}`")]
    AliasNotFound(AliasName),
    /// The alias is not for commands to set or delete so.
    #[error("{0} cannot be changed like this: {rule}", rule = fixed(.0))]
    AliasFixed(AliasName),
    /// The alias has a rollout already.
    #[error("a rollout of {0} goes on already: wait for its end, or abort it")]
    RolloutGoesOn(AliasName),
    /// The rollout has ended.
    #[error("{0} does not go on any more")]
    RolloutOver(RolloutId),
    /// A token that is not revoked has the name.
    #[error("the name `{0}` is taken by a token that is not revoked: choose another name, or revoke that token first")]
    TokenNameTaken(TokenName),
    /// There is no such token.
    #[error("there is no token {0}")]
    TokenNotFound(TokenId),
    /// There is no such environment.
    #[error("there is no environment `{0}`; `levain environments list` shows those there are")]
    EnvironmentNotFound(EnvironmentName),
    /// The environment cannot be made, changed or deleted like this.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// What is a secret does not become a plain variable unasked.
    #[error("{}", stays_secret(.0))]
    IsSecret(Vec<VariableKey>),
    /// A protected environment finds the variables, and who asks may not approve what is new there.
    #[error(
        "{0} is protected, and finds what is set there: to change that needs a token with the scope `admin`; variables \
         for an environment that is not protected can be changed (`-e`, `environment`)"
    )]
    Guarded(EnvironmentName),
    /// A secret was given an empty value.
    #[error("{}: a secret is not empty; delete it if it is needed no more", keys(.0))]
    EmptySecret(Vec<VariableKey>),
    /// What is about secrets was asked for with plain variables.
    #[error("{}", is_plain(.0))]
    NotSecret(Vec<VariableKey>),
    /// There is no such variable there.
    #[error("no variable there is called {}", keys(.0))]
    VariableNotFound(Vec<VariableKey>),
    /// The secret has no such generation any more, or yet.
    #[error("there is no generation {1} of the secret {0}; `levain secret generations` lists those that are kept")]
    GenerationNotFound(VariableKey, u32),
    /// More variables than one function and environment may have.
    #[error(
        "there would be {found} variables of {bytes} bytes there; at most {max} (variables.count_max) of {bytes_max} \
         bytes together (variables.total_bytes_max) may be"
    )]
    TooManyVariables {
        /// How many.
        found: usize,
        /// How long they are.
        bytes: usize,
        /// How many there may be.
        max: usize,
        /// How long they may be.
        bytes_max: usize,
    },
    /// A secret cannot be sealed or opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] SqliteError),
    /// A row holds what this program cannot have written.
    #[error("a row of {table} ({key}) is not readable: {column}: {cause}")]
    Corrupt {
        /// Its table.
        table: &'static str,
        /// The first column that was asked for, which is the row's key.
        key: String,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        #[source]
        cause: rusqlite::Error,
    },
    /// The database failed: a full disk, a lock held too long, damage.
    #[error("the store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Names that a message lists; of more it says how many there are.
const KEYS_SHOWN_MAX: usize = 10;

fn keys(keys: &[VariableKey]) -> String {
    let shown = keys.iter().take(KEYS_SHOWN_MAX).map(VariableKey::as_str).collect::<Vec<_>>().join(", ");
    match keys.len().saturating_sub(KEYS_SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn stays_secret(several: &[VariableKey]) -> String {
    let keys = keys(several);
    match several.len() {
        1 => format!("{keys} is a secret, and stays one when it is set: delete it first to make it a plain variable"),
        _ => {
            format!("{keys} are secrets, and stay so when they are set: delete them first to make them plain variables")
        }
    }
}

fn is_plain(several: &[VariableKey]) -> String {
    let (keys, how) =
        (keys(several), "`levain env delete` deletes such, and `levain secret set` makes secrets of them");
    match several.len() {
        1 => format!("{keys} is a plain variable and no secret: {how}"),
        _ => format!("{keys} are plain variables and no secrets: {how}"),
    }
}

fn fixed(alias: &AliasName) -> &'static str {
    match alias.is_live() {
        true => "a function that takes traffic has it; point it at another version, or delete the function",
        false => "it follows LIVE by itself and points at the version before; move LIVE, or set another alias",
    }
}

fn in_use(by: &[Hold]) -> String {
    let name = |hold: &Hold| match hold {
        Hold::Alias(name) => name.to_string(),
        other => other.to_string(),
    };
    let names = by.iter().map(name).collect::<Vec<_>>().join(", ");
    match by.iter().all(|hold| matches!(hold, Hold::Alias(_))) {
        true => format!("{names}: point them at another version first"),
        false => format!("{names}: point aliases at another version, and end what goes on, first"),
    }
}

/// By whom and why a deployment was decided.
fn decided(deployment: &Deployment) -> String {
    let Some(decision) = &deployment.decision else { return String::new() };
    let reason = decision.reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
    format!(", decided by {}{reason}", decision.by)
}
