//! Messages of the commands about aliases.

use super::{SplitInfo, VersionRef, is_false};
use crate::model::{AliasName, EnvironmentName, FunctionId, Timestamp, VersionLabel};
use serde::{Deserialize, Serialize};

requests! {
    /// LIST_ALIASES.
    AliasesRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Only this alias.
        #[schemars(with = "Option<AliasName>")]
        alias?: String,
        /// Most aliases in the answer; 1000 when absent.
        #[schemars(range(min = 1, max = 1_000))]
        limit?: u32,
        /// The `next_cursor` of the previous page.
        cursor?: String,
    }
    /// DELETE_ALIAS.
    DeleteAliasRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Name of the alias; `LIVE` and `ROLLBACK` cannot be deleted.
        name: String,
    }
}

messages! {
    /// An alias.
    AliasInfo {
        /// Name of the alias.
        name: AliasName,
        /// The environment that the alias runs in.
        environment: String,
        /// Label of the version that the alias points at.
        version: VersionLabel,
        /// The alias's second version and its share of the invocations; absent without a traffic split.
        split?: SplitInfo,
    }
    /// SET_ALIAS.
    SetAliasRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Name of the alias, which is created if needed; `ROLLBACK` follows `LIVE` and cannot be set.
        #[schemars(length(max = 64), regex(pattern = "^[0-9]*[A-Za-z_-][A-Za-z0-9_-]*$"))]
        name: String,
        /// A version label, a version number, or another alias, which stands for its current target.
        version: VersionRef,
        /// The environment that the alias runs in. When absent, an existing alias keeps its environment, and a new one
        /// gets the one that its name implies, such as `staging` for `STAGING`.
        #[schemars(with = "Option<EnvironmentName>")]
        environment?: String,
        /// Purpose of the alias, as free text; kept when absent, removed when empty.
        description?: String,
        /// Reason, for the audit trail.
        reason?: String,
        /// Whether this is a dry run: everything is checked, no alias moves, and the answer holds the plan.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
    /// LIST_ALIASES.
    AliasesResponse {
        /// Sorted by name.
        aliases: Vec<AliasDetails>,
        /// The `cursor` of the next page; absent on the last page.
        next_cursor?: String,
    }
    /// An alias with its history.
    AliasDetails {
        /// Name of the alias.
        name: AliasName,
        /// The environment that the alias runs in.
        environment: EnvironmentName,
        /// Label of the version that the alias points at.
        version: VersionLabel,
        /// Number of that version.
        number: u32,
        /// The alias's second version and its share of the invocations; absent without a traffic split.
        split?: SplitInfo,
        /// The header or cookie that keeps a caller on one of two versions: `header:<name>` or `cookie:<name>`.
        sticky?: String,
        /// Label of the alias's previous version, which is the target of a rollback.
        previous_version: Option<VersionLabel>,
        /// Purpose of the alias, as free text.
        description: Option<String>,
        /// When the alias was last pointed at a version.
        updated_at: Timestamp,
    }
    /// DELETE_ALIAS.
    DeleteAliasResponse {
        /// Id of the function.
        function_id: FunctionId,
        /// Name of the deleted alias.
        name: String,
        /// The label it pointed at.
        version: VersionLabel,
    }
}
