//! Messages of the commands that clean up, delete and compare versions.

use super::VersionRef;
use crate::model::{Digest, FunctionId, Timestamp, VersionLabel, VersionSource};
use serde::{Deserialize, Serialize};

requests! {
    /// CLEANUP.
    CleanupRequest {
        /// The function's id or name; all functions when absent.
        function_id?: String,
        /// Number of newest versions that always stay; `versioning.keep_versions` when absent.
        #[schemars(range(min = 1, max = 10_000))]
        keep?: u32,
        /// Whether this is a dry run: the answer lists the versions that would be deleted.
        #[serde(default)]
        dry_run: bool,
    }
}

messages! {
    /// DELETE_VERSION.
    DeleteVersionRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A version label or a version number.
        version: VersionRef,
    }
    /// COMPARE_VERSIONS.
    CompareRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A version label, a version number or an alias.
        from: VersionRef,
        /// A version label, a version number or an alias.
        to: VersionRef,
    }
    /// CLEANUP.
    CleanupResponse {
        /// Sorted by name.
        functions: Vec<FunctionCleanup>,
        /// Size of the bundles that were deleted, or would be, in bytes.
        freed_bytes: u64,
        /// Whether this was a dry run, which deletes nothing.
        dry_run: bool,
    }
    /// Result of a cleanup for one function.
    FunctionCleanup {
        /// Name of the function.
        function: String,
        /// Id of the function.
        function_id: FunctionId,
        /// Versions that were deleted, or would be, newest first.
        removed: Vec<RemovedVersion>,
        /// Versions that stayed, newest first.
        kept: Vec<KeptVersion>,
    }
    /// A version that was deleted, or would be.
    RemovedVersion {
        /// Label of the version.
        version: VersionLabel,
        /// Number of the version.
        number: u32,
        /// Size of the bundle in bytes.
        size: u64,
    }
    /// A version that a cleanup kept.
    KeptVersion {
        /// Label of the version.
        version: VersionLabel,
        /// Number of the version.
        number: u32,
        /// Reasons why it stayed: `newest` for one of the newest versions, and each reference to it, such as `alias
        /// LIVE`.
        why: Vec<String>,
    }
    /// COMPARE_VERSIONS.
    CompareResponse {
        /// The first version.
        from: ComparedVersion,
        /// The second version.
        to: ComparedVersion,
        /// Whether both versions have the same files and the same entry file.
        same_code: bool,
        /// Settings that differ between the two publications, sorted by name.
        settings: Vec<SettingChange>,
        /// Files that differ, sorted by path.
        files: Vec<FileChange>,
        /// Whether parts are left out because the answer would be too large: diffs, each with a note, or whole files.
        truncated: bool,
    }
    /// Facts about one of two compared versions.
    ComparedVersion {
        /// Label of the version.
        version: VersionLabel,
        /// Number of the version.
        number: u32,
        /// SHA-256 digest of the bundle.
        digest: Digest,
        /// Size of the bundle in bytes.
        size: u64,
        /// When the version was published.
        created_at: Timestamp,
        /// Free text, given at deployment or changed later.
        description: Option<String>,
        /// Free labels, given at deployment or changed later.
        tags: Vec<String>,
        /// Git commit that the version was built from.
        git_commit: Option<String>,
        /// Git branch that the version was built from.
        git_branch: Option<String>,
        /// Bun version that the bundle was checked with.
        bun_version: String,
        /// Path of the file that is imported.
        entry: String,
        /// How the code was delivered: `upload`, `path`, `archive` or `build`.
        source: VersionSource,
    }
    /// A setting that differed when the two versions were published.
    SettingChange {
        /// Name of the setting.
        key: String,
        /// Value with the first version: a number, or the word of `network`.
        from: serde_json::Value,
        /// Value with the second version.
        to: serde_json::Value,
    }
    /// A file that differs between two versions.
    FileChange {
        /// Path of the file in the bundle.
        path: String,
        /// `added`, `removed`, `changed` or `renamed`.
        change: String,
        /// Path in the first version, if the file was renamed.
        renamed_from?: String,
        /// Size in the first version in bytes; absent if the file is not there.
        from_size: Option<u64>,
        /// Size in the second version in bytes; absent if the file is not there.
        to_size: Option<u64>,
        /// Whether the file is not text.
        binary: bool,
        /// Unified diff, as `diff -u` writes it.
        diff?: String,
        /// Reason why the diff of a text file is missing.
        note?: String,
    }
}
