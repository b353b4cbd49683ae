//! An immutable version of a function's code.

use super::{FunctionId, Settings, Timestamp, VersionId, VersionLabel, hex, text::text_form, words::words};
use std::{fmt, str::FromStr};

/// SHA-256 of a bundle; as text 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

text_form!(Digest, DigestError, debug);

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 digest: 64 hexadecimal digits are expected")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let mut digest = [0; 32];
        hex::decode(text, &mut digest).map(|()| Self(digest)).ok_or(DigestError)
    }
}

words! {
    /// Origin of a version's code.
    VersionSource {
        /// The bytes came with the command.
        Upload = "upload",
        /// The command named a file or folder on the daemon's machine.
        Path = "path",
        /// An archive came with the command.
        Archive = "archive",
        /// The version was built from uploaded or named sources.
        Build = "build",
    }
}

/// A published version, which never changes after its row is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Identity of the version.
    pub id: VersionId,
    /// Function it belongs to.
    pub function_id: FunctionId,
    /// Label chosen by people, unique within the function.
    pub label: VersionLabel,
    /// Number 1, 2, 3 … in the order of publishing.
    pub number: u32,
    /// Digest of the bundle.
    pub digest: Digest,
    /// Bytes of all files of the bundle.
    pub size: u64,
    /// File of the bundle that is imported, relative to its folder.
    pub entry: String,
    /// Origin of the code.
    pub source: VersionSource,
    /// Commit it was built from, if the client said so.
    pub git_commit: Option<String>,
    /// Branch it was built from, if the client said so.
    pub git_branch: Option<String>,
    /// Free text from the client.
    pub description: Option<String>,
    /// Free labels from the client.
    pub tags: Vec<String>,
    /// Bun version it was checked with.
    pub bun_version: String,
    /// Function's settings when it was published, for the record; the current settings apply.
    pub settings: Settings,
    /// Time of publishing.
    pub created_at: Timestamp,
}

impl Version {
    /// Whether `name` is the version's label, or else its number.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.label.as_str() == name || name.parse() == Ok(self.number)
    }
}
