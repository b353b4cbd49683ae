//! What BACKUP says and answers.

use crate::{model::Timestamp, protocol::field::Body};
use serde::{Deserialize, Serialize};

requests! {
    /// BACKUP.
    BackupRequest {}
}

messages! {
    /// BACKUP: a part of the file.
    BackupPart {
        /// The next bytes.
        bytes: Body,
    }
    /// BACKUP: all of the file has been sent.
    BackupResponse {
        /// Its bytes.
        bytes: u64,
        /// Functions that are not deleted.
        functions: u32,
        /// Versions, those of deleted functions too.
        versions: u32,
        /// The instant that it shows.
        created_at: Timestamp,
    }
}
