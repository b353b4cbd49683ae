//! A function.

use super::{FunctionId, FunctionName, Settings, Timestamp, words::words};

words! {
    /// Progress of a function.
    FunctionStatus {
        /// Registered by name, without a version.
        Registered = "registered",
        /// At least one version exists, but no alias points at any.
        Built = "built",
        /// `LIVE` points at a version.
        Deployed = "deployed",
        /// Gone for every command; rows and bundles are kept for audit.
        Deleted = "deleted",
    }
}

/// A named unit of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Identity, never reused.
    pub id: FunctionId,
    /// Name, free for reuse once the function is deleted.
    pub name: FunctionName,
    /// Runtime; `bun` is the only one.
    pub runtime: String,
    /// Export that is called: `default` or another name.
    pub handler: String,
    /// Progress of the function.
    pub status: FunctionStatus,
    /// Limits its workers run under.
    pub settings: Settings,
    /// Time of registration.
    pub created_at: Timestamp,
    /// Time of the last change to anything about the function.
    pub updated_at: Timestamp,
}
