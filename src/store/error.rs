//! Errors of the store.

use super::Hold;
use crate::model::{
    AliasName, Deployment, DeploymentId, EnvironmentError, EnvironmentName, FunctionId, FunctionName, RolloutId,
    TokenId, TokenName, VariableKey, VersionId, VersionLabel,
};
use crate::secrets::SecretError;
use crate::sqlite::SqliteError;

/// A command that the store did not carry out; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another function has the name.
    #[error("the name `{0}` is taken by another function: choose another name, or delete that function first")]
    NameTaken(FunctionName),
    /// Another version of the function has the label.
    #[error("version `{0}` exists already: a version does not change, choose another label")]
    LabelTaken(VersionLabel),
    /// The number is not above all numbers that the function has used.
    #[error("version number {0} is used already")]
    NumberTaken(u32),
    /// Something refers to the version.
    #[error("version `{label}` is in use by {}", in_use(by))]
    VersionInUse {
        /// The version.
        label: VersionLabel,
        /// References to the version.
        by: Vec<Hold>,
    },
    /// The alias is in a protected environment and cannot leave it.
    #[error(
        "{alias} runs in {environment}, which is protected: aliases there cannot be moved out or deleted; to allow it, run `levain environments unprotect {environment}`"
    )]
    EnvironmentProtected {
        /// The alias.
        alias: AliasName,
        /// Environment it runs in.
        environment: EnvironmentName,
    },
    /// The version needs approval for the alias in a protected environment, and this command cannot wait.
    #[error(
        "{} is new to {} in {}, which is protected: deploy it to that alias alone first, and have it approved",
        .0.label, .0.alias, .0.environment
    )]
    ApprovalRequired(Box<Deployment>),
    /// The deployment does not exist.
    #[error("there is no deployment {0}; `levain approvals` lists the waiting ones")]
    DeploymentNotFound(DeploymentId),
    /// The deployment does not wait for approval, or no longer does.
    #[error("{} does not wait for approval: it is {}{}", .0.id, .0.status.name(), decided(.0))]
    NotPending(Box<Deployment>),
    /// The function does not exist, or is deleted.
    #[error("there is no function {0}")]
    FunctionNotFound(FunctionId),
    /// The function has no such version.
    #[error("the function has no version {0}")]
    VersionNotFound(VersionId),
    /// The function has no such alias.
    #[error("the function has no alias `{0}`")]
    AliasNotFound(AliasName),
    /// The alias cannot be set or deleted by a command.
    #[error("{0} cannot be changed like this: {rule}", rule = fixed(.0))]
    AliasFixed(AliasName),
    /// The alias already has a rollout.
    #[error("{0} already has a rollout: wait for it to end, or abort it")]
    RolloutGoesOn(AliasName),
    /// The rollout has ended.
    #[error("{0} has already ended")]
    RolloutOver(RolloutId),
    /// A token that is not revoked has the name.
    #[error("the name `{0}` is taken by a token that is not revoked: choose another name, or revoke that token first")]
    TokenNameTaken(TokenName),
    /// The token does not exist.
    #[error("there is no token {0}")]
    TokenNotFound(TokenId),
    /// The environment does not exist.
    #[error("there is no environment `{0}`; `levain environments list` shows the existing ones")]
    EnvironmentNotFound(EnvironmentName),
    /// The environment cannot be created, changed or deleted like this.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// A secret becomes a plain variable only on explicit request.
    #[error("{}", stays_secret(.0))]
    IsSecret(Vec<VariableKey>),
    /// A protected environment takes the variables, and the requester may not approve changes there.
    #[error(
        "{0} is protected and takes variables from there: changing them needs a token with the scope `admin`; variables \
         for an environment that is not protected can be changed (`-e`, `environment`)"
    )]
    Guarded(EnvironmentName),
    /// A secret was given an empty value.
    #[error("{}: a secret cannot be empty; delete it if it is no longer needed", keys(.0))]
    EmptySecret(Vec<VariableKey>),
    /// A command for secrets named plain variables.
    #[error("{}", is_plain(.0))]
    NotSecret(Vec<VariableKey>),
    /// The variable does not exist in that place.
    #[error("there is no variable {} there", keys(.0))]
    VariableNotFound(Vec<VariableKey>),
    /// The secret does not have the generation, or no longer keeps it.
    #[error("there is no generation {1} of the secret {0}; `levain secret generations` lists those that are kept")]
    GenerationNotFound(VariableKey, u32),
    /// Limit on the variables of one function and environment exceeded.
    #[error(
        "there would be {found} variables of {bytes} bytes there; at most {max} (variables.count_max) of {bytes_max} \
         bytes together (variables.total_bytes_max) may be"
    )]
    TooManyVariables {
        /// Number of variables.
        found: usize,
        /// Their total length in bytes.
        bytes: usize,
        /// Largest number of variables.
        max: usize,
        /// Largest total length in bytes.
        bytes_max: usize,
    },
    /// A secret cannot be sealed or opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] SqliteError),
    /// A row holds a value that this program cannot have written.
    #[error("a row of {table} ({key}) is not readable: {column}: {cause}")]
    Corrupt {
        /// Name of the table.
        table: &'static str,
        /// First column that was read, which is the row's key.
        key: String,
        /// Name of the column.
        column: &'static str,
        /// Fault of the value.
        #[source]
        cause: rusqlite::Error,
    },
    /// The database failed: a full disk, a lock held too long, damage.
    #[error("the store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Names that a message lists; of the rest, only the number is given.
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
    let (keys, how) = (keys(several), "use `levain env delete` to delete it, or `levain secret set` to make it secret");
    match several.len() {
        1 => format!("{keys} is a plain variable, not a secret: {how}"),
        _ => format!("{keys} are plain variables, not secrets: {how}"),
    }
}

fn fixed(alias: &AliasName) -> &'static str {
    match alias.is_live() {
        true => "a function that takes traffic needs it; point it at another version, or delete the function",
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
        false => {
            format!("{names}: first point the aliases at another version, and end rollouts and waiting deployments")
        }
    }
}

/// Returns who decided about a deployment, and why, as the end of a message.
fn decided(deployment: &Deployment) -> String {
    let Some(decision) = &deployment.decision else { return String::new() };
    let reason = decision.reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
    format!(", decided by {}{reason}", decision.by)
}
