//! What commands about old versions and differences of versions say and answer.

use super::VersionRef;
use crate::model::{Digest, FunctionId, Source, Timestamp, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// CLEANUP.
    CleanupRequest {
        /// Id or name; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function_id: Option<String>,
        /// The newest versions that stay whatever else; `versioning.keep_versions` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 10_000))]
        keep: Option<u32>,
        /// Say what would go, remove nothing.
        #[serde(default)]
        dry_run: bool,
    }
}

messages! {
    /// DELETE_VERSION.
    DeleteVersionRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A label, or a number.
        version: VersionRef,
    }
    /// COMPARE_VERSIONS.
    CompareRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A label, a number or an alias.
        from: VersionRef,
        /// The same.
        to: VersionRef,
    }
    /// CLEANUP.
    CleanupResponse {
        /// By name.
        functions: Vec<FunctionCleanup>,
        /// Bytes of the bundles that went, or would go.
        freed_bytes: u64,
        /// Whether nothing was removed because that was asked for.
        dry_run: bool,
    }
    /// What a cleanup did to one function.
    FunctionCleanup {
        /// Its name.
        function: String,
        /// Its id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// What went, newest first.
        removed: Vec<RemovedVersion>,
        /// What stayed, newest first.
        kept: Vec<KeptVersion>,
    }
    /// A version that went, or would go.
    RemovedVersion {
        /// Its label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// Its number.
        number: u32,
        /// Bytes of its bundle.
        size: u64,
    }
    /// A version that stayed.
    KeptVersion {
        /// Its label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// Its number.
        number: u32,
        /// `newest` when it is one of the newest, and what refers to it: `alias LIVE`, for example.
        why: Vec<String>,
    }
    /// COMPARE_VERSIONS.
    CompareResponse {
        /// The one side.
        from: ComparedVersion,
        /// The other side.
        to: ComparedVersion,
        /// Whether both have the same files and import the same one.
        same_code: bool,
        /// The settings of their days that differ, by name.
        settings: Vec<SettingChange>,
        /// The files that differ, by path.
        files: Vec<FileChange>,
        /// Whether the answer would have become too large: diffs are left out, each with a note, or even files.
        truncated: bool,
    }
    /// What is known of one side.
    ComparedVersion {
        /// Its label.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// Its number.
        number: u32,
        /// SHA-256 of its bundle.
        digest: Digest,
        /// Bytes of its bundle.
        size: u64,
        /// When it was published.
        created_at: Timestamp,
        /// Free text.
        description: Option<String>,
        /// Free labels.
        tags: Vec<String>,
        /// The commit it was built from.
        git_commit: Option<String>,
        /// The branch it was built from.
        git_branch: Option<String>,
        /// The Bun version it was checked with.
        bun_version: String,
        /// The file that is imported.
        entry: String,
        /// How its code came in.
        source: Source,
    }
    /// A setting that was another when the other side was published.
    SettingChange {
        /// Its name.
        key: String,
        /// On the one side: a number, or the word of `network`.
        from: serde_json::Value,
        /// On the other side.
        to: serde_json::Value,
    }
    /// A file that differs.
    FileChange {
        /// Its path in the bundle.
        path: String,
        /// `added`, `removed`, `changed` or `renamed`.
        change: String,
        /// The path it had before it was renamed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        renamed_from: Option<String>,
        /// Its bytes on the one side.
        from_size: Option<u64>,
        /// Its bytes on the other side.
        to_size: Option<u64>,
        /// Whether it is no text.
        binary: bool,
        /// The difference, as `diff -u` writes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        diff: Option<String>,
        /// Why the difference of a text is not there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }
}
