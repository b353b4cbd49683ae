//! What TAG_VERSION says.

use super::VersionRef;
use serde::{Deserialize, Serialize};

messages! {
    /// TAG_VERSION.
    TagVersionRequest {
        /// Id or name.
        function_id: String,
        /// A label, a number or an alias.
        version: VersionRef,
        /// Tags to add; those it has already are no error.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        add: Vec<String>,
        /// Tags to take away; those it does not have are no error.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remove: Vec<String>,
        /// Free text; as before when absent, nothing when empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
    }
}
