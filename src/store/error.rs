//! What can go wrong in the store.

use crate::model::{AliasName, EnvironmentName, FunctionId, FunctionName, VersionId, VersionLabel};
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
    /// Aliases point at the version.
    #[error("version `{label}` is in use by {}: point them at another version first", list(aliases))]
    VersionInUse {
        /// The version.
        label: VersionLabel,
        /// The aliases, by name.
        aliases: Vec<AliasName>,
    },
    /// There is no such function, or it is deleted.
    #[error("there is no function {0}")]
    FunctionNotFound(FunctionId),
    /// The function has no such version.
    #[error("the function has no version {0}")]
    VersionNotFound(VersionId),
    /// There is no such environment.
    #[error("there is no environment `{0}`")]
    EnvironmentNotFound(EnvironmentName),
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

fn list(aliases: &[AliasName]) -> String {
    aliases.iter().map(AliasName::as_str).collect::<Vec<_>>().join(", ")
}
