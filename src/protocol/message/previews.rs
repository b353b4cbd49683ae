//! What commands about previews say and answer.

use super::is_false;
use crate::model::{AliasName, PreviewName, Timestamp, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// LIST_PREVIEWS.
    PreviewsRequest {
        /// Id or name of the one function it is about; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// Previews at most; 1000 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
        /// The `next_cursor` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    /// DELETE_PREVIEW.
    DeletePreviewRequest {
        /// The preview, without `preview-`.
        #[schemars(with = "PreviewName")]
        name: String,
        /// Id or name of the one function it is about; every function that has the preview when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
    }
    /// CLEANUP_PREVIEWS.
    CleanupPreviewsRequest {
        /// Id or name of the one function it is about; all functions when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        function_id: Option<String>,
        /// Also those that were not deployed for so long, such as `3d`; only what has expired when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = "^[0-9]{1,9}[smhd]$"))]
        older_than: Option<String>,
        /// Say what would go, delete nothing.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
}

messages! {
    /// LIST_PREVIEWS.
    PreviewsResponse {
        /// By function and name.
        previews: Vec<PreviewInfo>,
        /// What asks for the next page as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    /// A preview.
    PreviewInfo {
        /// The function's name.
        function: String,
        /// The function's id.
        #[schemars(length(min = 1))]
        function_id: String,
        /// What it is called.
        name: String,
        /// Its alias: `preview-` and the name.
        #[schemars(with = "AliasName")]
        alias: String,
        /// The environment it runs in.
        environment: String,
        /// The label it points at.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The number of that version.
        number: u32,
        /// Where it is over HTTP, by path; absent where HTTP is off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Where it is by a host name of its own; absent where the names do not make one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_url: Option<String>,
        /// When it goes by itself; absent where it does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
        /// When it was last pointed at a version.
        updated_at: Timestamp,
    }
    /// DELETE_PREVIEW and CLEANUP_PREVIEWS.
    RemovedPreviewsResponse {
        /// What went, or would.
        removed: Vec<PreviewInfo>,
        /// Whether nothing was deleted because only that was asked for.
        dry_run: bool,
    }
}
