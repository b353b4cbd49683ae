//! Backups: a node's metadata and code in one file, written while the node runs, and the restore of such a file.
//!
//! ```text
//! take ──▶ snapshot of the database + links to the bundles it knows ──▶ write: tar.gz
//! unpack ──▶ a folder ──▶ check: database intact, every bundle as published ──▶ in place
//! ```
//!
//! The file is a gzipped tar: `levain-backup.json` first, then `levain.db`, `bundles/…` and `deployments/…` as in a
//! data directory. Logs, metrics and files that can be regenerated (bytecode, Bun) are left out. The file holds no key
//! or token in clear text: secrets are sealed as in the database, and the master key must be kept elsewhere.
//!
//! **Invariants.** A backup shows one instant: every version in its database has its bundle, whatever is deployed or
//! deleted meanwhile. A truncated or changed file is refused, and nothing from it is put in place.

mod read;
mod write;

pub use read::{Checked, RestoreError, check, unpack};
pub use write::{Prepared, TakeError, prepare};

use crate::model::Timestamp;
use serde::{Deserialize, Serialize};

/// Format of the file that this program writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// Name of the first entry, which describes the backup.
const ABOUT: &str = "levain-backup.json";

/// Name of the database.
const DATABASE: &str = "levain.db";

/// Write-ahead log of the database.
const DATABASE_LOG: &str = "levain.db-wal";

/// Folder of the bundles.
const BUNDLES: &str = "bundles";

/// Folder of the manifests that deployments leave.
const MANIFESTS: &str = "deployments";

/// Description of a backup, in its first entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Format of the file.
    pub format: u32,
    /// Version of Levain that wrote it.
    pub levain: String,
    /// Instant of the node's state in the backup.
    pub created_at: Timestamp,
    /// Number of functions, without deleted ones.
    pub functions: u32,
    /// Number of versions, including those of deleted functions.
    pub versions: u32,
}
