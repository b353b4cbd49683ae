//! Messages of BACKUP.

use crate::{model::Timestamp, protocol::field::Body};
use serde::{Deserialize, Serialize};

requests! {
    /// BACKUP.
    BackupRequest {}
}

messages! {
    /// BACKUP. A partial frame, with a part of the file.
    BackupPart {
        /// Next bytes of the file.
        bytes: Body,
    }
    /// BACKUP. The final answer, after the whole file was sent.
    BackupResponse {
        /// Size of the file in bytes.
        bytes: u64,
        /// Number of functions, without deleted ones.
        functions: u32,
        /// Number of versions, including those of deleted functions.
        versions: u32,
        /// Instant of the node's state in the backup.
        created_at: Timestamp,
    }
}
