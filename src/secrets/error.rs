//! Errors of secrets and of the master key.

use crate::model::VariableKey;
use serde::{Deserialize, Serialize};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Environment variable that may hold the key itself.
pub(super) const KEY_VARIABLE: &str = "LEVAIN_MASTER_KEY";

/// Identifier of a master key. It reveals nothing about the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub(super) String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reason why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SecretError {
    #[error("the system returned no random bytes")]
    Random,
    #[error("the value is too long to be encrypted")]
    TooLong,
    #[error(
        "the secret {key} ({place}, generation {generation}) cannot be decrypted: its row was damaged, changed or moved; set it again"
    )]
    Damaged { key: VariableKey, place: String, generation: u32 },
    #[error("secrets cannot be decrypted: the master key is not in {from}; restore it, and start again")]
    NoKey { from: String },
    /// The daemon was started without the right master key; holds the reason.
    #[error("secrets are not available: {0}")]
    Locked(String),
    #[error(
        "the master key in {from} is not the one that secrets were sealed with (it is {found}, they need {wanted}): \
         restore that key; nothing was changed"
    )]
    WrongKey { from: String, found: KeyId, wanted: KeyId },
    #[error("the master key in {from} cannot be used: {what}")]
    Unreadable { from: String, what: String },
    #[error("the master key's file {} cannot be reached: {cause}", path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{} still holds the current master key: replace it with the new key first, and keep the old key until the rotation has succeeded", .0.display())]
    SameKey(PathBuf),
    #[error(
        "the master key comes from {KEY_VARIABLE}, which cannot change while the daemon runs; provide the key in a file \
         instead"
    )]
    FixedKey,
}

impl SecretError {
    pub(super) fn file(path: &Path, cause: io::Error) -> Self {
        Self::File { path: path.to_owned(), cause }
    }
}
