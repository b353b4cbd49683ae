//! Messages of the commands that promote versions.

use super::{ManifestChange, is_false};
use crate::model::{AliasName, EnvironmentName};
use serde::{Deserialize, Serialize};

requests! {
    /// PROMOTE.
    PromoteRequest {
        /// The function's id or name.
        #[schemars(length(min = 1))]
        function_id: String,
        /// Source: an environment or an alias; `staging` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        from: Option<String>,
        /// Target: an environment or an alias; `production` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        to: Option<String>,
        /// Alias in `to` to point at the version, created if needed. When absent, the alias that represents the
        /// environment: `LIVE`, `STAGING`, `DEV`, or the only one there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        alias: Option<String>,
        /// Alias in `from` whose version is promoted. When absent, the alias that represents the environment, as for
        /// `alias`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<AliasName>")]
        from_alias: Option<String>,
        /// Reason, for the audit trail, which records the source in any case.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether this is a dry run: everything is checked, no alias moves, and the answer holds the plan.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
    /// PROMOTE_ALL.
    PromoteAllRequest {
        /// Source environment; `staging` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        from: Option<String>,
        /// Target environment; `production` when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<EnvironmentName>")]
        to: Option<String>,
        /// Reason, for the audit trail, which records the source in any case.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Whether this is a dry run: the answer lists the changes, and nothing changes.
        #[serde(default, skip_serializing_if = "is_false")]
        dry_run: bool,
    }
}

messages! {
    /// PROMOTE_ALL.
    PromoteAllResponse {
        /// Source environment.
        from: String,
        /// Target environment.
        to: String,
        /// Whether this was a dry run, which changes nothing.
        dry_run: bool,
        /// Aliases that were changed, or would be, sorted by function.
        changes: Vec<ManifestChange>,
        /// Number of functions that had the same version in both already.
        unchanged: u32,
        /// Functions that run in `from` and were skipped.
        skipped: Vec<SkippedFunction>,
    }
    /// A function that was skipped.
    SkippedFunction {
        /// Name of the function.
        function: String,
        /// Reason why it was skipped.
        reason: String,
    }
}
