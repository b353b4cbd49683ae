//! Messages of the commands about previews.

use super::is_false;
use crate::model::{AliasName, PreviewName, Timestamp, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// LIST_PREVIEWS.
    PreviewsRequest {
        /// The function's id or name; all functions when absent.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Most previews in the answer; 1000 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
        /// The `next_cursor` of the previous page.
        cursor?: String,
    }
    /// DELETE_PREVIEW.
    DeletePreviewRequest {
        /// Name of the preview, without `preview-`.
        #[schemars(with = "PreviewName")]
        name: String,
        /// The function's id or name; every function that has the preview when absent.
        #[schemars(length(min = 1))]
        function_id?: String,
    }
    /// CLEANUP_PREVIEWS.
    CleanupPreviewsRequest {
        /// The function's id or name; all functions when absent.
        #[schemars(length(min = 1))]
        function_id?: String,
        /// Also delete previews without a deployment for this long, such as `3d`; only expired previews when absent.
        #[schemars(regex(pattern = "^[0-9]{1,9}[smhd]$"))]
        older_than?: String,
        /// Whether this is a dry run: the answer lists the previews that would be deleted.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
}

messages! {
    /// LIST_PREVIEWS.
    PreviewsResponse {
        /// Sorted by function and name.
        previews: Vec<PreviewInfo>,
        /// The `cursor` of the next page; absent on the last page.
        next_cursor?: String,
    }
    /// A preview.
    PreviewInfo {
        /// Name of the function.
        function: String,
        /// Id of the function.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Name of the preview.
        name: String,
        /// Alias of the preview: `preview-` and its name.
        alias: AliasName,
        /// The environment that the alias runs in.
        environment: String,
        /// Label of the version that the alias points at.
        version: VersionLabel,
        /// Number of that version.
        number: u32,
        /// URL of the preview, by path; absent if HTTP is off.
        url?: String,
        /// URL of the preview under its own host name; absent if its names do not form a host name.
        host_url?: String,
        /// When the preview expires; absent if it does not.
        expires_at?: Timestamp,
        /// When the alias was last pointed at a version.
        updated_at: Timestamp,
    }
    /// DELETE_PREVIEW and CLEANUP_PREVIEWS.
    RemovedPreviewsResponse {
        /// Previews that were deleted, or would be.
        removed: Vec<PreviewInfo>,
        /// Whether this was a dry run, which deletes nothing.
        dry_run: bool,
    }
}
