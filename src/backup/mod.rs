//! Backups: a node's metadata and code in one file, taken while it works, and the way back.
//!
//! ```text
//! take ──▶ snapshot of the database + links to the bundles it knows ──▶ write: tar.gz
//! unpack ──▶ a folder ──▶ check: database whole, every bundle what was published ──▶ in place
//! ```
//!
//! A file is a gzipped tar: `levain-backup.json` first, then `levain.db`, `bundles/…` and `deployments/…` as they lie in
//! a data directory. Logs, metrics and what can be made anew (bytecode, Bun) are not in it, and no key or token in
//! clear: secrets are as sealed in it as they are in the database, and the master key is to be kept elsewhere.
//!
//! **Invariants.** A backup is of one instant: every version of its database has its bundle, whatever is deployed or
//! deleted meanwhile. A file that is cut off or changed is refused; nothing of it is put in place.

mod read;
mod write;

pub use read::{Checked, RestoreError, check, unpack};
pub use write::{Prepared, TakeError, prepare};

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

/// The form of the file that this program writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// What tells of a backup, in its first entry.
const ABOUT: &str = "levain-backup.json";

/// The database.
const DATABASE: &str = "levain.db";

/// Where SQLite keeps what is not in the database yet.
const DATABASE_LOG: &str = "levain.db-wal";

/// The code.
const BUNDLES: &str = "bundles";

/// The manifests of deployments.
const MANIFESTS: &str = "deployments";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The form of the file.
    pub format: u32,
    /// The Levain that wrote it.
    pub levain: String,
    /// The instant that it shows.
    pub created_at: Timestamp,
    /// Functions that are not deleted.
    pub functions: u32,
    /// Versions, those of deleted functions too.
    pub versions: u32,
}
