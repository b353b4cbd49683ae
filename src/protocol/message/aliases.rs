//! What commands about aliases say and answer.

use super::{SplitInfo, VersionRef, is_false};
use crate::model::{AliasName, EnvironmentName, FunctionId, Timestamp, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// LIST_ALIASES.
    AliasesRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Aliases at most; 1000 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000))]
        limit: Option<u32>,
        /// The `next_cursor` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    }
    /// DELETE_ALIAS.
    DeleteAliasRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The alias; `LIVE` and `ROLLBACK` cannot be deleted.
        name: String,
    }
}

messages! {
    /// An alias.
    AliasInfo {
        /// Its name.
        #[schemars(with = "AliasName")]
        name: String,
        /// The environment it runs in.
        environment: String,
        /// The label it points at.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The second version, which has a share of its calls.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        split: Option<SplitInfo>,
    }
    /// SET_ALIAS.
    SetAliasRequest {
        /// Id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// The alias, made if there is none; `ROLLBACK` follows `LIVE` and cannot be set.
        #[schemars(length(max = 64), regex(pattern = "^[0-9]*[A-Za-z_-][A-Za-z0-9_-]*$"))]
        name: String,
        /// A label, a number, or another alias: what that points at now.
        version: VersionRef,
        /// The environment it runs in; when absent as before, for a new alias as its name says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        environment: Option<String>,
        /// What it is for; as before when absent, nothing when empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// Why, for the audit trail.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Check everything, move nothing, and say what would happen.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
    /// LIST_ALIASES.
    AliasesResponse {
        /// By name.
        aliases: Vec<AliasDetails>,
        /// What asks for the next page as its `cursor`; absent in the last one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    }
    /// An alias with its history.
    AliasDetails {
        /// Its name.
        #[schemars(with = "AliasName")]
        name: String,
        /// The environment it runs in.
        #[schemars(with = "EnvironmentName")]
        environment: String,
        /// The label it points at.
        #[schemars(with = "VersionLabel")]
        version: String,
        /// The number of that version.
        number: u32,
        /// The second version, which has a share of its calls.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        split: Option<SplitInfo>,
        /// What keeps a caller with one of the two: `header:<name>` or `cookie:<name>`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sticky: Option<String>,
        /// The label it pointed at before, where a rollback goes.
        #[schemars(with = "Option<VersionLabel>")]
        previous_version: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// When it was last pointed at a version.
        updated_at: Timestamp,
    }
    /// DELETE_ALIAS.
    DeleteAliasResponse {
        /// The function's id.
        #[schemars(with = "FunctionId")]
        function_id: String,
        /// The alias that is gone.
        name: String,
        /// The label it pointed at.
        #[schemars(with = "VersionLabel")]
        version: String,
    }
}
