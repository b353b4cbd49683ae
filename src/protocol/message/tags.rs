//! What TAG_VERSION says.

use super::VersionRef;
use serde::{Deserialize, Serialize};

messages! {
    /// TAG_VERSION.
    TagVersionRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// A label, a number or an alias.
        version: VersionRef,
        /// Tags to add; those it has already are no error.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
        add: Vec<String>,
        /// Tags to take away; those it does not have are no error.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remove: Vec<String>,
        /// Free text; as before when absent, nothing when empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
    }
}
