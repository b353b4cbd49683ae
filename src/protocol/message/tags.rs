//! Message of TAG_VERSION.

use super::VersionRef;
use serde::{Deserialize, Serialize};

messages! {
    /// TAG_VERSION.
    TagVersionRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A version label, a version number or an alias.
        version: VersionRef,
        /// Tags to add; tags that the version has already are ignored.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
        add: Vec<String>,
        /// Tags to remove; tags that the version does not have are ignored.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remove: Vec<String>,
        /// New description; kept when absent, removed when empty.
        description?: String,
    }
}
